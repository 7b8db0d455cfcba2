"""The reactor over a real store: from dirty steps to decisions, and what becomes of a run whatever its handlers do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
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
    new_engine,
    new_reactor,
    one,
    opened,
    perform_all,
    rows,
    settle_all,
    step,
    step_row,
)

from aglowd.clock import Clock
from aglowd.effects.engine import Engine
from aglowd.handlers.run import Run
from aglowd.model import Do, Done, Failed, FieldView, Handler, Outcome, Seen, Spawn, StepView, Subject, Wait
from aglowd.pipeline import Pipeline
from aglowd.reactor import FAULT_RETRY_S, Pipelines, Reactor, outputs_of
from aglowd.store.runs import MAX_FAULTS, Decision
from aglowd.store.store import Store

STAGING = Subject("staging", "12", {"request": 12})


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, kept instead of printed: a printed traceback takes longer than the test."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def engine(store: Store, world: FarSide) -> Engine:
    return new_engine(store, world)


def says(outcome: Outcome) -> Any:
    return lambda view, params, seen: outcome


def fails(reason: str = "no", **values: Any) -> Any:
    return says(Failed(reason, **values))


def raises(view: StepView, params: Any, seen: Seen) -> Outcome:
    raise RuntimeError("a defect of the handler")


def until_seen(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Wait for the subject, and pass on what was seen."""
    found = seen.of(STAGING)
    return Wait((STAGING,), "not looked at yet", 600.0) if found is None else Done({"seen": found})


async def states(store: Store, run: str) -> dict[str, str]:
    return {row["name"]: row["state"] for row in await rows(store, "SELECT * FROM steps WHERE run = ?", run)}


async def run_row(store: Store, run: str) -> dict[str, Any]:
    return await one(store, "SELECT * FROM runs WHERE id = ?", run)


# --- one step after the other


async def test_a_run_goes_from_its_first_step_to_its_outputs(store: Store) -> None:
    pipeline = graph(
        "p",
        step("a", params={"say": "{{ field.site }} {{ config.colour }} {{ params.x }}"}),
        step("b", "a", params={"say": ["{{ steps.a.outputs.say }}", "{{ run.id }}"]}),
        outputs={"last": "{{ steps.b.outputs.say }}", "of": "{{ run.key }}/{{ field.name }}/{{ params.x }}"},
    )
    reactor = new_reactor(store, [Played()], pipeline)
    run = await begin(store, pipeline, x=3)
    assert await settle_all(reactor) == 2
    assert reactor.decisions == 2
    row = await run_row(store, run)
    assert (row["state"], row["reason"]) == ("done", "")
    assert msgspec.json.decode(row["outputs"]) == {"last": ["sara blue 3", run], "of": "P1+1/P1+1/3"}
    assert await settle_all(reactor) == 0
    assert store.bells.fields.is_set()


async def test_a_pipeline_whose_outputs_cannot_be_made_fails_its_run(store: Store) -> None:
    pipeline = graph("p", step("a"), outputs={"x": "{{ steps.a.outputs.nothing }}"})
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    row = await run_row(store, run)
    assert row["state"] == "failed"
    assert "its outputs cannot be made" in row["reason"]
    assert "nothing" in row["reason"]


async def test_outputs_that_are_no_table_fail_the_run(store: Store) -> None:
    pipeline = graph("p", step("a"), outputs="a text")
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    assert (await run_row(store, run))["reason"] == (
        "its outputs cannot be made: the outputs of a pipeline are a table"
    )


async def test_a_condition_that_does_not_hold_skips_the_step_and_what_hangs_on_it_alone(store: Store) -> None:
    pipeline = graph(
        "p",
        step("a", when="field.site == 'juelich'"),
        step("b", "a"),
        step("c", "b", join="done", when="{{ field.site == 'sara' }}"),
        step("d", "a", "c", params={"say": "{{ first(steps.a.outputs.say, steps.c.outputs.say, 5) }}"}),
        step("e", when=False),
    )
    played = Played()
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [played], pipeline))
    assert await states(store, run) == {"a": "skipped", "b": "skipped", "c": "done", "d": "done", "e": "skipped"}
    assert played.asked == ["c", "d"]
    row = await step_row(store, run, "a")
    assert row["reason"] == "its condition does not hold: field.site == 'juelich'"
    assert (await step_row(store, run, "b"))["reason"] == "its need a was skipped"
    assert (await run_row(store, run))["state"] == "done"


