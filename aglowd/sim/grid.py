"""The whole simulated grid, put together: what listens where, what it shares, how it starts and stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from aglowd.sim import arc, couchrequest, dcache, dcacheevents, lta, stageit, webdav
from aglowd.sim.couch import Couch
from aglowd.sim.dcachechannels import Events
from aglowd.sim.dcachegate import DcacheSettings
from aglowd.sim.dirac import Dirac
from aglowd.sim.faulthttp import Door, HttpFaults
from aglowd.sim.faults import CHAOS_DAYS, Faults, Script, own_kinds
from aglowd.sim.faulttools import ToolFaults
from aglowd.sim.gfal import Gfal
from aglowd.sim.glite import Glite
from aglowd.sim.jobs import JobBoard
from aglowd.sim.ledger import Ledger
from aglowd.sim.macaroons import Macaroons
from aglowd.sim.others import Others
from aglowd.sim.pilot import Farm
from aglowd.sim.pilots import Pilots
from aglowd.sim.prefactor import SINGULARITY, Prefactor
from aglowd.sim.proxy import Proxy
from aglowd.sim.stager import Stager
from aglowd.sim.storage import Storage
from aglowd.sim.tape import Tape, list_surls
from aglowd.sim.tools import ToolServer
from aglowd.sim.world import DAY_S, World, WorldClock, digest

DATABASE = "sksp"
ELSEWHERE = {"juelich": "sksp2juelich"}
"""Site → the token database of its own, whose pilots somebody else starts."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that makes one world differ from another."""

    directory: Path
    srm_dir: Path
    seed: int
    speed: float
    origin: float
    wall: Callable[[], float] = time.time
    slots: int = 2000
    failure_rate: float = 1.0
    proxy_hours: float = 168.0
    pin_days: float = 7.0
    faults: tuple[Script, ...] = ()
    chaos: bool = False
    chaos_days: float = CHAOS_DAYS
    dcache: DcacheSettings = DcacheSettings()


