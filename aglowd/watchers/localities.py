"""Where files are, online or on tape: the truth behind what a stager says."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher


class Localities(Watcher):
    """`locality:<occasion>` (args: surls) → which of the files are missing, and how many are where."""

    kind = "locality"

    @staticmethod
    def poll(config: Config) -> str:
        return config.dcache.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        surls = list(dict.fromkeys(surl for subject in subjects for surl in subject.args["surls"]))
        where = await self.world.dcache.localities(surls)
        seen = []
        for subject in subjects:
            counts: dict[str, int] = {}
            for surl in subject.args["surls"]:
                place = where.get(surl, "UNKNOWN")
                counts[place] = counts.get(place, 0) + 1
            missing = [surl for surl in subject.args["surls"] if where.get(surl) != "ONLINE"]
            seen.append((subject, {"missing": missing, "counts": counts}))
        return seen
