"""Which files are there, and how many."""

from __future__ import annotations

import msgspec
import pytest

from aglowd.handlers.check_files import MAX_LISTED, CheckFiles, CountFiles
from aglowd.handlers.files import MAX_DIRECTORIES, directory
from aglowd.model import Done, Json, Outcome, StepView, Wait

from .conftest import STEP, params, seen, the_failure, the_wait

WHERE = "file:///r"
FILES = directory(WHERE, f"{STEP.key}/0")


def listing(*files: tuple[str, int], where: str = WHERE) -> Json:
    return {"absent": False, "files": [{"url": f"{where}/{name}", "size_bytes": size} for name, size in files]}


def check(content: Json, **values: Json) -> Outcome:
    given = params(CheckFiles, directory=WHERE, **values)
    assert the_wait(CheckFiles().start(STEP, given), FILES) == "looking into file:///r"
    return CheckFiles().react(STEP, given, seen({FILES.key: content}))


@pytest.mark.parametrize(("at_least", "is_enough"), [(None, True), (0, True), (2, True), (3, False)])
@pytest.mark.parametrize("required", [True, False])
def test_files_of_a_pattern(at_least: int | None, is_enough: bool, required: bool) -> None:
    content = listing(("b.tar", 1), ("a.tar", 1), ("c.txt", 1), ("e.txt", 0))
    outcome = check(content, pattern="*.tar", at_least=at_least, required=required)
    if required and not is_enough:
        assert the_failure(outcome) == "file:///r holds 2 files like *.tar; expected at least 3"
    else:
        files = [f"{WHERE}/a.tar", f"{WHERE}/b.tar"]
        assert outcome == Done({"files": files, "count": 2, "complete": is_enough, "missing": []})


def test_an_empty_file_does_not_count_and_is_named() -> None:
    content = listing(("a", 0), ("b", 1), ("c", 0))
    found = check(content)
    assert found == Done(
        {"files": [f"{WHERE}/b"], "count": 1, "complete": True, "missing": [f"{WHERE}/a", f"{WHERE}/c"]}
    )
    assert the_failure(check(content, at_least=2)) == (
        "file:///r holds 1 files like *; expected at least 2; absent or empty: file:///r/a, file:///r/c"
    )


def test_a_pattern_is_of_the_name_alone() -> None:
    nothing: dict[str, Json] = {"files": [], "count": 0, "missing": []}
    assert check(listing(("a", 1)), pattern="file*", required=False) == Done({**nothing, "complete": False})
    assert check({"absent": True, "files": []}, at_least=0) == Done({**nothing, "complete": True})


def test_a_file_that_is_being_copied_is_none() -> None:
    content = listing(("a.part-0123456789ab", 1), ("b.remove-0123456789ab", 1))
    assert the_failure(check(content)) == "file:///r holds 0 files like *; expected at least 1"
    counted = CountFiles().react(
        STEP, params(CountFiles, directory=WHERE), seen({directory(WHERE, STEP.key).key: content})
    )
    assert counted == Done({"count": 0, "size_bytes": 0, "files": []})


URLS = ["file:///r/a", "file:///r/b", "file:///s/c"]


def check_list(*listings: Json, files: list[str] = URLS, **values: Json) -> Outcome:
    given = params(CheckFiles, files=[*files, *files[:1]], **values)
    subjects = [directory(url, f"{STEP.key}/{number}") for number, url in enumerate([WHERE, "file:///s"])]
    assert the_wait(CheckFiles().start(STEP, given), *subjects) == "looking into file:///r, file:///s"
    half = CheckFiles().react(STEP, given, seen({subjects[0].key: listings[0]}))
    assert isinstance(half, Wait), "both are looked at before anything is said"
    observed = {subject.key: content for subject, content in zip(subjects, listings, strict=True)}
    return CheckFiles().react(STEP, given, seen(observed))


def test_every_file_of_a_list_is_looked_for() -> None:
    other = listing(("c", 1), where="file:///s")
    there = check_list(listing(("b", 1), ("a", 1), ("x", 1)), other)
    assert there == Done({"files": URLS, "count": 3, "complete": True, "missing": []})
    for content in (listing(("b", 1)), listing(("a", 0), ("b", 1))):
        assert the_failure(check_list(content, other)) == (
            "file:///r, file:///s holds 2 files; expected at least 3; absent or empty: file:///r/a"
        )
        found = check_list(content, other, required=False)
        assert found == Done({"files": URLS[1:], "count": 2, "complete": False, "missing": URLS[:1]})
        assert isinstance(check_list(content, other, at_least=2), Done)


def test_an_empty_list_is_complete_at_once() -> None:
    outcome = CheckFiles().start(STEP, params(CheckFiles, files=[]))
    assert outcome == Done({"files": [], "count": 0, "complete": True, "missing": []})


@pytest.mark.parametrize("values", [{}, {"directory": WHERE, "files": []}])
def test_one_of_the_two_is_said(values: dict[str, Json]) -> None:
    with pytest.raises(msgspec.ValidationError, match="either `directory` or `files`"):
        params(CheckFiles, **values)


def test_files_all_over_the_place_are_refused() -> None:
    def start(count: int) -> Outcome:
        return CheckFiles().start(STEP, params(CheckFiles, files=[f"file:///{n}/a" for n in range(count)]))

    assert isinstance(start(MAX_DIRECTORIES), Wait)
    reason = the_failure(start(MAX_DIRECTORIES + 1), final=True)
    assert reason == "the files lie in 101 directories; expected at most 100"


def test_each_attempt_looks_anew() -> None:
    for handler in (CheckFiles(), CountFiles()):
        given = params(type(handler), directory=WHERE)
        one, two = (handler.start(StepView(STEP.run, STEP.name, STEP.field, attempt), given) for attempt in (1, 2))
        assert isinstance(one, Wait)
        assert isinstance(two, Wait)
        assert one.subjects[0].key != two.subjects[0].key


def count(content: Json, **values: Json) -> Outcome:
    given = params(CountFiles, directory=WHERE, **values)
    subject = directory(WHERE, STEP.key)
    assert the_wait(CountFiles().start(STEP, given), subject) == "counting the files in file:///r"
    return CountFiles().react(STEP, given, seen({subject.key: content}))


def test_files_are_counted_and_only_the_first_are_listed() -> None:
    content = listing(*((f"{n:04d}.tar", n) for n in range(MAX_LISTED + 50)), ("x.txt", 7))
    outcome = count(content, pattern="*.tar")
    assert isinstance(outcome, Done)
    assert outcome.outputs["count"] == 150
    assert outcome.outputs["size_bytes"] == sum(range(150))
    assert outcome.outputs["files"] == [f"{WHERE}/{n:04d}.tar" for n in range(MAX_LISTED)]


def test_too_few_files_fail() -> None:
    assert isinstance(count(listing(("a", 0), ("b", 0)), minimum=2), Done)
    reason = the_failure(count(listing(("a", 0)), minimum=2, pattern="?"))
    assert reason == "file:///r holds 1 files like ?; expected at least 2"
    absent = {"absent": True, "files": []}
    assert the_failure(count(absent, minimum=1)) == "file:///r does not exist; expected at least 1"
    assert count(absent) == Done({"count": 0, "size_bytes": 0, "files": []})
