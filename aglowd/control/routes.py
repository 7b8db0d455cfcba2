"""Every route: what is asked there, who answers, what it takes, what it answers. This table is what the server serves.

What must stay true: whatever changes something is asked by POST, and whoever may only look cannot ask it; an answer holds
what its type in `answers/` says, no less and no more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from aiohttp import web
from msgspec import Struct

from aglowd.adoption import AdoptOrder
from aglowd.control import orders, past, present
from aglowd.control.answers import daemon, fields, printed, work
from aglowd.control.answers import orders as changed
from aglowd.control.answers import past as then
from aglowd.control.answers.base import Error, Ordered
from aglowd.control.bodies import BackupOrder, FieldChoice, Judgement, ReloadOrder, Verdict
from aglowd.control.desk import Desk
from aglowd.control.requests import MAX_LIST_BODY_BYTES, Body
from aglowd.control.schemas import JsonSchema, Shape
from aglowd.field_orders import AddOrder, ImportOrder, ReleaseOrder
from aglowd.orders import ListOrder
from aglowd.steering import HOLD_VERBS, RUN_VERBS, ForgetOrder, HoldOrder, RunOrder, RunsOrder
from aglowd.token_orders import CancelOrder, OutputOrder, ResetOrder

T = TypeVar("T")


class Route(Struct, frozen=True):
    """A place where something is asked. `query`: the parameters that it heeds; `body`: what is sent there, of an order.

    `answers`: None = what is no JSON of ours. `changes`: whether it may change something.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[[Desk, web.Request], Awaitable[web.StreamResponse]]
    answers: type[Struct] | None
    query: tuple[str, ...] = ()
    body: Any = None  # A Body: msgspec cannot hold a generic class of ours.
    changes: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def look(
    path: str,
    handler: Callable[[Desk, web.Request], Awaitable[web.StreamResponse]],
    answers: type[Struct] | None,
    *query: str,
) -> Route:
    """A route that says how something is."""
    return Route("GET", path, handler, answers, query)


def order(
    path: str,
    handler: Callable[[Desk, web.Request, T], Awaitable[web.StreamResponse]],
    answers: type[Struct],
    body: Body[T],
    *,
    changes: bool = True,
) -> Route:
    """A route that takes an order, or a question that is too long for a path."""

    async def read_and_handle(desk: Desk, request: web.Request) -> web.StreamResponse:
        return await handler(desk, request, await body.read(request))

    return Route("POST", path, read_and_handle, answers, (), body, changes)


FILES = Body(ListOrder, "path, text and site", MAX_LIST_BODY_BYTES)
RUNS = Body(RunsOrder, "targets, state, steps, outputs, reason, dry_run and version", MAX_LIST_BODY_BYTES)
HOLDS = Body(HoldOrder, "fields, state, kinds, sites, everything, reason, dry_run and version", MAX_LIST_BODY_BYTES)
FORGETS = Body(ForgetOrder, "runs, state, reason, dry_run and version", MAX_LIST_BODY_BYTES)
FIELDS = Body(FieldChoice, "targets and state", MAX_LIST_BODY_BYTES)
RESETS = Body(ResetOrder, "token_type, state, tokens, site and reason", MAX_LIST_BODY_BYTES)
TAKES_OVER = Body(
    AdoptOrder, "targets, status, given, tokens, site, of, reason, dry_run and version", MAX_LIST_BODY_BYTES
)

