"""How runs begin, advance and end: transactions over runs, steps and waits. Each function runs inside one.

What must stay true: a step that ends, the steps that become ready behind it, the run that ends with it and the
steps that wait for that run all change in one commit.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from aglowd.errors import AglowError, StaleVersion
from aglowd.model import (
    Cancelled,
    Do,
    Done,
    Effect,
    Failed,
    Json,
    Outcome,
    RunState,
    Skipped,
    Spawn,
    StepState,
    Subject,
    Wait,
)
from aglowd.rules import advance, run_state
from aglowd.store import facts, identity, journal, lineage
from aglowd.store.db import queries
from aglowd.store.rows import (
    STEP_STATES,
    Changes,
    PlannedStep,
    Run,
    Standing,
    Step,
    Work,
    dumps,
    loads,
    run_of,
    step_of,
)

MAX_FAULTS = 3
"""A handler that raises is asked this often before its attempt fails: a defect stops one run, not the daemon."""


class Graph(Protocol):
    """What the store must know of a pipeline."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def steps(self) -> Mapping[str, PlannedStep]: ...


class Around(NamedTuple):
    """The steps of a run, as far as a decision on one of them depends on them."""

    steps: dict[str, Standing]
    outputs: dict[str, dict[str, Json]]
    """Of those that are done."""
    failures: tuple[dict[str, str], ...]
    """Which failed by themselves, and why, in the order in which they did."""
    moment: int
    """As long as it is the same, no step of the run has moved."""

    @classmethod
    def of(cls, db: sqlite3.Connection, run: str) -> Around:
        """As they stand now."""
        steps: dict[str, Standing] = {}
        found: dict[str, dict[str, Json]] = {}
        failed: list[tuple[float, str, str]] = []
        moment = 0
        for name, state, attempt, version, ended, failure, outputs in db.execute(queries()["around"], {"run": run}):
            steps[name] = STEP_STATES[state], attempt
            moment += version
            if failure is not None:
                failed.append((ended, name, failure))
            if outputs is not None:
                found[name] = loads(outputs)
        return cls(steps, found, tuple({"step": name, "reason": why} for _, name, why in sorted(failed)), moment)


class Decision(Struct, frozen=True):
    """A handler's outcome with what the store needs to carry it through."""

    work: Work
    outcome: Outcome
    graph: Any  # Graph: msgspec cannot hold a protocol.
    pool: str = ""
    pool_limit: int = 0
    child: Any = None  # Graph of the run to spawn.


CANCEL, SKIP = "cancel", "skip"
"""Ways in which an attempt is stopped; that of a step that is skipped goes on with ": " and the reason."""
READY = "ready to begin"
CHILD_STOPS = ", which is being cancelled"
"""So ends the reason of a step that waits for such a run; no handler was asked."""
ABANDONED = "nobody waits for it any more"
CHILD_DUE_S = 3600.0
"""World seconds after which a cancelled step looks anew whether the run that it had begun is over."""
RUN = "run:"
"""So begin the keys of the subjects `run:<key>`, the end of a run."""
STEP = "step"
"""The kind of the subjects `step:<run>/<name>`, the end of a step: → state, `absent` if the run has no such step."""

OutputsOf = Callable[[Run, Any, Mapping[str, Mapping[str, Json]]], dict[str, Json]]
"""(run, graph, outputs of its done steps) → the run's own outputs."""


