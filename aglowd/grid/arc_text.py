"""What A-REX's REST interface 1.0 answers, as `arc.py` asks for it, and nothing taken for granted. Recorded from 6.17.

What must stay true: one thing alone is an object and many are a list; nothing at all is an empty body with status 200; and
each job has a status of its own inside an answer that says 201 whatever became of them. A job has ended when its document
says so too: the list calls a killed job FAILED, and knows no exit code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from aglowd.grid.batch import JobStatus
from aglowd.grid.http import Reply, json_of, unusable
from aglowd.grid.words import quoted, shown

STATES: Mapping[str, str] = MappingProxyType({
    "ACCEPTING": "submitted",
    "ACCEPTED": "submitted",
    "PREPARING": "submitted",
    "PREPARED": "queued",
    "SUBMITTING": "queued",
    "QUEUING": "queued",
    "HELD": "queued",
    "RUNNING": "running",
    "OTHER": "running",
    "EXITINGLRMS": "running",
    "EXECUTED": "running",
    "FINISHING": "running",
    "KILLING": "running",
    "FINISHED": "done_ok",
    "FAILED": "done_failed",
    "KILLED": "cancelled",
    "WIPED": "lost",
})  # fmt: skip
"""A-REX's word → ours; anything else is unknown. How a job ended is told by its document: FAILED without an exit code of
the job's own is aborted."""

WAITING = frozenset({"ACCEPTING", "ACCEPTED", "PREPARING"})
"""Nothing runs yet: A-REX waits for the job's files."""
ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})
NOT_TOLD = "it has ended, and A-REX does not tell yet how"

JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_NEVER_RAN = re.compile(r"User file: .{1,300} - Timeout waiting", re.DOTALL)
"""Of a job that got no files for ten minutes; it is in no batch system, and never will be."""


class Document(Struct, frozen=True):
    """What A-REX tells of one job at length: our key, the state that the document is of, and how it ended.

    `ran` is False when A-REX has given it up because its files did not come.
    """

    name: str
    word: str
    exit_code: int | None = None
    error: str = ""
    ran: bool = True


def entries(reply: Reply, what: str, *, write: bool) -> list[dict[str, Any]]:
    """The jobs of an answer, each with its id; those that were refused have none and come with `status-code` and `reason`."""
    if not reply.body.strip():
        return []
    told = json_of(reply, what, write=write)
    jobs = told.get("job") if isinstance(told, dict) else None
    if isinstance(jobs, dict):
        jobs = [jobs]
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise unusable(f"{what}: found {shown(told)}; expected jobs", write=write)
    return jobs


def named(jobs: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of the jobs that have an id which can be one."""
    found = ((job.get("id"), job) for job in jobs)
    return ((name, job) for name, job in found if isinstance(name, str) and JOB_ID.fullmatch(name))


def code_of(job: Mapping[str, Any]) -> str:
    """The status of its own that the job has inside the answer: a text, but a number would do."""
    return _text(job.get("status-code"))[:10]


def reason_of(job: Mapping[str, Any]) -> str:
    """Why it is what it is, in A-REX's words."""
    return quoted(_text(job.get("reason"))) or "no reason given"


def word_of(job: Mapping[str, Any]) -> str:
    """The state's word."""
    return quoted(_text(job.get("state")), most=40)


def document_of(job: Mapping[str, Any]) -> Document | None:
    """What `action=info` tells of the job; None when it tells nothing."""
    outer = job.get("info_document")
    activity = outer.get("ComputingActivity") if isinstance(outer, dict) else None
    if not isinstance(activity, dict):
        return None
    states = [state for state in _list(activity.get("State")) if isinstance(state, str)]
    code = _text(activity.get("ExitCode")).strip()
    return Document(
        _text(activity.get("Name")),
        next((state.removeprefix("arcrest:") for state in states if state.startswith("arcrest:")), ""),
        int(code) if _NUMBER.fullmatch(code) else None,
        quoted("; ".join(dict.fromkeys(map(_text, _list(activity.get("Error")))))),
        not any(_NEVER_RAN.fullmatch(error) for error in map(_text, _list(activity.get("Error")))),
    )


def status_of(job: str, word: str, document: Document | None) -> JobStatus:
    """The status of a job for which the list has this word. It is final only when the document tells how it ended."""
    if word not in ENDED:
        return JobStatus(job, STATES.get(word, "unknown"), word)
    if document is None or document.word not in ENDED:
        return JobStatus(job, "running", word, reason=NOT_TOLD)
    word, code, error = document.word, document.exit_code, document.error
    if word == "KILLED":
        return JobStatus(job, "cancelled", word, code, error)
    if code is None and (word == "FINISHED" or not error):
        return JobStatus(job, "running", word, reason=NOT_TOLD)
    if word == "FINISHED" and code == 0:
        return JobStatus(job, "done_ok", word, code, error)
    return JobStatus(job, "done_failed" if code else "aborted", word, code, error)


def _list(value: Any) -> list[Any]:
    """One thing alone stands there as itself."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
