"""Directories are listed at once: what one door does with its time is nobody else's matter, and no loop seems to hang."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.files import Entry
from aglowd.grid.gate import Site
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage
from aglowd.model import Subject
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher
from aglowd.watchers.directories import Directories
from aglowd.watchers.listings import LISTINGS_AT_ONCE, LOOK_REAL_S
from aglowd.watchers.trees import Trees

from .conftest import PATIENCE_S, world_of


class Doors:
    """Storage whose listings wait where the URL names a door that hangs; `tree` is what lies below where."""

    def __init__(self, hangs: Callable[[str], bool], tree: dict[str, list[str]] | None = None) -> None:
        self.hangs = hangs
        self.tree = tree or {}
        self.under_way: list[str] = []
        self.ended: list[str] = []
        self.most = 0
        self.go = asyncio.Event()
        self._change = asyncio.Condition()

    async def list(self, url: str) -> tuple[Entry, ...]:
        self.under_way.append(url)
        self.most = max(self.most, len(self.under_way))
        await self._told()
        try:
            if self.hangs(url):
                await self.go.wait()
                if url.startswith("x://dead"):
                    raise Temporary(f"{url}: no answer")
        finally:
            self.under_way.remove(url)
        self.ended.append(url)
        await self._told()
        return tuple(Entry(f"{url}/{name}", 0, True, None) for name in self.tree.get(url, []))

    async def _told(self) -> None:
        async with self._change:
            self._change.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S), self._change:
            await self._change.wait_for(condition)


@asynccontextmanager
async def looking(watcher: Watcher, subjects: Sequence[Subject]) -> AsyncIterator[asyncio.Task[list[Any]]]:
    async def look() -> list[Any]:
        return list(await watcher.look(subjects))

    task = asyncio.create_task(look())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def subjects_of(kind: str, urls: Sequence[str]) -> list[Subject]:
    return [Subject(kind, url, {"url": url}) for url in urls]


@pytest.mark.parametrize("kind", [Directories, Trees])
async def test_a_door_that_hangs_keeps_no_other_waiting(store: Store, clock: Clock, kind: type[Watcher]) -> None:
    doors = Doors(lambda url: url.startswith("x://dead"))
    dead = [f"x://dead/{number}" for number in range(LISTINGS_AT_ONCE + 3)]
    well = [f"x://well/{number}" for number in range(LISTINGS_AT_ONCE + 3)]
    watcher = kind(world_of(clock, storage=doors), store, 600.0)
    async with looking(watcher, subjects_of(kind.kind, [*dead, *well])) as look:
        await doors.until(lambda: len(doors.ended) == len(well) and len(doors.under_way) == LISTINGS_AT_ONCE)
        assert sorted(doors.ended) == well
        doors.go.set()
        seen = await look
    assert [subject.id for subject, _ in seen] == well, "each fails alone"
    assert doors.under_way == []


async def test_the_levels_of_a_tree_are_listed_at_once_within_a_limit(store: Store, clock: Clock) -> None:
    names = [str(number) for number in range(LISTINGS_AT_ONCE * 2)]
    doors = Doors(lambda url: url != "x://d", {"x://d": names})
    watcher = Trees(world_of(clock, storage=doors), store, 600.0)
    async with looking(watcher, subjects_of("tree", ["x://d"])) as look:
        await doors.until(lambda: len(doors.under_way) == LISTINGS_AT_ONCE)
        doors.go.set()
        assert [data for _, data in await look] == [{"absent": False, "problem": "", "files": []}]
    assert (doors.most, len(doors.ended)) == (LISTINGS_AT_ONCE, 1 + len(names))


async def test_a_tree_that_cannot_be_listed_whole_leaves_nothing_under_way(store: Store, clock: Clock) -> None:
    class Broken(Doors):
        async def list(self, url: str) -> tuple[Entry, ...]:
            if url == "x://d/bad":
                await self.until(lambda: "x://d/good" in self.under_way)
                raise Temporary("no answer")
            return await super().list(url)

    doors = Broken(lambda url: url == "x://d/good", {"x://d": ["bad", "good"]})
    watcher = Trees(world_of(clock, storage=doors), store, 600.0)
    async with looking(watcher, subjects_of("tree", ["x://d", "x://other"])) as look:
        async with asyncio.timeout(PATIENCE_S):
            assert [subject.id for subject, _ in await look] == ["x://other"]
    assert doors.under_way == []


async def test_a_defect_is_raised_when_all_else_has_ended(store: Store, clock: Clock) -> None:
    class Odd(Doors):
        async def list(self, url: str) -> tuple[Entry, ...]:
            if url == "x://odd":
                raise ValueError("nobody thought of this")
            return await super().list(url)

    doors = Odd(lambda url: True)
    watcher = Directories(world_of(clock, storage=doors), store, 600.0)
    async with looking(watcher, subjects_of("directory", ["x://odd", "x://well"])) as look:
        await doors.until(lambda: doors.under_way == ["x://well"])
        doors.go.set()
        with pytest.raises(ValueError, match="nobody thought"):
            await look
    assert doors.ended == ["x://well"]


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._random = Random(1)

    def now(self) -> float:
        return self.time

    def real_s(self, world_s: float) -> float:
        return world_s

    def jitter(self) -> float:
        return self._random.uniform(0.9, 1.1)


class Slow(Storage):
    """Local directories, a listing of which takes a third of a look."""

    hand: Hand

    async def list(self, url: str) -> tuple[Entry, ...]:
        found = await super().list(url)
        self.hand.time += LOOK_REAL_S / 3
        return found


async def test_a_look_ends_in_time_and_each_directory_has_its_turn(store: Store, clock: Clock, tmp_path: Path) -> None:
    hand, paths = Hand(), [tmp_path / str(number) for number in range(12)]
    for path in paths:
        path.mkdir()
    urls = [path.as_uri() for path in paths]
    storage = Slow(Processes(env={}), Site("storage", clock))
    storage.hand = hand
    watcher = Directories(world_of(hand, storage=storage), store, 600.0)  # type: ignore[arg-type]
    looks = []
    for _ in range(12):
        began = hand.time
        looks.append({subject.id for subject, _ in await watcher.look(subjects_of("directory", urls))})
        assert hand.time - began <= LOOK_REAL_S * (1 + (LISTINGS_AT_ONCE + 1) / 3)
        assert watcher.progress_at == hand.time, "each listing is progress"
    assert all(0 < len(look) < len(urls) for look in looks)
    assert set.union(*looks) == set(urls)
    assert len(set(map(frozenset, looks))) > 1


async def test_each_group_that_ends_is_progress_and_one_that_hangs_is_none(store: Store, clock: Clock) -> None:
    hand, doors = Hand(), Doors(lambda url: url == "x://dead")

    class Groups(Watcher):
        kind = "group"

        async def look(self, subjects: Sequence[Subject]) -> Observations:
            return await self.each([[subject] for subject in subjects], self._ask)

        async def _ask(self, subjects: Sequence[Subject]) -> Observations:
            await doors.list(subjects[0].id)
            return [(subjects[0], {})]

    watcher = Groups(world_of(hand), store, 600.0)  # type: ignore[arg-type]
    hand.time += 500.0
    async with looking(watcher, subjects_of("group", ["x://dead", "x://well"])):
        await doors.until(lambda: doors.ended == ["x://well"])
        for _ in range(3):
            await asyncio.sleep(0)
        assert watcher.progress_at == hand.time
        hand.time += 500.0
        assert doors.under_way == ["x://dead"]
        assert watcher.progress_at == hand.time - 500.0, "a real hang is seen"
