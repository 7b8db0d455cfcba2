"""Files are copied, written and removed: nothing that differs is overwritten, no last copy removed, and nothing damaged published."""

from __future__ import annotations

import os
from pathlib import Path
from zlib import adler32

import pytest

from aglowd.effects.files import (
    Content,
    CopyFile,
    MakeDirectory,
    RemoveFile,
    WriteFile,
    part_of,
    publish,
    put_bytes,
    read_back,
)
from aglowd.effects.token_archive import ArchiveTokens
from aglowd.errors import Permanent, Temporary

from .made import make_tokens
from .outside import KEY, Outside

# --- files


async def test_a_directory_is_made_and_found(outside: Outside) -> None:
    effect = MakeDirectory(url=outside.url("a/b"))
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}
    assert await effect.find(outside.world, outside.intent()) == {"url": effect.url}
    assert outside.file("a/b").is_dir()
    outside.file("c").write_text("a file")
    for way in (MakeDirectory(url=outside.url("c")).do, MakeDirectory(url=outside.url("c")).find):
        with pytest.raises(Permanent):
            await way(outside.world, outside.intent())


def copy_of(outside: Outside, data: bytes = b"hello") -> CopyFile:
    outside.file("a").write_bytes(data)
    return CopyFile(source=outside.url("a"), destination=outside.url("b"))


async def test_a_file_is_copied_verified_and_found(outside: Outside) -> None:
    effect = copy_of(outside)
    assert await effect.find(outside.world, outside.intent()) is None
    expected = {"url": effect.destination, "size_bytes": 5, "adler32": adler32(b"hello"), "copied": True}
    assert await effect.do(outside.world, outside.intent()) == expected
    assert await effect.find(outside.world, outside.intent(notes=outside.noted[0])) == expected
    assert outside.file("b").read_bytes() == b"hello"
    assert outside.files() == ["a", "b"]
    assert outside.noted == [{"part": part_of(effect.destination, KEY)}]


async def test_a_copy_that_is_there_is_not_made_again(outside: Outside) -> None:
    effect = copy_of(outside)
    await effect.do(outside.world, outside.intent())
    before = outside.file("b").stat()
    assert (await effect.do(outside.world, outside.intent(tries=1)))["size_bytes"] == 5
    assert outside.file("b").stat().st_mtime_ns == before.st_mtime_ns
    assert outside.file("b").stat().st_ino == before.st_ino


@pytest.mark.parametrize("other", [b"hellO", b"", b"hello!"])
async def test_nothing_that_differs_is_overwritten(outside: Outside, other: bytes) -> None:
    effect = copy_of(outside)
    outside.file("b").write_bytes(other)
    for way in (effect.do, effect.find):
        with pytest.raises(Permanent, match=r"exists and differs .* it is not overwritten"):
            await way(outside.world, outside.intent())
    assert outside.file("b").read_bytes() == other
    assert outside.files() == ["a", "b"]


async def test_a_damaged_copy_is_never_published(outside: Outside) -> None:
    effect = copy_of(outside)
    outside.storage.damaged = 1
    with pytest.raises(Temporary, match=r"the copy of .*/b arrived damaged"):
        await effect.do(outside.world, outside.intent())
    assert outside.files() == ["a"]
    assert await effect.find(outside.world, outside.intent()) is None
    await effect.do(outside.world, outside.intent(tries=1))
    assert outside.file("b").read_bytes() == b"hello"


async def test_a_copy_that_somebody_took_away_before_it_was_read_back_is_made_again(outside: Outside) -> None:
    effect = copy_of(outside)
    with pytest.raises(Temporary, match=r"the copy of .*/b was made and is not there"):
        await publish(outside.world, part_of(effect.destination, KEY), effect.destination, Content(5, 1))
    await effect.do(outside.world, outside.intent(tries=1))
    assert outside.file("b").read_bytes() == b"hello"


@pytest.mark.parametrize(("tries", "noted"), [(1, False), (0, True)])
async def test_what_an_earlier_try_left_behind_is_begun_anew(outside: Outside, tries: int, noted: bool) -> None:
    effect = copy_of(outside)
    part = part_of(effect.destination, KEY)
    Path(part.removeprefix("file://")).write_bytes(b"hel")
    notes = {"part": part} if noted else None
    assert (await effect.do(outside.world, outside.intent(tries=tries, notes=notes)))["size_bytes"] == 5
    assert outside.files() == ["a", "b"]


async def test_a_file_of_somebody_else_beside_it_is_not_removed(outside: Outside) -> None:
    effect = copy_of(outside)
    other = part_of(effect.destination, "P2-1/step/1/copy_file/0")
    Path(other.removeprefix("file://")).write_bytes(b"hel")
    await effect.do(outside.world, outside.intent(tries=3))
    assert Path(other.removeprefix("file://")).read_bytes() == b"hel"


async def test_a_source_that_is_not_there(outside: Outside) -> None:
    effect = copy_of(outside)
    outside.file("a").unlink()
    with pytest.raises(Permanent) as caught:
        await effect.do(outside.world, outside.intent())
    assert caught.value.absent
    assert outside.files() == []


