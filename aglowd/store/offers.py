"""Fields on offer: which of them are taken, and what a preview says of each. Each function runs inside a transaction.

What must stay true: `list_candidates` shows exactly what `admit` would do in the same state: both ask `_judge`. Who asks
about many fields makes all of them be judged once, and not once for each.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from aglowd.model import Json
from aglowd.selection import Candidate, Limits, Verdict, select
from aglowd.store import journal, pauses, runs
from aglowd.store.db import queries
from aglowd.store.rows import Changes, loads
from aglowd.store.runs import Graph


class Intake(Struct, frozen=True):
    """What the configuration says of taking fields: in which statuses, and how many."""

    statuses: tuple[str, ...]
    limits: Limits


def admit(db: sqlite3.Connection, graph: Graph, intake: Intake, now: float, changes: Changes) -> int:
    """Start runs for fields on offer; a row with a problem ends as failed. Returns how many."""
    rows, verdicts, _ = _judge(db, intake)
    for verdict in verdicts:
        row = rows[verdict.name]
        if verdict.is_taken:
            field = db.execute(queries()["get_field"], {"name": verdict.name}).fetchone()
            context = {"name": verdict.name, "status": row["status"], "site": row["site"], **loads(field["data"])}
            changed = db.execute(queries()["last_change_of_field"], {"field": verdict.name}).fetchone()
            changes.cause = 0 if changed is None else changed["id"]
            run = runs.start(
                db, graph, key=verdict.name, field=verdict.name, params={}, context=context, now=now, changes=changes
            )
            db.execute(queries()["take_field"], {"name": verdict.name, "run": run})
        elif verdict.is_refused:
            _refuse(db, row, verdict.why, now)
    # What was refused by a configuration that has been mended since, or is on offer no more, is told as what it is.
    for verdict in verdicts:
        if rows[verdict.name]["refused"] and not verdict.is_taken and not verdict.is_refused:
            db.execute(queries()["refuse_field"], {"name": verdict.name, "why": ""})
    return sum(verdict.is_taken for verdict in verdicts)


def list_candidates(db: sqlite3.Connection, intake: Intake) -> dict[str, Json]:
    """All fields without a run, in the order in which they would be taken now, each with why it is not."""
    rows, verdicts, running = _judge(db, intake)
    return {
        "candidates": [
            {
                "field": verdict.name,
                "status": rows[verdict.name]["status"],
                "priority": [rows[verdict.name]["priority"], rows[verdict.name]["field_priority"]],
                "site": rows[verdict.name]["site"],
                "starts": verdict.is_taken,
                "queued": verdict.is_next,
                "reason": verdict.why,
            }
            for verdict in verdicts
        ],
        "running": dict(running),
        "max_fields": intake.limits.total,
        "fields_at_once": dict(intake.limits.sites or {}),
    }


class Preview:
    """What `list_candidates` says, kept until something is committed."""

    def __init__(self) -> None:
        self._at: tuple[sqlite3.Connection, int, Intake] | None = None
        self._told: dict[str, Json] = {}

    def list(self, db: sqlite3.Connection, intake: Intake) -> dict[str, Json]:
        """The same, on a connection by which nothing is written: it is SQLite that tells whether others have committed."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if (db, version, intake) != self._at:
            self._told = list_candidates(db, intake)
            self._at = (db, version, intake)
        return self._told


def _judge(
    db: sqlite3.Connection, intake: Intake
) -> tuple[dict[str, sqlite3.Row], tuple[Verdict, ...], Mapping[str, int]]:
    """The fields without a run, what becomes of each now, and how many run at each site."""
    running = sites_running(db)
    rows = {row["name"]: row for row in db.execute(queries()["fields_idle"])}
    held = pauses.list_pauses(db)
    candidates = [_candidate(row, intake.statuses, held) for row in rows.values()]
    return rows, select(candidates, running, intake.limits), running


def sites_running(db: sqlite3.Connection) -> dict[str, int]:
    """Site → fields that are under way there; "" = where nobody knows yet."""
    return {row["site"]: row["n"] for row in db.execute(queries()["sites_running"])}


def _candidate(row: sqlite3.Row, statuses: Collection[str], held: Sequence[dict[str, Json]]) -> Candidate:
    return Candidate(
        name=row["name"],
        priority=(row["priority"], row["field_priority"]),
        site=row["site"],
        hindrance=_hindrance(row, statuses) or pauses.why_closed(held, row["name"], row["site"]),
        problem=row["problem"] if row["is_new"] else "",
    )


def _hindrance(row: sqlite3.Row, statuses: Collection[str]) -> str:
    """Why the field is not on offer at all, or ''. The first reason that applies is told."""
    if row["status"] not in statuses:
        return f"its status is {row['status']}, and only {', '.join(statuses)} are taken"
    if not row["is_new"]:
        return (
            row["problem"]
            or f"its last run is over ({row['run_state']}), and its row in the catalogue has not changed since"
        )
    return ""


def _refuse(db: sqlite3.Connection, row: sqlite3.Row, why: str, now: float) -> None:
    """Told once. A row that is wrong waits for its next change; one that only the configuration does not know does not."""
    if row["problem"]:
        db.execute(queries()["field_seen"], {"name": row["name"]})
    elif row["refused"] == why:
        return
    else:
        db.execute(queries()["refuse_field"], {"name": row["name"], "why": why})
    journal.add_event(db, now, "FieldRefused", field=row["name"], data={"reason": why})
