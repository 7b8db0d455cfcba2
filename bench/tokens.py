"""The whole survey in flight: how the watchers follow a token database with 244 tokens of each of 1 000 types.

The simulated CouchDB, the daemon's side (store, reactor, watchers, the client) and the writer are processes of their own, so
that the memory and the CPU time of each are its own. World time runs `RATE` times too fast, so that there are as many more
rounds than in production.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import math
import os
import statistics
import sys
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.picas import DESIGN_DOC, STATES, Cursor, Picas
from aglowd.model import Subject
from aglowd.sim.couch import Couch
from aglowd.sim.ledger import Ledger
from aglowd.sim.world import World, WorldClock
from aglowd.store.store import Store
from aglowd.watchers.tokens import SOURCE, Tokens
from aglowd.watchers.troubled import Troubled
from bench.toy import house
from bench.waiting import POLLS_S

DATABASE, USER, PASSWORD = "sksp", "bench", "bench"
TOKENS = 244
"""Of each type: the subbands of an observation."""
RATE = 30.0
"""World seconds in a real one: a round every two seconds, where production has one a minute."""
BATCH_DOCS = 100
"""Documents that pilots change in one request here."""
PATIENCE_S = 120.0
"""Real seconds after which what is measured is not coming."""


def type_of(number: int) -> str:
    """The name of a token type."""
    return f"P{number:03d}+40-target"


def token_of(token_type: str, number: int) -> dict[str, Any]:
    """A token as the survey's look, in one of its states: most are still to do, a few are locked or failed, some are done."""
    token: dict[str, Any] = {
        "_id": f"{token_type}:SB{number:03d}",
        "type": token_type,
        "PICAS_API_VERSION": "1.0.7",
        "lock": 0,
        "done": 0,
        "OBSID": f"L{700_000 + number}",
        "STARTSB": f"{number:03d}",
        "PIPELINE_STEP": "pref_targ1",
        "status": "queued",
        "output": "",
        "scrub_count": 0,
        "hostname": "",
        "aglowd": {"key": f"{token_type}/tokens/1/create/0"},
    }
    return token | _STANDS[_stand(number)]


_STANDS: dict[str, dict[str, Any]] = {
    "todo": {"lock": 0, "done": 0, "status": "queued", "hostname": ""},
    "locked": {"lock": 1_795_474_315, "done": 0, "status": "running", "hostname": "wn-01", "slurm_job_id": "4711_12"},
    "done": {"lock": 1_795_474_315, "done": 1_795_478_000, "status": "done", "output": 0},
    "error": {"lock": 1_795_474_315, "done": 1_795_478_000, "status": "error", "output": 1},
}
_NEXT = {"todo": "locked", "locked": "done", "done": "todo", "error": "todo"}


def _stand(number: int) -> str:
    return "locked" if number % 25 == 7 else "error" if number % 100 == 9 else "done" if number % 3 == 0 else "todo"


def _proc(pid: int | str, name: str) -> float:
    """Megabytes that this line of a process's status tells."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e6


def _cpu_s(pid: int) -> float:
    """CPU seconds that a process has taken so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the token database


