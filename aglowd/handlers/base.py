"""What several kinds of step share. Pure, as all handlers are."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.model import Do, Done, Effect, Failed, Json, Outcome, Seen

HOUR_S = 3600.0
MAX_NAMED = 10
"""As many are named in a reason; the rest is counted."""


def once(seen: Seen, effect: Effect) -> Outcome:
    """Carry out one effect; its result is the step's outputs."""
    failed = failure(seen)
    if failed is not None:
        return failed
    record = seen.effect(type(effect), effect.ordinal)
    if record is None:
        return Do.all(effect)
    return Done(as_outputs(record.result))


def failure(seen: Seen, unless: type[Effect] | None = None) -> Failed | None:
    """The end of an attempt one of whose effects can never succeed; one of that kind may fail."""
    rejected = seen.rejected(unless)
    return None if rejected is None else Failed(f"{rejected.kind.replace('_', ' ')}: {rejected.reason}")


def as_outputs(result: Json) -> dict[str, Json]:
    """An effect's result as a step's outputs."""
    return result if isinstance(result, dict) else {"result": result}


def is_enough(count: int, total: int, threshold: float) -> bool:
    """Whether `count` of `total` reach the fraction; 95 of 100 reach 0.95 though 0.95 × 100 is a little more in binary."""
    return count >= threshold * total - 1e-9


def named(names: Sequence[object]) -> str:
    """The names for a reason: some of them, and how many more there are."""
    text = ", ".join(map(str, names[:MAX_NAMED]))
    return text if len(names) <= MAX_NAMED else f"{text} and {len(names) - MAX_NAMED} more"