async def test_a_failure_is_inherited_and_the_run_keeps_the_reason_of_the_step_that_failed_itself(
    store: Store,
) -> None:
    pipeline = graph("p", step("a"), step("b", "a"), step("c", "b"), step("z", "c", join="done"))

    def last(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Done({"failed": params.say})

    pipeline = graph(
        "p", *list(pipeline.steps.values())[:3], step("z", "c", join="done", params={"say": "{{ run.failed }}"})
    )
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played({"a": fails("no tape"), "z": last})], pipeline))
    assert await states(store, run) == {"a": "failed", "b": "failed", "c": "failed", "z": "done"}
    assert (await step_row(store, run, "c"))["reason"] == "its need b failed"
    row = await run_row(store, run)
    assert (row["state"], row["reason"]) == ("failed", "a: no tape")
    outputs = msgspec.json.decode((await step_row(store, run, "z"))["outputs"])
    assert outputs == {"failed": [{"step": "a", "reason": "no tape"}]}


@pytest.mark.parametrize(
    "values",
    [{"params": {"say": "{{ field.nothing }}"}}, {"when": "field.nothing"}, {"pool": "x-{{ field.nothing }}"}],
)
async def test_a_template_that_cannot_be_filled_in_fails_its_step_for_good(
    store: Store, values: dict[str, Any]
) -> None:
    pipeline = graph("p", step("a", retries=5, **values))
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"]) == ("failed", 1)
    assert row["reason"].startswith("a template of step a (toy.toml:7) cannot be filled in: ")
    assert "nothing" in row["reason"]


async def test_a_fragments_argument_that_cannot_be_filled_in_fails_its_step_and_no_other(store: Store) -> None:
    bad = graph("bad", step("a", use={"x": "{{ field.nothing }}"}, params={"say": "{{ use.x }}"}))
    good = graph("good", step("a"))
    reactor = new_reactor(store, [Played()], bad, good)
    first, second = await begin(store, bad, "P1"), await begin(store, good, "P2")
    await settle_all(reactor)
    row = await step_row(store, first, "a")
    assert row["state"] == "failed"
    assert "nothing" in row["reason"]
    assert (await run_row(store, second))["state"] == "done"


async def test_a_fragment_that_is_skipped_needs_no_arguments(store: Store) -> None:
    """`when` is asked before any other template, also where a fragment's arguments come from a step that was skipped."""
    pipeline = graph(
        "p",
        step("a", when=False),
        step(
            "g_one", "a", join="done", when=False, use={"x": "{{ steps.a.outputs.say }}"}, params={"say": "{{ use.x }}"}
        ),
    )
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    assert await states(store, run) == {"a": "skipped", "g_one": "skipped"}


async def test_a_fragments_arguments_and_short_names_reach_its_steps(store: Store) -> None:
    pipeline = graph(
        "p",
        step("g_one", use={"x": "{{ field.site }}"}, local={"one": "g_one"}, params={"say": "{{ use.x }}"}),
        step("g_two", "g_one", use={"x": 1}, local={"one": "g_one"}, params={"say": "{{ steps.one.outputs.say }}"}),
        step("z", "g_two", params={"say": "{{ steps.g.outputs.say }}"}),
        aliases={"g": "g_two"},
        outputs={"x": "{{ steps.z.outputs.say }}"},
    )
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    assert (await run_row(store, run))["outputs"] == '{"x":"sara"}'


async def test_parameters_of_a_wrong_type_name_the_place(store: Store) -> None:
    pipeline = graph("p", step("a", retries=5, params={"number": "{{ field.site }}"}))
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"]) == ("failed", 1)
    assert row["reason"] == "step a (toy.toml:7): Expected `int`, got `str` - at `$.number`"


