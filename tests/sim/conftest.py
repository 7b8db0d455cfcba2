"""A small simulated grid inside the test's own loop: real servers, real processes, no daemon."""

from __future__ import annotations

import asyncio
import json
import os
import time
import xmlrpc.client
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aglowd.sim.grid import Settings, simulated_grid

SUBBANDS = 12
TARGET = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/229509/L229509_SB{:03d}_uv.MS_0a{:06x}.tar"


def surls(count: int = SUBBANDS) -> list[str]:
    return [TARGET.format(number, number) for number in range(count)]


def basic_auth(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


@dataclass(frozen=True)
class Ran:
    """What a finished process left."""

    stdout: str
    stderr: str
    rc: int


@dataclass(frozen=True)
class SmallGrid:
    """A running world and a client's ways into it."""

    ready: dict[str, Any]
    http: aiohttp.ClientSession
    directory: Path

    @property
    def secrets(self) -> dict[str, str]:
        found: dict[str, str] = self.ready["credentials"]
        return found

    async def run(self, tool: str, *argv: str, **environment: str) -> Ran:
        """Run one of the installed executables in the test's directory, its environment scrubbed."""
        process = await asyncio.create_subprocess_exec(
            f"{self.ready['bin']}/{tool}",
            *argv,
            cwd=self.directory,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        stdout, stderr = await process.communicate()
        return Ran(stdout.decode(), stderr.decode(), process.returncode or 0)

    async def couch(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """One request to CouchDB, relative to the demo's database unless the path begins with a slash."""
        basic = {"Authorization": basic_auth(self.secrets["couch_user"], self.secrets["couch_password"])}
        url = self.ready["couch_url"] + (path if path.startswith("/") else f"/{self.secrets['couch_database']}/{path}")
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        async with self.http.request(method, url, data=data, headers=basic | headers) as response:
            content = await response.read()
            is_json = response.content_type == "application/json" and method != "HEAD" and "feed=continuous" not in path
            return response.status, json.loads(content) if is_json else content

    async def lta(self, method: str, *params: Any) -> Any:
        """One XML-RPC call; raises the Fault that comes back."""
        basic = {"Authorization": basic_auth(self.secrets["lta_user"], self.secrets["lta_password"])}
        body = xmlrpc.client.dumps(params, f"LtaStager.{method}")
        async with self.http.post(self.ready["lta_url"], data=body, headers=basic) as response:
            assert response.status == 200
            result, _ = xmlrpc.client.loads(await response.text())
        return result[0]

    def ledger(self) -> list[dict[str, Any]]:
        return read_lines(self.ready["ledger"])


GridMaker = Callable[..., AbstractAsyncContextManager[SmallGrid]]


@pytest.fixture
def small_grid(tmp_path: Path) -> GridMaker:
    """`async with small_grid(speed=…, name=…) as grid`: a world of its own, gone at the end."""

    @asynccontextmanager
    async def make(name: str = "world", **changed: Any) -> AsyncIterator[SmallGrid]:
        lists = tmp_path / "srm"
        lists.mkdir(exist_ok=True)
        (lists / "srm229509.txt").write_text("".join(f"{surl} file:///x\n" for surl in surls()))
        given: dict[str, Any] = {"seed": 1, "speed": 1.0, "origin": time.time(), "failure_rate": 0.0} | changed
        settings = Settings(directory=tmp_path / name, srm_dir=lists, **given)
        async with simulated_grid(settings) as ready, aiohttp.ClientSession() as http:
            yield SmallGrid(ready, http, tmp_path)

    return make


async def eventually(test: Callable[[], Awaitable[Any]], timeout_s: float = 20.0) -> Any:
    """The first true answer of the test, asked again every few milliseconds."""
    async with asyncio.timeout(timeout_s):
        while True:
            found = await test()
            if found:
                return found
            await asyncio.sleep(0.01)


def read_lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def write_lines(path: Path, *lines: str) -> str:
    path.write_text("".join(f"{line}\n" for line in lines))
    return os.fspath(path)
