"""The transport to everything that is an executable: a process group of its own, bounded in time and output.

What must stay true: nothing that we started outlives its call. On a timeout, a cancellation or too much output the
whole group is killed; a grandchild that keeps our pipe after its parent has gone is killed too and holds nobody up.
The protocol is our own because `Process.wait()` of some Python 3.11 and 3.12 releases waits for the pipes as well.
"""

from __future__ import annotations

import asyncio
import copy
import math
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.threads import Threads

SHORT_S = 120.0
"""Real seconds that a program may take unless its caller grants it more."""
MAX_OUTPUT_BYTES = 4 << 20
"""Of one process: thirty thousand files of a directory, or four thousand jobs."""
PIPE_GRACE_S = 0.5
"""How long the pipes may stay open after the process has gone, before we look for no more output."""
REACH_REAL_S = 20.0
"""How long the first look at an executable may take; that of a file system that must be mounted first takes seconds."""
HEAD_BYTES = 256
KILL_GRACE_S = 5.0
"""How long we wait for a killed process; one that hangs in the kernel is left to it."""


class Finished(Struct, frozen=True):
    """A process that ended by itself; its exit code is not judged here, a negative one is the signal that killed it."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str


class Processes:
    """Starts executables, at most `concurrency` at once, none for longer than `longest_s`.

    Those that are granted more than `SHORT_S` are counted apart: a short look never waits for a copy.
    `path` comes before the PATH of `env`.
    """

    def __init__(
        self,
        *,
        concurrency: int = 4,
        longest_s: float = math.inf,
        path: str | None = None,
        env: Mapping[str, str],
    ) -> None:
        self._places = {is_long: asyncio.Semaphore(concurrency) for is_long in (False, True)}
        self._longest_s = longest_s
        self._env = dict(env)
        if path:
            self._env["PATH"] = os.pathsep.join(filter(None, (path, self._env.get("PATH", os.defpath))))
        self._threads = Threads("executables")
        self.started = 0

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that programs see."""
        return MappingProxyType(self._env)

    def with_environment(self, **more: str) -> Processes:
        """The same places, for programs that see these variables as well."""
        other = copy.copy(self)
        other._env = {**self._env, **more}
        return other

    async def has(self, tool: str) -> bool:
        """Whether there is such an executable."""
        try:
            return await self._threads.run(partial(self.where, tool), REACH_REAL_S) is not None
        except TimeoutError as error:
            raise Temporary(f"{tool} cannot be started: {error}") from error

    def where(self, tool: str) -> str | None:
        """The path of the executable, None if there is none. Blocks."""
        return shutil.which(tool, path=self._env.get("PATH"))

    @seam
    async def run(
        self,
        argv: Sequence[str],
        *,
        write: bool,
        timeout_s: float = SHORT_S,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
        cwd: str | Path | None = None,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """The process's end and all that it said, decoded as UTF-8 with replacement.

        One that cannot be started is Temporary: it did not happen. A timeout, a signal or too much output is Unknown
        for a write and Temporary for a read. The time counts from the start of the process, in real seconds.
        """
        places, timeout_s = self._places[timeout_s > SHORT_S], min(timeout_s, self._longest_s)
        async with places:
            run = _Run(max_output_bytes)
            await self._reach(argv[0])
            try:
                transport = await _start(
                    run,
                    argv,
                    stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
                    cwd=cwd,
                    env={**self._env, **(env or {})},
                    start_new_session=True,
                )
            except OSError as error:
                raise Temporary(f"{argv[0]} cannot be started: {error.strerror}") from error
            except (ValueError, UnicodeError) as error:
                raise Permanent(f"{argv[0]}: an argument cannot be passed: {error}") from error
            self.started += 1
            try:
                if stdin is not None:
                    run.feed(stdin)
                async with asyncio.timeout(timeout_s):
                    await run.wait()
            except TimeoutError as error:
                raise _doubt(f"{argv[0]} was killed after {timeout_s:g} s", write=write) from error
            except _TooMuch as error:
                text = f"{argv[0]} was killed after more than {max_output_bytes} bytes of output"
                raise _doubt(text, write=write) from error
            finally:
                await run.end(transport)
        rc = transport.get_returncode()
        if rc is None or rc < 0:
            raise _doubt(f"{argv[0]} was ended by signal {-(rc or -signal.SIGKILL)}", write=write)
        stdout, stderr = (bytes(run.output[fd]).decode("utf-8", "replace") for fd in (1, 2))
        return Finished(tuple(argv), rc, stdout, stderr)

    async def _reach(self, tool: str) -> None:
        """Temporary if the executable hangs: its start would block the event loop until the program is loaded."""
        try:
            await self._threads.run(partial(_load, tool, self._env.get("PATH")), REACH_REAL_S)
        except TimeoutError as error:
            raise Temporary(f"{tool} cannot be started: {error}") from error


def _load(tool: str, path: str | None) -> None:
    """Read what the kernel reads first of a program; whether it can be started its start will tell."""
    with suppress(OSError, ValueError):
        found = shutil.which(tool, path=path)
        if found:
            with open(found, "rb") as file:
                file.read(HEAD_BYTES)


async def _start(run: _Run, argv: Sequence[str], **options: Any) -> asyncio.SubprocessTransport:
    """The process, once it runs. asyncio itself answers a cancellation meanwhile by killing that one process, and then
    waits for whoever keeps its pipes: so its start is never cancelled, and the whole group is ended after it."""
    starting = asyncio.ensure_future(asyncio.get_running_loop().subprocess_exec(lambda: run, *argv, **options))
    try:
        return (await asyncio.shield(starting))[0]
    except asyncio.CancelledError:
        await asyncio.wait([starting])
        if starting.exception() is None:
            await run.end(starting.result()[0])
        raise


class _TooMuch(Exception):
    """The process said more than it may."""


class _Run(asyncio.SubprocessProtocol):
    """One process: gathers its output and knows when it has gone."""

    def __init__(self, max_bytes: int) -> None:
        self.output = {1: bytearray(), 2: bytearray()}
        self._left = max_bytes
        self._open = {1, 2}
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = asyncio.Event()
        self._closed = asyncio.Event()
        self._woken = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self.output[fd] += data
        else:
            self._woken.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            self._closed.set()

    def process_exited(self) -> None:
        self._exited.set()
        self._woken.set()

    def feed(self, data: bytes) -> None:
        """Give it that on its standard input, and no more."""
        pipe = self._transport.get_pipe_transport(0) if self._transport else None
        assert isinstance(pipe, asyncio.WriteTransport)
        pipe.write(data)
        pipe.write_eof()

    async def wait(self) -> None:
        """Return when it has gone and its output is complete, or nobody of ours can add to it; raises _TooMuch."""
        await self._woken.wait()
        if self._left >= 0:
            await _within(PIPE_GRACE_S, self._closed)
        if self._left < 0:
            raise _TooMuch

    async def end(self, transport: asyncio.SubprocessTransport) -> None:
        """Kill what is left of the group, and reap."""
        if not self._exited.is_set() or not self._closed.is_set():
            # The group may be empty, or what is left of it took other rights: both are beyond us.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        try:
            await asyncio.shield(_within(KILL_GRACE_S, self._exited))
        finally:
            transport.close()


async def _within(seconds: float, event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _doubt(text: str, *, write: bool) -> Temporary | Unknown:
    return Unknown(text) if write else Temporary(text)
