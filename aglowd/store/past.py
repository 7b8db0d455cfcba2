"""How fields, runs and steps stood at a time past, as the log of events tells. Read-only, each from one committed state.

What must stay true: a step's state and reason change only with one of STEP_EVENTS in the same transaction, so that the
last of them before an instant says how the step stood then. Nothing reads more of the log than what concerns the field.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping

from msgspec import DecodeError, Struct

from aglowd.errors import AglowError
from aglowd.model import EffectState, Json, RunState, StepState
from aglowd.store.advice import next_of
from aglowd.store.db import queries
from aglowd.store.journal import PRUNED, is_cut
from aglowd.store.pauses import EVENTS, EVERYTHING, text_of
from aglowd.store.rows import dumps, loads
from aglowd.store.runs import CANCEL
from aglowd.store.views import short

STATES: Mapping[str, StepState] = {
    "StepReset": StepState.PENDING,
    "StepReady": StepState.READY,
    "StepChanged": StepState.READY,  # Of an older release.
    "AttemptFailed": StepState.READY,
    "StepWorks": StepState.WORKING,
    "StepWaits": StepState.WAITING,
    "StepDone": StepState.DONE,
    "StepFailed": StepState.FAILED,
    "StepSkipped": StepState.SKIPPED,
    "StepCancelled": StepState.CANCELLED,
}
"""What a step becomes with each of these events."""
RAISED = "HandlerRaised"
"""With it a step's reason changes, and its state does not."""
STEP_EVENTS = (*STATES, RAISED)
RUN_EVENTS = ("RunStarted", "RunReopened", "RunStopping", "RunEnded")
EFFECT_STATES: Mapping[str, EffectState] = {
    "EffectUnknown": EffectState.UNKNOWN,
    "EffectDoubtful": EffectState.DOUBT,
    "EffectPutOff": EffectState.PLANNED,
    "DoubtRetried": EffectState.PLANNED,
}
MAX_OBSERVATIONS = 50
"""As many are looked through for what a step had seen."""
MAX_SUBJECTS = 10


class Instant(Struct, frozen=True):
    """A time past, and the last event that had happened by then."""

    at: float
    last: int


class StepThen(Struct, frozen=True):
    """How a step stood."""

    name: str
    kind: str
    state: StepState
    attempt: int = 1
    reason: str = ""
    since: float | None = None
    due: float | None = None
    inherited: bool = False
    event: int = 0


def instant_of(db: sqlite3.Connection, at: float) -> Instant:
    """That time, as the log knows it."""
    row = db.execute(queries()["event_before"], {"at": at}).fetchone()
    return Instant(at, 0 if row is None else int(row["id"]))


def whole_since(db: sqlite3.Connection) -> float | None:
    """From when on the log is whole: of what was before, reasons and observations have been forgotten. None = all of it is."""
    cursor = db.execute(queries()["get_cursor"], {"source": PRUNED}).fetchone()
    row = (
        None if cursor is None else db.execute(queries()["first_event_after"], {"id": int(cursor["value"])}).fetchone()
    )
    return None if row is None else float(row["at"])


def told_by(event: sqlite3.Row) -> dict[str, Json]:
    """What the event of a step or a run says; of one that was too long for the log, what is left of it."""
    data = loads(event["data"])
    if not isinstance(data, dict):
        return {}
    if not is_cut(data):
        return data
    found = {name: int(number) for name, number in re.findall(r'"(attempt)":(\d+)', data["cut"])}
    reason = re.search(r'"reason":("(?:[^"\\]|\\.)*)', data["cut"])
    try:
        return {**found, "reason": "" if reason is None else f"{loads(reason[1] + chr(34))}..."}
    except DecodeError:
        return {**found, "reason": "..."}


def find_run(db: sqlite3.Connection, field: str, instant: Instant) -> sqlite3.Row | None:
    """The run that carried the field then, or the last one that had."""
    row: sqlite3.Row | None = db.execute(queries()["run_before"], {"key": field, "at": instant.at}).fetchone()
    return row or db.execute(queries()["run_of_field_before"], {"field": field, "at": instant.at}).fetchone()


def run_then(db: sqlite3.Connection, run: sqlite3.Row, instant: Instant) -> dict[str, Json]:
    """State, reason, end and `stopping` of the run then."""
    values = {"run": run["id"], "step": "", "last": instant.last, "kinds": dumps(RUN_EVENTS)}
    event = db.execute(queries()["step_event_before"], values).fetchone()
    found: dict[str, Json] = {"state": RunState.RUNNING, "reason": "", "ended": None, "stopping": ""}
    if event is None or event["kind"] in ("RunStarted", "RunReopened"):
        return found
    told = told_by(event)
    if event["kind"] == "RunStopping":
        return {**found, "stopping": told["reason"]}
    return {**found, "state": told.get("state", run["state"]), "reason": told.get("reason", ""), "ended": event["at"]}


