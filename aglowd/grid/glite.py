"""The gLite workload management system, through its command line tools.

What must stay true: one status process for up to 500 ids, whatever it says about some of them; a submission in two
phases, so that the id is known before anything runs; and whatever a tool does not say clearly about a write is Unknown.
Words and exit codes of the tools: their source and the samples recorded from EMI-3.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.batch import CHUNK_IDS, JobStatus, Order, Terms, judge_cancel
from aglowd.grid.descriptions import describe
from aglowd.grid.gate import Site
from aglowd.grid.glite_text import (
    JOB_ID,
    TAG_NAME,
    parse_status,
    parse_submit,
    read_status,
)
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.sandbox import written
from aglowd.grid.words import quoted

STATUS_TIMEOUT_S = 600.0
"""The tool asks the bookkeeping once for each id, one after the other."""
SUBMIT_TIMEOUT_S = 600.0
OUTPUT_TIMEOUT_S = 1800.0

_NOT_DONE = re.compile(
    r"Unable to find any endpoint|Unable to contact any|Proxy validity Error|proxy credential (?:has|will) expire"
    r"|Proxy File Not Found|No path to valid proxy|UI_PROXY_|delegated Proxy has expired|Threshold for",
    re.IGNORECASE,
)
"""What the tools say before they have asked the WMS for anything, or what it says when it is too busy to listen."""
_WRONG = re.compile(r"Input Option Error|JDL Syntax|Error while parsing", re.IGNORECASE)
_NO_SUCH = re.compile(r"No such file or directory|no matching jobs found", re.IGNORECASE)
_STARTED = re.compile(r"successfully started", re.IGNORECASE)
_CANCELLED = re.compile(r"cancellation request has been successfully submitted", re.IGNORECASE)
_NOT_CANCELLED = re.compile(r"Cancel not allowed", re.IGNORECASE)
_RETRIEVED = re.compile(r"have been successfully retrieved and stored in the directory:\s*(\S[^\n]*)")
_NOT_YET = re.compile(r"Output not yet ready", re.IGNORECASE)
_NEVER = re.compile(r"already retrieved|has been cancelled", re.IGNORECASE)
_LOG_FILE = re.compile(r"printed in the following file:\s*(/\S*/glite-wms-job-[a-z]+_[0-9_]+\.log)")


class Glite:
    """The tools' verbs. `delegation` is the name of a delegated proxy; without one each submission delegates anew."""

    system = "glite"
    registers = True
    settle_s = 0.0

    def __init__(
        self,
        processes: Processes,
        site: Site,
        terms: Terms,
        *,
        endpoint: str | None,
        delegation: str | None,
        work_dir: Path,
    ) -> None:
        self._processes = processes
        self._site = site
        self._terms = terms
        self._endpoint = ["-e", endpoint] if endpoint else []
        self._delegation = ["-d", delegation] if delegation else ["-a"]
        self._work_dir = work_dir

    @seam
    async def prepare(self, order: Order) -> str:
        """Register a parametric job and transfer its input sandbox; nothing runs before `submit`.

        The sandbox lies in a directory of mode 0700, each file of mode 0600, until the tool has ended. A job whose sandbox
        was not transferred is left alone: it never runs. Temporary: nobody will miss it.
        """
        if ";" in order.requirements:
            raise Permanent(f"requirements {order.requirements[:100]!r}: expected one ClassAd expression without ;")
        description = describe(order, self._terms)
        argv = ["glite-wms-job-submit", "--noint", *self._endpoint, *self._delegation]
        async with written(self._work_dir, {**order.sandbox, "job.jdl": description}) as place:
            said = await self._run([*argv, "--register-only", "--transfer-files", "job.jdl"], write=True, cwd=place)
        registered = parse_submit(said.stdout, said.stderr)
        if registered is None:
            raise _failure("registering a job", said)
        if not registered.transferred:
            raise Temporary(f"{registered.id} is registered, but its input sandbox was not transferred")
        return registered.id

    @seam
    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        """Let a registered job run; one that was started already is fine."""
        job = prepared or await self.prepare(order)
        _check_ids([job])
        said = await self._run(["glite-wms-job-submit", "--noint", *self._endpoint, "--start", job], write=True)
        if said.rc == 0 and _STARTED.search(said.stdout):
            return (job,)
        failure = _failure(f"starting {job}", said)
        if isinstance(failure, Unknown):
            try:
                seen = (await self.status([job])).get(job)
            except (Temporary, Permanent) as error:
                raise failure from error
            if seen is not None and seen.state not in ("submitted", "unknown"):
                return (job,)
        raise failure

    @seam
    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        """The job that was registered, if it was started; without its id, what carries the key (`find_by_tag`)."""
        try:
            found = (prepared,) if prepared else await self.find_by_tag(key)
        except Temporary as error:
            raise Unknown(f"nobody can tell what was submitted with the key {key}: {error}") from error
        seen = await self.status(found) if found else {}
        for job in found:
            if job not in seen or seen[job].state == "unknown":
                raise Unknown(f"the bookkeeping says nothing of {job} (yet)")
        return tuple(job for job in found if seen[job].state != "submitted")

    @seam
    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Job id → status, one process for 500 ids. An id that the bookkeeping never heard of is not in the answer.

        One that it says nothing about, or could not be asked about, is in state unknown, with the reason. Temporary
        when there is no word about any of them.
        """
        _check_ids(jobs)
        found: dict[str, JobStatus] = {}
        ids = list(dict.fromkeys(jobs))
        for start in range(0, len(ids), CHUNK_IDS):
            found.update(await self._ask(ids[start : start + CHUNK_IDS]))
        return found

    @seam
    async def find_by_tag(self, tag: str) -> tuple[str, ...]:
        """The ids of our jobs that carry `tag`. Needs a bookkeeping that indexes user tags; Temporary if it cannot."""
        argv = ["glite-wms-job-status", "--noint", "--nonodes", "--user-tag", f"{TAG_NAME}={tag}"]
        said = await self._run(argv, write=False, timeout_s=STATUS_TIMEOUT_S)
        await asyncio.to_thread(_forget_log, said.stdout)
        told = await asyncio.to_thread(parse_status, said.stdout)
        found = tuple(job for job, status in told.items() if status.words)
        if not found and said.rc != 0 and not _NO_SUCH.search(f"{said.stdout}\n{said.stderr}"):
            raise Temporary(f"glite-wms-job-status --user-tag: {_reason(said)}")
        return found

    @seam
    async def list_ours(self) -> dict[str, JobStatus]:
        """All jobs of this credential that the bookkeeping still knows, in one call; Temporary if it cannot tell."""
        argv = ["glite-wms-job-status", "--noint", "--nonodes", "--all"]
        said = await self._run(argv, write=False, timeout_s=STATUS_TIMEOUT_S)
        await asyncio.to_thread(_forget_log, said.stdout)
        found = await asyncio.to_thread(parse_status, said.stdout)
        if not found and said.rc != 0 and not _NO_SUCH.search(f"{said.stdout}\n{said.stderr}"):
            raise Temporary(f"glite-wms-job-status --all: {_reason(said)}")
        return found

    @seam
    async def cancel(self, job: str) -> None:
        """Ask for the job's end; its status tells when it has come. One that has ended already is fine."""
        _check_ids([job])
        said = await self._run(["glite-wms-job-cancel", "--noint", job], write=True)
        await asyncio.to_thread(_forget_log, said.stdout)
        if _CANCELLED.search(said.stdout) and job in said.stdout:
            return
        if _NOT_CANCELLED.search(f"{said.stdout}\n{said.stderr}"):
            return
        failure = _failure(f"cancelling {job}", said)
        if not isinstance(failure, Unknown):
            raise failure
        await judge_cancel(self, job, failure)

    async def output(self, job: str, directory: Path) -> Path:
        """Fetch the output sandbox into a new directory below `directory`; the job stays fetchable."""
        _check_ids([job])
        argv = ["glite-wms-job-output", "--noint", "--nopurge", "--dir", str(directory), job]
        said = await self._run(argv, write=False, timeout_s=OUTPUT_TIMEOUT_S)
        await asyncio.to_thread(_forget_log, said.stdout)
        match = _RETRIEVED.search(said.stdout)
        if match:
            return Path(match[1].strip())
        text = f"fetching the output of {job}: {_reason(said)}"
        words = f"{said.stdout}\n{said.stderr}"
        if _NEVER.search(words) and not _NOT_YET.search(words):
            raise Permanent(text)
        raise Temporary(text)

    async def _ask(self, ids: list[str]) -> dict[str, JobStatus]:
        async with written(self._work_dir, {"ids": "".join(f"{job}\n" for job in ids)}) as place:
            argv = ["glite-wms-job-status", "--noint", "-i", str(place / "ids")]
            said = await self._run(argv, write=False, timeout_s=STATUS_TIMEOUT_S)
        await asyncio.to_thread(_forget_log, said.stdout)
        found, absent = await asyncio.to_thread(read_status, f"{said.stdout}\n{said.stderr}")
        if not absent and not any(status.words or status.state == "lost" for status in found.values()):
            raise Temporary(f"glite-wms-job-status: no word about any of {len(ids)} jobs: {_reason(said)}")
        silent = "the bookkeeping said nothing about it"
        return {job: found.get(job) or JobStatus(job, "unknown", reason=silent) for job in ids if job not in absent}

    @seam
    async def _run(
        self, argv: list[str], *, write: bool, cwd: Path | None = None, timeout_s: float = SUBMIT_TIMEOUT_S
    ) -> Finished:
        async with self._site.slot():
            return await self._processes.run(argv, write=write, cwd=cwd, timeout_s=timeout_s)


def _failure(what: str, said: Finished) -> OutsideError:
    """What a write that did not succeed clearly was: it did not happen if the tool says so, else nobody can tell."""
    text, words = f"{what}: {_reason(said)}", f"{said.stdout}\n{said.stderr}"
    if _NOT_DONE.search(words):
        return Temporary(text)
    return Permanent(text) if _WRONG.search(words) else Unknown(text)


def _reason(said: Finished) -> str:
    return f"{Path(said.argv[0]).name} ended with {said.rc}: {quoted(said.stderr, said.stdout)}"


def _check_ids(jobs: Sequence[str]) -> None:
    for job in jobs:
        if not JOB_ID.fullmatch(job):
            raise Permanent(f"found job id {job[:100]!r}; expected https://HOST:PORT/…")


def _forget_log(stdout: str) -> None:
    """Remove the log file that `--noint` leaves behind at every call; nobody else would."""
    match = _LOG_FILE.search(stdout)
    if match:
        try:
            Path(match[1]).unlink(missing_ok=True)
        except OSError:
            return  # It is somebody else's, then it is not our litter.
