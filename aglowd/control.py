"""The control socket: HTTP with versioned JSON over a Unix socket, for aglowctl and for whatever watches the daemon.

What must stay true: an answer shows one committed state; `/live` asks nobody; nobody outside the group can connect,
not even for a moment; no client, however slow or however many, holds up the daemon; no answer is a traceback.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta, Struct

from aglowd.access import LOOK_UP_REAL_S, Access, Peer, peer_of
from aglowd.adoption import Adoption, AdoptOrder
from aglowd.capacity import Capacity
from aglowd.chronicle import record_of
from aglowd.clock import Clock, iso
from aglowd.doctor import Doctor, is_well
from aglowd.door import Door
from aglowd.durations import duration_s, instant_s
from aglowd.errors import AglowError
from aglowd.field_orders import AddOrder, FieldOrders, ImportOrder, ReleaseOrder
from aglowd.grid.picas_views import STATES
from aglowd.model import Json
from aglowd.orders import ListOrder, Orders
from aglowd.socket_file import give_to, open_socket, open_to_group, uid_of
from aglowd.steering import HOLD_VERBS, RUN_VERBS, ForgetOrder, HoldOrder, RunOrder, RunsOrder, Steering
from aglowd.store import traces, verdicts
from aglowd.store.history import MAX_ENTRIES
from aglowd.store.plans import Changed
from aglowd.store.store import Store
from aglowd.store.views import LAST, MAX_EVENTS
from aglowd.threads import Threads
from aglowd.token_orders import CancelOrder, OutputOrder, ResetOrder, TokenOrders
from aglowd.toml_file import ConfigError

SCHEMA = 1
"""Of every answer. It grows when a key changes its meaning or goes; a new key is no new schema."""
MAX_FOLLOWERS = 64
FUTURE_S = 60.0
"""World seconds by which a time past may lie ahead: people round, and clocks differ."""
MAX_BODY_BYTES = 65_536
MAX_LIST_BODY_BYTES = 4_194_304
"""Of a request that carries a list: of files, of fields."""
MAX_LINE_BYTES = 8_190
"""Of a request's first line, and of each header."""
IDLE_S = 15.0
"""Real seconds after which an idle connection is closed."""
LINGER_S = 1.0
"""Real seconds in which the rest of a refused body is read, so that its sender sees the refusal."""
HEARTBEAT_S = 10.0
"""Real seconds of silence after which a follower gets an empty line."""
GATHER_S = 0.05
"""Real seconds in which commits are gathered before the followers look: a busy daemon is read 20 times a second."""
BODY_S = 30.0
"""Real seconds in which a request's body must have come."""
WRITE_S = 30.0
"""Real seconds in which a follower must take what is written to it."""
RECORD_REAL_S = 5.0
"""Real seconds for which a refusal waits for its event."""
BACKLOG = 128
"""Connections that the kernel keeps until they are accepted."""
READING = ("/v1/locality",)
"""What is asked by POST and changes nothing."""
STOP_S = 1.0
"""Real seconds that a follower has for its last line when the daemon stops."""


class LoopHealth(Struct, frozen=True, omit_defaults=True):
    """A loop of the daemon: real seconds since it last showed progress, and how many it may take.

    `defect`: what it stumbled over last, though it goes on. `note`: how it goes about its work, where one may wonder.
    """

    age_s: float
    grace_s: float
    ok: bool
    defect: str = ""
    note: str = ""


class SystemHealth(Struct, frozen=True):
    """An outside system as we found it last; times are world seconds."""

    ok: bool
    last_ok: float | None = None
    last_error: str = ""
    failures: int = 0
    backing_off_until: float | None = None


class Health(Struct, frozen=True):
    """How the daemon is. `credentials`: '' or why one is frozen. `pools`: places taken, places there are.

    `database`: '' or why it cannot be written now, what then waits, and what to do. `restart`: the keys of the configuration
    whose new values wait for one.
    """

    alive: bool
    ready: bool
    missing: tuple[str, ...]
    loops: dict[str, LoopHealth]
    systems: dict[str, SystemHealth]
    credentials: dict[str, str]
    proxy_seconds_left: float | None
    started: float
    pid: int
    pools: dict[str, tuple[int, int]]
    database: str = ""
    restart: tuple[str, ...] = ()
    database_since: float | None = None


