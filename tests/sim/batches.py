"""The batch systems, for the tests of what they all promise: each in a world of its own.

A further system is one more entry in `WAYS`; a real one opens its `Place` elsewhere and runs the same tests.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from aglowd.clock import Clock
from aglowd.grid.batch import Batch, JobStatus, Order, Terms
from aglowd.grid.dirac import Dirac
from aglowd.grid.gate import Site
from aglowd.grid.glite import Glite
from aglowd.grid.local import Local
from aglowd.grid.proc import Finished, Processes
from aglowd.sim.faults import Faults, Script
from aglowd.sim.grid import Settings, simulated_grid

from .conftest import basic_auth, eventually, read_lines

TEMPLATES = Path(__file__).parents[2] / "etc" / "jobs"
SPEED = 60_000.0
"""World seconds a second: a pilot waits for its place for less than a tenth of one."""
LONGEST_S = 3.0
"""Real seconds that a tool may take here: a Python of a busy machine needs some."""
IDLE, ABSENT = "idle", "absent"
"""A type of token of which none is left to do, and one that nobody made."""
PILOT = """import sys, time
while sys.argv[1] == "stays":
    time.sleep(60)
sys.exit(sys.argv[1] != "well")
"""


class NotingProcesses(Processes):
    """Keeps what anybody could see of the processes: their arguments."""

    seen: list[str]

    async def run(self, argv: Sequence[str], **named: Any) -> Finished:
        self.__dict__.setdefault("seen", []).append(" ".join(argv))
        return await super().run(argv, **named)


@dataclass
class Place:
    """A batch system with its world. Pilots are ordered by how they end: `well`, `badly` (exit code 1), or not: `stays`."""

    batch: Batch
    processes: NotingProcesses
    directory: Path
    command: Callable[[str], tuple[str, tuple[str, ...], Mapping[str, str]]]
    """How a pilot ends → executable, arguments and sandbox of one that does."""
    secret: str
    ledger: Path | None = None
    plan: Faults | None = None
    keys: itertools.count[int] = field(default_factory=itertools.count)

    def order(self, end: str, count: int = 1) -> Order:
        """Pilots that nobody has ordered yet."""
        executable, arguments, sandbox = self.command(end)
        return Order(f"P1+{next(self.keys)}/target_submit/1/submit_jobs/0", count, executable, arguments, sandbox)

    async def submit(self, order: Order) -> tuple[str, ...]:
        """As the effect does it: made known first, where the system does that."""
        prepared = await self.batch.prepare(order) if self.batch.registers else None
        return await self.batch.submit(order, prepared)

    async def pilots(self, jobs: Sequence[str]) -> list[JobStatus]:
        """Each pilot of these jobs, whether its system tells of it by itself or as a node."""
        found = await self.batch.status(jobs)
        return [pilot for job in jobs if job in found for pilot in found[job].nodes or (found[job],)]

    async def until(self, jobs: Sequence[str], states: set[str]) -> list[JobStatus]:
        """The pilots, as soon as all are in one of these states."""

        async def are_there() -> list[JobStatus]:
            pilots = await self.pilots(jobs)
            return pilots if pilots and all(pilot.state in states for pilot in pilots) else []

        found: list[JobStatus] = await eventually(are_there)
        return found

    async def lines(self, *ops: str) -> list[dict[str, Any]]:
        """The ledger's lines of these operations, when they have reached the file."""
        assert self.ledger is not None
        await asyncio.sleep(0.1)  # The ledger is flushed every 50 ms; nothing rings when it is.
        return [line for line in read_lines(os.fspath(self.ledger)) if line["op"] in ops]

    async def started(self, key: str) -> int:
        """How many pilots the world started for a key, whatever anybody was told of them."""
        lines = await self.lines("job_started")
        return sum(line["nodes"] for line in lines if line["tags"]["aglowd_key"].startswith(key))

    async def healed(self) -> None:
        """Whatever was struck for a while is well again."""

        async def is_well() -> bool:
            ops = [line["op"] for line in await self.lines("expired", "renewed")]
            return ops[-1:] != ["expired"]

        await eventually(is_well)

    def strike(self, system: str, fault: str, op: str) -> None:
        """Strike the next call of that operation."""
        assert self.plan is not None
        self.plan.add(Script(system=system, fault=fault, op=op, value=20 if fault == "flood" else 600))


