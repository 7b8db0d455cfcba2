"""How the daemon is, as its parts tell it without asking anybody."""

from __future__ import annotations

from msgspec import Struct


class LoopHealth(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A loop of the daemon: real seconds since it last showed progress, and how many it may take.

    `defect`: what it stumbled over last, though it goes on. `note`: how it goes about its work, where one may wonder.
    """

    age_s: float
    grace_s: float
    ok: bool
    defect: str = ""
    note: str = ""


class SystemHealth(Struct, frozen=True, forbid_unknown_fields=True):
    """An outside system as we found it last; times are world seconds."""

    ok: bool
    last_ok: float | None = None
    last_error: str = ""
    failures: int = 0
    backing_off_until: float | None = None


class Health(Struct, frozen=True, forbid_unknown_fields=True):
    """How the daemon is. `credentials`: '' or why one is frozen. `pools`: places taken, places there are.

    `database`: '' or why it cannot be written now, what then waits, and what to do. `restart`: the keys of the configuration
    whose new values wait for one.
    """

    alive: bool
    ready: bool
    missing: tuple[str, ...]
    loops: dict[str, LoopHealth]
    systems: dict[str, SystemHealth]
    credentials: dict[str, str]
    proxy_seconds_left: float | None
    started: float
    pid: int
    pools: dict[str, tuple[int, int]]
    database: str = ""
    restart: tuple[str, ...] = ()
    database_since: float | None = None
