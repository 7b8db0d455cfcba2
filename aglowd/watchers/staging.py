"""Requests at the stagers: one progress call a round for all requests at one of them."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.errors import OutsideError, Permanent
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
            try:
                stager = self.world.stager(subject.args["site"])
            except (
                Permanent
            ) as error:  # A site that was taken out of the configuration keeps nobody else's answer back.
                self.log.warning("request_without_stager", subject=subject.key, error=str(error))
            else:
                by_stager.setdefault(id(stager), []).append(subject)
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
                try:
                    status = await stager.status(request)
                except OutsideError as error:  # One request that cannot be read keeps no other one's answer back.
                    self.miss([subject], error)
                    self.log.warning("request_not_told", subject=subject.key, error=str(error))
                    continue
                data = {"status": status or "gone", "done": None, "total": None, "percent": None}
            seen.append((subject, data))
        return seen
