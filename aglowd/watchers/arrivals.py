"""Files that are coming: which of them have stood still for so long that nobody can still be writing them.

What must stay true: a file is quiet only if two looks, the second begun at least `quiet_s` after the first had ended,
and every look between them, saw the same size. What was seen before a restart is not remembered: then it takes longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from msgspec import Struct

from aglowd.effects.base import World
from aglowd.effects.files import is_temporary
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.base import Observations
from aglowd.watchers.directories import Directories

KEPT_POLLS = 20
"""What was not looked at for so many polls is forgotten: nobody waits for it any more."""


class Known(Struct, frozen=True):
    """A directory as the latest look saw it: when that ended, each file's size, and since when it is that (world seconds)."""

    at: float
    sizes: dict[str, tuple[int, float]]


class Arrivals(Directories):
    """`arrivals:<occasion>` (args: url, pattern, quiet_s) → `files` that match with url, size and `quiet`; `absent`."""

    kind = "arrivals"

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._known: dict[str, Known] = {}

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        began = self.clock.now()
        seen = list(await super().look(subjects))
        ended = self.clock.now()
        self._known = {
            url: known for url, known in self._known.items() if ended - known.at <= KEPT_POLLS * self.poll_s
        } | {subject.args["url"]: self._learn(subject.args["url"], listing, ended) for subject, listing in seen}
        return [(subject, self._show(subject, listing, began)) for subject, listing in seen]

    def _learn(self, url: str, listing: Json, now: float) -> Known:
        before = self._known[url].sizes if url in self._known else {}
        sizes = {}
        for file in listing["files"]:
            size, since = before.get(file["url"], (None, now))
            sizes[file["url"]] = (file["size_bytes"], since if size == file["size_bytes"] else now)
        return Known(now, sizes)

    def _show(self, subject: Subject, listing: Json, began: float) -> Json:
        url, pattern, quiet_s = subject.args["url"], subject.args["pattern"], subject.args["quiet_s"]
        sizes = self._known[url].sizes
        files = [
            {**file, "quiet": began - sizes[file["url"]][1] >= quiet_s}
            for file in listing["files"]
            if fnmatch(file["url"].rpartition("/")[2], pattern) and not is_temporary(file["url"])
        ]
        return {"absent": listing["absent"], "files": files}
