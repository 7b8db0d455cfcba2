"""Waiting for tokens: pilots are kept alive, failed tokens get another chance, and what is left is named."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.effects.tokens import ResetTokens
from aglowd.handlers.pilots import job_of, turn_of
from aglowd.handlers.wait_tokens import (
    DEAD_LEAST,
    MOST_FRUITLESS,
    PAUSE_S,
    WaitTokens,
    counted_again,
    results_of,
    tokens_of,
    troubled_of,
)
from aglowd.model import Do, Done, EffectRecord, Failed, Json, Observation, Outcome, Seen, StepView, Subject, Wait

from .conftest import NOW, STEP, done_all, params, rejected, the_failure, the_wait
from .test_submit import PILOTS

TOKENS, TROUBLED = tokens_of("t"), troubled_of("t", "2h")
HOUR_S = 3600.0


class Story:
    """A step that waits for tokens, and what it has seen: `react` decides, and what it wants done is done."""

    def __init__(self, tokens: int = 20, **values: Json) -> None:
        pilots = {**PILOTS, "proxy_minimum": "", "nodes_per_submission": 50}
        self.values: dict[str, Any] = {"token_type": "t", "tokens": tokens, "pilots": pilots, **values}
        self.now = NOW
        self.facts: dict[str, Observation] = {}
        self.rows: list[EffectRecord] = []
        self.jobs = 0
        self.count(todo=tokens)
        self.trouble()

    def see(self, subject: Subject, data: Json) -> None:
        self.facts[subject.key] = Observation(1, self.now, data)

    def count(self, **counts: int) -> Story:
        self.see(
            tokens_of("t", self.values.get("site", "")),
            {"todo": 0, "locked": 0, "done": 0, "error": 0, "other": 0, **counts},
        )
        return self

    def trouble(self, **tokens: Json) -> Story:
        self.see(troubled_of("t", "2h", self.values.get("site", "")), {name: {"job": "", "host": "", "retries": 0, "rev": "1-a", **token}
                            for name, token in tokens.items()})  # fmt: skip
        return self

    def job(self, name: str, state: str = "running", *, reason: str = "", **nodes: str) -> Story:
        final = state in ("done_ok", "done_failed", "aborted", "cancelled", "lost")
        site = self.values.get("site", "")
        self.see(job_of(name, site), {"state": state, "final": final, "nodes": nodes, "reason": reason})
        return self

    def grant(self, wave: int, want: int, pilots: int | None = None) -> Story:
        turn = turn_of(STEP, wave, self.values.get("site", ""), want)
        self.see(turn, {"pilots": want if pilots is None else pilots, "why": "there are enough"})
        return self

    def react(self) -> Outcome:
        return WaitTokens().react(STEP, params(WaitTokens, **self.values), Seen(self.facts, tuple(self.rows), self.now))

    def carry_out(self) -> list[Any]:
        """The effects that it wants now; each is done at once."""
        outcome = self.react()
        assert isinstance(outcome, Do), outcome
        results: list[Json] = []
        for effect in outcome.effects:
            if isinstance(effect, SubmitJobs):
                results.append({"jobs": [f"j{self.jobs}"], "nodes": effect.nodes})
                self.jobs += 1
            else:
                results.append({"left": 0})
        self.rows += [msgspec.structs.replace(row, intended_at=self.now) for row in done_all(outcome, *results)]
        return list(outcome.effects)

    def counted_again(self, **counts: int) -> Story:
        """What the count shows that it wants, now that pilots have ended; without counts, what is known already."""
        outcome = self.react()
        assert isinstance(outcome, Wait), outcome
        (again,) = recounts(outcome)
        known = self.facts[tokens_of("t", self.values.get("site", "")).key].data
        self.see(again, {**dict.fromkeys(known, 0), **counts} if counts else known)
        return self

    def submitted(self, want: int) -> list[int]:
        """Nodes of the submissions that it makes once its turn has come; the tokens stand as it knows."""
        outcome = self.react()
        if isinstance(outcome, Wait) and recounts(outcome):
            outcome = self.counted_again().react()
        turn = the_turn(outcome)
        assert turn.args["want"] == want
        self.see(turn, {"pilots": want, "why": ""})
        return [effect.nodes for effect in self.carry_out()]


def the_turn(outcome: Outcome) -> Subject:
    assert isinstance(outcome, Wait), outcome
    return next(subject for subject in outcome.subjects if subject.kind == "pilots")


def recounts(outcome: Wait) -> list[Subject]:
    """The counts that it wants because pilots have ended."""
    return [one for one in outcome.subjects if one.kind == "tokens" and one.id.startswith(f"{STEP.key}/")]


def look(rounds: int = 0) -> Subject:
    return results_of("t", f"{STEP.key}/{rounds}")


def results(done: int, total: int = 20, state: str = "error") -> Json:
    names = [f"t:SB{number:03d}" for number in range(total)]
    return {"done": dict.fromkeys(names[:done], "file:///r"), "other": dict.fromkeys(names[done:], state)}


# --- pilots are kept alive


def test_the_tokens_are_counted_first() -> None:
    story = Story(jobs=["j"])
    story.facts.clear()
    assert the_wait(story.react(), TOKENS, TROUBLED, job_of("j")) == "counting 20 tokens"


def test_as_many_pilots_live_as_tokens_are_open_and_no_more_than_allowed() -> None:
    story = Story(tokens=300)
    assert the_turn(story.react()) == turn_of(STEP, 0, "", 120)
    assert story.submitted(120) == [50, 50, 20]
    story.job("j0", **{f"a{n}": "running" for n in range(50)})
    story.job("j1", **{f"b{n}": "queued" for n in range(50)})
    story.job("j2", **{f"c{n}": "queued" for n in range(20)})
    going = [job_of(f"j{number}") for number in range(3)]
    assert the_wait(story.react(), TOKENS, TROUBLED, *going) == "0 of 300 tokens done, 300 to do, 120 pilots alive"
    story.count(todo=1, locked=100, done=199)
    reason = the_wait(story.react(), TOKENS, TROUBLED, *going)
    assert reason == "199 of 300 tokens done, 100 in work, 1 to do, 120 pilots alive"


def test_a_turn_is_waited_for_and_what_is_granted_is_started() -> None:
    story = Story(site="sara")
    story.grant(0, 20, 0)
    counted = tokens_of("t", "sara"), troubled_of("t", "2h", "sara")
    reason = the_wait(story.react(), *counted, turn_of(STEP, 0, "sara", 20))
    assert reason.endswith("0 pilots alive; no pilot may be started now: there are enough")
    story.grant(0, 20, 7)
    (effect,) = story.carry_out()
    assert (effect.nodes, effect.site, effect.after) == (7, "sara", 0)


def test_all_that_concerns_tokens_is_asked_of_the_database_of_their_site() -> None:
    """Where somebody else starts the pilots, too: then nothing is submitted, and nothing is asked of a batch system."""
    story = Story(site="juelich", pilots={**PILOTS, "max_pilots": 0}).count(todo=18, error=2)
    assert tokens_of("t", "juelich") == Subject("tokens", "t@juelich", {"token_type": "t", "site": "juelich"})
    assert tokens_of("t") == Subject("tokens", "t"), "as journals have it"
    story.trouble(a={"state": "error", "rev": "2-x"})
    (reset,) = story.carry_out()
    assert (reset.tokens, reset.site) == (("a",), "juelich")
    story.count(done=20).trouble()
    outcome = story.react()
    assert isinstance(outcome, Wait)
    (look,) = outcome.subjects
    assert look.args == {"token_type": "t", "site": "juelich"}


def test_a_job_of_which_nothing_is_known_counts_as_alive() -> None:
    story = Story(jobs=["https://w/0", "https://w/1"])
    story.job("https://w/0", "aborted")
    reason = the_wait(story.react(), TOKENS, TROUBLED, job_of("https://w/1"))
    assert reason == "0 of 20 tokens done, 20 to do, 1 pilots alive"


def test_pilots_that_are_gone_are_replaced_after_a_pause() -> None:
    story = Story()
    assert story.submitted(20) == [20]
    story.count(todo=15, done=5).job(
        "j0", "running", **{f"a{n}": "running" if n < 12 else "done_failed" for n in range(20)}
    )
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert outcome.reason.endswith("12 pilots alive; 3 pilots more are started in 15m: 8 pilots ended badly")
    assert outcome.due_s == PAUSE_S
    story.now += PAUSE_S
    assert story.submitted(3) == [3]


def test_when_all_jobs_are_gone_and_tokens_are_still_to_do_there_are_new_pilots() -> None:
    story = Story(jobs=["old"]).count(todo=4, done=16).job("old", "done_ok")
    assert story.submitted(4) == [4]


def test_pilots_that_die_at_once_are_tried_one_by_one_ever_later_and_then_no_more() -> None:
    story = Story(tokens=1000, pilots={**PILOTS, "max_pilots": 250, "nodes_per_submission": 250, "proxy_minimum": ""})
    total = 250
    assert story.submitted(250) == [250]
    why = "Done(Exit Code !=0), exit code 1"
    story.job("j0", "aborted", reason=why, **{f"a{n}": "done_failed" for n in range(250)})
    for number in range(1, MOST_FRUITLESS):
        outcome = story.react()
        assert isinstance(outcome, Wait)
        assert outcome.due_s == PAUSE_S * 2 ** (number - 1)
        assert "one more pilot is tried in" in outcome.reason
        assert f"{total} pilots ended badly ({why})" in outcome.reason
        story.now += outcome.due_s
        assert story.submitted(1) == [1]
        story.job(f"j{number}", "done_failed", reason=why)
        total += 1
    reason = the_failure(story.counted_again().react())
    assert reason == f"5 waves of pilots ended and did nothing: 254 pilots ended badly ({why})"


@pytest.mark.parametrize("site", ["", "sara"])
def test_no_wave_is_said_to_have_done_nothing_before_the_tokens_were_counted_after_its_end(site: str) -> None:
    """That jobs are over is often known sooner than what they did: while the token database answers nobody, above all."""
    story = Story(site=site)
    assert story.submitted(20) == [20]
    story.job("j0", "done_ok")
    story.now += 30 * PAUSE_S
    again = counted_again("t", f"{STEP.key}/0/1", site)
    reason = the_wait(story.react(), tokens_of("t", site), troubled_of("t", "2h", site), again)
    assert reason.endswith("counting the tokens again: 1 pilots have ended, and 20 tokens seem to be open")
    story.counted_again(done=20)
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert [one.kind for one in outcome.subjects] == ["results"], "all are done"


def test_the_place_of_a_pilot_is_filled_only_if_a_count_after_its_end_shows_that_there_is_work() -> None:
    story = Story()
    assert story.submitted(20) == [20]
    alive = {f"a{n}": "running" for n in range(19)}
    story.job("j0", "running", **alive, z="done_ok")
    story.now += PAUSE_S
    story.counted_again(done=1, locked=19)
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert not recounts(outcome), "there is nothing to take: no pilot is wanted"
    story.count(todo=1, done=1, locked=18)
    story.now += 1
    story.job("j0", "running", **alive | {"a0": "done_ok"}, z="done_ok")
    assert recounts(story.count(todo=1, done=1, locked=18).react())  # type: ignore[arg-type]


def test_what_was_counted_again_is_what_the_next_pilots_are_for() -> None:
    story = Story()
    assert story.submitted(20) == [20]
    story.job("j0", "done_ok")
    story.now += PAUSE_S
    story.counted_again(done=17, todo=3)
    assert the_turn(story.react()).args["want"] == 3, "it did something, so the next one is whole"
    story.now += 1
    story.count(done=15, todo=5)
    assert the_turn(story.react()).args["want"] == 5, "somebody has given two back since"


def test_pilots_of_the_step_before_are_judged_by_a_count_after_their_end_too() -> None:
    story = Story(jobs=["old"]).job("old", "done_ok")
    story.now += 1
    assert the_turn(story.counted_again(todo=20).react()).args["want"] == 1


def test_a_count_that_shows_nothing_new_is_no_change() -> None:
    """Or a step that is counted again, and gets no pilots, would be stalled later than it is."""
    story = Story(tokens=4, stall="7d")
    assert story.submitted(4) == [4]
    story.job("j0", "running", a="running", b="done_ok", c="done_ok", d="done_ok")
    story.count(todo=3, locked=1)
    story.now += 7 * 24 * HOUR_S - PAUSE_S
    the_turn(story.counted_again().react())
    story.now += PAUSE_S
    assert story.carry_out() == [CancelJobs(job="j0")]


def test_a_wave_that_did_something_is_followed_by_a_whole_one() -> None:
    story = Story()
    assert story.submitted(20) == [20]
    story.job("j0", "done_failed", **{f"a{n}": "done_failed" for n in range(4)})
    story.now += PAUSE_S
    assert story.submitted(1) == [1]
    story.count(todo=17, done=3).job("j1", "done_ok")
    story.now += PAUSE_S
    assert story.submitted(17) == [17]


def test_a_broken_worker_node_does_not_eat_pilot_after_pilot() -> None:
    story = Story(tokens=200, pilots={**PILOTS, "max_pilots": 100, "nodes_per_submission": 100, "proxy_minimum": ""})
    assert story.submitted(100) == [100]
    dead = 2 * DEAD_LEAST + 1
    story.count(todo=100, locked=95, done=5)
    story.job("j0", "running", **{f"a{n}": "done_failed" if n < dead else "running" for n in range(100)})
    story.now += PAUSE_S
    assert story.submitted(1) == [1], "more pilots died than twice the tokens that are done"
    story.count(todo=100, locked=89, done=11).job("j1")
    story.now += PAUSE_S
    assert story.submitted(10) == [10]


def test_while_others_live_a_wave_that_does_nothing_fails_no_step() -> None:
    story = Story(tokens=100, pilots={**PILOTS, "max_pilots": 50, "proxy_minimum": ""})
    assert story.submitted(50) == [50]
    story.job("j0", "running", a="running", b="done_failed")
    for number in range(1, MOST_FRUITLESS + 3):
        story.now += PAUSE_S * 2**MOST_FRUITLESS
        outcome = story.react()
        assert not isinstance(outcome, Failed), outcome
        story.submitted(49 if number == 1 else 1)
        story.job(f"j{number}", "done_failed")


def test_a_wave_of_which_one_pilot_still_works_is_followed_by_one_pilot_only() -> None:
    """The others ended and did nothing, whatever they say of it: a broken node must not eat the next wave, too."""
    story = Story(tokens=100, pilots={**PILOTS, "max_pilots": 50, "proxy_minimum": ""})
    assert story.submitted(50) == [50]
    story.count(todo=99, locked=1).job(
        "j0", "running", a="running", **{f"n{number}": "done_ok" for number in range(49)}
    )
    story.now += PAUSE_S
    assert story.submitted(1) == [1]


def test_a_submission_that_is_refused_leaves_no_pilots_of_the_others() -> None:
    story = Story(jobs=["j"]).job("j")
    story.rows.append(rejected(ResetTokens(tokens=("t:SB001",))))
    assert story.carry_out() == [CancelJobs(job="j")]
    assert the_failure(story.react()) == "reset tokens: it is forbidden"


def test_who_starts_no_pilots_waits_for_somebody_elses_and_not_for_ever() -> None:
    story = Story(pilots={**PILOTS, "max_pilots": 0}, stall="7d").count(todo=20)
    story.now += 7 * 24 * HOUR_S - 1
    assert isinstance(story.react(), Wait)
    story.now += 1
    the_wait(story.react(), look())


def test_a_pilot_that_died_is_not_replaced_before_there_is_something_to_take() -> None:
    story = Story(threshold=1.0)
    assert story.submitted(20) == [20]
    story.count(locked=2, done=18).job(
        "j0", "running", a="running", b="done_failed", **{f"n{i}": "done_ok" for i in range(18)}
    )
    story.now += PAUSE_S
    the_wait(story.react(), TOKENS, TROUBLED, job_of("j0"))
    story.count(todo=1, locked=1, done=18)
    assert story.submitted(1) == [1]


def test_where_somebody_else_starts_the_pilots_none_is_started() -> None:
    story = Story(pilots=None).count(todo=12, locked=3, done=5)
    reason = "5 of 20 tokens done, 3 in work, 12 to do, 0 pilots alive; somebody else starts the pilots"
    assert the_wait(story.react(), TOKENS, TROUBLED) == reason


# --- tokens in trouble


def test_failed_tokens_are_given_back_as_often_as_allowed_each_time_once() -> None:
    story = Story(jobs=["j"]).count(locked=18, error=2).job("j", **{f"n{number}": "running" for number in range(19)})
    story.trouble(a={"state": "error", "rev": "5-x", "retries": 1}, b={"state": "other", "rev": "6-x", "retries": 2})
    (effect,) = story.carry_out()
    assert effect == ResetTokens(tokens=("a",), seen={"a": "5-x"}, why={"a": "error"})
    the_wait(story.react(), TOKENS, TROUBLED, job_of("j"))
    story.trouble(a={"state": "error", "rev": "9-x", "retries": 1})
    (effect,) = story.carry_out()
    assert (effect.seen, effect.ordinal) == ({"a": "9-x"}, 1), "it failed once more"


def locked(job: str, *, since: float = NOW, rev: str = "2-a") -> Json:
    return {"state": "locked", "rev": rev, "job": job, "since": since, "lock": 7}


@pytest.mark.parametrize("state", ["done_ok", "done_failed", "aborted", "cancelled", "lost"])
def test_a_token_whose_job_is_over_is_given_back(state: str) -> None:
    story = Story().count(locked=1, done=19)
    story.values["jobs"] = ["j"]
    story.job("j", "running", n1=state, n2="running").trouble(a=locked("n1"))
    (effect,) = story.carry_out()
    assert effect == ResetTokens(tokens=("a",), seen={"a": "2-a"}, why={"a": f"lease: its job n1 is over ({state})"})


@pytest.mark.parametrize("state", ["submitted", "queued", "running", "unknown"])
def test_a_token_that_a_living_job_holds_is_never_touched(state: str) -> None:
    story = Story(jobs=["j"]).count(locked=20).job("j", n1=state).trouble(a=locked("n1", since=NOW - 400 * HOUR_S))
    story.values["pilots"]["max_pilots"] = 1
    the_wait(story.react(), TOKENS, TROUBLED, job_of("j"))


@pytest.mark.parametrize("job", ["", "somebody else's"])
def test_a_token_whose_job_nobody_knows_is_given_back_after_the_longest_life_of_a_job(job: str) -> None:
    story = Story(pilots=None, threshold=1.0).count(locked=1, done=19).trouble(a=locked(job))
    story.now += 96 * HOUR_S - 1
    the_wait(story.react(), TOKENS, TROUBLED)
    story.now += 1
    (effect,) = story.carry_out()
    assert effect.why["a"] == f"lease: nobody knows its job {job}, and no job lives 4d"


def test_before_each_job_was_looked_at_no_job_is_unknown() -> None:
    story = Story(jobs=["unseen"]).count(locked=20).trouble(a=locked("x", since=NOW - 1000 * HOUR_S))
    the_wait(story.react(), TOKENS, TROUBLED, job_of("unseen"))


# --- the end


def test_when_nothing_is_open_the_jobs_that_are_left_are_cancelled_and_the_results_looked_at() -> None:
    story = Story(jobs=["j", "k"]).count(done=20).job("j", a="queued", b="done_ok").job("k", "done_ok")
    assert story.carry_out() == [CancelJobs(job="j")]
    assert the_wait(story.react(), look()) == "looking at the results of 20 tokens"
    assert look().args == {"token_type": "t"}
    story.see(look(), results(20))
    assert story.react() == Done({"done": 20, "missing": [], "gone": 0})


def test_a_job_of_an_older_journal_that_is_over_is_over() -> None:
    """Its fact has no state."""
    story = Story(tokens=2, jobs=["j"]).count(done=2)
    story.see(job_of("j"), {"final": True})
    the_wait(story.react(), look())


def test_jobs_that_cannot_be_cancelled_do_not_undo_what_was_done() -> None:
    story = Story(tokens=2, jobs=["17_[0-1]"]).count(done=2).job("17_[0-1]", "lost")
    outcome = story.react()
    assert isinstance(outcome, Do)
    story.rows.append(rejected(outcome.effects[0], "found job id"))
    the_wait(story.react(), look())
    story.see(look(), results(2, 2))
    assert story.react() == Done({"done": 2, "missing": [], "gone": 0})


def test_before_it_fails_what_was_lost_is_cancelled() -> None:
    story = Story(tokens=2).count(todo=2)
    for wave in range(MOST_FRUITLESS):
        story.now += 1e6
        story.submitted(2 if wave == 0 else 1)
        story.job(f"j{wave}", "lost", reason="slurm does not know it any more")
    story.now += 1e6
    story.counted_again()
    assert story.carry_out() == [CancelJobs(job=f"j{wave}", ordinal=wave) for wave in range(MOST_FRUITLESS)]
    story.see(look(), results(0, 2, "queued"))
    assert the_failure(story.react()) == (
        "only 0 of 2 tokens are done after 2 resets: t:SB000 (queued), t:SB001 (queued); "
        "to give those that failed back: aglowctl tokens reset t; "
        "5 pilots ended badly (slurm does not know it any more)"
    )


def test_a_job_that_is_lost_is_no_pilot_any_more_and_is_asked_for_and_cancelled_all_the_same() -> None:
    story = Story(tokens=3, jobs=["j"]).count(todo=2, done=1).job("j", "lost", a="lost", b="lost")
    outcome = story.counted_again().react()
    assert the_turn(outcome).args["want"] == 2
    assert isinstance(outcome, Wait)
    assert job_of("j") in outcome.subjects
    story.count(done=3)
    assert story.carry_out() == [CancelJobs(job="j")]


@pytest.mark.parametrize("counts", [{"done": 20}, {"done": 21}, {}, {"done": 3}])
def test_no_open_token_and_no_job_is_the_end(counts: dict[str, int]) -> None:
    assert the_wait(Story().count(**counts).react(), look()) == "looking at the results of 20 tokens"


def test_tokens_that_failed_are_known_by_name_before_it_is_the_end() -> None:
    story = Story(pilots=None).count(done=18, error=2)
    the_wait(story.react(), TOKENS, TROUBLED)
    story.trouble(a={"state": "error", "retries": 2})
    the_wait(story.react(), TOKENS, TROUBLED)
    story.trouble(a={"state": "error", "retries": 2}, b={"state": "error", "retries": 2})
    the_wait(story.react(), look())


@pytest.mark.parametrize(("done", "is_enough"), [(20, True), (19, True), (18, False)])
def test_95_of_a_hundred_exactly_is_enough(done: int, is_enough: bool) -> None:
    story = Story()
    story.see(look(), results(done))
    left = [f"t:SB{number:03d}" for number in range(done, 20)]
    if is_enough:
        assert story.react() == Done({"done": done, "missing": left, "gone": 0})
    else:
        assert the_failure(story.react()).startswith(
            f"only {done} of 20 tokens are done after 2 resets: t:SB018 (error)"
        )


def test_the_last_words_of_failed_tokens_are_in_the_reason() -> None:
    story = Story()
    story.see(look(), {**results(5), "logs": {"t:SB005": "no space left", "t:SB006": "segfault"}})
    reason = the_failure(story.react())
    assert reason.endswith(
        " and 5 more; to give those that failed back: aglowctl tokens reset t; "
        "last words of t:SB005: no space left; last words of t:SB006: segfault"
    )


def test_tokens_that_somebody_deleted_are_counted_and_not_made_again() -> None:
    story = Story()
    story.see(look(), results(19, 19))
    assert story.react() == Done({"done": 19, "missing": [], "gone": 1})
    story.see(look(), results(17, 17))
    reason = the_failure(story.react())
    assert reason == "only 17 of 20 tokens are done after 2 resets: 3 gone, deleted by somebody"


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_threshold_is_reached_when_it_is_met_exactly(percent: int) -> None:
    story = Story(tokens=100, threshold=percent / 100)
    story.see(look(), results(percent, 100))
    assert isinstance(story.react(), Done)
    story.see(look(), results(percent - 1, 100))
    assert isinstance(story.react(), Failed)


def test_when_enough_is_done_the_rest_gets_some_time_and_none_for_ever() -> None:
    story = Story(jobs=["j"], patience="12h").count(locked=1, done=19).job("j")
    outcome = story.react()
    assert isinstance(outcome, Wait)
    assert outcome.due_s == 12 * HOUR_S
    story.now += 12 * HOUR_S
    assert story.carry_out() == [CancelJobs(job="j")]
    the_wait(story.react(), look())


def test_too_many_failures_end_the_attempt_before_the_rest_is_done() -> None:
    story = Story(jobs=["j"], error_threshold=0.1).count(locked=17, error=2, done=1).job("j")
    lost = {"state": "error", "retries": 2}
    story.trouble(a=lost, b=lost)
    story.values["pilots"]["max_pilots"] = 1
    the_wait(story.react(), TOKENS, TROUBLED, job_of("j"))
    story.count(locked=16, error=3, done=1).trouble(a=lost, b=lost, c=lost)
    assert story.carry_out() == [CancelJobs(job="j")]
    the_wait(story.react(), look())


def test_when_nothing_changes_for_too_long_the_pilots_are_cancelled_and_the_results_judged() -> None:
    story = Story(jobs=["j"], stall="7d").count(locked=1, done=3).job("j")
    story.now += 7 * 24 * HOUR_S - 1
    assert isinstance(story.react(), Wait)
    story.now += 1
    assert story.carry_out() == [CancelJobs(job="j")]
    the_wait(story.react(), look())


def test_each_attempt_and_each_round_looks_anew() -> None:
    other = StepView(STEP.run, STEP.name, STEP.field, 2)
    names = {results_of("t", f"{step.key}/{rounds}").key for step in (STEP, other) for rounds in (0, 1)}
    assert len(names) == 4
    story = Story().count(done=20)
    story.rows += done_all(Do((ResetTokens(tokens=("a",), seen={"a": "1-a"}),)), {"left": 0})
    the_wait(story.react(), look(1))


def test_a_reset_that_is_refused_for_good_fails_the_attempt() -> None:
    story = Story()
    story.rows.append(rejected(ResetTokens(tokens=("t:SB001",))))
    assert the_failure(story.react()) == "reset tokens: it is forbidden"


def test_a_cancelled_step_cancels_all_its_pilots_once() -> None:
    given = params(WaitTokens, token_type="t", tokens=20, jobs=["a", "b"], site="sara", pilots=PILOTS)
    rows = done_all(Do((SubmitJobs(nodes=1, executable="x", arguments=(), ordinal=1000),)), {"jobs": ["c"], "nodes": 1})
    left = WaitTokens().stop(STEP, given, Seen({}, rows))
    assert left == Do(tuple(CancelJobs(job=job, site="sara", ordinal=number) for number, job in enumerate("abc")))
    assert WaitTokens().stop(STEP, given, Seen({}, (*rows, *done_all(left, {}, {}, {})))) is None
    none = params(WaitTokens, token_type="t", tokens=20, jobs=[], pilots=PILOTS)
    assert WaitTokens().stop(STEP, none, Seen()) is None


def test_a_journal_of_an_older_version_is_understood() -> None:
    """Its submissions name one job each, its resets no revisions."""
    story = Story(jobs=["https://w/0"])
    story.rows += done_all(
        Do((ResetTokens(tokens=("a",)), SubmitJobs(nodes=2, executable="x", arguments=(), ordinal=1000))),
        {"reset": 1},
        {"job": "https://w/1", "nodes": 2},
    )
    the_wait(story.react(), TOKENS, TROUBLED, job_of("https://w/0"), job_of("https://w/1"))
