"""The numbers that metrics are made of, from one committed state.

What must stay true: however long the history, they cost what is at work now. No table that only grows is read from end to
end; a test looks at the plans of the queries.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from aglowd.store.db import queries


class Waits(NamedTuple):
    """Steps of one kind that wait: how many, and since when (world time) the one has had no news that has had none for longest."""

    steps: int
    since: float


class Files(NamedTuple):
    """Files of one site that steps want online."""

    requested: int
    online: int


class Figures(Struct, frozen=True):
    """Counts of what is at work. A pair is a site, or a kind, and a state; `disk` is what the state directory lies on."""

    fields: dict[str, int]
    waits: dict[str, Waits]
    effects: dict[tuple[str, str], int]
    files: dict[str, Files]
    tokens: dict[tuple[str, str], int]
    pilots: dict[tuple[str, str], int]
    pools: dict[str, int]
    findings: int
    holds: int
    size_bytes: dict[str, int]
    free_bytes: int
    packed_runs: int
    packed_bytes: int
    disk_free_bytes: int
    disk_bytes: int


READ = (
    *("count_states", "figures_waits", "figures_effects", "figures_files", "figures_tokens", "figures_pilots"),
    *("pools_used", "count_findings", "list_pauses", "free_pages", "count_archive"),
)
"""All that is asked, once for each look."""


def get_figures(db: sqlite3.Connection, path: Path) -> Figures:
    """The figures of the database at that path; it may take as long as its disk does."""
    found = {name: db.execute(queries()[name]).fetchall() for name in READ}
    (room,), (archive,) = found["free_pages"], found["count_archive"]
    disk = os.statvfs(path.parent)
    return Figures(
        fields={row["state"]: row["n"] for row in found["count_states"]},
        waits={row["kind"]: Waits(row["n"], row["since"]) for row in found["figures_waits"]},
        effects={(row["kind"], row["state"]): row["n"] for row in found["figures_effects"]},
        files={row["site"]: Files(row["requested"], row["online"]) for row in found["figures_files"]},
        tokens={(row["site"], row["state"]): row["n"] for row in found["figures_tokens"]},
        pilots={(row["site"], row["state"]): row["n"] for row in found["figures_pilots"]},
        pools={row["pool"]: row["n"] for row in found["pools_used"]},
        findings=found["count_findings"][0][0],
        holds=len(found["list_pauses"]),
        size_bytes=dict(_sizes(path)),
        free_bytes=room["free"] * room["page_bytes"],
        packed_runs=archive["runs"],
        packed_bytes=archive["size_bytes"],
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        disk_bytes=disk.f_blocks * disk.f_frsize,
    )


def _sizes(path: Path) -> Iterator[tuple[str, int]]:
    """The file, and what is written ahead of it."""
    for part, suffix in (("database", ""), ("wal", "-wal")):
        with suppress(FileNotFoundError):
            yield part, os.stat(f"{path}{suffix}").st_size
