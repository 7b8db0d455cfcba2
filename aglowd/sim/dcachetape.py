"""The WLCG Tape REST API of dCache's frontend: stage, cancel, release, and where files are.

A stage request is a bulk request whose skipped files show as failed. A release is fired and forgotten: it is answered
before anything was done, it ends at its first bad path, and nothing is left that would tell. Sources: StageResources.java,
ReleaseResources.java, ArchiveInfoResources.java.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from aglowd.sim.dcachebulk import ENDED, BulkService, canonical
from aglowd.sim.dcachebulkrest import seconds
from aglowd.sim.dcachegate import DcacheSettings, Gate, Refused, answer, read_object, texts
from aglowd.sim.dcachenamespace import struck_away
from aglowd.sim.tape import Tape, surl_path
from aglowd.sim.world import World

ROOT = "/api/v1/tape"
STATES = {"CREATED": "SUBMITTED", "READY": "SUBMITTED", "RUNNING": "STARTED", "SKIPPED": "FAILED"}
LOCALITIES = {"ONLINE_AND_NEARLINE": "DISK_AND_TAPE", "NEARLINE": "TAPE"}
FILE_KEYS = frozenset({"path", "diskLifetime", "targetedMetadata"})


class TapeRest:
    """The resource."""

    def __init__(self, world: World, tape: Tape, service: BulkService, gate: Gate, settings: DcacheSettings) -> None:
        self._world = world
        self._tape = tape
        self._service = service
        self._gate = gate
        self._settings = settings

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_post(f"{ROOT}/archiveinfo", self.archiveinfo)
        router.add_post(f"{ROOT}/stage", self.stage)
        router.add_get(f"{ROOT}/stage/{{id}}", self.get)
        router.add_post(f"{ROOT}/stage/{{id}}/cancel", self.cancel)
        router.add_delete(f"{ROOT}/stage/{{id}}", self.delete)
        router.add_post(f"{ROOT}/release/{{id}}", self.release)

    async def stage(self, request: web.Request) -> web.Response:
        """POST: a new request."""
        given = await read_object(request)
        files = given.pop("files", None)
        if given:
            raise Refused(400, f"unrecognized payload element(s): {sorted(given)}")
        if not isinstance(files, list) or not files:
            raise Refused(400, "request contains no files.")
        lifetimes: dict[str, float] = {}
        paths = [self._file(file, lifetimes) for file in files]
        most = self._settings.max_stage_files
        if most is not None and len(paths) > most:
            raise Refused(413, f"The number of targets {len(paths)} exceeds the maximum {most}.")
        made = self._service.submit("STAGE", paths, lifetimes)
        self._world.note("dcache", "stage", paths=len(paths), result=made.name)
        location = str(request.url.with_path(f"{ROOT}/stage/{made.name}"))
        return answer({"requestId": made.name}, 201, {"location": location})

    async def get(self, request: web.Request) -> web.Response:
        """GET: one request with all its files."""
        one, now = self._service.get(request.match_info["id"], activity="STAGE"), self._world.now()
        files: list[dict[str, Any]] = []
        for path, state in self._service.states(one, now).items():
            files.append({"path": path, "state": STATES.get(state, state)})
            if files[-1]["state"] == "FAILED":
                files[-1]["error"] = "CacheException: Failed to pin file"
        told = {"id": one.name, "createdAt": int(one.made * 1000), "startedAt": int(one.made * 1000), "files": files}
        if self._service.status(one, now) in ENDED:
            told["completedAt"] = int(now * 1000)
        self._world.note("dcache", "stage_info", request=one.name)
        return answer(told)

    async def cancel(self, request: web.Request) -> web.Response:
        """POST: cancel some of its files; refused if one is not of the request."""
        paths = [canonical("/", path) for path in texts((await read_object(request)).get("paths"), "paths")]
        one = self._service.get(request.match_info["id"], activity="STAGE")
        strangers = set(paths) - set(one.targets)
        if strangers:
            headers = {"title": "File missing from stage request", "detail": f"{min(strangers)} is not in the request"}
            return web.Response(status=400, headers=headers)
        self._service.cancel(one, paths)
        self._world.note("dcache", "cancel", request=one.name, paths=len(paths))
        return web.Response()

    async def delete(self, request: web.Request) -> web.Response:
        """DELETE: cancel it and forget it."""
        self._service.clear(self._service.get(request.match_info["id"], activity="STAGE"))
        return web.Response()

    async def release(self, request: web.Request) -> web.Response:
        """POST: accepted, whatever becomes of it."""
        name = request.match_info["id"]
        paths = [canonical("/", path) for path in texts((await read_object(request)).get("paths"), "paths")]
        if self._settings.refuses_strangers and not set(paths) <= set(self._service.get(name).targets):
            raise Refused(400, "a path does not belong to the stage request")
        made = self._service.submit("RELEASE", paths)
        self._service.release(made, name, cancel_on_failure=True)
        self._service.clear(made)
        self._world.note("dcache", "release", request=name, paths=len(paths))
        return web.Response()

    async def archiveinfo(self, request: web.Request) -> web.Response:
        """POST: where files are, in no order, and of so many only."""
        given = await read_object(request)
        if "paths" not in given:
            raise Refused(400, "request had no paths.")
        paths = texts(given["paths"], "paths")
        struck_away(self._world, self._tape, paths)
        rows = [self._info(path) for path in paths[: self._settings.max_info_paths]]
        rows.sort(key=lambda row: self._world.draw("order", row["path"]))
        self._world.note(
            "dcache", "archiveinfo", paths=len(paths),
            directories=sorted({path.rpartition("/")[0] for path in map(surl_path, paths)}),
            online=sum(row.get("locality") == "DISK_AND_TAPE" for row in rows),
            authorization=request.headers.get("Authorization", "").partition(" ")[0] or "none",
        )  # fmt: skip
        return answer(rows)

    def _info(self, path: str) -> dict[str, str]:
        file = self._tape.find_file(path)
        try:
            self._gate.check_path(surl_path(path))
        except Refused as refused:
            return {"path": path, "error": f"CacheException(rc=10018;msg={refused})"}
        if file is None:
            return {"path": path, "locality": "NONE", "error": f"CacheException(rc=10001;msg=No such file: {path})"}
        word = file.locality(self._world.now())
        return {"path": path, "locality": LOCALITIES.get(word, word)}

    def _file(self, given: object, lifetimes: dict[str, float]) -> str:
        """The path of a file in a stage request; its lifetime goes to the others'."""
        if not isinstance(given, dict) or not isinstance(given.get("path"), str):
            raise Refused(400, "file object has no path.")
        if not given.keys() <= FILE_KEYS:
            raise Refused(400, f"unrecognized payload element(s): {sorted(given.keys() - FILE_KEYS)}")
        path = canonical("/", given["path"])
        if "diskLifetime" in given:
            try:
                lifetimes[path] = seconds(str(given["diskLifetime"]))
            except ValueError as error:
                raise Refused(400, str(error)) from error
        return path
