"""What people ask of tokens and jobs, and order done with them, beside the pipelines.

What must stay true: what changes something is a run like any other, so that it is journalled and explained, and done
once; what only looks is bounded in number and in time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import structlog
from msgspec import Meta, Struct

from aglowd.effects.base import World
from aglowd.errors import AglowError, OutsideError
from aglowd.grid.batch import JobStatus
from aglowd.grid.picas import JOB_KEYS, check_token_type
from aglowd.grid.tokens import last_log
from aglowd.model import Json
from aglowd.pipeline import Pipeline
from aglowd.store.store import Store

RESET, CANCEL = "reset_tokens", "cancel_jobs"
"""The pipelines of which each order is a run."""
MAX_TOKENS = 10_000
"""Named in one order, or listed in one answer."""
MAX_JOBS = 1000
ASK_REAL_S = 60.0
"""Real seconds in which the token database, or a batch system, answers."""
OUTPUT_REAL_S = 600.0
MAX_LOG_CHARS = 1_000_000
"""Of a log, its end."""
_ODD = re.compile(r"[^\w+.:@=/-]")

Name = Annotated[str, Meta(min_length=1, max_length=500)]
Reason = Annotated[str, Meta(max_length=500)]
T = TypeVar("T")


class ResetOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Give tokens of a type back to the pilots: those in that state, or of these only the named ones.

    `site`: where they are worked on, which tells their database; "" = the common one.
    """

    token_type: Name
    state: Literal["", "done", "error", "other"] = "error"
    tokens: Annotated[tuple[Name, ...], Meta(max_length=MAX_TOKENS)] = ()
    site: Annotated[str, Meta(max_length=64)] = ""
    reason: Reason = ""


class CancelOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Cancel these jobs at the batch system of a site ("" = the common one)."""

    jobs: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=MAX_JOBS)]
    site: Annotated[str, Meta(max_length=64)] = ""
    reason: Reason = ""


class OutputOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Fetch what a job printed into a new directory below this one, as the daemon's user."""

    job: Name
    directory: Annotated[str, Meta(pattern="^/", max_length=4096)]
    site: Annotated[str, Meta(max_length=64)] = ""


