"""systemd's journal, spoken to in its own protocol, so that `journalctl AGLOW_FIELD=…` finds a field's lines.

A datagram holds the fields of one line; one that is too long for it lies in a sealed memory file, whose descriptor is sent
instead (https://systemd.io/JOURNAL_NATIVE_PROTOCOL). Libraries for it either need libsystemd's headers to be built, or
block for as long as journald hangs. What must stay true: a journal that does not take lines costs the daemon `WAIT_REAL_S`
once, not once a line; the first line that it takes again says how many were lost.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

SOCKET = "/run/systemd/journal/socket"
WAIT_REAL_S = 1.0
"""Real seconds for which a line waits for a journal that is busy."""
NAMED = ("field", "run", "step", "event", "effect")
"""What of a line is a field of the journal's own, `AGLOW_FIELD` and so on."""
PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_OF_THE_LINE = frozenset({"at", "level", "logger", "event", "exception"})


class Journal:
    """The journal behind that socket."""

    def __init__(self, address: str = SOCKET) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(WAIT_REAL_S)
        self._lost = 0

    def tell(self, line: str) -> None:
        """A line of the log, which is JSON. Whether it arrived only the journal knows."""
        fields = fields_of(line)
        if self._lost:
            fields["AGLOW_LOST"] = str(self._lost)
            fields["MESSAGE"] += f" (the journal did not take {self._lost} lines before this one)"
        try:
            self._send(encoded(fields))
        except OSError:
            self._lost += 1
            self._socket.settimeout(0.0)
        else:
            self._lost = 0
            self._socket.settimeout(WAIT_REAL_S)

    def close(self) -> None:
        """Nothing more is told."""
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendto(data, self._address)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            with open(os.memfd_create("aglowd", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb") as file:
                file.write(data)
                file.flush()
                seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
                fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
                # socket.send_fds would leave out the address.
                handed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [file.fileno()]))
                self._socket.sendmsg([b""], [handed], 0, self._address)


def is_stream(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to the stream goes to the journal: $JOURNAL_STREAM names it, and was not only inherited."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def own_unit() -> str:
    """The systemd unit that this process belongs to; "" if to none."""
    try:
        group = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("/")[2]
    except OSError:
        return ""
    return group if group.endswith(".service") else ""


def encoded(fields: Mapping[str, str]) -> bytes:
    """The fields as the protocol has them: a value of several lines goes behind its length."""
    parts = []
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")
        is_long = b"\n" in value
        parts.append(name.encode() + (b"\n" + len(value).to_bytes(8, "little") if is_long else b"=") + value + b"\n")
    return b"".join(parts)


def fields_of(line: str) -> dict[str, str]:
    """What the journal is told of a line; `AGLOW_DATA` is the line itself."""
    said: dict[str, Any] = json.loads(line)
    fields = {
        "MESSAGE": text_of(said),
        "PRIORITY": str(PRIORITIES.get(said.get("level", ""), 6)),
        "SYSLOG_IDENTIFIER": "aglowd",
    }
    fields |= {f"AGLOW_{name.upper()}": str(said[name]) for name in NAMED if said.get(name)}
    return {**fields, "AGLOW_DATA": line}


def text_of(said: Mapping[str, Any]) -> str:
    """A line as people read it: the event, what it is about and says, and below that the traceback."""
    words = [str(said.get("event", ""))]
    words += [f"{name}={_shown(value)}" for name, value in said.items() if name not in _OF_THE_LINE]
    lines = [" ".join(words)]
    raised = said.get("exception")
    for one in raised if isinstance(raised, list) else ():
        lines += [
            f"  {frame.get('filename')}:{frame.get('lineno')} in {frame.get('name')}"
            for frame in one.get("frames") or ()
        ]
        lines.append(f"  {one.get('exc_type')}: {one.get('exc_value')}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    is_word = isinstance(value, str) and value != "" and not any(one.isspace() or one in "\"='" for one in value)
    return value if is_word else json.dumps(value, ensure_ascii=False)