def step_then(db: sqlite3.Connection, row: sqlite3.Row, instant: Instant) -> StepThen:
    """How the step in that row stood."""
    values = {"run": row["run"], "step": row["name"], "last": instant.last}
    event = db.execute(queries()["step_event_before"], {**values, "kinds": dumps(STEP_EVENTS)}).fetchone()
    if event is None:
        return StepThen(row["name"], row["kind"], StepState.PENDING)
    told = told_by(event)
    attempt = int(told.get("attempt", 1)) + (event["kind"] == "AttemptFailed")
    return StepThen(
        name=row["name"],
        kind=row["kind"],
        state=StepState(told.get("state", StepState.READY)) if event["kind"] == RAISED else STATES[event["kind"]],
        attempt=attempt,
        reason=told.get("said") or told.get("reason", ""),
        since=told.get("since", event["at"]),
        due=told.get("due"),
        inherited=bool(told.get("inherited")),
        event=event["id"],
    )


def steps_then(db: sqlite3.Connection, run: str, instant: Instant) -> list[StepThen]:
    """How all steps of the run stood."""
    rows = db.execute(queries()["steps_of_run"], {"run": run}).fetchall()
    return sorted((step_then(db, row, instant) for row in rows), key=lambda step: step.name)


def status_then(db: sqlite3.Connection, field: str, instant: Instant) -> tuple[str | None, str]:
    """The field's status in the catalogue, as far as we knew it, and what was wrong with its row."""
    values = {"field": field, "last": instant.last}
    event = db.execute(queries()["field_event_before"], {**values, "kinds": dumps(["FieldChanged"])}).fetchone()
    if event is None:
        return None, ""
    told = told_by(event)
    refused = db.execute(queries()["field_event_before"], {**values, "kinds": dumps(["FieldRefused"])}).fetchone()
    problem = told.get("problem", "")
    if refused is not None and refused["id"] > event["id"]:
        problem = told_by(refused).get("reason", problem)
    ours = db.execute(queries()["statuses_written_before"], {"field": field, "at": instant.at}).fetchone()
    if ours is not None and ours["settled"] > event["at"]:
        return str(loads(ours["inputs"])["status"]), problem
    return str(told.get("status", "")), problem


def field_then(db: sqlite3.Connection, field: str, instant: Instant) -> dict[str, Json]:
    """As views.field_of: how the field stood."""
    status, problem = status_then(db, field, instant)
    run = find_run(db, field, instant)
    if status is None and run is None:
        raise AglowError(f"nothing was known of {field} at that time; aglowctl history {field} shows when it began")
    found: dict[str, Json] = {
        "field": field,
        "catalogue_status": status,
        "state": "failed" if problem else "offered",
        "reason": problem,
        "run": None,
        "since": None,
        "ended": None,
        "done_steps": 0,
        "steps_total": 0,
    }
    if run is None:
        return found
    then = run_then(db, run, instant)
    steps = steps_then(db, run["id"], instant)
    found |= {
        "state": "archived" if then["state"] == RunState.DONE and status is not None else then["state"],
        "reason": then["reason"] or then["stopping"],
        "run": run["id"],
        "since": run["created"],
        "ended": then["ended"],
        "done_steps": sum(step.state.is_ended for step in steps),
        "steps_total": len(steps),
    }
    moving = [step for step in steps if step.state in (StepState.WORKING, StepState.WAITING, StepState.READY)]
    if moving:
        oldest = min(moving, key=lambda step: (step.since or 0.0, step.name))
        found |= {"step": oldest.name, "reason": oldest.reason, "since": oldest.since, "due": oldest.due}
    return found


def explain_then(db: sqlite3.Connection, field: str, at: float) -> dict[str, Json]:
    """What `explain` would have said then; AglowError if nothing was known of the field."""
    instant = instant_of(db, at)
    answer = field_then(db, field, instant)
    held = list(_held_then(db, instant))
    answer |= {"at": at, "whole_since": whole_since(db), "steps": []}
    answer["held"] = "; ".join(text_of(one) for one in held if (one["scope"], one["target"]) in _of_field(field))
    if answer["run"] is not None:
        answer["steps"] = _explain_run(db, answer["run"], held, instant)
    return answer


def _of_field(field: str) -> tuple[tuple[str, str], ...]:
    return (EVERYTHING, ""), ("field", field)


