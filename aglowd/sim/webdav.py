"""dCache's WebDAV door to the grid's storage: the same files that the `gfal-*` executables and the pilots use.

`http://HOST:PORT/path` is what lies below HOST in the storage tree, so one tree may have many doors. A path that the
tape library holds is there without any bytes of its own in the tree; while it is on tape only, reading is forbidden
(403) whatever the token, as dCache has it. Writes are lines of the ledger such as the executables leave, so the rules
judge both alike.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from aglowd.sim.faulthttp import STRIKE, reset
from aglowd.sim.macaroons import Macaroons, Refused, root_of
from aglowd.sim.storage import Storage, adler32
from aglowd.sim.tape import Tape
from aglowd.sim.world import World

METHODS = "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, PROPFIND, COPY, MOVE, POST"
ACTIVITIES = {
    "PROPFIND": "READ_METADATA", "HEAD": "READ_METADATA", "GET": "DOWNLOAD", "PUT": "UPLOAD", "MKCOL": "UPLOAD",
    "DELETE": "DELETE", "MOVE": "MANAGE", "COPY": "UPLOAD",
}  # fmt: skip
"""Which activity of a macaroon a method needs."""
MOST_ERRORS = 3
BLOCK_REAL_S = 20.0
"""`error.block.window.time`: so long a client that was refused too often gets nothing but 429."""
PIECE_BYTES = 1 << 16

Later = Callable[[float, Callable[[], Awaitable[None]]], None]


class WebDav:
    """The door. The switches are attributes, so that a test may turn one while the world runs.

    `pool`: the address of a pool to which GET and PUT are sent on. `blocks`: three refusals shut a client out.
    `checksums`, `digests`: whether PROPFIND and HEAD know them. `mindful`: whether `Overwrite: F` and `If-None-Match`
    are heeded. `copies`: whether COPY is offered.
    """

    def __init__(self, world: World, storage: Storage, tape: Tape, token: str, later: Later | None = None) -> None:
        self._world = world
        self._storage = storage
        self._tape = tape
        self._token = token
        self._later = later
        self._macaroons = Macaroons(token, world.now)
        self._transfers: dict[str, tuple[str, str]] = {}
        self._errors: list[float] = []
        self.pool: str | None = None
        self.blocks = False
        self.checksums = self.digests = self.mindful = self.copies = True

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Any request to the door."""
        if self.blocks and self._is_blocked():
            return web.Response(status=429, text="Too many errors")
        refused = self._refusal(request)
        if refused is not None:
            self._errors.append(time.monotonic())
            return refused
        method = request.method
        if method == "POST":
            return await self._mint(request)
        url = f"{request.scheme}://{request.host}{self._root(request)}{request.rel_url.raw_path}"
        if self.pool is not None and (method == "GET" or (method == "PUT" and "Expect" in request.headers)):
            return self._send_on(request, self.pool, url)
        return await self._serve(request, url)

    async def answer_pool(self, request: web.Request) -> web.StreamResponse:
        """A request to the pool: whoever names a transfer that a door began may make it, once."""
        transfer = self._transfers.pop(request.query.get("dcache-http-uuid", ""), None)
        if transfer is None or transfer[0] != request.method:
            return web.Response(status=400, text="No such transfer")
        return await self._serve(request, transfer[1])

    async def _serve(self, request: web.Request, url: str) -> web.StreamResponse:
        work = {
            "PROPFIND": self._propfind, "HEAD": self._get, "GET": self._get, "MKCOL": self._mkcol,
            "DELETE": self._delete, "MOVE": self._move, "COPY": self._copy,
        }.get(request.method)  # fmt: skip
        path = self._path(url)
        try:
            if request.method == "PUT":
                return self._refused_put(request, url, path) or await self._put(request, url, path)
            return web.Response(status=405, headers={"Allow": METHODS}) if work is None else work(request, url, path)
        except OSError as error:
            return web.Response(status=500, text=os.strerror(error.errno or errno.EIO))

    # --- who may

    def _is_blocked(self) -> bool:
        now = time.monotonic()
        self._errors = [at for at in self._errors if at > now - BLOCK_REAL_S]
        return len(self._errors) >= MOST_ERRORS

    def _refusal(self, request: web.Request) -> web.Response | None:
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme == "Bearer" and secret == self._token:
            return None
        try:
            if scheme != "Bearer":
                raise Refused(401)
            caveats = self._macaroons.caveats(secret)
            wanted = ACTIVITIES.get(request.method, "")
            for path in filter(None, (request.path, _target_path(request))):
                self._macaroons.check(caveats, path, wanted)
        except Refused as refused:
            self._world.note("webdav", "refused", method=request.method, path=request.path, status=refused.status)
            headers = {"WWW-Authenticate": 'Bearer realm="dCache"'} if refused.status == 401 else {}
            return web.Response(status=refused.status, headers=headers, text="Permission denied")
        return None

    def _root(self, request: web.Request) -> str:
        """Where the paths of who asks begin: a macaroon may say so."""
        secret = request.headers["Authorization"].partition(" ")[2]
        return "" if secret == self._token else root_of(self._macaroons.caveats(secret))

    async def _mint(self, request: web.Request) -> web.Response:
        """A macaroon for the path; its caveats are the asked ones, behind those of the one that asks."""
        if request.content_type != "application/macaroon-request":
            return web.Response(status=405, headers={"Allow": METHODS})
        secret = request.headers["Authorization"].partition(" ")[2]
        held = [] if secret == self._token else self._macaroons.caveats(secret)
        try:
            macaroon = self._macaroons.mint(held, await request.read(), request.path)
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        base = f"{request.scheme}://{request.host}/"
        target = f"{base.rstrip('/')}{request.rel_url.raw_path}"
        self._world.note("webdav", "macaroon", path=request.path)
        body = {
            "macaroon": macaroon,
            "uri": {"target": target, "targetWithMacaroon": f"{target}?authz={macaroon}", "base": base,
                    "baseWithMacaroon": f"{base}?authz={macaroon}"},
        }  # fmt: skip
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    def _send_on(self, request: web.Request, pool: str, url: str) -> web.Response:
        name = str(uuid.UUID(bytes=os.urandom(16)))
        self._transfers[name] = (request.method, url)
        self._world.note("webdav", "sent_on", method=request.method, path=request.path)
        status = 302 if request.method == "GET" else 307
        return web.Response(
            status=status, headers={"Location": f"{pool}{request.rel_url.raw_path}?dcache-http-uuid={name}"}
        )

    # --- what is there

    def _path(self, url: str) -> Path:
        path = self._storage.find_path(url)
        assert path is not None, url
        return path

    def _tape_bytes(self, url: str) -> bytes | None:
        """What a file of the tape library holds; None for every other."""
        path = "/" + url.partition("://")[2].partition("/")[2]
        return None if self._tape.find_file(path) is None else f"{path}\n".encode()

    def _propfind(self, request: web.Request, url: str, path: Path) -> web.Response:
        depth = request.headers.get("Depth", "infinity")
        if depth not in ("0", "1"):
            return web.Response(status=403, text="propfind-finite-depth")
        tape = self._tape_bytes(url)
        if tape is None and not path.exists():
            self._note("stat", [url], 404)
            return web.Response(status=404)
        responses = [self._described(request.rel_url.raw_path, url, path)]
        if depth == "1" and path.is_dir():
            base = request.rel_url.raw_path.rstrip("/")
            for name in sorted(os.listdir(path)):
                at = f"{base}/{quote(name)}"
                responses.append(self._described(at, f"{url.rstrip('/')}/{quote(name)}", path / name))
        self._note("ls" if depth == "1" else "stat", [url], 207, entries=len(responses) - (depth == "1"))
        body = (
            '<?xml version="1.0" encoding="utf-8" ?>\n<d:multistatus xmlns:d="DAV:" '
            'xmlns:ns1="http://www.dcache.org/2013/webdav" xmlns:ns2="http://srm.lbl.gov/StorageResourceManager">'
            + "".join(responses)
            + "</d:multistatus>"
        )
        return web.Response(status=207, body=body.encode(), content_type="application/xml", charset="utf-8")

    def _described(self, href: str, url: str, path: Path) -> str:
        """The `response` element of one name: what it has under 200, what it lacks under 404."""
        tape = self._tape_bytes(url)
        is_dir = tape is None and path.is_dir()
        props = {"d:resourcetype": "<d:collection/>" if is_dir else ""}
        lacks = []
        if is_dir:
            href = f"{href.rstrip('/')}/"
            lacks = ["ns1:Checksums", "ns2:FileLocality", "d:getcontentlength"]
        else:
            data = path.read_bytes() if tape is None else tape
            props |= {"d:getcontentlength": str(len(data)), "d:getetag": f"&quot;{_etag(url)}&quot;"}
            props["ns2:FileLocality"] = self._locality(url)
            md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
            if self.checksums:
                props["ns1:Checksums"] = f"md5={md5},adler32={adler32(data)}"
            else:
                lacks.append("ns1:Checksums")
        props["d:getlastmodified"] = formatdate(self._mtime(path), usegmt=True)
        props |= {"ns2:AccessLatency": "NEARLINE" if tape is not None else "ONLINE",
                  "ns2:RetentionPolicy": "CUSTODIAL" if tape is not None else "REPLICA"}  # fmt: skip
        has = "".join(f"<{name}>{value}</{name}>" for name, value in props.items())
        none = "".join(f"<{name}/>" for name in lacks)
        absent = f"<d:propstat><d:prop>{none}</d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat>"
        return (
            f"<d:response><d:href>{escape(href)}</d:href><d:propstat><d:prop>{has}</d:prop>"
            f"<d:status>HTTP/1.1 200 OK</d:status></d:propstat>{absent if lacks else ''}</d:response>"
        )

    def _mtime(self, path: Path) -> float:
        return path.stat().st_mtime if path.exists() else self._world.clock.origin

    def _locality(self, url: str) -> str:
        file = self._tape.find_file("/" + url.partition("://")[2].partition("/")[2])
        if file is None:
            return "ONLINE"
        return "ONLINE_AND_NEARLINE" if file.is_online(self._world.now()) else "NEARLINE"

    def _get(self, request: web.Request, url: str, path: Path) -> web.Response:
        tape = self._tape_bytes(url)
        if tape is None and not path.exists():
            self._note("get", [url], 404)
            return web.Response(status=404)
        if tape is None and path.is_dir():
            return web.Response(status=200, text="<html>a listing for people</html>", content_type="text/html")
        if request.method == "GET" and self._locality(url) == "NEARLINE":
            self._note("get", [url], 403)
            return web.Response(status=403, text="Permission denied")
        data = path.read_bytes() if tape is None else tape
        headers = {"ETag": f'"{_etag(url)}"', "Accept-Ranges": "bytes"}
        if self.digests and "adler32" in request.headers.get("Want-Digest", "").lower():
            headers["Digest"] = f"adler32={adler32(data)}"
        if request.method == "HEAD":
            self._note("sum", [url], 200)
            headers["Content-Length"] = str(len(data))
            return web.Response(headers=headers)
        self._note("get", [url], 200, size=len(data), adler32=adler32(data))
        wanted = request.http_range
        part = data[wanted]
        if wanted.start is None and wanted.stop is None:
            return web.Response(body=data, headers=headers, content_type="application/octet-stream")
        if not part:
            return web.Response(status=416, headers={"Content-Range": f"bytes */{len(data)}"})
        first = wanted.indices(len(data))[0]
        headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        return web.Response(status=206, body=part, headers=headers, content_type="application/octet-stream")

    # --- what is changed

    def _refused_put(self, request: web.Request, url: str, path: Path) -> web.Response | None:
        """Why the body is not wanted, before it is sent."""
        if path.is_dir() or self._tape_bytes(url) is not None:
            return self._changed("copy", [url], 405)
        if path.exists() and self.mindful and request.headers.get("If-None-Match") == "*":
            return self._changed("copy", [url], 412)
        return None if path.parent.is_dir() else self._changed("copy", [url], 409)

    async def _put(self, request: web.Request, url: str, path: Path) -> web.Response:
        strike = STRIKE.get()
        fault = "" if strike is None else strike.fault
        if strike is not None and fault == "disk_full" and self._later is not None:
            self._storage.is_full = True
            self._later(strike.value, self._make_room)
        if request.headers.get("Expect", "").lower() == "100-continue":
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        data = bytearray()
        async for piece in request.content.iter_chunked(PIECE_BYTES):
            data += piece
        if self._storage.is_full or fault == "half_file":
            self._write(path, data[: len(data) // 2])
            answer = self._changed("copy", [url], 507)
            return answer if fault != "half_file" else reset(request)
        self._write(path, data)
        return self._changed("copy", [url], 201, dst=url, size=len(data), adler32=adler32(bytes(data)))

    def _write(self, path: Path, data: bytearray) -> None:
        path.write_bytes(data)

    async def _make_room(self) -> None:
        self._storage.is_full = False

    def _mkcol(self, request: web.Request, url: str, path: Path) -> web.Response:
        if path.exists():
            return self._changed("mkdir", [url], 405)
        if not path.parent.is_dir() and path.parent.parent != self._storage.root:
            return self._changed("mkdir", [url], 409)
        path.mkdir(parents=True)  # A host's root directory always exists.
        return self._changed("mkdir", [url], 201)

    def _delete(self, request: web.Request, url: str, path: Path) -> web.Response:
        if not path.exists():
            return self._changed("rm", [url], 404)
        removed = [url]
        if path.is_dir():
            removed += [f"{url.rstrip('/')}/{one.relative_to(path)}" for one in sorted(path.rglob("*"))]
            shutil.rmtree(path)
        else:
            path.unlink()
        return self._changed("rm", [url], 204, removed=removed)

    def _move(self, request: web.Request, url: str, path: Path) -> web.Response:
        return self._transfer(request, url, path, "rename")

    def _copy(self, request: web.Request, url: str, path: Path) -> web.Response:
        if not self.copies:
            return web.Response(status=405, headers={"Allow": METHODS})
        return self._transfer(request, url, path, "copy")

    def _transfer(self, request: web.Request, url: str, path: Path, op: str) -> web.Response:
        """MOVE and COPY to another name in the same tree."""
        destination = request.headers.get("Destination", "")
        there = self._storage.find_path(destination)
        if there is None or destination.partition("://")[2].partition("/")[0] != request.host:
            return self._changed(op, [url], 400)
        urls = [url, destination]
        noted: dict[str, object] = {"src": url, "dst": destination}
        if not path.exists() or not there.parent.is_dir():
            return self._changed(op, urls, 409 if path.exists() else 404, **noted)
        replaced = there.exists()
        if replaced and self.mindful and request.headers.get("Overwrite", "T").upper() == "F":
            return self._changed(op, urls, 412, **noted)
        if path.is_file():
            data = path.read_bytes()
            noted |= {"size": len(data), "adler32": adler32(data)}
        if op == "rename":
            os.replace(path, there)
        else:
            (shutil.copytree if path.is_dir() else shutil.copyfile)(path, there)
        return self._changed(op, urls, 204 if replaced else 201, **noted, replaced=replaced)

    def _changed(self, op: str, urls: list[str], status: int, **noted: object) -> web.Response:
        """The answer to a write, which is a line of the ledger."""
        self._note(op, urls, status, **noted)
        return web.Response(status=status)

    def _note(self, op: str, urls: list[str], status: int, **noted: object) -> None:
        """A line such as the executables leave; a client's own files have no name here."""
        told: dict[str, object] = {"urls": urls, "flags": ["webdav"], "src": "", "dst": "", **noted}
        self._world.note("storage", op, "client", **told, result=0 if status < 400 else status)


def webdav_app(door: WebDav, middlewares: Iterable[Middleware] = ()) -> web.Application:
    """The door; the middlewares stand before it."""
    app = web.Application(client_max_size=1 << 40, middlewares=middlewares)
    app.router.add_route("*", "/{path:.*}", door.answer, expect_handler=_patient)
    return app


def pool_app(door: WebDav) -> web.Application:
    """The pool to which the door may send on."""
    app = web.Application(client_max_size=1 << 40)
    app.router.add_route("*", "/{path:.*}", door.answer_pool, expect_handler=_patient)
    return app


async def verb_of(request: web.Request) -> str:
    """What a request asks for, for the fault plan."""
    return request.method.lower()


async def _patient(request: web.Request) -> None:
    """Say nothing yet: whether the body is wanted is told when it is."""


def _target_path(request: web.Request) -> str:
    """The path of the second URL that the request names."""
    rest = request.headers.get("Destination", "").partition("://")[2]
    return f"/{rest.partition('/')[2]}" if rest else ""


def _etag(url: str) -> str:
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest().upper() + "_0"
