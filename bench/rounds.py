"""What a round of the watchers costs when very much is under way: files that are being staged, and jobs.

The watchers and the adapters are the real ones. A process of its own plays the legacy stager and dCache; Slurm's tools are
answered from memory. A round in which nothing is new is measured, because nearly all rounds are like that; requests are
counted where they leave. `python -m bench.rounds PART DIRECTORY COUNT` prints one JSON object.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sqlite3
import sys
import time
import xmlrpc.client
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
from aiohttp import web

from aglowd.clock import Clock
from aglowd.effects.staging import StageFiles
from aglowd.grid.batch import CHUNK_IDS, Terms
from aglowd.grid.dcache import CHUNK_PATHS, Dcache
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, Reply
from aglowd.grid.lta import LtaStager
from aglowd.grid.proc import Finished
from aglowd.grid.slurm import Slurm
from aglowd.store.rows import dumps
from aglowd.watchers.base import Watcher
from aglowd.watchers.jobs import Jobs
from aglowd.watchers.localities import Localities
from aglowd.watchers.staging import Staging
from aglowd.watchers.windows import Limits, Windows
from bench.toy import REQUEST_FILES, STEP_JOBS, House, house, surls_of
from bench.waiting import settle

POLL_S = 300.0
ROUNDS = 3


class CountingHttp(Http):
    """The transport, counting what it sends."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.sent: Counter[str] = Counter()
        """Site → requests."""

    async def request(self, *arguments: Any, site: Site, **named: Any) -> Reply:
        self.sent[site.name] += 1
        return await super().request(*arguments, site=site, **named)


# --- the stager and dCache


async def serve(requests: int) -> None:
    """Answer for so many requests until standard input ends; a line says where."""
    progress = {
        str(request): {
            "Status": "in progress", "File count": str(REQUEST_FILES), "Files done": "100", "Percent done": "41",
            "Location": "sara", "Flagged abort": False, "User id": "1",
        }
        for request in range(1, requests + 1)
    }  # fmt: skip
    told = xmlrpc.client.dumps((progress,), methodresponse=True).encode()

    async def stager(request: web.Request) -> web.Response:
        return web.Response(body=told, content_type="text/xml")

    async def archiveinfo(request: web.Request) -> web.Response:
        paths = (await request.json())["paths"]
        places = (("NEARLINE", "ONLINE_AND_NEARLINE")[path[-5] in "02468ace"] for path in paths)
        rows = [{"path": path, "locality": place} for path, place in zip(paths, places, strict=True)]
        return web.Response(body=msgspec.json.encode(rows), content_type="application/json")

    application = web.Application(client_max_size=1 << 30)
    application.router.add_post("/stager", stager)
    application.router.add_post("/api/v1/tape/archiveinfo", archiveinfo)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@asynccontextmanager
