"""What the store hands out: frozen values made of rows, and the JSON in them."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from aglowd.model import EffectRecord, EffectState, Json, RunState, Seen, StepState


class PlannedStep(Protocol):
    """What the store must know of a step of a pipeline."""

    @property
    def kind(self) -> str: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def join(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def retries(self) -> int: ...
    @property
    def retry_delay_s(self) -> float: ...
    @property
    def timeout_s(self) -> float: ...


class Run(Struct, frozen=True):
    """One execution of a pipeline. `context` is what its templates see of the field."""

    id: str
    field: str
    pipeline: str
    key: str
    params: dict[str, Json]
    context: dict[str, Json]
    state: RunState
    reason: str = ""
    outputs: dict[str, Json] = {}
    stopping: str = ""
    """Why it is being cancelled; empty while it is not."""


FORGOTTEN = "forgotten:"
"""With its own id behind it the key of a run that was forgotten (forgetting.py): no other run can have that key."""


def is_forgotten(row: sqlite3.Row) -> bool:
    """Whether the run in that row is a tombstone."""
    return bool(row["key"] == f"{FORGOTTEN}{row['id']}")


class Step(Struct, frozen=True):
    """A row of the work: times are world seconds."""

    run: str
    name: str
    kind: str
    state: StepState
    attempt: int
    version: int
    wanted: int
    priority: int
    pool: str
    reason: str
    since: float
    due: float | None
    deadline: float | None
    stopping: str
    outputs: dict[str, Json]
    base: int = 0
    """How many attempts were over when a person asked for another one."""
    started: float | None = None
    """When its attempt began, or before that the last one."""
    said: int = 0
    """The event that tells how the step stands."""
    woken: int = 0
    """The event for which it was marked since it was last decided; 0 = none, as when its time has come."""

    @property
    def cause(self) -> int:
        """The event from which a decision on it follows."""
        return self.woken or self.said


Standing = tuple[StepState, int]
"""How one of a run's steps stands: its state and attempt."""


class Work(Struct, frozen=True):
    """Everything that one decision is made from, as it was in one committed state."""

    run: Run
    step: Step
    seen: Seen
    outputs: dict[str, dict[str, Json]]
    failures: tuple[dict[str, str], ...]
    moment: int
    """Of the run: as long as it is the same, no step of the run has moved."""
    steps: Mapping[str, Standing]
    """How all steps of the run stand."""


class LiveEffect(Struct, frozen=True):
    """An effect that has not ended, with what the engine must know to go on with it."""

    record: EffectRecord
    run: str
    step: str
    field: str
    withdrawn: bool = False


class Changes(Struct):
    """What a transaction means for the others: filled inside it, acted on after its commit."""

    dirty: bool = False
    """There are steps to be decided."""
    marked: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """(run, step) of those that may be decided in this very transaction (at_once.py)."""
    effects: bool = False
    timer_at: float = math.inf
    """When the earliest of the timers is due that were set."""
    fields: bool = False
    subjects: set[str] = msgspec.field(default_factory=set)
    ended_runs: list[str] = msgspec.field(default_factory=list)
    left: list[str] = msgspec.field(default_factory=list)
    """Keys of runs for which somebody waited and waits no more."""
    cause: int = 0
    """The event from which follows what the transaction writes next; 0 = none in the log."""

    def wake(self, at: float | None) -> None:
        """A timer was set, if that is a time."""
        self.timer_at = self.timer_at if at is None else min(self.timer_at, at)

    def take(self, other: Changes) -> None:
        """What a part of the transaction means is what the transaction means; its cause is that part's own."""
        self.dirty |= other.dirty
        self.effects |= other.effects
        self.wake(other.timer_at)
        self.fields |= other.fields
        self.subjects |= other.subjects
        self.marked += other.marked
        self.ended_runs += other.ended_runs


_ENCODER, _DECODER = msgspec.json.Encoder(order="deterministic"), msgspec.json.Decoder()


def dumps(value: Any) -> str:
    """JSON text, always the same for the same value."""
    return _ENCODER.encode(value).decode()


def loads(text: str | None) -> Any:
    """The value in a JSON column; None for NULL."""
    return None if text is None else _DECODER.decode(text)


STEP_STATES = {state.value: state for state in StepState}
"""Looked up as often as rows of steps are read: an enum's own call costs many times that."""


def _by_name(row: sqlite3.Row) -> dict[str, Any]:
    """The row as a table: to ask the row itself takes a search through its columns each time."""
    return dict(zip(row.keys(), row, strict=True))


def run_of(row: sqlite3.Row) -> Run:
    """The run in that row."""
    values = _by_name(row)
    return Run(
        id=values["id"],
        field=values["field"],
        pipeline=values["pipeline"],
        key=values["key"],
        params=loads(values["params"]),
        context=loads(values["context"]),
        state=RunState(values["state"]),
        reason=values["reason"],
        outputs=loads(values["outputs"]),
        stopping=values["stopping"],
    )


def step_of(row: sqlite3.Row) -> Step:
    """The step in that row."""
    values = _by_name(row)
    values["state"], values["outputs"] = STEP_STATES[values["state"]], loads(values["outputs"])
    return Step(*[values[name] for name in Step.__struct_fields__])


def effect_of(row: sqlite3.Row) -> EffectRecord:
    """The journal's entry in that row."""
    values = _by_name(row)
    return EffectRecord(
        key=values["key"],
        kind=values["kind"],
        ordinal=values["ordinal"],
        state=EffectState(values["state"]),
        inputs=loads(values["inputs"]),
        tries=values["tries"],
        looks=values["looks"],
        result=loads(values["result"]),
        reason=values["reason"],
        evidence=loads(values["evidence"]),
        notes=loads(values["notes"]),
        intended_at=values["intended"],
        absent_at=values["absent"],
        next_at=values["next_at"],
    )