async def test_bytes_are_written_as_safely_as_a_copy(outside: Outside) -> None:
    url = outside.url("d/x")
    outside.storage.damaged = 1
    with pytest.raises(Temporary, match="damaged"):
        await put_bytes(outside.world, outside.intent(), b"data", url)
    assert outside.files() == ["d"]
    expected = {"url": url, "size_bytes": 4, "adler32": adler32(b"data")}
    assert await put_bytes(outside.world, outside.intent(tries=1), b"data", url) == expected
    assert await put_bytes(outside.world, outside.intent(), b"data", url) == expected
    with pytest.raises(Permanent, match="exists and differs"):
        await put_bytes(outside.world, outside.intent(), b"date", url)
    assert await read_back(outside.world, outside.intent(), url) == b"data"
    assert os.listdir(outside.world.work_dir) == []


async def test_reading_back_leaves_nothing_behind_and_begins_anew(outside: Outside) -> None:
    outside.file("x").write_bytes(b"data")
    with pytest.raises(Permanent):
        await read_back(outside.world, outside.intent(), outside.url("none"))
    assert await read_back(outside.world, outside.intent(), outside.url("x")) == b"data"
    outside.file("x").write_bytes(b"newer")
    assert await read_back(outside.world, outside.intent(), outside.url("x")) == b"newer"


async def test_a_file_is_removed_when_another_copy_holds_the_same(outside: Outside) -> None:
    await copy_of(outside).do(outside.world, outside.intent())
    effect = RemoveFile(url=outside.url("a"), copy=outside.url("b"))
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}
    assert outside.files() == ["b"]
    assert await effect.find(outside.world, outside.intent()) == {"url": effect.url}
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}


@pytest.mark.parametrize("copy", [b"other", None])
async def test_the_last_copy_is_not_removed(outside: Outside, copy: bytes | None) -> None:
    outside.file("a").write_bytes(b"hello")
    if copy is not None:
        outside.file("b").write_bytes(copy)
    with pytest.raises(Permanent):
        await RemoveFile(url=outside.url("a"), copy=outside.url("b")).do(outside.world, outside.intent())
    assert outside.file("a").read_bytes() == b"hello"


async def test_a_file_is_no_copy_of_itself(outside: Outside) -> None:
    outside.file("a").write_bytes(b"hello")
    with pytest.raises(Permanent):
        await RemoveFile(url=outside.url("a"), copy=outside.url("a")).do(outside.world, outside.intent())
    assert outside.file("a").read_bytes() == b"hello"


# --- what is protected


@pytest.mark.parametrize("slash", ["", "/"])
async def test_nothing_is_written_or_removed_below_a_protected_root(outside: Outside, slash: str) -> None:
    await make_tokens(outside)
    outside.file("keep").mkdir()
    for name in ("a", "b", "keep/a"):
        outside.file(name).write_bytes(b"hello")
    outside.world.protected = (outside.url("other"), outside.url("keep") + slash)
    before = outside.files()
    for effect in (
        MakeDirectory(url=outside.url("keep/new")),
        CopyFile(source=outside.url("a"), destination=outside.url("keep/b")),
        ArchiveTokens(token_type="t", url=outside.url("keep/t.tar.gz")),
        RemoveFile(url=outside.url("keep/a"), copy=outside.url("a")),
    ):
        with pytest.raises(Permanent, match=r"below the protected root .*/keep"):
            await effect.do(outside.world, outside.intent())
    assert outside.files() == before
    await RemoveFile(url=outside.url("b"), copy=outside.url("keep/a")).do(outside.world, outside.intent())
    await MakeDirectory(url=outside.url("keeper")).do(outside.world, outside.intent())
    assert outside.files() == sorted([*(name for name in before if name != "b"), "keeper"])


# --- texts


async def test_a_text_is_written_verified_and_found(outside: Outside) -> None:
    effect = WriteFile(url=outside.url("d/record.json"), text="größer\n")
    expected = {"url": effect.url, "size_bytes": 9, "adler32": adler32("größer\n".encode())}
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == expected
    assert await effect.find(outside.world, outside.intent()) == expected
    assert outside.noted == [{"part": part_of(effect.url, KEY)}]
    assert await effect.do(outside.world, outside.intent(tries=1)) == expected, "it is there"
    assert os.listdir(outside.file("d")) == ["record.json"]


async def test_a_text_that_differs_is_not_overwritten(outside: Outside) -> None:
    outside.file("record.json").write_text("somebody's")
    effect = WriteFile(url=outside.url("record.json"), text="ours")
    for way in (effect.do, effect.find):
        with pytest.raises(Permanent, match="exists and differs"):
            await way(outside.world, outside.intent())
    assert outside.file("record.json").read_text() == "somebody's"


async def test_no_text_is_written_below_a_protected_root(outside: Outside) -> None:
    outside.world.protected = (outside.url("d"),)
    with pytest.raises(Permanent, match="protected"):
        await WriteFile(url=outside.url("d/x"), text="x").do(outside.world, outside.intent())
    assert not outside.file("d").exists()
