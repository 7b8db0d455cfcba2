"""The journal of effects and the log of events. Each function runs inside a transaction. Arrows: docs/design.md (a)."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping

import msgspec

from aglowd.errors import AglowError, StaleVersion
from aglowd.model import Effect, EffectRecord, EffectState, Json
from aglowd.store import lineage
from aglowd.store.db import queries
from aglowd.store.rows import Changes, LiveEffect, Work, dumps, effect_of

WRITES_STATUS = "write_status"
"""The kind of effect by which a field's status in the catalogue is our own."""
REMEDY_ATTEMPT = 0
"""The attempt to which effects belong that no handler asked for, the audit's own: steps count theirs from 1."""
REPEATED = "repeated"
"""The note of an effect that was done again though nobody knew for certain that it had not happened."""
MAX_EVENT_BYTES = 2_048
"""An event is for people: a longer fact is cut there; the subject keeps it whole."""
MIN_CUT_CHARS = 256
"""So much of the fact stands there also beside a long recipe."""
PRUNE_BATCH_EVENTS = 5_000
"""As many are looked at in one transaction, so that nobody waits for it."""
PRUNED = "events pruned up to"
"""The name of the cursor."""


def add_event(
    db: sqlite3.Connection,
    now: float,
    kind: str,
    *,
    field: str = "",
    run: str = "",
    step: str = "",
    subject: str = "",
    effect: str = "",
    data: Json = None,
    cause: int = 0,
    recipe: Json = None,
) -> int:
    """Append a fact to the log; returns its number. `cause`: that of the event from which it follows, 0 = none there;
    `recipe`: stands beside what is left of a fact that is cut (recipes.py)."""
    text = dumps(data if data is not None else {})
    if len(text) > MAX_EVENT_BYTES:
        room = MAX_EVENT_BYTES if recipe is None else max(MIN_CUT_CHARS, MAX_EVENT_BYTES - len(dumps(recipe)))
        text = dumps({"cut": text[:room], **(recipe or {})})
    values = {"at": now, "kind": kind, "field": field, "run": run, "step": step, "subject": subject, "effect": effect}
    return int(db.execute(queries()["add_event"], {**values, "data": text, "cause": cause}).lastrowid or 0)


def is_cut(data: Json) -> bool:
    """Whether these are the data of an event that was too long: what is left of them, and perhaps a recipe."""
    return isinstance(data, dict) and "cut" in data and data.keys() <= {"cut", "digest", "made"}


def last_of_effect(db: sqlite3.Connection, key: str) -> int:
    """The latest event of the effect: what is told of it next follows from that."""
    (last,) = db.execute(queries()["last_of_effect"], {"effect": key}).fetchone()
    return int(last)


def last_event(db: sqlite3.Connection) -> int:
    """The number of the latest event, 0 if there is none."""
    (last,) = db.execute(queries()["last_event"]).fetchone()
    return int(last)


def prune_events(db: sqlite3.Connection, most: int, keep_s: float, now: float) -> int:
    """Go on with forgetting events that are older, or beyond the latest `most`; returns how many were looked at.

    Of these only those stay that say what was done; those that say how things stood go.
    """
    cursor = db.execute(queries()["get_cursor"], {"source": PRUNED}).fetchone()
    start = 0 if cursor is None else int(cursor["value"])
    old = db.execute(queries()["event_before"], {"at": now - keep_s}).fetchone()
    end = min(start + PRUNE_BATCH_EVENTS, max(last_event(db) - most, 0 if old is None else int(old["id"])))
    if end <= start:
        return 0
    db.execute(queries()["prune_events"], {"start": start, "end": end})
    db.execute(queries()["set_cursor"], {"source": PRUNED, "value": str(end)})
    return end - start


def effect_key(work: Work, effect: Effect) -> str:
    """run/step/attempt/name/ordinal."""
    return f"{work.run.id}/{work.step.name}/{work.step.attempt}/{effect.kind}/{effect.ordinal}"


def recorded(work: Work, key: str, effect: Effect) -> EffectRecord | None:
    """The effect as the journal knows it already, if the attempt has asked for it before. Other inputs under one key raise."""
    for found in work.seen.effects:
        if found.key == key:
            if dumps(found.inputs) != dumps(msgspec.to_builtins(effect)):
                raise AglowError(f"the effect {key} was recorded with other inputs: this is a defect of its handler")
            return found
    return None


def plan(db: sqlite3.Connection, work: Work, key: str, effect: Effect, now: float, cause: int) -> None:
    """Freeze the effect's inputs in the journal."""
    at = {"run": work.run.id, "step": work.step.name, "attempt": work.step.attempt}
    stop = bool(work.step.stopping)
    _add(db, key, effect, at, work.run.field, stop=stop, now=now, cause=cause)


def plan_remedy(db: sqlite3.Connection, of: LiveEffect, effect: Effect, now: float, cause: int) -> None:
    """Add an effect of the audit's own, beside the one that it makes good; its ordinal tells it from others."""
    plan_aside(db, of.run, of.step, of.field, effect, now, cause)


def plan_aside(db: sqlite3.Connection, run: str, step: str, field: str, effect: Effect, now: float, cause: int) -> None:
    """Add an effect that belongs to no attempt of the step: no handler sees it."""
    at = {"run": run, "step": step, "attempt": REMEDY_ATTEMPT}
    key = f"{run}/{step}/{REMEDY_ATTEMPT}/{effect.kind}/{effect.ordinal}"
    if db.execute(queries()["get_effect"], {"key": key}).fetchone() is None:
        _add(db, key, effect, at, field, stop=True, now=now, cause=cause)


