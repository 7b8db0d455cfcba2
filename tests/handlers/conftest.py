"""What the handlers' tests share: a step, and what it has seen, written down as briefly as it can be."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from aglowd.model import (
    Do,
    Effect,
    EffectRecord,
    EffectState,
    Failed,
    Json,
    Observation,
    Outcome,
    Seen,
    StepView,
    Subject,
    Wait,
)

STEP = StepView("P1-1", "stage", "P1", 1, {"calibrator": "c0ffee"})
NOW = 1_800_000_000.0


def ended(effect: Effect, result: Json, state: EffectState = EffectState.DONE, reason: str = "") -> EffectRecord:
    """The journal's row of an effect that has ended."""
    key = f"{STEP.key}/{effect.kind}/{effect.ordinal}"
    return EffectRecord(key, effect.kind, effect.ordinal, state, msgspec.to_builtins(effect), 1, result, reason)


def rejected(effect: Effect, reason: str = "it is forbidden") -> EffectRecord:
    return ended(effect, None, EffectState.REJECTED, reason)


def seen(observed: Mapping[str, Json] = MappingProxyType({}), *effects: EffectRecord, now: float = NOW) -> Seen:
    """What a decision is made from: the observations by their subjects' keys, and the effects."""
    return Seen({key: Observation(1, NOW, data) for key, data in observed.items()}, effects, now)


def done_all(decision: Outcome, *results: Json) -> tuple[EffectRecord, ...]:
    """The rows of the decision's effects, each with its result."""
    assert isinstance(decision, Do), decision
    return tuple(ended(effect, result) for effect, result in zip(decision.effects, results, strict=True))


def the_wait(outcome: Outcome, *subjects: Subject) -> str:
    """The reason of a wait for just these subjects."""
    assert isinstance(outcome, Wait), outcome
    assert outcome.subjects == subjects
    assert outcome.due_s > 0
    return outcome.reason


def the_failure(outcome: Outcome, *, final: bool = False) -> str:
    assert isinstance(outcome, Failed), outcome
    assert outcome.final is final
    return outcome.reason


def params(handler: type[Any], **values: Json) -> Any:
    """The parameters as the reactor makes them, from what templates give."""
    return msgspec.convert(values, handler.Params)
