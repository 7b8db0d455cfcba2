"""How one attempt of a step stood at each of its decisions, and the run around it, followed along the log. Read-only.

What must stay true: each decision is shown the step as it stood just before, and the other steps as they stood then; where
rows that have changed since are all that is left, it is Untold.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Mapping

import msgspec

from aglowd.model import EffectRecord, Json, StepState
from aglowd.store import past
from aglowd.store.db import queries
from aglowd.store.decided import AT_WORK, DECISIONS, Told, Untold, told_of
from aglowd.store.doubts import Word
from aglowd.store.rows import Run, Step, dumps, effect_of, is_forgotten, loads, run_of, step_of
from aglowd.store.runs import CANCEL, CHILD_STOPS, SKIP
from aglowd.store.steer import said

BEGINS = ("StepReady", "StepReset", "AttemptFailed", "StepChanged")
"""After each of these a step is ready: what it saw before is of another attempt."""
TURNS = ("StepDone", "StepFailed", "StepSkipped", "StepCancelled", "StepReset")
"""With each of these the outputs or failures of a run may be others."""
RUNS_IN_MIND = 1_000
"""Runs that are kept in mind at a time."""
CUT = "an event was too long for the log, which cut it"
RESET = "it was done again since, and what it had put out is not kept"


def check_handlers(db: sqlite3.Connection, told: Told) -> None:
    """Untold unless a handler, or the reactor for it, said this."""
    cause = db.execute(queries()["get_event"], {"id": told.cause}).fetchone()
    kind = "" if cause is None else cause["kind"]
    if kind == "DoneOrdered" or (kind in ("SkipOrdered", "RunStopping") and not _has_begun(db, told)):
        raise Untold("a person's word, and no handler's decision")
    if kind == "HandlerRaised" and told.reason.startswith("quarantined: "):
        raise Untold("the end of an attempt whose handler had raised")
    if told.kind == "StepWaits" and told.reason.endswith(CHILD_STOPS):
        raise Untold("waiting for a run that is being cancelled, which no handler decides")


def _has_begun(db: sqlite3.Connection, told: Told) -> bool:
    row = db.execute(queries()["step_version"], {"run": told.run, "step": told.step}).fetchone()
    return row is not None and past.step_then(db, row, told.instant).state in (StepState.WORKING, StepState.WAITING)


class Attempt:
    """One attempt of a step, followed along the log: how it stands, what it has asked for, and what it waited for."""

    def __init__(self, db: sqlite3.Connection, told: Told) -> None:
        self._db = db
        at = {"run": told.run, "step": told.step}
        run = db.execute(queries()["get_run"], at).fetchone()
        row = db.execute(queries()["step_version"], at).fetchone()
        if run is None or row is None or is_forgotten(run):
            raise Untold("its run was forgotten")
        self.run, self.row = run_of(run), step_of(row)
        self.number = told.attempt
        self.waited: set[str] = set()
        self.is_whole = True
        """Whether all that it waited for is known."""
        self.state, self.reason = StepState.READY, ""
        self._since: float = told.at
        self._started: float | None = None
        self._keys: list[str] = []
        begun = self._last(told.id - 1, BEGINS)
        if begun is None:
            raise Untold("the log no longer holds how its attempt began")
        self.begun, self.begun_at = int(begun["id"]), float(begun["at"])
        first = past.told_by(begun)
        self.reason = str(first.get("said") or first.get("reason", ""))
        self.upto = self.begun
        reset = self._last(told.id - 1, ("StepReset",))
        self._base = 0 if reset is None else int(past.told_by(reset)["attempt"]) - 1

    def _last(self, last: int, kinds: tuple[str, ...]) -> sqlite3.Row | None:
        values = {"run": self.run.id, "step": self.row.name, "last": last, "kinds": dumps(kinds)}
        found: sqlite3.Row | None = self._db.execute(queries()["step_event_before"], values).fetchone()
        return found

    def follow(self, last: int) -> Iterator[Told]:
        """Go on to the event `last`; each decision on the way is handed out as the step stands just before it."""
        values = {"run": self.run.id, "step": self.row.name, "first": self.upto, "last": last}
        for event in self._db.execute(queries()["story_of_step"], values).fetchall():
            data = past.told_by(event)
            if event["kind"] in DECISIONS and "since" not in data:
                yield told_of(event)
            self._take(event, data)
            self.upto = event["id"]

    def _take(self, event: sqlite3.Row, data: Mapping[str, Json]) -> None:
        kind = event["kind"]
        if kind == "SubjectChanged":
            self.waited.add(event["subject"])
        elif kind == "EffectPlanned":
            self._keys.append(event["effect"])
        if kind in past.STEP_EVENTS:
            self.reason = str(data.get("said") or data.get("reason", ""))
            self._since = event["at"]
        if kind in AT_WORK:
            self.state = past.STATES[kind]
            self._started = event["at"] if self._started is None else self._started

    def run_at(self, told: Told) -> Run:
        """The run as it stood."""
        row = self._db.execute(queries()["get_run"], {"run": self.run.id}).fetchone()
        then = past.run_then(self._db, row, told.instant)
        return msgspec.structs.replace(self.run, state=then["state"], stopping=then["stopping"], outputs={})

    def step_at(self, told: Told, stopping: str) -> Step:
        """The step as it stood, if it was being stopped like that."""
        return msgspec.structs.replace(
            self.row,
            state=self.state,
            attempt=told.attempt,
            reason=self.reason,
            since=self._since,
            base=self._base,
            started=self._started,
            stopping=stopping,
            outputs={},
        )

    def list_stoppings(self, told: Told, run: Run, timeout_s: float) -> Iterator[str]:
        """In which ways it may have been being stopped; that its time was over leaves no event."""
        ordered = self._last_order(told)
        if run.stopping:
            yield CANCEL
        elif ordered is not None:
            yield f"{SKIP}: {ordered}"
        else:
            yield ""
            if timeout_s and self._started is not None and self._started + timeout_s <= told.at:
                yield "timeout"

    def _last_order(self, told: Told) -> str | None:
        """What a person said who skips the step, which has not ended yet."""
        values = {"run": self.run.id, "step": "", "first": self.begun, "last": told.id}
        for event in self._db.execute(queries()["story_of_step"], values).fetchall():
            data = past.told_by(event)
            if event["kind"] == "SkipOrdered" and self.row.name in data.get("steps", ()):
                return said("skip", Word(data["uid"], data["reason"]))
        return None

    def effects_at(self) -> tuple[EffectRecord, ...]:
        """The attempt's effects so far. A step is decided only when all of them have ended: none has changed since."""
        prefix = f"{self.run.id}/{self.row.name}/{self.number}/"
        keys = [key for key in self._keys if key.startswith(prefix)]
        found = [effect_of(row) for row in self._db.execute(queries()["effects_by_key"], {"keys": dumps(keys)})]
        if len(found) != len(set(keys)):
            raise Untold("an effect of its attempt is not in the journal")
        return tuple(sorted(found, key=lambda record: (record.kind, record.ordinal)))