def _add(
    db: sqlite3.Connection,
    key: str,
    effect: Effect,
    at: Mapping[str, Json],
    field: str,
    *,
    stop: bool,
    now: float,
    cause: int,
) -> None:
    inputs = dumps(msgspec.to_builtins(effect))
    state = EffectState.PLANNED if effect.needs_evidence else EffectState.OPEN
    intended = None if effect.needs_evidence else now
    values = {"key": key, "kind": effect.kind, "ordinal": effect.ordinal, "state": state, "stop": int(stop)}
    frozen = {"inputs": inputs, "digest": digest_of(inputs), "intended": intended}
    db.execute(queries()["add_effect"], {**at, **values, **frozen, "now": now})
    if lineage.look_first(db, key, str(at["run"]), now, may_be_anothers=effect.may_be_anothers):
        state = EffectState.UNKNOWN
    data = {"kind": effect.kind, "state": state}
    where = {"field": field, "run": str(at["run"]), "step": str(at["step"])}
    add_event(db, now, "EffectPlanned", **where, effect=key, data=data, cause=cause)


def digest_of(inputs: str) -> str:
    """By which it is told that inputs, or a fact that was cut, are still those that were recorded."""
    return hashlib.blake2b(inputs.encode(), digest_size=16).hexdigest()


def list_live(db: sqlite3.Connection, busy: list[str], now: float, most: int) -> list[LiveEffect]:
    """The effects that have not ended and whose time has come, without those that are being carried out."""
    rows = db.execute(queries()["live_effects"], {"now": now, "busy": dumps(busy), "most": most})
    return list(map(live_of, rows))


def live_of(row: sqlite3.Row) -> LiveEffect:
    """The effect with its surroundings; withdrawn if nothing was done for it yet and its attempt is being stopped."""
    record = effect_of(row)
    withdrawn = record.state is EffectState.PLANNED and row["stopping"] != "" and not row["stop"]
    return LiveEffect(record, row["run"], row["step"], row["field"], withdrawn)


def intend(db: sqlite3.Connection, live: LiveEffect, evidence: Json, now: float) -> None:
    """Commit that `do` is about to be called, and what the world showed before.

    What was unknown until now and is done again is noted as repeated: the first time may come to light late.
    """
    values = {"key": live.record.key, "evidence": dumps(evidence), "now": now, "repeated": dumps({REPEATED: True})}
    _one(db.execute(queries()["intend_effect"], values), live)


def note(db: sqlite3.Connection, live: LiveEffect, notes: dict[str, Json]) -> None:
    """Commit what `do` learned on its way."""
    db.execute(queries()["note_effect"], {"key": live.record.key, "notes": dumps(notes)})


def settle(
    db: sqlite3.Connection,
    live: LiveEffect,
    state: EffectState,
    result: Json,
    reason: str,
    now: float,
    changes: Changes,
) -> None:
    """Record the outcome and mark the step in one commit."""
    values = {"key": live.record.key, "state": state, "result": dumps(result), "reason": reason, "now": now}
    _one(db.execute(queries()["settle_effect"], values), live)
    if live.record.kind == WRITES_STATUS and state is EffectState.DONE:
        # What we wrote ourselves is no news: a status set by hand is one even if the catalogue was not read in between.
        db.execute(
            queries()["own_status"], {"name": live.record.inputs["field"], "status": live.record.inputs["status"]}
        )
    kind = "EffectDone" if state is EffectState.DONE else "EffectRejected"
    told = _event(db, now, kind, live, {"result": result, "reason": reason})
    db.execute(queries()["mark_step"], {"run": live.run, "step": live.step, "now": now, "cause": told})
    changes.marked.append((live.run, live.step))
    changes.dirty |= live.record.kind == WRITES_STATUS  # Other steps of the run may have waited for it.


def put_off(
    db: sqlite3.Connection,
    live: LiveEffect,
    state: EffectState,
    reason: str,
    now: float,
    next_at: float,
    *,
    tried: bool,
    looked: bool = False,
    absent_at: float | None = None,
    changes: Changes,
) -> None:
    """Record that the effect has not ended, why, and when it is taken up again; its step says the same."""
    values = {"key": live.record.key, "state": state, "reason": reason, "tried": int(tried), "looked": int(looked)}
    _one(db.execute(queries()["put_off_effect"], {**values, "absent": absent_at, "next_at": next_at}), live)
    told = 0
    if live.record.reason != reason or live.record.state is not state:
        kind = {EffectState.DOUBT: "EffectDoubtful", EffectState.UNKNOWN: "EffectUnknown"}.get(state, "EffectPutOff")
        told = _event(db, now, kind, live, {"reason": reason, "due": next_at})
    give_reason(db, live, reason, now, told or last_of_effect(db, live.record.key))
    changes.wake(next_at)


def give_reason(db: sqlite3.Connection, live: LiveEffect, reason: str, now: float, cause: int) -> None:
    """Let the step of the effect say the same as the effect, if it is at work and says something else."""
    at = {"run": live.run, "step": live.step}
    found = db.execute(queries()["step_reason"], {**at, "reason": reason}).fetchone()
    if found is not None:
        data = {"attempt": found["attempt"], "reason": reason, "since": found["since"]}
        said = add_event(db, now, "StepWorks", field=live.field, **at, data=data, cause=cause)
        db.execute(queries()["step_said"], {**at, "said": said})


def _one(cursor: sqlite3.Cursor, live: LiveEffect) -> None:
    """An outcome is recorded once: StaleVersion if somebody was there before."""
    if cursor.rowcount != 1:
        raise StaleVersion(f"{live.record.key} has ended already")


def _event(db: sqlite3.Connection, now: float, kind: str, live: LiveEffect, data: Json) -> int:
    key = live.record.key
    where = {"field": live.field, "run": live.run, "step": live.step, "effect": key}
    return add_event(db, now, kind, **where, data=data, cause=last_of_effect(db, key))
