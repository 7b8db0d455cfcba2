"""Wait until the pilots have dealt with the tokens; give failed tokens another chance, and name what is left."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.durations import duration_s
from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.effects.tokens import ResetTokens
from aglowd.handlers.base import HOUR_S, failure, is_enough, named
from aglowd.handlers.submit import MAX_ROUNDS_APART, Pilots, list_jobs, proxy_gate, submissions
from aglowd.model import Do, Done, Failed, Handler, Outcome, Seen, StepView, Subject, Wait


def tokens_of(token_type: str) -> Subject:
    """How many tokens of that type are in which state."""
    return Subject("tokens", token_type)


def job_of(job: str) -> Subject:
    """A job at the batch system."""
    return Subject("job", job)


def results_of(token_type: str, occasion: str) -> Subject:
    """Each token's state and result. Each occasion is a subject of its own, so that its answer is never an old one."""
    return Subject("results", occasion, {"token_type": token_type})


class WaitTokens(Handler):
    """Wait for all tokens of a type. `threshold` of them done is enough; below it, failed tokens are reset `scrubs` times.

    When enough are done and nothing has changed for `patience`, the jobs that are left are cancelled.
    A token that is still locked when all jobs of the step are gone belongs to a dead pilot and counts as failed.
    Outputs: `done`, `missing` (token ids), `gone` (how many tokens somebody has deleted; they are not made again).
    """

    kind = "wait_tokens"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        tokens: int
        jobs: tuple[str, ...]
        pilots: Pilots
        threshold: float = 0.95
        scrubs: int = 2
        patience: str = "12h"

        def __post_init__(self) -> None:
            duration_s(self.patience)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        rounds = seen.count(ResetTokens)
        if rounds and seen.effect(SubmitJobs, rounds * MAX_ROUNDS_APART) is None:
            again = len(seen.effect(ResetTokens, rounds - 1).inputs["tokens"])  # type: ignore[union-attr] # counted above
            waiting = proxy_gate(seen, params.pilots)
            return waiting or Do(tuple(submissions(params.pilots, params.token_type, again, rounds)))
        look = results_of(params.token_type, f"{step.key}/{rounds}")
        found = seen.of(look)
        if found is not None:
            return self._judge(params, rounds, found)
        tokens = tokens_of(params.token_type)
        jobs = tuple(job_of(job) for job in (*params.jobs, *list_jobs(seen)))
        counts = seen.of(tokens) or {}
        alive = [job for job in jobs if not (seen.of(job) or {}).get("final", False)]
        done = counts.get("done", 0)
        rest_s = 12 * HOUR_S
        if alive and is_enough(done, params.tokens, params.threshold) and done < params.tokens:
            # Enough is done: what is left gets some time more, and none for ever.
            last = seen.observations.get(tokens.key)
            quiet_s = 0.0 if last is None else seen.now - last.at
            rest_s = max(duration_s(params.patience) - quiet_s, 0.0)
            if rest_s == 0.0:
                if not seen.count(CancelJobs):
                    return Do(tuple(CancelJobs(job=job.id, ordinal=number) for number, job in enumerate(alive)))
                return Wait((look,), f"enough tokens are done: looking at the results of {params.tokens}", HOUR_S)
        if done >= params.tokens or not alive:
            return Wait((look,), f"looking at the results of {params.tokens} tokens", HOUR_S)
        return Wait((tokens, *jobs), self._reason(params, counts, len(alive), len(jobs)), rest_s)

    def _reason(self, params: Any, counts: dict[str, int], alive: int, jobs: int) -> str:
        names = (("locked", "in work"), ("todo", "to do"), ("error", "failed"), ("other", "in no known state"))
        rest = [f"{counts[key]} {word}" for key, word in names if counts.get(key)]
        return ", ".join(
            [f"{counts.get('done', 0)} of {params.tokens} tokens done", *rest, f"{alive} of {jobs} jobs alive"]
        )

    def _judge(self, params: Any, rounds: int, found: dict[str, Any]) -> Outcome:
        done, other = found["done"], found["other"]
        gone = max(0, params.tokens - len(done) - len(other))
        if is_enough(len(done), params.tokens, params.threshold):
            return Done({"done": len(done), "missing": sorted(other), "gone": gone})
        left = [f"{gone} gone, deleted by somebody"] if gone else []
        states = named([*left, *(f"{name} ({state})" for name, state in sorted(other.items()))])
        if rounds >= params.scrubs or not other:
            return Failed(f"only {len(done)} of {params.tokens} tokens are done after {rounds} resets: {states}")
        return Do.all(ResetTokens(tokens=tuple(sorted(other)), ordinal=rounds))

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """Pilots that nobody waits for are cancelled."""
        if seen.count(CancelJobs):
            return None
        jobs = (*params.jobs, *list_jobs(seen))
        return Do(tuple(CancelJobs(job=job, ordinal=number) for number, job in enumerate(jobs))) if jobs else None
