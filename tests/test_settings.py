"""The configuration value by value: origins, differences, what may change at run time, and that no secret is shown."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from aglowd.config import Config, config_of
from aglowd.credentials import list_origins
from aglowd.settings import LIVE, Change, changes, heeded, is_live, list_settings, toml_of
from aglowd.toml_file import TomlFiles

MAIN = """[catalogue]
path = "fields.csv"
srm_dir = "srm"
[sites.sara]
results = "file:///r"
archive = "file:///a"
"""
DOCS = Path(__file__).parent.parent / "docs"


def files_of(tmp_path: Path, text: str = "", drop_in: str = "") -> TomlFiles:
    path = tmp_path / "aglowd.toml"
    path.write_text(MAIN + text)
    path.with_suffix(".d").mkdir(exist_ok=True)
    (path.with_suffix(".d") / "10.toml").write_text(drop_in)
    return TomlFiles.read(path)


def config(tmp_path: Path, text: str = "", drop_in: str = "") -> Config:
    return config_of(files_of(tmp_path, text, drop_in))


# --- origins


def test_every_value_says_where_it_comes_from(tmp_path: Path) -> None:
    text = '[jobs]\nqueue = "common"\nmax_pilots = 3\n[sites.sara.jobs]\nqueue = "own"\n[pools]\n"a b" = 2\n'
    files = files_of(tmp_path, text, "[catalogue]\nmax_fields = 7\n")
    found = {one.key: (one.value, one.origin) for one in list_settings(config_of(files), files, {})}
    main, late = f"{tmp_path}/aglowd.toml", f"{tmp_path}/aglowd.d/10.toml"
    assert found["catalogue.max_fields"] == (7, f"{late}:2")
    assert found["catalogue.srm_dir"] == ("srm", f"{main}:3")
    assert found["catalogue.poll"] == ("5m", "default")
    assert found["sites.sara.jobs.queue"] == ("own", f"{main}:11")
    assert found["sites.sara.jobs.max_pilots"] == (3, f"{main}:9"), "a site rests on the common value"
    assert found["sites.sara.jobs.cpus"] == (1, "default")
    assert found['pools."a b"'] == (2, f"{main}:13")
    assert found["proxy.path"] == ("", "default")


def test_a_value_of_the_environment_says_so(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    found = {one.key: one for one in list_settings(config_of(files), files, {"X509_USER_PROXY": "/tmp/x"})}
    assert (found["proxy.path"].value, found["proxy.path"].origin) == ("/tmp/x", "$X509_USER_PROXY")


def test_what_is_printed_is_the_configuration_again(tmp_path: Path) -> None:
    files = files_of(tmp_path, '[daemon]\noperators = ["lofar", 7]\n[storage]\nprotected = ["file:///é\\u007f\\"x"]\n')
    before = config_of(files)
    again = tomllib.loads(toml_of(list_settings(before, files, {})))
    printed = tmp_path / "again.toml"
    printed.write_text(toml_of(list_settings(before, files, {})))
    assert config_of(TomlFiles.read(printed)) == before
    assert again["daemon"]["operators"] == ["lofar", 7]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    hook, token = "https://hooks.example.org/services/T0/sesame", "tk_sesame"
    text = f'[notify]\nwebhook = "{hook}"\ncommand = ["tell", "--token", "{token}"]\n'
    files = files_of(tmp_path, text)
    old, new = config(tmp_path), config_of(files)
    told = toml_of(list_settings(new, files, {})) + repr(changes(old, new)) + repr(changes(new, old))
    assert "sesame" not in told
    assert changes(old, new) == [
        Change("notify.command", [], ["tell", "***"], restart=False),
        Change("notify.webhook", "", "***", restart=False),
    ]


def test_credentials_say_where_they_are_kept(tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    kept = tmp_path / "credentials" / "lta"
    kept.write_text("sesame\n")
    kept.chmod(0o600)
    open_file = tmp_path / "picas"
    open_file.write_text("sesame\n")
    open_file.chmod(0o644)
    wanted = config(tmp_path, f'[lta]\nuser = "me"\n[picas]\nuser = "me"\npassword_file = "{open_file}"\n')
    environ = {
        "CREDENTIALS_DIRECTORY": str(tmp_path / "credentials"),
        "AGLOWD_DCACHE_TOKEN": "sesame",
        "HOME": str(tmp_path),
    }
    found = list_origins(wanted, environ)
    assert found["lta"] == "$CREDENTIALS_DIRECTORY/lta"
    assert found["dcache"] == "$AGLOWD_DCACHE_TOKEN"
    assert found["picas"].startswith(f"{open_file}:1: others can read this secret")
    assert found["stageit"] == ""
    assert "sesame" not in repr(found)


# --- what may change


def keys_of(value: object, where: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, msgspec.Struct):
        return [key for name in value.__struct_fields__ for key in keys_of(getattr(value, name), (*where, name))]
    if isinstance(value, dict) and where != ("pools",) and where != ("secrets",):
        return [key for name, inner in value.items() for key in keys_of(inner, (*where, name))]
    return [where]


def test_what_is_called_live_exists(tmp_path: Path) -> None:
    every = {".".join((key[0], "*", *key[2:]) if key[0] == "sites" else key) for key in keys_of(config(tmp_path))}
    for name in LIVE:
        assert any(key == name or key.startswith(f"{name}.") for key in every), name


def test_the_documents_list_what_a_reload_applies() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    section = text.partition("\n### What a reload applies\n")[2].partition("\n## ")[0]
    named = {name.replace("NAME", "*").strip("[]") for name in re.findall(r"`([\w.\[\]]+)`", section)}
    assert named == set(LIVE)


@pytest.mark.parametrize(
    ("key", "live"),
    [
        (("catalogue", "max_fields"), True),
        (("catalogue", "select"), False),
        (("pools", "copies"), True),
        (("pools",), True),
        (("notify", "smtp"), True),
        (("sites", "sara", "files_at_once"), True),
        (("sites", "sara", "jobs", "max_pilots"), True),
        (("sites", "sara", "jobs", "queue"), False),
        (("sites", "sara", "results"), False),
        (("sites",), False),
    ],
)
def test_which_keys_are_live(key: tuple[str, ...], live: bool) -> None:
    assert is_live(key) is live


def test_only_what_is_live_is_heeded(tmp_path: Path) -> None:
    old = config(tmp_path, "[pools]\na = 1\nb = 1\n")
    more = """[pools]
