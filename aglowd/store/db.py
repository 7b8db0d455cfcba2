"""One SQLite file, one writer. What must stay true:

- A transaction is one function that runs on the connection's own thread. No task ever waits inside one, so a task
  that is cancelled leaves no transaction open: the writer finishes what it was given.
- Functions that wait at the same moment share one commit (group commit); each runs in a savepoint of its own, so the
  failure of one is only its own.
- WAL with synchronous=FULL: when a write returns, it survives the process and the host.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
from collections.abc import Callable
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from aglowd.errors import StoreError

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]

MIGRATIONS: tuple[str, ...] = ("schema.sql", "findings.sql")
"""Each brings the schema one version up; the first one makes it."""

GROUP_LIMIT = 256
"""Transactions in one commit at most, so that the first of them never waits long for the last."""


@cache
def queries() -> dict[str, str]:
    """The statements of queries.sql by their names."""
    text = resources.files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)[^\n]*\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip().rstrip(";") for part in parts[2::2]), strict=True))


class _Connection(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function on its thread: one hop per transaction, not one per statement."""

    async def run(self, function: Transaction[T]) -> T:
        result: T = await self._execute(function, self._conn)  # type: ignore[no-untyped-call] # aiosqlite leaves it untyped
        return result


def _connect(path: Path, *, write: bool) -> _Connection:
    def connector() -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, timeout=10.0, cached_statements=256)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA foreign_keys = ON")
            if write:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
            else:
                db.execute("PRAGMA query_only = ON")
        except sqlite3.Error:
            db.close()
            raise
        return db

    return _Connection(connector, iter_chunk_size=64)


class Database:
    """The file and its two connections. Opening locks the state directory against a second daemon."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.commits = 0
        self._lock: int | None = None
        self._open: list[_Connection] = []
        self._closing = False
        self._queue: asyncio.Queue[tuple[Transaction[Any], asyncio.Future[Any]] | None] = asyncio.Queue()
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Lock, check, migrate; StoreError says what stands in the way and how to go on."""
        await asyncio.to_thread(self._take_lock)
        self._writer = _connect(self.path, write=True)
        self._reader = _connect(self.path, write=False)
        try:
            await self._connect(self._writer)
            await self._writer.run(_migrate)
            await self._connect(self._reader)
        except sqlite3.DatabaseError as error:
            await self.close()
            raise StoreError(f"{self.path} cannot be used: {error}; restore the last backup or move it away") from error
        except StoreError:
            await self.close()
            raise
        self._writing = asyncio.create_task(self._write_all(), name="store writer")

    async def close(self) -> None:
        """Write what is queued, close, and let the lock go."""
        self._closing = True
        if self._writing is not None:
            self._queue.put_nowait(None)
            await self._writing
            self._writing = None
        for connection in self._open:
            await connection.close()
        self._open.clear()
        self._drop_lock()

    def _drop_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def write(self, transaction: Transaction[T]) -> T:
        """What the function returned, after its changes are durable. Cancelling the caller does not cancel it."""
        if self._writing is None or self._closing:
            raise StoreError(f"{self.path} is closed")
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((transaction, future))
        return await asyncio.shield(future)

    async def read(self, query: Transaction[T]) -> T:
        """What the function returned, seeing one committed state from beginning to end."""

        def snapshot(db: sqlite3.Connection) -> T:
            db.execute("BEGIN")
            try:
                return query(db)
            finally:
                db.execute("COMMIT")

        return await self._reader.run(snapshot)

    async def _connect(self, connection: _Connection) -> None:
        await connection
        self._open.append(connection)

    def _take_lock(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._drop_lock()
            raise StoreError(
                f"another aglowd uses {self.path.parent}; stop it first, or give this one its own state_dir"
            ) from error
        except OSError as error:
            raise StoreError(f"the state directory {self.path.parent} cannot be used: {error}") from error

    async def _write_all(self) -> None:
        """The only writer: takes all that wait, commits them together, and tells each its outcome."""
        closing = False
        while not closing:
            batch: list[tuple[Transaction[Any], asyncio.Future[Any]]] = []
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
            outcomes = await self._writer.run(partial(_commit, batch=[transaction for transaction, _ in batch]))
            for (_, future), (result, error) in zip(batch, outcomes, strict=True):
                if future.cancelled():
                    continue
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
                    future.exception()  # The caller may have been cancelled: nobody else would fetch it.


def _commit(db: sqlite3.Connection, batch: list[Transaction[Any]]) -> list[tuple[Any, BaseException | None]]:
    """Run all in one transaction; a failing one rolls back alone, a failing commit fails them all."""
    outcomes: list[tuple[Any, BaseException | None]] = []
    try:
        db.execute("BEGIN IMMEDIATE")
        for function in batch:
            db.execute("SAVEPOINT one")
            try:
                outcomes.append((function(db), None))
            except Exception as error:
                if not db.in_transaction:
                    raise  # A full disk or an I/O error made SQLite roll back everything.
                db.execute("ROLLBACK TO one")
                outcomes.append((None, error))
            db.execute("RELEASE one")
        db.execute("COMMIT")
    except Exception as error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        return [(None, error) for _ in batch]
    return outcomes


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the database has schema {version}, this aglowd knows {len(MIGRATIONS)}: it was written by a newer release; "
            "install that release again"
        )
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise StoreError(f"the database is damaged ({verdict}); restore the last backup")
    for number in range(version, len(MIGRATIONS)):
        script = resources.files(__package__).joinpath(MIGRATIONS[number]).read_text(encoding="utf-8")
        db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number + 1};\nCOMMIT;")
