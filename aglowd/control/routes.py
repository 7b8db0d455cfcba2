"""Every route: what is asked there, who answers, and what it takes. This table is what the server serves.

What must stay true: whatever changes something is asked by POST, and whoever may only look cannot ask it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from aiohttp import web
from msgspec import Struct

from aglowd.adoption import AdoptOrder
from aglowd.control import orders, past, present
from aglowd.control.bodies import BackupOrder, Judgement, ReloadOrder, Verdict
from aglowd.control.desk import Desk
from aglowd.control.requests import MAX_LIST_BODY_BYTES, Body
from aglowd.field_orders import AddOrder, ImportOrder, ReleaseOrder
from aglowd.orders import ListOrder
from aglowd.steering import HOLD_VERBS, RUN_VERBS, ForgetOrder, HoldOrder, RunOrder, RunsOrder
from aglowd.token_orders import CancelOrder, OutputOrder, ResetOrder

T = TypeVar("T")


class Route(Struct, frozen=True):
    """A place where something is asked. `query`: the parameters that it heeds; `body`: what is sent there, of an order.

    `changes`: whether it may change something.
    """

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[[Desk, web.Request], Awaitable[web.StreamResponse]]
    query: tuple[str, ...] = ()
    body: Any = None  # A Body: msgspec cannot hold a generic class of ours.
    changes: bool = False


def look(path: str, handler: Callable[[Desk, web.Request], Awaitable[web.StreamResponse]], *query: str) -> Route:
    """A route that says how something is."""
    return Route("GET", path, handler, query)


def order(
    path: str,
    handler: Callable[[Desk, web.Request, T], Awaitable[web.StreamResponse]],
    body: Body[T],
    *,
    changes: bool = True,
) -> Route:
    """A route that takes an order, or a question that is too long for a path."""

    async def read_and_handle(desk: Desk, request: web.Request) -> web.StreamResponse:
        return await handler(desk, request, await body.read(request))

    return Route("POST", path, read_and_handle, (), body, changes)


FILES = Body(ListOrder, "path, text and site", MAX_LIST_BODY_BYTES)
RUNS = Body(RunsOrder, "targets, state, steps, outputs, reason, dry_run and version", MAX_LIST_BODY_BYTES)
HOLDS = Body(HoldOrder, "fields, kinds, sites, everything, reason and dry_run", MAX_LIST_BODY_BYTES)
RESETS = Body(ResetOrder, "token_type, state, tokens, site and reason", MAX_LIST_BODY_BYTES)
TAKES_OVER = Body(AdoptOrder, "targets, status, given, tokens, site, reason and dry_run", MAX_LIST_BODY_BYTES)

ROUTES: tuple[Route, ...] = (
    look("/live", present.live),
    look("/ready", present.ready),
    look("/metrics", present.metrics),
    look("/v1/status", present.status),
    look("/v1/log", present.log_place),
    look("/v1/doctor", present.examine),
    look("/v1/config", present.configuration),
    order("/v1/reload", orders.reload, Body(ReloadOrder, "reason and dry_run")),
    order("/v1/backup", orders.back_up, Body(BackupOrder, "path and replace")),
    # Fields.
    look("/v1/fields", present.fields),
    look("/v1/candidates", present.candidates),
    look("/v1/fields/{name}", present.field),
    look("/v1/fields/{name}/explain", present.explain, "at"),
    look("/v1/fields/{name}/history", past.history, "run", "since", "until", "limit"),
    look("/v1/provenance/{name}", present.provenance),
    order("/v1/fields/{name}/verdict", orders.judge, Body(Judgement, "approved, verdict, reason and step")),
    order("/v1/fields/{name}/release", orders.release_field, Body(ReleaseOrder, "reason, to and status")),
    # What was, and what will be.
    look("/v1/events", past.events, "field", "kind", "since", "until", "limit", "follow"),
    look("/v1/trace/{what}", past.trace, "limit"),
    look("/v1/diff", past.diff, "field", "from", "to"),
    look("/v1/next", past.ahead, "within"),
    look("/v1/schedules", present.schedules),
    # What cannot be told.
    look("/v1/doubt", present.doubts),
    order("/v1/doubt", orders.settle_doubt, Body(Verdict, "key, action, ref and reason")),
    # Lists of files.
    look("/v1/stage", present.stagings),
    look("/v1/stage/{name}", present.staging),
    order("/v1/stage", orders.stage, FILES),
    order("/v1/locality", present.localities, FILES, changes=False),
    # Tokens and jobs.
    look("/v1/tokens", present.types),
    look("/v1/tokens/{type}", present.tokens, "state", "site"),
    look("/v1/token/{name}", present.token, "site"),
    look("/v1/token/{name}/log", present.token_log, "name", "site"),
    order("/v1/tokens", orders.reset_tokens, RESETS),
    look("/v1/jobs", present.jobs),
    look("/v1/job", present.job, "job", "site"),
    order("/v1/jobs", orders.cancel_jobs, Body(CancelOrder, "jobs, site and reason")),
    order("/v1/output", orders.fetch_output, Body(OutputOrder, "job, site and directory")),
    # Runs.
    *(order(f"/v1/{verb}", orders.steer(verb), RUNS) for verb in RUN_VERBS),
    *(order(f"/v1/{verb}", orders.hold(verb), HOLDS) for verb in HOLD_VERBS),
    order("/v1/run", orders.run, Body(RunOrder, "field, pipeline, params, reason and dry_run")),
    order("/v1/forget", orders.forget, Body(ForgetOrder, "runs, reason, dry_run and version")),
    order("/v1/adopt", orders.adopt, TAKES_OVER),
    # The catalogue.
    look("/v1/catalogue", present.catalogue),
    order("/v1/catalogue", orders.add_field, Body(AddOrder, "name, target and calibrator")),
    order("/v1/catalogue/import", orders.import_fields, Body(ImportOrder, "path and text", MAX_LIST_BODY_BYTES)),
)
