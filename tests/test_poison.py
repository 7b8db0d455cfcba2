"""What nobody thought of stops as little as it can: one run, one subject, one look, and never the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from support import HandClock, Played, begin, decide, graph, new_reactor, rows, settle_all, step, step_row

from aglowd.clock import Clock
from aglowd.grid.picas import Cursor
from aglowd.model import FieldView, Json, Seen, StepView, Subject, Wait
from aglowd.reactor import FAULT_RETRY_S, Reactor
from aglowd.store.runs import MAX_FAULTS
from aglowd.store.store import Store
from aglowd.watchers import base
from aglowd.watchers.base import MAX_SPLITS, Observations, Watcher
from aglowd.watchers.staging import Staging
from aglowd.watchers.tokens import SOURCE, Tokens

PATIENCE_S = 20.0
"""Real seconds after which what a test waits for is not coming."""


@asynccontextmanager
async def under_way(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """The endless work, while the body runs; it must not end by itself."""
    task = asyncio.create_task(work)
    try:
        yield task
        assert not task.done(), task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(store: Store, holds: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Return when it holds; it is asked after every commit."""
    async with asyncio.timeout(PATIENCE_S):
        while not await holds():
            store.bells.events.clear()
            await store.bells.events.wait()


# --- an event that a handler cannot digest


def stumble(view: StepView, params: Any, seen: Seen) -> Any:
    raise KeyError("status")


async def test_poison_is_quarantined_at_the_limit_and_stops_only_its_run(store: Store, clock: HandClock) -> None:
    handler = Played({"bad": stumble})
    bad, good = graph("bad", step("bad", retries=5), step("behind", "bad")), graph("good", step("good"))
    reactor = new_reactor(store, [handler], bad, good)
    run = await begin(store, bad, "F1")
    for fault in range(1, MAX_FAULTS + 1):
        if fault == MAX_FAULTS:
            other = await begin(store, good, "F2")
        await settle_all(reactor)
        assert handler.asked.count("bad") == fault
        found = await step_row(store, run, "bad")
        assert found["faults"] == fault
        assert found["state"] == ("failed" if fault == MAX_FAULTS else "ready")
        clock.advance(FAULT_RETRY_S)
        await store.due()
    await settle_all(reactor)
    assert handler.asked.count("bad") == MAX_FAULTS
    states = {row["id"]: row["state"] for row in await rows(store, "SELECT id, state FROM runs")}
    assert states == {run: "failed", other: "done"}
    reason = "quarantined: its handler raised: KeyError: 'status'"
    assert found["reason"] == reason
    (failed,) = await rows(store, "SELECT reason FROM runs WHERE id = ?", run)
    assert failed["reason"] == f"bad: {reason}"
    raised = [event for event in await store.events(most=1000) if event["kind"] == "HandlerRaised"]
    assert [event["data"]["faults"] for event in raised] == list(range(1, MAX_FAULTS + 1))


async def test_an_observation_that_cannot_be_digested_is_poison_too(store: Store, clock: HandClock) -> None:
    subject = Subject("thing", "x")

    def play(view: StepView, params: Any, seen: Seen) -> Any:
        data = seen.of(subject)
        if data is None:
            return Wait((subject,), "looking", 1e6)
        return data["status"]["words"]

    pipeline = graph("waits", step("look"))
    reactor = new_reactor(store, [Played({"look": play})], pipeline)
    run = await begin(store, pipeline, "F1")
    await settle_all(reactor)
    await store.ingest("thing", None, [(subject, {"status": [["odd"]]})])
    for _ in range(MAX_FAULTS):
        await settle_all(reactor)
        assert (await step_row(store, run, "look"))["reason"].startswith(("its handler raised", "quarantined"))
        clock.advance(FAULT_RETRY_S)
        await store.due()
    assert (await step_row(store, run, "look"))["state"] == "failed"


async def test_a_handler_that_returns_nonsense_is_poison_too(store: Store, clock: HandClock) -> None:
    pipeline = graph("odd", step("odd"))
    reactor = new_reactor(store, [Played({"odd": lambda *_: "nonsense"})], pipeline)  # type: ignore[arg-type,return-value] # so it is
    run = await begin(store, pipeline, "F1")
    for _ in range(MAX_FAULTS):
        await settle_all(reactor)
        clock.advance(FAULT_RETRY_S)
        await store.due()
    assert (await step_row(store, run, "odd"))["state"] == "failed"


