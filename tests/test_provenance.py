"""The record of a field: its shape is documented and valid, and what it tells is what the store knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, ValidationError
from msgspec import Struct

from aglowd import provenance
from aglowd.chronicle import record_of, with_contents
from aglowd.grid.tokens import MAX_ENDS_TOLD, MAX_FACT_CHARS, told_of
from aglowd.model import RunState
from aglowd.provenance import File, Record, json_schema, text_of
from aglowd.store.rows import Run
from tests.records import AT, PARSET, SURLS, TYPE, effect, material, step, told

PARTS: dict[str, type[Struct]] = {
    name: part
    for name, part in vars(provenance).items()
    if isinstance(part, type) and issubclass(part, Struct) and not name.startswith("_") and part is not Struct
}


def validate(text: str) -> Any:
    """The record, which is what the schema says."""
    record = msgspec.json.decode(text)
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(record)
    return record


# --- its shape


def test_a_record_is_valid_and_can_be_read_again() -> None:
    record = record_of([material()], AT)
    found = validate(text_of(record))
    assert found["schema"] == 1
    assert next(iter(found)) == "schema"
    assert msgspec.json.decode(text_of(record), type=Record) == record


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("schema", 2), ("made", "yesterday"), ("more", 1), ("inputs", [{"surl": "x"}]), ("missing", None)],
)
def test_what_is_no_record_is_refused(key: str, wrong: Any) -> None:
    record = msgspec.to_builtins(record_of([material()], AT))
    with pytest.raises(ValidationError):
        Draft202012Validator(json_schema()).validate({**record, key: wrong})


def test_every_key_is_documented_and_none_that_is_gone() -> None:
    text = (Path(__file__).parent.parent / "docs" / "provenance.md").read_text(encoding="utf-8")
    sections = dict(zip(*[iter(re.split(r"^## (\w+)\n", text, flags=re.MULTILINE)[1:])] * 2, strict=True))
    assert sections.keys() == PARTS.keys()
    for name, part in PARTS.items():
        listed = re.findall(r"^\| `(\w+)` \| \S", sections[name], flags=re.MULTILINE)
        assert listed == list(part.__struct_fields__), name


# --- what it tells


def test_what_a_person_said_of_a_step_may_have_any_shape() -> None:
    """Outputs of a step that was called done, or taken over, are that person's."""
    for outputs in ({}, {"surls": "x", "missing": 3, "replaced": 5, "excluded": None}, {"surls": [1, SURLS[0]]}):
        steps = (step("list", "srm_list", **outputs), step("stage", "stage", AT + 1, **outputs))
        record = record_of(
            [material(steps=steps, effects=(), run=Run("P1-1", "P1", "d", "P1", {}, {}, RunState.DONE))], AT
        )
        validate(text_of(record))
        assert [one.surl for one in record.inputs] == [one for one in outputs.get("surls", ()) if one == SURLS[0]]
        assert record.missing.flagged_baselines == ""


def test_each_file_is_told_as_it_was_last() -> None:
    record = record_of([material()], AT)
    assert [(one.subband, one.state) for one in record.inputs] == [
        (0, "used"),
        (1, "used"),
        (2, "online"),
        (3, "missing"),
    ]
    assert record.missing.not_staged == (SURLS[3],)
    assert record.missing.flagged_baselines == "[CR]S*&"
    assert [(one.obsid, one.subbands) for one in record.missing.subbands] == [("L1", (7,))]
    assert {one.site for one in record.inputs} == {"sara"}


def test_a_file_that_was_ingested_again_and_one_that_is_left_out() -> None:
    new = f"{SURLS[0]}x"
    steps = (step("stage", "stage", surls=[new], missing=[], excluded=[SURLS[1]], replaced={SURLS[0]: new}),)
    record = record_of([material(steps=steps, effects=())], AT)
    assert {one.surl: one.state for one in record.inputs} == {SURLS[0]: "replaced", new: "online", SURLS[1]: "excluded"}
    assert record.missing.excluded == (SURLS[1],)


def test_tokens_say_who_did_them_and_what_came_of_it() -> None:
    record = record_of([material()], AT)
    first, second = record.tokens
    assert (first.id, first.state, first.job, first.host) == (f"{TYPE}:SB000", "done", "j1", "wn1")
    assert first.inputs == (SURLS[0],)
    assert first.result == File("file:///r/0", 5, "000000ab"), (
        "its pilot said nothing: as it was seen when it was copied"
    )
    assert (second.state, second.scrubs, second.result) == ("error", 2, None)
    assert [(end.job, end.host, end.why) for end in second.ends] == [("j0", "wn0", "error")]
    assert record.missing.failed_tokens == (second.id,)


