"""What will happen by itself: the timers that will fire with what each will do, and who waits for a place in a pool.

What must stay true: the order of a queue is the order in which the places are given (`pool_next`). Read-only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

from aglowd.model import EffectState, Json, StepState
from aglowd.store.db import queries
from aglowd.store.pauses import why_held
from aglowd.store.schedules import list_schedules

MAX_TIMERS = 1_000
DOES: Mapping[str, str] = {
    EffectState.PLANNED: "it is done, or tried again",
    EffectState.OPEN: "it is being done",
    EffectState.UNKNOWN: "it is looked for again",
    EffectState.DOUBT: "it is looked for again; who can tell whether it happened says so: aglowctl doubt",
}
"""What the engine does with an effect in each state when its time has come."""


def list_ahead(db: sqlite3.Connection, until: float) -> dict[str, Json]:
    """The timers up to that time, the next one first; the pools with their queues."""
    timers = [*_dues(db, until), *_deadlines(db, until), *_efforts(db, until), *_schedules(db, until)]
    timers.sort(key=lambda one: (one["at"], one["run"], one["step"]))
    used = {row["pool"]: row["n"] for row in db.execute(queries()["pools_used"])}
    queues: dict[str, list[Json]] = {}
    for row in db.execute(queries()["pool_queue"]):
        who = {"field": row["field"], "run": row["run"], "step": row["name"], "since": row["since"]}
        queues.setdefault(row["pool"], []).append(who)
    return {
        "timers": timers[:MAX_TIMERS],
        "left_out": max(0, len(timers) - MAX_TIMERS),
        "pools": {name: {"used": used.get(name, 0), "queue": queues.get(name, [])} for name in {*used, *queues}},
    }


def _timer(row: sqlite3.Row, at: float, step: str, does: str, **more: Json) -> dict[str, Json]:
    return {"at": at, "field": row["field"], "run": row["run"], "step": step, "does": does, **more}


def _dues(db: sqlite3.Connection, until: float) -> Iterator[dict[str, Json]]:
    for row in db.execute(queries()["timers_of_steps"], {"until": until, "most": MAX_TIMERS + 1}).fetchall():
        held = why_held(db, row["run"], row["name"])
        if held:
            does = f"nothing: {held}"
        elif row["state"] == StepState.READY and row["faults"]:
            does = f"its handler is asked again; it has raised {row['faults']} times"
        elif row["state"] == StepState.READY:
            does = f"attempt {row['attempt']} of {_tries(row)} begins"
        else:
            does = "it is decided again with what has been seen by then"
        yield _timer(row, row["due"], row["name"], does, reason=row["reason"])


def _deadlines(db: sqlite3.Connection, until: float) -> Iterator[dict[str, Json]]:
    for row in db.execute(queries()["deadlines_of_steps"], {"until": until, "most": MAX_TIMERS + 1}).fetchall():
        tries = _tries(row)
        then = f"attempt {row['attempt'] + 1} of {tries} follows" if row["attempt"] < tries else "the step fails"
        does = f"its time is up: attempt {row['attempt']} is ended, what it left outside is undone, and {then}"
        yield _timer(row, row["deadline"], row["name"], does, reason=row["reason"])


def _tries(row: sqlite3.Row) -> int:
    """How many attempts the step has, with those that people gave it."""
    return int(row["base"]) + 1 + int(row["retries"])


def _efforts(db: sqlite3.Connection, until: float) -> Iterator[dict[str, Json]]:
    for row in db.execute(queries()["timers_of_effects"], {"until": until, "most": MAX_TIMERS + 1}).fetchall():
        yield _timer(row, row["next_at"], row["step"], DOES[row["state"]], effect=row["key"], reason=row["reason"])


def _schedules(db: sqlite3.Connection, until: float) -> Iterator[dict[str, Json]]:
    for one in list_schedules(db):
        if one["next"] <= until:
            running = one["state"] == "running"
            does = "its run begins" if not running else f"its run begins as soon as {one['run']} has ended"
            yield {"at": one["next"], "field": one["field"], "run": "", "step": "", "does": does, "reason": one["rule"]}
