"""What a person's command would change: computed by reading alone, shown before, and computed again when it is carried out.

What must stay true: the version of a plan is that of what it would change and of nothing else, so that a command is
refused when the ground has moved under it, and not because some other step went on.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import Struct

from aglowd.choice import Choice
from aglowd.errors import AglowError
from aglowd.model import Json, StepState
from aglowd.store import journal
from aglowd.store.db import queries
from aglowd.store.rows import dumps

MAX_CHANGED = 10
"""Changes that are told when a command comes too late."""


class Versioned(Protocol):
    """What is planned, whatever it is about."""

    @property
    def version(self) -> str: ...


P = TypeVar("P", bound=Versioned)
GraphOf = Callable[[str, bytes], Any]
"""(digest, stored definition) → the pipeline that a run keeps."""


class Order(Struct, frozen=True):
    """A person's command. `steps`: where a retry begins, or the one that is skipped or done; `outputs` are those of a done one."""

    verb: Literal["cancel", "retry", "skip", "done"]
    targets: tuple[str, ...] = ()
    state: str = ""
    steps: tuple[str, ...] = ()
    outputs: dict[str, Json] = {}

    @property
    def choice(self) -> Choice:
        """Of which runs."""
        return Choice(self.targets, self.state)


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


def version_of(db: sqlite3.Connection, told: Json) -> str:
    """Which events are in it, and what it would change: the first tells what has come since, the second whether it matters."""
    return f"{journal.last_event(db)}-{hashlib.blake2b(dumps(told).encode(), digest_size=8).hexdigest()}"


def check_version(made: str, version: str, changes: Callable[[int], list[str]]) -> None:
    """Changed, with what has changed, unless what was made is of that version ("" = of any). `changes`: those since an event."""
    since, _, digest = version.partition("-")
    if not version or made.partition("-")[2] == digest:
        return
    if not since.isdecimal() or len(since) > 18:
        raise AglowError(f"{version[:40]!r} is no version; expected one that a dry run gave")
    told = changes(int(since))
    more = f" and {len(told) - MAX_CHANGED} more" if len(told) > MAX_CHANGED else ""
    what = ", ".join(told[-MAX_CHANGED:]) + more or "others are named now"
    raise Changed(f"it has changed since you looked: {what}; look again, then decide")


def planned(plan: Callable[[], P], version: str, changes: Callable[[int, P | None], list[str]]) -> P:
    """The plan, if it still is the one of that version ("" = whatever it is now); Changed if it is not, or can be no more.

    `changes`: those since an event, told by the plan, None = there can be none now.
    """
    try:
        made = plan()
    except AglowError:
        check_version("", version, lambda since: changes(since, None))
        raise
    check_version(made.version, version, lambda since: changes(since, made))
    return made


def changes_of_runs(db: sqlite3.Connection, runs: Iterable[str], since: int) -> list[str]:
    """What has become of these runs after that event, in words."""
    values = {"since": since, "runs": dumps(list(dict.fromkeys(runs)))}
    rows = db.execute(queries()["events_of_runs_since"], values).fetchall()
    return [f"{row['run']}{'/' if row['step'] else ''}{row['step']} {row['kind']}" for row in rows]


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
