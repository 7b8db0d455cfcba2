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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from aglowd.clock import Clock, iso
from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.threads import Threads

T = TypeVar("T")

STATUSES = ("AAA", "SSS", "CCC", "TTT", "RRR", "ZZZ")
"""Start, staged, calibrator done, target done, error, complete."""
SELECTORS = ("SND", "JND")
"""Not done yet: the data are at SARA, at Jülich."""
COLUMNS = 13
MAX_FILE_BYTES = 16 << 20
MAX_ROWS = 100_000
"""The whole survey has some thousands of fields."""
MAX_ROW_CHARS = 4096
MAX_NAME_CHARS = 64
LOCK_TIMEOUT_S = 30.0
_LOCK_PAUSE_S = 0.02

_STATUS = re.compile(r"[A-Za-z0-9_]{1,32}")
_DIGITS = re.compile(r"[0-9]{1,12}")
_NAME = re.compile(rf"(?=\S{{1,{MAX_NAME_CHARS}}}\Z)[^\W_](?:\w|[+.:@,()\[\]=~-])*")


class Row(Struct, frozen=True, kw_only=True):
    """One field. Names are unique. `problem` says why a row cannot be used; what it holds then is best effort.

    OBSIDs as in "L229507"; frequency resolution in channels per subband, time resolution in seconds; `columns` as is.
    """

    line: int
    name: str
    status: str
    target_obsid: str = ""
    target_freq_resolution: int | None = None
    target_time_resolution: float | None = None
    target_subbands: int | None = None
    calibrator_obsid: str = ""
    calibrator_freq_resolution: int | None = None
    calibrator_time_resolution: float | None = None
    calibrator_subbands: int | None = None
    baseline_filter: str = ""
    columns: tuple[str, ...] = ()
    problem: str | None = None


class _Mark(Struct, frozen=True, omit_defaults=True):
    """What the sidecar says of a field: our last write, and the one before it, in case the last did not happen."""

    status: str
    key: str
    daemon: str
    at: str
    before: _Mark | None = None


class CsvCatalogue:
    """The file at `path`; `daemon_id` is left with each of our writes. A link is followed; the file is replaced."""

    def __init__(
        self, path: Path, daemon_id: str, *, selectors: Sequence[str] = SELECTORS, clock: Clock | None = None
    ) -> None:
        self._path = path
        self._daemon_id = daemon_id
        self._allowed = frozenset((*STATUSES, *SELECTORS, *selectors))
        self._clock = clock or Clock()
        self._threads = Threads(os.fspath(path), most=2)

    @seam
    async def rows(self) -> tuple[Row, ...]:
        """Every row but blank lines and those that begin with #, in the file's order; Temporary without a file."""
        return await self._in_thread(lambda: self._read(self._real())[1])

    @seam
    async def read_status(self, name: str) -> tuple[str, str | None]:
        """The field's status, and the key of our write if it is what the file shows. Absent without such a row."""
        return await self._in_thread(lambda: self._read_settled(name))

    @seam
    async def write_status(self, name: str, expect: str, status: str, key: str) -> None:
        """Set the field's status if it is `expect`; Permanent says what it is instead. Our own write again is fine."""
        if not _STATUS.fullmatch(status) or status not in self._allowed:
            raise Permanent(f"{self._path}: found status {status!r} to write; expected one of {self._words()}")
        await self._in_thread(lambda: self._write_status(name, expect, status, key), write=True)

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

    def _read_settled(self, name: str) -> tuple[str, str | None]:
        """Behind the lock: a write of ours that outlived its time holds it, and is no write that did not happen."""
        path = self._real()
        with _lock(path):
            return self._read_status(path, name)

    def _read_status(self, path: Path, name: str) -> tuple[str, str | None]:
        row = self._row(path, self._read(path)[1], name)
        mark = _read_marks(path).get(name)
        while mark is not None and mark.status != row.status:
            mark = mark.before
        return row.status, mark.key if mark else None

    def _write_status(self, name: str, expect: str, status: str, key: str) -> None:
        path = self._real()
        with _lock(path):
            seen, rows = self._read(path)
            row = self._row(path, rows, name)
            if self._read_status(path, name) == (status, key):
                return
            if row.status != expect:
                raise Permanent(f"{path}:{row.line}: found {name} in status {row.status!r}; expected {expect!r}")
            lines = path.read_bytes().split(b"\n")
            head, comma, rest = lines[row.line - 1].partition(b",")
            if not comma:
                raise Permanent(f"{path}:{row.line}: found no column for a status; expected at least {COLUMNS} columns")
            mark = codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b""
            lines[row.line - 1] = mark + status.encode() + comma + rest
            self._mark(path, name, row.status, status, key)
            _replace(path, b"\n".join(lines), seen)

    @seam
    def _mark(self, path: Path, name: str, now: str, status: str, key: str) -> None:
        """Say in the sidecar what is about to be written; keep the mark that explains what the file shows now."""
        marks = _read_marks(path)
        old = marks.get(name)
        while old is not None and old.status != now:
            old = old.before
        if old is not None:
            old = _Mark(old.status, old.key, old.daemon, old.at)
        marks[name] = _Mark(status, key, self._daemon_id, iso(self._clock.now()), old)
        _replace(_sidecar(path), msgspec.json.format(msgspec.json.encode(marks)) + b"\n", None)

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
        rows: list[Row] = []
        line_of: dict[str, int] = {}
        for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), start=1):
            text = line.strip().removeprefix("\ufeff")
            if text and not text.startswith("#"):
                row = self._parse(path, number, text)
                first = line_of.setdefault(row.name, number)
                if first != number:
                    problem = f"{path}:{number}: found {row.name} a second time; expected it in line {first} alone"
                    row = msgspec.structs.replace(row, name=f"{row.name}@line-{number}", problem=problem)
                rows.append(row)
        return seen, tuple(rows)

    def _parse(self, path: Path, number: int, line: str) -> Row:
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
        if cells[0] not in self._allowed:
            problems.append(f"found status {cells[0][:80]!r}; expected one of {self._words()}")
        named = _NAME.fullmatch(cells[11]) is not None
        if len(columns) >= COLUMNS and not cells[11]:
            problems.append("found no field name in column 11; expected one")
        elif len(columns) >= COLUMNS and not named:
            problems.append(
                f"found field name {cells[11][:80]!r} in column 11; expected at most {MAX_NAME_CHARS} letters, digits "
                "and signs, without blanks and slashes"
            )
        for column, what in ((1, "target"), (6, "calibrator")):
            if len(columns) >= COLUMNS and not _DIGITS.fullmatch(cells[column]):
                problems.append(
                    f"found {what} OBSID {cells[column][:80]!r} in column {column}; expected digits, without L"
                )
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
            columns=columns,
            problem=f"{where}: {'; '.join(problems)}" if problems else None,
        )

    def _words(self) -> str:
        return " ".join(sorted(self._allowed))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < 1e9 else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.aglowd.json")


def _read_marks(path: Path) -> dict[str, _Mark]:
    try:
        with open(_sidecar(path), "rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise Permanent(f"{_sidecar(path)}: expected a file of at most {MAX_FILE_BYTES} bytes")
        return msgspec.json.decode(data, type=dict[str, _Mark])
    except FileNotFoundError:
        return {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"{_sidecar(path)}: found something else ({error}); expected aglowd's own marks; mend or remove it"
        raise Permanent(text) from error


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
def _replace(path: Path, data: bytes, seen: os.stat_result | None) -> None:
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
