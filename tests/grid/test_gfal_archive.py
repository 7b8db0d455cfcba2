"""Where files are by `gfal-xattr`: its words and its silences; a dead proxy is told once."""

from __future__ import annotations

from pathlib import Path

import pytest

from aglowd.errors import Temporary
from aglowd.grid.gate import Site
from aglowd.grid.gfal import Gfal, GfalArchive
from aglowd.grid.proc import Processes

from .conftest import Install

SURL = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/L229507_SB{:03d}_uv.MS_9aafa18e.tar"


@pytest.fixture
def archive(processes: Processes, site: Site) -> GfalArchive:
    return GfalArchive(Gfal(processes, site))


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("echo ONLINE", "ONLINE"),
        ("echo 'NEARLINE '", "NEARLINE"),
        ("echo ONLINE_AND_NEARLINE", "ONLINE"),
        ("echo LOST", "LOST"),
        ("echo NONE", "NONE"),
        ("echo UNAVAILABLE", "UNAVAILABLE"),
        ("echo UNKNOW", None),
        ("echo Traceback of something", None),
        ("true", None),
        ("echo 'gfal-xattr error: 2 (No such file or directory) - SRM_INVALID_PATH' >&2; exit 2", "NONE"),
        ("echo 'gfal-xattr error: 13 (Permission denied) - SRM_AUTHORIZATION_FAILURE' >&2; exit 13", None),
    ],
)
async def test_words_and_silences(
    archive: GfalArchive, install: Install, tmp_path: Path, said: str, word: str | None
) -> None:
    install("gfal-xattr", said)
    spelt = SURL.format(1).replace(":8443/", ":8443//")
    assert await archive.localities([spelt]) == ({} if word is None else {spelt: word})
    assert (tmp_path / "gfal-xattr.argv").read_text() == f"{SURL.format(1)} user.status\n"


@pytest.mark.parametrize(
    "said",
    [
        "gfal-xattr error: 70 (Communication error on send) - The proxy credential expired",
        "gfal-xattr error: 61 (No data available) - errno reported by local system call No data available",
        "gfal-xattr error: 2 (No such file or directory) - could not open the user certificate",
    ],
)
async def test_a_tool_that_cannot_ask_tells_of_no_file_and_is_tried_once(
    archive: GfalArchive, install: Install, tmp_path: Path, said: str
) -> None:
    install("gfal-xattr", f"echo '{said}' >&2\nexit 1")
    with pytest.raises(Temporary):
        await archive.localities([SURL.format(n) for n in range(20)])
    assert len((tmp_path / "gfal-xattr.argv").read_text().splitlines()) == 1


async def test_one_file_that_cannot_be_asked_about_leaves_no_half_truth(archive: GfalArchive, install: Install) -> None:
    install("gfal-xattr", "case $1 in *SB007*) echo busy >&2; exit 70;; esac; echo ONLINE")
    with pytest.raises(Temporary, match="busy"):
        await archive.localities([SURL.format(n) for n in range(10)])
