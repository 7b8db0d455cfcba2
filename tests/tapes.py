"""A dCache that only tells where files are, the daemon's way to it, and what Orders need of a world: all over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from aglowd import orders
from aglowd.clock import Clock
from aglowd.grid.dcache import Dcache
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.grid.surl import parse_surl
from aglowd.orders import Orders
from aglowd.store.store import Store
from aglowd.wiring import load_pipelines

SARA = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/229511/L229511_SB{:03d}_uv.tar"
JUELICH = "srm://lofar-srm.fz-juelich.de:8443/pnfs/fz-juelich.de/data/lofar/ops/projects/lc3/1/L343224_SB{:03d}_uv.tar"
LIFETIME_S = 7 * 86_400.0


class Tape:
    """It knows of some files, fails when it is asked for `failing`, and says nothing more when it is asked for `silent`."""

    def __init__(self, known: Mapping[str, str] | None = None, failing: str = "", silent: str = "") -> None:
        self.known = {parse_surl(surl).path: place for surl, place in (known or {}).items()}
        self.failing, self.silent = (parse_surl(surl).path if surl else "" for surl in (failing, silent))
        self.asked: list[int] = []

    async def answer(self, request: web.Request) -> web.Response:
        paths = msgspec.json.decode(await request.read())["paths"]
        self.asked.append(len(paths))
        if self.silent in paths:
            await asyncio.Event().wait()
        if self.failing in paths:
            return web.Response(status=500, text="out of order")
        rows = [{"path": path, "locality": self.known[path]} for path in paths if path in self.known]
        return web.Response(body=msgspec.json.encode(rows), content_type="application/json")


class Places:
    """As much of a world as Orders ask."""

    def __init__(self, archives: Mapping[str, Dcache]) -> None:
        self._archives = archives

    def archive(self, site: str) -> Dcache:
        return self._archives[site]


@asynccontextmanager
async def ordering(store: Store, **tapes: Tape) -> AsyncIterator[Orders]:
    """Orders for a daemon with these sites, each with a dCache of its own."""
    clock = Clock()
    http = Http(clock)
    runners: list[web.AppRunner] = []
    archives = {}
    try:
        for name, tape in tapes.items():
            app = web.Application(client_max_size=1 << 24)
            app.router.add_post("/api/v1/tape/archiveinfo", tape.answer)
            runners.append(web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1))
            await runners[-1].setup()
            await web.TCPSite(runners[-1], "127.0.0.1", 0).start()
            url = f"http://127.0.0.1:{runners[-1].addresses[0][1]}"
            archives[name] = Dcache(http, Site(name, clock), None, url)
        world: Any = Places(archives)
        yield Orders(store, world, load_pipelines("", orders.PIPELINE)[orders.PIPELINE], tapes, LIFETIME_S)
    finally:
        await http.close()
        for runner in runners:
            await runner.cleanup()
