"""What was decided, as the log tells, and what each decision was made from. Read-only: for `aglowd replay`.

What must stay true: nothing is guessed. Where the log, the journal and the rows no longer tell what a handler saw, that is
Untold, with the reason. The log does not name what a step waits for: who decides the attempt's decisions again, in order, knows.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from aglowd.errors import StoreError
from aglowd.model import Json, Observation
from aglowd.store import backup, past, verify
from aglowd.store.db import MIGRATIONS, migrate, queries
from aglowd.store.journal import MAX_EVENT_BYTES
from aglowd.store.meant import all_names
from aglowd.store.rows import dumps, loads
from aglowd.store.runs import STEP

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
def journal_of(file: Path) -> Iterator[sqlite3.Connection]:
    """The copy of a database, ready to be asked; StoreError if it is none, or one that somebody uses. FILE is not written to."""
    with verify.opened(file) as db, tempfile.TemporaryDirectory(prefix="aglowd-replay-") as directory:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"{file} has schema {version}, this aglowd knows {len(MIGRATIONS)}: a newer release wrote it"
            )
        if version == len(MIGRATIONS):
            yield _prepared(db)
            return
        copy = Path(directory, "copy.db")
        backup.copy(db, copy, replace=False)
        older = sqlite3.connect(copy, isolation_level=None)
        try:
            migrate(older, copy)
            yield _prepared(older)
        finally:
            older.close()


def _prepared(db: sqlite3.Connection) -> sqlite3.Connection:
    """With a table of its own, on disk, that finds observations by their subject: the log has no such index."""
    db.row_factory = sqlite3.Row
    db.execute(queries()["keep_observed"])
    db.execute(queries()["index_observed"])
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
    is_cut = isinstance(data, dict) and data.keys() == {"cut"}
    return Told(
        **{name: event[name] for name in ("id", "at", "kind", "field", "run", "step", "cause")},
        attempt=int(told.get("attempt", 1)),
        reason=str(told.get("reason", "")).removesuffix("...") if is_cut else str(told.get("reason", "")),
        is_cut=is_cut,
        due=told.get("due"),
    )


def get_told(db: sqlite3.Connection, number: int) -> Told:
    """The decision of which the event of that number tells."""
    return told_of(db.execute(queries()["get_event"], {"id": number}).fetchone())


def latest_of(db: sqlite3.Connection, subject: str, last: int) -> int:
    """The event of the latest observation of the subject up to the event `last`, 0 if there was none, or it was forgotten."""
    found = db.execute(queries()["observed_before"], {"subject": subject, "last": last}).fetchone()
    if found is None:
        return 0
    kind, _, id_ = subject.partition(":")
    number = int(found["id"])
    if kind == "run":
        values: dict[str, Json] = {"key": id_, "first": number, "last": last}
        if db.execute(queries()["run_began_between"], values).fetchone() is not None:
            return 0
    if kind == STEP:
        run, _, name = id_.rpartition("/")
        values = {"run": run, "step": name, "last": last, "kinds": dumps(["StepReset"])}
        reset = db.execute(queries()["step_event_before"], values).fetchone()
        if reset is not None and reset["id"] > number:
            return 0
    return number


def observation_of(db: sqlite3.Connection, number: int) -> Observation:
    """What that event shows; its number stands for the version. Untold if it was cut, and something else was seen since."""
    event = db.execute(queries()["get_event"], {"id": number}).fetchone()
    data = loads(event["data"])
    if isinstance(data, dict) and data.keys() == {"cut"}:
        row = db.execute(queries()["get_subject"], {"key": event["subject"]}).fetchone()
        if (
            row is None
            or row["data"] is None
            or row["at"] != event["at"]
            or row["data"][:MAX_EVENT_BYTES] != data["cut"]
        ):
            raise Untold(f"an observation was cut in the log at {MAX_EVENT_BYTES} characters")
        data = loads(row["data"])
    return Observation(number, event["at"], data)


class Observed(Mapping[str, Observation]):
    """What was seen of each subject, looked up when a handler asks: what it does not look at may be lost. `arrange`: what is
    done with each fact before it is shown."""

    def __init__(
        self, db: sqlite3.Connection, events: Mapping[str, int], arrange: Callable[[Json], Json] = lambda data: data
    ) -> None:
        self._db = db
        self.events = events
        self._arrange = arrange
        self._found: dict[str, Observation] = {}

    def __getitem__(self, key: str) -> Observation:
        if key not in self._found:
            found = observation_of(self._db, self.events[key])
            self._found[key] = msgspec.structs.replace(found, data=self._arrange(found.data))
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return key in self.events

    def __iter__(self) -> Iterator[str]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)
