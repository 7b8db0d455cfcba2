"""The routes that say how things are now. They change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from aglowd.choice import Choice
from aglowd.chronicle import record_of
from aglowd.control.bodies import FieldChoice
from aglowd.control.desk import Desk
from aglowd.control.requests import ApiError, asked, instant, known, there
from aglowd.doctor import is_well
from aglowd.grid.picas_views import STATES
from aglowd.model import Json
from aglowd.orders import ListOrder


async def live(desk: Desk, request: web.Request) -> web.Response:
    """Whether each loop goes on; it asks nobody."""
    health = desk.health()
    stuck = sorted(name for name, loop in health.loops.items() if not loop.ok)
    values = {"alive": health.alive, "stuck": stuck, "loops": health.loops}
    return desk.answer(values, 200 if health.alive else 503)


async def ready(desk: Desk, request: web.Request) -> web.Response:
    """Whether the daemon has begun its work."""
    health = desk.health()
    return desk.answer({"ready": health.ready, "missing": health.missing}, 200 if health.ready else 503)


async def status(desk: Desk, request: web.Request) -> web.Response:
    """Health, and counts of all that moves."""
    return desk.answer({"version": desk.version, "health": desk.health(), **await desk.store.status()})


async def log_place(desk: Desk, request: web.Request) -> web.Response:
    """Where the log is."""
    return desk.answer({"log": desk.log_place or {}})


async def examine(desk: Desk, request: web.Request) -> web.Response:
    """Whether all that is needed works."""
    assert desk.doctor is not None
    checks = await desk.doctor.examine()
    return desk.answer({"ok": is_well(checks), "checks": checks})


async def configuration(desk: Desk, request: web.Request) -> web.Response:
    """The configuration in effect, without secrets."""
    assert desk.doctor is not None
    return desk.answer({"config": desk.doctor.configuration()})


async def schemas(desk: Desk, request: web.Request) -> web.Response:
    """The schemas of all answers: their names, and where each is given."""
    return desk.answer({"schemas": desk.schemas.listed()})


async def schema(desk: Desk, request: web.Request) -> web.Response:
    """One of them. It stands alone, as validators expect it, without a number and the time."""
    name = request.match_info["name"]
    found = desk.schemas.get(name)
    if found is None:
        raise ApiError(404, "unknown-schema", f"there is no schema {name[:200]!r}; see aglowctl schema")
    return web.Response(body=found, content_type="application/schema+json")


async def metrics(desk: Desk, request: web.Request) -> web.Response:
    """What Prometheus is told."""
    if desk.metrics is None:
        raise web.HTTPNotFound
    return await desk.metrics(request)


# --- fields


async def fields(desk: Desk, request: web.Request) -> web.Response:
    """All fields of the catalogue."""
    return desk.answer({"fields": await desk.store.fields()})


async def chosen(desk: Desk, request: web.Request, choice: FieldChoice) -> web.Response:
    """The fields that names, patterns or a state mean."""
    return desk.answer({"fields": await asked(desk.store.chosen(Choice(choice.targets, choice.state)))})


async def names(desk: Desk, request: web.Request) -> web.Response:
    """The names that begin so, for a shell that completes one."""
    return desk.answer({"names": await desk.store.names(request.query.get("begin", ""))})


async def candidates(desk: Desk, request: web.Request) -> web.Response:
    """Which fields would be taken next."""
    assert desk.candidates is not None
    return desk.answer(await desk.candidates())


async def field(desk: Desk, request: web.Request) -> web.Response:
    """A field with its runs and their steps."""
    return desk.answer(known(request, await desk.store.field(request.match_info["name"])))


async def explain(desk: Desk, request: web.Request) -> web.Response:
    """Why a field waits, now or at a time past."""
    if "at" in request.query:
        name, at = request.match_info["name"], instant(request, "at", desk.clock.now())
        known(request, await desk.store.field(name))
        return desk.answer(await asked(desk.store.explain_then(name, at)))
    answer = known(request, await desk.store.explain(request.match_info["name"]))
    _tell_silence(desk, answer["steps"])
    if answer["state"] == "offered" and desk.candidates is not None:
        judged = (await desk.candidates())["candidates"]
        answer["reason"] = next((one["reason"] for one in judged if one["field"] == answer["field"]), "")
    health = desk.health()
    return desk.answer({**answer, "database": health.database, "database_since": health.database_since})


def _tell_silence(desk: Desk, steps: Sequence[dict[str, Json]]) -> None:
    """Beside what was seen last, since when nothing can be seen: no event tells that, and no step."""
    for step in steps:
        for wait in step["waits_for"]:
            wait["silence"] = desk.silence(wait["subject"])
        _tell_silence(desk, step.get("inner", ()))


async def provenance(desk: Desk, request: web.Request) -> web.Response:
    """What a field's results were made of."""
    name = request.match_info["name"]
    materials = await desk.store.materials(name)
    if not materials:
        raise ApiError(404, "unknown-run", f"nothing ran under the name {name[:200]!r}; see aglowctl fields")
    return desk.answer({"provenance": await asyncio.to_thread(record_of, materials, desk.clock.now())})


