"""What cannot be told, and who said what to do about it: doubtful effects, and the audit's findings.

What must stay true: an effect's outcome is settled once, by the engine or by an operator, and an operator's word is an
event with uid, time and reason (G9). Each function runs inside a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.model import Effect, EffectState, Json
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.rows import Changes, LiveEffect, dumps, effect_of, loads


class Word(Struct, frozen=True):
    """Who settles a doubt, and why."""

    uid: int
    reason: str


class Finding(Struct, frozen=True):
    """Something in the world that the journal does not explain: `kind` is duplicate or stranger.

    `key` names the thing (`staging:18755`), `effect` the journal's entry that it doubles, `what` is for people, and
    `remedy` is what aglowd does about it by itself.
    """

    key: str
    kind: str
    what: str
    effect: str = ""
    data: Json = None
    remedy: Effect | None = None


def list_doubts(db: sqlite3.Connection) -> list[dict[str, Json]]:
    """Every effect whose outcome is not known, the doubtful first, with the evidence that there is."""
    return [_doubt(row) for row in db.execute(queries()["list_doubts"])]


def _doubt(row: sqlite3.Row) -> dict[str, Json]:
    record = effect_of(row)
    return {
        "key": record.key,
        "kind": record.kind,
        "state": record.state,
        "field": row["field"],
        "run": row["run"],
        "step": row["step"],
        "reason": record.reason,
        "since": record.intended_at,
        "tries": record.tries,
        "looks": record.looks,
        "evidence": record.evidence,
        "notes": record.notes,
        "next_at": record.next_at,
    }


def list_findings(db: sqlite3.Connection) -> list[dict[str, Json]]:
    """What the audit found and the world still shows."""
    return [{**dict(row), "data": loads(row["data"])} for row in db.execute(queries()["list_findings"])]


def find_effect(db: sqlite3.Connection, key: str) -> LiveEffect | None:
    """The journal's entry of that key, whatever its state."""
    row = db.execute(queries()["get_effect"], {"key": key}).fetchone()
    return None if row is None else LiveEffect(effect_of(row), row["run"], row["step"], row["field"])


def list_of_kind(db: sqlite3.Connection, kind: str, since: float) -> list[LiveEffect]:
    """The effects of that kind that were planned since then, ended or not, oldest first."""
    rows = db.execute(queries()["effects_of_kind"], {"kind": kind, "since": since})
    return [LiveEffect(effect_of(row), row["run"], row["step"], row["field"]) for row in rows]


def adopt(db: sqlite3.Connection, live: LiveEffect, result: Json, word: Word, now: float, changes: Changes) -> None:
    """On the operator's word it happened, and this is what it returned."""
    _check_doubtful(db, live)
    values = {"kind": live.record.kind, "key": live.record.key, "result": dumps(result)}
    values["site"] = live.record.inputs.get("site")
    other = db.execute(queries()["same_result"], values).fetchone() if isinstance(result, dict) else None
    if other is not None:
        raise AglowError(f"that is what {other['key']} made: it cannot be the result of {live.record.key} too")
    _said(db, live, "DoubtAdopted", word, {"result": result}, now)
    journal.settle(db, live, EffectState.DONE, result, _reason("adopted", word), now, changes)


def forget(db: sqlite3.Connection, live: LiveEffect, word: Word, now: float, changes: Changes) -> None:
    """On the operator's word it is given up: its attempt goes on as if the world had refused it."""
    _check_doubtful(db, live)
    _said(db, live, "DoubtForgotten", word, {}, now)
    journal.settle(db, live, EffectState.REJECTED, None, _reason("given up", word), now, changes)


def retry(db: sqlite3.Connection, live: LiveEffect, word: Word, now: float, changes: Changes) -> None:
    """On the operator's word it did not happen: it is done again under the same key, without another look."""
    _check_doubtful(db, live)
    _said(db, live, "DoubtRetried", word, {}, now)
    reason = _reason("tried again", word)
    repeated = dumps({journal.REPEATED: True})
    values = {"key": live.record.key, "reason": reason, "now": now, "repeated": repeated}
    db.execute(queries()["retry_effect"], values)
    journal.give_reason(db, live, reason, now, journal.last_of_effect(db, live.record.key))
    changes.effects = True


def _check_doubtful(db: sqlite3.Connection, live: LiveEffect) -> None:
    found = find_effect(db, live.record.key)
    state = None if found is None else found.record.state
    if state not in (EffectState.UNKNOWN, EffectState.DOUBT):
        raise AglowError(f"{live.record.key} is {state}: there is nothing to settle")


def _reason(verb: str, word: Word) -> str:
    return f"{verb} by uid {word.uid}: {word.reason}"


def _said(db: sqlite3.Connection, live: LiveEffect, kind: str, word: Word, data: dict[str, Json], now: float) -> None:
    key = live.record.key
    values = {**data, "uid": word.uid, "reason": word.reason, "was": live.record.reason}
    where = {"field": live.field, "run": live.run, "step": live.step, "effect": key}
    journal.add_event(db, now, kind, **where, data=values, cause=journal.last_of_effect(db, key))


def dismiss(db: sqlite3.Connection, key: str, word: Word, now: float) -> bool:
    """Mark a finding as seen to; False if there is none of that key."""
    values = {"key": key, "handled": _reason("dismissed", word)}
    if db.execute(queries()["dismiss_finding"], values).fetchone() is None:
        return False
    journal.add_event(db, now, "FindingDismissed", data={"key": key, "uid": word.uid, "reason": word.reason})
    return True


def record_findings(
    db: sqlite3.Connection, prefix: str, findings: Iterable[Finding], now: float, changes: Changes
) -> list[Finding]:
    """What an audit of the things under that prefix found, all of it; the new ones are returned.

    A new one becomes an event, and its remedy an effect, in one commit. A stranger that the world shows no more is
    dropped; a duplicate stays until a person has dismissed it.
    """
    listed = list(findings)
    fresh = []
    for finding in listed:
        of = find_effect(db, finding.effect) if finding.effect else None
        field = of.field if of is not None else ""
        handled = f"aglowd: {finding.remedy.kind.replace('_', ' ')}" if finding.remedy else ""
        values = {name: getattr(finding, name) for name in ("key", "kind", "effect", "what")}
        row = {**values, "handled": handled, "field": field, "data": dumps(finding.data), "now": now}
        if db.execute(queries()["add_finding"], row).fetchone() is None:
            continue
        fresh.append(finding)
        event = "DuplicateFound" if finding.kind == "duplicate" else "StrangerFound"
        data = {"key": finding.key, "what": finding.what, "handled": handled}
        run, step = (of.run, of.step) if of is not None else ("", "")
        cause = journal.last_of_effect(db, finding.effect)
        told = journal.add_event(
            db, now, event, field=field, run=run, step=step, effect=finding.effect, data=data, cause=cause
        )
        if of is not None and finding.remedy is not None:
            journal.plan_remedy(db, of, finding.remedy, now, told)
            changes.effects = True
    db.execute(queries()["drop_findings"], {"prefix": prefix, "keys": dumps([finding.key for finding in listed])})
    return fresh