async def serve(directory: Path, types: int) -> None:
    """The simulated CouchDB with all tokens in it, until it is told to end; its first line says where it is."""
    ledger = Ledger(directory / "ledger.jsonl")
    couch = Couch(World(1, WorldClock(1.0, time.time()), ledger), USER, PASSWORD)
    database = couch.create(DATABASE)
    database.put(DESIGN_DOC["_id"], DESIGN_DOC)
    before = database.seq_text(database.seq)
    for name in map(type_of, range(types)):
        for number in range(TOKENS):
            token = token_of(name, number)
            database.put(token["_id"], token)
    gc.freeze()
    runner = web.AppRunner(couch.app(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    flushing = asyncio.create_task(ledger.run())
    port = runner.addresses[0][1]
    ready = {"url": f"http://127.0.0.1:{port}", "start": database.instance_start_time, "before": before,
             "after": database.seq_text(database.seq), "ledger": str(ledger.path)}  # fmt: skip
    print(json.dumps(ready), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    flushing.cancel()
    await runner.cleanup()
    ledger.close()


# --- the daemon's side


class Timed(Tokens):
    """The watcher, telling of each of its rounds when it began, when it was recorded, and which types it was about."""

    def __init__(self, world: Any, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self.rounds: list[tuple[float, float, list[str]]] = []

    async def _look(self, subjects: Sequence[Subject]) -> bool:
        began = time.time()
        seen = await super()._look(subjects)
        self.rounds.append((began, time.time(), [subject.id for subject in subjects]))
        return seen


async def follow(path: Path, place: dict[str, str], types: int) -> None:
    """Catch up with everything; then tell what was done since, at each line that is read, until there are no more."""
    async with house(path, rate=RATE) as here, asyncio.TaskGroup() as group:
        clock, http = here.store.clock, Http(here.store.clock)
        picas = Picas(
            http, Site("picas", clock), Credential("picas", user=USER, password=PASSWORD), place["url"], DATABASE
        )
        world: Any = SimpleNamespace(clock=clock, token_bases={"": picas}, token_base=lambda site: picas)
        names = [type_of(number) for number in range(types)]
        await here.begin("work", names)
        cursor = Cursor(picas.url, place["start"], place["before"])
        await here.store.ingest(SOURCE, msgspec.json.encode(cursor).decode(), ())
        gc.collect()
        base_mb, watcher = _proc("self", "VmRSS"), Timed(world, here.store, POLLS_S["tokens"])
        began, cpu = time.time(), time.process_time()
        tasks = [group.create_task(one.run()) for one in (watcher, Troubled(world, here.store, POLLS_S["tokens"]))]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                here.store.bells.events.clear()
                if await _is_caught_up(here.store, place["after"], types):
                    break
                await here.store.bells.events.wait()
        caught = {"seconds": time.time() - began, "cpu_s": time.process_time() - cpu, "base_mb": base_mb}
        print(json.dumps(caught | {"peak_mb": _proc("self", "VmHWM")}), flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            rounds = watcher.rounds.copy()  # Before the counts are read: these are then at least as new.
            counts = {subject.id: data for subject, data in await here.store.observed("tokens")}
            told = {"rounds": rounds, "cpu_s": time.process_time(), "peak_mb": _proc("self", "VmHWM"),
                    "counts": counts, "failures": watcher.failures}  # fmt: skip
            print(json.dumps(told), flush=True)
        for task in tasks:
            task.cancel()
        await http.close()


async def _is_caught_up(store: Store, seq: str, types: int) -> bool:
    """Whether the cursor is at the end, all tokens are counted, and those in trouble are known."""
    cursor = await store.cursor(SOURCE)
    if cursor is None or msgspec.json.decode(cursor, type=Cursor).last_seq != seq:
        return False
    counts = [sum(data.values()) for _, data in await store.observed("tokens") if data is not None]
    troubled = [data for _, data in await store.observed("troubled") if data is not None]
    return counts == [TOKENS] * types and len(troubled) == types


# --- the writer, and what is measured


class Child:
    """A process of this module that tells by lines of JSON and ends when nobody speaks to it any more."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def told(self) -> Any:
        """Its next line."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a part of the bench ended before it told anything")
        return json.loads(line)

    async def ask(self) -> Any:
        """What it says when asked."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        return await self.told()


@asynccontextmanager
async def _child(*arguments: str) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.tokens", *arguments, cwd=Path(__file__).parent.parent,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip
    try:
        yield Child(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


class Writer:
    """Pilots: they lock tokens, finish them and give them back, so many a second, of all types in turn."""

    def __init__(self, session: aiohttp.ClientSession, url: str, types: int) -> None:
        self._session = session
        self._url = url
        self._types = types
        self._at = 0
        self._revs: dict[str, str] = {}
        self._stands = {type_of(of): {number: _stand(number) for number in range(TOKENS)} for of in range(types)}
        self.written: list[tuple[float, float, list[str]]] = []
        """Of each request: when it was sent, when it was answered, and the types of its documents."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Token type → state → how many there are now."""
        return {name: dict.fromkeys(STATES, 0) | Counter(stands.values()) for name, stands in self._stands.items()}

    async def write(self, per_s: float, seconds: float) -> float:
        """Change that many documents a second for so long; returns how many a second it became."""
        self.written.clear()
        began, requests = time.time(), int(per_s * seconds / BATCH_DOCS)
        for number in range(requests):
            await asyncio.sleep(max(0.0, began + number * BATCH_DOCS / per_s - time.time()))
            await self._change()
        return requests * BATCH_DOCS / max(time.time() - began, seconds)

    async def _change(self) -> None:
        chosen = [
            (type_of(at % self._types), (at // self._types) % TOKENS) for at in range(self._at, self._at + BATCH_DOCS)
        ]
        self._at += BATCH_DOCS
        tokens = [token_of(*one) for one in chosen]
        missing = [token["_id"] for token in tokens if token["_id"] not in self._revs]
        if missing:
            rows = (await self._post("_all_docs", {"keys": missing}))["rows"]
            self._revs |= {row["id"]: row["value"]["rev"] for row in rows}
        for token, (name, number) in zip(tokens, chosen, strict=True):
            stand = self._stands[name][number] = _NEXT[self._stands[name][number]]
            token |= {"_rev": self._revs[token["_id"]], **_STANDS[stand]}
        sent = time.time()
        rows = await self._post("_bulk_docs", {"docs": tokens})
        self.written.append((sent, time.time(), sorted({name for name, _ in chosen})))
        self._revs |= {row["id"]: row["rev"] for row in rows}

    async def _post(self, path: str, body: Any) -> Any:
        async with self._session.post(f"{self._url}/{path}", json=body) as answer:
            return await answer.json()


def _lags_s(
    written: Sequence[tuple[float, float, list[str]]], rounds: Sequence[tuple[float, float, list[str]]]
) -> list[float]:
    """Seconds from each change, in their order, to the record of a count that began after it; infinite where there is none."""
    begun: dict[str, list[float]] = {}
    recorded: dict[str, list[float]] = {}
    for began, at, names in rounds:
        for name in names:
            begun.setdefault(name, []).append(began)
            recorded.setdefault(name, []).append(at)
    found = []
    for sent, answered, names in written:
        for name in names:
            first = bisect_left(begun.get(name, []), answered)
            found.append(recorded[name][first] - sent if first < len(begun.get(name, [])) else math.inf)
    return found


def _queries(ledger: Path, start: int, rounds: Sequence[tuple[float, float, list[str]]]) -> dict[str, float]:
    """What the daemon asked views for since that place of the ledger: in all, and in the fullest round."""
    with ledger.open("rb") as file:
        file.seek(start)
        lines = [msgspec.json.decode(line) for line in file]
    asked = [line["real"] for line in lines if line["op"] == "view" and line["by"] == "client"]
    pages = sum(line["op"] == "changes" and line["by"] == "client" for line in lines)
    begun = [began for began, _, _ in rounds]
    fullest = max(Counter(bisect_right(begun, at) for at in asked).values())
    return {"rounds": len(rounds), "queries": len(asked), "most_in_a_round": fullest, "feed_requests": pages}


async def _one(
    directory: Path, couch: Child, place: dict[str, str], writer: Writer, types: int, per_s: float, seconds: float
) -> dict[str, Any]:
    """Catch up, then follow, with steps that wait for so many types."""
    start = os.stat(place["ledger"]).st_size
    async with _child("follow", str(directory / f"tokens-{types}.db"), json.dumps(place), str(types)) as daemon:
        caught = await daemon.told()
        idle = await daemon.ask()
        sim_cpu_s, wall = _cpu_s(couch.pid), time.time()
        written_per_s = await writer.write(per_s, seconds)
        names = {type_of(number) for number in range(types)}
        watched = [(sent, at, [name for name in of if name in names]) for sent, at, of in writer.written]
        async with asyncio.timeout(PATIENCE_S):
            while True:
                last = await daemon.ask()
                lags = _lags_s(watched, last["rounds"])
                if max(lags) < math.inf:
                    break
                await asyncio.sleep(0.2)
        passed_s = time.time() - wall
        sim_cpu_s = _cpu_s(couch.pid) - sim_cpu_s
    if any(counts != last["counts"][name] for name, counts in writer.counts().items() if name in names):
        raise RuntimeError("the counts that were recorded are not those of the documents")
    rounds, third = last["rounds"][len(idle["rounds"]) :], len(lags) // 3
    return {
        "catch_up": caught,
        "steady": {
            "changes_per_s": written_per_s,
            "lag_median_s": statistics.median(lags),
            "lag_p99_s": sorted(lags)[int(len(lags) * 0.99)],
            "lag_growth_s": statistics.median(lags[-third:]) - statistics.median(lags[:third]),
            "round_median_s": statistics.median(recorded - began for began, recorded, _ in rounds),
            "cpu_percent": 100 * (last["cpu_s"] - idle["cpu_s"]) / passed_s,
            "sim_cpu_percent": 100 * sim_cpu_s / passed_s,
            "peak_mb": last["peak_mb"],
            "failures": last["failures"],
        },
        **_queries(Path(place["ledger"]), start, last["rounds"]),
    }


async def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Steps that wait for all types, then for fewer of them, at the same database."""
    watched, per_s, seconds = ((20, 4), 500.0, 2.0) if quick else ((1000, 100, 10), 2000.0, 25.0)
    async with _child("couch", str(directory), str(watched[0])) as couch:
        place = await couch.told()
        url = f"{place['url']}/{DATABASE}"
        login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        headers = {"User-Agent": "pilot", "Authorization": f"Basic {login}"}
        found: dict[str, Any] = {}
        async with aiohttp.ClientSession(headers=headers) as session:
            writer = Writer(session, url, watched[0])
            for types in watched:
                async with session.get(url) as answer:
                    place["after"] = (await answer.json())["update_seq"]
                found[str(types)] = await _one(directory, couch, place, writer, types, per_s, seconds)
                seconds = min(seconds, 8.0)
        sim_mb = _proc(couch.pid, "VmHWM")
    return {
        "types": watched[0],
        "tokens": watched[0] * TOKENS,
        "changes_per_s": per_s,
        "gather_s": Tokens.gather_s / RATE,
        "watched": found,
        "sim_mb": sim_mb,
    }


async def catch_up(directory: Path, types: int) -> dict[str, float]:
    """What it costs to catch up with a database of so many types, all of which are waited for."""
    async with _child("couch", str(directory), str(types)) as couch:
        place = await couch.told()
        start = os.stat(place["ledger"]).st_size
        async with _child("follow", str(directory / "follow.db"), json.dumps(place), str(types)) as daemon:
            caught, told = await daemon.told(), await daemon.ask()
    asked = _queries(Path(place["ledger"]), start, told["rounds"])
    return {
        "tokens": types * TOKENS,
        "catch_up_s": caught["seconds"],
        "catch_up_cpu_s": caught["cpu_s"],
        "peak_mb": caught["peak_mb"],
        "calls": asked["most_in_a_round"],
        "calls_needed": 2,  # One query counts all types, and one finds all those in trouble.
    }


def main(part: str, *arguments: str) -> None:
    """Be one of the processes."""
    if part == "couch":
        directory, types = arguments
        asyncio.run(serve(Path(directory), int(types)))
    else:
        path, place, types = arguments
        asyncio.run(follow(Path(path), json.loads(place), int(types)))


if __name__ == "__main__":
    main(*sys.argv[1:])
