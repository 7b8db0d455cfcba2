"""The pure heart of the reactor: from what is known of a step to what shall be done. It knows no store and no clock.

What must stay true: the reactor, which decides, and the replay, which decides again, ask this and nothing else; deciding
twice from the same is deciding once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from aglowd import references, templates
from aglowd.durations import duration_text
from aglowd.model import Cancelled, Done, Failed, Handler, Json, Outcome, Skipped, StepState, StepView
from aglowd.pipeline import Pipeline, StepDef, context_of
from aglowd.store.lineage import ADOPTED
from aglowd.store.rows import Run, Work
from aglowd.store.runs import CANCEL, SKIP


class Fault:
    """In place of an outcome: the handler raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Means(Struct, frozen=True):
    """By what is decided beside the work itself. `digests`: of all pipelines that a step could run; `shown`: what templates
    see of the configuration."""

    handlers: Mapping[str, Handler]
    digests: Mapping[str, str]
    shown: Mapping[str, Json]


def decide(means: Means, pipeline: Pipeline, work: Work) -> tuple[Outcome | Fault, str]:
    """What the step's handler decides at `work.seen.now`, and in which pool the step is then."""
    step = pipeline.steps[work.step.name]
    pool = work.step.pool
    try:
        context = _context(means, pipeline, step, work)
        outcome = _outcome(means, step, context, work)
        if work.step.state is StepState.READY:
            pool = str(templates.render(step.pool, context)) if step.pool else ""
    except templates.TemplateProblem as error:
        outcome = Failed(
            f"a template of step {step.name} ({step.file}:{step.line}) cannot be filled in: {error}", final=True
        )
    except Exception as error:  # A defect of a handler becomes a fault of its step.
        return Fault(error), pool
    return outcome, pool


def _context(means: Means, pipeline: Pipeline, step: StepDef, work: Work) -> dict[str, Any]:
    run = {"id": work.run.id, "key": work.run.key, "field": work.run.field, "failed": list(work.failures)}
    base = {
        **means.shown,
        "field": work.run.context,
        "run": run,
        "params": work.run.params,
        "last": last_of(work.run),
    }
    return context_of(pipeline, step, base, work.outputs)


def _outcome(means: Means, step: StepDef, context: Mapping[str, Any], work: Work) -> Outcome:
    first = work.step.state is StepState.READY and not work.seen.effects
    adopted = work.run.context.get(ADOPTED, {})
    if first and step.name in adopted:
        return Done(adopted[step.name])
    if first and not templates.condition(step.when, context):
        return Skipped(f"its condition does not hold: {step.when}")
    handler = means.handlers[step.kind]
    try:
        rendered = templates.render(step.params, context)
        params = msgspec.convert(rendered, handler.Params)
    except msgspec.ValidationError as error:
        return Failed(f"step {step.name} ({step.file}:{step.line}): {error}", final=True)
    wrong = references.misplaced(rendered, getattr(handler.Params, "takes_secrets", ()))
    if wrong:
        return Failed(f"step {step.name} ({step.file}:{step.line}): {wrong}", final=True)
    view = StepView(
        work.run.id,
        step.name,
        work.run.field,
        work.step.attempt,
        means.digests,
        work.step.priority,
        0.0 if first else work.step.started or 0.0,
    )
    if work.step.stopping:
        left = handler.stop(view, params, work.seen)
        return left if left is not None else _stopped(step, work)
    return handler.start(view, params) if first else handler.react(view, params, work.seen)


def _stopped(step: StepDef, work: Work) -> Outcome:
    """How an attempt ends of which nothing is left to be undone."""
    how, _, why = work.step.stopping.partition(": ")
    if how == CANCEL:
        return Cancelled(work.run.stopping)
    if how == SKIP:
        return Skipped(why)
    return Failed(f"not done within {duration_text(step.timeout_s)}; last: {work.step.reason}")


def last_of(run: Run) -> Json:
    """What the last run of the same schedule that was done left to this one; without one, empty outputs."""
    return run.context.get("last") or {"run": "", "ended": None, "outputs": {}}
