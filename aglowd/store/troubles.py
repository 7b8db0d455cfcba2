"""What goes wrong for a while and is no event by itself: its beginning and its end become events, each once.

What must stay true: the events and what is known to go on are written together, so that a restart neither repeats nor
forgets one. Each function runs inside one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from aglowd.model import Json
from aglowd.notices import TOLD
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.rows import dumps, loads

CURSOR = "troubles"


def note(db: sqlite3.Connection, current: Mapping[str, str], now: float) -> None:
    """Name → why it is not well, or '' if it is; of what is not named nothing is known, and what was known stays."""
    row = db.execute(queries()["get_cursor"], {"source": CURSOR}).fetchone()
    known: dict[str, str] = {} if row is None else loads(row["value"])
    before = dict(known)
    for name, why in sorted(current.items()):
        if why and name not in known:
            known[name] = why
            journal.add_event(db, now, "TroubleBegan", data={"name": name, "why": why})
        elif not why and name in known:
            journal.add_event(db, now, "TroubleEnded", data={"name": name, "why": known.pop(name)})
    if known != before:
        db.execute(queries()["set_cursor"], {"source": CURSOR, "value": dumps(known)})


def list_notices(
    db: sqlite3.Connection, since: int, most: int, upto: int | None = None
) -> tuple[list[dict[str, Json]], int]:
    """The events after that id, none after `upto`, of which people are told, at most so many, and up to which id there is no
    other one."""
    last = journal.last_event(db) if upto is None else upto
    values = {"since": since, "upto": last, "kinds": dumps(list(TOLD)), "most": most}
    rows = db.execute(queries()["notices"], values).fetchall()
    found = [{**dict(row), "data": loads(row["data"])} for row in rows]
    return found, int(found[-1]["id"] if len(found) == most else last)
