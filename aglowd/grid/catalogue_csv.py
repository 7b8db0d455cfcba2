"""The AGLOW fields file: a CSV without a header, one field a row, edited by people and by other programs.

What must stay true: at any moment there is a whole file under its name; a status is written only over the one that we
expect; every other byte stays as it was. AGLOW itself locks nothing, so the file is looked at once more just before it
is replaced, and all aglowd daemons on it share a lock file, `PATH.lock`.

The order that lets `read_status` tell after a crash whether our write `key` happened: under the lock, (1) the sidecar
`PATH.aglowd.json` says what we are about to write, with what it said before, both synced; (2) the file is replaced;
(3) its directory is synced. A crash before (2) leaves a file that does not show the sidecar's status: our write did not
happen, and the sidecar still names the key of the write before. A crash after (2) leaves a file that shows it: it did.
The other order could leave a status of ours without a key. Columns: AGLOW `AGLOW_utils.py`.
"""

from __future__ import annotations

import codecs
import csv
import fcntl
import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from aglowd.clock import Clock, iso
from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.catalogue import NAME, NAME_EXPECTED, Mark, Row, Shown, mark_of, next_mark
from aglowd.threads import Threads

T = TypeVar("T")

STATUSES = ("AAA", "SSS", "CCC", "TTT", "RRR", "ZZZ")
"""Start, staged, calibrator done, target done, error, complete."""
SITES = {"SND": "sara", "JND": "juelich"}
"""Status of a field that is not done yet → where its data are: "SARA not done", "Jülich not done"."""
SELECTORS = tuple(SITES)
COLUMNS = 13
MAX_FILE_BYTES = 16 << 20
MAX_ROWS = 100_000
"""The whole survey has some thousands of fields."""
MAX_ROW_CHARS = 4096
LOCK_TIMEOUT_S = 30.0
_LOCK_PAUSE_S = 0.02
_YOUNG_S = 2.0
"""Real seconds in which a file may be written twice and look the same: the times of files are no finer everywhere."""

_STATUS = re.compile(r"[A-Za-z0-9_]{1,32}")
_DIGITS = re.compile(r"[0-9]{1,12}")


