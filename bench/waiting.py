"""What it costs to wait: memory of a step, CPU of an idle daemon, and the time to open a store that holds many.

Each part runs in a child process of its own (`python -m bench.waiting PART DATABASE COUNT SECONDS`), so that nothing
but the part is in its memory and its CPU time. The child prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aglowd import __version__
from aglowd.control import Control, Health
from aglowd.watchers import WATCHERS
from aglowd.watchers.base import Watcher
from bench.toy import WATCHED, House, Outside, house

POLLS_S = {
    "field": 300.0,
    "srm_list": 300.0,
    "proxy": 900.0,
    "staging": 300.0,
    "locality": 300.0,
    "tokens": 3600.0,
    "results": 60.0,
    "job": 900.0,
    "directory": 600.0,
    "events": 300.0,
    "tree": 600.0,
    "arrivals": 600.0,
    "http": 30.0,
}
"""The polls that aglowd has when nothing else is configured, in seconds. Nobody waits for a window here."""
BEAT_S = 20.0
NEW = 5
"""Steps that begin beside those that wait; what one of them costs must not depend on how many these are."""
_NAME, _RUN = "(field + :more) || ''", "(CAST(run AS INTEGER) + :more) || '-1'"
_SUBJECT = "substr({0}, 1, instr({0}, ':')) || (substr({0}, instr({0}, ':') + 1) + :more)"
SHIFTED: Mapping[str, Mapping[str, str]] = {
    "runs": {"id": _RUN.replace("run", "id"), "field": _NAME, "key": _NAME},
    "steps": {"run": _RUN},
    "subjects": {
        "key": _SUBJECT.format("key"), "id": "(id + :more) || ''",
        "args": "iif(kind = 'staging', json_set(args, '$.request', id + :more), args)",
    },
    "waits": {"subject": _SUBJECT.format("subject"), "run": _RUN},
    "events": {"id": "NULL", "field": _NAME, "run": _RUN},
}  # fmt: skip
"""Table → column → what stands there for a step whose number is larger by `more`."""
MEASURED_AT = (0.25, 0.5, 0.75, 1.0)
"""Memory is read when these parts of the steps wait; the slope is the least-squares line through them."""


def rss_bytes() -> int:
    """Resident memory of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def name_of(number: int) -> tuple[str, str]:
    """The kind of subject that a step waits for, and its id."""
    return WATCHED[number % len(WATCHED)], str(number)


async def begin(here: House, first: int, last: int) -> None:
    """Make the steps of these numbers wait, each in a run of its own."""
    for watch in WATCHED:
        await here.begin(watch, (id_ for kind, id_ in map(name_of, range(first, last)) if kind == watch))


def _watchers(here: House, outside: Outside, count: int) -> tuple[Watcher, ...]:
    outside.remember([number for number in range(count) if name_of(number)[0] == "staging"])
    chosen = [watcher for watcher in WATCHERS if watcher.kind in POLLS_S]
    return tuple(watcher(outside, here.store, POLLS_S[watcher.kind]) for watcher in chosen)  # type: ignore[arg-type] # a toy


async def settle(here: House, seconds: float) -> None:
    """Return when nothing is to be decided, and no decision has been made for that long."""
    last = -1
    while here.store.finished != last or await here.store.next_dirty(1):
        last = here.store.finished
        await asyncio.sleep(seconds)


async def memory(path: Path, count: int) -> dict[str, float]:
    """Bytes a waiting step, by the slope of the resident memory while they become more, and what a daemon has without."""
    async with house(path) as here, asyncio.TaskGroup() as group:
        outside = Outside(here.store.clock)
        tasks = [group.create_task(watcher.run()) for watcher in _watchers(here, outside, count)]
        await begin(here, 0, 60)  # What every kind of step loads once is no part of the slope.
        quiet_s = 0.5 if count >= 1000 else 0.15
        await settle(here, quiet_s)
        base, first, points = rss_bytes(), 60, []
        for part in MEASURED_AT:
            last = max(first + 1, int(count * part))
            await begin(here, first, last)
            await settle(here, quiet_s)
            points.append((last, rss_bytes()))
            first = last
        for task in tasks:
            task.cancel()
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)
    grown = (points[-1][1] - base) / (count - 60)
    return {"base_mb": base / 1e6, "end_mb": points[-1][1] / 1e6, "slope_bytes": slope, "grown_bytes": grown}


def _no_health() -> Health:
    raise AssertionError("nobody asks here")


