"""Releasing: pins are kept while they are needed, and given back however the steps ended that needed them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.handlers.release import GROUP_FILES, REASK_S, ROUNDS, Release, step_end
from aglowd.model import Do, Done, Effect, EffectRecord, Failed, Json, Observation, Outcome, Seen, Wait
from aglowd.pipeline_file import MAX_PRIORITY

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


def turn(ordinal: int, files: int) -> dict[str, Json]:
    return {f"window:{STEP.key}/{ordinal}": {"files": files, "why": "" if files else "sara stages 9 files at once"}}


def renewal(surls: Sequence[str], ordinal: int = 0) -> StageFiles:
    rest = tuple(surl for surl in SURLS if surl not in set(surls))
    return StageFiles(surls=tuple(surls), site="sara", besides=rest, renews=True, ordinal=ordinal)


def waits_for(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Wait), outcome
    return [one.key.removeprefix(f"window:{STEP.key}/") for one in outcome.subjects if one.kind == "window"]


def test_pins_are_renewed_before_they_run_out_and_again_after_that_each_in_its_turn() -> None:
    now = NOW + 0.8 * 7 * DAY_S
    asks = react(now=now, **KEPT)
    assert waits_for(asks) == ["held", "0"]
    assert isinstance(asks, Wait)
    assert asks.subjects[-1].args["files"] == GROUP_FILES
    assert asks.subjects[-1].args["priority"] > MAX_PRIORITY, "it comes before all that is staged"
    waiting = react(now=now, facts=turn(0, 0), **KEPT)
    assert isinstance(waiting, Wait)
    assert waiting.reason.endswith("300 pins are to be renewed, and wait for their turn: sara stages 9 files at once")
    first = react(now=now, facts=turn(0, 300), **KEPT)
    assert first == Do((renewal(SURLS[:300]),))
    rows = (at(ended(renewal(SURLS[:300]), {"request": 20}), now),)
    assert react(*rows, now=now, facts={**turn(0, 300), **turn(1, 40)}, **KEPT) == Do((renewal(SURLS[300:340], 1),))
    rows += (at(ended(renewal(SURLS[300:340], 1), {"request": 21}), now),)
    assert waits_for(react(*rows, now=now, facts=turn(0, 300), **KEPT)) == ["held", "2"], "as much as was granted"
    rows += (at(ended(renewal(SURLS[340:], 2), {"request": 22}), now + 50),)
    again = react(*rows, now=now + 60, **KEPT)
    assert waits_for(again) == ["held"], "the turns are given back"
    assert isinstance(again, Wait)
    assert again.due_s == DAY_S
    nearly = react(*rows, now=now + 0.8 * 7 * DAY_S - 60, **KEPT)
    assert isinstance(nearly, Wait)
    assert nearly.due_s == pytest.approx(60)
    assert react(*rows, now=now + 0.8 * 7 * DAY_S, facts=turn(3, 300), **KEPT) == Do((renewal(SURLS[:300], 3),))


def test_a_renewal_that_is_refused_is_asked_for_again() -> None:
    made = NOW + 6 * DAY_S
    refused = at(rejected(renewal(SURLS[:300])), made)
    facts = {**turn(1, 300), **turn(2, 300)}
    assert react(refused, now=made + 1, facts=facts, **KEPT) == Do((renewal(SURLS[300:], 1),)), "others need not wait"
    rows = (refused, at(ended(renewal(SURLS[300:], 1), {"request": 20}), made + 1))
    outcome = react(*rows, now=made + 2, facts=facts, **KEPT)
    assert isinstance(outcome, Wait)
    assert outcome.due_s == REASK_S - 2
    assert react(*rows, now=made + REASK_S, facts=facts, **KEPT) == Do((renewal(SURLS[:300], 2),))


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
    given = {**KEPT, "pinned": list(SURLS[:340])}
    assert react(facts=turn(0, 300), **given) == Do((renewal(SURLS[340:]),))
    row = at(ended(renewal(SURLS[340:]), {"request": 20}), NOW)
    assert waits_for(react(row, **given)) == ["held"]
    assert waits_for(react(**{**KEPT, "pinned": list(SURLS)})) == ["held"]
    assert waits_for(
        react(at(ended(renewal(SURLS[340:345]), {"request": 20, "also": list(SURLS[345:])}), NOW), **given)
    ) == ["held"]


def test_a_step_that_does_not_exist_is_no_reason_to_give_files_back() -> None:
    facts: dict[str, Json] = {step_end(STEP.run, "check").key: {"state": "absent"}}
    outcome = react(facts=facts, **KEPT)
    assert outcome == Failed("the pipeline has no step check, which `until` names", final=True)


def test_a_cancelled_step_gives_everything_back_once() -> None:
    handler, values = Release(), params(Release, **KEPT)
    outcome: Any = handler.stop(STEP, values, Seen())
    assert outcome == Do(GIVEN)
    assert handler.stop(STEP, values, Seen({}, done(GIVEN, {}, {}))) is None
