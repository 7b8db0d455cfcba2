"""What `aglowctl --json` prints where no route answers: it looks for itself, or reads another format."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from aglowd.control.answers.base import Part, Time
from aglowd.control.answers.fields import Field

Outcome = Literal["reached", "never", "doubt", "pending"]


class Versions(Part, frozen=True):
    """The versions of aglowctl and of the daemon; null = none runs."""

    schema: Literal[1]
    aglowctl: str
    aglowd: str | None


class Sample(Part, frozen=True):
    """A number that Prometheus would get; its unit stands in its name."""

    name: str
    labels: dict[str, str]
    value: float


class Metrics(Part, frozen=True):
    """What a scrape of `/metrics` gives."""

    schema: Literal[1]
    metrics: tuple[Sample, ...]


class Report(Part, frozen=True):
    """The file that was written, what is in it, and what is not → why."""

    schema: Literal[1]
    path: str
    parts: tuple[str, ...]
    missing: dict[str, str]


class Verified(Part, frozen=True):
    """What a file is: the number of its database's schema, what is in it, and when it last saw anything (null = nothing has
    happened in it). `effects`: state → how many. `problems`: none if it is a good backup.
    """

    schema: Literal[1]
    ok: bool
    file: str
    schema_version: int
    size_bytes: int
    runs: int
    running: int
    fields: int
    effects: dict[str, int]
    last_event: Time | None
    problems: tuple[str, ...]


class Decided(Part, frozen=True):
    """A decision that would be another now: that of which the event tells, and what it was and would be, in words."""

    at: Time
    event: int
    field: str
    run: str
    step: str
    attempt: int
    was: str
    would: str


class Replayed(Part, frozen=True):
    """What came of deciding a day again. `journal`: the backup that was asked (null = the daemon's own of that moment);
    `seed`: by which orders, and what was decided again, were drawn (null = all, as it came); `found`: how many decisions there
    were; `untold`: why it cannot be told any more → how many; `differences`: the first of those that are different;
    `whole_since`: since when the log is whole (null = from its beginning).
    """

    schema: Literal[1]
    day: Annotated[str, Meta(description="In UTC, as 2026-11-28.")]
    journal: str | None
    seed: int | None
    found: int
    decisions: int
    same: int
    different: int
    untold: dict[str, int]
    differences: tuple[Decided, ...]
    whole_since: Time | None


class Line(Part, frozen=True, forbid_unknown_fields=False):
    """A line of the log. What else stands in it is free form: docs/logs.md."""

    at: Annotated[str, Meta(description="Real time in UTC, as text.")]
    level: str
    event: str


class WaitedFor(Part, frozen=True):
    """A field that was waited for: whether it came so far, and why not or how."""

    field: str
    outcome: Outcome
    run: str | None
    reason: str


class Waited(Part, frozen=True):
    """How waiting ended, for all and for each."""

    schema: Literal[1]
    until: str
    outcome: Outcome
    fields: tuple[WaitedFor, ...]


class Watched(Field, frozen=True, kw_only=True):
    """A field of which something is new."""

    schema: Literal[1]
