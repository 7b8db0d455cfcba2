"""Write a field's status to the catalogue; the claim of a field is the first such write."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.effects.catalogue import WriteStatus
from aglowd.handlers.base import once
from aglowd.model import Handler, Outcome, Seen, StepView


class SetStatus(Handler):
    """Set the field's status, provided that it still is `expect`: nobody's word is overwritten unseen."""

    kind = "set_status"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        expect: str
        status: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        return once(seen, WriteStatus(field=step.field, expect=params.expect, status=params.status))
