"""A server that answers with whatever bytes it is told to, and executables that say whatever they are told to."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aglowd.clock import Clock
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes

TOOLS = (
    "glite-wms-job-submit",
    "glite-wms-job-status",
    "glite-wms-job-cancel",
    "glite-wms-job-output",
    "gfal-ls",
    "gfal-stat",
    "gfal-sum",
    "gfal-mkdir",
    "gfal-copy",
    "gfal-rename",
    "gfal-rm",
    "voms-proxy-info",
)


class Far:
    """The far side: the next answers, byte by byte."""

    url = ""
    raw: bytes = b""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def says(self, body: bytes, status: int = 200, headers: str = "Content-Type: application/json\r\n") -> None:
        """An answer whose HTTP is well."""
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.raw = head.encode() + body

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            body = await reader.readexactly(int(length[1])) if length else b""
            self.requests.append(head + body)
            writer.write(self.raw)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client has heard enough.
        finally:
            writer.close()


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    made = Far()
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


class QuietSite(Site):
    """A site that never asks for quiet: a 429 of one example would keep the next one from being asked."""

    def back_off(self, seconds: float, reason: str) -> None:
        assert 0 <= seconds < 1e6
        assert reason


@pytest.fixture
def site(clock: Clock) -> Site:
    return QuietSite("there", clock)


class WarmCredential(Credential):
    """As one that is renewed after every refusal."""

    def freeze(self, reason: str) -> None:
        assert reason


@pytest.fixture
def credential() -> Credential:
    return WarmCredential("us", user="me", password="s3cret")


@pytest.fixture
async def http(clock: Clock) -> AsyncIterator[Http]:
    client = Http(clock, timeout_s=10.0)
    yield client
    await client.close()


Say = Callable[[bytes, bytes, int], None]


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """Let every tool say that on stdout and stderr, and end with that code."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    out, err, code = (tmp_path / name for name in ("out", "err", "code"))
    for name in TOOLS:
        tool = bin_dir / name
        tool.write_text(f"#!/bin/sh\ncat {out}; cat {err} >&2; read code < {code}; exit $code\n")
        tool.chmod(0o755)

    def write(stdout: bytes, stderr: bytes, rc: int) -> None:
        out.write_bytes(stdout)
        err.write_bytes(stderr)
        code.write_text(f"{rc}\n")

    return write


@pytest.fixture
def processes(tmp_path: Path, say: Say) -> Processes:
    return Processes(path=str(tmp_path / "bin"), env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
