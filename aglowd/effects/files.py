"""Effects on storage: directories, copies, removals.

What must stay true: a destination appears whole and verified, or not at all: a temporary name beside it, size and
checksum read back, then a rename. Nothing is overwritten that differs. Nothing is removed without another copy that was
verified at that moment and is not the same file by another name, unless the pipeline says in so many words that it may be.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import suppress
from typing import Any, ClassVar
from zlib import adler32

from msgspec import Struct

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import Conflict, OutsideError, Permanent, Temporary, Unknown
from aglowd.model import Json

_OURS = re.compile(r"\.(?:part|remove)-[0-9a-f]{12}$")


class Content(Struct, frozen=True):
    """What tells one file's bytes from another's."""

    size_bytes: int
    adler32: int

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes, adler32 {self.adler32:08x}"


def part_of(url: str, key: str) -> str:
    """The temporary name beside the destination; the effect's key makes it ours alone."""
    return f"{url}.part-{_digest(key)}"


def aside_of(url: str, key: str) -> str:
    """The name of a file that is about to be removed."""
    return f"{url}.remove-{_digest(key)}"


async def name_back(world: World, aside: str, url: str, error: Exception) -> None:
    """What was not removed after all, because of `error`, has its name again; Unknown if that cannot be.

    A try that never comes must not leave it unnamed, and nobody may call it untouched meanwhile.
    """
    try:
        await world.storage.rename(aside, url)
    except (Permanent, Temporary) as failed:
        raise Unknown(f"{url} is called {aside} for now ({error}), until that can be undone: {failed}") from error


def is_temporary(url: str) -> bool:
    """Whether some effect gave the file that name for a while: nobody else should take it for a file."""
    return _OURS.search(url) is not None


