"""dCache's storage events: which subjects ought to be looked at before their watcher's next round.

What must stay true: nothing rests on events. They bring looks forward; the rounds of the watchers go on underneath, and
an event that is lost costs time only. There is one channel for the whole daemon, at the dCache of `[dcache]`, whatever
waits; what is at a site that has another dCache is looked at in the rounds only. After the channel was made anew, or
whenever events may have been missed, everything is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType

from aglowd.config import Config
from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.grid.dcache_events import ChannelLost, DcacheEvents, Hint, NotFollowed, Overtaken, place_of
from aglowd.model import Subject
from aglowd.store.store import Store
from aglowd.watchers import arrivals, directories, localities
from aglowd.watchers.base import GATHER_REAL_S, Watcher

FOLLOWED: Mapping[str, Callable[[Subject], set[str]]] = MappingProxyType({
    localities.Localities.kind: localities.directories,
    directories.Directories.kind: directories.directories,
    arrivals.Arrivals.kind: directories.directories,
})  # fmt: skip
"""Kind of subject → the directories in which something happens when such a subject changes."""
MAX_FOLLOWED = 2000
"""Directories that are subscribed at once; the subjects of all others are looked at in their rounds only."""
TICK_S = 30.0
"""World seconds between two ticks of the stream. At each one what is subscribed is made what is waited for."""
TICK_LEAST_REAL_S = 0.5
SILENT_TICKS = 3
"""A stream that misses so many ticks is taken for dead: dCache sends no heartbeat of its own."""
RETRY_S = 10.0
RETRY_MOST_S = 3600.0
"""World seconds until a stream that failed is tried again: doubled each time, up to this."""
FAILURES_BEFORE_ANEW = 2
"""A channel whose stream failed so often in a row is given up for a new one: its metronome may have stopped."""
REFUSED_S = 1800.0
"""World seconds until a directory that could not be subscribed is tried again: it may have been made meanwhile."""

Key = tuple[str, str]
"""Kind and key of a subject."""


class Events(Watcher):
    """No subjects of its own: follows the directories that others' subjects name, and hints at these subjects."""

    kind = "events"

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self.tick_s = max(TICK_S, TICK_LEAST_REAL_S * self.clock.rate)
        self._channel = ""
        self._last_id = ""
        self._takeovers = 0
        self._followed: dict[str, str] = {}
        self._refused: dict[str, float] = {}
        self._subjects: dict[str, set[Key]] = {}

    @staticmethod
    def poll(config: Config) -> str:
        return config.dcache.poll

    @property
    def is_at_rest(self) -> bool:
        """Always: it records nothing, and nobody waits for a look of its."""
        return True

    async def watch(self) -> None:
        """Follow the stream for ever; one that fails is tried again, ever later, and `note` says so."""
        events = self.world.events
        while events is None:
            self.progress_at = self.clock.now()
            await self.clock.sleep(self.poll_s)
        while True:
            try:
                await self._follow(events)
            except OutsideError as error:
                self._fail(error)
            await self._rest()

    async def _follow(self, events: DcacheEvents) -> None:
        """Read one stream until it fails, which it does sooner or later."""
        if not self._channel:
            self._followed.clear()
            self._last_id = ""
            # Under the old name we would take the channel back from who took it, and so on for ever.
            name = events.client_id if not self._takeovers else f"{events.client_id}#{self._takeovers}"
            self._channel = await events.open(name, tick_s=math.ceil(self.tick_s))
        silent_s = SILENT_TICKS * self.clock.real_s(self.tick_s)
        stream = events.stream(self._channel, self._followed, self._last_id, silent_s=silent_s)
        async with aclosing(stream) as said:  # type: ignore[type-var] # it is an async generator
            opened_at: float | None = None
            async for one in said:
                self.progress_at = self.clock.now()
                self._last_id = one.id or self._last_id
                if isinstance(one, Hint):
                    self._take(one)
                    continue
                if opened_at is not None and self.clock.now() > opened_at + self.tick_s / 2:
                    self._succeed()  # It lives: these are no ticks of before, which are told again.
                await self._subscribe(events)
                if opened_at is None:
                    opened_at = self.clock.now()
                    if not self._last_id:
                        self._take(Hint(None))  # Nobody tells what happened before.

    def _take(self, hint: Hint) -> None:
        """Ask for an early look at what the hint is about."""
        if hint.ended:
            # In place: the stream reads the same table.
            for name in [name for name, place in self._followed.items() if place == hint.directory]:
                del self._followed[name]
        if hint.directory is None:
            subjects = set[Key]().union(*self._subjects.values())
        else:
            subjects = self._subjects.get(hint.directory, set())
        for kind in FOLLOWED:
            self.store.bells.hint(kind, {key for found, key in subjects if found == kind})

    async def _subscribe(self, events: DcacheEvents) -> None:
        """See to it that the directories that are waited for are followed, and no others."""
        self._subjects = wanted = await self._wanted(events)
        for name, directory in list(self._followed.items()):
            if directory not in wanted:
                await events.unsubscribe(self._channel, name)
                del self._followed[name]
        self._refused = {directory: at for directory, at in self._refused.items() if directory in wanted}
        for directory in sorted(wanted.keys() - set(self._followed.values())):
            if len(self._followed) >= MAX_FOLLOWED:
                break
            if self.clock.now() < self._refused.get(directory, -math.inf):
                continue
            try:
                self._followed[await events.subscribe(self._channel, directory)] = directory
            except NotFollowed as error:
                if directory not in self._refused:
                    self.log.info("directory_not_followed", directory=directory, error=str(error))
                self._refused[directory] = self.clock.now() + REFUSED_S
            else:
                self._refused.pop(directory, None)
                self._take(Hint(directory))  # It may have happened before we subscribed.
            self.progress_at = self.clock.now()
        if not self.failures:
            left = len(wanted) - len(self._followed)
            self.note = f"events: {len(self._followed)} directories followed" + (f", {left} polled" if left else "")

    async def _wanted(self, events: DcacheEvents) -> dict[str, set[Key]]:
        """Directory of this dCache → the subjects that are waited for and change when something happens in it."""
        wanted: dict[str, set[Key]] = {}
        for kind, directories_of in FOLLOWED.items():
            for subject, _ in await self.store.watched(kind):
                if _place(subject) in events.elsewhere:
                    continue  # Another dCache may have a directory of the same name.
                for directory in directories_of(subject):
                    wanted.setdefault(directory, set()).add((kind, subject.key))
        return wanted

    def _fail(self, error: OutsideError) -> None:
        self.failures += 1
        self.last_error = str(error)
        self.note = f"events: off because {error}"
        if self.failures == 1:
            self.log.warning("events_off", error=str(error))
        self._takeovers += isinstance(error, Overtaken)
        if isinstance(error, ChannelLost | Overtaken) or self.failures >= FAILURES_BEFORE_ANEW:
            self._channel = ""

    def _succeed(self) -> None:
        """The stream has lived for a while."""
        if self.failures:
            self.log.info("events_on", failures=self.failures)
        self.failures, self.last_error, self.last_ok = 0, "", self.clock.now()

    async def _rest(self) -> None:
        """Until the next try; never so that it looks like hanging."""
        seconds = min(RETRY_S * 2.0 ** min(self.failures - 1, 20), RETRY_MOST_S) * self.clock.jitter()
        seconds = max(seconds, GATHER_REAL_S * self.clock.rate)
        while seconds > 0:
            self.progress_at = self.clock.now()
            await self.clock.sleep(min(seconds, self.poll_s))
            seconds -= self.poll_s


def _place(subject: Subject) -> str:
    """The site of the subject's files, or where its directory is."""
    return place_of(subject.args["url"]) if "url" in subject.args else str(subject.args.get("site", ""))
