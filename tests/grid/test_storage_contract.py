"""What `Storage` promises, whichever way it takes: tried on each of them, and by tests/real on real servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from zlib import adler32

import pytest

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.files import BLOCK_BYTES, Entry, join

from .places import Place

LEADING_ZERO = b"hello"
"""Its checksum is written 062c0215, or 62c0215."""
LARGE = bytes(range(256)) * (BLOCK_BYTES // 256) + b"and a bit"
"""More than one block."""


async def read(place: Place, url: str, tmp_path: Path) -> bytes:
    """The file's bytes, fetched as the daemon fetches them."""
    path = tmp_path / "fetched"
    await place.storage.copy(url, path.as_uri())
    data = path.read_bytes()
    path.unlink()
    return data


async def names(place: Place, url: str) -> list[str]:
    return [entry.url.removeprefix(f"{url}/") for entry in await place.storage.list(url)]


async def told(verb: Callable[[], Awaitable[None]]) -> None:
    """A write, made again while nobody can tell: at times globus' client loses a refusal in its own states (ECOMM)."""
    for _ in range(4):
        with suppress(Unknown):
            await verb()
            return
    await verb()


@pytest.mark.parametrize("data", [b"", b"\n", LEADING_ZERO, LARGE], ids=["empty", "short", "leading zero", "large"])
async def test_what_is_written_is_there(place: Place, tmp_path: Path, data: bytes) -> None:
    """Bytes and local files alike."""
    bytes_url, file_url = join(place.url, "bytes"), join(place.url, "file")
    (tmp_path / "P 1+%").write_bytes(data)
    await place.storage.upload(data, bytes_url)
    await place.storage.upload(tmp_path / "P 1+%", file_url)
    for url in (bytes_url, file_url):
        entry = await place.storage.stat(url)
        assert entry
        assert (entry.url, entry.size_bytes, entry.is_dir) == (url, len(data), False)
        assert await place.storage.checksum(url) == adler32(data)
        assert await read(place, url, tmp_path) == data
    assert await names(place, place.url) == ["bytes", "file"]


async def test_nothing_takes_the_place_of_what_is_there(place: Place, tmp_path: Path) -> None:
    there, other, directory = (join(place.url, name) for name in ("there", "other", "directory"))
    await place.storage.upload(b"dear", there)
    await place.storage.upload(b"other", other)
    await place.storage.make_directory(directory)
    (tmp_path / "local").write_bytes(b"other")
    for destination in (there, directory):
        for again in (
            place.storage.upload(b"other", destination),
            place.storage.upload(tmp_path / "local", destination),
            place.storage.copy(other, destination),
            place.storage.rename(other, destination),
        ):
            with pytest.raises(Permanent) as caught:
                await again
            assert not caught.value.absent
    with pytest.raises(Permanent):
        await place.storage.rename(there, there)
    with pytest.raises(Permanent):
        await place.storage.copy(there, (tmp_path / "local").as_uri())
    assert (tmp_path / "local").read_bytes() == b"other"
    assert await read(place, there, tmp_path) == b"dear"
    assert await read(place, other, tmp_path) == b"other"
    assert await names(place, place.url) == ["directory", "other", "there"]
    assert await names(place, directory) == []


async def test_what_is_not_there_is_absent(place: Place, tmp_path: Path) -> None:
    gone, new = join(place.url, "gone"), join(place.url, "new")
    assert await place.storage.stat(gone) is None
    assert await place.storage.stat(join(gone, "below")) is None
    for verb in (
        place.storage.list(gone), place.storage.checksum(gone), place.storage.remove(gone),
        place.storage.copy(gone, new), place.storage.rename(gone, new),
        place.storage.copy(gone, (tmp_path / "new").as_uri()),
    ):  # fmt: skip
        with pytest.raises(Permanent) as caught:
            await verb
        assert caught.value.absent
    assert not (tmp_path / "new").exists()
    assert await names(place, place.url) == []


async def test_a_source_that_is_not_there_or_no_file_is_not_uploaded(place: Place, tmp_path: Path) -> None:
    for wrong in (tmp_path / "gone", tmp_path):
        with pytest.raises(OutsideError):
            await place.storage.upload(wrong, join(place.url, "new"))
    assert await names(place, place.url) == []


async def test_a_directory_must_be_there_before_its_file(place: Place) -> None:
    there, below = join(place.url, "there"), join(place.url, "missing/new")
    await place.storage.upload(b"x", there)
    for verb in (
        lambda: place.storage.upload(b"x", below),
        lambda: place.storage.copy(there, below),
    ):
        with pytest.raises(Permanent):
            await told(verb)
    with pytest.raises(OutsideError):  # Apache says 500: nobody can tell, but that it did not happen is seen.
        await place.storage.rename(there, below)
    assert await names(place, place.url) == ["there"]


async def test_directories_are_made_with_their_parents_and_again(place: Place) -> None:
    deep = join(place.url, "a/b/c")
    await place.storage.make_directory(deep)
    await place.storage.make_directory(deep)
    await place.storage.make_directory(join(place.url, "a/"))
    entry = await place.storage.stat(join(place.url, "a/b"))
    assert entry
    assert entry.is_dir
    assert await names(place, place.url) == ["a"]
    assert await place.storage.list(deep) == ()


