"""The simulated executables without their processes: the same protocol to the simulator, the same pipes to the daemon.

A process costs some 20 ms, and a day has hundreds of them. What stands here in place of one speaks `aglowd.sim.tool`'s
protocol over the same Unix socket and hands its output to the daemon's own transport, so that time limits, limits of
output, exit codes and parsing are those of production. Some seeds run real processes instead.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from itertools import count
from pathlib import Path

from aglowd.sim.tool import KEEPS_PIPE_S, MEGABYTE, obey

_NO_PID = count(1 << 30)
"""Above every number that Linux gives to a process: to kill one of these kills nobody."""
_BROKEN = 111
"""The exit code of a tool that does not reach its simulator."""


class InLoopTools:
    """Starts the executables of one directory as tasks of the running loop."""

    def __init__(self, bin: Path) -> None:
        self.bin = bin
        self._running: set[_InLoopProcess] = set()

    def start(
        self, protocol: asyncio.SubprocessProtocol, argv: tuple[str, ...], cwd: str, env: Mapping[str, str]
    ) -> asyncio.SubprocessTransport:
        process = _InLoopProcess(protocol, argv, cwd, env)
        self._running.add(process)
        process.task.add_done_callback(lambda _: self._running.discard(process))
        return process

    def kill(self) -> None:
        """Kill all that run, as the end of a control group does."""
        for process in sorted(self._running, key=_InLoopProcess.get_pid):
            process.kill()


class _InLoopProcess(asyncio.SubprocessTransport):
    """What the daemon sees of one process."""

    def __init__(
        self, protocol: asyncio.SubprocessProtocol, argv: tuple[str, ...], cwd: str, env: Mapping[str, str]
    ) -> None:
        super().__init__()
        self._protocol = protocol
        self._pid = next(_NO_PID)
        self._rc: int | None = None
        self._open = True
        protocol.connection_made(self)
        self.task = asyncio.create_task(self._run(argv, cwd, env), name=f"in-loop process {argv[0]}")

    def get_pid(self) -> int:
        return self._pid

    def get_returncode(self) -> int | None:
        return self._rc

    def get_pipe_transport(self, fd: int) -> asyncio.BaseTransport | None:
        return None

    def is_closing(self) -> bool:
        return not self._open

    def kill(self) -> None:
        self._exit(-signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self._close_pipes()

    async def _run(self, argv: tuple[str, ...], cwd: str, env: Mapping[str, str]) -> None:
        place = Path(argv[0])
        try:
            reader, writer = await asyncio.open_unix_connection((place.parent / ".socket").read_text())
        except OSError:
            self._exit(_BROKEN)
            return
        words = (place.name, cwd, env.get("X509_USER_PROXY", ""), env.get("HOME", ""), "", *argv[1:])
        try:
            _send(writer, [os.fsencode(word) for word in words])
            while self._rc is None:
                answer = self._obey(await _receive(reader))
                if answer is not None:
                    _send(writer, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._exit(_BROKEN)
        finally:
            writer.close()

    def _obey(self, order: list[bytes]) -> list[bytes] | None:
        """What the real tool does; the answer to the simulator, if there is one."""
        verb = order[0]
        if verb == b"exit":
            self._say(1, order[2])
            self._say(2, order[3])
            self._exit(int(order[1]))
            return None
        if verb == b"die":
            self.kill()
            return None
        if verb in (b"read", b"write", b"append"):
            return obey(order)
        if verb == b"say":
            self._say(1, order[1])
        elif verb == b"flood":
            for _ in range(int(order[1]) // len(MEGABYTE)):
                self._say(1, MEGABYTE)
        elif verb == b"fork":
            # The child that keeps the pipes holds them open until it ends.
            self._open = False
            asyncio.get_running_loop().call_later(KEEPS_PIPE_S, self._close_pipes)
        return [b"ok", b""]

    def _say(self, fd: int, data: bytes) -> None:
        if data and self._rc is None:
            self._protocol.pipe_data_received(fd, data)

    def _exit(self, rc: int) -> None:
        if self._rc is not None:
            return
        self._rc = rc
        self.task.cancel()
        if self._open:
            self._close_pipes()
        self._protocol.process_exited()

    def _close_pipes(self) -> None:
        protocol, self._open = self._protocol, False
        for fd in (1, 2):
            protocol.pipe_connection_lost(fd, None)


def _send(writer: asyncio.StreamWriter, fields: list[bytes]) -> None:
    writer.write(len(fields).to_bytes(4, "big") + b"".join(len(part).to_bytes(4, "big") + part for part in fields))


async def _receive(reader: asyncio.StreamReader) -> list[bytes]:
    fields = int.from_bytes(await reader.readexactly(4), "big")
    return [await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")) for _ in range(fields)]
