"""Grid proxies by the real tools: what we read of a file is what `voms-proxy-info` says of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aglowd.clock import Clock
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy

SCRIPT = Path(__file__).parent / "proxies.sh"
SLACK_S = 5.0


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the proxies."""
    path = tmp_path_factory.mktemp("proxies")
    subprocess.run(["bash", str(SCRIPT), str(path)], check=True, capture_output=True, timeout=60)
    return path


@pytest.mark.parametrize(
    ("name", "hours", "attribute_hours"),
    [
        ("attributes", 168, 12),
        ("attributes-over", 168, 0),
        ("over", 0, 1),
        ("plain", 24, None),
        ("globus", 12, None),
    ],
)
async def test_tool_and_file_agree(proxies: Path, name: str, hours: int, attribute_hours: int | None) -> None:
    more = {"X509_CERT_DIR": str(proxies / "certs"), "X509_VOMS_DIR": str(proxies / "voms")}
    path = str(proxies / name)
    told = await Proxy(Processes(env={"PATH": os.environ["PATH"], **more}), path, Clock()).info()
    read = await Proxy(Processes(env={"PATH": "/nonexistent"}), path, Clock()).info()
    for info in (told, read):
        assert 0 <= hours * 3600 - info.seconds_left < 300 + SLACK_S  # Some tools begin five minutes ago.
        if attribute_hours is None:
            assert info.ac_seconds_left is None
        else:
            assert info.ac_seconds_left is not None
            assert 0 <= attribute_hours * 3600 - info.ac_seconds_left < 300 + SLACK_S
    assert abs(told.left_s - read.left_s) < SLACK_S
    assert "Test User" in told.subject
    assert "Test User" in read.subject
