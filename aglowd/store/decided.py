"""What was decided, as the log tells, and what each decision was made from. Read-only: for `aglowd replay`.

What must stay true: nothing is guessed. Where the log, the journal and the rows no longer tell what a handler saw, that is
Untold, with the reason. The log does not name what a step waits for: who decides the attempt's decisions again, in order, knows.
"""

from __future__ import annotations

import math
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from aglowd.errors import StoreError
from aglowd.store import backup, past, verify
from aglowd.store.db import MIGRATIONS, migrate, queries
from aglowd.store.journal import is_cut
from aglowd.store.meant import all_names
from aglowd.store.rows import dumps, loads
from aglowd.store.unpacked import unpack_for

AT_WORK = ("StepWorks", "StepWaits")
DECISIONS = (*AT_WORK, "StepDone", "StepFailed", "StepSkipped", "StepCancelled", "AttemptFailed", "HandlerRaised")
"""The events that tell of a handler's decision, unless somebody else's word stands behind them."""


class Untold(Exception):
    """What the decision was made from, or what it was, cannot be told any more; the text says why. A handler never takes it
    for an error of its own."""


class Told(Struct, frozen=True):
    """A decision, as its event tells it. `is_cut`: of the reason only the beginning is known."""

    id: int
    at: float
    kind: str
    field: str
    run: str
    step: str
    attempt: int
    cause: int
    reason: str
    is_cut: bool = False
    due: float | None = None

    @property
    def instant(self) -> past.Instant:
        """The moment just before the event."""
        return past.Instant(self.at, self.id - 1)


@contextmanager
def journal_of(file: Path, since: float = -math.inf, until: float = math.inf) -> Iterator[sqlite3.Connection]:
    """The copy of a database, ready to be asked about that time, of which packed runs are unpacked; StoreError if it is no copy, or
    one that somebody uses. FILE is not written to."""
    with verify.opened(file) as db, tempfile.TemporaryDirectory(prefix="aglowd-replay-") as directory:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{file} has schema {version}, this aglowd knows {len(MIGRATIONS)}: a newer release wrote it"
            )
        if version == len(MIGRATIONS):
            yield _prepared(db, since, until)
            return
        copy = Path(directory, "copy.db")
        backup.copy(db, copy, replace=False)
        older = sqlite3.connect(copy, isolation_level=None)
        try:
            migrate(older, copy)
            yield _prepared(older, since, until)
        finally:
            older.close()


def _prepared(db: sqlite3.Connection, since: float, until: float) -> sqlite3.Connection:
    """With tables of its own, on disk: what is packed, and one that finds observations by their subject, as the log has no such
    index."""
    db.row_factory = sqlite3.Row
    db.execute("BEGIN")
    unpack_for(db, since, until)
    db.execute(queries()["keep_observed"])
    db.execute(queries()["index_observed"])
    db.execute("COMMIT")
    return db


def list_fields(db: sqlite3.Connection, since: float, until: float) -> list[str]:
    """The fields that somebody may name: those that are known, and of forgotten ones those of that time's decisions."""
    return sorted({*all_names(db), *(row["field"] for row in _decisions(db, since, until))} - {""})


def list_decisions(db: sqlite3.Connection, since: float, until: float, fields: Collection[str]) -> list[int]:
    """The events from `since` on and before `until` that may tell of a decision on these fields, () = on all, in their order."""
    return sorted(row["id"] for row in _decisions(db, since, until) if not fields or row["field"] in fields)


def _decisions(db: sqlite3.Connection, since: float, until: float) -> sqlite3.Cursor:
    return db.execute(queries()["decisions_between"], {"since": since, "until": until, "kinds": dumps(DECISIONS)})


def told_of(event: sqlite3.Row) -> Told:
    """What that event says."""
    data, told = loads(event["data"]), past.told_by(event)
    return Told(
        **{name: event[name] for name in ("id", "at", "kind", "field", "run", "step", "cause")},
        attempt=int(told.get("attempt", 1)),
        reason=str(told.get("reason", "")).removesuffix("...") if is_cut(data) else str(told.get("reason", "")),
        is_cut=is_cut(data),
        due=told.get("due"),
    )


def get_told(db: sqlite3.Connection, number: int) -> Told:
    """The decision of which the event of that number tells."""
    return told_of(db.execute(queries()["get_event"], {"id": number}).fetchone())