async def doubts(desk: Desk, request: web.Request) -> web.Response:
    """Effects whose outcome cannot be told, and what the audit found."""
    return desk.answer(await desk.store.doubts())


async def schedules(desk: Desk, request: web.Request) -> web.Response:
    """What runs by itself."""
    return desk.answer({"schedules": await desk.store.schedules()})


async def catalogue(desk: Desk, request: web.Request) -> web.Response:
    """All fields of the catalogue, as values and as a fields file."""
    return desk.answer(await asked(desk.field_orders.export()))


# --- lists of files


async def stagings(desk: Desk, request: web.Request) -> web.Response:
    """The stagings that people asked for."""
    return desk.answer({"stagings": await desk.store.stagings()})


async def staging(desk: Desk, request: web.Request) -> web.Response:
    """One of them."""
    name = request.match_info["name"]
    found = await desk.store.stagings(name)
    if not found:
        raise ApiError(404, "unknown-staging", f"there is no staging {name!r}; see aglowctl stage --status")
    return desk.answer({"staging": found[0]})


async def localities(desk: Desk, request: web.Request, order: ListOrder) -> web.Response:
    """Where the files of a list are."""
    return desk.answer(await asked(desk.orders.localities(order)))


# --- tokens and jobs


async def types(desk: Desk, request: web.Request) -> web.Response:
    """The types of tokens that steps wait for."""
    return desk.answer({"types": await desk.token_orders.types()})


async def tokens(desk: Desk, request: web.Request) -> web.Response:
    """The tokens of a type."""
    state = request.query.get("state", "")
    if state not in ("", *STATES):
        raise ApiError(400, "bad-parameter", f"state is one of {', '.join(STATES)}, not {state[:40]!r}")
    found = await asked(desk.token_orders.tokens(request.match_info["type"], state, request.query.get("site", "")))
    return desk.answer({"type": request.match_info["type"], "tokens": found})


async def token(desk: Desk, request: web.Request) -> web.Response:
    """One token."""
    name = request.match_info["name"]
    found = await asked(desk.token_orders.token(name, request.query.get("site", "")))
    return desk.answer({"token": there(found, "token", name)})


async def token_log(desk: Desk, request: web.Request) -> web.Response:
    """A log that a pilot attached to a token."""
    name = request.match_info["name"]
    found = await asked(desk.token_orders.log(name, request.query.get("name", ""), request.query.get("site", "")))
    return desk.answer(there(found, "token", name))


async def jobs(desk: Desk, request: web.Request) -> web.Response:
    """The jobs of the steps at work."""
    return desk.answer({"jobs": await desk.token_orders.jobs()})


async def job(desk: Desk, request: web.Request) -> web.Response:
    """One job, as its batch system says."""
    name = request.query.get("job", "")
    found = await asked(desk.token_orders.job(name, request.query.get("site", "")))
    return desk.answer({"job": there(found, "job", name)})
