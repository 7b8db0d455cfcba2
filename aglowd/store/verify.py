"""Says whether a backup is one: whole, of a schema that is known, and with a journal that hangs together.

What must stay true: nothing but the file itself is looked at, and nothing is written to it or beside it; a database that
somebody uses is no backup. What is checked of the journal is what docs/design.md promises of it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec
from msgspec import Struct

from aglowd.errors import StoreError
from aglowd.store import backup
from aglowd.store.archive import unpack
from aglowd.store.db import MIGRATIONS
from aglowd.store.rows import FORGOTTEN

MAX_PROBLEMS = 20
"""Of one kind that are told."""
ARCHIVE_SINCE = MIGRATIONS.index("archive.sql") + 1
"""The schema from which on runs are packed."""
_SQL = re.compile(r"^-- rule(?: since (\d+))?: ([^\n]+)\n(.*?);$", re.MULTILINE | re.DOTALL)


@cache
def rules(schema: int = len(MIGRATIONS)) -> dict[str, str]:
    """What is never so in a database of that schema → the SQL that finds it."""
    found = _SQL.findall(resources.files(__package__).joinpath("verify.sql").read_text(encoding="utf-8"))
    return {text: sql for since, text, sql in found if int(since or 1) <= schema}


class Verified(Struct, frozen=True):
    """What a file is: its schema, what is in it, and when it last saw anything (world seconds); `problems`: () if it is a good backup."""

    file: str
    schema_version: int
    size_bytes: int
    runs: int
    running: int
    fields: int
    effects: dict[str, int]
    last_event: float | None
    problems: tuple[str, ...]


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """The file as a database that is only read, with the log beside it if there is one. StoreError if it is none of ours, or
    if somebody uses it."""
    try:
        if not file.is_file():
            raise StoreError(f"{file} is no file; name a backup that aglowctl backup made")
        if Path(f"{file}.lock").exists():
            raise StoreError(f"{file} is a database in use, or was one; make a backup of it: aglowctl backup FILE")
        with ExitStack() as stack:
            uri = f"{file.absolute().as_uri()}?mode=ro&immutable=1"
            if Path(f"{file}-wal").exists():
                # Only a copy may be opened with its log: SQLite would take that in, and so change the file.
                copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aglowctl-verify-")), "copy.db")
                shutil.copyfile(file, copy)
                shutil.copyfile(f"{file}-wal", f"{copy}-wal")
                uri = f"{copy.as_uri()}?mode=rw"
            db = sqlite3.connect(uri, uri=True, isolation_level=None)
            stack.callback(db.close)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if version == 0 or not {"runs", "steps", "effects"} <= tables:
                raise StoreError(f"{file} is a database, but not one of aglowd")
            yield db
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{file} is no backup: {error}") from error


def verify(file: Path) -> Verified:
    """Look at the file, and at the log beside it if there is one. Blocks; StoreError if it is no database of ours at all."""
    with opened(file) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        problems = []
        if version > len(MIGRATIONS):
            problems.append(f"it has schema {version}, this aglowctl knows {len(MIGRATIONS)}: a newer release wrote it")
        damage = backup.check(db, thoroughly=True)
        problems += [f"it is damaged: {damage}"] if damage else list_breaks(db)
        counts = dict(db.execute("SELECT state, count(*) FROM effects GROUP BY state"))
        return Verified(
            str(file),
            version,
            os.path.getsize(file),
            _count(db, "runs"),
            _count(db, "runs WHERE state = 'running'"),
            _count(db, "fields"),
            counts,
            db.execute("SELECT max(at) FROM events").fetchone()[0],
            tuple(problems),
        )


def _count(db: sqlite3.Connection, what: str) -> int:
    (count,) = db.execute(f"SELECT count(*) FROM {what}").fetchone()  # noqa: S608 # It is our own text.
    return int(count)


def check_in_use(path: Path) -> list[str]:
    """What is wrong with the database at that path, which its daemon goes on using. Blocks; sqlite3.Error if it cannot be read."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        db.execute("BEGIN")  # All of it is looked at as it is at one moment.
        damage = backup.check(db)
        return [f"it is damaged: {damage}"] if damage else list_breaks(db)
    finally:
        db.close()


def list_breaks(db: sqlite3.Connection) -> list[str]:
    """Where what stands in the database does not hang together, in words."""
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    found: list[str] = []
    for text, sql in rules(schema).items():
        names = [str(row[0]) for row in db.execute(sql).fetchmany(MAX_PROBLEMS)]
        found += [text.format(name) for name in names]
    if schema >= ARCHIVE_SINCE:
        found += list(_damaged(db))[:MAX_PROBLEMS]
    return [*found, *list(_changed(db))[:MAX_PROBLEMS]]


def _damaged(db: sqlite3.Connection) -> Iterator[str]:
    """What is packed must come out whole: it bears a checksum, and the number of its steps stands beside it."""
    for run, steps, material in db.execute("SELECT run, steps, material FROM archive"):
        try:
            whole = len(unpack(material)["steps"].rows) == steps
        except (zlib.error, msgspec.DecodeError, KeyError):
            whole = False
        if not whole:
            yield f"what is packed of the run {run} cannot be read"


def _changed(db: sqlite3.Connection) -> Iterator[str]:
    """Inputs are frozen: each must still have the digest that it was recorded with."""
    rows = db.execute("SELECT e.key, e.inputs, e.digest, r.id, r.key FROM effects AS e JOIN runs AS r ON r.id = e.run")
    for key, inputs, digest, run, run_key in rows:
        if (
            run_key != f"{FORGOTTEN}{run}"
            and hashlib.blake2b(str(inputs).encode(), digest_size=16).hexdigest() != digest
        ):
            yield f"the inputs of the effect {key} are not those that it was recorded with"
