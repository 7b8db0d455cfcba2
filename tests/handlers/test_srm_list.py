"""SRM lists: what is wrong with a field's files is said before anything is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from aglowd.handlers.srm_list import SrmList
from aglowd.model import Done, Json, Outcome, StepView, Wait

from .conftest import STEP, params, seen, the_failure

LIST: dict[str, Any] = {
    "path": "/srm1.txt",
    "obsid": "L1",
    "site": "sara",
    "surls": ["a", "b"],
    "subbands": [0, 1],
}


def react(content: Json, **values: Json) -> Outcome:
    given = params(SrmList, **{"path": "/srm1.txt", "obsid": "L1", "nominal": 2, **values})
    waiting = SrmList().start(STEP, given)
    assert isinstance(waiting, Wait)
    assert waiting.reason == "reading /srm1.txt"
    assert waiting.due_s > 0
    return SrmList().react(STEP, given, seen({waiting.subjects[0].key: content}))


def test_a_complete_list() -> None:
    assert react(LIST) == Done({**LIST, "count": 2, "missing": [], "report": "L1 is complete"})
    assert isinstance(react(LIST, site="sara"), Done)


def test_fewer_subbands_than_nominal_are_named_and_not_refused() -> None:
    outcome = react(LIST, nominal=14)
    assert isinstance(outcome, Done)
    assert outcome.outputs["missing"] == list(range(2, 14))
    assert outcome.outputs["report"] == (
        "L1 lacks 12 subbands: SB002, SB003, SB004, SB005, SB006, SB007, SB008, SB009, SB010, SB011 and 2 more"
    )


@pytest.mark.parametrize(
    ("subbands", "missing"),
    [([244, 245], list(range(246, 488))), ([243], list(range(243))), ([*range(244), 487], list(range(244, 487)))],
    ids=["second beam", "first beam", "both"],
)
def test_two_beams_number_their_subbands_apart(subbands: list[int], missing: list[int]) -> None:
    outcome = react({**LIST, "subbands": subbands}, nominal=244)
    assert isinstance(outcome, Done)
    assert outcome.outputs["missing"] == missing


@pytest.mark.parametrize(
    ("content", "values", "reason"),
    [
        ({"problems": ["/srm1.txt:3: a", "/srm1.txt:4: b"]}, {}, "/srm1.txt:3: a; /srm1.txt:4: b"),
        ({"problems": [f"p{number}" for number in range(9)]}, {}, "p0; p1; p2; p3; p4"),
        (LIST, {"obsid": "L2"}, "/srm1.txt:1: the files are of L1; expected L2"),
        (LIST, {"site": "juelich"}, "/srm1.txt:1: the files lie at sara; expected juelich, where the target lies"),
    ],
)
def test_a_list_that_cannot_be_used_fails_for_good(content: Json, values: dict[str, Json], reason: str) -> None:
    assert the_failure(react(content, **values), final=True) == reason


def test_what_an_earlier_run_read_is_not_taken_for_what_the_list_says_now() -> None:
    """A list that was wrong is mended, and its field is offered again: the old problems must not end the new run."""
    values = params(SrmList, path="/srm1.txt", obsid="L1")
    first, second = (
        SrmList().start(StepView(run, "target_list", "P1", attempt), values)
        for run, attempt in (("P1-1", 1), ("P1-2", 1))
    )
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert first.subjects[0].key != second.subjects[0].key
