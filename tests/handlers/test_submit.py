"""Submitting pilots: as many as there are tokens, within the limits, and never with a proxy that is too short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.handlers.pilots import PROXY, Pilots, submissions, turn_of
from aglowd.handlers.submit import Submit
from aglowd.model import Do, Done, Json, Outcome, Seen, Subject

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


def turn(want: int = 110) -> Subject:
    return turn_of(STEP, 0, "", want)


def proxy(left_s: float, granted: int = 110) -> dict[str, Json]:
    return {PROXY.key: {"valid_until": NOW + left_s}, turn().key: {"pilots": granted, "why": "there are enough"}}


def test_a_whole_life() -> None:
    values = params(Submit, token_type="t", tokens=110, pilots=PILOTS)
    assert the_wait(Submit().start(STEP, values), PROXY) == "looking at the grid proxy"
    asked = the_wait(react(seen({PROXY.key: {"valid_until": NOW + TWELVE_H}})), turn())
    assert asked == "asking whether 110 pilots may be started"
    assert turn().args == {"site": "", "want": 110, "priority": 0}
    outcome = react(seen(proxy(TWELVE_H)))
    common = {"executable": "/bin/sh", "arguments": ("run.sh", "--type", "t"), "requirements": "true"}
    assert outcome == Do(
        tuple(SubmitJobs(nodes=nodes, ordinal=ordinal, **common) for ordinal, nodes in enumerate((50, 50, 10)))
    )
    rows = done_all(outcome, *({"jobs": [f"https://w/{number}"], "nodes": 1} for number in range(3)))
    done = react(seen(proxy(0), *rows))
    assert done == Done({"jobs": ["https://w/0", "https://w/1", "https://w/2"]})


@pytest.mark.parametrize(
    ("left_s", "told"),
    [
        (TWELVE_H - 1, "is good until 2027-01-15T19:59:59Z"),
        (3600, "is good until 2027-01-15T09:00:00Z"),
        (0, "has ended at 2027-01-15T08:00:00Z"),
        (-500, "has ended at 2027-01-15T07:51:40Z"),
    ],
)
def test_a_proxy_that_is_too_short_is_waited_for(left_s: float, told: str) -> None:
    reason = the_wait(react(seen({PROXY.key: {"valid_until": NOW + left_s}})), PROXY)
    assert reason == f"the proxy {told}, submissions need 12h: renew it"


def test_pilots_of_a_project_wait_for_its_own_proxy() -> None:
    own = {**PILOTS, "proxy": "/p/surveys"}
    subject = Subject("proxy", "/p/surveys", {"path": "/p/surveys"})
    values = params(Submit, token_type="t", tokens=110, pilots=own)
    assert the_wait(Submit().start(STEP, values), subject) == "looking at the grid proxy /p/surveys"
    common = {PROXY.key: {"valid_until": NOW + 10 * TWELVE_H}}
    short = Submit().react(STEP, values, seen(common | {subject.key: {"valid_until": NOW + 3600}}))
    assert (
        the_wait(short, subject)
        == "the proxy /p/surveys is good until 2027-01-15T09:00:00Z, submissions need 12h: renew it"
    )
    good = {subject.key: {"valid_until": NOW + TWELVE_H}}
    the_wait(Submit().react(STEP, values, seen(good)), turn())
    granted = {turn().key: {"pilots": 110, "why": ""}}
    assert isinstance(Submit().react(STEP, values, seen(good | granted)), Do)
    the_wait(Submit().react(STEP, values, seen(good | granted, now=NOW + 1)), subject, turn())


def test_a_proxy_gets_shorter_while_one_waits() -> None:
    assert isinstance(react(seen(proxy(TWELVE_H))), Do)
    the_wait(react(seen(proxy(TWELVE_H), now=NOW + 1)), PROXY, turn())
    # A turn that was granted is kept by waiting for it.


def test_only_as_many_are_started_as_there_is_room_for() -> None:
    outcome = react(seen(proxy(TWELVE_H, granted=30)))
    assert isinstance(outcome, Do)
    assert [effect.nodes for effect in outcome.effects if isinstance(effect, SubmitJobs)] == [30]
    assert the_wait(react(seen(proxy(TWELVE_H, granted=0))), turn()) == (
        "no pilot may be started now: there are enough"
    )


def test_where_no_proxy_is_needed_none_is_asked_for() -> None:
    values = params(Submit, token_type="t", tokens=1, site="spider", pilots={**PILOTS, "proxy_minimum": ""})
    outcome = Submit().start(STEP, values)
    assert the_wait(outcome, turn_of(STEP, 0, "spider", 1)) == "asking whether 1 pilots may be started"


def test_where_others_start_the_pilots_nothing_is_submitted() -> None:
    values = params(Submit, token_type="t", tokens=5, pilots={**PILOTS, "max_pilots": 0})
    assert Submit().start(STEP, values) == Done({"jobs": []})


def test_a_submission_that_is_refused_for_good_fails_the_step() -> None:
    effect = SubmitJobs(nodes=1, executable="x", arguments=())
    assert the_failure(react(seen(proxy(TWELVE_H), rejected(effect)))) == "submit jobs: it is forbidden"


def test_what_was_accepted_beside_a_refusal_is_cancelled_before_the_step_fails() -> None:
    first = react(seen(proxy(TWELVE_H)))
    assert isinstance(first, Do)
    rows = (
        *done_all(Do(first.effects[:1]), {"jobs": ["https://w/0"], "nodes": 50}),
        *(rejected(effect) for effect in first.effects[1:]),
    )
    outcome = react(seen(proxy(TWELVE_H), *rows))
    assert outcome == Do((CancelJobs(job="https://w/0"),))
    ended = done_all(outcome, {"job": "https://w/0", "known": True})
    assert the_failure(react(seen(proxy(TWELVE_H), *rows, *ended))) == "submit jobs: it is forbidden"


def test_a_cancelled_step_cancels_its_pilots_once() -> None:
    values = params(Submit, token_type="t", tokens=60, pilots=PILOTS)
    granted = {turn_of(STEP, 0, "", 60).key: {"pilots": 60, "why": ""}}
    outcome = react(seen({**proxy(TWELVE_H), **granted}), tokens=60)
    assert isinstance(outcome, Do)
    rows = (*done_all(Do(outcome.effects[:1]), {"job": "https://w/0"}), rejected(outcome.effects[1]))
    left = Submit().stop(STEP, values, seen({}, *rows))
    assert left == Do((CancelJobs(job="https://w/0"),))
    assert Submit().stop(STEP, values, seen({}, *rows, *done_all(left, {}))) is None
    assert Submit().stop(STEP, values, seen()) is None


def test_no_tokens_need_no_pilots() -> None:
    assert react(seen(proxy(TWELVE_H)), tokens=0) == Done({"jobs": []})


@given(st.integers(1, 700), st.integers(1, 60), st.integers(0, 3))
def test_the_pilots_of_a_wave(count: int, nodes: int, wave: int) -> None:
    pilots = Pilots("/bin/sh", (), nodes_per_submission=nodes)
    effects = submissions(pilots, "sara", "t", count, wave, 7).effects
    assert all(isinstance(effect, SubmitJobs) for effect in effects)
    jobs = [effect for effect in effects if isinstance(effect, SubmitJobs)]
    assert sum(effect.nodes for effect in jobs) == count
    assert all(1 <= effect.nodes <= nodes for effect in jobs)
    assert {(effect.site, effect.after) for effect in jobs} == {("sara", 7)}
    assert [effect.ordinal for effect in jobs] == [wave * 1000 + number for number in range(len(jobs))]
