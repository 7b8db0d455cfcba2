"""Keeps the grid proxies good: looks at those that are used, has the common one renewed, and says in time what will end.

What must stay true: people hear of a proxy while there is time to renew it, whether or not a step waits for it; the command
that renews it is run no more often than its back-off, across restarts too: that it is about to be run is written before;
what came of it is told by the proxy, not by the command's exit code.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from aglowd.clock import Clock
from aglowd.durations import duration_text
from aglowd.errors import OutsideError
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy
from aglowd.grid.words import quoted
from aglowd.log import hide_secrets
from aglowd.model import Json, Subject
from aglowd.store.rows import dumps, loads
from aglowd.store.store import Store

COMMON = ""
"""The name of the proxy of `[proxy]`; those of sites go by their paths."""
CURSOR = "proxy renewal"
RENEW_REAL_S = 300.0
"""Real seconds that the command may take."""
APART_S = 3600.0
"""World seconds between two renewals that went well: a proxy whose whole life is shorter than `warn` is renewed that often."""
BACKOFF_S = 900.0
"""World seconds after a renewal that failed; doubled with each further one."""
BACKOFF_MOST_S = 21_600.0
REST_MOST_S = 21_600.0
"""World seconds between two looks at a proxy that is good for long."""
LEAST_REAL_S = 10.0
"""Real seconds between two looks: where time flies, tools are started no more often for that."""
STEP_REAL_S = 10.0
"""Real seconds after which a keeper that rests shows that it is alive."""
PATIENCE = 2
"""Looks in a row that found no usable proxy before people are told: a tool may hang once."""
KNOWN_RESTS = 4.0
"""For so many rests what was seen of a proxy is believed, when it cannot be looked at any more."""
GAIN_S = 60.0
"""World seconds by which a renewed proxy must be good for longer than before."""


class Kept:
    """One proxy as it was seen last."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.left_s: float | None = None
        self.at = 0.0
        self.failures = 0
        self.error = ""