a = 2
c = 3
[daemon]
effects = 5
state_dir = "/elsewhere"
[sites.sara.jobs]
max_pilots = 9
queue = "q"
[sites.poznan]
process = "sara"
"""
    new = config(tmp_path, more, '[sites.sara]\nfiles_at_once = 4\nresults = "file:///other"\n')
    got = heeded(old, new)
    assert got.pools == {"a": 2, "c": 3}
    assert (got.daemon.effects, got.daemon.state_dir) == (5, "/var/lib/aglowd")
    assert set(got.sites) == {"sara"}
    sara = got.sites["sara"]
    assert (sara.files_at_once, sara.results, sara.jobs.max_pilots, sara.jobs.queue) == (4, "file:///r", 9, "")
    left = {one.key for one in changes(got, new)}
    assert left == {"daemon.state_dir", "sites.poznan", "sites.sara.results", "sites.sara.jobs.queue"}
    assert all(one.restart for one in changes(got, new))
    assert {one.key: (one.old, one.new) for one in changes(old, new) if not one.restart} == {
        "daemon.effects": (32, 5),
        "pools.a": (1, 2),
        "pools.b": (1, None),
        "pools.c": (None, 3),
        "sites.sara.files_at_once": (5000, 4),
        "sites.sara.jobs.max_pilots": (250, 9),
    }


def test_a_site_that_goes_stays_until_the_restart(tmp_path: Path) -> None:
    old = config(tmp_path, "", '[sites.juelich]\nresults = "file:///r"\narchive = "file:///a"\n')
    new = config(tmp_path)
    assert set(heeded(old, new).sites) == {"sara", "juelich"}
    assert changes(old, new) == [Change("sites.juelich", "configured", None, restart=True)]


def test_the_same_is_no_change(tmp_path: Path) -> None:
    one = config(tmp_path)
    assert changes(one, config(tmp_path)) == []
    assert heeded(one, config(tmp_path)) == one
