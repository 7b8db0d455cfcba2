"""Every fault of an executable: what becomes of the process through the daemon's own transports, and whether it did its work."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Temporary, Unknown
from aglowd.grid.batch import Order, Terms
from aglowd.grid.gate import Site
from aglowd.grid.glite import Glite
from aglowd.grid.proc import PIPE_GRACE_S, Processes
from aglowd.grid.proxy import Proxy
from aglowd.grid.storage import Storage
from aglowd.sim.faults import KINDS, Faults, Script
from aglowd.sim.faulttools import WARNING
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.wiring import shipped_pipelines

from .conftest import eventually, read_lines, surls

LONGEST_S = 3.0
"""Real seconds that a command may take here: a Python of a busy machine needs some."""
FAR = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/grid.sara.nl/data/lofar/x"
ORDER = Order("k", 1, "/bin/sh", ("run.sh",), {"run.sh": "#!/bin/sh"})


class Struck:
    """A world with a fault plan, and the daemon's adapters to its executables."""

    def __init__(self, ready: dict[str, Any], plan: Faults, directory: Path) -> None:
        self.ready = ready
        self.plan = plan
        self.directory = directory
        environment = {"PATH": os.environ["PATH"], "X509_USER_PROXY": ready["proxy"]}
        self.processes = Processes(path=ready["bin"], env=environment, longest_s=LONGEST_S)
        site = Site("there", Clock())
        self.storage = Storage(self.processes, site)
        terms = Terms((shipped_pipelines().parent / "jobs" / "glite.jdl").read_text(encoding="utf-8"))
        self.glite = Glite(self.processes, site, terms, endpoint=None, delegation=None, work_dir=directory / "work")
        self.proxy = Proxy(self.processes, ready["proxy"])

    def add(self, system: str, fault: str, op: str = "*", value: float | None = None) -> None:
        self.plan.add(Script(system=system, fault=fault, op=op, value=value))

    async def lines(self, system: str, *ops: str) -> list[dict[str, Any]]:
        """The ledger's lines of some operations, when it has reached the file."""
        await asyncio.sleep(0.1)  # The ledger is flushed every 50 ms; nothing rings when it is.
        return [line for line in read_lines(self.ready["ledger"]) if line["system"] == system and line["op"] in ops]

    async def struck(self, fault: str) -> list[tuple[str, str]]:
        return [(line["target"], line["called"]) for line in await self.lines("faults", fault) if line["by"] == "world"]

    async def register(self) -> str:
        return await self.glite.prepare(ORDER)

    def path(self, url: str) -> Path:
        """Where a URL's bytes are."""
        return Path(self.ready["storage"]) / url.removeprefix("gsiftp://").replace(":2811", "")


StruckMaker = Callable[..., AbstractAsyncContextManager[Struck]]


@pytest.fixture
def world_of_faults(tmp_path: Path) -> StruckMaker:
    """`async with world_of_faults(speed=…) as there`: a world that is struck by what is added to its plan."""

    @asynccontextmanager
    async def make(speed: float = 1.0) -> AsyncIterator[Struck]:
        lists = tmp_path / "srm"
        lists.mkdir()
        (lists / "srm229509.txt").write_text("".join(f"{surl}\n" for surl in surls()))
        settings = Settings(
            directory=tmp_path / "world", srm_dir=lists, seed=1, speed=speed, origin=time.time(), failure_rate=0.0
        )
        plan: list[Faults] = []
        async with simulated_grid(settings, plan) as ready:
            yield Struck(ready, plan[0], tmp_path)

    return make


DONE: dict[str, tuple[type[OutsideError] | None, bool]] = {
    "warn": (None, True),
    "keep_pipe": (None, True),
    "proxy_after": (None, True),
    "fail_after": (Unknown, True),
    "half_line": (Unknown, True),
    "hang_after": (Unknown, True),
    "flood": (Unknown, True),
    "proxy_during": (Temporary, True),
    "kill_before": (Unknown, False),
    "hang_before": (Unknown, False),
    "proxy_before": (Temporary, False),
}
"""Fault → what a write raises, and whether it was done."""


@pytest.mark.parametrize("fault", sorted(DONE))
async def test_making_a_directory(world_of_faults: StruckMaker, fault: str) -> None:
    raised, done = DONE[fault]
    async with world_of_faults() as there:
        there.add("storage", fault, "mkdir", value=20 if fault == "flood" else 3600)
        began = time.monotonic()
        if raised is None:
            await there.storage.make_directory(FAR)
        else:
            with pytest.raises(raised) as caught:
                await there.storage.make_directory(FAR)
            assert type(caught.value) is raised
        took_s = time.monotonic() - began
        assert took_s < 2 * LONGEST_S + 5, "a child that keeps the pipe holds nobody up"
        assert fault != "keep_pipe" or took_s >= PIPE_GRACE_S, (
            "there is a child, and the pipe is given up after a while"
        )
        assert there.path(FAR).is_dir() is done
        assert await there.struck(fault) == [("storage", "mkdir")]


