"""Gives room that the database no longer uses back to the file system.

What must stay true: while the daemon works only a few pages go at a time, and enough stay free for what comes next; a
database that was made before pages could go singly is rewritten only when a person says so, and while no daemon uses it.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from msgspec import Struct

from aglowd.errors import StoreError
from aglowd.store import backup
from aglowd.store.db import check, queries, take_lock

PAGES_AT_ONCE = 256
"""Pages (4 KiB each) that go in one transaction."""
SPARE_PAGES = 4_096
"""So many free pages are kept, and a tenth of all: they are used again before the file grows."""
INCREMENTAL = 2
"""SQLite's number for a database of which pages can go singly."""


class Compacted(Struct, frozen=True):
    """Bytes of the database before and after."""

    before: int
    after: int


def give_back(db: sqlite3.Connection) -> int:
    """Give back some pages, if more are free than are kept; returns how many went. Runs inside a transaction."""
    found = db.execute(queries()["free_pages"]).fetchone()
    spare = found["free"] - max(SPARE_PAGES, found["pages"] // 10)
    if found["mode"] != INCREMENTAL or spare <= 0:
        return 0
    pages = min(spare, PAGES_AT_ONCE)
    for _ in range(pages):
        db.execute("PRAGMA incremental_vacuum(1)")  # Python's module takes one step of it, and a step is a page.
    return int(pages)


def compact(path: Path) -> Compacted:
    """Rewrite the database, which no daemon uses, without its free pages. Blocks; StoreError if it cannot be.

    A crash on the way leaves it as it was. It needs as much room again as the database has.
    """
    if not path.is_file():
        raise StoreError(f"there is no database {path}; aglowd start makes one")
    lock = take_lock(path)
    try:
        before = path.stat().st_size
        db = sqlite3.connect(path, isolation_level=None)
        try:
            check(db)
            db.execute(f"PRAGMA auto_vacuum = {INCREMENTAL}")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            db.close()
        if os.geteuid() == 0:
            _give_to_owner(path)
        backup.sync(path)
        return Compacted(before, path.stat().st_size)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} cannot be compacted: {error}") from error
    finally:
        os.close(lock)


def _give_to_owner(path: Path) -> None:
    """What root leaves beside the database, the daemon's user must be able to write."""
    owner = path.parent.stat()
    for name in (path, *(Path(f"{path}{end}") for end in ("-wal", "-shm", ".lock"))):
        if name.exists():
            os.chown(name, owner.st_uid, owner.st_gid)
