"""Reads packed runs again: for the time of one question they stand beside those at work, and whoever asks sees no difference.

SQLite looks for a table among a connection's temporary ones first. So views that bear the tables' own names put what is packed
beside what is not, and the very functions that read runs at work read packed ones. What must stay true: the database is not
written to, and what was unpacked is gone when the answer is there; what is asked of a field is told with all that its runs
used, as far as that is packed too. All of it runs on the connection that has the right to temporary tables (db.py).
"""

from __future__ import annotations

import re
import sqlite3
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

import msgspec

from aglowd.errors import StoreError
from aglowd.store.archive import TABLES, Table, unpack
from aglowd.store.db import Transaction, queries
from aglowd.store.journal import PRUNED
from aglowd.store.rows import dumps

T = TypeVar("T")

VIEWS = {
    "steps": "SELECT * FROM main.steps UNION ALL SELECT * FROM packed_steps",
    "waits": "SELECT * FROM main.waits UNION ALL SELECT * FROM packed_waits",
    # What stayed in the log of a packed run is packed, too.
    "events": "SELECT * FROM main.events WHERE id NOT IN (SELECT id FROM packed_events) UNION ALL SELECT * FROM packed_events",
    # What stayed in the journal of a packed run is only a part of it.
    "effects": "SELECT * FROM main.effects WHERE key NOT IN (SELECT key FROM packed_effects) UNION ALL SELECT * FROM packed_effects",
    # What another one looks at still has been seen anew since.
    "subjects": "SELECT * FROM main.subjects UNION ALL "
    "SELECT * FROM packed_subjects WHERE key NOT IN (SELECT key FROM main.subjects)",
}


def with_packed(db: sqlite3.Connection, names: Iterable[str], query: Transaction[T]) -> T:
    """The query's answer, with the packed runs of those names in their tables.

    A name is that of a field, a run, a step or an effect, or the number of an event.
    """
    fields = _fields_of(db, [*names])
    db.execute("SAVEPOINT unpacked")
    try:
        _unpack_all(db, fields)
        return query(db)
    finally:
        db.execute("ROLLBACK TO unpacked")
        db.execute("RELEASE unpacked")


def unpack_for(db: sqlite3.Connection, since: float, until: float) -> None:
    """Let the packed runs that lived between the two times stand beside those at work for as long as the connection is open; of
    the others before them what was seen, for these may have been shown it. The log must be whole where they are read: what is packed
    of older events is left out."""
    cursor = db.execute(queries()["get_cursor"], {"source": PRUNED}).fetchone()
    values = {"since": since, "until": until, "pruned": 0 if cursor is None else int(cursor["value"])}
    is_made = False
    for row in db.execute(queries()["archive_until"], values):
        if not is_made:
            _make_tables(db)
            is_made = True
        try:
            tables = unpack(row["material"])
        except (zlib.error, msgspec.DecodeError) as error:
            raise StoreError(f"what is packed of the run {row['run']} cannot be read: {error}") from error
        for name, table in (tables if row["is_meant"] else _seen_of(tables)).items():
            _insert(db, name, table)


def _seen_of(tables: dict[str, Table]) -> dict[str, Table]:
    """Of a packed run what was seen for it."""
    events = tables["events"]
    kind = events.columns.index("kind")
    seen = tuple(one for one in events.rows if one[kind] == "SubjectChanged")
    return {"subjects": tables["subjects"], "events": Table(events.columns, seen)}


def count_packed(db: sqlite3.Connection, kinds: Collection[str], since: float, until: float) -> Counter[str]:
    """How many events of these kinds there were between the two times that are only packed, by kind."""
    found: Counter[str] = Counter()
    first, last = (db.execute(queries()["event_before"], {"at": at}).fetchone() for at in (since, until))
    between = {"first": 0 if first is None else first["id"], "last": 2**62 if last is None else last["id"]}
    for row in db.execute(queries()["archive_between"], between):
        events = unpack(row["material"])["events"]
        number, at, kind = (events.columns.index(name) for name in ("id", "at", "kind"))
        meant = {one[number]: one[kind] for one in events.rows if one[kind] in kinds and since < one[at] <= until}
        logged = db.execute(queries()["events_by_id"], {"ids": dumps(list(meant))})
        found.update(meant.values())
        found.subtract(event["kind"] for event in logged)
    return found


def _fields_of(db: sqlite3.Connection, names: list[str]) -> set[str]:
    """The fields that are meant: of `RUN/STEP` and the like each part from the beginning may be a name."""
    parts = {name[:end] for name in names for end in _ends(name)}
    found = {row["field"] for row in db.execute(queries()["fields_of_runs"], {"names": dumps(sorted(parts))})}
    for name in names:
        if name.isascii() and name.isdecimal() and len(name) < 19:
            found |= _fields_of(db, [run for run in [_run_of_event(db, int(name))] if run])
    return found | parts


def _run_of_event(db: sqlite3.Connection, number: int) -> str:
    """The run that the event is of, '' if it is of none, or there is none of that number."""
    event = db.execute(queries()["get_event"], {"id": number}).fetchone()
    if event is not None:
        return str(event["run"])
    for row in db.execute(queries()["archive_between"], {"first": number - 1, "last": number}):
        events = unpack(row["material"])["events"]
        at = events.columns.index("id")
        if any(one[at] == number for one in events.rows):
            return str(row["run"])
    return ""


def _ends(name: str) -> Iterator[int]:
    yield from (one.start() for one in re.finditer("/", name))
    yield len(name)


def _unpack_all(db: sqlite3.Connection, fields: set[str]) -> None:
    """Unpack the runs of the fields, and those that their runs started or joined."""
    queue, seen, is_made = sorted(fields), set(fields), False
    while queue:
        field = queue.pop()
        for row in db.execute(queries()["archive_of_field"], {"field": field}).fetchall():
            if not is_made:
                _make_tables(db)
                is_made = True
            for name, table in unpack(row["material"]).items():
                _insert(db, name, table)
        used = {name for row in db.execute(queries()["used_by_field"], {"field": field}) for name in row if name}
        for row in db.execute(queries()["fields_of_runs"], {"names": dumps(sorted(used))}).fetchall():
            if row["field"] not in seen:
                seen.add(row["field"])
                queue.append(row["field"])


def _make_tables(db: sqlite3.Connection) -> None:
    """Empty tables for what is packed, as the schema makes them, and the views over both."""
    for row in db.execute(queries()["statements_of_tables"], {"tables": dumps(TABLES)}).fetchall():
        name = row["tbl_name"]
        if row["type"] == "table":
            db.execute(re.sub(rf'^CREATE TABLE "?{name}"?', f"CREATE TEMP TABLE packed_{name}", row["sql"]))
        else:
            made = re.sub(
                rf"^CREATE INDEX (\w+) ON {name}", rf"CREATE INDEX temp.packed_\1 ON packed_{name}", row["sql"]
            )
            db.execute(made)
    for name, text in VIEWS.items():
        db.execute(f"CREATE TEMP VIEW {name} AS {text}")


def _insert(db: sqlite3.Connection, name: str, table: Table) -> None:
    columns, places = ", ".join(table.columns), ", ".join("?" * len(table.columns))
    # Two runs may have looked at one thing.
    db.executemany(f"INSERT OR IGNORE INTO packed_{name} ({columns}) VALUES ({places})", table.rows)  # noqa: S608 # Our own words.
