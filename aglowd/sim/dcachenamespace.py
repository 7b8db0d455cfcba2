"""`/namespace` of dCache's frontend, one file or directory a call; and the door through which a file is read.

A file on tape cannot be read: the door says 403 "Permission denied", whatever the token, as SURF's does. Sources:
FileResources.java, JsonFileAttributes.java, lotaas_pipeline docs/operations.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from aglowd.sim.dcachebulk import BulkService
from aglowd.sim.dcachebulkrest import UNIT_S
from aglowd.sim.dcachegate import DcacheSettings, Gate, Refused, answer, number, read_object
from aglowd.sim.faulthttp import STRIKE
from aglowd.sim.tape import Tape, TapeFile, surl_path
from aglowd.sim.world import DAY_S, World, digest

ROOT = "/api/v1/namespace"


class NamespaceRest:
    """The resource."""

    def __init__(self, world: World, tape: Tape, service: BulkService, gate: Gate, settings: DcacheSettings) -> None:
        self._world = world
        self._tape = tape
        self._service = service
        self._gate = gate
        self._settings = settings

    def add_routes(self, router: web.UrlDispatcher) -> None:
        router.add_get(ROOT + "/{path:.*}", self.get)
        router.add_post(ROOT + "/{path:.*}", self.change)
        router.add_get("/pnfs/{path:.*}", self.read)

    async def get(self, request: web.Request) -> web.Response:
        """GET: what is known of a file; with `children`, what lies in a directory."""
        path = surl_path("/" + request.match_info["path"]).rstrip("/")
        self._gate.check_path(path)
        struck_away(self._world, self._tape, [path])
        file = self._tape.find_file(path)
        if file is not None:
            told = self._told(path, file, request)
            self._world.note("dcache", "namespace", path=path, directories=[path.rpartition("/")[0]])
            return answer(told)
        children = self._list(path)
        if not children:
            raise Refused(404, f"No such file or directory: {path}")
        told = {"fileMimeType": "application/vnd.dcache.folder", "fileType": "DIR", "pnfsId": _pnfsid(path)}
        if request.query.get("children") == "true":
            if not self._settings.lists_directories:
                raise Refused(403, "Permission denied")
            offset = number(request, "offset", 0)
            rows = [{"fileName": name, **self._child(path, name, request)} for name in children]
            told["children"] = rows[offset : offset + number(request, "limit", len(rows))]
        self._world.note("dcache", "directory", path=path, children=len(told.get("children", ())))
        return answer(told)

    async def change(self, request: web.Request) -> web.Response:
        """POST: pin or unpin a file, which is fired and forgotten."""
        path = surl_path("/" + request.match_info["path"])
        given = await read_object(request)
        self._gate.check_path(path)
        if self._tape.find_file(path) is None:
            raise Refused(404, f"No such file or directory: {path}")
        action = given.get("action")
        if action == "pin":
            unit = str(given.get("lifetime-unit", "SECONDS"))
            if unit not in UNIT_S or not isinstance(given.get("lifetime", 0), int):
                raise Refused(400, "malformed lifetime")
            made = self._service.submit("PIN", [path], {path: given.get("lifetime", 0) * UNIT_S[unit]})
        elif action == "unpin":
            made = self._service.submit("UNPIN", [path])
            self._service.release(made, None, cancel_on_failure=False)
        else:
            raise Refused(400, f"{action} is not supported")
        self._world.note("dcache", f"namespace_{action}", path=path, result=made.name)
        return answer({"status": "success"})

    async def read(self, request: web.Request) -> web.Response:
        """GET at the WebDAV door: a file that is on disk."""
        path = surl_path(request.path)
        self._gate.check_path(path)
        file = self._tape.find_file(path)
        if file is None:
            raise Refused(404, f"No such file: {path}")
        if not file.is_online(self._world.now()):
            raise Refused(403, "Permission denied")
        self._world.note("dcache", "read", path=path)
        return web.Response(body=path.encode(), content_type="application/x-tar")

    def _list(self, path: str) -> dict[str, TapeFile | None]:
        """Name → file or directory, of what lies in that directory."""
        found: dict[str, TapeFile | None] = {}
        head = path + "/"
        for other, file in self._tape.list_files():
            if other.startswith(head):
                name, _, rest = other.removeprefix(head).partition("/")
                found[name] = None if rest else file
        return found

    def _child(self, path: str, name: str, request: web.Request) -> dict[str, Any]:
        file = self._tape.find_file(f"{path}/{name}")
        return {"fileType": "DIR"} if file is None else self._told(f"{path}/{name}", file, request)

    def _told(self, path: str, file: TapeFile, request: web.Request) -> dict[str, Any]:
        created = self._world.clock.origin - 365 * DAY_S if file.created is None else file.created
        told: dict[str, Any] = {
            "fileMimeType": "application/x-tar",
            "fileType": "REGULAR",
            "pnfsId": _pnfsid(path),
            "nlink": 1,
            "mtime": int(created * 1000),
            "creationTime": int(created * 1000),
            "size": self._tape.size_bytes(path),
        }
        if request.query.get("locality") == "true":
            told["fileLocality"] = file.locality(self._world.now())
        if request.query.get("checksum") == "true":
            told["checksums"] = [{"type": "ADLER32", "value": digest("adler32", path, size_bytes=4).hex()}]
        return told


def struck_away(world: World, tape: Tape, paths: Iterable[str]) -> None:
    """A fault may take away the disk of the first file that is online, for a while."""
    strike, now = STRIKE.get(), world.now()
    if strike is None or strike.fault != "unavailable":
        return
    for path in paths:
        file = tape.find_file(path)
        if file is not None and file.is_online(now):
            file.away_until = now + strike.value
            world.note("tape", "unavailable", "world", path=path, until=file.away_until)
            return


def _pnfsid(path: str) -> str:
    return digest("pnfsid", path, size_bytes=18).hex().upper()
