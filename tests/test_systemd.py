"""The unit file, judged by systemd itself; skipped where systemd-analyze is absent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parent.parent / "systemd" / "aglowd.service"
MAX_EXPOSURE = 3.0

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here, since verify looks for it."""
    text, count = re.subn(r"/usr/bin/aglowd\b", shutil.which("true") or "/bin/true", UNIT.read_text())
    assert count == 2
    path = tmp_path / UNIT.name
    path.write_text(text)
    return path


def verify(path: Path) -> subprocess.CompletedProcess[str]:
    argv = ["systemd-analyze", "verify", "--recursive-errors=no", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@analyze
def test_systemd_understands_every_line(unit: Path) -> None:
    verdict = verify(unit)
    # A misspelt directive is only printed; the return code stays 0.
    assert (verdict.returncode, verdict.stdout + verdict.stderr) == (0, "")


@analyze
def test_the_check_sees_a_misspelt_directive(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("WatchdogSec=", "WatchDogSecs="))
    assert "WatchDogSecs" in verify(unit).stderr


@analyze
def test_the_service_is_shut_in(unit: Path) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", "--no-pager"]
    verdict = subprocess.run([*argv, str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert verdict.returncode == 0, verdict.stdout
    table = subprocess.run([*argv, "--json=short", str(unit)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(table.stdout)


def test_what_the_daemon_relies_on() -> None:
    lines = UNIT.read_text().splitlines()
    for line in (
        "Type=notify",
        "WatchdogSec=60",
        "Restart=on-failure",
        "RestartSec=5",
        "TimeoutStopSec=30",
        "KillMode=mixed",
        "StateDirectory=aglowd",
        "RuntimeDirectory=aglowd",
        "PrivateTmp=no",
        "ExecStartPre=/usr/bin/aglowd check --config /etc/aglowd/aglowd.toml",
        "ExecStart=/usr/bin/aglowd start --config /etc/aglowd/aglowd.toml",
    ):
        assert line in lines
