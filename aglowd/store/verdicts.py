"""Operators' verdicts on what steps show them. Each function runs inside a transaction.

What must stay true: a verdict is given once, to a step that waits for it; it, its event and the mark of the step are one
commit, so that a verdict that was accepted is never lost. A new attempt asks anew.
"""

from __future__ import annotations

import sqlite3
from typing import Literal

from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.model import Json
from aglowd.store import facts, journal
from aglowd.store.db import queries
from aglowd.store.rows import Changes

KIND = "verdict"
"""The kind of the subjects `verdict:<run>/<step>/<attempt>` → approved, verdict, reason, uid, at."""


class Verdict(Struct, frozen=True):
    """What an operator says, and who he is."""

    approved: bool
    verdict: Literal["good", "moderate", "poor"]
    reason: str
    uid: int


def judge(
    db: sqlite3.Connection, name: str, step: str, verdict: Verdict, now: float, changes: Changes
) -> dict[str, Json]:
    """Give it to the step of the field, or of the run, of that name that waits for one; `step` may be empty if one does.

    Returns run, step and what was recorded. AglowError if no such step waits, several do, or it was judged already.
    """
    waiting = db.execute(queries()["awaiting_verdict"], {"kind": KIND, "name": name}).fetchall()
    chosen = [row for row in waiting if step in ("", row["step"])]
    if not chosen:
        others = ", ".join(row["step"] for row in waiting)
        what = f"the step {step!r} of {name!r}" if step else f"no step of {name!r}"
        known = f"; those that do: {others}" if others else ""
        raise AglowError(f"{what} {'does not wait' if step else 'waits'} for a verdict{known}")
    if len(chosen) > 1:
        steps = ", ".join(f"{row['run']} {row['step']}" for row in chosen)
        raise AglowError(f"several steps of {name!r} wait for a verdict, name one of them (and the run): {steps}")
    (row,) = chosen
    if row["version"] > 0:
        raise AglowError(f"{row['step']} of {row['run']} has its verdict already, and goes on with it")
    data: dict[str, Json] = {
        "approved": verdict.approved,
        "verdict": verdict.verdict,
        "reason": verdict.reason,
        "uid": verdict.uid,
        "at": now,
    }
    kind = "Approved" if verdict.approved else "Rejected"
    where = {"field": row["field"], "run": row["run"], "step": row["step"]}
    changes.cause = journal.add_event(db, now, kind, **where, data=data)
    facts.observe(db, row["subject"], data, now, changes)
    return {"run": row["run"], "step": row["step"], **data}
