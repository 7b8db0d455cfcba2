"""What every way to ask where files are promises, whatever it speaks: one set of tests, against the simulated grid."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from aglowd.errors import Permanent, Temporary
from aglowd.grid.archive import Archive, Space
from aglowd.grid.gate import Site
from aglowd.grid.gfal import Gfal, GfalArchive
from aglowd.grid.proc import Processes
from aglowd.sim.world import HOUR_S

from .dcacheplace import WANTED, Place, maker_of

FILES = WANTED[:4]
NONE = FILES[0].replace("SB000", "SB999")


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Place]:
    async with maker_of(tmp_path)() as place:
        yield place


def by_xattr(there: Place) -> Archive:
    env = {"PATH": os.environ["PATH"], "X509_USER_PROXY": there.ready["proxy"]}
    return GfalArchive(Gfal(Processes(path=there.ready["bin"], env=env), Site("xattr", there.clock)))


WAYS: dict[str, Callable[[Place], Archive]] = {
    "archiveinfo": lambda there: there.look(),
    "namespace": lambda there: there.look(ask="namespace"),
    "xattr": by_xattr,
}


@pytest.fixture(params=sorted(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def archive(there: Place, way: str) -> Archive:
    return WAYS[way](there)


async def test_each_word_of_the_site_becomes_ours(there: Place, archive: Archive) -> None:
    assert await archive.localities([]) == {}
    assert await archive.localities([*FILES[:2], NONE]) == {FILES[0]: "NEARLINE", FILES[1]: "NEARLINE", NONE: "NONE"}
    there.strike("lost", "stage")
    await there.tape.stage(FILES[:3])
    there.now += 40 * HOUR_S
    there.strike("unavailable", "archiveinfo", value=3600.0)
    await there.dcache.localities(FILES[1:2])
    words = ("LOST", "UNAVAILABLE", "ONLINE", "NEARLINE")
    assert await archive.localities(FILES) == dict(zip(FILES, words, strict=True))
    there.now += 3600.0
    assert (await archive.localities(FILES))[FILES[1]] == "ONLINE"


async def test_two_spellings_of_a_file_are_one_question(archive: Archive) -> None:
    twin = FILES[0].replace(":8443", ":8443/srm/managerv2?SFN=")
    assert await archive.localities([FILES[0], twin]) == {FILES[0]: "NEARLINE", twin: "NEARLINE"}


async def test_what_is_no_surl_is_not_asked_for(archive: Archive) -> None:
    with pytest.raises(Permanent, match="junk"):
        await archive.localities([FILES[0], "junk"])


async def test_sizes_come_with_the_localities_or_not_at_all(archive: Archive, way: str) -> None:
    sizes: dict[str, int] = {}
    await archive.localities([*FILES, NONE], sizes)
    assert sizes.keys() == (set(FILES) if way == "namespace" else set())
    assert all(5e9 < size < 15e9 for size in sizes.values())


async def test_room_is_told_or_unknown(archive: Archive) -> None:
    assert await archive.space() == Space()


async def test_a_copy_beside_it_is_found_or_not_known(archive: Archive) -> None:
    assert await archive.copies(FILES[0]) is None


async def test_a_look_that_failed_says_nothing(there: Place, archive: Archive, way: str) -> None:
    if way == "xattr":
        said = "gfal-xattr error: 70 (Communication error on send) - SRM_INTERNAL_ERROR"
        Path(there.ready["bin"], "gfal-xattr").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 70\n")
    else:
        there.strike("error_before", way)
    with pytest.raises(Temporary):
        await archive.localities(FILES)
