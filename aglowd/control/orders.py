"""The routes that change something. Each is the order of a person, who is named by the uid that the kernel tells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from aglowd.adoption import AdoptOrder
from aglowd.control.bodies import BackupOrder, Judgement, ReloadOrder, Verdict
from aglowd.control.desk import Desk
from aglowd.control.requests import ApiError, asked, uid_at
from aglowd.errors import AglowError
from aglowd.field_orders import AddOrder, ImportOrder, ReleaseOrder
from aglowd.orders import ListOrder
from aglowd.steering import ForgetOrder, HoldOrder, RunOrder, RunsOrder
from aglowd.store import verdicts
from aglowd.token_orders import CancelOrder, OutputOrder, ResetOrder
from aglowd.toml_file import ConfigError


async def reload(desk: Desk, request: web.Request, order: ReloadOrder) -> web.Response:
    """Read the configuration anew."""
    if desk.reload is None:
        raise ApiError(409, "refused", "this daemon has no configuration file")
    try:
        return desk.answer(await desk.reload(uid_at(request), order.reason, order.dry_run))
    except ConfigError as error:
        raise ApiError(409, "bad-configuration", f"the old configuration stays: {error}") from error
    except AglowError as error:
        raise ApiError(409, "refused", str(error)) from error


async def back_up(desk: Desk, request: web.Request, order: BackupOrder) -> web.Response:
    """Copy the database."""
    uid = uid_at(request)
    size_bytes = await asked(desk.store.back_up(Path(order.path), replace=order.replace, uid=uid))
    desk.log.info("backed_up", uid=uid, path=order.path, size_bytes=size_bytes)
    return desk.answer({"path": order.path, "size_bytes": size_bytes})


async def judge(desk: Desk, request: web.Request, said: Judgement) -> web.Response:
    """Say of what a step shows how good it is."""
    name, uid = request.match_info["name"], uid_at(request)
    verdict = verdicts.Verdict(said.approved, said.verdict, said.reason, uid)
    told = await asked(desk.store.judge(name, said.step, verdict))
    desk.log.info("judged", uid=uid, field=name, step=told["step"], verdict=said.verdict, reason=said.reason)
    return desk.answer(told)


async def settle_doubt(desk: Desk, request: web.Request, verdict: Verdict) -> web.Response:
    """Say what became of an effect, or that a finding was seen to."""
    uid = uid_at(request)
    assert desk.settle is not None
    try:
        said = await desk.settle(verdict, uid)
    except AglowError as error:
        desk.log.warning("verdict_refused", uid=uid, effect=verdict.key, action=verdict.action, why=str(error))
        raise ApiError(409, "refused", str(error)) from error
    desk.log.info("verdict", uid=uid, effect=verdict.key, action=verdict.action, reason=verdict.reason)
    return desk.answer({"key": verdict.key, "said": said})


async def stage(desk: Desk, request: web.Request, order: ListOrder) -> web.Response:
    """Bring the files of a list online."""
    return desk.answer({"stagings": await asked(desk.orders.stage(order, uid_at(request)))})


# --- tokens and jobs


async def reset_tokens(desk: Desk, request: web.Request, order: ResetOrder) -> web.Response:
    """Give tokens back to the pilots."""
    return desk.answer(await asked(desk.token_orders.reset(order, uid_at(request))))


async def cancel_jobs(desk: Desk, request: web.Request, order: CancelOrder) -> web.Response:
    """End jobs."""
    return desk.answer(await asked(desk.token_orders.cancel(order, uid_at(request))))


async def fetch_output(desk: Desk, request: web.Request, order: OutputOrder) -> web.Response:
    """Fetch what a job wrote."""
    path = await asked(desk.token_orders.output(order))
    desk.log.info("output_fetched", uid=uid_at(request), job=order.job, path=path)
    return desk.answer({"job": order.job, "path": path})


# --- runs


def steer(verb: str) -> Callable[[Desk, web.Request, RunsOrder], Awaitable[web.Response]]:
    """Change runs in the way of that verb."""

    async def handler(desk: Desk, request: web.Request, order: RunsOrder) -> web.Response:
        return desk.answer(await asked(desk.steering.steer(verb, order, uid_at(request))))

    return handler


def hold(verb: str) -> Callable[[Desk, web.Request, HoldOrder], Awaitable[web.Response]]:
    """Hold or let go in the way of that verb."""

    async def handler(desk: Desk, request: web.Request, order: HoldOrder) -> web.Response:
        return desk.answer(await asked(desk.steering.hold(verb, order, uid_at(request))))

    return handler


async def run(desk: Desk, request: web.Request, order: RunOrder) -> web.Response:
    """Begin a run by hand."""
    return desk.answer(await asked(desk.steering.run(order, uid_at(request))))


async def forget(desk: Desk, request: web.Request, order: ForgetOrder) -> web.Response:
    """Forget runs."""
    return desk.answer(await asked(desk.steering.forget(order, uid_at(request))))


async def adopt(desk: Desk, request: web.Request, order: AdoptOrder) -> web.Response:
    """Take over what another program has begun."""
    return desk.answer(await asked(desk.adoption.adopt(order, uid_at(request))))


# --- the catalogue


async def add_field(desk: Desk, request: web.Request, order: AddOrder) -> web.Response:
    """Add a field."""
    return desk.answer(await asked(desk.field_orders.add(order, uid_at(request))))


async def import_fields(desk: Desk, request: web.Request, order: ImportOrder) -> web.Response:
    """Add the fields of a file."""
    return desk.answer(await asked(desk.field_orders.import_file(order, uid_at(request))))


async def release_field(desk: Desk, request: web.Request, order: ReleaseOrder) -> web.Response:
    """Give a field back."""
    return desk.answer(await asked(desk.field_orders.release(request.match_info["name"], order, uid_at(request))))
