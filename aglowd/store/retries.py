"""Going back: a retry, a step that is skipped or said to be done, and all that hangs on it. Inside a transaction each.

What must stay true: a step that goes back gets a new attempt, so that no effect's key is used twice; outputs of the
others stay; nothing that is at work is thrown back; shared work that failed is done again once for all who waited.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from msgspec import Struct

from aglowd.model import Effect, RunState, StepState
from aglowd.rules import advance, run_state
from aglowd.store import journal, runs
from aglowd.store.db import queries
from aglowd.store.plans import GraphOf, Order, Refused, RunPlan, Touch, graph_of_run, states_of, steps_of
from aglowd.store.rows import Changes, dumps, loads
from aglowd.store.runs import SKIP, STEP, OutputsOf

AGAIN = (StepState.FAILED, StepState.CANCELLED)
AT_WORK = (StepState.WORKING, StepState.WAITING)
Rewrite = Callable[[str, str, str, int], Effect]
"""(field, status that stands in the catalogue, status that shall, ordinal) → the effect that writes it."""


class Tools(Struct, frozen=True):
    """What carrying out needs beside the database: how runs are read and closed, and how a status is written back."""

    graph_of: GraphOf
    outputs_of: OutputsOf
    rewrite: Rewrite


# --- what would be changed


def plan_retry(
    db: sqlite3.Connection, run: sqlite3.Row, start: tuple[str, ...], graph_of: GraphOf, plans: dict[str, RunPlan]
) -> None:
    """Add the runs that go on again: this one, shared work that failed under it, and all who failed with that."""
    pulled = plans.pop(run["id"], None)
    try:
        _plan_retry(db, run, start, graph_of, plans, "")
    except Refused:
        if pulled is None:
            raise
        plans[run["id"]] = pulled


def _plan_retry(
    db: sqlite3.Connection,
    run: sqlite3.Row,
    start: tuple[str, ...],
    graph_of: GraphOf,
    plans: dict[str, RunPlan],
    why: str,
) -> None:
    if run["id"] in plans:
        return
    check_reopens(db, run)
    graph, steps = graph_of_run(db, run, graph_of), steps_of(db, run["id"])
    states = states_of(steps)
    for name in start:
        _check_known(run, steps, name)
    begin = start or tuple(
        sorted(name for name, row in steps.items() if states[name] in AGAIN and not row["inherited"])
    )
    if not begin:
        raise Refused(f"no step of {run['id']} has failed or was cancelled; name one with --from STEP")
    names = _behind(graph, states, begin)
    busy = sorted(name for name in names if states[name] in AT_WORK)
    if busy:
        raise Refused(f"{run['id']}: {', '.join(busy)} is at work; wait for its end, or cancel the run first")
    after = _after(graph, states, names)
    if all(after[name].is_ended for name in begin):
        needs = sorted(
            {need for name in begin for need in graph.steps[name].needs if after[need] is not StepState.DONE}
        )
        raise Refused(f"{run['id']}: {', '.join(begin)} would end at once with {', '.join(needs)}; go back to that one")
    touches = tuple(_touch(steps[name], after[name]) for name in sorted(names))
    plans[run["id"]] = RunPlan(run["id"], run["field"], run["state"], RunState.RUNNING, touches, why, begin)
    try:
        _plan_with_others(db, run, [steps[name]["child"] for name in sorted(names)], graph_of, plans)
    except Refused:
        del plans[run["id"]]
        raise


def _plan_with_others(
    db: sqlite3.Connection, run: sqlite3.Row, keys: Iterable[str], graph_of: GraphOf, plans: dict[str, RunPlan]
) -> None:
    """Shared work of these keys that failed under the run goes on with it, and so do all who failed with the run itself."""
    for key in keys:
        child = db.execute(queries()["latest_run"], {"key": key}).fetchone()
        if child is not None and not owner_of(db, child) and child["state"] in (RunState.FAILED, RunState.CANCELLED):
            _plan_retry(db, child, (), graph_of, plans, f"{run['id']} waits for it")
    if run["state"] in (RunState.FAILED, RunState.CANCELLED):
        for waiter in db.execute(queries()["failed_waiters"], {"key": run["key"]}).fetchall():
            other = db.execute(queries()["get_run"], {"run": waiter["run"]}).fetchone()
            try:
                _plan_retry(db, other, (waiter["name"],), graph_of, plans, f"it failed with {run['id']}")
            except Refused:
                continue  # It is at work elsewhere, or was begun anew: it does not need this one any more.


def plan_end(db: sqlite3.Connection, run: sqlite3.Row, order: Order, graph_of: GraphOf) -> RunPlan:
    """What skipping a step, or calling it done, changes; Refused if it has live effects, or has ended well already."""
    (name,) = order.steps
    graph, steps = graph_of_run(db, run, graph_of), steps_of(db, run["id"])
    _check_known(run, steps, name)
    row, states = steps[name], states_of(steps)
    where = f"{run['id']}/{name}"
    if row["stopping"] or run["stopping"]:
        raise Refused(f"{where} is being stopped already: aglowctl explain {run['field']}")
    if states[name] in (StepState.DONE, StepState.SKIPPED):
        raise Refused(f"{where} is {row['state']} already; to do it again: aglowctl retry {run['id']} --from {name}")
    at = {"run": run["id"], "step": name, "attempt": row["attempt"]}
    live = db.execute(queries()["live_keys_of_step"], at).fetchall()
    if live:
        told = ", ".join(f"{one['key']} ({one['state']})" for one in live[:3])
        raise Refused(
            f"{where}: {len(live)} of its effects have not ended: {told}; wait for their end, settle what is in doubt "
            "(aglowctl doubt), or cancel the run"
        )
    end = StepState.SKIPPED if order.verb == "skip" else StepState.DONE
    again: Collection[str] = ()
    if states[name] in AGAIN:
        check_reopens(db, run)
        again = _behind(graph, states, (name,)) - {name}
        busy = sorted(one for one in again if states[one] in AT_WORK)
        if busy:
            raise Refused(f"{run['id']}: {', '.join(busy)} is at work; wait for its end, or cancel the run first")
    stops = end is StepState.SKIPPED and states[name] in AT_WORK
    after = _after(graph, {**states, name: states[name] if stops else end}, again)
    touches = [_touch(row, end, "when its handler has nothing left to undo" if stops else "")]
    touches += [_touch(steps[one], after[one]) for one in sorted(after) if one != name and after[one] != states[one]]
    touches += [_touch(steps[one], after[one]) for one in sorted(again) if after[one] == states[one]]
    return RunPlan(run["id"], run["field"], run["state"], run_state(after.values()), tuple(touches), "", (name,))


def check_reopens(db: sqlite3.Connection, run: sqlite3.Row) -> None:
    """Refused unless steps of the run may go back: it is the latest of its key, on its own, and nobody is cancelling it."""
    if run["stopping"] and run["state"] == RunState.RUNNING:
        raise Refused(f"{run['id']} is being cancelled; wait for its end: aglowctl explain {run['field']}")
    latest = db.execute(queries()["latest_run"], {"key": run["key"]}).fetchone()
    if latest["id"] != run["id"]:
        raise Refused(f"{latest['id']} was begun after {run['id']}: that one goes on, or is retried")
    owner = owner_of(db, run)
    if owner:
        raise Refused(
            f"{run['id']} is a part of {owner}, which begins it anew: aglowctl retry {owner.partition('/')[0]}"
        )


def owner_of(db: sqlite3.Connection, run: sqlite3.Row) -> str:
    """The step `run/name` to which the run alone belongs, or ''; each attempt of it begins one of its own."""
    row = db.execute(queries()["owner_of_run"], {"run": run["id"]}).fetchone()
    return "" if row is None else f"{row['run']}/{row['name']}"


def _check_known(run: sqlite3.Row, steps: Mapping[str, Any], name: str) -> None:
    if name not in steps:
        raise Refused(f"{run['id']} has no step {name[:80]!r}; it has {', '.join(sorted(steps))}")


def _behind(graph: Any, states: Mapping[str, StepState], names: Iterable[str]) -> set[str]:
    """These steps, all that hang on them, and those that kept something for one of them and have given it back."""
    found: set[str] = graph.behind(names)
    while back := {name for name in graph.keepers(found) if states[name].is_ended} - found:
        found |= graph.behind(back)
    return found


def _after(graph: Any, states: Mapping[str, StepState], names: Iterable[str]) -> dict[str, StepState]:
    """How all steps stand once these have gone back and the rules have moved what they move."""
    back = {**states, **dict.fromkeys(names, StepState.PENDING)}
    return {**back, **advance(graph.steps, back)}


def _touch(row: sqlite3.Row, becomes: StepState, note: str = "") -> Touch:
    again = row["started"] is not None and becomes in (StepState.PENDING, StepState.READY)
    return Touch(row["name"], row["attempt"] + again, row["state"], becomes, note)


# --- carrying it out


def retry(
    db: sqlite3.Connection,
    plans: Iterable[RunPlan],
    orders: Mapping[str, int],
    said: str,
    tools: Tools,
    now: float,
    changes: Changes,
) -> None:
    """Let the steps go back; first all of all runs, so that none joins another that is still to go back.

    `orders`: run → the event that tells the person's word.
    """
    listed = list(plans)
    for plan in listed:
        changes.cause = orders[plan.run]
        _go_back(db, plan, [touch.step for touch in plan.touches], said, tools, now, changes)
    for plan in listed:
        run = db.execute(queries()["get_run"], {"run": plan.run}).fetchone()
        changes.cause = orders[plan.run]
        steps = runs.Around.of(db, plan.run).steps
        runs.move_on(db, plan.run, plan.field, graph_of_run(db, run, tools.graph_of), steps, now, changes)


def end(
    db: sqlite3.Connection, plan: RunPlan, order: Order, said: str, tools: Tools, now: float, changes: Changes
) -> None:
    """Skip the step, or call it done; what failed with it goes on."""
    (name,) = plan.start
    at = {"run": plan.run, "step": name}
    run = db.execute(queries()["get_run"], {"run": plan.run}).fetchone()
    graph = graph_of_run(db, run, tools.graph_of)
    steps = steps_of(db, plan.run)
    row = steps[name]
    state = StepState(row["state"])
    if state in AGAIN:
        behind = _behind(graph, states_of(steps), (name,)) - {name}
        _go_back(db, plan, sorted(behind), said, tools, now, changes)
    elif order.verb == SKIP and state in AT_WORK:
        db.execute(queries()["stop_step"], {**at, "how": f"{SKIP}: {said}", "now": now, "cause": changes.cause})
        changes.dirty = True
        return
    children = runs.drop_waits(db, plan.run, name)
    becomes = StepState.SKIPPED if order.verb == SKIP else StepState.DONE
    outputs = dumps(order.outputs if becomes is StepState.DONE else {})
    values = {**at, "state": becomes, "reason": said, "outputs": outputs, "inherited": 0, "now": now}
    data = {"reason": said, "attempt": row["attempt"]}
    kind = f"Step{becomes.capitalize()}"
    changes.cause = journal.add_event(db, now, kind, field=plan.field, **at, data=data, cause=changes.cause)
    runs.end_step(db, values, now, changes)
    changes.left.extend(children)
    runs.free_slot(db, row["pool"], now, changes)
    runs.move_on(db, plan.run, plan.field, graph, runs.Around.of(db, plan.run).steps, now, changes)
    runs.close(db, plan.run, graph, tools.outputs_of, now, changes)


def _go_back(
    db: sqlite3.Connection,
    plan: RunPlan,
    names: list[str],
    said: str,
    tools: Tools,
    now: float,
    changes: Changes,
) -> None:
    run = db.execute(queries()["get_run"], {"run": plan.run}).fetchone()
    if run["state"] != RunState.RUNNING:
        db.execute(queries()["reopen_run"], {"run": plan.run})
        where = {"field": plan.field, "run": plan.run}
        journal.add_event(db, now, "RunReopened", **where, data={"reason": said}, cause=changes.cause)
        db.execute(queries()["forget_observation"], {"key": runs.run_subject(run["key"]).key, "at": now})
    _write_back(db, run, names, tools.rewrite, now, changes)
    attempts = {touch.step: touch.attempt for touch in plan.touches}
    for name in names:
        at = {"run": plan.run, "step": name}
        runs.drop_waits(db, plan.run, name)
        attempt = attempts[name]
        data = {"attempt": attempt, "reason": said}
        told = journal.add_event(db, now, "StepReset", field=plan.field, **at, data=data, cause=changes.cause)
        db.execute(queries()["reset_step"], {**at, "reason": said, "now": now, "said": told})
        db.execute(queries()["forget_observation"], {"key": f"{STEP}:{plan.run}/{name}", "at": now})


def _write_back(
    db: sqlite3.Connection, run: sqlite3.Row, names: Collection[str], rewrite: Rewrite, now: float, changes: Changes
) -> None:
    """Let the catalogue say again what it said before the steps that go back wrote to it; their successors expect that."""
    written = [(row, loads(row["inputs"])) for row in db.execute(queries()["statuses_of_run"], {"run": run["id"]})]
    if not written:
        return
    last, shown = written[-1]
    kept = [inputs["status"] for row, inputs in written if row["attempt"] and row["step"] not in names]
    wanted = kept[-1] if kept else written[0][1]["expect"]
    if wanted == shown["status"]:
        return
    ordinal = sum(row["attempt"] == journal.REMEDY_ATTEMPT for row, _ in written)
    effect = rewrite(shown["field"], shown["status"], wanted, ordinal)
    journal.plan_aside(db, run["id"], last["step"], run["field"], effect, now, changes.cause)
    changes.effects = True
