"""Files that are waited for: enough of them, each at rest, and an end when none comes any more."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.handlers.wait_files import DAY_S, WaitFiles, arrivals
from aglowd.model import Done, Failed, Json, Observation, Outcome, Seen, StepView, Wait

from .conftest import NOW, STEP, params, the_failure, the_wait

WHERE = "file:///r"
HOUR_S = 3600.0


def files(**named: tuple[int, bool]) -> Json:
    """Name → size, and whether it is at rest."""
    shown = [{"url": f"{WHERE}/{name}", "size_bytes": size, "quiet": quiet} for name, (size, quiet) in named.items()]
    return {"absent": False, "files": shown}


def wait(content: Json, *, age_s: float = 0.0, still: Json | None = None, **values: Json) -> Outcome:
    """What the step makes of a directory that has looked so for that long; `still`: as the last look of all shows it."""
    given_ = params(WaitFiles, directory=WHERE, **values)
    subject = arrivals(WHERE, values.get("pattern", "*"), 600.0, STEP.key)
    assert the_wait(WaitFiles().start(STEP, given_), subject) == "looking into file:///r"
    last = arrivals(WHERE, values.get("pattern", "*"), 600.0, f"{STEP.key}/still 1")
    facts = {subject.key: Observation(1, NOW - age_s, content)}
    if still is not None:
        facts[last.key] = Observation(1, NOW, still)
    outcome = WaitFiles().react(STEP, given_, Seen(facts, (), NOW))
    if isinstance(outcome, Wait):
        is_last = outcome.reason.endswith("looking once more")
        assert outcome.subjects == ((subject, last) if is_last else (subject,))
    return outcome


REST, BUSY = (1, True), (1, False)


def test_enough_files_at_rest() -> None:
    outcome = wait(files(a=REST, b=REST, c=BUSY), count=2)
    assert outcome == Done({"files": [f"{WHERE}/a", f"{WHERE}/b"], "count": 2, "missing": []})
    outcome = wait(files(a=REST, b=REST, c=BUSY), count=3)
    assert isinstance(outcome, Wait)
    assert outcome.reason == "2 of 3 files in file:///r, 1 more are empty or being written"


def test_an_empty_file_is_none_however_long_it_rests() -> None:
    assert isinstance(wait(files(a=(0, True)), count=1), Wait)


def test_names_that_are_expected() -> None:
    outcome = wait(files(a=REST, x=REST), expected=["a", "b", "a"])
    assert isinstance(outcome, Wait)
    assert outcome.reason == "1 of 2 files in file:///r", "what nobody expects does not count"
    assert wait(files(a=REST, x=REST), expected=["a", "b"], threshold=0.5) == Done(
        {"files": [f"{WHERE}/a"], "count": 1, "missing": ["b"]}
    )
    assert wait(files(), expected=[]) == Done({"files": [], "count": 0, "missing": []})


def test_a_number_that_is_expected() -> None:
    assert isinstance(wait(files(a=REST, b=REST), expected=3), Wait)
    assert isinstance(wait(files(a=REST, b=REST), expected=3, threshold=0.6), Done)
    assert isinstance(wait(files(a=REST, b=REST), expected=3, threshold=0.7), Wait)


def test_nothing_comes_any_more() -> None:
    waiting = wait(files(a=REST, b=BUSY), expected=["a", "b", "c"], stall="2h", age_s=1.5 * HOUR_S)
    assert isinstance(waiting, Wait)
    assert waiting.due_s == 0.5 * HOUR_S, "it is asked again when the time is up"
    seen = files(a=REST, b=BUSY)
    again = wait(seen, expected=["a", "b", "c"], stall="2h", age_s=2 * HOUR_S)
    assert isinstance(again, Wait)
    assert again.reason.endswith("nothing has changed for 2h: looking once more"), "we may have been away ourselves"
    came = wait(seen, still=files(a=REST, b=REST), expected=["a", "b", "c"], stall="2h", age_s=2 * HOUR_S)
    assert isinstance(came, Wait)
    failed = wait(seen, still=seen, expected=["a", "b", "c"], stall="2h", age_s=2 * HOUR_S)
    assert the_failure(failed) == (
        "1 of 3 files in file:///r, 1 more are empty or being written; nothing has changed for 2h; missing: b, c"
    )
    assert (
        the_failure(wait(files(), still=files(), count=1, age_s=DAY_S))
        == "0 of 1 files in file:///r; nothing has changed for 1d"
    )
    assert isinstance(wait(files(a=REST), count=1, age_s=9 * DAY_S), Done), "what is there needs no time"


@given(
    sizes=st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=8),
    expected=st.integers(1, 8),
    threshold=st.floats(0, 1),
    age_s=st.floats(0, 2 * DAY_S),
)
def test_it_never_ends_well_with_too_few_nor_goes_on_for_ever(
    sizes: list[tuple[int, bool]], expected: int, threshold: float, age_s: float
) -> None:
    content = files(**{f"f{number}": found for number, found in enumerate(sizes)})
    outcome = wait(content, still=content, expected=expected, threshold=threshold, age_s=age_s)
    at_rest = sum(size > 0 and quiet for size, quiet in sizes)
    if isinstance(outcome, Done):
        assert outcome.outputs["count"] == at_rest
        assert at_rest >= threshold * expected - 1e-9
    else:
        assert at_rest < threshold * expected
        assert isinstance(outcome, Failed) == (age_s >= DAY_S)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"count": 1, "expected": 1},
        {"count": 1, "expected": []},
        {"count": 1, "quiet": "soon"},
        {"count": 1, "stall": "0s"},
    ],
)
def test_parameters_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        params(WaitFiles, directory=WHERE, **values)


def test_each_attempt_looks_anew() -> None:
    outcomes = [
        WaitFiles().start(StepView("r", "s", "P1", n), params(WaitFiles, directory=WHERE, count=1)) for n in (1, 2)
    ]
    assert len({outcome.subjects[0].key for outcome in outcomes if isinstance(outcome, Wait)}) == 2
