"""One SQLite file, one writer. What must stay true:

- A transaction is one function that runs on the connection's own thread. No task ever waits inside one, so a task
  that is cancelled leaves no transaction open: the writer finishes what it was given.
- Functions that wait at the same moment share one commit (group commit); each runs in a savepoint of its own, so the
  failure of one is only its own.
- WAL with synchronous=FULL: when a write returns, it survives the process and the host.
- A disk that is full or fails makes writes wait, and nobody above needs to know: nothing is done outside before its
  intent is written, and what waits is written as soon as it can be. `trouble` says so meanwhile; reads go on.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiosqlite
import structlog

from aglowd.errors import StoreError
from aglowd.store import backup
from aglowd.store.place import check_place

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]
"""It may run more than once before it is committed: it changes nothing but the database."""
Outcomes = list[tuple[Any, BaseException | None]]

MIGRATIONS: tuple[str, ...] = (
    "schema.sql",
    "findings.sql",
    "steering.sql",
    "offers.sql",
    "past.sql",
    "archive.sql",
    "fresh.sql",
)
"""Each brings the schema one version up; the first one makes it."""

GROUP_LIMIT = 256
"""Transactions in one commit at most, so that the first of them never waits long for the last."""
LOG_MOST_BYTES = 16_777_216
"""To so much the file of what is written ahead is cut, whenever all of it stands in the database."""
BUSY_REAL_S = 10.0
"""Real seconds for which SQLite waits when another program, such as its shell, holds the database."""
RETRY_REAL_S = 0.5
"""Real seconds before a write that the disk refused is tried again; doubled each time."""
RETRY_MOST_REAL_S = 10.0
PASSING = {
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look at its disk and the kernel's log",
    sqlite3.SQLITE_CANTOPEN: "look at its directory and the limits of the process",
    sqlite3.SQLITE_READONLY: "make its file system writable",
    sqlite3.SQLITE_BUSY: "another program holds it: end that one",
}
"""What SQLite may say today and not tomorrow, and what to do about it."""


@cache
def queries() -> dict[str, str]:
    """The statements of queries.sql by their names."""
    text = resources.files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)[^\n]*\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip().rstrip(";") for part in parts[2::2]), strict=True))


class _Entry(NamedTuple):
    """A transaction that waits for its commit, and who is to be told."""

    transaction: Transaction[Any]
    then: Callable[[], None]
    future: asyncio.Future[Any]


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function on its thread: one hop per transaction, not one per statement."""

    stopped: asyncio.Future[Any] | None = None
    """Settled when its thread has ended; None while nobody has told it to."""

    def stop(self) -> asyncio.Future[Any] | None:
        self.stopped = super().stop()
        return self.stopped

    async def run(self, function: Transaction[T]) -> T:
        result: T = await self._execute(function, self._conn)  # type: ignore[no-untyped-call] # aiosqlite leaves it untyped
        return result


def _connect(path: Path, *, write: bool = False, aside: bool = False) -> _Connection:
    """`aside`: it reads, and may make temporary tables."""

    def connector() -> sqlite3.Connection:
        name = f"{path.absolute().as_uri()}{'?mode=ro' if aside else ''}"
        db = sqlite3.connect(name, uri=True, isolation_level=None, timeout=BUSY_REAL_S, cached_statements=256)
        try:
            db.row_factory = sqlite3.Row
            if write:
                db.execute("PRAGMA foreign_keys = ON")
                (pages,) = db.execute("PRAGMA page_count").fetchone()
                if pages == 0:  # Of another one it would be written, and change little.
                    db.execute("PRAGMA auto_vacuum = INCREMENTAL")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute(f"PRAGMA journal_size_limit = {LOG_MOST_BYTES}")
                db.execute("PRAGMA temp_store = MEMORY")  # What a savepoint can be rolled back with, too.
            elif aside:
                db.execute("PRAGMA temp_store = MEMORY")
            else:
                db.execute("PRAGMA query_only = ON")
        except sqlite3.Error:
            db.close()
            raise
        return db

    return _Connection(connector, iter_chunk_size=64)


