"""What people hold: a field, a kind of step, a site, or everything. Each function runs inside a transaction.

What must stay true: a step that is paused decides nothing new, and what it has under way ends; the time that a pause
takes is not taken from a step's timeout; whatever is held says by whom, since when and why.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from aglowd.choice import Choice, check_number
from aglowd.clock import iso
from aglowd.errors import AglowError
from aglowd.model import Json
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.doubts import Word
from aglowd.store.meant import names_to_hold
from aglowd.store.plans import planned, version_of
from aglowd.store.rows import Changes, dumps

EVERYTHING = "everything"
EVENTS = {"pause": "Paused", "drain": "Drained", "resume": "Resumed"}
MAX_PAUSES = 2_000
"""Things that are held at once."""


class Hold(Struct, frozen=True):
    """What is held: `scope` is everything, field, kind or site."""

    scope: Literal["everything", "field", "kind", "site"]
    name: str = ""

    def __str__(self) -> str:
        return self.scope if self.scope == EVERYTHING else f"{self.scope} {self.name}"


def list_pauses(db: sqlite3.Connection) -> list[dict[str, Json]]:
    """All that is held."""
    return [dict(row) for row in db.execute(queries()["list_pauses"])]


class Holding(Struct, frozen=True):
    """All that a command holds or lets go: each with how it is held now."""

    version: str
    holds: tuple[dict[str, Json], ...]


def plan(db: sqlite3.Connection, verb: str, holds: Iterable[Hold], fields: Choice | None = None) -> Holding:
    """What is meant: these, and fields; AglowError if nothing of it is to be changed."""
    held = {(one["scope"], one["name"]): one for one in list_pauses(db)}
    gone = [name for scope, name in held if scope == "field" and verb == "resume"]
    named = [] if fields is None else [Hold("field", name) for name in names_to_hold(db, fields, gone)]
    check_number(len(named), "fields")
    told = tuple(
        {"scope": one.scope, "name": one.name, "mode": (held.get((one.scope, one.name)) or {}).get("mode", "")}
        for one in (*named, *holds)
    )
    if verb == "resume" and not any(one["mode"] for one in told):
        names = ", ".join(f"{Hold(*key)} ({one['mode']})" for key, one in held.items()) or "nothing"
        raise AglowError(f"nothing of that is held; held is: {names}")
    if all(one["mode"] == verb for one in told):
        raise AglowError(f"{', '.join(str(Hold(one['scope'], one['name'])) for one in told)}: held like that already")
    then = len(held.keys() | {(one["scope"], one["name"]) for one in told})
    if verb != "resume" and then > MAX_PAUSES:
        raise AglowError(f"{then} things would be held, {len(held)} are; expected at most {MAX_PAUSES}")
    return Holding(version_of(db, told), told)


def carry_out(
    db: sqlite3.Connection,
    verb: str,
    holds: Sequence[Hold],
    fields: Choice | None,
    version: str,
    word: Word,
    now: float,
    changes: Changes,
) -> Holding:
    """Pause, drain or resume, if the plan still is the one of that version; each is an event. Changed if it is not."""
    made = planned(lambda: plan(db, verb, holds, fields), version, lambda since, _: _changes(db, fields, since))
    for one in made.holds:
        at = {"scope": one["scope"], "name": one["name"]}
        if one["mode"] == verb or (verb == "resume" and not one["mode"]):
            continue
        if one["mode"] == "pause":
            _lift(db, at, now)
        if verb == "resume":
            db.execute(queries()["drop_pause"], at)
        else:
            values = {**at, "mode": verb, "now": now, "uid": word.uid, "reason": word.reason}
            db.execute(queries()["set_pause"], values)
        field = one["name"] if one["scope"] == "field" else ""
        data = {**at, "uid": word.uid, "reason": word.reason}
        journal.add_event(db, now, EVENTS[verb], field=field, data=data)
    db.execute(queries()["mark_queued"], {"now": now})  # Whose turn it was is asked again: some were passed over.
    changes.dirty = changes.fields = True
    changes.wake(now)
    return made


def _changes(db: sqlite3.Connection, fields: Choice | None, since: int) -> list[str]:
    """What was held or let go after that event, and what has become of these fields, in words."""
    names = [] if fields is None else names_to_hold(db, fields.in_any_state(), ())
    rows = db.execute(queries()["events_of_holds_since"], {"since": since, "fields": dumps(names)}).fetchall()
    return [f"{row['name']} {row['kind']}" for row in rows]


def _lift(db: sqlite3.Connection, at: dict[str, Json], now: float) -> None:
    """Give the steps that nothing else holds the time back that the pause took from their timeouts."""
    pause = next(one for one in list_pauses(db) if (one["scope"], one["name"]) == (at["scope"], at["name"]))
    for row in db.execute(queries()["held_by"], at).fetchall():
        here = {"run": row["run"], "step": row["name"]}
        if len(db.execute(queries()["is_held"], here).fetchall()) == 1:
            by_s = now - max(pause["since"], row["started"] or 0.0)
            db.execute(queries()["lengthen_deadline"], {**here, "by_s": by_s})


def text_of(pause: dict[str, Json] | sqlite3.Row) -> str:
    """`paused with site sara since … by uid 1000: maintenance`."""
    what = {"everything": "", "field": ""}.get(pause["scope"], f" with {pause['scope']} {pause['target']}")
    mode = "paused" if pause["mode"] == "pause" else "drained"
    why = f": {pause['reason']}" if pause["reason"] else ""
    return f"{mode}{what} since {iso(pause['since'])} by uid {pause['uid']}{why}"


def why_held(db: sqlite3.Connection, run: str, step: str) -> str:
    """By what the step is held, or ''."""
    rows = db.execute(queries()["is_held"], {"run": run, "step": step}).fetchall()
    return "; ".join(map(text_of, rows))


def how_resumed(db: sqlite3.Connection, run: str, step: str) -> str:
    """The commands that let the step go on, or ''."""
    return _resumes(db.execute(queries()["is_held"], {"run": run, "step": step}).fetchall())


def why_closed(held: Iterable[dict[str, Json]], field: str, site: str) -> str:
    """Why no run of that field may begin by itself now, because it, its site or everything is paused or drained; or ''."""
    return "; ".join(map(text_of, _closing(held, field, site)))


def how_opened(held: Iterable[dict[str, Json]], field: str, site: str) -> str:
    """The commands that let a run of that field begin, or ''."""
    return _resumes(_closing(held, field, site))


def _closing(held: Iterable[dict[str, Json]], field: str, site: str) -> list[dict[str, Json]]:
    return [
        {**one, "target": one["name"]}
        for one in held
        if one["scope"] == EVERYTHING or (one["scope"], one["name"]) in (("field", field), ("site", site))
    ]


def _resumes(holds: Iterable[dict[str, Json] | sqlite3.Row]) -> str:
    """A command for each: who lifts one hold may well mean to leave another."""
    options = {EVERYTHING: "--everything", "field": "{}", "kind": "--kind {}", "site": "--site {}"}
    return " and ".join(f"aglowctl resume {options[one['scope']].format(one['target'])}" for one in holds)
