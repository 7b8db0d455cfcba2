"""What all catalogues of fields have in common: the AGLOW fields file, the surveys database, and aglowd's own.

What must stay true: a status is written only over the one that its writer expects, by one step that nobody can come
between, so that two daemons, or a daemon and a person, never claim one field twice; nobody's word is overwritten unseen.
A claim, a release and every status between them are such writes. Each leaves its key and the name of its daemon, so that
after a crash the catalogue tells whether it happened; a catalogue that cannot tell says so (Unknown) and does not guess. What
another daemon holds is not written over, though its status be the expected one: a field that is taken over may keep its
status, and the first run of a field has one key with every daemon. Adapters decide nothing: which field is next, and what a
status means, is told by the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib import resources
from typing import Protocol

import msgspec
from msgspec import Struct

from aglowd.errors import Permanent

SIGN = "#"
"""In the name of every daemon."""
MAX_PLACE_CHARS = 200
"""Of the place in such a name."""
MAX_FIELDS = 100_000
"""Of a catalogue: the whole survey has some thousands."""
MAX_NAME_CHARS = 64
NAME = re.compile(rf"(?=\S{{1,{MAX_NAME_CHARS}}}\Z)[^\W_](?:\w|[+.:@,()\[\]=~-])*")
"""What a field may be called: it becomes part of paths and of names elsewhere."""
NAME_EXPECTED = f"at most {MAX_NAME_CHARS} letters, digits and signs, without blanks and slashes"


class Row(Struct, frozen=True, kw_only=True):
    """One field. Names are unique. `problem` says why a row cannot be used; what it holds then is best effort.

    OBSIDs as in "L229507"; frequency resolution in channels per subband, time resolution in seconds; `priority`: of the
    observation, then of the field; `site`: where its data lie, "" where the catalogue does not say. A fields file also has
    the `line` and its `columns` as they are. `field_name`: as the survey calls the field, where `name` says more.
    """

    line: int = 0
    name: str
    status: str
    target_obsid: str = ""
    target_freq_resolution: int | None = None
    target_time_resolution: float | None = None
    target_subbands: int | None = None
    calibrator_obsid: str = ""
    calibrator_freq_resolution: int | None = None
    calibrator_time_resolution: float | None = None
    calibrator_subbands: int | None = None
    baseline_filter: str = ""
    demix_sources: str = ""
    field_name: str = ""
    priority: tuple[int, int] = (0, 0)
    site: str = ""
    columns: tuple[str, ...] = ()
    problem: str | None = None


class Catalogue(Protocol):
    """One catalogue. Everything raises errors.Temporary, Permanent and Unknown only."""

    @property
    def where(self) -> str:
        """What messages call it."""

    async def stamp(self) -> str:
        """What is another text whenever `rows` may say something else; "" while that cannot be told.

        It costs next to nothing, however many fields there are.
        """

    async def rows(self) -> tuple[Row, ...]:
        """Every field, good or bad."""

    async def read_status(self, name: str) -> tuple[str, str | None]:
        """The field's status, and the key of our write if it is what the catalogue shows. Permanent, absent, without it.

        Unknown when the catalogue shows what a write of ours would have left, and nobody can tell who wrote it.
        """

    async def holder(self, name: str) -> str:
        """The name and the key of another daemon whose write is what the catalogue shows; "" as far as anybody can tell."""

    async def write_status(self, name: str, expect: str, status: str, key: str, of: str = "") -> None:
        """Set the field's status if it is `expect`; Permanent says what it is instead. Our own write again is fine.

        Permanent also where another daemon holds the field, and names it; but for the one of the name `of`, from which it is
        taken. Offers are held by nobody: each may take them, and who gives a field back takes nothing.
        """

    async def close(self) -> None:
        """Let go what it holds open; it may be asked again."""


def daemon_name(place: str, token: str) -> str:
    """What a daemon is called beside its writes: the place where its state lies first, and a token that nobody else has."""
    return re.sub(rf"[\s@{SIGN}]", "_", place[:MAX_PLACE_CHARS]) + SIGN + token


class Shown(Struct, frozen=True):
    """The status that stands there, and the write that explains it; without a key it is the word of a person or another program.

    `daemon`: who wrote it. One without a sign, `#`, is no name by which daemons are told from each other: older releases left such
    ones, or none. What they wrote counts as our own, or a field that was under way would belong to nobody.
    """

    status: str
    key: str = ""
    daemon: str = ""

    def our_key(self, daemon: str) -> str | None:
        """The key, if that daemon wrote it."""
        return self.key if self.key and self._name in ("", daemon) else None

    def holder(self, daemon: str) -> str:
        """Who else than that daemon wrote it, and by which key; "" if nobody did."""
        return f"{self.daemon} by {self.key}" if self.key and self._name not in ("", daemon) else ""

    @property
    def _name(self) -> str:
        return self.daemon if SIGN in self.daemon else ""

    def check_free(self, daemon: str, status: str, offered: Collection[str], found: str, of: str) -> None:
        """Permanent if the write of `status` would take what another daemon than `of` holds; `found`: how messages call what
        stands there."""
        is_free = status != self.status and (status in offered or self.status in offered)
        if not is_free and self.daemon != of and (holder := self.holder(daemon)):
            raise Permanent(
                f"{found}, which is the word of another aglowd, {holder}; expected a field that nobody holds: let that one "
                "give it back (aglowctl release)"
            )


class Mark(Struct, frozen=True, omit_defaults=True):
    """What is remembered of a field beside the catalogue: our last write, and until that is known to have happened the one before.

    `open`: it was about to be written, and nothing was heard of it.
    """

    status: str
    key: str
    daemon: str
    at: str
    before: Mark | None = None
    open: bool = False


def mark_of(mark: Mark | None, status: str) -> Mark | None:
    """The latest of our writes that explains what is shown, or None: then it is somebody else's word."""
    while mark is not None and mark.status != status:
        mark = mark.before
    return mark


def next_mark(old: Mark | None, now: str, new: Mark) -> Mark:
    """`new`, with the write before it that explains what is shown now."""
    before = mark_of(old, now)
    if before is not None:  # Of one that is open nobody knows whether it explains anything.
        before = None if before.open else Mark(before.status, before.key, before.daemon, before.at)
    return msgspec.structs.replace(new, before=before)


@cache
def statements(name: str) -> dict[str, str]:
    """The statements of `name`.sql beside this file, by their names."""
    text = resources.files(__package__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
    text = re.sub(r"^--(?! name: )[^\n]*\n", "", text, flags=re.MULTILINE)
    parts = re.split(r"^-- name: (\w+)[^\n]*\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], (part.strip().rstrip(";") for part in parts[2::2]), strict=True))
