"""Cancelling jobs: they are asked to end, their ends are seen, and what nobody knows is not called cancelled."""

from __future__ import annotations

from aglowd.effects.jobs import CancelJobs
from aglowd.handlers.cancel_jobs import CancelJobsStep
from aglowd.handlers.pilots import job_of
from aglowd.model import Do, Done, EffectRecord, Json, Outcome

from .conftest import STEP, done_all, params, rejected, seen, the_failure, the_wait

JOBS = ("a", "b", "c")
CANCELS = Do(tuple(CancelJobs(job=job, site="sara", ordinal=number) for number, job in enumerate(JOBS)))


def react(observed: dict[str, str], *rows: EffectRecord, jobs: tuple[str, ...] = JOBS) -> Outcome:
    """`observed`: job → its state."""
    facts: dict[str, Json] = {
        job_of(job, "sara").key: {"state": state, "final": state != "running"} for job, state in observed.items()
    }
    return CancelJobsStep().react(STEP, params(CancelJobsStep, jobs=list(jobs), site="sara"), seen(facts, *rows))


def cancelled(*how: str) -> tuple[EffectRecord, ...]:
    """The jobs were asked to end; each was named by the status, hidden from it, or not there at all."""
    results = zip(JOBS, how, strict=True)
    return done_all(CANCELS, *({"job": job, "named": so == "named", "absent": so == "absent"} for job, so in results))


def test_jobs_are_cancelled_and_waited_for() -> None:
    assert react({}) == CANCELS
    rows = cancelled("named", "named", "hidden")
    a, b, c = (job_of(job, "sara") for job in JOBS)
    assert the_wait(react({}, *rows), a, b, c) == "cancelled, and not over yet: a, b, c"
    the_wait(react({"a": "cancelled", "b": "running"}, *rows), b, c)
    assert react({"a": "cancelled", "b": "done_ok", "c": "lost"}, *rows) == Done({"jobs": [*JOBS], "unknown": ["c"]})


def test_what_the_system_does_not_know_is_not_waited_for() -> None:
    rows = cancelled("absent", "named", "absent")
    the_wait(react({}, *rows), job_of("b", "sara"))
    assert react({"b": "cancelled"}, *rows) == Done({"jobs": [*JOBS], "unknown": ["a", "c"]})


def test_a_job_that_was_there_and_is_forgotten_has_ended() -> None:
    rows = cancelled("named", "named", "named")
    assert react(dict.fromkeys(JOBS, "lost"), *rows) == Done({"jobs": [*JOBS], "unknown": []})


def test_names_that_nobody_knows_are_an_error() -> None:
    words = "the batch system knows no such jobs: a, b, c; they are long over, or never were"
    assert the_failure(react({}, *cancelled("absent", "absent", "absent"))) == words
    assert the_failure(react(dict.fromkeys(JOBS, "lost"), *cancelled("hidden", "hidden", "hidden"))) == words
    assert react({}, jobs=()) == Done({"jobs": [], "unknown": []})


def test_a_refusal_fails_it() -> None:
    effect = CancelJobs(job="a", site="sara")
    assert the_failure(react({}, rejected(effect))) == "cancel jobs: it is forbidden"
