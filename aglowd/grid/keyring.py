"""The macaroons that this process holds, and when their issuer is asked: what the stager fetches and the doors are shown.

What must stay true: nobody concludes anything from a macaroon that is missing before the issuer was asked once in the life
of the process. The issuer is asked by whoever needs one, and never for one request: its answer is about all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import structlog
from msgspec import Struct

from aglowd.clock import Clock
from aglowd.errors import OutsideError
from aglowd.grid.macaroons import Macaroon, Macaroons
from aglowd.grid.stager import Request

REFRESH_S = 6 * 3600.0
"""World seconds: one that ends so soon is asked for anew."""
ASK_APART_S = 300.0
"""World seconds between two rounds that are made only because some are about to end."""


class Issued(Struct, frozen=True):
    """A macaroon as its issuer tells of it; `site` as it calls the site."""

    site: str
    content: str
    valid_until: str | None

    def __repr__(self) -> str:
        return f"Issued(site={self.site!r}, valid_until={self.valid_until!r})"


class Keyring:
    """Shared by the stager that issues and the doors that want macaroons; `source` is the stager's round for all requests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held = Macaroons()
        self._asking = asyncio.Lock()
        self._asked_at = clock.now()
        self._log = structlog.get_logger("keyring")
        self.source: Callable[[], Awaitable[object]] | None = None
        self.is_filled = False
        """Whether the issuer has told of all requests once."""

    def take(self, request: Request, issued: Iterable[Issued]) -> None:
        """What the issuer says that opens the request's files now."""
        for one in issued:
            if not self._held.add(one.site, request, one.content, one.valid_until):
                self._log.warning("macaroon_unusable", site=one.site, request=request)
        self._held.expire(request, self._clock.now())

    def forget(self, request: Request) -> None:
        """The request was released."""
        self._held.forget(request)

    def are_held(self, request: Request) -> bool:
        """Whether there is one for the request."""
        return self._held.are_held(request)

    def due(self) -> frozenset[Request]:
        """The requests that need new ones."""
        return frozenset(request for _, request in self._held.due(self._clock.now(), REFRESH_S))

    async def ready(self) -> None:
        """Have the issuer asked if it never was, or if one is about to end; raises what it raises if it never answered."""
        if self.source is None:
            return
        async with self._asking:
            if self.is_filled and (self._clock.now() < self._asked_at + ASK_APART_S or not self.due()):
                return
            self._asked_at = self._clock.now()
            try:
                await self.source()
            except OutsideError as error:
                if not self.is_filled:
                    raise
                self._log.warning("macaroons_not_renewed", error=str(error))

    def covers(self, site: str, path: str) -> bool:
        """Whether a request of ours is for that path, as far as its macaroons tell; True of one that ended, too."""
        return self._held.covers(site, path)

    def candidates(self, site: str, path: str, activity: str) -> tuple[Macaroon, ...]:
        """As `Macaroons.candidates`, now."""
        return self._held.candidates(site, path, activity, self._clock.now())
