"""StageIT, the LTA's stager of today: requests behind REST, everything that is read behind GraphQL.

Its habits: `Authorization: Token`, a missing slash at the end that loses what was posted, errors with HTTP 200, a JSON
document inside a text, requests that stay in the history, and no word for "on hold". What it says to be online is what
once came online: nobody looks where the file is now. Codes other than S, C and A are guesses: no source shows them.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from aglowd.sim.faulthttp import own_fault
from aglowd.sim.graphql import Field, GraphQLError, parse, select
from aglowd.sim.macaroons import Macaroons
from aglowd.sim.stager import Request, Stager, Unknown
from aglowd.sim.tape import surl_path
from aglowd.sim.world import DAY_S, World

ROOT = "/stageit/api/staging"
BODY_MAX_BYTES = 16 << 20
MAX_FIRST = 100
"""graphene-django refuses larger pages."""
MACAROON_S = 7 * DAY_S
"""So long a macaroon is good; from the middle of its life on, a new one is told in its place (a guess: no source says it)."""
CODES = {
    "new": "N", "scheduled": "S", "in progress": "I", "success": "C", "partial success": "P", "failed": "F", "aborted": "A",
}  # fmt: skip
SITES = {
    "fz-juelich.de": (
        "Juelich",
        "https://dcache-lofar.fz-juelich.de:2880",
        "gsiftp://lofar-gridftp.fz-juelich.de:2811",
    ),
    "psnc.pl": ("Poznan", "https://webdav.lofar.psnc.pl:2880", "gsiftp://gridftp.lofar.psnc.pl:2811"),
    "": ("SURF", "https://webdav.grid.surfsara.nl:2882", "gsiftp://gridftp.grid.sara.nl:2811"),
}
"""Part of a SURL's host → the site's name at StageIT, its WebDAV door and its GridFTP door; what is elsewhere is SURF's."""
SURF_PROJECTS = "/pnfs/grid.sara.nl/data/lofar/ops/projects"
"""The root of SURF's macaroons, which its WebDAV paths leave out."""


def stageit_app(
    world: World, stager: Stager, token: str, issuer: Macaroons, middlewares: Iterable[Middleware] = ()
) -> web.Application:
    """The service; the middlewares stand before it. The sites' doors take what `issuer` signs."""
    service = _Service(world, stager, issuer)

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Token" or given != token:
            world.note("stageit", "unauthorized")
            said = "Invalid token." if scheme == "Token" else "Authentication credentials were not provided."
            return _answer({"detail": said}, 401, {"WWW-Authenticate": "Token"})
        try:
            return await handler(request)
        except Unknown:
            return _answer({"detail": "Not found."}, 404)

    # Django's APPEND_SLASH: whoever follows this redirect asks with GET and without a body.
    slash = web.normalize_path_middleware(merge_slashes=False, redirect_class=web.HTTPMovedPermanently)
    app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=[*middlewares, slash, guarded])
    app.router.add_post(f"{ROOT}/requests/", service.stage)
    app.router.add_put(f"{ROOT}/requests/{{id:\\d+}}/abort/", service.abort)
    app.router.add_patch(f"{ROOT}/requests/{{id:\\d+}}/", service.reschedule)
    app.router.add_get(f"{ROOT}/requests/{{id:\\d+}}/convert2webdav/", service.links("convert2webdav", webdav_url))
    app.router.add_get(f"{ROOT}/requests/{{id:\\d+}}/convert2gridftp/", service.links("convert2gridftp", gridftp_url))
    app.router.add_post(f"{ROOT}/graphql/", service.graphql)
    return app


_VERBS = {"POST": "stage", "PUT": "abort", "PATCH": "reschedule"}
_ROOT_FIELD = re.compile(rb"\b(requests?)\s*[({]")


async def verb_of(request: web.Request) -> str:
    """What a request asks for, for the fault plan; of a query, its root field."""
    last = request.path.rstrip("/").rpartition("/")[2]
    if last != "graphql":
        return _VERBS.get(request.method, last)
    found = _ROOT_FIELD.search(await request.read())
    return found[1].decode() if found else "unknown"