def start(
    db: sqlite3.Connection,
    graph: Graph,
    *,
    key: str,
    field: str,
    params: Json,
    context: Json,
    now: float,
    changes: Changes,
    parent: str | None = None,
    because: tuple[str, Json] | None = None,
) -> str:
    """Begin a run of the pipeline; returns its id. The steps without needs are ready in the same commit.

    `parent`: the run whose step begins it; it continues that run's line (lineage.py). `because`: kind and data of the
    event from which it follows.
    """
    definition = dumps(graph)
    db.execute(queries()["save_pipeline"], {"digest": graph.digest, "name": graph.name, "definition": definition})
    run = next_id(db, key, parent)
    values = {"id": run, "field": field, "pipeline": graph.digest, "key": key, "now": now}
    db.execute(queries()["add_run"], {**values, "params": dumps(params), "context": dumps(context)})
    before = changes.cause
    if because is not None:
        changes.cause = journal.add_event(db, now, because[0], field=field, run=run, data=because[1], cause=before)
    data = {"pipeline": graph.name, "digest": graph.digest}
    changes.cause = journal.add_event(db, now, "RunStarted", field=field, run=run, data=data, cause=changes.cause)
    for name, step in graph.steps.items():
        needs = ", ".join(step.needs)
        reason = f"needs {needs}" if needs else "just begun"
        row = {"run": run, "name": name, "kind": step.kind, "priority": step.priority, "reason": reason, "now": now}
        db.execute(queries()["add_step"], row)
    move_on(db, run, field, graph, dict.fromkeys(graph.steps, (StepState.PENDING, 1)), now, changes)
    changes.cause = before
    return run


def next_id(db: sqlite3.Connection, key: str, parent: str | None = None) -> str:
    """What a run of that key would be called if it began now."""
    (count,) = db.execute(queries()["count_runs"], {"key": key}).fetchone()
    number = count + 1
    line = lineage.current_line(db) if parent is None else lineage.line_of(parent)
    stem = f"{re.sub(r'[^A-Za-z0-9.-]', '_', key)}-{identity.tag_of(db)}"
    while db.execute(queries()["get_run"], {"run": f"{stem}{number}{line}"}).fetchone() is not None:
        number += 1
    return f"{stem}{number}{line}"


def order(
    db: sqlite3.Connection, graph: Graph, field: str, params: Json, data: dict[str, Json], now: float, changes: Changes
) -> str:
    """Begin a run that somebody ordered; AglowError if one of that name is at work. Who and why is an event (G9)."""
    if db.execute(queries()["field_runs"], {"field": field}).fetchone() is not None:
        raise AglowError(f"{field} is at work already; wait for its end: aglowctl explain {field}")
    return start(
        db,
        graph,
        key=field,
        field=field,
        params=params,
        context={"name": field},
        now=now,
        changes=changes,
        because=("Ordered", {**data, "params": params}),
    )


def finish(db: sqlite3.Connection, decision: Decision, outputs_of: OutputsOf, now: float, changes: Changes) -> None:
    """Commit a decision; StaleVersion if the step, or another one of its run, has changed since it was looked at.

    AglowError if the decision ends an attempt whose effects have not ended. In both cases nothing is written.
    """
    run, step = decision.work.run, decision.work.step
    at = {"run": run.id, "step": step.name}
    row = db.execute(queries()["step_version"], at).fetchone()
    if row is None or any(row[name] != getattr(step, name) for name in ("version", "stopping", "deadline")):
        raise StaleVersion(f"{run.id}/{step.name} changed since it was looked at")
    (moment,) = db.execute(queries()["moment_of_run"], at).fetchone()
    if moment != decision.work.moment:
        raise StaleVersion(f"another step of {run.id} has moved since {step.name} was looked at")
    if db.execute(queries()["is_held"], at).fetchone() is not None:
        raise StaleVersion(f"{run.id}/{step.name} is held since it was looked at")
    if not isinstance(decision.outcome, Do | Wait | Spawn):
        _check_over(db, step)
    carry_through(db, decision, outputs_of, now, changes)


def _check_over(db: sqlite3.Connection, step: Step) -> None:
    """AglowError if an effect of the attempt has not ended: then the attempt cannot end either."""
    values = {"run": step.run, "step": step.name, "attempt": step.attempt}
    (live,) = db.execute(queries()["live_effects_of_step"], values).fetchone()
    if live:
        raise AglowError(f"{step.run}/{step.name}: the attempt cannot end while {live} of its effects have not")


