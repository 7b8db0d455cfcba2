"""The legacy LTA stager: staging requests behind XML-RPC, with the habits that make it hard to follow.

No document promises what it answers, and clients guard against much. Faults change the form: numbers that are no texts,
keys that nobody knows, words in any spelling, nothing told as an empty list, a fault after the deed was done.
"""

from __future__ import annotations

import base64
import re
import xmlrpc.client
from collections.abc import Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Middleware
from defusedxml import xmlrpc as safe_xmlrpc

from aglowd.sim.faulthttp import own_fault
from aglowd.sim.stager import Request, Stager, Unknown
from aglowd.sim.world import World

safe_xmlrpc.monkey_patch()  # From here on xmlrpc.client.loads refuses entities and bombs.

BODY_MAX_BYTES = 16 << 20


def lta_app(
    world: World, stager: Stager, user: str, password: str, middlewares: Iterable[Middleware] = ()
) -> web.Application:
    """The XML-RPC service; the middlewares stand before it."""

    def add(surls: list[str], notify: bool = False) -> object:
        fault = own_fault()
        if fault == "fault_before":
            raise xmlrpc.client.Fault(2, "The stager is overloaded, try again later")
        number = stager.make(surls, notify)
        if fault == "fault_after":
            raise xmlrpc.client.Fault(3, "Internal error: the database timed out")
        return str(number) if fault == "text_id" else number

    def progress() -> object:
        shown = {str(one.id): _formed(_progress(one, world.now())) for one in stager.shown()}
        return shown or ([] if own_fault() == "empty_list" else None)

    def status(number: int) -> str:
        word = stager.get(number).status(world.now())
        return _spelled(word) if own_fault() == "odd_words" else word

    def abort(number: int) -> int:
        stager.abort(number)
        return 1

    def reschedule(number: int) -> int:
        stager.reschedule(number)
        return 1

    methods: dict[str, Callable[..., Any]] = {
        "add_getid": add,
        "getstatus": status,
        "getprogress": progress,
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
        except xmlrpc.client.Fault as fault:
            world.note("lta", name, result=f"fault: {fault.faultString}")
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


def _formed(entry: dict[str, str]) -> dict[str, object]:
    """The entry as it is told, in another form when a fault says so."""
    fault = own_fault()
    if fault == "odd_types":
        numbers = {key: int(entry[key]) for key in ("File count", "User id", "Files done")}
        flagged = entry["Flagged abort"] == "true"
        return {**entry, **numbers, "Percent done": float(entry["Percent done"]), "Flagged abort": flagged}
    if fault == "odd_keys":
        kept = {key.lower() + " ": text for key, text in entry.items() if key not in ("User id", "Location")}
        return {**kept, "Priority": ["none"], "Percent done": entry["Percent done"] + "%"}
    if fault == "odd_words":
        return {key: _spelled(text) for key, text in entry.items()}
    return dict(entry)


def _spelled(word: str) -> str:
    return f" {word.upper()}\n" if word else word


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
