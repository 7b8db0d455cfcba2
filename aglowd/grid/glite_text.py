"""What the gLite tools print.

Layouts as recorded from the EMI-3 tools. What must stay true: an id of which the output says nothing is never taken for
one that ended; a reason is free text (it may hold colons and equals signs), so blocks are found by their head line and
never by separators, which older tools and `-v 0` print otherwise or not at all.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from aglowd.grid.batch import JobStatus
from aglowd.grid.words import quoted

TAG_NAME = "aglowd_key"

STATES: Mapping[str, str] = MappingProxyType({
    "Submitted": "submitted",
    "Waiting": "queued",
    "Ready": "queued",
    "Scheduled": "queued",
    "Running": "running",
    "Done(Success)": "done_ok",
    "Done(Exit Code !=0)": "done_failed",
    "Done(Failed)": "done_failed",
    "Done(Cancelled)": "cancelled",
    "Aborted": "aborted",
    "Cancelled": "cancelled",
    "Cleared": "lost",
    "Purged": "lost",
})  # fmt: skip
"""The bookkeeping's word → ours. Anything else is unknown. Cleared and Purged no longer say how the job ended."""

JOB_ID = re.compile(r"https://[A-Za-z0-9.-]+(?::\d{1,5})?/[A-Za-z0-9_-]+")

_HEAD = re.compile(r"^([ \t]*)Status info for the Job\s*:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_LOST = re.compile(r"Unable to retrieve the status for:\s*(\S+)")
# No pattern here ends in blanks that what stands before them may hold too: a long line would take time without end.
_WORDS = re.compile(r"^[ \t]*Current Status:(.*)$", re.MULTILINE)
_EXIT_CODE = re.compile(r"^[ \t]*Exit code:[ \t]*(-?\d{1,9})[ \t]*$", re.MULTILINE)
_REASON = re.compile(r"^[ \t]*Status Reason:(.*)$", re.MULTILINE)
_MORE = re.compile(r"^[ \t]*---[ \t]*$", re.MULTILINE)
_PURGED = re.compile(r"Identifier removed|already purged|410 Gone", re.IGNORECASE)
_NO_SUCH = re.compile(r"No such file or directory|no matching jobs found", re.IGNORECASE)
_SUBMITTED = re.compile(r"Your job identifier is:\s*(\S+)")
_HALF_SUBMITTED = re.compile(r"registered \(the JobId is:\s*([^\s)]+)")


class Registered(Struct, frozen=True):
    """A job that the WMS knows; `transferred`: with its input sandbox."""

    id: str
    transferred: bool


def parse_status(stdout: str) -> dict[str, JobStatus]:
    """Job id → its status, for what the output speaks of; an id that the bookkeeping never heard of is left out.

    A purged job is lost, and one that could not be asked about is unknown, with the reason.
    """
    return read_status(stdout)[0]


def read_status(text: str) -> tuple[dict[str, JobStatus], set[str]]:
    """The statuses, and the ids that the bookkeeping explicitly does not know."""
    found: dict[str, JobStatus] = {}
    nodes: dict[str, list[JobStatus]] = {}
    absent: set[str] = set()
    parent = ""
    heads, losses = list(_HEAD.finditer(text)), list(_LOST.finditer(text))
    ends = sorted([match.start() for match in (*heads, *losses)] + [len(text)])
    for head in heads:
        status = _status(head[2], text[head.end() : ends[bisect_right(ends, head.start())]])
        if head[1] and parent:
            nodes[parent].append(status)
        else:
            parent = status.id
            found[parent], nodes[parent] = status, []
    found = {name: replace(status, nodes=tuple(nodes[name])) for name, status in found.items()}
    for lost in losses:
        said = text[lost.end() : ends[bisect_right(ends, lost.start())]]
        if _PURGED.search(said):
            found.setdefault(lost[1], JobStatus(lost[1], "lost", reason="purged from the bookkeeping"))
        elif _NO_SUCH.search(said):
            absent.add(lost[1])
        else:
            reason = next((line.strip() for line in said.splitlines() if line.strip()), "no reason given")
            found.setdefault(lost[1], JobStatus(lost[1], "unknown", reason=quoted(reason)))
    return found, absent - found.keys()


def _status(name: str, block: str) -> JobStatus:
    block = _MORE.split(block)[0]  # Behind it, more verbose output repeats everything in another form.
    words = quoted(_first(_WORDS, block)).replace(" (", "(").replace("( ", "(").replace(" )", ")")
    code = _first(_EXIT_CODE, block)
    reason = quoted(_first(_REASON, block))
    return JobStatus(name, STATES.get(words, "unknown"), words, int(code) if code else None, reason)


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""


def parse_submit(stdout: str, stderr: str = "") -> Registered | None:
    """The job that a submission made, also one whose sandbox was not transferred; None when it names none."""
    for pattern, text, transferred in ((_HALF_SUBMITTED, stderr, False), (_SUBMITTED, stdout, True)):
        match = pattern.search(text)
        if match and JOB_ID.fullmatch(match[1]):
            return Registered(match[1], transferred)
    return None
