"""Write a field's status to the catalogue; the claim of a field is the first such write, a release is one, too."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.effects.catalogue import ReleaseField, WriteStatus
from aglowd.handlers.base import once
from aglowd.model import Handler, Outcome, Seen, StepView


class SetStatus(Handler):
    """Set the field's status, provided that it still is `expect`: nobody's word is overwritten unseen."""

    kind = "set_status"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        expect: str
        status: str
        of: str = ""

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        return once(seen, WriteStatus(field=step.field, expect=params.expect, status=params.status, of=params.of))


class ReleaseFieldStep(Handler):
    """Give a field back to whoever takes it next, provided that its status still is `expect`."""

    kind = "release_field"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        field: str
        expect: str
        status: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        return once(seen, ReleaseField(field=params.field, expect=params.expect, status=params.status))
