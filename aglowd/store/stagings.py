"""Stagings that people ask for: runs of their own, beside those of the fields. Each function runs inside a transaction.

What must stay true: a file is in one running staging at most, so that however often and by however many a list is asked
for, its files are asked for once. A staging's name begins with a prefix that no field of a catalogue can have.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.model import Json
from aglowd.store import journal, runs, views
from aglowd.store.db import queries
from aglowd.store.rows import Changes, loads, run_of
from aglowd.store.runs import Graph

PREFIX = "stage/"
MAX_STAGINGS = 100
"""Stagings in one answer, the latest."""


class Wanted(Struct, frozen=True):
    """Files of one site that shall be online; `lifetime_s` is how long the site pins them."""

    name: str
    site: str
    surls: tuple[str, ...]
    lifetime_s: float


def begin(
    db: sqlite3.Connection, graph: Graph, wanted: Sequence[Wanted], uid: int, now: float, changes: Changes
) -> list[dict[str, Json]]:
    """Start a run for each, or join the one that stages all of its files already. AglowError, and then nothing begins,
    if only some of them are being staged, or if the name is that of other files that are."""
    running = [run_of(row) for row in db.execute(queries()["stagings_running"], {"like": f"{PREFIX}*"})]
    files = {run.id: frozenset(run.params["surls"]) for run in running}
    begun = []
    for one in wanted:
        field = f"{PREFIX}{one.name}"
        data = {"site": one.site, "files": len(one.surls), "uid": uid}
        joined = next((run for run in running if files[run.id].issuperset(one.surls)), None)
        if joined is None:
            for run in running:
                if common := [surl for surl in one.surls if surl in files[run.id]]:
                    raise AglowError(
                        f"{len(common)} of the {len(one.surls)} files at {one.site} are being staged by {run.field}, "
                        f"{common[0]} among them; ask for the others alone, or wait until it has ended"
                    )
                if run.field == field:
                    raise AglowError(f"{field} stages other files now; give the list another name, or wait for its end")
            context = {"name": one.name, "site": one.site, "files": len(one.surls), "lifetime_s": one.lifetime_s}
            params = {"surls": list(one.surls)}
            data = {**data, "joined": False}
            run_id = runs.start(
                db,
                graph,
                key=field,
                field=field,
                params=params,
                context=context,
                now=now,
                changes=changes,
                because=("StagingOrdered", data),
            )
        else:
            field, run_id = joined.field, joined.id
            data = {**data, "joined": True}
            journal.add_event(db, now, "StagingOrdered", field=field, run=run_id, data=data)
        begun.append({"name": field.removeprefix(PREFIX), "field": field, "run": run_id, **data})
    return begun


def list_stagings(db: sqlite3.Connection, name: str) -> list[dict[str, Json]]:
    """How the stagings of that name, or all, stand; the latest first.

    `counts`: how many files were where at the last look. `pinned_until`: when the first of the pins may end, as the site
    is known to pin; None as long as nobody knows, and if nothing had to be asked for.
    """
    like = f"{PREFIX}{_literal(name) or '*'}"
    return [_staging(db, row) for row in db.execute(queries()["stagings"], {"like": like, "most": MAX_STAGINGS})]


def list_packed(db: sqlite3.Connection) -> list[str]:
    """Under which names stagings are packed, as far as they may be among the latest."""
    rows = db.execute(queries()["archived_stagings"], {"like": f"{PREFIX}*", "most": MAX_STAGINGS})
    return [row["field"] for row in rows]


def _literal(name: str) -> str:
    """The name as GLOB reads it letter by letter."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _staging(db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, Json]:
    context, outputs = loads(row["context"]), loads(row["outputs"])
    counts = loads(row["counts"]) or {}
    staged = bool(outputs.get("requests"))
    field = views.field_of(db, row)
    return {
        "name": context["name"],
        **{key: field[key] for key in ("field", "run", "state", "reason", "ended")},
        "since": row["created"],
        "site": context["site"],
        "files": context["files"],
        "online": counts.get("ONLINE", 0),
        "counts": counts,
        "missing": outputs.get("missing", []),
        "requests": outputs.get("requests", []),
        "pinned_until": outputs["since"] + context["lifetime_s"] if staged else None,
    }
