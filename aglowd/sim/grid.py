"""The whole simulated grid, put together: what listens where, what it shares, how it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from aglowd.sim.couch import Couch
from aglowd.sim.dcache import DCache, dcache_app
from aglowd.sim.gfal import Gfal
from aglowd.sim.glite import Glite
from aglowd.sim.jobs import JobBoard
from aglowd.sim.ledger import Ledger
from aglowd.sim.lta import Stager, lta_app
from aglowd.sim.pilot import Farm
from aglowd.sim.pilots import Pilots
from aglowd.sim.proxy import Proxy
from aglowd.sim.storage import Storage
from aglowd.sim.tape import Tape, list_surls
from aglowd.sim.tools import ToolServer
from aglowd.sim.world import World, WorldClock, digest

DATABASE = "sksp"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that makes one world differ from another."""

    directory: Path
    srm_dir: Path
    seed: int
    speed: float
    origin: float
    slots: int = 2000
    failure_rate: float = 1.0
    proxy_hours: float = 168.0


@asynccontextmanager
async def simulated_grid(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """A running grid; yields what clients need to know to reach it (the ready line of the command)."""
    directory = settings.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(directory / "ledger.jsonl")
    clock = WorldClock(settings.speed, settings.origin)
    world = World(settings.seed, clock, ledger, settings.failure_rate)
    tape = Tape(world, list_surls(settings.srm_dir))
    storage = Storage(directory / "storage")
    proxy = Proxy(world, directory / "x509up", settings.proxy_hours)
    board = JobBoard(world)
    pilots = Pilots(Farm(world, tape, storage), board, settings.slots)
    secrets = {name: digest(settings.seed, name).hex() for name in ("lta", "couch")}
    couch = Couch(world, "aglowd", secrets["couch"])
    couch.create(DATABASE)
    commands = Glite(world, board, proxy).commands() | Gfal(world, storage, tape).commands() | proxy.commands()
    tools = ToolServer(world, directory, commands)
    async with AsyncExitStack() as stack:
        stack.callback(ledger.close)
        await stack.enter_async_context(_background(ledger.run(), pilots.run()))
        lta_url = await _listen(stack, lta_app(world, Stager(world, tape), "lofar", secrets["lta"]))
        couch_url = await _listen(stack, couch.app())
        dcache_url = await _listen(stack, dcache_app(world, DCache(world, tape)))
        await tools.start()
        stack.push_async_callback(tools.close)
        world.note("world", "started", "world", seed=settings.seed, speed=settings.speed, origin=settings.origin,
                   surls=len(tape))  # fmt: skip
        yield {
            "ready": True,
            "lta_url": f"{lta_url}/service-public/xmlrpc",
            "couch_url": couch_url,
            "dcache_url": f"{dcache_url}/api/v1",
            "bin": str(directory / "bin"),
            "storage": str(storage.root),
            "ledger": str(ledger.path),
            "proxy": str(proxy.path),
            "credentials": {
                "lta_user": "lofar",
                "lta_password": secrets["lta"],
                "couch_user": "aglowd",
                "couch_password": secrets["couch"],
                "couch_database": DATABASE,
            },
        }
        world.note("world", "stopped", "world")


@asynccontextmanager
async def _background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the work beside the servers; its one owner, which ends it and awaits its end."""

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)

    task = asyncio.create_task(together())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _listen(stack: AsyncExitStack, app: web.Application) -> str:
    """Serve the application on a free port of the loopback; returns its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"
