"""What all ways to ask where files are have in common: dCache's REST interface, and the gfal tools.

What must stay true: silence is no locality, and only the site's own word makes a file LOST or NONE. A look at many files
that fails at one of them tells nothing of any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from msgspec import Struct

from aglowd.errors import OutsideError, Permanent
from aglowd.grid.surl import parse_surl
from aglowd.parts import in_parts

if TYPE_CHECKING:
    from aglowd.grid.dcache import FileInfo

MAX_WORD_CHARS = 40
"""A locality is a word."""
WORDS: Mapping[str, str] = MappingProxyType({
    "DISK": "ONLINE",
    "DISK_AND_TAPE": "ONLINE",
    "ONLINE_AND_NEARLINE": "ONLINE",
    "TAPE": "NEARLINE",
})  # fmt: skip


class Space(Struct, frozen=True):
    """How much is used and how much there is, in bytes; None where the site does not tell.

    Disk and tape are our quota's replica and custodial bytes. `pool_removable_bytes` are copies that may go for new ones.
    """

    disk_used_bytes: int | None = None
    disk_limit_bytes: int | None = None
    tape_used_bytes: int | None = None
    tape_limit_bytes: int | None = None
    pool_total_bytes: int | None = None
    pool_free_bytes: int | None = None
    pool_removable_bytes: int | None = None


class Archive(Protocol):
    """The verbs of every way. They raise only errors.Temporary, Permanent and Unknown."""

    async def localities(self, surls: Sequence[str], sizes: dict[str, int] | None = None) -> dict[str, str]:
        """SURL → ONLINE, NEARLINE, LOST, NONE (no such file) or UNAVAILABLE (its disk is away: wait for it).

        A SURL that the site says nothing about is not in the answer: that is no locality. `sizes` gets the bytes of the
        files of which the same answers tell them; nothing more is asked for that.
        """

    async def contents(self, surls: Sequence[str]) -> dict[str, FileInfo]:
        """SURL → size and checksum, as far as the site tells them; what it does not let us see is not in the answer."""

    async def copies(self, surl: str) -> str | None:
        """The newest file beside this one that has its name but for the hash before `.tar`: it was ingested again.

        None if there is no other, or if nobody can tell.
        """

    async def space(self) -> Space:
        """How much room there is for us, as far as the site tells."""


def word(value: Any) -> str:
    """A locality in our words."""
    known = value[:MAX_WORD_CHARS].strip().upper() if isinstance(value, str) else ""
    return WORDS.get(known, known)


async def by_path(surls: Sequence[str]) -> dict[str, list[str]]:
    """Path → the spellings in which it was asked for."""
    found: dict[str, list[str]] = {}
    async for surl in in_parts(surls):
        try:
            found.setdefault(parse_surl(surl).path, []).append(surl)
        except ValueError as error:
            raise Permanent(f"dCache: {error}") from error
    return found


async def each(
    paths: Iterable[str], look: Callable[[str], Coroutine[Any, Any, None]], firsts: Iterable[str] = ()
) -> None:
    """Look at all of them at once, as far as the site has places; the first failure ends the others.

    `firsts`, or the first, are looked at alone: a credential that has expired is to be refused once, and not at each place.
    """
    every = list(paths)
    alone = list(firsts) or every[:1]
    for path in alone:
        await look(path)
    known = set(alone)
    try:
        async with asyncio.TaskGroup() as group:
            async for path in in_parts(every):
                if path not in known:
                    group.create_task(look(path))
    except* OutsideError as errors:
        failed = errors.exceptions[0]
    else:
        return
    raise failed
