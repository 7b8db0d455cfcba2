"""Submit pilots: the jobs that take tokens and work on them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from aglowd.durations import duration_s, duration_text
from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.handlers.base import HOUR_S, failure
from aglowd.model import Do, Done, Handler, Outcome, Seen, StepView, Subject, Wait

PROXY = Subject("proxy", "default")

MAX_ROUNDS_APART = 1000
"""Ordinals of the submissions of one round; a round has far fewer."""


class Pilots(Struct, frozen=True, forbid_unknown_fields=True):
    """How pilots are started: the program, its arguments, and how many go into one submission."""

    executable: str
    arguments: tuple[str, ...]
    requirements: str = ""
    nodes_per_submission: int = 50
    max_pilots: int = 250
    proxy_minimum: str = "12h"

    def __post_init__(self) -> None:
        duration_s(self.proxy_minimum)


def proxy_gate(seen: Seen, pilots: Pilots) -> Wait | None:
    """Wait while the proxy would not outlive the work; None when it would."""
    needed_s = duration_s(pilots.proxy_minimum)
    proxy = seen.of(PROXY)
    if proxy is None:
        return Wait((PROXY,), "looking at the grid proxy", HOUR_S)
    left_s = proxy["valid_until"] - seen.now
    if left_s >= needed_s:
        return None
    left = duration_text(max(left_s, 0))
    return Wait((PROXY,), f"the proxy has {left} left, submissions need {duration_text(needed_s)}: renew it", HOUR_S)


def submissions(pilots: Pilots, token_type: str, tokens: int, round_: int) -> Iterator[SubmitJobs]:
    """The parametric jobs that bring as many pilots as there are tokens, within the limits."""
    left = min(tokens, pilots.max_pilots)
    ordinal = round_ * MAX_ROUNDS_APART
    while left > 0:
        nodes = min(left, pilots.nodes_per_submission)
        arguments = (*pilots.arguments, "--type", token_type)
        yield SubmitJobs(
            nodes=nodes,
            executable=pilots.executable,
            arguments=arguments,
            requirements=pilots.requirements,
            ordinal=ordinal,
        )
        left -= nodes
        ordinal += 1


def list_jobs(seen: Seen) -> list[str]:
    """The ids of all jobs that this attempt has submitted."""
    return [record.result["job"] for record in seen.effects if record.kind == SubmitJobs.kind and record.result]


class Submit(Handler):
    """Submit pilots for the tokens, once the proxy is good for long enough. Output: `jobs`, their ids."""

    kind = "submit"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        tokens: int
        pilots: Pilots

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        if seen.count(SubmitJobs) or params.tokens == 0:
            return Done({"jobs": list_jobs(seen)})
        waiting = proxy_gate(seen, params.pilots)
        return waiting or Do(tuple(submissions(params.pilots, params.token_type, params.tokens, 0)))

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """Pilots that nobody waits for are cancelled."""
        jobs = list_jobs(seen)
        if not jobs or seen.count(CancelJobs):
            return None
        return Do(tuple(CancelJobs(job=job, ordinal=number) for number, job in enumerate(jobs)))
