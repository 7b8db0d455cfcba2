"""The field's status: one write, from what is expected to what it shall be."""

from __future__ import annotations

from aglowd.effects.catalogue import WriteStatus
from aglowd.handlers.status import SetStatus
from aglowd.model import Do, Done

from .conftest import STEP, done_all, params, rejected, seen, the_failure

EFFECT = WriteStatus(field="P1", expect="SND", status="AAA")


def test_a_status_is_written_once() -> None:
    handler, values = SetStatus(), params(SetStatus, expect="SND", status="AAA")
    outcome = handler.start(STEP, values)
    assert outcome == Do((EFFECT,))
    assert handler.react(STEP, values, seen({}, *done_all(outcome, {"status": "AAA"}))) == Done({"status": "AAA"})
    assert handler.stop(STEP, values, seen()) is None


def test_somebody_elses_status_fails_the_step() -> None:
    reason = the_failure(
        SetStatus().react(
            STEP, params(SetStatus, expect="SND", status="AAA"), seen({}, rejected(EFFECT, "found 'ZZZ'"))
        )
    )
    assert reason == "write status: found 'ZZZ'"
