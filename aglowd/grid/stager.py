"""What all stagers have in common: the legacy LTA stager, StageIT, and dCache itself bring files from tape to disk.

What must stay true: a stager's word is a hint. A request may vanish, finish without its files, or say "success" while
they are on tape; where the files are is asked elsewhere (`dcache.py`). Adapters decide nothing, and what
one remembers (`stageit.py`) only spares questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from aglowd.errors import Permanent

Request = int | str
"""A request's name: a number at the LTA, a UUID at a dCache."""

DEAD = frozenset({"failed", "aborted"})
FINAL = frozenset({"success", "partial success", "completed"}) | DEAD
"""Statuses in which a stager does no more for a request."""


class Progress(Struct, frozen=True):
    """One request; None where the stager says nothing usable. `status` is lower case.

    Statuses: new, scheduled, in progress, on hold, success, partial success, failed, aborted; others as they come.
    """

    status: str
    file_count: int | None = None
    files_done: int | None = None
    percent: float | None = None
    location: str = ""
    flagged_abort: bool = False

    @property
    def state(self) -> str:
        """The status; `aborted` already while the stager still says of an aborted request that it goes on."""
        return "aborted" if self.flagged_abort and self.status not in FINAL else self.status

    @property
    def is_dead(self) -> bool:
        """Whether it was given up: what it has not brought online it never will."""
        return self.state in DEAD


def listed(surls: Sequence[str]) -> list[str]:
    """The SURLs as a list; Permanent for one alone, whose letters would be asked for one by one."""
    if isinstance(surls, str):
        raise Permanent(f"found the text {surls[:100]!r}; expected a list of SURLs")
    return [surl.strip() for surl in surls]


class Stager(Protocol):
    """The verbs of every stager. They raise only errors.Temporary, Permanent and Unknown."""

    async def stage(self, surls: Sequence[str]) -> Request:
        """Ask for the files; the name of the new request."""

    async def progress(self) -> dict[Request, Progress]:
        """All requests that the stager shows of us, in one round trip or a page each; a finished one may be missing."""

    async def status(self, request: Request) -> str:
        """The request's status in lower case, empty when the stager does not know it."""

    async def requested(self, request: Request) -> tuple[str, ...] | None:
        """The SURLs that it is for, none if the stager does not know it; None if this stager never tells."""

    async def staged(self, request: Request) -> tuple[str, ...]:
        """The request's SURLs that are online, also while it goes on; none when the stager does not know it."""

    async def abort(self, request: Request) -> None:
        """Stop a running request or release what a finished one holds; absent when the stager does not know it."""

    async def reschedule(self, request: Request) -> None:
        """Put a request that was held or aborted back in the queue; Permanent where the stager has no such thing."""
