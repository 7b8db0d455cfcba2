"""Slurm, through its command line tools; SURF's Spider is one.

What must stay true: one squeue a round for up to 500 jobs, and at most one sacct for those of which it does not tell all; an
empty answer is believed only from a controller that answered; our key is the name of each job, and nothing that the tools,
a job description or a list of jobs show is secret. Words of the tools: recorded from Slurm 22.05.
"""

from __future__ import annotations

import asyncio
import math
import os
import re
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.batch import CHUNK_IDS, JobStatus, Order, Terms
from aglowd.grid.descriptions import describe
from aglowd.grid.gate import Site
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.slurm_spool import Spool
from aglowd.grid.slurm_text import (
    ACCOUNTED,
    ACCOUNTED_NAMED,
    FIELDS,
    NAMED,
    SEPARATOR,
    JobId,
    Row,
    comment,
    find_named,
    job_id,
    list_named,
    list_open,
    list_statuses,
    parse_job_id,
    parse_limit,
    parse_rows,
    parse_submit,
)
from aglowd.grid.words import quoted
from aglowd.parts import in_parts
from aglowd.threads import Threads

LOOK_TIMEOUT_S = 20.0
"""A tool gives a controller that is down up after nine seconds."""
SUBMIT_TIMEOUT_S = 60.0
NOTICE_S = 120
"""Seconds before its limit at which a pilot is told, so that it can give its token back."""
KEEP_DAYS = 30
"""Sandboxes and logs are kept for so long beyond the longest life of a pilot."""
LOOK_BACK_DAYS = 60
"""So far back the accounting is searched for a key: as far as the audit compares."""
MAX_LIST_BYTES = 64 << 20
"""Of squeue or sacct: half a million tasks."""
ALL_DIGITS = {"SLURM_BITSTR_LEN": "0"}
"""Else lists of tasks are cut after 64 characters."""

OURS = (
    "--array", "--chdir", "--clusters", "--comment", "--error", "--help", "--input", "--job-name", "--no-requeue",
    "--open-mode", "--output", "--parsable", "--quiet", "--requeue", "--signal", "--test-only", "--uid", "--usage",
    "--version", "--wait", "--wrap",
)  # fmt: skip
"""Options of sbatch that may not be among the requirements: the adapter's promises rest on them, or the answer's form."""

_NOT_SENT = re.compile(
    r"\(connect failure\)|Munge encode failed|Could not establish a configuration source|Unable to process configuration file|Max\w*Submit\w*Limit"
    r"|new submissions? (?:is|are) disabled|presently disabled|partition not available|standby mode",
    re.IGNORECASE,
)
"""What the tools say before the controller was asked for anything, and what it says when there is no room now."""
_NOT_TOLD = re.compile(r"timed out|(?:send|receive|shutdown) failure|Zero Bytes|authentication", re.IGNORECASE)
"""It may have been asked, and its answer did not come."""
_WRONG = re.compile(
    r"Invalid|can ?not be satisfied|is not available|configuration not available|Unable to open file|script is empty"
    r"|unrecognized option|requires an argument|doesn't allow an argument|is ambiguous|permission denied|violates"
    r"|not permitted|than permitted|too long|too large",
    re.IGNORECASE,
)
_ARRAY = re.compile(r"Invalid job array specification", re.IGNORECASE)
_NO_SUCH = re.compile(r"Invalid job id specified", re.IGNORECASE)
_OVER = re.compile(r"Invalid job id specified|already completing or completed", re.IGNORECASE)
_NO_ACCOUNTING = re.compile(r"accounting storage is disabled", re.IGNORECASE)
_TEXT = re.compile(r"[ -~]+")

T = TypeVar("T")


