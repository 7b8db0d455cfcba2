"""The legacy LTA stager: staging requests behind XML-RPC, with the habits that make it hard to follow."""

from __future__ import annotations

import base64
import re
import xmlrpc.client
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware
from defusedxml import xmlrpc as safe_xmlrpc

from aglowd.sim.stager import Request, Stager, Unknown
from aglowd.sim.world import World

safe_xmlrpc.monkey_patch()  # From here on xmlrpc.client.loads refuses entities and bombs.

BODY_MAX_BYTES = 16 << 20


def lta_app(
    world: World, stager: Stager, user: str, password: str, middlewares: Iterable[Middleware] = ()
) -> web.Application:
    """The XML-RPC service; the middlewares stand before it."""

    def abort(number: int) -> int:
        stager.abort(number)
        return 1

    def reschedule(number: int) -> int:
        stager.reschedule(number)
        return 1

    methods: dict[str, Callable[..., Any]] = {
        "add_getid": stager.make,
        "getstatus": lambda number: stager.get(number).status(world.now()),
        "getprogress": lambda: {str(one.id): _progress(one, world.now()) for one in stager.shown()} or None,
        "getstagedurls": stager.staged,
        "gettoken": lambda number: f"-{stager.get(number).id * 7919 % 2_000_000_000}",
        "abort": abort,
        "reschedule": reschedule,
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
        except Unknown as unknown:
            fault = xmlrpc.client.Fault(1, f"No staging request with id {unknown}")
            world.note("lta", name, arguments=params, result=f"fault: {fault.faultString}")
            return _answer(fault)
        except TypeError as error:
            return _answer(xmlrpc.client.Fault(-32602, f"wrong arguments: {error}"))
        world.note("lta", name, arguments=list(map(_short, params)), result=_short(result))
        return _answer(result)

    app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=middlewares)
    app.router.add_post("/service-public/xmlrpc", call)
    return app


def _progress(request: Request, t: float) -> dict[str, str]:
    """The seven texts that getprogress gives for it."""
    done = request.done(t)
    return {
        "Status": request.status(t),
        "File count": str(len(request.surls)),
        "User id": "2331",
        "Location": request.location,
        "Files done": str(done),
        "Flagged abort": "false" if request.aborted is None else "true",
        "Percent done": str(100 * done // max(1, len(request.surls))),
    }


_METHOD = re.compile(rb"<methodName>(?:LtaStager\.)?(\w+)</methodName>")


async def method_of(request: web.Request) -> str:
    """Which method a request calls, for the fault plan."""
    found = _METHOD.search(await request.read())
    return found[1].decode() if found else "unknown"


def _short(result: object) -> object:
    """What the ledger keeps of an answer: texts and numbers as they are, of lists and tables the size."""
    return len(result) if isinstance(result, list | dict) else result


def _answer(result: object) -> web.Response:
    response: Any = result if isinstance(result, xmlrpc.client.Fault) else (result,)
    body = xmlrpc.client.dumps(response, methodresponse=True, allow_none=True)
    return web.Response(body=body.encode(), content_type="text/xml", charset="utf-8")
