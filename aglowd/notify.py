"""What systemd is told of the service: ready, one line of status, signs of life, the stop (sd_notify(3)).

What must stay true: telling never blocks and never fails the daemon. Without a socket it does nothing, so the same
code runs from a shell.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

MAX_STATUS_CHARS = 400
"""`systemctl status` shows one line."""


class Notifier:
    """The socket that systemd named in $NOTIFY_SOCKET; `@` at its beginning stands for the abstract namespace."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_interval_s = _watchdog_interval_s(environ)
        """Seconds within which systemd wants a sign of life; 0.0 when it wants none."""

    def ready(self, status: str = "") -> None:
        """The daemon has started; what waits for it may go on."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """The configuration is being read anew; `ready` ends it, however that went."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={_line(text)}")

    def watchdog(self) -> None:
        """A sign of life; withhold it when a loop is stuck, and systemd restarts the service."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The orderly stop has begun."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(errors="replace"), self._address)
        except (OSError, ValueError):
            # systemd is gone, or too busy, or the address is none: a service does not fail of that.
            return


def _line(text: str) -> str:
    """On one line: a line break would begin the next assignment."""
    return " ".join(text.split())[:MAX_STATUS_CHARS]


def _watchdog_interval_s(environ: Mapping[str, str]) -> float:
    """What systemd set for this process; a child that inherited the variables is not meant (sd_watchdog_enabled(3))."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    try:
        return max(0.0, int(environ.get("WATCHDOG_USEC", "0")) / 1e6)
    except ValueError:
        return 0.0
