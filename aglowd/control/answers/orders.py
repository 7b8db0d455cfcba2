"""What an order has changed, or, as a dry run, would change."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from aglowd.control.answers.base import Left, Outputs, Part, Version
from aglowd.model import Json, RunState, StepState
from aglowd.store.forgetting import Loss

Inputs = Annotated[dict[str, Json], Meta(description="Free form: what an effect of that kind is given.")]
Params = Annotated[
    dict[str, Json], Meta(description="Free form: the parameters of that kind of step (docs/reference.md, step kinds).")
]


class Deed(Part, frozen=True):
    """An effect that would be made."""

    kind: str
    inputs: Inputs


class Touch(Part, frozen=True, kw_only=True):
    """A step that is changed. `note`: when, if not at once; `undoes`: what its handler would do before, in a dry run."""

    step: str
    attempt: int
    state: StepState
    becomes: StepState
    note: str
    undoes: tuple[Deed, ...] | UnsetType = UNSET


class RunTouch(Part, frozen=True):
    """A run that is changed. `why`: why this one, if the order does not name it; `start`: the steps from which the others follow."""

    run: str
    field: str
    state: RunState
    becomes: RunState
    touches: tuple[Touch, ...]
    why: str
    start: tuple[str, ...]


class Steered(Part, frozen=True):
    """What a cancel, a retry, a skip or a done changes; `done`: whether it has, or only would."""

    verb: Literal["cancel", "retry", "skip", "done"]
    done: bool
    version: Version
    runs: tuple[RunTouch, ...]
    left: Left


class Hold(Part, frozen=True):
    """What is held or let go, and how it was held before, "" = not at all."""

    scope: Literal["everything", "field", "kind", "site"]
    name: str
    mode: Literal["", "pause", "drain"]


class Held(Part, frozen=True):
    """What a pause, a drain or a resume changes; `done`: whether it has, or only would."""

    verb: Literal["pause", "drain", "resume"]
    done: bool
    version: Version
    holds: tuple[Hold, ...]


class Planned(Part, frozen=True):
    """An effect that a step would make, with its key."""

    key: str
    kind: str
    inputs: Inputs


class Decision(Part, frozen=True, kw_only=True):
    """What a step would say first: `does` says which of the other keys there are."""

    does: Literal["effects", "waits", "runs", "ends"]
    effects: tuple[Planned, ...] | UnsetType = UNSET
    subjects: tuple[str, ...] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    run: str | UnsetType = UNSET
    pipeline: str | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    params: Params | UnsetType = UNSET
    outputs: Outputs | UnsetType = UNSET


class Rehearsed(Part, frozen=True, kw_only=True):
    """A step of a run that was only rehearsed: its decision, or why there is none (`skipped`, `problem`, `unknown`).

    `when`: its condition, which cannot be known before. `pool` and `params` are filled in as far as they can be.
    """

    step: str
    kind: str
    needs: tuple[str, ...]
    skipped: str | UnsetType = UNSET
    when: str | UnsetType = UNSET
    problem: str | UnsetType = UNSET
    pool: str | UnsetType = UNSET
    params: Params | UnsetType = UNSET
    unknown: str | UnsetType = UNSET
    decision: Decision | UnsetType = UNSET


class Begun(Part, frozen=True, kw_only=True):
    """A run that was begun by hand, or (`done` is false, and `steps` stands there) would be."""

    field: str
    run: str
    pipeline: str
    done: bool
    version: Version | UnsetType = UNSET
    steps: tuple[Rehearsed, ...] | UnsetType = UNSET


class Forgotten(Part, frozen=True):
    """The runs that are forgotten; `done`: whether they are, or only would be."""

    verb: Literal["forget"]
    done: bool
    version: Version
    runs: tuple[Loss, ...]
    left: Left


class Taken(Part, frozen=True):
    """Tokens that another program has made for a step."""

    token_type: str
    count: int


class Adoptee(Part, frozen=True):
    """A field that is taken over in that status. `steps`: what is done by then → its outputs; `tokens`: step → its tokens."""

    field: str
    run: str
    status: str
    steps: dict[str, Outputs]
    tokens: dict[str, Taken]


class Adopted(Part, frozen=True):
    """What is taken over; `done`: whether it is, or only would be."""

    done: bool
    version: Version
    fields: tuple[Adoptee, ...]
    left: Left
