"""The frozen values that all rooms speak in: subjects and observations, steps, effects, and a handler's decisions.

Nothing here does anything. What a handler sees and what it returns is all in this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from msgspec import Struct

Json = Any
"""What JSON can say: the currency between outside systems, templates and the store."""


class StepState(StrEnum):
    """Where a step of a run is. A retry is a new attempt of the same step and begins at READY."""

    PENDING = "pending"  # A need has not ended.
    READY = "ready"  # It may run: it waits for its pool, its retry delay or the reactor.
    WORKING = "working"  # Effects are under way.
    WAITING = "waiting"  # It waits for subjects.
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def is_ended(self) -> bool:
        """No attempt will change this any more."""
        return self in ENDED


ENDED = frozenset({StepState.DONE, StepState.FAILED, StepState.SKIPPED, StepState.CANCELLED})


class RunState(StrEnum):
    """How a run of a pipeline goes."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EffectState(StrEnum):
    """Where an effect is: docs/design.md (a) draws the arrows."""

    PLANNED = "planned"
    OPEN = "open"
    UNKNOWN = "unknown"
    DOUBT = "doubt"
    DONE = "done"
    REJECTED = "rejected"

    @property
    def is_ended(self) -> bool:
        """Its outcome is recorded for good."""
        return self in (EffectState.DONE, EffectState.REJECTED)


# Of subjects, and of what is said of jobs, there are tens of thousands at once: a collection of garbage that looked through them
# would be a long turn of the event loop. What is frozen, and made of what was there before it, is in no cycle (gc=False).
class Subject(Struct, frozen=True, gc=False):
    """Something that a step can wait for: `kind` names its watcher, `id` the thing, `args` what it takes to look."""

    kind: str
    id: str
    args: dict[str, Json] = {}

    @property
    def key(self) -> str:
        """The name of the subject in the store, in logs and on the screen."""
        return f"{self.kind}:{self.id}"


class Observation(Struct, frozen=True):
    """The latest that is known of a subject; a lower version never replaces a higher one. `at` is world seconds."""

    version: int
    at: float
    data: Json


class Effect(Struct, frozen=True, kw_only=True):
    """One change of the outside world, as data. Its class says how it is done and found (effects/base.py).

    `ordinal` tells several effects of one kind in one attempt apart.
    """

    kind: ClassVar[str]
    needs_evidence: ClassVar[bool] = False
    may_be_anothers: ClassVar[bool] = False
    """Of a run that was taken over it is looked for first: the program that had the field may have done it."""
    ordinal: int = 0


class EffectRecord(Struct, frozen=True):
    """A row of the journal: the intent with its frozen inputs and what became of it. Times are world seconds."""

    key: str
    kind: str
    ordinal: int
    state: EffectState
    inputs: Json
    tries: int = 0
    result: Json = None
    reason: str = ""
    evidence: Json = None
    notes: dict[str, Json] = {}
    intended_at: float | None = None
    absent_at: float | None = None
    next_at: float | None = None
    looks: int = 0


class Seen(Struct, frozen=True):
    """All that a handler may decide from: the latest observations of all that its attempt ever waited for, and its effects."""

    observations: Mapping[str, Observation] = {}
    effects: tuple[EffectRecord, ...] = ()
    now: float = 0.0

    def of(self, subject: Subject) -> Json:
        """What was last observed of it, or None before the first look."""
        found = self.observations.get(subject.key)
        return None if found is None else found.data

    def effect(self, kind: type[Effect], ordinal: int = 0) -> EffectRecord | None:
        """This attempt's effect of that kind, or None if it was never asked for."""
        for record in self.effects:
            if record.kind == kind.kind and record.ordinal == ordinal:
                return record
        return None

    def result(self, kind: type[Effect], ordinal: int = 0) -> Json:
        """What the effect returned, or None while it is not done."""
        record = self.effect(kind, ordinal)
        return record.result if record is not None and record.state is EffectState.DONE else None

    def count(self, kind: type[Effect]) -> int:
        """How many effects of that kind this attempt has asked for."""
        return sum(record.kind == kind.kind for record in self.effects)

    def rejected(self, unless: type[Effect] | None = None) -> EffectRecord | None:
        """The first effect, but for those of that kind, that can never succeed, or None."""
        spared = unless.kind if unless else None
        rejected = (one for one in self.effects if one.state is EffectState.REJECTED and one.kind != spared)
        return next(rejected, None)


class StepView(Struct, frozen=True):
    """What a handler knows of the step it decides. `pipelines`: the digest of each pipeline that a step could run; `begun`:
    when its attempt began, 0 before that."""

    run: str
    name: str
    field: str
    attempt: int
    pipelines: Mapping[str, str] = {}
    priority: int = 0
    begun: float = 0.0

    @property
    def key(self) -> str:
        """The prefix of the keys of all effects of this attempt."""
        return f"{self.run}/{self.name}/{self.attempt}"


class FieldView(Struct, frozen=True):
    """A survey field as the catalogue describes it; `data` is what pipelines see as `field`.

    `priority`: of the observation, then of the field; the larger the sooner, one below 0 = not at all. `site`: where its data
    lie, "" where the catalogue does not say.
    """

    name: str
    status: str
    data: dict[str, Json] = {}
    priority: tuple[int, int] = (0, 0)
    site: str = ""


class Do(Struct, frozen=True):
    """Carry out these effects; ask again when all have ended."""

    effects: tuple[Effect, ...]

    @staticmethod
    def all(*effects: Effect) -> Do:
        """The decision to carry out all of them, side by side."""
        return Do(effects)


class Wait(Struct, frozen=True):
    """Wait for the subjects; ask again when one changes, and in any case after `due_s` world seconds."""

    subjects: tuple[Subject, ...]
    reason: str
    due_s: float


class Spawn(Struct, frozen=True):
    """Start the run `key`, or join the one that has it, and wait for its end. It changes only our store: no effect.

    `instead_of`: a done run of that key that is not joined; if none was begun after it, one is, and `reason` says why.
    """

    key: str
    pipeline: str
    params: dict[str, Json]
    reason: str
    due_s: float
    shared: bool = False
    instead_of: str = ""


class Done(Struct, frozen=True):
    """The step has reached its goal; `outputs` are for the steps behind it."""

    outputs: dict[str, Json] = {}


class Failed(Struct, frozen=True):
    """The attempt has failed; `final` says that another attempt would fail for the same reason."""

    reason: str
    final: bool = False


class Skipped(Struct, frozen=True):
    """Its `when` does not hold, or a person skips it: the reactor decides this, no handler."""

    reason: str


class Cancelled(Struct, frozen=True):
    """Its run is cancelled and nothing is left to be undone: the reactor decides this, no handler."""

    reason: str


Outcome = Do | Wait | Spawn | Done | Failed | Skipped | Cancelled


class Handler:
    """One kind of pipeline step: pure functions from what is known to what shall be done. See docs/add-a-step.md."""

    kind: ClassVar[str]

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        """What the pipeline file gives to the step. `takes_secrets` names the parameters that may hold `secret:NAME`."""

        takes_secrets: ClassVar[frozenset[str]] = frozenset()

    def start(self, step: StepView, params: Any) -> Outcome:
        """The first decision of an attempt, before anything was observed or done for it."""
        return self.react(step, params, Seen())

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        """Every later decision, made from what is and not from what happened."""
        raise NotImplementedError(f"step kind {self.kind} does not say how it reacts")

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """What must still be done when the step is cancelled, skipped or out of time; None if nothing."""
        return None
