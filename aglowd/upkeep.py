"""Keeps the database small: packs runs that ended long ago, forgets old events, and gives the room back.

What must stay true: nobody waits for it. It does a little in a transaction, rests after each, and gives room back only
while nobody else writes. All that it does may come later: what is not done in this life is done in the next.
"""

from __future__ import annotations

import asyncio

import structlog

from aglowd.clock import Clock
from aglowd.config import HistoryConfig
from aglowd.durations import duration_s
from aglowd.store.archive import Place, Terms
from aglowd.store.store import Store

EVERY_S = 600.0
"""World seconds between two rounds."""
LEAST_REAL_S = 10.0
"""Real seconds between two rounds at least: where time flies, too, others come first."""
REST_REAL_S = 0.05
"""Real seconds after each transaction in which the others have the database for themselves."""
STEP_REAL_S = 30.0
"""Real seconds after which one that rests shows that it is alive."""


class Upkeep:
    """A round every `EVERY_S`. `pinned_s`: how long sites pin what they staged."""

    def __init__(self, store: Store, clock: Clock, config: HistoryConfig, pinned_s: float) -> None:
        self._store = store
        self._clock = clock
        self._log = structlog.get_logger("upkeep")
        self.progress_at = clock.now()
        self.defect = ""
        self.heed(config, pinned_s)

    def heed(self, config: HistoryConfig, pinned_s: float) -> None:
        """Go by these from the next transaction on."""
        self._terms = Terms(duration_s(config.archive_after), pinned_s)
        self._events_most, self._events_keep_s = config.events_most, duration_s(config.events_keep)

    async def run(self) -> None:
        """Keep it small for ever."""
        at = self._clock.now()
        while True:
            self.progress_at = self._clock.now()
            rest_s = self._clock.real_s(at - self.progress_at)
            if rest_s > 0:
                await asyncio.sleep(min(rest_s, STEP_REAL_S))
                continue
            try:
                await self.look()
                self.defect = ""
            except Exception as error:  # Who cannot tidy up is no reason to stop the work.
                self.defect = f"{type(error).__name__}: {error}"
                self._log.exception("upkeep_raised")
            at = self._clock.now() + max(EVERY_S, LEAST_REAL_S * self._clock.rate)

    async def look(self) -> None:
        """One round."""
        packed = pruned = pages = 0
        place: Place | None = Place()
        while place is not None:
            turn = await self._store.archive_runs(self._terms, place)
            packed, place = packed + turn.packed, turn.next
            await self._rest()
        while count := await self._store.prune_events(self._events_most, self._events_keep_s):
            pruned += count
            await self._rest()
        while self._store.db.is_idle and (count := await self._store.give_back()):
            pages += count
            await self._rest()
        if packed or pruned or pages:
            self._log.info("tidied", runs=packed, events=pruned, pages=pages)

    async def _rest(self) -> None:
        self.progress_at = self._clock.now()
        await asyncio.sleep(REST_REAL_S)
