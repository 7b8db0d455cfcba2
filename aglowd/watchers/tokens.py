"""PiCaS tokens: one `_changes` feed tells which types moved, one grouped query counts them all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Self

import msgspec

from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.grid.picas import Change, Cursor, FeedReset
from aglowd.model import Subject
from aglowd.store.store import Store
from aglowd.watchers.base import GATHER_REAL_S, Observations, Watcher

SOURCE = "picas"


class Tokens(Watcher):
    """`tokens:<type>` → how many tokens are todo, locked, done, error, other.

    Changes are gathered for `gather_s` world seconds; the counts of all types that changed are then asked for at once.
    A feed that lost its place is begun anew, and every type that is waited for is counted again.
    """

    kind = "tokens"
    gather_s: float = 60.0

    @staticmethod
    def poll(config: Config) -> str:
        return config.picas.poll

    @classmethod
    def build(cls, world: World, store: Store, config: Config) -> Self:
        watcher = super().build(world, store, config)
        watcher.gather_s = duration_s(config.picas.gather)
        return watcher

    async def watch(self) -> None:
        """Follow the feed and count, for ever; every `poll_s` all types are counted even if no change was told."""
        self._changed: set[str] = set()
        self._anything = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="watcher tokens: feed")
            group.create_task(self._count(), name="watcher tokens: counts")

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        counts = await self.world.picas.count_tokens([subject.id for subject in subjects])
        return [(subject, counts[subject.id]) for subject in subjects]

    async def _count(self) -> None:
        bell = self.store.bells.subject(self.kind)
        next_resync = self.clock.now()
        while True:
            self.progress_at = self.clock.now()
            bell.clear()
            self._anything.clear()
            changed, self._changed = self._changed, set()
            watched = await self.store.watched(self.kind)
            resync = self.clock.now() >= next_resync or "" in changed
            chosen = [subject for subject, version in watched if resync or version == 0 or subject.id in changed]
            if chosen:
                if await self._look(chosen):
                    next_resync = self.clock.now() + self.poll_s if resync else next_resync
                else:
                    self._changed |= changed | {subject.id for subject in chosen}
            await self._rest(bell, next_resync if watched else None)

    async def _rest(self, bell: asyncio.Event, until: float | None) -> None:
        """Gather; then until something changed, something new is waited for, or it is time to count everything."""
        gather_s = max(self.clock.real_s(self.gather_s), GATHER_REAL_S if not self.failures else 1.0)
        await asyncio.sleep(gather_s)
        if self._changed:
            return
        rest_s = self.poll_s if until is None else max(0.0, until - self.clock.now())
        seconds = self.clock.real_s(rest_s)
        waits = [asyncio.create_task(event.wait(), name="watcher tokens: bell") for event in (bell, self._anything)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _follow(self) -> None:
        """Read the feed from where it was left. Every time it begins, all types are counted: nothing hangs on the cursor."""
        while True:
            try:
                await self._read_feed()
            except FeedReset as error:
                self.log.warning("feed_reset", error=str(error))
                await self._set_cursor("", "")
                self._tell("")
            except OutsideError as error:
                self.failures += 1
                self.last_error = str(error)
                self.log.warning("feed_broken", error=str(error))
            await asyncio.sleep(max(GATHER_REAL_S, min(self.clock.real_s(30.0), 5.0)))

    async def _read_feed(self) -> None:
        info = await self.world.picas.info()
        text = await self.store.cursor(SOURCE)
        cursor = None if text is None else _cursor(text)
        since = info.update_seq
        if (
            cursor is not None
            and cursor.last_seq
            and (cursor.url, cursor.instance_start_time)
            == (
                self.world.picas.url,
                info.instance_start_time,
            )
        ):
            since = cursor.last_seq
        self._tell("")
        async with aclosing(self.world.picas.changes(since)) as feed:  # type: ignore[type-var] # it is an async generator
            async for change in feed:
                if isinstance(change, Change):
                    since = change.seq
                    if not change.id.startswith("_design/"):
                        self._tell(change.type or change.id)
                else:
                    await self._set_cursor(info.instance_start_time, since)

    def _tell(self, token_type: str) -> None:
        self._changed.add(token_type)
        self._anything.set()

    async def _set_cursor(self, start: str, seq: str) -> None:
        cursor = msgspec.json.encode(Cursor(self.world.picas.url, start, seq)).decode()
        await self.store.ingest(SOURCE, cursor, ())


def _cursor(text: str) -> Cursor | None:
    """The cursor, or None if it cannot be read: then the feed begins anew, and everything is counted."""
    try:
        return msgspec.json.decode(text, type=Cursor)
    except msgspec.DecodeError:
        return None
