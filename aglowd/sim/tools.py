"""How the simulated executables reach the simulator: they are installed here, and call back over a Unix socket.

A tool is a real process with the real tool's output, but it decides nothing: it sends its arguments, reads and writes
the files that it is told to, prints what it is given and exits. The logic is a `Command` of the simulator.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from struct import pack
from typing import Any, Protocol

from aglowd.sim.world import World

# The binary itself: a pyenv shim would cost ten times the tool's own time.
_PYTHON = os.path.realpath(sys.executable)


@dataclass(frozen=True)
class Answer:
    """What the tool prints, and its exit code."""

    stdout: str = ""
    stderr: str = ""
    rc: int = 0


class Usage(Exception):
    """The arguments make no sense; the message is what the tool prints to stderr."""


@dataclass(frozen=True)
class Options:
    """An argument list taken apart: flags given, values of the options that take one, and the rest."""

    flags: frozenset[str]
    values: dict[str, str]
    rest: tuple[str, ...]


@dataclass
class Call:
    """One process that waits for its answer: who it is, and a way to its files."""

    tool: str
    cwd: str
    proxy: str
    home: str
    argv: tuple[str, ...]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    job: str = ""
    """The job that started it; "" for the client's own processes."""

    @property
    def by(self) -> str:
        """Who did it, in the ledger's words."""
        return "pilot" if self.job else "client"

    async def read(self, path: str) -> bytes | None:
        """A file of the caller's, relative to where it runs; None when it cannot be read."""
        reply = await self._ask([b"read", os.fsencode(self.path(path))])
        return reply[1] if reply[0] == b"ok" else None

    async def write(self, path: str, data: bytes, *, append: bool = False) -> bool:
        verb = b"append" if append else b"write"
        return (await self._ask([verb, os.fsencode(self.path(path)), data]))[0] == b"ok"

    async def make_directory(self, path: str) -> bool:
        return (await self._ask([b"mkdir", os.fsencode(self.path(path))]))[0] == b"ok"

    def path(self, name: str) -> str:
        return os.path.join(self.cwd, name.removeprefix("file://"))

    async def end(self, answer: Answer) -> None:
        """Let the process print this and exit."""
        out, err = answer.stdout.encode("utf-8", "surrogateescape"), answer.stderr.encode()
        await _send(self.writer, [b"exit", str(answer.rc).encode(), out, err])

    async def say(self, text: str) -> None:
        """Let it print this and go on."""
        await self._ask([b"say", text.encode("utf-8", "surrogateescape")])

    async def flood(self, size_bytes: int) -> None:
        """Let it print so many bytes of nothing."""
        await self._ask([b"flood", str(size_bytes).encode()])

    async def fork(self) -> None:
        """Let it leave a child behind that keeps its pipes open."""
        await self._ask([b"fork", b""])

    async def die(self) -> None:
        """Let it be killed by SIGKILL."""
        await _send(self.writer, [b"die", b""])

    async def hang(self) -> None:
        """Return when its caller has lost patience and killed it."""
        await self.reader.read()

    async def _ask(self, order: list[bytes]) -> list[bytes]:
        await _send(self.writer, order)
        return await _receive(self.reader)


Command = Callable[[Call], Awaitable[Answer]]


class Answerer(Protocol):
    """Whoever has the last word on how a process ends."""

    async def answer(self, call: Call, work: Callable[[], Awaitable[Answer]]) -> None:
        """Have the work done and end the process."""


def parse(argv: Iterable[str], flags: str, valued: str) -> Options:
    """Take an argument list apart; names are words, `-a|--long` names one option twice. Raises Usage."""
    names = {name: word.split("|")[-1] for word in flags.split() for name in word.split("|")}
    takes = {name: word.split("|")[-1] for word in valued.split() for name in word.split("|")}
    given: set[str] = set()
    values: dict[str, str] = {}
    rest: list[str] = []
    words = iter(argv)
    for word in words:
        head, equals, tail = word.partition("=")
        if word in names:
            given.add(names[word])
        elif word in takes:
            values[takes[word]] = next(words, "")
        elif equals and head.startswith("--") and head in takes:
            values[takes[head]] = tail
        elif len(word) > 2 and word[1] != "-" and all(f"-{letter}" in names for letter in word[1:]):
            given |= {names[f"-{letter}"] for letter in word[1:]}
        elif word.startswith("-") and len(word) > 1:
            raise Usage(f"unrecognized arguments: {word}")
        else:
            rest.append(word)
    return Options(frozenset(given), values, tuple(rest))


class ToolServer:
    """Installs the executables and answers them; `faults` stands between a call and its answer."""

    def __init__(
        self,
        world: World,
        directory: Path,
        commands: dict[str, Command],
        faults: Answerer,
        scripts: Mapping[str, str] | None = None,
    ) -> None:
        self._world = world
        self._commands = commands
        self._scripts = scripts or {}
        """Executables that need no answer."""
        self._faults = faults
        self._bin = directory / "bin"
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}
        # A Unix socket's path may have 107 bytes, and the state directory of a test is often longer.
        self._home = Path(tempfile.mkdtemp(prefix="aglowd-sim-"))

    async def start(self) -> None:
        """Listen, then put the executables in place."""
        socket = self._home / "tools.sock"
        self._server = await asyncio.start_unix_server(self._serve, socket)
        self._bin.mkdir(parents=True, exist_ok=True)
        (self._bin / ".socket").write_text(str(socket))
        shebang = f"#!{_PYTHON} -ISs\n"
        source = shebang + Path(__file__).with_name("tool.py").read_text()
        for name, text in {**dict.fromkeys(self._commands, source), **self._scripts}.items():
            path = self._bin / name
            path.write_text(text)
            path.chmod(0o755)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._serving.values():
                writer.close()  # A process that hangs, and whose owner was killed, would hang for ever.
            await asyncio.gather(*self._serving, return_exceptions=True)
            await self._server.wait_closed()
        shutil.rmtree(self._home, ignore_errors=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        try:
            name, cwd, proxy, home, job, *argv = map(os.fsdecode, await _receive(reader))
            call = Call(name, cwd, proxy, home, tuple(argv), reader, writer, job)
            self._world.note("tools", "process", call.by, tool=name)
            if job:
                # Faults strike who is judged, not the pilots.
                await call.end(await self._answer(call))
            else:
                await self._faults.answer(call, partial(self._answer, call))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The caller was killed while it waited, as happens to real tools too.
        finally:
            del self._serving[task]
            writer.close()

    async def _answer(self, call: Call) -> Answer:
        try:
            return await self._commands[call.tool](call)
        except Usage as usage:
            return Answer(stderr=f"{usage}\n", rc=1)


async def _send(writer: asyncio.StreamWriter, fields: list[bytes]) -> None:
    writer.write(pack(">I", len(fields)) + b"".join(pack(">I", len(part)) + part for part in fields))
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> list[bytes]:
    count = int.from_bytes(await reader.readexactly(4), "big")
    return [await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")) for _ in range(count)]
