"""dCache's storage events over HTTP: channels, subscriptions and streams of server-sent events, as the real frontend has them.

Nothing is replayed without `Last-Event-ID`, and nothing but a metronome shows that a stream lives.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from aglowd.sim.dcachechannels import Channel, Events, Reader, inotify, metronome, next_tick, system, tick
from aglowd.sim.faulthttp import STRIKE, reset
from aglowd.sim.world import DAY_S

PREFIX = "/api/v1/events"
CLIENT_ID_CHARS = 256
STREAM_FAULTS = ("event_loss", "competing", "stream_cut", "silent")
"""Faults of a stream. The first strikes at its beginning, the others `value` world seconds later."""
NEVER = float("inf")


def events_app(events: Events, middlewares: Iterable[Middleware] = ()) -> web.Application:
    """The service, to be mounted at `PREFIX`; the middlewares stand before it."""

    def find(request: web.Request) -> Channel:
        names = {channel.name: channel for channel in events.listed() if channel.user == _user(request)}
        if request.match_info["channel"] not in names:
            raise web.HTTPNotFound(text='{"errors":[{"message":"No such channel","status":"404"}]}')
        return names[request.match_info["channel"]]

    async def make(request: web.Request) -> web.Response:
        body = await _body(request)
        client_id = body.get("client-id", "")
        if not isinstance(client_id, str) or len(client_id) > CLIENT_ID_CHARS:
            return _error(400, "client-id is too long")
        channel = events.make(_user(request), client_id)
        events.world.note("events", "channel_made", client=client_id, result=channel and channel.name)
        if channel is None:
            return _error(429, "Too many channels")
        return web.Response(status=201, headers={"Location": f"{_base(request)}/channels/{channel.name}"})

    async def listing(request: web.Request) -> web.Response:
        wanted = request.query.get("client-id")
        found = [one for one in events.listed() if one.user == _user(request) and wanted in (None, one.client_id)]
        return web.json_response([f"{_base(request)}/channels/{channel.name}" for channel in found])

    async def read(request: web.Request) -> web.StreamResponse:
        channel = find(request)
        if not _is_stream(request):
            return web.json_response({"timeout": channel.timeout_s})
        return await stream(request, events, channel)

    async def change(request: web.Request) -> web.Response:
        channel, timeout = find(request), (await _body(request)).get("timeout")
        if not isinstance(timeout, int) or not 1 <= timeout <= DAY_S:
            return _error(400, "timeout is from a second to a day")
        channel.timeout_s = timeout
        return web.Response(status=204)

    async def drop(request: web.Request) -> web.Response:
        channel = find(request)
        channel.say("SHUTDOWN")
        del events.channels[channel.name]
        events.world.note("events", "channel_closed", channel=channel.name)
        return web.Response(status=204)

    async def subscribe(request: web.Request) -> web.Response:
        channel, kind, body = find(request), request.match_info["kind"], await _body(request)
        made = metronome(body, events.world.now()) if kind == "metronome" else inotify(body, events)
        events.world.note("events", "subscribe", kind=kind, path=body.get("path"), result=not isinstance(made, str))
        if isinstance(made, str):
            return _error(400, made)
        for key, old in channel.subscriptions.items():
            if kind == "inotify" and old.path == made.path:
                old.flags = made.flags | (old.flags if "IN_MASK_ADD" in made.flags else frozenset())
                return web.Response(status=303, headers={"Location": key})
        channel.made += 1
        name = blake2b(f"{channel.name}/{channel.made}".encode(), digest_size=8).hexdigest()
        key = f"{_base(request)}/channels/{channel.name}/subscriptions/{kind}/{name}"
        channel.subscriptions[key] = made
        channel.say("NEW_SUBSCRIPTION", subscription=key)
        if channel.reader is not None:
            channel.reader.anything.set()
        return web.Response(status=201, headers={"Location": key})

    async def subscribed(request: web.Request) -> web.Response:
        return web.json_response(list(find(request).subscriptions))

    async def unsubscribe(request: web.Request) -> web.Response:
        channel = find(request)
        end = "/{kind}/{name}".format(**request.match_info)
        key = next((key for key in channel.subscriptions if key.endswith(end)), None)
        if key is None:
            return _error(404, "No such subscription")
        events.world.note("events", "unsubscribe", path=channel.subscriptions.pop(key).path)
        channel.say("SUBSCRIPTION_CLOSED", subscription=key)
        return web.Response(status=204)

    app = web.Application(middlewares=middlewares)
    one = "/channels/{channel}"
    app.router.add_post("/channels", make)
    app.router.add_get("/channels", listing)
    app.router.add_get(one, read, allow_head=False)
    app.router.add_patch(one, change)
    app.router.add_delete(one, drop)
    app.router.add_get(f"{one}/subscriptions", subscribed)
    app.router.add_post(one + "/subscriptions/{kind:inotify|metronome}", subscribe)
    app.router.add_delete(one + "/subscriptions/{kind}/{name}", unsubscribe)
    return app


async def stream(request: web.Request, events: Events, channel: Channel) -> web.StreamResponse:
    """Send what happens until the reader goes, another one comes, the channel is lost, or a fault ends it."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    channel.say("COMPETING_CLIENT")
    reader = channel.reader = Reader()
    strike, since = STRIKE.get(), request.headers.get("Last-Event-ID")
    fault = "" if strike is None else strike.fault
    events.world.note("events", "stream", channel=channel.name, since=since)
    replay(channel, reader, since, lost=fault == "event_loss")
    struck_at = NEVER if strike is None or fault == "event_loss" else events.world.now() + strike.value
    try:
        while not reader.is_over or reader.waiting:
            reader.anything.clear()
            now = events.world.now()
            if now >= struck_at:
                if fault == "silent":
                    await asyncio.Event().wait()  # Until the reader has had enough, which cancels this.
                if fault == "stream_cut":
                    reset(request)
                    break
                channel.say("COMPETING_CLIENT")
            tick(channel, now)
            while reader.waiting:
                await response.write(reader.waiting.popleft())
            if not reader.is_over:
                await _rest(reader, (min(next_tick(channel), struck_at) - now) / events.world.clock.speed)
    except ConnectionResetError:
        pass  # The reader went away, which is how streams end.
    finally:
        if channel.reader is reader:
            channel.reader, channel.since = None, events.world.now()
    return response


