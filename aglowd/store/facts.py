"""Observations: what the watchers report, and which steps it wakes. Each function runs inside a transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

from aglowd.model import FieldView, Json, Observation, Seen, Subject
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.recipes import recipe_of
from aglowd.store.rows import Changes, Step, dumps, effect_of, loads


def ingest(
    db: sqlite3.Connection,
    source: str,
    cursor: str | None,
    observations: Iterable[tuple[Subject, Json]],
    now: float,
    changes: Changes,
) -> int:
    """Record what changed, with the cursor, in one commit (G1); returns how many did. An unchanged fact is no event."""
    changed = sum(observe(db, subject.key, data, now, changes) for subject, data in observations)
    if cursor is not None:
        db.execute(queries()["set_cursor"], {"source": source, "value": cursor})
    return changed


def observe(db: sqlite3.Connection, key: str, data: Json, now: float, changes: Changes) -> bool:
    """Record one observation and mark who waits for it; False if it says what is known already, or nobody ever asked."""
    row = db.execute(queries()["get_subject"], {"key": key}).fetchone()
    text = dumps(data)
    if row is None or (row["version"] > 0 and row["data"] == text):
        return False
    db.execute(queries()["observe"], {"key": key, "at": now, "data": text})
    recipe = recipe_of(text, row["args"], row["data"] or "") if len(text) > journal.MAX_EVENT_BYTES else None
    told = {"subject": key, "data": data, "recipe": recipe}
    waiting = db.execute(queries()["waiting_runs"], {"subject": key}).fetchall()
    if not waiting:
        journal.add_event(db, now, "SubjectChanged", cause=changes.cause, **told)
    for waiter in waiting:
        named = {name: waiter[name] for name in ("field", "run", "step")}
        # What the world shows is seen because somebody waits for it.
        cause = changes.cause or waiter["said"]
        event = journal.add_event(db, now, "SubjectChanged", **named, cause=cause, **told)
        mark(db, waiter["run"], waiter["step"], event, now, changes)
    return True


def mark(db: sqlite3.Connection, run: str, step: str, cause: int, now: float, changes: Changes) -> None:
    """Let the step be decided, because of that event: in this very transaction, if it can be."""
    db.execute(queries()["mark_step"], {"run": run, "step": step, "now": now, "cause": cause})
    changes.marked.append((run, step))


def seen_by(db: sqlite3.Connection, step: Step) -> Seen:
    """What a decision on the step is made from."""
    at = {"run": step.run, "step": step.name}
    observations = {
        row["key"]: Observation(row["version"], row["at"] or 0.0, loads(row["data"]))
        for row in db.execute(queries()["step_observations"], at)
        if row["version"] > 0
    }
    effects = tuple(map(effect_of, db.execute(queries()["step_effects"], {**at, "attempt": step.attempt})))
    return Seen(observations, effects)


def list_watched(db: sqlite3.Connection, kind: str) -> list[tuple[Subject, int]]:
    """The subjects of that kind that some step waits for, each with the version of its latest observation."""
    return _with_versions(kind, db.execute(queries()["watched"], {"kind": kind}))


def list_watched_now(db: sqlite3.Connection, kind: str, keys: Iterable[str]) -> list[tuple[Subject, int]]:
    """Of those the ones that were never seen, and the ones of these keys: it costs as much as these are."""
    return _with_versions(kind, db.execute(queries()["watched_now"], {"kind": kind, "keys": dumps(list(keys))}))


def _with_versions(kind: str, rows: Iterable[sqlite3.Row]) -> list[tuple[Subject, int]]:
    return [(Subject(kind, row["id"], loads(row["args"])), row["version"]) for row in rows]


def fields_at_work(db: sqlite3.Connection) -> dict[str, tuple[str, str]]:
    """Field → its status, and the run that is at work on it."""
    return {row["name"]: (row["status"], row["run"]) for row in db.execute(queries()["fields_at_work"])}


def list_observed(db: sqlite3.Connection, kind: str) -> list[tuple[Subject, Json]]:
    """The subjects of that kind that some step waits for, each with its latest observation, or None."""
    rows = db.execute(queries()["observed"], {"kind": kind})
    return [(Subject(kind, row["id"], loads(row["args"])), loads(row["data"])) for row in rows]


def list_unended_jobs(db: sqlite3.Connection) -> list[tuple[Subject, Json]]:
    """The jobs that no step waits for and of which no end was seen, each with its latest observation, or None."""
    rows = db.execute(queries()["unended_jobs"])
    return [(Subject("job", row["id"], loads(row["args"])), loads(row["data"])) for row in rows]


def put_fields(
    db: sqlite3.Connection,
    fields: Iterable[tuple[FieldView, str]],
    others: Mapping[str, tuple[str, str]],
    since: int | None,
    now: float,
    changes: Changes,
) -> int:
    """As `Store.put_fields`."""
    changed = 0
    for view, problem in fields:
        written = {"name": view.name, "since": since}
        if since is not None and db.execute(queries()["wrote_status_since"], written).fetchone() is not None:
            continue
        values: Mapping[str, Json] = {
            "name": view.name,
            "status": view.status,
            "data": dumps(view.data),
            "problem": problem,
            "priority": view.priority[0],
            "field_priority": view.priority[1],
            "site": view.site,
        }
        if db.execute(queries()["put_field"], values).fetchone() is not None:
            changed += 1
            data = {"status": view.status, "problem": problem, "priority": view.priority, "site": view.site}
            told = journal.add_event(db, now, "FieldChanged", field=view.name, data=data)
            if view.name in others:
                run, before = others[view.name]
                reason = (
                    f"found {view.status!r}, which is not the run's own word; known was {before!r}; it is left as it is"
                )
                said = {"status": view.status, "before": before, "reason": reason}
                journal.add_event(db, now, "StatusSetByOthers", field=view.name, run=run, data=said, cause=told)
    changes.fields |= changed > 0
    return changed
