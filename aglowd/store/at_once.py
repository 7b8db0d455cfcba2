"""Decisions in the very transaction that gives rise to them: what is seen, what it means and what is done next are one commit.

What must stay true: such a decision is one that the reactor's next turn would have made, of the same and by the same rules; what
cannot be decided here is left to that turn, with nothing of it written; a few are made in one transaction, so that none is long.
"""

from __future__ import annotations

import sqlite3
from typing import Protocol

from aglowd.store import cancels, runs
from aglowd.store.db import may_pass, queries
from aglowd.store.rows import Changes, Work
from aglowd.store.runs import Decision, OutputsOf

AT_ONCE_MOST = 32
"""Steps that one transaction asks about at most, beside its own."""


class LeftToTurn(Exception):
    """A decision that was made at once cannot be carried through: the transaction is to be run anew, without any."""


class Decider(Protocol):
    """The reactor, as far as the store must know it."""

    def decide(self, work: Work, now: float) -> Decision | None:
        """What is decided of the step; None to leave it to a turn. Pure, and asked in the thread that writes."""
        ...

    def tell(self, decision: Decision) -> None:
        """It has been committed."""
        ...


def decide_marked(
    db: sqlite3.Connection, decider: Decider, outputs_of: OutputsOf, now: float, changes: Changes
) -> list[Decision]:
    """Decide the steps that the transaction has marked, and those that are marked by that; returns what was decided.

    LeftToTurn if one of them cannot be carried through; part of it may have been written then.
    """
    decisions: list[Decision] = []
    asked = 0
    for run, step in changes.marked:  # It grows meanwhile.
        row = db.execute(queries()["dirty_step"], {"run": run, "step": step}).fetchone()
        if row is None:
            continue
        asked += 1
        decision = decider.decide(runs.work_of(db, row), now) if asked <= AT_ONCE_MOST else None
        if decision is None:
            changes.dirty = True
        else:
            _carry_through(db, decision, outputs_of, now, changes)
            decisions.append(decision)
    return decisions


def _carry_through(
    db: sqlite3.Connection, decision: Decision, outputs_of: OutputsOf, now: float, changes: Changes
) -> None:
    own = Changes()
    try:
        runs.carry_through(db, decision, outputs_of, now, own)
        abandon(db, decision, outputs_of, now, own)
    except Exception as error:  # Whatever is wrong with it, the turn finds out and says so.
        if not db.in_transaction or may_pass(error):
            raise
        raise LeftToTurn from error
    changes.take(own)


def abandon(db: sqlite3.Connection, decision: Decision, outputs_of: OutputsOf, now: float, changes: Changes) -> None:
    """Cancel the runs for which nobody waits any more by that decision."""
    why = f"{decision.work.run.id}/{decision.work.step.name} has ended"
    cancels.abandon(db, changes.left, why, outputs_of, now, changes)
