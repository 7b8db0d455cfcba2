"""The routes that say what was, what is happening, and what will be. They change nothing."""

from __future__ import annotations

from aiohttp import web

from aglowd.choice import MAX_TOLD
from aglowd.clock import iso
from aglowd.control.desk import Desk
from aglowd.control.followers import MAX_FOLLOWERS, lines, write
from aglowd.control.requests import ApiError, asked, instant, is_number, known, number
from aglowd.durations import duration_s
from aglowd.errors import AglowError
from aglowd.store import traces
from aglowd.store.history import MAX_ENTRIES
from aglowd.store.views import LAST, MAX_EVENTS


async def history(desk: Desk, request: web.Request) -> web.Response:
    """The timeline of a field."""
    name, run, now = request.match_info["name"], request.query.get("run", ""), desk.clock.now()
    since, until = instant(request, "since", now, 0.0), instant(request, "until", now, now)
    most = number(request, "limit", MAX_ENTRIES, at_least=1, at_most=MAX_ENTRIES)
    found = await desk.store.history(name, since, until, run, most)
    if found is None and run:
        raise ApiError(404, "unknown-run", f"{name} has no run {run[:200]!r}; see aglowctl show {name}")
    return desk.answer(known(request, found))


async def trace(desk: Desk, request: web.Request) -> web.Response:
    """What led to what."""
    what = request.match_info["what"]
    most = number(request, "limit", 500, at_least=1, at_most=traces.MAX_EVENTS)
    found = await desk.store.trace(what, most)
    if found is None:
        told = "expected a field, a run, RUN/STEP or FIELD/STEP, the key of an effect, or the number of an event"
        raise ApiError(404, "unknown-trace", f"nothing is called {what[:200]!r}; {told}")
    return desk.answer(found)


async def diff(desk: Desk, request: web.Request) -> web.Response:
    """What differs between two times, of a field or of the survey."""
    now = desk.clock.now()
    since, until = instant(request, "from", now), instant(request, "to", now, now)
    if until < since:
        raise ApiError(400, "bad-parameter", f"to ({iso(until)}) is before from ({iso(since)}); exchange them")
    return desk.answer(await asked(desk.store.diff(request.query.get("field", ""), since, until)))


async def ahead(desk: Desk, request: web.Request) -> web.Response:
    """What happens next by itself, and what is left of every limit."""
    try:
        within_s = duration_s(request.query.get("within", "1h"))
    except ValueError as error:
        raise ApiError(400, "bad-parameter", f"within: {error}") from error
    assert desk.capacity is not None
    until = desk.clock.now() + within_s
    ahead = await desk.capacity.look_ahead(until)
    for name, system in desk.health().systems.items():
        at = system.backing_off_until
        if at is not None and at <= until:
            ahead["timers"].append(
                {"at": at, "field": "", "run": "", "step": "", "does": f"{name} is asked again", "reason": system.last_error}
            )  # fmt: skip
    ahead["timers"].sort(key=lambda timer: timer["at"])
    return desk.answer({"until": until, **ahead})


async def events(desk: Desk, request: web.Request) -> web.StreamResponse:
    """JSON lines. Without `since` the latest; with `follow=1` whatever is committed from then on, too.

    `since`: an event's number or a time; `until`: a time; `kind`: may come several times.
    """
    field, kinds, now = request.query.get("field", ""), tuple(request.query.getall("kind", ())), desk.clock.now()
    most = number(request, "limit", 200, at_least=1, at_most=MAX_EVENTS)
    follow = number(request, "follow", 0, at_least=0, at_most=1) == 1
    if follow and desk.followers.is_full:
        raise ApiError(503, "too-many-followers", f"{MAX_FOLLOWERS} followers are served already; end one of them")
    if follow and "until" in request.query:
        raise ApiError(400, "bad-parameter", "follow has no end; leave until out, or do not follow")
    last = await desk.store.last_event()
    until = await desk.store.event_before(instant(request, "until", now)) if "until" in request.query else LAST
    chosen = field or kinds or until < LAST
    if is_number(request.query.get("since", "0")):
        since = number(request, "since", 0 if chosen else max(0, last - most), at_least=0)
    else:
        # Before the first event there is none: not 0, which means the latest.
        since = await desk.store.event_before(instant(request, "since", now)) or -1
    found = await desk.store.events(since, field, most, until=until, kinds=kinds)
    if field and not found and await desk.store.field(field) is None:
        raise ApiError(404, "unknown-field", f"no event names the field {field[:MAX_TOLD]!r}; see aglowctl fields")
    response = web.StreamResponse(headers={"Content-Type": "application/jsonl", "Cache-Control": "no-store"})
    await response.prepare(request)
    await write(response, lines(found))
    if follow:
        seen = found[-1]["id"] if found else max(since, last if chosen else 0)
        try:
            await desk.followers.follow(response, seen, field, kinds)
        except AglowError as error:
            # Half an answer is out: only a broken connection can say that the rest is missing.
            raise ConnectionAbortedError(str(error)) from error
    await response.write_eof()
    return response
