"""What the configuration wires: the way to ask where files are, and where files on their way lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
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
    world, _ = build_world(config, Clock(), Secrets(config), "here")
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


BASES = """
[picas]
user = "me"
[sites.common]
results = "file:///r"
archive = "file:///a"
[sites.poznan]
process = "sara"
[sites.poznan.picas]
database = "sksp2juelich"
[sites.far]
process = "sara"
[sites.far.picas]
url = "https://picas.far.example"
user = "you"
pilots_url = "https://inside.far.example"
"""


async def test_sites_with_one_token_database_share_its_adapter(tmp_path: Path) -> None:
    """Pilots are told the database of their site, and each password goes to its own server."""
    config = config_of(tmp_path, BASES.replace("[picas]", '[sites.juelich.picas]\ndatabase = "sksp2juelich"\n[picas]'))
    secrets = Secrets(config, {"AGLOWD_PICAS_PASSWORD": "common", "AGLOWD_PICAS_FAR_PASSWORD": "of far"})
    world, gates = build_world(config, Clock(), secrets, "here")
    await world.http.close()
    assert world.token_base("sara") is world.token_base("common") is world.token_base("")
    assert world.token_base("juelich") is world.token_base("poznan") is not world.token_base("")
    assert {name: world.token_base(name).database for name in ("", "juelich", "far")} == {
        "": "sksp",
        "juelich": "sksp2juelich",
        "far": "sksp",
    }
    assert {name for name in gates if name.startswith("picas")} == {"picas", "picas-far"}, "a gate for each server"
    told = {name: msgspec.json.decode(world.sandbox(name)["picas.json"]) for name in ("", "juelich", "far")}
    url = "https://picas-lofar.grid.surfsara.nl:6984"
    assert told == {
        "": {"user": "me", "password": "common", "database": "sksp", "url": url},
        "juelich": {"user": "me", "password": "common", "database": "sksp2juelich", "url": url},
        "far": {"user": "you", "password": "of far", "database": "sksp", "url": "https://inside.far.example"},
    }


async def test_a_new_server_gets_no_password_of_another(tmp_path: Path) -> None:
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text("common")
    more = f'''[picas]
user = "me"
password_file = "{tmp_path}/password"
[sites.sara.picas]
url = "https://elsewhere.example"
'''
    config = config_of(tmp_path, more)
    secrets = Secrets(config, {})
    assert secrets.credentials["picas"].password == "common"
    assert (secrets.credentials["picas-sara"].user, secrets.credentials["picas-sara"].password) == (None, None)
