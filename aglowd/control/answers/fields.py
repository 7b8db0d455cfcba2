"""What is said of fields and their runs, as they are now."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from aglowd.control.answers.base import Evidence, Outputs, Part, Time, Uid
from aglowd.model import EffectState, Json, RunState, StepState
from aglowd.provenance import Record

FieldState = Literal["offered", "running", "archived", "done", "failed", "cancelled"]
Priority = Annotated[tuple[int, int], Meta(description="Of the observation, then of the field.")]


class Field(Part, frozen=True, kw_only=True):
    """A field of the catalogue, or what else runs under a name of its own: a staging, shared work, an order.

    `catalogue_status`: null = it is not in the catalogue. `run`: the latest, null = none yet. `step` and `due` are of the step
    that has stood longest; `reason` and `since` too, where one stands.
    """

    field: str
    catalogue_status: str | None
    state: FieldState
    reason: str
    run: str | None
    since: Time | None
    ended: Time | None
    done_steps: int
    steps_total: int
    step: str | UnsetType = UNSET
    due: Time | UnsetType | None = UNSET


class Fields(Part, frozen=True):
    """All fields of the catalogue that are known, or those that were asked for, and what else runs under such a name."""

    fields: tuple[Field, ...]


class Names(Part, frozen=True):
    """Names that begin as was asked for, of fields and of what else runs under one."""

    names: tuple[str, ...]


class Step(Part, frozen=True):
    """A step of a run. `due`: when it is asked again at the latest; `deadline`: when its attempt is ended. `plots`: links to
    what people look at.
    """

    step: str
    kind: str
    state: StepState
    attempt: int
    reason: str
    since: Time
    due: Time | None
    deadline: Time | None
    pool: str
    started: Time | None
    ended: Time | None
    plots: tuple[str, ...]


class Run(Part, frozen=True):
    """A run of a pipeline; `key` names what it is for, so that others can join it."""

    id: str
    key: str
    state: RunState
    reason: str
    created: Time
    ended: Time | None
    outputs: Outputs
    steps: tuple[Step, ...]


class Shown(Field, frozen=True):
    """A field with its runs and their steps."""

    data: Annotated[
        dict[str, Json], Meta(description="Free form: what the catalogue says (docs/pipelines.md, what templates see).")
    ]
    runs: tuple[Run, ...]


class Silence(Part, frozen=True):
    """Since when nothing can be seen of a subject, and why."""

    since: Time
    why: str


class Wait(Part, frozen=True):
    """What a step waits for, and what was seen of it last; `observed_at`: null = nothing yet."""

    subject: str
    observed_at: Time | None
    evidence: Evidence
    silence: Silence | None


class Saw(Part, frozen=True):
    """What a step had seen of a subject at the time that is asked for; `event`: the number of the one that tells it."""

    subject: str
    observed_at: Time
    evidence: Evidence
    event: int


class UnderWay(Part, frozen=True):
    """An effect that has not ended. `next_at`: when it is done, or looked for, again. `tries`: 0 where a time past is asked."""

    key: str
    state: EffectState
    tries: int
    reason: str
    next_at: Time | None


class Standing(Part, frozen=True, kw_only=True):
    """A step that could move and does not. `held`: by which pause, "" = by none. `next`: what comes by itself, and which
    command helps. `inner`: the steps of the run that it waits for.

    Of a time past `pool`, `started`, `ended`, `plots` and `resume` are not told, and `saw` is.
    """

    step: str
    kind: str
    state: StepState
    attempt: int
    reason: str
    since: Time | None
    due: Time | None
    deadline: Time | None
    pool: str | UnsetType = UNSET
    started: Time | UnsetType | None = UNSET
    ended: Time | UnsetType | None = UNSET
    plots: tuple[str, ...] | UnsetType = UNSET
    run: str
    waits_for: tuple[Wait, ...]
    saw: tuple[Saw, ...] | UnsetType = UNSET
    effects: tuple[UnderWay, ...]
    held: str
    resume: Annotated[str, Meta(description="The commands that let it go on, or ''.")] | UnsetType = UNSET
    next: str
    inner: tuple[Standing, ...] | UnsetType = UNSET


class Explained(Field, frozen=True, kw_only=True):
    """Why a field waits. `database`: "" or why the database cannot be written, since `database_since`.

    With `?at=TIME` it is told how it was at `at`; reasons of before `whole_since` have been forgotten, null = none have.
    """

    steps: tuple[Standing, ...]
    held: str
    resume: Annotated[str, Meta(description="The commands that let it begin, or ''.")] | UnsetType = UNSET
    database: str | UnsetType = UNSET
    database_since: Time | UnsetType | None = UNSET
    at: Time | UnsetType = UNSET
    whole_since: Time | UnsetType | None = UNSET


class Candidate(Part, frozen=True):
    """A field without a run. `starts`: it would be taken now; `queued`: it only wants a place. `site`: "" = not known yet."""

    field: str
    status: str
    priority: Priority
    site: str
    starts: bool
    queued: bool
    reason: str


class Candidates(Part, frozen=True):
    """Who is next. `running`: site → fields under way there, "" = where nobody knows; `fields_at_once`: site → how many may be."""

    candidates: tuple[Candidate, ...]
    running: dict[str, int]
    max_fields: int
    fields_at_once: dict[str, int]


class Provenance(Part, frozen=True):
    """What a field's results were made of: docs/provenance.md."""

    provenance: Record


class Judged(Part, frozen=True):
    """The verdict that a step has got."""

    run: str
    step: str
    approved: bool
    verdict: Literal["good", "moderate", "poor"]
    reason: str
    uid: Uid
    at: Time


class Released(Part, frozen=True, kw_only=True):
    """The run that gives a field back, and the statuses between which it goes."""

    field: str
    run: str
    from_: str = msgspec.field(name="from")
    to: str


class Row(Part, frozen=True):
    """A field as the catalogue has it; null = it does not say. `line`: of its file, 0 where there is none. Frequency
    resolutions in channels per subband, time resolutions in seconds. `problem`: why it cannot be used, in words.
    """

    line: int
    name: str
    status: str
    target_obsid: str
    target_freq_resolution: int | None
    target_time_resolution: float | None
    target_subbands: int | None
    calibrator_obsid: str
    calibrator_freq_resolution: int | None
    calibrator_time_resolution: float | None
    calibrator_subbands: int | None
    baseline_filter: str
    demix_sources: str
    field_name: str
    priority: Priority
    site: str
    problem: str | None


class Catalogue(Part, frozen=True, kw_only=True):
    """All fields of the catalogue, as values and as a fields file (`aglowctl export --json` leaves `csv` out)."""

    fields: tuple[Row, ...]
    csv: str | UnsetType = UNSET


class Added(Part, frozen=True):
    """The names of the fields that were added."""

    added: tuple[str, ...]
