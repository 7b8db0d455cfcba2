"""Staging requests, whatever protocol they come by: their whole life, planned when they are made.

Requests vanish some time after they finished, often at once; some are put on hold; some end as partial success.
Because a life is planned, asking about it costs nothing and changes nothing. The services that speak of requests
(`lta`, `stageit`, `dcache`) share this one user's requests, and the ledger tells of all of them as system `staging`.
The legacy stager forgets what has finished; a service that keeps its history asks with `keeps`.
"""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

from aglowd.sim.faulthttp import STRIKE
from aglowd.sim.faults import Strike
from aglowd.sim.tape import Tape
from aglowd.sim.world import DAY_S, HOUR_S, MINUTE_S, World

FIRST_ID = 18748
ODDS_HOLD = 0.15
ODDS_PARTIAL = 0.10
ODDS_VANISH_AT_ONCE = 0.20
ODDS_REMEMBERED = 0.30
ABORTED_SHOWN_S = 10 * MINUTE_S
LATE = frozenset({"late", "late_lost"})
"""Faults that let a request come to light late; the second loses its answer too."""
CUT_SHORT = frozenset({"vanish", "false_success"})
"""Faults that end a request before its files are online."""
NO_END: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True)
class Plan:
    """What becomes of a request; all times are world seconds, `online` is sorted."""

    scheduled: float
    held: float
    started: float
    online: tuple[tuple[float, str], ...]
    failed: tuple[str, ...]
    finished: float
    vanished: float
    remembered: bool


@dataclass
class Request:
    """A staging request; `aborted` is when a client stopped it, `released` when it gave its pins back."""

    id: int
    surls: tuple[str, ...]
    made: float
    plan: Plan
    aborted: float | None = None
    released: float | None = None
    visible: float = 0.0
    lied: tuple[str, ...] = ()
    """Files that it says are online when it has finished, and that are on tape."""
    is_forgotten: bool = False
    """Whether even a service that keeps its history loses it when it vanishes."""
    flagged_until: float = 0.0
    """Until then its status does not tell that it was aborted."""

    def is_shown(self, t: float, *, keeps: bool = False) -> bool:
        """Whether it is listed: not yet, or no more."""
        if t < self.visible:
            return False
        if keeps:
            return t < self.plan.vanished or not self.is_forgotten
        if self.aborted is not None:
            return t < self.aborted + ABORTED_SHOWN_S
        return t < self.plan.vanished

    def status(self, t: float, *, keeps: bool = False) -> str:
        """The stager's word for its state; empty when it has forgotten the request."""
        plan = self.plan
        if t < self.visible:
            return ""
        if self.aborted is not None:
            if t >= self.flagged_until:
                return "aborted"
            t = self.aborted
        if t < plan.finished:  # A fault may bring the end before the beginning.
            if t < plan.scheduled:
                return "new"
            if t < plan.held:
                return "scheduled"
            return "on hold" if t < plan.started else "in progress"
        if t >= plan.vanished and not (plan.remembered or (keeps and not self.is_forgotten)):
            return ""
        if not set(plan.failed) - set(self.lied):
            return "success"
        return "partial success" if plan.online else "failed"

    def done(self, t: float) -> int:
        """How many files are online."""
        until = t if self.aborted is None else min(t, self.aborted)
        if self.lied and until >= self.plan.finished:
            return len(self.plan.online) + len(self.lied)
        return bisect.bisect_right(self.plan.online, until, key=lambda pair: pair[0])

    def told_online(self, t: float) -> list[str]:
        """The files of which it says that they came online, wherever they are now."""
        return [*(surl for _, surl in self.plan.online), *self.lied][: self.done(t)]

    @property
    def location(self) -> str:
        """The site that its first file lies at."""
        site = self.surls[0] if self.surls else ""
        return "juelich" if "juelich" in site else "poznan" if "psnc.pl" in site else "sara"


class Unknown(Exception):
    """There never was such a request."""


