"""The bulk service of dCache: requests on many paths, each with a state of its own.

A WLCG stage request is one of activity STAGE. What brings files from tape is a request of the shared stager, whose
number is nobody's business here: clients know a request by its UUID. Requests that came to the stager by other ways are
listed too, as another user's, because those services ask this same dCache.
COMPLETED says that nothing more happens, whatever became of the targets; nothing is tried again. A release fails for a
file that does not exist, not for one that has no pin. Of a request that is cancelled, files that are on their way come
online all the same and are pinned, as long as it is CANCELLING.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any

from aglowd.sim.dcachegate import OTHERS, UID, DcacheSettings, Gate, Refused
from aglowd.sim.faulthttp import STRIKE
from aglowd.sim.stager import LATE, Plan, Stager
from aglowd.sim.tape import Tape, surl_path
from aglowd.sim.world import DAY_S, HOUR_S, MINUTE_S, World

STAGES = frozenset({"STAGE", "PIN"})
RELEASES = frozenset({"RELEASE", "UNPIN"})
LIFETIME_S = {"PIN": 5 * MINUTE_S, "STAGE": 2 * DAY_S}
CANCELLING_S = 30.0
SWEEP_S = 6 * HOUR_S
"""How often requests are looked through for what goes to the archive."""
ENDED = frozenset({"COMPLETED", "CANCELLED"})
FAILURE = "diskCacheV111.util.CacheException"
NOT_FOUND = "diskCacheV111.util.FileNotFoundCacheException"
_GOING = frozenset({"CREATED", "READY", "RUNNING"})
_HASH = re.compile(r"[0-9a-f]{8}\.tar$")
NO_PLAN = Plan(0.0, 0.0, 0.0, (), (), 0.0, inf, False)
NO_LIFETIMES: Mapping[str, float] = {}


@dataclass
class Bulk:
    """One request. `asked` is its number at the stager, where it has one; times are world seconds."""

    number: int
    name: str
    activity: str
    targets: tuple[str, ...]
    made: float
    prefix: str = "/"
    asked: int | None = None
    visible: float = 0.0
    forgotten: float = inf
    cancelled: float = inf
    failed: dict[str, str] = field(default_factory=dict)
    """Target → the class of the error; of releases only."""
    skipped: frozenset[str] = frozenset()
    """Left alone: no pin was taken, and that is no failure."""
    dropped: dict[str, float] = field(default_factory=dict)
    """Target → when it was cancelled."""
    released: set[str] = field(default_factory=set)


class BulkService:
    """The requests of one user, and what becomes of them."""

    def __init__(self, world: World, tape: Tape, stager: Stager, gate: Gate, settings: DcacheSettings) -> None:
        self._world = world
        self._tape = tape
        self._stager = stager
        self._gate = gate
        self._settings = settings
        self._requests: dict[str, Bulk] = {}
        self._made = 0

    # --- making requests

    def submit(
        self, activity: str, targets: Sequence[str], lifetimes: Mapping[str, float] = NO_LIFETIMES, prefix: str = "/"
    ) -> Bulk:
        """A new request; `lifetimes` are the seconds that a path asked for, from now on."""
        now = self._world.now()
        going = [one for one in self._requests.values() if now < one.forgotten and self.status(one, now) not in ENDED]
        if len(going) >= self._settings.max_requests:
            raise Refused(429, f"The number of requests for this user has reached {self._settings.max_requests}.")
        for path in targets:
            self._gate.check_path(path)
        number = self._made
        self._made += 1
        made = Bulk(number, "", activity, tuple(dict.fromkeys(targets)), now, prefix)
        if activity in STAGES:
            self._stage(made, lifetimes)
        made.name = name_of(self._world.seed, f"release {number}" if made.asked is None else made.asked)
        self._requests[made.name] = made
        return made

    def _stage(self, made: Bulk, lifetimes: Mapping[str, float]) -> None:
        strike = STRIKE.get()
        fault, value = ("", 0.0) if strike is None else (strike.fault, strike.value)
        chosen = sorted(made.targets)[: int(value)]
        if fault == "skipped":
            made.skipped = frozenset(chosen)
        for path in chosen if fault in ("lost", "replaced") else ():
            self._lose(path, made.made, is_replaced=fault == "replaced")
        until = {}
        if not self._settings.ignores_lifetime:
            default_s = LIFETIME_S[made.activity]
            until = {path: made.made + lifetimes.get(path, default_s) for path in made.targets}
        made.asked = self._stager.make([one for one in made.targets if one not in made.skipped], until=until)
        if fault in LATE:
            made.visible = made.made + value
        elif fault == "vanish":
            made.forgotten = self._stager.get(made.asked).plan.finished

    def _lose(self, path: str, now: float, *, is_replaced: bool) -> None:
        """The file is on no tape any more; it may have been ingested again, under another hash."""
        file = self._tape.find_file(path)
        if file is None:
            return
        file.lost = now
        self._world.note("tape", "lost", "world", path=path, replaced=is_replaced)
        copy = _HASH.sub(f"{int(2**32 * self._world.draw('hash of the copy', path)):08x}.tar", path)
        if is_replaced and copy != path:
            self._tape.add(copy, now - HOUR_S)

    # --- looking at them

    def get(self, name: str, *, activity: str | None = None, archived: bool = False) -> Bulk:
        """The request that can be seen now; Refused if there is none, of that activity if one is named."""
        now, found = self._world.now(), self._requests.get(name)
        if found is None or not found.visible <= now < found.forgotten or activity not in (None, found.activity):
            raise Refused(404, f"{name} not found")
        if self._is_archived(found, now) is not archived:
            raise Refused(404, f"{name} not found")
        return found

    def list_requests(self, *, archived: bool = False) -> list[dict[str, Any]]:
        """Everybody's, oldest first, as rows of the list."""
        now = self._world.now()
        rows = [
            self._row(one.number, one.name, f"{UID}:{UID}", one.activity, self.status(one, now))
            for one in self._requests.values()
            if one.visible <= now < one.forgotten and self._is_archived(one, now) is archived
        ]
        ours = {one.asked for one in self._requests.values()}
        others = [] if archived else [one.id for one in self._stager.shown() if one.id not in ours]
        rows += [self._row(number, name_of(self._world.seed, number), OTHERS, "STAGE", "STARTED") for number in others]
        return sorted(rows, key=lambda row: int(row["id"]))

    def status(self, one: Bulk, t: float) -> str:
        """The service's word for the request."""
        if t >= one.cancelled:
            return "CANCELLING" if t < one.cancelled + CANCELLING_S else "CANCELLED"
        if t >= self._ended(one):
            return "COMPLETED"
        if one.asked is None:
            return "STARTED"
        plan = self._plan(one)
        return "INCOMPLETE" if t < plan.scheduled else "QUEUED" if t < plan.started else "STARTED"

    def states(self, one: Bulk, t: float) -> dict[str, str]:
        """Target → its state."""
        plan, stopped = self._plan(one), self._stopped(one)
        online = {surl: at for at, surl in plan.online}
        if one.asked is not None:
            online.update(dict.fromkeys(self._stager.get(one.asked).lied, plan.finished))
        waiting = "CREATED" if t < plan.scheduled else "READY" if t < plan.started else "RUNNING"

        def state(path: str) -> str:
            if path in one.skipped:
                return "SKIPPED"
            if one.asked is None and t < self._ended(one):
                return "RUNNING"
            if path in one.failed:
                return "FAILED"
            if path in one.dropped:
                return "CANCELLED"
            if one.asked is None or online.get(path, inf) <= min(t, stopped):
                return "COMPLETED"
            return "CANCELLED" if t >= stopped else "FAILED" if t >= plan.finished else waiting

        return {path: state(path) for path in one.targets}

    # --- changing them

    def cancel(self, one: Bulk, paths: Sequence[str] | None = None) -> None:
        """Stop the request, or some of its targets; what is or just comes online stays pinned. Nothing if it has ended."""
        now = self._world.now()
        if self.status(one, now) in ENDED:
            return
        states = self.states(one, now)
        late = {surl for at, surl in self._plan(one).online if paths is None and at <= now + CANCELLING_S}
        stopped = [path for path in one.targets if paths is None or path in paths]
        stopped = [path for path in stopped if states[path] in _GOING and path not in late]
        one.dropped.update(dict.fromkeys(stopped, now))
        if paths is None:
            one.cancelled = now
        self._drop(one, stopped)

    def release(self, made: Bulk, name: str | None, *, cancel_on_failure: bool) -> None:
        """Give back what the request of that name has pinned of the targets, or all that our user has.

        With `cancel_on_failure` the first bad path ends it: what comes behind stays pinned. What still comes has no pin yet.
        """
        strike, now = STRIKE.get(), self._world.now()
        holders = list(self._requests.values()) if name is None else list(filter(None, (self._requests.get(name),)))
        coming = [{path for path, state in self.states(one, now).items() if state in _GOING} for one in holders]
        for at, path in enumerate(made.targets):
            error = "" if self._tape.find_file(path) is not None else NOT_FOUND
            if at == 0 and strike is not None and strike.fault == "unreleased":
                error = FAILURE
            if error:
                made.failed[path] = error
                if cancel_on_failure:
                    made.dropped.update(dict.fromkeys(made.targets[at + 1 :], now))
                    return
                continue
            for one, late in zip(holders, coming, strict=True):
                if path in one.targets and path not in late:
                    one.released.add(path)
                    self._drop(one, [path])

    def clear(self, one: Bulk) -> None:
        """Forget it; what it has pinned stays pinned."""
        self.cancel(one)
        one.forgotten = self._world.now()
        if one.asked is None:
            del self._requests[one.name]  # Nobody can ask for what it holds: it holds nothing.

    def _drop(self, one: Bulk, paths: list[str]) -> None:
        if one.asked is None or not paths:
            return
        self._stager.drop(one.asked, paths)
        gone = one.skipped | one.dropped.keys() | one.released | set(self._plan(one).failed)
        if gone.issuperset(one.targets) and self._stager.get(one.asked).released is None:
            self._stager.abort(one.asked)

    def _plan(self, one: Bulk) -> Plan:
        return NO_PLAN if one.asked is None else self._stager.get(one.asked).plan

    def _stopped(self, one: Bulk) -> float:
        """When the stager was told to stop it, by whatever way."""
        at = None if one.asked is None else self._stager.get(one.asked).aborted
        return inf if at is None else at

    def _ended(self, one: Bulk) -> float:
        """When its last target came to its end; pins are gone before a release says so."""
        if one.asked is None:
            return one.made + self._settings.release_s
        plan = self._plan(one)
        finished = min(plan.finished, self._stopped(one))
        if not one.dropped:
            return max(one.made, finished)
        ends = {surl: at for at, surl in plan.online} | one.dropped
        left = [min(ends.get(path, finished), finished) for path in one.targets if path not in one.skipped]
        return max([one.made, *left])

    def _is_archived(self, one: Bulk, t: float) -> bool:
        ended = min(self._ended(one), one.cancelled)
        return t >= ceil((ended + self._settings.archived_s) / SWEEP_S) * SWEEP_S

    def _row(self, number: int, name: str, owner: str, activity: str, status: str) -> dict[str, Any]:
        return {
            "id": number,
            "url": f"https://dcache.example/api/v1/bulk-requests/{name}",
            "activity": activity,
            "owner": owner,
            "status": status,
            "active": 0 if status in ENDED else 1,
        }


def name_of(seed: int, number: object) -> str:
    """What dCache calls the stager's request of that number."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{seed} {number}"))


def canonical(prefix: str, path: str) -> str:
    """A target below its prefix, in one spelling; Refused if it is not absolute."""
    whole = path if prefix in ("", "/") or path.startswith(prefix) else f"{prefix.rstrip('/')}/{path.lstrip('/')}"
    if not whole.startswith("/"):
        raise Refused(400, f"{path} is not an absolute path")
    return surl_path(whole)
