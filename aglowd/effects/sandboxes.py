"""The effect that builds a sandbox: the scripts that pilots run, from git repositories into one archive on storage.

What carries our key there: the name, which holds a digest of the commits; and the commits are noted before anything is
written, so that a second try packs the same files although a branch has moved meanwhile. The same commits give the same
bytes, so a sandbox that lies there already is found, whoever built it, and never written again.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from aglowd.effects.base import Deed, Intent, World
from aglowd.effects.files import put_bytes, read_back
from aglowd.errors import Conflict, Permanent, Temporary
from aglowd.grid.checkouts import Repository, check_out
from aglowd.grid.storage import CHECKOUT_PREFIX
from aglowd.model import Json

MAX_SANDBOX_BYTES = 256 << 20
"""Of all files of a sandbox: each worker node unpacks it."""


class BuildSandbox(Deed, frozen=True, kw_only=True):
    """Pack the repositories' files to `directory/name-DIGEST.tar.gz`.

    Result `{"url", "size_bytes", "adler32", "commits": {repository: commit}}`.
    """

    kind: ClassVar[str] = "build_sandbox"
    repositories: tuple[Repository, ...]
    directory: str
    name: str

    async def do(self, world: World, intent: Intent) -> Json:
        world.check_may_change(self.directory)
        place = await asyncio.to_thread(_make_place, world.work_dir)
        try:
            commits: dict[str, str] = {}
            for one in self.repositories:
                noted = intent.notes.get("commits", {}).get(one.name)
                fixed = msgspec.structs.replace(one, commit=noted) if noted else one
                commits[one.name] = await check_out(world.processes, fixed, place / f"{len(commits)}")
            plain = await asyncio.to_thread(_pack, place, self.repositories)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
        noted = {"commits": commits, "url": self._url(commits), "sha256": hashlib.sha256(plain).hexdigest()}
        if intent.notes.get("sha256") != noted["sha256"]:
            await intent.note(noted)
        there = await _find(world, intent, noted)
        if there is not None:
            return there
        packed = await asyncio.to_thread(gzip.compress, plain, 9, mtime=0)
        return {**await put_bytes(world, intent, packed, noted["url"]), "commits": commits}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """What was never noted was never written."""
        return await _find(world, intent, intent.notes) if "url" in intent.notes else None

    def _url(self, commits: Mapping[str, str]) -> str:
        """Other commits, or another layout of them, have another name."""
        laid = [(one.url, one.directory, commits[one.name]) for one in self.repositories]
        digest = hashlib.blake2b(msgspec.json.encode(laid), digest_size=8).hexdigest()
        return f"{self.directory.rstrip('/')}/{self.name}-{digest}.tar.gz"


async def _find(world: World, intent: Intent, noted: Mapping[str, Json]) -> Json | None:
    """The sandbox that lies there, if it holds the same files; None if nothing does; Conflict if it holds others.

    It is compared unpacked: another version of the compressor makes other bytes of the same files.
    """
    url = noted["url"]
    entry = await world.storage.stat(url)
    if entry is None:
        return None
    if entry.is_dir or entry.size_bytes > MAX_SANDBOX_BYTES:
        raise Conflict(f"{url} is no sandbox of at most {MAX_SANDBOX_BYTES} bytes; it is not overwritten")
    data = await read_back(world, intent, url)
    if await asyncio.to_thread(_digest, data) != noted["sha256"]:
        raise Conflict(f"{url} holds other files than these commits; it is not overwritten: see who put it there")
    found = {"url": url, "size_bytes": len(data), "adler32": zlib.adler32(data)}
    return {**found, "commits": noted["commits"]}


def _digest(data: bytes) -> str:
    """Of what is packed there; "" if that is nothing of ours."""
    try:
        plain = gzip.GzipFile(fileobj=io.BytesIO(data)).read(2 * MAX_SANDBOX_BYTES)
    except (OSError, EOFError, zlib.error):
        return ""
    return hashlib.sha256(plain).hexdigest()


def _make_place(work_dir: Path) -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix=CHECKOUT_PREFIX, dir=work_dir))
    except OSError as error:
        raise Temporary(f"{work_dir}: no directory for the sandbox: {error.strerror}") from error


def _pack(place: Path, repositories: Sequence[Repository]) -> bytes:
    """The files of the checkouts 0, 1, … as one tar that depends on nothing but them. Blocks.

    At the top a later repository replaces an earlier one's files, as GRID_LRT's launcher does; a directory of its own must
    be free. Permanent says what is in the way.
    """
    members: dict[str, Path] = {}
    for number, one in enumerate(repositories):
        if one.directory and any(f"{name}/".startswith(f"{one.directory}/") for name in members):
            raise Permanent(f"sandbox: {one.directory} is there already; {one.name} needs a checkout_dir of its own")
        members.update(_files(place / str(number), one.directory))
    for name in members:
        if any(parent in members for parent in map(str, Path(name).parents)):
            raise Permanent(f"sandbox: {name} lies below what is a file in another repository")
    buffer = io.BytesIO()
    size_bytes = 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, path in sorted(members.items()):
            info = tarfile.TarInfo(name)
            try:
                if path.is_symlink():
                    info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
                    tar.addfile(info)
                    continue
                info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                info.size = path.stat().st_size
                size_bytes += info.size
                if size_bytes > MAX_SANDBOX_BYTES:
                    raise Permanent(f"sandbox: the files are more than {MAX_SANDBOX_BYTES} bytes")
                with path.open("rb") as file:
                    tar.addfile(info, file)
            except OSError as error:
                raise Temporary(f"sandbox: {name} cannot be read: {error.strerror}") from error
    return buffer.getvalue()


def _files(root: Path, directory: str) -> Iterator[tuple[str, Path]]:
    """(name in the sandbox, path) of every file but git's own; at the top none whose first name begins with a dot."""
    for at, directories, names in os.walk(root):
        inner = Path(at).relative_to(root)
        if at == str(root):
            directories[:] = [name for name in directories if name != ".git" and (directory or name[0] != ".")]
            names = [name for name in names if name != ".git" and (directory or name[0] != ".")]
        links = [name for name in directories if (Path(at) / name).is_symlink()]
        for name in (*names, *links):
            yield (Path(directory) / inner / name).as_posix(), Path(at) / name


DEEDS: tuple[type[Any], ...] = (BuildSandbox,)
