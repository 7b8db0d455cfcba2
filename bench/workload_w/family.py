"""The processes of a system under test: what they cost together, and their end.

What must stay true: nothing that a system started escapes, whatever session or parent it gave itself: this process is the
reaper of all that descend from it, so that orphans come back to it. Times of the dead count: of those that were waited for
in their parents' times, of those that we waited for in ours.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TICKS = os.sysconf("SC_CLK_TCK")
PPID, TIMES = 1, slice(11, 15)
"""Where they stand in /proc/PID/stat behind the name: the parent; user and system time, our own and of waited-for children."""
KILL_LIMIT_S = 20.0


def become_reaper() -> None:
    """From now on orphans among our descendants are our children."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Family:
    """All that descend from this process but `spared` ones and theirs."""

    def __init__(self, *spared: int) -> None:
        self._spared = spared

    def members(self) -> dict[int, list[str]]:
        """Process → its /proc/PID/stat behind the name; those that have ended and were not waited for are among them."""
        stats = {int(path.name): stat for path in Path("/proc").glob("[0-9]*") if (stat := _stat(path))}
        children: dict[int, list[int]] = {}
        for pid, stat in stats.items():
            children.setdefault(int(stat[PPID]), []).append(pid)
        found: dict[int, list[str]] = {}
        parents = [os.getpid()]
        while parents:
            for pid in children.get(parents.pop(), ()):
                if pid not in self._spared:
                    found[pid] = stats[pid]
                    parents.append(pid)
        return found

    def cpu_s(self) -> float:
        """CPU seconds so far, with those that our dead children had; differences of it count."""
        living = sum(int(ticks) for stat in self.members().values() for ticks in stat[TIMES]) / TICKS
        dead = resource.getrusage(resource.RUSAGE_CHILDREN)
        return living + dead.ru_utime + dead.ru_stime

    def memory_bytes(self) -> int:
        """Their proportional set sizes: a page that some share counts once."""
        return sum(map(_pss_bytes, self.members()))

    def kill(self) -> None:
        """SIGKILL to all of them, until none is left."""
        until = time.monotonic() + KILL_LIMIT_S
        while members := self.members():
            if time.monotonic() > until:
                raise RuntimeError(f"processes {sorted(members)} do not die")
            for pid in members:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid, stat in members.items():
                if int(stat[PPID]) == os.getpid():
                    with suppress(ChildProcessError):
                        os.waitpid(pid, 0)


def _stat(path: Path) -> list[str]:
    try:
        return (path / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:  # It has ended meanwhile.
        return []


def _pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
