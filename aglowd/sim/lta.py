"""The legacy LTA stager: staging requests behind XML-RPC, with the habits that make it hard to follow.

Requests vanish some time after they finished, often at once; some are put on hold; some end as partial success.
A request's whole life is planned when it is made, so that asking about it costs nothing and changes nothing.
"""

from __future__ import annotations

import base64
import bisect
import re
import xmlrpc.client
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware
from defusedxml import xmlrpc as safe_xmlrpc

from aglowd.sim.faulthttp import STRIKE
from aglowd.sim.faults import Strike
from aglowd.sim.tape import Tape
from aglowd.sim.world import DAY_S, HOUR_S, MINUTE_S, World

safe_xmlrpc.monkey_patch()  # From here on xmlrpc.client.loads refuses entities and bombs.

FIRST_ID = 18748
ODDS_HOLD = 0.15
ODDS_PARTIAL = 0.10
ODDS_VANISH_AT_ONCE = 0.20
ODDS_REMEMBERED = 0.30
ABORTED_SHOWN_S = 10 * MINUTE_S
BODY_MAX_BYTES = 16 << 20
LATE = frozenset({"late", "late_lost"})
"""Faults that let a request come to light late; the second loses its answer too."""


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

    def is_shown(self, t: float) -> bool:
        """Whether getprogress lists it: not yet, or no more."""
        if t < self.visible:
            return False
        if self.aborted is not None:
            return t < self.aborted + ABORTED_SHOWN_S
        return t < self.plan.vanished

    def status(self, t: float) -> str:
        """The stager's word for its state; empty when it has forgotten the request."""
        plan = self.plan
        if t < self.visible:
            return ""
        if self.aborted is not None:
            return "aborted"
        if t < plan.scheduled:
            return "new"
        if t < plan.held:
            return "scheduled"
        if t < plan.started:
            return "on hold"
        if t < plan.finished:
            return "in progress"
        if t >= plan.vanished and not plan.remembered:
            return ""
        return "partial success" if set(plan.failed) - set(self.lied) else "success"

    def done(self, t: float) -> int:
        """How many files are online."""
        until = t if self.aborted is None else min(t, self.aborted)
        if self.lied and until >= self.plan.finished:
            return len(self.plan.online) + len(self.lied)
        return bisect.bisect_right(self.plan.online, until, key=lambda pair: pair[0])

    def progress(self, t: float) -> dict[str, str]:
        """The seven texts that getprogress gives for it."""
        done = self.done(t)
        site = self.surls[0] if self.surls else ""
        location = "juelich" if "juelich" in site else "poznan" if "psnc.pl" in site else "sara"
        return {
            "Status": self.status(t),
            "File count": str(len(self.surls)),
            "User id": "2331",
            "Location": location,
            "Files done": str(done),
            "Flagged abort": "false" if self.aborted is None else "true",
            "Percent done": str(100 * done // max(1, len(self.surls))),
        }


class Stager:
    """The staging requests of one user, and what may be done to them."""

    def __init__(self, world: World, tape: Tape) -> None:
        self._world = world
        self._tape = tape
        self._requests: dict[int, Request] = {}

    def add_getid(self, surls: list[str], notify: bool = False) -> int:
        """Make a request; a fault lets it come to light late, be forgotten while it runs, or end in a false success."""
        strike = STRIKE.get()
        now = self._world.now()
        number = FIRST_ID + len(self._requests)
        asked = tuple(str(surl) for surl in surls)
        self._world.note("lta", "add_getid", surls=asked, notify=notify, result=number)
        plan = self._plan(number, asked, now, None if strike is None or strike.fault in LATE else strike)
        made = self._requests[number] = Request(number, asked, now, plan)
        if strike is not None and strike.fault in LATE:
            made.visible = now + strike.value
        elif strike is not None and strike.fault == "false_success":
            made.lied = plan.failed
        return number

    def getstatus(self, number: int) -> str:
        return self._get(number).status(self._world.now())

    def getprogress(self) -> dict[str, dict[str, str]] | None:
        now = self._world.now()
        shown = {str(r.id): r.progress(now) for r in self._requests.values() if r.is_shown(now)}
        return shown or None

    def getstagedurls(self, number: int) -> list[str]:
        now = self._world.now()
        request = self._get(number)
        if not request.is_shown(now):
            return []
        online = [surl for _, surl in request.plan.online[: request.done(now)] if self._tape.is_online(surl, now)]
        return [*online, *request.lied] if now >= request.plan.finished else online

    def gettoken(self, number: int) -> str:
        return f"-{self._get(number).id * 7919 % 2_000_000_000}"

    def abort(self, number: int) -> int:
        """Stop a running request, or release what a finished one holds."""
        now = self._world.now()
        request = self._get(number)
        if now < request.plan.finished and request.aborted is None:
            request.aborted = now
        if request.released is None:
            request.released = now
            self._tape.release(number, request.surls)
        return 1

    def reschedule(self, number: int) -> int:
        """Put an aborted request back in the queue; one on hold stays there until the site is up again."""
        request = self._get(number)
        if request.aborted is not None:
            now = self._world.now()
            request.aborted = request.released = None
            request.made, request.plan = now, self._plan(number, request.surls, now)
        return 1

    def _get(self, number: int) -> Request:
        if number not in self._requests:
            raise xmlrpc.client.Fault(1, f"No staging request with id {number}")
        return self._requests[number]

    def _plan(self, number: int, surls: tuple[str, ...], t: float, strike: Strike | None = None) -> Plan:
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
            at = self._tape.recall(number, surl, since)
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
            "lta", "request_planned", "world", request=number, online={s: at for at, s in online},
            failed=failed, finished=finished, vanished=vanished, pinned_s=self._tape.pin_s,
        )  # fmt: skip
        return plan


