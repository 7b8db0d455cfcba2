"""Which fields and runs a person's choice means, as they are now. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from functools import partial

from aglowd.choice import MAX_TOLD, Choice
from aglowd.store.db import queries
from aglowd.store.rows import is_forgotten


def all_names(db: sqlite3.Connection) -> list[str]:
    """The names under which anything runs or could: the catalogue's fields, orders, shared work."""
    return [row["field"] for row in db.execute(queries()["names_with_runs"])]


# --- fields


def find_fields(db: sqlite3.Connection, choice: Choice) -> list[sqlite3.Row]:
    """The fields that are meant, and what else runs under such a name; AglowError if that is nothing."""
    return list(choice.of(all_names(db), partial(find_field, db), state_of).values())


def find_field(db: sqlite3.Connection, name: str) -> sqlite3.Row | None:
    """The catalogue's field of that name, or what else runs under it: work that is shared, a staging that was asked for."""
    row: sqlite3.Row | None = db.execute(queries()["get_field"], {"name": name}).fetchone()
    return row or db.execute(queries()["get_run_as_field"], {"name": name}).fetchone()


def state_of(row: sqlite3.Row) -> str:
    """How the field stands; what is not in the catalogue is never archived."""
    state = row["run_state"] or ("failed" if row["problem"] or row["refused"] else "offered")
    return "archived" if state == "done" and row["status"] is not None else str(state)


def names_to_hold(db: sqlite3.Connection, choice: Choice, held: Collection[str]) -> list[str]:
    """The names of the fields that are meant; `held`: names that count although nobody knows them any more."""
    known = dict.fromkeys([*all_names(db), *held])

    def state(name: str) -> str:
        row = find_field(db, name)
        return "" if row is None else state_of(row)

    return list(choice.of(known, lambda name: name if name in known else None, state))


# --- runs


def find_runs(db: sqlite3.Connection, choice: Choice) -> list[sqlite3.Row]:
    """The runs that are meant; AglowError if a name is nobody's.

    A field, an order or shared work stands for its latest run, and so do patterns; a run's own id for that run.
    """
    found = choice.of(all_names(db), partial(_latest, db), partial(_state, db), _unknown, partial(_named, db))
    return list({run["id"]: run for run in found.values()}.values())


def _latest(db: sqlite3.Connection, field: str) -> sqlite3.Row | None:
    run: sqlite3.Row | None = db.execute(queries()["latest_top_run"], {"field": field}).fetchone()
    return run


def _named(db: sqlite3.Connection, name: str) -> sqlite3.Row | None:
    run = db.execute(queries()["get_run"], {"run": name}).fetchone() or _latest(db, name)
    return None if run is None or is_forgotten(run) else run


def _unknown(name: str) -> str:
    return f"there is no field and no run {name[:MAX_TOLD]!r} with anything to change; see aglowctl fields"


def _state(db: sqlite3.Connection, run: sqlite3.Row) -> str:
    is_catalogued = db.execute(queries()["get_field"], {"name": run["field"]}).fetchone() is not None
    return "archived" if run["state"] == "done" and is_catalogued else str(run["state"])


def runs_by_id(db: sqlite3.Connection, choice: Choice, *, even_forgotten: bool = False) -> list[sqlite3.Row]:
    """The runs that are meant by their ids, the oldest first; AglowError if there is no such run."""
    found = db.execute(queries()["all_runs"]).fetchall()
    rows = {row["id"]: row for row in found if even_forgotten or not is_forgotten(row)}

    def unknown(name: str) -> str:
        ids = [row["id"] for row in rows.values() if row["field"] == name][-5:]
        hint = f"; {name[:MAX_TOLD]} has {', '.join(ids)}" if ids else "; aglowctl show FIELD lists a field's runs"
        return f"there is no run {name[:MAX_TOLD]!r}{hint}"

    return list(choice.of(rows, rows.get, partial(_state, db), unknown).values())
