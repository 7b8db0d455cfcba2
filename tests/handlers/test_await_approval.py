"""An operator looks before a field goes on."""

from __future__ import annotations

from aglowd.handlers.await_approval import AwaitApproval, verdict
from aglowd.model import Done, StepView, Wait

from .conftest import NOW, STEP, params, seen, the_failure, the_wait

GIVEN = params(AwaitApproval, question="well?", show=["https://x/1.png"])
SUBJECT = verdict("well?", ("https://x/1.png",), STEP.key)
SAID = {"approved": True, "verdict": "moderate", "reason": "usable", "uid": 7, "at": NOW}


def test_it_asks_and_says_how_to_answer() -> None:
    reason = the_wait(AwaitApproval().start(STEP, GIVEN), SUBJECT)
    assert reason == "an operator is asked: well? (aglowctl approve P1 or reject)"
    assert SUBJECT.args == {"question": "well?", "show": ["https://x/1.png"]}


def test_what_is_approved_goes_on_with_the_verdict() -> None:
    outputs = {"verdict": "moderate", "reason": "usable", "uid": 7, "at": NOW, "plots": ["https://x/1.png"]}
    assert AwaitApproval().react(STEP, GIVEN, seen({SUBJECT.key: SAID})) == Done(outputs)


def test_what_is_rejected_fails_for_good() -> None:
    said = {**SAID, "approved": False, "verdict": "poor", "reason": "no fringes"}
    outcome = AwaitApproval().react(STEP, GIVEN, seen({SUBJECT.key: said}))
    assert the_failure(outcome, final=True) == "rejected as poor by uid 7: no fringes"


def test_a_new_attempt_asks_anew() -> None:
    again = StepView(STEP.run, STEP.name, STEP.field, 2)
    assert isinstance(AwaitApproval().react(again, GIVEN, seen({SUBJECT.key: SAID})), Wait)
