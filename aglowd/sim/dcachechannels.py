"""dCache's storage events: channels and what they are told. The service that speaks of them is `dcacheevents`.

The world tells of a file that comes online, at the instant that its recall ends, and of one that is written. As on the
real system IN_ATTRIB says no more than that something changed: it comes once or several times a recall, and for nothing.
Channels live in memory, and a stream says nothing while nothing happens. Seconds are world seconds.
"""

from __future__ import annotations

import asyncio
import heapq
import posixpath
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from aglowd.sim.storage import Storage
from aglowd.sim.tape import Tape
from aglowd.sim.world import World, digest

CHANNELS_PER_USER = 128
TIMEOUT_S = 300
RING_EVENTS = 16_384
TIMES = (1, 3)
"""How often IN_ATTRIB comes for one recall."""
ODDS_NOISE = 0.5
"""How likely a file that is asked for says IN_ATTRIB while it is still on tape."""
FLAGS = frozenset(
    [
        "IN_ACCESS",
        "IN_ATTRIB",
        "IN_CLOSE_WRITE",
        "IN_CLOSE_NOWRITE",
        "IN_CREATE",
        "IN_DELETE",
        "IN_DELETE_SELF",
        "IN_MODIFY",
        "IN_MOVE_SELF",
        "IN_MOVED_FROM",
        "IN_MOVED_TO",
        "IN_OPEN",
        "IN_ALL_EVENTS",
        "IN_CLOSE",
        "IN_MOVE",
        "IN_MASK_ADD",
        "IN_ONESHOT",
        "IN_ONLYDIR",
    ]
)

_encode = msgspec.json.Encoder().encode


@dataclass
class Subscription:
    """What a channel asked for: a directory with flags, or a metronome."""

    kind: str
    path: str = ""
    flags: frozenset[str] = frozenset()
    delay_s: float = 0.0
    next_tick: float = float("inf")
    left: int = -1


@dataclass
class Reader:
    """Who reads a stream, and what is still to be sent to it."""

    waiting: deque[bytes] = field(default_factory=deque)
    anything: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: bool = False

    def send(self, text: bytes, *, last: bool = False) -> None:
        if not self.is_over:
            self.waiting.append(text)
        self.is_over |= last
        self.anything.set()


@dataclass
class Channel:
    """One client's events; the newest are kept for who comes back."""

    name: str
    user: str
    client_id: str
    since: float
    timeout_s: float = TIMEOUT_S
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    ring: deque[tuple[int, bytes]] = field(default_factory=lambda: deque(maxlen=RING_EVENTS))
    events: int = 0
    made: int = 0
    reader: Reader | None = None

    def tell(self, kind: str, data: dict[str, Any]) -> None:
        """An event with a number: into the ring, and to the reader if there is one."""
        text = b"event: %s\nid: %d\ndata: %s\n\n" % (kind.encode(), self.events, _encode(data))
        self.ring.append((self.events, text))
        self.events += 1
        if self.reader is not None:
            self.reader.send(text)

    def say(self, type_: str, **more: str) -> None:
        """A SYSTEM event: without a number, and only to who listens."""
        if self.reader is not None:
            self.reader.send(system(type_, **more), last=type_ in ("COMPETING_CLIENT", "SHUTDOWN"))


def system(type_: str, **more: str) -> bytes:
    return b"event: SYSTEM\ndata: %s\n\n" % _encode({"type": type_, **more})


