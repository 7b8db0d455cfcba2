"""What Slurm's tools print, and the names of its jobs.

What must stay true: an id that an answer does not name is never taken for one that ended, and an array has ended only when
that is told of each of its tasks. The accounting is late, and for some seconds it shows a new array as one failed job, so
its rows count only with their index and when they are final: what lives the controller knows better.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from aglowd.errors import Permanent
from aglowd.grid.batch import JobStatus
from aglowd.grid.words import quoted

STATES: Mapping[str, str] = MappingProxyType({
    "PENDING": "queued",
    "CONFIGURING": "queued",
    "REQUEUED": "queued",
    "REQUEUE_FED": "queued",
    "REQUEUE_HOLD": "queued",
    "SPECIAL_EXIT": "queued",
    "RESV_DEL_HOLD": "queued",
    "RUNNING": "running",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "COMPLETING": "running",
    "COMPLETED": "done_ok",
    "FAILED": "done_failed",
    "TIMEOUT": "done_failed",
    "OUT_OF_MEMORY": "done_failed",
    "NODE_FAIL": "aborted",
    "BOOT_FAIL": "aborted",
    "LAUNCH_FAILED": "aborted",
    "PREEMPTED": "aborted",
    "DEADLINE": "aborted",
    "CANCELLED": "cancelled",
})  # fmt: skip
"""Slurm's word → ours. Anything else is unknown."""

REFUSED = "BadConstraints"
"""The reason of a failed job that never ran: of a submission that was refused a record may stay behind."""

FIELDS = ("JobArrayID", "State", "exit_code", "Reason")
"""Of squeue."""
NAMED = ("Comment", "Name")
ACCOUNTED = ("JobID", "State", "ExitCode", "Reason")
"""The same, of sacct."""
ACCOUNTED_NAMED = ("Comment", "JobName")
SEPARATOR = "\t"
"""A key holds none."""

MAX_TASKS = 4_000_001
"""Slurm's own bound of an array."""

