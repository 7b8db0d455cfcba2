"""Runs of fields that a person begins by hand, also where another program left off. Each function runs inside a transaction.

What must stay true: none is begun by hand while a run of the field is at work; who began it, and why, is an event (G9);
a run under another pipeline than the catalogue's stands beside the field's own run, and takes nothing from it; of a
field that is taken over, what is done is said in the commit that begins its run, so that nothing of that is done again.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.model import Json
from aglowd.selection import Limits, why_full
from aglowd.store import pauses, runs
from aglowd.store.db import queries
from aglowd.store.doubts import Word
from aglowd.store.lineage import ADOPTED, TAKEN_FROM
from aglowd.store.offers import sites_running
from aglowd.store.rows import Changes, loads
from aglowd.store.runs import Graph


class Left(Struct, frozen=True):
    """A field as another program left it: the status that its row must still have, and the steps that are done → outputs.

    `site`: where it is said to lie, "" = as the catalogue says. `of`: the daemon, gone for good, that holds it; "" = none does.
    """

    field: str
    status: str
    done: Mapping[str, dict[str, Json]]
    site: str = ""
    of: str = ""


def take_over(
    db: sqlite3.Connection, graph: Graph, left: Left, limits: Limits, word: Word, now: float, changes: Changes
) -> str:
    """Begin the field's own run where the other program left off; AglowError if its row says something else by now.

    What is done stands in the run's context: each of these steps ends in its turn, as if it had been done here.
    """
    context = may_take_over(db, left.field, left.site)
    if why := why_full(left.site or context["site"], Counter(sites_running(db)), limits):
        raise AglowError(why)
    if context["status"] != left.status:
        raise AglowError(f"{left.field} is in status {context['status']!r} now, not {left.status!r}")
    context |= {ADOPTED: dict(left.done), TAKEN_FROM: left.of}
    data = {"uid": word.uid, "reason": word.reason, "status": left.status, "steps": list(left.done), "of": left.of}
    return _begin(db, graph, left.field, {}, context, "FieldAdopted", data, now, changes, takes=True)


def may_take_over(db: sqlite3.Connection, field: str, site: str) -> dict[str, Json]:
    """What pipelines see of the field; AglowError if no run of it may begin, as it, that site ("" = as the catalogue says) or
    everything is drained."""
    context = field_context(db, field)
    drained = [one for one in pauses.list_pauses(db) if one["mode"] == "drain"]
    at = site or context["site"]
    if why := pauses.why_closed(drained, field, at):
        raise AglowError(f"{why}; {pauses.how_opened(drained, field, at)} lets it begin")
    return context


def by_hand(
    db: sqlite3.Connection,
    graph: Graph,
    field: str,
    params: Json,
    data: dict[str, Json],
    now: float,
    changes: Changes,
    *,
    takes: bool,
) -> str:
    """Begin a run of a field because somebody says so; AglowError if the field is nobody's, wrong, or at work.

    `takes`: the run is the field's own, as one that begins by itself; else it stands beside it.
    """
    return _begin(db, graph, field, params, field_context(db, field), "RunOrdered", data, now, changes, takes=takes)


def _begin(
    db: sqlite3.Connection,
    graph: Graph,
    field: str,
    params: Json,
    context: dict[str, Json],
    event: str,
    data: dict[str, Json],
    now: float,
    changes: Changes,
    *,
    takes: bool,
) -> str:
    running = db.execute(queries()["field_runs"], {"field": field}).fetchone()
    if running is not None:
        raise AglowError(f"{field} is at work already; wait for its end, or cancel it: aglowctl cancel {field}")
    key = key_by_hand(graph, field, takes=takes)
    run = runs.start(
        db,
        graph,
        key=key,
        field=field,
        params=params,
        context=context,
        now=now,
        changes=changes,
        because=(event, {**data, "pipeline": graph.name}),
    )
    if takes:
        db.execute(queries()["take_field"], {"name": field, "run": run})
    return run


def key_by_hand(graph: Graph, field: str, *, takes: bool) -> str:
    """The key of a run that is begun by hand."""
    return field if takes else f"{field}@{graph.name}"


def field_context(db: sqlite3.Connection, field: str) -> dict[str, Json]:
    """What pipelines see of the field; AglowError if the catalogue has none of that name, or no good row of it."""
    row = db.execute(queries()["get_field"], {"name": field}).fetchone()
    if row is None:
        raise AglowError(f"the field {field[:200]!r} is not in the catalogue; see aglowctl fields")
    if row["problem"]:
        raise AglowError(f"{field}: {row['problem']}; correct the catalogue first")
    return {"name": field, "status": row["status"], "site": row["site"], **loads(row["data"])}
