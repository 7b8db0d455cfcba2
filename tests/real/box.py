"""A systemd of our own as process 1, over a copy of this host that is thrown away: systemd_box.sh, and what it needs around."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BOX = Path(__file__).with_name("systemd_box.sh")
TIMEOUT_S = 200.0
PROGRAMS = ("/lib/systemd/systemd", "/usr/bin/dbus-daemon", "/lib/systemd/systemd-logind")

SERVICE = """
[Unit]
Wants=dbus.service systemd-logind.service
After=dbus.service systemd-logind.service
[Service]
Type=oneshot
ExecStart=/bin/bash -x /mnt/scenario.sh
StandardOutput=file:/mnt/log
StandardError=inherit
ExecStopPost=/bin/systemctl exit 0
"""


def play(place: Path, scenario: str, files: Mapping[str, str]) -> None:
    """Run the scenario as root in a box where `place` is /mnt, with these files; fails with its log if it does not get to its end.

    Skips where no box can be had.
    """
    if os.geteuid() != 0 or not all(map(os.path.exists, PROGRAMS)) or shutil.which("unshare") is None:
        pytest.skip("a systemd of our own needs root, systemd with logind, dbus, and unshare")
    group = own_group()
    if group is None:
        pytest.skip("no control group can be made")
    for name, text in {
        **files,
        "scenario.sh": f"PS4='+ $EPOCHREALTIME '\n{scenario}\ntouch /mnt/done\n",
        "scenario.service": SERVICE,
    }.items():
        (place / name).write_text(text)
    place.chmod(0o755)
    paths = dict.fromkeys([str(ROOT), os.path.realpath(sys.prefix), sys.prefix, sys.base_prefix])
    inside = ["unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup", "--kill-child"]
    argv = [*inside, "--propagation", "private", "sh", str(BOX), str(place), *paths]
    join = f"echo $$ > {group}/cgroup.procs && exec " + " ".join(argv)
    try:
        subprocess.run(["sh", "-c", join], timeout=TIMEOUT_S, check=False, capture_output=True)
    finally:
        end(group)
    log = (place / "log").read_text() if (place / "log").exists() else "the box did not come up"
    assert (place / "done").exists(), log


def own_group() -> Path | None:
    """A new control group, where the unified hierarchy can be written to."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            group = Path(fields.split()[4]) / f"aglowd-box-{os.getpid()}"
            try:
                group.mkdir(exist_ok=True)
            except OSError:
                return None
            return group
    return None


def end(group: Path) -> None:
    """Kill what is left in the box, and remove its control groups."""
    with suppress(FileNotFoundError):  # Only newer kernels have it; namespaces end with their first process anyway.
        (group / "cgroup.kill").write_text("1")
    for _ in range(500):
        try:
            for below in sorted(group.rglob("*/"), reverse=True):
                below.rmdir()
            group.rmdir()
        except OSError:
            time.sleep(0.02)
        else:
            return