async def idle(path: Path, count: int, seconds: float) -> dict[str, float]:
    """Percent of a core that the daemon's loops take with so many waiting steps: between rounds, and rounds included.

    Rounds come every few minutes, more rarely than one can measure here: a round of every watcher is measured by
    itself and spread over the poll interval that it has in production.
    """
    began = time.perf_counter()
    async with house(path) as here:
        opened_s = time.perf_counter() - began
        outside = Outside(here.store.clock)
        watchers = _watchers(here, outside, count)
        control = Control(here.store, _no_health, here.store.clock, __version__)
        async with control.serve(path.parent / "b.sock"), asyncio.TaskGroup() as group:
            tasks = [group.create_task(watcher.run()) for watcher in watchers]
            tasks.append(group.create_task(_beat(here)))
            # That of the tokens is at rest only a minute after its first count; the others tell when theirs is over.
            looking = [watcher for watcher in watchers if watcher.kind in WATCHED and watcher.kind != "tokens"]
            while not all(watcher.is_at_rest for watcher in looking):
                await settle(here, min(2.0, seconds / 3))
            steps = (await here.store.status())["steps"]
            if steps != {"waiting": count}:
                raise RuntimeError(f"{count} steps should wait, but there are {steps}")
            calls, decided = outside.calls, here.store.finished
            cpu, wall = time.process_time(), time.perf_counter()
            await asyncio.sleep(seconds)
            between = (time.process_time() - cpu) / (time.perf_counter() - wall)
            calls, decided = outside.calls - calls, here.store.finished - decided
            rounds = 0.0
            for watcher in watchers:
                cpu = time.process_time()
                await _round(here, watcher)
                rounds += (time.process_time() - cpu) / watcher.poll_s
            rss_mb, cpu = rss_bytes() / 1e6, time.process_time()
            for number in range(NEW):
                await here.begin("job", [str(10**9 + number)])
                await settle(here, 0.2)
            new_cpu_s = (time.process_time() - cpu) / NEW
            for task in tasks:
                task.cancel()
    return {
        "rss_mb": rss_mb,
        "new_cpu_ms": new_cpu_s * 1e3,
        "between_percent": between * 100,
        "rounds_percent": rounds * 100,
        "idle_percent": (between + rounds) * 100,
        "calls": calls,
        "decisions": decided,
        "seconds": seconds,
        "opened_s": opened_s,
    }


async def _round(here: House, watcher: Watcher) -> None:
    watched = [subject for subject, _ in await here.store.watched(watcher.kind)]
    if watched:
        await here.store.ingest(watcher.kind, None, list(await watcher.look(watched)))


async def look(path: Path, count: int) -> dict[str, float]:
    """See everything once, and decide what follows; how many decisions that were."""
    async with house(path) as here:
        for watcher in _watchers(here, Outside(here.store.clock), count):
            await _round(here, watcher)
        await settle(here, 0.5)
        return {"decisions": here.store.finished}


async def _beat(here: House) -> None:
    """The status line for systemd, as the daemon makes it."""
    while True:
        await here.store.status()
        await asyncio.sleep(BEAT_S)


async def reopen(path: Path) -> dict[str, float]:
    """Seconds from nothing to an open store: lock, check of the whole file, recovery."""
    cpu, began = time.process_time(), time.perf_counter()
    async with house(path):
        opened_s, opened_cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {"open_s": opened_s, "open_cpu_s": opened_cpu_s, "database_mb": os.stat(path).st_size / 1e6}


def multiply(path: Path, count: int, times: int) -> None:
    """Make the steps of that database so many times more, each under a name of its own; their number is a multiple of three."""
    db = sqlite3.connect(path)
    for table in SHIFTED:
        db.execute(f"CREATE TEMP TABLE first_{table} AS SELECT * FROM {table}")
    for number in range(1, times):
        for table, shifted in SHIFTED.items():
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            values = ", ".join(shifted.get(column, column).replace(":more", str(number * count)) for column in columns)
            db.execute(f"INSERT INTO {table} SELECT {values} FROM first_{table}")
    db.commit()
    db.close()


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """All of these."""
    count, seconds = (300, 1.0) if quick else (10_000, 10.0)
    path = directory / "waiting.db"
    return {"steps": count, "memory": _child("memory", path, count), **_opened(path, count, seconds)}


def measure_many(directory: Path, sizes: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Opening and idling with so many steps: the first is made to wait by a daemon, the others are multiples of it."""
    first, rows = directory / "first.db", []
    _child("memory", first, sizes[0])
    _child("look", first, sizes[0])
    for size in sizes:
        path = Path(shutil.copyfile(first, directory / f"{size}.db"))
        multiply(path, sizes[0], size // sizes[0])
        rows.append({"steps": size, **_opened(path, size, seconds)})
    return rows


def _opened(path: Path, count: int, seconds: float) -> dict[str, Any]:
    return {"reopen": _child("reopen", path, count), "idle": _child("idle", path, count, seconds)}


def _child(part: str, path: Path, count: int, seconds: float = 0.0) -> Any:
    """What a part finds in a process of its own."""
    argv = [sys.executable, "-m", "bench.waiting", part, str(path), str(count), str(seconds)]
    root = Path(__file__).parent.parent
    done = subprocess.run(argv, cwd=root, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True, timeout=3600)
    return json.loads(done.stdout)


def main(part: str, path: Path, count: int, seconds: float) -> None:
    """Measure one part and print it."""
    parts = {
        "memory": lambda: memory(path, count),
        "look": lambda: look(path, count),
        "reopen": lambda: reopen(path),
        "idle": lambda: idle(path, count, seconds),
    }
    print(json.dumps(asyncio.run(parts[part]())))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
