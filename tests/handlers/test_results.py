"""Results: what tokens claim is looked for, file by file."""

from __future__ import annotations

import pytest

from aglowd.handlers.files import directory
from aglowd.handlers.results import MAX_DIRECTORIES, CheckResults, Collect
from aglowd.handlers.wait_tokens import results_of
from aglowd.model import Done, Json, Outcome, StepView, Wait

from .conftest import STEP, params, seen, the_failure, the_wait

WHERE = "file:///r"
TOKENS = results_of("t", f"{STEP.key}/results")
FILES = directory(WHERE, f"{STEP.key}/files/{WHERE}")


def listing(*files: tuple[str, int]) -> Json:
    return {"absent": False, "files": [{"url": f"{WHERE}/{name}", "size_bytes": size} for name, size in files]}


def check(done: dict[str, str], other: dict[str, str], files: Json) -> Outcome:
    values = params(CheckResults, token_type="t", directory=WHERE)
    return CheckResults().react(STEP, values, seen({TOKENS.key: {"done": done, "other": other}, FILES.key: files}))


def test_both_sides_are_looked_at_anew_in_each_attempt() -> None:
    values = params(CheckResults, token_type="t", directory=WHERE)
    outcome = CheckResults().start(STEP, values)
    assert the_wait(outcome, TOKENS, FILES) == "looking for result files in file:///r"
    assert CheckResults().react(STEP, values, seen({TOKENS.key: {"done": {"t:1": WHERE}, "other": {}}})) == outcome
    assert CheckResults().react(STEP, values, seen({FILES.key: listing()})) == outcome
    other = CheckResults().start(StepView(STEP.run, STEP.name, STEP.field, 2), values)
    assert isinstance(other, Wait)
    assert {subject.key for subject in other.subjects}.isdisjoint({TOKENS.key, FILES.key})


def test_no_results_of_no_tokens_are_none() -> None:
    assert the_failure(check({}, {"t:3": "todo"}, listing())) == "no token of type t is done: 1 are not"


def test_every_result_is_there() -> None:
    outcome = check({"t:2": f"{WHERE}/b", "t:1": f"{WHERE}/a"}, {"t:3": "error"}, listing(("a", 5), ("b", 7), ("c", 1)))
    assert outcome == Done({"files": [f"{WHERE}/a", f"{WHERE}/b"], "size_bytes": 12, "without": ["t:3"]})


@pytest.mark.parametrize(
    ("location", "named"),
    [(f"{WHERE}/c", f"{WHERE}/c"), (f"{WHERE}/zero", f"{WHERE}/zero"), ("", "(a token without Results_location)")],
)
def test_a_result_that_is_not_there_or_empty_fails_the_attempt(location: str, named: str) -> None:
    outcome = check({"t:1": f"{WHERE}/a", "t:2": location}, {}, listing(("a", 5), ("zero", 0)))
    assert the_failure(outcome) == f"1 of 2 result files are absent or empty: {named}"


def test_a_directory_that_is_not_there_has_none() -> None:
    outcome = check({"t:1": f"{WHERE}/a"}, {}, {"absent": True, "files": []})
    assert the_failure(outcome) == f"1 of 1 result files are absent or empty: {WHERE}/a"


def test_results_are_collected_wherever_each_token_says() -> None:
    values = params(Collect, token_type="t")
    places = [directory(f"file:///{name}", f"{STEP.key}/files/file:///{name}") for name in "ab"]
    assert the_wait(Collect().start(STEP, values), TOKENS) == "looking what tokens of t have written"
    facts: dict[str, Json] = {TOKENS.key: {"done": {"t:1": "file:///b/1", "t:2": "file:///a/2"}, "other": {}}}
    waiting = Collect().react(STEP, values, seen(facts))
    assert the_wait(waiting, TOKENS, *places) == "looking for result files in file:///a, file:///b"
    for place, name in zip(places, ("a/2", "b/1"), strict=True):
        facts[place.key] = {"absent": False, "files": [{"url": f"file:///{name}", "size_bytes": 5}]}
    assert Collect().react(STEP, values, seen(facts)) == Done(
        {"files": ["file:///a/2", "file:///b/1"], "size_bytes": 10, "without": []}
    )
    facts[TOKENS.key]["sizes"] = {"file:///a/2": 5, "file:///b/1": 6}
    reason = the_failure(Collect().react(STEP, values, seen(facts)))
    assert reason == "1 of 2 result files are not as long as their tokens say: file:///b/1 (5 of 6 bytes)"


def test_results_do_not_lie_in_any_number_of_directories() -> None:
    done = {f"t:{number}": f"file:///{number}/r" for number in range(MAX_DIRECTORIES + 1)}
    observed = {TOKENS.key: {"done": done, "other": {}}}
    outcome = Collect().react(STEP, params(Collect, token_type="t"), seen(observed))
    assert the_failure(outcome, final=True).startswith("the results lie in 1001 directories")