def carry_through(
    db: sqlite3.Connection, decision: Decision, outputs_of: OutputsOf, now: float, changes: Changes
) -> None:
    """Commit a decision on what stands in the database now, all effects of the attempt having ended."""
    work = decision.work
    run, step = work.run, work.step
    at = {"run": run.id, "step": step.name}
    changes.cause = step.cause
    outcome = decision.outcome
    if step.stopping and (child := _stopping_child(db, at)):
        reason = f"waiting for the end of the run {child}{CHILD_STOPS}"
        _set(db, work, StepState.WAITING, reason, now + CHILD_DUE_S, now, changes)
        return
    begins = step.state is StepState.READY and not isinstance(outcome, Skipped)
    if begins and not _take_slot(db, decision, now, changes):
        _hand_on(db, decision, now, changes)
        return
    plan: PlannedStep = decision.graph.steps[step.name]
    if begins:
        deadline = now + plan.timeout_s if plan.timeout_s else None
        changes.wake(deadline)
        step = msgspec.structs.replace(step, started=now, deadline=deadline, pool=decision.pool)
        work = msgspec.structs.replace(work, step=step)
    if isinstance(outcome, Do):
        _work(db, work, outcome.effects, now, changes)
    elif isinstance(outcome, Wait):
        _wait(db, work, outcome, now, changes)
    elif isinstance(outcome, Spawn):
        subject = _join_run(db, work, outcome, decision.child, now, changes)
        seen = facts.seen_by(db, step)
        if seen.of(subject) is None:
            # It has not ended, or its end was forgotten because it runs again: there is nothing that was not seen.
            work = msgspec.structs.replace(work, seen=seen)
        _wait(db, work, Wait((subject,), outcome.reason, outcome.due_s), now, changes)
    else:
        _end_attempt(db, work, decision, plan, outputs_of, now, changes)
    if begins:
        _hand_on(db, decision, now, changes)


def _hand_on(db: sqlite3.Connection, decision: Decision, now: float, changes: Changes) -> None:
    """Call the next one to the pool for which the step stood in the queue: it may ask for a place in another one by now."""
    stood = decision.work.step
    if stood.pool != decision.pool:
        free_slot(db, stood.pool, now, changes)


def _stopping_child(db: sqlite3.Connection, at: Mapping[str, Json]) -> str:
    """The run that the step waits for, if that is being cancelled for want of anybody else who does."""
    for row in db.execute(queries()["runs_waited_for"], at):
        latest = db.execute(queries()["latest_run"], {"key": row["id"]}).fetchone()
        if latest is not None and latest["state"] == RunState.RUNNING and latest["stopping"]:
            return str(latest["id"])
    return ""


def _take_slot(db: sqlite3.Connection, decision: Decision, now: float, changes: Changes) -> bool:
    """Whether the step has a place in its pool; if not it stays ready and is asked when a place is free."""
    if not decision.pool or not decision.pool_limit:
        return True
    (used,) = db.execute(queries()["pool_used"], {"pool": decision.pool}).fetchone()
    if used < decision.pool_limit:
        return True
    reason = f"pool {decision.pool} is full ({used} of {decision.pool_limit})"
    step = msgspec.structs.replace(decision.work.step, pool=decision.pool)
    _set(db, msgspec.structs.replace(decision.work, step=step), StepState.READY, reason, None, now, changes)
    return False


def _set(
    db: sqlite3.Connection,
    work: Work,
    state: StepState,
    reason: str,
    due: float | None,
    now: float,
    changes: Changes,
) -> None:
    """Let the step stand like that. What is told of it is what the transaction's other deeds on it follow from."""
    step, since, said = work.step, work.step.since, work.step.said
    if (step.state, step.reason) != (state, reason):
        since = now
        kind = {StepState.WORKING: "StepWorks", StepState.WAITING: "StepWaits"}.get(state, "StepReady")
        changes.cause = said = _step_event(db, now, kind, work, {"reason": reason, "due": due}, changes.cause)
    values = {
        "run": step.run,
        "step": step.name,
        "state": state,
        "reason": reason,
        "since": since,
        "due": due,
        "said": said,
    }
    kept = {"started": step.started, "deadline": step.deadline, "pool": step.pool, "wanted": step.wanted}
    db.execute(queries()["set_step"], values | kept)
    changes.wake(due)


