"""Files that a tool reads once: a job's sandbox, its description, a list of ids; and where a job's output goes.

What must stay true: they lie in a directory that nobody else may enter, because they may hold credentials, and they are
gone when the tool has ended; what a daemon that was killed left behind goes at the next start.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from aglowd.errors import Temporary

SANDBOX_PREFIX = "submit-"


@asynccontextmanager
async def written(work_dir: Path, files: Mapping[str, str]) -> AsyncIterator[Path]:
    """A new directory of mode 0700 with the files in it, each of mode 0600, until the body has ended.

    Temporary if they cannot be written. The names are trusted.
    """
    place = await asyncio.to_thread(_write, work_dir, files)
    try:
        yield place
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, place, ignore_errors=True))


def _write(work_dir: Path, files: Mapping[str, str]) -> Path:
    place = None
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=SANDBOX_PREFIX, dir=work_dir))
        for name, content in files.items():
            fd = os.open(place / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(content)
    except OSError as error:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        raise Temporary(f"{work_dir}: the job's files cannot be written: {error.strerror}") from error
    return place


def forget_sandboxes(work_dir: Path) -> None:
    """Remove what a daemon that was killed left behind: the pilots' files hold a password. Blocks."""
    for place in work_dir.glob(f"{SANDBOX_PREFIX}*"):
        shutil.rmtree(place, ignore_errors=True)


def output_directory(directory: Path, job: str) -> Path:
    """A new one below `directory` for one fetching: tools skip a job of which there is a directory already. Blocks.

    Temporary if it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{job}-", dir=directory))
    except OSError as error:
        raise Temporary(f"{directory}: the output cannot be written: {error.strerror}") from error
