"""Pilots as processes of this host: what lets a user run who has no batch system.

What must stay true: they outlive the daemon, also its kill, and are known again by pid, start time and boot, never by the
pid alone. All that is known of a pilot lies in a directory of its own, whose name follows from our key, so that looking is
exact and asking twice starts nothing twice. `local_supervisor.py` runs in each of them and writes what is read here.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import local_supervisor as supervisor
from aglowd.grid.batch import JobStatus, Order, Terms
from aglowd.grid.local_directories import JOB_ID, Directories, copy_output, digest
from aglowd.grid.local_records import Ordered, was_started
from aglowd.grid.proc import Processes
from aglowd.grid.words import quoted
from aglowd.threads import Threads

NOTICE_S = 120.0
"""Real seconds from the word to a pilot that it shall end to its kill: it gives its token back, and sends its logs."""
START_TIMEOUT_S = 60.0
PROBE_TIMEOUT_S = 10.0

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}")
_PROGRAM = Path(supervisor.__file__)

T = TypeVar("T")


class Local:
    """The verbs for this host. `most` pilots run at once, the others wait for their turn without the daemon.

    `nice` is added to the daemon's own; `memory_bytes` limits the address space of each process of a pilot, and `cpu_s` its
    processor time. Sites that share `directory` share its places.
    """

    system = "local"
    registers = False
    settle_s = 0.0

    def __init__(
        self,
        processes: Processes,
        clock: Clock,
        terms: Terms,
        directory: Path,
        *,
        most: int,
        nice: int = 0,
        memory_bytes: int | None = None,
        cpu_s: int | None = None,
        notice_s: float = NOTICE_S,
    ) -> None:
        self._processes = processes
        self._clock = clock
        self._terms = terms
        self._directories = Directories(directory.absolute(), clock)
        self._directory = self._directories.path
        self._most = most
        self._nice = nice
        self._memory_bytes = memory_bytes
        self._cpu_s = cpu_s
        self._notice_s = notice_s
        self._threads = Threads(str(self._directory))

    async def prepare(self, order: Order) -> str | None:
        """There is no such thing here."""
        return None

    @seam
    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        """Let the pilots run; an id for each. The same key again starts those that were not started, and no other.

        Temporary: none was started. Unknown: some were, `find` tells which, and submitting again goes on with the rest.
        """
        _check(order)
        jobs = tuple(f"{digest(order.key)}-{number}" for number in range(order.count))
        await self._in_thread(partial(self._directories.write, order, self._records(order, jobs)), Temporary)
        way, environment = await self._way()
        tried = await asyncio.gather(*(self._start(job, way, environment) for job in jobs), return_exceptions=True)
        failed = [error for error in tried if isinstance(error, BaseException)]
        for error in failed:
            if not isinstance(error, OutsideError):
                raise error
        if failed:
            started = len(jobs) - len(failed)
            text = f"{self._directory}: {started} of {len(jobs)} pilots were started: {failed[0]}"
            kind = Unknown if started or any(isinstance(error, Unknown) for error in failed) else Temporary
            raise kind(text)
        return jobs

    @seam
    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        """The pilots of this key that were started. An exact look: what it does not tell was not started."""
        return await self._in_thread(partial(self._directories.find, key), Unknown)

    @seam
    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Job id → status; one whose directory is not there is left out. Looks at the disk and the processes only."""
        return await self._in_thread(partial(self._directories.look, tuple(dict.fromkeys(jobs))), Temporary)

    @seam
    async def list_ours(self) -> dict[str, JobStatus]:
        """All pilots whose directories are still there."""
        return await self._in_thread(lambda: self._directories.look(self._directories.names()), Temporary)

    @seam
    async def cancel(self, job: str) -> None:
        """Ask for the pilot's end: one that waits never runs, and one that runs has `notice_s` to end by itself."""
        place = self._place(job)
        if not await self._in_thread(place.is_dir, Temporary):
            raise Permanent(f"{place}: there is no such pilot", absent=True)
        await self._in_thread(partial(self._directories.cancel, job), Unknown)

    async def output(self, job: str, directory: Path) -> Path:
        """Copies of what the pilot printed so far, in a new directory; Temporary before it began."""
        place = self._place(job)
        return await self._in_thread(partial(copy_output, place, directory), Temporary)

    def _place(self, job: str) -> Path:
        if not JOB_ID.fullmatch(job):
            raise Permanent(f"found job id {job[:100]!r}; expected the name of a pilot's directory", absent=True)
        return self._directory / job

    async def _in_thread(self, work: Callable[[], T], kind: type[OutsideError]) -> T:
        try:
            return await self._threads.run(work)
        except OSError as error:
            raise kind(_told(self._directory, error)) from error

    def _records(self, order: Order, jobs: Sequence[str]) -> list[Ordered]:
        executable = f"./{order.executable}" if order.executable in order.sandbox else order.executable
        return [
            Ordered(
                job=job,
                key=order.key,
                argv=(executable, *order.arguments),
                ordered_at=self._clock.now(),
                rate=self._clock.rate,
                wall_time_s=self._terms.wall_time_s,
                notice_s=self._notice_s,
                most=self._most,
                nice=self._nice,
                memory_bytes=self._memory_bytes,
                cpu_s=self._cpu_s,
            )
            for job in jobs
        ]

    @seam
    async def _start(self, job: str, way: Sequence[str], environment: dict[str, str]) -> None:
        """See to it that the supervisor runs, or has run. The supervisor sees to it that it does so once."""
        place = self._directory / job
        if await self._in_thread(partial(was_started, place), Temporary):
            return
        argv = [sys.executable, "-ISs", str(_PROGRAM), str(place)]
        if way:
            argv = [*way, f"--unit=aglowd-pilot-{job}", *self._as_a_service(argv)]
        said = None
        try:
            said = await self._processes.run(argv, write=True, timeout_s=START_TIMEOUT_S, cwd="/", env=environment)
        except Unknown:
            if not await self._in_thread(partial(was_started, place), Unknown):
                raise
        # Another supervisor may have been faster, and writes its record in this moment.
        if said is not None and said.rc != 0 and not await self._in_thread(partial(was_started, place), Unknown):
            raise Temporary(f"{place}: the pilot was not started: {quoted(said.stderr, said.stdout)}")

    def _as_a_service(self, argv: Sequence[str]) -> list[str]:
        """The command for a manager of systemd: with our variables and none of its own, its own signs in our words doubled."""
        variables = [f"{name}={value}" for name, value in self._processes.environment.items()]
        return [word.replace("$", "$$") for word in ("/usr/bin/env", "-i", *variables, *argv)]

    async def _way(self) -> tuple[list[str], dict[str, str]]:
        """The command that lets systemd start a supervisor, and its own environment; nothing where there is no manager.

        It starts a service and no scope: what belongs to a scope is our child, with all that our unit forbids us, so
        that no pilot could make a container. Without a manager the pilots belong to whatever the daemon belongs to, and
        end with it if that is a unit of systemd.
        """
        environment = {}
        way = ["systemd-run", "--collect", "--quiet"]
        if os.geteuid() != 0:
            way.insert(1, "--user")
            environment = {"XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"}
        argv = [*way, "--wait", "true"]
        try:
            said = await self._processes.run(argv, write=False, timeout_s=PROBE_TIMEOUT_S, cwd="/", env=environment)
        except Temporary:
            return [], {}
        # A pilot that takes too much memory loses a process, and tells how it ended; its supervisor stays.
        service = ["--service-type=forking", "--property=OOMPolicy=continue"]
        return ([*way, *service], environment) if said.rc == 0 else ([], {})


def _check(order: Order) -> None:
    if order.count < 1:
        raise Permanent(f"pilots on this host: found {order.count}; expected at least one")
    if order.requirements:
        raise Permanent(
            f"pilots on this host: found requirements {order.requirements[:100]!r}; there is no choice here"
        )
    for name in order.sandbox:
        if not _FILE.fullmatch(name):
            raise Permanent(
                f"pilots on this host: found file name {name[:100]!r}; expected letters, digits and _ . + -"
            )
    if not order.executable or any("\0" in word for word in (order.executable, *order.arguments)):
        raise Permanent("pilots on this host: the command is empty or holds a zero byte")
    for text in (order.key, order.executable, *order.arguments, *order.sandbox.values()):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Permanent(f"pilots on this host: a text cannot be written as UTF-8: {error.reason}") from error


def _told(directory: Path, error: OSError) -> str:
    """The error, with the path that it is about."""
    return f"{error.filename or directory}: {error.strerror or error}"
