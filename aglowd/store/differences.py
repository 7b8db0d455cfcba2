"""What differs between two times: of a field its steps, tokens and outputs, of the survey its counts. Read-only.

What must stay true: both times are read in one committed state, by the rules of past.py.
"""

from __future__ import annotations

import sqlite3
from collections import Counter

from aglowd.model import Json, StepState
from aglowd.store.db import queries
from aglowd.store.journal import is_cut
from aglowd.store.past import Instant, StepThen, field_then, instant_of, run_then, status_then, steps_then
from aglowd.store.rows import loads
from aglowd.store.unpacked import count_packed

COUNTED = (
    "RunStarted", "RunEnded", "StepDone", "StepFailed", "StepSkipped", "StepCancelled", "AttemptFailed", "EffectDone",
    "EffectRejected", "EffectDoubtful", "TroubleBegan", "TroubleEnded",
)  # fmt: skip
"""Of the survey as a whole it is told how many of these there were."""
OF_FIELD = ("state", "reason", "run", "catalogue_status", "done_steps", "steps_total")


def diff_field(db: sqlite3.Connection, field: str, since: float, until: float) -> dict[str, Json]:
    """What became of the field between the two times; AglowError if nothing was known of it at the first one."""
    old, new = instant_of(db, since), instant_of(db, until)
    before, after = field_then(db, field, old), field_then(db, field, new)
    # Steps of the run that was, and of one that has begun since; a step that was not there is told as absent.
    steps = []
    for run in dict.fromkeys(run for run in (before["run"], after["run"]) if run is not None):
        then = {step.name: step for step in steps_then(db, run, old)} if run == before["run"] else {}
        now = {step.name: step for step in steps_then(db, run, new)} if run == after["run"] else {}
        steps += [
            one
            for name in sorted({*then, *now})
            if (one := _step(db, run, then.get(name), now.get(name), old, new)) is not None
        ]
    changed = {name: [before[name], after[name]] for name in OF_FIELD if before[name] != after[name]}
    return {"field": field, "from": since, "to": until, "changed": changed, "steps": steps}


def _step(
    db: sqlite3.Connection, run: str, then: StepThen | None, now: StepThen | None, old: Instant, new: Instant
) -> dict[str, Json] | None:
    """What differs of a step, or None if nothing does."""
    told: dict[str, Json] = {}
    for name in ("state", "attempt", "reason"):
        pair = [None if one is None else getattr(one, name) for one in (then, now)]
        if pair[0] != pair[1]:
            told[name] = pair
    known = then or now
    assert known is not None
    tokens = [_tokens(db, run, known.name, instant) for instant in (old, new)]
    if tokens[0] != tokens[1]:
        told["tokens"] = tokens
    ended = now is not None and now.state is StepState.DONE
    if ended and (then is None or then.state is not StepState.DONE or then.event != now.event):  # type: ignore[union-attr] # `ended` says so
        row = db.execute(queries()["step_version"], {"run": run, "step": known.name}).fetchone()
        # What a step that was done again since had given then, nobody keeps.
        told["outputs"] = loads(row["outputs"]) if row["said"] == now.event else None  # type: ignore[union-attr] # as above
    return {"run": run, "step": known.name, "kind": known.kind, **told} if told else None


def _tokens(db: sqlite3.Connection, run: str, step: str, instant: Instant) -> dict[str, Json] | None:
    """How many of the step's tokens were in which state, as it was last seen."""
    row = db.execute(queries()["tokens_before"], {"run": run, "step": step, "last": instant.last}).fetchone()
    data = None if row is None else loads(row["data"])
    return data if isinstance(data, dict) and not is_cut(data) else None


def diff_survey(db: sqlite3.Connection, since: float, until: float) -> dict[str, Json]:
    """How many fields were in which state at the two times, which of them changed, and what there was in between."""
    old, new = instant_of(db, since), instant_of(db, until)
    counts = Counter[str](), Counter[str]()
    moved = []
    for row in db.execute(queries()["list_fields"]).fetchall():
        states = [_state_of(db, row["name"], instant) for instant in (old, new)]
        for count, state in zip(counts, states, strict=True):
            count.update([state] if state else ())
        if states[0] != states[1]:
            moved.append({"field": row["name"], "state": states})
    packed = count_packed(db, COUNTED, since, until)
    between: dict[str, int] = {}
    for kind in COUNTED:
        values = {"kind": kind, "first": old.last, "last": new.last}
        (count,) = db.execute(queries()["count_events_between"], values).fetchone()
        if count + packed[kind]:
            between[kind] = count + packed[kind]
    return {
        "from": since,
        "to": until,
        "fields": {state: [counts[0][state], counts[1][state]] for state in sorted({*counts[0], *counts[1]})},
        "moved": moved,
        "between": between,
    }


def _state_of(db: sqlite3.Connection, field: str, instant: Instant) -> str:
    """The field's state then, "" if it was not known yet. Its steps are not looked at: a survey has thousands of fields."""
    run = db.execute(queries()["run_before"], {"key": field, "at": instant.at}).fetchone()
    if run is not None:
        state = str(run_then(db, run, instant)["state"])
        return "archived" if state == "done" else state
    status, problem = status_then(db, field, instant)
    return "" if status is None else "failed" if problem else "offered"
