"""Runs are cancelled in any state, in any order with what else happens, and by whoever waits for them last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from model.shore import MortalStore
from steered import Hand
from support import (
    Crash,
    FarSide,
    HandClock,
    Order,
    Played,
    Put,
    begin,
    do,
    effect_row,
    graph,
    new_engine,
    new_reactor,
    one,
    only_effect,
    perform_all,
    rows,
    settle_all,
    step,
    step_row,
)

from aglowd.effects.engine import Engine
from aglowd.errors import StaleVersion
from aglowd.handlers.run import Run
from aglowd.model import Do, Done, Failed, Outcome, Seen, StepView
from aglowd.pipeline import Pipeline
from aglowd.store.doubts import Word
from aglowd.store.plans import Refused
from aglowd.store.runs import Decision
from aglowd.store.store import Store

from .plays import STAGING, fails, run_row, states, until_seen

WHY = "cancelled by uid 1000: the parset was wrong"


def undo(view: StepView, params: Any, seen: Seen) -> Do | None:
    """What it left outside is taken back, once."""
    return Do.all(Put(what="undo", ordinal=9)) if seen.effect(Put, 9) is None else None


LONG = graph("p", step("a"), step("b", "a"), step("c", "b"), step("side", "a"))


async def test_a_waiting_step_is_asked_what_is_left_and_ends_when_that_is_done(
    store: Store, engine: Engine, world: FarSide
) -> None:
    reactor = new_reactor(store, [Played({"b": until_seen}, {"b": undo})], LONG)
    run, hand = await begin(store, LONG), Hand(store, LONG)
    await settle_all(reactor)
    assert await states(store, run) == {"a": "done", "b": "waiting", "c": "pending", "side": "done"}
    await hand("cancel", "P1+1")
    assert await states(store, run) == {"a": "done", "b": "waiting", "c": "cancelled", "side": "done"}
    assert (await run_row(store, run))["state"] == "running", "it has ended although a handler was not asked"
    await settle_all(reactor)
    assert (await step_row(store, run, "b"))["reason"] == "under way: put"
    assert await store.next_dirty() == []
    await perform_all(store, engine)
    await settle_all(reactor)
    assert [what for _, _, what, _ in world.things] == ["undo"]
    assert (await states(store, run))["b"] == "cancelled"
    row = await run_row(store, run)
    assert (row["state"], row["reason"]) == ("cancelled", WHY)
    assert await store.watched("staging") == []
    event = await one(store, "SELECT * FROM events WHERE kind = 'CancelOrdered'")
    data = msgspec.json.decode(event["data"])
    assert (event["run"], data["uid"], data["reason"]) == (run, 1000, "the parset was wrong")


async def test_what_has_not_begun_outside_is_withdrawn_and_what_has_ends_first(
    store: Store, engine: Engine, world: FarSide
) -> None:
    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": do(Put(what="x"), Order(what="y"))}, {"a": undo})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    put, order = f"{run}/a/1/put/0", f"{run}/a/1/order/0"
    assert [(await effect_row(store, key))["state"] for key in (put, order)] == ["open", "planned"]
    await hand("cancel", run)
    assert await store.next_dirty() == [], "a step with live effects is decided"
    await perform_all(store, engine)
    assert [(await effect_row(store, key))["state"] for key in (put, order)] == ["done", "rejected"]
    assert (await effect_row(store, order))["reason"] == "withdrawn before it was done"
    await settle_all(reactor)
    await perform_all(store, engine)
    await settle_all(reactor)
    assert [what for _, _, what, _ in world.things] == ["x", "undo"]
    assert (await run_row(store, run))["state"] == "cancelled"


async def test_an_effect_whose_outcome_is_not_known_is_looked_for_before_its_step_ends(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    pipeline = graph("p", step("a"))
    told: list[Any] = []

    def stop(view: StepView, params: Any, seen: Seen) -> None:
        told.append(seen.result(Put))

    reactor = new_reactor(store, [Played({"a": do(Put(what="x"))}, {"a": stop})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    world.moods.extend(["lost", "unknown"])
    await perform_all(store, engine)
    await hand("cancel", "P1+1")
    for _ in range(2):
        assert await settle_all(reactor) == 0
        assert (await states(store, run))["a"] == "working"
        clock.advance(60)
        await store.due()
        await perform_all(store, engine)
    await settle_all(reactor)
    assert told == [1], "the handler was asked before it could know what had happened"
    assert (await run_row(store, run))["state"] == "cancelled"
    assert world.truth(f"{run}/a/1/put/0") == 1


async def test_a_retry_delay_a_timeout_and_a_full_pool_end_with_it(store: Store, clock: HandClock) -> None:
    pipeline = graph(
        "p",
        step("delayed", retries=3, retry_delay_s=900.0),
        step("late", timeout_s=60.0, pool="one"),
        step("queued", pool="one"),
    )
    plays = {"delayed": fails("no"), "late": until_seen, "queued": until_seen}
    reactor = new_reactor(store, [Played(plays)], pipeline, pools={"one": 1})
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    assert await states(store, run) == {"delayed": "ready", "late": "waiting", "queued": "ready"}
    clock.advance(60)
    await store.due()
    assert (await step_row(store, run, "late"))["stopping"] == "timeout"
    await hand("cancel", run)
    assert await states(store, run) == {"delayed": "cancelled", "late": "waiting", "queued": "cancelled"}
    await settle_all(reactor)
    assert set((await states(store, run)).values()) == {"cancelled"}
    assert (await run_row(store, run))["reason"] == WHY
    assert await store.due() is None, "something is still timed"


async def test_a_handler_that_raises_when_it_is_stopped_holds_the_end_up_not_for_ever(
    store: Store, clock: HandClock
) -> None:
    def defect(view: StepView, params: Any, seen: Seen) -> None:
        raise RuntimeError("a defect")

    pipeline = graph("p", step("a", retries=5))
    reactor = new_reactor(store, [Played({"a": until_seen}, {"a": defect})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    await hand("cancel", run)
    for _ in range(3):
        await settle_all(reactor)
        clock.advance(60)
        await store.due()
    assert await states(store, run) == {"a": "cancelled"}
    assert (await run_row(store, run))["state"] == "cancelled"


async def test_what_failed_before_does_not_make_a_cancelled_run_a_failed_one(store: Store) -> None:
    pipeline = graph("p", step("bad"), step("b"))
    reactor = new_reactor(store, [Played({"bad": fails("no tape"), "b": until_seen})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    await hand("cancel", run)
    await settle_all(reactor)
    row = await run_row(store, run)
    assert (row["state"], row["reason"]) == ("cancelled", f"{WHY}; bad: no tape")


async def test_twice_too_late_and_of_nobody_is_refused(store: Store) -> None:
    reactor = new_reactor(store, [Played({"b": until_seen}, {"b": undo})], LONG)
    run, hand = await begin(store, LONG), Hand(store, LONG)
    await settle_all(reactor)
    await hand("cancel", run)
    with pytest.raises(Refused, match=re.escape(f"{run} is being cancelled already: {WHY}")):
        await hand("cancel", run)
    await settle_all(reactor)
    with pytest.raises(Exception, match="there is no field and no run 'P9'"):
        await hand("cancel", "P9")
    pipeline = graph("short", step("a"))
    other = await begin(store, pipeline, "P2")
    await settle_all(new_reactor(store, [Played()], pipeline))
    with pytest.raises(Refused, match=f"{other} is done: there is nothing to cancel"):
        await hand("cancel", "P2")
    assert len(await rows(store, "SELECT * FROM events WHERE kind = 'CancelOrdered'")) == 1


async def test_a_decision_that_was_made_before_comes_too_late(store: Store) -> None:
    pipeline = graph("p", step("a"), step("b"))
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    works = {work.step.name: work for work in [*await store.next_dirty()]}
    await hand("cancel", run)
    with pytest.raises(StaleVersion):
        await store.finish(Decision(works["a"], Done(), pipeline))
    assert (await run_row(store, run))["state"] == "cancelled", "nothing had begun: it ends at once"


# --- runs that wait for runs

CHILD = graph("calibrator", step("reduce"), step("after", "reduce"), params=("obsid",))


def parent(share: str = "") -> Pipeline:
    params = {"pipeline": "calibrator", "share": share, "params": {"obsid": "L229587"}}
    return graph("target", step("cal", kind="run", params=params), step("z", "cal"))


async def child_row(store: Store) -> dict[str, Any]:
    return await one(
        store, "SELECT r.* FROM runs AS r JOIN pipelines AS p ON p.digest = r.pipeline WHERE p.name = 'calibrator'"
    )


async def test_a_run_of_its_own_is_cancelled_with_its_parent_which_waits_for_its_end(
    store: Store, engine: Engine, world: FarSide
) -> None:
    pipeline = parent()
    reactor = new_reactor(store, [Played({"reduce": until_seen}, {"reduce": undo}), Run()], pipeline, CHILD)
    run, hand = await begin(store, pipeline), Hand(store, pipeline, CHILD)
    await settle_all(reactor)
    inner = (await child_row(store))["id"]
    plan = await hand.plan("cancel", run)
    assert [(one.run, one.why) for one in plan.runs] == [(run, ""), (inner, f"nobody else than {run} waits for it")]
    await hand("cancel", run)
    await settle_all(reactor)
    row = await step_row(store, run, "cal")
    assert (row["state"], row["reason"]) == (
        "waiting",
        f"waiting for the end of the run {inner}, which is being cancelled",
    )
    await perform_all(store, engine)
    await settle_all(reactor)
    assert [what for _, _, what, _ in world.things] == ["undo"]
    assert (await child_row(store))["state"] == "cancelled"
    assert (await child_row(store))["reason"] == f"nobody waits for it any more: {WHY}"
    row = await run_row(store, run)
    assert (row["state"], row["reason"]) == ("cancelled", WHY)


@pytest.mark.parametrize("together", [False, True])
async def test_shared_work_goes_on_until_the_last_who_waits_has_gone(store: Store, together: bool) -> None:
    pipeline = parent("calibrator/L229587")
    reactor = new_reactor(store, [Played({"reduce": until_seen}), Run()], pipeline, CHILD)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    hand = Hand(store, pipeline, CHILD)
    await settle_all(reactor)
    if together:
        assert len((await hand.plan("cancel", "P*")).runs) == 3
        await hand("cancel", "P*")
    else:
        assert [one.run for one in (await hand.plan("cancel", "P1")).runs] == [runs[0]]
        await hand("cancel", "P1")
        await settle_all(reactor)
        assert [(await run_row(store, run))["state"] for run in runs] == ["cancelled", "running"]
        assert (await child_row(store))["state"] == "running", "it was cancelled for the other, too"
        await hand("cancel", "P2")
    await settle_all(reactor)
    assert [(await run_row(store, run))["state"] for run in runs] == ["cancelled", "cancelled"]
    assert (await child_row(store))["state"] == "cancelled"


async def test_who_joins_shared_work_on_its_way_out_begins_it_anew(
    store: Store, engine: Engine, world: FarSide
) -> None:
    pipeline = parent("calibrator/L229587")
    reactor = new_reactor(store, [Played({"reduce": until_seen}, {"reduce": undo}), Run()], pipeline, CHILD)
    hand = Hand(store, pipeline, CHILD)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    await hand("cancel", "P1")
    late = await begin(store, pipeline, "P2")
    await settle_all(reactor)
    assert await store.count_runs_of("calibrator") == 1, "the same work is under way twice"
    await perform_all(store, engine)
    await settle_all(reactor)
    assert await store.count_runs_of("calibrator") == 2
    await store.ingest("staging", None, [(STAGING, "solved")])
    await settle_all(reactor)
    assert (await run_row(store, late))["state"] == "done"


async def test_shared_work_that_a_person_cancels_fails_for_all(store: Store) -> None:
    pipeline = parent("calibrator/L229587")
    reactor = new_reactor(store, [Played({"reduce": until_seen}), Run()], pipeline, CHILD)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    hand = Hand(store, pipeline, CHILD)
    await settle_all(reactor)
    await hand("cancel", (await child_row(store))["field"])
    await settle_all(reactor)
    for run in runs:
        row = await run_row(store, run)
        assert row["state"] == "failed"
        assert row["reason"].endswith(f"cancelled: {WHY}")


async def test_work_of_its_own_does_not_outlive_an_attempt_that_took_too_long(store: Store, clock: HandClock) -> None:
    params = {"pipeline": "calibrator", "params": {"obsid": "L1"}}
    pipeline = graph("target", step("cal", kind="run", params=params, timeout_s=60.0, retries=1, retry_delay_s=10.0))
    reactor = new_reactor(store, [Played({"reduce": until_seen}), Run()], pipeline, CHILD)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    inner = (await child_row(store))["id"]
    clock.advance(60)
    await store.due()
    await settle_all(reactor)
    assert (await run_row(store, inner))["state"] == "cancelled"
    clock.advance(10)
    await store.due()
    await settle_all(reactor)
    found = await rows(store, "SELECT key, state FROM runs WHERE id <> ? ORDER BY key", run)
    assert [(row["key"], row["state"]) for row in found] == [
        (f"{run}.cal.1", "cancelled"),
        (f"{run}.cal.2", "running"),
    ]


# --- kills between


def cautious(view: StepView, params: Any, seen: Seen) -> Outcome:
    """One effect, then a wait."""
    if seen.effect(Put) is None:
        return Do.all(Put(what="made"))
    return Failed("refused") if seen.rejected() else until_seen(view, params, seen)


async def test_a_kill_at_any_commit_of_a_cancellation_changes_nothing(in_memory: Path) -> None:
    """The process dies before or after each commit from the command on, once each."""
    pipeline = parent()
    number, died = 0, True
    while died:
        number += 1
        for after in (False, True):
            died = await _cancel_and_die(in_memory / f"{number}-{after}.db", pipeline, number, after)
    assert number > 6


async def _cancel_and_die(path: Any, pipeline: Pipeline, number: int, after: bool) -> bool:
    clock = HandClock()
    store = MortalStore(path, clock)  # type: ignore[arg-type] # Its clock is only asked for the time.
    await store.open()
    world = FarSide(clock, path)
    played = Played({"reduce": cautious}, {"reduce": undo})

    async def go_on() -> None:
        reactor, engine = new_reactor(store, [played, Run()], pipeline, CHILD), new_engine(store, world)
        for _ in range(12):
            await settle_all(reactor)
            await perform_all(store, engine)
            clock.advance(30)
            await store.due()

    run = await begin(store, pipeline)
    await go_on()
    store.dies_in, store.dies_after = number, after
    died = False
    for _ in range(3):
        try:
            found = await rows(store, "SELECT stopping FROM runs WHERE id = ?", run)
            if not found[0]["stopping"]:
                await Hand(store, pipeline, CHILD)("cancel", run)
            await go_on()
            break
        except Crash:
            died = True
            await store.drop()
            store = MortalStore(path, clock)  # type: ignore[arg-type] # As above.
            await store.open()
    ends = await rows(store, "SELECT state FROM runs")
    assert [row["state"] for row in ends] == ["cancelled", "cancelled"]
    assert sorted(what for _, _, what, _ in world.things) == ["made", "undo"]
    assert len(await rows(store, "SELECT * FROM events WHERE kind = 'CancelOrdered' AND run = ?", run)) == 1
    assert await store.next_effects((), 10) == []
    await store.drop()
    return died


async def test_a_doubt_holds_the_end_up_and_says_so(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": do(Put(what="x"))})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    world.moods.extend(["unknown"] * 9)
    for _ in range(9):
        await perform_all(store, engine)
        clock.advance(4000)
        await store.due()
    await hand("cancel", run)
    await settle_all(reactor)
    live = await only_effect(store)
    assert live.record.state == "doubt"
    answer = await store.explain("P1+1")
    assert answer is not None
    (entry,) = answer["steps"]
    assert entry["state"] == "working"
    assert "aglowctl doubt adopt" in entry["next"]
    await store.forget(live, Word(1, "never arrived"))
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "cancelled"
