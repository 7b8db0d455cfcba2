"""Run another pipeline as a run of its own, and wait for its end (AGLOW's sub-DAGs)."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from aglowd.handlers.base import HOUR_S
from aglowd.model import Done, Failed, Handler, Json, Outcome, Seen, Spawn, StepView, Subject


class Run(Handler):
    """Start a pipeline, or with `share` join the run that has the same key, definition and parameters.

    Outputs: those of the run. Shared work is done once for all that wait for it, and one retry serves all.
    """

    kind = "run"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        pipeline: str
        share: str = ""
        params: dict[str, Json] = {}

        takes_secrets: ClassVar[frozenset[str]] = frozenset({"params"})

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        if params.pipeline not in step.pipelines:
            return Failed(
                f"there is no pipeline {params.pipeline!r}; known: {', '.join(sorted(step.pipelines))}", final=True
            )
        key = self._key(step, params)
        ended = seen.of(Subject("run", key))
        # It was cancelled because nobody waited for it; who joined it on its way out still needs it.
        if ended is None or ended.get("abandoned"):
            reason = f"waiting for the run {key}"
            return Spawn(key, params.pipeline, params.params, reason, 24 * HOUR_S, shared=bool(params.share))
        if ended["state"] != "done":
            return Failed(f"the run {ended['run']} {ended['state']}: {ended['reason']}")
        return Done({**ended["outputs"], "run": ended["run"]})

    def _key(self, step: StepView, params: Any) -> str:
        if not params.share:
            return f"{step.run}.{step.name}.{step.attempt}"
        same = msgspec.json.encode([step.pipelines[params.pipeline], params.params], order="deterministic")
        return f"{params.share}-{hashlib.blake2b(same, digest_size=4).hexdigest()}"
