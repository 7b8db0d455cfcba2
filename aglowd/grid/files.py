"""Files on a local or mounted file system: what storage does for `file://`, in plain blocking calls and their threads.

What must stay true: a destination appears whole or not at all, and never takes the place of something else. The bytes
go to `.NAME.part` beside it, are on the disk before it gets its name, and get it by `link`, which refuses an existing
name where `rename` would replace it. Links are never written through.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar
from urllib.parse import unquote

from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.threads import Threads

T = TypeVar("T")

BLOCK_BYTES = 4 << 20
TRANSFER_TIMEOUT_S = 6 * 3600
CHECKSUM_TIMEOUT_S = 1800.0
SAFE_SIGNS = "+@:=,~!()[]"
"""What a URL of ours shows as it is, beside letters, digits and `_.-~`: so one name has one spelling."""
PLACE_PARTS = 3
"""`/a/b/…`: what has these parts in common is taken to lie on one mount, and hangs together."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\x00]+")

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
_REFUSED = frozenset({
    errno.EEXIST, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTEMPTY,
    errno.EROFS, errno.EINVAL, errno.EXDEV,
})  # fmt: skip
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EBUSY, errno.ETXTBSY})


class Entry(Struct, frozen=True):
    """A file or directory. `mtime` is seconds since 1970, to the minute from some tools; None if it cannot be read."""

    url: str
    size_bytes: int
    is_dir: bool
    mtime: float | None


class Found(NamedTuple):
    """What `stat` tells of a name."""

    name: str
    size_bytes: int
    is_dir: bool
    mtime: float


class Places:
    """Runs blocking file work in threads of the place where the file lies, so that a dead mount hangs by itself.

    What is granted a time of its own, copies and checksums of large files, has threads of its own, too: a short look
    never waits for a transfer.
    """

    def __init__(self) -> None:
        self._threads: dict[tuple[str, bool], Threads] = {}

    async def run(
        self, work: Callable[[], T], path: str, what: str, *, write: bool, timeout_s: float | None = None
    ) -> T:
        """What the work returned; its OSError as one of the three, told of `what`."""
        place = "/".join(path.split("/")[:PLACE_PARTS])
        lane = (place, timeout_s is not None)
        try:
            return await self._threads.setdefault(lane, Threads(f"file://{place}")).run(work, timeout_s)
        except OSError as error:
            raise explain(error, what, write=write) from error


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


def join(url: str, name: str) -> str:
    """The URL of what has that name in the directory."""
    return f"{url.rstrip('/')}/{name}"


def explain(error: OSError, what: str, *, write: bool) -> OutsideError:
    """One of the three for an OSError: what the system refused did not happen."""
    text = f"{what}: {error.strerror or error}"
    if error.errno in _ABSENT:
        return Permanent(text, absent=True)
    if error.errno in _REFUSED:
        return Permanent(text)
    if error.errno in _FULL or not write:
        return Temporary(text)
    return Unknown(text)


def list_directory(path: str) -> list[Found]:
    """What lies in the directory, sorted, without dot files, as `gfal-ls` lists it."""
    found = []
    for name in sorted(name for name in os.listdir(path) if not name.startswith(".")):
        try:
            found.append(look(os.path.join(path, name)))
        except FileNotFoundError:
            continue  # It went away between the two calls, or it is a link to nothing.
    return found


def look(path: str) -> Found:
    """A file or directory; a link tells of what it points to."""
    info = os.stat(path)
    return Found(os.path.basename(path), info.st_size, stat.S_ISDIR(info.st_mode), info.st_mtime)


def checksum(path: str) -> int:
    """The file's adler32."""
    value = 1
    for block in _blocks(path):
        value = zlib.adler32(block, value)
    return value


def copy(source: str, path: str) -> None:
    """Copy a file to a name that does not exist yet."""
    write(_blocks(source), path)


@seam
def write(blocks: Iterable[bytes], path: str) -> None:
    """Write the blocks to a file that does not exist yet. FileExistsError if it does, Temporary if another is at it."""
    with writing(path) as file:
        file.writelines(blocks)


@contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """A file to write to that gets its name when the body ends, and goes when it raises; for the rest, see `write`."""
    if os.path.lexists(path):
        raise _exists(path)
    part = _part_of(path)
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    with open(fd, "wb") as file:
        _take(fd, part, path)
        try:
            file.truncate(0)
            yield file
            file.flush()
            os.fsync(fd)
            _give_name(part, path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    sync_directory(os.path.dirname(path))


def _take(fd: int, part: str, path: str) -> None:
    """Make the part file ours: its lock, and not its name, tells the rest of a crash from a copy that is going on."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, named = os.fstat(fd), os.lstat(part)
    except (BlockingIOError, FileNotFoundError) as error:
        raise Temporary(f"{path} is being written by somebody else") from error
    if not os.path.samestat(mine, named):
        raise Temporary(f"{path} is being written by somebody else")
    if mine.st_nlink > 1:
        # A crash between the two steps of _give_name: this is a finished file's other name, and writing would ruin it.
        os.unlink(part)
        raise Temporary(f"{path}: the rest of an interrupted copy was removed")


@seam
def rename(source: str, path: str) -> None:
    """Give a file or directory a name that does not exist yet."""
    if stat.S_ISDIR(os.lstat(source).st_mode):
        # A directory cannot be linked; `rename` would replace an empty one only, and this says so beforehand.
        if os.path.lexists(path):
            raise _exists(path)
        os.rename(source, path)
    else:
        _give_name(source, path)
    sync_directory(os.path.dirname(path))
    sync_directory(os.path.dirname(source))


@seam
def remove(path: str) -> None:
    """Remove a file; a link goes, and not what it points to."""
    os.unlink(path)
    sync_directory(os.path.dirname(path))


@seam
def remove_directory(path: str) -> None:
    """Remove a directory in which nothing lies, not even a dot file."""
    os.rmdir(path)
    sync_directory(os.path.dirname(path))


@seam
def make_directory(path: str) -> None:
    """Make the directory and its parents; an existing one is fine."""
    os.makedirs(path, exist_ok=True)


def sync_directory(path: str) -> None:
    """See to it that the names in the directory survive a power failure."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _part_of(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.part")


@seam
def _give_name(source: str, path: str) -> None:
    """Rename without ever replacing: link, then unlink. A second try after a crash between the two ends the first."""
    try:
        os.link(source, path, follow_symlinks=False)
    except FileExistsError:
        mine, there = os.lstat(source), os.lstat(path)
        if mine.st_nlink < 2 or not os.path.samestat(mine, there) or os.path.realpath(source) == os.path.realpath(path):
            raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links: nothing better than to look first.
        if os.path.lexists(path):
            raise _exists(path) from error
        os.rename(source, path)
        return
    os.unlink(source)


def _exists(path: str) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def _blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block
