"""Copies of the database, made while it is in use.

What must stay true: a backup appears whole and checked under its name, or not at all; it shows one committed state; the
writer never waits for it, because in WAL mode readers hold up nobody.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

from aglowd.errors import StoreError

STEP_PAGES = 1024
"""Pages (4 KiB each) that are copied before one looks whether the copy is still wanted."""

TIMEOUT_REAL_S = 3600.0
"""Real seconds that a backup may take; a gigabyte takes a local disk a minute."""


class Stopped(Exception):
    """Nobody wants the copy any more."""


def check(db: sqlite3.Connection, *, thoroughly: bool = False) -> str:
    """What is wrong with the database; empty if it is whole."""
    (verdict,) = db.execute(f"PRAGMA {'integrity_check' if thoroughly else 'quick_check'}(1)").fetchone()
    return "" if verdict == "ok" else str(verdict)


def copy(source: sqlite3.Connection, target: Path, *, replace: bool, stop: threading.Event | None = None) -> int:
    """Copy the state that the connection sees to a file of mode 0600; returns its bytes. Blocks.

    StoreError if the target exists and may not be replaced, or if the copy is not whole; OSError or sqlite3.Error if it
    cannot be written; Stopped when `stop` is set.
    """
    if not replace and os.path.lexists(target):
        raise StoreError(f"{target} exists already; it is only replaced with --force")

    def go_on(status: int, remaining: int, total: int) -> None:
        if stop is not None and stop.is_set():
            raise Stopped

    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        copied = sqlite3.connect(part, isolation_level=None)
        try:
            # An open read transaction: a commit between two steps would make SQLite begin the copy anew, for ever.
            source.execute("BEGIN")
            source.execute("SELECT count(*) FROM sqlite_master").fetchone()
            try:
                source.backup(copied, pages=STEP_PAGES, progress=go_on)
            finally:
                source.execute("COMMIT")
            copied.execute("PRAGMA journal_mode = DELETE")  # One file, which can be read where nobody may write.
            verdict = check(copied, thoroughly=True)
        finally:
            copied.close()
        if verdict:
            raise StoreError(f"the copy is not whole ({verdict}): the database itself is damaged")
        sync(part)
        if replace:
            os.replace(part, target)
        else:
            _publish(part, target)
        sync(target.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target.stat().st_size


def _publish(part: Path, target: Path) -> None:
    """Give the copy its name unless another file took that meanwhile."""
    try:
        os.link(part, target)
    except FileExistsError:
        raise StoreError(f"{target} exists already; it is only replaced with --force") from None
    except OSError:
        os.rename(part, target)  # A file system without links: there the name was looked for, and that must do.
    else:
        part.unlink()


def back_up(path: Path, target: Path, *, replace: bool, stop: threading.Event) -> int:
    """Copy the database at `path`, whoever uses it, to `target`; returns its bytes. Blocks; StoreError if it cannot be."""
    if target.name.startswith(path.name) and target.parent.exists() and os.path.samefile(target.parent, path.parent):
        raise StoreError(f"{target} is a name that the database keeps for itself; choose another")
    try:
        source = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            return copy(source, target, replace=replace, stop=stop)
        finally:
            source.close()
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{target} cannot be written by the daemon's user: {error}") from error


def sync(path: Path) -> None:
    """See to it that the file, or the names in the directory, survive a power failure."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
