"""dCache's storage events: what tells a watcher that a look may be worth its while before its next round.

A channel is made, directories are subscribed to it, and one stream of server-sent events tells what happens in them.
What must stay true: an event is a hint and never a fact (IN_ATTRIB, by which a recall shows, fires on unrelated changes
too, and several times a file); whatever may have made us miss one says that everything must be looked at again. A
subscription is not recursive: nothing is told of what happens in a sub directory, and ours have none.
Source: EventResources.java, Channel.java and InotifySelector.java of dCache's frontend; its user guide, "Storage Events".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Struct

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import EXCERPT_CHARS, Http, Reply, json_of
from aglowd.grid.surl import site_of
from aglowd.grid.webdav_text import host_of
from aglowd.grid.words import MAX_SAID_CHARS, quoted, shown

CHANNEL_TIMEOUT_S = 3600
"""Seconds without a reader after which dCache forgets a channel; ada's choice, where dCache's own is 300."""
FLAGS = ("IN_ATTRIB", "IN_CLOSE_WRITE", "IN_CREATE", "IN_MOVED_TO", "IN_DELETE", "IN_ONLYDIR")
MAX_CLIENT_ID_CHARS = 256
"""dCache refuses a longer name of a client."""
MAX_LEFTOVERS = 128
"""Channels that a client can have (`frontend`'s limit for a user); so many of an earlier life are closed."""
MAX_EVENT_BYTES = 64 << 10
"""Of one event's data: it names one file."""
MAX_ID_CHARS = 256
"""Of the names that dCache gives to channels, subscriptions and events."""

_NAME = re.compile(r"[\w.~=+:@-]+", re.ASCII)
_LOST = frozenset({"IN_Q_OVERFLOW", "IN_UNMOUNT"})


class Hint(Struct, frozen=True):
    """Something happened in the directory; None: anything may have happened anywhere, look at everything again.

    `id`: where to go on after it. `ended`: nothing more will be told of this directory.
    """

    directory: str | None
    id: str = ""
    ended: bool = False


class Tick(Struct, frozen=True):
    """The stream lives; the first says that it is open."""

    id: str = ""


class ChannelLost(Temporary):
    """The channel is no more: make another, subscribe again, and look at everything."""


class Overtaken(Temporary):
    """Another reader has taken the channel over: leave it to them and make one under another name."""


class NotFollowed(Permanent):
    """This directory cannot be subscribed: it does not exist, is none, or is not ours to see. Others can."""


class Event(Struct, frozen=True):
    """One server-sent event; `id` is the last that the stream gave."""

    type: str
    data: bytes
    id: str


class DcacheEvents:
    """The events of the dCache at `url`, with or without its /api/v1; `client_id` names this daemon there for good.

    `elsewhere`: the places (`place_of`) of which it can tell nothing, because they have another dCache.
    """

    def __init__(
        self,
        http: Http,
        site: Site,
        credential: Credential | None,
        url: str,
        client_id: str,
        *,
        elsewhere: Collection[str] = (),
    ) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._channels = f"{url.rstrip('/').removesuffix('/api/v1')}/api/v1/events/channels"
        self.client_id = client_id
        self.elsewhere = elsewhere

    async def open(self, client_id: str, *, tick_s: int) -> str:
        """A new channel that ticks every `tick_s` seconds; what an earlier life left under that name is closed."""
        name = client_id[-MAX_CLIENT_ID_CHARS:]
        reply = await self._send("GET", self._channels, write=False, params={"client-id": name})
        left = json_of(reply, "dCache events: channels", write=False)
        if not isinstance(left, list):
            raise Temporary("dCache events: the answer is no list of channels")
        for left_name in filter(None, map(_last_name, left[:MAX_LEFTOVERS])):
            await self.close(self._channel(left_name))
        # A user has at most 128: no reason for quiet, as another 429 would be.
        reply = await self._send("POST", self._channels, json={"client-id": name}, ok=frozenset({429}))
        if reply.status == 429:
            raise Temporary(
                "dCache events: no channel is to be had: there are too many, or too much is asked (HTTP 429)"
            )
        channel = self._channel(_made(reply, "the channel"))
        with _channel_known():
            await self._send("PATCH", channel, json={"timeout": CHANNEL_TIMEOUT_S})
            await self._send("POST", f"{channel}/subscriptions/metronome", json={"delay": tick_s}, ok=frozenset({303}))
        return channel

    async def close(self, channel: str) -> None:
        """See to it that there is no such channel."""
        await self._send("DELETE", channel, ok=frozenset({404}))

    async def subscribe(self, channel: str, directory: str) -> str:
        """The subscription's name, a new one's or the one that there was; raises NotFollowed and ChannelLost, too."""
        body = {"path": directory, "flags": FLAGS}
        with _channel_known():
            url = f"{channel}/subscriptions/inotify"
            reply = await self._send("POST", url, json=body, ok=frozenset({303, 400}))
        if reply.status == 400:
            said = reply.body[:MAX_SAID_CHARS].decode("utf-8", "replace")
            said = self._credential.redact(said) if self._credential else said
            raise NotFollowed(f"dCache events: {directory} cannot be followed: {quoted(said, most=EXCERPT_CHARS)}")
        return _made(reply, "the subscription")

    async def unsubscribe(self, channel: str, subscription: str) -> None:
        """See to it that there is no such subscription."""
        await self._send("DELETE", f"{channel}/subscriptions/inotify/{quote(subscription)}", ok=frozenset({404}))

    async def stream(
        self, channel: str, followed: Mapping[str, str], last_id: str, *, silent_s: float
    ) -> AsyncIterator[Hint | Tick]:
        """What happens, for ever. `followed`: subscription → directory, read anew at each event; others are passed over.

        It goes on behind the event `last_id`; without one, what happened before is not told. Close it (`aclosing`) when
        done with it. Raises ChannelLost, Overtaken, and Temporary when it ends, breaks off, or says nothing for
        `silent_s` real seconds.
        """
        # A server that compresses would hold its lines back.
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
        if last_id:
            headers["Last-Event-ID"] = last_id
        opened = self._http.stream(
            "GET", channel, site=self._site, credential=self._credential, headers=headers, read_timeout_s=silent_s
        )
        with _channel_known():
            async with opened as lines:
                yield Tick(last_id)
                async for event in read_events(lines):
                    said = _said(event, followed)
                    if said is not None:
                        yield said
        raise Temporary("dCache events: the server ended the stream")

    def _channel(self, name: str) -> str:
        # Only the name is taken from an answer: where our credential goes is not for a server to say.
        return f"{self._channels}/{quote(name)}"

    async def _send(self, method: str, url: str, *, write: bool = True, **options: Any) -> Reply:
        return await self._http.request(
            method, url, site=self._site, credential=self._credential, write=write, **options
        )


def directory_of(url: str) -> str | None:
    """The directory at that URL, or with that path, as dCache names it; None for one on a local disk."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    path = re.sub("/{2,}", "/", parts.path).rstrip("/")
    return path if path.startswith("/") and parts.scheme != "file" else None


def place_of(url: str) -> str:
    """The site that the URL's host belongs to, or the host itself if it is of none; empty for a local file."""
    host = host_of(url)
    try:
        return site_of(host)
    except ValueError:
        return host


async def read_events(lines: AsyncIterable[bytes]) -> AsyncIterator[Event]:
    """The events in the lines of a `text/event-stream`, as the HTML standard reads it; Temporary for one too large."""
    kind, size, last_id = "", 0, ""
    data: list[bytes] = []
    async for line in lines:
        name, _, value = line.removeprefix(b"\xef\xbb\xbf").partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                yield Event(kind, b"\n".join(data), last_id)
            kind, data, size = "", [], 0
        elif name == b"data":
            size += len(value) + 1
            if size > MAX_EVENT_BYTES:
                raise Temporary(f"dCache events: an event is longer than {MAX_EVENT_BYTES} bytes")
            data.append(value)
        elif name == b"event":
            kind = value[:MAX_ID_CHARS].decode("utf-8", "replace").strip().upper()
        elif name == b"id" and _is_name(found := value.decode("utf-8", "replace")):
            last_id = found


def _said(event: Event, followed: Mapping[str, str]) -> Hint | Tick | None:
    """What an event means to us; what cannot be understood may have been anything."""
    if event.type == "METRONOME":
        return Tick(event.id)
    if event.type not in ("INOTIFY", "SYSTEM"):
        return None
    try:
        body = msgspec.json.decode(event.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        body = None
    if not isinstance(body, dict):
        return Hint(None, event.id)
    directory = followed.get(_last_name(body.get("subscription")))
    ended = False
    if event.type == "SYSTEM":
        match body.get("type"):
            case "EVENT_LOSS":
                return Hint(None, event.id)
            case "COMPETING_CLIENT":
                raise Overtaken("dCache events: another reader has taken our channel over")
            case "SHUTDOWN":
                raise ChannelLost("dCache events: the server shuts down")
            case "SUBSCRIPTION_CLOSED":
                ended = True
            case _:
                return None
    else:
        happened = body.get("event")
        mask = happened.get("mask") if isinstance(happened, dict) else None
        masks = {one for one in (mask if isinstance(mask, list) else [mask]) if isinstance(one, str)}
        if masks & _LOST:
            return Hint(None, event.id)
        ended = "IN_IGNORED" in masks
    return None if directory is None else Hint(directory, event.id, ended)


@contextmanager
def _channel_known() -> Iterator[None]:
    """A 404 within says that the channel is gone: the frontend keeps channels in memory."""
    try:
        yield
    except Permanent as error:
        if error.absent:
            raise ChannelLost(f"dCache events: the channel is gone: {error}") from error
        raise


def _made(reply: Reply, what: str) -> str:
    """The name of what was made, from `Location`."""
    location = reply.headers.get("location", "")
    name = _last_name(location)
    if not name:
        raise Unknown(f"dCache events: the answer does not say where {what} is: {shown(location, EXCERPT_CHARS)}")
    return name


def _last_name(url: Any) -> str:
    """The last part of a URL's path; "" if that is no name."""
    name = url.partition("?")[0].rstrip("/").rpartition("/")[2] if isinstance(url, str) else ""
    return name if _is_name(name) else ""


def _is_name(text: str) -> bool:
    return len(text) <= MAX_ID_CHARS and _NAME.fullmatch(text) is not None and not text.startswith("..")
