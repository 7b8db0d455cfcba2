"""Effects on storage: directories, copies, removals.

What must stay true: a destination appears whole and verified, or not at all: a temporary name beside it, size and
checksum read back, then a rename. Nothing is overwritten that differs; nothing is removed without another verified copy.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, ClassVar
from zlib import adler32

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import Conflict, Permanent, Temporary
from aglowd.model import Json


def part_of(url: str, key: str) -> str:
    """The temporary name beside the destination; the effect's key makes it ours alone."""
    return f"{url}.part-{hashlib.blake2b(key.encode(), digest_size=6).hexdigest()}"


async def _verified(world: World, url: str, checksum: int) -> Json | None:
    """What is there, if it has that checksum; None if nothing is; Permanent if it is something else."""
    entry = await world.storage.stat(url)
    if entry is None:
        return None
    found = await world.storage.checksum(url)
    if found != checksum:
        raise Conflict(f"{url} exists and differs (adler32 {found:08x}, not {checksum:08x}); it is not overwritten")
    return {"url": url, "size_bytes": entry.size_bytes, "adler32": checksum}


async def publish(world: World, part: str, url: str, checksum: int) -> Json:
    """Read the temporary file back, then give it its name."""
    try:
        found = await world.storage.checksum(part)
    except Permanent as error:
        if not error.absent:
            raise
        raise Temporary(f"the copy of {url} was made and is not there") from error
    if found != checksum:
        await world.storage.remove(part)
        raise Temporary(f"the copy of {url} arrived damaged (adler32 {found:08x}, not {checksum:08x})")
    await world.storage.rename(part, url)
    result = await _verified(world, url, checksum)
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
    checksum = adler32(data)
    there = await _verified(world, url, checksum)
    if there is not None:
        return there
    await world.storage.make_directory(url.rpartition("/")[0])
    part = part_of(url, intent.key)
    await _drop_part(world, intent, part)
    await world.storage.upload(data, part)
    return await publish(world, part, url, checksum)


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
    """Copy one file; result `{"url", "size_bytes", "adler32"}`. The destination's directory must exist."""

    kind: ClassVar[str] = "copy_file"
    source: str
    destination: str

    async def do(self, world: World, intent: Intent) -> Json:
        world.check_may_change(self.destination)
        checksum = await world.storage.checksum(self.source)
        there = await _verified(world, self.destination, checksum)
        if there is not None:
            return there
        part = part_of(self.destination, intent.key)
        await _drop_part(world, intent, part)
        await world.storage.copy(self.source, part)
        return await publish(world, part, self.destination, checksum)

    async def find(self, world: World, intent: Intent) -> Json | None:
        return await _verified(world, self.destination, await world.storage.checksum(self.source))


class RemoveFile(Deed, frozen=True, kw_only=True):
    """Remove a file of which `copy` was just seen to hold the same bytes; result `{"url"}`."""

    kind: ClassVar[str] = "remove_file"
    url: str
    copy: str

    async def do(self, world: World, intent: Intent) -> Json:
        world.check_may_change(self.url)
        if await world.storage.stat(self.url) is None:
            return {"url": self.url}
        is_same = self.url == self.copy
        if is_same or await world.storage.checksum(self.url) != await world.storage.checksum(self.copy):
            raise Permanent(f"{self.url} is not removed: {self.copy} is no copy of it")
        await world.storage.remove(self.url)
        return {"url": self.url}

    async def find(self, world: World, intent: Intent) -> Json | None:
        return {"url": self.url} if await world.storage.stat(self.url) is None else None


DEEDS: tuple[type[Any], ...] = (MakeDirectory, CopyFile, RemoveFile)