ROUTES: tuple[Route, ...] = (
    look("/live", present.live, daemon.Live),
    look("/ready", present.ready, daemon.Ready),
    look("/metrics", present.metrics, None),
    look("/v1/status", present.status, daemon.Status),
    look("/v1/log", present.log_place, daemon.Log),
    look("/v1/doctor", present.examine, daemon.Doctor),
    look("/v1/config", present.configuration, daemon.Config),
    look("/v1/schema", present.schemas, daemon.Schemas),
    look("/v1/schema/{name}", present.schema, JsonSchema),
    order("/v1/reload", orders.reload, daemon.Reloaded, Body(ReloadOrder, "reason and dry_run")),
    order("/v1/backup", orders.back_up, daemon.BackedUp, Body(BackupOrder, "path and replace")),
    # Fields.
    look("/v1/fields", present.fields, fields.Fields),
    order("/v1/fields", present.chosen, fields.Fields, FIELDS, changes=False),
    look("/v1/names", present.names, fields.Names, "begin"),
    look("/v1/candidates", present.candidates, fields.Candidates),
    look("/v1/fields/{name}", present.field, fields.Shown),
    look("/v1/fields/{name}/explain", present.explain, fields.Explained, "at"),
    look("/v1/fields/{name}/history", past.history, then.History, "run", "since", "until", "limit"),
    look("/v1/provenance/{name}", present.provenance, fields.Provenance),
    order(
        "/v1/fields/{name}/verdict", orders.judge, fields.Judged, Body(Judgement, "approved, verdict, reason and step")
    ),
    order(
        "/v1/fields/{name}/release", orders.release_field, fields.Released, Body(ReleaseOrder, "reason, to and status")
    ),
    # What was, and what will be.
    look("/v1/events", past.events, then.Event, "field", "kind", "since", "until", "limit", "follow"),
    look("/v1/trace/{what}", past.trace, then.Trace, "limit"),
    look("/v1/diff", past.diff, then.Diff, "field", "from", "to"),
    look("/v1/next", past.ahead, then.Next, "within"),
    look("/v1/schedules", present.schedules, then.Schedules),
    # What cannot be told.
    look("/v1/doubt", present.doubts, daemon.Doubts),
    order("/v1/doubt", orders.settle_doubt, daemon.Settled, Body(Verdict, "key, action, ref and reason")),
    # Lists of files.
    look("/v1/stage", present.stagings, work.Stagings),
    look("/v1/stage/{name}", present.staging, work.OneStaging),
    order("/v1/stage", orders.stage, work.Staged, FILES),
    order("/v1/locality", present.localities, work.Localities, FILES, changes=False),
    # Tokens and jobs.
    look("/v1/tokens", present.types, work.TokenTypes),
    look("/v1/tokens/{type}", present.tokens, work.Tokens, "state", "site"),
    look("/v1/token/{name}", present.token, work.Token, "site"),
    look("/v1/token/{name}/log", present.token_log, work.TokenLog, "name", "site"),
    order("/v1/tokens", orders.reset_tokens, Ordered, RESETS),
    look("/v1/jobs", present.jobs, work.Jobs),
    look("/v1/job", present.job, work.OneJob, "job", "site"),
    order("/v1/jobs", orders.cancel_jobs, Ordered, Body(CancelOrder, "jobs, site and reason")),
    order("/v1/output", orders.fetch_output, work.Output, Body(OutputOrder, "job, site and directory")),
    # Runs.
    *(order(f"/v1/{verb}", orders.steer(verb), changed.Steered, RUNS) for verb in RUN_VERBS),
    *(order(f"/v1/{verb}", orders.hold(verb), changed.Held, HOLDS) for verb in HOLD_VERBS),
    order("/v1/run", orders.run, changed.Begun, Body(RunOrder, "field, pipeline, params, reason, dry_run and version")),
    order("/v1/forget", orders.forget, changed.Forgotten, FORGETS),
    order("/v1/adopt", orders.adopt, changed.Adopted, TAKES_OVER),
    # The catalogue.
    look("/v1/catalogue", present.catalogue, fields.Catalogue),
    order("/v1/catalogue", orders.add_field, fields.Added, Body(AddOrder, "name, target and calibrator")),
    order(
        "/v1/catalogue/import",
        orders.import_fields,
        fields.Added,
        Body(ImportOrder, "path and text", MAX_LIST_BODY_BYTES),
    ),
)

PRINTED: Mapping[str, type[Struct]] = {
    "status": daemon.Status,
    "fields": fields.Fields,
    "candidates": fields.Candidates,
    "show": fields.Shown,
    "explain": fields.Explained,
    "events": then.Event,
    "doubt": daemon.Doubts,
    "backup": daemon.BackedUp,
    "version": printed.Versions,
    "history": then.History,
    "trace": then.Trace,
    "diff": then.Diff,
    "next": then.Next,
    "stage": work.Staged,
    "stage --status": work.Stagings,
    "stage --wait": work.Stagings,
    "stage --status SRMLIST": work.OneStaging,
    "locality": work.Localities,
    "tokens": work.TokenTypes,
    "tokens list": work.Tokens,
    "tokens show": work.Token,
    "tokens logs": work.TokenLog,
    "tokens reset": Ordered,
    "jobs": work.Jobs,
    "jobs list": work.Jobs,
    "jobs show": work.OneJob,
    "jobs cancel": Ordered,
    "jobs output": work.Output,
    **dict.fromkeys(RUN_VERBS, changed.Steered),
    **dict.fromkeys(HOLD_VERBS, changed.Held),
    "run": changed.Begun,
    "forget": changed.Forgotten,
    "verify": printed.Verified,
    "doctor": daemon.Doctor,
    "report": printed.Report,
    "aglowd replay": printed.Replayed,
    "adopt": changed.Adopted,
    "reload": daemon.Reloaded,
    "schedules": then.Schedules,
    "provenance": fields.Provenance,
    "add": fields.Added,
    "import": fields.Added,
    "export": fields.Catalogue,
    "release": fields.Released,
    "metrics": printed.Metrics,
    "logs": printed.Line,
    "wait": printed.Waited,
    "watch": printed.Watched,
    "schema": daemon.Schemas,
    "schema COMMAND": JsonSchema,
}
"""What `aglowctl COMMAND --json` prints; a command of `aglowd` bears that name before its own."""


def shapes() -> Iterator[Shape]:
    """Every kind of answer, each once, with the routes that give it and the commands that print it."""
    kinds = dict.fromkeys((*(route.answers for route in ROUTES if route.answers), *PRINTED.values(), Error))
    for kind in kinds:
        routes = tuple(str(route) for route in ROUTES if route.answers is kind)
        yield Shape(kind, routes, tuple(command for command, printed in PRINTED.items() if printed is kind))
