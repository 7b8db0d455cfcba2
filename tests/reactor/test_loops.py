"""Definitions, and the reactor's own loops, which nobody plays for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
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
    opened,
    settle_all,
    step,
)

from aglowd.clock import Clock
from aglowd.handlers.run import Run
from aglowd.model import Done, Failed, FieldView, Outcome, Seen, StepView, Wait
from aglowd.pipeline import Pipeline
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.store.store import Store

from .plays import run_row, states

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
