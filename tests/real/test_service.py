"""The shipped units below a real systemd as process 1: what docs/install.md says of start, stop, failure and hardening."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from .box import ROOT, TIMEOUT_S, play

pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)

CONFIG = """
[catalogue]
kind = "own"
srm_dir = "/etc/aglowd"
[sites.sara]
results = "gsiftp://gridftp.example.org/results"
archive = "gsiftp://gridftp.example.org/archive"
[picas]
user = "lofar"
[daemon]
state_dir = "{state}"
socket = "{run}/aglowd.sock"
"""

AGLOWD = f"""#!/bin/sh
exec env PYTHONPATH={ROOT} PYTHONDONTWRITEBYTECODE=1 {sys.prefix}/bin/${{0##*/}} "$@"
"""

PROBE = """
import ctypes, json, mmap, os, resource, shutil, socket, subprocess, sys
from pathlib import Path

def tried(deed):
    try:
        return deed() or "done"
    except OSError as error:
        return error.strerror

def write(directory):
    path = Path(directory, "probe")
    path.write_text("x")
    path.unlink()

def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return "done" if done.returncode == 0 else done.stdout + done.stderr

credentials = Path(os.environ["CREDENTIALS_DIRECTORY"])
status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
facts = {
    "write": {at: tried(lambda: write(at)) for at in ("/usr", "/etc", "/etc/aglowd", "/home/user", "/root", "/var/lib", "/var/tmp", "/tmp", "/var/lib/aglowd", "/run/aglowd")},
    "read": {at: tried(lambda: Path(at).read_text()) for at in ("/tmp/x509up_u%d" % os.getuid(), str(Path.home() / ".stagingrc"), "/home/user/.picasrc", "/proc/sys/kernel/random/boot_id")},
    "credentials": {path.name: [path.read_text(), path.stat().st_mode & 0o777] for path in credentials.iterdir()},
    "source": tried(lambda: Path("/etc/credstore/aglowd.picas").read_text()),
    "inet": tried(lambda: socket.socket(socket.AF_INET).close()),
    "netlink": tried(lambda: str(bool(socket.if_nameindex()))),
    "packet": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
    "own code": tried(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()),
    "child": run("/bin/sh", "-c", "exec nice -n 1 true"),
    "java": run("java", "-version") if shutil.which("java") else "done",
    "namespace": run("unshare", "--user", "true"),
    "mount": tried(lambda: ctypes.CDLL(None, use_errno=True).mount(b"none", b"/tmp", b"tmpfs", 0, None) and os.strerror(ctypes.get_errno())),
    "status": {name: status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Umask")},
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
}
Path("/var/lib/aglowd/facts").write_text(json.dumps(facts))
"""

HELPERS = """
fact() { # NAME COMMAND…: what it said, and its exit code.
    local name=$1
    shift
    "$@" > /mnt/$name.said 2>&1 < /dev/null
    echo $? > /mnt/$name.rc
}
show() { fact $1 systemctl show $2 -p ActiveState,SubState,Result,NRestarts,ExecMainStatus,StatusText; }
restarted() { # UNIT: systemd has started it again, and it is ready.
    until [ "$(systemctl show -p NRestarts --value $1)" -ge 1 ] && systemctl is-active -q $1; do
        systemctl is-failed -q $1 && exit 1
        sleep 0.05
    done
}
pid() { systemctl show -p MainPID --value $1; }
"""

SCENARIO = """
op() { runuser -u user -- env XDG_RUNTIME_DIR=/run/user/$(id -u user) "$@"; }

cp -r $ROOT/systemd/sysusers.d $ROOT/systemd/tmpfiles.d /usr/lib
cp $ROOT/systemd/*.service /usr/lib/systemd/system
cp $ROOT/systemd/user/*.service /usr/lib/systemd/user
install -m 755 /mnt/aglowd /usr/bin/aglowd
install -m 755 /mnt/aglowd /usr/bin/aglowctl
systemd-sysusers
systemd-tmpfiles --create aglowd.conf
fact account getent passwd aglowd
useradd --create-home --groups aglowd user
loginctl enable-linger user
fact made stat -c '%a %U %G' /etc/aglowd /var/lib/aglowd

mkdir -p /etc/systemd/system/aglowd.service.d /etc/systemd/system/aglowd@.service.d
printf '[Service]\\nRestartSec=100ms\\n' > /etc/systemd/system/aglowd.service.d/test.conf
printf '[Service]\\nExecStartPre=\\nRestartSec=100ms\\nWatchdogSec=2\\n' > /etc/systemd/system/aglowd@.service.d/test.conf
systemctl daemon-reload

echo 'nonsense = 1' > /etc/aglowd/aglowd.toml
fact wrong systemctl start aglowd
show wrong_state aglowd
journalctl --sync
fact wrong_log journalctl -u aglowd -o cat

cp /mnt/system.toml /etc/aglowd/aglowd.toml
install -d -m 700 /etc/credstore
(umask 077; echo s3cret > /etc/credstore/aglowd.picas)
install -o aglowd -m 600 /dev/stdin /tmp/x509up_u$(id -u aglowd) <<< proxy
install -o aglowd -m 600 /dev/stdin /var/lib/aglowd/.stagingrc <<< staging
install -o aglowd -m 600 /dev/stdin /home/user/.picasrc <<< picas
chmod 755 /home/user
printf 'ExecStartPre=/usr/bin/python3 /mnt/probe.py\\n' >> /etc/systemd/system/aglowd.service.d/test.conf
systemctl daemon-reload
fact start systemctl start aglowd
show started aglowd
cp /var/lib/aglowd/facts /mnt
fact modes stat -c '%a %U %G' /var/lib/aglowd /run/aglowd /run/aglowd/aglowd.sock /var/lib/aglowd/aglowd.db
fact member op aglowctl status
fact stranger runuser -u nobody -- aglowctl status
fact exposure systemd-analyze security --threshold=20 --no-pager aglowd.service

first=$(pid aglowd)
fact reload systemctl reload aglowd
echo 'nonsense = 1' >> /etc/aglowd/aglowd.toml
fact reload_wrong systemctl reload aglowd
fact reloaded test "$(pid aglowd)" = "$first"
cp /mnt/system.toml /etc/aglowd/aglowd.toml

printf '[Service]\\nExecStartPre=\\nRestartSec=100ms\\n' > /etc/systemd/system/aglowd.service.d/test.conf
systemctl daemon-reload
systemctl kill --kill-whom=main --signal=KILL aglowd
restarted aglowd
show killed aglowd
before=$EPOCHSECONDS
fact stop systemctl stop aglowd
echo $((EPOCHSECONDS - before)) > /mnt/stop_s.said
show stopped aglowd
fact left stat /run/aglowd

cp /mnt/lotss.toml /etc/aglowd
fact lotss systemctl start aglowd@lotss
fact lotss_modes stat -c '%a %U %G' /var/lib/aglowd-lotss /run/aglowd-lotss/aglowd.sock
systemctl kill --kill-whom=main --signal=STOP aglowd@lotss
restarted aglowd@lotss
show lotss_state aglowd@lotss
systemctl stop aglowd@lotss

op mkdir -p /home/user/.config/aglowd /home/user/.config/systemd/user/aglowd.service.d
printf '[Service]\\nExecStartPre=\\n' > /home/user/.config/systemd/user/aglowd.service.d/test.conf
sed "s:UID:$(id -u user):" /mnt/user.toml > /home/user/.config/aglowd/aglowd.toml
until [ -S /run/user/$(id -u user)/systemd/private ]; do sleep 0.05; done
systemctl start user@$(id -u user)
fact user op systemctl --user start aglowd
fact user_state op systemctl --user show aglowd -p ActiveState,StatusText
fact user_ctl op aglowctl --socket /run/user/$(id -u user)/aglowd/aglowd.sock status
fact user_stop op systemctl --user stop aglowd
"""


class Seen:
    """What the commands of the scenario said."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def said(self, name: str) -> str:
        return (self._place / f"{name}.said").read_text()

    def rc(self, name: str) -> int:
        return int((self._place / f"{name}.rc").read_text())

    def probed(self) -> dict[str, Any]:
        """What the probe found out from within the unit."""
        found: dict[str, Any] = json.loads((self._place / "facts").read_text())
        return found

    def state(self, name: str) -> dict[str, str]:
        lines = [line for line in self.said(name).splitlines() if not line.startswith("+")]  # The shell's own trace.
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    place = tmp_path_factory.mktemp("box")
    files = {
        "aglowd": AGLOWD,
        "probe.py": PROBE,
        "system.toml": CONFIG.format(state="/var/lib/aglowd", run="/run/aglowd"),
        "lotss.toml": CONFIG.format(state="/var/lib/aglowd-lotss", run="/run/aglowd-lotss"),
        "user.toml": CONFIG.format(state="/home/user/aglowd", run="/run/user/UID/aglowd"),
    }
    play(place, f"ROOT={ROOT}\n{HELPERS}{SCENARIO}", files)
    return Seen(place)


def test_user_and_directories_are_made(seen: Seen) -> None:
    account = seen.said("account").split(":")
    assert account[0] == "aglowd"
    assert account[5] == "/var/lib/aglowd"
    assert seen.said("made").splitlines() == ["755 root root", "750 aglowd aglowd"]


def test_a_wrong_configuration_is_told_and_not_tried_again(seen: Seen) -> None:
    assert seen.rc("wrong") != 0
    state = seen.state("wrong_state")
    assert (state["SubState"], state["NRestarts"], state["ExecMainStatus"]) == ("failed", "0", "78")
    assert "/etc/aglowd/aglowd.toml:1: unknown key 'nonsense'" in seen.said("wrong_log")
    assert "problems found" in seen.said("wrong_log"), "the check tells all of them"


def test_start_waits_until_it_is_ready(seen: Seen) -> None:
    assert seen.rc("start") == 0, seen.said("start")
    state = seen.state("started")
    assert (state["ActiveState"], state["NRestarts"]) == ("active", "0")
    assert state["StatusText"] in ("running", "no fields; 0 effects under way")


def test_only_owner_and_group_look_inside(seen: Seen) -> None:
    assert seen.said("modes").splitlines() == [
        "750 aglowd aglowd",
        "750 aglowd aglowd",
        "660 aglowd aglowd",
        "600 aglowd aglowd",
    ]
    assert seen.rc("member") == 0, seen.said("member")
    assert seen.rc("stranger") != 0


def test_credentials_come_from_root_and_those_that_are_not_there_are_missed_by_nobody(seen: Seen) -> None:
    ((name, (text, mode)),) = seen.probed()["credentials"].items()
    assert (name, text) == ("picas", "s3cret\n")
    assert mode & 0o337 == 0, oct(mode)
    assert seen.probed()["source"] == "Permission denied"


def test_the_unit_writes_nowhere_else(seen: Seen) -> None:
    can = {"/tmp", "/var/lib/aglowd", "/run/aglowd"}
    assert {at for at, outcome in seen.probed()["write"].items() if outcome == "done"} == can
    assert {seen.probed()["write"][at] for at in ("/usr", "/home/user", "/etc/aglowd")} <= {"Read-only file system"}


def test_what_the_grid_tools_need_is_there(seen: Seen) -> None:
    *files, boot = seen.probed()["read"].values()
    assert files == ["proxy\n", "staging\n", "picas\n"]
    assert len(boot) == 37
    for deed in ("inet", "own code", "child", "java"):
        assert seen.probed()[deed] == "done", deed
    assert seen.probed()["netlink"] == "True"
    assert seen.probed()["files"] == 16384


def test_the_hardening_is_in_force(seen: Seen) -> None:
    for deed in ("packet", "namespace", "mount"):
        assert seen.probed()[deed] != "done", deed
    assert seen.probed()["status"] == {
        "CapEff": "0000000000000000",
        "CapBnd": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Umask": "0077",
    }
    assert seen.probed()["core"] == 0
    assert seen.rc("exposure") == 0, seen.said("exposure")


def test_reload_checks_first_and_never_ends_the_daemon(seen: Seen) -> None:
    assert seen.rc("reload") == 0
    assert seen.rc("reload_wrong") != 0
    assert seen.rc("reloaded") == 0


def test_a_killed_daemon_is_started_again_and_stops_in_time(seen: Seen) -> None:
    assert (seen.state("killed")["ActiveState"], seen.state("killed")["NRestarts"]) == ("active", "1")
    assert seen.rc("stop") == 0
    state = seen.state("stopped")
    assert (state["ActiveState"], state["Result"], state["ExecMainStatus"]) == ("inactive", "success", "0")
    assert int(seen.said("stop_s")) < 20
    assert seen.rc("left") != 0, "/run/aglowd goes with it"


def test_each_project_has_a_daemon_of_its_own_and_a_stuck_one_is_replaced(seen: Seen) -> None:
    assert seen.rc("lotss") == 0, seen.said("lotss")
    assert seen.said("lotss_modes").splitlines() == ["750 aglowd aglowd", "660 aglowd aglowd"]
    assert seen.state("lotss_state")["ActiveState"] == "active", "nothing but the watchdog restarts one that is stopped"


def test_a_user_runs_it_without_root(seen: Seen) -> None:
    assert seen.rc("user") == 0, seen.said("user")
    assert seen.state("user_state")["ActiveState"] == "active"
    assert seen.rc("user_ctl") == 0, seen.said("user_ctl")
    assert seen.rc("user_stop") == 0