@asynccontextmanager
async def simulated_grid(settings: Settings, plan: list[Faults] | None = None) -> AsyncIterator[dict[str, Any]]:
    """A running grid; yields what clients need to know to reach it (the ready line of the command).

    A list that is given as `plan` gets the fault plan, so that its owner can add scripts while the world runs.
    """
    directory = settings.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(directory / "ledger.jsonl")
    clock = WorldClock(settings.speed, settings.origin, settings.wall)
    world = World(settings.seed, clock, ledger, settings.failure_rate)
    tape = Tape(world, list_surls(settings.srm_dir), settings.pin_days * DAY_S)
    storage = Storage(directory / "storage")
    proxy = Proxy(world, directory / "x509up", settings.proxy_hours)
    board = JobBoard(world)
    secrets = {name: digest(settings.seed, name).hex() for name in ("lta", "couch", "stageit", "webdav", "dcache")}
    couch = Couch(world, "aglowd", secrets["couch"])
    couch.create(DATABASE)
    elsewhere = {site: couch.create(name) for site, name in ELSEWHERE.items()}
    farm = Farm(world, tape, storage)
    pilots = Pilots(farm, board, settings.slots)
    commands = Glite(world, board, proxy).commands() | Dirac(world, board, proxy).commands()
    commands |= Gfal(world, storage, tape, proxy).commands() | proxy.commands() | Prefactor(farm).commands()
    faults = Faults(world, settings.faults, chaos=settings.chaos, chaos_days=settings.chaos_days)
    if plan is not None:
        plan.append(faults)
    tools = ToolServer(world, directory, commands, ToolFaults(faults, proxy, storage), {"singularity": SINGULARITY})
    stage = HttpFaults(faults, "lta", lta.method_of, dict.fromkeys(own_kinds("lta")))
    stage_it = HttpFaults(faults, "stageit", stageit.verb_of, dict.fromkeys(own_kinds("stageit")))
    look = HttpFaults(faults, "dcache", dcache.verb_of, dict.fromkeys(own_kinds("dcache")))
    submit = HttpFaults(faults, "arc", arc.verb_of, dict.fromkeys(own_kinds("arc")))
    events = Events(world, tape, storage)
    told = HttpFaults(
        faults, "events", dcacheevents.verb_of,
        {"channel_lost": events.restart} | dict.fromkeys(dcacheevents.STREAM_FAULTS),
    )  # fmt: skip
    base = HttpFaults(
        faults, "couchdb", couchrequest.verb_of,
        {
            **dict.fromkeys(("partial_bulk", "conflict", "rewind", "since_refused")),
            "restart": couch.restart,
            "recreate": partial(couch.restart, recreate=True),
        },
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        stack.callback(ledger.close)
        await stack.enter_async_context(_background(ledger.run(), pilots.run(), faults.run(), events.run()))
        stager = Stager(world, tape)
        lta_url = await _listen(stack, lta.lta_app(world, stager, "lofar", secrets["lta"], [stage.middleware()]), stage)
        issuer = Macaroons(secrets["webdav"], world.now)
        stageit_app = stageit.stageit_app(world, stager, secrets["stageit"], issuer, [stage_it.middleware()])
        stageit_url = await _listen(stack, stageit_app, stage_it)
        couch_url = await _listen(stack, couch.app([base.middleware()]), base)
        # Worker nodes reach the database by a door of their own: faults strike who is judged, not the pilots.
        pilots_url = await _listen(stack, couch.app(by="pilot"))
        others = [Others(farm, own, pilots_url, "aglowd", secrets["couch"]) for own in elsewhere.values()]
        await stack.enter_async_context(_background(*(one.run() for one in others)))
        archive = dcache.DCache(world, tape, stager, settings.dcache, issuer)
        frontend = dcache.dcache_app(world, archive, [dcacheevents.but_events(look.middleware())])
        frontend.add_subapp(dcacheevents.PREFIX, dcacheevents.events_app(events, [told.middleware()]))
        dcache_url = await _listen(stack, frontend, look)
        told.door = look.door
        door = webdav.WebDav(world, storage, tape, secrets["webdav"], faults.later)
        put = HttpFaults(faults, "webdav", webdav.verb_of, dict.fromkeys(("disk_full", "half_file")))
        webdav_url = await _listen(stack, webdav.webdav_app(door, [put.middleware()]), put)
        arc_url = await _listen(stack, arc.arc_app(world, board, [submit.middleware()]), submit)
        await tools.start()
        stack.push_async_callback(tools.close)
        world.note("world", "started", "world", seed=settings.seed, speed=settings.speed, origin=settings.origin,
                   surls=len(tape))  # fmt: skip
        yield {
            "ready": True,
            "lta_url": f"{lta_url}/service-public/xmlrpc",
            "stageit_url": f"{stageit_url}/stageit/api/staging",
            "couch_url": couch_url,
            "pilots_couch_url": pilots_url,
            "dcache_url": f"{dcache_url}/api/v1",
            "webdav_url": webdav_url,
            "arc_url": f"{arc_url}/arex",
            "bin": str(directory / "bin"),
            "storage": str(storage.root),
            "ledger": str(ledger.path),
            "proxy": str(proxy.path),
            "credentials": {
                "lta_user": "lofar",
                "lta_password": secrets["lta"],
                "stageit_token": secrets["stageit"],
                "couch_user": "aglowd",
                "couch_password": secrets["couch"],
                "couch_database": DATABASE,
                "couch_databases": ELSEWHERE,
                "dcache_token": settings.dcache.token or secrets["dcache"],
                "webdav_token": secrets["webdav"],
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


async def _listen(stack: AsyncExitStack, app: web.Application, faults: HttpFaults | None = None) -> str:
    """Serve the application on a free port of the loopback, behind a door that `faults` may shut; returns its URL."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    door = Door(runner)
    stack.callback(door.close)
    await door.open()
    if faults is not None:
        faults.door = door
    return f"http://127.0.0.1:{door.port}"