# --- waiting


async def test_a_step_waits_for_its_subject_and_goes_on_with_what_was_seen(store: Store) -> None:
    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline)
    run = await begin(store, pipeline)
    assert await settle_all(reactor) == 1
    assert store.bells.subject("staging").is_set()
    assert await store.watched("staging") == [(STAGING, 0)]
    row = await step_row(store, run, "a")
    assert (row["state"], row["reason"], row["due"]) == ("waiting", "not looked at yet", store.clock.now() + 600)
    assert await store.ingest("staging", "7", [(STAGING, {"online": 1}), (Subject("staging", "13"), 1)]) == 1
    assert await store.cursor("staging") == "7"
    assert await settle_all(reactor) == 1
    assert (await states(store, run))["a"] == "done"
    assert await store.watched("staging") == []


async def test_a_wait_that_nobody_answers_is_asked_again_when_it_is_due(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a"))
    played = Played({"a": until_seen})
    reactor = new_reactor(store, [played], pipeline)
    await begin(store, pipeline)
    await settle_all(reactor)
    assert await store.due() == clock.now() + 600
    clock.advance(599)
    await store.due()
    assert await settle_all(reactor) == 0
    clock.advance(1)
    store.bells.dirty.clear()
    await store.due()
    assert store.bells.dirty.is_set()
    assert await settle_all(reactor) == 1
    assert played.asked == ["a", "a"]


async def test_what_the_handler_is_given(store: Store) -> None:
    views: list[tuple[StepView, float]] = []

    def look(view: StepView, params: Any, seen: Seen) -> Outcome:
        views.append((view, seen.now))
        return Wait((), "rests", 60.0) if len(views) == 1 else Done()

    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": look})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    store.clock.advance(60)  # type: ignore[attr-defined] # The test's clock
    await store.due()
    await settle_all(reactor)
    view = StepView(run, "a", "P1+1", 1, {"p": pipeline.digest})
    assert views == [(view, 0.0), (view, store.clock.now())]
    assert view.key == f"{run}/a/1"


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


# --- definitions


async def test_a_run_keeps_the_definition_that_it_started_with(store: Store) -> None:
    old = graph("p", step("a"), step("b", "a", params={"say": "old"}), outputs={"x": "{{ steps.b.outputs.say }}"})
    run = await begin(store, old)
    new = msgspec.structs.replace(old, digest="another", steps={"a": step("a")}, outputs={})
    reactor = new_reactor(store, [Played()], new)
    await settle_all(reactor)
    assert (await run_row(store, run))["outputs"] == '{"x":"old"}'


def test_a_definition_is_learned_once() -> None:
    pipeline = graph("p", step("a", "b"))
    pipelines = Pipelines({})
    assert pipelines.known(pipeline.digest) is None
    learned = pipelines.learn(pipeline.digest, msgspec.json.encode(pipeline))
    assert learned == pipeline
    assert pipelines.learn(pipeline.digest, msgspec.json.encode(pipeline)) is learned


async def test_deciding_twice_is_deciding_once(store: Store) -> None:
    pipeline = graph("p", step("a", params={"say": "{{ run.id }}"}))
    reactor = new_reactor(store, [Played()], pipeline)
    await begin(store, pipeline)
    (work,) = await store.next_dirty()
    decisions = [await reactor._decision(work) for _ in range(2)]
    assert decisions[0] == decisions[1]
    assert decisions[0].outcome == Done({"say": work.run.id})


# --- its own loops


@contextlib.asynccontextmanager
async def whole(path: Path, played: Played, *pipelines: Pipeline) -> AsyncIterator[tuple[Store, FarSide, Reactor]]:
    """Store, engine and reactor as the daemon wires them, in quick time."""
    clock = Clock(rate=20_000.0)
    async with opened(path, clock) as store:
        world = FarSide(clock, path)
        engine = new_engine(store, world)
        reactor = new_reactor(store, [played, Run()], *pipelines)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.run()), group.create_task(reactor.run())]
            yield store, world, reactor
            for task in tasks:
                task.cancel()


