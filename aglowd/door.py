"""Who may stand at the control socket: so many at once, so many of one user, and nobody for long without asking anything.

What must stay true: however many connect, however slowly they speak and whether or not they listen, what the daemon has
for them has an end: places, open files, memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from aiohttp import web

from aglowd.socket_file import uid_of

MAX_CONNECTIONS = 512
"""At once, of all users."""
MAX_CONNECTIONS_OF_ONE = 256
"""At once, of one user."""
MAX_REFUSED = 64
"""Connections at once that are told that there is no place; beyond, they are closed without a word."""
SILENCE_REAL_S = 30.0
"""Real seconds for a request, from the connection or the answer before to the end of its head; and for taking an answer."""
SWEEP_REAL_S = 5.0
"""Real seconds between two looks for those who take longer."""
REFUSAL_REAL_S = 1.0
"""Real seconds in which a refused client may read why."""


class Door:
    """What stands between the listening socket and the server; `asking` marks a connection whose request is being served."""

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._busy: set[Any] = set()
        self._silent: dict[Any, float] = {}
        self._refused = 0
        self._log = structlog.get_logger("control")

    def __call__(self) -> asyncio.Protocol:
        return _Threshold(self)

    @contextmanager
    def asking(self, protocol: Any) -> Iterator[None]:
        """For as long as it is served a connection may be silent."""
        self._busy.add(protocol)
        try:
            yield
        finally:
            self._busy.discard(protocol)
            self._silent[protocol] = asyncio.get_running_loop().time()

    async def sweep(self) -> None:
        """Close what is silent for too long, for ever."""
        while True:
            await asyncio.sleep(SWEEP_REAL_S)
            now, open_now = asyncio.get_running_loop().time(), self._server.connections
            self._silent = {one: self._silent.get(one, now) for one in open_now if one not in self._busy}
            for one, since in self._silent.items():
                if now - since >= SILENCE_REAL_S and one.transport is not None:
                    one.transport.abort()

    def enter(self, transport: asyncio.Transport) -> None:
        """Hand the connection on, if there is a place for it."""
        uid = uid_of(transport.get_extra_info("socket"))
        there = [one.transport for one in self._server.connections if one.transport is not None]
        why = ""
        if len(there) >= MAX_CONNECTIONS:
            why = f"{MAX_CONNECTIONS} connections are open; try again later"
        elif sum(uid_of(one.get_extra_info("socket")) == uid for one in there) >= MAX_CONNECTIONS_OF_ONE:
            why = f"{MAX_CONNECTIONS_OF_ONE} connections of yours are open; end some of them"
        if why:
            self._refuse(transport, uid, why)
            return
        protocol = self._server()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _refuse(self, transport: asyncio.Transport, uid: int, why: str) -> None:
        self._log.warning("connection_refused", uid=uid, why=why)
        if self._refused >= MAX_REFUSED:
            transport.abort()
            return
        body = json.dumps({"schema": 1, "error": {"code": "too-many-connections", "message": why}})
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close"
        transport.write(f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n\r\n{body}".encode())
        self._refused += 1
        asyncio.get_running_loop().call_later(REFUSAL_REAL_S, self._close, transport)

    def _close(self, transport: asyncio.Transport) -> None:
        self._refused -= 1
        transport.abort()


class _Threshold(asyncio.Protocol):
    """A connection before it is known whether there is a place for it. What it says there is not heard."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._door.enter(transport)
