"""sd_notify over a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from aglowd.notify import Notifier


@pytest.fixture(params=["file", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """systemd's end, and what it writes into $NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@aglowd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0") if name.startswith("@") else name)
        receiver.settimeout(5.0)
        yield receiver, name


def test_systemd_hears_everything(systemd: tuple[socket.socket, str]) -> None:
    receiver, address = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready("running")
    notifier.status("3 running, 1 failed")
    notifier.watchdog()
    notifier.stopping()
    heard = [receiver.recv(4096).decode() for _ in range(4)]
    assert heard == ["READY=1\nSTATUS=running", "STATUS=3 running, 1 failed", "WATCHDOG=1", "STOPPING=1"]


def test_a_status_is_one_short_line(systemd: tuple[socket.socket, str]) -> None:
    receiver, address = systemd
    Notifier({"NOTIFY_SOCKET": address}).status("a reason\nWATCHDOG=trigger" + "x" * 10_000)
    heard = receiver.recv(65_536).decode()
    assert heard.startswith("STATUS=a reason WATCHDOG=trigger")
    assert "\n" not in heard
    assert len(heard) < 500


@pytest.mark.parametrize("address", ["", "/nowhere/notify", "@nobody-listens-here", "not a path", "/" + "x" * 300])
def test_without_systemd_nothing_happens(address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.watchdog()


def test_a_full_socket_does_not_block(systemd: tuple[socket.socket, str]) -> None:
    _, address = systemd
    notifier = Notifier({"NOTIFY_SOCKET": address})
    for _ in range(10_000):
        notifier.watchdog()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
    ],
)
def test_the_watchdog_interval_is_that_of_this_process(environ: dict[str, str], expected: float) -> None:
    assert Notifier(environ).watchdog_interval_s == expected
