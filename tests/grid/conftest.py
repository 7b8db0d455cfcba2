"""What the adapters' tests share: real servers on loopback and real executables in a directory."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from pathlib import Path

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes

from .bases import Base, simulated
from .catalogues import House, csv_house, own_house
from .places import WAYS, Place

SAMPLES = Path(__file__).parent / "samples"
DATA = Path(str(files("aglowd.sim"))) / "data" / "sksp"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], Awaitable[str]]
Install = Callable[[str, str], None]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def site(clock: Clock) -> Site:
    return Site("there", clock)


@pytest.fixture
def credential() -> Credential:
    return Credential("us", user="me", password="s3cret")


@pytest.fixture
async def http(clock: Clock) -> AsyncIterator[Http]:
    client = Http(clock, timeout_s=10.0, max_body_bytes=1 << 20)
    yield client
    await client.close()


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server whose every request goes to the handler; its address."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    return Processes(path=str(bin_dir), env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})


@pytest.fixture
def install(processes: Processes, tmp_path: Path) -> Install:
    """Write an executable: shell, or Python when the text begins with `import`. Its arguments go to NAME.argv."""

    def write(name: str, text: str) -> None:
        path = tmp_path / "bin" / name
        log = tmp_path / f"{name}.argv"
        if text.startswith("import"):
            head = (
                f"#!{sys.executable} -ISs\nimport sys; open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            )
        else:
            head = f'#!/bin/sh\necho "$*" >> {log}\n'
        path.write_text(head + text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


@pytest.fixture(params=sorted(WAYS))
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Each of the ways to storage, on the simulated grid; tests/real has the same with real servers."""
    async with WAYS[request.param](tmp_path) as found:
        yield found


@pytest.fixture
async def base(tmp_path: Path) -> AsyncIterator[Base]:
    """An empty database at the simulated CouchDB; tests/real has the same with a real server."""
    async with simulated(tmp_path) as found:
        yield found


@pytest.fixture(params=["csv", "own"])
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    """A catalogue that is a file; the surveys database is tried in tests/real."""
    return csv_house(tmp_path) if request.param == "csv" else await own_house(tmp_path)
