"""The control socket: HTTP with versioned JSON over a Unix socket, for aglowctl and for whatever watches the daemon.

What must stay true: an answer shows one committed state; `/live` asks nobody; nobody outside the group can connect,
not even for a moment; no client, however slow or however many, holds up the daemon; no answer is a traceback.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web

from aglowd.access import LOOK_UP_REAL_S, Access, Peer, peer_of
from aglowd.adoption import Adoption
from aglowd.capacity import Capacity
from aglowd.clock import Clock
from aglowd.control.desk import Desk, Reload, Settle
from aglowd.control.health import Health
from aglowd.control.requests import MAX_BODY_BYTES, ApiError
from aglowd.control.routes import ROUTES, shapes
from aglowd.control.schemas import Schemas
from aglowd.doctor import Doctor
from aglowd.door import Door
from aglowd.errors import AglowError
from aglowd.field_orders import FieldOrders
from aglowd.model import Json
from aglowd.orders import Orders
from aglowd.socket_file import give_to, open_socket, open_to_group
from aglowd.steering import Steering
from aglowd.store.store import Store
from aglowd.threads import Threads
from aglowd.token_orders import TokenOrders

MAX_LINE_BYTES = 8_190
"""Of a request's first line, and of each header."""
IDLE_S = 15.0
"""Real seconds after which an idle connection is closed."""
LINGER_S = 1.0
"""Real seconds in which the rest of a refused body is read, so that its sender sees the refusal."""
RECORD_REAL_S = 5.0
"""Real seconds for which a refusal waits for its event."""
BACKLOG = 128
"""Connections that the kernel keeps until they are accepted."""
READING = frozenset(route.path for route in ROUTES if route.method == "POST" and not route.changes)
"""What is asked by POST and changes nothing."""
STOP_S = 1.0
"""Real seconds that a follower has for its last line when the daemon stops."""


