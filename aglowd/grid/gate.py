"""What effects and watchers share about the outside: one object per credential, one per site, one per host of storage.

Adapters keep no state, so whatever must be remembered between two calls stands here: a credential that was refused
once is not used again before someone thaws it, because dCache blocks the whole client after three refusals
(`frontend.limits.error.max-allowed`), and a site that asked for quiet gets it from everybody. A host that is slow, or wants
quiet, keeps nobody waiting who asks another one, and a short look never waits for a transfer.
Back-off is in world seconds, as all policy is.
"""

from __future__ import annotations

import asyncio
import base64
import bisect
from collections import Counter
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown

CONCURRENCY = 8
"""Requests to one site at once; those that may take long, as transfers do, are counted apart."""
LATENCIES_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Upper ends of the classes in which the real seconds that requests take are counted."""
MAX_HOSTS = 64
"""Hosts of storage of one kind that have a gate; beyond, the one that was asked longest ago is forgotten."""


class Credential:
    """A user with a password, or a token; frozen at its first 401 until `thaw`. `scheme` is how the token is called."""

    def __init__(
        self,
        name: str,
        *,
        user: str | None = None,
        password: str | None = None,
        token: str | None = None,
        scheme: str = "Bearer",
    ) -> None:
        self.name = name
        self.scheme = scheme
        self.user = user
        self.password = password
        self.token = token
        self.frozen: str | None = None

    def __repr__(self) -> str:
        return f"Credential({self.name!r}, user={self.user!r}, frozen={self.frozen!r})"

    @property
    def is_usable(self) -> bool:
        """Whether it has a secret, and may be used."""
        return bool(self.token or self.password) and self.frozen is None

    def freeze(self, reason: str) -> None:
        """Nobody uses it until `thaw`; the first reason is kept."""
        if self.frozen is None:
            self.frozen = reason

    def thaw(self) -> None:
        """It may be used again: an operator renewed it, or the file it comes from changed."""
        self.frozen = None

    def check(self) -> None:
        """Raise Temporary when it is frozen."""
        if self.frozen is not None:
            raise Temporary(f"credential {self.name} is frozen: {self.frozen}; renew it")

    def redact(self, text: str) -> str:
        """The text without our secrets, in case the far side repeats them to us."""
        login = base64.b64encode(f"{self.user}:{self.password}".encode()).decode() if self.password else None
        for secret in (self.password, self.token, login):
            if secret:
                text = text.replace(secret, "***")
        return text


class Health(Struct, frozen=True):
    """How a site does, for `status`. Times are world seconds; None = never."""

    last_success: float | None = None
    last_failure: float | None = None
    failures_in_a_row: int = 0
    last_error: str = ""
    backing_off_until: float | None = None
    back_off_reason: str = ""


class Requests:
    """What was asked of a site since the process began: how often and how it ended, and how long it took.

    `outcomes`: ok, refused (it answered that it will not), failed (nothing was done), unknown, broken_off (by us).
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.took = [0] * (len(LATENCIES_S) + 1)
        """Requests of each class of `LATENCIES_S`, the last one for all that took longer."""
        self.took_s = 0.0

    def add(self, outcome: str, real_s: float) -> None:
        """One more has ended."""
        self.outcomes[outcome] += 1
        self.took[bisect.bisect_left(LATENCIES_S, real_s)] += 1
        self.took_s += real_s


class Site:
    """One outside system or site: at most `concurrency` requests at once, and as many of those that may take long; none
    at all while it wants quiet."""

    def __init__(self, name: str, clock: Clock, *, concurrency: int = CONCURRENCY) -> None:
        self.name = name
        self._clock = clock
        self._places = asyncio.Semaphore(concurrency)
        self._long_places = asyncio.Semaphore(concurrency)
        self._health = Health()
        self.requests = Requests()
        self._quiet_until = 0.0
        self._quiet_reason = ""

    @property
    def health(self) -> Health:
        """What is known of the site now."""
        quiet = self._quiet_until > self._clock.now()
        return Health(
            self._health.last_success,
            self._health.last_failure,
            self._health.failures_in_a_row,
            self._health.last_error,
            self._quiet_until if quiet else None,
            self._quiet_reason if quiet else "",
        )

    def back_off(self, seconds: float, reason: str) -> None:
        """Nobody asks the site for that many world seconds; a shorter wish never shortens a longer one."""
        until = self._clock.now() + seconds
        if until > self._quiet_until:
            self._quiet_until, self._quiet_reason = until, reason

    def check(self) -> None:
        """Raise Temporary, with the time that is left, while the site wants quiet."""
        left = self._quiet_until - self._clock.now()
        if left > 0:
            reason = f"{self.name} asked for quiet, {left:.0f} s are left: {self._quiet_reason}"
            raise Temporary(reason, retry_after_s=left)

    def at(self, host: str) -> Site:
        """The gate of a host: of a site that is one system this one, whatever the host; `Sites` has one for each."""
        return self

    def slot(self, *, is_long: bool = False) -> AbstractAsyncContextManager[None]:
        """A place among the site's requests, waited for; how the body ends is what `health` tells.

        Raises Temporary without asking the site when it wants quiet. A Permanent is a success of the site: it answered.
        """
        return _Place(self, self._clock, self._long_places if is_long else self._places)

    def note(self, error: str | None) -> None:
        """It has answered, or failed with that error."""
        now, old = self._clock.now(), self._health
        if error is None:
            self._health = Health(now, old.last_failure, 0, old.last_error)
        else:
            self._health = Health(old.last_success, now, old.failures_in_a_row + 1, error)


class _Place:
    """A place at a site: each request takes one, so this is no generator, which costs several times as much."""

    def __init__(self, site: Site, clock: Clock, places: asyncio.Semaphore) -> None:
        self._site, self._clock, self._places = site, clock, places
        self._began = 0.0

    async def __aenter__(self) -> None:
        self._site.check()
        await self._places.acquire()
        try:
            self._site.check()  # It may have asked for quiet while we waited for the place.
        except BaseException:
            self._places.release()
            raise
        self._began = self._clock.now()

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._places.release()
        outcome = "broken_off"
        if error is None or isinstance(error, Permanent):
            outcome = "ok" if error is None else "refused"
            self._site.note(None)
        elif isinstance(error, OutsideError):
            outcome = "unknown" if isinstance(error, Unknown) else "failed"
            self._site.note(str(error))
        self._site.requests.add(outcome, self._clock.real_s(self._clock.now() - self._began))


class Sites:
    """A gate for each host of one kind of storage, made when it is first asked; `gates` shows them as `KIND HOST`."""

    def __init__(self, kind: str, clock: Clock, gates: dict[str, Site], *, concurrency: int = CONCURRENCY) -> None:
        self._kind = kind
        self._clock = clock
        self._gates = gates
        self._concurrency = concurrency
        self._hosts: dict[str, Site] = {}
        """The one that was asked longest ago comes first."""

    def at(self, host: str) -> Site:
        """The gate of that host. Who holds one that is forgotten keeps it."""
        site = self._hosts.pop(host, None)
        if site is None:
            site = Site(f"{self._kind} {host}".rstrip(), self._clock, concurrency=self._concurrency)
            if len(self._hosts) == MAX_HOSTS:
                del self._gates[self._hosts.pop(next(iter(self._hosts))).name]
            self._gates[site.name] = site
        self._hosts[host] = site
        return site
