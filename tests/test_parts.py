"""Long work in parts: all of it is done, in order, and whoever else has something to do on the loop has its turn meanwhile.

Turns of the loop are counted, and no time is measured: where a turn may last no time at all, each thing is a part of its own.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

import pytest

from aglowd import parts
from aglowd.clock import Clock
from aglowd.errors import Permanent
from aglowd.grid.archive import by_path, each
from aglowd.grid.batch import JobStatus, Terms
from aglowd.grid.gate import Site
from aglowd.grid.proc import Finished
from aglowd.grid.slurm import Slurm
from aglowd.model import Subject
from aglowd.parts import in_parts
from aglowd.store.store import Store
from aglowd.watchers.jobs import Jobs
from aglowd.watchers.localities import Localities

T = TypeVar("T")

MANY = 300
SURLS = [f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(MANY)]


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn may last no time."""
    monkeypatch.setattr(parts, "TURN_REAL_S", 0.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def turns_of(work: Awaitable[T]) -> tuple[asyncio.Future[T], int]:
    """The work when it has ended, and how many turns others had meanwhile."""
    task, turns = asyncio.ensure_future(work), 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    return task, turns


async def listed(items: Sequence[int]) -> list[int]:
    return [item async for item in in_parts(items)]


async def test_a_long_turn_is_cut_where_it_has_been_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    passed, turn, seen = 0.0, 0, list[int]()
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    monkeypatch.setattr(loop, "time", lambda: began + passed)

    async def others() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    neighbour = asyncio.create_task(others())
    await asyncio.sleep(0)
    async for _ in in_parts(range(7)):
        passed += parts.TURN_REAL_S * 0.4
        seen.append(turn)
    neighbour.cancel()
    assert seen == [1, 1, 1, 2, 2, 2, 3]


async def test_short_work_keeps_its_turn() -> None:
    found, turns = await turns_of(listed(range(MANY)))
    assert (found.result(), turns) == (list(range(MANY)), 1)


@pytest.mark.usefixtures("no_time")
async def test_each_thing_is_a_part_where_a_turn_may_last_no_time() -> None:
    found, turns = await turns_of(listed(range(MANY)))
    assert found.result() == list(range(MANY))
    assert turns > MANY


@pytest.mark.usefixtures("no_time")
async def test_many_files_keep_nobody_waiting(store: Store, clock: Clock) -> None:
    found, turns = await turns_of(by_path(SURLS))
    paths = found.result()
    assert len(paths) == MANY
    assert turns > MANY
    looked: list[str] = []

    async def look(path: str) -> None:
        looked.append(path)

    _, turns = await turns_of(each(paths, look))
    assert sorted(looked) == sorted(paths)
    assert turns > MANY

    class Archive:
        async def localities(self, surls: Sequence[str], sizes: dict[str, int]) -> dict[str, str]:
            return dict.fromkeys(surls, "ONLINE")

        async def copies(self, surl: str) -> str | None:
            raise AssertionError("no file is gone")

    world: Any = SimpleNamespace(clock=clock, archive=lambda site: Archive())
    subjects = [Subject("locality", surl, {"site": "sara", "surls": [surl]}) for surl in SURLS]
    seen, turns = await turns_of(Localities(world, store, 300.0).look(subjects))
    assert [subject for subject, _ in seen.result()] == subjects
    assert turns > MANY


class Running:
    """A batch system of which every job runs."""

    system = "slurm"

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        return {job: JobStatus(job, "running") for job in jobs}


@pytest.mark.usefixtures("no_time")
async def test_many_jobs_keep_nobody_waiting(store: Store, clock: Clock) -> None:
    running, subjects = Running(), [Subject("job", str(number), {"site": ""}) for number in range(MANY)]
    world: Any = SimpleNamespace(clock=clock, batches={"": running}, batch=lambda site: running)
    seen, turns = await turns_of(Jobs(world, store, 300.0).look(subjects))
    assert [subject for subject, _ in seen.result()] == subjects
    assert turns > 2 * MANY, "they are sorted by system, and what is said of each is a fact"
    _, turns = await turns_of(Jobs(world, store, 300.0)._readable(subjects))
    assert turns > 3 * MANY, "and each observation is measured"


class Text(str):
    """What a tool printed; it notes in which threads its lines were taken apart."""

    __slots__ = ()
    threads: ClassVar[set[int]] = set()

    def split(self, *arguments: Any, **named: Any) -> list[str]:
        self.threads.add(threading.get_ident())
        return super().split(*arguments, **named)


class Squeue:
    """In the place of processes: every job that squeue is asked for runs."""

    async def run(self, argv: Sequence[str], **_: Any) -> Finished:
        asked = next(word.removeprefix("--jobs=") for word in argv if word.startswith("--jobs="))
        rows = "".join(f"{job}\tRUNNING\t0\tNone\t\n" for job in asked.split(","))
        return Finished(tuple(argv), 0, Text(rows), "")


@pytest.mark.usefixtures("no_time")
async def test_slurms_ids_are_read_in_parts_and_what_squeue_prints_in_a_thread(clock: Clock, tmp_path: Path) -> None:
    slurm = Slurm(Squeue(), Site("slurm", clock), Terms(""), spool=tmp_path)  # type: ignore[arg-type] # a toy
    jobs = [str(number + 1) for number in range(MANY)]
    refused, turns = await turns_of(slurm.status([*jobs, "no id"]))
    assert isinstance(refused.exception(), Permanent)
    assert turns > MANY, "all ids are read before anything is asked"
    found = await slurm.status(jobs)
    assert {status.state for status in found.values()} == {"running"}
    assert Text.threads
    assert threading.get_ident() not in Text.threads
