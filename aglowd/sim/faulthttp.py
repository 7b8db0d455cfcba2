"""What a fault does to a service that speaks HTTP: one middleware, and the door that can be shut.

A fault strikes before the deed, after it, or on the answer's way back; the ledger shows which, because the deed's own
line is there or not. Sockets break off as real ones do: with RST, in the middle of a body, or never.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from aglowd.sim.faults import Faults, Strike

STRIKE: ContextVar[Strike | None] = ContextVar("strike", default=None)
"""What strikes the request at hand, if it is a fault that only the service itself can commit."""
SLOW_REAL_S = 10.0
"""Real seconds between two bytes of a slow answer."""
HTML = (
    b"<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><h1>Maintenance until 17:00</h1></body></html>\n"
)


def own_fault() -> str:
    """The fault that strikes the request at hand and is left to the service; empty when there is none."""
    strike = STRIKE.get()
    return strike.fault if strike is not None else ""


class Door:
    """A listening port that can be shut for a while: then it refuses, as if no server ran."""

    def __init__(self, runner: web.AppRunner) -> None:
        self._runner = runner
        # It never listens; it keeps the number ours while the door is shut.
        self._keeper = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._keeper.bind(("127.0.0.1", 0))
        self.port: int = self._keeper.getsockname()[1]
        self._site: web.TCPSite | None = None

    async def open(self) -> None:
        """Listen; an open door stays open."""
        if self._site is None:
            self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_port=True)
            await self._site.start()

    async def shut(self) -> None:
        """Refuse new connections; those that are open stay."""
        site, self._site = self._site, None
        if site is not None:
            await site.stop()

    def close(self) -> None:
        """Give the number back."""
        self._keeper.close()


class HttpFaults:
    """The faults of one service. `special` names those that the service commits itself, or does before it is asked."""

    def __init__(
        self, faults: Faults, system: str, name: Callable[[web.Request], Awaitable[str]],
        special: dict[str, Callable[[], None] | None],
    ) -> None:  # fmt: skip
        self._faults = faults
        self._system = system
        self._name = name
        self._special = special
        self.door: Door | None = None

    def middleware(self) -> Middleware:
        """The middleware that stands before the service."""

        @web.middleware
        async def struck(request: web.Request, handler: Handler) -> web.StreamResponse:
            op = await self._name(request)
            is_feed = request.query.get("feed") == "continuous" or op == "stream"
            strike = self._faults.strike(self._system, op, endless=is_feed)
            return await handler(request) if strike is None else await self._suffer(request, handler, strike)

        return struck

    async def _suffer(self, request: web.Request, handler: Handler, strike: Strike) -> web.StreamResponse:
        fault = strike.fault
        if fault in self._special:
            act = self._special[fault]
            if act is not None:
                act()
            before = STRIKE.set(strike)
            try:
                response = await handler(request)
                return reset(request) if fault == "late_lost" else response
            finally:
                STRIKE.reset(before)
        if fault == "refuse":
            assert self.door is not None
            await self.door.shut()
            self._faults.later(strike.value, self.door.open)
            return reset(request)
        if fault == "hang":
            return await _silence()
        if fault == "reset_before":
            return reset(request)
        if fault == "error_before":
            return _error(strike, 500)
        if fault in ("busy", "too_many"):
            status = 503 if fault == "busy" else 429
            return web.Response(status=status, headers={"Retry-After": str(int(strike.value))}, text="come back later")
        if fault == "html":
            return web.Response(body=HTML, content_type="text/html")
        return await _spoil(request, await handler(request), strike)


async def _spoil(request: web.Request, response: web.StreamResponse, strike: Strike) -> web.StreamResponse:
    """It was done; what becomes of the answer."""
    fault = strike.fault
    if fault == "reset_after":
        return reset(request)
    if fault == "lost_reply":
        return await _silence()
    if fault == "error_after":
        return _error(strike, 502)
    body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    if fault == "huge":
        return web.Response(body=b"x" * int(strike.value * 1e6), content_type=response.content_type)
    if fault == "malformed":
        return web.Response(body=_garbled(body), status=response.status, content_type=response.content_type)
    return await _in_pieces(request, body or b"{}", response.content_type, slow=fault == "slow")


async def _in_pieces(request: web.Request, body: bytes, content_type: str, *, slow: bool) -> web.StreamResponse:
    """A body that stops half way, or comes a byte at a time until nobody reads any more."""
    response = web.StreamResponse(headers={"Content-Type": content_type, "Content-Length": str(len(body))})
    await response.prepare(request)
    try:
        if not slow:
            await response.write(body[: len(body) // 2])
        else:
            for at in range(len(body)):
                await response.write(body[at : at + 1])
                await asyncio.sleep(SLOW_REAL_S)
    except ConnectionError:
        pass  # The reader gave up, as it should.
    if request.transport is not None:
        request.transport.close()
    return response


def _garbled(body: bytes) -> bytes:
    """What no parser takes: half of it, and signs that are no text."""
    return body[: len(body) // 2] + b"\xff\x00<<{["


def _error(strike: Strike, otherwise: int) -> web.Response:
    return web.Response(status=int(strike.value) or otherwise, text="internal error")


def reset(request: web.Request) -> web.Response:
    """Break off with RST."""
    transport = request.transport
    if transport is not None:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _silence() -> web.Response:
    """Say nothing until the client has gone, which cancels this."""
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")
