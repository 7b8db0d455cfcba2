"""Decisions in the transaction from which they follow: what is seen, what it means and what is done next are one commit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import Played, Put, begin, do, graph, new_engine, new_reactor, one, perform_all, rows, settle_all, step

from aglowd.errors import StaleVersion
from aglowd.model import Done, Outcome, Seen, StepView, Wait
from aglowd.reactor import Reactor, Terms
from aglowd.store import at_once
from aglowd.store.doubts import Word
from aglowd.store.pauses import Hold
from aglowd.store.runs import Decision
from aglowd.store.store import Store

from .plays import STAGING, raises, run_row, states, until_seen

TERMS = Terms(pools={}, shown={}, select=("SND",), field_pipeline="p", max_fields=10)

RUN = "P1-1"


async def waiting(store: Store, pipeline: Any, played: Played, *fields: str, **terms: Any) -> Reactor:
    """A reactor that decides at once, and a run of each field whose first step waits."""
    reactor = new_reactor(store, [played], pipeline, **terms)
    for field in fields or ("P1",):
        await begin(store, pipeline, field)
    await settle_all(reactor)
    await reactor.decide_at_once()
    store.bells.dirty.clear()
    store.bells.effects.clear()
    return reactor


async def tell(store: Store) -> None:
    await store.ingest("staging", None, [(STAGING, {"online": 1})])


async def test_what_follows_from_an_observation_is_in_its_commit(store: Store, world: Any) -> None:
    pipeline = graph("p", step("wait"), step("put", "wait"), step("last", "put"))
    reactor = await waiting(store, pipeline, Played({"wait": until_seen, "put": do(Put(what="a"))}))
    commits, decisions = store.db.commits, reactor.decisions
    await tell(store)
    assert store.db.commits == commits + 1
    assert await states(store, RUN) == {"wait": "done", "put": "working", "last": "pending"}
    assert reactor.decisions == decisions + 2
    assert not store.bells.dirty.is_set(), "there is nothing left for a turn"
    assert store.bells.effects.is_set()
    await perform_all(store, new_engine(store, world))
    assert store.db.commits == commits + 2, "the end of the deed, of its step, and of the last one"
    assert (await one(store, "SELECT state FROM runs"))["state"] == "done"


async def test_the_log_tells_of_them_as_of_others(store: Store, logged: list[Any]) -> None:
    pipeline = graph("p", step("wait"))
    await waiting(store, pipeline, Played({"wait": until_seen}))
    await tell(store)
    assert [line["event"] for line in logged] == ["step_wait", "step_done"]
    causes = await rows(store, "SELECT id, kind, cause FROM events ORDER BY id DESC LIMIT 3")
    ended, done, seen = causes
    assert (seen["kind"], done["kind"], ended["kind"]) == ("SubjectChanged", "StepDone", "RunEnded")
    assert (done["cause"], ended["cause"]) == (seen["id"], done["id"])


async def test_a_handler_that_raises_keeps_nobody_else_and_is_left_to_its_turn(store: Store) -> None:
    pipeline = graph("p", step("wait"), step("bad", "wait"), step("good", "wait"))
    reactor = await waiting(store, pipeline, Played({"wait": until_seen, "bad": raises}))
    await tell(store)
    assert await states(store, RUN) == {"wait": "done", "bad": "ready", "good": "done"}
    assert store.bells.dirty.is_set()
    await reactor.decide_once()
    assert (await one(store, "SELECT faults FROM steps WHERE name = 'bad'"))["faults"] == 1


async def test_what_cannot_be_carried_through_leaves_nothing_behind(store: Store, world: Any) -> None:
    def asks_for_it_again(view: StepView, params: Any, seen: Seen) -> Outcome:
        return do(Put(what="a"))(view, params, Seen())

    pipeline = graph("p", step("put"))
    reactor = await waiting(store, pipeline, Played({"put": asks_for_it_again}))
    before = await store.last_event()
    await perform_all(store, new_engine(store, world))
    told = await rows(store, "SELECT kind FROM events WHERE id > ?", before)
    assert [event["kind"] for event in told] == ["EffectDone"]
    await reactor.decide_once()
    assert "this is a defect of its handler" in (await one(store, "SELECT reason FROM steps"))["reason"]


async def test_a_place_in_a_pool_is_asked_for_in_a_turn(store: Store) -> None:
    pipeline = graph("p", step("wait"), step("pooled", "wait", pool="narrow"))
    reactor = await waiting(store, pipeline, Played({"wait": until_seen}), pools={"narrow": 1})
    await tell(store)
    assert await states(store, RUN) == {"wait": "done", "pooled": "ready"}
    await settle_all(reactor)
    assert await states(store, RUN) == {"wait": "done", "pooled": "done"}


async def test_one_transaction_decides_a_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "AT_ONCE_MOST", 3)
    pipeline = graph("p", step("wait"))
    reactor = await waiting(store, pipeline, Played({"wait": until_seen}), *(f"P{number}" for number in range(5)))
    await tell(store)
    assert len(await rows(store, "SELECT 1 FROM steps WHERE state = 'done'")) == 3
    assert store.bells.dirty.is_set()
    assert await settle_all(reactor) == 2


async def test_who_raises_is_asked_no_more_often(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "AT_ONCE_MOST", 3)
    pipeline = graph("p", step("wait"))
    played = Played({"wait": until_seen})
    await waiting(store, pipeline, played, *(f"P{number}" for number in range(5)))
    played.plays["wait"] = raises
    played.asked.clear()
    await tell(store)
    assert len(played.asked) == 3


async def test_what_was_decided_is_told_though_who_asked_for_the_commit_has_gone(store: Store) -> None:
    pipeline = graph("p", step("wait"), step("put", "wait"))
    await waiting(store, pipeline, Played({"wait": until_seen, "put": do(Put(what="a"))}))
    asking = asyncio.create_task(tell(store))
    await asyncio.sleep(0)
    asking.cancel()
    async with asyncio.timeout(10.0):
        await store.bells.effects.wait()
    assert asking.cancelled()
    assert await states(store, RUN) == {"wait": "done", "put": "working"}


async def test_after_a_reload_nothing_is_decided_by_what_was_configured_before(store: Store) -> None:
    pipeline = graph(
        "p", step("say", params={"say": "{{ config.colour }}"}), outputs={"x": "{{ steps.say.outputs.say }}"}
    )
    reactor = new_reactor(store, [Played()], pipeline)
    await reactor.decide_at_once()
    reactor.heed(**{**TERMS, "shown": {"config": {"colour": "red"}}})
    run = await begin(store, pipeline)
    assert await states(store, run) == {"say": "ready"}, "it is left to the turn that begins with the new configuration"
    await settle_all(reactor)
    assert (await run_row(store, run))["outputs"] == '{"x":"red"}'
    run = await begin(store, pipeline, "P2")
    assert (await run_row(store, run))["outputs"] == '{"x":"red"}', "and from then on it is decided at once"


async def test_a_step_that_is_held_is_left(store: Store) -> None:
    pipeline = graph("p", step("wait"), step("next", "wait"))
    reactor = await waiting(store, pipeline, Played({"wait": until_seen}))
    await store.hold("pause", [Hold("field", "P1")], Word(1000, "a look first"))
    await tell(store)
    assert await states(store, RUN) == {"wait": "waiting", "next": "pending"}
    await store.hold("resume", [Hold("field", "P1")], Word(1000, "all is well"))
    await settle_all(reactor)
    assert await states(store, RUN) == {"wait": "done", "next": "done"}


async def test_a_turn_does_not_commit_what_it_decided_before_another_step_moved(store: Store) -> None:
    """Of one run each decision sees what the ones before have made of it."""
    pipeline = graph("p", step("a"), step("b"))
    run = await begin(store, pipeline)
    a, b = await store.work(run, "a"), await store.work(run, "b")
    assert a is not None
    assert b is not None
    await store.finish(Decision(b, Done(), pipeline))
    with pytest.raises(StaleVersion, match="another step"):
        await store.finish(Decision(a, Done(), pipeline))
    assert await states(store, run) == {"a": "ready", "b": "done"}


async def test_only_a_timer_that_is_earlier_wakes_who_keeps_time(store: Store) -> None:
    pipeline = graph("p", step("rest", params={"number": "{{ params.seconds }}"}))
    rests = Played({"rest": lambda view, params, seen: Wait((), "rests", params.number)})
    reactor = new_reactor(store, [rests], pipeline)
    woken = []
    for number, seconds in enumerate((60, 600, 6)):
        await store.due()
        store.bells.timers.clear()
        await begin(store, pipeline, f"P{number}", seconds=seconds)
        await settle_all(reactor)
        woken.append(store.bells.timers.is_set())
    assert woken == [True, False, True]
