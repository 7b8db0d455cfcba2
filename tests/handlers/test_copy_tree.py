"""Trees of files: copied and removed in waves, each file to and against its own place."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.effects.directories import RemoveDirectory
from aglowd.effects.files import CopyFile, MakeDirectory, RemoveFile
from aglowd.handlers.copy_tree import CopyTree
from aglowd.handlers.delete_files import DeleteFiles
from aglowd.handlers.files import MAX_WAVE_FILES, tree
from aglowd.model import Do, Done, Effect, EffectRecord, Handler, Json, Outcome, Wait

from .conftest import STEP, ended, params, rejected, seen, the_failure, the_wait

FROM, TO = "gsiftp://h/r", "gsiftp://h/archive/r"
TREE = tree(FROM, STEP.key)


def listing(*names: str, problem: str = "", absent: bool = False) -> Json:
    files = [{"url": f"{FROM}/{name}", "size_bytes": 3} for name in names]
    return {"absent": absent, "problem": problem, "files": files}


def live(
    handler: Handler, values: object, content: Json, carry_out: Callable[[Effect], EffectRecord]
) -> tuple[list[tuple[Effect, ...]], Outcome]:
    """The waves of effects that the step asks for, and how it ends."""
    rows: list[EffectRecord] = []
    waves = []
    observed = {} if content is None else {TREE.key: content}
    outcome = handler.react(STEP, values, seen(observed))
    while isinstance(outcome, Do):
        waves.append(outcome.effects)
        known = {(row.kind, row.ordinal) for row in rows}
        assert known.isdisjoint((effect.kind, effect.ordinal) for effect in outcome.effects)
        rows += map(carry_out, outcome.effects)
        outcome = handler.react(STEP, values, seen(observed, *rows))
    return waves, outcome


def do(effect: Effect, *, there: frozenset[str] = frozenset()) -> EffectRecord:
    """What the world makes of it, which has some of the copies."""
    if isinstance(effect, CopyFile):
        copied = effect.destination not in there
        result = {"url": effect.destination, "size_bytes": 3, "adler32": 9, "copied": copied}
        return ended(effect, result)
    return ended(effect, {"url": effect.url})  # type: ignore[attr-defined] # the other kinds have one


def test_a_tree_is_copied_directories_first() -> None:
    values = params(CopyTree, source=f"{FROM}/", directory=f"{TO}/")
    assert the_wait(CopyTree().start(STEP, values), tree(f"{FROM}/", STEP.key)) == f"looking what lies below {FROM}/"
    there = frozenset({f"{TO}/d/b"})
    content = listing("d/e/c", "a", "d/b", "a.part-0123456789ab")
    waves, outcome = live(CopyTree(), values, content, lambda effect: do(effect, there=there))
    assert waves == [
        (MakeDirectory(url=f"{TO}/d/e"),),
        (
            CopyFile(source=f"{FROM}/a", destination=f"{TO}/a"),
            CopyFile(source=f"{FROM}/d/b", destination=f"{TO}/d/b", ordinal=1),
            CopyFile(source=f"{FROM}/d/e/c", destination=f"{TO}/d/e/c", ordinal=2),
        ),
    ]
    assert outcome == Done(
        {"copied": [f"{TO}/a", f"{TO}/d/e/c"], "skipped": [f"{TO}/d/b"], "size_bytes": 9, "directory": TO}
    )


def test_a_tree_without_files_makes_the_directory() -> None:
    waves, outcome = live(CopyTree(), params(CopyTree, source=FROM, directory=TO), listing(), do)
    assert waves == [(MakeDirectory(url=TO),)]
    assert outcome == Done({"copied": [], "skipped": [], "size_bytes": 0, "directory": TO})


def test_listed_files_are_copied_to_their_places() -> None:
    files = [f"{FROM}/d/a", "file:///elsewhere/b", f"{FROM}/d/a"]
    waves, _ = live(CopyTree(), params(CopyTree, files=files, source=FROM, directory=TO), None, do)
    assert waves[0] == (MakeDirectory(url=f"{TO}/d"),)
    places = {effect.source: effect.destination for effect in waves[1] if isinstance(effect, CopyFile)}
    assert places == {f"{FROM}/d/a": f"{TO}/d/a", "file:///elsewhere/b": f"{TO}/b"}
    waves, _ = live(CopyTree(), params(CopyTree, files=files, directory=TO), None, do)
    assert [effect.destination for effect in waves[1] if isinstance(effect, CopyFile)] == [f"{TO}/b", f"{TO}/a"]


def test_only_names_that_match_are_copied() -> None:
    waves, _ = live(
        CopyTree(), params(CopyTree, source=FROM, directory=TO, pattern="*.tar"), listing("a", "d/b.tar"), do
    )
    assert [effect.source for effect in waves[1] if isinstance(effect, CopyFile)] == [f"{FROM}/d/b.tar"]


@given(count=st.integers(0, 5 * MAX_WAVE_FILES), dirs=st.integers(1, 2 * MAX_WAVE_FILES), delete=st.booleans())
def test_every_file_has_its_effect_once_in_waves(count: int, dirs: int, delete: bool) -> None:
    names = [f"{number % dirs:03d}/{number:03d}" for number in range(count)]
    if delete:
        values, handler = params(DeleteFiles, directory=FROM, copies=TO), DeleteFiles()
    else:
        values, handler = params(CopyTree, source=FROM, directory=TO), CopyTree()  # type: ignore[assignment] # the other
    waves, outcome = live(handler, values, listing(*names), do)
    assert all(len(wave) <= MAX_WAVE_FILES for wave in waves)
    asked = [
        (effect.url, effect.copy) if isinstance(effect, RemoveFile) else (effect.source, effect.destination)
        for wave in waves
        for effect in wave
        if isinstance(effect, RemoveFile | CopyFile)
    ]
    assert sorted(asked) == sorted((f"{FROM}/{name}", f"{TO}/{name}") for name in names)
    assert isinstance(outcome, Done)
    made = {effect.url for wave in waves for effect in wave if isinstance(effect, MakeDirectory)}
    expected = {f"{TO}/{name[:3]}" for name in names} or {TO}
    assert made == (set() if delete else expected)


def test_a_file_that_is_refused_ends_the_step_with_its_wave() -> None:
    names = [f"{number:02d}" for number in range(2 * MAX_WAVE_FILES)]

    def refuse(effect: Effect) -> EffectRecord:
        if isinstance(effect, CopyFile) and effect.source[-2:] in ("01", "03"):
            return rejected(effect, f"{effect.destination} exists and differs")
        return do(effect)

    waves, outcome = live(CopyTree(), params(CopyTree, source=FROM, directory=TO), listing(*names), refuse)
    assert len(waves) == 2, "the directories, and one wave of files"
    assert the_failure(outcome) == (
        f"2 of 16 files cannot be copied: {TO}/01 exists and differs, {TO}/03 exists and differs"
    )


def test_a_directory_that_is_refused_ends_the_step_before_a_file_is_copied() -> None:
    waves, outcome = live(CopyTree(), params(CopyTree, source=FROM, directory=TO), listing("a"), rejected)
    assert len(waves) == 1
    assert the_failure(outcome) == "make directory: it is forbidden"


def test_what_cannot_be_copied_is_told() -> None:
    values = params(CopyTree, source=FROM, directory=TO)
    assert (
        the_failure(CopyTree().react(STEP, values, seen({TREE.key: listing(absent=True)}))) == f"{FROM} does not exist"
    )
    many = CopyTree().react(STEP, values, seen({TREE.key: listing(problem="it holds too much")}))
    assert the_failure(many) == "it holds too much"
    twice = params(CopyTree, files=["file:///a/x", "file:///b/x"], directory=TO)
    reason = the_failure(CopyTree().start(STEP, twice), final=True)
    assert reason == f"several files would be copied to {TO}/x"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"directory": TO}, "say `source`"),
        ({"directory": f"{FROM}/copies", "source": FROM}, "lies below"),
        ({"directory": FROM, "source": f"{FROM}/"}, "lies below"),
    ],
)
def test_parameters_that_make_no_sense(values: dict[str, Json], told: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=told):
        params(CopyTree, **values)


# --- removals


def test_each_file_is_removed_against_its_own_copy() -> None:
    values = params(DeleteFiles, directory=FROM, copies=TO)
    assert the_wait(DeleteFiles().start(STEP, values), TREE) == f"looking what lies below {FROM}"
    waves, outcome = live(DeleteFiles(), values, listing("d/b", "a", "b.remove-0123456789ab"), do)
    assert waves == [
        (
            RemoveFile(url=f"{FROM}/a", copy=f"{TO}/a"),
            RemoveFile(url=f"{FROM}/d/b", copy=f"{TO}/d/b", ordinal=1),
        )
    ]
    assert outcome == Done({"deleted": [f"{FROM}/a", f"{FROM}/d/b"], "kept": []})


def test_listed_files_are_removed_against_copies_of_their_names() -> None:
    values = params(DeleteFiles, files=["file:///x/d/a"], copies=TO)
    assert live(DeleteFiles(), values, None, do)[0] == [(RemoveFile(url="file:///x/d/a", copy=f"{TO}/a"),)]


def test_a_directory_that_is_gone_is_done() -> None:
    values = params(DeleteFiles, directory=FROM, copies=TO)
    assert live(DeleteFiles(), values, listing(absent=True), do) == ([], Done({"deleted": [], "kept": []}))
    many = DeleteFiles().react(STEP, values, seen({TREE.key: listing(problem="it holds too much")}))
    assert the_failure(many) == "it holds too much"


def test_directories_that_are_left_empty_go_the_deepest_first() -> None:
    values = params(DeleteFiles, directory=f"{FROM}/", copies=TO, empty_directories=True)
    subject = tree(f"{FROM}/", STEP.key)
    rows: list[EffectRecord] = []
    waves = []
    outcome = DeleteFiles().react(STEP, values, seen({subject.key: listing("a", "d/e/c", "d/b", "f/g")}))
    while isinstance(outcome, Do):
        waves.append([effect.url for effect in outcome.effects])  # type: ignore[attr-defined] # all have one
        rows += map(do, outcome.effects)
        outcome = DeleteFiles().react(STEP, values, seen({subject.key: listing("a", "d/e/c", "d/b", "f/g")}, *rows))
    files = [f"{FROM}/{name}" for name in ("a", "d/b", "d/e/c", "f/g")]
    assert waves == [files, [f"{FROM}/d/e"], [f"{FROM}/d", f"{FROM}/f"], [FROM]]
    assert outcome == Done({"deleted": files, "kept": []})
    assert len({(row.kind, row.ordinal) for row in rows}) == len(rows)


def test_a_directory_that_may_not_go_stays_and_no_file_is_kept_for_it() -> None:
    values = params(DeleteFiles, directory=FROM, copies=TO, empty_directories=True)

    def refuse(effect: Effect) -> EffectRecord:
        return rejected(effect, "a root stays") if isinstance(effect, RemoveDirectory) else do(effect)

    _, outcome = live(DeleteFiles(), values, listing("a"), refuse)
    assert outcome == Done({"deleted": [f"{FROM}/a"], "kept": []})


@pytest.mark.parametrize("required", [True, False])
def test_what_is_kept_is_told_with_why(required: bool) -> None:
    values = params(DeleteFiles, directory=FROM, copies=TO, required=required)
    names = [f"{number:02d}" for number in range(MAX_WAVE_FILES + 1)]

    def refuse(effect: Effect) -> EffectRecord:
        assert isinstance(effect, RemoveFile)
        return rejected(effect, "no copy of 00") if effect.url.endswith("00") else do(effect)

    waves, outcome = live(DeleteFiles(), values, listing(*names), refuse)
    assert sum(map(len, waves)) == len(names), "the others are removed all the same"
    if required:
        assert the_failure(outcome) == "1 of 9 files are kept: no copy of 00"
    else:
        deleted = [f"{FROM}/{name}" for name in names[1:]]
        assert outcome == Done({"deleted": deleted, "kept": [{"url": f"{FROM}/00", "why": "no copy of 00"}]})


def test_to_do_without_a_copy_must_be_said() -> None:
    for values in ({"copies": "", "unsafe_without_copy": False}, {"copies": TO, "unsafe_without_copy": True}):
        with pytest.raises(msgspec.ValidationError, match="unsafe_without_copy = true"):
            params(DeleteFiles, directory=FROM, **values)
    with pytest.raises(msgspec.ValidationError, match="say `directory`"):
        params(DeleteFiles, copies=TO)
    with pytest.raises(msgspec.ValidationError, match="say the `directory`"):
        params(DeleteFiles, files=[f"{FROM}/a"], copies=TO, empty_directories=True)
    values = params(DeleteFiles, files=[f"{FROM}/a"], unsafe_without_copy=True)
    waves, _ = live(DeleteFiles(), values, None, do)
    assert waves == [(RemoveFile(url=f"{FROM}/a", unsafe_without_copy=True),)]


def test_each_attempt_looks_anew() -> None:
    for handler, values in (
        (CopyTree(), params(CopyTree, source=FROM, directory=TO)),
        (DeleteFiles(), params(DeleteFiles, directory=FROM, copies=TO)),
    ):
        keys = set()
        for attempt in (1, 2):
            outcome = handler.start(msgspec.structs.replace(STEP, attempt=attempt), values)
            assert isinstance(outcome, Wait)
            keys.add(outcome.subjects[0].key)
        assert len(keys) == 2
