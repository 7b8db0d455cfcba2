"""The grid proxies: until when they are good."""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.grid.proxy import Proxy
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher

KNOWN_POLLS = 4.0
"""For so many polls what was seen of the proxy is believed: nobody looks at it while no step needs it."""
GRAIN_S = 600.0
"""The end is rounded down to this, so that the seconds between two looks are no news."""


class Proxies(Watcher):
    """`proxy:default` and `proxy:<path>` (args: path) → `valid_until` (world seconds): the earlier of the certificate's end
    and its VOMS attributes' end. `seconds_left` is that of the common one."""

    kind = "proxy"
    whole = True
    seconds_left: float | None = None
    _looked_at = 0.0

    @property
    def known_left_s(self) -> float | None:
        """World seconds for which it is good from now on; None when it was not looked at for long: it may be another one."""
        age_s = self.clock.now() - self._looked_at
        return None if self.seconds_left is None or age_s > KNOWN_POLLS * self.poll_s else self.seconds_left - age_s

    @staticmethod
    def poll(config: Config) -> str:
        return config.proxy.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each([[subject] for subject in subjects], self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        (subject,) = subjects
        path = subject.args.get("path", "")
        proxy = Proxy(self.world.processes, path) if path else self.world.proxy
        info = await proxy.info()
        left_s = info.seconds_left if info.ac_seconds_left is None else min(info.seconds_left, info.ac_seconds_left)
        if not path:
            self.seconds_left, self._looked_at = left_s, self.clock.now()
        until = (self.clock.now() + left_s) // GRAIN_S * GRAIN_S
        return [(subject, {"valid_until": until})]
