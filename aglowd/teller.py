"""Tells people by themselves what went wrong, beside everything else and in nobody's way.

It reads the log of events from where it was left, each channel by itself. What must stay true: where a channel was left is
written after it took a message, so that a crash loses none and repeats one message at most, as it was and under its id; what
happens within a moment is one message; a channel that is down is asked ever more rarely, tells all of it when it is back, and keeps no other one waiting.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import Callable, Mapping, Sequence

import structlog

from aglowd.clock import Clock
from aglowd.durations import duration_text
from aglowd.errors import AglowError
from aglowd.grid.channels import Channel, Message
from aglowd.grid.gate import Credential, Site
from aglowd.model import Json
from aglowd.notices import message_of
from aglowd.store.rows import dumps
from aglowd.store.store import Store

MAX_TOLD = 1000
"""Events in one message."""
BACKOFF_MOST_S = 3600.0
"""World seconds after which a channel that took nothing is asked again, at most."""
LEAST_REAL_S = 0.2
"""Real seconds of any rest: where time flies, the log is read no more often for that."""
SLICE_REAL_S = 10.0
"""A long rest shows so often that it is one."""

TROUBLES = "troubles"
"""Beside the channels, what is noted."""
Troubles = Mapping[str, str]
"""Name → why it is not well, or '' if it is; what nobody knows is not in it."""


class Teller:
    """Notes what goes wrong as events, and tells each channel of them; without channels it only notes."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Channel],
        clock: Clock,
        troubles: Callable[[], Troubles],
        *,
        gather_s: float,
        apart_s: float,
    ) -> None:
        self._store = store
        self._channels = channels
        self._clock = clock
        self._troubles = troubles
        self._gather_s = gather_s
        self._apart_s = apart_s
        self._host = socket.gethostname()
        self._log = structlog.get_logger("teller")
        self._changed = asyncio.Event()
        self.progress_at = clock.now()
        self.defects: dict[str, str] = {}
        """Channel → why it took nothing at the last try."""

    def heed(self, channels: Mapping[str, Channel], *, gather_s: float, apart_s: float) -> None:
        """Go on with these channels. A message that is on its way may come twice, as after a crash."""
        self._channels, self._gather_s, self._apart_s = channels, gather_s, apart_s
        self.defects = {name: why for name, why in self.defects.items() if name in (TROUBLES, *channels)}
        self._changed.set()

    async def run(self) -> None:
        """Note and tell, for ever."""
        while True:
            self._changed.clear()
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._note(), name="teller: troubles")]
                for name, channel in self._channels.items():
                    tasks.append(group.create_task(self._tell(name, channel), name=f"teller: {name}"))
                await self._changed.wait()
                for task in tasks:
                    task.cancel()

    async def has_told(self) -> bool:
        """Whether each channel has taken all that there is to tell, or did not take anything at the last try."""
        for name in self._channels:
            kept = await self._store.cursor(_cursor(name))
            if name not in self.defects and (kept is None or (await self._store.notices(int(kept), 1))[0]):
                return False
        return True

    async def _note(self) -> None:
        noted: dict[str, bool] | None = None
        while True:
            try:
                current = self._troubles()
                ill = {name: bool(why) for name, why in current.items()}
                if ill != noted:  # What is as it was needs no commit.
                    await self._store.note_troubles(current)
                    noted = ill
                self.defects.pop(TROUBLES, None)
            except Exception as error:  # Who cannot tell what goes wrong is no reason to stop the work.
                self._failed(TROUBLES, error)
            await self._rest(self._gather_s)

    async def _tell(self, name: str, channel: Channel) -> None:
        since: int | None = None
        failures = 0
        while True:
            rest_s = self._gather_s
            try:
                if since is None:
                    since = await self._left(name)
                tried = int(await self._store.cursor(_trying(name)) or 0)
                events, last = await self._store.notices(since, MAX_TOLD, tried if tried > since else None)
                if events:
                    if tried <= since:
                        # What else happens within a moment belongs into the same message.
                        await self._rest(self._gather_s)
                        events, last = await self._store.notices(since, MAX_TOLD)
                        await self._store.ingest(_trying(name), str(last), ())
                    subject, text, data = message_of(events, self._host)
                    id_ = _id_of(events, self._host)
                    await channel.send(Message(id_, subject, text, {"id": id_, **data}))
                if events or tried > since:
                    await self._store.ingest(_cursor(name), str(last), ())
                if events:
                    self._log.info("told", channel=name, events=len(events))
                    rest_s = self._apart_s
                since = last
            except Exception as error:
                failures += 1
                self._failed(name, error)
                rest_s = min(self._gather_s * 2.0 ** min(failures - 1, 20), BACKOFF_MOST_S)
            else:
                failures = 0
                self.defects.pop(name, None)
            await self._rest(rest_s)

    async def _left(self, name: str) -> int:
        """Where the channel was left; a new one hears nothing of what was before."""
        kept = await self._store.cursor(_cursor(name))
        if kept is not None:
            return int(kept)
        _, last = await self._store.notices(2**62, 1)
        await self._store.ingest(_cursor(name), str(last), ())
        return last

    def _failed(self, name: str, error: Exception) -> None:
        said = str(error) if isinstance(error, AglowError) else f"{type(error).__name__}: {error}"
        self.defects[name] = f"{name}: {said}"
        self._log.warning("cannot_tell", channel=name, error=said)

    async def _rest(self, world_s: float) -> None:
        left_s = max(self._clock.real_s(world_s), LEAST_REAL_S)
        while left_s > 0:
            self.progress_at = self._clock.now()
            await asyncio.sleep(min(left_s, SLICE_REAL_S))
            left_s -= SLICE_REAL_S
        self.progress_at = self._clock.now()


def _cursor(channel: str) -> str:
    return f"told by {channel}"


def _trying(channel: str) -> str:
    """Up to which event the message goes that is being sent: tried again, it is the same one, whatever has come since."""
    return f"being told by {channel}"


def _id_of(events: Sequence[Mapping[str, Json]], host: str) -> str:
    """The same for the same events and for no others: not even for another daemon's, or of numbers that a restore has given anew."""
    told = dumps([host, *((event["id"], event["at"], event["kind"], event["run"]) for event in events)])
    return f"aglowd-{events[0]['id']}-{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}"


def troubles_of(
    sites: Mapping[str, Site],
    credentials: Mapping[str, Credential],
    *,
    down_after_s: float,
    started: float,
    now: float,
) -> Troubles:
    """What is not well now, and what is. A system that fails, and has not failed for long, is neither."""
    found: dict[str, str] = {}
    for name, site in sites.items():
        health = site.health
        silent_s = now - (started if health.last_success is None else max(health.last_success, started))
        if health.failures_in_a_row and silent_s >= down_after_s:
            found[f"system {name}"] = f"no good answer for {duration_text(silent_s)}; last: {health.last_error}"
        elif not health.failures_in_a_row and health.last_success is not None:
            found[f"system {name}"] = ""
    for name, credential in credentials.items():
        frozen = credential.frozen
        found[f"credential {name}"] = "" if frozen is None else f"it is frozen: {frozen}; renew it"
    return found
