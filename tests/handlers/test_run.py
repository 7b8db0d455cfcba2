"""Runs of other pipelines: one for each step, or one for all that share it."""

from __future__ import annotations

import pytest

from aglowd.handlers.run import Run
from aglowd.model import Done, Json, Outcome, Spawn, StepView, Subject

from .conftest import STEP, params, seen, the_failure


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
