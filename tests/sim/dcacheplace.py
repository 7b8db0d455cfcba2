"""A simulated dCache for its tests: a world whose time stands until a test moves it, and the ways into it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from aglowd.clock import Clock
from aglowd.grid.dcache import Dcache
from aglowd.grid.dcache_stage import DcacheStager
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.sim.dcachegate import DcacheSettings
from aglowd.sim.faults import Faults, Script
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.sim.history import History
from aglowd.sim.rules import surls_staged_twice
from aglowd.sim.tape import surl_path
from aglowd.sim.world import DAY_S

from .conftest import eventually, read_lines, surls

START = 1_700_000_000.0
WANTED = surls()
PATHS = [surl_path(surl) for surl in WANTED]
DIRECTORY = PATHS[0].rpartition("/")[0]
STAGE = {"files": [{"path": path, "diskLifetime": "P1D"} for path in PATHS]}


@dataclass
class Place:
    """A world whose time a test moves, a plain client, and the daemon's adapters."""

    ready: dict[str, Any]
    plan: Faults
    http: aiohttp.ClientSession
    client: Http
    clock: Clock
    token: str | None
    now: float = START

    def __post_init__(self) -> None:
        self.url = self.ready["dcache_url"]
        self.tape = self.stager()
        self.bulk = self.stager(bulk=True)
        self.dcache = self.look()

    def stager(self, **given: Any) -> DcacheStager:
        return DcacheStager(self.client, *self._who(), self.url, **{"lifetime_s": 5 * DAY_S} | given)

    def look(self, **given: Any) -> Dcache:
        return Dcache(self.client, *self._who(), self.url, **given)

    def _who(self) -> tuple[Site, Credential | None]:
        return Site("dcache", self.clock), Credential("dcache", token=self.token) if self.token else None

    def strike(self, fault: str, op: str = "*", value: float | None = None) -> None:
        self.plan.add(Script(system="dcache", fault=fault, op=op, value=value))

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        status, answer, _ = await self.ask_all(method, path, body, **headers)
        return status, answer

    async def ask_all(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
        url = self.url + path if path.startswith("/") else self.url.removesuffix("/api/v1") + "/" + path
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        async with self.http.request(method, URL(url, encoded=True), data=data, headers=headers) as response:
            content = await response.read()
            is_json = response.content_type == "application/json" and content
            return response.status, json.loads(content) if is_json else content, response.headers

    async def words(self) -> set[str]:
        return set((await self.dcache.localities(WANTED)).values())

    async def staged_twice(self) -> list[Any]:
        """What the checker has to say of the ledger, when all requests made until now are in the file."""
        count = len((await self.ask("GET", "/bulk-requests"))[1])

        async def lines() -> list[dict[str, Any]]:
            found = read_lines(self.ready["ledger"])
            return found if sum(line["op"] == "request_planned" for line in found) == count else []

        return list(surls_staged_twice(History(await eventually(lines))))

    async def targets(self, name: str) -> list[str]:
        _, told = await self.ask("GET", f"/bulk-requests/{name}")
        return [row["state"] for row in told["targets"]]


Maker = Callable[..., AbstractAsyncContextManager[Place]]


def maker_of(tmp_path: Path) -> Maker:
    """`async with there(token=…) as site`: a world of its own, with these settings of its dCache."""

    @asynccontextmanager
    async def make(**given: Any) -> AsyncIterator[Place]:
        lists = tmp_path / "srm"
        lists.mkdir(exist_ok=True)
        (lists / "srm229509.txt").write_text("".join(f"{surl}\n" for surl in WANTED))
        found: list[Place] = []
        settings = Settings(
            directory=tmp_path / "world", srm_dir=lists, seed=1, speed=1.0, origin=START, failure_rate=0.0,
            wall=lambda: found[0].now if found else START, dcache=DcacheSettings(**given),
        )  # fmt: skip
        clock, plan = Clock(1.0, time.time()), list[Faults]()
        client = Http(clock, longest_s=3.0)
        async with simulated_grid(settings, plan) as ready, aiohttp.ClientSession() as http:
            found.append(Place(ready, plan[0], http, client, clock, given.get("token")))
            try:
                yield found[0]
            finally:
                await client.close()

    return make
