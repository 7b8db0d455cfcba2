"""Staging: only what is on tape is asked for, as much as may be, and where each file is decides, not what a stager says."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.handlers.stage import AGAIN_S, LATE_S, OVER, Stage, locality, staging, staging_again, staging_still
from aglowd.model import Do, Done, EffectRecord, Failed, Json, Observation, Outcome, Seen, StepView, Subject, Wait

from .conftest import NOW, STEP, ended, params, rejected, the_failure

DAY_S = 86_400.0
SURLS = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(20))


class Story:
    """What a step has seen so far, told as it happens."""

    def __init__(self, surls: tuple[str, ...] = SURLS, **values: Json) -> None:
        self.surls = surls
        self.params = params(Stage, surls=surls, **values)
        self.facts: dict[str, Observation] = {}
        self.rows: list[EffectRecord] = []
        self.now = NOW
        self.ended = 0

    def see(self, subject: Subject | str, data: Json) -> Story:
        self.facts[subject if isinstance(subject, str) else subject.key] = Observation(1, self.now, data)
        return self

    def missing(self, *surls: str, away: dict[str, str] | None = None, occasion: str = "") -> Story:
        """The files that are not online at the latest occasion."""
        at = occasion or f"{len([row for row in self.rows if row.kind == 'stage_files'])}.{self.ended}"
        return self.see(self.look(at), {"missing": list(surls), "away": away or {}, "copies": {}, "counts": {}})

    def look(self, occasion: str) -> Subject:
        return locality("sara", self.surls, f"{STEP.key}/{occasion}")

    def turn(self, files: int, why: str = "", ordinal: int = 0) -> Story:
        return self.see(f"window:{STEP.key}/{ordinal}", {"files": files, "why": why})

    def request(self, number: int | None, *surls: str, at: float | None = None) -> Story:
        """A request that was made for these files."""
        made = StageFiles(surls=surls, site="sara", ordinal=len(self.rows))
        row = ended(made, {"request": number})
        self.rows.append(msgspec.structs.replace(row, intended_at=self.now if at is None else at))
        return self

    def status(self, number: int, status: str, done: int | None = 5, total: int | None = 20) -> Story:
        return self.see(staging("sara", number), {"status": status, "done": done, "total": total, "percent": 25.0})

    def over(self, number: int, status: str = "success") -> Story:
        self.ended += 1
        return self.status(number, status)

    def react(self) -> Outcome:
        return Stage().react(STEP, self.params, Seen(self.facts, tuple(self.rows), self.now))


def the_wait(outcome: Outcome, *subjects: Subject | str) -> str:
    """The reason of a wait for just these subjects."""
    assert isinstance(outcome, Wait), outcome
    wanted = [subject if isinstance(subject, str) else subject.key for subject in subjects]
    assert [subject.key for subject in outcome.subjects] == wanted
    assert outcome.due_s > 0
    return outcome.reason


def window(ordinal: int) -> str:
    return f"window:{STEP.key}/{ordinal}"


def test_the_first_thing_is_to_look() -> None:
    story = Story()
    assert the_wait(story.react(), story.look("0.0")) == "looking which of 20 files are online"
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert outcome.subjects[0].args == {"site": "sara", "surls": list(SURLS)}
    other = StepView(STEP.run, STEP.name, STEP.field, 2)
    again = Stage().start(other, params(Stage, surls=SURLS))
    assert isinstance(again, Wait)
    assert again.subjects[0].key != story.look("0.0").key, "another attempt looks anew"


@pytest.mark.parametrize("missing", [0, 1])
def test_what_is_online_is_not_asked_for(missing: int) -> None:
    outcome = Story().missing(*SURLS[:missing]).react()
    assert outcome == Done(
        {"site": "sara", "requests": [], "surls": list(SURLS[missing:]), "online": 20 - missing,
         "missing": list(SURLS[:missing]), "away": {}, "excluded": [], "replaced": {}, "pinned": [], "since": NOW}
    )  # fmt: skip


def test_a_list_of_which_everything_is_excluded_is_a_mistake() -> None:
    outcome = Stage().start(STEP, params(Stage, surls=SURLS, exclude=["L1"]))
    assert outcome == Failed("`exclude` leaves none of 20 files", final=True)


def test_what_is_on_tape_waits_for_its_turn_and_is_asked_for_as_far_as_it_may_be() -> None:
    story = Story().missing(*SURLS[:8])
    reason = the_wait(story.react(), story.look("0.0"), window(0))
    assert reason == "12 of 20 files online; 8 files wait for their turn: how much may be asked for is not known yet"
    outcome = story.react()
    assert isinstance(outcome, Wait)
    asked = {"site": "sara", "files": 8, "priority": 0, "since": NOW, "effect": f"{STEP.key}/stage_files/0"}
    assert outcome.subjects[1].args == asked
    told = {"missing": list(SURLS[:8]), "away": {}, "copies": {}, "counts": {}, "file_bytes": 7}
    outcome = Story().see(story.look("0.0"), told).react()
    assert isinstance(outcome, Wait)
    assert outcome.subjects[1].args == {**asked, "file_bytes": 7}, "where the site tells how large they are"
    reason = the_wait(story.turn(0, "sara stages 5000 files at once").react(), story.look("0.0"), window(0))
    assert reason.endswith("8 files wait for their turn: sara stages 5000 files at once")
    assert story.turn(5).react() == Do((StageFiles(surls=SURLS[:5], site="sara", besides=SURLS[5:]),))


def test_a_turn_that_was_granted_in_vain_is_held_and_never_used_after_it_was_given_back() -> None:
    story = Story().missing(*SURLS, away=dict.fromkeys(SURLS, "UNAVAILABLE")).turn(20)
    the_wait(story.react(), story.look("0.0"), window(0))
    assert isinstance(story.missing(*SURLS).react(), Do)


def test_a_large_list_becomes_several_requests_that_count_as_one() -> None:
    story = Story().missing(*SURLS).turn(12)
    assert story.react() == Do((StageFiles(surls=SURLS[:12], site="sara", besides=SURLS[12:]),))
    story.request(1, *SURLS[:12]).missing(*SURLS)
    the_wait(story.react(), story.look("1.0"), staging("sara", 1), window(0), window(1))
    assert story.turn(8, ordinal=1).react() == Do(
        (StageFiles(surls=SURLS[12:], site="sara", besides=SURLS[:12], ordinal=1),)
    )
    story.request(2, *SURLS[12:]).missing(*SURLS[6:])
    story.status(1, "in progress", 6, 12).status(2, "scheduled", 0, 8)
    reason = the_wait(story.react(), story.look("2.0"), staging("sara", 1), staging("sara", 2), window(0), window(1))
    assert reason == (
        "6 of 20 files online; request 1 at sara: in progress, 6 of 12 files; request 2 at sara: scheduled, 0 of 8 files"
    )
    story.over(1)
    the_wait(story.react(), story.look("2.1"), staging("sara", 2), window(1))  # The turn of the first is given back.
    story.over(2)
    outcome = story.missing().react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["requests"] == [1, 2]


def test_a_request_that_is_for_more_than_its_turn_is_waited_for_and_counted() -> None:
    """AGLOW's own, say: its other files are not asked for while it runs, and again only after a pause."""
    story = Story().missing(*SURLS).turn(5).request(1, *SURLS[:5]).status(1, "in progress", 0, 20).missing(*SURLS)
    story.rows[-1] = msgspec.structs.replace(story.rows[-1], result={"request": 1, "also": list(SURLS[5:18])})
    outcome = story.react()
    assert the_wait(outcome, story.look("1.0"), staging("sara", 1), window(0), window(1))
    assert isinstance(outcome, Wait)
    assert [one.args.get("also") for one in outcome.subjects] == [None, None, 13, None]
    assert outcome.subjects[3].args["files"] == 2, "what the request is not for"
    story.over(1).missing(*SURLS[15:], occasion="1.1").turn(5, ordinal=1)
    story.now = NOW + AGAIN_S - 1
    assert story.react() == Do((StageFiles(surls=SURLS[18:], site="sara", besides=SURLS[:18], ordinal=1),))
    story.now = NOW + AGAIN_S
    assert story.react() == Do((StageFiles(surls=SURLS[15:], site="sara", besides=SURLS[:15], ordinal=1),))


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_threshold_is_reached_when_it_is_met_exactly(percent: int) -> None:
    surls = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(100))
    met = Story(surls, threshold=percent / 100).missing(*surls[percent:])
    assert isinstance(met.react(), Done)
    short = Story(surls, threshold=percent / 100).missing(*surls[percent - 1 :])
    assert isinstance(short.react(), Wait)


