"""The gLite workload management system, through its command line tools.

What must stay true: one status process for up to 500 ids, whatever it says about some of them; a submission in two
phases, so that the id is known before anything runs; and whatever a tool does not say clearly about a write is Unknown.
Words and exit codes of the tools: their source and the samples recorded from EMI-3.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Site
from aglowd.grid.glite_text import (
    JOB_ID,
    TAG_NAME,
    JobStatus,
    Registered,
    jdl,
    parse_status,
    parse_submit,
    read_status,
)
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.words import quoted

__all__ = ["Glite", "JobStatus", "Registered", "jdl", "parse_status", "parse_submit"]

CHUNK_IDS = 500
STATUS_TIMEOUT_S = 600.0
"""The tool asks the bookkeeping once for each id, one after the other."""
SUBMIT_TIMEOUT_S = 600.0
OUTPUT_TIMEOUT_S = 1800.0
SANDBOX_PREFIX = "submit-"

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
_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class Glite:
    """The tools' verbs. `delegation` is the name of a delegated proxy; without one each submission delegates anew."""

    def __init__(
        self, processes: Processes, site: Site, *, endpoint: str | None, delegation: str | None, work_dir: Path
    ) -> None:
        self._processes = processes
        self._site = site
        self._endpoint = ["-e", endpoint] if endpoint else []
        self._delegation = ["-d", delegation] if delegation else ["-a"]
        self._work_dir = work_dir

    @seam
    async def register(self, jdl: str, sandbox: Mapping[str, str]) -> Registered:
        """Make the job known and transfer its input sandbox; nothing runs before `start`.

        `sandbox` is file name → content. The files lie in a directory of mode 0700, each of mode 0600, until the tool
        has ended, because they may hold credentials. An id is returned even if its sandbox was not transferred.
        """
        for name in sandbox:
            if not _SAFE_NAME.fullmatch(name):
                raise Permanent(f"sandbox: found file name {name[:100]!r}; expected letters, digits and _ . + -")
        place = await asyncio.to_thread(_write_files, self._work_dir, {**sandbox, "job.jdl": jdl})
        argv = ["glite-wms-job-submit", "--noint", *self._endpoint, *self._delegation]
        try:
            said = await self._run([*argv, "--register-only", "--transfer-files", "job.jdl"], write=True, cwd=place)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
        registered = parse_submit(said.stdout, said.stderr)
        if registered is None:
            raise _failure("registering a job", said)
        return registered

    @seam
    async def start(self, job: str) -> None:
        """Let a registered job run; one that was started already is fine."""
        _check_ids([job])
        said = await self._run(["glite-wms-job-submit", "--noint", *self._endpoint, "--start", job], write=True)
        if said.rc == 0 and _STARTED.search(said.stdout):
            return
        failure = _failure(f"starting {job}", said)
        if isinstance(failure, Unknown):
            try:
                seen = (await self.status([job])).get(job)
            except (Temporary, Permanent) as error:
                raise failure from error
            if seen is not None and seen.state not in ("submitted", "unknown"):
                return
        raise failure

    @seam
    async def status(self, jobs: Sequence[str], *, nodes: bool = False) -> dict[str, JobStatus]:
        """Job id → status, one process for 500 ids. An id that the bookkeeping never heard of is not in the answer.

        One that it says nothing about, or could not be asked about, is in state unknown, with the reason. Temporary
        when there is no word about any of them.
        """
        _check_ids(jobs)
        found: dict[str, JobStatus] = {}
        ids = list(dict.fromkeys(jobs))
        for start in range(0, len(ids), CHUNK_IDS):
            found.update(await self._ask(ids[start : start + CHUNK_IDS], nodes=nodes))
        return found

    @seam
    async def find_by_tag(self, tag: str) -> tuple[str, ...]:
        """The ids of our jobs that carry `tag`. Needs a bookkeeping that indexes user tags; Temporary if it cannot."""
        argv = ["glite-wms-job-status", "--noint", "--nonodes", "--user-tag", f"{TAG_NAME}={tag}"]
        said = await self._run(argv, write=False, timeout_s=STATUS_TIMEOUT_S)
        await asyncio.to_thread(_forget_log, said.stdout)
        found = tuple(job for job, status in parse_status(said.stdout).items() if status.words)
        if not found and said.rc != 0 and not _NO_SUCH.search(f"{said.stdout}\n{said.stderr}"):
            raise Temporary(f"glite-wms-job-status --user-tag: {_reason(said)}")
        return found

    @seam
    async def list_all(self) -> dict[str, JobStatus]:
        """All jobs of this credential that the bookkeeping still knows, in one call; Temporary if it cannot tell."""
        argv = ["glite-wms-job-status", "--noint", "--nonodes", "--all"]
        said = await self._run(argv, write=False, timeout_s=STATUS_TIMEOUT_S)
        await asyncio.to_thread(_forget_log, said.stdout)
        found = parse_status(said.stdout)
        if not found and said.rc != 0 and not _NO_SUCH.search(f"{said.stdout}\n{said.stderr}"):
            raise Temporary(f"glite-wms-job-status --all: {_reason(said)}")
        return found

    @seam
    async def cancel(self, job: str) -> None:
        """Ask for the job's end; its status tells when it has come. Permanent when it has ended already."""
        _check_ids([job])
        said = await self._run(["glite-wms-job-cancel", "--noint", job], write=True)
        await asyncio.to_thread(_forget_log, said.stdout)
        if _CANCELLED.search(said.stdout) and job in said.stdout:
            return
        if _NOT_CANCELLED.search(f"{said.stdout}\n{said.stderr}"):
            raise Permanent(f"cancelling {job}: {_reason(said)}")
        raise _failure(f"cancelling {job}", said)

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

    async def _ask(self, ids: list[str], *, nodes: bool) -> dict[str, JobStatus]:
        place = await asyncio.to_thread(_write_files, self._work_dir, {"ids": "".join(f"{job}\n" for job in ids)})
        argv = ["glite-wms-job-status", "--noint", *([] if nodes else ["--nonodes"]), "-i", str(place / "ids")]
        try:
            said = await self._run(argv, write=False, timeout_s=STATUS_TIMEOUT_S)
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))
        await asyncio.to_thread(_forget_log, said.stdout)
        found, absent = read_status(f"{said.stdout}\n{said.stderr}")
        if not absent and not any(status.words or status.state == "gone" for status in found.values()):
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


def _write_files(work_dir: Path, files: Mapping[str, str]) -> Path:
    """A new directory of mode 0700 with the files in it, each of mode 0600."""
    place = None
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=SANDBOX_PREFIX, dir=work_dir))
        for name, content in files.items():
            fd = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(content)
    except OSError as error:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        raise Temporary(f"{work_dir}: the job's files cannot be written: {error.strerror}") from error
    return place


def forget_sandboxes(work_dir: Path) -> None:
    """Remove what a daemon that was killed left behind: the pilots' files hold a password. Blocks."""
    for place in work_dir.glob(f"{SANDBOX_PREFIX}*"):
        shutil.rmtree(place, ignore_errors=True)


def _forget_log(stdout: str) -> None:
    """Remove the log file that `--noint` leaves behind at every call; nobody else would."""
    match = _LOG_FILE.search(stdout)
    if match:
        try:
            Path(match[1]).unlink(missing_ok=True)
        except OSError:
            return  # It is somebody else's, then it is not our litter.
