"""`/bulk-requests` of dCache's frontend: what the bulk service looks like over HTTP.

Keys come in three spellings, and one that is not known is refused. A new request is answered by an empty body; where it
is stands in the header `request-url`. Source: BulkResources.java, bulk.properties.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from aglowd.sim.dcachebulk import ENDED, FAILURE, NOT_FOUND, RELEASES, STAGES, Bulk, BulkService, canonical
from aglowd.sim.dcachegate import DcacheSettings, Refused, answer, number, read_object, texts
from aglowd.sim.world import DAY_S, HOUR_S, MINUTE_S, World

ROOT = "/api/v1/bulk-requests"
KEYS = frozenset({
    "activity", "target", "target_prefix", "expand_directories", "clear_on_success", "clear_on_failure",
    "cancel_on_failure", "pre_store", "prestore", "arguments",
})  # fmt: skip
OTHER_ACTIVITIES = frozenset({"DELETE", "UPDATE_QOS", "LOG_TARGET"})
UNIT_S = {"MILLISECONDS": 0.001, "SECONDS": 1.0, "MINUTES": MINUTE_S, "HOURS": HOUR_S, "DAYS": DAY_S}
MAX_TARGETS_EXPANDED = {"TARGETS": 10, "ALL": 1}


class BulkRest:
    """The resource."""

    def __init__(self, world: World, service: BulkService, settings: DcacheSettings) -> None:
        self._world = world
        self._service = service
        self._settings = settings

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post(ROOT, self.submit)
        router.add_get(ROOT, self.list_requests)
        router.add_get(f"{ROOT}/archived", self.list_archived)
        router.add_get(f"{ROOT}/archived/{{id}}", self.get_archived)
        router.add_get(f"{ROOT}/{{id}}", self.get)
        router.add_patch(f"{ROOT}/{{id}}", self.change)
        router.add_delete(f"{ROOT}/{{id}}", self.delete)

    async def submit(self, request: web.Request) -> web.Response:
        """POST: a new request."""
        given = _in_snake_case(await read_object(request))
        activity = str(given.get("activity", "")).upper()
        if activity in OTHER_ACTIVITIES or activity not in STAGES | RELEASES:
            raise Refused(400, f"activity {activity} is not supported")
        prefix = str(given.get("target_prefix") or "/")
        targets = [canonical(prefix, path) for path in _targets(given.get("target"))]
        self._check_size(str(given.get("expand_directories") or "NONE").upper(), len(targets))
        arguments = given.get("arguments") or {}
        if not isinstance(arguments, dict):
            raise Refused(400, "arguments are no object")
        arguments = {key: str(value) for key, value in arguments.items()}
        made = self._service.submit(activity, targets, _lifetimes(activity, targets, arguments), prefix)
        if activity in RELEASES:
            name = arguments.get("id")
            if activity == "RELEASE" and name is None:
                raise Refused(400, "RELEASE needs the id of a stage request")
            self._service.release(made, name, cancel_on_failure=_is_true(given.get("cancel_on_failure")))
            if _is_true(given.get("clear_on_failure" if made.failed else "clear_on_success")):
                self._service.clear(made)
        self._world.note("dcache", f"bulk_{activity.lower()}", paths=len(targets), result=made.name)
        return web.Response(status=201, headers={"request-url": str(request.url.with_path(f"{ROOT}/{made.name}"))})

    async def list_requests(self, request: web.Request) -> web.Response:
        """GET: everybody's, unless owners are named; a page of them, from the offset on."""
        rows = self._matching(request, self._service.list_requests())
        self._world.note("dcache", "bulk_list", result=len(rows))
        return answer(rows)

    async def list_archived(self, request: web.Request) -> web.Response:
        """GET: what was swept away."""
        return answer(self._matching(request, self._service.list_requests(archived=True)))

    async def get(self, request: web.Request) -> web.Response:
        """GET: one request, a page of its targets."""
        return self._told(request, self._service.get(request.match_info["id"]))

    async def get_archived(self, request: web.Request) -> web.Response:
        """GET: one that was swept away."""
        return self._told(request, self._service.get(request.match_info["id"], archived=True))

    async def change(self, request: web.Request) -> web.Response:
        """PATCH: cancel it, or some of its paths."""
        given = await read_object(request)
        if str(given.get("action", "")).lower() != "cancel":
            raise Refused(400, f"{given.get('action')} not supported.")
        one = self._service.get(request.match_info["id"])
        paths = None
        if "paths" in given:
            paths = [canonical(one.prefix, path) for path in texts(given["paths"], "paths")]
            if not set(paths) <= set(one.targets):
                raise Refused(400, "a path is not in the request")
        self._service.cancel(one, paths)
        self._world.note("dcache", "bulk_cancel", request=one.name, paths=paths and len(paths))
        return web.Response()

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE: forget it; one that still runs only if it may be cancelled."""
        one = self._service.get(request.match_info["id"])
        is_running = self._service.status(one, self._world.now()) not in ENDED
        if is_running and request.query.get("cancelIfRunning") != "true":
            raise Refused(400, "request cannot be cleared until it is completed or cancelled")
        self._service.clear(one)
        return web.Response(status=204)

    def _matching(self, request: web.Request, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        owners = set(filter(None, request.query.get("owner", "").split(",")))
        words = set(filter(None, request.query.get("status", "").split(",")))
        offset = number(request, "offset", 0)
        return [
            row
            for row in rows
            if row["id"] >= offset and (not owners or row["owner"] in owners) and (not words or row["status"] in words)
        ][: self._settings.page]

    def _told(self, request: web.Request, one: Bulk) -> web.Response:
        now, offset, page = self._world.now(), number(request, "offset", 0), self._settings.page
        states = list(self._service.states(one, now).items())
        rows = [
            {"id": at, "target": path, "state": state, "submittedAt": _ms(one.made)} | _error(one, path, state)
            for at, (path, state) in enumerate(states[offset : offset + page], start=offset)
        ]
        self._world.note("dcache", "bulk_info", request=one.name)
        return answer({
            "nextId": offset + page if offset + page < len(states) else -1,
            "uid": one.name,
            "arrivedAt": _ms(one.made),
            "startedAt": _ms(one.made),
            "lastModified": _ms(now),
            "status": self._service.status(one, now),
            "targetPrefix": one.prefix,
            "targets": rows,
        })  # fmt: skip

    def _check_size(self, expand: str, count: int) -> None:
        if expand not in ("NONE", *MAX_TARGETS_EXPANDED):
            raise Refused(400, f"No enum constant Depth.{expand}")
        if expand == "ALL":
            raise Refused(403, "recursive expansion is not allowed")
        if count > (most := MAX_TARGETS_EXPANDED.get(expand, self._settings.max_targets)):
            raise Refused(413, f"The number of targets {count} exceeds the maximum {most} for {expand}.")


def _error(one: Bulk, path: str, state: str) -> dict[str, str]:
    """What a failed target says more."""
    if state != "FAILED":
        return {}
    what = (
        "No such file or directory" if one.failed.get(path) == NOT_FOUND else f"Failed to {one.activity.lower()} file"
    )
    return {"errorType": one.failed.get(path, FAILURE), "errorMessage": what}


def _in_snake_case(given: dict[str, Any]) -> dict[str, Any]:
    """The keys in one of their three spellings; Refused for one that is not known, or comes in two."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = re.sub(r"[A-Z]", lambda sign: "_" + sign[0].lower(), key).replace("-", "_")
        if name not in KEYS:
            raise Refused(400, f"unsupported arguments: [{key}]")
        if name in found:
            raise Refused(400, f"value for {key} defined more than once.")
        found[name] = value
    return found


