"""Let a person look before a field goes on (docs/pipelines.md, Quality)."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Subject, Wait

DAY_S = 86_400.0


def verdict(question: str, show: tuple[str, ...], occasion: str) -> Subject:
    """What an operator says. Each attempt asks anew; the store observes it when the operator has spoken."""
    return Subject("verdict", occasion, {"question": question, "show": list(show)})


class AwaitApproval(Handler):
    """Wait for an operator: `aglowctl approve FIELD` or `aglowctl reject FIELD`. What he rejects fails for good, with his reason.

    `show`: URLs of what he should look at, such as inspection plots. Outputs: `verdict` (good, moderate or poor), `reason`,
    `uid`, `at` (world seconds), `plots`: what was shown.
    """

    kind = "await_approval"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        question: str = "is this good enough to go on?"
        show: tuple[str, ...] = ()

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = verdict(params.question, params.show, step.key)
        said = seen.of(subject)
        if said is None:
            reason = f"an operator is asked: {params.question} (aglowctl approve {step.field} or reject)"
            return Wait((subject,), reason, DAY_S)
        if not said["approved"]:
            return Failed(f"rejected as {said['verdict']} by uid {said['uid']}: {said['reason']}", final=True)
        told = {name: said[name] for name in ("verdict", "reason", "uid", "at")}
        return Done({**told, "plots": list(params.show)})
