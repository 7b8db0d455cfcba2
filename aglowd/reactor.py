"""Decides: the next dirty step → its handler → the store. Nothing else in aglowd makes a decision.

What must stay true: decisions are serial within a run and pure, so that deciding twice is deciding once; a handler that
raises stops its own run and no other; between two commits nothing has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NotRequired, TypedDict, Unpack

import msgspec
import structlog

from aglowd import templates
from aglowd.clock import Clock, restart_after_s
from aglowd.deciding import Fault, Means, decide, last_of
from aglowd.errors import AglowError, StaleVersion
from aglowd.model import Cancelled, Do, Done, Handler, Json, Outcome, Skipped, Spawn, StepState, Wait
from aglowd.pipeline import Pipeline, context_of
from aglowd.store.rows import Run, Step, Work
from aglowd.store.runs import Decision
from aglowd.store.schedules import Planned
from aglowd.store.store import Store

FAULT_RETRY_S = 60.0
"""World seconds until a handler that raised is asked again."""
TIMER_REAL_S = 60.0
"""Real seconds after which the timers are looked at in any case."""
KEPT_VIEWS = 16
"""Of the configuration, as steps were shown it when they began; a step that is older than all of them sees the oldest."""
MAX_FAULT_CHARS = 500
"""So much of what a handler raised stands in its step's reason."""


class Pipelines:
    """The pipelines that new runs start with, and every definition that a living run keeps."""

    def __init__(self, current: Mapping[str, Pipeline]) -> None:
        self._known: dict[str, Pipeline] = {}
        self.replace(current)

    def replace(self, current: Mapping[str, Pipeline]) -> None:
        """New runs start with these; those that live keep the definition that they began with."""
        self.current = dict(current)
        self.digests = {name: pipeline.digest for name, pipeline in self.current.items()}
        self._known |= {pipeline.digest: pipeline for pipeline in self.current.values()}

    def known(self, digest: str) -> Pipeline | None:
        """The definition of that digest, if it was met before."""
        return self._known.get(digest)

    def of(self, digest: str, definition: bytes) -> Pipeline:
        """The pipeline of a run that keeps this definition; DecodeError if nobody can read it any more."""
        return self.known(digest) or self.learn(digest, definition)

    def learn(self, digest: str, definition: bytes) -> Pipeline:
        """Take in a definition that a run has kept from an earlier time."""
        pipeline = msgspec.json.decode(definition, type=Pipeline)
        return self._known.setdefault(digest, pipeline)


class Terms(TypedDict):
    """By what the reactor decides. `shown` is what templates see of the configuration; `fields_at_once`: site → fields under
    way there, None = any site is fine."""

    pools: Mapping[str, int]
    shown: Mapping[str, Json]
    select: tuple[str, ...]
    field_pipeline: str
    max_fields: int
    schedules: NotRequired[tuple[Planned, ...]]
    fields_at_once: NotRequired[Mapping[str, int] | None]


