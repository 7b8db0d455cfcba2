"""Submitting pilots: as many as there are tokens, within the limits, and never with a proxy that is too short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.handlers.submit import PROXY, Pilots, Submit, submissions
from aglowd.model import Do, Done, Json, Outcome, Seen

from .conftest import NOW, STEP, done_all, params, rejected, seen, the_failure, the_wait

PILOTS: dict[str, Json] = {
    "executable": "/bin/sh",
    "arguments": ["run.sh"],
    "requirements": "true",
    "nodes_per_submission": 50,
    "max_pilots": 120,
    "proxy_minimum": "12h",
}
TWELVE_H = 12 * 3600.0


def react(seen_: Seen, tokens: int = 110) -> Outcome:
    return Submit().react(STEP, params(Submit, token_type="t", tokens=tokens, pilots=PILOTS), seen_)


def proxy(left_s: float) -> dict[str, Json]:
    return {PROXY.key: {"valid_until": NOW + left_s}}


def test_a_whole_life() -> None:
    values = params(Submit, token_type="t", tokens=110, pilots=PILOTS)
    assert the_wait(Submit().start(STEP, values), PROXY) == "looking at the grid proxy"
    outcome = react(seen(proxy(TWELVE_H)))
    common = {"executable": "/bin/sh", "arguments": ("run.sh", "--type", "t"), "requirements": "true"}
    assert outcome == Do(
        tuple(SubmitJobs(nodes=nodes, ordinal=ordinal, **common) for ordinal, nodes in enumerate((50, 50, 10)))
    )
    rows = done_all(outcome, *({"job": f"https://w/{number}", "nodes": 1} for number in range(3)))
    done = react(seen(proxy(0), *rows))
    assert done == Done({"jobs": ["https://w/0", "https://w/1", "https://w/2"]})


@pytest.mark.parametrize(("left_s", "told"), [(TWELVE_H - 1, "11h 59m"), (3600, "1h"), (0, "0s"), (-500, "0s")])
def test_a_proxy_that_is_too_short_is_waited_for(left_s: float, told: str) -> None:
    reason = the_wait(react(seen(proxy(left_s))), PROXY)
    assert reason == f"the proxy has {told} left, submissions need 12h: renew it"


def test_a_proxy_gets_shorter_while_one_waits() -> None:
    assert isinstance(react(seen(proxy(TWELVE_H))), Do)
    the_wait(react(seen(proxy(TWELVE_H), now=NOW + 1)), PROXY)


def test_a_submission_that_is_refused_for_good_fails_the_step() -> None:
    effect = SubmitJobs(nodes=1, executable="x", arguments=())
    assert the_failure(react(seen(proxy(TWELVE_H), rejected(effect)))) == "submit jobs: it is forbidden"


def test_a_cancelled_step_cancels_its_pilots_once() -> None:
    values = params(Submit, token_type="t", tokens=60, pilots=PILOTS)
    outcome = react(seen(proxy(TWELVE_H)), tokens=60)
    assert isinstance(outcome, Do)
    rows = (*done_all(Do(outcome.effects[:1]), {"job": "https://w/0"}), rejected(outcome.effects[1]))
    left = Submit().stop(STEP, values, seen({}, *rows))
    assert left == Do((CancelJobs(job="https://w/0"),))
    assert Submit().stop(STEP, values, seen({}, *rows, *done_all(left, {}))) is None
    assert Submit().stop(STEP, values, seen()) is None


def test_no_tokens_need_no_pilots() -> None:
    assert react(seen(proxy(TWELVE_H)), tokens=0) == Done({"jobs": []})


@given(st.integers(1, 700), st.integers(1, 60), st.integers(1, 400), st.integers(0, 3))
def test_the_pilots_of_a_round(tokens: int, nodes: int, most: int, round_: int) -> None:
    pilots = Pilots("/bin/sh", (), nodes_per_submission=nodes, max_pilots=most)
    effects = list(submissions(pilots, "t", tokens, round_))
    assert sum(effect.nodes for effect in effects) == min(tokens, most)
    assert all(1 <= effect.nodes <= nodes for effect in effects)
    assert [effect.ordinal for effect in effects] == [round_ * 1000 + number for number in range(len(effects))]
