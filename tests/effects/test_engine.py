"""The engine over a real journal: each arrow of docs/design.md (a), and what stands in the file at each of them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs
from support import (
    SETTLE_S,
    Crash,
    FarSide,
    HandClock,
    Noted,
    Order,
    Put,
    begin,
    decide,
    effect_row,
    graph,
    kinds_of_events,
    new_engine,
    one,
    only_effect,
    only_work,
    opened,
    perform_all,
    step,
    step_row,
)

from aglowd.effects.engine import BACKOFF_MOST_S, BACKOFF_S, DOUBT_LOOK_S, LOOKS_BEFORE_DOUBT, Engine
from aglowd.errors import AglowError
from aglowd.model import Do, Done, EffectState, Failed
from aglowd.store.rows import LiveEffect
from aglowd.store.runs import MAX_FAULTS, Decision
from aglowd.store.store import Store

GRAPH = graph("toy", step("s", timeout_s=10_000.0, retries=1))


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, kept instead of printed: a printed traceback takes longer than the test."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def engine(store: Store, world: FarSide) -> Engine:
    return new_engine(store, world)


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    """The engine's own loop for as long as the test needs it."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(engine.run())
        yield
        task.cancel()


async def planned(store: Store, *effects: Put) -> str:
    run = await begin(store, GRAPH)
    await decide(store, GRAPH, Do(effects))
    return run


async def settled(store: Store) -> None:
    """Return when no effect is live any more; each settlement rings the bell of dirty steps."""
    async with asyncio.timeout(10):
        while (await one(store, "SELECT count(*) AS n FROM effects WHERE settled IS NULL"))["n"]:
            store.bells.events.clear()
            if (await one(store, "SELECT count(*) AS n FROM effects WHERE settled IS NULL"))["n"]:
                await store.bells.events.wait()


async def test_an_effect_without_evidence_is_open_with_the_decision_and_done_once(
    store: Store, engine: Engine, world: FarSide
) -> None:
    run = await planned(store, Put(what="a"))
    key = f"{run}/s/1/put/0"
    row = await effect_row(store, key)
    assert (row["state"], row["intended"]) == ("open", store.clock.now())
    assert await store.next_dirty() == []
    await perform_all(store, engine)
    assert world.truth(key) == 1
    row = await effect_row(store, key)
    assert (row["state"], row["result"], row["next_at"]) == ("done", "1", None)
    seen = (await only_work(store)).seen
    assert seen.result(Put) == 1
    assert seen.result(Order) is None
    assert seen.count(Put) == 1
    assert seen.rejected() is None
    assert await store.next_effects((), 10) == []
    assert await kinds_of_events(store) == ["RunStarted", "StepReady", "StepWorks", "EffectPlanned", "EffectDone"]


async def test_evidence_is_committed_before_the_world_is_touched(store: Store, engine: Engine, world: FarSide) -> None:
    world.apply("somebody else", "a")
    run = await planned(store, Order(what="a"))
    key = f"{run}/s/1/order/0"
    assert (await effect_row(store, key))["state"] == "planned"
    await perform_all(store, engine)
    row = await effect_row(store, key)
    assert (row["state"], row["evidence"], row["result"]) == ("done", "[1]", "2")
    assert [verb for verb, _ in world.calls] == ["look", "do"]


async def test_without_a_look_before_nothing_is_intended(store: Store, engine: Engine, world: FarSide) -> None:
    for mood in ("temporary", "permanent", "unknown"):
        world.moods.append(mood)
    run = await planned(store, Order(what="a"))
    for _ in range(3):
        await perform_all(store, engine)
        row = await effect_row(store, f"{run}/s/1/order/0")
        assert (row["state"], row["intended"]) == ("planned", None)
        store.clock.at = row["next_at"]  # type: ignore[attr-defined] # The test's clock
    await perform_all(store, engine)
    assert world.count("do") == 1
    assert (await effect_row(store, f"{run}/s/1/order/0"))["state"] == "done"


