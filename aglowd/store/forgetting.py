"""Forgets runs that nobody needs any more: their steps, what was seen for them, their outputs. Each function runs inside a transaction.

What must stay true: a run is forgotten only when it has ended and holds nothing outside; its row stays as a tombstone under
a key that is nobody's, so that its id is not given again and no other run takes it for work that is done; so do the keys and
results of its effects, by which requests, jobs and tokens are known to be ours. Events stay. Who did it, and why, is an event.
"""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from aglowd.choice import Choice, check_number
from aglowd.durations import duration_text
from aglowd.model import Json, RunState
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.doubts import Word
from aglowd.store.meant import runs_by_id
from aglowd.store.plans import Refused, changes_of_runs, planned, version_of
from aglowd.store.rows import dumps, loads

STAGES, RELEASES, SUBMITS = "stage_files", "release_files", "submit_jobs"
"""The kinds of effects that take hold of something outside, and that give it back."""
UNTOLD_S = 60 * 86_400.0
"""World seconds after which a job that nobody can tell of counts as ended, as when its site has another system now. Nor does the
audit look back farther."""


class Loss(Struct, frozen=True, forbid_unknown_fields=True):
    """A run that would be forgotten, and how much goes with it."""

    run: str
    field: str
    state: str
    ended: float
    steps: int
    effects: int


class Forgetting(Struct, frozen=True):
    """All that a command forgets; `left`: what it leaves alone although a pattern names it, each with the reason."""

    version: str
    runs: tuple[Loss, ...]
    left: dict[str, str] = {}


def plan(db: sqlite3.Connection, choice: Choice, pinned_s: float, now: float) -> Forgetting:
    """What would be forgotten, by reading alone; AglowError if that is nothing. `pinned_s`: how long sites pin files."""
    found: list[Loss] = []
    left: dict[str, str] = {}
    meant = runs_by_id(db, choice)
    check_number(len(meant))
    for row in meant:
        why = _why_last(db, row) or why_needed(db, row, pinned_s, now)
        if why and row["id"] in choice.names and not choice.state:
            raise Refused(f"{row['id']} is not forgotten: {why}")
        if why:
            left[row["id"]] = why
        else:
            (steps,) = db.execute(queries()["count_steps_of"], {"run": row["id"]}).fetchone()
            (effects,) = db.execute(queries()["count_effects_of"], {"run": row["id"]}).fetchone()
            found.append(Loss(row["id"], row["field"], row["state"], row["ended"], steps, effects))
    if not found:
        first = next(iter(left.items()), None)
        raise Refused(f"nothing is to be forgotten: {f'{first[0]}: {first[1]}' if first else 'no run is meant'}")
    told = [[one.run, one.state, one.ended, one.effects] for one in found]
    return Forgetting(version_of(db, told), tuple(found), left)


def _why_last(db: sqlite3.Connection, row: sqlite3.Row) -> str:
    """Why a schedule's run must stay, '' if it may go or is none."""
    if row["field"].startswith("schedule/"):
        last = db.execute(queries()["last_done"], {"key": row["key"]}).fetchone()
        if last is not None and last["id"] == row["id"]:
            return f"it is the last of {row['field']} that was done, and the next one begins from its outputs"
    return ""


def why_needed(db: sqlite3.Connection, row: sqlite3.Row, pinned_s: float, now: float) -> str:
    """Why the run is still needed: it, or somebody, is at work with it, or it holds something outside. '' if it is not."""
    at = {"run": row["id"]}
    if row["state"] == RunState.RUNNING:
        return f"it is running; cancel it first: aglowctl cancel {row['id']}"
    live = db.execute(queries()["live_effects_of"], at).fetchone()
    if live is not None:
        return f"the effect {live['key']} is {live['state']}; wait for its end, or settle it: aglowctl doubt"
    finding = db.execute(queries()["finding_about"], {"like": f"{row['id']}/"}).fetchone()
    if finding is not None:
        return f"the audit's finding {finding['key']} is about it; aglowctl doubt forget {finding['key']}"
    user = db.execute(
        queries()["running_users_of"], {**at, "key": row["key"], "subject": f"run:{row['key']}"}
    ).fetchone()
    if user is not None:
        return f"{user['run']} is at work and uses its outputs; wait for its end"
    return _held_outside(db, row["id"], pinned_s, now)


def _held_outside(db: sqlite3.Connection, run: str, pinned_s: float, now: float) -> str:
    for effect in db.execute(queries()["effects_of_run"], {"run": run, "kinds": dumps([STAGES, SUBMITS])}).fetchall():
        result, site = loads(effect["result"]), loads(effect["inputs"]).get("site", "")
        if effect["kind"] == STAGES:
            request, until = result.get("request"), (effect["settled"] or 0.0) + pinned_s
            if request is not None and until > now and not _is_released(db, request, site, effect["planned"]):
                return (
                    f"request {request} at {site or 'the LTA'} was not given back: its files may be pinned for another "
                    f"{duration_text(until - now)}"
                )
            continue
        for job in result.get("jobs") or [result.get("job")]:
            why = _may_live(db, job, site, now)
            if why:
                return why
    return ""


def _may_live(db: sqlite3.Connection, job: str, site: str, now: float) -> str:
    """Why the job may be alive, '' if it is not, or nobody can tell of it for so long that it is not."""
    seen = db.execute(queries()["get_subject"], {"key": f"job:{job}@{site}" if site else f"job:{job}"}).fetchone()
    data = loads(seen["data"]) if seen is not None and seen["data"] else None
    if not isinstance(data, dict) or data.get("final") is not False:
        return ""
    state, why = data.get("state", "alive"), data.get("reason", "")
    if state == "unknown":
        left_s = (seen["at"] or 0.0) + UNTOLD_S - now
        ended = f"it counts as ended in {duration_text(left_s)}"
        return f"nobody can tell of job {job}{why and f' ({why})'}; {ended}" if left_s > 0 else ""
    return (
        f"job {job} was last seen {state}; it is looked at until it has ended; to end it: "
        f"aglowctl jobs cancel {job}{site and f' --site {site}'}"
    )


def _is_released(db: sqlite3.Connection, request: Json, site: str, since: float) -> bool:
    """Whether the request was given back, by whichever run; nothing is before it was asked for."""
    found = (loads(row["inputs"]) for row in db.execute(queries()["done_of_kind"], {"kind": RELEASES, "since": since}))
    return any((one.get("request"), one.get("site", "")) == (request, site) for one in found)


def carry_out(
    db: sqlite3.Connection, choice: Choice, pinned_s: float, version: str, word: Word, now: float
) -> Forgetting:
    """Forget them, if the plan still is the one of that version ("" = whatever it is now); Changed if it is not."""

    def since_then(since: int, made: Forgetting | None) -> list[str]:
        meant = runs_by_id(db, choice.in_any_state(), even_forgotten=True)
        return changes_of_runs(db, [row["id"] for row in meant], since)

    made = planned(lambda: plan(db, choice, pinned_s, now), version, since_then)
    for one in made.runs:
        at = {"run": one.run}
        why = f"its run was forgotten by uid {word.uid}{f': {word.reason}' if word.reason else ''}"
        for name in ("forget_waits", "forget_subjects", "forget_steps", "slim_effects", "drop_from_archive"):
            db.execute(queries()[name], at)
        db.execute(queries()["bury_run"], {**at, "why": why})
        data: dict[str, Json] = {"uid": word.uid, "reason": word.reason, "state": one.state, "ended": one.ended}
        journal.add_event(db, now, "RunForgotten", field=one.field, run=one.run, data=data)
    return made