def lta_app(
    world: World, stager: Stager, user: str, password: str, middlewares: Iterable[Middleware] = ()
) -> web.Application:
    """The XML-RPC service; the middlewares stand before it."""
    methods: dict[str, Callable[..., Any]] = {
        "add_getid": stager.add_getid,
        "getstatus": stager.getstatus,
        "getprogress": stager.getprogress,
        "getstagedurls": stager.getstagedurls,
        "gettoken": stager.gettoken,
        "abort": stager.abort,
        "reschedule": stager.reschedule,
    }
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    async def call(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != basic:
            world.note("lta", "unauthorized")
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="LTA"'}, text="Unauthorized")
        try:
            params, method = xmlrpc.client.loads(await request.read(), use_builtin_types=True)
        except Exception as error:  # Whatever is wrong with a body, the answer is the same.
            return _answer(xmlrpc.client.Fault(-32700, f"parse error: {type(error).__name__}"))
        name = (method or "").removeprefix("LtaStager.")
        if name not in methods:
            return _answer(xmlrpc.client.Fault(-32601, f"no such method: {method}"))
        try:
            result = methods[name](*params)
        except xmlrpc.client.Fault as fault:
            world.note("lta", name, arguments=params, result=f"fault: {fault.faultString}")
            return _answer(fault)
        except TypeError as error:
            return _answer(xmlrpc.client.Fault(-32602, f"wrong arguments: {error}"))
        if name != "add_getid":
            world.note("lta", name, arguments=params, result=_short(result))
        return _answer(result)

    app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=middlewares)
    app.router.add_post("/service-public/xmlrpc", call)
    return app


_METHOD = re.compile(rb"<methodName>(?:LtaStager\.)?(\w+)</methodName>")


async def method_of(request: web.Request) -> str:
    """Which method a request calls, for the fault plan."""
    found = _METHOD.search(await request.read())
    return found[1].decode() if found else "unknown"


def _short(result: object) -> object:
    """What the ledger keeps of an answer: texts and numbers as they are, of lists and tables their size."""
    return len(result) if isinstance(result, list | dict) else result


def _answer(result: object) -> web.Response:
    response: Any = result if isinstance(result, xmlrpc.client.Fault) else (result,)
    body = xmlrpc.client.dumps(response, methodresponse=True, allow_none=True)
    return web.Response(body=body.encode(), content_type="text/xml", charset="utf-8")
