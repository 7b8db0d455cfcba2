"""Requests at the LTA stager: one progress call a round for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher


class Staging(Watcher):
    """`staging:<request>`, or `staging:<occasion>` (args: request) → status, done, total, percent.

    A request that the stager has forgotten is `gone`: neither good nor bad.
    """

    kind = "staging"
    whole = True

    @staticmethod
    def poll(config: Config) -> str:
        return config.lta.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        progress = await self.world.lta.progress()
        seen = []
        for subject in subjects:
            request = int(subject.args.get("request", subject.id))
            found = progress.get(request)
            if found is not None:
                data = {
                    "status": found.state,
                    "done": found.files_done,
                    "total": found.file_count,
                    "percent": found.percent,
                }
            else:
                status = await self.world.lta.status(request)
                data = {"status": status or "gone", "done": None, "total": None, "percent": None}
            seen.append((subject, data))
        return seen
