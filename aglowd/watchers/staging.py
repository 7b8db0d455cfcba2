"""Requests at the stagers: one progress call a round for all requests at one of them."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations, Watcher


class Staging(Watcher):
    """`staging:<site>/<request>`, or an occasion of it (args: site, request) → status, done, total, percent.

    A request that the stager has forgotten is `gone`: neither good nor bad.
    """

    kind = "staging"
    whole = True
    adapts = True

    @staticmethod
    def poll(config: Config) -> str:
        return config.staging.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        by_stager: dict[int, list[Subject]] = {}
        for subject in subjects:
            by_stager.setdefault(id(self.world.stager(subject.args["site"])), []).append(subject)
        return await self.each(list(by_stager.values()), self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> list[tuple[Subject, Json]]:
        """What one stager says of its requests."""
        stager = self.world.stager(subjects[0].args["site"])
        progress = await stager.progress()
        seen = []
        for subject in subjects:
            request = subject.args["request"]
            found = progress.get(request)
            if found is not None:
                percent = None if found.percent is None else round(found.percent, 1)
                data = {
                    "status": found.state,
                    "done": found.files_done,
                    "total": found.file_count,
                    "percent": percent,
                }
            else:
                status = await stager.status(request)
                data = {"status": status or "gone", "done": None, "total": None, "percent": None}
            seen.append((subject, data))
        return seen
