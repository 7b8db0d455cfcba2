"""Waiting for tokens: enough is enough, failed ones get another chance, and what is left is named."""

from __future__ import annotations

from typing import Any

import pytest

from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.effects.tokens import ResetTokens
from aglowd.handlers.submit import MAX_ROUNDS_APART, PROXY
from aglowd.handlers.wait_tokens import WaitTokens, job_of, results_of, tokens_of
from aglowd.model import Do, Done, EffectRecord, Json, Outcome, StepView, Subject, Wait

from .conftest import NOW, STEP, done_all, params, rejected, seen, the_failure, the_wait
from .test_submit import PILOTS

JOBS = ("https://w/0", "https://w/1")
TOKENS = tokens_of("t")


def react(observed: dict[str, Json], *rows: EffectRecord, **values: Json) -> Outcome:
    given = {"token_type": "t", "tokens": 20, "jobs": list(JOBS), "pilots": PILOTS, **values}
    return WaitTokens().react(STEP, params(WaitTokens, **given), seen(observed, *rows))


def look(rounds: int) -> Subject:
    return results_of("t", f"{STEP.key}/{rounds}")


def results(done: int, total: int = 20, state: str = "error") -> Json:
    names = [f"t:SB{number:03d}" for number in range(total)]
    return {"done": dict.fromkeys(names[:done], "file:///r"), "other": dict.fromkeys(names[done:], state)}


def jobs(*final: bool, names: tuple[str, ...] = JOBS) -> dict[str, Json]:
    return {job_of(name).key: {"final": is_final} for name, is_final in zip(names, final, strict=True)}


def test_while_pilots_live_the_tokens_are_counted() -> None:
    both = (TOKENS, *map(job_of, JOBS))
    assert the_wait(react({}), *both) == "0 of 20 tokens done, 2 of 2 jobs alive"
    counts = {"todo": 4, "locked": 3, "done": 10, "error": 2, "other": 1}
    reason = the_wait(react({TOKENS.key: counts, **jobs(True, False)}), *both)
    assert reason == ("10 of 20 tokens done, 3 in work, 4 to do, 2 failed, 1 in no known state, 1 of 2 jobs alive")
    the_wait(react({TOKENS.key: {"done": 19}, **jobs(True, False)}), *both)


@pytest.mark.parametrize(
    "observed",
    [
        {TOKENS.key: {"done": 20}},
        {TOKENS.key: {"done": 21}},
        {**jobs(True, True)},
        {TOKENS.key: {"done": 3}, **jobs(True, True)},
    ],
)
def test_when_all_is_done_or_all_pilots_are_gone_the_results_are_looked_at(observed: dict[str, Json]) -> None:
    assert the_wait(react(observed), look(0)) == "looking at the results of 20 tokens"
    assert look(0).args == {"token_type": "t"}


def test_a_job_of_which_nothing_is_known_counts_as_alive() -> None:
    the_wait(react({job_of(JOBS[0]).key: {"final": True}}), TOKENS, *map(job_of, JOBS))


@pytest.mark.parametrize(("done", "is_enough"), [(20, True), (19, True), (18, False)])
def test_95_of_a_hundred_exactly_is_enough(done: int, is_enough: bool) -> None:
    outcome = react({look(0).key: results(done)})
    left = [f"t:SB{number:03d}" for number in range(done, 20)]
    if is_enough:
        assert outcome == Done({"done": done, "missing": left, "gone": 0})
    else:
        assert outcome == Do((ResetTokens(tokens=tuple(left)),))


def test_tokens_that_somebody_deleted_are_counted_and_not_made_again() -> None:
    assert react({look(0).key: results(19, 19)}) == Done({"done": 19, "missing": [], "gone": 1})
    reason = the_failure(react({look(0).key: results(17, 17)}))
    assert reason == "only 17 of 20 tokens are done after 0 resets: 3 gone, deleted by somebody"


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_threshold_is_reached_when_it_is_met_exactly(percent: int) -> None:
    met = react({look(0).key: results(percent, 100)}, tokens=100, threshold=percent / 100)
    assert isinstance(met, Done)
    short = react({look(0).key: results(percent - 1, 100)}, tokens=100, threshold=percent / 100)
    assert isinstance(short, Do)


