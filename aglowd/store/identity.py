"""Who this aglowd is, to others that share a catalogue, or a token database, with it.

Each numbers its runs by itself, so the first run of a field has one name with every daemon: only with the daemon's own name is
a key of one write to the catalogue. What else is outside is told apart by a tag in the names of runs, if the configuration gives
one. What must stay true: one keeps its name when it is put back from a backup or moves to another host, or its own writes would
be somebody else's.
"""

from __future__ import annotations

import sqlite3

from aglowd.store.db import queries

CURSOR = "identity"
"""The row of `cursors` that holds it."""
TAG = "tag"
"""The row that holds the letters before the numbers of runs."""


def identity(db: sqlite3.Connection, name: str, tag: str) -> str:
    """The name that was given first: this one, if there was none yet. Runs that begin from now on have that tag."""
    db.execute(queries()["set_cursor"], {"source": TAG, "value": tag})
    row = db.execute(queries()["get_cursor"], {"source": CURSOR}).fetchone()
    if row is not None:
        return str(row["value"])
    db.execute(queries()["set_cursor"], {"source": CURSOR, "value": name})
    return name


def tag_of(db: sqlite3.Connection) -> str:
    """The tag of runs that begin now."""
    row = db.execute(queries()["get_cursor"], {"source": TAG}).fetchone()
    return "" if row is None else str(row["value"])