def _step_event(db: sqlite3.Connection, now: float, kind: str, work: Work, data: Json, cause: int) -> int:
    values = {"attempt": work.step.attempt, **data}
    where = {"field": work.run.field, "run": work.run.id, "step": work.step.name}
    return journal.add_event(db, now, kind, **where, data=values, cause=cause)


def _work(db: sqlite3.Connection, work: Work, effects: tuple[Effect, ...], now: float, changes: Changes) -> None:
    asked = {journal.effect_key(work, effect): effect for effect in effects}
    if len(asked) < len(effects):
        raise AglowError(
            f"{work.run.id}/{work.step.name} asks for two effects of one key: this is a defect of its handler"
        )
    recorded = {key: journal.recorded(work, key, effect) for key, effect in asked.items()}
    fresh = [asked[key] for key, known in recorded.items() if known is None or not known.state.is_ended]
    if not fresh:
        raise AglowError(
            f"{work.run.id}/{work.step.name} asks only for effects that have ended: this is a defect of its handler"
        )
    kinds = ", ".join(sorted({effect.kind.replace("_", " ") for effect in fresh}))
    count = f" ({len(fresh)})" if len(fresh) > 1 else ""
    _set(db, work, StepState.WORKING, f"under way: {kinds}{count}", None, now, changes)
    for key, known in recorded.items():
        if known is None:
            journal.plan(db, work, key, asked[key], now, changes.cause)
    changes.effects = True


def _wait(db: sqlite3.Connection, work: Work, wait: Wait, now: float, changes: Changes) -> None:
    """The wake-up rule: docs/design.md (b)."""
    at = {"run": work.run.id, "step": work.step.name}
    db.execute(queries()["rest_waits"], at)
    has_news = False
    for subject in wait.subjects:
        values = {"key": subject.key, "kind": subject.kind, "id": subject.id, "args": dumps(subject.args)}
        is_new = db.execute(queries()["add_subject"], values).rowcount > 0
        found = work.seen.observations.get(subject.key)
        seen = 0 if found is None else found.version
        db.execute(queries()["add_wait"], {**at, "key": subject.key})
        if subject.kind == STEP and _tell_if_ended(db, subject.id, now, changes):
            is_new = False
        version = 0 if is_new else db.execute(queries()["subject_version"], {"key": subject.key}).fetchone()[0]
        has_news |= version > seen
        if version == 0:
            changes.subjects.add(subject.kind)
    _set(db, work, StepState.WAITING, wait.reason, now + wait.due_s, now, changes)
    if has_news:
        # What came during the decision has left its event; of what was there before, this wait is the cause.
        db.execute(queries()["mark_step"], {**at, "now": now, "cause": 0})
        changes.dirty = True


def run_subject(key: str) -> Subject:
    """What a step waits for that waits for another run."""
    return Subject("run", key)


def end_step(db: sqlite3.Connection, values: Mapping[str, Json], now: float, changes: Changes) -> None:
    """Record the step's end, which the event `changes.cause` tells, and show it to those who wait for it."""
    db.execute(queries()["end_step"], {**values, "said": changes.cause})
    facts.observe(db, f"{STEP}:{values['run']}/{values['step']}", {"state": values["state"]}, now, changes)


