"""The Unix socket on which people reach the daemon, and who is at its other end.

What must stay true: nobody outside the group can connect, not even for a moment; a socket that somebody listens on is
left alone.
"""

from __future__ import annotations

import grp
import os
import socket
import stat
import struct
from pathlib import Path

from aglowd.errors import AglowError

SOCKET_MODE = 0o660
OWNERS_MODE = 0o600
"""Until the socket has its group."""


def open_socket(path: Path) -> socket.socket:
    """A listening socket at that path, at first for its owner alone. A dead one is replaced; AglowError for anything else."""
    try:
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Linux takes the file's mode from the descriptor: it is never wider than this.
            os.fchmod(listener.fileno(), OWNERS_MODE)
            listener.bind(os.fspath(path))
            listener.listen(128)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise AglowError(f"the control socket {path} cannot be opened: {error.strerror or error}") from error
    return listener


def give_to(path: Path, group: str) -> str:
    """Give the socket to that group ("" = leave it as it is); returns why it could not be, or "". May ask a server."""
    if not group:
        return ""
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        return f"this host has no group {group!r}"
    except OSError as error:
        return f"the socket cannot be given to the group {group!r}: {error.strerror}; is aglowd's user a member of it?"
    return ""


def open_to_group(path: Path) -> int:
    """Let its group use the socket, mode 0660 whatever the umask; returns which group that is."""
    os.chmod(path, SOCKET_MODE)
    return path.stat().st_gid


def _remove_stale(path: Path) -> None:
    """Make room for our socket; AglowError if somebody listens there or if it is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AglowError(f"{path} is no socket; move it away, or set daemon.socket to another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # Its queue is full: somebody is there.
    raise AglowError(f"another aglowd answers on {path}; stop it first, or set daemon.socket to another path")


def uid_of(peer: socket.socket) -> int:
    """Who is at the other end of the socket, as the kernel says."""
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
