"""The directories of this host's pilots: made, looked at, marked for their end, and removed. All of it blocks.

What must stay true: a directory has its name only when it is complete, and its name follows from our key; none is removed
whose pilot may live; and no process gets a signal but the very one that was recorded.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import msgspec

from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary
from aglowd.grid import local_supervisor as supervisor
from aglowd.grid.batch import JobStatus, Order
from aglowd.grid.local_records import Asked, Ended, Known, Ordered, Process, look, read, was_started

KEPT_S = 30 * 86400.0
"""World seconds for which the directory of a pilot stays after its end."""
JOB_ID = re.compile(r"[0-9a-f]{24}-(?:0|[1-9]\d{0,5})")

_NEW = ".new-"
_GONE = ".gone-"


class Directories:
    """All pilots below `path`, which need not be there before the first one."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock

    def write(self, order: Order, records: Iterable[Ordered]) -> None:
        """A directory for each of these pilots that has none yet, and none for those that ended long ago."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.path / supervisor.PLACES).mkdir(exist_ok=True, mode=0o700)
        with self._locked():
            self._forget()
            for record in records:
                known = read(self.path / record.job / supervisor.ORDER, Ordered)
                if known is None:
                    self._write(order, record)
                elif known.key != record.key:
                    raise Permanent(
                        f"{self.path / record.job}: it belongs to the key {known.key!r}, not to {record.key!r}"
                    )

    @seam
    def _write(self, order: Order, record: Ordered) -> None:
        place = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.path))
        try:
            _fill(place, order, record)
            os.rename(place, self.path / record.job)
        except OSError:
            shutil.rmtree(place, ignore_errors=True)
            raise
        supervisor.sync(str(self.path))

    def names(self) -> list[str]:
        """The pilots' directories; none when nothing was ever submitted, an error when the place of all that is away."""
        if not self.path.exists() and self.path.parent.is_dir():
            return []
        return [name for name in os.listdir(self.path) if JOB_ID.fullmatch(name)]

    def find(self, key: str) -> tuple[str, ...]:
        """The pilots of this key that were started, in their order."""
        found = []
        for name in self.names():
            if name.startswith(f"{digest(key)}-") and was_started(self.path / name):
                known = read(self.path / name / supervisor.ORDER, Ordered)
                if known is not None and known.key == key:
                    found.append(name)
        return tuple(sorted(found, key=lambda name: int(name.rpartition("-")[2])))

    def look(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Those of these pilots that have a directory; Temporary when none of them can be told of."""
        here = set(self.names())
        boot = supervisor.boot_id()
        seen = {job: look(self.path / job, job, boot) for job in jobs if job in here}
        found = {job: status for job, status in seen.items() if status is not None}
        if found and all(status.state == "unknown" for status in found.values()):
            status = next(iter(found.values()))
            raise Temporary(f"no word about any of {len(found)} pilots: {status.reason}")
        return found

    @seam
    def cancel(self, job: str) -> None:
        """Mark the pilot for its end and tell its supervisor; one that has ended, or was told before, is fine."""
        place = self.path / job
        if read(place / supervisor.EXIT, Ended) is not None:
            return
        marked = read(place / supervisor.CANCEL, Asked)
        if marked is None:
            supervisor.write_record(supervisor.CANCEL, {"at": self._clock.now()}, str(place))
        # Whoever writes its record after this line looks for our mark after that, and runs nothing.
        known = read(place / supervisor.PID, Known)
        if known is None or known.boot != supervisor.boot_id():
            return
        if _signal(known.supervisor, signal.SIGTERM) or known.pilot is None:
            return
        # Nobody watches this one any more, so whoever asks again must do what its supervisor would have done.
        ordered = read(place / supervisor.ORDER, Ordered)
        notice_s = ordered.notice_s if ordered is not None else 0.0
        late = marked is not None and self._clock.real_s(self._clock.now() - marked.at) >= notice_s
        _signal(known.pilot, signal.SIGKILL if late else signal.SIGTERM)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else makes or removes directories here meanwhile, also in another process."""
        fd = os.open(self.path / supervisor.LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _forget(self) -> None:
        """Remove what pilots left that ended long ago, and what a daemon left that was killed: there are secrets in it."""
        for name in os.listdir(self.path):
            place = self.path / name
            if name.startswith((_NEW, _GONE)):
                shutil.rmtree(place, ignore_errors=True)
            elif JOB_ID.fullmatch(name):
                # One that cannot be looked at or removed keeps nobody from running the next ones.
                with suppress(OSError):
                    self._forget_one(place)

    def _forget_one(self, place: Path) -> None:
        status = look(place, place.name, supervisor.boot_id())
        if status is None or not (status.is_final or status.state == "submitted"):
            return
        if status.is_final:
            # Supervisors do this themselves, unless they were killed.
            shutil.rmtree(place / supervisor.WORK, ignore_errors=True)
        ended, ordered = read(place / supervisor.EXIT, Ended), read(place / supervisor.ORDER, Ordered)
        at = ended.at if ended is not None else ordered.ordered_at if ordered is not None else self._clock.now()
        if self._clock.now() - at < KEPT_S:
            return
        fd = os.open(place / supervisor.LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            # Somebody may just start one that waited for it so long.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if status.is_final or not was_started(place):
                gone = self.path / f"{_GONE}{place.name}"
                os.rename(place, gone)
                shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(fd)


def _fill(place: Path, order: Order, record: Ordered) -> None:
    work = place / supervisor.WORK
    work.mkdir(mode=0o700)
    for name, content in order.sandbox.items():
        # A program that we bring along must be executable; the rest nobody else may even read.
        mode = 0o700 if name == order.executable else 0o600
        with open(os.open(work / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    supervisor.sync(str(work))
    supervisor.write_record(supervisor.ORDER, msgspec.to_builtins(record), str(place))


def digest(key: str) -> str:
    """What the names of this key's directories begin with."""
    return sha256(key.encode()).hexdigest()[:24]


def _signal(process: Process, number: int) -> bool:
    """Send it to this very process, and to no other that got its pid; False if it has gone."""
    if not process.is_alive():
        return False
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # What we hold now is the process of that pid, and it stays so; whether it is ours must be looked at again.
        if not process.is_alive():
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True


def copy_output(place: Path, directory: Path) -> Path:
    """Copies of what the pilot printed, in a new directory below `directory`."""
    if not place.is_dir():
        raise Permanent(f"{place}: there is no such pilot", absent=True)
    printed = [place / name for name in (supervisor.STDOUT, supervisor.STDERR) if (place / name).exists()]
    if not printed:
        kind = Permanent if (place / supervisor.EXIT).exists() else Temporary
        raise kind(f"{place}: the pilot printed nothing, it has not begun")
    directory.mkdir(parents=True, exist_ok=True)
    copies = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=directory))
    for path in printed:
        shutil.copyfile(path, copies / path.name)
    return copies
