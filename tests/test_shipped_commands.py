"""What the shipped token configurations have pilots run, with programs of our own in the place of the grid's and LOFAR's."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from aglowd.wiring import shipped_pipelines

COPY = """#!/bin/sh
echo "$@" >> "$LOG"
cp "$STORE/$(basename "$1")" "$2"
"""
DP3 = """#!/bin/sh
echo "DP3 $@" >> "$LOG"
for word in "$@"; do case "$word" in msout=*) mkdir -p "${word#msout=}" ;; esac; done
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory as the launcher makes it, and files that can be had."""
    for name in ("bin", "store", "work/results"):
        (tmp_path / name).mkdir(parents=True)
    for name, text in (("gfal-copy", COPY), ("DP3", DP3)):
        (tmp_path / "bin" / name).write_text(text, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    for number in (0, 1):
        with tarfile.open(tmp_path / "store" / f"L1_SB{number:03d}.MS.tar", "w") as tar:
            entry = tarfile.TarInfo(f"L1_SB{number:03d}.MS/table.dat")
            entry.size = 1
            tar.addfile(entry, io.BytesIO(b"x"))
    return tmp_path


def run(place: Path, step: str, **variables: str) -> subprocess.CompletedProcess[str]:
    config = json.loads((shipped_pipelines() / "tokens" / f"{step}.json").read_text(encoding="utf-8"))
    command = config["Token"]["config.json"]["command"]
    attached = {name.strip("$"): file for name, file in config["Token"]["variables"]["_attachments"].items()}
    environment = {
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "STORE": str(place / "store"),
        "LOG": str(place / "log"),
        **attached,
        **variables,
    }
    return subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place / "work",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def ran(place: Path) -> list[str]:
    """How DP3 was called."""
    lines = (place / "log").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("DP3")]


def test_dysco_compresses_each_set_of_a_token_under_its_own_name(place: Path) -> None:
    ended = run(place, "dysco", INPUT_FILES="gsiftp://h/p/L1_SB000.MS.tar gsiftp://h/p/L1_SB001.MS.tar")
    assert ended.returncode == 0, ended.stderr
    assert ran(place) == [
        f"DP3 Dysco.parset msin=in/L1_SB{number:03d}.MS msout=results/L1_SB{number:03d}.MS" for number in (0, 1)
    ]
    assert sorted(path.name for path in (place / "work/results").iterdir()) == ["L1_SB000.MS", "L1_SB001.MS"]


def test_ndppp_runs_once_on_all_files_of_a_token(place: Path) -> None:
    lines = "".join(f"srm://h:8443/p/L1_SB{number:03d}.MS.tar\n" for number in (0, 1))
    (place / "work" / "srm.txt").write_text(lines, encoding="utf-8")
    ended = run(place, "ndppp", RESULT_NAME="L1_SB000")
    assert ended.returncode == 0, ended.stderr
    assert ran(place) == ["DP3 NDPPP.parset msin=[in/L1_SB000.MS,in/L1_SB001.MS] msout=results/L1_SB000.MS"]


@pytest.mark.parametrize(
    ("step", "variables"), [("dysco", {"INPUT_FILES": "gsiftp://h/p/none.tar"}), ("ndppp", {"RESULT_NAME": "x"})]
)
def test_a_file_that_cannot_be_had_is_an_error_and_nothing_is_run(
    place: Path, step: str, variables: dict[str, str]
) -> None:
    (place / "work" / "srm.txt").write_text("srm://h:8443/p/none.tar\n", encoding="utf-8")
    assert run(place, step, **variables).returncode != 0
    assert ran(place) == []
