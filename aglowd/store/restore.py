"""Puts a backup in the place of the database, and marks what may have happened since.

What must stay true: the daemon does not run meanwhile; the replaced database is kept, with its log; a crash at any
moment leaves the old database, the new one, or a start that is refused (place.py), never an empty or a mixed one.

What was done outside after the backup, the restored journal does not know. So whatever a run of that time still has
to do is looked for before it is done, even for the first time: `lineage.py`.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from msgspec import Struct

from aglowd.errors import StoreError
from aglowd.store import backup, journal, lineage
from aglowd.store.db import check, take_lock
from aglowd.store.place import restoring_of


class Restored(Struct, frozen=True):
    """What a restore did: where the replaced database is now, and when the backup last saw anything (world seconds)."""

    kept: Path | None
    since: float
    effects: int


def restore(path: Path, file: Path, now: float) -> Restored:
    """Put the backup in the place of the database at `path`. Blocks; StoreError, with nothing changed, if it cannot be."""
    lock = take_lock(path)
    try:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(lock, owner.st_uid, owner.st_gid)  # The daemon's user must be able to take it.
        new = restoring_of(path)
        since, effects = _prepare(file, new, now)
        kept = _put_in_place(path, new)
        return Restored(kept, since, effects)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{file} cannot be restored: {error}") from error
    finally:
        os.close(lock)


def _prepare(file: Path, new: Path, now: float) -> tuple[float, int]:
    """A checked and marked copy of the backup beside the database."""
    if not file.is_file():
        raise StoreError(f"{file} is no file; name a backup that aglowctl backup made")
    source = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        check(source)
        (version,) = source.execute("PRAGMA user_version").fetchone()
        if version == 0:
            raise StoreError(f"{file} is empty; name a backup that aglowctl backup made")
        backup.copy(source, new, replace=True)
    finally:
        source.close()
    db = sqlite3.connect(new, isolation_level=None)
    db.row_factory = sqlite3.Row
    try:
        db.execute("BEGIN IMMEDIATE")
        marked = lineage.mark_restored(db, now)
        journal.add_event(
            db, now, "Restored", data={"backup": str(file.absolute()), "of": marked[0], "uid": os.getuid()}
        )
        db.execute("COMMIT")
    finally:
        db.close()
    if os.geteuid() == 0:
        owner = new.parent.stat()
        os.chown(new, owner.st_uid, owner.st_gid)  # Root may restore; the daemon's user must be able to write it.
    backup.sync(new)
    return marked


def _put_in_place(path: Path, new: Path) -> Path | None:
    """Move the old database away with its log, then give the new one its name: never an old log beside a new database."""
    wal, shm = Path(f"{path}-wal"), Path(f"{path}-shm")
    number = 1
    while os.path.lexists(f"{path}.replaced-{number}"):
        number += 1
    if not path.exists() and number > 1 and not os.path.lexists(f"{path}.replaced-{number - 1}-wal"):
        number -= 1  # An interrupted restore has moved the database already: its log belongs beside it.
    kept = Path(f"{path}.replaced-{number}")
    if path.exists():
        path.rename(kept)
    if wal.exists():
        wal.rename(f"{kept}-wal")
    shm.unlink(missing_ok=True)
    backup.sync(path.parent)
    new.rename(path)
    backup.sync(path.parent)
    return kept if kept.exists() else None