class Events:
    """The frontend's channels, and the world's news for them."""

    def __init__(self, world: World, tape: Tape, storage: Storage) -> None:
        self.world = world
        self._tape = tape
        self._storage = storage
        self.channels: dict[str, Channel] = {}
        self._made = 0
        self._coming: list[tuple[float, str]] = []
        self._sooner = asyncio.Event()
        tape.told = self.expect
        storage.told = self.happen

    # --- what the world tells

    def expect(self, path: str, asked: float, online: float) -> None:
        """A file is recalled: IN_ATTRIB when it comes online, once or more, and perhaps for nothing before."""
        draw = self.world.draw
        times = [online + 2.0 * at for at in range(TIMES[0] + int(draw("attribs", path, online) * TIMES[1]))]
        if draw("noise", path, online) < ODDS_NOISE and online > asked:
            times.append(asked + (online - asked) * draw("when", path, online))
        for at in times:
            heapq.heappush(self._coming, (at, path))
        self._sooner.set()

    def happen(self, path: str, mask: str) -> None:
        """Tell every channel that follows the file's directory with that flag."""
        directory, _, name = path.rpartition("/")
        for channel in self.channels.values():
            for key, one in channel.subscriptions.items():
                if one.path == directory and one.flags & {mask, "IN_ALL_EVENTS"}:
                    channel.tell("inotify", {"event": {"name": name, "mask": [mask]}, "subscription": key})

    async def run(self) -> None:
        """Tell of each recall when it ends, until cancelled: one timer for all of them, and none while nobody listens."""
        while True:
            self._sooner.clear()
            now = self.world.now()
            while self._coming and self._coming[0][0] <= now:
                self.happen(heapq.heappop(self._coming)[1], "IN_ATTRIB")
            is_heard = self._coming and self.channels
            wait_s = (self._coming[0][0] - now) / self.world.clock.speed if is_heard else None
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._sooner.wait()

    # --- channels

    def restart(self) -> None:
        """The frontend starts anew, and every channel is lost."""
        for channel in self.channels.values():
            channel.say("SHUTDOWN")
        self.channels.clear()

    def make(self, user: str, client_id: str) -> Channel | None:
        """A new channel; None if the user has too many."""
        if sum(channel.user == user for channel in self.listed()) >= CHANNELS_PER_USER:
            return None
        self._made += 1
        name = digest(self.world.seed, "channel", self._made).hex()
        self.channels[name] = Channel(name, user, client_id, self.world.now())
        self._sooner.set()
        return self.channels[name]

    def listed(self) -> list[Channel]:
        """The channels that live: one dies when nobody has read it for its timeout."""
        now = self.world.now()
        for name, channel in list(self.channels.items()):
            if channel.reader is None and now > channel.since + channel.timeout_s:
                del self.channels[name]
        return list(self.channels.values())

    def is_directory(self, path: str) -> bool:
        """Whether files on tape lie below it, or it is on any door's storage."""
        root = self._storage.root
        return self._tape.has_directory(path) or any((host / path.lstrip("/")).is_dir() for host in root.iterdir())


def tick(channel: Channel, now: float) -> None:
    for key, one in list(channel.subscriptions.items()):
        if now >= one.next_tick:
            one.next_tick = now + one.delay_s
            one.left -= 1
            channel.tell("metronome", {"event": "tick", "subscription": key})
            if one.left == 0:
                del channel.subscriptions[key]
                channel.say("SUBSCRIPTION_CLOSED", subscription=key)


def next_tick(channel: Channel) -> float:
    return min((one.next_tick for one in channel.subscriptions.values()), default=float("inf"))


def metronome(body: Mapping[str, Any], now: float) -> Subscription | str:
    delay, count = body.get("delay"), body.get("count", -1)
    if not isinstance(delay, int) or not isinstance(count, int) or delay < 1:
        return "a metronome has a delay of some seconds"
    return Subscription("metronome", delay_s=delay, next_tick=now + delay, left=count)


def inotify(body: Mapping[str, Any], events: Events) -> Subscription | str:
    path, flags = body.get("path"), body.get("flags", ["IN_ALL_EVENTS"])
    if not isinstance(flags, list) or not flags or not FLAGS.issuperset(flags):
        return f"bad flags: {flags}"
    if not isinstance(path, str) or path != posixpath.normpath(path) or not path.startswith("/"):
        return f"bad path: {path}"
    if not events.is_directory(path):
        return f"No such file or directory: {path}"
    return Subscription("inotify", path, frozenset(flags))
