"""The grid proxies: until when they are good."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.grid.proxy import Proxy
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher

GRAIN_S = 600.0
"""The end is rounded down to this, so that the seconds between two looks are no news."""


class Proxies(Watcher):
    """`proxy:default` and `proxy:<path>` (args: path) → `valid_until` (world seconds): the earlier of the certificate's end
    and its VOMS attributes' end."""

    kind = "proxy"
    whole = True

    @staticmethod
    def poll(config: Config) -> str:
        return config.proxy.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each([[subject] for subject in subjects], self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        (subject,) = subjects
        path = subject.args.get("path", "")
        proxy = Proxy(self.world.processes, path, self.clock) if path else self.world.proxy
        left_s = (await proxy.info()).left_s
        until = (self.clock.now() + left_s) // GRAIN_S * GRAIN_S
        return [(subject, {"valid_until": until})]
