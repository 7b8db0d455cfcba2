"""One cell of the table: a system under the load, perhaps killed on the way, or waiting and doing nothing else.

What must stay true: whatever ends a cell, its limit, an error or the person at the keyboard, no process of it is left.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from msgspec import Struct

from bench.workload_w.chain import ACTS, Load, Order
from bench.workload_w.family import Family
from bench.workload_w.systems import System

ROOT = Path(__file__).parents[2]
SAMPLE_S = 0.5
"""Between two looks at the memory, and at whether the system still lives."""
NEVER_S = 1e9
SAID_CHARS = 2000


class Ended(Exception):
    """The system ended before its work did."""


class Run:
    """A system that runs against the service, and what is asked of both."""

    def __init__(self, system: System, order: Order, service: int) -> None:
        self._system = system
        self.order = order
        self.family = Family(service)
        self.peak_bytes = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the system says."""
        return self.order.place / "log.txt"

    def begin(self) -> None:
        """Start it, for the first time or once more."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self._system.environment(self.order)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._system.argv(self.order),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self.family.kill()

    async def sample(self) -> None:
        """Look at its memory until cancelled."""
        while True:
            self.peak_bytes = max(self.peak_bytes, await asyncio.to_thread(self.family.memory_bytes))
            await asyncio.sleep(SAMPLE_S)

    async def when(self, session: aiohttp.ClientSession, **wanted: int) -> dict[str, Any]:
        """The service's tally as soon as these numbers are reached; Ended if the system ends before."""
        asked = asyncio.create_task(_ask(session, self.order.url, wanted))
        try:
            while not asked.done():
                await asyncio.wait([asked], timeout=SAMPLE_S)
                if not asked.done() and self._process is not None and self._process.poll() is not None:
                    await asyncio.wait([asked], timeout=SAMPLE_S)  # Its last words may be on their way.
                    if not asked.done():
                        said = self.log.read_text(encoding="utf-8", errors="replace")[-SAID_CHARS:]
                        raise Ended(f"it ended with {self._process.returncode}: {said}")
            return asked.result()
        finally:
            asked.cancel()


class Cell(Struct, frozen=True):
    """Which system, under which load; `is_killed`: with SIGKILL when half of all acts are done, and begun again at once.

    The CPU of the second start then counts; that of the first one, up to its first request, is told apart.
    `idle_s`: no wait is ever done, and what so many seconds of that cost is measured.
    """

    name: str
    system: System
    load: Load
    limit_s: float
    is_killed: bool = False
    idle_s: float = 0.0

    async def play(self, place: Path) -> dict[str, Any]:
        """What it cost and what the service counted."""
        load = self.load._replace(wait_s=NEVER_S) if self.idle_s else self.load
        forever = aiohttp.ClientTimeout(None)
        with served(load) as (url, pid):
            async with aiohttp.ClientSession(timeout=forever) as session:
                figures, peak_bytes = await self._measured(Order(url, load, place), pid, session)
        about = {"system": self.name, "fields": load.fields, "killed": self.is_killed, "idle": bool(self.idle_s)}
        return {**about, **figures, "peak_mb": peak_bytes / 1e6}

    async def _measured(self, order: Order, service: int, session: aiohttp.ClientSession) -> tuple[dict[str, Any], int]:
        """Its figures, and the most memory that it had."""
        await self.system.prepare(order)
        run = Run(self.system, order, service)
        sampler = asyncio.create_task(run.sample())
        loop = asyncio.get_running_loop()
        began, began_cpu_s = loop.time(), run.family.cpu_s()
        try:
            run.begin()
            figures = await (self._idle(run, session) if self.idle_s else self._work(run, session))
            figures["start_s"] = figures.pop("first_at") - began
            figures["start_cpu_s"] = figures.pop("first_cpu_s") - began_cpu_s
        except Ended as error:
            figures = {"trouble": str(error)}
        except TimeoutError:
            figures = {"trouble": f"not all that was to begin had begun within {self.limit_s:g} s"}
        finally:
            sampler.cancel()
            run.kill()
        return figures, run.peak_bytes

    async def _work(self, run: Run, session: aiohttp.ClientSession) -> dict[str, Any]:
        loop, fields = asyncio.get_running_loop(), self.load.fields
        until = loop.time() + self.limit_s
        async with asyncio.timeout_at(until):
            await run.when(session, begun=1)
        first_at, first_cpu_s = loop.time(), run.family.cpu_s()
        trouble = {}
        try:
            async with asyncio.timeout_at(until):
                if self.is_killed:
                    await run.when(session, acts=fields * len(ACTS) // 2)
                    await asyncio.to_thread(run.kill)
                    run.begin()
                await run.when(session, finished=fields)
        except TimeoutError:
            trouble = {"trouble": f"not all fields ended within {self.limit_s:g} s"}
        except Ended as error:
            trouble = {"trouble": str(error)}
        await asyncio.sleep(self.load.poll_s)  # To write down what it did last: that counts as CPU, not as time.
        cpu_s = run.family.cpu_s() - first_cpu_s
        tally = await _ask(session, run.order.url, {})
        delays = sorted(tally.pop("delays_s"))
        steps = tally["begun"]
        return {
            "first_at": first_at,
            "first_cpu_s": first_cpu_s,
            "cpu_s": cpu_s,
            "cpu_per_step_ms": cpu_s / steps * 1e3 if steps else None,
            "ideal_s": self.load.ideal_s,
            "over_ideal": tally["passed_s"] / self.load.ideal_s,
            "delay_median_ms": statistics.median(delays) * 1e3 if delays else None,
            "delay_p99_ms": delays[int(0.99 * (len(delays) - 1))] * 1e3 if delays else None,
            **tally,
            **trouble,
        }

    async def _idle(self, run: Run, session: aiohttp.ClientSession) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self.limit_s):
            await run.when(session, begun=1)
            first_at, first_cpu_s = loop.time(), run.family.cpu_s()
            await run.when(session, begun=self.load.fields)
        await asyncio.sleep(self.load.poll_s)
        before, cpu_s, began = await run.when(session), run.family.cpu_s(), loop.time()
        await asyncio.sleep(self.idle_s)
        after, used_s, passed_s = await run.when(session), run.family.cpu_s() - cpu_s, loop.time() - began
        polls = after["polls"] - before["polls"]
        return {
            "first_at": first_at,
            "first_cpu_s": first_cpu_s,
            "idle_percent": used_s / passed_s * 100,
            "polls": polls,
            "cpu_per_poll_ms": used_s / polls * 1e3 if polls else None,
        }


@contextmanager
def served(load: Load) -> Iterator[tuple[str, int]]:
    """Its URL and its process. It ends with its standard input, so also when this process is killed."""
    argv = [sys.executable, "-m", "bench.workload_w.service", str(load.fields), str(load.wait_s)]
    with subprocess.Popen(
        argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
        finally:
            process.kill()


async def _ask(session: aiohttp.ClientSession, url: str, wanted: dict[str, int]) -> dict[str, Any]:
    async with session.get(f"{url}/when", params=wanted) as reply:
        found: dict[str, Any] = await reply.json()
        return found
