"""Cancel jobs by name, and see that they have ended."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.effects.jobs import CancelJobs
from aglowd.handlers.base import HOUR_S, failure, named
from aglowd.handlers.pilots import cancels, job_of
from aglowd.model import Do, Done, Failed, Handler, Outcome, Seen, StepView, Wait


class CancelJobsStep(Handler):
    """Ask the batch system of a site for the end of these jobs, and wait until they are over. Outputs: `jobs`, their ids, and
    `unknown`, those of them that it does not know (any more). It is an error if it knows none.

    The pilots among them give their tokens back; steps that wait for these tokens start others.
    """

    kind = "cancel_jobs"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        jobs: tuple[str, ...]
        site: str = ""

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        if params.jobs and not seen.count(CancelJobs):
            return Do(tuple(cancels(params.jobs, params.site)))
        told = {one.inputs["job"]: one.result or {} for one in seen.effects if one.kind == CancelJobs.kind}
        facts = {job: seen.of(job_of(job, params.site)) or {} for job in params.jobs}
        absent = {job for job in params.jobs if told[job].get("absent")}
        going = [job for job in params.jobs if job not in absent and not facts[job].get("final")]
        if going:
            subjects = tuple(job_of(job, params.site) for job in going)
            return Wait(subjects, f"cancelled, and not over yet: {named(going)}", HOUR_S)
        # A job that was there when it was cancelled and has been forgotten since has ended, too.
        unknown = [
            job
            for job in params.jobs
            if not told[job].get("named") and (job in absent or facts[job].get("state") == "lost")
        ]
        if params.jobs and len(unknown) == len(params.jobs):
            return Failed(f"the batch system knows no such jobs: {named(unknown)}; they are long over, or never were")
        return Done({"jobs": list(params.jobs), "unknown": unknown})
