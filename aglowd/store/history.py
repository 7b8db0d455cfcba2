"""The timeline of a field, for people: what its runs and steps became, what was done for it, and what people said.

What must stay true: an entry is a change of state, never a look at the world; what only changed its reason is one entry
with the number of times. What is read is what concerns the field, and pauses of everything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator

from aglowd.model import Json
from aglowd.store.db import queries
from aglowd.store.past import RAISED, STATES, told_by, whole_since
from aglowd.store.pauses import EVENTS, EVERYTHING
from aglowd.store.rows import dumps

MAX_ENTRIES = 1_000
"""Of more only the latest are told; who wants the others names an earlier end or one run."""
BULK = ("SubjectChanged", "EffectPlanned", "EffectDone", "EffectRejected", "EffectPutOff", "EffectUnknown")
"""Events of which a timeline shows no line: looks at the world, and what the journal of effects tells better."""
RUNS = ("RunStarted", "RunReopened", "RunStopping", "RunEnded")


def list_history(
    db: sqlite3.Connection, field: str, since: float, until: float, run: str, most: int
) -> dict[str, Json] | None:
    """The field's entries of that time, the oldest first; None if nothing ever named the field, or that run of it."""
    runs = {row["id"]: row for row in db.execute(queries()["runs_of_field"], {"field": field}).fetchall()}
    if run and run not in runs:
        return None
    chosen = [run] if run else list(runs)
    if not runs and db.execute(queries()["first_event_of_field"], {"field": field}).fetchone() is None:
        return None
    values = {"field": field, "since": since, "until": until, "run": run}
    rows = db.execute(queries()["history_of_field"], {**values, "bulk": dumps(BULK)}).fetchall()
    entries = [*_merged(_entry(row) for row in rows), *_effects(db, chosen, since, until)]
    entries += _shared(db, chosen, since, until)
    if not run:
        entries += _holds(db, since, until)
    entries.sort(key=lambda entry: (entry["at"], entry["event"]))
    return {
        "field": field,
        "since": since,
        "until": until,
        "whole_since": whole_since(db),
        "runs": [
            {name: runs[one][name] for name in ("id", "state", "reason", "created", "ended")}
            for one in chosen
        ],
        "entries": entries[-most:],
        "left_out": max(0, len(entries) - most),
    }  # fmt: skip


def _entry(row: sqlite3.Row) -> dict[str, Json]:
    told = told_by(row)
    kind = row["kind"]
    entry: dict[str, Json] = {
        "at": row["at"],
        "event": row["id"],
        "what": "step" if kind in STATES or kind == RAISED else "run" if kind in RUNS else "field",
        "kind": kind,
        "run": row["run"],
        "step": row["step"],
        "text": told.get("said") or told.get("reason") or "",
    }
    if kind == "StepDone" and entry["text"] == "done":
        entry["text"] = ""
    if "uid" in told:
        entry |= {"what": "person", "uid": told["uid"], "text": told.get("reason", "")}
        entry |= {name: told[name] for name in ("steps", "result") if told.get(name)}
        if row["effect"]:
            entry["effect"] = row["effect"]
    elif kind in STATES:
        entry |= {"state": STATES[kind], "attempt": told.get("attempt", 1), "changes": 1}
    elif kind == "RunEnded":
        entry["state"] = told.get("state", "")
    elif kind == "RunStarted":
        entry["text"] = told.get("pipeline", "")
    elif kind == "FieldChanged":
        entry |= {"text": told.get("problem", ""), "status": told.get("status", "")}
    elif entry["what"] == "field" and not entry["text"]:
        entry["text"] = str(told.get("what") or told.get("why") or "")
    return entry


def _merged(entries: Iterable[dict[str, Json]]) -> Iterator[dict[str, Json]]:
    """Entries in which a step stays what it is become one, which tells the last reason and how many there were."""
    latest: dict[tuple[str, str], dict[str, Json]] = {}
    for entry in entries:
        key = (entry["run"], entry["step"])
        before = latest.get(key)
        same = ("state", "attempt")
        if before is not None and "state" in entry and all(before[name] == entry[name] for name in same):
            before |= {"text": entry["text"], "changes": before["changes"] + 1, "last": entry["at"]}
            continue
        if entry["what"] == "step":
            latest.pop(key, None)
            if "state" in entry:
                latest[key] = entry
        yield entry


def _effects(db: sqlite3.Connection, runs: Iterable[str], since: float, until: float) -> Iterator[dict[str, Json]]:
    """What the journal tells of the runs' effects, each where it ended, or where it began if it has not."""
    for run in runs:
        for row in db.execute(queries()["history_of_effects"], {"run": run, "since": since, "until": until}):
            begun = row["planned"] if row["intended"] is None else row["intended"]
            yield {
                "at": begun if row["settled"] is None else row["settled"],
                "event": row["event"] or 0,
                "what": "effect",
                "kind": row["kind"],
                "run": run,
                "step": row["step"],
                "effect": row["key"],
                "state": row["state"],
                "text": row["reason"],
                "tries": row["tries"],
                "planned": row["planned"],
                "duration_s": None if row["settled"] is None else row["settled"] - row["planned"],
            }


def _shared(db: sqlite3.Connection, runs: Iterable[str], since: float, until: float) -> Iterator[dict[str, Json]]:
    """Beginning and end of the work that is shared with other fields, as far as the runs' steps wait, or waited, for it."""
    for row in db.execute(queries()["shared_runs"], {"runs": dumps(list(runs))}).fetchall():
        for kind, at in (("SharedRunStarted", row["created"]), ("SharedRunEnded", row["ended"])):
            if at is not None and since <= at <= until:
                state = row["state"] if kind == "SharedRunEnded" else "running"
                yield {
                    "at": at,
                    "event": 0,
                    "what": "run",
                    "kind": kind,
                    "run": row["id"],
                    "step": "",
                    "state": state,
                    "text": row["reason"] if kind == "SharedRunEnded" else "",
                }


def _holds(db: sqlite3.Connection, since: float, until: float) -> Iterator[dict[str, Json]]:
    """Pauses of everything; those of the field name it, and are read with its events."""
    for row in db.execute(
        queries()["holds_between"], {"since": since, "until": until, "kinds": dumps([*EVENTS.values()])}
    ):
        entry = _entry(row)
        if told_by(row).get("scope") == EVERYTHING:
            yield {**entry, "text": f"everything{': ' if entry['text'] else ''}{entry['text']}"}
