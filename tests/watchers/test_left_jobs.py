"""Jobs that no step waits for any more: they are looked at in the rounds of the others until their end is seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from support import HandClock

from aglowd.clock import Clock
from aglowd.grid.batch import JobStatus
from aglowd.handlers.pilots import job_of
from aglowd.store.store import Store
from aglowd.watchers.jobs import SILENT_LOOKS, Jobs

from .conftest import end, running, until, wait_for, world_of

A, B, C = (job_of(name, "sara") for name in "abc")


class Batch:
    """A batch system that knows of what it shows, and writes down what it was asked."""

    system = "slurm"

    def __init__(self, *running: str) -> None:
        self.shown = {job: JobStatus(job, "running") for job in running}
        self.asked: list[list[str]] = []

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        self.asked.append([*jobs])
        return {job: self.shown[job] for job in jobs if job in self.shown}


def watching(store: Store, clock: Any, batch: Batch, poll_s: float = 100.0) -> Jobs:
    return Jobs(world_of(clock, batches={"sara": batch}, batch=lambda site: batch), store, poll_s)


async def leave(store: Store, watcher: Jobs, *jobs: Any) -> None:
    """A step waits for the jobs, sees them, and ends."""
    await wait_for(store, "P1", *jobs)
    await store.ingest("job", None, list(await watcher.look(jobs)))
    await end(store, "P1")


async def test_it_is_asked_for_beside_the_others_until_it_has_ended(store: Store, clock: Clock) -> None:
    batch = Batch("a", "b")
    watcher = watching(store, clock, batch)
    await leave(store, watcher, A)
    await wait_for(store, "P2", B)
    batch.asked.clear()

    async def asked_again() -> bool:
        return ["b", "a"] in batch.asked

    async def has_ended() -> bool:
        return not await store.unended_jobs()

    async with running(watcher):
        await until(store, asked_again)
        batch.shown["a"] = JobStatus("a", "done_ok")
        await until(store, has_ended)
        count = len(batch.asked)
        batch.shown["b"] = JobStatus("b", "done_failed")

        async def is_quiet() -> bool:
            return len(batch.asked) > count

        await until(store, is_quiet)
    assert ["b"] in batch.asked[count:], "of a nothing is asked any more"


async def test_it_is_asked_for_when_nobody_waits_for_any_job(store: Store, clock: Clock) -> None:
    batch = Batch("a")
    watcher = watching(store, clock, batch)
    await leave(store, watcher, A)
    batch.shown["a"] = JobStatus("a", "cancelled")

    async def has_ended() -> bool:
        return not await store.unended_jobs()

    async with running(watcher):
        await until(store, has_ended)
    assert watcher.lag_s is None, "nobody waits for what it says"


async def test_one_that_is_named_no_more_is_lost_as_any_other(store: Store) -> None:
    clock = HandClock()
    batch = Batch("a")
    watcher = watching(store, clock, batch)
    await leave(store, watcher, A)
    batch.shown.clear()
    for _ in range(SILENT_LOOKS):
        (left,) = await store.unended_jobs()
        assert left[0] == A
        await store.ingest("job", None, list(await watcher.look(await watcher.left())))
        clock.advance(watcher.lost_after_s / (SILENT_LOOKS - 1))
    assert await watcher.left() == []
    (lost,) = [event for event in await store.events() if event["data"].get("state") == "lost"]
    assert lost["subject"] == A.key
