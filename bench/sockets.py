"""Answers on the control socket, against a bare aiohttp handler that returns bytes of the same length.

Each server is a process of its own, with a store in which a few hundred steps wait; one client asks them in turns, over
connections that stay open. `python -m bench.sockets WHO DIRECTORY …` is one of the servers.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
from aiohttp import web

from aglowd import __version__
from aglowd.control import Control, Health
from aglowd.control.health import LoopHealth
from bench.toy import house

STEPS = 200
ROUND = 200
"""Requests to one server before it is the other one's turn."""
ROOT = Path(__file__).parent.parent
LOOPS = ("reactor", "engine", "audit", "store writer", *(f"watcher {number}" for number in range(16)))
"""As many as a daemon has."""
PATHS = ("/live", "/v1/status")


def _health() -> Health:
    loops = {name: LoopHealth(0.5, 120.0, ok=True) for name in LOOPS}
    return Health(True, True, (), loops, {}, {}, None, 0.0, 0, {})


async def serve_ours(directory: Path) -> None:
    """The control socket with a small store behind it."""
    async with house(directory / "sockets.db") as here:
        await here.begin("tokens", (f"P{number}" for number in range(STEPS)))
        control = Control(here.store, _health, here.store.clock, __version__)
        async with control.serve(directory / "ours"):
            cpu, began = time.process_time(), time.perf_counter()
            for _ in range(ROUND):
                await here.store.status()
            query = {"us": (time.perf_counter() - began) / ROUND * 1e6}
            query["cpu_us"] = (time.process_time() - cpu) / ROUND * 1e6
            await _until_told(query)


async def serve_bare(directory: Path, lengths: str) -> None:
    """Bytes of the same length under the same paths, from memory."""
    application = web.Application()
    for path, length in json.loads(lengths).items():
        body = b"x" * length

        async def answer(request: web.Request, body: bytes = body) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        application.router.add_get(path, answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, directory / "bare").start()
    await _until_told({})
    await runner.cleanup()


async def _until_told(said: dict[str, float]) -> None:
    """Say that all is ready; then, at each line that is read, how much CPU time was taken so far."""
    print(json.dumps(said), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(time.process_time()), flush=True)


class Server:
    """One of the two processes."""

    def __init__(self, stack: ExitStack, *arguments: str) -> None:
        argv = [sys.executable, "-m", "bench.sockets", *arguments]
        self._process = stack.enter_context(
            subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(self._process.stdin.close)  # type: ignore[union-attr] # it is a pipe
        self.said = self._told()

    def _told(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def cpu_s(self) -> float:
        """CPU seconds that it has taken."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._told())


async def _ask(session: aiohttp.ClientSession, path: str, times: int) -> list[float]:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        async with session.get(f"http://aglowd{path}") as answer:
            await answer.read()
        took.append((time.perf_counter() - began) * 1e6)
    return took


async def compare(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Each path, of ours and of the bare server in turns; microseconds as the client sees them, and the servers' CPU time."""
    rounds = 1 if quick else 15
    with ExitStack() as stack:
        ours = Server(stack, "ours", str(directory))
        async with _client(directory / "ours") as session:
            lengths = {}
            for path in PATHS:
                async with session.get(f"http://aglowd{path}") as answer:
                    lengths[path] = len(await answer.read())
        bare = Server(stack, "bare", str(directory), json.dumps(lengths))
        found: dict[str, Any] = {"steps": STEPS, "status_query": ours.said}
        async with _client(directory / "ours") as to_ours, _client(directory / "bare") as to_bare:
            for path in PATHS:
                took: dict[str, list[float]] = {"ours": [], "bare": []}
                cpu = {"ours": 0.0, "bare": 0.0}
                for _ in range(rounds):
                    for name, server, session in (("ours", ours, to_ours), ("bare", bare, to_bare)):
                        before = server.cpu_s()
                        took[name] += await _ask(session, path, ROUND)
                        cpu[name] += server.cpu_s() - before
                asked = rounds * ROUND
                found[path] = {
                    "ratio": median(took["ours"]) / median(took["bare"]),
                    "cpu_ratio": cpu["ours"] / cpu["bare"],
                    "us": median(took["ours"]),
                    "bare_us": median(took["bare"]),
                    "cpu_us": cpu["ours"] / asked * 1e6,
                    "bare_cpu_us": cpu["bare"] / asked * 1e6,
                    "bytes": lengths[path],
                }
    return found


def _client(path: Path) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path), limit=1))


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Both paths."""
    return asyncio.run(compare(directory, quick=quick))


if __name__ == "__main__":
    who, place, *rest = sys.argv[1:]
    asyncio.run(serve_ours(Path(place)) if who == "ours" else serve_bare(Path(place), *rest))
