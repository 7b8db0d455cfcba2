"""A decision in the form in which it is on record: what is said of it, when two are the same, and how they differ in words.

What must stay true: an outcome becomes here what the store makes of it (store/runs.py), by the same rules.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec import Struct

from aglowd.deciding import Fault
from aglowd.effects import DEEDS
from aglowd.model import Cancelled, Do, Done, Failed, Json, Outcome, Skipped, Spawn, Wait
from aglowd.store.rows import PlannedStep, Work, dumps, loads
from aglowd.store.runs import ending_of, is_tried_again

MAX_TEXT = 120
"""Letters of each value that differs."""
MAX_PARTS = 2
"""Values that are told; of a thousand tokens one may stand for all."""
KINDS = {
    "StepWaits": "waits",
    "StepWorks": "works",
    "StepDone": "done",
    "StepFailed": "failed",
    "StepSkipped": "skipped",
    "StepCancelled": "cancelled",
    "AttemptFailed": "attempt failed",
    "HandlerRaised": "raised",
}
"""Event → what was decided, in a word."""


class Said(Struct, frozen=True):
    """A decision in the form in which two are compared. `parts`: effects with their inputs, or outputs."""

    kind: str
    reason: str = ""
    parts: dict[str, Json] = {}


def said_of(outcome: Outcome | Fault, work: Work, plan: PlannedStep) -> Said:
    """The outcome as the store would put it on record; what it would refuse is a fault of the handler."""
    try:
        return _raised(outcome.error) if isinstance(outcome, Fault) else _said(outcome, work, plan)
    except Exception as error:  # As in the reactor, whatever a handler did wrong stays with its own run.
        return _raised(error)


def _raised(error: Exception) -> Said:
    return Said("raised", f"its handler raised: {type(error).__name__}: {error}")


def _said(outcome: Outcome, work: Work, plan: PlannedStep) -> Said:
    if isinstance(outcome, Do):
        return _works(outcome, work)
    if isinstance(outcome, Wait | Spawn):
        return Said("waits", outcome.reason)
    if isinstance(outcome, Done):
        return Said("done", "", loads(dumps(outcome.outputs)))
    ending = ending_of(outcome, work.run, work.step)
    if isinstance(ending, Failed):
        return Said("attempt failed" if is_tried_again(ending, work.step, plan) else "failed", ending.reason)
    assert isinstance(ending, Skipped | Cancelled), ending
    return Said("skipped" if isinstance(ending, Skipped) else "cancelled", ending.reason)


def _works(outcome: Do, work: Work) -> Said:
    """The effects that are new; what the store refuses raises there as here."""
    known = {(record.kind, record.ordinal): record.inputs for record in work.seen.effects}
    fresh: dict[str, Json] = {}
    for effect in outcome.effects:
        inputs, name = loads(dumps(msgspec.to_builtins(effect))), f"{effect.kind}/{effect.ordinal}"
        if (effect.kind, effect.ordinal) not in known:
            fresh[name] = inputs
        elif known[effect.kind, effect.ordinal] != inputs:
            return Said("raised", f"the effect {name} was recorded with other inputs")
    return Said("works", "", fresh) if fresh else Said("raised", "only effects that have ended are asked for")


def recorded(effects: Mapping[str, Json]) -> dict[str, Json]:
    """The inputs of the effects on record, by `kind/ordinal`, as this release would write them: what an older release did not
    know yet has its default."""
    return {name: {**_defaults(name.partition("/")[0], inputs), **inputs} for name, inputs in effects.items()}


def _defaults(kind: str, inputs: Json) -> dict[str, Json]:
    """All inputs that an effect of that kind has with these; none if this release would not take them."""
    try:
        found: dict[str, Json] = loads(dumps(msgspec.to_builtins(msgspec.convert(inputs, DEEDS[kind]))))
    except (KeyError, msgspec.ValidationError):
        return {}
    return found


def is_same(was: Said, would: Said, *, is_cut: bool = False) -> bool:
    """Whether both say the same, as far as the record tells. What a handler raised with is no decision of its own."""
    if was.kind != would.kind or was.kind == "raised":
        return was.kind == would.kind
    told = would.reason.startswith(was.reason) if is_cut else would.reason == was.reason
    return told and was.parts == would.parts


def tell(was: Said, would: Said) -> tuple[str, str]:
    """Both in words; of two that are of one kind only what differs."""
    if was.kind != would.kind:
        return _text(was, list(was.parts)), _text(would, list(would.parts))
    old, new = ({name: _spelled(value) for name, value in leaves_of(said.parts)} for said in (was, would))
    names = [name for name in dict.fromkeys([*old, *new]) if old.get(name) != new.get(name)]
    pairs = {name: (old.get(name, "-"), new.get(name, "-")) for name in names}
    return (
        _text(was, [f"{name} = {_around(*pair)}" for name, pair in pairs.items()]),
        _text(would, [f"{name} = {_around(*reversed(pair))}" for name, pair in pairs.items()]),
    )


def leaves_of(value: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Each value with the path to it."""
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for name, inner in value.items():
        yield from leaves_of(inner, f"{path}.{name}" if path else str(name))


def _spelled(value: Json) -> str:
    return value if isinstance(value, str) else dumps(value)


def _around(text: str, other: str) -> str:
    """The text, or of a long one what stands where it begins to differ from the other."""
    same = len(os.path.commonprefix([text, other]))  # noqa: RUF071 # Letter by letter is what is meant.
    start = max(0, same - MAX_TEXT // 4)
    if len(text) <= MAX_TEXT:
        return text
    return f"{'…' if start else ''}{text[start : start + MAX_TEXT]}{'…' if start + MAX_TEXT < len(text) else ''}"


def _text(said: Said, parts: Sequence[str]) -> str:
    more = [f"{len(parts) - MAX_PARTS} more"] if len(parts) > MAX_PARTS else []
    told = "; ".join(part for part in (said.reason, ", ".join([*parts[:MAX_PARTS], *more])) if part)
    return f"{said.kind}: {told}" if told else said.kind
