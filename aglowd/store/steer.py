"""A person's commands on runs: planned by reading, carried out in one transaction with their event (G9)."""

from __future__ import annotations

import sqlite3

from aglowd.choice import check_number
from aglowd.model import RunState, StepState
from aglowd.store import cancels, journal, retries
from aglowd.store.db import queries
from aglowd.store.doubts import Word
from aglowd.store.meant import find_runs
from aglowd.store.plans import (
    GraphOf,
    Order,
    Plan,
    Refused,
    RunPlan,
    Touch,
    changes_of_runs,
    planned,
    version_of,
)
from aglowd.store.retries import Tools
from aglowd.store.rows import Changes

SAID = {"cancel": "cancelled", "retry": "retried", "skip": "skipped", "done": "said to be done"}
EVENTS = {"cancel": "CancelOrdered", "retry": "RetryOrdered", "skip": "SkipOrdered", "done": "DoneOrdered"}


def said(verb: str, word: Word) -> str:
    """Who did it and why, as reasons say it."""
    return f"{SAID[verb]} by uid {word.uid}{f': {word.reason}' if word.reason else ''}"


def plan(db: sqlite3.Connection, order: Order, graph_of: GraphOf) -> Plan:
    """What the order would change, by reading alone; Refused or AglowError if that is nothing."""
    found = find_runs(db, order.choice)
    check_number(len(found))
    is_exact = order.choice.is_exact({name for run in found for name in (run["id"], run["field"])})
    plans: dict[str, RunPlan] = {}
    left: dict[str, str] = {}
    for run in found:
        try:
            if run["archived"] is not None:
                raise Refused(f"{run['id']} is packed away and only shown any more; {_instead(run)}")
            if order.verb == "cancel":
                _plan_cancel(db, run, [one["id"] for one in found], plans)
            elif order.verb == "retry":
                retries.plan_retry(db, run, order.steps, graph_of, plans)
            else:
                plans[run["id"]] = retries.plan_end(db, run, order, graph_of)
        except Refused as error:
            if is_exact:
                raise
            left[run["id"]] = str(error)
    if not plans:
        first = next(iter(left.values()))
        raise Refused(f"nothing is to be changed: {first}{f' (and {len(left) - 1} more)' if len(left) > 1 else ''}")
    listed = tuple(plans.values())
    told = [[one.run, [(t.step, t.attempt, t.state, t.becomes) for t in one.touches]] for one in listed]
    return Plan(version_of(db, told), listed, left)


def _instead(run: sqlite3.Row) -> str:
    """What is to be done instead of going back in a run that is packed."""
    if run["key"] != run["field"] or "/" in run["field"]:
        return "whoever needs its work done again begins a run of his own"
    return f"to do its work again, begin another run: aglowctl run {run['field']}"


def _plan_cancel(db: sqlite3.Connection, run: sqlite3.Row, others: list[str], plans: dict[str, RunPlan]) -> None:
    if run["state"] != RunState.RUNNING:
        raise Refused(f"{run['id']} is {run['state']}: there is nothing to cancel")
    if run["stopping"]:
        raise Refused(f"{run['id']} is being cancelled already: {run['stopping']}")
    _add_cancel(db, run, others, plans, "")


def _add_cancel(
    db: sqlite3.Connection, run: sqlite3.Row, others: list[str], plans: dict[str, RunPlan], why: str
) -> None:
    if run["id"] in plans:
        return
    touches = []
    for row in sorted(db.execute(queries()["steps_of_run"], {"run": run["id"]}), key=lambda row: str(row["name"])):
        state = StepState(row["state"])
        if not state.is_ended:
            note = "when its handler has nothing left to undo" if state in cancels.BEGUN else ""
            touches.append(Touch(row["name"], row["attempt"], state, StepState.CANCELLED, note))
    plans[run["id"]] = RunPlan(run["id"], run["field"], run["state"], RunState.CANCELLED, tuple(touches), why)
    for child in cancels.list_orphans(db, run["id"], [*others, *plans]):
        _add_cancel(db, child, others, plans, f"nobody else than {run['id']} waits for it")


def carry_out(
    db: sqlite3.Connection, order: Order, version: str, word: Word, tools: Tools, now: float, changes: Changes
) -> Plan:
    """Do what the plan says, if it still is the one of that version ("" = whatever it is now); Changed if it is not."""

    def since_then(since: int, made: Plan | None) -> list[str]:
        runs = [one.run for one in made.runs] if made else []
        return changes_of_runs(db, [*runs, *(run["id"] for run in find_runs(db, order.choice.in_any_state()))], since)

    made = planned(lambda: plan(db, order, tools.graph_of), version, since_then)
    text = said(order.verb, word)
    orders = {}
    for one in made.runs:
        data = {"uid": word.uid, "reason": word.reason, "steps": list(one.start), "why": one.why}
        orders[one.run] = journal.add_event(db, now, EVENTS[order.verb], field=one.field, run=one.run, data=data)
    if order.verb == "cancel":
        for one in made.runs:
            run = db.execute(queries()["get_run"], {"run": one.run}).fetchone()
            if not one.why and not run["stopping"]:
                changes.cause = orders[one.run]
                cancels.stop(db, run, text, tools.outputs_of, now, changes)
    elif order.verb == "retry":
        retries.retry(db, made.runs, orders, text, tools, now, changes)
    else:
        for one in made.runs:
            changes.cause = orders[one.run]
            retries.end(db, one, order, text, tools, now, changes)
    cancels.abandon(db, changes.left, text, tools.outputs_of, now, changes)
    return made
