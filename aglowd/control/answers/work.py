"""What is said of files, tokens and jobs."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from aglowd.control.answers.base import Part, Time, Uid
from aglowd.control.answers.fields import FieldState
from aglowd.model import Json

Document = Annotated[Json, Meta(description="Free form: as the token's document says it.")]


class Staging(Part, frozen=True):
    """A list of files that somebody asked for. `counts`: locality → how many files, at the last look; `online` of `files`.

    `missing`: files that did not come. `requests`: as the stager calls them. `pinned_until`: when the first pin may end, null =
    nobody knows yet, or nothing had to be asked for.
    """

    name: str
    field: str
    run: str
    state: FieldState
    reason: str
    since: Time
    ended: Time | None
    site: str
    files: int
    online: int
    counts: dict[str, int]
    missing: tuple[str, ...]
    requests: tuple[str | int, ...]
    pinned_until: Time | None


class Stagings(Part, frozen=True):
    """The stagings that people asked for, the latest first."""

    stagings: tuple[Staging, ...]


class OneStaging(Part, frozen=True):
    """One of them."""

    staging: Staging


class Begun(Part, frozen=True):
    """A staging of the files at one site; `joined`: it is under way since before."""

    name: str
    field: str
    run: str
    site: str
    files: int
    uid: Uid
    joined: bool


class Staged(Part, frozen=True):
    """The stagings that carry an order out."""

    stagings: tuple[Begun, ...]


class Localities(Part, frozen=True):
    """SURL → where it is, of the `asked` files, as far as that is known; `unanswered`: site → why no more is."""

    files: dict[str, str]
    asked: int
    unanswered: dict[str, str]


class TokenType(Part, frozen=True):
    """A type of tokens that a step waits for. `at`: when they were counted, null = not yet."""

    type: str
    site: str
    counts: Annotated[
        dict[str, Json], Meta(description="State → how many; what else the watcher tells of the tokens is free form.")
    ]
    field: str
    run: str
    step: str
    at: Time | None


class TokenTypes(Part, frozen=True):
    """The types of tokens that steps wait for."""

    types: tuple[TokenType, ...]


class TokenRow(Part, frozen=True, kw_only=True):
    """A token in a list. `lock` and `done`: seconds since 1970 by the clock of a worker node, 0 = not yet; `output`: what its
    script returned. `job`: "" = none is known. `history`: how often it was given back.
    """

    token: str
    status: Document
    lock: Document
    done: Document
    output: Document
    hostname: Document
    scrub_count: Document
    results_location: Document = msgspec.field(name="Results_location")
    job: Document
    history: int


class Tokens(Part, frozen=True):
    """The tokens of a type, as they are now."""

    type: str
    tokens: tuple[TokenRow, ...]


class Token(Part, frozen=True):
    """A token's document, as it is now."""

    token: dict[str, Document]


class TokenLog(Part, frozen=True):
    """What is attached to a token, and the end of the attachment `name`; "" = there is no log."""

    token: str
    attachments: tuple[str, ...]
    name: str
    text: str


class Job(Part, frozen=True, kw_only=True):
    """A job that a step waits for, as it was last seen at `at`. `words`: the batch system's own; `nodes`: id → state of its
    parts; `final`: it will not change any more. Only `state` is known of one that was not seen yet.
    """

    job: str
    site: str
    state: str
    words: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    exit_code: int | UnsetType | None = UNSET
    final: bool | UnsetType = UNSET
    nodes: dict[str, str] | UnsetType = UNSET
    field: str
    run: str
    step: str
    at: Time | None


class Jobs(Part, frozen=True):
    """The jobs that steps wait for."""

    jobs: tuple[Job, ...]


class Node(Part, frozen=True):
    """A part of a job, as the batch system says now."""

    id: str
    state: str
    words: str
    exit_code: int | None
    reason: str
    nodes: tuple[Node, ...]


class JobNow(Part, frozen=True):
    """A job, as the batch system says now; `site`: "" = the one that all sites share."""

    site: str
    system: Literal["glite", "slurm", "dirac", "arc", "local", "none"]
    id: str
    state: str
    words: str
    exit_code: int | None
    reason: str
    nodes: tuple[Node, ...]


class OneJob(Part, frozen=True):
    """One job."""

    job: JobNow


class Output(Part, frozen=True):
    """Where the daemon's user wrote what a job had written."""

    job: str
    path: str