async def test_a_fault_of_a_step_that_changed_meanwhile_is_no_fault(store: Store) -> None:
    pipeline = graph("one", step("one"))
    reactor = new_reactor(store, [Played({"one": stumble})], pipeline)
    run = await begin(store, pipeline, "F1")
    (work,) = await store.next_dirty()
    decision = await reactor._decision(work)
    await decide(store, pipeline, Wait((), "meanwhile", 1e6), work)
    await reactor._finish(decision)
    found = await step_row(store, run, "one")
    assert (found["faults"], found["reason"]) == (0, "meanwhile")


@pytest.mark.parametrize("definition", ["{}", "no JSON", '{"name":"one","steps":{}}'])
async def test_a_run_whose_pipeline_cannot_be_read_stays_and_says_why(
    store: Store, clock: HandClock, definition: str
) -> None:
    pipeline, other = graph("one", step("one")), graph("two", step("two"))
    run = await begin(store, pipeline, "F1")
    await store.db.write(lambda db: db.execute("UPDATE pipelines SET definition = ?", (definition,)) and None)
    reactor = new_reactor(store, [Played()], other)
    for _ in range(MAX_FAULTS + 1):
        await settle_all(reactor)
        clock.advance(FAULT_RETRY_S)
        await store.due()
    found = await step_row(store, run, "one")
    assert (found["state"], found["faults"]) == ("ready", MAX_FAULTS + 1)
    assert found["reason"].startswith("its handler raised: ")
    done = await begin(store, other, "F2")
    await settle_all(reactor)
    assert (await step_row(store, done, "two"))["state"] == "done"


# --- the reactor's own loops


class Stumbling(Reactor):
    """Each of its loops raises at its first turn."""

    def stumble_once(self, *names: str) -> None:
        for name in names:
            whole, turns = getattr(self, name), iter((True,))

            async def turn(whole: Any = whole, turns: Any = turns) -> None:
                if next(turns, False):
                    raise RuntimeError("a defect")
                await whole()

            setattr(self, name, turn)


