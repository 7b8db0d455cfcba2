"""An event loop in which waiting costs nothing: time stands still while anything is under way, and jumps when all is quiet.

What must stay true:

- Time moves only when nothing is ready, no socket has anything to read and no work is away from the loop: no function
  on another thread (aiosqlite, `to_thread`) and no process, except one that hangs.
- The same program does the same things in the same order. Work that comes back from threads is taken in the order in
  which it was given away, sockets in the order in which they were registered, and connections to the loop's own servers
  run over socket pairs, where what was sent has arrived.

So client code, timeouts and parsing are those of production, and a day of the grid takes seconds.
"""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import selectors
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import aiosqlite.core

HUNG_REAL_S = 2.0
"""Real seconds of complete silence after which a process or thread that is still away is taken to hang."""
KILLED_REAL_S = 0.05
"""Real seconds in which a process that hung, and was killed, shows that it has gone."""
BEGIN_S = 1000.0
"""The loop's time at its start; not zero, so that nobody takes a time for a truth value."""


class StalledError(RuntimeError):
    """Nothing is ready, nothing is away, and no timer is set: this would wait for ever."""


class Tools(Protocol):
    """Executables that run inside the loop, in place of processes."""

    bin: Path

    def start(
        self, protocol: asyncio.SubprocessProtocol, argv: tuple[str, ...], cwd: str, env: Mapping[str, str]
    ) -> asyncio.SubprocessTransport: ...


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` is virtual; everything else is asyncio's own selector loop."""

    def __init__(self) -> None:
        self._now = BEGIN_S
        self._away: dict[asyncio.Future[Any], int] = {}
        self._back: dict[int, asyncio.Handle] = {}
        self._tickets = 0
        self._landed = threading.Condition()
        self._processes = 0
        self._hung = 0
        self._servers: dict[int, tuple[Callable[[], Any], asyncio.AbstractServer]] = {}
        self._wires: dict[socket.socket, socket.socket] = {}
        self._connections = 0
        self.threads = True
        """Whether functions given to threads run there, or at once: a hop to a thread and back costs more than most."""
        self.steps = 0
        self.on_step: Callable[[], None] = lambda: None
        """Called between two rounds of the loop, where a process could be killed."""
        self.tools: Tools | None = None
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def freeze(self, seconds: float) -> None:
        """Let time pass without anybody running: whatever was due meanwhile is due at once."""
        self._now += seconds

    # --- what is away

    def expect(self, future: asyncio.Future[Any]) -> None:
        """The future is settled from another thread: until then time stands still."""
        with self._landed:
            self._tickets += 1
            self._away[future] = self._tickets

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override] # any callable
        with self._landed:
            # Whoever settles a future from afar names it first: aiosqlite and the executors both do.
            ticket = self._away.pop(args[0], None) if args and isinstance(args[0], asyncio.Future) else None
            if ticket is not None:
                handle = asyncio.Handle(callback, args, self, context)
                self._back[ticket] = handle
                self._landed.notify_all()
                return handle
        return super().call_soon_threadsafe(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override] # as asyncio types it
        if not self.threads:
            future = self.create_future()
            self.do_at_once(future, lambda: func(*args))
            return future

        def work() -> Any:
            with self._landed:
                pass  # Nothing may come back before it is expected.
            return func(*args)

        with self._landed:
            future = super().run_in_executor(executor, work)
            self.expect(future)
        return future

    def do_at_once(self, future: asyncio.Future[Any], function: Callable[[], Any]) -> Any:
        """Call it here, and settle the future as its thread would have done; returns what came of it."""
        try:
            result = function()
        except Exception as error:
            self.call_soon(aiosqlite.core.set_exception, future, error)
            return None
        self.call_soon(aiosqlite.core.set_result, future, result)
        return result

    def _land(self) -> None:
        """Wait until everything that is away on threads is back, and make it ready in the order in which it left."""
        if not self._away and not self._back:
            return
        with self._landed:
            if self._away and not self._landed.wait_for(lambda: not self._away, HUNG_REAL_S):
                self._away.clear()  # They hang. Should they come back after all, they do so as any stranger.
            back, self._back = sorted(self._back.items()), {}
        self._ready.extend(handle for _, handle in back)  # type: ignore[attr-defined] # the queue of BaseEventLoop

    # --- processes

    async def subprocess_exec(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        program, env = str(args[0]), kwargs.get("env") or os.environ
        found = shutil.which(program, path=env.get("PATH"))
        if self.tools is not None and found is not None and Path(found).parent == self.tools.bin:
            protocol = protocol_factory()
            argv = (found, *map(str, args[1:]))
            return self.tools.start(protocol, argv, str(kwargs.get("cwd") or Path.cwd()), env), protocol
        return await super().subprocess_exec(protocol_factory, *args, **kwargs)

    async def _make_subprocess_transport(self, *args: Any, **kwargs: Any) -> Any:
        self._processes += 1
        try:
            return await super()._make_subprocess_transport(*args, **kwargs)  # type: ignore[misc] # asyncio's own
        except Exception:
            self._processes -= 1  # It never began.
            raise

    def _child_watcher_callback(self, pid: int, returncode: int, transport: Any) -> None:
        self.call_soon_threadsafe(self._ended)
        super()._child_watcher_callback(pid, returncode, transport)  # type: ignore[misc] # asyncio's own

    @contextmanager
    def held(self) -> Iterator[None]:
        """Time stands still, as while a process is away, until this is left: also between one process and the next."""
        self._processes += 1
        try:
            yield
        finally:
            self._ended()

    def _ended(self) -> None:
        self._processes -= 1
        self._hung = min(self._hung, self._processes)

    # --- a loopback of its own

    async def create_server(self, protocol_factory: Any, *args: Any, **kwargs: Any) -> Any:
        server = await super().create_server(protocol_factory, *args, **kwargs)
        for sock in server.sockets:
            self._servers[sock.getsockname()[1]] = (protocol_factory, server)
        return server

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        serving = self._servers.get(address[1]) if isinstance(address, tuple) else None
        if serving is None:
            await super().sock_connect(sock, address)
            return
        protocol_factory, server = serving
        if not server.is_serving():
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._wires[sock] = ours
        self._connections += 1
        extra = {"peername": ("127.0.0.1", self._connections)}
        self._make_socket_transport(theirs, protocol_factory(), extra=extra, server=server)  # type: ignore[attr-defined] # asyncio's own

    async def create_connection(self, *args: Any, sock: Any = None, **kwargs: Any) -> Any:
        wire = self._wires.pop(sock, None)
        if wire is not None:
            sock.close()
            sock = wire
        return await super().create_connection(*args, sock=sock, **kwargs)

    def close(self) -> None:
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()
        super().close()

    # --- time

    def _pass(self, timeout: float | None, wait: Callable[[float | None], list[Any]]) -> list[Any]:
        """What is to be read; if there is nothing to do at all, time moves to the next timer."""
        self.steps += 1
        self.on_step()
        self._land()
        events = wait(0)
        if events or self._ready or (timeout is not None and timeout <= 0):  # type: ignore[attr-defined] # as above
            return events
        if self._processes:
            events = wait(HUNG_REAL_S if self._processes > self._hung else KILLED_REAL_S)
            if events:
                return events
            self._hung = self._processes
        if timeout is None:
            events = wait(None if self._processes else HUNG_REAL_S)
            if not events:
                raise StalledError
            return events
        self._now += timeout
        return []


class _Selector(selectors.DefaultSelector):
    """Real readiness, in the order of registration; virtual waiting."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._order: dict[int, int] = {}
        self._count = 0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = super().register(fileobj, events, data)
        self._count += 1
        self._order[key.fd] = self._count
        return key

    def select(self, timeout: float | None = None) -> list[Any]:
        return self._loop._pass(timeout, self._look)

    def _look(self, timeout: float | None) -> list[Any]:
        return sorted(super().select(timeout), key=lambda found: self._order[found[0].fd])


class _Errands(queue.SimpleQueue[Any]):
    """The way to aiosqlite's thread: what goes there from a virtual loop is away until it comes back."""

    def put_nowait(self, item: Any) -> None:
        future, function = item
        if future is None or not isinstance(loop := future.get_loop(), VirtualLoop):
            super().put_nowait(item)
        elif loop.threads:
            loop.expect(future)
            super().put_nowait(item)
        else:
            if loop.do_at_once(future, function) is aiosqlite.core._STOP_RUNNING_SENTINEL:
                super().put_nowait((None, lambda: aiosqlite.core._STOP_RUNNING_SENTINEL))  # The idle thread ends too.


# aiosqlite makes a queue for each connection and offers no other place to count what is on its threads.
aiosqlite.core.SimpleQueue = _Errands  # type: ignore[attr-defined] # it exports none, and this one counts
