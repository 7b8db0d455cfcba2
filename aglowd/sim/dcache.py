"""dCache as the survey sees it: where files are, requests that bring them from tape, who we are, and how much room there is.

The services are each in a file of their own; here they become one frontend. Storage events would be one more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from aiohttp import web
from aiohttp.typedefs import Middleware

from aglowd.sim.dcachebulk import BulkService
from aglowd.sim.dcachebulkrest import BulkRest
from aglowd.sim.dcachegate import UID, DcacheSettings, Gate, Refused, answer
from aglowd.sim.dcachenamespace import NamespaceRest
from aglowd.sim.dcachetape import TapeRest
from aglowd.sim.macaroons import Macaroons
from aglowd.sim.stager import Stager
from aglowd.sim.tape import Tape
from aglowd.sim.world import World

ROOT = "/api/v1"
_BODY_MAX_BYTES = 16 << 20


class DCache:
    """Everything that one dCache knows, and the resources that tell it."""

    def __init__(
        self,
        world: World,
        tape: Tape,
        stager: Stager,
        settings: DcacheSettings | None = None,
        issuer: Macaroons | None = None,
    ) -> None:
        self._world = world
        self._tape = tape
        self._settings = settings or DcacheSettings()
        self.gate = Gate(world, self._settings, issuer)
        self._service = BulkService(world, tape, stager, self.gate, self._settings)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        shared = self._world, self._tape, self._service, self.gate, self._settings
        TapeRest(*shared).add_routes(router)
        NamespaceRest(*shared).add_routes(router)
        BulkRest(self._world, self._service, self._settings).add_routes(router)
        router.add_get(f"{ROOT}/user", self.user)
        router.add_get(f"{ROOT}/quota/user", self.quota)
        router.add_get(f"{ROOT}/poolgroups/{{group}}/space", self.space)

    async def user(self, request: web.Request) -> web.Response:
        """GET: who we are taken for."""
        self._world.note("dcache", "user")
        if not self.gate.is_known(request):
            return answer({"status": "ANONYMOUS"})
        return answer({
            "status": "AUTHENTICATED", "uid": UID, "gids": [UID], "username": "lofar", "homeDirectory": "/",
            "rootDirectory": "/",
        })  # fmt: skip

    async def quota(self, request: web.Request) -> web.Response:
        """GET: what our files take, where a quota is kept."""
        limit = self._settings.quota_bytes
        if limit is None:
            raise Refused(503, "DCache not configured for quota management.")
        used = sum(self._tape.size_bytes(path) for path, _ in self._tape.list_files())
        return answer([{
            "id": UID, "type": "USER", "custodial": used, "custodialLimit": limit, "replica": 0, "replicaLimit": None,
        }])  # fmt: skip

    async def space(self, request: web.Request) -> web.Response:
        """GET: how much of a pool group is taken by what is online; for admins only, unless the site is kind."""
        total, now = self._settings.pool_bytes, self._world.now()
        if total is None:
            raise Refused(403, "Pool group info only accessible to admin users.")
        used = sum(self._tape.size_bytes(path) for path, file in self._tape.list_files() if file.is_online(now))
        data = {"total": total, "free": max(0, total - used), "precious": 0, "removable": 0}
        return answer({"name": request.match_info["group"], "groupSpaceData": data})


def dcache_app(world: World, dcache: DCache, middlewares: Iterable[Middleware] = ()) -> web.Application:
    """The frontend; the middlewares stand before it."""
    app = web.Application(client_max_size=_BODY_MAX_BYTES, middlewares=[*middlewares, dcache.gate.middleware()])
    dcache.add_routes(app.router)
    return app


_ACTIVITY = re.compile(rb'"activity"\s*:\s*"(\w+)"')
_OPS = (
    (re.compile(r"POST /tape/stage"), "stage"),
    (re.compile(r"POST /tape/stage/[^/]+/cancel"), "cancel"),
    (re.compile(r"\w+ /tape/stage/[^/]+"), "stage_info"),
    (re.compile(r"\w+ /tape/release/[^/]+"), "release"),
    (re.compile(r"GET /bulk-requests"), "bulk_list"),
    (re.compile(r"GET /bulk-requests/.+"), "bulk_info"),
    (re.compile(r"\w+ /bulk-requests/.+"), "bulk_cancel"),
    (re.compile(r"\w+ /namespace/.*"), "namespace"),
)


async def verb_of(request: web.Request) -> str:
    """What a request asks for, for the fault plan."""
    path = request.path.removeprefix(ROOT)
    if f"{request.method} {path}" == "POST /bulk-requests":
        found = _ACTIVITY.search(await request.read())
        return f"bulk_{found[1].decode().lower()}" if found else "bulk_unknown"
    said = f"{request.method} {path}"
    return next((op for pattern, op in _OPS if pattern.fullmatch(said)), path.rpartition("/")[2])
