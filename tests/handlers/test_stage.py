"""Staging: only what is not online is asked for, and where each file is decides, not what the stager says."""

from __future__ import annotations

import msgspec
import pytest

from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.handlers.stage import LATE_S, OVER, Release, Stage, locality, staging, staging_again
from aglowd.model import Do, Done, EffectRecord, Json, Outcome, Seen, StepView, Subject, Wait

from .conftest import NOW, STEP, done_all, ended, params, rejected, seen, the_failure, the_wait

SURLS = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(20))


def react(seen_: Seen, surls: tuple[str, ...] = SURLS, **values: Json) -> Outcome:
    return Stage().react(STEP, params(Stage, surls=surls, **values), seen_)


def look(occasion: int, surls: tuple[str, ...] = SURLS) -> Subject:
    return locality(surls, f"{STEP.key}/{occasion}")


def progress(status: str, done: int | None = 5) -> Json:
    return {"status": status, "done": done, "total": 20, "percent": 25.0}


def request(number: int, surls: tuple[str, ...], ordinal: int = 0) -> EffectRecord:
    return ended(StageFiles(surls=surls, ordinal=ordinal), {"request": number})


def test_the_first_thing_is_to_look() -> None:
    outcome = Stage().start(STEP, params(Stage, surls=SURLS))
    assert the_wait(outcome, look(0)) == "looking which of 20 files are online"
    assert look(0).args == {"surls": list(SURLS)}
    other = StepView(STEP.run, STEP.name, STEP.field, 2)
    again = Stage().start(other, params(Stage, surls=SURLS))
    assert again.subjects[0].key != outcome.subjects[0].key, "another attempt looks anew"


@pytest.mark.parametrize(("missing", "is_enough"), [(0, True), (1, True), (2, False), (20, False)])
def test_what_is_online_is_not_asked_for(missing: int, is_enough: bool) -> None:
    gone = list(SURLS[:missing])
    outcome = react(seen({look(0).key: {"missing": gone}}))
    if is_enough:
        outputs = {"requests": [], "surls": list(SURLS[missing:]), "online": 20 - missing, "missing": gone}
        assert outcome == Done(outputs)
    else:
        assert outcome == Do((StageFiles(surls=tuple(gone), besides=SURLS[missing:]),))


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_threshold_is_reached_when_it_is_met_exactly(percent: int) -> None:
    surls = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(100))
    threshold = percent / 100
    met = react(seen({look(0, surls).key: {"missing": list(surls[percent:])}}), surls, threshold=threshold)
    assert isinstance(met, Done)
    short = react(seen({look(0, surls).key: {"missing": list(surls[percent - 1 :])}}), surls, threshold=threshold)
    assert isinstance(short, Do)


