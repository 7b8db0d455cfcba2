"""What followed from what: the events of a field, of a step, or around one event, each with its cause. Read-only.

What must stay true: who follows the causes never comes back to where it was, because an event's cause was there before it.
"""

from __future__ import annotations

import sqlite3
from heapq import heappop, heappush

from aglowd.model import Json
from aglowd.store.db import queries
from aglowd.store.rows import dumps, loads

MAX_EVENTS = 2_000
"""Of more only the latest are told; around one event the first that followed."""
MAX_ANCESTORS = 100


def trace(db: sqlite3.Connection, what: str, most: int) -> dict[str, Json] | None:
    """The events of what is meant, with those from which the first of them followed; None if nothing is called so.

    `what`: an event's number, a field or a run by its name, a step as RUN/STEP or FIELD/STEP, an effect by its key.
    """
    if what.isascii() and what.isdecimal() and len(what) < 19:
        return _around(db, int(what), most)
    runs = _runs_of(db, what)
    if runs:
        return _answer(db, "field", what, _events(db, "trace_of_run", [{"run": run} for run in runs], most))
    if db.execute(queries()["get_effect"], {"key": what}).fetchone() is not None:
        return _answer(db, "effect", what, _events(db, "trace_of_effect", [{"effect": what}], most))
    name, _, step = what.rpartition("/")
    at = [{"run": run, "step": step} for run in _runs_of(db, name)]
    found = _events(db, "trace_of_step", at, most)
    if not found[0]:
        return None
    return _answer(db, "step", what, found)


def _runs_of(db: sqlite3.Connection, name: str) -> list[str]:
    """The run of that id, or the field's latest, with the runs that belong to it or that it shares."""
    row = db.execute(queries()["get_run"], {"run": name}).fetchone()
    row = row or db.execute(queries()["latest_run"], {"key": name}).fetchone()
    row = row or db.execute(queries()["get_run_as_field"], {"name": name}).fetchone()
    if row is None:
        return []
    found = [row["id"] if "id" in row.keys() else row["run"]]  # noqa: SIM118 # A row is no mapping.
    for run in found:  # It grows meanwhile: a part may have parts of its own.
        for part in db.execute(queries()["parts_of_run"], {"run": run}).fetchall():
            if part["id"] not in found:
                found.append(part["id"])
    return found


def _events(db: sqlite3.Connection, query: str, at: list[dict[str, str]], most: int) -> tuple[list[sqlite3.Row], int]:
    """The latest of them by their numbers, and how many are left out, as far as that was looked at."""
    rows = [row for one in at for row in db.execute(queries()[query], {**one, "most": most + 1}).fetchall()]
    rows.sort(key=lambda row: int(row["id"]))
    return rows[-most:], max(0, len(rows) - most)


def _around(db: sqlite3.Connection, event: int, most: int) -> dict[str, Json] | None:
    row = db.execute(queries()["get_event"], {"id": event}).fetchone()
    if row is None:
        return None
    above: list[sqlite3.Row] = []
    cause = row["cause"]
    while cause and len(above) < MAX_ANCESTORS:
        one = db.execute(queries()["get_event"], {"id": cause}).fetchone()
        if one is None:
            break
        above.insert(0, one)
        cause = one["cause"]
    ids = dumps(_followers(db, event, most + 1))
    below = db.execute(queries()["events_by_id"], {"ids": ids}).fetchall()
    return _answer(db, "event", str(event), ([*above, *below[:most]], max(0, len(below) - most)))


def _followers(db: sqlite3.Connection, event: int, most: int) -> list[int]:
    """The event and the first of those that followed from it, by their numbers: each has a larger one than its cause."""
    found: list[int] = []
    queue = [event]
    while queue and len(found) < most:
        found.append(heappop(queue))
        for row in db.execute(queries()["trace_from"], {"id": found[-1], "most": most}).fetchall():
            heappush(queue, row["id"])
    return found


def _answer(db: sqlite3.Connection, kind: str, what: str, found: tuple[list[sqlite3.Row], int]) -> dict[str, Json]:
    rows, left_out = found
    known = {row["id"] for row in rows}
    outside = sorted({row["cause"] for row in rows} - known - {0})
    causes = db.execute(queries()["events_by_id"], {"ids": dumps(outside)}).fetchall()
    keys = sorted({row["effect"] for row in rows} - {""})
    effects = db.execute(queries()["effects_by_key"], {"keys": dumps(keys)}).fetchall()
    return {
        "what": kind,
        "name": what,
        "events": [_told(row) for row in rows],
        "causes": [_told(row) for row in causes],
        "effects": {row["key"]: {name: row[name] for name in ("state", "tries", "planned", "settled")} for row in effects},
        "left_out": left_out,
    }  # fmt: skip


def _told(row: sqlite3.Row) -> dict[str, Json]:
    return {**dict(row), "data": loads(row["data"])}