@dataclass(frozen=True)
class Way:
    """One batch system: how its world is opened, and in what it differs from the others."""

    open: Callable[[Path], AbstractAsyncContextManager[Place]]
    stranger: str
    """The id of no job."""
    tells_codes: bool = True
    """Whether it tells exit codes other than 0."""
    looks: int = 1
    """Processes of one look at many jobs."""
    submits: str = ""
    cancels: str = ""
    """What a fault plan calls the calls that let pilots run and end them; "" where there is no fault plan."""


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """The URL of a token database that never answers: a pilot that asks it stays."""

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        writer.close()

    server = await asyncio.start_server(keep, "127.0.0.1")
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


def dirac(processes: Processes, directory: Path) -> Batch:
    terms = Terms((TEMPLATES / "dirac.jdl").read_text(encoding="utf-8"))
    return Dirac(processes, Site("dirac", Clock()), terms, work_dir=directory / "work")


def glite(processes: Processes, directory: Path) -> Batch:
    terms = Terms((TEMPLATES / "glite.jdl").read_text(encoding="utf-8"))
    return Glite(processes, Site("glite", Clock()), terms, endpoint=None, delegation=None, work_dir=directory / "work")


@asynccontextmanager
async def simulated(directory: Path, *, make: Callable[[Processes, Path], Batch]) -> AsyncIterator[Place]:
    """A batch system of the simulated grid, in which nothing fails by chance."""
    lists = directory / "srm"
    lists.mkdir()
    plan: list[Faults] = []
    settings = Settings(
        directory=directory / "world", srm_dir=lists, seed=1, speed=SPEED, origin=time.time(), failure_rate=0.0,
        proxy_hours=1e6,
    )  # fmt: skip
    async with silent_server() as silent, simulated_grid(settings, plan) as ready:
        secrets = ready["credentials"]
        database = secrets["couch_database"]
        url = f"{ready['couch_url']}/{database}/_design/{IDLE}"
        basic = {"Authorization": basic_auth(secrets["couch_user"], secrets["couch_password"])}
        views = {"views": {"todo": {"map": "function(doc) { if(doc.lock == 0) { emit(doc._id, doc._id); } }"}}}
        async with aiohttp.ClientSession() as http, http.put(url, json=views, headers=basic) as response:
            assert response.status == 201
        picas = {"user": secrets["couch_user"], "password": secrets["couch_password"]}

        def command(end: str) -> tuple[str, tuple[str, ...], Mapping[str, str]]:
            where, kind = {
                "well": (ready["couch_url"], IDLE),
                "badly": (ready["couch_url"], ABSENT),
                "stays": (silent, IDLE),
            }[end]
            arguments = ("pilot.sh", "--url", where, "--database", database, "--type", kind)
            return "/bin/sh", arguments, {"pilot.sh": "true\n", "picas.json": msgspec.json.encode(picas).decode()}

        environment = {"PATH": os.environ["PATH"], "X509_USER_PROXY": ready["proxy"], "HOME": os.fspath(directory)}
        processes = NotingProcesses(path=ready["bin"], env=environment, longest_s=LONGEST_S)
        batch = make(processes, directory)
        ledger = Path(ready["ledger"])
        yield Place(batch, processes, directory, command, secrets["couch_password"], ledger, plan[0])


@asynccontextmanager
async def local(directory: Path) -> AsyncIterator[Place]:
    """This host."""
    processes = NotingProcesses(env={"PATH": os.environ["PATH"], "HOME": os.fspath(directory)})
    batch = Local(processes, Clock(), Terms(""), directory / "pilots", most=8, notice_s=2.0)
    secret = "hunter2 is our s3cret"

    def command(end: str) -> tuple[str, tuple[str, ...], Mapping[str, str]]:
        return sys.executable, ("pilot.py", end), {"pilot.py": PILOT, "picas.json": secret}

    place = Place(batch, processes, directory, command, secret)
    yield place
    jobs = tuple(job for job, status in (await batch.list_ours()).items() if not status.is_final)
    for job in jobs:
        await batch.cancel(job)
    if jobs:
        await place.until(jobs, {"cancelled", "done_ok", "done_failed", "lost", "aborted"})


WAYS = {
    "dirac": Way(
        open=partial(simulated, make=dirac), stranger="999999", tells_codes=False, submits="submit", cancels="kill"
    ),
    "glite": Way(
        open=partial(simulated, make=glite),
        stranger="https://wms2.grid.sara.nl:9000/0000000000000000000000",
        submits="start",
        cancels="cancel",
    ),
    "local": Way(open=local, stranger=f"{'0' * 16}-0", looks=0),
}
"""ARC is one entry more, and so is a real Slurm."""