class Database:
    """The file and its connections: one that writes, one that reads, and one that reads aside what may take longer.

    Opening locks the state directory against a second daemon.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self._lock: int | None = None
        self._log = structlog.get_logger("store")
        self._open: list[_Connection] = []
        self._closing = asyncio.Event()
        self._troubles: dict[str, str] = {}
        self._queue: asyncio.Queue[_Entry | None] = asyncio.Queue()
        self._writing: asyncio.Task[None] | None = None

    @property
    def trouble(self) -> str:
        """Why writes or reads wait, and what to do about it; empty while all is well."""
        return "; ".join(self._troubles.values())

    async def open(self, first: Transaction[None] = lambda db: None) -> None:
        """Lock, check, migrate, commit `first`; StoreError says what stands in the way and how to go on."""
        self._lock = await asyncio.to_thread(take_lock, self.path)
        try:
            await asyncio.to_thread(check_place, self.path)
            await self._open_both(first)
        except sqlite3.DatabaseError as error:
            await self.close()
            hint = PASSING.get(_code(error), "restore the last backup (aglowd restore FILE) or move it away")
            raise StoreError(f"{self.path} cannot be used: {error}; {hint}") from error
        except BaseException:
            await self.close()
            raise
        self._writing = asyncio.create_task(self._write_all(), name="store writer")

    async def _open_both(self, first: Transaction[None]) -> None:
        self._writer = _connect(self.path, write=True)
        self._reader = _connect(self.path)
        self._aside = _connect(self.path, aside=True)
        await self._connect(self._writer)
        await self._writer.run(partial(migrate, path=self.path))
        ((_, failure),) = await self._writer.run(partial(_commit, batch=[first]))
        if failure is not None:
            raise failure
        await self._connect(self._reader)
        await self._connect(self._aside)

    async def close(self) -> None:
        """Write what is queued, close, and let the lock go. What the disk refuses is left to the next start."""
        self._closing.set()
        if self._writing is not None:
            self._queue.put_nowait(None)
            await self._writing
            self._writing = None
        for connection in reversed(self._open):  # Who writes closes last: it takes in what is written ahead.
            await connection.close()
        self._open.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def write(self, transaction: Transaction[T], then: Callable[[], None] = lambda: None) -> T:
        """What the function returned, after its changes are durable; `then` is called before. Cancelling the caller cancels
        neither."""
        if self._writing is None or self._closing.is_set():
            raise StoreError(f"{self.path} is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Entry(transaction, then, future))
        return await asyncio.shield(future)

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for a commit."""
        return self._queue.empty()

    async def read(self, query: Transaction[T], *, aside: bool = False) -> T:
        """What the function returned, seeing one committed state from beginning to end.

        `aside`: it may take its time, and make temporary tables.
        """
        connection = self._aside if aside else self._reader

        def snapshot(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return query(db)
            finally:
                if db.in_transaction:
                    db.execute("COMMIT")

        return await self._patiently("read", lambda: connection.run(snapshot))

    async def _connect(self, connection: _Connection) -> None:
        try:
            await connection
        except BaseException:
            if connection.stopped is not None:  # Its thread reports to this loop, which may be gone soon.
                await connection.stopped
            raise
        self._open.append(connection)

    async def _patiently(self, verb: str, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the disk allows it; StoreError when the database is closed meanwhile."""
        rest_s = RETRY_REAL_S
        while True:
            try:
                result = await call()
            except sqlite3.Error as error:
                hint = PASSING.get(_code(error))
                if hint is None or (verb == "read" and _code(error) == sqlite3.SQLITE_READONLY):
                    raise
                trouble = f"{self.path} cannot be {verb}: {error}; {hint}"
                if self._troubles.get(verb) != trouble:
                    self._log.error("database_in_trouble", error=trouble)
                self._troubles[verb] = trouble
                if self._closing.is_set():
                    raise StoreError(trouble) from error
            else:
                if self._troubles.pop(verb, None):
                    self._log.info("database_recovered", verb=verb)
                return result
            with suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._closing.wait()
            rest_s = min(rest_s * 2, RETRY_MOST_REAL_S)

    async def _write_all(self) -> None:
        """The only writer: takes all that wait, commits them together, and tells each its outcome."""
        closing = False
        while not closing:
            batch: list[_Entry] = []
            entry = await self._queue.get()
            while True:
                if entry is None:
                    closing = True
                else:
                    batch.append(entry)
                if len(batch) >= GROUP_LIMIT or self._queue.empty():
                    break
                entry = self._queue.get_nowait()
            if not batch:
                continue
            self.commits += 1
            commit = partial(_commit, batch=[one.transaction for one in batch])
            try:
                outcomes = await self._patiently("written", partial(self._writer.run, commit))
            except StoreError as error:
                outcomes = [(None, error) for _ in batch]
            for entry, (result, failure) in zip(batch, outcomes, strict=True):
                if failure is None:
                    self._call(entry.then)
                if entry.future.cancelled():
                    continue
                if failure is None:
                    entry.future.set_result(result)
                else:
                    entry.future.set_exception(failure)
                    entry.future.exception()  # The caller may have been cancelled: nobody else would fetch it.

    def _call(self, then: Callable[[], None]) -> None:
        """What was committed is, whatever is wrong with what follows."""
        try:
            then()
        except Exception:
            self._log.exception("commit_not_told")


def take_lock(path: Path) -> int:
    """The lock of the state directory, held until it is closed; StoreError if another has it or it cannot be used."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the state directory {path.parent} cannot be used: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError(
            f"another aglowd uses {path.parent}; stop it first, or give this one its own state_dir"
        ) from error
    return lock


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for what the module says by itself."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _commit(db: sqlite3.Connection, batch: list[Transaction[Any]]) -> Outcomes:
    """Run all in one transaction; a failing one rolls back alone, a failing commit fails them all.

    Raises, with nothing written, what may pass: the same batch is then to be tried again.
    """
    outcomes: Outcomes = []
    try:
        db.execute("BEGIN IMMEDIATE")
        for function in batch:
            db.execute("SAVEPOINT one")
            try:
                outcomes.append((function(db), None))
            except Exception as error:
                if not db.in_transaction or may_pass(error):
                    raise  # A full disk or an I/O error makes SQLite roll back everything.
                start_over(db)
                outcomes.append((None, error))
            db.execute("RELEASE one")
        db.execute("COMMIT")
    except Exception as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        if may_pass(error):
            raise
        return [(None, error) for _ in batch]
    return outcomes


def start_over(db: sqlite3.Connection) -> None:
    """Undo what the transaction that runs has written so far; those that share its commit stay."""
    db.execute("ROLLBACK TO one")


def may_pass(error: Exception) -> bool:
    """Whether the disk refused what it may do later: then everything is tried again."""
    return isinstance(error, sqlite3.Error) and _code(error) in PASSING


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Check the database and bring its schema up; before that a copy of the old one is kept beside it."""
    check(db)
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if 0 < version < len(MIGRATIONS):
        backup.copy(db, Path(f"{path}.v{version}.bak"), replace=True)
    for number in range(version, len(MIGRATIONS)):
        script = resources.files(__package__).joinpath(MIGRATIONS[number]).read_text(encoding="utf-8")
        db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number + 1};\nCOMMIT;")


def check(db: sqlite3.Connection) -> None:
    """StoreError unless this is a database of ours, whole, and not of a newer release."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the database has schema {version}, this aglowd knows {len(MIGRATIONS)}: it was written by a newer release; "
            "install that release again"
        )
    verdict = backup.check(db)
    if verdict:
        raise StoreError(f"the database is damaged ({verdict}); restore the last backup: aglowd restore FILE")
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if (version == 0 and tables) or (version > 0 and not {"runs", "steps", "effects"} <= tables):
        raise StoreError("this is a database, but not one of aglowd; move it away, or restore the last backup")
