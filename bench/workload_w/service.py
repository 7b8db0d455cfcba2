"""The outside world of the workload, and its judge: `python -m bench.workload_w.service FIELDS WAIT_S`.

A wait is done a fixed time after it was first asked for. An act is done once for each idempotency key: asked again under a
key that is known, it answers as the first time and does nothing, and counts as *repeated*. One that comes under another
key is done again: a *duplicate*. What must stay true: all times are those of this process, so that the systems under test
need no clock, and nothing that they say of themselves counts.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from typing import Any

from aiohttp import web

from bench.workload_w.chain import ACTS, LAST

Step = tuple[str, int]


class Judge:
    """What was asked, told and done, and when."""

    def __init__(self, fields: int, wait_s: float) -> None:
        self._fields = fields
        self._wait_s = wait_s
        self._came: dict[Step, float] = {}
        """When each step was asked for first."""
        self._told: dict[Step, float] = {}
        """When it was first said that a wait is done."""
        self._keys: dict[Step, dict[str, int]] = {}
        """The keys under which an act was done, and the number that each got."""
        self._counts: Counter[str] = Counter()
        self._moved = asyncio.Condition()

    async def wait(self, request: web.Request) -> web.Response:
        """Whether that wait is done."""
        step, now = _step(request), time.monotonic()
        self._counts["polls"] += 1
        is_done = now - await self._arrived(step, now) >= self._wait_s
        if is_done:
            self._told.setdefault(step, now)
        return web.json_response({"done": is_done})

    async def act(self, request: web.Request) -> web.Response:
        """Do it, unless it was done under that key."""
        step, key = _step(request), request.headers["Idempotency-Key"]
        self._counts["act_requests"] += 1
        keys = self._keys.setdefault(step, {})
        self._counts["repeated"] += key in keys
        number = keys.setdefault(key, len(keys) + 1)
        await self._arrived(step, time.monotonic())
        return web.json_response({"number": number})

    async def was_done(self, request: web.Request) -> web.Response:
        """Whether that act was done, under whatever key."""
        self._counts["looks"] += 1
        return web.json_response({"done": _step(request) in self._keys})

    async def when(self, request: web.Request) -> web.Response:
        """Answer with the tally as soon as every number of the query is reached."""
        wanted = {name: int(text) for name, text in request.query.items()}
        async with self._moved:
            await self._moved.wait_for(lambda: all(self._progress()[name] >= most for name, most in wanted.items()))
        return web.json_response(self._tally())

    async def _arrived(self, step: Step, now: float) -> float:
        if step not in self._came:
            self._came[step] = now
            async with self._moved:
                self._moved.notify_all()
        return self._came[step]

    def _progress(self) -> dict[str, int]:
        finished = [field for field, step in self._keys if step == LAST]
        return {"begun": len(self._came), "acts": len(self._keys), "finished": len(finished)}

    def _tally(self) -> dict[str, Any]:
        finished = [field for field, step in self._keys if step == LAST]
        times = self._came.values()
        return {
            **{name: self._counts[name] for name in ("polls", "act_requests", "looks", "repeated")},
            **self._progress(),
            "duplicates": sum(len(keys) - 1 for keys in self._keys.values()),
            "lost": sum((field, step) not in self._keys for field in finished for step in ACTS),
            "passed_s": max(times) - min(times) if times else 0.0,
            "delays_s": [
                self._came[field, step + 1] - told
                for (field, step), told in self._told.items()
                if (field, step + 1) in self._came
            ],
        }


def _step(request: web.Request) -> Step:
    return request.match_info["field"], int(request.match_info["step"])


async def serve(fields: int, wait_s: float) -> None:
    """Print the port, and answer until standard input ends: with whoever started it."""
    judge, app = Judge(fields, wait_s), web.Application()
    app.add_routes([
        web.get("/wait/{field}/{step}", judge.wait),
        web.post("/act/{field}/{step}", judge.act),
        web.get("/act/{field}/{step}", judge.was_done),
        web.get("/when", judge.when),
    ])  # fmt: skip
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
