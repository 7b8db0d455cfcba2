"""Directories of many doors, listed at once: a door that is dead, slow or closed keeps only its own listings back.

What must stay true: so many listings are under way at one door and no more; a look ends, whatever hangs, and what it had no
time for is left out, not the same at each look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from aglowd.errors import OutsideError
from aglowd.model import Json
from aglowd.watchers.base import Watcher

LISTINGS_AT_ONCE = 4
"""Listings of one watcher, or of one tree, at one door."""
LOOK_REAL_S = 60.0
"""Real seconds after which a look begins nothing more; what is under way has its own time."""


class Listings(Watcher):
    """A watcher that lists directories."""

    async def listed(self, urls: Iterable[str], ask: Callable[[str], Awaitable[Json]]) -> dict[str, Json]:
        """URL → what `ask` says of it; without those that failed, and those for which no time was left."""
        doors: dict[str, list[str]] = {}
        for url in dict.fromkeys(urls):
            doors.setdefault(_door(url), []).append(url)
        found: dict[str, Json] = {}
        late: list[str] = []
        began = self.clock.now()

        async def one(url: str) -> None:
            if self.clock.real_s(self.clock.now() - began) > LOOK_REAL_S:
                late.append(url)
                return
            try:
                found[url] = await ask(url)
            except OutsideError as error:
                self.log.warning("listing_failed", url=url, error=str(error))
            self.progress_at = self.clock.now()

        asked = (at_once(self._in_any_order(of_door), one) for of_door in doors.values())
        for defect in await asyncio.gather(*asked, return_exceptions=True):
            if defect is not None:
                raise defect
        if late:
            self.log.warning("look_cut_short", left=len(late), first=late[0])
        return found

    def _in_any_order(self, urls: list[str]) -> list[str]:
        """Where not all are listed at once, another one may be the last each time."""
        return sorted(urls, key=lambda _: self.clock.jitter()) if len(urls) > LISTINGS_AT_ONCE else urls


def _door(url: str) -> str:
    """Where a URL is asked: the server, or on a local disk the place that may be a mount of its own."""
    return "/".join(url.split("/")[: 5 if url.startswith("file://") else 3])


async def at_once(urls: Iterable[str], ask: Callable[[str], Awaitable[None]]) -> None:
    """Ask of each, `LISTINGS_AT_ONCE` at a time; what one of them raises ends all."""
    rest = iter(urls)

    async def some() -> None:
        for url in rest:
            await ask(url)

    tasks = [asyncio.create_task(some()) for _ in range(LISTINGS_AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
