"""What a person's command would change: computed by reading alone, shown before, and computed again when it is carried out.

What must stay true: the version of a plan is that of what it would change and of nothing else, so that a command is
refused when the ground has moved under it, and not because some other step went on.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec
from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.model import Json, StepState
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.rows import dumps, is_forgotten

MAX_TARGETS = 2_000
"""Runs that one command may change."""
MAX_CHANGED = 10
"""Changes that are told when a command comes too late."""
STATES = ("running", "failed", "cancelled", "archived")
WILD = frozenset("*?[")

GraphOf = Callable[[str, bytes], Any]
"""(digest, stored definition) → the pipeline that a run keeps."""


class Order(Struct, frozen=True):
    """A person's command. `steps`: where a retry begins, or the one that is skipped or done; `outputs` are those of a done one."""

    verb: Literal["cancel", "retry", "skip", "done"]
    targets: tuple[str, ...] = ()
    state: str = ""
    steps: tuple[str, ...] = ()
    outputs: dict[str, Json] = {}


class Touch(Struct, frozen=True):
    """One step that is changed: from which state it comes, and what it becomes."""

    step: str
    attempt: int
    state: str
    becomes: str
    note: str = ""


class RunPlan(Struct, frozen=True):
    """What is changed in one run. `why`: why this run, if the command does not name it."""

    run: str
    field: str
    state: str
    becomes: str
    touches: tuple[Touch, ...]
    why: str = ""
    start: tuple[str, ...] = ()
    """The steps from which the others follow."""


class Plan(Struct, frozen=True):
    """All that a command changes; `left`: what it leaves alone although a pattern names it, each with the reason."""

    version: str
    runs: tuple[RunPlan, ...]
    left: dict[str, str] = {}


class Refused(AglowError):
    """The command makes no sense for this run; the text says why, and what does."""


class Changed(AglowError):
    """What the command would change is not what it was when somebody looked."""


def version_of(db: sqlite3.Connection, runs: Iterable[RunPlan]) -> str:
    """Which events are in it, and what it would change: the first tells what has come since, the second whether it matters."""
    last = journal.last_event(db)
    told = dumps([[one.run, [(t.step, t.attempt, t.state, t.becomes) for t in one.touches]] for one in runs])
    return f"{last}-{hashlib.blake2b(told.encode(), digest_size=8).hexdigest()}"


def check_version(db: sqlite3.Connection, plan: Plan, version: str, before: Iterable[str]) -> None:
    """Changed, with what has changed, unless the plan is the one of that version. `before`: runs that may have changed."""
    since, _, digest = version.partition("-")
    if not version or plan.version.partition("-")[2] == digest:
        return
    if not since.isdecimal() or len(since) > 18:
        raise AglowError(f"{version[:40]!r} is no version; expected one that a dry run gave")
    runs = [*dict.fromkeys([*(one.run for one in plan.runs), *before])]
    rows = db.execute(queries()["events_of_runs_since"], {"since": int(since), "runs": dumps(runs)}).fetchall()
    told = [f"{row['run']}{'/' if row['step'] else ''}{row['step']} {row['kind']}" for row in rows]
    more = f" and {len(told) - MAX_CHANGED} more" if len(told) > MAX_CHANGED else ""
    what = ", ".join(told[-MAX_CHANGED:]) + more or "other runs are named now"
    raise Changed(f"it has changed since you looked: {what}; look again, then decide")


# --- which runs are meant


def find_runs(db: sqlite3.Connection, targets: Iterable[str], state: str) -> tuple[list[sqlite3.Row], bool]:
    """The runs that are meant, and whether each was named exactly; AglowError if a name is nobody's.

    A field, an order or shared work stands for its latest run; a run's own id for that run; `*`, `?` and `[]` are patterns.
    """
    listed = tuple(targets)
    exact = bool(listed) and not state and not any(WILD & set(name) for name in listed)
    if not listed and not state:
        raise AglowError("name a field, a run or a pattern, or a state")
    found: dict[str, sqlite3.Row] = {}
    for name in listed or ("*",):
        runs = _matching(db, name)
        if not runs:
            raise AglowError(
                f"there is no field and no run {name[:200]!r} with anything to change; see aglowctl fields"
            )
        found.update({run["id"]: run for run in runs})
    if state:
        found = {key: run for key, run in found.items() if _state_of(db, run) == state}
        if not found:
            raise AglowError(f"none of them is {state}")
    if len(found) > MAX_TARGETS:
        raise AglowError(f"{len(found)} runs are meant; expected at most {MAX_TARGETS}: name a narrower pattern")
    return list(found.values()), exact


def _matching(db: sqlite3.Connection, name: str) -> list[sqlite3.Row]:
    if not WILD & set(name):
        run = db.execute(queries()["get_run"], {"run": name}).fetchone()
        run = run or db.execute(queries()["latest_top_run"], {"field": name}).fetchone()
        return [] if run is None or is_forgotten(run) else [run]
    names = [row["field"] for row in db.execute(queries()["names_with_runs"])]
    latest = (
        db.execute(queries()["latest_top_run"], {"field": field}).fetchone()
        for field in names
        if fnmatchcase(field, name)
    )
    return [run for run in latest if run is not None]


def _state_of(db: sqlite3.Connection, run: sqlite3.Row) -> str:
    is_catalogued = db.execute(queries()["get_field"], {"name": run["field"]}).fetchone() is not None
    return "archived" if run["state"] == "done" and is_catalogued else str(run["state"])


# --- what stands there


def steps_of(db: sqlite3.Connection, run: str) -> dict[str, sqlite3.Row]:
    """The run's steps by name."""
    return {row["name"]: row for row in db.execute(queries()["steps_of_run"], {"run": run}).fetchall()}


def states_of(steps: dict[str, sqlite3.Row]) -> dict[str, StepState]:
    """The states of these steps."""
    return {name: StepState(row["state"]) for name, row in steps.items()}


def graph_of_run(db: sqlite3.Connection, run: sqlite3.Row, graph_of: GraphOf) -> Any:
    """The pipeline that the run keeps; Refused if nobody can read it any more."""
    row = db.execute(queries()["get_pipeline"], {"digest": run["pipeline"]}).fetchone()
    try:
        return graph_of(run["pipeline"], str(row["definition"]).encode())
    except msgspec.DecodeError as error:
        raise Refused(f"the pipeline that {run['id']} keeps cannot be read: {error}") from error
