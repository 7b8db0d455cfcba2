"""What the watchers' tests share: a clock that runs a thousand times too fast, steps that wait, and watchers that run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from support import begin, graph, step

from aglowd.clock import Clock
from aglowd.errors import Permanent
from aglowd.model import Done, Json, Subject, Wait
from aglowd.store.runs import Decision
from aglowd.store.store import Store
from aglowd.watchers.base import Watcher

PATIENCE_S = 20.0
"""Real seconds after which what a test waits for is not coming."""
NEVER_S = 1e9
"""World seconds that no test lasts, at any rate."""
WAITING = graph("waiting", step("wait"))


@pytest.fixture
def clock() -> Clock:
    return Clock(rate=1000.0)


def world_of(clock: Clock, **systems: Any) -> Any:
    """The systems that a watcher looks at, and no other. `picas`: the one token database, or site → one."""
    if "picas" in systems:
        picas = systems.pop("picas")
        bases = picas if isinstance(picas, dict) else {"": picas}
        systems |= {"token_bases": bases, "token_base": partial(base_at, bases)}
    return SimpleNamespace(clock=clock, **systems)


def base_at(bases: dict[str, Any], site: str) -> Any:
    if site not in bases:
        raise Permanent(f"no site {site!r} is configured")
    return bases[site]


async def wait_for(store: Store, key: str, *subjects: Subject) -> None:
    """Let a step of a run of its own wait for the subjects."""
    run = await begin(store, WAITING, key)
    (work,) = [work for work in await store.next_dirty() if work.run.id == run]
    await store.finish(Decision(work, Wait(subjects, "a test waits", NEVER_S), WAITING))


async def end(store: Store, key: str) -> None:
    """The step has seen enough."""
    (work,) = [work for work in await store.next_dirty() if work.run.key == key]
    await store.finish(Decision(work, Done(), WAITING))


async def until(store: Store, condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when it holds; it is asked after every commit."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            store.bells.events.clear()
            if await condition():
                return
            await store.bells.events.wait()


async def observed(store: Store) -> dict[str, Json]:
    """Subject's key → what waiting steps would see of it now."""
    return {
        key: observation.data
        for work in await store.next_dirty()
        for key, observation in work.seen.observations.items()
    }


async def until_observed(store: Store, subject: Subject, data: Json) -> None:
    async def is_seen() -> bool:
        found = await observed(store)
        return subject.key in found and found[subject.key] == data

    await until(store, is_seen)


async def changes(store: Store) -> list[str]:
    """The subject of each change in the log of events."""
    return [event["subject"] for event in await store.events(most=1000) if event["kind"] == "SubjectChanged"]


@asynccontextmanager
async def running(watcher: Watcher) -> AsyncIterator[None]:
    task = asyncio.create_task(watcher.run())
    try:
        yield
        assert not task.done(), "a watcher runs for ever"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
