"""The grid proxy: until when it is good."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher

GRAIN_S = 600.0
"""The end is rounded down to this, so that the seconds between two looks are no news."""


class Proxies(Watcher):
    """`proxy:default` → `valid_until` (world seconds): the earlier of the certificate's end and its VOMS attributes' end."""

    kind = "proxy"
    whole = True
    seconds_left: float | None = None

    @staticmethod
    def poll(config: Config) -> str:
        return config.proxy.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        info = await self.world.proxy.info()
        left_s = info.seconds_left if info.ac_seconds_left is None else min(info.seconds_left, info.ac_seconds_left)
        self.seconds_left = left_s
        until = (self.clock.now() + left_s) // GRAIN_S * GRAIN_S
        return [(subject, {"valid_until": until}) for subject in subjects]