def _held_then(db: sqlite3.Connection, instant: Instant) -> Iterator[dict[str, Json]]:
    """What was held then. People hold so seldom that all of it is read."""
    modes = {event: verb for verb, event in EVENTS.items()}
    found: dict[tuple[str, str], dict[str, Json]] = {}
    for event in db.execute(queries()["holds_before"], {"last": instant.last}):
        data = loads(event["data"])
        at = (data["scope"], data["name"])
        found.pop(at, None)
        if event["kind"] != EVENTS["resume"]:
            found[at] = {**data, "target": data["name"], "mode": modes[event["kind"]], "since": event["at"]}
    yield from found.values()


def _explain_run(
    db: sqlite3.Connection, run_id: str, held: list[dict[str, Json]], instant: Instant
) -> list[dict[str, Json]]:
    run = db.execute(queries()["get_run"], {"run": run_id}).fetchone()
    stopping = CANCEL if run_then(db, run, instant)["stopping"] else ""
    rows = {row["name"]: row for row in db.execute(queries()["steps_of_run"], {"run": run_id})}
    sites = {loads(text).get("site") for text in (run["context"], run["params"])}
    found = []
    for step in steps_then(db, run_id, instant):
        if step.state.is_ended and (step.state is not StepState.FAILED or step.inherited):
            continue
        if step.state is StepState.PENDING:
            continue
        own = {("kind", step.kind), *(("site", site) for site in sites), *_of_field(run["field"])}
        begins = step.state is StepState.READY and step.attempt == 1
        why = "" if stopping else "; ".join(
            text_of(one)
            for one in held
            if (one["scope"], one["target"]) in own and (one["mode"] == "pause" or (one["scope"] == "kind" and begins))
        )  # fmt: skip
        entry: dict[str, Json] = {
            "step": step.name,
            "kind": step.kind,
            "state": step.state,
            "attempt": step.attempt,
            "reason": f"{why}; {step.reason}" if why and step.state is not StepState.FAILED else step.reason,
            "since": step.since,
            # A due date that has passed was put off without a word: the step had been asked, and had nothing new to say.
            "due": step.due if step.due is not None and step.due > instant.at else None,
            "deadline": None,
            "run": run_id,
            "waits_for": [],
            "saw": list(_seen(db, run_id, step, instant)),
            "effects": list(_under_way(db, run_id, step, instant)),
            "held": why if step.state is not StepState.FAILED else "",
        }
        entry["next"] = next_of(entry, stopping)
        child = rows[step.name]["child"]
        inner = db.execute(queries()["run_before"], {"key": child, "at": instant.at}).fetchone() if child else None
        if inner is not None and step.state is StepState.WAITING and rows[step.name]["attempt"] == step.attempt:
            entry["inner"] = _explain_run(db, inner["id"], held, instant)
        found.append(entry)
    return found


def _seen(db: sqlite3.Connection, run: str, step: StepThen, instant: Instant) -> Iterator[dict[str, Json]]:
    """What the attempt had seen last of each subject."""
    at = {"run": run, "step": step.name, "last": instant.last}
    kinds = dumps(["StepReady", "StepReset", "AttemptFailed"])
    begun = db.execute(queries()["step_event_before"], {**at, "kinds": kinds}).fetchone()
    values = {**at, "first": 0 if begun is None else begun["id"], "most": MAX_OBSERVATIONS}
    subjects: set[str] = set()
    for event in db.execute(queries()["observations_before"], values).fetchall():
        if event["subject"] not in subjects and len(subjects) < MAX_SUBJECTS:
            subjects.add(event["subject"])
            told = loads(event["data"])
            data = short({"cut": told["cut"]} if is_cut(told) else told)
            yield {"subject": event["subject"], "observed_at": event["at"], "evidence": data, "event": event["id"]}


def _under_way(db: sqlite3.Connection, run: str, step: StepThen, instant: Instant) -> Iterator[dict[str, Json]]:
    """The step's effects that had not ended."""
    at = {"run": run, "step": step.name, "at": instant.at}
    for row in db.execute(queries()["effects_under_way_at"], at).fetchall():
        values = {"effect": row["key"], "last": instant.last}
        event = db.execute(queries()["effect_event_before"], values).fetchone()
        told = {} if event is None else told_by(event)
        yield {
            "key": row["key"],
            "state": told.get("state") or EFFECT_STATES.get("" if event is None else event["kind"], EffectState.OPEN),
            "tries": 0,
            "reason": told.get("reason", ""),
            "next_at": told.get("due"),
        }
