"""What the contract of the token database is tried on: CouchDB, or something that speaks as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web
from msgspec import Struct

from aglowd.clock import Clock
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.picas import Picas
from aglowd.sim.couch import Couch
from aglowd.sim.ledger import Ledger
from aglowd.sim.world import World, WorldClock

USER, MEMBER, PASSWORD = "aglowd", "member", "not a secret"
"""Who may do everything there, and who may change no design documents."""


class Base(Struct, frozen=True):
    """An empty database at a server. `sequences_are_checked`: whether it refuses a sequence that is none of its own."""

    http: Http
    url: str
    database: str
    end_sessions: Callable[[], Awaitable[object]]
    sequences_are_checked: bool = True

    def picas(self, password: str = PASSWORD, *, user: str = USER, by_cookie: bool = False) -> Picas:
        """A client of its own."""
        credential = Credential("picas", user=user, password=password)
        return Picas(self.http, Site("picas", Clock()), credential, self.url, self.database, by_cookie=by_cookie)


@asynccontextmanager
async def simulated(directory: Path) -> AsyncIterator[Base]:
    """The subset of CouchDB that the simulated grid has."""
    ledger = Ledger(directory / "ledger.jsonl")
    couch = Couch(World(1, WorldClock(1.0, 0.0), ledger), USER, PASSWORD)
    couch.create("sksp")
    couch.members[MEMBER] = PASSWORD

    async def end_sessions() -> None:
        couch.end_sessions()

    http = Http(Clock(), timeout_s=10.0)
    runner = web.AppRunner(couch.app(), shutdown_timeout=0.1, handler_cancellation=True)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Base(http, f"http://127.0.0.1:{runner.addresses[0][1]}", "sksp", end_sessions)
    finally:
        await http.close()
        await runner.cleanup()
        ledger.close()
