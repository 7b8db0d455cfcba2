"""Directories on storage: what lies in them."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.errors import Permanent
from aglowd.grid.dcache_events import directory_of
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations
from aglowd.watchers.listings import Listings


def directories(subject: Subject) -> set[str]:
    """The directory itself, as dCache's events name it; none if it is on a local disk."""
    directory = directory_of(subject.args["url"])
    return {directory} if directory else set()


class Directories(Listings):
    """`directory:<occasion>` (args: url) → `files` with url and size, `absent` if there is no such directory."""

    kind = "directory"
    adapts = True

    @staticmethod
    def poll(config: Config) -> str:
        return config.storage.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        found = await self.listed((subject.args["url"] for subject in subjects), self._list)
        return [(subject, found[subject.args["url"]]) for subject in subjects if subject.args["url"] in found]

    async def _list(self, url: str) -> Json:
        try:
            entries = await self.world.storage.list(url)
        except Permanent as error:
            if not error.absent:
                raise
            return {"absent": True, "files": []}
        files = [{"url": entry.url, "size_bytes": entry.size_bytes} for entry in entries if not entry.is_dir]
        return {"absent": False, "files": sorted(files, key=lambda file: str(file["url"]))}
