"""Fixed small workloads, and counts of what they take: these are the same on a busy machine as on an idle one.

Each workload runs in a child process of its own (`python -m bench.counts NAME`, one JSON object): what is counted begins when
all is prepared. Connections to SQLite are counted where they are made, requests where they leave, and calls of our own
functions by the interpreter. Time is never measured here.
"""

from __future__ import annotations

import asyncio
import io
import json
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import aglowd
from aglowd import log
from aglowd.clock import Clock
from aglowd.grid.couchdb_feed import Change
from aglowd.grid.gate import Credential, Site
from aglowd.grid.picas import Picas
from aglowd.reactor import outputs_of
from aglowd.store.store import Store
from bench import catalogue, feed, plain, rounds

EVENTS = 300
RUNS = 50
SURLS = 5_000
JOBS = 2_000
FIELDS, AT_WORK = 200, 20
CHANGES = 20_000
OURS = str(Path(aglowd.__file__).parent)
STEPS_APART = 50
"""Steps of SQLite's machine between two looks at their number."""


class Metered(sqlite3.Connection):
    """A connection whose statements and whose machine's steps are counted."""

    meter: ClassVar[Meter]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.set_trace_callback(self.meter.note_statement)
        self.set_progress_handler(self.meter.note_steps, STEPS_APART)


class Meter:
    """What has been counted while it was on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._is_on = False

    def note_statement(self, text: str) -> None:
        if self._is_on:
            self.counts["statements"] += 1
            self.counts["commits"] += text.startswith("BEGIN IMMEDIATE")

    def note_steps(self) -> int:
        if self._is_on:
            self.counts["sqlite steps"] += STEPS_APART
        return 0

    def _note_call(self, frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            self.counts["calls"] += 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """From here on connections are made that can be counted."""
        Metered.meter = self
        with patch.object(sqlite3, "connect", partial(sqlite3.connect, factory=Metered)):
            yield

    @contextmanager
    def on(self, sent: Counter[str] | None = None) -> Iterator[None]:
        """Count. `sent`: site → requests so far, of a transport that counts them."""
        before, requests = _io(), Counter(sent or {})
        self._is_on = True
        sys.setprofile(self._note_call)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._is_on = False
        after = _io()
        self.counts["written bytes"] += after["wchar"] - before["wchar"]
        self.counts["writes"] += after["syscw"] - before["syscw"]
        for site, count in (Counter(sent or {}) - requests).items():
            self.counts[f"requests to {site}"] += count


def _io() -> dict[str, int]:
    """What the kernel says of this process's reads and writes."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}


async def ingest(directory: Path, meter: Meter) -> None:
    """Observations, one by one, each durable before the next."""
    store = Store(directory / "ingest.db", Clock(), outputs_of)
    await store.open()
    await plain.begin(store, plain.parts_of(store)[0], "watched")
    with meter.on():
        await plain.ingest(store, EVENTS)
    await store.close()


async def decide(directory: Path, meter: Meter) -> None:
    """Whole runs, from their beginning to their end."""
    store = Store(directory / "decide.db", Clock(), outputs_of)
    await store.open()
    with meter.on():
        await plain.decide(store, *plain.parts_of(store), RUNS)
    ended = (await store.status())["steps"]
    await store.close()
    if ended != {"done": RUNS}:
        raise RuntimeError(f"{RUNS} steps should be done, but there are {ended}")


async def staging(directory: Path, meter: Meter) -> None:
    """A round of each watcher of files that are being staged."""
    async with rounds.staged(directory, SURLS) as (here, http, watchers):
        for watcher in watchers.values():
            await rounds.seen(here, watcher)
        with meter.on(http.sent):
            for watcher in watchers.values():
                await rounds.round_of(here, watcher)


async def jobs(directory: Path, meter: Meter) -> None:
    """A round of the watcher of jobs."""
    async with rounds.piloted(directory, JOBS) as (here, squeue, watcher):
        await rounds.seen(here, watcher)
        started = squeue.started
        with meter.on():
            await rounds.round_of(here, watcher)
        meter.counts["requests to slurm"] = squeue.started - started


async def claims(directory: Path, meter: Meter) -> None:
    """A catalogue of aglowd's own is read, and fields of it are claimed through the journal."""
    with meter.on():
        await catalogue.measure_kind("own", directory, FIELDS, AT_WORK)


async def changes(directory: Path, meter: Meter) -> None:
    """The feed of changes, page by page."""
    with feed.served(CHANGES) as place:
        clock = Clock()
        http, site = rounds.CountingHttp(clock), Site("picas", clock)
        picas = Picas(http, site, Credential("picas", user="bench", password="bench"), place["url"], feed.DATABASE)
        told = 0
        with meter.on(http.sent):
            async with aclosing(picas.changes("0")) as items:  # type: ignore[type-var] # an async generator
                async for item in items:
                    told += isinstance(item, Change)
                    if told == CHANGES:
                        break
        await http.close()


WORKLOADS: dict[str, Callable[[Path, Meter], Awaitable[None]]] = {
    "ingest": ingest,
    "decide": decide,
    "staging": staging,
    "jobs": jobs,
    "claims": claims,
    "changes": changes,
}


def main(name: str) -> None:
    """Run one of them and print what it took."""
    log.configure("json", "info", io.StringIO())
    with tempfile.TemporaryDirectory(prefix="aglowd-counts-") as directory:
        meter = Meter()
        with meter.watching():
            asyncio.run(WORKLOADS[name](Path(directory), meter))  # type: ignore[arg-type] # they are coroutines
    print(json.dumps(dict(sorted(meter.counts.items()))))


if __name__ == "__main__":
    main(sys.argv[1])