def _tell_if_ended(db: sqlite3.Connection, id_: str, now: float, changes: Changes) -> bool:
    """Whether the step `<run>/<name>` has ended; who waits for that sees it then, for nobody else would tell who asks late."""
    run, _, name = id_.rpartition("/")
    row = db.execute(queries()["step_version"], {"run": run, "step": name}).fetchone()
    if row is not None and not StepState(row["state"]).is_ended:
        return False
    before = changes.cause
    changes.cause = before if row is None else row["said"]
    facts.observe(db, f"{STEP}:{id_}", {"state": "absent" if row is None else row["state"]}, now, changes)
    changes.cause = before
    return True


def _join_run(db: sqlite3.Connection, work: Work, spawn: Spawn, child: Graph, now: float, changes: Changes) -> Subject:
    """Start the run, or join the one that is under way or done: shared work is done once.

    The done one that `spawn` does not want is not joined; the first who says so begins the next, which all others join.
    """
    subject = run_subject(spawn.key)
    db.execute(queries()["set_child"], {"run": work.run.id, "step": work.step.name, "child": spawn.key})
    values = {"key": subject.key, "kind": subject.kind, "id": subject.id, "args": "{}"}
    db.execute(queries()["add_subject"], values)
    latest = db.execute(queries()["latest_run"], {"key": spawn.key}).fetchone()
    is_anew = latest is not None and latest["state"] == RunState.DONE and latest["id"] == spawn.instead_of
    if latest is None or is_anew or latest["state"] in (RunState.FAILED, RunState.CANCELLED):
        db.execute(queries()["forget_observation"], {"key": subject.key, "at": now})
        field = spawn.key if spawn.shared else work.run.field
        run = start(
            db,
            child,
            key=spawn.key,
            field=field,
            params=spawn.params,
            # What is done of a field that was taken over is done of its own run; a part of it may have been begun.
            context=work.run.context | ({lineage.ADOPTED: {}} if lineage.ADOPTED in work.run.context else {}),
            now=now,
            changes=changes,
            parent=work.run.id,
        )
        if is_anew:
            said = {"reason": spawn.reason, "instead_of": spawn.instead_of}
            journal.add_event(db, now, "RunBegunAnew", field=field, run=run, data=said, cause=changes.cause)
    return subject


def ending_of(outcome: Outcome, run: Run, step: Step) -> Outcome:
    """How the attempt ends with that outcome: what could not be undone does not change what a person said."""
    how, _, why = step.stopping.partition(": ")
    if isinstance(outcome, Failed) and how in (CANCEL, SKIP):
        return Cancelled(run.stopping) if how == CANCEL else Skipped(f"{why}; {outcome.reason}")
    return outcome


def is_tried_again(failed: Failed, step: Step, plan: PlannedStep) -> bool:
    """Whether another attempt follows the one that failed so."""
    return not failed.final and step.attempt - step.base <= plan.retries


def _end_attempt(
    db: sqlite3.Connection,
    work: Work,
    decision: Decision,
    plan: PlannedStep,
    outputs_of: OutputsOf,
    now: float,
    changes: Changes,
) -> None:
    run, step = work.run, work.step
    at = {"run": run.id, "step": step.name}
    children = drop_waits(db, run.id, step.name)
    outcome = ending_of(decision.outcome, run, step)
    if step is not decision.work.step:
        db.execute(queries()["begin_step"], {**at, "started": step.started, "pool": step.pool})
    if isinstance(outcome, Failed) and is_tried_again(outcome, step, plan):
        due = now + plan.retry_delay_s
        reason = f"attempt {step.attempt} of {plan.retries + 1 + step.base} failed: {outcome.reason}"
        # The next attempt starts a run of its own anew; one that is shared it joins again.
        children = [key for key in children if key.startswith(f"{run.id}.{step.name}.")]
        data = {"reason": outcome.reason, "due": due, "said": reason}
        changes.cause = _step_event(db, now, "AttemptFailed", work, data, changes.cause)
        db.execute(queries()["retry_step"], {**at, "reason": reason, "now": now, "due": due, "said": changes.cause})
        standing = StepState.READY, step.attempt + 1
        changes.wake(due)
    else:
        if isinstance(outcome, Done):
            state, reason, outputs = StepState.DONE, "done", dumps(outcome.outputs)
        elif isinstance(outcome, Skipped):
            state, reason, outputs = StepState.SKIPPED, outcome.reason, "{}"
        elif isinstance(outcome, Failed):
            state, reason, outputs = StepState.FAILED, outcome.reason, "{}"
        elif isinstance(outcome, Cancelled):
            state, reason, outputs = StepState.CANCELLED, outcome.reason, "{}"
        else:
            raise AssertionError(outcome)
        values = {**at, "state": state, "reason": reason, "outputs": outputs, "inherited": 0, "now": now}
        changes.cause = _step_event(db, now, f"Step{state.capitalize()}", work, {"reason": reason}, changes.cause)
        end_step(db, values, now, changes)
        standing = state, step.attempt
    changes.left.extend(children)
    free_slot(db, step.pool or decision.pool, now, changes)
    if move_on(db, run.id, run.field, decision.graph, {**work.steps, step.name: standing}, now, changes):
        close(db, run.id, decision.graph, outputs_of, now, changes)


