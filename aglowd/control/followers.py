"""Who follows the events: each gets what is committed, as it is committed.

What must stay true: one that does not listen is left, and holds up nobody; when the daemon stops each gets its end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from aiohttp import web

from aglowd.model import Json
from aglowd.store.store import Store
from aglowd.store.views import MAX_EVENTS

MAX_FOLLOWERS = 64
HEARTBEAT_S = 10.0
"""Real seconds of silence after which a follower gets an empty line."""
GATHER_S = 0.05
"""Real seconds in which commits are gathered before the followers look: a busy daemon is read 20 times a second."""
WRITE_S = 30.0
"""Real seconds in which a follower must take what is written to it."""


class Followers:
    """Those who follow the events of that store. `stopping`: there will be no more of them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bells: set[asyncio.Event] = set()
        self.stopping = False

    @property
    def is_full(self) -> bool:
        """Whether one more is too many."""
        return len(self._bells) >= MAX_FOLLOWERS

    def wake(self) -> None:
        """Let each of them look."""
        for bell in self._bells:
            bell.set()

    async def cry(self) -> None:
        """Tell every follower that something was committed. The store's bell has one hearer, which is here."""
        bell = self._store.bells.events
        while True:
            await bell.wait()
            bell.clear()
            self.wake()
            await asyncio.sleep(GATHER_S)

    async def follow(self, response: web.StreamResponse, since: int, field: str, kinds: Sequence[str]) -> None:
        """Write the chosen events after that one, until the daemon stops."""
        bell = asyncio.Event()
        self._bells.add(bell)
        try:
            while not self.stopping:
                bell.clear()
                events = await self._store.events(since, most=MAX_EVENTS)
                if events:
                    since = events[-1]["id"]
                    chosen = [event for event in events if field in ("", event["field"])]
                    if kinds:
                        chosen = [event for event in chosen if event["kind"] in kinds]
                    if chosen:
                        await write(response, lines(chosen))
                    continue
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await bell.wait()
                except TimeoutError:
                    await write(response, b"\n")
        finally:
            self._bells.discard(bell)


async def write(response: web.StreamResponse, content: bytes) -> None:
    """To a follower; one that does not listen is left: its place is for others."""
    try:
        async with asyncio.timeout(WRITE_S):
            await response.write(content)
    except TimeoutError as error:
        raise ConnectionAbortedError("the follower takes nothing") from error


def lines(events: list[dict[str, Json]]) -> bytes:
    """Events, one a line."""
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)
