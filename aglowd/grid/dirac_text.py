"""What DIRAC's tools print, and how our key travels with its jobs.

Layouts as in the tools' source. The tools log to standard output too, so only lines of a known form count, wherever they
stand. What must stay true: an id of which the output says nothing is never taken for one that ended, and neither is one
of which a line says two things; the application's status is free text, which the payload itself may set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType

from aglowd.errors import Permanent
from aglowd.grid.batch import JobStatus
from aglowd.grid.words import quoted

STATES: Mapping[str, str] = MappingProxyType({
    "Submitting": "submitted",
    "Received": "queued",
    "Checking": "queued",
    "Staging": "queued",
    "Scouting": "queued",
    "Waiting": "queued",
    "Matched": "queued",
    "Rescheduled": "queued",
    "Running": "running",
    "Stalled": "running",
    "Completing": "running",
    "Completed": "running",
    "Done": "done_ok",
    "Failed": "done_failed",
    "Failed (Bulk transaction confirmation)": "aborted",
    "Killed": "cancelled",
    "Deleted": "cancelled",
})  # fmt: skip
"""DIRAC's word, or word and minor word → ours. Anything else is unknown."""
UNCONFIRMED = "Submitting"
"""What several jobs are until the tool that submitted them confirms that it got their ids. Then the server fails them."""
NEVER_RAN = frozenset({"Failed (Bulk transaction confirmation)"})

JOB_ID = re.compile(r"[1-9]\d{0,17}")
MAX_NAME_CHARS = 128
"""Of a job's name, in the server's table."""

# Old tools run on Python 2, which writes large numbers with an L.
_SUBMITTED = re.compile(r"^JobID = (?:(\d+)L?|\[(\d+L?(?:, \d+L?)*)\])[ \t]*$", re.MULTILINE)
_KILLED = re.compile(r"^Killed jobs? (\d+(?:,\d+)*)[ \t]*$", re.MULTILINE)
_STUCK = re.compile(r"(\d+) can't move from (\w+) to Killed")
_LINE = re.compile(r"^JobID=(\d+) (.*)$", re.MULTILINE)
_FIELD = re.compile(r" ?([A-Z][A-Za-z]*)=")
_EXIT_CODE = re.compile(r"\bExited With Status (-?\d{1,9})\b", re.IGNORECASE)
_RETRIEVED = re.compile(r"^Job output sandbox retrieved in (\S.*)/[ \t]*$", re.MULTILINE)
_USER = re.compile(r"^username[ \t]*:[ \t]*([\w.@-]+)[ \t]*$", re.MULTILINE)
_SELECTED = re.compile(r"==> Selected (\d{1,9}) jobs with conditions: .*\n([\d,]+)[ \t]*$", re.MULTILINE)
_NONE_SELECTED = "No jobs were selected with conditions"
_NOT_SELECTED = "Can't select jobs"
_TOO_MANY = re.compile(r"exceeds the limit of (\d{1,9})")

_NAME = re.compile(r"[^A-Za-z0-9_./:=,+@-]")
_ATTRIBUTE = re.compile(r"\s*([A-Za-z]\w*)\s*=\s*[^;\[\]\s][^;\[\]]*")
_OURS = frozenset({
    "executable", "arguments", "inputsandbox", "outputsandbox", "stdoutput", "stderror", "jobname", "jobgroup",
})  # fmt: skip
"""Attributes that requirements may not name: the adapter's promises rest on them."""


def job_group(key: str) -> str:
    """The key as a job group: a column of 32 characters, of which a longer value loses its end or is refused."""
    return "aglowd-" + sha256(key.encode()).hexdigest()[:25]


def job_name(key: str) -> str:
    """The key as a job name, for people: what could end a string of DIRAC's descriptions, or be replaced in it, is not in it."""
    return _NAME.sub("_", key)[:MAX_NAME_CHARS]


def check_requirements(text: str) -> str:
    """Requirements as attributes of a description, each with its semicolon; Permanent for what they may not say.

    DIRAC reads `NAME = VALUE;` without regard to quotes, so no value holds a semicolon or a square bracket.
    """
    lines = []
    for part in text.strip().rstrip(";").split(";") if text.strip() else ():
        match = _ATTRIBUTE.fullmatch(part)
        if not match:
            raise Permanent(f"requirements {text[:100]!r}: expected NAME = VALUE; … without [ and ]")
        if match[1].lower() in _OURS or match[1].lower().startswith("parameter"):
            raise Permanent(f"requirements {text[:100]!r}: {match[1]} is set by aglowd")
        lines.append(f"{part.strip()};")
    return " ".join(lines)


