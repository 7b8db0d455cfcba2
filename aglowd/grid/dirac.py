"""DIRAC, through its command line tools: what replaced gLite at SURF.

What must stay true: one status process for up to 500 ids, whatever it says about some of them; our key is the group of each
job, by which all are found again; several jobs run only after the server knows that their ids arrived; and whatever a tool
does not say clearly about a write is Unknown. Words and exit codes of the tools: their source.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.batch import CHUNK_IDS, JobStatus, Order, Terms, judge_cancel
from aglowd.grid.descriptions import describe
from aglowd.grid.dirac_text import (
    JOB_ID,
    NEVER_RAN,
    UNCONFIRMED,
    check_requirements,
    job_group,
    job_name,
    parse_error,
    parse_killed,
    parse_limit,
    parse_selected,
    parse_status,
    parse_submit,
    parse_user,
    was_retrieved,
)
from aglowd.grid.gate import Site
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.sandbox import output_directory, written
from aglowd.grid.words import quoted

LOOK_TIMEOUT_S = 300.0
"""A tool loads for seconds, and tries each server of a service three times."""
SUBMIT_TIMEOUT_S = 900.0
"""The tool itself waits 600 s for an answer."""
OUTPUT_TIMEOUT_S = 1800.0
LOOK_BACK_DAYS = 30
"""As far as the tools themselves look for a group."""

JDL = "job.jdl"
WITH_SETUP = 'source "$0" || exit 117; exec "$@"'
NOT_SET_UP = frozenset({117, 126, 127})
"""How bash ends when the file cannot be read, or names no place where the tool is."""

_NOT_DONE = re.compile(
    r"No proxy found|proxy file does not exist|PEM file .* has expired|Can't find proxy|No CAs found|Can't verify file"
    r"|Can't connect to|Connection refused|Name or service not known|Failed to get job policies"
    r"|Job submission not authorized|limited proxy",
    re.IGNORECASE,
)
"""What is said before the server was asked for anything, and what it says of a credential that an operator must mend."""
_WRONG = re.compile(r"\( 1501 : |Invalid (?:job )?JDL|Input Sandbox is not valid", re.IGNORECASE)
"""1501 is DIRAC's number for a description that is wrong."""
_SITE = re.compile(r"[A-Za-z0-9_.-]*")


