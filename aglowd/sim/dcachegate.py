"""What stands before every door of dCache: who may come in, and the throttle that shuts out who errs too often.

A client is an address, as the real limiter sees it: one program with a token that has expired locks out the good ones
beside it. Once blocked it gets 429 for everything, until the block's time is over.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from msgspec import Struct

from aglowd.sim import macaroons
from aglowd.sim.faulthttp import STRIKE
from aglowd.sim.world import DAY_S, World

UID = 33009
OTHERS = "2331:2331"
"""Who owns what the other stagers ask of this dCache."""


class DcacheSettings(Struct, frozen=True, kw_only=True):
    """How one dCache differs from another; the defaults are those of dCache's own property files. Times in world seconds."""

    token: str | None = None
    """The one bearer token that is accepted; None = anybody is, whatever the header."""
    macaroons: bool = False
    """Whether a macaroon that fits the path is taken for a look at one file in the namespace, beside the token."""
    forbidden: tuple[str, ...] = ()
    """What lies below these paths may not be seen: 403."""
    lists_directories: bool = True
    """Whether a directory may be listed; SURF refuses it to a request's macaroon."""
    max_errors: int = 3
    block_s: float = 20.0
    idle_s: float = 10.0
    """After so long without a request, a client's errors are forgotten."""
    max_rate_per_s: int | None = None
    """Requests of one client in a second, of the wall clock; dCache's default is 250. None = as many as it likes."""
    rate_block_s: float = 10.0
    ignores_lifetime: bool = False
    """Pins end when the site's do, whatever `diskLifetime` a request names."""
    max_targets: int = 500
    max_requests: int = 5000
    """Unfinished ones of one user."""
    release_s: float = 0.0
    """So long a bulk request that releases goes on."""
    max_stage_files: int | None = None
    """In one WLCG stage request."""
    page: int = 10_000
    max_info_paths: int = 10_000
    """Of what is asked of archiveinfo, the rest is silently left out."""
    archived_s: float = 14 * DAY_S
    refuses_strangers: bool = False
    """Whether a release that names a path of no stage request is refused, as the document says; it is accepted."""
    quota_bytes: int | None = None
    """None = no quota is kept: 503."""
    pool_bytes: int | None = None
    """None = only admins see a pool group's space: 403."""


class Refused(Exception):
    """What was asked is refused with this status."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


@dataclass
class _Client:
    """One address: its errors, its last requests, and until when it is shut out."""

    errors: int = 0
    last: float = 0.0
    blocked_until: float = 0.0
    recent: deque[float] = field(default_factory=deque)


class Gate:
    """The check of tokens and the throttle."""

    def __init__(self, world: World, settings: DcacheSettings, issuer: macaroons.Macaroons | None = None) -> None:
        self._world = world
        self._settings = settings
        self._issuer = issuer if settings.macaroons else None
        self._clients: dict[str, _Client] = {}

    def is_known(self, request: web.Request) -> bool:
        """Whether the request comes from our user."""
        token = self._settings.token
        return token is None or request.headers.get("Authorization") == f"Bearer {token}"

    def _opens(self, request: web.Request) -> bool:
        """Whether a macaroon opens what is asked for: a file, never a listing; its path is told whole, whatever its root."""
        if self._issuer is None or request.method != "GET" or "children" in request.query:
            return False
        start, _, path = request.path.partition("/namespace")
        if not path or start != "/api/v1":
            return False
        strike = STRIKE.get()
        if strike is not None and strike.fault == "macaroon_ended":
            raise Refused(401, "Macaroon has expired")
        try:
            caveats = self._issuer.caveats(request.headers.get("Authorization", "").removeprefix("Bearer "))
            root = macaroons.root_of(caveats)
            if not f"{path}/".startswith(f"{root}/"):
                raise Refused(403, "Permission denied")
            self._issuer.check(caveats, path.removeprefix(root), "READ_METADATA")
        except macaroons.Refused as refused:
            raise Refused(refused.status, "Permission denied") from refused
        return True

    def check_path(self, path: str) -> None:
        """Refuse what may not be seen."""
        if any(path.startswith(one) for one in self._settings.forbidden):
            raise Refused(403, "Permission denied")

    def middleware(self) -> Middleware:
        """What stands before the service, behind the faults."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            client = self._clients.setdefault(request.remote or "", _Client())
            if self._is_blocked(client):
                self._world.note("dcache", "blocked")
                return refusal(Refused(429, "Too many requests"))
            # Who calls itself nobody is told so by /user; who says nothing there is a guest.
            is_guest = request.path.endswith("/user") and "Authorization" not in request.headers
            try:
                if not self.is_known(request) and not is_guest and not self._opens(request):
                    raise Refused(401, "Unauthorized")
                response = await handler(request)
            except Refused as refused:
                response = refusal(refused)
            if response.status in (401, 403):
                self._count(client)
            return response

        return guarded

    def _is_blocked(self, client: _Client) -> bool:
        now, settings = self._world.now(), self._settings
        if now >= client.last + settings.idle_s:
            client.errors = 0
        client.last = now
        if settings.max_rate_per_s is not None:
            wall = self._world.clock.wall()
            client.recent.append(wall)
            while client.recent[0] <= wall - 1.0:
                client.recent.popleft()
            if len(client.recent) > settings.max_rate_per_s:
                client.blocked_until = max(client.blocked_until, now + settings.rate_block_s)
        return now < client.blocked_until

    def _count(self, client: _Client) -> None:
        client.errors += 1
        self._world.note("dcache", "error_counted", errors=client.errors)
        if client.errors >= self._settings.max_errors:
            client.errors = 0
            client.blocked_until = self._world.now() + self._settings.block_s


def refusal(refused: Refused) -> web.Response:
    """The answer, in dCache's form."""
    body = {"errors": [{"message": str(refused), "status": str(refused.status)}]}
    return answer(body, refused.status, refused.headers)


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """An answer in JSON."""
    return web.Response(body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json")


async def read_object(request: web.Request) -> dict[str, Any]:
    """The body, which must be a JSON object; Refused if it is none."""
    try:
        return msgspec.json.decode(await request.read(), type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise Refused(400, f"malformed body: {error}") from error


def number(request: web.Request, name: str, default: int) -> int:
    """A parameter that is a number; Refused as what is of the wrong type is refused."""
    text = request.query.get(name, str(default))
    if not text.isdigit():
        raise Refused(404, "HTTP 404 Not Found")
    return int(text)


def texts(value: object, name: str) -> list[str]:
    """A list of texts; Refused if it is none."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise Refused(400, f"JSONObject[{name!r}] is not a JSONArray of strings.")
    return value
