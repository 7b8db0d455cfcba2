"""ARC's computing element: A-REX's REST interface 1.0 over the grid's jobs, by plain HTTP and without certificates.

Its habits (6.17): one thing alone is an object and many are a list, nothing is an empty body, and 201 means only that it has
listened. A job waits until all its files are there, ten real minutes at most. Documents and `action=status` are from the
last round of the information system; the list is of now, and calls killed jobs FAILED.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from aglowd.sim.faulthttp import own_fault
from aglowd.sim.jobs import ABORTED, CANCELLED, EXIT_NOT_0, SUCCESS, Job, JobBoard
from aglowd.sim.world import World, digest
from aglowd.sim.xrsl import Relations, Value, XrslError, parse_xrsl

ROOT = "/arex/rest/1.0/jobs"
ROUND_S = 60.0
"""World seconds between two rounds of the information system."""
UPLOAD_REAL_S = 600.0
BODY_MAX_BYTES = 16 << 20
QUEUES = ("", "grid")
PRINTED = ("stdout.txt", "stderr.txt")
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def arc_app(world: World, board: JobBoard, middlewares: Iterable[Middleware] = ()) -> web.Application:
    """The service; the middlewares stand before it."""
    service = _Service(world, board)
    app = web.Application(client_max_size=BODY_MAX_BYTES, middlewares=middlewares)
    app.router.add_get("/arex/rest", service.version)
    app.router.add_get(ROOT, service.list)
    app.router.add_post(ROOT, service.act)
    app.router.add_put(f"{ROOT}/{{id}}/session/{{name}}", service.put)
    app.router.add_get(f"{ROOT}/{{id}}/session/{{name:.*}}", service.get)
    app.router.add_get(f"{ROOT}/{{id}}/diagnose/errors", service.diagnose)
    return app


async def verb_of(request: web.Request) -> str:
    """What a request asks for, for the fault plan."""
    if request.path != ROOT:
        return {"PUT": "put", "GET": "get"}.get(request.method, "other")
    return "list" if request.method == "GET" else request.query.get("action", "other")


@dataclass
class _Entry:
    """A job, and what it waits for."""

    job: Job
    name: str
    wanted: frozenset[str]
    born_real: float
    told: str = ""
    """Its state in the last round of the information system."""
    killed: bool = False
    late: bool = False
    """It was given up because its files did not come."""


class _Service:
    """The jobs, as the interface shows them."""

    def __init__(self, world: World, board: JobBoard) -> None:
        self._world = world
        self._board = board
        self._jobs: dict[str, _Entry] = {}
        self._round = float("-inf")

    async def version(self, request: web.Request) -> web.Response:
        return _answer({"version": "1.0"})

    async def list(self, request: web.Request) -> web.Response:
        wanted = request.query.get("state")
        states = {name: self._state(entry) for name, entry in self._jobs.items()}
        shown = {name: state for name, state in states.items() if wanted is None or state in wanted.split(",")}
        if own_fault() == "empty_list":
            shown = {}
        self._world.note("arc", "list", result=len(shown))
        jobs = [{"id": name} | ({} if wanted is None else {"state": state}) for name, state in shown.items()]
        return _jobs(jobs, 200)

    async def act(self, request: web.Request) -> web.Response:
        action = request.query.get("action", "")
        acts: dict[str, Callable[[str], dict[str, Any]]] = {
            "status": self._status, "info": self._info, "kill": self._kill,
        }  # fmt: skip
        if action == "new":
            return await self._new(request)
        if action not in acts:
            return web.Response(status=501)
        try:
            given = msgspec.json.decode(await request.read())["job"]
            ids = [str(one["id"]) for one in (given if isinstance(given, list) else [given])]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
            return web.Response(status=201)
        self._look()
        self._world.note("arc", action, ids=len(ids), job=ids[0] if len(ids) == 1 else None)
        empty = {"status": {"state": "None"}, "info": {"info_document": ""}}.get(action, {})
        absent = {"status-code": "404", "reason": "Job not found"} | empty
        known = {"status-code": "200", "reason": "OK"}
        return _jobs([{"id": name} | (known | acts[action](name) if name in self._jobs else absent) for name in ids])

    # --- submission

    async def _new(self, request: web.Request) -> web.Response:
        text = (await request.read()).decode("utf-8", "replace")
        try:
            described = parse_xrsl(text)
        except XrslError as error:
            self._world.note("arc", "new", xrsl=text, result=f"refused: {error}")
            return _jobs([_refused("No job description parser was able to interpret job description")])
        kept = len(described) // 2 if own_fault() == "half_made" else len(described)
        # Each of several jobs of one submission is a job of its own, and so has a name of its own for whoever judges.
        names = [f"/{number}" for number in range(len(described))] if len(described) > 1 else [""]
        made = [self._make(relations, name) for relations, name in zip(described[:kept], names, strict=False)]
        if kept < len(described):
            made.append(_refused("Failed to create session directory"))
        names = [one["id"] for one in made if "id" in one]
        self._world.note("arc", "new", xrsl=text, result=names)
        return _jobs(made)

    def _make(self, relations: Relations, name: str) -> dict[str, Any]:
        queue = _first(relations, "queue")
        if queue not in QUEUES:
            return _refused(f"Requested queue {queue} is not allowed for this user")
        executable = _first(relations, "executable")
        if not executable:
            return _refused("No job description parser was able to interpret job description")
        words = [str(word) for word in relations.get("arguments", [])]
        variables = dict(_pairs(relations.get("environment", [])))
        wanted = frozenset(name for name, source in _pairs(relations.get("inputfiles", [])) if not source)
        attributes = {
            "executable": executable,
            "arguments": shlex.join(words),
            "usertags": {"aglowd_key": variables["AGLOWD_KEY"] + name} if "AGLOWD_KEY" in variables else {},
        }
        job = self._board.register(attributes, {}, system="arc", new_id=self._new_id)
        entry = _Entry(job, _first(relations, "jobname"), wanted, self._world.clock.wall())
        self._jobs[job.id] = entry
        self._start(entry)
        return {"status-code": "201", "reason": "Created", "id": job.id, "state": "ACCEPTING"}

    def _new_id(self) -> str:
        raw = digest(self._world.seed, "arc job", len(self._jobs), size_bytes=54)
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in raw)

    def _start(self, entry: _Entry) -> None:
        """Let it run once all its files are there."""
        if (
            entry.job.started is None
            and not entry.late
            and not entry.killed
            and entry.wanted <= entry.job.sandbox.keys()
        ):
            self._board.start(entry.job)

    # --- files

    async def put(self, request: web.Request) -> web.Response:
        entry = self._jobs.get(request.match_info["id"])
        if entry is None:
            return web.Response(status=404)
        name, data = request.match_info["name"], await request.read()
        self._state(entry)
        entry.job.sandbox[name] = data
        self._world.note("arc", "put", job=entry.job.id, file=name, size=len(data))
        self._start(entry)
        return web.Response()

    async def get(self, request: web.Request) -> web.Response:
        entry = self._jobs.get(request.match_info["id"])
        if entry is None:
            return web.Response(status=404)
        name = request.match_info["name"]
        ran = entry.job.nodes[0].running is not None
        if not name:
            names = sorted(PRINTED if ran else entry.job.sandbox)
            return _answer({"file": names[0] if len(names) == 1 else names}) if names else web.Response()
        if not ran or name not in PRINTED:
            return web.Response(status=404)
        return web.Response(text="the pilot printed this\n" if name == "stdout.txt" else "")

    async def diagnose(self, request: web.Request) -> web.Response:
        entry = self._jobs.get(request.match_info["id"])
        if entry is None:
            return web.Response(status=404)
        return web.Response(text=f"Job state change UNDEFINED -> {self._state(entry)}\n")

    # --- states

    def _state(self, entry: _Entry) -> str:
        """Its state now, in the words of the list."""
        node, now = entry.job.nodes[0], self._world.now()
        if node.outcome is not None:
            return "FINISHED" if node.outcome == SUCCESS else "FAILED"
        if entry.job.started is None:
            entry.late = entry.late or self._world.clock.wall() - entry.born_real > UPLOAD_REAL_S
            if entry.late:
                self._board.end(entry.job, node, ABORTED, reason="User file: /pilot.py - Timeout waiting")
            return "FAILED" if entry.late else "PREPARING"
        words = {"Waiting": "SUBMITTING", "Ready": "QUEUING", "Scheduled": "QUEUING", "Running": "RUNNING"}
        return words.get(node.status(now), "PREPARED")

    def _look(self) -> None:
        """The information system's next round, if it is due: documents tell what was then."""
        if self._world.now() - self._round < ROUND_S:
            return
        self._round = self._world.now()
        for entry in self._jobs.values():
            entry.told = self._state(entry)
            if entry.job.nodes[0].outcome == CANCELLED:
                entry.told = "KILLED"

    def _status(self, name: str) -> dict[str, Any]:
        return {"state": self._jobs[name].told or "ACCEPTED"}

    def _info(self, name: str) -> dict[str, Any]:
        entry = self._jobs[name]
        node, word = entry.job.nodes[0], entry.told or "ACCEPTED"
        activity: dict[str, Any] = {
            "ID": f"urn:caid:arc.grid:org.nordugrid.arcrest:{name}",
            "Name": entry.name,
            "State": [f"nordugrid:{word}", f"arcrest:{word}"],
            "Owner": "/O=dutchgrid/CN=Test User",
        }
        if word in ("FINISHED", "FAILED", "KILLED"):
            if node.outcome in (SUCCESS, EXIT_NOT_0):
                activity["ExitCode"] = str(node.exit_code)
            if node.outcome == CANCELLED:
                activity["Error"] = ["Job is canceled by external request"] * 2
            elif node.outcome == EXIT_NOT_0:
                code = node.exit_code
                activity["Error"] = f"LRMS error: ({code}) Job finished with wrong exit code - {code} != 0"
            elif node.outcome == ABORTED:
                activity["Error"] = (
                    node.reason if entry.late else "LRMS error: (-1) Job was lost with unknown exit code"
                )
        return {"info_document": {"ComputingActivity": activity}}

    def _kill(self, name: str) -> dict[str, Any]:
        entry = self._jobs[name]
        entry.killed = True
        self._board.cancel(entry.job)
        return {"status-code": "202", "reason": "Queued for killing"}


def _pairs(values: Iterable[Value]) -> Iterable[tuple[str, str]]:
    """The pairs of texts among the values."""
    for value in values:
        if isinstance(value, list) and len(value) == 2:
            yield str(value[0]), str(value[1])


def _first(relations: Relations, name: str) -> str:
    return next((str(value) for value in relations.get(name, [])), "")


def _refused(reason: str) -> dict[str, Any]:
    return {"status-code": "500", "reason": reason}


def _jobs(jobs: list[dict[str, Any]], status: int = 201) -> web.Response:
    return _answer({"job": jobs[0] if len(jobs) == 1 else jobs}, status) if jobs else web.Response(status=status)


def _answer(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")