class CsvCatalogue:
    """The file at `path`; `daemon_id` is left with each of our writes. A link is followed; the file is replaced.

    `selectors`: statuses that may stand there beside AGLOW's own; `offered`: those that offer a field.
    """

    def __init__(
        self,
        path: Path,
        daemon_id: str,
        *,
        selectors: Sequence[str] = SELECTORS,
        offered: Collection[str] = SELECTORS,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._daemon_id = daemon_id
        self._allowed = frozenset((*STATUSES, *SELECTORS, *selectors))
        self._offered = frozenset(offered)
        self._clock = clock or Clock()
        self._threads = Threads(os.fspath(path), most=2)

    @property
    def where(self) -> str:
        return f"the fields file {self._path}"

    async def close(self) -> None:
        """Nothing is held open."""

    @seam
    async def stamp(self) -> str:
        """Which file it is, and when it was last changed; "" right after a change."""
        return await self._in_thread(lambda: _stamp_of(self._real()))

    @seam
    async def rows(self) -> tuple[Row, ...]:
        """Every row but blank lines and those that begin with #, in the file's order; Temporary without a file."""
        return await self._in_thread(lambda: self._read(self._real())[1])

    @seam
    async def read_status(self, name: str) -> tuple[str, str | None]:
        """The field's status, and the key of our write if it is what the file shows. Absent without such a row."""
        shown = await self._in_thread(lambda: self._read_settled(name))
        return shown.status, shown.our_key(self._daemon_id)

    @seam
    async def holder(self, name: str) -> str:
        """The name and the key of another daemon whose write is what the file shows, or ""."""
        return (await self._in_thread(lambda: self._read_settled(name))).holder(self._daemon_id)

    @seam
    async def write_status(self, name: str, expect: str, status: str, key: str, of: str = "") -> None:
        """Set the field's status if it is `expect`; Permanent says what it is instead. Our own write again is fine."""
        if not _STATUS.fullmatch(status) or status not in self._allowed:
            raise Permanent(f"{self._path}: found status {status!r} to write; expected one of {_words(self._allowed)}")
        await self._in_thread(lambda: self._write_status(name, expect, status, key, of), write=True)

    # What follows blocks, and runs in threads.

    async def _in_thread(self, work: Callable[[], T], *, write: bool = False) -> T:
        try:
            return await self._threads.run(work)
        except TimeoutError as error:  # It may go on when the mount comes back.
            raise Unknown(str(error)) if write else Temporary(str(error)) from error
        except OSError as error:  # Whatever fails after the replacement is Unknown already.
            raise Temporary(f"{error.filename or self._path}: {error.strerror or error}") from error

    def _real(self) -> Path:
        return Path(os.path.realpath(self._path))

    def _read_settled(self, name: str) -> Shown:
        """Behind the lock: a write of ours that outlived its time holds it, and is no write that did not happen."""
        path = self._real()
        with _lock(path):
            return self._shown(path, self._row(path, self._read(path)[1], name))

    def _shown(self, path: Path, row: Row) -> Shown:
        mark = mark_of(read_marks(_sidecar(path)).get(row.name), row.status)
        return Shown(row.status, mark.key, mark.daemon) if mark else Shown(row.status)

    def _write_status(self, name: str, expect: str, status: str, key: str, of: str) -> None:
        path = self._real()
        with _lock(path):
            seen, rows = self._read(path)
            row = self._row(path, rows, name)
            shown = self._shown(path, row)
            if (shown.status, shown.our_key(self._daemon_id)) == (status, key):
                return
            found = f"{path}:{row.line}: found {name} in status {row.status!r}"
            if row.status != expect:
                raise Permanent(f"{found}; expected {expect!r}")
            shown.check_free(self._daemon_id, status, self._offered, found, of)
            lines = path.read_bytes().split(b"\n")
            head, comma, rest = lines[row.line - 1].partition(b",")
            if not comma:
                raise Permanent(f"{path}:{row.line}: found no column for a status; expected at least {COLUMNS} columns")
            mark = codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b""
            lines[row.line - 1] = mark + status.encode() + comma + rest
            self._mark(path, name, row.status, status, key)
            replace(path, b"\n".join(lines), seen)
            self._mark(path, name, status, status, key)

    @seam
    def _mark(self, path: Path, name: str, now: str, status: str, key: str) -> None:
        """Say in the sidecar what is about to be written, or was; before that keep the mark that explains what the file shows."""
        marks = read_marks(_sidecar(path))
        ours = Mark(status, key, self._daemon_id, iso(self._clock.now()))
        marks[name] = ours if now == status else next_mark(marks.get(name), now, ours)
        replace(_sidecar(path), marks_text(marks), None)

    def _row(self, path: Path, rows: Sequence[Row], name: str) -> Row:
        for row in rows:
            if row.name == name:
                return row
        raise Permanent(f"{path}: there is no field {name}", absent=True)

    def _read(self, path: Path) -> tuple[os.stat_result, tuple[Row, ...]]:
        """The rows, and which file they are from."""
        with open(path, "rb") as file:
            seen = os.fstat(file.fileno())
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise Permanent(f"{path}: expected a file of at most {MAX_FILE_BYTES} bytes")
        if data.count(b"\n") > MAX_ROWS:
            raise Permanent(f"{path}: expected a file of at most {MAX_ROWS} lines")
        return seen, read_rows(data.decode("utf-8", "replace"), str(path), self._allowed)


def read_rows(text: str, path: str, allowed: Collection[str]) -> tuple[Row, ...]:
    """The rows of a fields file that messages call `path`; `allowed` are the statuses that may stand there."""
    rows: list[Row] = []
    line_of: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip().removeprefix("\ufeff")
        if stripped and not stripped.startswith("#"):
            row = _parse(path, number, stripped, allowed)
            first = line_of.setdefault(row.name, number)
            if first != number:
                problem = f"{path}:{number}: found {row.name} a second time; expected it in line {first} alone"
                row = msgspec.structs.replace(row, name=f"{row.name}@line-{number}", problem=problem)
            rows.append(row)
    return tuple(rows)


def _parse(path: str, number: int, line: str, allowed: Collection[str]) -> Row:
    where = f"{path}:{number}"
    try:
        if len(line) > MAX_ROW_CHARS:
            raise csv.Error(f"{len(line)} characters are more than {MAX_ROW_CHARS}")
        columns = tuple(next(csv.reader([line])))
    except (csv.Error, StopIteration) as error:
        problem = f"{where}: found no CSV ({error}); expected one row"
        return Row(line=number, name=f"line-{number}", status="", problem=problem)
    cells = [cell.strip() for cell in columns] + [""] * max(0, COLUMNS - len(columns))
    problems: list[str] = []
    if len(columns) < COLUMNS:
        problems.append(f"found {len(columns)} columns; expected at least {COLUMNS}")
    if cells[0] not in allowed:
        problems.append(f"found status {cells[0][:80]!r}; expected one of {_words(allowed)}")
    named = NAME.fullmatch(cells[11]) is not None
    if len(columns) >= COLUMNS and not cells[11]:
        problems.append("found no field name in column 11; expected one")
    elif len(columns) >= COLUMNS and not named:
        problems.append(f"found field name {cells[11][:80]!r} in column 11; expected {NAME_EXPECTED}")
    for column, what in ((1, "target"), (6, "calibrator")):
        if len(columns) >= COLUMNS and not _DIGITS.fullmatch(cells[column]):
            problems.append(f"found {what} OBSID {cells[column][:80]!r} in column {column}; expected digits, without L")
    values = {column: _number(cells[column]) for column in (3, 4, 5, 8, 9, 10)}
    bad = [column for column, value in values.items() if value is None and cells[column]]
    problems += [f"found {cells[column][:80]!r} in column {column}; expected a positive number" for column in bad]
    return Row(
        line=number,
        name=cells[11] if named else f"line-{number}",
        status=cells[0],
        target_obsid=f"L{cells[1]}" if cells[1] else "",
        target_freq_resolution=_whole(values[3]),
        target_time_resolution=values[4],
        target_subbands=_whole(values[5]),
        calibrator_obsid=f"L{cells[6]}" if cells[6] else "",
        calibrator_freq_resolution=_whole(values[8]),
        calibrator_time_resolution=values[9],
        calibrator_subbands=_whole(values[10]),
        baseline_filter=cells[12],
        field_name=cells[11],
        site=SITES.get(cells[0], ""),
        columns=columns,
        problem=f"{where}: {'; '.join(problems)}" if problems else None,
    )


def _words(allowed: Collection[str]) -> str:
    return " ".join(sorted(allowed))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1e9 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _stamp_of(path: Path) -> str:
    status = os.stat(path)
    if abs(time.time() - status.st_mtime) < _YOUNG_S:
        return ""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.aglowd.json")


def read_marks(sidecar: Path) -> dict[str, Mark]:
    """What was remembered of our writes, by field; nothing without a file."""
    try:
        with open(sidecar, "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise Permanent(f"{sidecar}: expected a file of at most {MAX_FILE_BYTES} bytes")
        return msgspec.json.decode(data, type=dict[str, Mark])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"{sidecar}: found something else ({error}); expected aglowd's own marks; mend or remove it"
        raise Permanent(text) from error


def marks_text(marks: Mapping[str, Mark]) -> bytes:
    """As `read_marks` reads it."""
    return msgspec.json.format(msgspec.json.encode(marks)) + b"\n"


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """The lock that all daemons on this file share; Temporary when another holds it for too long."""
    fd = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        give_up = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise Temporary(f"{path}.lock is held by another process for {LOCK_TIMEOUT_S:g} s") from None
                time.sleep(_LOCK_PAUSE_S)
        yield
    finally:
        os.close(fd)


@seam
def replace(path: Path, data: bytes, seen: os.stat_result | None) -> None:
    """Put `data` under the name at once, with the old file's mode and, as far as we may, owner.

    With `seen`: Temporary if the file is no longer the one that was read.
    """
    old = os.stat(path) if seen is not None or path.exists() else None
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".new", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            if old is not None:
                _keep_owner(fd, old)
            os.fchmod(fd, old.st_mode & 0o7777 if old else 0o644)
            os.fsync(fd)
        if seen is not None and _is_other(seen, os.stat(path)):
            raise Temporary(f"{path} was changed by somebody else at the same moment")
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise Unknown(f"{path} was replaced, but its directory could not be synced: {error.strerror}") from error


def _keep_owner(fd: int, old: os.stat_result) -> None:
    """Owner and group, or at least the group: only root may give a file away."""
    for owner in (old.st_uid, -1):
        try:
            os.fchown(fd, owner, old.st_gid)
            return
        except PermissionError:
            continue


def _is_other(a: os.stat_result, b: os.stat_result) -> bool:
    return (a.st_ino, a.st_size, a.st_mtime_ns) != (b.st_ino, b.st_size, b.st_mtime_ns)