def _targets(given: object) -> list[str]:
    """A list, or one text with commas."""
    if isinstance(given, str):
        return given.strip("[]").replace(" ", "").split(",")
    found = texts(given, "target")
    if not found:
        raise Refused(400, "request contains no targets")
    return found


def _lifetimes(activity: str, targets: list[str], arguments: dict[str, str]) -> dict[str, float]:
    """What the arguments say of how long the files stay; a misspelt key is silently not read."""
    try:
        if activity == "STAGE" and "diskLifetime" in arguments:
            named = msgspec.json.decode(arguments["diskLifetime"], type=dict[str, str])
            return {path: seconds(text) for path, text in named.items()}
        if activity == "PIN" and {"lifetime", "lifetimeUnit"} & arguments.keys():
            return dict.fromkeys(
                targets, float(arguments.get("lifetime", 5)) * UNIT_S[arguments.get("lifetimeUnit", "MINUTES")]
            )
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        raise Refused(400, f"malformed arguments: {error}") from error
    return {}


def seconds(text: str) -> float:
    """A duration in ISO 8601, of days, hours, minutes and seconds; ValueError for anything else."""
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise ValueError(f"Text cannot be parsed to a Duration: {text}")
    return sum(float(n or 0) * s for n, s in zip(found.groups(), (DAY_S, HOUR_S, MINUTE_S, 1.0), strict=True))


_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


def _is_true(value: object) -> bool:
    return value is True or str(value).lower() == "true"


def _ms(t: float) -> int:
    return int(t * 1000)
