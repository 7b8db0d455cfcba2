"""Parsets: the field's values are filled in, everything else stays as it was, and nothing is silently left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.handlers.parset import Parset
from aglowd.model import Done, Json, Outcome, Seen

from .conftest import STEP, params, the_failure

TEMPLATE = """# avg = 9 in a comment
! avg            = 4     # channels
avg_time = 1
    pattern=*.MS
empty =
flags = []
last = x"""


def make(values: dict[str, Json], template: str = TEMPLATE) -> Outcome:
    return Parset().react(STEP, params(Parset, template=template, values=values), Seen())


def parset(values: dict[str, Json], template: str = TEMPLATE) -> str:
    outcome = make(values, template)
    assert isinstance(outcome, Done), outcome
    assert list(outcome.outputs) == ["parset"]
    return str(outcome.outputs["parset"])


def test_nothing_to_fill_in_changes_nothing() -> None:
    assert parset({}) == TEMPLATE


@pytest.mark.parametrize(
    ("key", "value", "line", "place"),
    [
        ("avg", 8, "! avg            = 8     # channels", 1),
        ("avg_time", 0.5, "avg_time = 0.5", 2),
        ("pattern", "L1_SB*_uv*", "    pattern= L1_SB*_uv*", 3),
        ("pattern", r"a\1\n", r"    pattern= a\1\n", 3),
        ("empty", "full", "empty = full", 4),
        ("flags", [], "flags = []", 5),
        ("flags", ["CS001", "RS2*"], "flags = [CS001,RS2*]", 5),
        ("flags", [[1, 2], True], "flags = [[1,2],true]", 5),
        ("last", False, "last = false", 6),
        ("last", -1, "last = -1", 6),
        ("last", "", "last = ", 6),
    ],
)
def test_one_line_changes_and_no_other(key: str, value: Json, line: str, place: int) -> None:
    expected = TEMPLATE.split("\n")
    expected[place] = line
    assert parset({key: value}).split("\n") == expected


def test_all_values_at_once() -> None:
    text = parset({"avg": 8, "last": "y", "empty": 1})
    assert [line for line in text.split("\n") if line not in TEMPLATE.split("\n")] == [
        "! avg            = 8     # channels",
        "empty = 1",
        "last = y",
    ]


@given(
    st.text(alphabet=st.characters(blacklist_categories=["C", "Z"], blacklist_characters="#"), min_size=1, max_size=20)
)
def test_any_value_arrives_as_it_is(value: str) -> None:
    assert f"\nlast = {value}" in parset({"last": value, "avg": 1})


def test_a_key_that_is_not_there_once_is_an_error_that_names_all_of_them() -> None:
    reason = the_failure(make({"ag": 1, "avg": 2, "a.b": 3}), final=True)
    assert reason == "the parset template must hold each of these keys once: ag (found 0 times), a.b (found 0 times)"
    reason = the_failure(make({"a": 1}, "a = 1\nb = 2\n! a = 3\n"), final=True)
    assert "a (found 2 times)" in reason


def test_a_key_is_no_pattern() -> None:
    assert "a.b (found 0 times)" in the_failure(make({"a.b": 1}, "axb = 1\n"), final=True)
    assert parset({"a.b": 1}, "a.b = 0\n") == "a.b = 1\n"


@pytest.mark.parametrize("name", ["Pre-Facet-Calibrator", "Pre-Facet-Target-1", "Pre-Facet-Target-2"])
def test_the_shipped_templates(name: str) -> None:
    text = (Path(__file__).parents[2] / "etc" / "pipelines" / "parsets" / f"{name}.parset").read_text()
    key = "cal_input_pattern" if name.endswith("Calibrator") else "target_input_pattern"
    changed = parset({key: "L1_SB*_uv*"}, text)
    assert [line for line in changed.split("\n") if line not in text.split("\n")] == [
        next(line for line in changed.split("\n") if "L1_SB*_uv*" in line)
    ]
