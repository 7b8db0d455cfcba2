"""The `_changes` feed of the token database: catching up page by page, then line by line, or poll by poll where something
in between holds lines back.

What must stay true: sequences are opaque texts that nobody compares; a feed tells at least once, and only the latest
revision; every wait has a timeout of our own; and compression is refused, because a compressing server holds its lines
back for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct

from aglowd.errors import Permanent, Temporary
from aglowd.grid.http import Lines, Reply, json_of
from aglowd.grid.words import shown

PAGE_CHANGES = 5000
"""In one answer while catching up: a place up to which the cursor may be moved comes after each."""
SILENT_BEATS = 3
"""A feed that misses so many heartbeats is taken for dead."""
POLL_S = 25.0
"""Real seconds that a server holds a poll without news; what stands in between may cut longer ones."""
PAUSE_S = 1.0
"""Real seconds between two polls without news: a server that does not wait is not asked without end."""
IDENTITY = {"Accept-Encoding": "identity"}


class Change(Struct, frozen=True):
    """A document changed. `type` is what its id says: the text before the first colon, None when there is no colon."""

    id: str
    seq: str
    type: str | None
    deleted: bool


class Heartbeat(Struct, frozen=True):
    """Nothing changed, and the feed lives; or a page is over. Up to here all has been told."""


class FeedReset(Temporary):
    """The database does not know our sequence any more: read everything again and begin from now."""


Ask = Callable[..., Awaitable[Reply]]
"""(params, headers, timeout_s) → one answer of `_changes`."""
Open = Callable[..., AbstractAsyncContextManager[Lines]]
"""(params, headers, read_timeout_s) → an answer of `_changes` that never ends."""


class Feed:
    """What changes. It remembers whether lines come through; one in front of which something buffers is polled."""

    def __init__(self, ask: Ask, open_: Open) -> None:
        self._ask = ask
        self._open = open_
        self._is_buffered = False

    async def follow(self, since: str | None, heartbeat_s: float) -> AsyncIterator[Change | Heartbeat]:
        """What changes after the sequence `since` (None: from now on), for ever; `heartbeat_s` is in real seconds.

        FeedReset when the sequence is not known there; Temporary when the feed breaks off or falls silent.
        """
        seq = "now" if since is None else since
        loop = asyncio.get_running_loop()
        try:
            while since is not None:
                results, seq, pending = await self._page({"feed": "normal", "limit": str(PAGE_CHANGES), "since": seq})
                for row in results:
                    yield _change(row.id, row.seq, row.deleted)
                yield Heartbeat()
                if not pending and len(results) < PAGE_CHANGES:
                    break
            while self._is_buffered:
                params = {
                    "feed": "longpoll",
                    "since": seq,
                    "timeout": str(int(POLL_S * 1000)),
                    "limit": str(PAGE_CHANGES),
                }
                asked_at = loop.time()
                results, seq, _ = await self._page(params, timeout_s=POLL_S + SILENT_BEATS * heartbeat_s)
                for row in results:
                    yield _change(row.id, row.seq, row.deleted)
                yield Heartbeat()
                if not results:
                    await asyncio.sleep(asked_at + PAUSE_S - loop.time())
            params = {"feed": "continuous", "heartbeat": str(max(1, int(heartbeat_s * 1000))), "since": seq}
            silent, beat_at = True, loop.time() + heartbeat_s
            try:
                async with self._open(
                    params=params, headers=IDENTITY, read_timeout_s=SILENT_BEATS * heartbeat_s
                ) as lines:
                    async for block in lines.blocks():
                        silent, is_beat = False, loop.time() >= beat_at
                        for line in block:
                            if line.strip():
                                if (change := _change_in(line)) is not None:
                                    yield change
                            else:
                                is_beat = True
                        # A feed that always has something to tell sends no empty lines.
                        if is_beat:
                            beat_at = loop.time() + heartbeat_s
                            yield Heartbeat()
            except Temporary as error:
                # Not even a heartbeat came through: something in between waits for the end of the answer.
                self._is_buffered = self._is_buffered or (silent and _is_silence(error))
                raise
        except Permanent as error:
            raise FeedReset(f"PiCaS _changes: sequence {seq[:40]} is not known: {error}") from error
        raise Temporary("PiCaS _changes: the server ended the feed")

    async def _page(self, params: dict[str, str], timeout_s: float | None = None) -> tuple[list[_Row], str, int]:
        """The rows of an answer, the sequence up to which it tells, and how many changes are left behind it, if that is told."""
        reply = await self._ask(params=params, headers=IDENTITY, timeout_s=timeout_s)
        try:
            page = msgspec.json.decode(reply.body, type=_Page)
        except msgspec.ValidationError as error:
            raise Temporary(f"PiCaS _changes: the answer is no page of changes: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            json_of(reply, "PiCaS _changes", write=False)
            raise AssertionError("what is no JSON here is none there") from None
        return page.results, seq_text(page.last_seq), page.pending


class _Row(Struct):
    """A change as the server writes it."""

    id: str
    seq: Any = None
    deleted: bool = False


class _Page(Struct):
    """An answer that ends."""

    results: list[_Row]
    last_seq: Any
    pending: int = 0


class _Line(Struct):
    """A line of an answer that never ends: a change, the end, or an error."""

    id: str | None = None
    seq: Any = None
    deleted: bool = False
    last_seq: Any = None
    error: Any = None
    reason: Any = None


_decode_line = msgspec.json.Decoder(_Line).decode


def _change(name: str, seq: Any, deleted: bool) -> Change:
    kind, colon, _ = name.partition(":")
    return Change(name, seq if isinstance(seq, str) else seq_text(seq), kind if colon else None, deleted)


def _change_in(line: bytes) -> Change | None:
    """A line of the feed; None for its last, which only repeats the sequence. Raises Temporary."""
    try:
        row = _decode_line(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Temporary(f"PiCaS _changes: a line is no change ({error})") from error
    if row.id is not None:
        return _change(row.id, row.seq, row.deleted)
    if row.last_seq is not None:
        return None
    raise Temporary(f"PiCaS _changes: {shown(row.error)}: {shown(row.reason, 200)}")


def _is_silence(error: Temporary) -> bool:
    """Whether there was a connection, and nothing came."""
    cause = error.__cause__
    return isinstance(cause, TimeoutError) and not isinstance(cause, aiohttp.ConnectionTimeoutError)


def seq_text(value: Any) -> str:
    """A sequence as text: a string in CouchDB, a number in pouchdb-server, once an array in BigCouch."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