async def _rest(reader: Reader, real_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(real_s if real_s < NEVER else None):
            await reader.anything.wait()


def replay(channel: Channel, reader: Reader, since: str | None, *, lost: bool) -> None:
    """What happened behind the event that the reader saw last; EVENT_LOSS if that is not known any more."""
    seen = channel.events - 1
    if since is not None:
        first = channel.ring[0][0] if channel.ring else channel.events
        seen = int(since) if re.fullmatch(r"\d{1,18}", since) else -2
        lost = lost or not first - 1 <= seen < channel.events
    if lost:
        reader.send(system("EVENT_LOSS"))
        return
    for number, text in channel.ring:
        if number > seen:
            reader.send(text)


async def verb_of(request: web.Request) -> str:
    """What a request asks for, for the fault plan."""
    last = request.path.rpartition("/")[2]
    if last in ("channels", "subscriptions"):
        return last
    if last in ("inotify", "metronome"):
        return "subscribe"
    if "/subscriptions/" in request.path:
        return "unsubscribe"
    return "stream" if _is_stream(request) else "channel"


def but_events(middleware: Middleware) -> Middleware:
    """The frontend's middleware, which lets events by: they have their own."""

    @web.middleware
    async def choose(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(f"{PREFIX}/"):
            return await handler(request)
        return await middleware(request, handler)

    return choose


def _is_stream(request: web.Request) -> bool:
    return request.method == "GET" and "text/event-stream" in request.headers.get("Accept", "")


def _user(request: web.Request) -> str:
    return request.headers.get("Authorization", "")


def _base(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}{PREFIX}"


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(await request.read() or b"{}")
    except msgspec.DecodeError:
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text='{"errors":[{"message":"malformed request","status":"400"}]}')
    return body


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"errors": [{"message": message, "status": str(status)}]}, status=status)