@pytest.mark.parametrize("count", range(20, 500, 20))
def test_95_of_a_hundred_is_enough_whatever_the_number(count: int) -> None:
    surls = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(count))
    assert isinstance(react(seen({look(0, surls).key: {"missing": list(surls[: count // 20])}}), surls), Done)
    assert isinstance(react(seen({look(0, surls).key: {"missing": list(surls[: count // 20 + 1])}}), surls), Do)


def test_a_whole_life_with_two_requests() -> None:
    gone = list(SURLS[:4])
    first = react(seen({look(0).key: {"missing": gone}}))
    facts = {look(0).key: {"missing": gone}}
    rows = done_all(first, {"request": 12})
    assert the_wait(react(seen(facts, *rows)), staging(12)) == "LTA request 12: just made"
    for status in ("new", "scheduled", "in progress"):
        facts[staging(12).key] = progress(status)
        assert the_wait(react(seen(facts, *rows)), staging(12)) == f"LTA request 12, {status}: 5 of 20 files online"
    facts[staging(12).key] = progress("on hold")
    on_hold = react(seen(facts, *rows))
    assert "on hold: the site is in maintenance" in the_wait(on_hold, staging(12))
    facts[staging(12).key] = progress("partial success")
    assert the_wait(react(seen(facts, *rows)), look(1)) == "looking which of 20 files are online"
    facts[look(1).key] = {"missing": gone[:2]}
    second = react(seen(facts, *rows))
    assert second == Do((StageFiles(surls=tuple(gone[:2]), besides=SURLS[2:], ordinal=1),)), (
        "only the rest is asked for"
    )
    rows += done_all(second, {"request": 13})
    the_wait(react(seen(facts, *rows)), staging(13))
    facts[staging(13).key] = progress("success")
    the_wait(react(seen(facts, *rows)), look(2))
    facts[look(2).key] = {"missing": gone[:1]}
    outcome = react(seen(facts, *rows))
    assert outcome == Done({"requests": [12, 13], "surls": list(SURLS[1:]), "online": 19, "missing": gone[:1]})


@pytest.mark.parametrize("status", sorted(OVER))
def test_when_the_stager_is_through_the_files_are_looked_at(status: str) -> None:
    facts = {look(0).key: {"missing": list(SURLS)}, staging(12).key: progress(status, None)}
    row = request(12, SURLS)
    the_wait(react(seen(facts, row)), look(1))
    facts[look(1).key] = {"missing": list(SURLS)}
    assert react(seen(facts, row)) == Do((StageFiles(surls=SURLS, ordinal=1),)), "success is a hint, no proof"
    facts[look(1).key] = {"missing": []}
    assert isinstance(react(seen(facts, row)), Done), "and neither is failure"


def test_a_request_that_is_shown_late_is_not_gone() -> None:
    made = msgspec.structs.replace(request(12, SURLS), intended_at=NOW)
    facts = {look(0).key: {"missing": list(SURLS)}, staging(12).key: progress("gone", None)}
    early = react(seen(facts, made, now=NOW + LATE_S - 60))
    assert the_wait(early, staging(12)) == "LTA request 12: just made, and not shown yet"
    assert isinstance(early, Wait)
    assert early.due_s == 60
    later = NOW + LATE_S
    late = react(seen(facts, made, now=later))
    assert the_wait(late, staging_again(12)) == "LTA request 12: not shown so far, looking once more"
    facts[staging_again(12).key] = progress("in progress")
    assert the_wait(react(seen(facts, made, now=later)), staging_again(12)).startswith("LTA request 12, in progress")
    facts[staging_again(12).key] = progress("gone", None)
    the_wait(react(seen(facts, made, now=later)), look(1))
    del facts[staging_again(12).key]
    facts[staging(12).key] = progress("failed", None)
    the_wait(react(seen(facts, made)), look(1))


def test_a_request_that_was_seen_to_be_gone_long_after_it_was_made_is_gone() -> None:
    made = msgspec.structs.replace(request(12, SURLS), intended_at=NOW - LATE_S)
    facts = {look(0).key: {"missing": list(SURLS)}, staging(12).key: progress("gone", None)}
    the_wait(react(seen(facts, made)), look(1))


def test_a_request_that_was_found_done_already_has_no_id() -> None:
    row = ended(StageFiles(surls=SURLS), {"request": None})
    facts = {look(0).key: {"missing": list(SURLS)}}
    the_wait(react(seen(facts, row)), look(1))
    outcome = react(seen({**facts, look(1).key: {"missing": []}}, row))
    assert isinstance(outcome, Done)
    assert outcome.outputs["requests"] == []


@pytest.mark.parametrize("most", [1, 3])
def test_asking_has_an_end_and_names_what_is_missing(most: int) -> None:
    rows = [request(number, SURLS, number) for number in range(most)]
    facts = {
        look(most).key: {"missing": list(SURLS[:12])},
        **{staging(number).key: progress("gone") for number in range(most)},
    }
    reason = the_failure(react(seen(facts, *rows), requests=most))
    assert reason.startswith(f"after {most} requests only 8 of 20 files are online; missing: L1_SB000_uv.tar, ")
    assert reason.endswith(", L1_SB009_uv.tar and 2 more")


def test_a_request_that_is_refused_for_good_fails_the_attempt() -> None:
    reason = the_failure(react(seen({look(0).key: {"missing": list(SURLS)}}, rejected(StageFiles(surls=SURLS)))))
    assert reason == "stage files: it is forbidden"


def test_a_cancelled_step_gives_its_requests_back_once() -> None:
    handler, values = Stage(), params(Stage, surls=SURLS)
    assert handler.stop(STEP, values, seen()) is None
    rows = [request(12, SURLS), ended(StageFiles(surls=SURLS, ordinal=1), {"request": None}), request(14, SURLS, 2)]
    outcome = handler.stop(STEP, values, seen({}, *rows))
    assert outcome == Do((ReleaseFiles(request=12, ordinal=0), ReleaseFiles(request=14, ordinal=1)))
    assert outcome is not None
    assert handler.stop(STEP, values, seen({}, *rows, *done_all(outcome, {}, {}))) is None
    assert handler.stop(STEP, values, seen({}, rejected(StageFiles(surls=SURLS)))) is None


def test_releasing() -> None:
    handler, values = Release(), params(Release, requests=[12, 13])
    outcome = handler.start(STEP, values)
    assert outcome == Do((ReleaseFiles(request=12), ReleaseFiles(request=13, ordinal=1)))
    rows = done_all(outcome, {"released": True}, {"released": False})
    assert handler.react(STEP, values, seen({}, *rows)) == Done({"released": 2})
    assert handler.start(STEP, params(Release, requests=[])) == Done({"released": 0})
    bad = (rows[0], rejected(ReleaseFiles(request=13, ordinal=1)))
    assert the_failure(handler.react(STEP, values, seen({}, *bad))) == "release files: it is forbidden"
    assert handler.stop(STEP, values, seen({}, *rows)) is None
