"""What is copied and removed on storage: which copy counts as one, and what a crash half way leaves to be found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.effects.base import World
from aglowd.effects.directories import RemoveDirectory
from aglowd.effects.files import (
    Content,
    CopyFile,
    RemoveFile,
    aside_of,
    content_of,
    is_temporary,
    part_of,
    publish,
)
from aglowd.errors import Conflict, Permanent, Temporary, Unknown

from .outside import KEY, Outside


def write(outside: Outside, **files: bytes) -> None:
    for name, data in files.items():
        outside.file(name).write_bytes(data)


# --- copies


async def test_a_copy_says_whether_it_was_made_now(outside: Outside) -> None:
    write(outside, a=b"hello", b=b"hello")
    effect = CopyFile(source=outside.url("a"), destination=outside.url("b"))
    assert (await effect.do(outside.world, outside.intent()))["copied"] is False
    assert (await effect.find(outside.world, outside.intent()))["copied"] is False
    outside.file("b").unlink()
    assert (await effect.do(outside.world, outside.intent()))["copied"] is True
    notes = outside.noted[0]
    assert (await effect.do(outside.world, outside.intent(tries=1, notes=notes)))["copied"] is True, (
        "an earlier try did"
    )


async def test_what_differs_is_named_with_what_should_be_there(outside: Outside) -> None:
    write(outside, a=b"hello", b=b"hellO")
    effect = CopyFile(source=outside.url("a"), destination=outside.url("b"))
    for way in (effect.do, effect.find):
        with pytest.raises(Conflict) as caught:
            await way(outside.world, outside.intent())
        assert f"{outside.url('b')} exists and differs from {outside.url('a')} (5 bytes, " in str(caught.value)
    assert outside.file("b").read_bytes() == b"hellO"


async def test_a_directory_is_no_copy(outside: Outside) -> None:
    write(outside, a=b"hello")
    outside.file("b").mkdir()
    for one, other in (("a", "b"), ("b", "a")):
        effect = CopyFile(source=outside.url(one), destination=outside.url(other))
        with pytest.raises(Conflict, match="is a directory"):
            await effect.do(outside.world, outside.intent())
    assert outside.files() == ["a", "b"]


async def test_a_part_of_another_size_is_never_published(outside: Outside) -> None:
    """Though its checksum is the same."""
    write(outside, part=b"hello!")
    found = await content_of(outside.world, outside.url("part"))
    assert found is not None
    with pytest.raises(Temporary, match="arrived damaged"):
        await publish(outside.world, outside.url("part"), outside.url("b"), Content(5, found.adler32))
    assert outside.files() == []


async def test_a_part_that_may_not_have_its_name_is_not_left_behind(outside: Outside) -> None:
    write(outside, part=b"hello", b=b"other")
    found = await content_of(outside.world, outside.url("part"))
    assert found is not None
    with pytest.raises(Permanent, match="exists"):
        await publish(outside.world, outside.url("part"), outside.url("b"), found)
    assert outside.files() == ["b"]


async def test_a_source_that_vanished_is_named_and_its_copy_is_not_called_one(outside: Outside) -> None:
    effect = CopyFile(source=outside.url("a"), destination=outside.url("b"))
    with pytest.raises(Permanent, match=r"site/a is not there to be copied"):
        await effect.do(outside.world, outside.intent())
    assert await effect.find(outside.world, outside.intent()) is None, "it was not copied, and never will be"
    write(outside, b=b"hello")
    with pytest.raises(Permanent, match="nobody can tell"):
        await effect.find(outside.world, outside.intent())


# --- what may be removed


def allows(url: str, deletable: list[str], protected: list[str]) -> bool:
    absent: dict[str, Any] = dict.fromkeys(World.__struct_fields__)
    world = World(**{**absent, "deletable": tuple(deletable), "protected": tuple(protected)})
    try:
        world.check_may_remove(url)
    except Permanent:
        return False
    return True


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("gsiftp://h:2811/pnfs/work/a", True),
        ("gsiftp://h:2811/pnfs/work/d/a.tar", True),
        ("gsiftp://h:2811/pnfs/work", False),
        ("gsiftp://h:2811/pnfs/worker/a", False),
        ("gsiftp://h:2811/pnfs/a", False),
        ("gsiftp://other:2811/pnfs/work/a", False),
        ("srm://h:2811/pnfs/work/a", False),
        ("gsiftp://h:2811/pnfs/work/../a", False),
        ("gsiftp://h:2811/pnfs/work/%2e%2e/a", False),
        ("gsiftp://h:2811/pnfs/work/d/./a", False),
        ("gsiftp://h:2811/pnfs/work//a", False),
        ("gsiftp://h:2811/pnfs/work/a/", False),
        ("gsiftp://h:2811/pnfs/work/a?SFN=/pnfs/keep/a", False),
        ("gsiftp://h:2811/pnfs/work/keep/a", False),
        ("gsiftp://h:2811/pnfs/work/keep", False),
        ("gsiftp://h:2811/pnfs/work/keep%2fa", False),
        ("gsiftp://h:2811/pnfs/work/keeper", True),
        ("file:///pnfs/work/keep/a", True),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_what_may_be_removed(url: str, may: bool, slash: str) -> None:
    roots = ["file:///none", f"gsiftp://h:2811/pnfs/work{slash}", f"file:///pnfs/work{slash}"]
    protected = [f"srm://h:8443//pnfs/work/keep{slash}"]
    assert allows(url, roots, protected) is may
    assert not allows(url, [], protected), "nothing, where nothing is said"


def world_of(*protected: str) -> World:
    absent: dict[str, Any] = dict.fromkeys(World.__struct_fields__)
    return World(**{**absent, "protected": protected})


@pytest.mark.parametrize(
    "spelled",
    [
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/keep",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/keep/new",
        "gsiftp://gridftp.grid.sara.nl/pnfs/keep/new",
        "gsiftp://GridFTP.grid.SARA.nl:2811//pnfs//keep/new",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/./keep/./new",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/%6beep/new",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs%2Fkeep%2fnew",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/other/../keep/new",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/other/%2e%2e/keep/new",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/other/.%2E/keep/new",
        "srm://srm.grid.sara.nl:8443/srm/managerv2?SFN=/pnfs/keep/new",
        "srm://srm.grid.sara.nl:8443/srm/managerv2?sfn=//pnfs/keep/new",
        "https://webdav.grid.surfsara.nl:2880/pnfs/keep/new",
        "davs://me@webdav.grid.surfsara.nl/pnfs/keep/new",
        "file:///data/keep/new",
        "file:////data/./%6beep",
        "https://h.example:443/keep",
    ],
)
@pytest.mark.parametrize("slash", ["", "/", "//", "/."])
def test_no_spelling_leads_into_a_protected_root(spelled: str, slash: str) -> None:
    roots = ("gsiftp://gridftp.grid.sara.nl:2811/pnfs/keep", "file:///data//keep", "https://h.example/%6Beep")
    with pytest.raises(Permanent, match=r"protected root|without \.\."):
        world_of(*(f"{root}{slash}" for root in roots)).check_may_change(spelled)


@pytest.mark.parametrize(
    "url",
    [
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/keeper/new",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs",
        "gsiftp://lofar-gridftp.fz-juelich.de:2811/pnfs/keep/new",
        "gsiftp://h.example/pnfs/keep/new",
        "gsiftp://gridftp.grid.sara.nl:2811/pnfs/keep%20er/new",
        "file:///pnfs/keep/new",
    ],
)
def test_what_only_looks_like_a_protected_root_may_be_written(url: str) -> None:
    world_of("gsiftp://gridftp.grid.sara.nl:2811/pnfs/keep").check_may_change(url)


def test_a_root_that_is_all_of_a_host_protects_all_of_it() -> None:
    with pytest.raises(Permanent):
        world_of("gsiftp://h:2811/").check_may_change("gsiftp://h:2811/a")
    with pytest.raises(Permanent):
        world_of("gsiftp://lta-head.lofar.psnc.pl/data/lofar/ops").check_may_change("https://door.psnc.pl/lofar/ops/a")


PLAIN = ["a", "b", "", "work", "keep"]
PARTS = st.lists(st.sampled_from([*PLAIN, "..", ".", "%2e%2e"]), max_size=5)


@given(inner=PARTS, deletable=PARTS, protected=st.lists(st.sampled_from(PLAIN), max_size=3))
def test_nothing_is_removed_but_what_lies_below_a_root_and_below_no_protected_one(
    inner: list[str], deletable: list[str], protected: list[str]
) -> None:
    """The model: what the system would make of the path."""
    where, root, keep = ("/".join(["/pnfs", *parts]) for parts in ([*deletable, *inner], deletable, protected))
    if allows(f"x://h{where}", [f"x://h{root}"], [f"y://other{keep}"]):
        assert "%" not in where
        real = os.path.normpath(where)
        assert real.startswith(os.path.normpath(root) + "/")
        assert not f"{real}/".startswith(os.path.normpath(keep) + "/")


# --- removals


def removal(outside: Outside, copy: str = "b", **values: bool) -> RemoveFile:
    return RemoveFile(url=outside.url("a"), copy=outside.url(copy) if copy else "", **values)


async def test_nothing_is_removed_where_nothing_may_be(outside: Outside) -> None:
    write(outside, a=b"hello", b=b"hello")
    outside.world.deletable = (outside.url("other"),)
    for effect in (removal(outside), removal(outside, "", unsafe_without_copy=True)):
        with pytest.raises(Permanent, match=r"site/a lies below none of storage.deletable"):
            await effect.do(outside.world, outside.intent())
    assert outside.files() == ["a", "b"]


@pytest.mark.parametrize("copy", [b"hellO", b"hello!", b"", None])
async def test_a_file_without_another_copy_keeps_its_name(outside: Outside, copy: bytes | None) -> None:
    write(outside, a=b"hello", **({} if copy is None else {"b": copy}))
    before = outside.files()
    with pytest.raises(Permanent, match=r"site/a is not removed: .*/b is no copy of it"):
        await removal(outside).do(outside.world, outside.intent())
    assert outside.files() == before
    assert outside.file("a").read_bytes() == b"hello"


async def test_no_copy_is_named(outside: Outside) -> None:
    write(outside, a=b"hello")
    with pytest.raises(Permanent, match="nothing is no copy of it"):
        await removal(outside, "").do(outside.world, outside.intent())
    await removal(outside, "", unsafe_without_copy=True).do(outside.world, outside.intent())
    assert outside.files() == []


@pytest.mark.parametrize("way", ["file", "directory", "url", "other end"])
async def test_a_copy_that_is_the_same_file_by_another_name_is_none(outside: Outside, way: str) -> None:
    write(outside, a=b"hello")
    effect = removal(outside)
    if way == "file":
        outside.file("b").symlink_to(outside.file("a"))
    elif way == "directory":
        outside.file("link").symlink_to(outside.path / "site")
        effect = removal(outside, "link/a")
    elif way == "url":
        effect = RemoveFile(url=outside.url("a"), copy=outside.url("a").replace("/site/", "/site//"))
    else:
        outside.file("link").symlink_to(outside.path / "site")
        effect = RemoveFile(url=outside.url("link/a"), copy=outside.url("a"))
    before = outside.files()
    with pytest.raises(Permanent, match="is the same file by another name"):
        await effect.do(outside.world, outside.intent())
    assert outside.files() == before
    assert outside.file("a").read_bytes() == b"hello"


@pytest.mark.parametrize("unsafe", [True, False])
async def test_a_directory_is_never_removed(outside: Outside, unsafe: bool) -> None:
    outside.file("a").mkdir()
    outside.file("b").mkdir()
    effect = removal(outside, "" if unsafe else "b", unsafe_without_copy=unsafe)
    with pytest.raises(Conflict, match="only files are removed"):
        await effect.do(outside.world, outside.intent())
    assert outside.files() == ["a", "b"]


async def test_a_removal_that_a_crash_cut_between_its_two_names_takes_both(outside: Outside) -> None:
    """A local rename is a link and an unlink: for a moment the file has both names."""
    write(outside, a=b"hello", b=b"hello")
    effect = removal(outside)
    os.link(outside.file("a"), aside_of(effect.url, KEY).removeprefix("file://"))
    assert await effect.find(outside.world, outside.intent(tries=1)) is None
    assert await effect.do(outside.world, outside.intent(tries=1)) == {"url": effect.url}
    assert outside.files() == ["b"]


async def test_a_file_that_came_by_the_name_of_one_that_is_removed_stays(outside: Outside) -> None:
    write(outside, a=b"hello", b=b"hello")
    effect = removal(outside)
    outside.file("a").rename(aside_of(effect.url, KEY).removeprefix("file://"))
    write(outside, a=b"new")
    assert await effect.do(outside.world, outside.intent(tries=1)) == {"url": effect.url}
    assert outside.files() == ["a", "b"]
    assert outside.file("a").read_bytes() == b"new"


async def test_a_removal_that_was_killed_half_way_is_found_and_finished(outside: Outside) -> None:
    write(outside, a=b"hello", b=b"hello")
    effect = removal(outside)
    aside = Path(aside_of(effect.url, KEY).removeprefix("file://"))
    outside.file("a").rename(aside)
    assert await effect.find(outside.world, outside.intent()) is None, "its bytes are still there"
    assert await effect.do(outside.world, outside.intent(tries=1)) == {"url": effect.url}
    assert outside.files() == ["b"]
    assert await effect.find(outside.world, outside.intent()) == {"url": effect.url}


@pytest.mark.parametrize("copy", [b"hellO", None])
async def test_a_removal_that_was_killed_half_way_verifies_its_copy_again(outside: Outside, copy: bytes | None) -> None:
    write(outside, a=b"hello", **({} if copy is None else {"b": copy}))
    before = outside.files()
    effect = removal(outside)
    outside.file("a").rename(aside_of(effect.url, KEY).removeprefix("file://"))
    with pytest.raises(Permanent):
        await effect.do(outside.world, outside.intent(tries=1))
    assert outside.files() == before
    assert outside.file("a").read_bytes() == b"hello"


@pytest.mark.parametrize("error", [Temporary("busy"), Permanent("forbidden")])
async def test_a_file_that_is_not_removed_after_all_gets_its_name_back(
    outside: Outside, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(outside, a=b"hello", b=b"hello")

    async def refuse(url: str) -> None:
        raise error

    monkeypatch.setattr(outside.storage, "remove", refuse)
    with pytest.raises(type(error), match=str(error)):
        await removal(outside).do(outside.world, outside.intent())
    assert outside.files() == ["a", "b"]


# --- directories


def emptied(outside: Outside) -> RemoveDirectory:
    return RemoveDirectory(url=outside.url("d"))


async def test_a_directory_in_which_nothing_lies_goes(outside: Outside) -> None:
    outside.file("d").mkdir()
    gone = {"url": outside.url("d"), "removed": True}
    assert await emptied(outside).find(outside.world, outside.intent()) is None
    assert await emptied(outside).do(outside.world, outside.intent()) == gone
    assert outside.files() == []
    assert await emptied(outside).find(outside.world, outside.intent()) == gone
    assert await emptied(outside).do(outside.world, outside.intent()) == gone


@pytest.mark.parametrize("name", ["a", ".hidden", "inner"])
async def test_a_directory_in_which_anything_lies_stays(outside: Outside, name: str) -> None:
    outside.file("d").mkdir()
    if name == "inner":
        outside.file("d/inner").mkdir()
    else:
        outside.file(f"d/{name}").write_bytes(b"dear")
    before = outside.files()
    stays = {"url": outside.url("d"), "removed": False}
    assert await emptied(outside).do(outside.world, outside.intent()) == stays
    assert outside.files() == before
    assert outside.file(f"d/{name}").exists()


async def test_only_directories_that_may_go_do(outside: Outside) -> None:
    outside.file("d").mkdir()
    outside.world.protected = (outside.url("d"),)
    with pytest.raises(Permanent, match="protected root"):
        await emptied(outside).do(outside.world, outside.intent())
    outside.world.protected, outside.world.deletable = (), (outside.url("d"),)
    with pytest.raises(Permanent, match=r"none of storage\.deletable"):  # A root itself stays.
        await emptied(outside).do(outside.world, outside.intent())
    write(outside, f=b"dear")
    outside.world.deletable = (outside.url("").rstrip("/"),)
    with pytest.raises(Conflict, match="is a file"):
        await RemoveDirectory(url=outside.url("f")).do(outside.world, outside.intent())
    assert outside.files() == ["d", "f"]


async def test_a_removal_of_a_directory_that_was_killed_half_way_is_found_and_finished(outside: Outside) -> None:
    aside = Path(aside_of(outside.url("d"), KEY).removeprefix("file://"))
    aside.mkdir()
    assert await emptied(outside).find(outside.world, outside.intent()) is None
    assert (await emptied(outside).do(outside.world, outside.intent(tries=1)))["removed"] is True
    assert outside.files() == []
    aside.mkdir()
    (aside / "late").write_bytes(b"dear")
    assert (await emptied(outside).do(outside.world, outside.intent(tries=1)))["removed"] is False
    assert outside.file("d/late").read_bytes() == b"dear", "it has its name again"


async def test_a_directory_that_is_not_removed_after_all_gets_its_name_back(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.file("d").mkdir()

    async def refuse(url: str) -> None:
        raise Temporary("busy")

    monkeypatch.setattr(outside.storage, "remove_directory", refuse)
    with pytest.raises(Temporary, match="busy"):
        await emptied(outside).do(outside.world, outside.intent())
    assert outside.files() == ["d"]


async def test_a_directory_whose_name_was_taken_meanwhile_is_told_of(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside.file("d").mkdir()

    async def refuse(url: str) -> None:
        outside.file("d").mkdir()
        raise Permanent("something lies in it")

    monkeypatch.setattr(outside.storage, "remove_directory", refuse)
    with pytest.raises(Unknown, match=r"is called .* for now"):
        await emptied(outside).do(outside.world, outside.intent())


async def test_a_file_that_has_not_got_its_name_back_yet_is_not_called_untouched(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a step that ends meanwhile would withdraw the removal, and nobody would see the file under its other name."""
    write(outside, a=b"hello", b=b"hello")
    rename = outside.storage.rename

    async def away(*_: str) -> None:
        raise Temporary("no connection")

    async def rename_once(source: str, destination: str) -> None:
        await rename(source, destination)
        monkeypatch.setattr(outside.storage, "rename", away)

    monkeypatch.setattr(outside.storage, "rename", rename_once)
    monkeypatch.setattr(outside.storage, "checksum", away)
    effect = removal(outside)
    with pytest.raises(Unknown, match="no connection"):
        await effect.do(outside.world, outside.intent())
    monkeypatch.undo()
    assert await effect.find(outside.world, outside.intent()) is None
    await effect.do(outside.world, outside.intent(tries=1))
    assert outside.files() == ["b"]


def test_names_that_are_ours_for_a_while_are_told_from_files() -> None:
    assert is_temporary(part_of("file:///d/a.tar", KEY))
    assert is_temporary(aside_of("file:///d/a.tar", KEY))
    for name in ("a.tar", "a.part", "a.part-1", "a.part-0123456789ab.tar", "part-0123456789ab"):
        assert not is_temporary(f"file:///d/{name}")
