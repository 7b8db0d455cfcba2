"""What is taken of a limit, and who waits for a place below it: how the watchers that give turns tell of them."""

from __future__ import annotations

from msgspec import Struct


class Waiter(Struct, frozen=True):
    """Who waits: `run/step/…`, what it wants, since when (world seconds; None = in no order of time), and why it must."""

    key: str
    wants: int
    since: float | None
    why: str


class Usage(Struct, frozen=True):
    """A limit `what` of a site ("" = of all together). `queue`: who is next stands first."""

    what: str
    site: str
    used: int
    limit: int
    queue: tuple[Waiter, ...] = ()
