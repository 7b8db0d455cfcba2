"""Jobs at the batch system: one status call a round for all of them."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher


class Jobs(Watcher):
    """`job:<id>` → state, the system's own words, `final`. A job that the answer does not name is left as it was."""

    kind = "job"
    whole = True

    @staticmethod
    def poll(config: Config) -> str:
        return config.jobs.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        found = await self.world.glite.status([subject.id for subject in subjects])
        seen = []
        for subject in subjects:
            job = found.get(subject.id)
            if job is not None:
                data = {"state": job.state, "words": job.words, "reason": job.reason, "final": job.is_final}
                seen.append((subject, data))
        return seen