def test_late_files_are_waited_for_while_they_come() -> None:
    story = Story().request(7, *SURLS).status(7, "in progress", 19).missing(SURLS[0])
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert outcome.due_s == 7200, "enough are there, and the last one may come"
    story.now += 7199
    assert isinstance(story.react(), Wait)
    story.now += 1
    outcome = story.react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["missing"] == [SURLS[0]]
    assert outcome.outputs["requests"] == [7], "it runs on: late files may join later"
    at_once = Story(linger="0s").request(7, *SURLS).status(7, "in progress", 19).missing(SURLS[0])
    assert isinstance(at_once.react(), Done)
    nothing_runs = Story().request(7, *SURLS).over(7).missing(SURLS[0])
    assert isinstance(nothing_runs.react(), Done)


def test_a_whole_life_with_two_requests() -> None:
    gone = SURLS[:4]
    story = Story().missing(*gone).request(12, *gone).missing(*gone)
    reason = the_wait(story.react(), story.look("1.0"), staging("sara", 12), window(0))
    assert reason == "16 of 20 files online; request 12 at sara: just made"
    for status in ("new", "scheduled", "in progress"):
        assert f"request 12 at sara: {status}, 5 of 20 files" in the_wait(
            story.status(12, status).react(), story.look("1.0"), staging("sara", 12), window(0)
        )
    story.status(12, "on hold")
    assert "request 12 at sara: on hold, the site is in maintenance" in the_wait(
        story.react(), story.look("1.0"), staging("sara", 12), window(0)
    )
    story.over(12, "partial success")
    assert the_wait(story.react(), story.look("1.1")) == "looking which of 20 files are online"
    story.missing(*gone[:2]).turn(2, ordinal=1)
    story.now = NOW + AGAIN_S
    again = StageFiles(surls=gone[:2], site="sara", besides=SURLS[2:], ordinal=1)
    assert story.react() == Do((again,)), "only the rest is asked for"
    story.request(13, *gone[:2]).over(13).missing(gone[0])
    outcome = story.react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["requests"] == [12, 13]
    assert outcome.outputs["surls"] == list(SURLS[1:])