def test_what_the_pilot_says_of_its_result_counts() -> None:
    seen = material().observed[0]
    seen.data["tokens"][f"{TYPE}:SB000"] |= {"size_bytes": 77, "adler32": 1}
    record = record_of([material(observed=(seen,))], AT)
    assert record.tokens[0].result == File("file:///r/0", 77, "00000001")


def test_tokens_at_which_nobody_has_looked_are_made_and_have_not_failed() -> None:
    record = record_of([material(observed=())], AT)
    assert {one.state for one in record.tokens} == {"made"}
    assert record.missing.failed_tokens == ()


def test_what_ran_and_who_approved() -> None:
    record = record_of([material()], AT)
    (parset,), (software,), (approval,) = record.parsets, record.software, record.approvals
    assert (parset.text, parset.attached) == (PARSET, (f"{TYPE}/a.parset",))
    assert (software.command, software.sandbox, software.container) == ("run", {"commit": "c0ffee"}, {"img": "x"})
    assert (approval.step, approval.verdict, approval.uid, approval.reason) == ("inspect", "good", 7, "fine")
    assert [(one.id, one.state, one.site) for one in record.jobs] == [("j1", "done_ok", "sara")]
    assert [(one.request, one.files) for one in record.stagings] == [(12, 4)]
    assert [(one.url, one.adler32, one.source) for one in record.archived] == [
        ("file:///a/0", "000000ab", "file:///r/0")
    ]
    assert [(one.url, one.tokens) for one in record.token_archives] == [("file:///a/t.gz", 2)]


def test_a_copy_of_two_attempts_is_told_once() -> None:
    copy = material().effects[4]
    again = effect("copy_file", "archive", copy.record.inputs, {**copy.record.result, "copied": False}, attempt=2)
    assert len(record_of([material(effects=(copy, again))], AT).archived) == 1


def test_runs_whose_outputs_were_used_are_part_of_it() -> None:
    cal = Run("cal-1", "cal", "other", "cal", {}, {}, RunState.DONE)
    used = material(run=cal, pipeline="calibrator", used_by="P1-1/calibrator", ended=AT + 5)
    record = record_of([material(), used], AT)
    assert [(one.id, one.pipeline, one.used_by) for one in record.runs] == [
        ("P1-1", "sksp", ""),
        ("cal-1", "calibrator", "P1-1/calibrator"),
    ]
    assert {one.run for one in record.tokens} == {"P1-1", "cal-1"}
    assert (record.field, record.run, record.state) == ("P1", "P1-1", "running")


def test_what_sites_say_fills_what_is_not_known_and_no_more() -> None:
    record = with_contents(record_of([material()], AT), {SURLS[0]: {"size_bytes": 1, "adler32": 0}})
    record = with_contents(record, {surl: {"size_bytes": 9, "adler32": 9} for surl in SURLS[:2]})
    assert [(one.size_bytes, one.adler32) for one in record.inputs] == [
        (1, "00000000"),
        (9, "00000009"),
        (None, None),
        (None, None),
    ]


# --- what a token tells


def test_a_token_tells_of_itself() -> None:
    history = [
        {"at": number, "why": "error", "job": number, "hostname": "wn", "slurm_job_id": f"j{number}"}
        for number in range(5)
    ]
    document = {
        "_id": "t:1",
        "status": "done",
        "lock": 1,
        "done": 2,
        "scrub_count": 5,
        "hostname": "wn9",
        "wms_job_id": "https://w/1",
        "aglowd": {"retries": 4, "history": history, "result": {"url": "u", "size_bytes": 3, "adler32": 4}},
    }
    found = told_of(document)
    ends = found.pop("ends")
    assert found == {
        "type": "", "state": "done", "status": "done", "scrubs": 5, "retries": 4, "job": "https://w/1", "host": "wn9",
        "begun": 1, "ended": 2, "size_bytes": 3, "adler32": 4,
    }  # fmt: skip
    assert [end["job"] for end in ends] == ["j2", "j3", "j4"]
    assert len(ends) == MAX_ENDS_TOLD


@pytest.mark.parametrize(
    "odd", [None, [], "x", {"history": "x", "result": 7}, {"history": [7, {"at": "now"}], "retries": True}]
)
def test_whatever_stands_in_a_token_is_told_or_left_out(odd: Any) -> None:
    found = told_of({"status": "x" * 1000, "lock": "a", "scrub_count": -1, "hostname": {}, "aglowd": odd})
    assert (found["status"], found["begun"], found["scrubs"], found["retries"]) == (
        "x" * MAX_FACT_CHARS,
        None,
        None,
        None,
    )
    assert found["host"] == ""
    seen = material().observed[0]
    seen.data["tokens"] = {f"{TYPE}:SB000": found, f"{TYPE}:SB001": told(begun=1e300)}
    validate(text_of(record_of([material(observed=(seen,))], AT)))
