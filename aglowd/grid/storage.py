"""Storage by URL: `file://` natively, http(s) and dav(s) by WebDAV where it is configured, all else by the gfal tools.

What must stay true, whichever way is taken: nothing is ever overwritten, and "it is not there" comes only from a clear
word of the storage, never from a refusal.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary
from aglowd.grid import files
from aglowd.grid.files import CHECKSUM_TIMEOUT_S, SAFE_SIGNS, TRANSFER_TIMEOUT_S, Entry, Places, join, local_path
from aglowd.grid.gate import Site, Sites
from aglowd.grid.gfal import Gfal
from aglowd.grid.proc import Processes
from aglowd.grid.webdav import WebDav
from aglowd.grid.webdav_text import SCHEMES

T = TypeVar("T")

UPLOAD_PREFIX, COPY_PREFIX = "aglowd-upload-", "aglowd-copy-"
"""What bytes and files on their way are called in the work directory."""
CHECKOUT_PREFIX = "checkout-"
"""What the repositories of a sandbox lie in while it is packed (effects/sandboxes.py)."""
LEFT_BEHIND = (UPLOAD_PREFIX, COPY_PREFIX, CHECKOUT_PREFIX, "read-")
"""How the names there begin that no later process makes use of; `read-`: see `effects.files.read_back`."""


class Storage:
    """Verbs on URLs, each carried out by the one way that knows the URL's scheme.

    Two URLs of different ways, or of two WebDAV servers that do not copy between them, meet in a local temporary file, in
    `work_dir` or where the system has such files.
    """

    def __init__(
        self, processes: Processes, sites: Site | Sites, webdav: WebDav | None = None, *, work_dir: Path | None = None
    ) -> None:
        self._work_dir = work_dir
        self._gfal = Gfal(processes, sites)
        self._webdav = webdav
        self._places = Places()

    @seam
    async def list(self, url: str) -> tuple[Entry, ...]:
        """What lies in the directory, sorted by name, without dot files; absent when it does not exist."""
        path = local_path(url)
        if path is not None:
            return await self._native(lambda: _list(url, path), url, write=False)
        return await self._far(url).list(url)

    @seam
    async def stat(self, url: str) -> Entry | None:
        """The file or directory itself, None when it does not exist."""
        path = local_path(url)
        try:
            if path is not None:
                found = await self._native(lambda: files.look(path), url, write=False)
                return Entry(url, found.size_bytes, found.is_dir, found.mtime)
            return await self._far(url).stat(url)
        except Permanent as error:
            if error.absent:
                return None
            raise

    @seam
    async def checksum(self, url: str) -> int:
        """The file's adler32 as a number, so that a lost leading zero is no difference."""
        path = local_path(url)
        if path is not None:
            return await self._native(lambda: files.checksum(path), url, write=False, timeout_s=CHECKSUM_TIMEOUT_S)
        return await self._far(url).checksum(url)

    @seam
    async def make_directory(self, url: str) -> None:
        """Make the directory and its parents; an existing one is fine, a file in its place is Permanent."""
        path = local_path(url)
        if path is not None:
            await self._native(lambda: files.make_directory(path), url, write=True)
        else:
            await self._far(url).make_directory(url)

    @seam
    async def copy(self, source: str, destination: str) -> None:
        """Copy a file to a URL that does not exist yet, whose directory does; Permanent when it exists."""
        here, there = local_path(source), local_path(destination)
        web, far_web = self._web(source), self._web(destination)
        if here is not None and there is not None:
            await self._native(
                lambda: files.copy(here, there),
                destination,
                f"{source} → {destination}",
                write=True,
                timeout_s=TRANSFER_TIMEOUT_S,
            )
        elif web is None and far_web is None:
            await self._file(source)
            await self._must_be_free(destination)
            await self._gfal.copy(source, destination)
        elif far_web is not None and here is not None:
            await far_web.upload(Path(here), destination)
        elif web is not None and there is not None:
            await web.download(source, there)
        elif far_web is None or web is None or not await far_web.copy(source, destination):
            await self._relay(source, destination)

    @seam
    async def rename(self, source: str, destination: str) -> None:
        """Give a file another name at the same storage; Permanent when the new name exists.

        The tools would overwrite, and so would some WebDAV servers, so they are asked first, here as for a copy:
        elsewhere than on `file://` a small window is left.
        """
        here, there = local_path(source), local_path(destination)
        if here is not None and there is not None:
            await self._native(lambda: files.rename(here, there), destination, f"{source} → {destination}", write=True)
            return
        way = self._far(source)
        if way is not self._far(destination):
            raise Permanent(f"{source} → {destination}: a rename cannot leave its storage")
        await self._must_be_free(destination)
        await way.rename(source, destination)

    @seam
    async def remove(self, url: str) -> None:
        """Remove a file; absent when it does not exist."""
        path = local_path(url)
        if path is not None:
            await self._native(lambda: files.remove(path), url, write=True)
        else:
            await self._far(url).remove(url)

    @seam
    async def remove_directory(self, url: str) -> None:
        """Remove a directory in which nothing lies, not even a dot file, else Permanent; absent when it does not exist.

        Elsewhere than on `file://` servers and tools take along what comes after the look: nobody else should know its name.
        """
        path = local_path(url)
        if path is not None:
            await self._native(lambda: files.remove_directory(path), url, write=True)
        else:
            await self._far(url).remove_directory(url)

    @seam
    async def upload(self, data: bytes | Path, destination: str) -> None:
        """Write bytes, or the local file at an absolute path, to a URL that does not exist yet, else Permanent."""
        if isinstance(data, Path):
            await self.copy(data.as_uri(), destination)
            return
        there, web = local_path(destination), self._web(destination)
        if there is not None:
            await self._native(lambda: files.write([data], there), destination, write=True)
            return
        if web is not None:
            await web.upload(data, destination)
            return
        name = await asyncio.to_thread(_temporary_file, self._work_dir, data)
        try:
            await self.copy(Path(name).as_uri(), destination)
        finally:
            await asyncio.shield(asyncio.to_thread(Path(name).unlink, missing_ok=True))

    def _web(self, url: str) -> WebDav | None:
        """The WebDAV client, if the URL is for it."""
        return self._webdav if url.partition("://")[0] in SCHEMES else None

    def _far(self, url: str) -> WebDav | Gfal:
        return self._web(url) or self._gfal

    async def _file(self, url: str) -> Entry:
        entry = await self.stat(url)
        if entry is None:
            raise Permanent(f"{url} does not exist", absent=True)
        if entry.is_dir:
            raise Permanent(f"{url} is a directory; expected a file")
        return entry

    async def _must_be_free(self, url: str) -> None:
        if await self.stat(url) is not None:
            raise Permanent(f"{url} exists; it is not overwritten")

    async def _relay(self, source: str, destination: str) -> None:
        """Copy through a local file, for which there must be room."""
        size_bytes = (await self._file(source)).size_bytes
        directory = await asyncio.to_thread(_temporary_directory, self._work_dir, size_bytes)
        try:
            between = Path(directory, "file").as_uri()
            await self.copy(source, between)
            await self.copy(between, destination)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))

    async def _native(
        self, work: Callable[[], T], url: str, what: str = "", *, write: bool, timeout_s: float | None = None
    ) -> T:
        """Run blocking file work in a thread of the place where the URL lies; its OSError as one of the three."""
        return await self._places.run(work, local_path(url) or "", what or url, write=write, timeout_s=timeout_s)


