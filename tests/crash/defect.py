"""A step kind whose handler has a defect, so that its faults are recorded in a scenario, too."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd import wiring
from aglowd.handlers import HANDLERS
from aglowd.model import Handler, Outcome, Seen, StepView


class Defect(Handler):
    """Raises whenever it is asked."""

    kind = "defect"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        pass

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        raise ZeroDivisionError("this handler has a defect")


def install() -> None:
    """Let the daemon that starts now know the kind."""
    wiring.HANDLERS = (*HANDLERS, Defect)  # type: ignore[attr-defined] # it is the wiring's own name for them
