"""Directories with all below them."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.errors import Permanent
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations
from aglowd.watchers.listings import Listings, at_once

MAX_TREE_FILES = 5_000
"""Files below one directory: a step that copies or removes them keeps a row of the journal for each."""
MAX_TREE_DIRECTORIES = 500
"""Directories below one: each is a listing of its own."""
MAX_TREE_DEPTH = 8
"""Levels of directories below one; a link to a directory above it would have no end."""


class Trees(Listings):
    """`tree:<occasion>` (args: url) → `files` with url and size, `absent`, and a `problem` if there are too many."""

    kind = "tree"

    @staticmethod
    def poll(config: Config) -> str:
        return config.storage.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        roots = [(subject, subject.args["url"].rstrip("/")) for subject in subjects]
        found = await self.listed((root for _, root in roots), self._list)
        return [(subject, found[root]) for subject, root in roots if root in found]

    async def _list(self, root: str) -> Json:
        files: list[dict[str, Json]] = []
        below: list[str] = []
        count = 0

        async def add(url: str) -> None:
            try:
                entries = await self.world.storage.list(url)
            except Permanent as error:
                if url == root or not error.absent:
                    raise
                return  # It went away since its own directory was listed.
            self.progress_at = self.clock.now()
            files.extend({"url": entry.url, "size_bytes": entry.size_bytes} for entry in entries if not entry.is_dir)
            below.extend(entry.url for entry in entries if entry.is_dir)
            if len(files) > MAX_TREE_FILES:
                raise _TooLarge(f"{root} holds more than {MAX_TREE_FILES} files")
            if count + len(below) > MAX_TREE_DIRECTORIES:
                raise _TooLarge(f"{root} holds more than {MAX_TREE_DIRECTORIES} directories")

        level = [root]
        try:
            for _ in range(MAX_TREE_DEPTH + 1):
                await at_once(level, add)
                if not below:
                    return _tree(files)
                level, count, below = sorted(below), count + len(below), []
            what = f"{MAX_TREE_DEPTH} levels of directories, the last {level[0]}"
            return _tree((), problem=f"{root} holds more than {what}")
        except _TooLarge as error:
            return _tree((), problem=str(error))
        except Permanent as error:
            if not error.absent:
                raise
            return _tree((), absent=True)


class _TooLarge(Exception):
    """There is more below a directory than a step could keep."""


def _tree(files: Sequence[dict[str, Json]], *, absent: bool = False, problem: str = "") -> Json:
    return {"absent": absent, "problem": problem, "files": sorted(files, key=lambda file: str(file["url"]))}
