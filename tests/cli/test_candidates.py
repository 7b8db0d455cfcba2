"""`aglowctl candidates`: who is next, and why each other field is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import graph, opened, step
from test_control import healthy

from aglowd.clock import Clock
from aglowd.control import Control
from aglowd.model import FieldView

from .test_aglowctl import Served

GRAPH = graph("p", step("s"))
SITES = {"sara": 1, "juelich": 5}


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with opened(tmp_path / "aglowd.db", Clock()) as store:
        views = (
            FieldView("runs", "SND", {}, (9, 9), "sara"),
            FieldView("waits", "SND", {}, (1, 0), "sara"),
            FieldView("next", "JND", {}, (0, 2), "juelich"),
            FieldView("unsaid", "SND"),
            FieldView("never", "SND", {}, (-1, 0)),
            FieldView("over\x1b[31m", "ZZZ"),
        )
        await store.put_fields([(view, "") for view in views])
        await store.admit(GRAPH, ["SND"], 1, SITES)
        path = tmp_path / "aglowd.sock"
        control = Control(
            store, healthy, store.clock, "1", candidates=lambda: store.candidates(["SND", "JND"], 2, SITES)
        )
        async with control.serve(path):
            yield Served(path, store)


async def test_candidates(served: Served) -> None:
    rc, out, err = await served.run("candidates", "--json")
    assert (rc, err) == (0, "")
    answer = json.loads(out)
    assert [one["field"] for one in answer["candidates"] if one["starts"]] == ["next"]
    assert (answer["running"], answer["max_fields"], answer["fields_at_once"]) == ({"sara": 1}, 2, SITES)
    rc, out, _ = await served.run("candidates")
    assert rc == 0
    head, _, _, *rows = out.splitlines()
    assert head == "1 of 2 fields under way: 1 at sara"
    told = {row.split()[1]: row for row in rows}
    assert list(told) == ["next", "waits", "unsaid", "never", "over"]
    assert "starts now" in told["next"]
    assert "its fields_at_once is 1" in told["waits"]
    assert "max_fields is 2" in told["unsaid"]
    assert "it is skipped" in told["never"]
    assert "its status is ZZZ" in told["over"]
    assert "\x1b" not in out
