"""Values that change while runs are under way: what is decided next goes by the new ones, what has begun by its own."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support import HandClock, Played, begin, graph, new_reactor, settle_all, step, step_row

from aglowd import reactor as room
from aglowd.model import Done, FieldView, Outcome, Seen, StepView, Wait
from aglowd.pipeline import Pipeline
from aglowd.reactor import Reactor
from aglowd.store.store import Store

from .plays import STAGING, states, until_seen


def heed(reactor: Reactor, pipeline: Pipeline, **terms: Any) -> None:
    shown = {"config": {"colour": terms.pop("colour", "blue")}}
    reactor.heed(
        **{  # type: ignore[typeddict-item]
            "pools": {},
            "shown": shown,
            "select": ("SND",),
            "field_pipeline": pipeline.name,
            "max_fields": 10,
            **terms,
        }
    )


def tells(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Wait until something was observed, and say what was given."""
    if seen.of(STAGING) is None:
        return Wait((STAGING,), f"given {params.say}", 600.0)
    return Done({"say": params.say})


@pytest.fixture
def pipeline() -> Pipeline:
    say = {"say": "{{ config.colour }}"}
    return graph("p", step("a", params=say), step("b", "a", params=say))


async def test_a_step_that_has_begun_keeps_what_it_was_shown(
    store: Store, clock: HandClock, pipeline: Pipeline
) -> None:
    reactor = new_reactor(store, [Played({"a": tells})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    clock.advance(1)
    heed(reactor, pipeline, colour="red")
    clock.advance(1)
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    said = {name: msgspec.json.decode((await step_row(store, run, name))["outputs"])["say"] for name in "ab"}
    assert said == {"a": "blue", "b": "red"}


async def test_a_new_attempt_is_shown_what_counts_then(store: Store, clock: HandClock) -> None:
    pipeline = graph(
        "p", step("a", params={"say": "{{ config.colour }}"}, retries=1, retry_delay_s=1.0, timeout_s=50.0)
    )
    reactor = new_reactor(store, [Played({"a": tells})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    clock.advance(1)
    heed(reactor, pipeline, colour="red")
    for seconds in (60, 10):
        clock.advance(seconds)
        await store.due()
        await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["attempt"], row["reason"]) == (2, "given red")


async def test_views_are_kept_for_so_many_reloads(
    store: Store, clock: HandClock, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "KEPT_VIEWS", 3)
    reactor = new_reactor(store, [Played({"a": tells})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    for number in range(5):
        clock.advance(1)
        heed(reactor, pipeline, colour=f"colour {number}")
        await settle_all(reactor)
    assert len(reactor._views) == 3
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert msgspec.json.decode(row["outputs"]) == {"say": "colour 2"}, "the oldest that is known"


async def test_a_pool_that_grows_takes_who_waits_for_it(store: Store) -> None:
    pipeline = graph("p", step("a", pool="copies"))
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline, pools={"copies": 1})
    runs = []
    for name in ("P1", "P2", "P3"):
        runs.append(await begin(store, pipeline, name))
        await settle_all(reactor)
    assert [(await states(store, run))["a"] for run in runs] == ["waiting", "ready", "ready"]
    heed(reactor, pipeline, pools={"copies": 2})
    await store.ask_queued()
    await settle_all(reactor)
    assert [(await states(store, run))["a"] for run in runs] == ["waiting", "waiting", "ready"]
    heed(reactor, pipeline, pools={})
    await store.ask_queued()
    await settle_all(reactor)
    assert [(await states(store, run))["a"] for run in runs] == ["waiting"] * 3


async def test_more_fields_at_once_are_taken_at_once(store: Store, pipeline: Pipeline) -> None:
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline, max_fields=1)
    await store.put_fields([(FieldView(f"P{number}", "SND"), "") for number in range(3)])
    await reactor._admit()
    assert (await store.status())["fields"] == {"offered": 2, "running": 1}
    store.bells.fields.clear()
    heed(reactor, pipeline, max_fields=2)
    assert store.bells.fields.is_set(), "nobody has to wait for the next look at the catalogue"
    await reactor._admit()
    assert (await store.status())["fields"] == {"offered": 1, "running": 2}