def test_a_whole_life_with_two_resets() -> None:
    observed: dict[str, Json] = {TOKENS.key: {"done": 10}, **jobs(True, True), look(0).key: results(10)}
    rows: tuple[EffectRecord, ...] = ()
    alive = list(JOBS)
    for round_ in (1, 2):
        reset = react(observed, *rows)
        left = tuple(f"t:SB{number:03d}" for number in range(10 + round_ - 1, 20))
        assert reset == Do((ResetTokens(tokens=left, ordinal=round_ - 1),))
        rows += done_all(reset, {"reset": len(left)})
        assert the_wait(react(observed, *rows), PROXY) == "looking at the grid proxy" if round_ == 1 else True
        observed[PROXY.key] = {"valid_until": NOW + 60}
        assert "renew it" in the_wait(react(observed, *rows), PROXY)
        observed[PROXY.key] = {"valid_until": NOW + 13 * 3600}
        pilots = react(observed, *rows)
        assert isinstance(pilots, Do)
        assert [(effect.ordinal, effect.nodes) for effect in pilots.effects if isinstance(effect, SubmitJobs)] == [
            (round_ * MAX_ROUNDS_APART, len(left))
        ]
        name = f"https://w/again{round_}"
        rows += done_all(pilots, {"job": name})
        alive.append(name)
        waiting = react(observed, *rows)
        assert the_wait(waiting, TOKENS, *map(job_of, alive)).endswith(f"1 of {len(alive)} jobs alive")
        observed[job_of(name).key] = {"final": True}
        the_wait(react(observed, *rows), look(round_))
        observed[look(round_).key] = results(10 + round_)
    reason = the_failure(react(observed, *rows))
    assert reason.startswith("only 12 of 20 tokens are done after 2 resets: t:SB012 (error), t:SB013 (error)")
    observed[look(2).key] = results(19)
    assert react(observed, *rows) == Done({"done": 19, "missing": ["t:SB019"], "gone": 0})


def test_tokens_of_dead_pilots_are_given_back() -> None:
    outcome = react({**jobs(True, True), TOKENS.key: {"locked": 20}, look(0).key: results(0, 20, "downloading")})
    assert isinstance(outcome, Do)
    (effect,) = outcome.effects
    assert isinstance(effect, ResetTokens)
    assert len(effect.tokens) == 20


def test_without_another_chance_the_attempt_fails_at_once() -> None:
    reason = the_failure(react({look(0).key: results(5)}, scrubs=0))
    assert reason.startswith("only 5 of 20 tokens are done after 0 resets: ")
    assert reason.endswith(" and 5 more")


def test_tokens_that_have_vanished_cannot_be_reset() -> None:
    assert "only 3 of 20 tokens are done" in the_failure(react({look(0).key: results(3, 3)}))


def test_each_attempt_and_each_round_looks_anew() -> None:
    values: dict[str, Any] = {"token_type": "t", "tokens": 20, "jobs": [], "pilots": PILOTS}
    other = StepView(STEP.run, STEP.name, STEP.field, 2)
    one, two = (WaitTokens().react(step, params(WaitTokens, **values), seen()) for step in (STEP, other))
    assert isinstance(one, Wait)
    assert isinstance(two, Wait)
    assert len({one.subjects[0].key, two.subjects[0].key, look(1).key}) == 3


def test_a_reset_that_is_refused_for_good_fails_the_attempt() -> None:
    assert the_failure(react({}, rejected(ResetTokens(tokens=("t:SB001",))))) == "reset tokens: it is forbidden"


def test_a_cancelled_step_cancels_all_its_pilots_once() -> None:
    given = params(WaitTokens, token_type="t", tokens=20, jobs=list(JOBS), pilots=PILOTS)
    rows = done_all(Do((SubmitJobs(nodes=1, executable="x", arguments=(), ordinal=1000),)), {"job": "https://w/2"})
    left = WaitTokens().stop(STEP, given, seen({}, *rows))
    assert left == Do(tuple(CancelJobs(job=f"https://w/{number}", ordinal=number) for number in range(3)))
    assert WaitTokens().stop(STEP, given, seen({}, *rows, *done_all(left, {}, {}, {}))) is None
    none = params(WaitTokens, token_type="t", tokens=20, jobs=[], pilots=PILOTS)
    assert WaitTokens().stop(STEP, none, seen()) is None