class _Service:
    """The requests, as the service shows them."""

    def __init__(self, world: World, stager: Stager, issuer: Macaroons) -> None:
        self._world = world
        self._stager = stager
        self._issuer = issuer

    # --- REST

    async def stage(self, request: web.Request) -> web.Response:
        body = await _json_of(request)
        surls = body.get("surls") if isinstance(body, dict) else None
        if not isinstance(surls, list) or not all(isinstance(surl, str) and surl for surl in surls) or not surls:
            return _answer({"surls": ["This field is required."]}, 400)
        if body.get("request_type") != "stage":
            return _answer({"request_type": [f'"{body.get("request_type")}" is not a valid choice.']}, 400)
        number = self._stager.make(surls, bool(body.get("notify")))
        self._world.note("stageit", "stage", surls=len(surls), result=number)
        return _answer({"id": _id(number), "current_status_code": "N", "surls": surls}, 201)

    async def abort(self, request: web.Request) -> web.Response:
        number = self._number(request)
        self._stager.abort(number)
        self._world.note("stageit", "abort", request=number)
        return web.Response(status=202)

    async def reschedule(self, request: web.Request) -> web.Response:
        number = self._number(request)
        body = await _json_of(request)
        if not isinstance(body, dict) or body.get("current_status_code") != "S":
            return _answer({"current_status_code": ["Not a valid choice."]}, 400)
        self._stager.reschedule(number)
        self._world.note("stageit", "reschedule", request=number)
        return _answer({"id": _id(number), "current_status_code": "S"})

    def links(self, op: str, url_of: Callable[[str], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def convert(request: web.Request) -> web.Response:
            urls = [url_of(surl) for surl in self._stager.get(self._number(request)).surls]
            self._world.note("stageit", op, result=len(urls))
            return _answer(urls)

        return convert

    def _number(self, request: web.Request) -> int:
        """The request that the path names; Unknown also when a fault lost it."""
        number = int(request.match_info["id"])
        found, now = self._stager.get(number), self._world.now()
        if found.is_forgotten and now >= found.plan.vanished:
            raise Unknown(number)
        return number

    # --- GraphQL

    async def graphql(self, request: web.Request) -> web.Response:
        body = await _json_of(request)
        query = body.get("query") if isinstance(body, dict) else None
        try:
            if not isinstance(query, str):
                raise GraphQLError("Must provide query string.")
            if own_fault() == "graphql_error":
                raise GraphQLError("'NoneType' object has no attribute 'status'")
            fields = parse(query)
            data = {one.alias: self._root(one) for one in fields}
        except GraphQLError as error:
            self._world.note("stageit", "graphql", result=f"error: {error}")
            return _answer({"errors": [{"message": str(error)}], "data": None})
        self._world.note("stageit", fields[0].name, fields=len(fields))
        return _answer({"data": data})

    def _root(self, field: Field) -> Any:
        if field.name == "request":
            return self._one(field)
        if field.name == "requests":
            return self._page(field)
        raise GraphQLError(f"Cannot query field '{field.name}' on type 'Query'.")

    def _one(self, field: Field) -> Any:
        given = str(field.arguments.get("id", ""))
        if not given.isdecimal():
            raise GraphQLError("Argument 'id' has an invalid value.")
        now = self._world.now()
        found = next((one for one in self._stager.shown(keeps=True) if one.id == int(given)), None)
        if found is None:
            if own_fault() == "absent_error":
                raise GraphQLError("StagingRequest matching query does not exist.")
            return None
        return select(_node(found, now, self._issuer), field)

    def _page(self, field: Field) -> Any:
        given, now = dict(field.arguments), self._world.now()
        first = given.pop("first", MAX_FIRST)
        if not isinstance(first, int) or not 0 < first <= MAX_FIRST:
            raise GraphQLError(f"Requesting {first} records exceeds the `first` limit of {MAX_FIRST} records.")
        start = _after(given.pop("after", None))
        since = _seconds(given.pop("when_Gte", None))
        only, without = given.pop("currentStatusCode", None), given.pop("currentStatusCode_Ne", None)
        if given:
            raise GraphQLError(f"Unknown argument '{next(iter(given))}' on field 'requests'.")
        found = [  # Dates have microseconds: who asks from a request's own date on gets it.
            one
            for one in self._stager.shown(keeps=True)
            if round(one.made, 6) >= since and (only is None or _code(one, now) == only) and _code(one, now) != without
        ]
        page = found[start : start + first]
        edges = [{"node": _node(one, now, self._issuer), "cursor": _cursor(start + at)} for at, one in enumerate(page)]
        info = {
            "hasNextPage": start + first < len(found),
            "hasPreviousPage": start > 0,
            "startCursor": edges[0]["cursor"] if edges else None,
            "endCursor": edges[-1]["cursor"] if edges else None,
        }
        return select({"pageInfo": info, "edges": edges}, field)


def _node(request: Request, t: float, issuer: Macaroons) -> dict[str, Callable[[], Any]]:
    """Every field that a request has; what is not asked for is not computed."""
    return {
        "id": lambda: _id(request.id),
        "currentStatus": lambda: None if own_fault() == "no_text" else _word(request, t).title(),
        "currentStatusCode": lambda: _code(request, t),
        "requestToken": lambda: f"-{request.id * 7919 % 2_000_000_000}",
        "requestType": lambda: "stage",
        "when": lambda: _iso(request.made),
        "response": lambda: _response(request, t),
        "surls": lambda: [{"surl": surl} for surl in request.surls],
        "macaroons": lambda: _macaroons(request, t, issuer),
    }


def _word(request: Request, t: float) -> str:
    """Its status; a request that is held back is only scheduled."""
    word = request.status(t, keeps=True)
    return "scheduled" if word == "on hold" else word


def _code(request: Request, t: float) -> str:
    return CODES[_word(request, t)]


def _response(request: Request, t: float) -> str | None:
    """A JSON document in a text; nothing while it is new, and an empty text until the first file is recalled."""
    fault = own_fault()
    if fault == "response_null" or _word(request, t) == "new":
        return None
    if fault == "response_empty" or _word(request, t) == "scheduled":
        return ""
    online = request.told_online(t)
    failed = request.plan.failed if t >= request.plan.finished and request.aborted is None else ()
    errors = {surl: "File is unavailable" for surl in failed if surl not in request.lied}
    told = {*online, *errors}
    document = {"online": online, "progressing": [surl for surl in request.surls if surl not in told], "errors": errors}
    text = json.dumps(document)
    return text[: len(text) // 2] if fault == "response_broken" else text


def _macaroons(request: Request, t: float, issuer: Macaroons) -> list[dict[str, Any]]:
    """One for each site and project that it has files of, good for the directory that these have in common.

    None before its files come, and none of what was given back.
    """
    if t < request.plan.started or request.released is not None:
        return []
    found: dict[tuple[str, str], set[str]] = {}
    for surl in request.surls:
        path = surl_path(surl)
        found.setdefault((_site(surl)[0], "/".join(path.split("/")[:-2])), set()).add(path.rpartition("/")[0])
    lives = int((t - request.plan.started) // (MACAROON_S / 2))
    until = _iso(request.plan.started + (lives + 2) * MACAROON_S / 2)
    told = []
    for (site, project), paths in sorted(found.items()):
        scope = paths.pop() if len(paths) == 1 else project
        root = [f"root:{SURF_PROJECTS}"] if site == "SURF" else []
        caveats = ["id:1000;1000;lofar", *root, f"path:{scope.removeprefix(SURF_PROJECTS) if root else scope}"]
        caveats += ["activity:DOWNLOAD,LIST", f"before:{until}"]
        content = issuer.issue(f"{request.id}-{site}-{project}-{lives}", caveats)
        told.append({"content": content, "validUntil": until, "ltaSite": {"name": site}})
    return told


def _site(surl: str) -> tuple[str, str, str]:
    host = surl.partition("://")[2].partition("/")[0]
    return next(found for part, found in SITES.items() if part in host)


def webdav_url(surl: str) -> str:
    """Where WebDAV has the file."""
    return _site(surl)[1] + surl_path(surl).removeprefix(SURF_PROJECTS)


def gridftp_url(surl: str) -> str:
    """Where GridFTP has the file."""
    return _site(surl)[2] + surl_path(surl)


def _after(cursor: Any) -> int:
    """The place behind the cursor; one that is none of ours means the beginning."""
    try:
        return int(base64.b64decode(str(cursor)).decode().removeprefix("arrayconnection:")) + 1 if cursor else 0
    except ValueError:
        return 0


def _cursor(at: int) -> str:
    return base64.b64encode(f"arrayconnection:{at}".encode()).decode()


def _seconds(text: Any) -> float:
    if text is None:
        return 0.0
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        raise GraphQLError(f"DateTime cannot represent value: {text!r}") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _iso(t: float) -> str:
    return datetime.fromtimestamp(t, UTC).isoformat()


def _id(number: int) -> int | str:
    return str(number) if own_fault() == "text_id" else number


async def _json_of(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError:
        return None


def _answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(body, status=status, headers=headers)
