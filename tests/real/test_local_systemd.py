"""Pilots of this host below the shipped unit, with a real systemd as process 1: what they survive, and what they do not."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from .box import ROOT, TIMEOUT_S, play

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)

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
drop_in "RestrictNamespaces=no
SystemCallFilter=@mount"
turn submit container
drop_in

loginctl enable-linger aglowd
until [ -S /run/user/$(id -u aglowd)/systemd/private ]; do sleep 0.05; done
systemctl start user@$(id -u aglowd).service
turn submit managed
turn look managed
turn cancel managed
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the daemon of each turn saw, by `KEY-VERB`."""
    place = tmp_path_factory.mktemp("box")
    python = [f"ExecStartPre=\nExecStart=\nExecStart={sys.executable} /mnt/driver.py", f"Environment=PYTHONPATH={ROOT}"]
    conf = "[Service]\n" + "\n".join(python) + "\nEnvironment=PYTHONDONTWRITEBYTECODE=1\n"
    unit = (ROOT / "systemd" / "aglowd.service").read_text()
    play(place, SCENARIO, {"driver.conf": conf, "driver.py": DRIVER, "aglowd.service": unit})
    return {path.name: json.loads(path.read_text()) for path in place.glob("*-*") if path.suffix == ""}


def test_below_the_unit_alone_pilots_end_with_it(said: dict[str, Any]) -> None:
    assert said["plain-submit"]["said"] == [["running", "running"]]
    assert said["plain-submit"]["group"] == "/system.slice/aglowd.service"
    assert said["plain-look"]["said"] == [["lost", "gone"]]


def test_a_unit_that_kills_only_its_main_process_leaves_them(said: dict[str, Any]) -> None:
    assert said["left-look"]["said"] == [["running", "running"]]
    assert said["left-look"]["group"] == "/system.slice/aglowd.service"
    assert said["left-cancel"]["said"] == [["cancelled", "cancelled"]]


def test_with_a_lingering_manager_pilots_are_services_and_are_adopted(said: dict[str, Any]) -> None:
    assert said["managed-look"]["said"] == [["running", "running"]]
    assert "/user@" in said["managed-look"]["group"]
    assert "/aglowd-pilot-" in said["managed-look"]["group"]
    assert said["managed-look"]["group"].endswith(".service")
    assert said["managed-cancel"]["said"] == [["cancelled", "cancelled"]]


def test_what_the_unit_forbids_the_daemon_its_services_may(said: dict[str, Any]) -> None:
    assert said["plain-submit"]["container"] != 0
    assert said["managed-submit"]["container"] == 0


def test_without_a_manager_pilots_make_containers_only_when_the_unit_lets_them(said: dict[str, Any]) -> None:
    assert said["container-submit"]["group"] == "/system.slice/aglowd.service"
    assert said["container-submit"]["container"] == 0