class Reactor:
    """The decisions of all runs."""

    def __init__(
        self,
        store: Store,
        handlers: Mapping[str, Handler],
        pipelines: Pipelines,
        clock: Clock,
        **terms: Unpack[Terms],
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._pipelines = pipelines
        self._clock = clock
        self._views: list[tuple[float, Mapping[str, Json]]] = []
        """What templates see of the configuration, and since when; changed between two transactions only."""
        self.heed(**terms)
        self._log = structlog.get_logger("reactor")
        self.progress_at = clock.now()
        self.decisions = 0
        self.defects: dict[str, str] = {}
        """Loop → what it stumbled over last; gone when the loop does well again."""

    def heed(self, **terms: Unpack[Terms]) -> None:
        """Decide by these from the next turn on. Steps that have begun go on with what they were shown."""
        self._pools = terms["pools"]
        self._shown = terms["shown"]
        self._select = terms["select"]
        self._field_pipeline = terms["field_pipeline"]
        self._max_fields = terms["max_fields"]
        self._schedules = terms.get("schedules", ())
        self._fields_at_once = terms.get("fields_at_once")
        for bell in (self._store.bells.dirty, self._store.bells.fields, self._store.bells.ends):
            bell.set()

    async def run(self) -> None:
        """Decide, keep time, admit fields and begin what is scheduled, for ever."""
        await self.decide_at_once()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._for_ever("decisions", self._decide_all), name="reactor: decisions")
            group.create_task(self._for_ever("timers", self._keep_time), name="reactor: timers")
            group.create_task(self._for_ever("intake", self._admit), name="reactor: intake")
            group.create_task(self._for_ever("schedules", self._keep_schedules), name="reactor: schedules")

    async def decide_at_once(self) -> None:
        """From now on also decide in the transactions of others what follows from them."""
        await self._show()
        self._store.decide_at_once(self)

    async def _for_ever(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        """Turn after turn. One that raises says so in `defects` and is begun anew after a rest: it stops no other loop."""
        failures = 0
        while True:
            try:
                await turn()
            except Exception as error:
                self.defects[name] = f"{name}: {type(error).__name__}: {error}"
                failures += 1
                self._log.exception("loop_raised", loop=name, failures=failures)
                self.progress_at = self._clock.now()
                await asyncio.sleep(restart_after_s(failures))
                # What rang for the turn that failed is not done: the next one begins at once.
                bells = self._store.bells
                for bell in (bells.dirty, bells.timers, bells.fields, bells.ends):
                    bell.set()
            else:
                failures = 0
                self.defects.pop(name, None)

    async def _decide_all(self) -> None:
        bell = self._store.bells.dirty
        self.progress_at = self._clock.now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMER_REAL_S):
                await bell.wait()
        bell.clear()
        while await self.decide_once():
            self.progress_at = self._clock.now()

    async def decide_once(self) -> int:
        """Decide the next dirty steps, at most one a run, side by side; returns how many there were."""
        dirty = await self._store.next_dirty()
        await self._show()
        decisions = [await self._decision(work) for work in dirty]
        await asyncio.gather(*map(self._finish, decisions))
        return len(decisions)

    async def _show(self) -> None:
        """Let templates see the configuration as it is now. Whatever began under the old view was committed before that."""
        if self._views and self._views[-1][1] == self._shown:
            return
        shown, before = self._shown, self._views

        def change(_: sqlite3.Connection) -> None:
            self._views = [*before, (self._clock.now(), shown)][-KEPT_VIEWS:]

        await self._store.db.write(change)

    async def _keep_time(self) -> None:
        bell = self._store.bells.timers
        bell.clear()
        due = await self._store.due()
        seconds = TIMER_REAL_S if due is None else self._clock.real_s(due - self._clock.now())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(seconds, 0.001), TIMER_REAL_S)):
                await bell.wait()

    async def _admit(self) -> None:
        bell = self._store.bells.fields
        await bell.wait()
        bell.clear()
        pipeline = self._pipelines.current[self._field_pipeline]
        started = await self._store.admit(pipeline, self._select, self._max_fields, self._fields_at_once)
        if started:
            self._log.info("fields_admitted", count=started)

    async def _keep_schedules(self) -> None:
        bell = self._store.bells.ends
        bell.clear()
        at = await self._store.begin_due(self._schedules)
        seconds = TIMER_REAL_S if at is None else self._clock.real_s(at - self._clock.now())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(seconds, 0.001), TIMER_REAL_S)):
                await bell.wait()

    async def candidates(self) -> dict[str, Json]:
        """In which order fields would be admitted now, which would start, and why each other one would not."""
        return await self._store.candidates(self._select, self._max_fields, self._fields_at_once)

    async def _finish(self, decision: Decision) -> None:
        self.decisions += 1
        log = self._log_of(decision)
        try:
            if isinstance(decision.outcome, Fault):
                raise decision.outcome.error
            await self._store.finish(decision)
        except StaleVersion:
            log.debug("decision_stale")  # The step is dirty still: it is decided again from what is true now.
        except Exception as error:  # Whatever a handler did wrong stays with its own run.
            log.exception("decision_failed")
            text = f"{type(error).__name__}: {error}"[:MAX_FAULT_CHARS]
            with contextlib.suppress(StaleVersion):
                await self._store.add_fault(decision, text, FAULT_RETRY_S)
        else:
            _log_outcome(log, decision.outcome)

    def decide(self, work: Work, now: float) -> Decision | None:
        """What the step's handler decides, in the thread that writes; None if that is left to a turn.

        Whoever asks for a place in a pool waits for its turn, in which those of a higher priority are asked before. After a
        reload all wait for the turn from which on the new configuration is shown.
        """
        pipeline = self._pipelines.known(work.run.pipeline)
        step = None if pipeline is None else pipeline.steps.get(work.step.name)
        if pipeline is None or step is None or self._views[-1][1] != self._shown:
            return None
        if step.pool and work.step.state is StepState.READY:
            return None
        decision = self._decided(work, pipeline, now)
        return None if isinstance(decision.outcome, Fault) else decision

    def tell(self, decision: Decision) -> None:
        """It was decided at once."""
        self.decisions += 1
        _log_outcome(self._log_of(decision), decision.outcome)

    def _log_of(self, decision: Decision) -> Any:
        work = decision.work
        return self._log.bind(field=work.run.field, run=work.run.id, step=work.step.name)

    async def _decision(self, work: Work) -> Decision:
        """What the step's handler decides, with what the store needs to carry it through."""
        pipeline = self._pipelines.known(work.run.pipeline)
        try:
            if pipeline is None:
                pipeline = self._pipelines.learn(work.run.pipeline, await self._store.pipeline(work.run.pipeline))
            pipeline.steps[work.step.name]
        except (msgspec.DecodeError, LookupError) as error:
            # Without its definition nobody can tell what ends with the step: it stays, and says why.
            fault: Any = Fault(error)
            return Decision(work, fault, None)
        return self._decided(work, pipeline, self._clock.now())

    def _decided(self, work: Work, pipeline: Pipeline, now: float) -> Decision:
        seen = msgspec.structs.replace(work.seen, now=now)
        means = Means(self._handlers, self._pipelines.digests, self._shown_to(work.step))
        outcome: Any
        outcome, pool = decide(means, pipeline, msgspec.structs.replace(work, seen=seen))
        child = self._pipelines.current.get(outcome.pipeline) if isinstance(outcome, Spawn) else None
        return Decision(work, outcome, pipeline, pool, self._pools.get(pool, 0), child)

    async def foresee(self, work: Work) -> Outcome | None:
        """What would be decided from this; None if its handler would raise. Nothing is written."""
        outcome = (await self._decision(work)).outcome
        return None if isinstance(outcome, Fault) else outcome

    def _shown_to(self, step: Step) -> Mapping[str, Json]:
        """What the attempt was shown of the configuration when it began, as far back as this process remembers."""
        if not self._views:
            return self._shown
        if step.started is None or step.state is StepState.READY:
            return self._views[-1][1]
        begun = [shown for since, shown in self._views if since <= step.started]
        return begun[-1] if begun else self._views[0][1]


def outputs_of(run: Run, pipeline: Any, outputs: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    """A run's own outputs, from the pipeline's [outputs]; AglowError if they cannot be made."""
    base = {
        "field": run.context,
        "run": {"id": run.id, "key": run.key, "field": run.field, "failed": []},
        "params": run.params,
        "last": last_of(run),
    }
    context = context_of(pipeline, None, base, outputs)
    rendered = templates.render(pipeline.outputs, context)
    if not isinstance(rendered, dict):
        raise AglowError("the outputs of a pipeline are a table")
    return rendered


def _log_outcome(log: Any, outcome: Outcome) -> None:
    if isinstance(outcome, Do):
        log.info("step_works", effects=len(outcome.effects))
    elif isinstance(outcome, Wait):
        log.info("step_wait", reason=outcome.reason)
    elif isinstance(outcome, Spawn):
        log.info("step_spawn", reason=outcome.reason)
    elif isinstance(outcome, Done):
        log.info("step_done")
    elif isinstance(outcome, Skipped):
        log.info("step_skipped", reason=outcome.reason)
    elif isinstance(outcome, Cancelled):
        log.info("step_cancelled", reason=outcome.reason)
    else:
        log.warning("step_failed", reason=outcome.reason)
