"""Directories with all below them."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.errors import OutsideError, Permanent
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations, Watcher

MAX_TREE_FILES = 5_000
"""Files below one directory: a step that copies or removes them keeps a row of the journal for each."""
MAX_TREE_DIRECTORIES = 500
"""Directories below one: each is a listing of its own."""
MAX_TREE_DEPTH = 8
"""Levels of directories below one; a link to a directory above it would have no end."""


class Trees(Watcher):
    """`tree:<occasion>` (args: url) → `files` with url and size, `absent`, and a `problem` if there are too many."""

    kind = "tree"

    @staticmethod
    def poll(config: Config) -> str:
        return config.storage.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        seen = []
        for subject in subjects:
            try:
                seen.append((subject, await self._list(subject.args["url"].rstrip("/"))))
            except OutsideError as error:  # One door that is down keeps nobody else's answer back.
                self.log.warning("tree_failed", url=subject.args["url"], error=str(error))
        return seen

    async def _list(self, root: str) -> Json:
        files: list[dict[str, Json]] = []
        level, count = [root], 0
        for _ in range(MAX_TREE_DEPTH + 1):
            below: list[str] = []
            for url in level:
                try:
                    entries = await self.world.storage.list(url)
                except Permanent as error:
                    if not error.absent:
                        raise
                    if url == root:
                        return _tree((), absent=True)
                    continue  # It went away since its own directory was listed.
                files += [{"url": entry.url, "size_bytes": entry.size_bytes} for entry in entries if not entry.is_dir]
                below += [entry.url for entry in entries if entry.is_dir]
                if len(files) > MAX_TREE_FILES:
                    return _tree((), problem=f"{root} holds more than {MAX_TREE_FILES} files")
                if count + len(below) > MAX_TREE_DIRECTORIES:
                    return _tree((), problem=f"{root} holds more than {MAX_TREE_DIRECTORIES} directories")
            if not below:
                return _tree(files)
            level, count = below, count + len(below)
        return _tree((), problem=f"{root} holds more than {MAX_TREE_DEPTH} levels of directories, the last {level[0]}")


def _tree(files: Sequence[dict[str, Json]], *, absent: bool = False, problem: str = "") -> Json:
    return {"absent": absent, "problem": problem, "files": sorted(files, key=lambda file: str(file["url"]))}