@pytest.mark.parametrize("status", sorted(OVER))
def test_when_the_stager_is_through_the_files_are_looked_at(status: str) -> None:
    story = Story().request(12, *SURLS, at=NOW - LATE_S).over(12, status)
    the_wait(story.react(), story.look("1.1"))
    story.missing(*SURLS).turn(20, ordinal=1)
    assert isinstance(story.react(), Do), "success is a hint, no proof"
    assert isinstance(story.missing().react(), Done), "and neither is failure"


def test_a_request_that_is_shown_late_is_not_gone() -> None:
    story = Story().request(12, *SURLS).status(12, "gone", None, None).missing(*SURLS)
    story.now = NOW + LATE_S - 60
    assert "request 12 at sara: just made, and not shown yet" in the_wait(
        story.react(), story.look("1.0"), staging("sara", 12), window(0)
    )
    story.now = NOW + LATE_S
    again = staging_again("sara", 12)
    assert "looked for anew" in the_wait(story.react(), story.look("1.0"), again, window(0))
    story.see(again, {"status": "in progress", "done": 1, "total": 20, "percent": None})
    assert "in progress" in the_wait(story.react(), story.look("1.0"), again, window(0))
    story.see(again, {"status": "gone", "done": None, "total": None, "percent": None})
    the_wait(story.react(), story.look("1.1"))


