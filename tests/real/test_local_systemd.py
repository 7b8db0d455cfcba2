"""Pilots of this host below the shipped unit, with a real systemd as process 1: what they survive, and what they do not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
BOX = Path(__file__).with_name("systemd_box.sh")
TIMEOUT_S = 100.0

DRIVER = """
import asyncio, json, os, socket
from pathlib import Path
from aglowd.clock import Clock
from aglowd.grid.batch import Order, Terms
from aglowd.grid.local import Local
from aglowd.grid.proc import Processes

CONTAINER = "unshare --user --map-root-user --mount --pid --fork mount -t tmpfs none /tmp"

async def main():
    verb, key = Path("/mnt/do").read_text().split()
    state = Path("/var/lib/aglowd")
    local = Local(Processes(env={"PATH": os.environ["PATH"]}), Clock(), Terms("", wall_time_s=600.0), state / "p", most=9)
    jobs = await local.find(key)
    if verb == "submit":
        jobs = await local.submit(Order(key, 1, "/bin/sh", ("-c", "$0; echo $?; exec sleep 600", CONTAINER)), None)
    out = state / "p" / jobs[0] / "stdout.txt"
    while not out.exists() or not out.read_text():
        await asyncio.sleep(0.02)
    if verb == "cancel":
        await local.cancel(jobs[0])
        while not (await local.status(jobs))[jobs[0]].is_final:
            await asyncio.sleep(0.02)
    said = [(status.state, status.words) for status in (await local.status(jobs)).values()]
    group = json.loads((state / "p" / jobs[0] / "pid.json").read_text())["cgroup"]
    (state / "said").write_text(json.dumps({"said": said, "group": group, "container": int(out.read_text())}))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    await asyncio.sleep(600)

asyncio.run(main())
"""

SCENARIO = """
useradd --system --home-dir /var/lib/aglowd aglowd
turn() {
    echo "$1 $2" > /mnt/do
    systemctl start aglowd && cp /var/lib/aglowd/said "/mnt/$2-$1"
    systemctl stop aglowd
}
drop_in() {
    printf '[Service]\\n%s\\n' "$1" > /etc/systemd/system/aglowd.service.d/more.conf
    systemctl daemon-reload
}
mkdir /etc/systemd/system/aglowd.service.d
cp /mnt/driver.conf /etc/systemd/system/aglowd.service.d/
systemctl daemon-reload

turn submit plain
turn look plain

drop_in KillMode=process
turn submit left
turn look left
turn cancel left
drop_in

loginctl enable-linger aglowd
until [ -S /run/user/$(id -u aglowd)/systemd/private ]; do sleep 0.05; done
systemctl start user@$(id -u aglowd).service
turn submit scoped
turn look scoped
turn cancel scoped
drop_in "RestrictNamespaces=no
SystemCallFilter=@mount"
turn submit container
echo done > /mnt/done
"""

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


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the daemon of each turn saw, by `KEY-VERB`."""
    programs = ("/lib/systemd/systemd", "/usr/bin/dbus-daemon", "/lib/systemd/systemd-logind")
    if os.geteuid() != 0 or not all(map(os.path.exists, programs)) or shutil.which("unshare") is None:
        pytest.skip("a systemd of our own needs root, systemd with logind, dbus, and unshare")
    group = own_group()
    if group is None:
        pytest.skip("no control group can be made")
    place = tmp_path_factory.mktemp("box")
    python = [f"ExecStartPre=\nExecStart=\nExecStart={sys.executable} /mnt/driver.py", f"Environment=PYTHONPATH={ROOT}"]
    (place / "driver.conf").write_text("[Service]\n" + "\n".join(python) + "\nEnvironment=PYTHONDONTWRITEBYTECODE=1\n")
    (place / "driver.py").write_text(DRIVER)
    (place / "scenario.sh").write_text(SCENARIO)
    (place / "scenario.service").write_text(SERVICE)
    (place / "aglowd.service").write_text((ROOT / "systemd" / "aglowd.service").read_text())
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
    return {path.name: json.loads(path.read_text()) for path in place.glob("*-*") if path.suffix == ""}


def test_below_the_unit_alone_pilots_end_with_it(said: dict[str, Any]) -> None:
    assert said["plain-submit"]["said"] == [["running", "running"]]
    assert said["plain-submit"]["group"] == "/system.slice/aglowd.service"
    assert said["plain-look"]["said"] == [["lost", "gone"]]


def test_a_unit_that_kills_only_its_main_process_leaves_them(said: dict[str, Any]) -> None:
    assert said["left-look"]["said"] == [["running", "running"]]
    assert said["left-look"]["group"] == "/system.slice/aglowd.service"
    assert said["left-cancel"]["said"] == [["cancelled", "cancelled"]]


def test_with_a_lingering_manager_pilots_have_a_scope_and_are_adopted(said: dict[str, Any]) -> None:
    assert said["scoped-look"]["said"] == [["running", "running"]]
    assert "/user@" in said["scoped-look"]["group"]
    assert "/aglowd-pilot-" in said["scoped-look"]["group"]
    assert said["scoped-look"]["group"].endswith(".scope")
    assert said["scoped-cancel"]["said"] == [["cancelled", "cancelled"]]


def test_pilots_make_containers_only_when_the_unit_lets_them(said: dict[str, Any]) -> None:
    assert said["scoped-submit"]["container"] != 0
    assert said["container-submit"]["container"] == 0
