"""Batch systems as the configuration names them: one for each way in which pilots run, whatever sites share it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aglowd.batches import SYSTEMS, TEMPLATES, Means, build_batches
from aglowd.clock import Clock
from aglowd.config import BatchConfig, load_config
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.toml_file import ConfigError
from aglowd.wiring import shown_to_templates

LEAST = """
[catalogue]
path = "/x/fields.csv"
srm_dir = "/x"
"""
SITE = """
[sites.{0}]
results = "file:///x/{0}"
archive = "file:///y/{0}"
"""


def config_of(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "aglowd.toml"
    path.write_text(LEAST + text, encoding="utf-8")
    return load_config(path)


def build(tmp_path: Path, text: str) -> tuple[dict[str, Any], dict[str, Site]]:
    clock = Clock()
    gates: dict[str, Site] = {}
    http = Http(clock)
    means = Means(clock, http, Processes(env={}), tmp_path / "state", "", 2)
    return dict(build_batches(config_of(tmp_path, text), means, gates)), gates


def test_a_site_has_the_common_keys_but_for_its_own(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        "[jobs]\nsystem = 'slurm'\nqueue = 'normal'\nmax_pilots = 7\n"
        + SITE.format("sara")
        + SITE.format("juelich")
        + "jobs = { queue = 'short', wall_time = '12h' }\n",
    )
    assert config.sites["sara"].jobs == BatchConfig(system="slurm", queue="normal", max_pilots=7)
    assert config.sites["juelich"].jobs == BatchConfig(system="slurm", queue="short", max_pilots=7, wall_time="12h")
    shown = shown_to_templates(config)
    assert (shown["sites"]["juelich"]["pilots"]["wall_time"], shown["config"]["pilots"]["wall_time"]) == ("12h", "96h")


@pytest.mark.parametrize(
    ("keys", "what"),
    [
        ("jobs = { system = 'pbs' }", "'pbs' is not known"),
        ("jobs = { poll = '1m' }", "unknown key 'poll'"),
        ("jobs = { cpus = 0 }", "0 is too small"),
        ("jobs = { wall_time = 'long' }", "'long' is no duration"),
    ],
)
def test_what_is_wrong_in_a_sites_table_is_told_with_its_line(tmp_path: Path, keys: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, SITE.format("sara") + keys)
    assert what in str(caught.value)
    assert ":9: " in str(caught.value)


def test_which_system_needs_a_proxy_and_which_takes_no_pilots_of_ours(tmp_path: Path) -> None:
    pilots = {}
    for system in ("glite", "slurm", "dirac", "arc", "local", "none"):
        config = config_of(tmp_path, f"[jobs]\nsystem = '{system}'\n" + SITE.format("sara"))
        pilots[system] = shown_to_templates(config)["sites"]["sara"]["pilots"]
    assert {name: bool(one["proxy_minimum"]) for name, one in pilots.items()} == {
        "glite": True, "slurm": False, "dirac": True, "arc": True, "local": False, "none": False,
    }  # fmt: skip
    assert [name for name, one in pilots.items() if not one["max_pilots"]] == ["none"]


def test_sites_that_say_the_same_share_one_system(tmp_path: Path) -> None:
    found, gates = build(
        tmp_path,
        "[jobs]\nendpoint = 'https://wms:7443/x'\n"
        + SITE.format("sara")
        + "jobs = { max_pilots = 3, requirements = 'true' }\n"
        + SITE.format("juelich")
        + "jobs = { endpoint = 'https://wms.other:7443/x' }\n",
    )
    assert found[""] is found["sara"]
    assert found["juelich"] is not found["sara"]
    assert sorted(gates) == ["glite", "glite-juelich"]


def test_a_project_has_a_proxy_of_its_own(tmp_path: Path) -> None:
    """What is done for it is done with that one; the common one stays that of everybody else."""
    text = "[proxy]\npath = '/run/x509'\n" + "".join(
        SITE.format(name) + f"jobs = {{ system = 'dirac', proxy = '{proxy}' }}\n"
        for name, proxy in (("sara", "/p/surveys"), ("juelich", "/p/other"), ("poznan", "/p/surveys"))
    )
    found, gates = build(tmp_path, text)
    assert found["sara"] is found["poznan"]
    assert len({id(batch) for batch in found.values()}) == 3
    assert len(gates) == 3
    seen_by = {name: batch._processes._env.get("X509_USER_PROXY") for name, batch in found.items()}
    assert seen_by == {"": None, "sara": "/p/surveys", "juelich": "/p/other", "poznan": "/p/surveys"}
    assert found["sara"]._processes._places is found[""]._processes._places, "and they share their places"
    pilots = shown_to_templates(config_of(tmp_path, text))
    assert (pilots["sites"]["sara"]["pilots"]["proxy"], pilots["config"]["pilots"]["proxy"]) == ("/p/surveys", "")


def test_an_arc_element_is_shown_the_projects_proxy(tmp_path: Path) -> None:
    (tmp_path / "surveys").write_text("x")
    text = (
        SITE.format("sara") + f"jobs = {{ system = 'arc', endpoint = 'https://ce/x', proxy = '{tmp_path}/surveys' }}\n"
    )
    found, _ = build(tmp_path, text)
    assert found["sara"]._proxy == tmp_path / "surveys"


def test_a_template_of_ones_own_is_read_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.jdl").write_text("[mine]", encoding="utf-8")
    found, _ = build(tmp_path, f"[jobs]\ntemplate = '{tmp_path}/my.jdl'\n" + SITE.format("sara"))
    assert found["sara"]._terms.template == "[mine]"
    with pytest.raises(ConfigError, match=r"none\.jdl:1: the template of job descriptions cannot be read"):
        build(tmp_path, f"[jobs]\ntemplate = '{tmp_path}/none.jdl'\n" + SITE.format("sara"))


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_every_system_can_be_built_from_what_is_shipped(tmp_path: Path, system: str) -> None:
    text = f"[jobs]\nsystem = '{system}'\nendpoint = 'https://there:443/arex'\n" + SITE.format("sara")
    found, gates = build(tmp_path, text)
    assert found["sara"].system == system
    assert system in gates


def test_every_system_of_the_configuration_is_one_that_can_be_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(tmp_path, "[jobs]\nsystem = 'x'\n" + SITE.format("sara"))
    assert f"one of {', '.join(SYSTEMS)}" in str(caught.value)
    assert {*TEMPLATES} < {*SYSTEMS}
