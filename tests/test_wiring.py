"""What the configuration wires: the way to ask where files are, and where files on their way lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aglowd.clock import Clock
from aglowd.config import Config, load_config
from aglowd.credentials import Secrets
from aglowd.effects.base import World
from aglowd.grid.dcache import Dcache
from aglowd.grid.gfal import GfalArchive
from aglowd.wiring import build_world


def config_of(tmp_path: Path, more: str = "") -> Config:
    path = tmp_path / "aglowd.toml"
    path.write_text(f"""
[daemon]
state_dir = "{tmp_path}"
[catalogue]
path = "fields.csv"
srm_dir = "srm"
[sites.sara]
results = "file:///r"
archive = "file:///a"
[sites.juelich]
results = "file:///r"
archive = "file:///a"
staging = "dcache"
dcache = "https://d.fz-juelich.de"
{more}""")
    return load_config(path)


async def world_of(tmp_path: Path, more: str = "") -> World:
    config = config_of(tmp_path, more)
    world, _ = build_world(config, Clock(), Secrets(config))
    await world.http.close()
    return world


@pytest.mark.parametrize(("ask", "kind"), [("archiveinfo", Dcache), ("namespace", Dcache), ("xattr", GfalArchive)])
async def test_where_files_are_is_asked_as_configured(tmp_path: Path, ask: str, kind: type[Any]) -> None:
    world = await world_of(tmp_path, f'[dcache]\nask = "{ask}"')
    assert {type(archive) for archive in world.archives.values()} == {kind}
    is_rest = kind is Dcache
    assert (world.archive("sara") is not world.archive("juelich")) is is_rest, "by tools each host has a gate anyway"


SITES = """
[sites.own]
results = "gsiftp://door.uni.example:2811/pnfs/r"
archive = "https://shared.example/a"
dcache = "https://dcache.uni.example:3880"
[sites.common]
results = "https://shared.example/r"
archive = "file:///a"
[dcache]
events = true
url = "{}"
"""


@pytest.mark.parametrize(
    ("url", "elsewhere"),
    [
        ("https://dcacheview.grid.surfsara.nl:22880", {"own", "door.uni.example", "juelich", "poznan"}),
        ("https://dcache.example", {"own", "door.uni.example", "juelich"}),
        ("https://dcache.uni.example", {"juelich"}),
    ],
)
async def test_events_are_those_of_the_common_dcache(tmp_path: Path, url: str, elsewhere: set[str]) -> None:
    world = await world_of(tmp_path, SITES.format(url))
    assert world.events is not None
    assert world.events.elsewhere == elsewhere


async def test_what_storage_has_on_its_way_lies_in_the_state_directory(tmp_path: Path) -> None:
    world = await world_of(tmp_path)
    assert world.storage._work_dir == world.work_dir == tmp_path / "work"