class Slurm:
    """The tools' verbs. Worker nodes must reach `spool` under the same path."""

    system = "slurm"
    registers = False
    settle_s = 600.0

    def __init__(self, processes: Processes, site: Site, terms: Terms, *, spool: Path) -> None:
        self._processes = processes
        self._site = site
        self._terms = terms
        self._keep_days = KEEP_DAYS + math.ceil(terms.wall_time_s / 86_400)
        self._spool = Spool(spool, keep_s=self._keep_days * 86_400.0)
        self._threads = Threads(str(self._spool.path))

    async def prepare(self, order: Order) -> str | None:
        """There is no such thing here."""
        return None

    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        """Let the pilots run, several as one array; the id of the job."""
        options = _requirements(order.requirements)
        if not _TEXT.fullmatch(order.key):
            raise Permanent(f"found key {order.key[:100]!r}; expected printable ASCII")
        sandbox = dict(order.sandbox)
        place = await self._in_thread(partial(self._spool.place, sandbox))
        script = describe(order, self._terms, sandbox=str(place), keep_days=self._keep_days)
        await self._in_thread(partial(self._spool.keep, place, sandbox))
        said = await self._run(
            ["sbatch", *self._limits(), *options, *self._vital(order)],
            write=True,
            timeout_s=SUBMIT_TIMEOUT_S,
            stdin=script.encode(),
        )
        number = parse_submit(said.stdout)
        if number is not None:
            return (str(job_id(number, order.count)),)
        failure = _failure(f"submitting {order.count} pilots", said)
        if isinstance(failure, Permanent) and _ARRAY.search(said.stderr):
            raise Permanent(f"{failure}; {await self._limit(order.count)}")
        raise failure

    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        """The jobs of that name: those that the controller still shows, else those that the accounting knows."""
        try:
            rows = await self._show((*FIELDS, *NAMED), [], whole=True)
            found = find_named(rows, key)
            if found:
                return found
            # sacct takes several names, with commas between them.
            names = [] if "," in key else [f"--name={key}"]
            since = f"--starttime=now-{LOOK_BACK_DAYS}days"
            return find_named(await self._account((*ACCOUNTED, *ACCOUNTED_NAMED), [*names, since]), key)
        except Temporary as error:
            raise Unknown(f"nobody can tell what was submitted with the key {key}: {error}") from error

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Job id → status, arrays with their tasks. A task, too, of which nothing is said is left out.

        A job is unknown while the accounting must be asked about it and does not answer. Temporary if the controller is down.
        """
        found: dict[str, JobStatus] = {}
        ids = [parse_job_id(name) async for name in in_parts(dict.fromkeys(jobs))]
        for start in range(0, len(ids), CHUNK_IDS):
            found.update(await self._ask(ids[start : start + CHUNK_IDS]))
        return found

    async def list_ours(self) -> dict[str, JobStatus]:
        """All jobs of our user that the controller still shows."""
        return await asyncio.to_thread(list_named, await self._show((*FIELDS, *NAMED), [], whole=True))

    async def cancel(self, job: str) -> None:
        """Ask for the end of the job and all its tasks. One that is over or unknown is fine: scancel says nothing then."""
        wanted = parse_job_id(job)
        name = str(wanted) if wanted.count is None else wanted.number
        said = await self._run(["scancel", name], write=True, timeout_s=LOOK_TIMEOUT_S)
        if said.rc != 0 and not _OVER.search(said.stderr):
            raise _failure(f"cancelling {job}", said)

    async def output(self, job: str, directory: Path) -> Path:
        """Copies of what the pilots printed so far, a pair of files for each."""
        wanted = parse_job_id(job)
        tasks = [str(wanted)] if wanted.count is None else [f"{wanted.number}_{task}" for task in range(wanted.count)]
        names = [f"{task}.{kind}" for task in tasks for kind in ("out", "err")]
        place = await self._in_thread(partial(self._spool.copy_logs, names, directory, f"slurm-{wanted.number}-"))
        if place is None:
            raise Temporary(f"{self._spool.logs}: {job} printed nothing yet, or its logs were removed")
        return place

    def _limits(self) -> list[str]:
        """What requirements may say otherwise."""
        minutes = max(math.ceil(self._terms.wall_time_s / 60), 1)
        partition = [f"--partition={self._terms.queue}"] if self._terms.queue else []
        return [f"--time={minutes}", "--ntasks=1", f"--cpus-per-task={self._terms.cpus}", *partition]

    def _vital(self, order: Order) -> list[str]:
        """What nobody may say otherwise. A pilot that ran twice would claim two tokens."""
        logs = str(self._spool.logs).replace("%", "%%") + ("/%A_%a" if order.count > 1 else "/%j")
        notice_s = max(min(NOTICE_S, int(self._terms.wall_time_s) // 2), 1)
        return [
            "--parsable",
            "--no-requeue",
            f"--job-name={order.key}",
            f"--comment={comment(order.key, order.count)}",
            f"--chdir={self._spool.path}",
            f"--output={logs}.out",
            f"--error={logs}.err",
            f"--signal=B:TERM@{notice_s}",
            *([f"--array=0-{order.count - 1}"] if order.count > 1 else []),
        ]

    async def _limit(self, count: int) -> str:
        """What the cluster says of the size of arrays."""
        try:
            said = await self._run(["scontrol", "show", "config"], write=False, timeout_s=LOOK_TIMEOUT_S)
        except Temporary:
            return "the cluster's MaxArraySize is too small for it"
        limit = parse_limit(said.stdout)
        return (
            f"the cluster takes {limit or 'fewer'} in one array (MaxArraySize, max_array_tasks): {count} are too many"
        )

    async def _ask(self, jobs: Sequence[JobId]) -> dict[str, JobStatus]:
        numbers = ",".join(dict.fromkeys(job.number for job in jobs))
        shown = await self._show(FIELDS, [f"--jobs={numbers}"], whole=False)
        left = await asyncio.to_thread(list_open, jobs, shown)
        if not left:
            return await asyncio.to_thread(list_statuses, jobs, shown, ())
        numbers = ",".join(dict.fromkeys(job.number for job in left))
        try:
            accounted = await self._account(ACCOUNTED, [f"--jobs={numbers}"])
            return await asyncio.to_thread(list_statuses, jobs, shown, accounted)
        except Temporary as error:
            found = await asyncio.to_thread(list_statuses, jobs, shown, ())
            for name in map(str, left):
                seen = found.get(name, JobStatus(name, "unknown"))
                if seen.is_final or seen.state == "unknown":
                    found[name] = replace(seen, state="unknown", reason=str(error))
            return found

    async def _show(self, fields: Sequence[str], more: Sequence[str], *, whole: bool) -> list[Row]:
        """squeue's rows of our user's jobs, every task and state. `whole`: what it leaves out must not be there.

        Temporary when the controller does not answer.
        """
        form = ",".join(f"{field}:{SEPARATOR}" for field in fields)
        argv = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", f"--Format={form}", *more]
        said = await self._look(argv)
        rows = await asyncio.to_thread(parse_rows, said.stdout, fields, closed=True)
        is_well = said.rc == 0 and "error" not in said.stderr.lower()
        if is_well or (rows and not whole):
            return rows
        if more and _NO_SUCH.search(said.stderr):  # Of one that is asked for alone it says so.
            return []
        raise Temporary(_reason(said))

    async def _account(self, fields: Sequence[str], more: Sequence[str]) -> list[Row]:
        """sacct's rows, none where there is no accounting. Temporary when it does not answer."""
        argv = ["sacct", "--noheader", "--allocations", "--parsable2", f"--delimiter={SEPARATOR}"]
        said = await self._look([*argv, f"--user={os.getuid()}", f"--format={','.join(fields)}", *more])
        if said.rc == 0 and "error" not in said.stderr.lower():
            return await asyncio.to_thread(parse_rows, said.stdout, fields, closed=False)
        if _NO_ACCOUNTING.search(said.stderr):
            return []
        raise Temporary(_reason(said))

    async def _look(self, argv: list[str]) -> Finished:
        return await self._run(argv, write=False, timeout_s=LOOK_TIMEOUT_S)

    async def _run(self, argv: list[str], *, write: bool, timeout_s: float, stdin: bytes | None = None) -> Finished:
        async with self._site.slot():
            return await self._processes.run(
                argv, write=write, timeout_s=timeout_s, stdin=stdin, env=ALL_DIGITS, max_output_bytes=MAX_LIST_BYTES
            )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """A look at the spool, or a change there that nobody will miss."""
        try:
            return await self._threads.run(work)
        except OSError as error:
            raise Temporary(f"{error.filename or self._spool.path}: {error.strerror or error}") from error


