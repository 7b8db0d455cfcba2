"""What `make install`, `make deb` and `make rpm` make is installed, started and removed in a system of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from .box import ROOT, TIMEOUT_S, play
from .test_service import CONFIG, HELPERS, Seen

pytestmark = pytest.mark.timeout(3 * TIMEOUT_S)

PYTHON = "/usr/bin/python3"
NOT_COPIED = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")

SCENARIO = """
lives() { # NAME: what was installed starts, answers and goes on after a new start.
    cp /mnt/system.toml /etc/aglowd/aglowd.toml
    fact $1_start systemctl start aglowd
    fact $1_status aglowctl status
    show $1_state aglowd
}
left() { # NAME: what there is of it, and whether it runs.
    find /usr /etc /var/lib -name '*aglowd*' -not -path '/usr/share/doc/aglowd/*' > /mnt/$1_files.said
    fact $1_runs systemctl is-active aglowd
}
fact deb_install dpkg -i /mnt/aglowd.deb
fact deb_enabled systemctl is-enabled aglowd
fact deb_runs systemctl is-active aglowd
fact deb_check aglowd check
lives deb
fact deb_again dpkg -i /mnt/aglowd.deb
fact deb_again_runs systemctl is-active aglowd
fact deb_config cmp /mnt/system.toml /etc/aglowd/aglowd.toml
fact deb_remove dpkg -r aglowd
left deb_removed
fact deb_purge dpkg -P aglowd
left deb_purged

if [ -e /mnt/aglowd.rpm ]; then
    # Here are no other RPMs that it could need.
    rpm() { command rpm --dbpath /var/lib/rpm "$@"; }
    fact rpm_install rpm -i --nodeps /mnt/aglowd.rpm
    lives rpm
    fact rpm_remove rpm -e aglowd
    left rpm_removed
    rm -rf /var/lib/aglowd /etc/aglowd
fi

cd /mnt/tree
export AGLOWD_WHEELS=/mnt/wheels
fact make_install make install
PATH=/usr/local/bin:$PATH
lives make
fact make_uninstall make uninstall
left make_removed
"""


def made(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "PYTHON"))}
    environ |= {"AGLOWD_WHEELS": str(tree.parent / "wheels")}
    done = subprocess.run([*words], cwd=tree, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    if shutil.which("dpkg-deb") is None:
        pytest.skip("there is no dpkg-deb")
    place = tmp_path_factory.mktemp("box")
    tree = shutil.copytree(ROOT, place / "tree", ignore=NOT_COPIED)
    made(tree, PYTHON, "-m", "venv", str(place / "venv"))
    made(tree, str(place / "venv" / "bin" / "pip"), "-q", "wheel", "--wheel-dir", str(place / "wheels"), ".")
    made(tree, "make", "deb")
    (deb,) = tree.glob("dist/*.deb")
    deb.rename(place / "aglowd.deb")
    if shutil.which("rpmbuild") is not None:
        made(tree, "make", "rpm")
        (rpm,) = tree.glob("dist/*.rpm")
        rpm.rename(place / "aglowd.rpm")
    play(place, HELPERS + SCENARIO, {"system.toml": CONFIG.format(state="/var/lib/aglowd", run="/run/aglowd")})
    return Seen(place)


def is_alive(seen: Seen, name: str) -> None:
    assert seen.rc(f"{name}_start") == 0, seen.said(f"{name}_start")
    assert seen.rc(f"{name}_status") == 0, seen.said(f"{name}_status")
    assert seen.state(f"{name}_state")["ActiveState"] == "active"


def left(seen: Seen, name: str) -> set[str]:
    """What stays beside the user's own things; the service must not run."""
    assert seen.rc(f"{name}_runs") != 0
    return set(seen.said(f"{name}_files").splitlines())


def test_the_debian_package(seen: Seen) -> None:
    assert seen.rc("deb_install") == 0, seen.said("deb_install")
    assert seen.said("deb_enabled") == "disabled\n", "it is started by whoever has configured it"
    assert seen.rc("deb_runs") != 0
    assert seen.rc("deb_check") == 0, seen.said("deb_check")
    is_alive(seen, "deb")


def test_a_newer_debian_package_keeps_the_configuration_and_starts_the_service_anew(seen: Seen) -> None:
    assert seen.rc("deb_again") == 0, seen.said("deb_again")
    assert seen.rc("deb_again_runs") == 0
    assert seen.rc("deb_config") == 0


def test_a_removed_debian_package_leaves_what_is_the_operators_and_a_purged_one_nothing(seen: Seen) -> None:
    assert seen.rc("deb_remove") == 0, seen.said("deb_remove")
    removed = left(seen, "deb_removed")
    kept = {"/etc/aglowd", "/etc/aglowd/aglowd.toml", "/var/lib/aglowd", "/var/lib/aglowd/aglowd.db"}
    assert kept <= removed
    dpkg = {path for path in removed if path.startswith("/var/lib/dpkg/info/")}
    assert removed - dpkg - kept <= {
        "/var/lib/aglowd/aglowd.db-wal",
        "/var/lib/aglowd/aglowd.db-shm",
        "/var/lib/aglowd/aglowd.db.lock",
    }
    assert seen.rc("deb_purge") == 0, seen.said("deb_purge")
    assert left(seen, "deb_purged") == set()


def test_the_rpm(seen: Seen) -> None:
    if shutil.which("rpmbuild") is None:
        pytest.skip("there is no rpmbuild")
    assert seen.rc("rpm_install") == 0, seen.said("rpm_install")
    is_alive(seen, "rpm")
    assert seen.rc("rpm_remove") == 0, seen.said("rpm_remove")
    assert {
        path for path in left(seen, "rpm_removed") if not path.startswith(("/etc/aglowd", "/var/lib/aglowd"))
    } == set()


def test_make_install_and_uninstall(seen: Seen) -> None:
    assert seen.rc("make_install") == 0, seen.said("make_install")
    is_alive(seen, "make")
    assert seen.rc("make_uninstall") == 0, seen.said("make_uninstall")
    removed = left(seen, "make_removed")
    assert {"/etc/aglowd/aglowd.toml", "/var/lib/aglowd/aglowd.db"} <= removed
    assert {path for path in removed if not path.startswith(("/etc/aglowd", "/var/lib/aglowd"))} == set()
