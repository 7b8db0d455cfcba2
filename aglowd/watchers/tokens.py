"""PiCaS tokens: one `_changes` feed a database tells which types moved, one grouped query counts them all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress

import msgspec

from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.errors import OutsideError
from aglowd.grid.picas import Change, Cursor, FeedReset, Picas
from aglowd.model import Subject
from aglowd.watchers.base import GATHER_REAL_S, HINTS_APART_S, Observations, Watcher
from aglowd.watchers.token_bases import base_of, by_base, list_bases, type_of

SOURCE = "picas"
"""Of the common database; that of another one has the first of its sites behind it."""
MAX_CHANGED = 10_000
"""Names that are gathered one by one; when there are more, everything is counted."""


class _Base:
    """One database: what its feed told since the last count, and how its counts go."""

    def __init__(self, site: str, picas: Picas) -> None:
        self.site = site
        self.picas = picas
        self.source = f"{SOURCE}-{site}" if site else SOURCE
        self.changed: set[str] = set()
        self.is_vague = False
        """Whether a document changed whose id does not say of which type it is."""
        self.anything = asyncio.Event()
        self.failures = 0
        self.rested = False
        """Whether it waits for the next count, after one at least."""

    @property
    def is_at_rest(self) -> bool:
        """Whether all was counted, nothing has changed since, and nothing new is waited for."""
        return self.rested and not self.changed and not self.anything.is_set()

    def tell(self, token_type: str | None) -> None:
        """Tokens of that type moved; "" = of any; None = nobody knows of which, which is no reason to hurry."""
        if token_type is None:
            self.is_vague = True
            self.anything.set()
            return
        if len(self.changed) >= MAX_CHANGED:
            self.changed = {""}
        self.changed.add(token_type)
        self.anything.set()


class Tokens(Watcher):
    """`tokens:<type>` (args: token_type, site) → how many tokens are todo, locked, done, error, other.

    Changes are gathered for `gather_s` world seconds; the counts of all types that changed are then asked for at once.
    A feed that lost its place is begun anew, and every type that is waited for is counted again; so it is, now and then, while
    documents change whose ids name no type. Each database has a feed and counts of its own: one that fails keeps no other's
    back.
    """

    kind = "tokens"
    gather_s: float = 60.0
    _bases: Sequence[_Base] = ()

    @staticmethod
    def poll(config: Config) -> str:
        return config.picas.poll

    def heed(self, config: Config) -> None:
        super().heed(config)
        self.gather_s = duration_s(config.picas.gather)

    @property
    def is_at_rest(self) -> bool:
        heard = not self.store.bells.subject(self.kind).is_set()
        return heard and bool(self._bases) and all(base.is_at_rest for base in self._bases)

    async def watch(self) -> None:
        """Follow the feeds and count, for ever; every `poll_s` all types are counted even if no change was told."""
        self._bases = bases = [_Base(site, picas) for site, picas in list_bases(self.world)]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._hear(bases), name="watcher tokens: bell")
            for base in bases:
                group.create_task(self._follow(base), name=f"watcher tokens: feed of {base.source}")
                group.create_task(self._count(base), name=f"watcher tokens: counts of {base.source}")

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each(by_base(self.world, subjects), self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        base = base_of(self.world, subjects[0])
        counts = await base.count_tokens(list(dict.fromkeys(map(type_of, subjects))))
        # Whoever waits for the counts waits for those in trouble, too; these are asked for in one query more.
        self.store.bells.hint("troubled", [f"troubled:{subject.id}" for subject in subjects])
        return [(subject, counts[type_of(subject)]) for subject in subjects]

    async def _hear(self, bases: Sequence[_Base]) -> None:
        """The bell has one hearer: whoever came late to it would miss what another has taken for his own."""
        bell = self.store.bells.subject(self.kind)
        while True:
            await bell.wait()
            bell.clear()
            for base in bases:
                base.anything.set()

    async def _count(self, base: _Base) -> None:
        next_resync = all_again = self.clock.now()
        while True:
            self.progress_at = self.clock.now()
            base.rested = False
            base.anything.clear()
            changed, base.changed = base.changed, set()
            everything = await self.store.watched(self.kind)
            self.forget_silent(subject for subject, _ in everything)
            self._waited_for(is_so=bool(everything))
            watched = [pair for pair in everything if self._find(pair[0]) is base.picas]
            strangers = [subject.id for subject, _ in everything if self._find(subject) is None]
            self.note = f"tokens of sites that are not configured: {', '.join(strangers[:5])}" if strangers else ""
            next_resync = min(next_resync, self.clock.now() + self.poll_s)  # The interval may be shorter by now.
            is_vague = base.is_vague and self.clock.now() >= all_again
            resync = self.clock.now() >= next_resync or "" in changed or is_vague
            chosen = [subject for subject, version in watched if resync or version == 0 or type_of(subject) in changed]
            if resync:
                base.is_vague, all_again = False, self.clock.now() + HINTS_APART_S
            if chosen:
                if await self._look(chosen):
                    base.failures = 0
                    next_resync = self.clock.now() + self.poll_s if resync else next_resync
                else:
                    base.failures += 1
                    base.changed |= changed | set(map(type_of, chosen))
            until = min(next_resync, all_again) if base.is_vague else next_resync
            base.rested = True
            await self._rest(base, until if watched else None)

    def _find(self, subject: Subject) -> Picas | None:
        """The database of its tokens; None for a site that is configured no more."""
        with suppress(ValueError):
            return base_of(self.world, subject)
        return None

    async def _rest(self, base: _Base, until: float | None) -> None:
        """Gather; then until something changed, something new is waited for, or it is time to count everything."""
        gather_s = max(self.clock.real_s(self.gather_s), GATHER_REAL_S if not base.failures else 1.0)
        await asyncio.sleep(gather_s)
        if base.changed:
            return
        rest_s = self.poll_s if until is None else max(0.0, until - self.clock.now())
        with suppress(TimeoutError):
            async with asyncio.timeout(self.clock.real_s(rest_s)):
                await base.anything.wait()

    async def _follow(self, base: _Base) -> None:
        """Read the feed from where it was left. Every time it begins, all types are counted: nothing hangs on the cursor."""
        while True:
            try:
                await self._read_feed(base)
            except FeedReset as error:
                self.log.warning("feed_reset", base=base.source, error=str(error))
                await self._set_cursor(base, "", "")
                base.tell("")
            except OutsideError as error:
                self.failures += 1
                base.failures += 1
                self.last_error = str(error)
                # What changes there is not told now; everything is counted as soon as the feed begins anew.
                watched = await self.store.watched(self.kind)
                self.miss([subject for subject, _ in watched if self._find(subject) is base.picas], error)
                self.log.warning("feed_broken", base=base.source, error=str(error))
            await asyncio.sleep(max(GATHER_REAL_S, min(self.clock.real_s(30.0), 5.0)))

    async def _read_feed(self, base: _Base) -> None:
        info = await base.picas.info()
        text = await self.store.cursor(base.source)
        cursor = None if text is None else _cursor(text)
        since = info.update_seq
        if (
            cursor is not None
            and cursor.last_seq
            and (cursor.url, cursor.instance_start_time)
            == (
                base.picas.url,
                info.instance_start_time,
            )
        ):
            since = cursor.last_seq
        base.tell("")
        kept_at = self.clock.now()
        async with aclosing(base.picas.changes(since)) as feed:  # type: ignore[type-var] # it is an async generator
            async for change in feed:
                if isinstance(change, Change):
                    since = change.seq
                    if not change.id.startswith("_design/"):
                        base.tell(change.type)
                    if self.clock.now() - kept_at < self.gather_s:
                        continue  # A feed that is never silent keeps its place now and then.
                await self._set_cursor(base, info.instance_start_time, since)
                kept_at = self.clock.now()

    async def _set_cursor(self, base: _Base, start: str, seq: str) -> None:
        cursor = msgspec.json.encode(Cursor(base.picas.url, start, seq)).decode()
        await self.store.ingest(base.source, cursor, ())


def _cursor(text: str) -> Cursor | None:
    """The cursor, or None if it cannot be read: then the feed begins anew, and everything is counted."""
    try:
        return msgspec.json.decode(text, type=Cursor)
    except msgspec.DecodeError:
        return None
