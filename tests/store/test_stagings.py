"""Stagings that people ask for: who asks for the same files joins, and no file is in two of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import HandClock, decide, graph, one, opened, rows, step

from aglowd.errors import AglowError
from aglowd.model import Done, Failed, FieldView, Subject, Wait
from aglowd.store import stagings
from aglowd.store.stagings import Wanted
from aglowd.store.store import Store

STAGE = graph("stage", step("stage"), outputs={})
DAY_S = 86_400.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "aglowd.db", HandClock()) as made:
        yield made


def wanted(name: str, *surls: str) -> Wanted:
    return Wanted(name, "sara", surls, 7 * DAY_S)


async def begin(store: Store, *all_wanted: Wanted) -> list[tuple[str, bool]]:
    return [(found["run"], found["joined"]) for found in await store.begin_stagings(STAGE, all_wanted, 7)]


async def test_a_list_that_is_being_staged_is_joined(store: Store) -> None:
    assert await begin(store, wanted("x", "a", "b")) == [("stage_x-1", False)]
    assert await begin(store, wanted("x", "b", "a")) == [("stage_x-1", True)]
    assert await begin(store, wanted("y", "a")) == [("stage_x-1", True)], "all of it is in there"
    assert len(await rows(store, "SELECT * FROM runs")) == 1
    events = await rows(store, "SELECT * FROM events WHERE kind = 'StagingOrdered'")
    assert [json.loads(event["data"])["joined"] for event in events] == [False, True, True]
    assert {(event["field"], json.loads(event["data"])["uid"]) for event in events} == {("stage/x", 7)}


async def test_a_file_is_in_one_running_staging(store: Store) -> None:
    await begin(store, wanted("x", "a", "b"))
    with pytest.raises(AglowError, match=r"1 of the 2 files at sara are being staged by stage/x, b among them"):
        await begin(store, wanted("fine", "z"), wanted("y", "b", "c"))
    assert [run["field"] for run in await rows(store, "SELECT * FROM runs")] == ["stage/x"], "nothing was begun"
    with pytest.raises(AglowError, match="stage/x stages other files now"):
        await begin(store, wanted("x", "c"))
    assert await begin(store, wanted("y", "c")) == [("stage_y-1", False)]


@pytest.mark.parametrize("outcome", [Done({}), Failed("three files are lost", final=True)])
async def test_what_has_ended_is_staged_anew(store: Store, outcome: Done | Failed) -> None:
    await begin(store, wanted("x", "a", "b"))
    await decide(store, STAGE, outcome)
    assert await begin(store, wanted("x", "a", "b")) == [("stage_x-2", False)]


async def test_a_staging_is_shown_as_a_field_is(store: Store) -> None:
    await store.put_fields([(FieldView("P1", "SND"), "")])
    await begin(store, wanted("x", "a", "b"))
    await decide(store, STAGE, Wait((Subject("locality", "stage_x-1/stage/1/0.0"),), "looking", 60.0))
    shown = await store.field("stage/x")
    assert shown is not None
    assert (shown["state"], shown["catalogue_status"], len(shown["runs"])) == ("running", None, 1)
    why = await store.explain("stage/x")
    assert why is not None
    assert [(one["step"], one["reason"]) for one in why["steps"]] == [("stage", "looking")]
    await store.ingest("test", None, [(Subject("locality", "stage_x-1/stage/1/0.0"), {"counts": {"ONLINE": 2}})])
    await decide(store, STAGE, Done({}))
    shown = await store.field("stage/x")
    assert shown is not None
    assert shown["state"] == "done", "nothing was archived"
    assert [field["field"] for field in await store.fields()] == ["P1"]
    assert await store.field("stage/y") is None


async def test_how_it_stands_is_told_by_the_last_look(store: Store) -> None:
    await begin(store, wanted("x", "a", "b"), wanted("x1", "c"))
    run = await one(store, "SELECT * FROM runs WHERE field = 'stage/x'")
    first = await store.stagings("x")
    assert [(entry["run"], entry["online"], entry["files"]) for entry in first] == [("stage_x-1", 0, 2)]
    looks = [Subject("locality", f"{run['id']}/stage/1/{occasion}") for occasion in ("0.0", "1.0")]
    (work,) = [work for work in await store.next_dirty() if work.run.id == run["id"]]
    await decide(store, STAGE, Wait(tuple(looks), "looking", 60.0), work)
    for online, look in enumerate(looks, start=1):
        store.clock.advance(10.0)  # type: ignore[attr-defined]
        await store.ingest("test", None, [(look, {"counts": {"ONLINE": online, "NEARLINE": 2 - online}})])
    (entry,) = await store.stagings("x")
    assert (entry["online"], entry["counts"]) == (2, {"ONLINE": 2, "NEARLINE": 0})
    assert entry["pinned_until"] is None
    assert [found["name"] for found in await store.stagings()] == ["x1", "x"]
    assert await store.stagings("?") == []
    assert await store.stagings("*") == []


async def test_an_answer_holds_the_latest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stagings, "MAX_STAGINGS", 2)
    for name in ("x", "y", "z"):
        store.clock.advance(1.0)  # type: ignore[attr-defined]
        await begin(store, wanted(name, name))
    assert [found["name"] for found in await store.stagings()] == ["z", "y"]
