"""aglowd's own catalogue, for those who have neither a fields file nor the surveys database: one SQLite file.

Fields come by `aglowctl add` and `aglowctl import`; several daemons of one host may share it. What must stay true: a status
and the key of who wrote it change in one statement, if the status is the expected one; what is added is added whole or
not at all. `of` is the status for which the key stands: who changes a status in SQLite's shell leaves the key alone.

Each call has a connection of its own, in a thread that may hang without holding up anybody else: a call that is cancelled
leaves no transaction open, and nothing is kept between two calls.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from aglowd.clock import Clock, iso
from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.catalogue import MAX_FIELDS, Row, Shown, statements
from aglowd.threads import Threads

T = TypeVar("T")

BUSY_REAL_S = 20.0
"""Real seconds for which SQLite waits for another writer."""
VERSION = 1
NOT_DONE = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
})  # fmt: skip
"""What SQLite says when it has changed nothing, and may do so later."""


class OwnCatalogue:
    """The catalogue in the file at `path`, which is made when it is first asked; `daemon_id` is left with each of our writes.

    `offered`: statuses that offer a field.
    """

    def __init__(
        self, path: Path, daemon_id: str, *, offered: Collection[str] = (), clock: Clock | None = None
    ) -> None:
        self._path = path
        self._daemon_id = daemon_id
        self._offered = frozenset(offered)
        self._clock = clock or Clock()
        self._threads = Threads(os.fspath(path), most=8)

    @property
    def where(self) -> str:
        return f"aglowd's own catalogue {self._path}"

    async def close(self) -> None:
        """Nothing is held open."""

    @seam
    async def stamp(self) -> str:
        """How many changes there were."""
        return await self._in_thread(lambda db: str(db.execute(_sql("stamp")).fetchone()[0]))

    @seam
    async def rows(self) -> tuple[Row, ...]:
        """Every field, by name."""

        def read(db: sqlite3.Connection) -> tuple[Row, ...]:
            return tuple(map(_row_of, db.execute(_sql("rows"), {"most": MAX_FIELDS})))

        return await self._in_thread(read)

    @seam
    async def read_status(self, name: str) -> tuple[str, str | None]:
        """The field's status, and the key of our write if it is what the catalogue shows."""
        shown = await self._in_thread(lambda db: self._look(db, name))
        return shown.status, shown.our_key(self._daemon_id)

    async def holder(self, name: str) -> str:
        """The name and the key of another daemon whose write is what the catalogue shows, or ""."""
        return (await self._in_thread(lambda db: self._look(db, name))).holder(self._daemon_id)

    @seam
    async def write_status(self, name: str, expect: str, status: str, key: str, of: str = "") -> None:
        """Set the field's status if it is `expect`; Permanent says what it is instead. Our own write again is fine."""
        if not status or status != status.strip() or not status.isprintable():
            raise Permanent(f"{self._path}: found status {status!r} to write; expected a word")
        values = {
            "name": name,
            "expect": expect,
            "status": status,
            "key": key,
            "daemon": self._daemon_id,
            "at": iso(self._clock.now()),
        }

        def write(db: sqlite3.Connection) -> None:
            shown = self._look(db, name)
            if (shown.status, shown.our_key(self._daemon_id)) == (status, key):
                return
            found = f"{self._path}: found {name} in status {shown.status!r}"
            if shown.status == expect:
                shown.check_free(self._daemon_id, status, self._offered, found, of)
            if db.execute(_sql("write"), values).rowcount != 1:
                raise Permanent(f"{found}; expected {expect!r}")

        await self._in_thread(write, is_write=True)

    @seam
    async def add(self, rows: Sequence[Row]) -> None:
        """Add all of these fields; Permanent names those that are there already, and then none was added."""

        def write(db: sqlite3.Connection) -> None:
            (count,) = db.execute(_sql("count")).fetchone()
            if count + len(rows) > MAX_FIELDS:
                raise Permanent(f"{self._path}: expected at most {MAX_FIELDS} fields; there are {count}")
            there = [row.name for row in rows if db.execute(_sql("add"), _values_of(row)).rowcount != 1]
            if there:
                raise Permanent(f"{self._path}: found {', '.join(there)} there already; expected new fields alone")

        await self._in_thread(write, is_write=True)

    # What follows blocks, and runs in threads.

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T], *, is_write: bool = False) -> T:
        def run() -> T:
            with self._transaction(is_write=is_write) as db:
                return work(db)

        try:
            return await self._threads.run(run)
        except OSError as error:  # A TimeoutError is one, too: then it may go on when the disk comes back.
            text = f"{self._path}: {error.strerror or error}"
            raise Unknown(text) if is_write and isinstance(error, TimeoutError) else Temporary(text) from error
        except sqlite3.Error as error:
            text = f"{self._path}: {error}"
            if not isinstance(error, sqlite3.OperationalError):
                raise Permanent(f"{text}; expected a catalogue of aglowd's own") from error
            is_not_done = getattr(error, "sqlite_errorcode", 0) & 0xFF in NOT_DONE
            raise Unknown(text) if is_write and not is_not_done else Temporary(text) from error

    @contextmanager
    def _transaction(self, *, is_write: bool) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_REAL_S)) as db:
            db.row_factory = sqlite3.Row
            self._prepare(db)
            db.execute("BEGIN IMMEDIATE" if is_write else "BEGIN")
            try:
                yield db
                _commit(db)
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables in a new file; Permanent if it is a file of something else, or of a newer release."""
        db.execute("PRAGMA synchronous = FULL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == VERSION:
            return
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("BEGIN IMMEDIATE")
        try:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if version == 0 and not tables:
                for statement in _sql("schema").split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise Permanent(f"{self._path} is no catalogue of aglowd's own, or one of a newer release")
            db.execute("COMMIT")
        finally:
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _look(self, db: sqlite3.Connection, name: str) -> Shown:
        row = db.execute(_sql("look"), {"name": name}).fetchone()
        if row is None:
            raise Permanent(f"{self._path}: there is no field {name}", absent=True)
        return Shown(row["status"], row["key"], row["daemon"]) if row["of"] == row["status"] else Shown(row["status"])


def _sql(name: str) -> str:
    return statements("catalogue_own")[name]


@seam
def _commit(db: sqlite3.Connection) -> None:
    db.execute("COMMIT")


def _values_of(row: Row) -> dict[str, str]:
    """A field's row in the table: all that is not in a column of its own stands in `data`."""
    data = msgspec.to_builtins(row)
    for name in ("name", "status", "line", "problem"):
        data.pop(name)
    return {"name": row.name, "status": row.status, "data": msgspec.json.encode(data).decode()}


def _row_of(record: sqlite3.Row) -> Row:
    try:
        data = msgspec.json.decode(record["data"], type=dict[str, object])
        return msgspec.convert({**data, "name": record["name"], "status": record["status"]}, Row)
    except msgspec.MsgspecError as error:  # Somebody had a hand in it.
        return Row(name=record["name"], status=record["status"], problem=f"{record['name']}: {error}")
