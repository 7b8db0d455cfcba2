"""What is said of the past, and of what is to come."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from aglowd.control.answers.base import Outputs, Part, Seconds, Time, Uid
from aglowd.model import EffectState, Json, RunState

Data = Annotated[Json, Meta(description="Free form: what an event of that kind tells.")]


class Event(Part, frozen=True):
    """One line: what happened. `cause`: the number of an earlier event, 0 = none; names that do not apply are ""."""

    id: int
    at: Time
    kind: str
    field: str
    run: str
    step: str
    subject: str
    effect: str
    data: Data
    cause: int


class Lived(Part, frozen=True):
    """A run of the field."""

    id: str
    state: RunState
    reason: str
    created: Time
    ended: Time | None


class Entry(Part, frozen=True, kw_only=True):
    """A line of a timeline. `event`: its number, 0 = no event tells it; the other keys stand where `what` has them.

    Of a step: `state`, `attempt`; `changes`: how often its reason changed, the last time at `last`. Of an effect: `effect`,
    `state`, `tries`, `planned`, `duration_s` (null = it has not ended). Of a person: `uid`, and what the order named.
    """

    at: Time
    event: int
    what: Literal["step", "run", "field", "person", "effect"]
    kind: str
    run: str
    step: str
    text: str
    state: str | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    changes: int | UnsetType = UNSET
    last: Time | UnsetType = UNSET
    uid: Uid | UnsetType | None = UNSET
    steps: tuple[str, ...] | UnsetType = UNSET
    result: Annotated[Json, Meta(description="Free form: what a person said that the effect returned.")] = UNSET
    status: str | UnsetType = UNSET
    effect: str | UnsetType = UNSET
    tries: int | UnsetType = UNSET
    planned: Time | UnsetType = UNSET
    duration_s: Seconds | UnsetType | None = UNSET


class History(Part, frozen=True):
    """The timeline of a field, the oldest entry first. `whole_since`: reasons of before that are forgotten, null = none are.

    `left_out`: how many entries there are beside these.
    """

    field: str
    since: Time
    until: Time
    whole_since: Time | None
    runs: tuple[Lived, ...]
    entries: tuple[Entry, ...]
    left_out: int


class Traced(Part, frozen=True):
    """How an effect that events name stands; `settled`: null = it has not ended."""

    state: EffectState
    tries: int
    planned: Time
    settled: Time | None


class Trace(Part, frozen=True):
    """What followed from what. `causes`: earlier events that some of `events` name; `effects`: key → how it stands.

    `left_out`: how many events there are beside these, as far as that was looked at.
    """

    what: Literal["field", "step", "effect", "event"]
    name: str
    events: tuple[Event, ...]
    causes: tuple[Event, ...]
    effects: dict[str, Traced]
    left_out: int


Pair = Annotated[tuple[Json, Json], Meta(description="Before and after; null = there was, or is, no such step.")]


class StepDiffers(Part, frozen=True, kw_only=True):
    """What differs of a step; keys that do not are left out. `tokens`: how many were in which state.

    `outputs`: of a step that has ended since; null = it was done again, and nobody keeps what it had put out.
    """

    run: str
    step: str
    kind: str
    state: Pair | UnsetType = UNSET
    attempt: Pair | UnsetType = UNSET
    reason: Pair | UnsetType = UNSET
    tokens: Pair | UnsetType = UNSET
    outputs: Outputs | UnsetType | None = UNSET


class Moved(Part, frozen=True):
    """A field that was in another state before; "" = it was not known yet."""

    field: str
    state: tuple[str, str]


class Diff(Part, frozen=True, kw_only=True):
    """What differs between two times. Of a field: `field`, `changed` (key → before and after) and `steps`. Of the survey:
    `fields` (state → how many before and after), `moved`, and `between` (kind of event → how many there were).
    """

    from_: Time = msgspec.field(name="from")
    to: Time
    field: str | UnsetType = UNSET
    changed: dict[str, Pair] | UnsetType = UNSET
    steps: tuple[StepDiffers, ...] | UnsetType = UNSET
    fields: dict[str, tuple[int, int]] | UnsetType = UNSET
    moved: tuple[Moved, ...] | UnsetType = UNSET
    between: dict[str, int] | UnsetType = UNSET


class Timer(Part, frozen=True, kw_only=True):
    """What happens at that time, in words. Names that do not apply are ""; `effect`: its key, if it is one's."""

    at: Time
    field: str
    run: str
    step: str
    does: str
    reason: str
    effect: str | UnsetType = UNSET


class Queued(Part, frozen=True, kw_only=True):
    """Who waits for a place: a field that has not begun, or a step of a run. `wants`: how many places; `since`: null = they
    are given in another order than that of time.
    """

    field: str | UnsetType = UNSET
    run: str | UnsetType = UNSET
    step: str | UnsetType = UNSET
    wants: int | UnsetType = UNSET
    since: Time | UnsetType | None = UNSET
    why: str | UnsetType = UNSET


class Limit(Part, frozen=True):
    """A limit of a pool, of a site, or ("") of all together: what is taken of it, and who is next. `limit`: null = none."""

    what: str
    name: str
    used: int
    limit: int | None
    queue: tuple[Queued, ...]


class Next(Part, frozen=True):
    """What happens by itself up to `until`, the next first; `left_out`: how many timers there are beside these."""

    until: Time
    timers: tuple[Timer, ...]
    left_out: int
    limits: tuple[Limit, ...]


class Schedule(Part, frozen=True):
    """A pipeline that runs by itself. `next`: when; the other keys are of its last run, "" and null = there was none."""

    pipeline: str
    field: str
    rule: str
    next: Time
    run: str
    begun: Time | None
    state: RunState | None
    reason: str | None
    ended: Time | None


class Schedules(Part, frozen=True):
    """What runs by itself."""

    schedules: tuple[Schedule, ...]
