"""The record of a field: what its results were made of, how, by whom and when. `provenance.json` lies beside the results.

It is read long after aglowd is gone, so what must stay true: its shape is this file and nothing else (docs/provenance.md
tells it to people, and `json_schema` to programs); what is not known is null or empty, never guessed; times are text in
UTC, checksums eight hex digits as grid tools write them. A key that changes its meaning or goes makes `SCHEMA` grow.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from aglowd.model import Json

SCHEMA: Literal[1] = 1
NAME = "provenance.json"

Adler32 = Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


class _Part(Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the record."""


class Run(_Part, frozen=True):
    """A run of a pipeline: the field's own, or one whose outputs it used; `used_by` is the run and step that did."""

    id: str
    field: str
    key: str
    pipeline: str
    pipeline_digest: str
    state: str
    reason: str
    used_by: str
    begun: Time
    ended: Time | None


class Step(_Part, frozen=True):
    """A step of a run; `attempts` counts the first one too."""

    run: str
    name: str
    kind: str
    state: str
    attempts: int
    reason: str
    begun: Time | None
    ended: Time | None


class Input(_Part, frozen=True):
    """A file of the archive of observations.

    `state`: `used` by a token; `online`, and not used (yet); `missing` at the site's disks when it was needed; `excluded` by
    the pipeline; `replaced` by a file that was ingested again; or only `listed`.
    """

    surl: str
    site: str
    obsid: str
    subband: int | None
    state: Literal["used", "online", "missing", "excluded", "replaced", "listed"]
    size_bytes: int | None
    adler32: Adler32 | None


class File(_Part, frozen=True):
    """A file on storage."""

    url: str
    size_bytes: int | None
    adler32: Adler32 | None


class End(_Part, frozen=True):
    """How an earlier try of a token ended: it was given back to the pilots."""

    at: Time | None
    why: str
    job: str
    host: str


class Token(_Part, frozen=True):
    """A piece of work. `scrubs`: how often it was given back to the pilots; `retries`: how often after an error.

    `state` is `made` as long as nobody has looked what became of it. `begun` and `ended` are of the last try, by the clock of
    its worker node; `ends` are the last ones of earlier tries.
    """

    id: str
    type: str
    run: str
    step: str
    state: str
    scrubs: int | None
    retries: int | None
    job: str
    host: str
    begun: Time | None
    ended: Time | None
    inputs: tuple[str, ...]
    result: File | None
    ends: tuple[End, ...]


class Job(_Part, frozen=True):
    """A job with pilots; `state` is the last that was seen of it, "" if nothing."""

    id: str
    site: str
    run: str
    step: str
    attempt: int
    submitted: Time
    state: str


class Staging(_Part, frozen=True):
    """A request to bring files online. `request` is null where the stager did not tell its name."""

    request: str | int | None
    site: str
    run: str
    step: str
    files: int
    made: Time


class Parset(_Part, frozen=True):
    """The text that told the software what to do. `attached`: under which names to tokens of which types."""

    run: str
    step: str
    sha256: str
    text: str
    attached: tuple[str, ...]


class Software(_Part, frozen=True):
    """What tokens of a type ran: `sandbox` (scripts with repository and commit) and `container` (image, digest) as the
    tokens' `config.json` names them, word by word."""

    run: str
    step: str
    token_type: str
    tokens: int
    command: str
    sandbox: Json
    container: Json


class Archived(_Part, frozen=True):
    """A result where it stays, copied from `source`."""

    url: str
    size_bytes: int
    adler32: Adler32
    source: str
    run: str
    step: str


class TokenArchive(_Part, frozen=True):
    """The documents of tokens with their logs, where they stay."""

    url: str
    size_bytes: int
    adler32: Adler32
    token_type: str
    tokens: int
    run: str
    step: str


class Subbands(_Part, frozen=True):
    """The subbands that a list lacks, of those that an observation should have."""

    run: str
    step: str
    obsid: str
    subbands: tuple[int, ...]


class Missing(_Part, frozen=True):
    """What did not go into the results: subbands that the lists lack, files that were not online, tokens that failed, and
    baselines that were flagged from the start, as the catalogue's filter says it.
    """

    subbands: tuple[Subbands, ...]
    not_staged: tuple[str, ...]
    excluded: tuple[str, ...]
    failed_tokens: tuple[str, ...]
    flagged_baselines: str


class Approval(_Part, frozen=True):
    """An operator's verdict on what he was shown."""

    run: str
    step: str
    approved: bool
    verdict: str
    reason: str
    uid: int
    at: Time


class Versions(_Part, frozen=True):
    """Of the programs that made the tokens and this record."""

    aglowd: str
    grid_lrt: str


class Record(_Part, frozen=True, kw_only=True):
    """All of it. `made` is when; whatever had not ended then is told as it stood."""

    schema: Literal[1] = SCHEMA
    field: str
    run: str
    state: str
    made: Time
    catalogue: dict[str, Json]
    versions: Versions
    runs: tuple[Run, ...]
    steps: tuple[Step, ...]
    inputs: tuple[Input, ...]
    stagings: tuple[Staging, ...]
    tokens: tuple[Token, ...]
    jobs: tuple[Job, ...]
    parsets: tuple[Parset, ...]
    software: tuple[Software, ...]
    archived: tuple[Archived, ...]
    token_archives: tuple[TokenArchive, ...]
    missing: Missing
    approvals: tuple[Approval, ...]


def text_of(record: Record) -> str:
    """The record as it lies beside the results: JSON with a key a line."""
    return msgspec.json.format(msgspec.json.encode(record, order="deterministic"), indent=1).decode() + "\n"


def json_schema() -> dict[str, Any]:
    """The shape of the record as a JSON Schema."""
    return msgspec.json.schema(Record)


def hex_of(adler32: int | None) -> str | None:
    """A checksum as the record writes it."""
    return None if adler32 is None else f"{adler32:08x}"