def _list(url: str, path: str) -> tuple[Entry, ...]:
    """A local directory's entries, or the file itself, as `gfal-ls` does."""
    itself = files.look(path)
    if not itself.is_dir:
        return (Entry(url, itself.size_bytes, False, itself.mtime),)
    return tuple(
        Entry(join(url, quote(os.fsencode(e.name), safe=SAFE_SIGNS)), e.size_bytes, e.is_dir, e.mtime)
        for e in files.list_directory(path)
    )


def forget_copies(work_dir: Path) -> None:
    """Remove what a daemon that was killed left behind: a relayed file may be large. Blocks."""
    for path in (path for prefix in LEFT_BEHIND for path in work_dir.glob(f"{prefix}*")):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _temporary_file(work_dir: Path | None, data: bytes) -> str:
    try:
        fd, name = tempfile.mkstemp(prefix=UPLOAD_PREFIX, dir=work_dir)
        with open(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise Temporary(f"the bytes cannot be kept for the upload: {error.strerror}") from error
    return name


def _temporary_directory(work_dir: Path | None, size_bytes: int) -> str:
    """A new directory on a disk that has so much room; Temporary if there is none."""
    try:
        where = work_dir or tempfile.gettempdir()
        free = shutil.disk_usage(where).free
        if free < size_bytes:
            raise Temporary(f"{where} has room for {free} bytes; the copy needs {size_bytes}")
        return tempfile.mkdtemp(prefix=COPY_PREFIX, dir=where)
    except OSError as error:
        raise Temporary(f"no temporary directory for the copy: {error.strerror}") from error