class Control:
    """The server. `health` tells how the daemon is without asking anybody; `silence`: key of a subject → since when nothing
    can be seen of it, and why."""

    def __init__(
        self,
        store: Store,
        health: Callable[[], Health],
        clock: Clock,
        version: str,
        settle: Settle | None = None,
        orders: Orders | None = None,
        token_orders: TokenOrders | None = None,
        steering: Steering | None = None,
        field_orders: FieldOrders | None = None,
        candidates: Callable[[], Awaitable[dict[str, Json]]] | None = None,
        adoption: Adoption | None = None,
        access: Access | None = None,
        reload: Reload | None = None,
        capacity: Capacity | None = None,
        silence: Callable[[str], Json | None] = lambda _: None,
        metrics: Callable[[web.Request], Awaitable[web.Response]] | None = None,
        log_place: Mapping[str, Json] | None = None,
        doctor: Doctor | None = None,
    ) -> None:
        self._desk = Desk(
            store,
            health,
            clock,
            version,
            settle=settle,
            candidates=candidates,
            reload=reload,
            capacity=capacity,
            silence=silence,
            metrics=metrics,
            log_place=log_place,
            doctor=doctor,
            schemas=Schemas(shapes()),
        )
        self.seat(orders, token_orders, steering, field_orders, adoption)
        self._access = access or Access()
        self._threads = Threads("the names of groups", most=1)
        self._path: Path | None = None
        self._group = -1
        self._door: Door | None = None
        self._log = structlog.get_logger("control")

    def seat(
        self,
        orders: Orders | None,
        token_orders: TokenOrders | None,
        steering: Steering | None,
        field_orders: FieldOrders | None,
        adoption: Adoption | None,
    ) -> None:
        """From now on these take the orders."""
        self._desk.seat(orders, token_orders, steering, field_orders, adoption)

    async def give_to(self, group: str) -> None:
        """Let that group use the socket; "", or one that there is not = whose it is already."""
        assert self._path is not None
        try:
            why = await self._threads.run(partial(give_to, self._path, group), LOOK_UP_REAL_S) if group else ""
        except OSError as error:
            why = str(error)
        if why:
            self._log.warning("socket_group", why=why)
        self._group = open_to_group(self._path)

    @asynccontextmanager
    async def serve(self, path: Path, group: str = "") -> AsyncIterator[None]:
        """Answer on that socket; AglowError if it cannot be opened. On leaving, followers get their end and the file goes."""
        self._desk.followers.stopping = False
        listener = open_socket(path)
        self._path = path
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            shutdown_timeout=STOP_S,
        )
        server: asyncio.Server | None = None
        sweeper: asyncio.Task[None] | None = None
        try:
            await self.give_to(group)
            await runner.setup()
            assert runner.server is not None
            self._door = Door(runner.server)
            sweeper = asyncio.create_task(self._door.sweep(), name="control silence")
            server = await asyncio.get_running_loop().create_unix_server(self._door, sock=listener, backlog=BACKLOG)
            yield
        finally:
            self._desk.followers.stopping = True
            self._desk.followers.wake()
            with suppress(FileNotFoundError):
                os.unlink(path)
            if sweeper is not None:
                sweeper.cancel()
            if server is not None:
                server.close()
            await runner.cleanup()
            listener.close()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._answer_errors], client_max_size=MAX_BODY_BYTES)
        for route in ROUTES:
            if route.path != "/metrics" or self._desk.metrics is not None:
                application.router.add_route(route.method, route.path, partial(route.handler, self._desk))
        application.cleanup_ctx.append(self._cry_while_serving)
        return application

    async def _cry_while_serving(self, application: web.Application) -> AsyncIterator[None]:
        # No TaskGroup: around `serve` it would wrap every error of the daemon's own work in a group.
        crier = asyncio.create_task(self._desk.followers.cry(), name="control followers")
        yield
        crier.cancel()
        await asyncio.wait([crier])

    @web.middleware
    async def _answer_errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        assert self._door is not None
        try:
            with self._door.asking(request.protocol):
                await self._admit(request)
                return await handler(request)
        except ApiError as error:
            status, code, message = error.status, error.code, str(error)
        except web.HTTPNotFound:
            status, code, message = 404, "unknown-path", f"there is nothing at {request.path}"
        except web.HTTPException as error:
            status, code, message = error.status, error.reason.lower().replace(" ", "-"), error.reason
        except ConnectionError:
            raise  # The client has gone: there is nobody to tell.
        except Exception:
            self._log.exception("request_failed", path=request.path)
            status, code, message = 500, "internal", "aglowd could not answer; its log says why"
        return self._desk.answer({"error": {"code": code, "message": message}}, status)

    async def _admit(self, request: web.Request) -> None:
        """ApiError unless who asks may; what is refused is on record."""
        assert request.transport is not None
        peer = peer_of(request.transport.get_extra_info("socket"))
        is_reading = request.method == "GET" or request.path in READING
        if is_reading and await self._access.may_read(peer, self._group):
            return
        if not is_reading and await self._access.may_write(peer):
            return
        await self._note_refusal(peer, request)
        hint = "ask to be made a member of the socket's group" if is_reading else "[daemon] operators names who may"
        verb = "read" if is_reading else "change"
        raise ApiError(403, "not-permitted", f"uid {peer.uid} may not {verb} anything here: {hint}")

    async def _note_refusal(self, peer: Peer, request: web.Request) -> None:
        what = f"{request.method[:20]} {request.path[:200]}"
        self._log.warning("not_permitted", uid=peer.uid, path=request.path[:200], method=request.method[:20])
        if (attempts := self._access.count_refusal(peer.uid)) is not None:
            data = {"uid": peer.uid, "what": what, "attempts": attempts}
            with suppress(AglowError, TimeoutError):  # The refusal stands, whether or not it can be written down.
                async with asyncio.timeout(RECORD_REAL_S):
                    await self._desk.store.record("AccessRefused", data)
