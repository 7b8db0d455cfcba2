"""dCache as far as the survey asks it: where is this file, on tape or on disk?

The namespace, the stage requests and the storage events of a real dCache would be further methods of `DCache`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from aglowd.sim.tape import Tape, surl_path
from aglowd.sim.world import World

ARCHIVEINFO_MAX_PATHS = 10_000
"""The real frontend silently leaves out what is beyond this (frontend.service.wlcg.file-locality-max-files)."""


class DCache:
    """Localities, from the tape library."""

    def __init__(self, world: World, tape: Tape) -> None:
        self._world = world
        self._tape = tape

    def archiveinfo(self, paths: list[str]) -> list[dict[str, str]]:
        """Each path's locality in the words of the WLCG Tape REST API."""
        now = self._world.now()
        return [self._info(path, now) for path in paths[:ARCHIVEINFO_MAX_PATHS]]

    def _info(self, path: str, now: float) -> dict[str, str]:
        file = self._tape.find_file(surl_path(path))
        if file is None:
            return {"path": path, "locality": "NONE", "error": f"CacheException(rc=10001;msg=No such file: {path})"}
        return {"path": path, "locality": "DISK_AND_TAPE" if file.is_online(now) else "TAPE"}


class _Paths(msgspec.Struct):
    paths: list[str]


def dcache_app(world: World, dcache: DCache, middlewares: Iterable[Middleware] = ()) -> web.Application:
    """The frontend; the middlewares stand before it."""

    async def archiveinfo(request: web.Request) -> web.Response:
        scheme = request.headers.get("Authorization", "").partition(" ")[0]
        try:
            paths = msgspec.json.decode(await request.read(), type=_Paths).paths
        except msgspec.MsgspecError as error:
            return _answer({"errors": [{"message": str(error), "status": "400"}]}, 400)
        answer = dcache.archiveinfo(paths)
        online = sum(row["locality"] == "DISK_AND_TAPE" for row in answer)
        asked = sorted({path.rpartition("/")[0] for path in map(surl_path, paths)})
        world.note(
            "dcache", "archiveinfo", paths=len(paths), directories=asked, online=online, authorization=scheme or "none"
        )
        return _answer(answer)

    app = web.Application(client_max_size=16 << 20, middlewares=middlewares)
    app.router.add_post("/api/v1/tape/archiveinfo", archiveinfo)
    return app


async def verb_of(request: web.Request) -> str:
    """What a request asks for, for the fault plan."""
    return request.path.rpartition("/")[2]


def _answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