def parse_submit(stdout: str) -> tuple[str, ...]:
    """The ids of the jobs that a submission made; none when it names none, or names them in two ways."""
    found = {match[1] or match[2] for match in _SUBMITTED.finditer(stdout)}
    if len(found) != 1:
        return ()
    ids = tuple(word.strip().removesuffix("L") for word in found.pop().split(","))
    return ids if len(set(ids)) == len(ids) and all(JOB_ID.fullmatch(job) for job in ids) else ()


def parse_status(stdout: str) -> dict[str, JobStatus]:
    """Job id → its status, for what the output speaks of."""
    found: dict[str, JobStatus] = {}
    for match in _LINE.finditer(stdout):
        status = _status(match[1], _fields(match[2]))
        if status is None or not JOB_ID.fullmatch(match[1]):
            continue
        if found.setdefault(status.id, status) != status:
            found[status.id] = JobStatus(status.id, "unknown", reason="DIRAC says two things of it")
    return found


def _fields(text: str) -> dict[str, list[str]]:
    """Name → what was said of it. A value may hold semicolons: it goes on until the next name."""
    fields: dict[str, list[str]] = {}
    last: list[str] = []
    # What does not end in a semicolon was cut off.
    for part in text.split(";")[:-1]:
        head = _FIELD.match(part)
        if head:
            last = fields.setdefault(head[1], [])
            last.append(part[head.end() :])
        elif last:
            last[-1] += f";{part}"
    return fields


def _status(name: str, fields: Mapping[str, list[str]]) -> JobStatus | None:
    said = fields.get("Status", [])
    if not said:
        return None
    if len(said) > 1 or len(fields.get("MinorStatus", ())) > 1:
        return JobStatus(name, "unknown", reason="DIRAC says two things of it")
    status, minor = quoted(said[0]), _told(fields, "MinorStatus")
    words = f"{status} ({minor})" if minor else status
    state = STATES.get(words) or STATES.get(status, "unknown")
    application = _told(fields, "ApplicationStatus")
    code = 0 if state == "done_ok" else None
    match = _EXIT_CODE.search(application)
    if match and state == "done_failed":
        code = int(match[1]) or None
    return JobStatus(name, state, words, code, application)


def _told(fields: Mapping[str, list[str]], name: str) -> str:
    """What is said of it; nothing where DIRAC does not know it either."""
    text = quoted("; ".join(fields.get(name, ())))
    return "" if text in ("Unknown", "None") else text


def parse_killed(stdout: str) -> tuple[frozenset[str], dict[str, str]]:
    """The jobs that were told to end, and those that the server cannot kill in the state in which they are: id → state."""
    killed = frozenset(job for match in _KILLED.finditer(stdout) for job in match[1].split(","))
    stuck = {match[1]: match[2] for match in _STUCK.finditer(stdout)}
    return killed - stuck.keys(), stuck


def parse_error(stdout: str, head: str) -> str:
    """What the tool says last on a line that begins with `head`; "" if there is no such line."""
    said = [line.removeprefix(head).strip() for line in stdout.splitlines() if line.startswith(head)]
    return said[-1] if said else ""


def parse_limit(error: str) -> int | None:
    """How many jobs the server takes at once, if it refused more."""
    match = _TOO_MANY.search(error)
    return int(match[1]) if match else None


def was_retrieved(stdout: str) -> bool:
    """Whether the tool says that it fetched a sandbox."""
    return bool(_RETRIEVED.search(stdout))


def parse_user(stdout: str) -> str | None:
    """The name under which DIRAC knows the owner of the proxy."""
    match = _USER.search(stdout)
    return match[1] if match else None


def parse_selected(stdout: str) -> tuple[str, ...] | None:
    """The ids of a selection of jobs; None when it is not told whole."""
    if _NOT_SELECTED in stdout:
        return None  # Behind that the tool says that there are none.
    match = _SELECTED.search(stdout)
    if match is None:
        return () if _NONE_SELECTED in stdout else None
    ids = tuple(match[2].split(","))
    return ids if len(ids) == int(match[1]) and all(JOB_ID.fullmatch(job) for job in ids) else None
