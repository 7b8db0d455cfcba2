"""The systems under test: how each is got ready, and by which command it begins and, after a kill, begins again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from msgspec import Struct

from aglowd.grid.catalogue_csv import read_rows
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.watchers.pages import FINEST_S
from bench.catalogue import lines
from bench.workload_w.chain import ACT, CHAIN, Order
from bench.workload_w.install import python_of
from bench.workload_w.peers import airflow_settings

MACHINERY_REAL_S = 300.0
"""What polls beside the workload's waits does it so often in real time: the catalogue, and the audit."""


async def _nothing(order: Order) -> None:
    """There is nothing to get ready."""


class System(Struct, frozen=True):
    """`argv` begins it in the foreground; `prepare` comes once before that."""

    argv: Callable[[Order], list[str]]
    prepare: Callable[[Order], Awaitable[None]] = _nothing
    environment: Callable[[Order], Mapping[str, str]] = Order.environment


def _module(peer: str, module: str) -> Callable[[Order], list[str]]:
    return lambda order: [python_of(peer), "-m", f"bench.workload_w.{module}"]


def _step(number: int, url: str, poll_s: float) -> str:
    """One step of kind `http`; an act may be asked twice, because the service knows its key again."""
    what = CHAIN[number]
    said = [f"[steps.s{number}]", 'kind = "http"', f'url = "{url}/{what}/{{{{ field.name }}}}/{number}"']
    said += (
        ['method = "POST"', "repeatable = true"] if what == ACT else ['until = "body.done"', f'poll = "{poll_s:g}s"']
    )
    return "\n".join([*said, f'needs = ["s{number - 1}"]' if number else "", ""])


async def _aglowd(order: Order) -> None:
    """Its configuration, its pipeline, and its own catalogue with all fields.

    Its clock runs as ours, unless pages are to be asked more often than aglowd ever does.
    """
    place, load = order.place, order.load
    rate = max(1.0, FINEST_S / load.poll_s)
    machinery = f"{MACHINERY_REAL_S * rate:.0f}s"
    for name in ("pipelines", "srm", "site"):
        (place / name).mkdir()
    steps = "\n".join(_step(number, order.url, load.poll_s * rate) for number in range(len(CHAIN)))
    (place / "pipelines" / "w.toml").write_text(f'[pipeline]\nname = "w"\n\n{steps}', encoding="utf-8")
    site = f"file://{place}/site"
    (place / "aglowd.toml").write_text(
        f"""
[daemon]
state_dir = "{place}/state"
socket = "{place}/s"
log_format = "json"
audit = "{machinery}"

[clock]
rate = {rate}

[catalogue]
kind = "own"
path = "{place}/catalogue.db"
srm_dir = "{place}/srm"
pipeline = "w"
poll = "{machinery}"
max_fields = {load.fields}

[pipelines]
directory = "{place}/pipelines"

[sites.sara]
results = "{site}"
archive = "{site}"
fields_at_once = {load.fields}
""",
        encoding="utf-8",
    )
    rows = read_rows("\n".join(lines(load.fields)) + "\n", "bench", ("SND",))
    await OwnCatalogue(place / "catalogue.db", "bench").add(rows)


def _airflow_environment(order: Order) -> Mapping[str, str]:
    return airflow_settings.environment(order, Path(python_of("airflow")).parent)


def _airflow_argv(*words: str) -> list[str]:
    return [str(Path(python_of("airflow")).parent / "airflow"), *words]


async def _airflow(order: Order) -> None:
    """Its database."""
    argv = _airflow_argv("db", "migrate")
    with (order.place / "migrate.txt").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, env=_airflow_environment(order), stdout=log, stderr=log)
        if await process.wait() != 0:
            raise RuntimeError(f"airflow db migrate failed: see {log.name}")


SYSTEMS: Mapping[str, System] = {
    "floor": System(lambda order: [sys.executable, "-m", "bench.workload_w.floor"]),
    "aglowd": System(
        lambda order: [sys.executable, "-m", "aglowd.cli", "start", "--config", f"{order.place}/aglowd.toml"], _aglowd
    ),
    "dbos": System(_module("dbos", "peers.dbos_w")),
    "prefect": System(_module("prefect", "peers.prefect_w")),
    "airflow": System(lambda order: _airflow_argv("standalone"), _airflow, _airflow_environment),
}
