"""How fast: commits with and without the store, decisions a second, and from an observation to the next deed."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from pathlib import Path
from typing import Any

from aglowd.clock import Clock
from aglowd.model import Subject
from aglowd.store.store import Store
from bench.toy import House, house


def raw_commits(directory: Path, count: int) -> float:
    """Commits a second of sqlite3 alone, WAL and synchronous=FULL, one row each: the yardstick of this disk."""
    db = sqlite3.connect(directory / "raw.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE cursors (source TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    began = time.perf_counter()
    for number in range(count):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT OR REPLACE INTO cursors VALUES ('raw', ?)", (str(number),))
        db.execute("COMMIT")
    passed = time.perf_counter() - began
    db.close()
    return count / passed


async def store_commits(directory: Path, writers: int, count: int) -> dict[str, float]:
    """Transactions a second through the store when so many write at once, and how many shared one commit."""
    store = Store(directory / f"store-{writers}.db", Clock())
    await store.open()
    each = max(1, count // writers)

    async def write(source: str) -> None:
        for number in range(each):
            await store.ingest(source, str(number), ())

    try:
        before = store.db.commits
        began = time.perf_counter()
        await asyncio.gather(*(write(f"writer {number}") for number in range(writers)))
        passed = time.perf_counter() - began
        commits = store.db.commits - before
    finally:
        await store.close()
    return {"per_s": each * writers / passed, "in_one_commit": each * writers / commits}


async def events(directory: Path, producers: int, count: int) -> float:
    """Events a second: each is ingested, and what it means decided, by a commit of its own.

    A producer brings its next event when the last one has been decided, so nothing is merged.
    """
    async with house(directory / f"events-{producers}.db") as here:
        names = [f"field {number}" for number in range(producers)]
        await here.begin("toy", names)
        began, goal = time.perf_counter(), here.store.finished
        for round_ in range(1, count // producers + 1):
            observed = {"done": round_}
            ingested = (here.store.ingest("bench", None, [(Subject("toy", name), observed)]) for name in names)
            await asyncio.gather(*ingested)
            goal += producers
            await here.store.until_finished(goal)
        return (count // producers) * producers / (time.perf_counter() - began)


async def _latencies_ms(here: House, count: int) -> list[float]:
    found = []
    for number in range(count):
        name = f"measured {number}"
        await here.begin("toy", [name])
        goal = here.store.finished + 2  # The decision to do the deed, and the one that ends the run.
        began = time.perf_counter()
        await here.store.ingest("bench", None, [(Subject("toy", name), {"go": True})])
        found.append((await here.world.touched.get() - began) * 1000)
        await here.store.until_finished(goal)
    return found


async def latency(directory: Path, waiting: int, count: int) -> dict[str, float]:
    """Milliseconds from the call that ingests an observation to the beginning of the next effect's `do`.

    Between the two lies one durable commit: the fact, with the decision and its intent.
    """
    async with house(directory / f"latency-{waiting}.db") as here:
        await here.begin("toy", (f"other {number}" for number in range(waiting)))
        found = sorted(await _latencies_ms(here, count))
    return {"median_ms": statistics.median(found), "p99_ms": found[min(len(found) - 1, int(len(found) * 0.99))]}


async def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """All of these."""
    scale = 10 if quick else 1
    return {
        "commits": {
            "raw_per_s": raw_commits(directory, 2000 // scale),
            "writers": {
                str(writers): await store_commits(directory, writers, count // scale)
                for writers, count in ((1, 1000), (10, 5000), (100, 20_000))
            },
        },
        "events": {
            str(producers): await events(directory, producers, count // scale)
            for producers, count in ((1, 500), (100, 5000))
        },
        "latency": {
            "unloaded": await latency(directory, 0, 300 // scale),
            "waiting": await latency(directory, 1000 // scale, 300 // scale),
        },
    }