def test_a_request_that_was_for_more_than_was_missing_pins_that_too() -> None:
    """After a restore it is found as a whole, though some of its files were online by then."""
    story = Story().request(12, *SURLS[:4])
    story.rows[-1] = msgspec.structs.replace(story.rows[-1], result={"request": 12, "also": list(SURLS[4:6])})
    outcome = story.over(12).missing().react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["pinned"] == list(SURLS[:6])


def test_what_came_with_a_request_that_was_undone_is_pinned_by_nobody() -> None:
    """An abort takes the pins along: who keeps the files online is to know, and not to wait until pins would end."""
    story = Story().request(11, *SURLS[:12]).request(12, *SURLS[12:]).over(11, "aborted").over(12)
    outcome = story.missing().react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["pinned"] == list(SURLS[12:])
    assert outcome.outputs["requests"] == [11, 12], "giving back twice does no harm"
    story = Story().request(11, *SURLS[:12]).request(12, *SURLS[12:]).status(11, "in progress").over(12)
    story.rows.append(ended(ReleaseFiles(request=11, site="sara", ordinal=0), {"released": True}))
    outcome = story.missing(occasion="2.2").react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["pinned"] == list(SURLS[12:])


def test_a_request_that_was_found_done_already_has_no_name() -> None:
    story = Story().request(None, *SURLS)
    story.ended += 1
    the_wait(story.react(), story.look("1.1"))
    outcome = story.missing().react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["requests"] == []
    assert outcome.outputs["pinned"] == list(SURLS), "by a request of ours that is known by nothing else"


def test_a_site_that_cannot_be_asked_is_waited_for_with_that_reason() -> None:
    story = Story().missing(*SURLS)
    story.facts[story.look("0.0").key].data["problem"] = "no site 'sara' is configured; known: juelich"
    reason = the_wait(story.react(), story.look("0.0"))
    assert reason == "where 20 files are cannot be asked: no site 'sara' is configured; known: juelich"
    assert isinstance(story.missing().react(), Done), "it goes on when it is"


def test_what_was_asked_for_in_vain_is_asked_for_again_ever_later() -> None:
    story = Story().request(12, *SURLS, at=NOW).over(12, "failed").missing(*SURLS)
    story.now = NOW + 60
    reason = the_wait(story.react(), story.look("1.1"))
    assert reason.endswith("; 20 files are asked for again in 29m")
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert outcome.due_s == AGAIN_S - 60
    story.now = NOW + AGAIN_S
    the_wait(story.react(), story.look("1.1"), window(1))
    story.request(13, *SURLS, at=story.now).over(13, "failed").missing(*SURLS)
    story.now += AGAIN_S
    assert "asked for again in 30m" in the_wait(story.react(), story.look("2.2"))
    story.now += AGAIN_S
    the_wait(story.react(), story.look("2.2"), window(2))


@pytest.mark.parametrize("most", [1, 3])
def test_asking_has_an_end_and_says_what_a_helpdesk_needs(most: int) -> None:
    story = Story(requests=most)
    for number in range(most):
        story.request(number, *SURLS).over(number)
    story.missing(*SURLS[:13], away={SURLS[12]: "LOST"})
    given_back = tuple(ReleaseFiles(request=number, site="sara", ordinal=number) for number in range(most))
    assert story.react() == Do(given_back), "no step behind it will: their files would stay pinned"
    story.rows += [ended(one, {"released": True}) for one in given_back]
    reason = the_failure(story.react())
    requests = ", ".join(map(str, range(most)))
    assert reason.startswith(
        f"after {most} requests only 7 of 20 files are online; on tape all the same (requests {requests})"
    )
    assert "L1_SB000_uv.tar" in reason
    assert reason.endswith(f"tell the helpdesk of sara that these are not there: {SURLS[12]} (LOST)")


