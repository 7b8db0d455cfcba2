"""What the gLite tools print, and the job descriptions that they read.

Layouts as recorded from the EMI-3 tools. What must stay true: an id of which the output says nothing is never taken for
one that ended; a reason is free text (it may hold colons and equals signs), so blocks are found by their head line and
never by separators, which older tools and `-v 0` print otherwise or not at all.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from msgspec import Struct
from msgspec.structs import replace

from aglowd.errors import Permanent
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
    "Cleared": "gone",
    "Purged": "gone",
})  # fmt: skip
"""The bookkeeping's word → ours. Anything else is unknown. Cleared and Purged no longer say how the job ended."""
FINAL = frozenset({"done_ok", "done_failed", "aborted", "cancelled", "gone"})

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

_PLAIN = re.compile(r"[A-Za-z0-9_./:=,+@%~-]+")
_TEXT = re.compile(r"[ -~]*")
_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class JobStatus(Struct, frozen=True):
    """One job, or one node of a parametric one.

    `state`: submitted, queued, running, done_ok, done_failed, aborted, cancelled, gone, unknown. `words` are the
    bookkeeping's own, blanks normalised. Our job descriptions forbid resubmission, so a failed job stays failed.
    """

    id: str
    state: str
    words: str = ""
    exit_code: int | None = None
    reason: str = ""
    nodes: tuple[JobStatus, ...] = ()

    @property
    def is_final(self) -> bool:
        """It will not change any more."""
        return self.state in FINAL


class Registered(Struct, frozen=True):
    """A job that the WMS knows; `transferred`: with its input sandbox."""

    id: str
    transferred: bool


def parse_status(stdout: str) -> dict[str, JobStatus]:
    """Job id → its status, for what the output speaks of; an id that the bookkeeping never heard of is left out.

    A purged job is gone, and one that could not be asked about is unknown, with the reason.
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
            found.setdefault(lost[1], JobStatus(lost[1], "gone", reason="purged from the bookkeeping"))
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


def jdl(
    executable: str,
    arguments: Sequence[str],
    sandbox_in: Sequence[str],
    sandbox_out: Sequence[str],
    nodes: int,
    tag: str,
    requirements: str | None = None,
    cpus: int | None = None,
) -> str:
    """A job description; with more than one node a parametric one, whose nodes find their number as `_PARAM_`.

    The WMS splits `Arguments` at blanks and a shell sees it, so an argument may only hold letters, digits and
    _./:=,+@%~- ; Permanent otherwise. No secret belongs here: descriptions are shown by the bookkeeping.
    """
    if nodes < 1:
        raise Permanent(f"job description: found {nodes} nodes; expected at least one")
    for value, pattern in [
        *((name, _FILE) for name in (*sandbox_in, *sandbox_out)),
        *((argument, _PLAIN) for argument in (executable, *arguments)),
    ]:
        if not pattern.fullmatch(value):
            raise Permanent(f"job description: found {value[:100]!r}; expected letters, digits and _ . + -")
    if requirements and (not _TEXT.fullmatch(requirements) or ";" in requirements):
        raise Permanent(f"job description: requirements {requirements[:100]!r}; expected one expression without ;")
    lines = {
        "Executable": _quoted(executable),
        "Arguments": _quoted(" ".join(arguments)) if arguments else None,
        "StdOutput": _quoted(sandbox_out[0]) if sandbox_out else None,
        "StdError": _quoted(sandbox_out[1]) if len(sandbox_out) > 1 else None,
        "InputSandbox": _list(sandbox_in),
        "OutputSandbox": _list(sandbox_out),
        "UserTags": f"[ {TAG_NAME} = {_quoted(tag)}; ]",
        "Requirements": requirements,
        "SmpGranularity": None if cpus is None else str(cpus),
        "CPUNumber": None if cpus is None else str(cpus),
        "ShallowRetryCount": "0",  # A node that ran twice would claim two tokens.
        "RetryCount": "0",
    }
    if nodes > 1:
        # `Parameters` is the exclusive upper bound: the count is (Parameters - ParameterStart) / ParameterStep.
        lines |= {"JobType": '"Parametric"', "Parameters": str(nodes), "ParameterStart": "0", "ParameterStep": "1"}
    return "[\n" + "".join(f"  {name} = {value};\n" for name, value in lines.items() if value) + "]\n"


def _quoted(text: str) -> str:
    """A text as a ClassAd string; Permanent for what no string may hold."""
    if not _TEXT.fullmatch(text):
        raise Permanent(f"job description: {text[:100]!r} holds a line break or a sign outside ASCII")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _list(names: Sequence[str]) -> str | None:
    return "{" + ", ".join(map(_quoted, names)) + "}" if names else None
