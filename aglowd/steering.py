"""How people steer runs: cancel, retry, skip, done, pause, resume, drain, and a run begun by hand.

What must stay true: a dry run says what the command would do, computed by the code that does it; a command that carries
the version of what its giver saw does that or nothing; who gave it, and why, is an event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Annotated, Literal

import msgspec
import structlog
from msgspec import Meta, Struct

from aglowd.choice import MAX_TARGETS, Choice
from aglowd.effects.catalogue import WriteStatus
from aglowd.errors import AglowError
from aglowd.model import Effect, Json
from aglowd.pipeline import Pipeline
from aglowd.reactor import Pipelines, Reactor
from aglowd.rehearsal import Rehearsal, told_effects
from aglowd.store.doubts import Word
from aglowd.store.pauses import Hold
from aglowd.store.plans import Changed, Order, Plan
from aglowd.store.rows import dumps
from aglowd.store.store import Store

Name = Annotated[str, Meta(min_length=1, max_length=500)]
Names = Annotated[tuple[Name, ...], Meta(max_length=MAX_TARGETS)]
RunState = Literal["", "running", "failed", "cancelled", "archived"]
FieldState = Literal["", "offered", "running", "failed", "cancelled", "archived"]
Version = Annotated[str, Meta(max_length=64)]
Reason = Annotated[str, Meta(max_length=500)]
MAX_OUTPUTS_CHARS = 1_000_000
"""Of the outputs that a person gives to a step, as JSON."""
MAX_PARAMS = 100
"""Parameters that a person gives to a run."""


class RunsOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Which runs, by names, patterns or state; `steps` of them; `version`: what a dry run showed, "" = as it is now."""

    targets: Names = ()
    state: RunState = ""
    steps: Annotated[tuple[Name, ...], Meta(max_length=500)] = ()
    outputs: dict[str, Json] = {}
    reason: Reason = ""
    dry_run: bool = False
    version: Version = ""


class HoldOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """What is paused, drained or resumed: fields, by names, patterns or state, kinds of steps, sites, or everything.

    `version`: what a dry run showed, "" = as it is now.
    """

    fields: Names = ()
    state: FieldState = ""
    kinds: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()
    sites: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()
    everything: bool = False
    reason: Reason = ""
    dry_run: bool = False
    version: Version = ""


class RunOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """A run of a field, begun by hand; `pipeline`: "" is that of the catalogue's fields; `version`: what a dry run showed."""

    field: Name
    pipeline: Annotated[str, Meta(max_length=64)] = ""
    params: Annotated[dict[str, Json], Meta(max_length=MAX_PARAMS)] = {}
    reason: Reason = ""
    dry_run: bool = False
    version: Version = ""


class ForgetOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Runs that shall be forgotten, by ids, patterns or state; `version`: what a dry run showed, "" = as it is now."""

    runs: Names = ()
    state: RunState = ""
    reason: Reason = ""
    dry_run: bool = False
    version: Version = ""


RUN_VERBS = ("cancel", "retry", "skip", "done")
HOLD_VERBS = ("pause", "drain", "resume")


class Steering:
    """Carries the commands out. `kinds` and `sites` are those that can be held; `pinned_s`: how long sites pin what they staged."""

    def __init__(
        self,
        store: Store,
        reactor: Reactor,
        pipelines: Pipelines,
        rehearsal: Rehearsal,
        kinds: Collection[str],
        sites: Collection[str],
        field_pipeline: str,
        pinned_s: float = 0.0,
    ) -> None:
        self._store = store
        self._pinned_s = pinned_s
        self._reactor = reactor
        self._pipelines = pipelines
        self._rehearsal = rehearsal
        self._known: Mapping[str, Collection[str]] = {"kind": kinds, "site": sites}
        self._field_pipeline = field_pipeline
        self._log = structlog.get_logger("steering")

    # --- runs

    async def steer(self, verb: str, order: RunsOrder, uid: int) -> dict[str, Json]:
        """What the command changes, or with `dry_run` would change, in each run; AglowError if it makes no sense."""
        wanted = _order_of(verb, order)
        if order.dry_run:
            plan = await self._store.plan(wanted, self._pipelines.of)
            return {"verb": verb, "done": False, **await self._shown(plan, verb)}
        word = Word(uid, order.reason)
        plan = await self._store.steer(wanted, order.version, word, self._pipelines.of, _rewritten)
        runs = [one.run for one in plan.runs]
        self._log.info("steered", uid=uid, verb=verb, runs=runs, steps=list(order.steps), reason=order.reason)
        return {"verb": verb, "done": True, **msgspec.to_builtins(plan)}

    async def _shown(self, plan: Plan, verb: str) -> dict[str, Json]:
        """The plan, with what the handlers of steps at work would undo now."""
        shown: dict[str, Json] = msgspec.to_builtins(plan)
        for run in shown["runs"]:
            for touch in run["touches"]:
                if touch["note"]:
                    touch["undoes"] = await self._undone(run["run"], touch["step"], verb)
        return shown

    async def _undone(self, run: str, step: str, verb: str) -> list[dict[str, Json]]:
        work = await self._store.work(run, step)
        if work is None:
            return []
        stopped = msgspec.structs.replace(work, step=msgspec.structs.replace(work.step, stopping=verb))
        return told_effects(await self._reactor.foresee(stopped))

    async def forget(self, order: ForgetOrder, uid: int) -> dict[str, Json]:
        """Which runs are forgotten, or with `dry_run` would be; AglowError if one that is named must stay."""
        choice = Choice(order.runs, order.state)
        if order.dry_run:
            plan = await self._store.plan_forget(choice, self._pinned_s)
        else:
            word = Word(uid, order.reason)
            plan = await self._store.forget_runs(choice, self._pinned_s, order.version, word)
            self._log.info("forgotten", uid=uid, runs=[one.run for one in plan.runs], reason=order.reason)
        return {"verb": "forget", "done": not order.dry_run, **msgspec.to_builtins(plan)}

    # --- what is held

    async def hold(self, verb: str, order: HoldOrder, uid: int) -> dict[str, Json]:
        """How each of these was held before; with `dry_run` nothing changes. AglowError if a name is nobody's."""
        holds = [*(Hold("kind", name) for name in order.kinds), *(Hold("site", name) for name in order.sites)]
        fields = Choice(order.fields, order.state) if order.fields or order.state else None
        for one in holds:
            names = self._known.get(one.scope, (one.name,))
            if one.name not in names and verb != "resume":
                raise AglowError(f"there is no {one}; known: {', '.join(sorted(names))}")
        if order.everything == bool(holds or fields):
            raise AglowError("everything, or some of it: name one of the two")
        if order.everything:
            holds = [Hold("everything")]
        if order.dry_run:
            made = await self._store.plan_hold(verb, holds, fields)
        else:
            made = await self._store.hold(verb, holds, Word(uid, order.reason), fields, order.version)
            what = [f"{one['scope']} {one['name']}".rstrip() for one in made.holds]
            self._log.info("held", uid=uid, verb=verb, what=what, reason=order.reason)
        return {"verb": verb, "done": not order.dry_run, **msgspec.to_builtins(made)}

    # --- by hand

    async def run(self, order: RunOrder, uid: int) -> dict[str, Json]:
        """Begin a run of the field; with `dry_run` tell what every step of it would do, and begin nothing."""
        pipeline = self._pipeline(order)
        takes = pipeline.name == self._field_pipeline
        if order.dry_run or order.version:
            run, key, context = await self._store.about_field(pipeline, order.field, takes=takes)
            steps = self._rehearsal.play(pipeline, run, key, context, order.params)
            told = {"field": order.field, "run": run, "pipeline": pipeline.name, "steps": steps}
            version = hashlib.blake2b(dumps(told).encode(), digest_size=8).hexdigest()
            if order.dry_run:
                return {**told, "done": False, "version": version}
            if order.version != version:
                raise Changed(
                    f"it has changed since you looked: {run} would do something else; look again, then decide"
                )
        data = {"uid": uid, "reason": order.reason, "params": order.params}
        run = await self._store.run_by_hand(pipeline, order.field, order.params, data, takes=takes)
        self._log.info("ordered", uid=uid, field=order.field, run=run, reason=order.reason)
        return {"field": order.field, "run": run, "pipeline": pipeline.name, "done": True}

    def _pipeline(self, order: RunOrder) -> Pipeline:
        name = order.pipeline or self._field_pipeline
        pipeline = self._pipelines.current.get(name)
        if pipeline is None:
            known = ", ".join(sorted(self._pipelines.current))
            raise AglowError(f"there is no pipeline {name!r}; known: {known}")
        expected, given = set(pipeline.params), set(order.params)
        if given - expected:
            names = ", ".join(sorted(expected)) or "none"
            raise AglowError(f"{name} takes no parameter {', '.join(sorted(given - expected))}; it takes: {names}")
        if expected - given:
            raise AglowError(f"{name} needs {', '.join(sorted(expected - given))}: --param NAME=VALUE")
        return pipeline


def _order_of(verb: str, order: RunsOrder) -> Order:
    if verb not in RUN_VERBS:
        raise AssertionError(verb)
    if verb in ("skip", "done") and len(order.steps) != 1:
        raise AglowError(f"{verb} needs one step; found {len(order.steps)}")
    if verb == "cancel" and order.steps:
        raise AglowError("a run is cancelled as a whole; a step is skipped: aglowctl skip FIELD STEP")
    if order.outputs and verb != "done":
        raise AglowError("only a step that is done has outputs")
    if len(msgspec.json.encode(order.outputs)) > MAX_OUTPUTS_CHARS:
        raise AglowError(f"expected outputs of at most {MAX_OUTPUTS_CHARS} characters")
    return Order(verb, order.targets, order.state, order.steps, order.outputs)  # type: ignore[arg-type] # One of the four.


def _rewritten(field: str, shown: str, wanted: str, ordinal: int) -> Effect:
    return WriteStatus(field=field, expect=shown, status=wanted, ordinal=ordinal)
