"""Storage by URL: `file://` natively, everything else through the `gfal-*` executables.

What must stay true: nothing is ever overwritten, and "it is not there" comes only from a clear word of the storage
(ENOENT), never from a refusal. The tools print `gfal-ls error: 2 (No such file or directory) - …` and exit with the
errno (recorded from gfal2-util 1.8); `GFAL_PYTHONBIN` is left to the environment.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, unquote

from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import files
from aglowd.grid.gate import Site
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.words import quoted, shown
from aglowd.threads import Threads

T = TypeVar("T")

TRANSFER_TIMEOUT_S = 6 * 3600
CHECKSUM_TIMEOUT_S = 1800.0
PLACE_PARTS = 5
"""`file:///a/b/…`: what has these parts in common is taken to lie on one mount, and hangs together."""

LAST_CHARS = 200
"""A checksum is the last word of what the tool says."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\x00]+")
_ERROR = re.compile(r"gfal-\w+ error: (\d{1,4}) \(")
_LINE = re.compile(
    r"(?P<kind>[dlbcps?-])[rwxsStT-]{9}\S?\s+\d+\s+\S+\s+\S+\s+(?P<size>\d{1,19})\s+"
    r"(?P<date>\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?: [+-]\d{4})?|\d\d-\d\d \d\d:\d\d"
    r"|[A-Z][a-z]{2} +\d{1,2} +(?:\d\d:\d\d|\d{4})) +(?P<name>[^\t\n]+)"
)
_SIZE = re.compile(r"^[ \t]*Size: ([0-9]{1,19})[ \t]+(\S.*)$", re.MULTILINE)
_MODIFIED = re.compile(r"^Modify: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.MULTILINE)
# Two patterns instead of one with .* between: words that come again and again would take time without end.
_PROXY = re.compile(r"(?:certificate|credential|proxy)\b", re.IGNORECASE)
_GONE = re.compile(r"\b(?:expired|not found|could ?n[o']t be found|missing)", re.IGNORECASE)
_NO_PROXY = re.compile(r"could not open the user certificate|valid proxy", re.IGNORECASE)
_NO_HOST = re.compile(
    r"name or service not known|could not resolve|unknown host|temporary failure in name resolution|connection refused"
    r"|no route to host|network is unreachable",
    re.IGNORECASE,
)
_NO_FILE = re.compile(r"\tMISSING$|No such file or directory", re.MULTILINE)
_ANY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}://\S+")
_UNREACHED = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_REFUSED = frozenset({
    errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY, errno.EINVAL, errno.ENAMETOOLONG, errno.EPROTONOSUPPORT,
    errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS,
})  # fmt: skip
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Entry(Struct, frozen=True):
    """A file or directory. `mtime` is seconds since 1970, to the minute from some tools; None if it cannot be read."""

    url: str
    size_bytes: int
    is_dir: bool
    mtime: float | None