async def test_a_loop_that_raises_is_begun_anew_and_named(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aglowd.clock.RESTART_REAL_S", 0.01)
    pipeline = graph("field", step("wait"))
    reactor = new_reactor(store, [Played()], pipeline)
    reactor.__class__ = Stumbling
    assert isinstance(reactor, Stumbling)
    reactor.stumble_once("_decide_all", "_keep_time", "_admit")
    await store.put_fields([(FieldView("F1", "SND"), "")])

    async def is_done() -> bool:
        return [row["state"] for row in await rows(store, "SELECT state FROM runs")] == ["done"]

    async with under_way(reactor.run()):
        async with asyncio.timeout(PATIENCE_S):
            while len(reactor.defects) < 3:  # noqa: ASYNC110 - nothing rings when a loop stumbles.
                await asyncio.sleep(0)
        assert reactor.defects["intake"] == "intake: RuntimeError: a defect"
        await until(store, is_done)


# --- watchers


class Things(Watcher):
    """Sees every thing but those that it stumbles over."""

    kind = "thing"

    def __init__(self, store: Store, clock: Clock, poll_s: float = 1e9) -> None:
        super().__init__(SimpleNamespace(clock=clock), store, poll_s)  # type: ignore[arg-type] # it looks at nothing else
        self.bad: dict[str, Exception | Json] = {}
        self.looks: list[tuple[str, ...]] = []

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        self.looks.append(tuple(subject.id for subject in subjects))
        found = []
        for subject in subjects:
            data = self.bad.get(subject.id, "well")
            if isinstance(data, Exception):
                raise data
            found.append((subject, data))
        return found


WAITING = graph("waiting", step("wait"))


async def wait_for(store: Store, *subjects: Subject) -> None:
    """Let a step wait for the subjects."""
    run = await begin(store, WAITING, f"waits for {len(subjects)}")
    (work,) = [work for work in await store.next_dirty() if work.run.id == run]
    await decide(store, WAITING, Wait(subjects, "a test waits", 1e9), work)


async def seen(store: Store) -> dict[str, Json]:
    found = await rows(store, "SELECT id, data FROM subjects WHERE version > 0")
    return {row["id"]: msgspec.json.decode(row["data"]) for row in found}


@pytest.mark.parametrize("bad", [TypeError("odd"), RecursionError("deep"), "\ud800", {"x": object()}])
async def test_a_subject_that_cannot_be_read_keeps_nobody_else_back(store: Store, clock: HandClock, bad: Any) -> None:
    watcher = Things(store, clock)
    watcher.bad["n7"] = bad
    await wait_for(store, *(Subject("thing", f"n{number}") for number in range(20)))

    async def are_seen() -> bool:
        return len(await seen(store)) == 19

    async with under_way(watcher.run()):
        await until(store, are_seen)
        assert "n7" not in await seen(store)
        assert watcher.defect.startswith("thing:n7: ")
        assert (watcher.failures, watcher.last_ok) == (0, clock.now())
    assert len(watcher.looks) <= 2 * MAX_SPLITS + 1


async def test_a_watcher_that_stumbles_over_everything_asks_a_bounded_number_of_times(
    store: Store, clock: HandClock
) -> None:
    watcher = Things(store, clock)
    watcher.bad = {f"n{number}": TypeError("odd") for number in range(500)}
    subjects = [Subject("thing", name) for name in watcher.bad]
    assert await watcher._look(subjects) is False
    assert len(watcher.looks) <= 2 * MAX_SPLITS + 1
    assert (watcher.failures, await seen(store)) == (1, {})
    watcher.bad.clear()
    assert await watcher._look(subjects) is True
    assert (watcher.failures, watcher.defect) == (0, "")


async def test_an_observation_at_the_limit_is_recorded_and_a_longer_one_is_not(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_OBSERVATION_BYTES", 100)
    watcher = Things(store, clock)
    watcher.bad = {"at": "x" * 98, "over": "x" * 99}
    subjects = [Subject("thing", "at"), Subject("thing", "over")]
    await wait_for(store, *subjects)
    await watcher._look(subjects)
    assert await seen(store) == {"at": "x" * 98}
    assert watcher.defect == "thing:over: ValueError: the observation of thing:over is longer than 100 bytes"


async def test_a_watcher_that_raises_elsewhere_begins_anew(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aglowd.clock.RESTART_REAL_S", 0.01)
    watcher = Things(store, clock)
    await wait_for(store, Subject("thing", "n1"))
    whole, raised = watcher.watch, asyncio.Event()

    async def watch() -> None:
        if not raised.is_set():
            raised.set()
            raise ExceptionGroup("unhandled errors in a TaskGroup", [ValueError("a defect")])
        await whole()

    monkeypatch.setattr(watcher, "watch", watch)

    async def is_seen() -> bool:
        return await seen(store) == {"n1": "well"}

    async with under_way(watcher.run()):
        await raised.wait()
        await until(store, is_seen)
        assert watcher.failures == 0


async def test_a_request_whose_id_is_none_keeps_no_other_request_back(store: Store, clock: HandClock) -> None:
    class Stager:
        async def progress(self) -> dict[int, Any]:
            return {}

        async def status(self, request: int) -> str:
            return "in progress"

    stager = Stager()
    world: Any = SimpleNamespace(clock=clock, stager=lambda site: stager)
    watcher = Staging(world, store, 1e9)
    args: tuple[dict[str, Any], ...] = (
        {"site": "sara", "request": 12},
        {"site": "sara"},
        {"site": "sara", "request": 13},
    )
    subjects = [Subject("staging", name, args) for name, args in zip(("12", "none", "13"), args, strict=True)]
    await wait_for(store, *subjects)
    await watcher._look(subjects)
    assert (await seen(store)).keys() == {"12", "13"}
    assert watcher.defect.startswith("staging:none: KeyError")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"url":1}', "\x00", "[" * 5000])
async def test_a_corrupted_cursor_begins_the_feed_anew(store: Store, clock: HandClock, text: str) -> None:
    asked: asyncio.Queue[str] = asyncio.Queue()

    class Database:
        url = "http://couch/db"

        async def info(self) -> Any:
            return SimpleNamespace(instance_start_time="0", update_seq="7-now")

        async def changes(self, since: str) -> AsyncIterator[Any]:
            asked.put_nowait(since)
            await asyncio.Event().wait()
            yield

    await store.ingest(SOURCE, text, ())
    base = Database()
    world: Any = SimpleNamespace(clock=clock, token_bases={"": base}, token_base=lambda site: base)
    watcher = Tokens(world, store, 1e9)
    async with under_way(watcher.run()):
        assert await asyncio.wait_for(asked.get(), PATIENCE_S) == "7-now"
    cursor = msgspec.json.encode(Cursor(Database.url, "0", "5-left")).decode()
    await store.ingest(SOURCE, cursor, ())
    async with under_way(watcher.run()):
        assert await asyncio.wait_for(asked.get(), PATIENCE_S) == "5-left"