def test_a_file_is_asked_for_only_so_often_even_if_others_are_not() -> None:
    story = Story(requests=2).request(1, *SURLS[:5]).over(1).request(2, *SURLS[:5]).over(2).missing(*SURLS[:6])
    story.turn(6, ordinal=2)
    others = SURLS[:5] + SURLS[6:]
    assert story.react() == Do((StageFiles(surls=(SURLS[5],), site="sara", besides=others, ordinal=2),))


@pytest.mark.parametrize("word", ["UNAVAILABLE", "UNKNOWN"])
def test_a_file_whose_disk_is_away_is_waited_for(word: str) -> None:
    story = Story().missing(*SURLS[:3], away=dict.fromkeys(SURLS[:3], word))
    assert the_wait(story.react(), story.look("0.0")) == (
        f"17 of 20 files online; 3 files cannot be reached now ({word})"
    )


@pytest.mark.parametrize("word", ["LOST", "NONE"])
def test_a_file_that_is_not_there_is_not_asked_for(word: str) -> None:
    story = Story().missing(*SURLS[:3], away=dict.fromkeys(SURLS[:2], word)).turn(1)
    assert story.react() == Do((StageFiles(surls=(SURLS[2],), site="sara", besides=SURLS[:2] + SURLS[3:]),))
    reason = the_failure(Story().missing(*SURLS[:2], away=dict.fromkeys(SURLS[:2], word)).react())
    assert f"{SURLS[0]} ({word}), {SURLS[1]} ({word})" in reason


def test_a_lost_file_is_replaced_by_its_newer_copy() -> None:
    old, new = SURLS[0], SURLS[0].replace("_uv", "_new")
    story = Story()
    story.see(story.look("0.0"), {"missing": [old], "away": {old: "LOST"}, "copies": {old: new}, "counts": {}})
    story.surls = (new, *SURLS[1:])
    the_wait(story.react(), story.look("0.0.1"))
    story.missing(new, occasion="0.0.1").turn(1)
    story.params = params(Stage, surls=SURLS, threshold=1.0)
    assert story.react() == Do((StageFiles(surls=(new,), site="sara", besides=SURLS[1:]),))
    outcome = story.missing(occasion="0.0.1").react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["surls"] == [new, *SURLS[1:]]
    assert outcome.outputs["replaced"] == {old: new}


def test_files_that_are_excluded_are_neither_asked_for_nor_missed() -> None:
    story = Story(SURLS[2:])
    story.params = params(Stage, surls=SURLS, exclude=["SB000", SURLS[1]])
    outcome = story.missing().react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["excluded"] == list(SURLS[:2])
    assert outcome.outputs["surls"] == list(SURLS[2:])


def test_a_request_that_does_not_move_is_given_up_and_asked_for_anew() -> None:
    story = Story().request(12, *SURLS).status(12, "in progress").missing(*SURLS)
    story.now = NOW + 3 * DAY_S - 1
    assert isinstance(story.react(), Wait)
    story.now += 1
    still = staging_still("sara", 12, 1)
    assert "looking once more" in the_wait(story.react(), story.look("1.0"), still, window(0)), "we may have been away"
    give_back = ReleaseFiles(request=12, site="sara", ordinal=0)
    story.see(still, {"status": "in progress", "done": 9, "total": 20, "percent": None})
    the_wait(story.react(), story.look("1.0"), staging("sara", 12), window(0))
    story.see(still, story.facts[staging("sara", 12).key].data)
    assert story.react() == Do((give_back,))
    story.rows.append(ended(give_back, {"released": True}))
    story.ended += 1
    the_wait(story.react(), story.look("1.1"))
    story.missing(*SURLS).turn(20, ordinal=1)
    assert story.react() == Do((StageFiles(surls=SURLS, site="sara", ordinal=1),))


def test_a_request_on_hold_is_not_given_up() -> None:
    story = Story().request(12, *SURLS).status(12, "on hold").missing(*SURLS)
    story.now = NOW + 30 * DAY_S
    assert isinstance(story.react(), Wait)


def test_files_that_come_online_are_progress() -> None:
    story = Story().request(12, *SURLS).status(12, "in progress")
    story.now = NOW + 2 * DAY_S
    story.missing(*SURLS[:8])
    story.now = NOW + 4 * DAY_S
    assert isinstance(story.react(), Wait)


