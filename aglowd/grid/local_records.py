"""What lies in the directory of a pilot of this host, and what it means.

What must stay true: a process is ours only if its pid, its start time and this boot are the recorded ones; no end is told
that nobody recorded; and a record that cannot be read says nothing about its pilot. docs/jobs.md has the table.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec
from msgspec import Struct

from aglowd.grid import local_supervisor as supervisor
from aglowd.grid.batch import JobStatus

STATES: Mapping[str, str] = MappingProxyType({
    "ordered": "submitted",
    "called off": "cancelled",
    "waiting": "queued",
    "running": "running",
    "unwatched": "running",
    "exit code 0": "done_ok",
    "exit code": "done_failed",
    "signal": "done_failed",
    "wall time": "done_failed",
    "cancelled": "cancelled",
    "stopped": "aborted",
    "not started": "aborted",
    "gone": "lost",
    "rebooted": "lost",
    "gone, cancelled": "cancelled",
    "unreadable": "unknown",
})  # fmt: skip
"""What is seen in a directory → our state."""

_REASONS: Mapping[str, str] = MappingProxyType({
    "unwatched": "its supervisor was killed, the pilot lives on; nobody will tell how it ends",
    "gone": "its supervisor was killed, and nobody knows how it ended",
    "rebooted": "this host was started anew, and nobody knows how it ended",
    "wall time": "it reached its wall time",
    "stopped": "somebody ended its supervisor by a signal, and did not ask us",
})  # fmt: skip


class Ordered(Struct, frozen=True):
    """order.json: what is to run, and all that the supervisor must know. `ordered_at` is in world seconds."""

    job: str
    key: str
    argv: tuple[str, ...]
    ordered_at: float
    rate: float
    wall_time_s: float
    notice_s: float
    most: int
    nice: int
    memory_bytes: int | None
    cpu_s: int | None


class Process(Struct, frozen=True):
    """A process of one boot: its start time in ticks since then tells it from others that had the same pid."""

    pid: int
    started: int

    def is_alive(self) -> bool:
        """Whether this one, and not another with its pid, still runs; a zombie does not."""
        return supervisor.started_at(self.pid) == self.started


class Known(Struct, frozen=True):
    """pid.json: the supervisor, and the pilot once there is one. `cgroup` tells whether it has a scope of its own."""

    pid: int
    started: int
    boot: str
    cgroup: str = ""
    pilot: Process | None = None

    @property
    def supervisor(self) -> Process:
        """The process that wrote this."""
        return Process(self.pid, self.started)


class Asked(Struct, frozen=True):
    """cancel.json: when somebody asked for the end first, in world seconds."""

    at: float


class Ended(Struct, frozen=True):
    """exit.json: how it ended, and in `by` what brought that about, if it was not the pilot. `at` is in world seconds."""

    code: int | None
    signal: int | None
    by: str
    reason: str
    at: float


R = TypeVar("R", Ordered, Known, Asked, Ended)


def read(path: Path, kind: type[R]) -> R | None:
    """The record, or None if it is not there; an OSError if it cannot be read or understood."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise OSError(errno.EBADMSG, f"the record is damaged: {error}", str(path)) from error


def was_started(place: Path) -> bool:
    """Whether a supervisor ever began here: then none will begin again."""
    return (place / supervisor.PID).exists() or (place / supervisor.EXIT).exists()


def look(place: Path, job: str, boot: str) -> JobStatus | None:
    """The status of this pilot while `boot` is the boot of the host; None if it has no directory."""
    try:
        words, ended = _see(place, boot)
    except OSError as error:
        return JobStatus(job, STATES["unreadable"], "unreadable", reason=f"{error.filename}: {error.strerror}")
    if not words:
        return None
    reason = _REASONS.get(words, "")
    code = None
    if ended is not None:
        code = ended.code
        reason = reason or ended.reason or (f"signal {ended.signal}" if ended.signal is not None else "")
    return JobStatus(job, STATES[words], words, code, reason)


def _see(place: Path, boot: str) -> tuple[str, Ended | None]:
    """What is seen, in a word of STATES, or "" if there is nothing; and how it ended, if that is recorded."""
    known = None
    for _ in range(2):
        ended = read(place / supervisor.EXIT, Ended)
        if ended is not None:
            return _end(ended), ended
        known = read(place / supervisor.PID, Known)
        if known is None:
            if read(place / supervisor.CANCEL, Asked) is not None:
                return "called off", None
            return "ordered" if place.is_dir() else "", None
        if known.boot != boot:
            break
        if known.supervisor.is_alive():
            return "waiting" if known.pilot is None else "running", None
        if known.pilot is not None and known.pilot.is_alive():
            return "unwatched", None
        # It may have written its last word between our looks; now that it has gone, the next ones see all there is.
    if read(place / supervisor.CANCEL, Asked) is not None:
        return "gone, cancelled", None
    return "gone" if known is not None and known.boot == boot else "rebooted", None


def _end(ended: Ended) -> str:
    by = {
        supervisor.CANCELLED: "cancelled",
        supervisor.WALL_TIME: "wall time",
        supervisor.SIGNAL: "stopped",
        supervisor.NOT_STARTED: "not started",
    }.get(ended.by)
    if by is not None:
        return by
    if ended.code is None:
        return "signal"
    return "exit code" if ended.code else "exit code 0"
