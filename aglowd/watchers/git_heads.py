"""Git repositories that steps of kind `git_head` look at."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.errors import Permanent
from aglowd.grid.git import find_head
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher

ROUND = "5m"


class GitHeads(Watcher):
    """`git_head:<occasion>` (args: url, ref) → `commit`; or `problem`, if the repository has no such branch or tag."""

    kind = "git_head"

    @staticmethod
    def poll(config: Config) -> str:
        return ROUND

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each([[subject] for subject in subjects], self._ask)

    async def _ask(self, group: Sequence[Subject]) -> Observations:
        (subject,) = group
        try:
            commit = await find_head(self.world.processes, subject.args["url"], subject.args["ref"])
        except Permanent as error:
            return [(subject, {"commit": "", "problem": str(error)})]
        return [(subject, {"commit": commit, "problem": ""})]