@pytest.mark.parametrize("fault", sorted(DONE))
async def test_starting_a_job(world_of_faults: StruckMaker, fault: str) -> None:
    """Whatever the tool says, a look at the bookkeeping tells whether the job runs."""
    raised, done = DONE[fault]
    async with world_of_faults() as there:
        job = await there.register()
        there.add("glite", fault, "start", value=20 if fault == "flood" else 3600)
        if raised is None or fault == "fail_after":  # That one names the job as started, and its status agrees.
            await there.glite.submit(ORDER, job)
        else:
            with pytest.raises(raised):
                await there.glite.submit(ORDER, job)
        assert bool(await there.lines("glite", "job_started")) is done
        assert await there.struck(fault) == [("glite", "start")]


@pytest.mark.parametrize("fault", sorted(DONE))
async def test_asking_for_a_job_is_temporary_at_worst(world_of_faults: StruckMaker, fault: str) -> None:
    async with world_of_faults() as there:
        job = await there.register()
        there.add("glite", fault, "status", value=20 if fault == "flood" else 3600)
        try:
            found = await there.glite.status([job])
        except Temporary:
            assert fault not in ("warn", "keep_pipe", "proxy_after")
        else:
            assert found[job].state == "submitted"
        assert await there.struck(fault) == [("glite", "status")]


async def test_a_warning_is_on_stderr_only(world_of_faults: StruckMaker) -> None:
    async with world_of_faults() as there:
        there.add("storage", "warn")
        said = await there.processes.run(["gfal-mkdir", "-p", FAR], write=True)
        assert (said.rc, said.stdout, said.stderr) == (0, "", WARNING)


async def test_half_a_line_and_death(world_of_faults: StruckMaker) -> None:
    async with world_of_faults() as there:
        there.add("glite", "half_line", "register")
        with pytest.raises(Unknown, match="signal 9"):
            await there.register()
        assert len(await there.lines("glite", "submit")) == 1, "it is registered, and nobody knows its id"


# --- storage that is full


async def test_a_disk_is_full_for_a_while(world_of_faults: StruckMaker) -> None:
    async with world_of_faults(speed=1000) as there:
        await there.storage.make_directory(FAR)
        there.add("storage", "disk_full", value=2000)
        with pytest.raises(Temporary, match="No space left on device"):
            await there.storage.upload(b"x" * 1000, f"{FAR}/a")
        assert there.path(f"{FAR}/a").stat().st_size == 500, "half of it is there"

        async def has_room() -> bool:
            try:
                await there.storage.upload(b"x" * 1000, f"{FAR}/{time.monotonic_ns()}")
            except Temporary:
                return False
            return True

        assert await eventually(has_room)
        assert await there.struck("disk_full") == [("storage", "copy")]


async def test_a_file_is_half_written(world_of_faults: StruckMaker) -> None:
    async with world_of_faults() as there:
        await there.storage.make_directory(FAR)
        there.add("storage", "half_file")
        with pytest.raises(Unknown, match="signal 9"):
            await there.storage.upload(b"x" * 1000, f"{FAR}/a")
        assert there.path(f"{FAR}/a").stat().st_size == 500
        await there.storage.upload(b"x" * 1000, f"{FAR}/b")
        assert await there.struck("half_file") == [("storage", "copy")]


# --- the proxy


async def test_the_proxy_ends_and_somebody_renews_it(world_of_faults: StruckMaker) -> None:
    async with world_of_faults(speed=1000) as there:
        there.add("glite", "proxy_after", "register", value=3000)
        await there.register()
        assert (await there.proxy.info()).seconds_left == 0
        with pytest.raises(Temporary, match="expired"):
            await there.register()
        with pytest.raises(Temporary, match="expired"):
            await there.storage.make_directory(FAR)

        async def is_renewed() -> bool:
            return (await there.proxy.info()).seconds_left > 0

        assert await eventually(is_renewed)
        await there.register()
        assert [line["op"] for line in await there.lines("proxy", "expired", "renewed")] == [
            "renewed", "expired", "renewed",
        ]  # fmt: skip


@pytest.mark.parametrize("fault", sorted(KINDS["proxy"]))
async def test_asking_for_the_proxy_is_temporary_at_worst(world_of_faults: StruckMaker, fault: str) -> None:
    async with world_of_faults() as there:
        there.add("proxy", fault, value=20 if fault == "flood" else 3600)
        try:
            info = await there.proxy.info()
        except Temporary:
            assert fault not in ("warn", "keep_pipe", "proxy_before")
        else:
            assert (info.seconds_left == 0) is (fault == "proxy_before")
        assert await there.struck(fault) == [("proxy", "info")]


def test_every_kind_of_fault_of_a_tool_is_shown_here() -> None:
    assert set(KINDS["glite"]) == DONE.keys()
    assert set(KINDS["storage"]) == DONE.keys() | {"disk_full", "half_file"}


def test_a_script_is_json() -> None:
    told = msgspec.json.decode(b'{"system":"storage","fault":"disk_full","op":"copy","from_s":60}', type=Script)
    assert told == Script(system="storage", fault="disk_full", op="copy", from_s=60.0)
