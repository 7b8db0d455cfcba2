"""Who this aglowd is, to others that share a catalogue with it.

Each numbers its runs by itself, so the first run of a field has one name with every daemon: only with the daemon's own name is
a key of one write. What must stay true: no two databases have one name, wherever they lie, and one keeps its name when it is
put back from a backup or moves to another host, or its own writes would be somebody else's.
"""

from __future__ import annotations

import re
import sqlite3

from aglowd.store.db import queries

CURSOR = "identity"
"""The row of `cursors` that holds it."""
MAX_PLACE_CHARS = 200


def identity(db: sqlite3.Connection, place: str, token: str) -> str:
    """The name that was given when it was first asked for: the place where the database lay then, and the token."""
    row = db.execute(queries()["get_cursor"], {"source": CURSOR}).fetchone()
    if row is not None:
        return str(row["value"])
    name = re.sub(r"[\s@]", "_", place[:MAX_PLACE_CHARS])
    # What an older release has written bears the place alone.
    if db.execute(queries()["any_run"]).fetchone() is None:
        name = f"{name}:{token}"
    db.execute(queries()["set_cursor"], {"source": CURSOR, "value": name})
    return name
