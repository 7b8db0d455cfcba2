"""A door that is slow, or wants quiet, keeps nobody waiting who asks another one; and a look waits for no transfer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.config import CatalogueConfig, Config, DaemonConfig, SiteConfig
from aglowd.credentials import Secrets
from aglowd.effects.base import World
from aglowd.errors import Temporary
from aglowd.grid.gate import CONCURRENCY, MAX_HOSTS, Site, Sites
from aglowd.grid.proc import SHORT_S, Processes
from aglowd.wiring import build_world

from .conftest import Serve

PATIENCE_S = 30.0
"""Real seconds after which what a test waits for is not coming."""
SLOW, WELL = "gsiftp://slow/d", "gsiftp://well/d"
TOOL = """#!/bin/sh
case "$0 $*" in
*gfal-ls*slow*|*gfal-copy*Slow:2811*) echo > HERE/begun; read word < HERE/go;;
*gfal-stat*/new*) echo "gfal-stat error: 2 (No such file or directory) - none" >&2; exit 2;;
*gfal-stat*) echo "  Size: 5    regular file";;
esac
"""
"""Every file has 5 bytes, and no directory one; a listing or a new file at the slow host says that it began, and waits."""


def make(directory: Path, **daemon: int) -> tuple[World, dict[str, Site]]:
    site = SiteConfig(results=f"{SLOW}/r", archive=f"{WELL}/a")
    config = Config(
        catalogue=CatalogueConfig(path="x", srm_dir="x"),
        sites={"sara": site},
        daemon=DaemonConfig(state_dir=str(directory), tool_path=str(directory / "bin"), **daemon),
    )
    return build_world(config, Clock(), Secrets(config, {"HOME": str(directory)}), "here")


class Held:
    """Requests or programs that have begun and wait until they are let go."""

    def __init__(self) -> None:
        self.begun = 0
        self.one_more = asyncio.Condition()
        self.go = asyncio.Event()

    async def begin(self) -> None:
        async with self.one_more:
            self.begun += 1
            self.one_more.notify_all()

    async def until(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self.one_more:
            await self.one_more.wait_for(lambda: self.begun >= number)


@asynccontextmanager
async def waiting(calls: list[Awaitable[object]], let_go: Callable[[], None]) -> AsyncIterator[None]:
    """While these are waiting; at the end all of them end well."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        yield
        let_go()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def soon(call: Awaitable[object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await call


# --- doors over HTTP


LISTING = """<?xml version="1.0"?><D:multistatus xmlns:D="DAV:"><D:response><D:href>/d</D:href><D:propstat><D:prop>
<D:resourcetype><D:collection/></D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
</D:multistatus>"""


async def test_a_door_that_wants_quiet_gets_it_and_no_other(serve: Serve, tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.host.partition(":")[0])
        if asked[-1] == "localhost":
            return web.Response(status=503, headers={"Retry-After": "600"})
        return web.Response(status=207, text=LISTING, content_type="application/xml")

    well = f"{await serve(answer)}/d"
    closed = well.replace("127.0.0.1", "localhost")
    world, gates = make(tmp_path)
    for _ in range(2):
        with pytest.raises(Temporary):
            await world.storage.list(closed)
        assert await world.storage.list(well) == ()
    assert asked == ["localhost", "127.0.0.1", "127.0.0.1"], "who wants quiet is not asked again"
    shown = {name: site.health for name, site in gates.items() if name.startswith(("webdav", "storage"))}
    assert list(shown) == ["webdav localhost", "webdav 127.0.0.1"], "no line for a host that was never asked"
    assert shown["webdav localhost"].backing_off_until is not None
    assert shown["webdav 127.0.0.1"].backing_off_until is None
    assert [health.failures_in_a_row for health in shown.values()] == [1, 0]
    await world.http.close()


async def test_a_door_that_does_not_answer_takes_only_its_own_places(serve: Serve, tmp_path: Path) -> None:
    held = Held()

    async def answer(request: web.Request) -> web.Response:
        if request.host.startswith("localhost"):
            await held.begin()
            await held.go.wait()
        return web.Response(status=207, text=LISTING, content_type="application/xml")

    well = f"{await serve(answer)}/d"
    dead = well.replace("127.0.0.1", "localhost")
    world, _ = make(tmp_path)
    async with waiting([world.storage.list(dead) for _ in range(CONCURRENCY + 4)], held.go.set):
        await held.until(CONCURRENCY)
        await soon(world.storage.list(well))
        assert held.begun == CONCURRENCY
    await world.http.close()


async def test_a_look_at_a_door_does_not_wait_for_its_transfers(serve: Serve, tmp_path: Path) -> None:
    held = Held()
    file = LISTING.replace("<D:collection/>", "").replace(
        "<D:resourcetype>", "<D:getcontentlength>5</D:getcontentlength><D:resourcetype>"
    )

    async def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            await held.begin()
            await held.go.wait()
            return web.Response(body=b"hello")
        return web.Response(status=207, text=file, content_type="application/xml")

    url = f"{await serve(answer)}/d"
    world, _ = make(tmp_path)
    copies = [world.storage.copy(url, (tmp_path / f"copy{i}").as_uri()) for i in range(CONCURRENCY + 1)]
    async with waiting(list(copies), held.go.set):
        await held.until(CONCURRENCY)
        await soon(world.storage.stat(url))
        assert held.begun == CONCURRENCY, "copies of one site have a limit"
    assert held.begun == CONCURRENCY + 1
    await world.http.close()


# --- doors by programs


@pytest.fixture
async def held_tools(tmp_path: Path) -> AsyncIterator[tuple[Held, Callable[[], None]]]:
    """The tools, what began of them, and what lets them all go."""
    (tmp_path / "bin").mkdir()
    for name in ("gfal-ls", "gfal-stat", "gfal-copy"):
        path = tmp_path / "bin" / name
        path.write_text(TOOL.replace("HERE", str(tmp_path)))
        path.chmod(0o700)
    held, ends = Held(), {}
    for name in ("begun", "go"):
        os.mkfifo(tmp_path / name)
        ends[name] = os.open(tmp_path / name, os.O_RDWR | os.O_NONBLOCK)
    reading: set[asyncio.Task[None]] = set()

    def read() -> None:
        for _ in range(os.read(ends["begun"], 4096).count(b"\n")):
            reading.add(asyncio.ensure_future(held.begin()))

    loop = asyncio.get_running_loop()
    loop.add_reader(ends["begun"], read)
    yield held, lambda: os.write(ends["go"], b"\n" * 100) and None
    loop.remove_reader(ends["begun"])
    await asyncio.gather(*reading)
    for end in ends.values():
        os.close(end)


async def test_a_host_whose_tools_hang_takes_half_of_the_programs(
    held_tools: tuple[Held, Callable[[], None]], tmp_path: Path
) -> None:
    held, let_go = held_tools
    world, gates = make(tmp_path, processes=4)
    async with waiting([world.storage.list(f"{SLOW}/x") for _ in range(6)], let_go):
        await held.until(2)
        await soon(world.storage.list(WELL))
        assert held.begun == 2
    assert held.begun == 6
    names = [name for name in gates if name.startswith("storage")]
    assert names == ["storage slow", "storage well"]
    assert gates["storage well"].health.last_success is not None


async def test_copies_of_one_site_have_a_limit_and_those_of_another_go_on(
    held_tools: tuple[Held, Callable[[], None]], tmp_path: Path
) -> None:
    held, let_go = held_tools
    world, gates = make(tmp_path, processes=4)
    copies = [world.storage.copy(f"{WELL}/a", f"gsiftp://Slow:2811/d/new{i}") for i in range(5)]
    async with waiting(list(copies), let_go):
        await held.until(2)
        for source in (SLOW, WELL):
            await soon(world.storage.copy(f"{source}/a", f"{WELL}/new"))
        await soon(world.storage.stat(f"{SLOW}/a"))
        assert held.begun == 2
    assert held.begun == 5
    assert gates["storage slow"].health.failures_in_a_row == 0


def test_the_host_that_was_asked_longest_ago_is_forgotten() -> None:
    gates = {"lta": Site("lta", Clock())}
    sites = Sites("storage", Clock(), gates)
    first, second = sites.at("0"), sites.at("1")
    first.back_off(600.0, "busy")
    for number in range(2, MAX_HOSTS):
        sites.at(str(number))
    assert sites.at("0") is first
    sites.at("one more")
    assert len(gates) == MAX_HOSTS + 1
    assert {"lta", "storage 0", "storage one more"} <= gates.keys()
    assert "storage 1" not in gates
    assert sites.at("1") is not second
    assert sites.at("0") is first, "who wants quiet is still known"


async def test_a_short_program_does_not_wait_for_a_long_one(tmp_path: Path) -> None:
    go, begun = tmp_path / "go", tmp_path / "begun"
    os.mkfifo(go)
    os.mkfifo(begun)
    processes = Processes(concurrency=1, env={"PATH": os.environ["PATH"]})
    end, told = (os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in (go, begun))
    script = f"echo > {begun}; read word < {go}"
    is_begun = asyncio.Event()
    asyncio.get_running_loop().add_reader(told, is_begun.set)
    long = [processes.run(["sh", "-c", script], write=False, timeout_s=SHORT_S + 1) for _ in range(2)]
    try:
        async with waiting(list(long), lambda: os.write(end, b"\n\n") and None):
            await soon(is_begun.wait())
            await soon(processes.run(["echo", "short"], write=False))
            assert os.read(told, 10) == b"\n", "the second long one waits for the first"
    finally:
        asyncio.get_running_loop().remove_reader(told)
        os.close(end)
        os.close(told)