async def test_a_file_is_no_directory(place: Place, tmp_path: Path) -> None:
    file = join(place.url, "file")
    await place.storage.upload(b"dear", file)
    for wrong in (file, join(file, "below")):
        with pytest.raises(OutsideError) as caught:
            await place.storage.make_directory(wrong)
        assert wrong != file or isinstance(caught.value, Permanent)
    assert await read(place, file, tmp_path) == b"dear"


async def test_a_directory_is_no_file(place: Place, tmp_path: Path) -> None:
    """Neither removed, nor copied, nor summed up; with what lies in it and without."""
    for name in ("empty", "full"):
        directory = join(place.url, name)
        await place.storage.make_directory(directory)
        if name == "full":
            await place.storage.upload(b"dear", join(directory, "file"))
        for verb in (place.storage.remove(directory), place.storage.remove(f"{directory}/")):
            with pytest.raises(Permanent) as caught:
                await verb
            assert not caught.value.absent
        for other in (
            place.storage.checksum(directory),
            place.storage.copy(directory, (tmp_path / "copy").as_uri()),
        ):
            with pytest.raises(OutsideError):
                await other
        assert not (tmp_path / "copy").exists()
    assert await read(place, join(place.url, "full/file"), tmp_path) == b"dear"


async def test_only_a_directory_in_which_nothing_lies_is_removed(place: Place, tmp_path: Path) -> None:
    for name in ("file", "hidden", "directory"):
        directory = join(place.url, name)
        await place.storage.make_directory(join(directory, "inner") if name == "directory" else directory)
        if name != "directory":
            await place.storage.upload(b"dear", join(directory, ".x" if name == "hidden" else "x"))
        with pytest.raises(Permanent) as caught:
            await place.storage.remove_directory(directory)
        assert not caught.value.absent
    file = join(place.url, "file/x")
    with pytest.raises(Permanent):
        await place.storage.remove_directory(file)
    assert await read(place, file, tmp_path) == b"dear"
    assert await read(place, join(place.url, "hidden/.x"), tmp_path) == b"dear"
    await place.storage.remove_directory(join(place.url, "directory/inner"))
    await place.storage.remove_directory(f"{join(place.url, 'directory')}/")
    assert await names(place, place.url) == ["file", "hidden"]
    with pytest.raises(Permanent) as caught:
        await place.storage.remove_directory(join(place.url, "directory"))
    assert caught.value.absent


async def test_a_rename_moves(place: Place, tmp_path: Path) -> None:
    await place.storage.make_directory(join(place.url, "d"))
    await place.storage.upload(b"hello", join(place.url, "x.part-0a"))
    await place.storage.rename(join(place.url, "x.part-0a"), join(place.url, "d/x"))
    await place.storage.rename(join(place.url, "d"), join(place.url, "e"))
    assert await names(place, place.url) == ["e"]
    assert await read(place, join(place.url, "e/x"), tmp_path) == b"hello"


async def test_a_copy_leaves_its_source(place: Place, tmp_path: Path) -> None:
    source, destination = join(place.url, "a"), join(place.url, "b")
    await place.storage.upload(LARGE, source)
    await place.storage.copy(source, destination)
    assert await read(place, destination, tmp_path) == LARGE
    await place.storage.remove(source)
    assert await place.storage.stat(source) is None
    assert await place.storage.checksum(destination) == adler32(LARGE)
    assert await names(place, place.url) == ["b"]


async def test_a_listing_is_sorted_and_leaves_out_dot_files(place: Place) -> None:
    for name in ("b", ".hidden", "a", "B"):
        await place.storage.upload(name.encode(), join(place.url, name))
    await place.storage.make_directory(join(place.url, "d/below"))
    expected = [("B", 1, False), ("a", 1, False), ("b", 1, False), ("d", None, True)]
    for url in (place.url, f"{place.url}/"):
        entries = await place.storage.list(url)
        assert [_short(entry, place.url) for entry in entries] == expected
    (file,) = await place.storage.list(join(place.url, "b"))
    assert _short(file, place.url) == ("b", 1, False)


def _short(entry: Entry, url: str) -> tuple[str, int | None, bool]:
    return entry.url.removeprefix(f"{url}/"), None if entry.is_dir else entry.size_bytes, entry.is_dir


async def test_any_name_goes_through_every_verb(place: Place, tmp_path: Path) -> None:
    for number, name in enumerate(place.names):
        url, data = join(place.url, name), f"{number}".encode()
        await place.storage.upload(data, url)
        assert await place.storage.checksum(url) == adler32(data)
        assert await read(place, url, tmp_path) == data
    assert sorted(await names(place, place.url)) == sorted(place.names)
    for name in place.names:
        url, copy, directory = (f"{join(place.url, name)}{end}" for end in ("", ".copy", ".dir"))
        await place.storage.make_directory(directory)
        await place.storage.copy(url, copy)
        await place.storage.rename(copy, join(directory, name))
        assert await names(place, directory) == [name]
        await place.storage.remove(join(directory, name))
        await place.storage.remove(url)
    assert all(entry.is_dir for entry in await place.storage.list(place.url))


async def test_what_is_no_url_is_refused(place: Place) -> None:
    for wrong in ("relative", "", "--help", "gsiftp://x/a b", "file://host/x"):
        with pytest.raises((Permanent, Temporary)):
            await place.storage.list(wrong)
