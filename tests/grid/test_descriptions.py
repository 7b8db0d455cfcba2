"""Job descriptions: what comes from outside stays one string, and a site's own template is checked where it is used."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import Permanent
from aglowd.grid.batch import Order, Terms
from aglowd.grid.descriptions import describe
from aglowd.sim.jdl import list_parameters, parse_jdl

JDL = Terms((Path(__file__).parents[2] / "etc" / "jobs" / "glite.jdl").read_text(encoding="utf-8"))
ORDER = Order(
    "run/step/1/submit_jobs/0", 40, "/bin/bash", ("run.sh", "_PARAM_"), {"run.sh": "", "picas.json": "s3cret"}
)


def test_a_job_description_for_glite() -> None:
    order = msgspec.structs.replace(ORDER, key='a"b\\c', requirements='RegExp("x", other.Y)')
    assert describe(order, JDL) == (
        '[\n  Executable = "/bin/bash";\n  Arguments = "run.sh _PARAM_";\n  StdOutput = "stdout.txt";\n'
        '  StdError = "stderr.txt";\n  InputSandbox = {"run.sh", "picas.json"};\n'
        '  OutputSandbox = {"stdout.txt", "stderr.txt"};\n  UserTags = [ aglowd_key = "a\\"b\\\\c"; ];\n'
        '  Requirements = RegExp("x", other.Y);\n  ShallowRetryCount = 0;\n  RetryCount = 0;\n'
        '  JobType = "Parametric";\n  Parameters = 40;\n  ParameterStart = 0;\n  ParameterStep = 1;\n]\n'
    )
    assert "s3cret" not in describe(order, JDL)


def test_one_pilot_is_no_parametric_job() -> None:
    text = describe(msgspec.structs.replace(ORDER, count=1), msgspec.structs.replace(JDL, cpus=4))
    assert list_parameters(parse_jdl(text)) is None
    assert "CPUNumber = 4;" in text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)), st.integers(1, 60))
def test_what_stands_in_a_description_is_what_was_meant(key: str, count: int) -> None:
    read = parse_jdl(describe(msgspec.structs.replace(ORDER, key=key, count=count), JDL))
    assert read["usertags"] == {"aglowd_key": key}
    assert len(list_parameters(read) or ("one",)) == count


@pytest.mark.parametrize(
    "changes",
    [
        {"arguments": ('a"; x="',)},
        {"arguments": ("$(rm)",)},
        {"arguments": ("a b",)},
        {"arguments": ("a\n",)},
        {"executable": "/bin/sh\n"},
        {"sandbox": {"../x": ""}},
        {"sandbox": {"-rf": ""}},
        {"key": "a\nb"},
        {"key": "é"},
        {"requirements": "a\nb"},
        {"count": 0},
    ],
)
def test_what_could_break_out_of_a_description_is_refused(changes: dict[str, Any]) -> None:
    describe(ORDER, JDL)
    with pytest.raises(Permanent, match="job description: "):
        describe(msgspec.structs.replace(ORDER, **changes), JDL)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ nothing }}", "'nothing' is undefined"),
        ("{% if %}", "Expected an expression"),
        ("{{ 1/0 }}", "division by zero"),
    ],
)
def test_a_template_that_cannot_be_filled_in_says_why(template: str, why: str) -> None:
    with pytest.raises(Permanent, match=f"job description: the template cannot be filled in: .*{re.escape(why)}"):
        describe(ORDER, Terms(template))


def test_words_of_other_languages() -> None:
    terms = Terms("{{ key | sh }} {{ key | xrsl }} {{ key | classad }}")
    text = describe(msgspec.structs.replace(ORDER, key='it\'s "so"'), terms)
    assert text == "'it'\"'\"'s \"so\"' " + '"it\'s ""so""" ' + '"it\'s \\"so\\""'
