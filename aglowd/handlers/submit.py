"""Submit pilots: the jobs that take tokens and work on them."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.handlers.base import failure
from aglowd.handlers.pilots import Pilots, cancels, gate, list_jobs, submissions, turn_of
from aglowd.model import Do, Done, Handler, Outcome, Seen, StepView


class Submit(Handler):
    """Submit pilots for the tokens, once the proxy is good for long enough and there is room. Output: `jobs`, their ids."""

    kind = "submit"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        tokens: int
        pilots: Pilots
        site: str = ""

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return self.stop(step, params, seen) or failed
        want = min(params.tokens, params.pilots.max_pilots)
        if seen.count(SubmitJobs) or not want:
            return Done({"jobs": list_jobs(seen.effects)})
        turn = turn_of(step, 0, params.site, want)
        waiting = gate(seen, params.pilots, turn)
        granted = 0 if waiting else min(want, seen.of(turn)["pilots"])
        return waiting or submissions(params.pilots, params.site, params.token_type, granted, 0)

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """Pilots that nobody waits for are cancelled."""
        jobs = list_jobs(seen.effects)
        return Do(tuple(cancels(jobs, params.site))) if jobs and not seen.count(CancelJobs) else None
