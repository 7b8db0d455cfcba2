"""Make a directory on storage."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.effects.files import MakeDirectory
from aglowd.handlers.base import once
from aglowd.model import Handler, Outcome, Seen, StepView


class MakeDirectoryStep(Handler):
    """Make a directory and its parents; one that exists is fine, a file in its place fails. Output: `url`."""

    kind = "make_directory"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        return once(seen, MakeDirectory(url=params.directory.rstrip("/")))