def _requirements(text: str) -> list[str]:
    """Options of sbatch, each with its value in the same word; Permanent for others."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Permanent(f"requirements {text[:100]!r}: {error}") from error
    for word in words:
        option = word.partition("=")[0]
        if not re.fullmatch(r"--[a-z][a-z0-9-]*", option) or not _TEXT.fullmatch(word):
            raise Permanent(
                f"requirements: found {word[:100]!r}; expected long options of sbatch, each with its value in the same word, "
                "such as --constraint=skylake"
            )
        # The tools take the beginning of an option for the whole.
        if any(ours.startswith(option) for ours in OURS):
            raise Permanent(f"requirements: found {option[:100]}, which aglowd sets itself, or needs unset")
    return words


def _failure(what: str, said: Finished) -> OutsideError:
    """What a write that did not succeed clearly was: it did not happen if the tool says so, else nobody can tell."""
    text, words = f"{what}: {_reason(said)}", f"{said.stdout}\n{said.stderr}"
    if said.rc == 0:
        return Unknown(text)
    if _NOT_SENT.search(words):
        return Temporary(text)
    return Permanent(text) if _WRONG.search(words) and not _NOT_TOLD.search(words) else Unknown(text)


def _reason(said: Finished) -> str:
    return f"{Path(said.argv[0]).name} ended with {said.rc}: {quoted(said.stderr, said.stdout)}"
