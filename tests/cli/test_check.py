"""`aglowd check`, as a real process: silent and 0 on what is well, every problem and 1 on what is not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIPPED = Path(__file__).parent.parent.parent / "etc" / "pipelines"


def check(config: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "aglowd.cli", "check", "--config", str(config)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def pipelines(tmp_path: Path) -> Path:
    path = tmp_path / "pipelines"
    shutil.copytree(SHIPPED, path)
    return path


def write_config(tmp_path: Path, pipelines: Path | None, more: str = "") -> Path:
    path = tmp_path / "aglowd.toml"
    text = '[catalogue]\npath = "fields.csv"\nsrm_dir = "srm"\n[sites.sara]\nresults = "file:///r"\narchive = "file:///a"\n'
    if pipelines is not None:
        text += f'[pipelines]\ndirectory = "{pipelines}"\n'
    path.write_text(text + more)
    return path


@pytest.mark.parametrize("shipped", [True, False])
def test_what_is_well(tmp_path: Path, pipelines: Path, shipped: bool) -> None:
    config = write_config(tmp_path, None if shipped else pipelines)
    ended = check(config)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{config} is well; pipelines: archive (")
    assert "sksp (" in ended.stdout


def test_the_problems_of_all_pipelines_are_told(tmp_path: Path, pipelines: Path) -> None:
    (pipelines / "a.toml").write_text("[steps.x]\nkind = 'stag'\n[steps.y]\nkind = 'release'\nneeds = ['z']\n")
    (pipelines / "b.toml").write_text("[steps.x]\nkind = 'command'\nneeds = ['x']\nargv = ['true']\n")
    (pipelines / "c.toml").write_text("[steps\n")
    ended = check(write_config(tmp_path, pipelines))
    assert (ended.returncode, ended.stdout) == (1, "")
    for line in (
        f"{pipelines}/a.toml:2: step 'x': unknown kind 'stag'",
        f"{pipelines}/a.toml:3: step 'y': kind 'release' needs 'requests'",
        f"{pipelines}/a.toml:5: step 'y' needs 'z', which is no step",
        f"{pipelines}/b.toml:3: steps need each other in a circle: x → x",
        f"{pipelines}/c.toml:1: this is not TOML: ",
    ):
        assert any(told.startswith(line) for told in ended.stderr.splitlines()), line
    assert "\n    hint: one of archive_tokens, attach, await_approval, build_sandbox, cancel_jobs" in ended.stderr
    assert ended.stderr.endswith("\n5 problems found\n")


def test_the_problems_of_the_configuration_are_told(tmp_path: Path, pipelines: Path) -> None:
    ended = check(write_config(tmp_path, pipelines, "[staging]\npoll = 5\nurls = 'x'\n"))
    assert (ended.returncode, ended.stdout) == (1, "")
    config = tmp_path / "aglowd.toml"
    assert f"{config}:10: staging.poll: Expected `str`, got `int`" in ended.stderr
    assert f"{config}:11: unknown key 'urls'" in ended.stderr
    assert ended.stderr.endswith("\n2 problems found\n")


def test_tables_of_adopt_that_the_catalogue_cannot_tell_apart_are_a_problem(tmp_path: Path, pipelines: Path) -> None:
    """The surveys database has one word for what is claimed and what is staged."""
    sksp = pipelines / "sksp.toml"
    config = write_config(tmp_path, pipelines)
    text = config.read_text()
    config.write_text(text.replace('path = "fields.csv"', 'kind = "mysql"'))
    ended = check(config)
    assert (ended.returncode, ended.stderr) == (0, ""), "the shipped ones are alike"

    sksp.write_text(sksp.read_text().replace("[adopt.staged]\n", "[adopt.staged]\ntarget_stage = { requests = [] }\n"))
    line = sksp.read_text().splitlines().index("[adopt.staged]") + 1
    ended = check(config)
    assert ended.returncode == 1
    assert ended.stderr == (
        f"{sksp}:{line}: adopt.staged: the catalogue says 'DI_started' both for claimed and for staged, and adopt.claimed is "
        "another\n    hint: take one of them out, make them alike, or give [catalogue.statuses] staged a word of its own\n"
        "1 problem found\n"
    )
    config.write_text(config.read_text() + '[catalogue.statuses]\nstaged = "DI_staged"\n')
    assert check(config).returncode == 0
    config.write_text(text)
    assert check(config).returncode == 0, "a fields file has a word for each"
    config.write_text(
        text.replace("srm_dir", 'kind = "mysql"\npipeline = "dysco"\nsrm_dir').replace('path = "fields.csv"\n', "")
    )
    assert check(config).returncode == 0, "no field goes through it"


def test_a_pipeline_that_the_catalogue_names_must_be_there(tmp_path: Path, pipelines: Path) -> None:
    (pipelines / "sksp.toml").unlink()
    ended = check(write_config(tmp_path, pipelines))
    assert ended.returncode == 1
    assert (
        f"{pipelines}:1: there is no pipeline 'sksp'\n    hint: known: archive, calibrator, cancel_jobs, ci, dysco, ndppp, reference, release_field, reset_tokens, stage\n1 problem found\n"
        == ended.stderr
    )


def test_two_pipelines_of_one_name_are_a_problem(tmp_path: Path, pipelines: Path) -> None:
    shutil.copy(pipelines / "sksp.toml", pipelines / "sksp-copy.toml")
    ended = check(write_config(tmp_path, pipelines))
    assert ended.returncode == 1
    assert "sksp" in ended.stderr


def test_without_a_configuration_there_is_one_problem(tmp_path: Path) -> None:
    ended = check(tmp_path / "none.toml")
    assert ended.returncode == 1
    assert f"{tmp_path}/none.toml:1: cannot be read" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_must_exist_of_a_run_has_to_be_among_its_outputs(tmp_path: Path, pipelines: Path) -> None:
    path = pipelines / "sksp.toml"
    path.write_text(path.read_text().replace('must_exist = ["solutions"]', 'must_exist = ["solution", "{{ x }}"]'))
    ended = check(write_config(tmp_path, pipelines))
    assert ended.returncode == 1
    assert "must_exist names 'solution', which is no output of 'calibrator'" not in ended.stderr, "a template may be"
    path.write_text(path.read_text().replace('must_exist = ["solution", "{{ x }}"]', 'must_exist = ["solution"]'))
    ended = check(write_config(tmp_path, pipelines))
    assert ended.returncode == 1
    assert "step 'calibrator': must_exist names 'solution', which is no output of 'calibrator'" in ended.stderr
    assert "known: solutions" in ended.stderr


def test_a_run_of_a_pipeline_that_is_not_there_is_a_problem(tmp_path: Path, pipelines: Path) -> None:
    path = pipelines / "sksp.toml"
    path.write_text(path.read_text().replace('pipeline = "calibrator"', 'pipeline = "calibrater"'))
    ended = check(write_config(tmp_path, pipelines))
    assert ended.returncode == 1
    assert "runs 'calibrater', which is no pipeline" in ended.stderr
    assert (
        "known: archive, calibrator, cancel_jobs, ci, dysco, ndppp, reference, release_field, reset_tokens, sksp"
        in ended.stderr
    )


def test_a_duration_among_a_steps_parameters_is_looked_at(tmp_path: Path, pipelines: Path) -> None:
    (pipelines / "wait.toml").write_text('[steps.a]\nkind = "http"\nurl = "http://x"\nuntil = "true"\npoll = "often"\n')
    ended = check(write_config(tmp_path, pipelines))
    assert ended.returncode == 1
    assert "wait.toml:1" in ended.stderr
    assert "'often' is no duration" in ended.stderr
