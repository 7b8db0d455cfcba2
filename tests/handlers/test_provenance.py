"""The record beside the results: gathered, completed, written once."""

from __future__ import annotations

import msgspec

from aglowd.chronicle import record_of
from aglowd.effects.files import WriteFile
from aglowd.handlers.provenance import Provenance, inputs, record
from aglowd.model import Do, Done, Json, StepView
from aglowd.provenance import Record
from tests.records import AT, SURLS, material

from .conftest import NOW, STEP, done_all, params, rejected, seen, the_failure, the_wait

FACTS = msgspec.to_builtins(record_of([material()], AT))
RECORD, LOOK = record(STEP.run, STEP.key), inputs("sara", tuple(SURLS), STEP.key)
GIVEN = params(Provenance, directory="file:///a/")
CONTENTS: dict[str, Json] = {surl: {"size_bytes": 10, "adler32": 0xABC} for surl in SURLS}


def written(outcome: object) -> Record:
    assert isinstance(outcome, Do), outcome
    (effect,) = outcome.effects
    assert isinstance(effect, WriteFile)
    return msgspec.json.decode(effect.text, type=Record)


def test_the_record_is_gathered_completed_and_written() -> None:
    assert the_wait(Provenance().start(STEP, GIVEN), RECORD) == "gathering what is known of P1-1"
    waiting = Provenance().react(STEP, GIVEN, seen({RECORD.key: FACTS}))
    assert the_wait(waiting, LOOK) == "asking sara for sizes and checksums of the inputs"
    outcome = Provenance().react(STEP, GIVEN, seen({RECORD.key: FACTS, LOOK.key: {"files": CONTENTS, "problem": ""}}))
    found = written(outcome)
    assert [(one.size_bytes, one.adler32) for one in found.inputs] == [(10, "00000abc")] * 4
    assert isinstance(outcome, Do)
    assert outcome.effects[0].url == "file:///a/provenance.json"  # type: ignore[attr-defined]
    result = {"url": "file:///a/provenance.json", "size_bytes": 1, "adler32": 2}
    after = seen({RECORD.key: FACTS}, *done_all(outcome, result))
    assert Provenance().react(STEP, GIVEN, after) == Done(result)


def test_a_site_that_says_nothing_holds_the_record_up_for_so_long_only() -> None:
    given = params(Provenance, directory="file:///a", patience="1h")
    waiting = Provenance().react(STEP, given, seen({RECORD.key: FACTS}, now=NOW + 3599))
    assert the_wait(waiting, LOOK)
    found = written(Provenance().react(STEP, given, seen({RECORD.key: FACTS}, now=NOW + 3601)))
    assert {one.size_bytes for one in found.inputs} == {None}
    told = {"files": {SURLS[0]: {"size_bytes": 1, "adler32": None}}, "problem": "it is forbidden"}
    found = written(Provenance().react(STEP, given, seen({RECORD.key: FACTS, LOOK.key: told})))
    assert [(one.size_bytes, one.adler32) for one in found.inputs][:2] == [(1, None), (None, None)]


def test_a_later_attempt_has_a_file_of_its_own() -> None:
    again = StepView(STEP.run, STEP.name, STEP.field, 2)
    look, answer = record(STEP.run, again.key), inputs("sara", tuple(SURLS), again.key)
    facts = {look.key: FACTS, answer.key: {"files": {}, "problem": "?"}}
    outcome = Provenance().react(again, GIVEN, seen(facts))
    assert isinstance(outcome, Do)
    assert outcome.effects[0].url == "file:///a/provenance-2.json"  # type: ignore[attr-defined]


def test_a_record_that_cannot_be_written_fails_the_attempt() -> None:
    effect = WriteFile(url="file:///a/provenance.json", text="x")
    reason = the_failure(Provenance().react(STEP, GIVEN, seen({RECORD.key: FACTS}, rejected(effect, "disk full"))))
    assert reason == "write file: disk full"
