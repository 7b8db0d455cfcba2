"""Runs go back: by a retry, a step that is skipped or said to be done; and a run begun by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from model.shore import MortalStore
from steered import Hand, WriteStatus, becomes
from support import (
    TOY_DEEDS,
    Crash,
    FarSide,
    HandClock,
    Played,
    Put,
    begin,
    do,
    graph,
    new_engine,
    new_reactor,
    one,
    perform_all,
    rows,
    settle_all,
    step,
    step_row,
)

from aglowd import choice
from aglowd.effects.engine import Engine
from aglowd.errors import AglowError
from aglowd.handlers.run import Run
from aglowd.model import Do, Done, Failed, FieldView, Outcome, Seen, StepView, Subject, Wait
from aglowd.pipeline import Pipeline
from aglowd.store import plans
from aglowd.store.plans import Changed, Refused
from aglowd.store.runs import STEP
from aglowd.store.store import Store

from .plays import STAGING, fails, run_row, states, until_seen

LINE = graph("p", step("a"), step("b", "a", retries=1), step("c", "b"), step("side", "a"), step("z", "c", join="done"))


def once_broken(broken: list[str]) -> Any:
    """An effect, and a failure as long as the step is in the list."""

    def play(view: StepView, params: Any, seen: Seen) -> Outcome:
        outcome = do(Put(what=view.key))(view, params, seen)
        return Failed("no tape") if isinstance(outcome, Done) and view.name in broken else outcome

    return play


async def finish_all(store: Store, engine: Engine, reactor: Any, clock: HandClock, rounds: int = 8) -> None:
    for _ in range(rounds):
        await settle_all(reactor)
        await perform_all(store, engine)
        clock.advance(300)
        await store.due()


async def test_what_failed_and_all_behind_it_gets_a_new_attempt_and_the_rest_stays(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    broken = ["b"]
    play = once_broken(broken)
    reactor = new_reactor(store, [Played(dict.fromkeys("abcz", play))], LINE)
    run, hand = await begin(store, LINE), Hand(store, LINE)
    await finish_all(store, engine, reactor, clock)
    assert await states(store, run) == {"a": "done", "b": "failed", "c": "failed", "side": "done", "z": "done"}
    before = await rows(store, "SELECT * FROM steps WHERE name IN ('a', 'side')")
    done = {key for _, key, _, _ in world.things}
    plan = await hand("retry", "P1+1")
    assert becomes(plan) == {run: {"b": "ready", "c": "pending", "z": "pending"}}
    assert (await run_row(store, run))["state"] == "running"
    assert (await run_row(store, run))["ended"] is None
    row = await step_row(store, run, "b")
    assert (row["state"], row["attempt"], row["reason"]) == ("ready", 3, "ready to begin")
    await finish_all(store, engine, reactor, clock)
    row = await step_row(store, run, "b")
    assert (row["state"], row["attempt"]) == ("failed", 4), "a person's retry has no retries of its own"
    broken.clear()
    await hand("retry", run)
    await finish_all(store, engine, reactor, clock)
    assert (await run_row(store, run))["state"] == "done"
    assert await rows(store, "SELECT * FROM steps WHERE name IN ('a', 'side')") == before
    assert done < {key for _, key, _, _ in world.things}
    assert (await step_row(store, run, "b"))["attempt"] == 5
    assert (await step_row(store, run, "z"))["attempt"] == 3
    assert [world.truth(f"{run}/b/{attempt}/put/0") for attempt in range(1, 7)] == [1, 1, 1, 1, 1, 0]
    events = await rows(store, "SELECT data FROM events WHERE kind = 'RetryOrdered'")
    assert [msgspec.json.decode(event["data"])["uid"] for event in events] == [1000, 1000]


async def test_a_done_run_goes_back_to_the_step_that_is_named(store: Store) -> None:
    reactor = new_reactor(store, [Played()], LINE)
    run, hand = await begin(store, LINE), Hand(store, LINE)
    await settle_all(reactor)
    with pytest.raises(Refused, match=r"no step of .* has failed or was cancelled; name one with --from STEP"):
        await hand("retry", run)
    with pytest.raises(Refused, match="has no step 'x'; it has a, b, c, side, z"):
        await hand("retry", run, steps=("x",))
    assert becomes(await hand("retry", run, steps=("c",))) == {run: {"c": "ready", "z": "pending"}}
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "done"
    assert {row["name"]: row["attempt"] for row in await rows(store, "SELECT name, attempt FROM steps")} == {
        "a": 1,
        "b": 1,
        "c": 2,
        "side": 1,
        "z": 2,
    }


async def test_a_cancelled_run_goes_on_where_it_was(store: Store) -> None:
    reactor = new_reactor(store, [Played({"b": until_seen})], LINE)
    run, hand = await begin(store, LINE), Hand(store, LINE)
    await settle_all(reactor)
    await hand("cancel", run)
    with pytest.raises(Refused, match=f"{run} is being cancelled; wait for its end"):
        await hand("retry", run)
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "cancelled"
    await hand("retry", run)
    assert (await run_row(store, run))["stopping"] == ""
    await settle_all(reactor)
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "done"


async def test_what_is_at_work_is_not_thrown_back(store: Store) -> None:
    pipeline = graph("p", step("a"), step("b"), step("c", "a", "b", join="done"), step("d", "a"))
    reactor = new_reactor(store, [Played({"a": fails("no"), "b": until_seen})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    with pytest.raises(Refused, match="b is at work; wait for its end, or cancel the run first"):
        await hand("retry", run, steps=("b",))
    await hand("retry", run)
    assert await states(store, run) == {"a": "ready", "b": "waiting", "c": "pending", "d": "pending"}
    with pytest.raises(Refused, match="no step of"):
        await hand("retry", run)


async def test_a_step_whose_need_has_failed_is_not_where_one_goes_back_to(store: Store) -> None:
    reactor = new_reactor(store, [Played({"b": fails("no", final=True)})], LINE)
    run, hand = await begin(store, LINE), Hand(store, LINE)
    await settle_all(reactor)
    with pytest.raises(Refused, match="c would end at once with b; go back to that one"):
        await hand("retry", run, steps=("c",))


async def test_an_older_run_is_not_retried_beside_its_successor(store: Store) -> None:
    reactor = new_reactor(store, [Played({"b": fails("no", final=True)})], LINE)
    hand = Hand(store, LINE)
    first = await begin(store, LINE)
    await settle_all(reactor)
    second = await begin(store, LINE)
    with pytest.raises(Refused, match=f"{second} was begun after {first}"):
        await hand("retry", first)


async def test_many_are_named_by_pattern_and_state_and_what_makes_no_sense_is_left_alone(store: Store) -> None:
    def play(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Failed("no", final=True) if view.field != "P22" else Done()

    reactor = new_reactor(store, [Played({"b": play})], LINE)
    hand = Hand(store, LINE)
    runs = {name: await begin(store, LINE, name) for name in ("P21", "P22", "P23", "Q1")}
    await settle_all(reactor)
    plan = await hand.plan("retry", "P2*")
    assert set(becomes(plan)) == {runs["P21"], runs["P23"]}
    assert plan.left.keys() == {runs["P22"]}
    assert set(becomes(await hand.plan("retry", state="failed"))) == {runs["P21"], runs["P23"], runs["Q1"]}
    with pytest.raises(AglowError, match="none of them is cancelled"):
        await hand.plan("retry", "P*", state="cancelled")
    with pytest.raises(Refused, match="nothing is to be changed: "):
        await hand.plan("cancel", "P*")
    await hand("retry", "P2?")
    found = await rows(store, "SELECT field FROM runs WHERE state = 'running' ORDER BY field")
    assert [row["field"] for row in found] == ["P21", "P23"]


# --- what somebody saw


async def test_a_command_that_comes_too_late_is_refused_with_what_has_changed(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a"), step("b"), step("c", "a", "b"))
    reactor = new_reactor(store, [Played({"a": until_seen, "b": until_seen})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    version = (await hand.plan("cancel", run)).version
    clock.advance(600)
    await store.due()
    await settle_all(reactor)
    other = await begin(store, pipeline, "P2")
    await settle_all(reactor)
    assert (await hand.plan("cancel", run)).version.partition("-")[2] == version.partition("-")[2], (
        "nothing has changed"
    )
    works = await store.next_dirty()
    assert works == []
    await store.ingest("staging", None, [(STAGING, 1)])
    await reactor.decide_once()
    with pytest.raises(Changed, match=f"it has changed since you looked: {run}/[ab] StepDone; look again"):
        await hand("cancel", run, version=version)
    await settle_all(reactor)
    with pytest.raises(Changed, match=f"{run} RunEnded"):
        await hand("cancel", run, version=version)
    assert [row["state"] for row in await rows(store, "SELECT state FROM runs WHERE id IN (?, ?)", run, other)] == [
        "done",
        "done",
    ]
    with pytest.raises(AglowError, match="'nonsense' is no version"):
        await hand("retry", run, steps=("c",), version="nonsense")


async def test_a_command_that_still_means_the_same_is_carried_out(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    version = (await hand.plan("cancel", run)).version
    clock.advance(600)
    await store.due()
    await settle_all(reactor)
    await hand("cancel", run, version=version)
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "cancelled"


# --- runs that wait for runs

CHILD = graph("calibrator", step("look"), step("reduce", "look"), step("tidy"))


def parent(share: str = "calibrator/L229587") -> Pipeline:
    params = {"pipeline": "calibrator", "share": share}
    return graph("target", step("first"), step("cal", "first", kind="run", params=params), step("z", "cal"))


async def test_one_retry_of_shared_work_serves_all_who_waited_for_it(store: Store) -> None:
    pipeline, tries = parent(), iter([Failed("no solutions", final=True), Done({"seen": "solved"})])
    played = Played({"reduce": lambda *_: next(tries)})
    reactor = new_reactor(store, [played, Run()], pipeline, CHILD)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2", "P3")]
    hand = Hand(store, pipeline, CHILD)
    await settle_all(reactor)
    assert [(await run_row(store, run))["state"] for run in runs] == ["failed"] * 3
    inner = (await one(store, "SELECT id FROM runs WHERE id NOT IN (?, ?, ?)", *runs))["id"]
    plan = await hand("retry", "P2")
    assert becomes(plan) == {
        runs[1]: {"cal": "ready", "z": "pending"},
        inner: {"reduce": "ready"},
        runs[0]: {"cal": "ready", "z": "pending"},
        runs[2]: {"cal": "ready", "z": "pending"},
    }
    assert {one.run: one.why for one in plan.runs} == {
        runs[1]: "",
        inner: f"{runs[1]} waits for it",
        runs[0]: f"it failed with {inner}",
        runs[2]: f"it failed with {inner}",
    }
    await settle_all(reactor)
    assert [(await run_row(store, run))["state"] for run in (*runs, inner)] == ["done"] * 4
    assert await store.count_runs_of("calibrator") == 1
    assert played.asked.count("reduce") == 2
    assert played.asked.count("look") == 1, "what was done is done again"


async def test_shared_work_is_retried_by_its_own_name_and_a_cancelled_waiter_stays(store: Store) -> None:
    pipeline, tries = parent(), iter([Failed("no solutions", final=True), Done()])

    def reduce(view: StepView, params: Any, seen: Seen) -> Outcome:
        waits = until_seen(view, params, seen)
        return waits if isinstance(waits, Wait) else next(tries)

    reactor = new_reactor(store, [Played({"reduce": reduce}), Run()], pipeline, CHILD)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    hand = Hand(store, pipeline, CHILD)
    await settle_all(reactor)
    await hand("cancel", "P2")
    await settle_all(reactor)
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    inner = (await one(store, "SELECT * FROM runs WHERE id NOT IN (?, ?)", *runs))["field"]
    plan = await hand("retry", inner)
    assert {one.field for one in plan.runs} == {inner, "P1"}
    await store.ingest("staging", None, [(STAGING, 2)])
    await settle_all(reactor)
    assert [(await run_row(store, run))["state"] for run in runs] == ["done", "cancelled"]


async def test_shared_work_that_cannot_go_on_by_itself_keeps_its_waiters_where_they_are(store: Store) -> None:
    pipeline = parent()
    child = graph("calibrator", step("reduce"), outputs={"x": "{{ steps.reduce.outputs.nothing }}"})
    reactor = new_reactor(store, [Played(), Run()], pipeline, child)
    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    hand = Hand(store, pipeline, child)
    await settle_all(reactor)
    inner = (await one(store, "SELECT * FROM runs WHERE id NOT IN (?, ?)", *runs))["id"]
    with pytest.raises(Refused, match=f"no step of {inner} has failed or was cancelled; name one with --from STEP"):
        await hand("retry", "P1")
    with pytest.raises(Refused, match="nothing is to be changed"):
        await hand("retry", "P*")
    plan = await hand("retry", inner, steps=("reduce",))
    assert {one.run for one in plan.runs} == {inner, *runs}


async def test_a_part_of_a_run_is_retried_with_it(store: Store) -> None:
    pipeline = parent(share="")
    reactor = new_reactor(store, [Played({"reduce": fails("no", final=True)}), Run()], pipeline, CHILD)
    run, hand = await begin(store, pipeline), Hand(store, pipeline, CHILD)
    await settle_all(reactor)
    inner = (await one(store, "SELECT id FROM runs WHERE id <> ?", run))["id"]
    with pytest.raises(Refused, match=f"{inner} is a part of {run}/cal, which begins it anew: aglowctl retry {run}"):
        await hand("retry", inner)
    assert list(becomes(await hand("retry", "P1+1"))) == [run]
    assert [one.run for one in (await hand.plan("cancel", "P1+1")).runs] == [run], "its part is taken for the run"
    await settle_all(reactor)
    with pytest.raises(Refused, match=f"{inner} is a part of {run}/cal"):
        await hand("retry", inner)
    assert list(becomes(await hand.plan("retry", "P1+1"))) == [run]
    assert sorted(row["key"] for row in await rows(store, "SELECT key FROM runs WHERE id <> ?", run)) == [
        f"{run}.cal.1",
        f"{run}.cal.2",
    ]


async def test_a_kill_at_any_commit_of_a_retry_changes_nothing(in_memory: Path) -> None:
    number, died = 0, True
    while died:
        number += 1
        for after in (False, True):
            died = await _retry_and_die(in_memory / f"{number}-{after}.db", number, after)
    assert number > 6


async def _retry_and_die(path: Any, number: int, after: bool) -> bool:
    pipeline, clock = parent(), HandClock()
    store = MortalStore(path, clock)  # type: ignore[arg-type] # Its clock is only asked for the time.
    await store.open()
    world, broken = FarSide(clock, path), ["reduce"]
    played = Played(dict.fromkeys(("reduce", "look", "z"), once_broken(broken)))

    async def go_on() -> None:
        reactor, engine = new_reactor(store, [played, Run()], pipeline, CHILD), new_engine(store, world)
        await finish_all(store, engine, reactor, clock)

    runs = [await begin(store, pipeline, key) for key in ("P1", "P2")]
    await go_on()
    broken.clear()
    store.dies_in, store.dies_after = number, after
    died = False
    for _ in range(3):
        try:
            if not await rows(store, "SELECT 1 FROM events WHERE kind = 'RetryOrdered'"):
                await Hand(store, pipeline, CHILD)("retry", "P1")
            await go_on()
            break
        except Crash:
            died = True
            await store.drop()
            store = MortalStore(path, clock)  # type: ignore[arg-type] # As above.
            await store.open()
    assert [row["state"] for row in await rows(store, "SELECT state FROM runs")] == ["done"] * 3
    keys = [key for _, key, _, _ in world.things]
    assert sorted(keys) == sorted(set(keys)), "an effect was done twice"
    assert sum("/reduce/" in key for key in keys) == 2, "one retry did not serve all"
    assert [(await step_row(store, run, "cal"))["attempt"] for run in runs] == [2, 2]
    await store.drop()
    return died


# --- what is kept, and the catalogue


class Keeper(Played):
    """Keeps something until the steps of `until` have ended."""

    kind = "keeper"

    class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        until: tuple[str, ...]

    def react(self, view: StepView, params: Any, seen: Seen) -> Outcome:
        ends = tuple(Subject(STEP, f"{view.run}/{name}") for name in params.until)
        states = [(seen.of(end) or {"state": ""})["state"] for end in ends]
        return Done({"states": states}) if all(states) else Wait(ends, "keeps it", 600.0)


async def test_what_is_kept_until_a_step_ends_is_kept_anew_when_that_goes_back(store: Store) -> None:
    pipeline = graph("p", step("a"), step("b", "a"), step("keep", "a", kind="keeper", params={"until": ["b"]}))
    tries = iter([Failed("no", final=True), Wait((STAGING,), "rests", 600.0), Done(), Done()])
    reactor = new_reactor(store, [Played({"b": lambda *_: next(tries)}), Keeper()], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    assert msgspec.json.decode((await step_row(store, run, "keep"))["outputs"]) == {"states": ["failed"]}
    assert becomes(await hand("retry", run)) == {run: {"b": "ready", "keep": "ready"}}
    await settle_all(reactor)
    assert await states(store, run) == {"a": "done", "b": "waiting", "keep": "waiting"}
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    assert msgspec.json.decode((await step_row(store, run, "keep"))["outputs"]) == {"states": ["done"]}


async def test_the_catalogue_says_again_what_the_steps_that_go_back_expect(
    store: Store, world: FarSide, clock: HandClock
) -> None:
    def writes(expect: str, status: str) -> Any:
        def play(view: StepView, params: Any, seen: Seen) -> Outcome:
            order.append(f"{view.name} {expect}->{status}")
            return do(WriteStatus(field="P1+1", expect=expect, status=status))(view, params, seen)

        return play

    order: list[str] = []
    pipeline = graph("p", step("claim"), step("work", "claim"), step("end", "work"), step("failed", "end", join="done"))
    broken = [Failed("no", final=True)]
    plays = {
        "claim": writes("SND", "AAA"),
        "work": lambda *_: broken.pop() if broken else Done(),
        "end": writes("AAA", "ZZZ"),
        "failed": writes("AAA", "RRR"),
    }
    deeds = {**TOY_DEEDS, WriteStatus.kind: WriteStatus}
    engine = Engine(store, world, deeds, clock)  # type: ignore[arg-type] # The deeds know their world.
    reactor = new_reactor(store, [Played(plays)], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await finish_all(store, engine, reactor, clock)
    assert (await states(store, run))["failed"] == "done"
    order.clear()
    await hand("retry", run)
    assert await settle_all(reactor) == 0, "it went on before the catalogue says what its steps expect"
    await perform_all(store, engine)
    row = await one(store, "SELECT inputs, state FROM effects WHERE attempt = 0")
    inputs = msgspec.json.decode(row["inputs"])
    assert (inputs["expect"], inputs["status"], row["state"]) == ("RRR", "AAA", "done")
    await finish_all(store, engine, reactor, clock)
    assert order[0] == "end AAA->ZZZ"
    await hand("retry", run, steps=("claim",))
    await finish_all(store, engine, reactor, clock)
    written = await rows(store, "SELECT inputs FROM effects WHERE attempt = 0 ORDER BY planned")
    assert [msgspec.json.decode(row["inputs"])["status"] for row in written] == ["AAA", "SND"]


# --- skip and done


async def test_a_step_is_skipped_or_done_before_it_begins(store: Store) -> None:
    pipeline = graph("p", step("a"), step("b", "a"), step("c", "b", params={"say": "{{ steps.b.outputs.x }}"}))
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    await hand("done", run, steps=("b",), outputs={"x": [1, 2]})
    assert await states(store, run) == {"a": "waiting", "b": "done", "c": "ready"}
    with pytest.raises(
        Refused, match=re.escape(f"{run}/b is done already; to do it again: aglowctl retry {run} --from b")
    ):
        await hand("skip", run, steps=("b",))
    await settle_all(reactor)
    assert msgspec.json.decode((await step_row(store, run, "c"))["outputs"]) == {"say": [1, 2]}
    await hand("skip", run, steps=("a",))
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["state"], row["reason"]) == ("skipped", "skipped by uid 1000: the parset was wrong")
    assert (await run_row(store, run))["state"] == "done"
    kinds = [row["kind"] for row in await rows(store, "SELECT kind FROM events WHERE kind LIKE '%Ordered'")]
    assert kinds == ["DoneOrdered", "SkipOrdered"]


async def test_what_a_skipped_step_left_outside_is_undone_first(store: Store, engine: Engine, world: FarSide) -> None:
    def undo(view: StepView, params: Any, seen: Seen) -> Do | None:
        return Do.all(Put(what="undo", ordinal=9)) if seen.effect(Put, 9) is None else None

    pipeline = graph("p", step("a"), step("b", "a"))
    reactor = new_reactor(store, [Played({"a": until_seen}, {"a": undo})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    await hand("skip", run, steps=("a",))
    with pytest.raises(Refused, match=f"{run}/a is being stopped already"):
        await hand("skip", run, steps=("a",))
    await settle_all(reactor)
    assert await states(store, run) == {"a": "working", "b": "pending"}
    await perform_all(store, engine)
    await settle_all(reactor)
    assert await states(store, run) == {"a": "skipped", "b": "skipped"}
    assert [what for _, _, what, _ in world.things] == ["undo"]


async def test_a_step_with_live_effects_is_neither_skipped_nor_done(
    store: Store, engine: Engine, world: FarSide
) -> None:
    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": do(Put(what="x"))})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    for verb in ("skip", "done"):
        with pytest.raises(
            Refused, match=r"1 of its effects have not ended: .*/a/1/put/0 \(open\); wait for their end"
        ):
            await hand(verb, run, steps=("a",))
    world.moods.append("unknown")
    await perform_all(store, engine)
    with pytest.raises(Refused, match=r"\(unknown\)"):
        await hand("done", run, steps=("a",))


@pytest.mark.parametrize("verb", ["skip", "done"])
async def test_a_failed_step_that_is_passed_over_lets_what_failed_with_it_go_on(store: Store, verb: str) -> None:
    pipeline = graph("p", step("a"), step("b"), step("c", "a", "b"), step("z", "c", join="done"))
    reactor = new_reactor(store, [Played({"a": fails("no", final=True)})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "failed"
    plan = await hand(verb, "P1+1", steps=("a",))
    end = {"skip": "skipped", "done": "done"}[verb]
    assert becomes(plan) == {run: {"a": end, "c": "ready", "z": "pending"}}
    await settle_all(reactor)
    assert await states(store, run) == {"a": end, "b": "done", "c": "done", "z": "done"}
    assert (await step_row(store, run, "z"))["attempt"] == 2
    assert (await run_row(store, run))["state"] == "done"


async def test_the_last_step_that_failed_ends_the_run_well_when_it_is_said_to_be_done(store: Store) -> None:
    pipeline = graph("p", step("a"), outputs={"x": "{{ steps.a.outputs.x }}"})
    reactor = new_reactor(store, [Played({"a": fails("no", final=True)})], pipeline)
    run, hand = await begin(store, pipeline), Hand(store, pipeline)
    await settle_all(reactor)
    plan = await hand("done", run, steps=("a",), outputs={"x": 7})
    assert plan.runs[0].becomes == "done"
    row = await run_row(store, run)
    assert (row["state"], row["outputs"]) == ("done", '{"x":7}')


async def test_who_stops_waiting_for_shared_work_lets_it_be_cancelled(store: Store) -> None:
    pipeline = parent()
    reactor = new_reactor(store, [Played({"reduce": until_seen}), Run()], pipeline, CHILD)
    hand = Hand(store, pipeline, CHILD)
    for name in ("P1", "P2"):
        await begin(store, pipeline, name)
    await settle_all(reactor)
    inner = "SELECT r.state FROM runs AS r JOIN pipelines AS p ON p.digest = r.pipeline WHERE p.name = 'calibrator'"
    await hand("done", "P1", steps=("cal",))
    await settle_all(reactor)
    assert (await one(store, inner))["state"] == "running"
    await hand("skip", "P2", steps=("cal",))
    await settle_all(reactor)
    assert (await one(store, inner))["state"] == "cancelled"


# --- by hand


async def test_a_run_is_begun_by_hand_also_under_another_pipeline_and_after_the_end(store: Store) -> None:
    other = graph("look", step("a", params={"say": "{{ params.depth }} {{ field.site }}"}), params=("depth",))
    reactor = new_reactor(store, [Played({"b": until_seen})], LINE, other)
    data = {"uid": 1000, "reason": "again"}
    with pytest.raises(AglowError, match="the field 'P1' is not in the catalogue"):
        await store.run_by_hand(LINE, "P1", {}, data, takes=True)
    await store.put_fields([(FieldView("P1", "ZZZ", {"site": "sara"}), ""), (FieldView("P2", "SND"), "no OBSID")])
    with pytest.raises(AglowError, match="P2: no OBSID; correct the catalogue first"):
        await store.run_by_hand(LINE, "P2", {}, data, takes=True)
    assert (await store.about_field(LINE, "P1", takes=True))[0] == "P1-1"
    assert await store.run_by_hand(LINE, "P1", {}, data, takes=True) == "P1-1"
    with pytest.raises(AglowError, match="P1 is at work already; wait for its end, or cancel it"):
        await store.run_by_hand(other, "P1", {"depth": 3}, data, takes=False)
    await settle_all(reactor)
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    assert (await store.field("P1"))["state"] == "archived"  # type: ignore[index] # It is there.
    beside = await store.run_by_hand(other, "P1", {"depth": 3}, data, takes=False)
    assert beside == "P1_look-1"
    await settle_all(reactor)
    assert msgspec.json.decode((await step_row(store, beside, "a"))["outputs"]) == {"say": "3 sara"}
    assert await store.run_by_hand(LINE, "P1", {}, data, takes=True) == "P1-2"
    events = await rows(store, "SELECT run, data FROM events WHERE kind = 'RunOrdered'")
    assert [event["run"] for event in events] == ["P1-1", "P1_look-1", "P1-2"]
    assert msgspec.json.decode(events[0]["data"])["uid"] == 1000


async def test_a_command_means_no_more_runs_than_it_may(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "MAX_TARGETS", 2)
    hand = Hand(store, LINE)
    for name in ("P1", "P2"):
        await begin(store, LINE, name)
    assert len((await hand.plan("cancel", "P*")).runs) == 2
    await begin(store, LINE, "P3")
    with pytest.raises(AglowError, match="3 runs are meant; expected at most 2: name a narrower pattern"):
        await hand.plan("cancel", "P*")


async def test_of_many_changes_the_last_are_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MAX_CHANGED", 1)
    run, hand = await begin(store, LINE), Hand(store, LINE)
    version = (await hand.plan("cancel", run)).version
    await settle_all(new_reactor(store, [Played({"c": until_seen})], LINE))
    with pytest.raises(Changed, match=r"since you looked: \S+ \w+ and \d+ more; look again"):
        await hand("cancel", run, version=version)