def drop_waits(db: sqlite3.Connection, run: str, step: str) -> list[str]:
    """Let the step wait for nothing any more; returns the keys of the runs for which it did."""
    rows = db.execute(queries()["drop_waits"], {"run": run, "step": step}).fetchall()
    return sorted(row["subject"].removeprefix(RUN) for row in rows if row["active"] and row["subject"].startswith(RUN))


def free_slot(db: sqlite3.Connection, pool: str, now: float, changes: Changes) -> None:
    """Let the next step ask for the place that has become free in that pool."""
    if not pool:
        return
    waiting = db.execute(queries()["pool_next"], {"pool": pool}).fetchone()
    if waiting is not None:
        values = {"run": waiting["run"], "step": waiting["name"], "now": now, "cause": changes.cause}
        db.execute(queries()["mark_step"], values)
        changes.dirty = True


def move_on(
    db: sqlite3.Connection,
    run: str,
    field: str,
    graph: Graph,
    steps: Mapping[str, Standing],
    now: float,
    changes: Changes,
) -> bool:
    """Let the rules move the pending steps of a run whose steps stand so; returns whether all have ended then.

    A step that becomes ready is marked in the same commit.
    """
    states = {name: state for name, (state, _) in steps.items()}
    before, moved = changes.cause, advance(graph.steps, states)
    for name, state in moved.items():
        at = {"run": run, "step": name}
        _, attempt = steps[name]
        if state is StepState.READY:
            data = {"attempt": attempt, "reason": READY, "due": None}
            said = journal.add_event(db, now, "StepReady", field=field, **at, data=data, cause=before)
            db.execute(queries()["ready_step"], {**at, "reason": READY, "now": now, "said": said})
            changes.marked.append((run, name))
            continue
        needs = [need for need in graph.steps[name].needs if states.get(need) is not StepState.DONE]
        verb = "was skipped" if state is StepState.SKIPPED else "failed"
        reason = f"its need {', '.join(needs)} {verb}"
        values = {"state": state, "reason": reason, "outputs": "{}", "inherited": 1, "now": now}
        data = {"attempt": attempt, "reason": reason, "inherited": True}
        kind = f"Step{state.capitalize()}"
        changes.cause = journal.add_event(db, now, kind, field=field, **at, data=data, cause=before)
        end_step(db, {**at, **values}, now, changes)
    changes.cause = before
    return all(state.is_ended for state in (states | moved).values())


