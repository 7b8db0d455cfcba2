"""Build the sandbox that pilots unpack, from its definition in a GRID_LRT configuration (AGLOW's LRT_Sandbox)."""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct

from aglowd.effects.sandboxes import BuildSandbox
from aglowd.grid.checkouts import repositories_of
from aglowd.handlers.base import failure
from aglowd.model import Do, Done, Failed, Handler, Json, Outcome, Seen, StepView

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


class BuildSandboxStep(Handler):
    """Clone the repositories at their branches or commits, and put their files as one tar.gz to `directory`, verified.

    A sandbox of the same commits that lies there already is taken. Outputs: `SBX_location` (URL), `commits` (repository →
    commit), `size_bytes`, `adler32`.
    """

    kind = "build_sandbox"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        sandbox: dict[str, Json]
        directory: str
        name: str = "sandbox"

        def __post_init__(self) -> None:
            if not _NAME.fullmatch(self.name):
                raise ValueError("name must be letters, digits and signs, without slashes")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        built = seen.result(BuildSandbox)
        if built is not None:
            return Done({"SBX_location": built["url"], **{name: built[name] for name in _TOLD}})
        try:
            repositories = repositories_of(params.sandbox)
        except ValueError as error:
            return Failed(str(error), final=True)
        return Do.all(BuildSandbox(repositories=repositories, directory=params.directory, name=params.name))


_TOLD = ("commits", "size_bytes", "adler32")