async def served(requests: int) -> AsyncIterator[str]:
    """Where they are."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.rounds", "serve", ".", str(requests), cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.stdin.close()
        await process.wait()


class Squeue:
    """In the place of processes: every job that squeue is asked for runs."""

    started = 0

    async def run(self, argv: Sequence[str], **_: Any) -> Finished:
        self.started += 1
        await asyncio.sleep(0)  # Nobody who is asked answers in the same turn of the loop.
        asked = next(word.removeprefix("--jobs=") for word in argv if word.startswith("--jobs="))
        rows = "".join(f"{job}\tRUNNING\t0\tNone\t\n" for job in asked.split(","))
        return Finished(tuple(argv), 0, rows, "")


# --- what is measured


async def round_of(here: House, watcher: Watcher) -> int:
    """One round, as the watcher makes it; how many subjects said something new."""
    watched = [subject for subject, _ in await here.store.watched(watcher.kind)]
    return await here.store.ingest(watcher.kind, None, list(await watcher.look(watched)))


async def seen(here: House, watcher: Watcher) -> None:
    """Rounds until one shows nothing new; what each wakes decides before the next."""
    while await round_of(here, watcher):
        await settle(here, 0.3)


async def _cost(here: House, watcher: Watcher) -> float:
    """CPU seconds of a round that shows nothing new."""
    await seen(here, watcher)
    began = time.process_time()
    for _ in range(ROUNDS):
        if await round_of(here, watcher):
            raise RuntimeError(f"the {watcher.kind} watcher found something new where nothing is")
    return (time.process_time() - began) / ROUNDS


async def _longest_turn_ms(here: House, watcher: Watcher) -> float:
    """CPU milliseconds of the longest turn of the event loop in such a round: so long everybody else there waits."""
    # By then a daemon has written something else, and let the last round's facts go.
    await here.store.record("Measured", {})
    work, longest_s, before = asyncio.create_task(round_of(here, watcher)), 0.0, time.thread_time()
    while not work.done():
        await asyncio.sleep(0)
        now = time.thread_time()
        longest_s, before = max(longest_s, now - before), now
    await work
    return longest_s * 1000


@asynccontextmanager
async def staged(directory: Path, surls: int) -> AsyncIterator[tuple[House, CountingHttp, dict[str, Watcher]]]:
    """Files that are being staged, as many requests of an observation's files as that makes; who watches them."""
    count = max(1, surls // REQUEST_FILES)
    async with served(count) as url, house(directory / "staging.db") as here:
        clock = here.store.clock
        http, site = CountingHttp(clock), Site("lta", clock)
        stager = LtaStager(http, site, Credential("lta", user="bench", password="bench"), f"{url}/stager")
        archive = Dcache(http, Site("dcache", clock), None, url)
        world: Any = SimpleNamespace(clock=clock, stager=lambda site: stager, archive=lambda site: archive)
        await here.begin("request", map(str, range(1, count + 1)))
        await here.store.db.write(lambda db: _remember(db, clock.now(), count))
        half = {"sara": max(REQUEST_FILES, surls // 2)}
        limits = Limits(1000, 5 << 40, 16 << 30, surls, half, {"sara": count}, {"sara": surls})
        yield (
            here,
            http,
            {
                "staging": Staging(world, here.store, POLL_S),
                "locality": Localities(world, here.store, POLL_S),
                "window": Windows(world, here.store, POLL_S, limits),
            },
        )
        await http.close()


async def staging(directory: Path, surls: int) -> dict[str, float]:
    """What their rounds cost."""
    count = max(1, surls // REQUEST_FILES)
    found: dict[str, float] = {"surls": count * REQUEST_FILES, "requests": count}
    async with staged(directory, surls) as (here, http, watchers):
        for name, watcher in watchers.items():
            found[f"{name}_cpu_s"] = await _cost(here, watcher)
            before = http.sent.total()
            await round_of(here, watcher)
            found[f"{name}_calls"] = http.sent.total() - before
            found[f"{name}_turn_ms"] = await _longest_turn_ms(here, watcher)
    found["cpu_s"] = sum(found[f"{name}_cpu_s"] for name in watchers)
    found["calls"] = sum(found[f"{name}_calls"] for name in watchers)
    found["turn_ms"] = max(found[f"{name}_turn_ms"] for name in watchers)
    # One call tells of all requests, and is made by two watchers; the files are asked for in batches.
    found["calls_needed"] = 2 + -(-count * REQUEST_FILES // CHUNK_PATHS)
    return found


def _remember(db: sqlite3.Connection, now: float, count: int) -> None:
    """The journal's entries of these requests, which windows read."""
    for request in range(1, count + 1):
        (run,) = db.execute("SELECT id FROM runs WHERE field = ?", (str(request),)).fetchone()
        inputs = dumps(msgspec.to_builtins(StageFiles(surls=tuple(surls_of(request)), site="sara")))
        values = (f"{run}/stage/1/stage_files/0", run, inputs, now, dumps({"request": request}))
        db.execute(
            "INSERT INTO effects (key, run, step, attempt, kind, ordinal, state, digest, inputs, planned, result)"
            " VALUES (?1, ?2, 'stage', 1, 'stage_files', 0, 'done', '', ?3, ?4, ?5)",
            values,
        )


@asynccontextmanager
async def piloted(directory: Path, count: int) -> AsyncIterator[tuple[House, Squeue, Jobs]]:
    """So many jobs of one batch system; who watches them."""
    async with house(directory / "jobs.db") as here:
        clock, squeue = here.store.clock, Squeue()
        slurm = Slurm(squeue, Site("slurm", clock), Terms(""), spool=directory)  # type: ignore[arg-type] # a toy
        world: Any = SimpleNamespace(clock=clock, batches={"": slurm}, batch=lambda site: slurm)
        await here.begin("pilots", map(str, range(1, max(1, count // STEP_JOBS) + 1)))
        yield here, squeue, Jobs(world, here.store, POLL_S)


async def jobs(directory: Path, count: int) -> dict[str, float]:
    """What a round costs."""
    async with piloted(directory, count) as (here, squeue, watcher):
        cpu_s = await _cost(here, watcher)
        before = squeue.started
        await round_of(here, watcher)
        calls, turn_ms = squeue.started - before, await _longest_turn_ms(here, watcher)
    jobs = max(1, count // STEP_JOBS) * STEP_JOBS
    return {"jobs": jobs, "cpu_s": cpu_s, "turn_ms": turn_ms, "calls": calls, "calls_needed": -(-jobs // CHUNK_IDS)}


PARTS = {"staging": staging, "jobs": jobs}

if __name__ == "__main__":
    part, place, number = sys.argv[1:]
    gc.freeze()  # As the daemon does.
    if part == "serve":
        asyncio.run(serve(int(number)))
    else:
        print(json.dumps(asyncio.run(PARTS[part](Path(place), int(number)))))
