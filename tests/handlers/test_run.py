"""Runs of other pipelines: one for each step, or one for all that share it."""

from __future__ import annotations

import msgspec
import pytest

from aglowd.handlers.files import MAX_DIRECTORIES, directory
from aglowd.handlers.run import Run
from aglowd.model import Done, Json, Outcome, Spawn, StepView, Subject

from .conftest import NOW, STEP, params, seen, the_failure, the_wait


def spawn(step: StepView = STEP, **values: Json) -> Spawn:
    outcome = Run().start(step, params(Run, **{"pipeline": "calibrator", **values}))
    assert isinstance(outcome, Spawn), outcome
    assert outcome.due_s > 0
    assert outcome.reason == f"waiting for the run {outcome.key}"
    return outcome


def view(run: str = "P2-1", attempt: int = 1, digest: str = "c0ffee") -> StepView:
    return StepView(run, "stage", "P2", attempt, {"calibrator": digest})


def test_a_run_of_ones_own() -> None:
    outcome = spawn(params={"a": 1})
    assert (outcome.key, outcome.pipeline, outcome.params, outcome.shared) == (
        "P1-1.stage.1",
        "calibrator",
        {"a": 1},
        False,
    )
    assert spawn(view("P1-1", 2)).key == "P1-1.stage.2", "a new attempt is a new run"


def test_a_shared_run_is_the_same_for_all_that_ask_for_the_same() -> None:
    one = spawn(share="cal-L1", params={"a": 1, "b": [2]})
    assert one.shared
    assert one.key.startswith("cal-L1-")
    assert spawn(view(attempt=2), share="cal-L1", params={"b": [2], "a": 1}).key == one.key
    others = {
        spawn(share="cal-L1", params={"a": 2, "b": [2]}).key,
        spawn(share="cal-L2", params={"a": 1, "b": [2]}).key,
        spawn(view(digest="other"), share="cal-L1", params={"a": 1, "b": [2]}).key,
    }
    assert len(others | {one.key}) == 4


def ended(state: str, **more: Json) -> Outcome:
    observed = {
        Subject("run", "P1-1.stage.1").key: {
            "run": "cal-1",
            "state": state,
            "reason": "why",
            "outputs": {"x": 1},
            **more,
        }
    }
    return Run().react(STEP, params(Run, pipeline="calibrator"), seen(observed))


def test_its_end_is_the_steps_end() -> None:
    assert ended("done") == Done({"x": 1, "run": "cal-1"})


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_its_failure_is_the_steps_failure(state: str) -> None:
    assert the_failure(ended(state)) == f"the run cal-1 {state}: why"


def test_who_still_needs_work_that_was_abandoned_begins_it_anew() -> None:
    assert isinstance(ended("cancelled", abandoned=True), Spawn)


def test_a_pipeline_that_nobody_knows() -> None:
    outcome = Run().start(STEP, params(Run, pipeline="calibrater"))
    assert the_failure(outcome, final=True) == "there is no pipeline 'calibrater'; known: calibrator"


KEY = spawn(share="cal-L1").key
LATE = msgspec.structs.replace(STEP, begun=NOW + 1)
"""The step of one who comes when the shared run is done."""
AT = "gsiftp://door/cal/"


def joined(solutions: Json, *listings: Json, step: StepView = LATE, names: Json = ("solutions",)) -> Outcome:
    """What who joins a done run decides, once its directories were looked into."""
    run = {"run": f"{KEY}-1", "state": "done", "reason": "", "outputs": {"solutions": solutions, "x": 1}}
    looks = {
        directory("", f"{step.key}/{KEY}-1/{number}").key: {"absent": listing is None, "files": listing or []}
        for number, listing in enumerate(listings)
    }
    values = params(Run, pipeline="calibrator", share="cal-L1", must_exist=names)
    return Run().react(step, values, seen({Subject("run", KEY).key: run, **looks}))


def test_who_comes_later_looks_first_whether_what_it_needs_still_exists() -> None:
    reason = the_wait(
        joined([f"{AT}b.tar", f"{AT}a.tar"]),
        Subject("run", KEY),
        directory("gsiftp://door/cal", f"{LATE.key}/{KEY}-1/0"),
    )
    assert reason == f"looking whether the solutions of {KEY}-1 still exist at gsiftp://door/cal"
    outputs = {"solutions": f"{AT}a.tar", "x": 1, "run": f"{KEY}-1"}
    assert joined(f"{AT}a.tar", [{"url": f"{AT}a.tar", "size_bytes": 1}]) == Done(outputs)


@pytest.mark.parametrize("listing", [None, [], [{"url": f"{AT}a.tar", "size_bytes": 0}]])
def test_what_is_gone_is_done_anew_and_the_reason_says_where_it_was(listing: Json) -> None:
    outcome = joined([f"{AT}a.tar"], listing)
    assert isinstance(outcome, Spawn)
    assert (outcome.key, outcome.instead_of) == (KEY, f"{KEY}-1")
    assert outcome.reason == f"the solutions at {AT}a.tar are gone; {KEY} runs again"


def test_only_what_is_gone_is_named() -> None:
    two = [[{"url": f"{AT}a.tar", "size_bytes": 1}], None]
    outcome = joined([f"{AT}a.tar", "gsiftp://door/other/b.tar"], *two)
    assert isinstance(outcome, Spawn)
    assert outcome.reason == f"the solutions at gsiftp://door/other/b.tar are gone; {KEY} runs again"


def test_who_waited_for_the_run_takes_its_word() -> None:
    early = msgspec.structs.replace(STEP, begun=NOW - 1)
    assert isinstance(joined([f"{AT}a.tar"], step=early), Done)
    assert isinstance(joined([], step=LATE), Done), "there is nothing that must exist"
    assert isinstance(joined([f"{AT}a.tar"], names=()), Done)


@pytest.mark.parametrize("value", [12, [f"{AT}a.tar", None], {"a": 1}, "a.tar"])
def test_what_must_exist_has_to_be_urls(value: Json) -> None:
    assert the_failure(joined(value), final=True).startswith("the output 'solutions' is no URL and no list of URLs")


def test_so_many_directories_are_looked_into() -> None:
    reason = the_failure(joined([f"file:///{n}/a.tar" for n in range(MAX_DIRECTORIES + 1)]), final=True)
    assert reason == f"the files lie in {MAX_DIRECTORIES + 1} directories; expected at most {MAX_DIRECTORIES}"


def test_a_run_of_ones_own_has_nobody_who_comes_later() -> None:
    with pytest.raises(msgspec.ValidationError, match="`must_exist` goes with `share`"):
        params(Run, pipeline="calibrator", must_exist=("solutions",))
