"""Durable events a second through the store, against sqlite3 alone with the very same statements.

What the store runs for its observations is recorded once, with its groups: each BEGIN, SAVEPOINT and COMMIT as they come. The
record is then played by a bare loop on a copy of the same database, in turns with the store itself, so that whatever else
the machine does falls on both. What remains between the two is Python above SQLite: tasks, the hop to the writer's thread,
JSON. A child process of its own (`python -m bench.durable DIRECTORY PRODUCERS COUNT TIMES`) prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, ClassVar
from unittest.mock import patch

from aglowd.clock import Clock
from aglowd.model import Subject
from aglowd.store.store import Store
from bench.toy import house

Statement = tuple[str, Any]


class Recorder(sqlite3.Connection):
    """A connection that remembers what it is asked."""

    said: ClassVar[list[Statement]] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self.said.append((sql, parameters))
        return super().execute(sql, parameters)


async def prepare(path: Path, producers: int) -> None:
    """A database in which a step waits for the subject of each producer."""
    async with house(path) as here:
        await here.begin("toy", map(name_of, range(producers)))


def name_of(producer: int) -> str:
    return f"field {producer}"


async def produce(store: Store, producers: int, count: int) -> None:
    """Bring so many observations, each with something new; a producer brings the next when the last one is durable."""

    async def bring(producer: int) -> None:
        subject = Subject("toy", name_of(producer))
        for number in range(count // producers):
            await store.ingest("bench", None, [(subject, {"done": number + 1})])

    await asyncio.gather(*map(bring, range(producers)))


async def through_store(path: Path, producers: int, count: int) -> dict[str, float]:
    """Seconds, CPU seconds and commits of the store for that."""
    store = Store(path, Clock())
    await store.open()
    try:
        commits, cpu, began = store.db.commits, time.process_time(), time.perf_counter()
        await produce(store, producers, count)
        took = time.perf_counter() - began
        return {"s": took, "cpu_s": time.process_time() - cpu, "commits": store.db.commits - commits}
    finally:
        await store.close()


async def record(path: Path, producers: int, count: int) -> list[Statement]:
    """All that the store asks SQLite for that, in order."""
    store = Store(path, Clock())
    with patch.object(sqlite3, "connect", partial(sqlite3.connect, factory=Recorder)):
        await store.open()
    try:
        Recorder.said.clear()
        await produce(store, producers, count)
        return Recorder.said.copy()
    finally:
        await store.close()


def play(path: Path, said: Sequence[Statement]) -> dict[str, float]:
    """Seconds and CPU seconds of sqlite3 alone for these statements, each row of theirs fetched."""
    db = connect(path)
    cpu, began = time.process_time(), time.perf_counter()
    for sql, parameters in said:
        db.execute(sql, parameters).fetchall()
    took = {"s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    db.close()
    return took


def play_bare(path: Path, count: int) -> dict[str, float]:
    """Seconds and CPU seconds of commits of one row each: what the disk gives at most without groups."""
    db = connect(path)
    db.execute("CREATE TABLE bare (source TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    commit = (
        ("BEGIN IMMEDIATE", ()),
        ("INSERT OR REPLACE INTO bare VALUES ('raw', :value)", {"value": "1"}),
        ("COMMIT", ()),
    )
    db.close()
    return play(path, [statement for _ in range(count) for statement in commit])


def connect(path: Path) -> sqlite3.Connection:
    """A connection as durable as the store's."""
    db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def compare(directory: Path, producers: int, count: int, times: int) -> dict[str, float]:
    """So many producers: the store and its yardsticks take turns so many times, each on a fresh copy of the same database; the
    middle ratio counts."""
    start = directory / "start.db"
    asyncio.run(prepare(start, producers))
    number = 0

    def fresh() -> Path:
        nonlocal number
        number += 1
        return Path(shutil.copyfile(start, directory / f"{number}.db"))

    count -= count % producers
    said = asyncio.run(record(fresh(), producers, count))
    turns = []
    for _ in range(times):
        ours, same = asyncio.run(through_store(fresh(), producers, count)), play(fresh(), said)
        bare = play_bare(fresh(), min(count, 1000))
        turns.append((ours, same, bare))
    return {
        "same_ratio": median(ours["s"] / same["s"] for ours, same, _ in turns),
        "same_cpu_ratio": median(ours["cpu_s"] / same["cpu_s"] for ours, same, _ in turns),
        "bare_ratio": median((ours["s"] / count) / (bare["s"] / min(count, 1000)) for ours, _, bare in turns),
        "per_s": median(count / ours["s"] for ours, _, _ in turns),
        "same_per_s": median(count / same["s"] for _, same, _ in turns),
        "bare_per_s": median(min(count, 1000) / bare["s"] for _, _, bare in turns),
        "cpu_us": median(ours["cpu_s"] / count * 1e6 for ours, _, _ in turns),
        "same_cpu_us": median(same["cpu_s"] / count * 1e6 for _, same, _ in turns),
        "statements": len(said) / count,
        "in_one_commit": median(count / ours["commits"] for ours, _, _ in turns),
        "recorded_in_one_commit": count / sum(sql == "COMMIT" for sql, _ in said),
    }


if __name__ == "__main__":
    print(json.dumps(compare(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