class Storage:
    """Verbs on URLs. What a verb does to two URLs is native only when both are `file://`."""

    def __init__(self, processes: Processes, site: Site) -> None:
        self._processes = processes
        self._site = site
        self._threads: dict[str, Threads] = {}

    @seam
    async def list(self, url: str) -> tuple[Entry, ...]:
        """What lies in the directory, sorted by name, without dot files; absent when it does not exist."""
        path = local_path(url)
        if path is not None:
            return await self._native(lambda: _list(url, path), url, write=False)
        said = await self._gfal(["gfal-ls", "-l", "--full-time", url], url, write=False)
        entries = []
        for line in said.stdout.splitlines():
            match = _LINE.match(line)
            if match is None and line.strip():
                raise Temporary(f"gfal-ls {url}: found the line {shown(line, 200)}; expected mode, size, date and name")
            if match and match["name"] not in (".", ".."):
                entries.append(_entry(url, match))
        return tuple(sorted(entries, key=lambda entry: entry.url))

    @seam
    async def stat(self, url: str) -> Entry | None:
        """The file or directory itself, None when it does not exist."""
        path = local_path(url)
        try:
            if path is not None:
                found = await self._native(lambda: files.look(path), url, write=False)
                return Entry(url, found.size_bytes, found.is_dir, found.mtime)
            said = await self._gfal(["gfal-stat", url], url, write=False)
        except Permanent as error:
            if error.absent:
                return None
            raise
        size, modified = _SIZE.search(said.stdout), _MODIFIED.search(said.stdout)
        if size is None:
            raise Temporary(f"gfal-stat {url}: found {shown(said.stdout, 200)}; expected a line with Size")
        return Entry(url, int(size[1]), "directory" in size[2], _time(modified[1]) if modified else None)

    @seam
    async def checksum(self, url: str) -> int:
        """The file's adler32 as a number, so that a lost leading zero is no difference."""
        path = local_path(url)
        if path is not None:
            return await self._native(lambda: files.checksum(path), url, write=False, timeout_s=CHECKSUM_TIMEOUT_S)
        said = await self._gfal(["gfal-sum", url, "ADLER32"], url, write=False, timeout_s=CHECKSUM_TIMEOUT_S)
        found = re.search(r"(?:^|\s)([0-9a-fA-F]{1,8})\s*$", said.stdout[-LAST_CHARS:])
        if found is None:
            raise Temporary(f"gfal-sum {url}: found {shown(said.stdout, 200)}; expected the URL and its adler32")
        return int(found[1], 16)

    @seam
    async def make_directory(self, url: str) -> None:
        """Make the directory and its parents; an existing one is fine, a file in its place is Permanent."""
        path = local_path(url)
        if path is not None:
            await self._native(lambda: files.make_directory(path), url, write=True)
        else:
            await self._gfal(["gfal-mkdir", "-p", url], url, write=True)

    @seam
    async def copy(self, source: str, destination: str) -> None:
        """Copy a file to a URL that does not exist yet, whose directory does; Permanent when it exists."""
        here, there = local_path(source), local_path(destination)
        if here is not None and there is not None:
            await self._native(
                lambda: files.copy(here, there),
                destination,
                f"{source} → {destination}",
                write=True,
                timeout_s=TRANSFER_TIMEOUT_S,
            )
            return
        timeout = ["-t", str(TRANSFER_TIMEOUT_S), "-T", str(TRANSFER_TIMEOUT_S)]
        argv = ["gfal-copy", *timeout, _for_tool(source), _for_tool(destination)]
        await self._gfal(argv, f"{source} → {destination}", write=True, timeout_s=TRANSFER_TIMEOUT_S + 60.0)

    @seam
    async def rename(self, source: str, destination: str) -> None:
        """Give a file another name at the same storage; Permanent when the new name exists.

        The tool would overwrite, so it is asked for first: elsewhere than on `file://` a small window is left.
        """
        here, there = local_path(source), local_path(destination)
        if here is not None and there is not None:
            await self._native(lambda: files.rename(here, there), destination, f"{source} → {destination}", write=True)
            return
        if await self.stat(destination) is not None:
            raise Permanent(f"{source} → {destination}: the new name exists")
        await self._gfal(
            ["gfal-rename", _for_tool(source), _for_tool(destination)], f"{source} → {destination}", write=True
        )

    @seam
    async def remove(self, url: str) -> None:
        """Remove a file; absent when it does not exist."""
        path = local_path(url)
        if path is not None:
            await self._native(lambda: files.remove(path), url, write=True)
        else:
            await self._gfal(["gfal-rm", url], url, write=True)

    @seam
    async def upload(self, data: bytes | Path, destination: str) -> None:
        """Write bytes, or the local file at an absolute path, to a URL that does not exist yet, else Permanent."""
        if isinstance(data, Path):
            await self.copy(data.as_uri(), destination)
            return
        there = local_path(destination)
        if there is not None:
            await self._native(lambda: files.write([data], there), destination, write=True)
            return
        name = await asyncio.to_thread(_temporary_file, data)
        try:
            await self.copy(Path(name).as_uri(), destination)
        finally:
            await asyncio.shield(asyncio.to_thread(Path(name).unlink, missing_ok=True))

    async def _native(
        self, work: Callable[[], T], url: str, what: str = "", *, write: bool, timeout_s: float | None = None
    ) -> T:
        """Run blocking file work in a thread of the place where the URL lies; its OSError as one of the three."""
        place = "/".join(url.split("/")[:PLACE_PARTS])
        try:
            return await self._threads.setdefault(place, Threads(place)).run(work, timeout_s)
        except OSError as error:
            raise files.explain(error, what or url, write=write) from error

    @seam
    async def _gfal(self, argv: Sequence[str], what: str, *, write: bool, timeout_s: float = 120.0) -> Finished:
        """Run one of the tools; its failure as one of the three."""
        async with self._site.slot():
            said = await self._processes.run(argv, write=write, timeout_s=timeout_s)
            if said.rc != 0:
                raise explain(said, what, write=write)
        return said


