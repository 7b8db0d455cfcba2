"""What every simulated system shares: world time, fate, and the ledger.

Two things must stay true. Latencies are world seconds, and only `WorldClock` turns them into real ones. And fate is
no sequence: each outcome is drawn from a hash of the seed and of what it is about, so that the same seed gives the
same world however requests interleave.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from aglowd.sim.ledger import Ledger

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


class WorldClock:
    """World time, which agrees with real time at `origin` and runs `speed` times as fast; `wall` tells real time."""

    def __init__(self, speed: float, origin: float, wall: Callable[[], float] = time.time) -> None:
        if speed <= 0:
            raise ValueError(f"speed must be positive, not {speed}")
        self.speed = speed
        self.origin = origin
        self.wall = wall

    def now(self) -> float:
        """World seconds since 1970."""
        return self.origin + (self.wall() - self.origin) * self.speed

    async def sleep(self, world_s: float) -> None:
        """Return after `world_s` world seconds."""
        await asyncio.sleep(max(0.0, world_s / self.speed))


def digest(*parts: object, size_bytes: int = 8) -> bytes:
    """A hash of the parts, which are told apart: ("ab", "c") is not ("a", "bc")."""
    text = "\x1f".join(map(str, parts))
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size_bytes).digest()


def draw(seed: int, *parts: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    return int.from_bytes(digest(seed, *parts)[:7], "big") / (1 << 56)


@dataclass(frozen=True)
class World:
    """The seed, the clock and the ledger; handed to every simulated system."""

    seed: int
    clock: WorldClock
    ledger: Ledger
    failure_rate: float = 1.0
    """Factor on the odds of everything that fails by chance: 0 = nothing ever fails, 1 = as on the real grid."""

    def now(self) -> float:
        return self.clock.now()

    def draw(self, *parts: object) -> float:
        return draw(self.seed, *parts)

    def between(self, low: float, high: float, *parts: object) -> float:
        """A drawn number in [low, high)."""
        return low + (high - low) * self.draw(*parts)

    def fails(self, odds: float, *parts: object) -> bool:
        """Whether chance strikes; `odds` are those at failure rate 1."""
        return self.draw(*parts) < odds * self.failure_rate

    def note(self, system: str, op: str, by: str = "client", **arguments: object) -> None:
        """Write one line to the ledger, at this instant of world time."""
        self.ledger.write(self.now(), system, op, by, arguments)