class Dirac:
    """The tools' verbs. `setup` is a file that is sourced first (/etc/diracosrc); without one the tools are in the PATH."""

    system = "dirac"
    registers = False
    settle_s = 600.0
    """The server may still be at work on a submission whose tool was killed: so long the tool would have waited for it."""

    def __init__(self, processes: Processes, site: Site, terms: Terms, *, work_dir: Path, setup: str = "") -> None:
        self._processes = processes
        self._site = site
        self._terms = terms
        self._work_dir = work_dir
        self._setup = ["/bin/bash", "-c", WITH_SETUP, setup] if setup else []

    async def prepare(self, order: Order) -> str | None:
        """There is no such thing here."""
        return None

    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        """Let the pilots run, each as a job of its own; their ids.

        The sandbox lies in a directory of mode 0700, each file of mode 0600, until the tool has ended; so does the archive
        that the tool makes of it.
        """
        requirements = check_requirements(order.requirements)
        if not _SITE.fullmatch(self._terms.queue):
            raise Permanent(f"found queue {self._terms.queue[:100]!r}; expected the name of a DIRAC site")
        named = {"job_name": job_name(order.key), "job_group": job_group(order.key), "requirements": requirements}
        description = describe(order, self._terms, **named)
        async with written(self._work_dir, {**order.sandbox, JDL: description}) as place:
            argv = ["dirac-wms-job-submit", JDL]
            said = await self._run(argv, write=True, cwd=place, env={"TMPDIR": str(place)}, timeout_s=SUBMIT_TIMEOUT_S)
        ids = parse_submit(said.stdout)
        if len(ids) == order.count:
            return ids
        what = f"submitting {order.count} pilots"
        if ids:
            raise Unknown(f"{what}: found {len(ids)} ids, expected {order.count}: {_reason(said)}")
        error = parse_error(said.stdout, f"ERROR {JDL}: ")
        limit = parse_limit(error)
        if limit is not None:
            raise Permanent(f"{what}: the server takes {limit} at once: set nodes_per_submission to that")
        raise _failure(what, said, error)

    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        """The jobs of that group; Unknown while they are not confirmed, since nobody can tell whether they will be.

        The tool looks among the jobs of which something was told in the last 30 days.
        """
        try:
            found = await self._list_group(job_group(key))
        except Temporary as error:
            raise Unknown(f"nobody can tell what was submitted with the key {key}: {error}") from error
        doubtful = [
            job for job, status in found.items() if status.words.split(" (")[0] == UNCONFIRMED or not status.words
        ]
        if doubtful:
            raise Unknown(f"{len(doubtful)} jobs with the key {key} are not confirmed (yet), such as {doubtful[0]}")
        return tuple(job for job, status in found.items() if status.words not in NEVER_RAN)

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Job id → status, one process for 500 ids. An id that the server does not know is not in the answer.

        Temporary when the tool says that it failed and there is no word about any of them.
        """
        _check_ids(jobs)
        found: dict[str, JobStatus] = {}
        ids = list(dict.fromkeys(jobs))
        for start in range(0, len(ids), CHUNK_IDS):
            found.update(await self._ask(ids[start : start + CHUNK_IDS]))
        return found

    async def cancel(self, job: str) -> None:
        """Ask for the job's end; one that has ended already is fine.

        It is Killed as soon as the server knows of it; a pilot that runs ends when its next sign of life is answered. Old
        servers kill no job that waits: Temporary, until it runs.
        """
        _check_ids([job])
        said = await self._run(["dirac-wms-job-kill", job], write=True)
        killed, stuck = parse_killed(said.stdout)
        if job in killed:
            return
        failure: OutsideError = _failure(f"cancelling {job}", said, parse_error(said.stdout, "ERROR "))
        if not isinstance(failure, Unknown):
            raise failure
        if job in stuck:
            failure = Temporary(f"cancelling {job}: this server cannot kill a job that is {stuck[job]}")
        await judge_cancel(self, job, failure)

    async def output(self, job: str, directory: Path) -> Path:
        """Fetch the output sandbox into a new directory below `directory`; the job stays fetchable."""
        _check_ids([job])
        place = await asyncio.to_thread(output_directory, directory, job)
        fetched, is_there = place / job, False
        try:
            argv = ["dirac-wms-job-get-output", "-D", str(place), job]
            said = await self._run(argv, write=False, timeout_s=OUTPUT_TIMEOUT_S)
            is_there = was_retrieved(said.stdout) and await asyncio.to_thread(fetched.is_dir)
        finally:
            if not is_there:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
        if is_there:
            return fetched
        raise Temporary(f"fetching the output of {job}: {_reason(said)}")

    async def list_ours(self) -> dict[str, JobStatus]:
        """The jobs of whom the proxy names, if something was told of them in the last 30 days."""
        said = await self._run(["dirac-proxy-info"], write=False)
        owner = parse_user(said.stdout)
        if owner is None:
            raise Temporary(f"the proxy names no user of DIRAC: {_reason(said)}")
        since = f"{datetime.now(UTC) - timedelta(days=LOOK_BACK_DAYS):%Y-%m-%d}"
        argv = ["dirac-wms-select-jobs", f"--Owner={owner}", f"--Date={since}", "--Maximum=0"]
        said = await self._run(argv, write=False)
        ids = parse_selected(said.stdout)
        if ids is None or said.rc != 0:
            raise Temporary(_reason(said))
        return await self.status(ids)

    async def _list_group(self, group: str) -> dict[str, JobStatus]:
        """All jobs of the group, in the order of their ids; Temporary unless the tool says so, or says that there is none."""
        said = await self._run(["dirac-wms-job-status", "-g", group], write=False)
        found = await asyncio.to_thread(parse_status, said.stdout)
        if found and said.rc == 0:
            return {job: found[job] for job in sorted(found, key=int)}
        if not found and parse_error(said.stdout, "Error: ") == "No jobs selected":
            return {}
        raise Temporary(_reason(said))

    async def _ask(self, ids: list[str]) -> dict[str, JobStatus]:
        async with written(self._work_dir, {"ids": "".join(f"{job}\n" for job in ids)}) as place:
            said = await self._run(["dirac-wms-job-status", "-f", str(place / "ids")], write=False)
        found = parse_status(said.stdout)
        # Where the server knows none of them the tool prints nothing, and that is no failure.
        if not found and (said.rc != 0 or said.stdout.strip()):
            raise Temporary(f"no word about any of {len(ids)} jobs: {_reason(said)}")
        return {job: found[job] for job in ids if job in found}

    async def _run(
        self,
        argv: list[str],
        *,
        write: bool,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = LOOK_TIMEOUT_S,
    ) -> Finished:
        async with self._site.slot():
            said = await self._processes.run([*self._setup, *argv], write=write, cwd=cwd, env=env, timeout_s=timeout_s)
        said = Finished(tuple(argv), said.rc, said.stdout, said.stderr)
        if self._setup and said.rc in NOT_SET_UP:
            raise Temporary(f"{self._setup[-1]} does not set up {argv[0]}: {_reason(said)}")
        return said


def _failure(what: str, said: Finished, error: str) -> OutsideError:
    """What a write that did not succeed clearly was: it did not happen if the tool's last word says so, else nobody can tell."""
    text = f"{what}: {_reason(said)}"
    if _NOT_DONE.search(error):
        return Temporary(text)
    return Permanent(text) if _WRONG.search(error) else Unknown(text)


def _reason(said: Finished) -> str:
    return f"{said.argv[0]} ended with {said.rc}: {quoted(said.stderr, said.stdout)}"


def _check_ids(jobs: Sequence[str]) -> None:
    for job in jobs:
        if not JOB_ID.fullmatch(job):
            raise Permanent(f"found job id {job[:100]!r}; expected a number")
