"""Schedules: what is due begins. Each function runs inside one transaction.

What must stay true: a run that begins and the time of the next one are written together, so that no crash begins a run
twice or not at all; a schedule has one run at once; however many times were missed, one run makes up for them. A schedule's
next time stands in `cursors`: it is where the schedule was left.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from aglowd.model import Json
from aglowd.schedules import Schedule, next_time
from aglowd.store import runs
from aglowd.store.db import queries
from aglowd.store.rows import Changes, dumps, loads

CURSOR = "schedule "
"""What the names of the cursors begin with."""
KEY = "schedule/"
"""What the keys of the runs begin with, and by which name people ask for them: no field is called so."""


class Planned(Struct, frozen=True):
    """A pipeline with its schedule."""

    graph: Any  # Graph: msgspec cannot hold a protocol.
    schedule: Schedule

    @property
    def name(self) -> str:
        """The pipeline's."""
        return str(self.graph.name)


def begin_due(db: sqlite3.Connection, planned: Iterable[Planned], now: float, changes: Changes) -> float | None:
    """Begin what is due and not under way; returns when the next one will be, or None. What is not planned is forgotten."""
    times = []
    names = []
    for one in planned:
        names.append(one.name)
        times.append(_keep(db, one, now, changes))
    db.execute(queries()["drop_cursors"], {"prefix": CURSOR, "names": dumps([CURSOR + name for name in names])})
    return min((at for at in times if at > now), default=None)


def _keep(db: sqlite3.Connection, one: Planned, now: float, changes: Changes) -> float:
    """Begin the schedule's run if its time has come; returns its next time."""
    row = db.execute(queries()["get_cursor"], {"source": CURSOR + one.name}).fetchone()
    kept: dict[str, Json] = {"run": "", "begun": None} if row is None else loads(row["value"])
    if kept.get("rule") != one.schedule.rule:
        # A rule that is new or changed counts from now on: its times before that were nobody's.
        return _write(db, one, {**kept, "rule": one.schedule.rule, "next": next_time(one.schedule, now)})
    due = float(kept["next"])
    if due > now or db.execute(queries()["running_key"], {"key": KEY + one.name}).fetchone() is not None:
        return due  # Of a run that is under way, the end rings a bell.
    at = next_time(one.schedule, now)
    run = runs.start(
        db,
        one.graph,
        key=KEY + one.name,
        field=KEY + one.name,
        params=one.schedule.params,
        context={"name": KEY + one.name, "last": _last(db, one.name)},
        now=now,
        changes=changes,
        because=("Scheduled", {"rule": one.schedule.rule, "due": due, "next": at}),
    )
    return _write(db, one, {**kept, "next": at, "run": run, "begun": now})


def _write(db: sqlite3.Connection, one: Planned, kept: dict[str, Json]) -> float:
    db.execute(queries()["set_cursor"], {"source": CURSOR + one.name, "value": dumps(kept)})
    return float(kept["next"])


def _last(db: sqlite3.Connection, name: str) -> dict[str, Json]:
    """What the schedule's last run that was done left to the next one."""
    row = db.execute(queries()["last_done"], {"key": KEY + name}).fetchone()
    if row is None:
        return {"run": "", "ended": None, "outputs": {}}
    return {"run": row["id"], "ended": row["ended"], "outputs": loads(row["outputs"])}


def list_schedules(db: sqlite3.Connection) -> list[dict[str, Json]]:
    """Each schedule with its rule and its next time, and how its last run went, if it had one."""
    found = []
    for row in db.execute(queries()["cursors_like"], {"prefix": CURSOR}).fetchall():
        name = str(row["source"]).removeprefix(CURSOR)
        kept = loads(row["value"])
        run = db.execute(queries()["get_run"], {"run": kept["run"]}).fetchone()
        told = {key: None if run is None else run[key] for key in ("state", "reason", "ended")}
        found.append({"pipeline": name, "field": KEY + name, **kept, **told})
    return found