class Keeper:
    """The proxies that the configuration uses, by name. `renew` is the command for the common one, () = people do it."""

    def __init__(
        self,
        store: Store,
        proxies: Mapping[str, Proxy],
        processes: Processes,
        clock: Clock,
        *,
        poll_s: float,
        minimum_s: float,
        warn_s: float,
        renew: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._kept = {name: Kept(proxy) for name, proxy in proxies.items()}
        self._processes = processes
        self._clock = clock
        self._poll_s = poll_s
        self._minimum_s = minimum_s
        self._warn_s = warn_s
        self._renew = tuple(renew)
        self._renewal: str | None = None
        """Why the last renewal failed, '' if it did not, None before it is known."""
        self._log = structlog.get_logger("keeper")
        self.progress_at = clock.now()
        self.defect = ""
        self.rested = False
        """Whether it has looked at all of them at least once."""

    def heed(self, poll_s: float, *, minimum_s: float, warn_s: float) -> None:
        """Go by these from the next look on."""
        self._poll_s, self._minimum_s, self._warn_s = poll_s, minimum_s, warn_s

    @property
    def left_s(self) -> float | None:
        """World seconds for which the common proxy is good from now on; None if nobody knows."""
        return self._left_s(COMMON)

    def _left_s(self, name: str) -> float | None:
        kept = self._kept.get(name)
        if kept is None or kept.left_s is None:
            return None
        age_s = self._clock.now() - kept.at
        return None if age_s > KNOWN_RESTS * self._rest_s() else max(0.0, kept.left_s - age_s)

    def troubles(self) -> dict[str, str]:
        """What is not well with the proxies, and what is, in words for people; of what nobody knows nothing is said."""
        found: dict[str, str] = {}
        for name, kept in self._kept.items():
            called = f"grid proxy {name}".rstrip()
            left_s = self._left_s(name)
            if kept.failures >= PATIENCE:
                found[called] = kept.error
            elif left_s is not None:
                found |= troubles_of_proxy(called, left_s, minimum_s=self._minimum_s, warn_s=self._warn_s)
        if self._renewal is not None:
            found["renewal of the grid proxy"] = self._renewal
        return found

    async def run(self) -> None:
        """Look at the proxies for ever, and have the common one renewed in time."""
        at = self._clock.now()
        while True:
            self.progress_at = self._clock.now()
            rest_s = self._clock.real_s(at - self.progress_at) if self._kept else STEP_REAL_S
            self.rested |= not self._kept
            if rest_s > 0:
                await asyncio.sleep(min(rest_s, STEP_REAL_S))
                continue
            try:
                await self.look()
                self.defect = ""
            except Exception as error:  # Who cannot keep a proxy is no reason to stop the work.
                self.defect = f"{type(error).__name__}: {error}"
                self._log.exception("keeper_raised")
            self.rested = True
            at = self._clock.now() + self._rest_s()

    def _rest_s(self) -> float:
        """The less is left, the sooner it is looked at again; one that ends soon each `poll`, as it may be renewed."""
        least_s = max(self._poll_s, LEAST_REAL_S * self._clock.rate)
        if any(kept.failures or kept.left_s is None for kept in self._kept.values()):
            return least_s
        spare_s = min((kept.left_s or 0.0) - max(self._warn_s, self._minimum_s) for kept in self._kept.values())
        return max(least_s, min(spare_s / 8, REST_MOST_S))

    async def look(self) -> None:
        """One look at each of them; the common one is renewed if less than `warn` is left."""
        await asyncio.gather(*map(self._look, self._kept.values()))
        common = self._kept.get(COMMON)
        if common is None or not self._renew:
            return
        if not common.failures and common.left_s is not None and common.left_s >= self._warn_s:
            self._renewal = ""
        elif await self._may_renew():
            await self._have_renewed(common)

    async def _look(self, kept: Kept) -> None:
        try:
            info = await kept.proxy.info()
        except OutsideError as error:
            kept.failures, kept.error = kept.failures + 1, str(error)
            self._log.warning("proxy_unusable", error=kept.error, failures=kept.failures)
        else:
            kept.left_s, kept.at, kept.failures, kept.error = info.left_s, self._clock.now(), 0, ""

    # --- renewal

    async def _tried(self) -> dict[str, Json]:
        kept = await self._store.cursor(CURSOR)
        return {"at": None, "failures": 0} if kept is None else dict(loads(kept))

    async def _may_renew(self) -> bool:
        tried = await self._tried()
        if tried["at"] is None:
            return True
        failures = tried["failures"]
        rest_s = min(BACKOFF_S * 2.0 ** min(failures - 1, 10), BACKOFF_MOST_S) if failures else APART_S
        return bool(self._clock.now() - tried["at"] >= rest_s)

    async def _have_renewed(self, common: Kept) -> None:
        before_s = common.left_s if common.left_s is not None and not common.failures else 0.0
        failures = (await self._tried())["failures"]
        # It counts as failed until it is known to have gone well: a daemon that dies over it does not begin it anew at once.
        await self._note(failures + 1)
        self._log.info("proxy_renewing", command=self._renew[0], left_s=round(before_s))
        why = await self._run()
        await self._look(common)
        left_s = common.left_s if not common.failures and common.left_s is not None else 0.0
        if not why and left_s < before_s + GAIN_S:
            said = common.error or f"the proxy is good for {duration_text(left_s)}, no longer than before"
            why = f"{self._renew[0]} ended well, but {said}"
        self._renewal = hide_secrets(why)
        if why:
            self._log.warning("proxy_not_renewed", error=self._renewal, failures=failures + 1)
            return
        await self._note(0)
        self._log.info("proxy_renewed", left_s=round(left_s))
        await self._store.record("ProxyRenewed", {"left_s": round(left_s), "command": self._renew[0]})
        self._store.bells.hint("proxy", [Subject("proxy", "default").key])  # Steps may wait for it.

    async def _note(self, failures: int) -> None:
        await self._store.ingest(CURSOR, dumps({"at": self._clock.now(), "failures": failures}), ())

    async def _run(self) -> str:
        """Why the command failed, '' if it did not."""
        try:
            ended = await self._processes.run(self._renew, write=True, timeout_s=RENEW_REAL_S)
        except OutsideError as error:
            return str(error)
        if ended.rc == 0:
            return ""
        said = quoted(ended.stderr, ended.stdout, most=300)
        return f"{self._renew[0]} ended with exit code {ended.rc}{f': {said}' if said else ''}"


def troubles_of_proxy(called: str, left_s: float, *, minimum_s: float, warn_s: float) -> dict[str, str]:
    """Two things may be wrong with a proxy, each told once: it will end soon, and it is too short for pilots already.

    While it is too short nothing is said of the other: what was known of that stays.
    """
    for_now = f"it is good for {duration_text(max(left_s, 0.0))}"
    needs = f"pilots need {duration_text(minimum_s)}: renew it"
    soon = f"end of the {called}"
    if left_s < minimum_s:
        return {called: f"{for_now}; {needs}"}
    if left_s < warn_s:
        return {called: "", soon: f"{for_now}; {needs}"}
    return {called: "", soon: ""}
