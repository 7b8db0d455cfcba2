"""Scheduled runs in the store: each time begins one run, also if the daemon was away, is killed, or the clock jumps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import HandClock, Played, begin, graph, new_reactor, opened, rows, settle_all, step

from aglowd.clock import Clock
from aglowd.model import Done, Failed, Outcome, Seen, StepView, Wait
from aglowd.model import Subject as Thing
from aglowd.schedules import Schedule
from aglowd.store import journal
from aglowd.store.schedules import Planned
from aglowd.store.store import Store

HOUR_S = 3600.0
EVERY = Schedule(every="4h", params={"where": "here"})
DAILY = graph("daily", step("look"), params=("where",), outputs={"seen": "{{ steps.look.outputs.say }}"})
PLAN = (Planned(DAILY, EVERY),)


@pytest.fixture
def clock() -> HandClock:
    clock = HandClock()
    clock.at = 250_000 * 4 * HOUR_S + 1.0  # One second after a multiple.
    return clock


@pytest.fixture
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[Store]:
    async with opened(tmp_path / "aglowd.db", clock) as store:
        yield store


async def runs(store: Store) -> list[dict[str, Any]]:
    return await rows(store, "SELECT * FROM runs WHERE key = 'schedule/daily' ORDER BY created, id")


async def end_all(store: Store, **plays: Any) -> None:
    await settle_all(new_reactor(store, [Played(plays)], DAILY))


async def test_a_time_that_has_come_begins_one_run_with_its_parameters(store: Store, clock: HandClock) -> None:
    first = await store.begin_due(PLAN)
    assert first == clock.at - 1.0 + 4 * HOUR_S, "what was due before the schedule was known is nobody's"
    assert await runs(store) == []
    clock.at = first - 0.001
    assert await store.begin_due(PLAN) == first
    assert await runs(store) == []
    clock.at = first
    assert await store.begin_due(PLAN) == first + 4 * HOUR_S
    assert await store.begin_due(PLAN) == first + 4 * HOUR_S
    (run,) = await runs(store)
    assert run["params"] == '{"where":"here"}'
    assert run["field"] == "schedule/daily"
    (listed,) = await store.schedules()
    assert (listed["pipeline"], listed["rule"], listed["next"]) == ("daily", "every 4h", first + 4 * HOUR_S)
    assert (listed["run"], listed["state"], listed["begun"]) == (run["id"], "running", first)


async def test_many_missed_times_are_made_up_for_once(store: Store, clock: HandClock) -> None:
    await store.begin_due(PLAN)
    clock.advance(100 * HOUR_S)
    assert await store.begin_due(PLAN) == (clock.at // (4 * HOUR_S) + 1) * 4 * HOUR_S
    await end_all(store)
    await store.begin_due(PLAN)
    assert len(await runs(store)) == 1


async def test_there_are_never_two_at_once_and_the_end_lets_the_next_begin(store: Store, clock: HandClock) -> None:
    await store.begin_due(PLAN)
    clock.advance(4 * HOUR_S)
    await store.begin_due(PLAN)
    clock.advance(9 * HOUR_S)
    assert await store.begin_due(PLAN) is None, "its next time has passed: it waits for the end of its run"
    assert len(await runs(store)) == 1
    store.bells.ends.clear()
    await end_all(store)
    assert store.bells.ends.is_set()
    await store.begin_due(PLAN)
    await store.begin_due(PLAN)
    assert [run["state"] for run in await runs(store)] == ["done", "running"]


async def test_the_next_run_sees_the_outputs_of_the_last_one_that_was_done(store: Store, clock: HandClock) -> None:
    seen: list[Any] = []

    def look(view: StepView, params: Any, _: Seen) -> Outcome:
        seen.append(params.say)
        return Failed("not today", final=True) if len(seen) == 2 else Done({"say": len(seen)})

    pipeline = graph(
        "daily",
        step("look", params={"say": "{{ last.outputs.seen | default('nothing') }}"}),
        outputs={"seen": "{{ steps.look.outputs.say }}"},
    )
    reactor = new_reactor(store, [Played({"look": look})], pipeline)
    plan = (Planned(pipeline, Schedule(every="4h")),)
    await store.begin_due(plan)
    for _ in range(3):
        clock.advance(4 * HOUR_S)
        await store.begin_due(plan)
        await settle_all(reactor)
    assert seen == ["nothing", 1, 1]
    assert [run["state"] for run in await runs(store)] == ["done", "failed", "done"]


async def test_what_fails_between_begin_and_remembering_leaves_neither(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = await store.begin_due(PLAN)
    clock.advance(4 * HOUR_S)
    add_event = journal.add_event

    def dies(*args: Any, **kwargs: Any) -> None:
        if args[2] == "Scheduled":
            raise RuntimeError("it dies here")
        add_event(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "add_event", dies)
        with pytest.raises(RuntimeError):
            await store.begin_due(PLAN)
    assert await runs(store) == []
    assert (await store.schedules())[0]["next"] == at
    await store.begin_due(PLAN)
    assert len(await runs(store)) == 1


async def test_a_clock_that_is_set_back_begins_nothing_a_second_time(tmp_path: Path, clock: HandClock) -> None:
    async with opened(tmp_path / "aglowd.db", clock) as store:
        await store.begin_due(PLAN)
        clock.advance(4 * HOUR_S)
        at = await store.begin_due(PLAN)
        await end_all(store)
    for back_s in (3 * HOUR_S, 4 * HOUR_S + 60.0):
        clock.advance(-back_s)
        async with opened(tmp_path / "aglowd.db", clock) as store:
            assert await store.begin_due(PLAN) == at
            clock.advance(back_s)
            assert await store.begin_due(PLAN) == at
            assert len(await runs(store)) == 1


async def test_a_changed_rule_counts_from_now_on_and_one_that_is_gone_is_forgotten(
    store: Store, clock: HandClock
) -> None:
    await store.begin_due(PLAN)
    clock.advance(4 * HOUR_S)
    await store.begin_due(PLAN)
    await end_all(store)
    clock.advance(40 * HOUR_S)
    changed = (Planned(DAILY, Schedule(cron="0 3 * * *", params=EVERY.params)),)
    at = await store.begin_due(changed)
    assert at is not None
    assert at > clock.at
    (listed,) = await store.schedules()
    assert (listed["rule"], listed["state"]) == ("0 3 * * * UTC", "done"), "how it went last is remembered"
    assert await store.begin_due(()) is None
    assert await store.schedules() == []
    assert len(await runs(store)) == 1


async def test_runs_of_other_keys_are_nothing_to_it(store: Store, clock: HandClock) -> None:
    await begin(store, DAILY, "schedule/other")
    await store.begin_due(PLAN)
    clock.advance(4 * HOUR_S)
    await store.begin_due(PLAN)
    assert len(await runs(store)) == 1


async def test_the_reactor_begins_what_is_due_by_itself(tmp_path: Path) -> None:
    """A minute passes in some 60 ms; each run takes a little more than one, so the ends ring the bell, too."""

    def look(view: StepView, params: Any, seen: Seen) -> Outcome:
        number = f"{view.key}"
        return Done() if seen.observations else Wait((Thing("played", number),), "a little", 30.0)

    clock = Clock(rate=1000.0)
    async with opened(tmp_path / "aglowd.db", clock) as store:
        plan = (Planned(DAILY, Schedule(every="1m", params=EVERY.params)),)
        reactor = new_reactor(store, [Played({"look": look})], DAILY, schedules=plan)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(reactor.run())
            for expected in (1, 2, 3):
                found: list[dict[str, Any]] = []
                for _ in range(1000):
                    found = await runs(store)
                    if len(found) == expected:
                        break
                    await asyncio.sleep(0.01)
                assert len(found) == expected
                assert [run["state"] for run in found].count("running") <= 1
                await asyncio.sleep(0.1)
                assert len(await runs(store)) == expected, "the last one has not ended"
                watched = await store.watched("played")
                await store.ingest("played", None, [(subject, {"seen": True}) for subject, _ in watched])
            task.cancel()
