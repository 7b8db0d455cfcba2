"""Packs runs that ended long ago out of the tables of those at work: a row of `archive` each, in the same database.

What must stay true: a run is packed only when it has ended, holds nothing outside, and nobody may still want to act on it;
its own row stays, so that its id is not given again and others join what it did; so do the keys and results of the effects
by which requests, jobs and tokens are known to be ours, and what people said. Packing and removing are one transaction.
`unpacked.py` reads it again. Each function runs inside a transaction.
"""

from __future__ import annotations

import sqlite3
import zlib
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.crash import seam
from aglowd.model import Json
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.forgetting import RELEASES, STAGES, SUBMITS, why_needed
from aglowd.store.rows import dumps, loads

TABLES = ("steps", "effects", "subjects", "waits", "events")
OURS = (STAGES, RELEASES, SUBMITS, "create_tokens")
"""The kinds of effects whose keys and results stay in the journal: what they made may be met outside at any time."""
RUNS_AT_ONCE = 2
"""Runs in one transaction at most, without their parts, so that nobody waits for it long."""
LOOKS_AT_ONCE = 50
"""Runs that one transaction looks at, at most: those that cannot be packed cost time, too."""


class Terms(Struct, frozen=True):
    """Which runs are packed: those that ended so long ago. `pinned_s`: how long sites pin files."""

    after_s: float
    pinned_s: float


class Place(Struct, frozen=True):
    """How far a round has come: runs have their turn by their end and id, each once a round, whether it can be packed or not."""

    ended: float = float("-inf")
    run: str = ""


class Turn(Struct, frozen=True):
    """What came of one transaction: how many runs were packed, and where the next one goes on; None: the round is over."""

    packed: int
    next: Place | None


class Table(Struct, frozen=True, array_like=True):
    """Rows of a table. A column that a later schema adds is missing here, and has its default when it is read."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def pack(tables: dict[str, Table]) -> bytes:
    """What `unpack` understands."""
    return zlib.compress(msgspec.json.encode(tables))


def unpack(material: bytes) -> dict[str, Table]:
    """The tables again; zlib.error or msgspec.DecodeError if they are damaged."""
    return msgspec.json.decode(zlib.decompress(material), type=dict[str, Table])


def archive_next(db: sqlite3.Connection, terms: Terms, place: Place, now: float) -> Turn:
    """Pack some of the runs behind that place whose time has come, the oldest first, each with its parts."""
    gone = packed = 0
    behind = {"before": now - terms.after_s, "ended": place.ended, "run": place.run, "most": LOOKS_AT_ONCE}
    rows = db.execute(queries()["runs_to_archive"], behind).fetchall()
    for row in rows:
        place = Place(row["ended"], row["id"])
        runs = db.execute(queries()["own_parts"], {"run": row["id"]}).fetchall()
        if any(why_needed(db, run, terms.pinned_s, now) for run in runs):
            continue
        for run in runs:
            _pack_run(db, run, now)
        gone, packed = gone + 1, packed + len(runs)
        if gone == RUNS_AT_ONCE:
            return Turn(packed, place)
    return Turn(packed, place if len(rows) == LOOKS_AT_ONCE else None)


@seam
def _pack_run(db: sqlite3.Connection, run: sqlite3.Row, now: float) -> None:
    at = {"run": run["id"]}
    tables = {name: _table(db, name, run["id"]) for name in TABLES}
    material = pack(tables)
    events = _column(tables["events"], "id")
    row = {
        "field": run["field"],
        "ended": run["ended"],
        "steps": len(tables["steps"].rows),
        "effects": len(tables["effects"].rows),
        "first": min(events, default=0),
        "last": max(events, default=0),
        "size_bytes": len(material),
    }
    db.execute(queries()["add_to_archive"], {**at, **row, "material": material})
    db.execute(queries()["forget_waits"], at)
    db.execute(queries()["drop_subjects"], {"keys": dumps(_column(tables["subjects"], "key"))})
    db.execute(queries()["forget_steps"], at)
    db.execute(queries()["drop_packed_events"], at)
    db.execute(queries()["drop_effects"], {**at, "kept": dumps(OURS)})
    for effect in db.execute(queries()["pack_effects"], at).fetchall():
        inputs = dumps(_slim(loads(effect["inputs"])))
        values = {"key": effect["key"], "inputs": inputs, "digest": journal.digest_of(inputs)}
        db.execute(queries()["slim_effect"], values)
    db.execute(queries()["mark_archived"], {**at, "now": now})


def _slim(inputs: dict[str, Json]) -> dict[str, Json]:
    """What is asked of an effect that ended long ago: where, and of a release which request it gave back."""
    return {"site": inputs.get("site", ""), "surls": [], "request": inputs.get("request")}


def _table(db: sqlite3.Connection, name: str, run: str) -> Table:
    found = db.execute(queries()[f"pack_{name}"], {"run": run})
    return Table(tuple(column[0] for column in found.description), tuple(map(tuple, found)))


def _column(table: Table, name: str) -> list[Any]:
    at = table.columns.index(name)
    return [row[at] for row in table.rows]