_JOB = re.compile(r"([1-9]\d{0,9})(?:_(0|[1-9]\d{0,6})|_\[0-(0|[1-9]\d{0,6})\])?", re.ASCII)
_ROW = re.compile(r"([1-9]\d{0,9})(?:_(\d{1,7}|\[[\d,:%.-]*\]))?", re.ASCII)
_RANGE = re.compile(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?", re.ASCII)
_EXIT = re.compile(r"(\d{1,10})(?::(\d{1,10}))?", re.ASCII)
_COUNTED = re.compile(r"([1-9]\d{0,6}) (.*)", re.ASCII | re.DOTALL)
_SUBMITTED = re.compile(r"^(?:Submitted batch job )?([1-9]\d{0,9})(?:;\S*| on cluster \S+)?[ \t]*$", re.MULTILINE)
_ARRAY_SIZE = re.compile(r"^MaxArraySize\s*=\s*(\d{1,9})\s*$", re.MULTILINE)
_ARRAY_TASKS = re.compile(r"^SchedulerParameters\s*=.*\bmax_array_tasks=(\d{1,9})", re.MULTILINE)


class JobId(Struct, frozen=True, gc=False):
    """`17` is a single job, `17_3` one task of an array, `17_[0-49]` an array of 50: so its size is known to whoever has its
    id. scancel and scontrol take all three."""

    number: str
    task: int | None = None
    count: int | None = None

    def __str__(self) -> str:
        if self.count is not None:
            return f"{self.number}_[0-{self.count - 1}]"
        return self.number if self.task is None else f"{self.number}_{self.task}"


class Row(Struct, frozen=True, gc=False):
    """One line about a job, or about one or several tasks of an array. `tasks` is None where no index is given."""

    number: str
    tasks: str | None
    words: str
    exit: str
    reason: str
    comment: str = ""
    name: str = ""

    @property
    def index(self) -> int | None:
        """The one task that it speaks of."""
        return int(self.tasks) if self.tasks is not None and self.tasks.isdecimal() else None

    @property
    def is_refused(self) -> bool:
        """It is what a refused submission left behind: nothing of it ever ran."""
        return self.words == "FAILED" and self.reason == REFUSED

    def status(self, name: str) -> JobStatus:
        """What it says, of the job or task of that name."""
        state = STATES.get(self.words.split(" ")[0].rstrip("+").upper(), "unknown")
        code, signal = _ending(self.exit)
        if state == "done_ok" and (signal or code != 0):
            state = "done_failed" if signal or code else "unknown"
        if self.is_refused:
            state = "aborted"
        reasons = [self.reason] if self.reason and self.reason not in ("None", "(null)") else []
        if state == "done_failed" and 0 < signal < 65:
            reasons.append(f"signal {signal}")
        says_code = state in ("done_ok", "done_failed") and not signal and (code != 0 or state == "done_ok")
        return JobStatus(name, state, self.words, code if says_code else None, ", ".join(reasons))


def parse_job_id(text: str) -> JobId:
    """A job as we name it; Permanent if it is none."""
    match = _JOB.fullmatch(text)
    if match is None or int(match[3] or 0) >= MAX_TASKS:
        raise Permanent(f"found job id {text[:100]!r}; expected a number, or an array such as 17_[0-49]")
    return JobId(match[1], int(match[2]) if match[2] else None, int(match[3]) + 1 if match[3] else None)


def job_id(number: str, count: int) -> JobId:
    """So many pilots that were submitted at once under that number; one is no array."""
    return JobId(number, count=count if count > 1 else None)


def parse_rows(text: str, fields: Sequence[str], *, closed: bool) -> list[Row]:
    """The lines that have all their fields; others are noise, or were cut off. `closed`: each field has its separator."""
    found = []
    for line in text.split("\n"):
        parts = line.rstrip("\r").split(SEPARATOR)
        if (closed and parts.pop() != "") or len(parts) < len(fields):
            continue
        match = _ROW.fullmatch(parts[0])
        if match is None:
            continue
        if len(fields) > len(FIELDS):
            parts[5:] = [SEPARATOR.join(parts[5:])]  # The name of somebody else's job may hold anything.
        words = quoted(parts[1])
        if len(parts) == len(fields) and words:
            reason = quoted(parts[3])
            found.append(Row(match[1], match[2], words, parts[2].strip(), reason, *parts[4:]))
    return found


def parse_submit(stdout: str) -> str | None:
    """The number of the job that sbatch made; None when it names none, or several."""
    found = set(_SUBMITTED.findall(stdout))
    return found.pop() if len(found) == 1 else None


def parse_limit(config: str) -> int | None:
    """The largest array that the cluster takes, from `scontrol show config`."""
    found = [int(match[1]) for pattern in (_ARRAY_SIZE, _ARRAY_TASKS) if (match := pattern.search(config))]
    return min(found) if found else None


def comment(key: str, count: int) -> str:
    """What a job carries beside its name: from it the size of an array is known, whatever the cluster still shows of it."""
    return f"{count} {key}"


def find_named(rows: Iterable[Row], key: str) -> tuple[str, ...]:
    """The jobs whose name is the key, but for those that were refused."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.name == key and not row.is_refused:
            ends = (1 + tasks[-1] for tasks in _ranges(row.tasks or ""))
            seen = _counted(row, key) or max(ends, default=1)
            counts[row.number] = max(counts.get(row.number, 0), seen)
    return tuple(str(job_id(number, counts[number])) for number in sorted(counts, key=int))


def list_named(rows: Sequence[Row]) -> dict[str, JobStatus]:
    """All jobs with their states. Arrays that are not ours are named by their number, for nobody tells their size."""
    counts: dict[str, int | None] = {}
    for row in rows:
        count = _counted(row, row.name)
        counts[row.number] = max(count or 0, counts.get(row.number) or 0) or None
    found: dict[str, JobStatus] = {}
    by_number = _by_number(rows)
    for number, count in counts.items():
        if count is None and any(row.tasks is not None for row in by_number[number]):
            nodes = [row.status(f"{number}_{row.tasks}") for row in by_number[number]]
            found[number] = _parent(number, nodes, len(nodes))
        else:
            name = job_id(number, count or 1)
            status = status_of(name, by_number[number])
            if status is not None:
                found[str(name)] = status
    return found


def list_statuses(jobs: Iterable[JobId], shown: Sequence[Row], accounted: Sequence[Row]) -> dict[str, JobStatus]:
    """The statuses of the jobs of which squeue or sacct says something.

    Tasks of an array of which nothing is said are `unknown`: they may live, and nobody is to be put in their places.
    """
    here, there = _by_number(shown), _by_number(accounted)
    found = {}
    for job in jobs:
        status = status_of(job, here.get(job.number, ()), there.get(job.number, ()))
        if status is not None:
            found[str(job)] = replace(status, nodes=_all_nodes(job, status)) if job.count else status
    return found


def _all_nodes(job: JobId, status: JobStatus) -> tuple[JobStatus, ...]:
    told = {node.id: node for node in status.nodes}
    names = (f"{job.number}_{index}" for index in range(job.count or 0))
    return tuple(told.get(name) or JobStatus(name, "unknown", reason="nothing is said of it") for name in names)


def status_of(job: JobId, shown: Sequence[Row], accounted: Sequence[Row] = ()) -> JobStatus | None:
    """How the job stands, from squeue's rows and sacct's rows of its number; None if they say nothing of it."""
    ended = [row for row in accounted if row.status("").is_final]
    if job.count is None:
        if job.task is None:
            rows = [row for row in (*shown, *ended) if row.tasks is None]
            return rows[0].status(str(job)) if rows else None
        return _tasks(job.number, {job.task}, shown, ended).get(job.task)
    every = range(job.count)
    wanted = set(every) if any(map(_is_rest, shown)) else set[int]()
    for row in (*shown, *ended):
        for tasks in _ranges(row.tasks or ""):
            wanted.update(
                index for index in (tasks if len(tasks) < job.count else every) if index in tasks and index in every
            )
    nodes = _tasks(job.number, wanted, shown, ended)
    return _parent(str(job), [nodes[index] for index in sorted(nodes)], job.count) if nodes else None


def list_open(jobs: Iterable[JobId], shown: Sequence[Row]) -> list[JobId]:
    """The jobs of which squeue does not tell all: the accounting may know more.

    Among tasks that have one row together, as the rest of an array, may be some that ended in another way and are forgotten.
    """
    here = _by_number(shown)
    return [job for job in jobs if not _tells_all(job, here.get(job.number, ()))]


def _tells_all(job: JobId, rows: Sequence[Row]) -> bool:
    status = status_of(job, rows)
    if status is None or job.count is None:
        return status is not None
    return len(status.nodes) == job.count and not any(map(_is_rest, rows))


def _tasks(number: str, wanted: set[int], shown: Sequence[Row], ended: Sequence[Row]) -> dict[int, JobStatus]:
    """Index → status. A row of its own goes before one of several tasks; last comes the one that stands for the rest.

    Tasks that were cancelled while they waited have one row together, which tells no index.
    """
    found: dict[int, JobStatus] = {}
    rows = [row for row in (*shown, *ended) if row.tasks is not None]
    for row in sorted(rows, key=lambda row: row.index is None):
        for tasks in _ranges(row.tasks or ""):
            for index in tasks if len(tasks) < len(wanted) else wanted:
                if index in tasks and index in wanted and index not in found:
                    found[index] = row.status(f"{number}_{index}")
    rest = next(filter(_is_rest, shown), None)
    if rest is not None:
        for index in wanted - found.keys():
            found[index] = rest.status(f"{number}_{index}")
    return found


def _is_rest(row: Row) -> bool:
    """It speaks of tasks without naming them all: squeue's only row without an index, or a list that was cut."""
    return row.tasks is None or "." in row.tasks


def _parent(name: str, nodes: Sequence[JobStatus], count: int) -> JobStatus:
    """An array as a whole: it runs while one task runs and waits while one waits; over is it when all are told to be over.

    Then it is done_ok if one task was, which may have done the work of all; else done_failed, aborted or cancelled, by the
    first of these that one of them was.
    """
    states = {node.state for node in nodes}
    words = Counter(node.words.split(" ")[0] for node in nodes)
    missing = count - len(nodes)
    order = ["running", "queued", "unknown", "done_ok", "done_failed", "aborted", "cancelled"]
    if missing > 0 and not states & {"running", "queued"}:
        states.add("unknown")
    state = next(one for one in order if one in states)
    reasons = Counter(node.reason for node in nodes if node.state == state and node.reason)
    reason = reasons.most_common(1)[0][0] if reasons else ""
    if missing > 0:
        reason = f"nothing is said of {missing} of {count} tasks" + (f"; {reason}" if reason else "")
    said = ", ".join(f"{word} {number}" for word, number in words.most_common())
    return replace(JobStatus(name, state, said, reason=reason), nodes=tuple(nodes))


def _ending(text: str) -> tuple[int | None, int]:
    """Exit code and signal, from sacct's `CODE:SIGNAL` or squeue's raw wait status; (None, 0) if it cannot be read."""
    match = _EXIT.fullmatch(text)
    if match is None:
        return None, 0
    if match[2] is not None:
        return int(match[1]), int(match[2])
    return int(match[1]) >> 8, int(match[1]) & 0x7F


def _ranges(tasks: str) -> list[range]:
    """The tasks of `3` or `[0,4-9:2%1]`, in which `%1` is how many may run at once. None of them is empty."""
    found = []
    for part in tasks.strip("[]").partition("%")[0].split(","):
        match = _RANGE.fullmatch(part)
        if match is not None:
            first, step = int(match[1]), max(int(match[3] or 1), 1)
            found.append(range(first, int(match[2] or first) + 1, step))
    return [tasks for tasks in found if tasks]


def _counted(row: Row, key: str) -> int | None:
    """How many pilots were submitted together, if the comment is still ours: sites may write something else there."""
    match = _COUNTED.fullmatch(row.comment)
    return int(match[1]) if match is not None and match[2] == key else None


def _by_number(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.number, []).append(row)
    return found