def local_path(url: str) -> str | None:
    """The path of a `file://` URL, percent signs decoded; None for another scheme, Permanent for what is no URL."""
    if not _URL.fullmatch(url):
        raise Permanent(f"{url[:200]!r}: expected SCHEME://…, without blanks")
    if not url.startswith("file://"):
        return None
    path = unquote(url.removeprefix("file://"), errors="surrogateescape")
    if not path.startswith("/") or "\x00" in path or ".." in path.split("/"):
        raise Permanent(f"{url[:200]!r}: expected file:///absolute/path")
    return path.rstrip("/") or "/"


def _for_tool(url: str) -> str:
    """The URL as the gfal tools take it: they do not decode percent signs in `file://`."""
    path = local_path(url)
    return url if path is None else f"file://{path}"


def explain(said: Finished, what: str, *, write: bool) -> OutsideError:
    """What a tool's failure was: by the errno in its error line, else by its words; names of files are no words."""
    text = f"{Path(said.argv[0]).name} {what}: ended with {said.rc}: {quoted(said.stderr, said.stdout)}"
    match = _ERROR.search(said.stderr)
    number = int(match[1]) if match else 0
    words = _ANY_URL.sub("", said.stderr)
    proxy = _PROXY.search(words)
    if _NO_PROXY.search(words) or (proxy and _GONE.search(words, proxy.end())):
        return Temporary(text)
    if number == errno.ENOENT or (not match and said.rc == errno.ENOENT and _NO_FILE.search(f"{words}\n{said.stdout}")):
        return Permanent(text, absent=True)
    if number in _UNREACHED or _NO_HOST.search(words):
        return Temporary(text)
    if number in _FORBIDDEN:
        # A read may be forbidden because the file is on tape only; a locality check would tell.
        return Permanent(text) if write else Temporary(text)
    if number in _REFUSED:
        return Permanent(text)
    if number in _FULL or not write:
        return Temporary(text)
    return Unknown(text)


def _list(url: str, path: str) -> tuple[Entry, ...]:
    """A local directory's entries, or the file itself, as `gfal-ls` does."""
    itself = files.look(path)
    if not itself.is_dir:
        return (Entry(url, itself.size_bytes, False, itself.mtime),)
    return tuple(
        Entry(_join(url, quote(os.fsencode(e.name), safe="+@:=,~!()[]")), e.size_bytes, e.is_dir, e.mtime)
        for e in files.list_directory(path)
    )


def _entry(url: str, match: re.Match[str]) -> Entry:
    name = match["name"].strip()
    full = url if name == url else _join(url, name)  # Asked about a file, the tool repeats its URL.
    return Entry(full, int(match["size"]), match["kind"] == "d", _time(match["date"]))


def _join(url: str, name: str) -> str:
    return f"{url.rstrip('/')}/{name}"


def _time(text: str) -> float | None:
    """A tool's local time; without a year it cannot be told."""
    text = " ".join(text.partition(".")[0].split())
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d", "%b %d %Y"):
        try:
            return datetime.strptime(text, form).timestamp()
        except (ValueError, OverflowError):
            continue
    return None


def _temporary_file(data: bytes) -> str:
    try:
        fd, name = tempfile.mkstemp(prefix="aglowd-upload-")
        with open(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise Temporary(f"the bytes cannot be kept for the upload: {error.strerror}") from error
    return name
