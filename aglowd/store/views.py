"""What people ask for: status, fields, why one waits, events. Read-only, each from one committed state."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from aglowd.choice import Choice
from aglowd.model import Json, StepState
from aglowd.store.advice import next_of
from aglowd.store.db import queries
from aglowd.store.journal import last_event, live_of
from aglowd.store.meant import all_names, find_field, find_fields, state_of
from aglowd.store.pauses import how_opened, how_resumed, list_pauses, why_closed, why_held
from aglowd.store.rows import dumps, loads
from aglowd.store.verdicts import KIND as VERDICT

PLOTS = ("plots", "inspection_plots")
"""The outputs, of a step or of a run, that are links to what people look at."""
MAX_EVENTS = 1000
"""Events in one answer; who wants more asks again from the last id."""


def get_status(db: sqlite3.Connection) -> dict[str, Json]:
    """Counts of everything that moves, and since when the oldest of each kind of step waits."""

    def counted(name: str) -> dict[str, int]:
        return {row["state"]: row["n"] for row in db.execute(queries()[name])}

    waits = [dict(row) for row in db.execute(queries()["oldest_waits"])]
    waiting = {"waiting": sum(wait["n"] for wait in waits)} if waits else {}
    return {
        "fields": counted("count_states"),
        "steps": dict(sorted({**counted("count_other_steps"), **waiting}.items())),
        "effects": counted("count_effects"),
        "waiting": waits,
        "pools": {row["pool"]: row["n"] for row in db.execute(queries()["pools_used"])},
        "findings": db.execute(queries()["count_findings"]).fetchone()[0],
        "paused": list_pauses(db),
        "last_event": last_event(db),
    }


def list_fields(db: sqlite3.Connection) -> list[dict[str, Json]]:
    """Every field with the state of its run and what its most telling step does."""
    return [field_of(db, row) for row in db.execute(queries()["list_fields"]).fetchall()]


def list_chosen(db: sqlite3.Connection, choice: Choice) -> list[dict[str, Json]]:
    """The same of the fields that are meant, and of what else runs under such a name."""
    return [field_of(db, row) for row in find_fields(db, choice)]


MAX_NAMES = 1000
"""Names in one answer: more, nobody picks from."""


def list_names(db: sqlite3.Connection, begun: str) -> list[str]:
    """The names of fields, and of what else runs under one, that begin so."""
    return [name for name in all_names(db) if name.startswith(begun)][:MAX_NAMES]


def get_field(db: sqlite3.Connection, name: str) -> dict[str, Json] | None:
    """The field with its runs and their steps, or None if nobody knows it."""
    row = find_field(db, name)
    if row is None:
        return None
    field = field_of(db, row)
    runs = db.execute(queries()["runs_of_field"], {"field": name}).fetchall()
    return {**field, "data": loads(row["data"]), "runs": [_run(db, run) for run in runs]}


def explain(db: sqlite3.Connection, name: str) -> dict[str, Json] | None:
    """Why the field waits: every step that could move and does not, with reason, evidence, since, due and what is next."""
    row = find_field(db, name)
    if row is None:
        return None
    answer: dict[str, Json] = {**field_of(db, row), "steps": []}
    if row["run"] is not None:
        answer["steps"] = _explain_run(db, row["run"])
    else:
        # It stands as it does since its row changed, or was refused.
        answer["since"] = next((event["at"] for event in list_events(db, 0, name, 1)), None)
    pauses = list_pauses(db)
    answer["held"] = why_closed(pauses, name, row["site"])
    answer["resume"] = how_opened(pauses, name, row["site"])
    return answer


def _explain_run(db: sqlite3.Connection, run: str) -> list[Json]:
    steps = []
    effects = [live_of(row) for row in db.execute(queries()["list_live_effects"], {"run": run})]
    rows = db.execute(queries()["steps_of_run"], {"run": run}).fetchall()
    for row in rows:
        state = StepState(row["state"])
        if state not in (StepState.READY, StepState.WORKING, StepState.WAITING) and not (
            state is StepState.FAILED and not row["inherited"]
        ):
            continue
        at = {"run": run, "step": row["name"]}
        waits = db.execute(queries()["waits_of_step"], at).fetchall()
        entry: dict[str, Json] = {
            **_step(row),
            "run": run,
            "plots": list(_plots(db, row)),
            "waits_for": [
                {"subject": wait["subject"], "observed_at": wait["at"], "evidence": short(loads(wait["data"]))}
                for wait in waits
            ],
            "effects": [
                {
                    "key": live.record.key,
                    "state": live.record.state,
                    "tries": live.record.tries,
                    "reason": live.record.reason,
                    "next_at": live.record.next_at,
                }
                for live in effects
                if live.step == row["name"]
            ],
            "held": why_held(db, run, row["name"]),
            "resume": how_resumed(db, run, row["name"]),
        }
        if entry["held"]:
            entry["reason"] = f"{entry['held']}; {entry['reason']}"
        entry["next"] = next_of(entry, row["stopping"])
        for wait in waits:
            if wait["kind"] == "run":
                latest = db.execute(queries()["latest_run"], {"key": wait["id"]}).fetchone()
                if latest is not None:
                    entry["inner"] = _explain_run(db, latest["id"])
        steps.append(entry)
    return sorted(steps, key=lambda step: str(step["step"]))


MAX_EVIDENCE = 600


def short(value: Any) -> Json:
    """Evidence fit for a screen: long lists are counted."""
    if isinstance(value, dict):
        return {key: short(inner) for key, inner in value.items()}
    if isinstance(value, list) and len(dumps(value)) > MAX_EVIDENCE:
        return f"{len(value)} entries"
    return value


def _step(row: sqlite3.Row) -> dict[str, Json]:
    names = ("kind", "state", "attempt", "reason", "since", "due", "deadline", "pool", "started", "ended")
    return {"step": row["name"], **{name: row[name] for name in names}}


def _run(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Json]:
    steps = db.execute(queries()["steps_of_run"], {"run": row["id"]}).fetchall()
    names = ("id", "key", "state", "reason", "created", "ended")
    listed = [{**_step(step), "plots": list(_plots(db, step))} for step in steps]
    return {**{name: row[name] for name in names}, "outputs": loads(row["outputs"]), "steps": listed}


def _plots(db: sqlite3.Connection, step: sqlite3.Row) -> Iterator[str]:
    """Links to what a step shows: its outputs of such names, and what an operator is asked about."""
    if step["state"] == StepState.WAITING:
        for wait in db.execute(queries()["waits_of_step"], {"run": step["run"], "step": step["name"]}).fetchall():
            if wait["kind"] == VERDICT:
                yield from loads(db.execute(queries()["get_subject"], {"key": wait["subject"]}).fetchone()["args"])[
                    "show"
                ]
    outputs = loads(step["outputs"])
    for name in PLOTS:
        urls = outputs.get(name)
        yield from (url for url in (urls if isinstance(urls, list) else [urls]) if isinstance(url, str) and url)


def field_of(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Json]:
    """How the field or the run in that row stands; what is not in the catalogue has no status there."""
    answer: dict[str, Json] = {
        "field": row["name"],
        "catalogue_status": row["status"],
        "state": state_of(row),
        "reason": row["run_reason"] or row["problem"] or row["refused"] or "",
        "run": row["run"],
        "since": row["created"],
        "ended": row["ended"],
        "done_steps": 0,
        "steps_total": 0,
    }
    if row["run"] is None:
        return answer
    packed = db.execute(queries()["archived_steps"], {"run": row["run"]}).fetchone()
    if packed is not None:
        return {**answer, "steps_total": packed["steps"], "done_steps": packed["steps"]}
    steps = db.execute(queries()["steps_of_run"], {"run": row["run"]}).fetchall()
    answer["steps_total"] = len(steps)
    answer["done_steps"] = sum(StepState(step["state"]).is_ended for step in steps)
    moving = [step for step in steps if step["state"] in (StepState.WORKING, StepState.WAITING, StepState.READY)]
    if moving:
        followers = {one["step"] for one in db.execute(queries()["steps_that_follow"], {"run": row["run"]})}
        # What only waits for other steps of the run holds up nobody: it is told of when nothing else moves.
        oldest = min(moving, key=lambda step: (step["name"] in followers, step["since"], step["name"]))
        answer["step"] = oldest["name"]
        answer["reason"] = oldest["reason"]
        answer["since"] = oldest["since"]
        answer["due"] = oldest["due"]
    return answer


LAST = 2**62
"""No event has a larger number."""


def list_events(
    db: sqlite3.Connection, since: int, field: str, most: int, until: int = LAST, kinds: Sequence[str] = ()
) -> list[dict[str, Json]]:
    """Events after that id, oldest first; chosen by field, kinds or end and without an id the latest."""
    most = min(most, MAX_EVENTS)
    is_latest = not since and (field != "" or len(kinds) > 0 or until < LAST)
    values = {"since": since, "until": until, "most": most, "field": field, "kinds": dumps(list(kinds))}
    latest = "latest_" if is_latest else ""
    if field:
        rows = db.execute(queries()[f"{latest}events_of_field"], values).fetchall()
    elif kinds:
        # One by one, because only then each comes in order from the index.
        query = queries()[f"{latest}events_of_kind"]
        rows = [row for kind in dict.fromkeys(kinds) for row in db.execute(query, {**values, "kind": kind})]
    else:
        rows = db.execute(queries()["latest_events" if is_latest else "events_since"], values).fetchall()
    rows = sorted(rows, key=lambda row: int(row["id"]))
    rows = rows[-most:] if is_latest else rows[:most]
    return [{**dict(row), "data": loads(row["data"])} for row in rows]


def count_runs_of(db: sqlite3.Connection, pipeline: str) -> int:
    """How many runs of that pipeline there were."""
    (count,) = db.execute(queries()["count_runs_of"], {"name": pipeline}).fetchone()
    return int(count)


def list_waited(db: sqlite3.Connection, kind: str) -> list[dict[str, Json]]:
    """The subjects of that kind that steps wait for: id, args, data and time of the last look, and who waits."""
    return [
        {**{name: row[name] for name in ("id", "at", "run", "step", "field")}, "args": loads(row["args"]),
         "data": None if row["data"] is None else loads(row["data"])}
        for row in db.execute(queries()["waited"], {"kind": kind})
    ]  # fmt: skip
