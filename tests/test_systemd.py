"""The unit files, judged by systemd itself where it is installed; tests/real/test_service.py runs them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SYSTEMD = ROOT / "systemd"
UNIT = SYSTEMD / "aglowd.service"
UNITS = (UNIT, SYSTEMD / "aglowd@.service", SYSTEMD / "user" / "aglowd.service")
MAX_EXPOSURE = 2.0

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@pytest.fixture(params=UNITS, ids=["system", "project", "user"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit with a program that exists here, since verify looks for it."""
    text = re.sub(r"/usr/bin/aglowd\b", shutil.which("true") or "/bin/true", request.param.read_text())
    path = tmp_path / request.param.name
    path.write_text(text)
    return path


def verify(path: Path) -> subprocess.CompletedProcess[str]:
    argv = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(path)]
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
@pytest.mark.parametrize("path", UNITS[:2], ids=["system", "project"])
def test_the_service_is_shut_in(path: Path) -> None:
    argv = ["systemd-analyze", "security", "--offline=true", f"--threshold={MAX_EXPOSURE * 10:.0f}", "--no-pager"]
    verdict = subprocess.run([*argv, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert verdict.returncode == 0, verdict.stdout
    table = subprocess.run([*argv, "--json=short", str(path)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(table.stdout)


def settings(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_what_the_daemon_relies_on() -> None:
    lines = settings(UNIT)
    for line in (
        "Type=notify",
        "WatchdogSec=60",
        "Restart=on-failure",
        "RestartSec=5",
        "RestartPreventExitStatus=78",
        "StartLimitIntervalSec=0",
        "TimeoutStopSec=30",
        "KillMode=mixed",
        "StateDirectory=aglowd",
        "RuntimeDirectory=aglowd",
        "PrivateTmp=no",
        "ExecStartPre=-/usr/bin/aglowd check --config /etc/aglowd/aglowd.toml",
        "ExecStart=/usr/bin/aglowd start --config /etc/aglowd/aglowd.toml",
        "ExecReload=/usr/bin/aglowd check --config /etc/aglowd/aglowd.toml",
        "ExecReload=/bin/kill -HUP $MAINPID",
    ):
        assert line in lines
    assert lines.index("ExecReload=/bin/kill -HUP $MAINPID") > lines.index(
        "ExecReload=/usr/bin/aglowd check --config /etc/aglowd/aglowd.toml"
    ), "what is wrong never reaches the daemon"


def test_the_unit_of_a_project_differs_in_its_names_alone() -> None:
    changed = {
        "Description=aglowd,": "Description=aglowd for %i,",
        "/etc/aglowd/aglowd.toml": "/etc/aglowd/%i.toml",
        "Directory=aglowd": "Directory=aglowd-%i",
        ":aglowd.": ":aglowd-%i.",
    }
    expected = "\n".join(settings(UNIT))
    for old, new in changed.items():
        expected = expected.replace(old, new)
    assert settings(UNITS[1]) == expected.splitlines()


def test_the_unit_of_a_user_needs_no_rights_and_stops_as_the_others_do() -> None:
    user = settings(UNITS[2])
    of_root = ("User=", "Protect", "Private", "LoadCredential=", "CapabilityBoundingSet=", "ReadWritePaths=")
    assert [line for line in user if line.startswith(of_root)] == []
    same = ("Type=", "NotifyAccess=", "Watchdog", "Restart", "StartLimit", "TimeoutStop", "KillMode=", "UMask=")
    assert [line for line in user if line.startswith(same) and not line.startswith("RestrictA")] == [
        line for line in settings(UNIT) if line.startswith(same) and not line.startswith("RestrictA")
    ]