def _digest(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()


async def content_of(world: World, url: str) -> Content | None:
    """The file's size and checksum, read now; None if it does not exist; Conflict if it is a directory."""
    entry = await world.storage.stat(url)
    if entry is None:
        return None
    if entry.is_dir:
        raise Conflict(f"{url} is a directory, where a file was expected")
    return Content(entry.size_bytes, await world.storage.checksum(url))


async def _verified(world: World, url: str, content: Content, source: str = "") -> Json | None:
    """What is there, if it is the same; None if nothing is; Conflict if it is something else."""
    found = await content_of(world, url)
    if found is None:
        return None
    if found != content:
        other = f" from {source}" if source else ""
        raise Conflict(f"{url} exists and differs{other} ({found}, not {content}); it is not overwritten")
    return {"url": url, "size_bytes": content.size_bytes, "adler32": content.adler32}


async def publish(world: World, part: str, url: str, content: Content) -> Json:
    """Read the temporary file back, then give it its name."""
    found = await content_of(world, part)
    if found is None:
        raise Temporary(f"the copy of {url} was made and is not there")
    if found != content:
        await world.storage.remove(part)
        raise Temporary(f"the copy of {url} arrived damaged ({found}, not {content})")
    try:
        await world.storage.rename(part, url)
    except Permanent:  # The effect ends here, and nobody else knows the temporary name.
        with suppress(OutsideError):
            await world.storage.remove(part)
        raise
    result = await _verified(world, url, content)
    if result is None:
        raise Temporary(f"{url} was renamed into place and is not there")
    return result


async def _drop_part(world: World, intent: Intent, part: str) -> None:
    """What an earlier try left behind is ours and worthless."""
    if intent.tries == 0 and not intent.notes:
        await intent.note({"part": part})
        return
    try:
        await world.storage.remove(part)
    except Permanent as error:
        if not error.absent:
            raise


async def put_bytes(world: World, intent: Intent, data: bytes, url: str) -> Json:
    """Write bytes to a storage URL as safely as a copy."""
    world.check_may_change(url)
    content = Content(len(data), adler32(data))
    there = await _verified(world, url, content)
    if there is not None:
        return there
    await world.storage.make_directory(url.rpartition("/")[0])
    part = part_of(url, intent.key)
    await _drop_part(world, intent, part)
    await world.storage.upload(data, part)
    return await publish(world, part, url, content)


async def read_back(world: World, intent: Intent, url: str) -> bytes:
    """The bytes at a storage URL, fetched through a file in the work directory."""
    name = hashlib.blake2b(f"{intent.key} {url}".encode(), digest_size=12).hexdigest()
    path = world.work_dir / f"read-{name}"
    await asyncio.to_thread(path.unlink, missing_ok=True)
    try:
        await world.storage.copy(url, path.as_uri())
        return await asyncio.to_thread(path.read_bytes)
    finally:
        await asyncio.to_thread(path.unlink, missing_ok=True)


class MakeDirectory(Deed, frozen=True, kw_only=True):
    """Make a directory and its parents; result `{"url"}`."""

    kind: ClassVar[str] = "make_directory"
    url: str

    async def do(self, world: World, intent: Intent) -> Json:
        world.check_may_change(self.url)
        await world.storage.make_directory(self.url)
        return {"url": self.url}

    async def find(self, world: World, intent: Intent) -> Json | None:
        entry = await world.storage.stat(self.url)
        if entry is not None and not entry.is_dir:
            raise Conflict(f"{self.url} exists and is a file, where a directory was expected")
        return None if entry is None else {"url": self.url}


class CopyFile(Deed, frozen=True, kw_only=True):
    """Copy one file; result `{"url", "size_bytes", "adler32", "copied"}`. The destination's directory must exist.

    `copied` is false if the same bytes lay there already.
    """

    kind: ClassVar[str] = "copy_file"
    source: str
    destination: str

    async def do(self, world: World, intent: Intent) -> Json:
        world.check_may_change(self.destination)
        content = await content_of(world, self.source)
        if content is None:
            raise Permanent(f"{self.source} is not there to be copied: it has vanished, or never was", absent=True)
        there = await _verified(world, self.destination, content, self.source)
        if there is not None:
            return {**there, "copied": "part" in intent.notes}
        part = part_of(self.destination, intent.key)
        await _drop_part(world, intent, part)
        await world.storage.copy(self.source, part)
        return {**await publish(world, part, self.destination, content), "copied": True}

    async def find(self, world: World, intent: Intent) -> Json | None:
        content = await content_of(world, self.source)
        if content is not None:
            there = await _verified(world, self.destination, content, self.source)
            return None if there is None else {**there, "copied": "part" in intent.notes}
        if await world.storage.stat(self.destination) is None:
            return None
        raise Permanent(f"{self.source} is not there any more: nobody can tell whether {self.destination} is its copy")


class WriteFile(Deed, frozen=True, kw_only=True):
    """Write a text to a storage URL as safely as a copy, with its directory; result `{"url", "size_bytes", "adler32"}`."""

    kind: ClassVar[str] = "write_file"
    url: str
    text: str

    async def do(self, world: World, intent: Intent) -> Json:
        return await put_bytes(world, intent, self.text.encode(), self.url)

    async def find(self, world: World, intent: Intent) -> Json | None:
        data = self.text.encode()
        return await _verified(world, self.url, Content(len(data), adler32(data)))


class RemoveFile(Deed, frozen=True, kw_only=True):
    """Remove a file of which `copy` is just now seen to hold the same bytes; result `{"url"}`. Absent already is done.

    It is given another name first: if `copy` is the same file (a link, another door to it), it is gone by then as well.
    """

    kind: ClassVar[str] = "remove_file"
    url: str
    copy: str = ""
    unsafe_without_copy: bool = False

    async def do(self, world: World, intent: Intent) -> Json:
        world.check_may_remove(self.url)
        aside = aside_of(self.url, intent.key)
        if await world.storage.stat(aside) is None:  # Else an earlier try came so far.
            entry = await world.storage.stat(self.url)
            if entry is None:
                return {"url": self.url}
            if entry.is_dir:
                raise Conflict(f"{self.url} is a directory; only files are removed")
            if self.unsafe_without_copy:
                await world.storage.remove(self.url)
                return {"url": self.url}
            copy = await world.storage.stat(self.copy) if self.copy else None
            if copy is None or copy.size_bytes != entry.size_bytes:
                raise Permanent(f"{self.url} is not removed: {self.copy or 'nothing'} is no copy of it")
            await world.storage.rename(self.url, aside)
        else:
            # A local rename that was cut short has left both names; a file that has come by this name since is not meant.
            with suppress(Permanent):
                await world.storage.rename(self.url, aside)
        try:
            await self._check_copy(world, aside)
            await world.storage.remove(aside)
        except (Permanent, Temporary) as error:
            await name_back(world, aside, self.url, error)
            raise
        return {"url": self.url}

    async def _check_copy(self, world: World, aside: str) -> None:
        content, copy = await content_of(world, aside), await content_of(world, self.copy)
        if copy is None:
            raise Permanent(f"{self.url} is not removed: {self.copy} is the same file by another name, or has vanished")
        if copy != content:
            raise Permanent(f"{self.url} is not removed: {self.copy} is no copy of it ({copy}, not {content})")

    async def find(self, world: World, intent: Intent) -> Json | None:
        for url in (self.url, aside_of(self.url, intent.key)):
            if await world.storage.stat(url) is not None:
                return None
        return {"url": self.url}


DEEDS: tuple[type[Any], ...] = (MakeDirectory, CopyFile, WriteFile, RemoveFile)
