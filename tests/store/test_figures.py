"""The numbers of the metrics: right, and at a price that does not grow with the history."""

from __future__ import annotations

import re
import sqlite3

from support import (
    FarSide,
    HandClock,
    Played,
    Put,
    begin,
    graph,
    new_engine,
    new_reactor,
    perform_all,
    settle_all,
    step,
)

from aglowd.model import Do, FieldView, Json, Outcome, Seen, StepView, Subject, Wait
from aglowd.store import figures
from aglowd.store.db import queries
from aglowd.store.store import Store

GROWS = ("runs", "steps", "effects", "events", "subjects", "waits")
"""Tables from which nothing is ever taken out."""


def subjects(field: str) -> tuple[Subject, ...]:
    return (
        Subject("locality", f"{field}/1", {"site": "sara", "surls": ["a", "b"]}),
        Subject("tokens", "both"),
        Subject("job", f"{field}-job@juelich", {"site": "juelich"}),
        Subject("job", f"{field}-plain"),
        Subject("job", f"{field}-new"),
    )


def wait(view: StepView, params: object, seen: Seen) -> Outcome:
    return Wait(subjects(view.field), "waits", 600.0)


SEEN: dict[str, Json] = {
    "locality": {"missing": ["a"], "counts": {"ONLINE": 188, "NEARLINE": 56}},
    "tokens": {"todo": 3, "locked": 2, "done": 5, "error": 0, "other": 0, "said": "x"},
    "job": {"state": "running", "nodes": {"n1": "running", "n2": "running", "n3": "done_ok"}},
}


async def test_what_is_at_work_is_counted(store: Store, clock: HandClock) -> None:
    line = graph("line", step("a"), step("b", "a"))
    reactor = new_reactor(store, [Played({"a": wait})], line)
    await store.put_fields([(FieldView("P0", "ZZZ"), "")])
    for field in ("P1", "P2"):
        await begin(store, line, field)
    await settle_all(reactor)
    for kind, data in SEEN.items():
        those = [one for field in ("P1", "P2") for one in subjects(field) if one.kind == kind and "new" not in one.id]
        bare = {"state": "waiting", "nodes": {}}
        await store.ingest(kind, None, [(one, bare if "plain" in one.id else data) for one in those])
    began = clock.now()
    clock.advance(50)
    await settle_all(reactor)
    found = await store.figures()
    assert found.fields == {"offered": 1}
    assert found.waits == {"played": figures.Waits(2, began)}
    assert found.files == {"sara": figures.Files(2 * 244, 2 * 188)}
    assert found.tokens == {("", "done"): 5, ("", "error"): 0, ("", "locked"): 2, ("", "other"): 0, ("", "todo"): 3}
    assert found.pilots == {
        ("", "unknown"): 2,
        ("", "waiting"): 2,
        ("juelich", "done_ok"): 2,
        ("juelich", "running"): 4,
    }
    assert found.size_bytes["database"] > 0
    assert found.size_bytes.keys() == {"database", "wal"}
    assert 0 < found.disk_free_bytes <= found.disk_bytes


async def test_what_nobody_waits_for_any_more_is_not_counted(store: Store) -> None:
    line = graph("line", step("a"))
    played = Played({"a": wait})
    reactor = new_reactor(store, [played], line)
    await begin(store, line, "P1")
    await settle_all(reactor)
    played.plays.clear()
    await store.ingest("tokens", None, [(Subject("tokens", "both"), SEEN["tokens"])])
    await settle_all(reactor)
    found = await store.figures()
    assert (found.waits, found.files, found.tokens, found.pilots) == ({}, {}, {}, {})


async def test_effects_are_counted_where_they_stand_and_as_they_end(store: Store, world: FarSide) -> None:
    line = graph("line", step("a"))

    def put(view: StepView, params: object, seen: Seen) -> Outcome:
        return Do.all(Put(what="one"), Put(what="two", ordinal=1))

    reactor, engine = new_reactor(store, [Played({"a": put})], line), new_engine(store, world)
    await begin(store, line, "P1")
    await settle_all(reactor)
    assert (await store.figures()).effects == {("put", "open"): 2}
    world.moods.extend(["unknown", "well"])
    await perform_all(store, engine)
    assert (await store.figures()).effects == {("put", "unknown"): 1}
    assert store.outcomes == {("put", "unknown"): 1, ("put", "done"): 1}


async def test_no_figure_reads_a_table_that_only_grows(store: Store) -> None:
    def plans(db: sqlite3.Connection) -> dict[str, list[str]]:
        return {
            name: [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {queries()[name]}")]
            for name in figures.READ
        }

    for name, plan in (await store.db.read(plans)).items():
        aliases = dict(re.findall(r"\b(\w+) AS (\w)\b", queries()[name]))
        grown = {*GROWS, *(aliases.get(table, "") for table in GROWS)} - {""}
        for line in plan:
            scan = re.match(r"SCAN (\w+)(.*)", line)
            # A partial index holds only what is at work.
            if scan and scan[1] in grown:
                assert re.search(r"USING (COVERING )?INDEX (steps_due|effects_live|steps_pool)\b", scan[2]), (
                    name,
                    line,
                )
            assert "subjects_kind" not in line, (name, line)
