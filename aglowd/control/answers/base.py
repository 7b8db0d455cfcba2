"""The values of which several answers are made."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from aglowd.model import Json

Time = Annotated[float, Meta(description="World seconds since 1970, UTC.")]
Seconds = Annotated[float, Meta(description="World seconds.")]
Uid = Annotated[int, Meta(description="The user id that the kernel told of who asked.")]
Free = Annotated[Json, Meta(description="Free form: what stands here is no part of this schema.")]
Outputs = Annotated[
    dict[str, Json],
    Meta(description="Free form: what the step's kind, or the pipeline, puts out (docs/reference.md, step kinds)."),
]
Evidence = Annotated[
    Json, Meta(description="Free form: as the watcher of that kind of subject tells it (docs/reference.md, watchers).")
]
Version = Annotated[str, Meta(description="Sent with the order, it is carried out as it was shown, or not at all.")]
Left = Annotated[
    dict[str, str], Meta(description="What a pattern names and the order leaves alone → the reason, in words.")
]


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """An answer, or a part of one: it has these keys and no others."""


class Trouble(Part, frozen=True):
    """What went wrong: a code for programs, which stays what it is, and a text for people."""

    code: str
    message: str


class Error(Part, frozen=True, kw_only=True):
    """What is told instead of an answer, with an HTTP status from 400 on. `now` is missing where no place was left for one
    more connection.
    """

    schema: Literal[1]
    now: Time | UnsetType = UNSET
    error: Trouble


class Ordered(Part, frozen=True):
    """A run that carries the order out: `aglowctl explain FIELD` follows it."""

    field: str
    run: str
