"""The harness itself: it acquits a daemon that is well, and convicts those that are broken where only a crash shows it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.crash import plan
from tests.crash.points import ROOT

pytestmark = [pytest.mark.world, pytest.mark.timeout(120)]


def play(tmp_path: Path, *words: str) -> tuple[int, str]:
    """The runner's exit code and all that it said; what it keeps for people goes with the test."""
    argv = (sys.executable, "-m", "tests.crash", "--jobs", "1", "--seed", "1", *words)
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    return done.returncode, done.stdout + done.stderr


def test_with_little_time_points_are_left_and_it_is_said() -> None:
    points, said = list(range(20)), list[str]()
    assert (list(plan.until(time.monotonic() + 60.0, iter(points), said.append)), said) == (points, [])
    assert list(plan.until(0.0, iter(points), said.append)) == []
    assert said == ["20 of 20 were left: the time is over"]


def last_line(told: str) -> str:
    return told.rstrip().rpartition("\n")[2]


@pytest.mark.parametrize(
    ("scenario", "kill"),
    [("main", "lta.stage:after:1"), ("main", "lta.abort:before:1"), ("packed", "archive.pack_run:after:2")],
)
def test_a_daemon_that_is_well_is_acquitted(tmp_path: Path, scenario: str, kill: str) -> None:
    code, told = play(tmp_path, "--scenario", scenario, "--point", kill)
    assert (code, last_line(told)) == (0, "1 points, 1 runs: lost 0, duplicated 0, doubtful 0"), told


def test_a_daemon_that_does_not_look_before_it_does_again_is_convicted(tmp_path: Path) -> None:
    code, told = play(tmp_path, "--scenario", "main", "--point", "lta.stage:after:1", "--broken", "skip-find")
    assert code == 1, told
    assert "staged twice" in told
    assert "lost 0, duplicated 0" not in last_line(told)
    assert "python -m tests.crash --scenario main --seed 1 --point lta.stage:after:1 --broken skip-find" in told


def test_a_daemon_that_settles_before_it_does_is_convicted(tmp_path: Path) -> None:
    code, told = play(
        tmp_path, "--scenario", "main", "--point", "lta.abort:before:1", "--broken", "settle-before-doing"
    )
    assert code == 1, told
    assert "was never released" in told
    assert "lost 0," not in last_line(told)


def test_a_point_that_is_never_reached_is_an_error(tmp_path: Path) -> None:
    code, told = play(tmp_path, "--scenario", "main", "--point", "glite.cancel:before:1")
    assert code == 1, told
    assert "was never reached" in told