class Stager:
    """The staging requests of one user, and what may be done to them."""

    def __init__(self, world: World, tape: Tape) -> None:
        self._world = world
        self._tape = tape
        self._requests: dict[int, Request] = {}

    def make(self, surls: Sequence[str], notify: bool = False, until: Mapping[str, float] = NO_END) -> int:
        """Make a request; a fault lets it come to light late, be forgotten while it runs, or end in a false success.

        `until` tells for a file when its pin ends; without, it is the site that decides.
        """
        strike = STRIKE.get()
        now = self._world.now()
        number = FIRST_ID + len(self._requests)
        asked = tuple(map(str, surls))
        self._world.note("staging", "request_made", surls=asked, notify=notify, result=number)
        ends_early = strike is not None and strike.fault in CUT_SHORT
        plan = self._plan(number, asked, now, strike if ends_early else None, until)
        made = self._requests[number] = Request(number, asked, now, plan)
        if strike is not None and strike.fault in LATE:
            made.visible = now + strike.value
        elif strike is not None and strike.fault == "false_success":
            made.lied = plan.failed
        made.is_forgotten = strike is not None and strike.fault == "vanish"
        return number

    def get(self, number: int) -> Request:
        """The request, shown or not; Unknown if there never was one."""
        if number not in self._requests:
            raise Unknown(number)
        return self._requests[number]

    def shown(self, *, keeps: bool = False) -> list[Request]:
        """The requests that can be seen now, the oldest first."""
        now = self._world.now()
        return [request for request in self._requests.values() if request.is_shown(now, keeps=keeps)]

    def staged(self, number: int) -> list[str]:
        """Its files that are online, and those that it says are; nothing when it cannot be seen."""
        now = self._world.now()
        request = self.get(number)
        if not request.is_shown(now):
            return []
        online = [surl for _, surl in request.plan.online[: request.done(now)] if self._tape.is_online(surl, now)]
        return [*online, *request.lied] if now >= request.plan.finished else online

    def abort(self, number: int) -> None:
        """Stop a running request, or release what a finished one holds; a fault hides for a while that it was stopped."""
        strike = STRIKE.get()
        now = self._world.now()
        request = self.get(number)
        self._world.note("staging", "request_aborted", request=number)
        if now < request.plan.finished and request.aborted is None:
            request.aborted = now
            if strike is not None and strike.fault == "flagged":
                request.flagged_until = now + strike.value
        if request.released is None:
            request.released = now
            self._tape.release(number, request.surls)

    def reschedule(self, number: int) -> None:
        """Put an aborted request back in the queue; one on hold stays there until the site is up again."""
        request = self.get(number)
        if request.aborted is not None:
            now = self._world.now()
            request.aborted = request.released = None
            request.made, request.plan = now, self._plan(number, request.surls, now)

    def drop(self, number: int, surls: Sequence[str]) -> None:
        """Give up some of its files: they are recalled no more, and their pins are released; the others stay."""
        self._world.note("staging", "files_dropped", request=number, surls=surls)
        self._tape.release(number, surls)

    def _plan(
        self, number: int, surls: tuple[str, ...], t: float, strike: Strike | None = None,
        until: Mapping[str, float] = NO_END,
    ) -> Plan:  # fmt: skip
        """Draw the request's life and pin its files; in the draws it goes by its files and how many are new.

        One that is struck comes to its end early, and what is not online by then is recalled no more.
        """
        world = self._world
        first = {surl for surl in surls if (file := self._tape.find_file(surl)) is not None and file.asked == 0}
        name = blake2b("\n".join(sorted(surls)).encode("utf-8", "replace"), digest_size=8).hexdigest() + str(len(first))
        unlucky: set[str] = set()
        if world.fails(ODDS_PARTIAL, "partial", name):
            count = min(1 + int(3 * world.draw("how many fail", name)), len(first) // 2)
            unlucky = set(sorted(first, key=lambda surl: world.draw("unlucky", surl))[:count])
        scheduled = t + world.between(1, 5, "new", name) * MINUTE_S
        held = scheduled + world.between(2, 15, "scheduled", name) * MINUTE_S
        hold_s = world.between(1, 2, "hold", name) * HOUR_S if world.draw("is held", name) < ODDS_HOLD else 0.0
        started = held + hold_s
        online: list[tuple[float, str]] = []
        failed: list[str] = []
        for surl in dict.fromkeys(surls):
            file = self._tape.find_file(surl)
            if surl in unlucky and file is not None:
                file.asked += 1
                failed.append(surl)
                continue
            since = t if file is not None and file.is_online(t) else started
            at = self._tape.recall(number, surl, since, until.get(surl))
            if at is None:
                failed.append(surl)
            else:
                online.append((at, surl))
        online.sort()
        finished = max(started, online[-1][0] if online else started)
        if strike is not None and finished > t + strike.value:
            finished = t + strike.value
            dropped = [surl for at, surl in online if at > finished]
            online = [(at, surl) for at, surl in online if at <= finished]
            self._tape.release(number, dropped)
            failed += dropped
        at_once = world.draw("vanishes at once", name) < ODDS_VANISH_AT_ONCE
        vanished = finished + (0.0 if at_once else world.between(0.2, 3, "vanish", name) * HOUR_S)
        remembered = not at_once and world.draw("is remembered", name) < ODDS_REMEMBERED
        if strike is not None:
            is_lie = strike.fault == "false_success"
            vanished, remembered = finished + (DAY_S if is_lie else 0.0), is_lie
        plan = Plan(scheduled, held, started, tuple(online), tuple(failed), finished, vanished, remembered)
        world.note(
            "staging", "request_planned", "world", request=number, online={s: at for at, s in online},
            failed=failed, finished=finished, vanished=vanished, pinned_s=self._tape.pin_s, pinned_until=dict(until),
        )  # fmt: skip
        return plan
