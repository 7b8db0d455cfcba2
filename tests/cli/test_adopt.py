"""`aglowctl adopt`, as a process of its own, in front of a real store, adoption and socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
from populated import healthy
from support import graph, opened, rows, step

from aglowd.adoption import Adoption
from aglowd.cli.client import Client
from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.errors import AglowError
from aglowd.model import FieldView
from aglowd.selection import Limits

from .test_aglowctl import Served

LINE = msgspec.structs.replace(
    graph("line", step("claim"), step("solve", "claim")),
    adopt={"claimed": {}, "calibrated": {"claim": {}, "solve": {"solutions": "{{ given.solutions }}"}}},
)
WORDS = {"claimed": "AAA", "calibrated": "CCC"}


class Rows:
    """A catalogue that says what it said."""

    async def read_status(self, name: str) -> tuple[str, str | None]:
        return "AAA" if name == "P1" else "CCC", None

    async def holder(self, name: str) -> str:
        return ""


def nowhere(site: str) -> None:
    raise AssertionError(f"tokens of {site!r} were asked for")


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Served]:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(tmp_path / "aglowd.db", Clock()))
        adoption = Adoption(store, LINE, WORDS, {}, nowhere, Rows(), None, Limits(10))  # type: ignore[arg-type] # It gives none.
        control = Control(store, healthy, store.clock, "1", adoption=adoption)
        path = tmp_path / "aglowd.sock"
        await stack.enter_async_context(control.serve(path))
        fields = (("P1", "AAA"), ("P2", "CCC"), ("P3", "CCC"))
        await store.put_fields([(FieldView(name, status), "") for name, status in fields])
        yield Served(path, store)


async def test_what_is_shown_first_is_what_is_done(daemon: Served) -> None:
    asked = ("adopt", "P*", "--given", "solutions=srm://{{ field.name }}", "--reason", "AGLOW is stopped")
    code, out, _ = await daemon.run(*asked, "--dry-run")
    assert (code, out.splitlines()) == (
        0,
        [
            "P1 at AAA would be taken over by P1-1",
            "  done already: nothing",
            "P2 at CCC would be taken over by P2-1",
            "  done already: claim, solve",
            "P3 at CCC would be taken over by P3-1",
            "  done already: claim, solve",
        ],
    )
    assert await rows(daemon.store, "SELECT * FROM runs") == []
    code, out, _ = await daemon.run(*asked, "--status", "CCC", "--yes", "--json")
    answer = json.loads(out)
    assert (code, answer["schema"], answer["done"]) == (0, 1, True)
    assert [one["steps"]["solve"] for one in answer["fields"]] == [
        {"solutions": "srm://P2"},
        {"solutions": "srm://P3"},
    ]
    assert {row["id"] for row in await rows(daemon.store, "SELECT id FROM runs")} == {"P2-1", "P3-1"}


async def test_a_status_alone_means_all_that_are_in_it(daemon: Served) -> None:
    code, out, err = await daemon.run("adopt", "--status", "AAA", "--dry-run")
    assert (code, out.splitlines()[0], err) == (0, "P1 at AAA would be taken over by P1-1", "")
    assert "P2" not in out
    with pytest.raises(AglowError, match="expected a name, a pattern or a state"):
        await asyncio.to_thread(Client(str(daemon.path)).post, "v1", "adopt", dry_run=True)


async def test_what_is_left_is_named_with_its_reason(daemon: Served) -> None:
    code, out, _ = await daemon.run("adopt", "P*", "--yes")
    assert code == 0
    assert "P1 at AAA is taken over by P1-1" in out
    assert "P2 is left alone: at CCC it takes more than is given (--given NAME=VALUE)" in " ".join(out.split())
    code, _, err = await daemon.run("adopt", "P2", "--yes")
    assert code == 1
    assert "nothing is taken over: P2: at CCC it takes more than is given" in err


@pytest.mark.parametrize(
    "args", [("adopt",), ("adopt", ""), ("adopt", "P1", "--given", "solutions"), ("adopt", "P1", "--tokens", "=x")]
)
async def test_wrong_usage(daemon: Served, args: tuple[str, ...]) -> None:
    code, _, err = await daemon.run(*args)
    assert code == 2
    assert "Usage: " in err
    assert await rows(daemon.store, "SELECT * FROM runs") == []
