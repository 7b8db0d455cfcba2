"""What will happen by itself: every timer with what it does, and who waits for a place."""

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
    new_engine,
    new_reactor,
    perform_all,
    settle_all,
    step,
)

from aglowd.model import Failed, Outcome, Seen, StepView, Subject, Wait
from aglowd.schedules import Schedule
from aglowd.store import ahead
from aglowd.store.doubts import Word
from aglowd.store.pauses import Hold
from aglowd.store.schedules import Planned
from aglowd.store.store import Store

THING = Subject("thing", "one")


def waits(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Wait((THING,), "nothing yet", 600.0)


def fails(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Failed("no tape")


async def timers(store: Store, within_s: float) -> dict[str, tuple[float, str]]:
    """Step → when its timer fires, from now, and what it does."""
    now = store.clock.now()
    ahead = await store.ahead(now + within_s)
    return {one["step"] or one["field"]: (one["at"] - now, one["does"]) for one in ahead["timers"]}


async def test_each_timer_says_when_and_what(store: Store, clock: HandClock, world: FarSide) -> None:
    pipeline = graph("p", step("wait"), step("again", retries=2, retry_delay_s=300.0), step("effect"))
    plays = {"wait": waits, "again": fails, "effect": do(Put(what="x"))}
    reactor = new_reactor(store, [Played(plays)], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    world.moods.append("unknown")
    await perform_all(store, new_engine(store, world))
    assert (await timers(store, 0.0)).keys() == set()
    found = await timers(store, 3_600.0)
    assert found["wait"] == (600.0, "it is decided again with what has been seen by then")
    assert found["again"] == (300.0, "attempt 2 of 3 begins")
    assert found["effect"][1] == "it is looked for again"
    assert 0.0 < found["effect"][0] < 3_600.0
    ahead = await store.ahead(clock.now() + 3_600.0)
    assert [one["at"] for one in ahead["timers"]] == sorted(one["at"] for one in ahead["timers"])
    (effect,) = [one for one in ahead["timers"] if one["step"] == "effect"]
    assert (effect["field"], effect["effect"], effect["reason"]) == (
        "P1",
        "P1-1/effect/1/put/0",
        "outcome unknown: connection reset",
    )
    assert (await timers(store, 400.0)).keys() >= {"again"}
    assert "wait" not in await timers(store, 400.0)


async def test_what_is_held_does_nothing_and_a_deadline_ends_an_attempt(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("long", timeout_s=900.0, retries=1), step("once", timeout_s=800.0))
    reactor = new_reactor(store, [Played({"long": waits, "once": waits})], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    ahead = await store.ahead(clock.now() + 1_000.0)
    ends = {one["step"]: one["does"] for one in ahead["timers"] if "its time is up" in one["does"]}
    assert ends["long"].endswith("and attempt 2 of 2 follows")
    assert ends["once"].endswith("and the step fails")
    await store.hold("pause", [Hold("field", "P1")], Word(1000, "maintenance"))
    found = await store.ahead(clock.now() + 1_000.0)
    assert {one["does"].partition(" since")[0] for one in found["timers"]} == {"nothing: paused"}


async def test_a_schedule_is_a_timer(store: Store, clock: HandClock) -> None:
    planned = Planned(graph("ci", step("s")), Schedule(every="1h"))
    await store.begin_due([planned])
    ahead = await store.ahead(clock.now() + 3_700.0)
    (timer,) = ahead["timers"]
    assert (timer["field"], timer["does"], timer["reason"]) == ("schedule/ci", "its run begins", "every 1h")


async def test_a_pools_queue_is_the_order_in_which_places_are_given(store: Store, clock: HandClock) -> None:
    def pipeline(name: str, priority: int) -> Any:
        return graph(name, step("s", pool="staging", priority=priority))

    low, high = pipeline("low", 0), pipeline("high", 5)
    played = Played({"s": waits})
    reactor = new_reactor(store, [played], low, high, pools={"staging": 1})
    for key, graph_ in (("P1", low), ("P2", low), ("P3", low), ("P4", high)):
        await begin(store, graph_, key)
        await settle_all(reactor)
        clock.advance(10.0)
    ((name, pool),) = (await store.ahead(clock.now())).pop("pools").items()
    assert (name, pool["used"]) == ("staging", 1)
    assert [one["field"] for one in pool["queue"]] == ["P4", "P2", "P3"]
    await store.hold("pause", [Hold("field", "P4")], Word(1000, ""))
    assert [one["field"] for one in (await store.ahead(clock.now()))["pools"]["staging"]["queue"]] == ["P2", "P3"]


async def test_a_planned_effect_is_told(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("s"))
    reactor = new_reactor(store, [Played({"s": do(Order(what="x"))})], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    assert (await timers(store, 60.0))["s"] == (0.0, "it is done, or tried again")


async def test_of_many_timers_the_next_are_told(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "MAX_TIMERS", 2)
    pipeline = graph("p", *(step(name) for name in "abcd"))
    reactor = new_reactor(store, [Played(dict.fromkeys("abcd", waits))], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    found = await store.ahead(clock.now() + 3_600.0)
    assert [one["step"] for one in found["timers"]] == ["a", "b"]
    assert found["left_out"] > 0
