"""Programs and web services: once, or until an answer is what was waited for."""

from __future__ import annotations

import pytest

from aglowd.effects.general import CallHttp, RunCommand
from aglowd.handlers.general import Command, Http
from aglowd.model import Do, Done, Json, Outcome, StepView, Wait

from .conftest import STEP, done_all, params, rejected, seen, the_failure

URL = "http://h/state"


def test_a_program_is_run_once() -> None:
    values = params(Command, argv=["true", "x y"], run_timeout="1h", ok=[0, 3], creates="file:///x", repeatable=True)
    outcome = Command().start(STEP, values)
    effect = RunCommand(argv=("true", "x y"), timeout_s=3600.0, ok=(0, 3), creates="file:///x", repeatable=True)
    assert outcome == Do((effect,))
    ended = seen({}, *done_all(outcome, {"rc": 3, "stdout": "so"}))
    assert Command().react(STEP, values, ended) == Done({"rc": 3, "stdout": "so"})
    assert the_failure(Command().react(STEP, values, seen({}, rejected(effect)))) == "run command: it is forbidden"
    plain = Command().start(STEP, params(Command, argv=["true"]))
    assert plain == Do((RunCommand(argv=("true",)),))


def test_a_web_service_is_called_once() -> None:
    values = params(Http, url=URL, method="POST", body={"a": 1})
    outcome = Http().start(STEP, values)
    effect = CallHttp(method="POST", url=URL, body={"a": 1})
    assert outcome == Do((effect,))
    answer = {"status": 200, "body": "so"}
    assert Http().react(STEP, values, seen({}, *done_all(outcome, answer))) == Done(answer)
    assert the_failure(Http().react(STEP, values, seen({}, rejected(effect)))) == "call http: it is forbidden"
    assert Http().start(STEP, params(Http, url=URL)) == Do((CallHttp(method="GET", url=URL),))


def poll(answer: Json, until: str = "status == 200 and body.state == 'ready'") -> Outcome:
    values = params(Http, url=URL, until=until, poll="1m", due="2h")
    waiting = Http().start(STEP, values)
    assert isinstance(waiting, Wait)
    assert waiting.reason == f"until {until} at {URL}"
    assert waiting.due_s == 7200.0
    (subject,) = waiting.subjects
    assert subject.kind == "http"
    assert subject.args == {"url": URL, "poll_s": 60.0}
    outcome = Http().react(STEP, values, seen({subject.key: answer}))
    assert outcome == waiting or isinstance(outcome, Done), "it neither fails nor waits for anything else"
    return outcome


def test_a_web_service_is_asked_until_its_answer_is_what_is_waited_for() -> None:
    assert isinstance(poll({"status": 200, "body": {"state": "busy"}}), Wait)
    ready = {"status": 200, "body": {"state": "ready", "more": 1}}
    assert poll(ready) == Done(ready)
    assert poll({"status": 200, "body": "ready"}, "{{ 'ready' in body }}") == Done({"status": 200, "body": "ready"})


@pytest.mark.parametrize(
    "answer", [{"status": 200, "body": {}}, {"status": 200, "body": "<html>"}, {"status": 200, "body": None}]
)
def test_an_answer_without_what_is_waited_for_is_not_it_yet(answer: Json) -> None:
    assert isinstance(poll(answer), Wait)


def test_what_an_earlier_run_was_answered_is_not_taken_for_the_answer_now() -> None:
    values = params(Http, url=URL, until="status == 200")
    one, two = (Http().start(StepView(run, "ask", "P1", 1), values) for run in ("P1-1", "P1-2"))
    assert isinstance(one, Wait)
    assert isinstance(two, Wait)
    assert one.subjects[0].key != two.subjects[0].key