class Verdict(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator says of a doubtful effect or of a finding: `ref` names what is to be adopted."""

    key: str
    action: Literal["adopt", "retry", "forget"]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    ref: str = ""


class Judgement(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator says of what a step shows him; `step`: "" if only one waits for that."""

    approved: bool
    verdict: Literal["good", "moderate", "poor"]
    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    step: str = ""


class BackupOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the daemon shall write a backup, as an absolute path; `replace`: even over an older one."""

    path: Annotated[str, Meta(pattern="^/", max_length=4096)]
    replace: bool = False


class ReloadOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """That the configuration shall be read anew; with `dry_run` nothing is changed."""

    reason: Annotated[str, Meta(max_length=500)] = ""
    dry_run: bool = False


T = TypeVar("T")

Reload = Callable[[int | None, str, bool], Awaitable[dict[str, Json]]]
"""(uid, reason, dry_run) → what is another; ConfigError with every problem of a configuration that cannot be used."""
Settle = Callable[[Verdict, int], Awaitable[str]]
"""(verdict, uid) → what was done; AglowError says why it cannot be."""


class ApiError(AglowError):
    """What a client is told instead of an answer: an HTTP status, a stable code, and a text for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Control:
    """The server. `health` tells how the daemon is without asking anybody; `silence`: key of a subject → since when nothing
    can be seen of it, and why."""

    def __init__(
        self,
        store: Store,
        health: Callable[[], Health],
        clock: Clock,
        version: str,
        settle: Settle | None = None,
        orders: Orders | None = None,
        token_orders: TokenOrders | None = None,
        steering: Steering | None = None,
        field_orders: FieldOrders | None = None,
        candidates: Callable[[], Awaitable[dict[str, Json]]] | None = None,
        adoption: Adoption | None = None,
        access: Access | None = None,
        reload: Reload | None = None,
        capacity: Capacity | None = None,
        silence: Callable[[str], Json | None] = lambda _: None,
        metrics: Callable[[web.Request], Awaitable[web.Response]] | None = None,
        log_place: Mapping[str, Json] | None = None,
        doctor: Doctor | None = None,
    ) -> None:
        self._store = store
        self._settle = settle
        self._candidates = candidates
        self._access = access or Access()
        self._reloads = reload
        self._threads = Threads("the names of groups", most=1)
        self._path: Path | None = None
        self._group = -1
        self._door: Door | None = None
        self.seat(orders, token_orders, steering, field_orders, adoption)
        self._capacity = capacity
        self._silence = silence
        self._metrics = metrics
        self._log_place = log_place
        self._doctor = doctor
        self._health = health
        self._clock = clock
        self._version = version
        self._log = structlog.get_logger("control")
        self._followers: set[asyncio.Event] = set()
        self._stopping = False

    def seat(
        self,
        orders: Orders | None,
        token_orders: TokenOrders | None,
        steering: Steering | None,
        field_orders: FieldOrders | None,
        adoption: Adoption | None,
    ) -> None:
        """From now on these take the orders."""
        self._orders = orders
        self._token_orders = token_orders
        self._steering = steering
        self._field_orders = field_orders
        self._adoption = adoption

    async def give_to(self, group: str) -> None:
        """Let that group use the socket; "", or one that there is not = whose it is already."""
        assert self._path is not None
        try:
            why = await self._threads.run(partial(give_to, self._path, group), LOOK_UP_REAL_S) if group else ""
        except OSError as error:
            why = str(error)
        if why:
            self._log.warning("socket_group", why=why)
        self._group = open_to_group(self._path)

    @asynccontextmanager
    async def serve(self, path: Path, group: str = "") -> AsyncIterator[None]:
        """Answer on that socket; AglowError if it cannot be opened. On leaving, followers get their end and the file goes."""
        self._stopping = False
        listener = open_socket(path)
        self._path = path
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=IDLE_S,
            lingering_time=LINGER_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            shutdown_timeout=STOP_S,
        )
        server: asyncio.Server | None = None
        sweeper: asyncio.Task[None] | None = None
        try:
            await self.give_to(group)
            await runner.setup()
            assert runner.server is not None
            self._door = Door(runner.server)
            sweeper = asyncio.create_task(self._door.sweep(), name="control silence")
            server = await asyncio.get_running_loop().create_unix_server(self._door, sock=listener, backlog=BACKLOG)
            yield
        finally:
            self._stopping = True
            self._wake()
            with suppress(FileNotFoundError):
                os.unlink(path)
            if sweeper is not None:
                sweeper.cancel()
            if server is not None:
                server.close()
            await runner.cleanup()
            listener.close()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._answer_errors], client_max_size=MAX_BODY_BYTES)
        routes = {
            "/live": self._live,
            "/ready": self._ready,
            "/v1/status": self._status,
            "/v1/log": self._where_the_log_is,
            "/v1/fields": self._fields,
            "/v1/names/{begun:.*}": self._names,
            "/v1/candidates": self._preview,
            "/v1/fields/{name}": self._field,
            "/v1/fields/{name}/explain": self._explain,
            "/v1/provenance/{name}": self._provenance,
            "/v1/fields/{name}/history": self._history,
            "/v1/trace/{what}": self._trace,
            "/v1/diff": self._diff,
            "/v1/next": self._next,
            "/v1/events": self._events,
            "/v1/doubt": self._doubts,
            "/v1/stage": self._stagings,
            "/v1/stage/{name}": self._staging,
            "/v1/tokens": self._types,
            "/v1/tokens/{type}": self._tokens,
            "/v1/token/{name}": self._token,
            "/v1/token/{name}/log": self._token_log,
            "/v1/jobs": self._jobs,
            "/v1/job": self._job,
            "/v1/schedules": self._schedules,
            "/v1/catalogue": self._catalogue,
            "/v1/doctor": self._examine,
            "/v1/config": self._configuration,
        }
        for route, handler in routes.items():
            application.router.add_get(route, handler, allow_head=False)
        if self._metrics is not None:
            application.router.add_get("/metrics", self._metrics, allow_head=False)
        application.router.add_post("/v1/doubt", self._settle_doubt)
        application.router.add_post("/v1/fields/{name}/verdict", self._judge)
        application.router.add_post("/v1/backup", self._back_up)
        application.router.add_post("/v1/stage", self._stage)
        application.router.add_post("/v1/locality", self._localities)
        application.router.add_post("/v1/tokens", self._reset_tokens)
        application.router.add_post("/v1/jobs", self._cancel_jobs)
        application.router.add_post("/v1/output", self._fetch_output)
        application.router.add_post(f"/v1/{{verb:{'|'.join(RUN_VERBS)}}}", self._steer)
        application.router.add_post(f"/v1/{{verb:{'|'.join(HOLD_VERBS)}}}", self._hold)
        application.router.add_post("/v1/run", self._run)
        application.router.add_post("/v1/forget", self._forget)
        application.router.add_post("/v1/adopt", self._adopt)
        application.router.add_post("/v1/catalogue", self._add_field)
        application.router.add_post("/v1/catalogue/import", self._import_fields)
        application.router.add_post("/v1/fields/{name}/release", self._release_field)
        application.router.add_post("/v1/reload", self._reload)
        application.cleanup_ctx.append(self._cry_while_serving)
        return application

    async def _cry_while_serving(self, application: web.Application) -> AsyncIterator[None]:
        # No TaskGroup: around `serve` it would wrap every error of the daemon's own work in a group.
        crier = asyncio.create_task(self._cry(), name="control followers")
        yield
        crier.cancel()
        await asyncio.wait([crier])

    async def _cry(self) -> None:
        """Tell every follower that something was committed. The store's bell has one hearer, which is here."""
        bell = self._store.bells.events
        while True:
            await bell.wait()
            bell.clear()
            self._wake()
            await asyncio.sleep(GATHER_S)

    def _wake(self) -> None:
        for follower in self._followers:
            follower.set()

    # --- answers

    def _answer(self, values: Mapping[str, Json], status: int = 200) -> web.Response:
        body = msgspec.json.encode({"schema": SCHEMA, "now": self._clock.now(), **values})
        return web.Response(body=body, status=status, content_type="application/json")

    @web.middleware
    async def _answer_errors(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        assert self._door is not None
        try:
            with self._door.asking(request.protocol):
                await self._admit(request)
                return await handler(request)
        except ApiError as error:
            status, code, message = error.status, error.code, str(error)
        except web.HTTPNotFound:
            status, code, message = 404, "unknown-path", f"there is nothing at {request.path}"
        except web.HTTPException as error:
            status, code, message = error.status, error.reason.lower().replace(" ", "-"), error.reason
        except ConnectionError:
            raise  # The client has gone: there is nobody to tell.
        except Exception:
            self._log.exception("request_failed", path=request.path)
            status, code, message = 500, "internal", "aglowd could not answer; its log says why"
        return self._answer({"error": {"code": code, "message": message}}, status)

    async def _admit(self, request: web.Request) -> None:
        """ApiError unless who asks may; what is refused is on record."""
        assert request.transport is not None
        peer = peer_of(request.transport.get_extra_info("socket"))
        is_reading = request.method == "GET" or request.path in READING
        if is_reading and await self._access.may_read(peer, self._group):
            return
        if not is_reading and await self._access.may_write(peer):
            return
        await self._note_refusal(peer, request)
        hint = "ask to be made a member of the socket's group" if is_reading else "[daemon] operators names who may"
        verb = "read" if is_reading else "change"
        raise ApiError(403, "not-permitted", f"uid {peer.uid} may not {verb} anything here: {hint}")

    async def _note_refusal(self, peer: Peer, request: web.Request) -> None:
        what = f"{request.method[:20]} {request.path[:200]}"
        self._log.warning("not_permitted", uid=peer.uid, path=request.path[:200], method=request.method[:20])
        if (attempts := self._access.count_refusal(peer.uid)) is not None:
            data = {"uid": peer.uid, "what": what, "attempts": attempts}
            with suppress(AglowError, TimeoutError):  # The refusal stands, whether or not it can be written down.
                async with asyncio.timeout(RECORD_REAL_S):
                    await self._store.record("AccessRefused", data)

    async def _reload(self, request: web.Request) -> web.Response:
        order = await _body(request, ReloadOrder, "reason and dry_run")
        if self._reloads is None:
            raise ApiError(409, "refused", "this daemon has no configuration file")
        try:
            return self._answer(await self._reloads(_uid_at(request), order.reason, order.dry_run))
        except ConfigError as error:
            raise ApiError(409, "bad-configuration", f"the old configuration stays: {error}") from error

    async def _live(self, request: web.Request) -> web.Response:
        health = self._health()
        stuck = sorted(name for name, loop in health.loops.items() if not loop.ok)
        values = {"alive": health.alive, "stuck": stuck, "loops": health.loops}
        return self._answer(values, 200 if health.alive else 503)

    async def _ready(self, request: web.Request) -> web.Response:
        health = self._health()
        return self._answer({"ready": health.ready, "missing": health.missing}, 200 if health.ready else 503)

    async def _status(self, request: web.Request) -> web.Response:
        return self._answer({"version": self._version, "health": self._health(), **await self._store.status()})

    async def _where_the_log_is(self, request: web.Request) -> web.Response:
        return self._answer({"log": self._log_place or {}})

    async def _fields(self, request: web.Request) -> web.Response:
        return self._answer({"fields": await self._store.fields()})

    async def _names(self, request: web.Request) -> web.Response:
        return self._answer({"names": await self._store.names(request.match_info["begun"])})

    async def _preview(self, request: web.Request) -> web.Response:
        assert self._candidates is not None
        return self._answer(await self._candidates())

    async def _field(self, request: web.Request) -> web.Response:
        return self._answer(_known(request, await self._store.field(request.match_info["name"])))

    async def _explain(self, request: web.Request) -> web.Response:
        if "at" in request.query:
            name, at = request.match_info["name"], self._instant(request, "at")
            _known(request, await self._store.field(name))
            return self._answer(await _asked(self._store.explain_then(name, at)))
        answer = _known(request, await self._store.explain(request.match_info["name"]))
        self._tell_silence(answer["steps"])
        if answer["state"] == "offered" and self._candidates is not None:
            judged = (await self._candidates())["candidates"]
            answer["reason"] = next((one["reason"] for one in judged if one["field"] == answer["field"]), "")
        health = self._health()
        return self._answer({**answer, "database": health.database, "database_since": health.database_since})

    def _tell_silence(self, steps: Sequence[dict[str, Json]]) -> None:
        """Beside what was seen last, since when nothing can be seen: no event tells that, and no step."""
        for step in steps:
            for wait in step["waits_for"]:
                wait["silence"] = self._silence(wait["subject"])
            self._tell_silence(step.get("inner", ()))

    # --- what was, and what will be

    def _instant(self, request: web.Request, name: str, default: float | None = None) -> float:
        """The time in that parameter, which is not after now."""
        text, now = request.query.get(name, ""), self._clock.now()
        if not text and default is not None:
            return default
        try:
            at = instant_s(text, now)
        except ValueError as error:
            raise ApiError(400, "bad-parameter", f"{name}: {error}") from error
        if at > now + FUTURE_S:
            raise ApiError(400, "bad-parameter", f"{name}: {text[:60]} has not come yet; it is {iso(now)}")
        return at

    async def _history(self, request: web.Request) -> web.Response:
        name, run = request.match_info["name"], request.query.get("run", "")
        since, until = self._instant(request, "since", 0.0), self._instant(request, "until", self._clock.now())
        most = _number(request, "limit", MAX_ENTRIES, at_least=1, at_most=MAX_ENTRIES)
        found = await self._store.history(name, since, until, run, most)
        if found is None and run:
            raise ApiError(404, "unknown-run", f"{name} has no run {run[:200]!r}; see aglowctl show {name}")
        return self._answer(_known(request, found))

    async def _trace(self, request: web.Request) -> web.Response:
        what = request.match_info["what"]
        most = _number(request, "limit", 500, at_least=1, at_most=traces.MAX_EVENTS)
        found = await self._store.trace(what, most)
        if found is None:
            told = "expected a field, a run, RUN/STEP or FIELD/STEP, the key of an effect, or the number of an event"
            raise ApiError(404, "unknown-trace", f"nothing is called {what[:200]!r}; {told}")
        return self._answer(found)

    async def _diff(self, request: web.Request) -> web.Response:
        since, until = self._instant(request, "from"), self._instant(request, "to", self._clock.now())
        if until < since:
            raise ApiError(400, "bad-parameter", f"to ({iso(until)}) is before from ({iso(since)}); exchange them")
        return self._answer(await _asked(self._store.diff(request.query.get("field", ""), since, until)))

    async def _next(self, request: web.Request) -> web.Response:
        try:
            within_s = duration_s(request.query.get("within", "1h"))
        except ValueError as error:
            raise ApiError(400, "bad-parameter", f"within: {error}") from error
        assert self._capacity is not None
        until = self._clock.now() + within_s
        ahead = await self._capacity.look_ahead(until)
        for name, system in self._health().systems.items():
            at = system.backing_off_until
            if at is not None and at <= until:
                ahead["timers"].append(
                    {"at": at, "field": "", "run": "", "step": "", "does": f"{name} is asked again", "reason": system.last_error}
                )  # fmt: skip
        ahead["timers"].sort(key=lambda timer: timer["at"])
        return self._answer({"until": until, **ahead})

    # --- is it well

    async def _examine(self, request: web.Request) -> web.Response:
        assert self._doctor is not None
        checks = await self._doctor.examine()
        return self._answer({"ok": is_well(checks), "checks": checks})

    async def _configuration(self, request: web.Request) -> web.Response:
        assert self._doctor is not None
        return self._answer({"config": self._doctor.configuration()})

    # --- quality

    async def _provenance(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        materials = await self._store.materials(name)
        if not materials:
            raise ApiError(404, "unknown-run", f"nothing ran under the name {name[:200]!r}; see /v1/fields")
        return self._answer({"provenance": await asyncio.to_thread(record_of, materials, self._clock.now())})

    async def _judge(self, request: web.Request) -> web.Response:
        said = await _body(request, Judgement, "approved, verdict, reason and step")
        name, uid = request.match_info["name"], _uid_at(request)
        verdict = verdicts.Verdict(said.approved, said.verdict, said.reason, uid)
        told = await _asked(self._store.judge(name, said.step, verdict))
        self._log.info("judged", uid=uid, field=name, step=told["step"], verdict=said.verdict, reason=said.reason)
        return self._answer(told)

    # --- what cannot be told

    async def _doubts(self, request: web.Request) -> web.Response:
        return self._answer(await self._store.doubts())

    async def _settle_doubt(self, request: web.Request) -> web.Response:
        verdict = await _body(request, Verdict, "key, action, ref and reason")
        uid = _uid_at(request)
        assert self._settle is not None
        try:
            said = await self._settle(verdict, uid)
        except AglowError as error:
            self._log.warning("verdict_refused", uid=uid, effect=verdict.key, action=verdict.action, why=str(error))
            raise ApiError(409, "refused", str(error)) from error
        self._log.info("verdict", uid=uid, effect=verdict.key, action=verdict.action, reason=verdict.reason)
        return self._answer({"key": verdict.key, "said": said})

    async def _back_up(self, request: web.Request) -> web.Response:
        order = await _body(request, BackupOrder, "path and replace")
        uid = _uid_at(request)
        try:
            size_bytes = await self._store.back_up(Path(order.path), replace=order.replace, uid=uid)
        except AglowError as error:
            raise ApiError(409, "refused", str(error)) from error
        self._log.info("backed_up", uid=uid, path=order.path, size_bytes=size_bytes)
        return self._answer({"path": order.path, "size_bytes": size_bytes})

    # --- lists of files

    async def _stage(self, request: web.Request) -> web.Response:
        order = await _body(request, ListOrder, "path, text and site", MAX_LIST_BODY_BYTES)
        assert self._orders is not None
        try:
            begun = await self._orders.stage(order, _uid_at(request))
        except AglowError as error:
            raise ApiError(409, "refused", str(error)) from error
        return self._answer({"stagings": begun})

    async def _localities(self, request: web.Request) -> web.Response:
        order = await _body(request, ListOrder, "path, text and site", MAX_LIST_BODY_BYTES)
        assert self._orders is not None
        try:
            return self._answer(await self._orders.localities(order))
        except AglowError as error:
            raise ApiError(409, "refused", str(error)) from error

    async def _stagings(self, request: web.Request) -> web.Response:
        return self._answer({"stagings": await self._store.stagings()})

    async def _staging(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = await self._store.stagings(name)
        if not found:
            raise ApiError(404, "unknown-staging", f"there is no staging {name!r}; see /v1/stage")
        return self._answer({"staging": found[0]})

    async def _schedules(self, request: web.Request) -> web.Response:
        return self._answer({"schedules": await self._store.schedules()})

    # --- tokens and jobs

    @property
    def _desk(self) -> TokenOrders:
        assert self._token_orders is not None
        return self._token_orders

    async def _types(self, request: web.Request) -> web.Response:
        return self._answer({"types": await self._desk.types()})

    async def _tokens(self, request: web.Request) -> web.Response:
        state = request.query.get("state", "")
        if state not in ("", *STATES):
            raise ApiError(400, "bad-parameter", f"state is one of {', '.join(STATES)}, not {state[:40]!r}")
        found = await _asked(self._desk.tokens(request.match_info["type"], state, request.query.get("site", "")))
        return self._answer({"type": request.match_info["type"], "tokens": found})

    async def _token(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return self._answer(
            {"token": _there(await _asked(self._desk.token(name, request.query.get("site", ""))), "token", name)}
        )

    async def _token_log(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        found = await _asked(self._desk.log(name, request.query.get("name", ""), request.query.get("site", "")))
        return self._answer(_there(found, "token", name))

    async def _jobs(self, request: web.Request) -> web.Response:
        return self._answer({"jobs": await self._desk.jobs()})

    async def _job(self, request: web.Request) -> web.Response:
        job = request.query.get("job", "")
        return self._answer(
            {"job": _there(await _asked(self._desk.job(job, request.query.get("site", ""))), "job", job)}
        )

    async def _reset_tokens(self, request: web.Request) -> web.Response:
        order = await _body(request, ResetOrder, "token_type, state, tokens, site and reason", MAX_LIST_BODY_BYTES)
        return self._answer(await _asked(self._desk.reset(order, _uid_at(request))))

    async def _cancel_jobs(self, request: web.Request) -> web.Response:
        order = await _body(request, CancelOrder, "jobs, site and reason")
        return self._answer(await _asked(self._desk.cancel(order, _uid_at(request))))

    async def _fetch_output(self, request: web.Request) -> web.Response:
        order = await _body(request, OutputOrder, "job, site and directory")
        path = await _asked(self._desk.output(order))
        self._log.info("output_fetched", uid=_uid_at(request), job=order.job, path=path)
        return self._answer({"job": order.job, "path": path})

    # --- what people steer

    async def _steer(self, request: web.Request) -> web.Response:
        order = await _body(
            request, RunsOrder, "targets, state, steps, outputs, reason, dry_run and version", MAX_LIST_BODY_BYTES
        )
        assert self._steering is not None
        return self._answer(await _asked(self._steering.steer(request.match_info["verb"], order, _uid_at(request))))

    async def _hold(self, request: web.Request) -> web.Response:
        order = await _body(
            request, HoldOrder, "fields, kinds, sites, everything, reason and dry_run", MAX_LIST_BODY_BYTES
        )
        assert self._steering is not None
        return self._answer(await _asked(self._steering.hold(request.match_info["verb"], order, _uid_at(request))))

    async def _run(self, request: web.Request) -> web.Response:
        order = await _body(request, RunOrder, "field, pipeline, params, reason and dry_run")
        assert self._steering is not None
        return self._answer(await _asked(self._steering.run(order, _uid_at(request))))

    async def _forget(self, request: web.Request) -> web.Response:
        order = await _body(request, ForgetOrder, "runs, reason, dry_run and version", MAX_LIST_BODY_BYTES)
        assert self._steering is not None
        return self._answer(await _asked(self._steering.forget(order, _uid_at(request))))

    async def _adopt(self, request: web.Request) -> web.Response:
        order = await _body(
            request, AdoptOrder, "targets, status, given, tokens, site, reason and dry_run", MAX_LIST_BODY_BYTES
        )
        assert self._adoption is not None
        return self._answer(await _asked(self._adoption.adopt(order, _uid_at(request))))

    # --- the catalogue

    @property
    def _registry(self) -> FieldOrders:
        assert self._field_orders is not None
        return self._field_orders

    async def _catalogue(self, request: web.Request) -> web.Response:
        return self._answer(await _asked(self._registry.export()))

    async def _add_field(self, request: web.Request) -> web.Response:
        order = await _body(request, AddOrder, "name, target and calibrator")
        return self._answer(await _asked(self._registry.add(order, _uid_at(request))))

    async def _import_fields(self, request: web.Request) -> web.Response:
        order = await _body(request, ImportOrder, "path and text", MAX_LIST_BODY_BYTES)
        return self._answer(await _asked(self._registry.import_file(order, _uid_at(request))))

    async def _release_field(self, request: web.Request) -> web.Response:
        order = await _body(request, ReleaseOrder, "reason, to and status")
        return self._answer(await _asked(self._registry.release(request.match_info["name"], order, _uid_at(request))))

    # --- events

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """JSON lines. Without `since` the latest; with `follow=1` whatever is committed from then on, too.

        `since`: an event's number or a time; `until`: a time; `kind`: may come several times.
        """
        field, kinds = request.query.get("field", ""), tuple(request.query.getall("kind", ()))
        most = _number(request, "limit", 200, at_least=1, at_most=MAX_EVENTS)
        follow = _number(request, "follow", 0, at_least=0, at_most=1) == 1
        if follow and len(self._followers) >= MAX_FOLLOWERS:
            raise ApiError(503, "too-many-followers", f"{MAX_FOLLOWERS} followers are served already; end one of them")
        if follow and "until" in request.query:
            raise ApiError(400, "bad-parameter", "follow has no end; leave until out, or do not follow")
        last = await self._store.last_event()
        until = await self._store.event_before(self._instant(request, "until")) if "until" in request.query else LAST
        chosen = field or kinds or until < LAST
        if _is_number(request.query.get("since", "0")):
            since = _number(request, "since", 0 if chosen else max(0, last - most), at_least=0)
        else:
            # Before the first event there is none: not 0, which means the latest.
            since = await self._store.event_before(self._instant(request, "since")) or -1
        events = await self._store.events(since, field, most, until=until, kinds=kinds)
        if field and not events and await self._store.field(field) is None:
            raise ApiError(404, "unknown-field", f"no event names the field {field!r}; see /v1/fields")
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl", "Cache-Control": "no-store"})
        await response.prepare(request)
        await _write(response, _lines(events))
        if follow:
            seen = events[-1]["id"] if events else max(since, last if chosen else 0)
            try:
                await self._follow(response, seen, field, kinds)
            except AglowError as error:
                # Half an answer is out: only a broken connection can say that the rest is missing.
                raise ConnectionAbortedError(str(error)) from error
        await response.write_eof()
        return response

    async def _follow(self, response: web.StreamResponse, since: int, field: str, kinds: Sequence[str]) -> None:
        bell = asyncio.Event()
        self._followers.add(bell)
        try:
            while not self._stopping:
                bell.clear()
                events = await self._store.events(since, most=MAX_EVENTS)
                if events:
                    since = events[-1]["id"]
                    chosen = [event for event in events if field in ("", event["field"])]
                    if kinds:
                        chosen = [event for event in chosen if event["kind"] in kinds]
                    if chosen:
                        await _write(response, _lines(chosen))
                    continue
                try:
                    async with asyncio.timeout(HEARTBEAT_S):
                        await bell.wait()
                except TimeoutError:
                    await _write(response, b"\n")
        finally:
            self._followers.discard(bell)


async def _write(response: web.StreamResponse, content: bytes) -> None:
    """To a follower; one that does not listen is left: its place is for others."""
    try:
        async with asyncio.timeout(WRITE_S):
            await response.write(content)
    except TimeoutError as error:
        raise ConnectionAbortedError("the follower takes nothing") from error


async def _body(request: web.Request, kind: type[T], keys: str, most_bytes: int = MAX_BODY_BYTES) -> T:
    """The command that the request carries."""
    try:
        async with asyncio.timeout(BODY_S):
            content = await request.clone(client_max_size=most_bytes).read()
        return msgspec.json.decode(content, type=kind)
    except TimeoutError as error:
        raise ApiError(408, "too-slow", f"the body did not come within {BODY_S:.0f} s") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise ApiError(413, "too-long", f"a body of more than {most_bytes} bytes is not taken") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "bad-body", f"expected {keys} as JSON: {error}") from error


async def _asked(work: Awaitable[T]) -> T:
    """The answer; what cannot be done is told with its reason."""
    try:
        return await work
    except AglowError as error:
        raise ApiError(409, "stale" if isinstance(error, Changed) else "refused", str(error)) from error


def _there(answer: dict[str, Json] | None, what: str, name: str) -> dict[str, Json]:
    if answer is None:
        raise ApiError(404, f"unknown-{what}", f"there is no {what} {name[:200]!r}")
    return answer


def _uid_at(request: web.Request) -> int:
    """Who asks."""
    assert request.transport is not None
    return uid_of(request.transport.get_extra_info("socket"))


def _known(request: web.Request, answer: dict[str, Json] | None) -> dict[str, Json]:
    if answer is None:
        name = request.match_info["name"]
        raise ApiError(404, "unknown-field", f"the field {name!r} is not in the catalogue; see /v1/fields")
    return answer


def _is_number(text: str) -> bool:
    """Whether it is meant as a number, be it a wrong one: a time is written in another way."""
    return re.fullmatch(r"-?\d*", text) is not None


def _number(request: web.Request, name: str, default: int, *, at_least: int, at_most: int = 2**62) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and at_least <= int(text) <= at_most):
        limits = f"from {at_least} to {at_most}" if at_most < 2**62 else f"{at_least} or more"
        raise ApiError(400, "bad-parameter", f"{name} is a whole number {limits}, not {text[:40]!r}")
    return int(text)


def _lines(events: list[dict[str, Json]]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)