def test_a_refusal_for_good_ends_the_attempt_once_nothing_runs() -> None:
    story = Story().request(1, *SURLS[:5]).status(1, "in progress").missing(*SURLS)
    story.request(2, *SURLS[5:7]).over(2)
    story.rows.append(rejected(StageFiles(surls=SURLS[7:], site="sara", ordinal=2)))
    given_back = tuple(ReleaseFiles(request=number, site="sara", ordinal=number - 1) for number in (1, 2))
    assert story.react() == Do(given_back), "what runs would be asked for twice, what has ended would stay pinned"
    story.rows += [ended(one, {"released": True}) for one in given_back]
    assert the_failure(story.react()) == "stage files: it is forbidden"


@pytest.mark.parametrize(
    ("surls", "words"),
    [
        (("srm://srm.grid.sara.nl:8443/d/a", "srm://lofar-srm.fz-juelich.de:8443/d/b"), "juelich and sara"),
        (("srm://elsewhere.org:8443/d/a",), "elsewhere.org"),
        (("a",), "'a'"),
    ],
)
def test_a_list_is_of_one_site(surls: tuple[str, ...], words: str) -> None:
    outcome = Stage().react(STEP, params(Stage, surls=surls), Seen())
    assert isinstance(outcome, Failed)
    assert outcome.final
    assert words in outcome.reason


def test_a_name_that_is_no_files_is_refused_before_anybody_is_asked() -> None:
    bad = "srm://srm.grid.sara.nl:8443/d/notes.txt"
    reason = the_failure(Stage().react(STEP, params(Stage, surls=(*SURLS, bad)), Seen()), final=True)
    assert "notes.txt" in reason


def test_a_file_in_two_spellings_is_one_and_is_asked_for_as_stagers_tell_of_it() -> None:
    story = Story(SURLS[:1]).missing(SURLS[0]).turn(1)
    story.params = params(Stage, surls=(SURLS[0].replace("/d/", "//d/"), SURLS[0].replace(":8443", "")))
    assert story.react() == Do((StageFiles(surls=SURLS[:1], site="sara"),))


def test_nothing_to_stage_is_staged() -> None:
    story = Story(())
    story.see(locality("", (), f"{STEP.key}/0.0"), {"missing": [], "away": {}, "counts": {}})
    outcome = story.react()
    assert isinstance(outcome, Done)
    assert outcome.outputs["surls"] == []


def test_a_cancelled_step_gives_its_requests_back_once() -> None:
    handler, values = Stage(), params(Stage, surls=SURLS)
    assert handler.stop(STEP, values, Seen()) is None
    story = Story().request(12, *SURLS).request(None, *SURLS).request(14, *SURLS)
    outcome: Any = handler.stop(STEP, values, Seen({}, tuple(story.rows)))
    one, two = ReleaseFiles(request=12, site="sara"), ReleaseFiles(request=14, site="sara", ordinal=2)
    assert outcome == Do((one, two))
    rows = (*story.rows, ended(one, {}), ended(two, {}))
    assert handler.stop(STEP, values, Seen({}, rows)) is None
    assert handler.stop(STEP, values, Seen({}, (rejected(StageFiles(surls=SURLS, site="sara")),))) is None


@pytest.mark.parametrize("key", ["linger", "stall"])
def test_durations_are_checked_when_the_pipeline_is(key: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="is no duration"):
        params(Stage, surls=SURLS, **{key: "soon"})


def test_ten_thousand_files_are_decided_in_a_moment() -> None:
    """A decision holds up all others: what grows with the square of the list took eight seconds."""
    surls = tuple(f"srm://srm.grid.sara.nl:8443/d/L{number}_SB000_uv.tar" for number in range(10_000))
    story = Story(surls, threshold=1.0).missing(*surls[1:])
    began = time.process_time()
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert outcome.reason.startswith("1 of 10000 files online")
    assert time.process_time() - began < 1.0
