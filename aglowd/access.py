"""Who may do what over the control socket, by what the kernel says of who is at its other end.

What must stay true: whoever may not write changes nothing; a refusal is on record, and no flood of them fills the record.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial

import structlog
from msgspec import Struct

from aglowd.threads import Threads

LOOK_UP_REAL_S = 5.0
"""Real seconds that the host has to say which user a name is: it may ask a server that is down."""
REFUSALS_APART_REAL_S = 600.0
"""Real seconds between two events of one user's refused attempts; those between are counted."""
MAX_REFUSED_USERS = 64
"""Users whose refused attempts become events; the log names those of all others."""
MAX_PEER_GROUPS = 256
"""Groups of a user that are read from the kernel; of one who has more the mode of the socket decides alone."""
_SO_PEERGROUPS = 59
"""Of Linux; Python has no name for it."""


class Peer(Struct, frozen=True):
    """Who is at the other end; `groups`: None = nobody can tell."""

    uid: int
    groups: frozenset[int] | None


def peer_of(end: socket.socket) -> Peer:
    """Who is at the other end of that socket, as the kernel says: who that was when he connected."""
    _, uid, gid = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    try:
        packed = end.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 4 * MAX_PEER_GROUPS)
    except OSError:
        return Peer(uid, None)
    return Peer(uid, frozenset((gid, *struct.unpack(f"{len(packed) // 4}I", packed))))


class Access:
    """Who may read and who may write. `operators`: users, by name or uid, who may write beside root and ourselves."""

    def __init__(self, operators: Sequence[str | int] = ()) -> None:
        self._log = structlog.get_logger("access")
        self._threads = Threads("the names of users", most=1)
        self._refused: dict[int, tuple[float, int]] = {}
        self.heed(operators)

    def heed(self, operators: Sequence[str | int]) -> None:
        """From now on these are the operators. Names are looked up when somebody comes who is not known yet."""
        self._uids = {0, os.geteuid(), *(one for one in operators if isinstance(one, int))}
        self._names = {one for one in operators if isinstance(one, str)}

    async def may_read(self, peer: Peer, group: int) -> bool:
        """Members of the socket's group, and who may write."""
        return peer.groups is None or group in peer.groups or await self.may_write(peer)

    async def may_write(self, peer: Peer) -> bool:
        """The operators, root and the daemon's own user."""
        if peer.uid not in self._uids and self._names:
            await self._look_up()
        return peer.uid in self._uids

    async def _look_up(self) -> None:
        names = sorted(self._names)
        try:
            found = await self._threads.run(partial(_uids_of, names), LOOK_UP_REAL_S)
        except OSError as error:
            self._log.warning("operators_unknown", names=names, error=str(error))
            return
        if self._names.issuperset(found):  # Else they have been changed meanwhile.
            self._uids |= set(found.values())
            self._names -= found.keys()
        if self._names:
            self._log.warning("operators_unknown", names=sorted(self._names), hint="this host knows no such users")

    def count_refusal(self, uid: int, now: Callable[[], float] = time.monotonic) -> int | None:
        """How many attempts of that user were refused since the last event, if one is due; else None."""
        since, left_out = self._refused.get(uid, (-REFUSALS_APART_REAL_S, 0))
        if uid not in self._refused and len(self._refused) >= MAX_REFUSED_USERS:
            oldest = min(self._refused, key=lambda one: self._refused[one][0])
            if now() - self._refused[oldest][0] < REFUSALS_APART_REAL_S:
                return None
            del self._refused[oldest]
        if now() - since < REFUSALS_APART_REAL_S:
            self._refused[uid] = since, left_out + 1
            return None
        self._refused[uid] = now(), 0
        return left_out + 1


def _uids_of(names: Sequence[str]) -> dict[str, int]:
    found = {}
    for name in names:
        try:
            found[name] = pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    return found
