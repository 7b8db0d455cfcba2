"""The only reader of time and randomness, so that a test or a demo can own both.

Policy durations (poll, settle, retry, due, timeout) are *world seconds*. `rate` world seconds pass in one real
second: 1 in production, thousands in a demo, where the daemon and the simulated grid share `rate` and `origin`.
Transport timeouts stay real seconds and never come here.

`now()` follows the monotonic clock from one anchor taken at the start, so that a jump of the wall clock, hours
either way, fires no timer early or late while the process lives.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

RESTART_REAL_S = 1.0
RESTART_MOST_REAL_S = 60.0


def restart_after_s(failures: int) -> float:
    """Real seconds after which a loop that raised so many times in a row begins anew: doubled each time, up to a limit."""
    return min(RESTART_REAL_S * 2.0 ** min(failures - 1, 10), RESTART_MOST_REAL_S)


class Clock:
    """World time. `origin` is the real epoch at which world time and real time agreed.

    `wall` and `monotonic` are the host's two clocks and `seed` begins the randomness; a simulation brings its own.
    """

    def __init__(
        self,
        rate: float = 1.0,
        origin: float | None = None,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        seed: int | None = None,
    ) -> None:
        if rate <= 0:
            raise ValueError(f"clock.rate must be positive, not {rate}")
        self.rate = rate
        real = wall()
        self._monotonic = monotonic
        self._anchor_monotonic = monotonic()
        self._anchor_world = real if origin is None else origin + (real - origin) * rate
        self._random = random.Random(os.urandom(16) if seed is None else seed)

    def now(self) -> float:
        """World seconds since 1970, never running backwards within one process."""
        return self._anchor_world + (self._monotonic() - self._anchor_monotonic) * self.rate

    def real_s(self, world_s: float) -> float:
        """How long `world_s` world seconds take in real seconds."""
        return world_s / self.rate

    async def sleep(self, world_s: float) -> None:
        """Return after `world_s` world seconds."""
        await asyncio.sleep(max(0.0, world_s / self.rate))

    def token(self) -> str:
        """Eight characters that nobody else has drawn."""
        return f"{self._random.getrandbits(32):08x}"

    def jitter(self, spread: float = 0.1) -> float:
        """A factor in 1 ± spread, so that retries of many do not march in step."""
        return self._random.uniform(1 - spread, 1 + spread)


def iso(world: float) -> str:
    """The instant as people and logs read it: UTC, to the second."""
    return datetime.fromtimestamp(world, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
