"""Storage that speaks WebDAV: dCache's doors first of all, and whatever else does (Apache, xrootd, …).

What must stay true, beside what `storage.py` promises: nothing is overwritten though some servers ignore `Overwrite: F`
and `If-None-Match`, so each write looks first; a file is read whole (its size is known beforehand) or not at all; a
secret goes in no URL, and to no host that it is not for. A site's door is shown the token that is configured for it, and
where there is none, or it is refused a read, the macaroons of staging requests; these never write. A body is sent only when the server has said `100 Continue`: dCache's doors
send on to a pool (307) those clients only that ask so, and a refused body has cost nothing. Facts: RFC 4918; dCache's
webdav documentation; WLCG HTTP-TPC. Servers differ in what MKCOL answers (405 or 409 for what exists, 404 or 409 without
a parent) and in whether a directory wants its slash, so answers are taken for hints and looked behind.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack
from urllib.parse import quote, urljoin
from zlib import adler32

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.files import (
    BLOCK_BYTES,
    CHECKSUM_TIMEOUT_S,
    SAFE_SIGNS,
    TRANSFER_TIMEOUT_S,
    Entry,
    Places,
    join,
    writing,
)
from aglowd.grid.gate import Credential, Site, Sites
from aglowd.grid.http import MOVED, Http, Reply, Sink
from aglowd.grid.keyring import Keyring
from aglowd.grid.macaroons import REFUSALS, Macaroon, path_for, try_each
from aglowd.grid.surl import DOORS, Door, place_of
from aglowd.grid.webdav_text import ADLER32, PROPFIND, Row, host_of, keeps_credential, path_of, read, server_of, wire
from aglowd.grid.words import shown

MAX_LISTING_BYTES = 16 << 20
"""A directory of 10 000 files, 1.5 kB each."""
MOST_REDIRECTS = 3
"""From a door to a pool is one."""

_FOLLOWED = frozenset({"GET", "HEAD", "PROPFIND", "PUT"})
_NOT_OFFERED = frozenset({400, 405, 501, 502})
"""What servers say to a COPY that they do not do, or not to that destination."""
_FULL = 507
_ACTIVITIES = {"PROPFIND": "READ_METADATA", "HEAD": "READ_METADATA", "GET": "DOWNLOAD"}
"""What a macaroon must allow for a read."""


class How(TypedDict, total=False):
    """What else there is to a request, as `Http.request` has it; `body` makes the bytes anew for each."""

    headers: dict[str, str]
    body: Callable[[], bytes | AsyncIterator[bytes]]
    sink: Sink
    timeout_s: float


class WebDav:
    """The verbs of `Storage` on http(s):// and dav(s)://; `third_party`: servers may copy from each other (HTTP-TPC)."""

    def __init__(
        self,
        http: Http,
        sites: Site | Sites,
        credentials: Mapping[str, Credential],
        *,
        keyring: Keyring | None = None,
        doors: Mapping[str, Door] = DOORS,
        third_party: bool = False,
    ) -> None:
        """`sites` has a gate for each host. `credentials`: by the name of the host that each is for; a host that is not
        among them gets none."""
        self._http = http
        self._sites = sites
        self._credentials = credentials
        self._keyring = keyring
        self._doors = doors
        self._third_party = third_party
        self._places = Places()

    async def list(self, url: str) -> tuple[Entry, ...]:
        """As `Storage.list`; a file whose size the server does not know yet is left out: it is being written."""
        rows = await self._rows(url, depth=1)
        here = path_of(url)
        if not rows[here].is_dir:
            return (_entry(url, rows[here]),)
        found = []
        for path, row in sorted(rows.items(), key=lambda item: item[0]):
            directory, _, name = path.rpartition(b"/")
            if directory == here and name and not name.startswith(b".") and (row.is_dir or row.size_bytes is not None):
                found.append(_entry(join(url, quote(name, safe=SAFE_SIGNS)), row))
        return tuple(found)

    async def stat(self, url: str) -> Entry:
        """The file or directory; absent when it does not exist."""
        return _entry(url, await self._row(url))

    async def checksum(self, url: str) -> int:
        """From what the server has stored, else from what it says when it is asked for a digest, else from the bytes."""
        row = await self._row(url)
        size = _size_of_file(url, row)
        if row.adler32 is not None:
            return row.adler32
        reply = await self._ask(
            "HEAD", url, write=False, headers={"Want-Digest": "adler32"}, timeout_s=CHECKSUM_TIMEOUT_S
        )
        digest = ADLER32.search(reply.headers.get("digest", ""))
        if digest is not None:
            return int(digest[1], 16)
        value = 1

        async def add(block: bytes) -> None:
            nonlocal value
            value = adler32(block, value)

        await self._get(url, size, add, CHECKSUM_TIMEOUT_S)
        return value

    async def make_directory(self, url: str) -> None:
        """As `Storage.make_directory`: the parents are made when the server says that one is missing."""
        directory = f"{url.rstrip('/')}/"
        reply = await self._ask("MKCOL", directory, write=True, ok=frozenset({404, 405, 409}))
        if reply.status in (404, 409) and path_of(url).strip(b"/"):
            await self.make_directory(url.rstrip("/").rpartition("/")[0])
            reply = await self._ask("MKCOL", directory, write=True, ok=frozenset({405, 409}))
        if reply.status >= 400 and not (await self.stat(url)).is_dir:
            raise Permanent(f"{url} exists and is a file, where a directory was expected")

    async def copy(self, source: str, destination: str) -> bool:
        """Let the servers copy the file between themselves; False, and nothing done, where they do not offer it."""
        _size_of_file(source, await self._row(source))
        await self._must_be_free(destination)
        headers = {"Overwrite": "F"}
        if server_of(source) == server_of(destination):
            headers["Destination"] = wire(destination)
            reply = await self._copied(source, headers)
        elif self._third_party:
            headers |= {"Source": wire(source), "Credential": "none"}
            credential = self._credential(source)
            if credential is not self._credential(destination):
                return False  # The one server would be shown what is for the other.
            if credential is not None and credential.token:
                headers["TransferHeaderAuthorization"] = f"Bearer {credential.token}"
            reply = await self._copied(destination, headers)
        else:
            return False
        # A third-party copy is accepted first (202), and its end is the last line of what follows.
        last = reply.body.strip().rpartition(b"\n")[2]
        if reply.status == 202 and not last.strip().lower().startswith(b"success"):
            raise Unknown(f"COPY {source} → {destination}: found {shown(last.decode('utf-8', 'replace'))} at the end")
        return reply.status not in _NOT_OFFERED

    async def rename(self, source: str, destination: str) -> None:
        """As `Storage.rename`, whose caller has looked; within one server."""
        if server_of(source) != server_of(destination):
            raise Permanent(f"{source} → {destination}: a rename cannot leave its server")
        headers = {"Destination": wire(destination), "Overwrite": "F"}
        await self._ask("MOVE", source, write=True, headers=headers)

    async def remove(self, url: str) -> None:
        """As `Storage.remove`. A DELETE takes a directory with all that is in it, so what is no file is refused."""
        if (await self._row(url)).is_dir:
            raise Permanent(f"{url} is a directory; only files are removed")
        await self._ask("DELETE", url, write=True)

    async def remove_directory(self, url: str) -> None:
        """As `Storage.remove_directory`; it is listed first, for a DELETE takes all that lies in it."""
        rows = await self._rows(url, depth=1, unreadable=True)
        if not rows[path_of(url)].is_dir:
            raise Permanent(f"{url} is a file; expected a directory")
        if len(rows) > 1:
            raise Permanent(f"{url} is not empty: {shown(sorted(rows)[:3])}")
        await self._ask("DELETE", f"{url.rstrip('/')}/", write=True)

    async def upload(self, data: bytes | Path, destination: str) -> None:
        """As `Storage.upload`. A part of it may stay behind where the answer is lost or the storage is full."""
        await self._must_be_free(destination)
        if isinstance(data, bytes):
            await self._put(destination, lambda: _whole(data), len(data))
            return
        path = os.fspath(data)
        fd, size = await self._places.run(lambda: _open(path), path, path, write=False)
        try:
            await self._put(destination, lambda: self._blocks(fd, path, size), size)
        finally:
            os.close(fd)

    async def download(self, url: str, path: str) -> None:
        """Copy a file to a local path that does not exist yet, whose directory does; Permanent when it exists."""
        size = _size_of_file(url, await self._row(url))
        part, what = writing(path), f"{url} → file://{path}"
        file = await self._places.run(part.__enter__, path, what, write=True)

        async def add(block: bytes) -> None:
            await self._places.run(lambda: file.write(block), path, what, write=False)

        try:
            await self._get(url, size, add, TRANSFER_TIMEOUT_S)
        except BaseException as error:
            told = (type(error), error, error.__traceback__)
            await asyncio.shield(self._places.run(lambda: part.__exit__(*told), path, what, write=False))
            raise
        await self._places.run(lambda: part.__exit__(None, None, None), path, what, write=True)

    async def _get(self, url: str, size: int, sink: Sink, timeout_s: float) -> None:
        """The file's bytes, as many as it has: some servers send an error page with status 200."""
        left = size

        async def add(block: bytes) -> None:
            nonlocal left
            left -= len(block)
            if left < 0:
                raise Temporary(f"GET {url}: more than the {size} bytes that it should have")
            await sink(block)

        await self._ask("GET", url, write=False, sink=add, timeout_s=timeout_s)
        if left:
            raise Temporary(f"GET {url}: {size - left} bytes; expected {size}")

    async def _put(self, url: str, body: Callable[[], AsyncIterator[bytes]], size: int) -> None:
        # No Content-Range, ever: what servers store then differs (facts: the whole, a part, nothing).
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream", "If-None-Match": "*"}
        await self._ask("PUT", url, write=True, headers=headers, body=body, timeout_s=TRANSFER_TIMEOUT_S)

    async def _blocks(self, fd: int, path: str, size: int) -> AsyncIterator[bytes]:
        """As many bytes of an open file as were promised."""
        for at in range(0, size, BLOCK_BYTES):
            most = min(BLOCK_BYTES, size - at)
            block = await self._places.run(partial(os.pread, fd, most, at), path, path, write=False)
            if len(block) != most:
                raise OSError(errno.EIO, f"{path} became shorter while it was read")
            yield block

    async def _copied(self, url: str, headers: dict[str, str]) -> Reply:
        return await self._ask(
            "COPY", url, write=True, headers=headers, ok=_NOT_OFFERED, timeout_s=float(TRANSFER_TIMEOUT_S)
        )

    async def _must_be_free(self, url: str) -> None:
        try:
            await self._row(url)
        except Permanent as error:
            if error.absent:
                return
            raise
        raise Permanent(f"{url} exists; it is not overwritten")

    async def _row(self, url: str) -> Row:
        return (await self._rows(url, depth=0))[path_of(url)]

    async def _rows(self, url: str, *, depth: int, unreadable: bool = False) -> dict[bytes, Row]:
        """Decoded path → what the server tells of it; that of the URL is among them. `unreadable`: see `read`."""
        headers = {"Depth": str(depth), "Content-Type": "application/xml"}
        reply, at = await self._asked("PROPFIND", url, write=False, headers=headers, body=lambda: PROPFIND)
        what = f"PROPFIND {url}"
        if reply.status != 207:
            raise Temporary(f"{what}: found HTTP {reply.status}; expected 207")
        try:
            rows = await asyncio.to_thread(read, reply.body, unreadable=unreadable)
        except ValueError as error:
            raise Temporary(f"{what}: {error}") from error
        here = path_of(at)
        others = [path for path in rows if path != here and not path.startswith(here + b"/")]
        # Nothing is removed on the word of an answer of which a part cannot be told where it belongs.
        if here not in rows or (unreadable and others):
            raise Temporary(f"{what}: the answer is about {shown(sorted(others)[:3])}")
        # With a macaroon, the same file may have another path.
        return {
            path_of(url) + path.removeprefix(here): row
            for path, row in rows.items()
            if path == here or path.startswith(here + b"/")
        }

    async def _ask(
        self, method: str, url: str, *, write: bool, ok: frozenset[int] = frozenset(), **how: Unpack[How]
    ) -> Reply:
        return (await self._asked(method, url, write=write, ok=ok, **how))[0]

    async def _asked(
        self, method: str, url: str, *, write: bool, ok: frozenset[int] = frozenset(), **how: Unpack[How]
    ) -> tuple[Reply, str]:
        """The answer to the first credential that is taken, and the URL as it goes by that."""
        at, credential = wire(url), self._credential(url)
        place = None if write or self._keyring is None else place_of(at, self._doors)
        if place is None or self._keyring is None:
            return await self._sent(method, url, at, credential, ok, write=write, **how), at
        has_token = credential is not None and credential.is_usable
        if not has_token:
            await self._keyring.ready()
        keys = self._keyring.candidates(*place, _ACTIVITIES[method])
        if has_token or not keys:
            forbidden = frozenset({403}) if keys else frozenset()
            reply = await self._sent(method, url, at, credential, ok | forbidden, write=write, **how)
            if reply.status != 403 or not keys:
                return reply, at
        site, path = place
        opened = at

        async def call(macaroon: Macaroon) -> Reply:
            nonlocal opened
            opened = self._doors[site].url.rstrip("/") + quote(path_for(macaroon, path), safe=SAFE_SIGNS + "/")
            return await self._sent(method, url, opened, macaroon, ok | REFUSALS, write=write, **how)

        async def is_online() -> bool:
            return method != "GET" or not (await self._row(url)).is_on_tape

        return await try_each(keys, path, call, is_online), opened

    def _credential(self, url: str) -> Credential | None:
        return self._credentials.get(host_of(wire(url)))

    async def _sent(
        self,
        method: str,
        url: str,
        at: str,
        credential: Credential | None,
        ok: frozenset[int],
        *,
        write: bool,
        **how: Unpack[How],
    ) -> Reply:
        """One request for `url`, which is at `at`, sent on where a door says so; our credential goes along only to the
        same host, never from https to http: a pool knows the transfer by its URL. What it is sent on to stays among the
        requests of its door."""
        what, site = f"{method} {url}", self._sites.at(host_of(at))
        ok |= {_FULL} | (MOVED if method in _FOLLOWED else frozenset())
        body = how.get("body")
        for _ in range(MOST_REDIRECTS + 1):
            reply = await self._http.request(
                method,
                at,
                site=site,
                credential=credential,
                write=write,
                data=None if body is None else body(),
                sink=how.get("sink"),
                headers=how.get("headers"),
                timeout_s=how.get("timeout_s"),
                max_body_bytes=MAX_LISTING_BYTES,
                ok=ok,
            )
            if reply.status not in MOVED:
                return _accepted(reply, what, write=write)
            target = urljoin(at, reply.headers.get("location", ""))
            if not keeps_credential(at, target):
                credential = None
            at = target
        raise Permanent(f"{what}: sent on more than {MOST_REDIRECTS} times")


def _accepted(reply: Reply, what: str, *, write: bool) -> Reply:
    """The reply, unless it is no answer to a write after all."""
    if reply.status == _FULL:
        raise Temporary(f"{what}: HTTP {_FULL}: the storage is full")
    if write and reply.status == 207:
        raise Unknown(f"{what}: HTTP 207: not all of it was done")
    if write and reply.status == 200 and reply.headers.get("content-type", "").startswith("text/html"):
        # Log-in and maintenance pages say 200 to everything; who really did it says 201 or 204.
        raise Unknown(f"{what}: HTTP 200 with a page for people")
    return reply


def _entry(url: str, row: Row) -> Entry:
    return Entry(url, 0 if row.is_dir else _size_of_file(url, row), row.is_dir, row.mtime)


def _size_of_file(url: str, row: Row) -> int:
    if row.is_dir:
        raise Permanent(f"{url} is a directory; expected a file")
    if row.size_bytes is None:
        raise Temporary(f"{url} has no size yet: it is being written")
    return row.size_bytes


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _open(path: str) -> tuple[int, int]:
    """A file to read, and its size."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        os.close(fd)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return fd, info.st_size
