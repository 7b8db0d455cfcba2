"""The real launcher as a real process, against the simulated CouchDB in the test's own loop.

`PILOT_PYTHON` names another Python than the tests' own to run it: the oldest that it knows is 3.6.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from aglowd.grid.picas_views import token_design_doc
from aglowd.launcher import NAME, source
from aglowd.sim.couch import Couch
from aglowd.sim.couchstore import Database
from aglowd.sim.ledger import Ledger
from aglowd.sim.world import World, WorldClock

TYPE = "sksp_cal"
PASSWORD = "s3cret-Pässwort"
Document = dict[str, Any]
Hook = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


async def eventually(test: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first true answer of the test, asked again every few milliseconds."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = test()
            if found:
                return found
            await asyncio.sleep(0.01)


@dataclass
class Running:
    """A pilot's process, and what it leaves."""

    process: asyncio.subprocess.Process
    directory: Path

    @property
    def stderr(self) -> str:
        return (self.directory / "pilot.err").read_text()

    @property
    def stdout(self) -> str:
        return (self.directory / "pilot.out").read_text()

    async def ended(self, timeout_s: float = 60.0) -> int:
        async with asyncio.timeout(timeout_s):
            return await self.process.wait()

    def kill(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


@dataclass
class Farm:
    """The database, a directory for results, and pilots."""

    url: str
    database: Database
    path: Path
    hooks: list[Hook] = field(default_factory=list)
    pilots: list[Running] = field(default_factory=list)

    @property
    def results(self) -> Path:
        return self.path / "results"

    def token(self, name: str, command: Any = None, **fields: Any) -> str:
        """A token to do, as GRID_LRT's builder makes them; its id."""
        config: Document = {"variables": {"_token_keys": {}, "_attachments": {}}, "container": {}, "sandbox": {}}
        if command is not None:
            config["command"] = command
        document = {
            "type": TYPE,
            "PICAS_API_VERSION": "1.0.7",
            "lock": 0,
            "done": 0,
            "config.json": config,
            "status": "queued",
            "hostname": "",
            "output": "",
            "progress": 0,
            "scrub_count": 0,
            "times": {},
            "RESULTS_DIR": f"file://{self.results}",
            "aglowd": {"key": f"run/create/1/create_tokens/{name}"},
            **fields,
        }
        self.database.put(f"{TYPE}:{name}", document)
        return f"{TYPE}:{name}"

    def get(self, token: str) -> Document:
        return self.database.get(token).body(inline=True)

    def change(self, token: str, **fields: Any) -> None:
        """What another writer does."""
        self.database.put(token, {**self.database.get(token).body(), **fields})

    def log(self, token: str, name: str) -> str:
        """The text of the token's one attachment of that kind."""
        (found,) = (part for key, part in self.get(token)["_attachments"].items() if key.endswith(f"_{name}.txt"))
        return base64.b64decode(found["data"]).decode()

    def mark(self, job: str) -> Document:
        body = self.database.get(f"aglowd:pilot:{job}").body()
        assert "type" not in body
        found: Document = body["aglowd"]
        return found

    def accepted(self, token: str) -> Path:
        """The file that the token names as its result."""
        return Path(self.get(token)["Results_location"].removeprefix("file://"))

    def files(self) -> list[Path]:
        return sorted(self.results.iterdir()) if self.results.exists() else []

    async def pilot(
        self, *arguments: str, job: str = "local-1", settings: Any = None, environment: dict[str, str] | None = None
    ) -> Running:
        directory = self.path / f"job-{len(self.pilots)}"
        directory.mkdir()
        (directory / NAME).write_text(source(), encoding="utf-8")
        known = {"url": self.url, "database": "sk/sp", "user": "aglowd", "password": PASSWORD}
        (directory / "picas.json").write_text(json.dumps(known if settings is None else settings))
        with (directory / "pilot.out").open("w") as out, (directory / "pilot.err").open("w") as err:
            process = await asyncio.create_subprocess_exec(
                os.environ.get("PILOT_PYTHON", sys.executable),
                "-I",
                "-W",
                "error",
                NAME,
                "--type",
                TYPE,
                *arguments,
                cwd=directory,
                env={"PATH": os.environ["PATH"], **(environment or {"AGLOWD_JOB_ID": job})},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        running = Running(process, directory)
        self.pilots.append(running)
        return running


@pytest.fixture
async def farm(tmp_path: Path) -> AsyncIterator[Farm]:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    world = World(1, WorldClock(1.0, time.time()), ledger, 0.0)
    couch = Couch(world, "aglowd", PASSWORD)
    database = couch.create("sk/sp")
    design = token_design_doc(TYPE)
    database.put(design["_id"], design)

    @web.middleware
    async def ask_hooks(request: web.Request, handler: Any) -> web.StreamResponse:
        for hook in found.hooks:
            if (answer := await hook(request)) is not None:
                return answer
        response: web.StreamResponse = await handler(request)
        return response

    runner = web.AppRunner(couch.app([ask_hooks]), shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found = Farm(f"http://127.0.0.1:{runner.addresses[0][1]}", database, tmp_path)
    yield found
    for running in found.pilots:
        if running.process.returncode is None:
            running.kill(signal.SIGKILL)
            await running.process.wait()
    await runner.cleanup()
    ledger.close()
