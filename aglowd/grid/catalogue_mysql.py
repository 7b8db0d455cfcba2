"""The surveys database: MySQL with the tables `fields` and `observations`, as the LoTSS team runs it.

A field of ours is one observation joined to its field. Other programs write there too, some behind LOCK TABLES for as long
as they run; aglowd locks no table. What must stay true: a status is one UPDATE with the expected status in its WHERE, in a
transaction that is committed only if it found one row and that row then says what was written.

How our own write is told from others' after a crash, in this order of what the database lets us do:

- a column `aglowd_key` of `observations`, which is written by the same UPDATE;
- a table of our own, `aglowd_writes`, in the same transaction, where the tables can be in one;
- a file in the state directory, which says *before* the UPDATE what is about to be written and *after* the commit that it was.
  When the process dies in between and the database shows that status, nobody can tell who wrote it: Unknown, until a
  person says. Nor can another daemon see it: a claim that would leave the status as it is would win for everybody, and is refused.

A write whose connection was lost may still be under way at the server. It holds a named lock of its own (GET_LOCK), which
whoever looks or writes waits for, so that it has ended, one way or the other, before anybody says that it did not happen.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from msgspec import Struct

from aglowd.clock import Clock, iso
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid import catalogue_mysql_text as text
from aglowd.grid.catalogue import Mark, Row, Shown, mark_of, next_mark, statements
from aglowd.grid.catalogue_csv import marks_text, read_marks, replace
from aglowd.grid.mysql import MySql, Session
from aglowd.threads import Threads

NAMED_LOCK_S = 10
"""Seconds for which one waits for a write to the same observation."""


class Whoami(Struct, frozen=True):
    """What of us is written beside a status, where the table has columns for it."""

    daemon: str
    cluster: str
    user: str = ""
    node: str = ""

    @classmethod
    def here(cls, daemon: str, cluster: str) -> Whoami:
        """This process on this host."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # A user without a name.
            user = str(os.getuid())
        return cls(daemon, cluster, user, socket.gethostname())


