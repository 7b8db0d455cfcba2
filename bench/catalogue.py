"""What the catalogue costs: a whole survey of which twenty fields are at work.

Between changes the watcher asks for a stamp at each poll and nothing else. Statuses are claimed and written through the
journal, as in production: the effect's intent, the compare-and-set in the catalogue, its record. Rounds come every few minutes
and writes every few hours, so each is measured by itself and spread over the time that it has. The surveys database is
measured where MariaDB is installed; only our own process counts.
"""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aglowd import log
from aglowd.clock import Clock
from aglowd.effects import DEEDS
from aglowd.effects.catalogue import WriteStatus
from aglowd.effects.engine import Engine
from aglowd.grid.catalogue import Catalogue
from aglowd.grid.catalogue_csv import CsvCatalogue, read_rows
from aglowd.grid.catalogue_mysql import MySqlCatalogue, Whoami
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.grid.gate import Credential, Site
from aglowd.grid.mysql import MySql, Place
from aglowd.handlers.status import SetStatus
from aglowd.pipeline import Pipeline, StepDef
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.sim.mariadb import DATABASE, USER, MariaDbMissing, private_mariadb
from aglowd.store.store import Store
from aglowd.watchers.fields import Fields

FIELDS = 3168
"""As many as LoTSS has."""
AT_WORK = 20
POLL_S = 300.0
WRITE_EVERY_S = 3600.0
"""Each field at work has its status written so often: in truth five times in days."""
ROUNDS = 50
LINE = "SND,{},2456805.625,8,2.01326592,242,229507,2456805.61736,8,2.01326592,244,P{},"
WORDS = {"csv": ("SND", "AAA"), "own": ("SND", "AAA"), "mysql": ("Observed", "DI_started")}


def lines(count: int) -> list[str]:
    return [LINE.format(300_000 + number, number) for number in range(count)]


@asynccontextmanager
async def catalogue_of(kind: str, directory: Path, count: int) -> AsyncIterator[Catalogue]:
    """A catalogue of that kind with so many fields; MariaDbMissing if it cannot be had."""
    text = "\n".join(lines(count)) + "\n"
    async with AsyncExitStack() as stack:
        if kind == "csv":
            path = directory / "fields.csv"
            path.write_text(text, encoding="utf-8")
            yield CsvCatalogue(path, "bench")
        elif kind == "own":
            own = OwnCatalogue(directory / "catalogue.db", "bench")
            await own.add(read_rows(text, "bench", ("SND",)))
            yield own
        else:
            database = await stack.enter_async_context(private_mariadb(directory / "mariadb"))
            await database.fill(line.split(",") for line in lines(count))
            credential = Credential("catalogue", user=USER, password=database.password)
            mysql = MySql(Site("catalogue", Clock()), credential, Place("", 1, DATABASE, str(database.socket)))
            found = MySqlCatalogue(mysql, Whoami("bench", "bench"), directory / "marks.json", offered=("Observed",))
            yield found
            await found.close()


def _pipeline(claimed: str) -> Pipeline:
    params = {"expect": "{{ field.status }}", "status": claimed}
    return Pipeline(
        name="claim", digest="claim", steps={"claim": StepDef(name="claim", kind="set_status", params=params)}
    )


async def measure_kind(kind: str, directory: Path, count: int, at_work: int) -> dict[str, float]:
    """Percent of a core between changes, and what a round and a write cost."""
    offered, claimed = WORDS[kind]
    async with catalogue_of(kind, directory, count) as catalogue:
        clock = Clock()
        store = Store(directory / f"{kind}.db", clock, outputs_of)
        await store.open()
        try:
            world: Any = SimpleNamespace(clock=clock, catalogue=catalogue)
            pipeline = _pipeline(claimed)
            engine = Engine(store, world, DEEDS, clock)
            reactor = Reactor(
                store,
                {SetStatus.kind: SetStatus()},
                Pipelines({"claim": pipeline}),
                clock,
                pools={},
                shown={},
                select=(offered,),
                field_pipeline="claim",
                max_fields=at_work,
            )
            watcher = Fields(world, store, POLL_S)
            whole_s = await _cost(watcher._read, 1)
            await store.admit(pipeline, (offered,), at_work)
            began = time.process_time()
            await reactor.decide_once()
            lives = await store.next_effects((), at_work)
            for live in lives:
                assert live.record.kind == WriteStatus.kind
                await engine.perform(live)
            write_s = (time.process_time() - began) / len(lives)
            changed_s = await _cost(watcher._read, 1)
            while not watcher._stamp:  # A fields file that has just been written is read until it is a little older.
                await _cost(watcher._read, 1)
            round_s = await _cost(watcher._read, ROUNDS)
        finally:
            await store.close()
    per_write = (write_s + changed_s) * at_work / WRITE_EVERY_S
    return {
        "first_s": whole_s,
        "changed_s": changed_s,
        "unchanged_ms": round_s * 1e3,
        "write_ms": write_s * 1e3,
        "between_percent": round_s / POLL_S * 100,
        "percent": (round_s / POLL_S + per_write) * 100,
    }


async def _cost(turn: Any, times: int) -> float:
    """CPU seconds of this process for one turn."""
    began = time.process_time()
    for _ in range(times):
        await turn()
    return (time.process_time() - began) / times


async def measure(directory: Path, *, quick: bool, kinds: Sequence[str] = ("csv", "own", "mysql")) -> dict[str, Any]:
    """Each kind of catalogue, with all fields of the survey."""
    count = 200 if quick else FIELDS
    log.configure("json", "info", io.StringIO())
    found: dict[str, Any] = {}
    for kind in kinds:
        place = directory / f"catalogue-{kind}"
        place.mkdir()
        try:
            found[kind] = await measure_kind(kind, place, count, AT_WORK)
        except MariaDbMissing as error:
            found[kind] = {"missing": str(error)}
    return {"fields": count, "at_work": AT_WORK, "poll_s": POLL_S, "write_every_s": WRITE_EVERY_S, "kinds": found}
