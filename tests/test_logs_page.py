"""docs/logs.md explains every event that the code logs, at the level at which it does, and none that is gone."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error"}
IS_LOG = re.compile(r"(^|\.)_?log$")
"""What a logger is called everywhere: `self._log`, `self.log`, `log`."""


def calls(path: Path) -> Iterator[tuple[ast.Call, str]]:
    """Every call of a logger's method in the file, with its level."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in LEVELS
            and IS_LOG.search(ast.unparse(node.func.value))
        ):
            yield node, LEVELS[node.func.attr]


def logged() -> dict[str, set[str]]:
    """Event → the levels at which it is logged."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / "aglowd").rglob("*.py")):
        if path.relative_to(ROOT / "aglowd").parts[0] in ("sim", "launcher"):
            continue
        for call, level in calls(path):
            event = call.args[0]
            where = f"{path.relative_to(ROOT)}:{call.lineno}"
            assert isinstance(event, ast.Constant), f"{where}: the name of an event is a word that one can search for"
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", str(event.value)), f"{where}: {event.value!r}"
            found[str(event.value)].add(level)
    return found


def test_every_event_is_explained_and_none_that_is_gone() -> None:
    text = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+(?:, \w+)*) \| (.+?) \| (.+?) \|$", text, flags=re.MULTILINE)
    listed = {name: set(levels.split(", ")) for name, levels, _, _ in rows}
    assert len(rows) == len(listed), "an event stands there twice"
    from_libraries = {"library_message": {"any"}}
    assert listed == {**logged(), **from_libraries}
    assert [name for name, _, _, _ in rows] == sorted(listed)
    assert len(listed) > 50


def test_every_logger_is_called_as_one() -> None:
    """Else its events would be in no list."""
    for path in sorted((ROOT / "aglowd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and "structlog.get_logger(" in ast.unparse(node.value):
                (target,) = node.targets
                assert IS_LOG.search(ast.unparse(target)), f"{path}:{node.lineno}: {ast.unparse(target)}"
