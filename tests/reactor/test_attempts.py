"""Attempts, their effects, and handlers with defects: each fails its own run and no other."""

from __future__ import annotations

from typing import Any

import pytest
from support import (
    FarSide,
    HandClock,
    Order,
    Played,
    Put,
    begin,
    do,
    graph,
    kinds_of_events,
    new_reactor,
    perform_all,
    rows,
    settle_all,
    step,
    step_row,
)

from aglowd.effects.engine import Engine
from aglowd.model import Do, Done, Handler, Outcome, Seen, StepView, Wait
from aglowd.reactor import FAULT_RETRY_S
from aglowd.store.runs import MAX_FAULTS, Decision
from aglowd.store.store import Store

from .plays import STAGING, fails, raises, run_row, says, states, until_seen

# --- attempts


async def test_a_failed_attempt_is_repeated_after_its_delay_as_often_as_it_may(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a", retries=2, retry_delay_s=100.0))
    reactor = new_reactor(store, [Played({"a": fails("bad luck")})], pipeline)
    run = await begin(store, pipeline)
    for attempt in (1, 2):
        await settle_all(reactor)
        row = await step_row(store, run, "a")
        assert (row["state"], row["attempt"]) == ("ready", attempt + 1)
        assert row["reason"] == f"attempt {attempt} of 3 failed: bad luck"
        assert await store.due() == clock.now() + 100
        assert await settle_all(reactor) == 0, "the delay is not kept"
        clock.advance(100)
        await store.due()
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"], row["reason"]) == ("failed", 3, "bad luck")


async def test_a_final_failure_is_not_repeated(store: Store) -> None:
    pipeline = graph("p", step("a", retries=2))
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played({"a": fails(final=True)})], pipeline))
    assert (await states(store, run))["a"] == "failed"