class TokenOrders:
    """Carries them out. `pipelines`: the two of which orders are runs."""

    def __init__(self, store: Store, world: World, reset: Pipeline, cancel: Pipeline) -> None:
        self._store = store
        self._world = world
        self._reset = reset
        self._cancel = cancel
        self._log = structlog.get_logger("orders")

    # --- tokens

    async def types(self) -> list[dict[str, Json]]:
        """The token types that steps wait for, each with its counts, as they were last seen. Asks nobody."""
        waited = await self._store.waited("tokens")
        latest: dict[
            tuple[str, ...], dict[str, Json]
        ] = {}  # A step may wait for a later count of the same tokens, too.
        for one in sorted(waited, key=lambda one: one["at"] or 0.0):
            name, site = one["args"].get("token_type", one["id"]), one["args"].get("site", "")
            row = {"type": name, "site": site, "counts": one["data"] or {}, **_waiter(one)}
            latest[one["field"], one["run"], one["step"], name, site] = row
        return [row for _, row in sorted(latest.items())]

    async def tokens(self, token_type: str, state: str, site: str = "") -> list[dict[str, Json]]:
        """All tokens of that type in that state, or in any, as they are now; AglowError if there are too many."""
        check_token_type(token_type)
        base = self._world.token_base(site)
        ids = await _in_time(base.list_ids(token_type, state), "the token database")
        if len(ids) > MAX_TOKENS:
            raise AglowError(f"there are {len(ids)} such tokens; expected at most {MAX_TOKENS}: ask for a state")
        found = await _in_time(base.get_docs(ids), "the token database")
        return [_brief(document) for document in found.values() if document is not None]

    async def token(self, name: str, site: str = "") -> dict[str, Any] | None:
        """The document as it is now, attachments as stubs."""
        found = await _in_time(self._world.token_base(site).get_docs((name,)), "the token database")
        return found[name]

    async def log(self, name: str, wanted: str, site: str = "") -> dict[str, Json] | None:
        """What is attached to a token, and the end of the attachment `wanted`; "" = the log that came last."""
        document = await self.token(name, site)
        if document is None:
            return None
        names = sorted(document.get("_attachments", {}))
        log = wanted or last_log(document)
        if log and log not in names:
            raise AglowError(f"{name} has no attachment {log!r}; it has {', '.join(names) or 'none'}")
        text = ""
        if log:
            base = self._world.token_base(site)
            data = await _in_time(base.get_attachment(name, log), "the token database")
            text = data.decode("utf-8", "replace")
        return {"token": name, "attachments": names, "name": log, "text": text[-MAX_LOG_CHARS:]}

    async def reset(self, order: ResetOrder, uid: int) -> dict[str, Json]:
        """Begin a run that gives the tokens back; AglowError if another one is at work on tokens of that type."""
        check_token_type(order.token_type)
        self._world.token_base(order.site)
        params = {
            "token_type": order.token_type,
            "state": order.state,
            "tokens": list(order.tokens),
            "site": order.site,
        }
        return await self._begin(self._reset, f"tokens/{order.token_type}", params, order.reason, uid)

    # --- jobs

    async def jobs(self) -> list[dict[str, Json]]:
        """The jobs that steps wait for, as they were last seen. Asks nobody."""
        return [
            {
                "job": one["args"].get("job", one["id"]),
                "site": one["args"].get("site", ""),
                **(one["data"] or {"state": "not seen yet"}),
                **_waiter(one),
            }
            for one in await self._store.waited("job")
        ]

    async def job(self, job: str, site: str) -> dict[str, Json] | None:
        """How the job is now, with its nodes; None if its batch system does not know it."""
        batch = self._world.batch(site)
        found = (await _in_time(batch.status((job,)), batch.system)).get(job)
        return None if found is None else {"site": site, "system": batch.system, **_told(found)}

    async def cancel(self, order: CancelOrder, uid: int) -> dict[str, Json]:
        """Begin a run that cancels the jobs and sees them end."""
        self._world.batch(order.site)
        params = {"jobs": list(order.jobs), "site": order.site}
        return await self._begin(self._cancel, f"jobs/{order.jobs[0]}", params, order.reason, uid)

    async def output(self, order: OutputOrder) -> str:
        """Where what the job printed lies now."""
        batch = self._world.batch(order.site)
        directory = Path(order.directory)
        if not await asyncio.to_thread(directory.is_dir):
            raise AglowError(f"{directory} is no directory that the daemon can see")
        return str(await _in_time(batch.output(order.job, directory), batch.system, OUTPUT_REAL_S))

    async def _begin(
        self, pipeline: Pipeline, field: str, params: dict[str, Json], reason: str, uid: int
    ) -> dict[str, Json]:
        field = _ODD.sub("_", field)[:100]
        run = await self._store.begin_order(pipeline, field, params, {"uid": uid, "reason": reason})
        self._log.info("ordered", uid=uid, field=field, run=run, reason=reason)
        return {"field": field, "run": run}


async def _in_time(asked: Awaitable[T], whom: str, real_s: float = ASK_REAL_S) -> T:
    try:
        async with asyncio.timeout(real_s):
            return await asked
    except TimeoutError as error:
        raise AglowError(f"{whom} does not answer within {real_s:g} s") from error
    except OutsideError as error:
        raise AglowError(str(error)) from error


def _waiter(one: dict[str, Json]) -> dict[str, Json]:
    return {"field": one["field"], "run": one["run"], "step": one["step"], "at": one["at"]}


def _told(job: JobStatus) -> dict[str, Json]:
    told: dict[str, Json] = msgspec.to_builtins(job)
    return told


def _brief(document: dict[str, Any]) -> dict[str, Json]:
    """What a list shows of a token."""
    mark = document.get("aglowd")
    history = mark.get("history") if isinstance(mark, dict) else None
    shown = ("status", "lock", "done", "output", "hostname", "scrub_count", "Results_location")
    return {
        "token": document["_id"],
        **{name: document.get(name) for name in shown},
        "job": next((document[key] for key in JOB_KEYS if document.get(key)), ""),
        "history": len(history) if isinstance(history, list) else 0,
    }
