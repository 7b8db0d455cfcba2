"""Which effects may have happened although the journal knows nothing of them: a backup was restored, or the run's field was
another program's before.

A key is `run/step/attempt/name/ordinal`, and a restored run comes by the same keys again. So every effect of a run that
may have lived on after the backup is looked for before it is done for the first time; a run that begins afterwards gets
an id that no lost run can have had. A run that such a run starts may have been started before: it belongs to the same
line. What must stay true: of an effect that was done after the backup nobody says "it was not done" without looking; nor,
in a run that was taken over, of one that the other program may have done (`Effect.may_be_anothers`).
"""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, datetime

from aglowd.model import Json
from aglowd.store.db import queries
from aglowd.store.rows import dumps, loads

CURSOR = "restored"
"""The row of `cursors` that says of which time the last restored backup is, and when it was restored."""
RESTORED = "restored"
"""The note by which a deed knows that its effect may have been done, and noted, in the time that was lost."""
RESTORED_SINCE = "a backup was restored: it may have been done since"
ADOPTED = "adopted"
"""The note of an effect that another program may have done; and what the context of a run that was taken over has beside: step →
outputs of all that is done of it."""
TAKEN_FROM = "taken_from"
"""What it has besides: the daemon that held the field, "" if none did."""
_LINE = re.compile(r"-[a-z]*\d+(r\d{14})$")


def line_of(run: str) -> str:
    """What tells the line of a run: `r` and the time of the restore after which the line began; empty before any."""
    found = _LINE.search(run)
    return "" if found is None else found[1]


def current_line(db: sqlite3.Connection) -> str:
    """The line of runs that begin now by themselves."""
    mark = _mark(db)
    return "" if mark is None else str(mark["line"])


def look_first(db: sqlite3.Connection, key: str, run: str, now: float, *, may_be_anothers: bool) -> bool:
    """Make a new effect one that is looked for first, if it may have been done before; whether it may."""
    mark = _mark(db)
    if mark is not None and line_of(run) != mark["line"]:
        note, since, reason = {RESTORED: mark["since"]}, mark["since"], RESTORED_SINCE
    elif may_be_anothers and _is_adopted(db, run):
        note, since, reason = {ADOPTED: True}, now, "the field was taken over: another program may have done it"
    else:
        return False
    db.execute(queries()["look_first"], {"key": key, "note": dumps(note), "since": since, "now": now, "reason": reason})
    return True


def _is_adopted(db: sqlite3.Connection, run: str) -> bool:
    row = db.execute(queries()["get_run"], {"run": run}).fetchone()
    return row is not None and ADOPTED in loads(row["context"])


def mark_restored(db: sqlite3.Connection, now: float) -> tuple[float, int]:
    """In a restored database: nothing that has not ended is known. Returns when it last saw anything, and how many."""
    (since,) = db.execute(queries()["last_moment"]).fetchone()
    at = float(since or 0.0)
    line = datetime.fromtimestamp(now, UTC).strftime("r%Y%m%d%H%M%S")
    db.execute(queries()["set_cursor"], {"source": CURSOR, "value": dumps({"since": at, "at": now, "line": line})})
    values = {"key": None, "note": dumps({RESTORED: at}), "since": at, "now": now, "reason": RESTORED_SINCE}
    return at, db.execute(queries()["look_first"], values).rowcount


def _mark(db: sqlite3.Connection) -> dict[str, Json] | None:
    row = db.execute(queries()["get_cursor"], {"source": CURSOR}).fetchone()
    return None if row is None else dict(loads(row["value"]))