async def test_a_new_attempt_has_effects_and_observations_of_its_own(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    def play(view: StepView, params: Any, seen: Seen) -> Outcome:
        if view.attempt == 1 and seen.of(STAGING) is None:
            return Wait((STAGING,), "looks", 600.0)
        assert view.attempt == 1 or not seen.observations
        return do(Put(what="a"))(view, params, seen)

    pipeline = graph("p", step("a", retries=1))
    reactor = new_reactor(store, [Played({"a": play})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    await store.ingest("staging", None, [(STAGING, 1)])
    world.moods.append("permanent")
    await settle_all(reactor)
    await perform_all(store, engine)
    await settle_all(reactor)
    clock.advance(300)
    await store.due()
    await settle_all(reactor)
    await perform_all(store, engine)
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "done"
    found = await rows(store, "SELECT key, state FROM effects ORDER BY key")
    assert [(row["key"], row["state"]) for row in found] == [
        (f"{run}/a/1/put/0", "rejected"),
        (f"{run}/a/2/put/0", "done"),
    ]


async def test_an_attempt_that_takes_too_long_is_stopped_and_then_fails(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    def undo(view: StepView, params: Any, seen: Seen) -> Do | None:
        return Do.all(Put(what="undo")) if seen.effect(Put) is None else None

    pipeline = graph("p", step("a", timeout_s=3600.0, retries=1, retry_delay_s=0.0))
    reactor = new_reactor(store, [Played({"a": until_seen}, {"a": undo})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    clock.advance(3600)
    await store.due()
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["state"], row["stopping"], row["reason"]) == ("working", "timeout", "under way: put")
    await perform_all(store, engine)
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"], row["stopping"]) == ("ready", 2, "")
    assert row["reason"].startswith("attempt 1 of 2 failed: not done within 1h; last: ")
    await store.due()
    await settle_all(reactor)
    assert (await step_row(store, run, "a"))["deadline"] == clock.now() + 3600
    assert [what for _, _, what, _ in world.things] == ["undo"]


async def test_an_attempt_with_nothing_to_undo_fails_at_its_timeout(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a", timeout_s=90.0))
    run = await begin(store, pipeline)
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline)
    await settle_all(reactor)
    clock.advance(90)
    await store.due()
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["state"], row["deadline"], row["due"]) == ("failed", None, None)
    assert row["reason"].endswith("last: not looked at yet")


async def test_a_stop_that_comes_during_a_decision_is_not_overwritten(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a", timeout_s=90.0))
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    await store.ingest("staging", None, [(STAGING, 1)])
    (work,) = await store.next_dirty()
    clock.advance(90)
    await store.due()
    await reactor._finish(Decision(work, Done(), pipeline))
    row = await step_row(store, run, "a")
    assert row["state"] == "waiting"
    assert row["dirty"] is not None
    await settle_all(reactor)
    assert (await states(store, run))["a"] == "failed"


# --- effects


async def test_a_step_works_until_the_last_of_its_effects_has_ended(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    pipeline = graph("p", step("a"))
    played = Played({"a": do(Put(what="x"), Put(what="y", ordinal=1), Order(what="z"))})
    reactor = new_reactor(store, [played], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    assert store.bells.effects.is_set()
    assert (await step_row(store, run, "a"))["reason"] == "under way: order, put (3)"
    lives = {live.record.kind + str(live.record.ordinal): live for live in await store.next_effects((), 10)}
    await engine.perform(lives["put0"])
    assert await settle_all(reactor) == 0
    await engine.perform(lives["order0"])
    assert await settle_all(reactor) == 0
    await engine.perform(lives["put1"])
    assert await settle_all(reactor) == 1
    assert played.asked == ["a", "a"]
    assert (await run_row(store, run))["state"] == "done"


async def test_effects_of_a_more_urgent_step_come_first(store: Store) -> None:
    pipeline = graph("p", step("a"), step("b", priority=5))
    await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played({"a": do(Put(what="a")), "b": do(Put(what="b"))})], pipeline))
    assert [live.step for live in await store.next_effects((), 10)] == ["b", "a"]
    (key,) = [live.record.key for live in await store.next_effects((), 1)]
    assert [live.step for live in await store.next_effects([key], 10)] == ["a"]


# --- defects of handlers


async def test_a_handler_that_raises_stops_its_own_run_and_no_other(
    store: Store, clock: HandClock, logged: list[Any]
) -> None:
    pipeline, good = graph("p", step("bad", retries=5)), graph("q", step("good"))
    played = Played({"bad": raises})
    reactor = new_reactor(store, [played], pipeline, good)
    run, other = await begin(store, pipeline, "P1"), await begin(store, good, "P2")
    for fault in range(1, MAX_FAULTS + 1):
        await settle_all(reactor)
        assert played.asked.count("bad") == fault
        if fault < MAX_FAULTS:
            row = await step_row(store, run, "bad")
            assert row["reason"] == "its handler raised: RuntimeError: a defect of the handler"
            assert await store.due() == clock.now() + FAULT_RETRY_S
            clock.advance(FAULT_RETRY_S)
            await store.due()
    row = await step_row(store, run, "bad")
    assert row["state"] == "failed"
    assert row["reason"] == "quarantined: its handler raised: RuntimeError: a defect of the handler"
    assert (await run_row(store, run))["state"] == "failed"
    assert (await run_row(store, other))["state"] == "done"
    assert (await kinds_of_events(store)).count("HandlerRaised") == MAX_FAULTS
    told = [entry for entry in logged if entry["event"] == "decision_failed"]
    assert {(entry["run"], entry["step"]) for entry in told} == {(run, "bad")}


async def test_the_last_fault_moves_on_what_stands_then_and_not_what_stood_at_the_look(store: Store) -> None:
    pipeline = graph("p", step("a"), step("bad"), step("end", "a", "bad", join="done"))
    run = await begin(store, pipeline)
    for fault in range(1, MAX_FAULTS + 1):
        looked, other = await store.work(run, "bad"), await store.work(run, "a")
        assert looked is not None
        assert other is not None
        if fault == MAX_FAULTS:
            await store.finish(Decision(other, Done(), pipeline))
        await store.add_fault(Decision(looked, Done(), pipeline), "a defect of the handler", FAULT_RETRY_S)
    assert await states(store, run) == {"a": "done", "bad": "failed", "end": "ready"}


async def test_faults_are_forgotten_once_a_decision_succeeds(store: Store, clock: HandClock) -> None:
    turns = iter([True, True, False, True, True, False])

    def moody(view: StepView, params: Any, seen: Seen) -> Outcome:
        return raises(view, params, seen) if next(turns) else Wait((), "rests", FAULT_RETRY_S)

    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": moody})], pipeline)
    run = await begin(store, pipeline)
    for _ in range(6):
        assert await settle_all(reactor) == 1
        clock.advance(FAULT_RETRY_S)
        await store.due()
    assert (await states(store, run))["a"] == "waiting"


async def test_a_decision_that_the_store_refuses_is_a_fault_of_its_handler(
    store: Store, engine: Engine, clock: HandClock
) -> None:
    pipeline = graph("p", step("a"))
    run = await begin(store, pipeline)
    reactor = new_reactor(store, [Played({"a": says(Do.all(Put(what="again")))})], pipeline)
    await settle_all(reactor)
    await perform_all(store, engine)
    for _ in range(MAX_FAULTS):
        await settle_all(reactor)
        clock.advance(FAULT_RETRY_S)
        await store.due()
    row = await step_row(store, run, "a")
    assert row["state"] == "failed"
    assert "asks only for effects that have ended" in row["reason"]


async def test_a_fault_that_was_overtaken_is_dropped(store: Store) -> None:
    from aglowd.errors import StaleVersion

    pipeline = graph("p", step("a"))
    await begin(store, pipeline)
    (work,) = await store.next_dirty()
    await store.finish(Decision(work, Done(), pipeline))
    with pytest.raises(StaleVersion):
        await store.add_fault(Decision(work, Done(), pipeline), "late", 1.0)


async def test_a_kind_of_step_that_says_nothing_is_a_fault(store: Store) -> None:
    class Silent(Handler):
        kind = "silent"

    pipeline = graph("p", step("a", kind="silent"))
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Silent()], pipeline))
    assert "step kind silent does not say how it reacts" in (await step_row(store, run, "a"))["reason"]
    assert Silent().stop(StepView("r", "a", "f", 1), None, Seen()) is None
