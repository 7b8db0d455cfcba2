"""Releasing: pins are kept while they are needed, and given back however the steps ended that needed them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.handlers.release import GROUP_FILES, REASK_S, RENEWALS_AT_ONCE, ROUNDS, Release, step_end
from aglowd.model import Do, Done, Effect, EffectRecord, Failed, Json, Observation, Outcome, Seen, Wait

from .conftest import NOW, STEP, ended, params, rejected

DAY_S = 86_400.0
SURLS = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(350))
KEPT = {"requests": [12, 13], "site": "sara", "surls": list(SURLS), "since": NOW, "until": ["check"]}
GIVEN = (ReleaseFiles(request=12, site="sara"), ReleaseFiles(request=13, site="sara", ordinal=1))


def react(*rows: EffectRecord, now: float = NOW, facts: dict[str, Json] | None = None, **values: Json) -> Outcome:
    seen = Seen({key: Observation(1, NOW, data) for key, data in (facts or {}).items()}, rows, now)
    return Release().react(STEP, params(Release, **values), seen)


def at(row: EffectRecord, moment: float) -> EffectRecord:
    return msgspec.structs.replace(row, intended_at=moment)


def done(effects: tuple[Effect, ...], *results: Json) -> tuple[EffectRecord, ...]:
    return tuple(ended(effect, result) for effect, result in zip(effects, results, strict=True))


def over(request: int, rounds: int = 1, status: str = "aborted") -> dict[str, Json]:
    return {f"staging:sara/{request}/released {rounds}": {"status": status}}


ENDED = {step_end(STEP.run, "check").key: {"state": "done"}}


def test_files_are_kept_while_they_are_needed() -> None:
    outcome = react(**KEPT)
    assert isinstance(outcome, Wait)
    assert [one.key for one in outcome.subjects] == [f"step:{STEP.run}/check", f"window:{STEP.key}/held"]
    assert outcome.subjects[1].args == {"site": "sara", "files": 350, "priority": 0, "held": True}
    assert outcome.reason == "350 files are kept online for check"
    assert outcome.due_s == DAY_S, "it looks up once a day"


def test_pins_are_renewed_in_groups_before_they_run_out_and_again_after_that() -> None:
    first = react(now=NOW + 0.8 * 7 * DAY_S, **KEPT)
    groups = (SURLS[:GROUP_FILES], SURLS[GROUP_FILES:])
    wanted = tuple(StageFiles(surls=g, site="sara", renews=True, ordinal=n) for n, g in enumerate(groups))
    assert first == Do(wanted)
    made = NOW + 0.8 * 7 * DAY_S
    rows = tuple(at(row, made) for row in done(wanted, {"request": 20}, {"request": 21}))
    again = react(*rows, now=made + 60, **KEPT)
    assert isinstance(again, Wait)
    assert again.due_s == DAY_S
    nearly = react(*rows, now=made + 0.8 * 7 * DAY_S - 60, **KEPT)
    assert isinstance(nearly, Wait)
    assert nearly.due_s == pytest.approx(60)
    later = react(*rows, now=made + 0.8 * 7 * DAY_S, **KEPT)
    assert isinstance(later, Do)
    assert [effect.ordinal for effect in later.effects] == [2, 3]


def test_a_renewal_that_is_refused_is_asked_for_again() -> None:
    made = NOW + 6 * DAY_S
    few = {**KEPT, "surls": SURLS[:9]}
    refused = at(rejected(StageFiles(surls=SURLS[:9], site="sara", renews=True)), made)
    outcome = react(refused, now=made + 1, **few)
    assert isinstance(outcome, Wait)
    assert outcome.due_s == REASK_S - 1
    assert isinstance(react(refused, now=made + REASK_S, **few), Do)


def test_a_group_that_was_refused_is_asked_for_again_though_another_was_renewed() -> None:
    made = NOW + 6 * DAY_S
    first, second = (
        StageFiles(surls=group, site="sara", renews=True, ordinal=number)
        for number, group in enumerate((SURLS[:GROUP_FILES], SURLS[GROUP_FILES:]))
    )
    rows = (at(ended(first, {"request": 20}), made), at(rejected(second), made))
    assert react(*rows, now=made + REASK_S, **KEPT) == Do((msgspec.structs.replace(second, ordinal=2),))


@pytest.mark.parametrize("state", ["done", "failed", "skipped", "cancelled"])
def test_however_they_ended_the_files_are_given_back(state: str) -> None:
    facts: dict[str, Json] = {step_end(STEP.run, "check").key: {"state": state}}
    assert react(facts=facts, **KEPT) == Do(GIVEN)
    rows = done(GIVEN, {"released": True}, {"released": True})
    look = react(*rows, facts=facts, **KEPT)
    assert isinstance(look, Wait), "whether they are over is looked at"
    assert [one.args for one in look.subjects] == [{"site": "sara", "request": number} for number in (12, 13)]
    assert react(*rows, facts={**facts, **over(12), **over(13, status="gone")}, **KEPT) == Done(
        {"released": 2, "left": {}}
    )


def test_one_of_several_steps_is_not_enough() -> None:
    assert isinstance(react(facts=ENDED, **{**KEPT, "until": ["check", "other"]}), Wait)


def test_renewed_requests_are_given_back_too() -> None:
    renewed = ended(StageFiles(surls=SURLS, site="sara", renews=True), {"request": 20})
    nothing = ended(StageFiles(surls=SURLS, site="sara", renews=True, ordinal=1), {"request": None})
    outcome = react(renewed, nothing, facts=ENDED, **KEPT)
    assert isinstance(outcome, Do)
    assert [effect.request for effect in outcome.effects if isinstance(effect, ReleaseFiles)] == [12, 13, 20]


def test_what_goes_on_is_given_back_again_and_named_in_the_end() -> None:
    rows: tuple[EffectRecord, ...] = ()
    facts = dict(ENDED)
    for number in range(1, ROUNDS + 1):
        outcome: Any = react(*rows, facts=facts, **KEPT)
        assert isinstance(outcome, Do), number
        assert [effect.ordinal for effect in outcome.effects] == [2 * number - 2, 2 * number - 1]
        rows += done(outcome.effects, {"released": True}, {"released": True})
        facts |= {**over(12, number, "in progress"), **over(13, number)}
    assert react(*rows, facts=facts, **KEPT) == Done({"released": 1, "left": {"12": "in progress"}})


def test_what_the_stager_has_forgotten_is_given_back() -> None:
    rows = done(GIVEN, {"released": False, "why": "unknown"}, {"released": False, "why": "unknown"})
    assert react(*rows, facts=ENDED, **KEPT) == Done({"released": 2, "left": {}})


def test_without_steps_to_wait_for_they_are_given_back_at_once() -> None:
    assert react(requests=[12, 13], site="sara") == Do(GIVEN)
    assert react(requests=[]) == Done({"released": 0, "left": {}})
    uuid = "6f1c3a9e-0c55-4a3e-9b7b-3f1c3a9e0c55"
    assert react(requests=[uuid], site="sara") == Do((ReleaseFiles(request=uuid, site="sara"),))


def test_a_refused_release_is_tried_again_and_named_in_the_end() -> None:
    """It is no reason to call a field failed whose results are archived."""
    rows: tuple[EffectRecord, ...] = ()
    facts: dict[str, Json] = {}
    given, now = {"requests": [12, 13], "site": "sara"}, NOW
    for number in range(1, ROUNDS + 1):
        outcome: Any = react(*rows, facts=facts, now=now, **given)
        assert isinstance(outcome, Do), number
        rows += (at(ended(outcome.effects[0], {"released": True}), now), at(rejected(outcome.effects[1]), now))
        facts |= over(12, number)
        if number < ROUNDS:
            waiting = react(*rows, facts=facts, now=now + 1, **given)
            assert isinstance(waiting, Wait)
            assert waiting.due_s == REASK_S - 1
            assert waiting.reason == "1 requests go on: 13: it is forbidden"
        now += REASK_S
    assert react(*rows, facts=facts, now=now, **given) == Done({"released": 1, "left": {"13": "it is forbidden"}})


def test_what_nobody_of_us_has_pinned_is_pinned_at_once() -> None:
    """It was online for somebody else, who may give it back before it has been used."""
    outcome = react(**{**KEPT, "pinned": list(SURLS[:240])})
    assert outcome == Do((StageFiles(surls=SURLS[240:], site="sara", besides=SURLS[:240], renews=True),))
    row = at(ended(StageFiles(surls=SURLS[240:], site="sara", renews=True), {"request": 20}), NOW)
    waiting = react(row, **{**KEPT, "pinned": list(SURLS[:240])})
    assert isinstance(waiting, Wait)
    assert isinstance(react(**{**KEPT, "pinned": list(SURLS)}), Wait)


def test_renewals_of_a_long_list_follow_one_another() -> None:
    many = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:04d}_uv.tar" for number in range(9 * GROUP_FILES))
    values, now, rows = {**KEPT, "surls": list(many)}, NOW + 6 * DAY_S, ()
    first: Any = react(now=now, **values)
    assert len(first.effects) == RENEWALS_AT_ONCE
    rows = tuple(at(row, now) for row in done(first.effects, *({"request": 20 + n} for n in range(RENEWALS_AT_ONCE))))
    second: Any = react(*rows, now=now, **values)
    assert len(second.effects) == 9 - RENEWALS_AT_ONCE
    assert {surl for do in (first, second) for effect in do.effects for surl in effect.surls} == set(many)


def test_a_step_that_does_not_exist_is_no_reason_to_give_files_back() -> None:
    facts: dict[str, Json] = {step_end(STEP.run, "check").key: {"state": "absent"}}
    outcome = react(facts=facts, **KEPT)
    assert outcome == Failed("the pipeline has no step check, which `until` names", final=True)


def test_a_cancelled_step_gives_everything_back_once() -> None:
    handler, values = Release(), params(Release, **KEPT)
    outcome: Any = handler.stop(STEP, values, Seen())
    assert outcome == Do(GIVEN)
    assert handler.stop(STEP, values, Seen({}, done(GIVEN, {}, {}))) is None