class MySqlCatalogue:
    """The database behind `mysql`. `marks`: our own file, for a database that has no place for our keys.

    `offered`: statuses that offer a field; at those of `adoptable` it may be taken over; with one of `starts` a field's work
    begins, with one of `ends` it has ended.
    """

    def __init__(
        self,
        mysql: MySql,
        whoami: Whoami,
        marks: Path,
        *,
        offered: Collection[str] = (),
        adoptable: Collection[str] = (),
        starts: Collection[str] = (),
        ends: Collection[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._mysql = mysql
        self._whoami = whoami
        self._marks = marks
        self._offered = frozenset(offered)
        self._takeable = self._offered.union(adoptable)
        self._dates = {**dict.fromkeys(ends, "end_date"), **dict.fromkeys(starts, "start_date")}
        self._clock = clock or Clock()
        self._threads = Threads(os.fspath(marks), most=2)
        self._columns: text.Columns | None = None
        """What information_schema says; asked once."""
        self._has_asked = False
        """Whether the database was asked for a table of our own."""
        self._writes = 0

    @property
    def where(self) -> str:
        return self._mysql.place.name

    async def close(self) -> None:
        """Close the connection and the tunnel."""
        await self._mysql.close()

    async def stamp(self) -> str:
        """A number made of all rows at the server, and how often we wrote: back to what it was is a change to us, too."""
        writes = self._writes
        async with self._mysql.session() as session:
            answer = await session.run(text.stamp_statement(await self._learned(session)))
        count, number = answer.rows[0]
        return f"{count} {number} {writes}"

    async def rows(self) -> tuple[Row, ...]:
        """Every observation, joined to its field."""
        async with self._mysql.session() as session:
            answer = await session.run(text.rows_statement(await self._learned(session)))
        return text.rows_of(answer.rows, self.where, self._takeable)

    async def read_status(self, name: str) -> tuple[str, str | None]:
        """The observation's status, and the key of our write if it is what the database shows."""
        observation = text.id_of(name)
        async with self._mysql.session() as session:
            columns = await self._at_home(session)
            async with self._held(session, observation):
                shown, _ = await self._look(session, columns, name, observation)
        if columns.keeps_keys:
            return shown.status, shown.our_key(self._whoami.daemon)
        status = shown.status
        mark = mark_of((await self._read_marks()).get(name), status)
        if mark is not None and mark.open:
            raise Unknown(
                f"{self.where} shows {name} in status {status!r}, which aglowd was about to write when it was interrupted; "
                f"nobody can tell who wrote it, because there is neither a column {text.KEY} nor a table {text.WRITES}"
            )
        return status, mark.key if mark else None

    async def holder(self, name: str) -> str:
        """The name and the key of another daemon whose write is what the database shows, where it has them; else ""."""
        observation = text.id_of(name)
        async with self._mysql.session() as session:
            columns = await self._at_home(session)
            async with self._held(session, observation):
                return (await self._look(session, columns, name, observation))[0].holder(self._whoami.daemon)

    async def write_status(self, name: str, expect: str, status: str, key: str, of: str = "") -> None:
        """Set the observation's status if it is `expect`; Permanent says what it is instead. Our own write again is fine."""
        if not 0 < len(status) <= text.MAX_WORD_CHARS or status != status.strip() or not status.isprintable():
            raise Permanent(f"{self.where}: found status {status!r} to write; expected a word or two")
        observation = text.id_of(name)
        self._writes += 1
        async with self._mysql.session() as session:
            columns = await self._at_home(session)
            async with self._held(session, observation):
                if columns.keeps_keys:
                    await self._write(session, columns, name, expect, status, key, of)
                else:
                    await self._write_beside(session, columns, name, expect, status, key, of)

    # --- the status and its key in one transaction

    async def _write(
        self, session: Session, columns: text.Columns, name: str, expect: str, status: str, key: str, of: str
    ) -> None:
        observation = text.id_of(name)
        async with session.transaction():
            shown, written = await self._look(session, columns, name, observation, hold=True)
            daemon, now = self._whoami.daemon, shown.status
            if (now, shown.our_key(daemon)) == (status, key):
                return
            if now != expect:
                raise Permanent(f"{self.where}: found {name} in status {now!r}; expected {expect!r}")
            shown.check_free(daemon, status, self._offered, f"{self.where}: found {name} in status {now!r}", of)
            if columns.keeps_keys and text.KEY not in columns.observations:
                who_and_when = daemon, iso(self._clock.now())
                put = statements("catalogue_mysql")["put_write"]
                await session.run(put, observation, status, key, *who_and_when, is_write=True)
            statement, ours = text.write_statement(columns, self._dates.get(status, ""))
            given = {
                "user": self._whoami.user,
                "cluster": self._whoami.cluster,
                "node": self._whoami.node,
                "key": text.joined_key(key, daemon, status),
            }
            values = [status, *(given[what] for what in ours), observation, expect]
            values += [written] if text.KEY in columns.observations else []
            found = (await session.run(statement, *values, is_write=True)).count
            if found != 1:
                raise Permanent(f"{self.where}: found {name} changed by somebody else at the same moment")
            now = (await self._look(session, columns, name, observation))[0].status
            if now != status:  # Lenient servers cut what is too long, and blank what is no value of an ENUM.
                what = f"{self.where}: found {name} in status {now!r} after writing {status!r}; expected the same"
                raise Permanent(what) if columns.is_transactional else Unknown(what)

    async def _look(
        self, session: Session, columns: text.Columns, name: str, observation: str, *, hold: bool = False
    ) -> tuple[Shown, str]:
        """The status, with the key where the database has it; and what stands in the column for it."""
        answer = await session.run(text.look_statement(columns, hold=hold), observation)
        if not answer.rows or text.name_of(str(answer.rows[0][1] or ""), observation) != name:
            raise Permanent(f"{self.where}: there is no field {name}", absent=True)
        status, _, key = answer.rows[0]
        status = "" if status is None else str(status)
        if text.KEY in columns.observations:
            written = "" if key is None else str(key)
            return text.shown_by(written, status), written
        if not columns.keeps_keys:
            return Shown(status), ""
        found = (await session.run(statements("catalogue_mysql")["get_write"], observation)).rows
        return Shown(*found[0]) if found and found[0][0] == status else Shown(status), ""

    # --- the status there, its key here

    async def _write_beside(
        self, session: Session, columns: text.Columns, name: str, expect: str, status: str, key: str, of: str
    ) -> None:
        marks = await self._read_marks()
        old = marks.get(name)
        shown = (await self._look(session, columns, name, text.id_of(name)))[0].status
        ours = mark_of(old, shown)
        if ours is not None and not ours.open and (shown, ours.key) == (status, key):
            return
        if shown != expect:
            raise Permanent(f"{self.where}: found {name} in status {shown!r}; expected {expect!r}")
        if expect == status and ours is None:
            raise Permanent(
                f"{self.where}: found {name} in status {shown!r}, which is to stay there; nobody could tell who of several has "
                f"taken it, because there is neither a column {text.KEY} nor a table {text.WRITES}: let its administrator "
                f"ALTER TABLE observations ADD {text.KEY} VARCHAR(600), and start all aglowds on it again"
            )
        about = next_mark(old, shown, Mark(status, key, self._whoami.daemon, iso(self._clock.now()), open=True))
        await self._keep_mark(name, about)
        try:
            await self._write(session, columns, name, expect, status, key, of)
        except (Permanent, Temporary):
            await self._keep_mark(name, old)  # It did not happen: what stood there is the truth again.
            raise
        await self._keep_mark(name, Mark(about.status, about.key, about.daemon, about.at))

    async def _read_marks(self) -> dict[str, Mark]:
        return await self._in_thread(lambda: read_marks(self._marks))

    async def _keep_mark(self, name: str, mark: Mark | None) -> None:
        def keep() -> dict[str, Mark]:
            marks = read_marks(self._marks)
            if mark is None:
                marks.pop(name, None)
            else:
                marks[name] = mark
            replace(self._marks, marks_text(marks), None)
            return marks

        await self._in_thread(keep)

    async def _in_thread(self, work: Callable[[], dict[str, Mark]]) -> dict[str, Mark]:
        try:
            return await self._threads.run(work)
        except OSError as error:  # A TimeoutError is one, too.
            raise Temporary(f"{error.filename or self._marks}: {error.strerror or error}") from error

    # --- what the database has, and what it is asked first

    async def _learned(self, session: Session) -> text.Columns:
        if self._columns is None:
            named = await session.run(statements("catalogue_mysql")["columns"])
            engine = await session.run(statements("catalogue_mysql")["engine"])
            kind = engine.rows[0][0] if engine.rows else None
            self._columns = text.columns_of(named.rows, kind, self.where)
        return self._columns

    async def _at_home(self, session: Session) -> text.Columns:
        """What there is, with a place for our keys if the database gives us one."""
        columns = await self._learned(session)
        if columns.keeps_keys or not columns.is_transactional or self._has_asked:
            return columns
        with suppress(Permanent, Temporary):  # We may not, or another daemon was faster.
            await session.run(statements("catalogue_mysql")["make_writes"])
        self._has_asked, self._columns = True, None
        return await self._learned(session)

    @asynccontextmanager
    async def _held(self, session: Session, observation: str) -> AsyncIterator[None]:
        """Behind the named lock of that observation: a write that outlived its connection has ended."""
        seed = f"{self._mysql.place.database} {observation}".encode()
        name = f"aglowd {hashlib.blake2b(seed, digest_size=16).hexdigest()}"
        answer = await session.run(statements("catalogue_mysql")["lock"].format(seconds=NAMED_LOCK_S), name)
        if answer.rows[0][0] != 1:
            raise Temporary(f"{self.where}: another write to observation {observation} is under way")
        try:
            yield
        finally:
            if session.is_at_rest:
                await session.run(statements("catalogue_mysql")["unlock"], name)
