"""Copies to the archive: the directory first, then each file under its own name."""

from __future__ import annotations

from aglowd.effects.files import CopyFile, MakeDirectory
from aglowd.handlers.copy import CopyFiles
from aglowd.model import Do, Done, Json

from .conftest import STEP, done_all, params, rejected, seen, the_failure

FILES = ["gsiftp://h/r/a.tar", "gsiftp://h/s/b.tar"]


def given(files: list[Json]) -> object:
    return params(CopyFiles, files=files, directory="gsiftp://h/archive")


def test_a_whole_life() -> None:
    handler, values = CopyFiles(), given(FILES)
    first = handler.start(STEP, values)
    assert first == Do((MakeDirectory(url="gsiftp://h/archive"),))
    rows = done_all(first, {"url": "gsiftp://h/archive"})
    second = handler.react(STEP, values, seen({}, *rows))
    assert second == Do(
        (
            CopyFile(source=FILES[0], destination="gsiftp://h/archive/a.tar"),
            CopyFile(source=FILES[1], destination="gsiftp://h/archive/b.tar", ordinal=1),
        )
    )
    copies = [{"url": f"gsiftp://h/archive/{name}.tar", "size_bytes": 1, "adler32": 2} for name in "ab"]
    done = handler.react(STEP, values, seen({}, *rows, *done_all(second, *copies)))
    assert done == Done({"files": copies})


def test_nothing_to_copy_makes_the_directory() -> None:
    handler, values = CopyFiles(), given([])
    first = handler.start(STEP, values)
    assert handler.react(STEP, values, seen({}, *done_all(first, {"url": "x"}))) == Done({"files": []})


def test_two_files_of_one_name_are_refused_before_anything_is_done() -> None:
    reason = the_failure(CopyFiles().start(STEP, given([*FILES, "gsiftp://h/t/a.tar"])), final=True)
    assert reason == "several files would have one name in gsiftp://h/archive: a.tar"


def test_a_copy_that_is_refused_for_good_fails_the_attempt() -> None:
    rows = (*done_all(Do((MakeDirectory(url="x"),)), {}), rejected(CopyFile(source="a", destination="b"), "it differs"))
    assert the_failure(CopyFiles().react(STEP, given(FILES), seen({}, *rows))) == "copy file: it differs"
    alone = rejected(MakeDirectory(url="x"))
    assert the_failure(CopyFiles().react(STEP, given(FILES), seen({}, alone))) == "make directory: it is forbidden"
