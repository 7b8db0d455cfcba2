"""What the daemon says of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from aglowd.control.answers.base import Free, Part, Time, Uid
from aglowd.control.health import Health, LoopHealth
from aglowd.doctor import Check
from aglowd.model import Json
from aglowd.settings import Change


class Live(Part, frozen=True):
    """Whether each loop goes on. `stuck` names those that do not; then the HTTP status is 503."""

    alive: bool
    stuck: tuple[str, ...]
    loops: dict[str, LoopHealth]


class Ready(Part, frozen=True):
    """Whether the daemon has begun its work. `missing`: what it waits for; then the HTTP status is 503."""

    ready: bool
    missing: tuple[str, ...]


class Waits(Part, frozen=True):
    """How many steps of a kind wait, and since when the oldest does."""

    kind: str
    n: int
    since: Time


class Pause(Part, frozen=True):
    """What is held: by whom, since when and why. `name` is "" where everything is."""

    scope: Literal["everything", "field", "kind", "site"]
    name: str
    mode: Literal["pause", "drain"]
    since: Time
    uid: Uid
    reason: str


class Status(Part, frozen=True):
    """Health, and counts of all that moves: state → how many. `pools`: pool → places taken. `findings`: of the audit, not
    dismissed. `last_event`: its number.
    """

    version: str
    health: Health
    fields: dict[str, int]
    steps: dict[str, int]
    effects: dict[str, int]
    waiting: tuple[Waits, ...]
    pools: dict[str, int]
    findings: int
    paused: tuple[Pause, ...]
    last_event: int


class Place(Part, frozen=True, kw_only=True):
    """Where lines are written: into the journal (of that `unit`; `native`: "yes" = with fields of their own), into the file
    at `path`, or to where nobody can look. Empty before that is known.
    """

    to: Literal["journal", "file", "stdout"] | UnsetType = UNSET
    unit: str | UnsetType = UNSET
    native: str | UnsetType = UNSET
    path: str | UnsetType = UNSET


class Log(Part, frozen=True):
    """Where the log is."""

    log: Place


class Doctor(Part, frozen=True):
    """Whether nothing that is needed fails, and each check."""

    ok: bool
    checks: tuple[Check, ...]


class Config(Part, frozen=True):
    """The configuration in effect, without secrets."""

    config: Annotated[
        dict[str, Json],
        Meta(description="Free form: the tables and keys of docs/reference.md, configuration keys, by their names."),
    ]


class Pipelines(Part, frozen=True):
    """Names of pipelines whose files are others now."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


class Reloaded(Part, frozen=True):
    """What is another; `done`: whether it counts from now on, or only would."""

    done: bool
    changes: tuple[Change, ...]
    pipelines: Pipelines


class BackedUp(Part, frozen=True):
    """Where the copy of the database lies, and how large it is."""

    path: str
    size_bytes: int


class Doubt(Part, frozen=True):
    """An effect whose outcome is not known. `tries`: how often it was asked for; `looks`: how often it was looked for in vain;
    `next_at`: when it is looked for again.
    """

    key: str
    kind: str
    state: Literal["unknown", "doubt"]
    field: str
    run: str
    step: str
    reason: str
    since: Time | None
    tries: int
    looks: int
    evidence: Free
    notes: Free
    next_at: Time | None


class Finding(Part, frozen=True):
    """What the audit found in the world and the journal does not explain. `handled`: "" or by whom and how."""

    key: str
    kind: Literal["duplicate", "stranger"]
    effect: str
    field: str
    what: str
    data: Free
    found: Time
    handled: str


class Doubts(Part, frozen=True):
    """What cannot be told, the doubtful first."""

    doubts: tuple[Doubt, ...]
    findings: tuple[Finding, ...]


class Settled(Part, frozen=True):
    """What became of the effect, or the finding, of that key, in words."""

    key: str
    said: str


class Described(Part, frozen=True):
    """A schema: which routes answer as it says, and which commands print that with `--json`.

    `lines`: the answer is one such object a line, without the number of the schema and the time.
    """

    name: str
    routes: tuple[str, ...]
    commands: tuple[str, ...]
    lines: bool


class Schemas(Part, frozen=True):
    """All schemas."""

    schemas: tuple[Described, ...]
