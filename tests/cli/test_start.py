"""What aglowctl imports before it answers: counted, because time depends on the machine. Tab waits for the same imports."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterable

import click
import pytest

from aglowd.cli import lazy
from aglowd.cli.control import COMMANDS, main

from .test_aglowctl import Served, served  # noqa: F401 # A fixture.

CODE = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
{}
"""
ASKS = "from aglowd.cli.control import main; main(prog_name='aglowctl')"
OURS = frozenset(
    {"aglowd", "aglowd.cli", *(f"aglowd.cli.{name}" for name in ("client", "control", "exits", "lazy"))}
) | {*("aglowd.cli.render", "aglowd.cli.shared", "aglowd.durations", "aglowd.errors")}
"""Modules of ours that every command has."""
SEVERAL = frozenset({"aglowd.choice", "aglowd.cli.choose", "aglowd.cli.complete", "aglowd.cli.past", "aglowd.cli.now"})
LIGHT = frozenset(
    {"aglowd", "click", "datetime", "fnmatch", "http", "json", "locale", "math", "shlex", "textwrap", "urllib"}
)
"""Packages, beside those that click imports, that cost next to nothing."""


def modules(code: str, *args: str, **env: str) -> frozenset[str]:
    """All modules that are imported when that ends; private ones are left out."""
    argv = [sys.executable, "-c", CODE.format(code), *args]
    done = subprocess.run(
        argv,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return frozenset(name for name in done.stderr.splitlines()[-1].split() if not name.startswith("_"))


def packages(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def ours(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "aglowd"}


CLICK = modules("import click")
HTTP = modules("import http.client")


def tab(line: str, path: object) -> dict[str, str]:
    """What bash sets when Tab is pressed behind that line."""
    words = str(len(line.split()) - (not line.endswith(" ")))
    return {"_AGLOWCTL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": words, "AGLOWD_SOCKET": str(path)}


@pytest.mark.parametrize(
    ("words", "line", "more"),
    [
        (("help", "exit-codes"), "", {"aglowd.cli.topics"}),
        ((), "aglowctl help exit", {"aglowd.cli.topics"}),
        ((), "aglowctl sho", SEVERAL),
        ((), "aglowctl show --st", SEVERAL),
        ((), "aglowctl canc", {"aglowd.choice", "aglowd.cli.choose", "aglowd.cli.complete", "aglowd.cli.steer"}),
    ],
)
def test_who_asks_nobody_imports_no_more_than_that_needs(
    words: tuple[str, ...], line: str, more: frozenset[str]
) -> None:
    found = modules(ASKS, *words, **(tab(line, "/nowhere") if line else {}))
    assert ours(found) == OURS | more
    assert packages(found) - packages(CLICK) <= LIGHT
    assert "http.client" not in found


@pytest.mark.parametrize(("words", "line"), [(("status",), ""), (("explain", "P229+62"), ""), ((), "aglowctl show P")])
async def test_who_asks_imports_http_and_nothing_heavy_beside_it(
    served: Served,  # noqa: F811
    words: tuple[str, ...],
    line: str,
) -> None:
    env = tab(line, served.path) if line else {"AGLOWD_SOCKET": str(served.path)}
    found = await asyncio.to_thread(modules, ASKS, *words, **env)
    assert ours(found) == OURS | SEVERAL | {"aglowd.cli.connection"}
    assert packages(found) - packages(CLICK) - packages(HTTP) <= LIGHT


def test_no_command_begins_with_what_is_heavy() -> None:
    found = modules(ASKS, "--help")
    assert {place.partition(":")[0] for place in COMMANDS.values()} <= found, "all are imported for that"
    assert {"aiohttp", "asyncio", "jinja2", "msgspec", "rich", "sqlite3", "structlog"}.isdisjoint(packages(found))


def test_each_command_stands_where_the_table_says_and_has_its_name_and_example() -> None:
    assert len(COMMANDS) == len(main.commands) > 40
    for name, command in main.commands.items():
        assert command.name == name
        assert command.epilog is not None
        assert command.epilog.startswith("\b\nExample: aglowctl ")


def test_a_lazy_group_is_like_any_other() -> None:
    commands = lazy.Commands({"status": "aglowd.cli.now:status"})
    group = click.Group("some", commands=commands)
    group.add_command(click.Command("more"))
    assert group.list_commands(click.Context(group)) == ["more", "status"]
    assert group.get_command(click.Context(group), "status") is commands["status"] is commands["status"]
    assert group.get_command(click.Context(group), "none") is None
    del commands["status"]
    assert [*commands] == ["more"]
