"""Whose turn it is: priorities and pools; and runs that other runs wait for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support import (
    HandClock,
    Played,
    begin,
    graph,
    new_reactor,
    one,
    rows,
    settle_all,
    step,
    step_row,
)

from aglowd.handlers.run import Run
from aglowd.model import Done, Failed, Outcome, Seen, Spawn, StepView, Subject, Wait
from aglowd.pipeline import Pipeline
from aglowd.store.runs import Decision
from aglowd.store.store import Store

from .plays import STAGING, fails, run_row, says, states, until_seen

# --- order, pools and priorities


async def test_decisions_are_serial_within_a_run_and_side_by_side_between_runs(store: Store) -> None:
    pipeline = graph("p", step("a"), step("b"), step("c"))
    reactor = new_reactor(store, [Played()], pipeline)
    await begin(store, pipeline, "P1")
    await begin(store, pipeline, "P2")
    commits = store.db.commits
    assert [await reactor.decide_once() for _ in range(4)] == [2, 2, 2, 0]
    assert store.db.commits - commits <= 4, "decisions of several runs share a commit"


async def test_the_more_urgent_step_is_decided_first(store: Store) -> None:
    pipeline = graph("p", step("a"), step("b", priority=9), step("c", priority=3))
    played = Played()
    await begin(store, pipeline)
    await settle_all(new_reactor(store, [played], pipeline))
    assert played.asked == ["b", "c", "a"]


def pooled(name: str, priority: int = 0, **values: Any) -> Pipeline:
    return graph(name, step("a", pool="staging-{{ field.site }}", priority=priority, **values))


async def test_a_full_pool_lets_a_step_wait_and_a_free_place_goes_to_the_most_urgent(
    store: Store, clock: HandClock
) -> None:
    pipelines = [pooled("low"), pooled("high", 5), pooled("mid", 1)]
    reactor = new_reactor(store, [Played({"a": until_seen})], *pipelines, pools={"staging-sara": 1})
    runs = {}
    for name, pipeline in zip(("first", "low", "high", "mid"), [pipelines[0], *pipelines], strict=True):
        runs[name] = await begin(store, pipeline, name)
        await settle_all(reactor)
        clock.advance(1)
    row = await step_row(store, runs["low"], "a")
    assert (row["state"], row["reason"]) == ("ready", "pool staging-sara is full (1 of 1)")
    assert row["dirty"] is None
    assert (await store.status())["pools"] == {"staging-sara": 1}
    order = []
    for number in range(4):
        working = [name for name, run in runs.items() if (await states(store, run))["a"] == "waiting"]
        assert len(working) == 1, "the pool holds more than it has room for, or less"
        order += working
        # Observed: the one that has the place sees it and ends. The next one waits for the subject anew.
        await store.ingest("staging", None, [(STAGING, number)])
        (work,) = await store.next_dirty()
        assert work.run.id == runs[working[0]]
        await store.finish(Decision(work, Done(), pipelines[0]))
        assert len(await store.next_dirty()) == (number < 3)
        for next_work in await store.next_dirty():
            wait = Wait((STAGING,), "goes on", 600.0)
            await store.finish(Decision(next_work, wait, pipelines[0], "staging-sara", 1))
        for next_work in await store.next_dirty():
            await store.finish(Decision(next_work, wait, pipelines[0], "staging-sara", 1))
    assert order == ["first", "high", "mid", "low"]


async def test_a_full_pool_is_told_once_and_keeps_since(store: Store, clock: HandClock) -> None:
    pipeline = pooled("p")
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline, pools={"staging-sara": 1})
    for name in ("P1", "P2"):
        run = await begin(store, pipeline, name)
        await settle_all(reactor)
    before = await step_row(store, run, "a")
    clock.advance(5)
    await store._change(
        lambda db, now, changes: db.execute("UPDATE steps SET dirty = ?, wanted = wanted + 1 WHERE run = ?", (now, run))
    )
    assert await settle_all(reactor) == 1
    after = await step_row(store, run, "a")
    assert (after["since"], after["reason"]) == (before["since"], before["reason"])


async def test_a_retry_gives_its_place_back(store: Store, clock: HandClock) -> None:
    first, second = pooled("p", retries=1), pooled("q")

    def by_run(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Failed("no") if view.field == "P1" and view.attempt == 1 else until_seen(view, params, seen)

    reactor = new_reactor(store, [Played({"a": by_run})], first, second, pools={"staging-sara": 1})
    one_run, other = await begin(store, first, "P1"), await begin(store, second, "P2")
    await settle_all(reactor)
    assert (await states(store, one_run), await states(store, other)) == ({"a": "ready"}, {"a": "waiting"})
    clock.advance(300)
    await store.due()
    await settle_all(reactor)
    assert (await step_row(store, one_run, "a"))["reason"] == "pool staging-sara is full (1 of 1)"


@pytest.mark.parametrize("goes", ["at once", "to wait", "to another queue"])
async def test_who_was_called_for_a_free_place_and_goes_to_another_pool_hands_it_on(store: Store, goes: str) -> None:
    """Which pool a step asks for may change while it stands in a queue: with a reload, or with what is done beside it."""
    first, second, third = pooled("p", 9), pooled("q", 5), pooled("r")
    reactor = new_reactor(store, [Played({"a": until_seen})], first, second, third, pools={"staging-sara": 1})
    runs = [await begin(store, each, each.name) for each in (first, second, third)]
    await settle_all(reactor)
    assert [(await states(store, run))["a"] for run in runs] == ["waiting", "ready", "ready"]
    await store.ingest("staging", None, [(STAGING, 1)])
    (work,) = await store.next_dirty()
    await store.finish(Decision(work, Done(), first, "staging-sara", 1))
    (work,) = await store.next_dirty()
    assert work.run.id == runs[1]
    if goes == "to another queue":
        other = await begin(store, graph("x", step("a")), "x")
        taken = "UPDATE steps SET state = 'waiting', reason = 'x', due = 1e12, dirty = NULL, pool = 'elsewhere' WHERE run = ?"
        await store.db.write(lambda db: db.execute(taken, (other,)).rowcount)
    outcome = Done() if goes == "at once" else Wait((Subject("staging", "2"),), "request 2", 60.0)
    await store.finish(Decision(work, outcome, second, "elsewhere", 1))
    stands = {"at once": "done", "to wait": "waiting", "to another queue": "ready"}[goes]
    assert (await states(store, runs[1]))["a"] == stands
    assert [work.run.id for work in await store.next_dirty()] == [runs[2]], (
        "a place is free, and nobody is called for it"
    )


async def test_a_pool_without_a_limit_and_a_skipped_step_take_no_place(store: Store) -> None:
    pipeline = graph("p", step("a", pool="free"), step("b", pool="narrow", when=False), step("c", pool="narrow"))
    reactor = new_reactor(store, [Played({"a": until_seen, "c": until_seen})], pipeline, pools={"narrow": 1})
    run = await begin(store, pipeline)
    await settle_all(reactor)
    assert await states(store, run) == {"a": "waiting", "b": "skipped", "c": "waiting"}


# --- runs of their own


def child(view: StepView, params: Any, seen: Seen) -> Outcome:
    return until_seen(view, params, seen)


CHILD = graph("calibrator", step("reduce"), params=("obsid",), outputs={"solutions": "{{ steps.reduce.outputs.seen }}"})


def parent(share: str = "", **values: Any) -> Pipeline:
    params = {"pipeline": "calibrator", "share": share, "params": {"obsid": "L229587"}}
    return graph("target", step("cal", kind="run", params=params, **values), step("z", "cal"))


async def test_a_run_of_its_own_hands_its_outputs_back(store: Store) -> None:
    pipeline = parent()
    reactor = new_reactor(store, [Played({"reduce": child}), Run()], pipeline, CHILD)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    inner = await one(store, "SELECT * FROM runs WHERE id <> ?", run)
    assert (inner["key"], inner["field"]) == (f"{run}.cal.1", "P1+1")
    assert msgspec.json.decode(inner["params"]) == {"obsid": "L229587"}
    await store.ingest("staging", None, [(STAGING, "solved")])
    await settle_all(reactor)
    outputs = msgspec.json.decode((await step_row(store, run, "cal"))["outputs"])
    assert outputs == {"solutions": "solved", "run": inner["id"]}
    assert (await run_row(store, run))["state"] == "done"
    assert await store.count_runs_of("calibrator") == 1


async def test_shared_work_is_one_run_for_all_that_wait_for_it(store: Store) -> None:
    pipeline = parent("calibrator/L229587")
    reactor = new_reactor(store, [Played({"reduce": child}), Run()], pipeline, CHILD)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    await settle_all(reactor)
    assert await store.count_runs_of("calibrator") == 1
    await store.ingest("staging", None, [(STAGING, "solved")])
    await settle_all(reactor)
    assert [(await run_row(store, run))["state"] for run in runs] == ["done", "done"]
    late = await begin(store, pipeline, "P3")
    await settle_all(reactor)
    assert (await run_row(store, late))["state"] == "done"
    assert await store.count_runs_of("calibrator") == 1, "what is done already is done again"


async def test_the_failure_of_shared_work_reaches_all_and_one_retry_serves_all(store: Store, clock: HandClock) -> None:
    tries = iter([Failed("no solutions"), Done({"seen": "solved"})])
    pipeline = parent("calibrator/L229587", retries=1, retry_delay_s=60.0)
    reactor = new_reactor(store, [Played({"reduce": lambda *_: next(tries)}), Run()], pipeline, CHILD)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    await settle_all(reactor)
    for run in runs:
        row = await step_row(store, run, "cal")
        assert (row["state"], row["attempt"]) == ("ready", 2)
        assert "failed: reduce: no solutions" in row["reason"]
    clock.advance(60)
    await store.due()
    await settle_all(reactor)
    assert [(await run_row(store, run))["state"] for run in runs] == ["done", "done"]
    assert await store.count_runs_of("calibrator") == 2


async def test_without_a_retry_the_failure_of_shared_work_fails_all(store: Store) -> None:
    pipeline = parent("calibrator/L229587")
    reactor = new_reactor(store, [Played({"reduce": fails("no solutions")}), Run()], pipeline, CHILD)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    await settle_all(reactor)
    for run in runs:
        row = await run_row(store, run)
        assert row["state"] == "failed"
        assert row["reason"].endswith("failed: reduce: no solutions")


async def test_a_pipeline_that_is_not_there_is_a_fault_of_who_asks_for_it(store: Store) -> None:
    pipeline = graph("p", step("a"))
    run = await begin(store, pipeline)
    spawn = Spawn("k", "nowhere", {}, "waits", 60.0)
    await settle_all(new_reactor(store, [Played({"a": says(spawn)})], pipeline))
    assert (await step_row(store, run, "a"))["reason"].startswith("its handler raised: ")
    assert len(await rows(store, "SELECT * FROM runs")) == 1


async def test_two_keys_that_look_alike_give_two_runs(store: Store) -> None:
    pipeline = graph("p", step("a"))
    ids = [await begin(store, pipeline, key) for key in ("P1+1", "P1_1")]
    assert ids == ["P1_1-1", "P1_1-2"]