async def test_the_backoff_doubles_up_to_its_most_and_the_step_says_why(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    waits = []
    for _ in range(9):
        world.moods.append("temporary")
        assert await perform_all(store, engine) == 1
        assert await perform_all(store, engine) == 0, "an effect is taken up before its time"
        row = await effect_row(store, f"{run}/s/1/put/0")
        assert row["state"] == "planned"
        waits.append(row["next_at"] - clock.now())
        clock.at = row["next_at"]
    assert waits == [min(BACKOFF_S * 2**tries, BACKOFF_MOST_S) for tries in range(9)]
    assert (await step_row(store, run, "s"))["reason"] == "put is tried again: connection refused"
    assert (await kinds_of_events(store)).count("EffectPutOff") == 1, "the same reason is told once"
    assert world.truth(f"{run}/s/1/put/0") == 0


async def test_a_site_that_says_when_is_believed_and_no_try_is_counted(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    for _ in range(12):
        world.moods.append("busy")
        await perform_all(store, engine)
        row = await effect_row(store, f"{run}/s/1/put/0")
        assert (row["tries"], row["next_at"]) == (0, clock.now() + 40.0)
        clock.advance(40.0)


async def test_what_is_forbidden_is_rejected_for_good(store: Store, engine: Engine, world: FarSide) -> None:
    run = await planned(store, Put(what="a"))
    world.moods.append("permanent")
    await perform_all(store, engine)
    work = await only_work(store)
    rejected = work.seen.rejected()
    assert rejected is not None
    assert (rejected.key, rejected.reason, rejected.state) == (f"{run}/s/1/put/0", "403", EffectState.REJECTED)
    assert work.seen.result(Put) is None
    assert "EffectRejected" in await kinds_of_events(store)


@pytest.mark.parametrize("kind", [Put, Order])
async def test_a_lost_answer_is_looked_for_and_never_repeated(
    store: Store, engine: Engine, world: FarSide, clock: HandClock, kind: type[Put]
) -> None:
    run = await planned(store, kind(what="a"))
    key = f"{run}/s/1/{kind.kind}/0"
    world.moods.extend(["well", "lost"] if kind is Order else ["lost"])
    await perform_all(store, engine)
    row = await effect_row(store, key)
    assert (row["state"], row["reason"]) == ("unknown", "outcome unknown: the answer was lost")
    clock.at = row["next_at"]
    await perform_all(store, engine)
    row = await effect_row(store, key)
    assert (row["state"], row["result"]) == ("done", "1")
    assert row["reason"] == "found after its outcome was unknown"
    assert world.truth(key) == 1
    assert [verb for verb, _ in world.calls if verb != "look"] == ["do", "find"]


async def test_one_exact_look_that_finds_nothing_is_enough(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    world.moods.append("unknown")
    await perform_all(store, engine)
    clock.advance(BACKOFF_S)
    await perform_all(store, engine)
    assert [verb for verb, _ in world.calls] == ["do", "find", "do"]
    assert (await effect_row(store, f"{run}/s/1/put/0"))["state"] == "done"


async def test_elsewhere_nothing_is_believed_before_a_second_look_a_settling_time_later(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Order(what="a"))
    key = f"{run}/s/1/order/0"
    world.moods.extend(["well", "unknown"])
    await perform_all(store, engine)
    clock.advance(BACKOFF_S)
    await perform_all(store, engine)
    row = await effect_row(store, key)
    assert (row["state"], row["absent"], row["next_at"]) == ("unknown", clock.now(), clock.now() + SETTLE_S)
    assert row["tries"] == 1, "a look is no try"
    # Somebody hurries: a look within the settling time changes nothing.
    live = await _live(store, key)
    clock.advance(SETTLE_S / 2)
    await engine.perform(live)
    row = await effect_row(store, key)
    assert (world.count("do"), row["next_at"]) == (1, clock.now() + SETTLE_S / 2)
    clock.at = row["next_at"]
    await perform_all(store, engine)
    assert world.count("do") == 2
    assert (await effect_row(store, key))["state"] == "done"
    assert world.truth(key) == 1


@pytest.mark.parametrize("moods", [["temporary"], ["well", "temporary"]], ids=["evidence", "find"])
async def test_what_is_unknown_stays_so_when_the_deciding_look_is_refused(
    store: Store, engine: Engine, world: FarSide, clock: HandClock, moods: list[str]
) -> None:
    """What comes to light during the outage is still ours, and is not asked for a second time."""
    run = await planned(store, Order(what="a"))
    key = f"{run}/s/1/order/0"
    world.lag_s = 3 * SETTLE_S
    world.moods.extend(["well", "lost"])
    for _ in range(2):
        await perform_all(store, engine)
        clock.at = (await effect_row(store, key))["next_at"]
    world.moods.extend(moods)
    await perform_all(store, engine)
    row = await effect_row(store, key)
    assert (row["state"], row["absent"] is not None, world.count("do")) == ("unknown", True, 1)
    clock.advance(3 * SETTLE_S)
    await perform_all(store, engine)
    row = await effect_row(store, key)
    assert (row["state"], world.truth(key)) == ("done", 1)


async def test_an_effect_that_raises_again_and_again_is_put_before_a_person(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    key = f"{run}/s/1/put/0"
    for number in range(LOOKS_BEFORE_DOUBT):
        assert (await effect_row(store, key))["state"] != "doubt", number
        world.moods.append("defect")
        engine.busy[key] = "put"
        await engine._carry(await _live(store, key))
    row = await effect_row(store, key)
    assert (row["state"], row["next_at"]) == ("doubt", clock.now() + DOUBT_LOOK_S)


async def test_one_defect_after_many_refused_tries_is_no_doubt_yet(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    key = f"{run}/s/1/put/0"
    world.moods.extend(["temporary"] * (2 * LOOKS_BEFORE_DOUBT))
    for _ in range(2 * LOOKS_BEFORE_DOUBT):
        await engine.perform(await _live(store, key))
    world.moods.append("defect")
    engine.busy[key] = "put"
    await engine._carry(await _live(store, key))
    assert (await effect_row(store, key))["state"] == "unknown"


async def _live(store: Store, key: str):  # type: ignore[no-untyped-def] # LiveEffect
    clock = store.clock
    assert isinstance(clock, HandClock)
    now, clock.at = clock.at, clock.at + 1.0e6
    live = next(live for live in await store.next_effects((), 10) if live.record.key == key)
    clock.at = now
    return live


async def test_what_shows_late_is_found_by_the_second_look(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Order(what="a"))
    world.lag_s = SETTLE_S * 0.9
    world.moods.extend(["well", "lost"])
    await perform_all(store, engine)
    for wait_s in (BACKOFF_S, SETTLE_S):
        clock.advance(wait_s)
        await perform_all(store, engine)
    assert world.truth(f"{run}/s/1/order/0") == 1
    assert (await effect_row(store, f"{run}/s/1/order/0"))["state"] == "done"


async def test_an_absence_from_before_the_last_intent_proves_nothing_about_it(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    """The first try was lost and believed after two looks; the second one happened, shows late, and we died there."""
    run = await planned(store, Order(what="a"))
    key = f"{run}/s/1/order/0"
    world.moods.extend(["well", "unknown"])
    await perform_all(store, engine)
    clock.advance(BACKOFF_S)
    await perform_all(store, engine)  # The first look finds nothing.
    clock.advance(SETTLE_S)
    world.lag_s = SETTLE_S * 0.9
    world.moods.extend(["well", "well", "crash after"])
    with pytest.raises(Crash):
        await perform_all(store, engine)  # The second one neither: it is done again, and the process dies.
    await store.close()
    async with opened(store.db.path, clock) as again:
        heir = new_engine(again, world)
        for _ in range(4):
            await perform_all(again, heir)
            clock.advance(SETTLE_S)
        assert world.truth(key) == 1
        assert (await effect_row(again, key))["state"] == "done"


@pytest.mark.parametrize("seam", ["crash before", "crash after"])
@pytest.mark.parametrize("kind", [Put, Order])
async def test_after_a_crash_what_was_open_is_unknown_and_found(
    store: Store, engine: Engine, world: FarSide, clock: HandClock, kind: type[Put], seam: str
) -> None:
    run = await planned(store, kind(what="a"))
    key = f"{run}/s/1/{kind.kind}/0"
    world.moods.extend(["well", seam] if kind is Order else [seam])
    with pytest.raises(Crash):
        await perform_all(store, engine)
    assert (await effect_row(store, key))["state"] == "open"
    await store.close()
    async with opened(store.db.path, clock) as again:
        row = await effect_row(again, key)
        assert (row["state"], row["reason"]) == ("unknown", "aglowd was restarted while it was under way")
        assert await again.next_dirty() == [], "a handler is asked before its intent is finished"
        for _ in range(3):
            await perform_all(again, new_engine(again, world))
            clock.advance(SETTLE_S)
        assert world.truth(key) == 1
        assert (await only_work(again)).seen.result(kind) == 1


async def test_planned_stays_planned_over_a_crash(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Order(what="a"))
    world.moods.append("crash before")
    with pytest.raises(Crash):
        await perform_all(store, engine)
    await store.close()
    async with opened(store.db.path, clock) as again:
        assert (await effect_row(again, f"{run}/s/1/order/0"))["state"] == "planned"


async def test_an_outcome_that_nobody_can_tell_is_put_before_a_person(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    key = f"{run}/s/1/put/0"
    world.moods.append("lost")
    await perform_all(store, engine)
    looks = 0
    while (row := await effect_row(store, key))["state"] == "unknown":
        clock.at = row["next_at"]
        world.moods.append("unknown")
        looks += await perform_all(store, engine)
        assert looks <= LOOKS_BEFORE_DOUBT
    assert (looks, row["state"]) == (LOOKS_BEFORE_DOUBT, "doubt")
    assert row["reason"] == "in doubt, aglowd keeps looking: connection reset"
    assert "EffectDoubtful" in await kinds_of_events(store)
    clock.advance(1.0e6)
    await store.due()
    assert await store.next_dirty() == [], "a step is decided while one of its effects is in doubt"
    assert (await step_row(store, run, "s"))["stopping"] == "timeout"
    assert world.truth(key) == 1


async def test_a_doubt_keeps_no_timer_busy(store: Store, clock: HandClock) -> None:
    await planned(store, Put(what="a"))
    await store.put_off(await only_effect(store), EffectState.DOUBT, "two of them", 60.0)
    clock.advance(61.0)
    at = await store.due()
    assert at is None or at > clock.now(), "the timers turn without a pause"


async def test_an_effect_under_way_keeps_no_timer_busy(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    await planned(store, Put(what="a"))
    world.may_do.clear()
    async with running(engine):
        await world.began.wait()
        clock.advance(1.0)
        at = await store.due()
        assert at is None or at > clock.now(), "the timers turn without a pause while an effect takes its time"
        world.may_do.set()
        await engine.drain()


async def test_the_bell_rings_when_the_time_of_an_effect_has_come(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    world.moods.append("temporary")
    await planned(store, Put(what="a"))
    await perform_all(store, engine)
    assert await store.due() == clock.now() + BACKOFF_S
    store.bells.effects.clear()
    clock.advance(BACKOFF_S)
    await store.due()
    assert store.bells.effects.is_set()


@pytest.mark.parametrize("mood", ["temporary", "busy"])
async def test_a_look_that_fails_changes_nothing_that_is_known(
    store: Store, engine: Engine, world: FarSide, clock: HandClock, mood: str
) -> None:
    run = await planned(store, Order(what="a"))
    key = f"{run}/s/1/order/0"
    world.moods.extend(["well", "unknown"])
    await perform_all(store, engine)
    clock.advance(BACKOFF_S)
    await perform_all(store, engine)
    absent = (await effect_row(store, key))["absent"]
    clock.advance(SETTLE_S)
    world.moods.append(mood)
    await perform_all(store, engine)
    row = await effect_row(store, key)
    assert (row["state"], row["absent"]) == ("unknown", absent)
    assert world.count("do") == 1


@pytest.mark.parametrize(
    ("mood", "state", "reason"),
    [("conflict", "rejected", "somebody else's"), ("permanent", "unknown", "outcome unknown: 403")],
)
async def test_a_look_ends_it_only_if_something_else_stands_there(
    store: Store, engine: Engine, world: FarSide, clock: HandClock, mood: str, state: str, reason: str
) -> None:
    """A look that is merely refused says nothing of what was done: rejecting there would let the deed be done again."""
    run = await planned(store, Put(what="a"))
    world.moods.extend(["unknown", mood])
    await perform_all(store, engine)
    clock.advance(BACKOFF_S)
    await perform_all(store, engine)
    row = await effect_row(store, f"{run}/s/1/put/0")
    assert (row["state"], row["reason"]) == (state, reason)


async def test_a_doubtful_effect_is_looked_for_again_and_found(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    key = f"{run}/s/1/put/0"
    world.moods.append("lost")
    await perform_all(store, engine)
    while (row := await effect_row(store, key))["state"] == "unknown":
        clock.at = row["next_at"]
        world.moods.append("unknown")
        await perform_all(store, engine)
    assert row["state"] == "doubt"
    clock.advance(DOUBT_LOOK_S)
    await perform_all(store, engine)
    assert (await effect_row(store, key))["state"] == "done"
    assert world.truth(key) == 1


async def test_notes_are_committed_on_the_way_and_handed_back(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Noted(what="a"))
    key = f"{run}/s/1/noted/0"
    world.moods.append("crash after")
    with pytest.raises(Crash):
        await perform_all(store, engine)
    assert (await effect_row(store, key))["notes"] == '{"registered":"job of try 0"}'
    await store.close()
    async with opened(store.db.path, clock) as again:
        await perform_all(again, new_engine(again, world))
        assert (await only_work(again)).seen.result(Noted) == "job of try 0"


async def test_the_same_key_again_returns_what_is_recorded_and_calls_nothing(
    store: Store, engine: Engine, world: FarSide
) -> None:
    await planned(store, Put(what="a"))
    await perform_all(store, engine)
    await decide(store, GRAPH, Do.all(Put(what="a"), Put(what="b", ordinal=1)))
    assert (await only_effect(store)).record.ordinal == 1
    await perform_all(store, engine)
    assert world.count("do") == 2
    with pytest.raises(AglowError, match="asks only for effects that have ended"):
        await decide(store, GRAPH, Do.all(Put(what="a"), Put(what="b", ordinal=1)))


async def test_two_effects_of_one_key_at_once_are_a_defect_and_change_nothing(store: Store, world: FarSide) -> None:
    await begin(store, GRAPH)
    with pytest.raises(AglowError, match="two effects of one key"):
        await decide(store, GRAPH, Do.all(Put(what="a"), Put(what="b")))
    assert await store.next_effects((), 8) == []
    assert world.count("do") == 0


async def test_other_inputs_under_one_key_are_a_defect_and_change_nothing(
    store: Store, engine: Engine, world: FarSide
) -> None:
    run = await planned(store, Put(what="a"))
    await perform_all(store, engine)
    before = await effect_row(store, f"{run}/s/1/put/0")
    with pytest.raises(AglowError, match="other inputs"):
        await decide(store, GRAPH, Do.all(Put(what="new", ordinal=1), Put(what="b")))
    assert await effect_row(store, f"{run}/s/1/put/0") == before
    assert await store.next_effects((), 10) == [], "half of a refused decision was kept"


async def test_an_attempt_cannot_end_while_one_of_its_effects_lives(store: Store, engine: Engine) -> None:
    await begin(store, GRAPH)
    looked = await only_work(store)
    await decide(store, GRAPH, Do.all(Put(what="a")))
    row = await step_row(store, looked.run.id, "s")
    standing = {name: row[name] for name in ("version", "wanted", "deadline", "pool")}
    current = msgspec.structs.replace(looked.step, **standing)
    for outcome in (Done(), Failed("no"), Failed("no", final=True)):
        with pytest.raises(AglowError, match="cannot end while 1 of its effects"):
            await decide(store, GRAPH, outcome, msgspec.structs.replace(looked, step=current, moment=row["version"]))
    assert (await step_row(store, looked.run.id, "s"))["state"] == "working"


async def test_faults_end_no_attempt_while_one_of_its_effects_lives(store: Store, engine: Engine) -> None:
    run = await planned(store, Put(what="a"))
    for _ in range(MAX_FAULTS):
        looked = await store.work(run, "s")
        assert looked is not None
        with contextlib.suppress(AglowError):
            await store.add_fault(Decision(looked, Done(), GRAPH), "a defect of the handler", 60.0)
    assert (await step_row(store, run, "s"))["state"] == "working"
    assert (await effect_row(store, f"{run}/s/1/put/0"))["state"] == "open"


async def test_what_was_not_begun_is_withdrawn_when_its_attempt_is_stopped(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Order(what="a"), Put(what="b"))
    world.moods.extend(["temporary", "lost"])
    await perform_all(store, engine)
    clock.advance(10_000.0)
    store.bells.effects.clear()
    await store.due()
    assert store.bells.effects.is_set()
    lives = {live.record.kind: live for live in await store.next_effects((), 10)}
    assert {kind: live.withdrawn for kind, live in lives.items()} == {"order": True, "put": False}
    await perform_all(store, engine)
    rows = {kind: await effect_row(store, f"{run}/s/1/{kind}/0") for kind in ("order", "put")}
    assert (rows["order"]["state"], rows["order"]["reason"]) == ("rejected", "withdrawn before it was done")
    assert rows["put"]["state"] == "done"
    assert (world.truth(f"{run}/s/1/order/0"), world.truth(f"{run}/s/1/put/0")) == (0, 1)


async def test_what_stop_decides_is_carried_out(store: Store, engine: Engine, world: FarSide, clock: HandClock) -> None:
    run = await planned(store, Put(what="a"))
    await perform_all(store, engine)
    clock.advance(10_000.0)
    await store.due()
    await decide(store, GRAPH, Do.all(Order(what="undo")))
    assert not (await only_effect(store)).withdrawn
    await perform_all(store, engine)
    assert (await effect_row(store, f"{run}/s/1/order/0"))["state"] == "done"


# --- the engine's own loop


async def test_effects_run_side_by_side_and_never_more_than_there_is_room(
    store: Store, world: FarSide, clock: HandClock
) -> None:
    engine = new_engine(store, world, most=2)
    world.may_do.clear()
    await planned(store, *(Put(what=str(number), ordinal=number) for number in range(5)))
    most = 0
    async with running(engine):
        await world.began.wait()
        store.bells.effects.set()
        for _ in range(20):  # The loop turns, and the engine takes up no third one.
            store.bells.effects.set()
            await store.next_effects((), 1)
            most = max(most, len(engine.busy))
        assert (most, world.count("do")) == (2, 2)
        assert set(engine.busy.values()) == {"put"}
        world.may_do.set()
        await settled(store)
    assert sorted(what for _, _, what, _ in world.things) == ["0", "1", "2", "3", "4"]


async def becomes(is_so: Callable[[], bool]) -> None:
    """Return when it is; nobody tells of what is only in the engine's mind."""
    for _ in range(5_000):
        if is_so():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never became so")


def looks_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many places there were at each look into the journal."""
    looks: list[int] = []
    next_effects = store.next_effects

    async def look(busy: Iterable[str], most: int) -> list[LiveEffect]:
        looks.append(most)
        return await next_effects(busy, most)

    monkeypatch.setattr(store, "next_effects", look)
    return looks


async def test_the_end_of_an_effect_is_no_reason_to_look_for_others_if_none_waited_for_its_place(
    store: Store, engine: Engine, world: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    await planned(store, *(Put(what=str(number), ordinal=number) for number in range(3)))
    looks = looks_of(store, monkeypatch)
    async with running(engine):
        await becomes(lambda: len(world.things) == 3 and not engine.busy)
        await store.last_event()
        await asyncio.sleep(0.01)
        assert looks == [engine.most]


async def test_a_place_that_becomes_free_during_a_look_is_taken_at_once(
    store: Store, world: FarSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = new_engine(store, world, most=2)
    await planned(store, *(Put(what=str(number), ordinal=number) for number in range(4)))
    found = await store.next_effects((), 4)
    looks: list[int] = []

    async def look(busy: Iterable[str], most: int) -> list[LiveEffect]:
        """The first one ends while somebody looks for the third."""
        looks.append(most)
        if len(looks) == 1:
            return found[:1]
        if len(looks) == 2:
            world.may_do.set()
            await becomes(lambda: not engine.busy)
            world.may_do.clear()
            return found[1:2]
        return found[2:3] if len(looks) == 3 else []

    monkeypatch.setattr(store, "next_effects", look)
    world.may_do.clear()
    async with running(engine):
        await world.began.wait()
        store.bells.effects.set()
        await becomes(lambda: len(engine.busy) == 2)
    assert looks[:3] == [2, 1, 1]


async def test_what_is_due_again_before_its_place_is_free_is_taken_up_at_once(
    store: Store, engine: Engine, world: FarSide
) -> None:
    await planned(store, Put(what="a"))
    world.moods.append("again")
    async with running(engine):
        await becomes(lambda: len(world.things) == 1)


async def test_draining_ends_what_is_under_way_and_takes_up_nothing_more(store: Store, world: FarSide) -> None:
    engine = new_engine(store, world, most=1)
    world.may_do.clear()
    await planned(store, Put(what="a"), Put(what="b", ordinal=1))
    async with running(engine):
        await world.began.wait()
        draining = asyncio.create_task(engine.drain())
        await asyncio.sleep(0)
        assert not draining.done()
        world.may_do.set()
        async with asyncio.timeout(10):
            await draining
        for _ in range(5):
            store.bells.effects.set()
            await store.next_effects((), 1)
        assert (engine.busy, len(world.things)) == ({}, 1)
    assert len(await store.next_effects((), 10)) == 1


async def test_a_defect_of_one_effect_stops_no_other_and_its_outcome_is_unknown(
    store: Store, world: FarSide, clock: HandClock
) -> None:
    engine = new_engine(store, world)
    world.moods.append("defect")
    run = await planned(store, Put(what="a"))
    async with running(engine), asyncio.timeout(10):
        while (row := await effect_row(store, f"{run}/s/1/put/0"))["state"] != "unknown":
            await store.bells.events.wait()
            store.bells.events.clear()
        assert row["reason"] == "put raised ValueError: a defect of the deed"
        assert row["next_at"] == clock.now() + BACKOFF_MOST_S
        clock.at = row["next_at"]
        await store.due()
        await settled(store)
    assert world.truth(f"{run}/s/1/put/0") == 1


async def test_cancelling_the_engine_leaves_an_honest_journal(store: Store, world: FarSide, clock: HandClock) -> None:
    engine = new_engine(store, world)
    world.may_do.clear()
    run = await planned(store, Put(what="a"))
    async with running(engine):
        await world.began.wait()
    assert engine.busy == {}
    assert (await effect_row(store, f"{run}/s/1/put/0"))["state"] == "open"
    await store.close()
    async with opened(store.db.path, clock) as again:
        assert (await only_effect(again)).record.state is EffectState.UNKNOWN


@pytest.mark.parametrize("turns", range(5))
async def test_a_bell_that_rings_while_the_engine_is_stopped_does_not_keep_it(
    store: Store, engine: Engine, turns: int
) -> None:
    task = asyncio.create_task(engine.run())
    for _ in range(3):
        await store.next_effects((), 1)
    store.bells.effects.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    _, left = await asyncio.wait({task}, timeout=2)
    task.cancel()
    assert not left, "the engine took no notice of being stopped"


async def test_what_cannot_be_put_off_is_not_done_again_by_this_process(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await planned(store, Put(what="a"))
    key = f"{run}/s/1/put/0"
    world.moods.append("defect")

    def refuse(db: sqlite3.Connection) -> None:
        db.execute("CREATE TRIGGER no BEFORE UPDATE ON effects BEGIN SELECT RAISE(ABORT, 'a defect'); END")

    await store.db.write(refuse)
    async with asyncio.timeout(10):
        task = asyncio.create_task(engine.run())
        await world.began.wait()
        while engine.busy:  # noqa: ASYNC110 - nothing rings when an effect ends that cannot be recorded
            await asyncio.sleep(0)
        await store.db.write(lambda db: db.execute("DROP TRIGGER no").close())
        other = await begin(store, GRAPH, key="P2+1")
        (work,) = [work for work in await store.next_dirty() if work.run.id == other]
        await decide(store, GRAPH, Do((Put(what="b"),)), work)
        while (await effect_row(store, f"{other}/s/1/put/0"))["state"] != "done":
            store.bells.dirty.clear()
            if (await effect_row(store, f"{other}/s/1/put/0"))["state"] != "done":
                await store.bells.dirty.wait()
        task.cancel()
        await asyncio.wait([task])
    assert world.calls.count(("do", key)) == 1
    assert (await effect_row(store, key))["state"] == "open"