def planned_by(db: sqlite3.Connection, told: Told) -> dict[str, Json]:
    """`kind/ordinal` → inputs of the effects that the decision asked for first."""
    keys = [row["effect"] for row in db.execute(queries()["planned_by"], {"id": told.id})]
    records = map(effect_of, db.execute(queries()["effects_by_key"], {"keys": dumps(keys)}))
    return {f"{record.kind}/{record.ordinal}": record.inputs for record in records}


def ended_with(db: sqlite3.Connection, told: Told) -> sqlite3.Row | None:
    """The row of the step, if this event tells how it stands still."""
    row: sqlite3.Row = db.execute(queries()["step_version"], {"run": told.run, "step": told.step}).fetchone()
    return row if row["said"] == told.id else None


Others = tuple[dict[str, dict[str, Json]], tuple[dict[str, str], ...]]
"""The outputs of a run's done steps, and its failures."""


class Past:
    """How the other steps of each run stood: looked up anew only where one of them has ended or gone back in between."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._turns: OrderedDict[str, list[int]] = OrderedDict()
        self._found: dict[str, tuple[int, Others]] = {}

    def others(self, told: Told) -> Others:
        """Outputs of the run's steps that were done by then, and the failures by then."""
        turns = self._turns.pop(told.run, None)
        if turns is None:
            rows = self._db.execute(queries()["turns_of_run"], {"run": told.run, "kinds": dumps(TURNS)})
            turns = sorted(row["id"] for row in rows)
        self._turns[told.run] = turns
        if len(self._turns) > RUNS_IN_MIND:
            gone, _ = self._turns.popitem(last=False)
            self._found.pop(gone, None)
        turn = bisect_left(turns, told.id)
        known = self._found.get(told.run)
        if known is None or known[0] != turn:
            known = self._found[told.run] = (turn, _others_at(self._db, told))
        return known[1]


def _others_at(db: sqlite3.Connection, told: Told) -> Others:
    outputs: dict[str, dict[str, Json]] = {}
    failures: list[tuple[float, str, str]] = []
    for row in db.execute(queries()["steps_of_run"], {"run": told.run}).fetchall():
        if row["said"] < told.id:
            state, reason, ended, inherited = StepState(row["state"]), row["reason"], row["ended"], row["inherited"]
            if state is StepState.DONE and row["outputs"] != "{}":
                outputs[row["name"]] = loads(row["outputs"])
        else:
            then = past.step_then(db, row, told.instant)
            state, reason, ended, inherited = then.state, then.reason, then.since, then.inherited
            if state is StepState.DONE:
                raise Untold(f"a step before it was done again since: {RESET}")
            if state is StepState.FAILED and not inherited and reason.endswith("..."):
                raise Untold(CUT)
        if state is StepState.FAILED and not inherited:
            failures.append((ended, row["name"], reason))
    return outputs, tuple({"step": name, "reason": reason} for _, name, reason in sorted(failures))