async def field_in(store: Store, name: str, *states_: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            store.bells.events.clear()
            found = await store.field(name)
            if found is not None and found["state"] in states_:
                return found
            await store.bells.events.wait()


async def test_a_field_goes_its_whole_way_by_itself(tmp_path: Path) -> None:
    pipeline = graph(
        "p",
        step("put", retries=3, retry_delay_s=30.0),
        step("order", "put"),
        step("rest", "put"),
        step("flaky", "put", retries=1, retry_delay_s=60.0),
    )
    plays = {
        "put": do(Put(what="a")),
        "order": do(Order(what="b")),
        "rest": lambda view, params, seen: Wait((), "rests", 300.0) if seen.now == 0.0 else Done(),
        "flaky": lambda view, params, seen: Failed("once") if view.attempt == 1 else Done(),
    }
    async with whole(tmp_path / "aglowd.db", Played(plays), pipeline) as (store, world, reactor):
        world.moods.extend(["lost"])
        await store.put_fields([(FieldView("P1", "SND", {"site": "sara"}), "")])
        found = await field_in(store, "P1", "archived", "failed")
        assert found["state"] == "archived", found["reason"]
        assert sorted(what for _, _, what, _ in world.things) == ["a", "b"]
        assert reactor.progress_at > 0


async def test_a_timer_that_comes_while_another_is_awaited_is_kept(tmp_path: Path) -> None:
    """The first wait is due in hours of real time, the second one at once."""
    pipeline = graph("p", step("a"), step("b", "c"), step("c"))
    waited = {"a": 1.0e9, "b": 20.0}

    def rest(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Wait((), "rests", waited[view.name]) if seen.now == 0.0 else Done()

    async with whole(tmp_path / "aglowd.db", Played({"a": rest, "b": rest}), pipeline) as (store, _, _):
        run = await begin(store, pipeline)
        async with asyncio.timeout(20):
            while (await states(store, run))["b"] != "done":
                store.bells.events.clear()
                if (await states(store, run))["b"] != "done":
                    await store.bells.events.wait()
        assert (await states(store, run))["a"] == "waiting"


@pytest.mark.parametrize("bell", ["dirty", "timers", "fields"])
@pytest.mark.parametrize("turns", range(4))
async def test_a_bell_that_rings_while_the_reactor_is_stopped_does_not_keep_it(
    store: Store, bell: str, turns: int
) -> None:
    reactor = new_reactor(store, [Played()], graph("p", step("a")))
    task = asyncio.create_task(reactor.run())
    for _ in range(5):
        await store.status()
    getattr(store.bells, bell).set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    _, left = await asyncio.wait({task}, timeout=2)
    for loop in asyncio.all_tasks():
        if loop.get_name().startswith("reactor: "):
            loop.cancel()
    assert not left, "the reactor took no notice of being stopped"


async def test_the_reactor_goes_on_with_what_an_earlier_one_left(tmp_path: Path, clock: HandClock) -> None:
    pipeline = graph("p", step("a"), step("b", "a"))
    async with opened(tmp_path / "x.db", clock) as store:
        run = await begin(store, pipeline)
        await new_reactor(store, [Played()], pipeline).decide_once()
    async with opened(tmp_path / "x.db", clock) as store:
        assert store.bells.dirty.is_set()
        await settle_all(new_reactor(store, [Played()], pipeline))
        assert (await run_row(store, run))["state"] == "done"


def test_outputs_of_a_run_see_its_field_and_key() -> None:
    from aglowd.model import RunState
    from aglowd.store.rows import Run as RunRow

    row = RunRow("r-1", "P1", "d", "k", {"x": 1}, {"name": "P1"}, RunState.RUNNING)
    pipeline = graph("p", step("a"), outputs={"x": "{{ params.x }}", "k": "{{ run.key }}{{ field.name }}"})
    assert outputs_of(row, pipeline, {}) == {"x": 1, "k": "kP1"}