def close(
    db: sqlite3.Connection, run_id: str, graph: Graph | None, outputs_of: OutputsOf, now: float, changes: Changes
) -> None:
    """End the run if all its steps have ended, and tell those who wait for it."""
    around = Around.of(db, run_id)
    run = run_of(db.execute(queries()["get_run"], {"run": run_id}).fetchone())
    state = run_state((state for state, _ in around.steps.values()), is_cancelled=bool(run.stopping))
    if state is RunState.RUNNING:
        return
    failures = [f"{one['step']}: {one['reason']}" for one in around.failures]
    reason = "; ".join([run.stopping, *failures] if run.stopping else failures)
    outputs: dict[str, Json] = {}
    if state is RunState.DONE:
        try:
            outputs = outputs_of(run, graph, around.outputs)
        except AglowError as error:
            state, reason = RunState.FAILED, f"its outputs cannot be made: {error}"
    values = {"run": run_id, "state": state, "reason": reason, "outputs": dumps(outputs), "now": now}
    db.execute(queries()["end_run"], values)
    data = {"state": state, "reason": reason}
    before = changes.cause
    changes.cause = journal.add_event(db, now, "RunEnded", field=run.field, run=run_id, data=data, cause=before)
    observed: dict[str, Json] = {"state": state, "reason": reason, "run": run_id, "outputs": outputs}
    if run.stopping.startswith(ABANDONED):
        observed["abandoned"] = True
    facts.observe(db, run_subject(run.key).key, observed, now, changes)
    changes.cause = before
    changes.ended_runs.append(run_id)
    changes.fields = True


def add_fault(
    db: sqlite3.Connection,
    decision: Decision,
    error: str,
    retry_s: float,
    outputs_of: OutputsOf,
    now: float,
    changes: Changes,
) -> None:
    """A handler raised: ask it again later, and fail the attempt for good when it keeps raising."""
    work = decision.work
    at = {"run": work.run.id, "step": work.step.name}
    reason = f"its handler raised: {error}"
    row = db.execute(queries()["step_version"], at).fetchone()
    if row is None or row["version"] != work.step.version:
        raise StaleVersion(f"{work.run.id}/{work.step.name} changed since it was looked at")
    faults, due = row["faults"] + 1, now + retry_s
    data = {"reason": reason, "faults": faults, "due": due, "state": work.step.state}
    changes.cause = _step_event(db, now, "HandlerRaised", work, data, work.step.cause)
    values = {"wanted": work.step.wanted, "due": due, "reason": reason, "now": now, "said": changes.cause}
    db.execute(queries()["add_fault"], {**at, **values})
    changes.wake(due)
    if faults >= MAX_FAULTS and decision.graph is not None:
        _check_over(db, work.step)
        outcome = Failed(f"quarantined: {reason}", final=True)
        plan: PlannedStep = decision.graph.steps[work.step.name]
        work = msgspec.structs.replace(work, steps=Around.of(db, work.run.id).steps)
        decision = msgspec.structs.replace(decision, work=work, outcome=outcome)
        _end_attempt(db, work, decision, plan, outputs_of, now, changes)


def list_dirty(db: sqlite3.Connection, most: int) -> list[Work]:
    """The steps to decide next, at most one a run, with all that their decisions are made from."""
    chosen: dict[str, sqlite3.Row] = {}
    for row in db.execute(queries()["dirty_steps"], {"most": most}):
        chosen.setdefault(row["run"], row)
    return [work_of(db, row) for row in chosen.values()]


def find_work(db: sqlite3.Connection, run: str, step: str) -> Work | None:
    """All that a decision on the step would be made from, or None if there is no such step."""
    row = db.execute(queries()["step_version"], {"run": run, "step": step}).fetchone()
    return None if row is None else work_of(db, row)


def work_of(db: sqlite3.Connection, row: sqlite3.Row) -> Work:
    """All that a decision on the step in that row is made from."""
    step = step_of(row)
    run = run_of(db.execute(queries()["get_run"], {"run": step.run}).fetchone())
    around = Around.of(db, step.run)
    return Work(
        run=run,
        step=step,
        seen=facts.seen_by(db, step),
        outputs=around.outputs,
        failures=around.failures,
        moment=around.moment,
        steps=around.steps,
    )
