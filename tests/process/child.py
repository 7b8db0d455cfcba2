"""A real aglowd as a child process, without a grid: what its signals, its files and its disk do to it.

Nothing here sleeps to wait: the daemon says READY and its status as it would to systemd, and its events as to aglowctl.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

STOP_TIMEOUT_S = 2
LIMIT_S = 60.0
"""Real seconds after which a test gives a child up."""
ROW = "SND,229507,,16,4,244,229587,,16,4,244,{},[CR]S*&\n"
PROGRAM = (sys.executable, "-m", "aglowd.cli")


class Home:
    """The files of one daemon: configuration, catalogue, one pipeline `toy`, and executables."""

    def __init__(self, path: Path, *, fields: Sequence[str] = ("P1+1",), rate: float = 1.0) -> None:
        self.path = path
        self.state = path / "state"
        self.socket = path / "s"
        self.notify = path / "n"
        self.config = path / "aglowd.toml"
        self.catalogue = path / "fields.csv"
        self.pipeline = path / "pipelines" / "toy.toml"
        self.bin = path / "bin"
        for name in ("pipelines", "bin", "srm", "site"):
            (path / name).mkdir()
        self.catalogue.write_text("".join(map(ROW.format, fields)))
        self.write_config(rate=rate)

    def write_config(self, *, rate: float = 1.0, **tables: str) -> None:
        lines = {
            "daemon": f'state_dir = "{self.state}"\nsocket = "{self.socket}"\nlog_format = "json"\n'
            f'tool_path = "{self.bin}"\nstop_timeout = "{STOP_TIMEOUT_S}s"',
            "clock": f"rate = {rate}",
            "catalogue": f'path = "{self.catalogue}"\nsrm_dir = "{self.path}/srm"\npipeline = "toy"\npoll = "1h"',
            "pipelines": f'directory = "{self.path}/pipelines"',
            "lta": 'url = "http://127.0.0.1:9/"',
            "dcache": 'url = "http://127.0.0.1:9/"',
            "picas": 'url = "http://127.0.0.1:9/"',
            "sites.sara": f'results = "file://{self.path}/site"\narchive = "file://{self.path}/site"',
            **tables,
        }
        self.config.write_text("".join(f"[{table}]\n{text}\n" for table, text in lines.items()))

    def steps(self, **steps: str) -> None:
        """The pipeline, of steps without needs unless they name some."""
        text = "".join(f"[steps.{name}]\n{body}\n" for name, body in steps.items())
        self.pipeline.write_text(f'[pipeline]\nname = "toy"\n{text}')

    def tool(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What stands in the database of a daemon that has stopped or was killed."""
        db = sqlite3.connect(self.state / "aglowd.db")
        try:
            return db.execute(sql).fetchall()
        finally:
            db.close()


class Child:
    """One life of a daemon."""

    def __init__(self, home: Home, process: asyncio.subprocess.Process, notify: socket.socket) -> None:
        self.home = home
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._notify = notify
        self._reading = asyncio.create_task(self._read_log(), name="log of the child")

    async def _read_log(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"event": line.decode("utf-8", "replace")})

    async def told(self, holds: Callable[[str], bool]) -> str:
        """The first word to systemd that is so."""
        loop = asyncio.get_running_loop()
        while True:
            text = (await asyncio.wait_for(loop.sock_recv(self._notify, 65_536), LIMIT_S)).decode()
            if holds(text):
                return text

    async def ask(self, path: str, limit_s: float = 5.0) -> tuple[int, Any]:
        """Status and answer; TimeoutError after the limit."""
        connector = aiohttp.UnixConnector(str(self.home.socket))
        timeout = aiohttp.ClientTimeout(limit_s)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://aglowd{path}") as reply,
        ):
            return reply.status, await reply.json(content_type=None)

    async def event(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """The first so many events of that kind, once they have happened."""
        return await events(self.home.socket, lambda event: bool(event["kind"] == kind), count)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def limit_files(self, size_bytes: int) -> None:
        """No file may grow beyond that: the disk is full."""
        assert self.process.pid is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))

    async def end(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code; TimeoutError if it goes on for longer."""
        code = await asyncio.wait_for(self.process.wait(), limit_s)
        await self._reading
        return code

    async def stop(self, limit_s: float = LIMIT_S) -> int:
        self.signal(signal.SIGTERM)
        return await self.end(limit_s)

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]


async def events(path: Path, holds: Callable[[dict[str, Any]], bool], count: int = 1) -> list[dict[str, Any]]:
    """The first so many events of which that is true, once they have happened, as the daemon on that socket tells them."""
    found: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(LIMIT_S),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://aglowd/v1/events?since=0&limit=1000&follow=1", timeout=aiohttp.ClientTimeout()) as reply,
    ):
        async for line in reply.content:
            if line.strip() and holds(event := json.loads(line)):
                found.append(event)
                if len(found) == count:
                    break
    return found


@asynccontextmanager
async def running(
    home: Home, program: Sequence[str] = PROGRAM, env: Mapping[str, str] | None = None
) -> AsyncIterator[Child]:
    """A daemon that has said READY; killed at the end if it still runs."""
    home.notify.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(home.notify))
        notify.setblocking(False)
        child = Child(home, await start(home, program, {"NOTIFY_SOCKET": str(home.notify), **(env or {})}), notify)
        try:
            await child.told(lambda text: "READY=1" in text)
            yield child
        finally:
            if child.process.returncode is None:
                child.signal(signal.SIGKILL)
            await child.end()


async def start(
    home: Home, program: Sequence[str] = PROGRAM, env: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """The process, whatever becomes of it."""
    return await asyncio.create_subprocess_exec(
        *program,
        "start",
        "--config",
        str(home.config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
