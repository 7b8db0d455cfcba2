"""How runs are cancelled: by a person, or because nobody waits for them any more. Each function runs inside a transaction.

What must stay true: a step that has begun ends only when its handler has nothing left to undo; a run that others wait
for goes on when one of them is cancelled, and is cancelled itself when the last of them has gone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from aglowd.model import RunState, StepState
from aglowd.store import journal, runs
from aglowd.store.db import queries
from aglowd.store.rows import Changes
from aglowd.store.runs import ABANDONED, CANCEL, OutputsOf

BEGUN = (StepState.WORKING, StepState.WAITING)


def list_orphans(db: sqlite3.Connection, run: str, leaving: Iterable[str]) -> list[sqlite3.Row]:
    """The runs for which nobody waits but steps of that run and of the runs `leaving`."""
    gone = {run, *leaving}
    found = []
    for step in db.execute(queries()["steps_of_run"], {"run": run}).fetchall():
        for row in db.execute(queries()["runs_waited_for"], {"run": run, "step": step["name"]}).fetchall():
            child = db.execute(queries()["latest_run"], {"key": row["id"]}).fetchone()
            waiting = db.execute(queries()["waiting_runs"], {"subject": f"run:{row['id']}"}).fetchall()
            left = [one for one in waiting if one["run"] not in gone and not _is_leaving(db, one)]
            if _is_stoppable(child) and not left:
                found.append(child)
    return found


def _is_leaving(db: sqlite3.Connection, waiter: sqlite3.Row) -> bool:
    step = db.execute(queries()["step_version"], {"run": waiter["run"], "step": waiter["step"]}).fetchone()
    return str(step["stopping"]).startswith(CANCEL)


def _is_stoppable(run: sqlite3.Row | None) -> bool:
    return run is not None and run["state"] == RunState.RUNNING and not run["stopping"]


def stop(
    db: sqlite3.Connection,
    run: sqlite3.Row,
    why: str,
    outputs_of: OutputsOf,
    now: float,
    changes: Changes,
) -> None:
    """Begin to cancel the run: what has not begun ends at once, the rest when its handler has nothing left to undo.

    Runs for which nobody waits any more then are cancelled with it.
    """
    at = {"run": run["id"]}
    db.execute(queries()["stop_run"], {**at, "why": why})
    before = changes.cause
    where = {"field": run["field"], "run": run["id"]}
    stopping = journal.add_event(db, now, "RunStopping", **where, data={"reason": why}, cause=before)
    keys = []
    for step in db.execute(queries()["steps_of_run"], at).fetchall():
        here = {**at, "step": step["name"]}
        state = StepState(step["state"])
        if state in BEGUN:
            db.execute(queries()["stop_step"], {**here, "how": CANCEL, "now": now, "cause": stopping})
            db.execute(queries()["hurry_effects"], {**here, "now": now})
            keys += [row["id"] for row in db.execute(queries()["runs_waited_for"], here)]
        elif not state.is_ended:
            values = {**here, "state": StepState.CANCELLED, "reason": why, "outputs": "{}", "inherited": 0, "now": now}
            runs.drop_waits(db, run["id"], step["name"])
            data = {"reason": why, "attempt": step["attempt"]}
            changes.cause = journal.add_event(
                db, now, "StepCancelled", **where, step=step["name"], data=data, cause=stopping
            )
            runs.end_step(db, values, now, changes)
    changes.cause = stopping
    changes.dirty = changes.effects = True
    changes.wake(now)
    abandon(db, keys, why, outputs_of, now, changes)
    runs.close(
        db, run["id"], None, outputs_of, now, changes
    )  # Its pipeline would only make the outputs of one that is done.
    changes.cause = before


def abandon(
    db: sqlite3.Connection,
    keys: Iterable[str],
    why: str,
    outputs_of: OutputsOf,
    now: float,
    changes: Changes,
) -> None:
    """Cancel those of the runs with these keys for which nobody waits any more."""
    for key in keys:
        run = db.execute(queries()["latest_run"], {"key": key}).fetchone()
        (waiting,) = db.execute(queries()["waiters_of_run"], {"subject": runs.run_subject(key).key}).fetchone()
        if _is_stoppable(run) and not waiting:
            stop(db, run, f"{ABANDONED}: {why}", outputs_of, now, changes)
