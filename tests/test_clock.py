"""The clock: world time runs at its rate from one anchor, whatever the wall clock does."""

from __future__ import annotations

import asyncio

import pytest

from aglowd.clock import Clock, iso


class Watches:
    """The wall clock and the monotonic clock of the machine, both in our hand."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000_000.0, 50.0

    def clock(self, rate: float = 1.0, origin: float | None = None) -> Clock:
        """The clock of a process that starts now."""
        return Clock(rate, origin, wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds


@pytest.fixture
def watches() -> Watches:
    return Watches()


def test_in_production_world_time_is_real_time(watches: Watches) -> None:
    clock = watches.clock()
    assert clock.now() == 1_000_000.0
    watches.advance(12.5)
    assert clock.now() == 1_000_012.5
    assert clock.real_s(60.0) == 60.0


def test_world_time_runs_at_its_rate(watches: Watches) -> None:
    clock = watches.clock(rate=5000)
    watches.advance(2.0)
    assert clock.now() == 1_010_000.0
    assert clock.real_s(10_000.0) == 2.0


@pytest.mark.parametrize("jump", [-7200.0, 7200.0])
def test_a_jump_of_the_wall_clock_moves_nothing(watches: Watches, jump: float) -> None:
    clock = watches.clock(rate=2)
    watches.wall += jump
    assert clock.now() == 1_000_000.0
    watches.advance(1.0)
    assert clock.now() == 1_000_002.0


def test_two_processes_with_one_origin_agree(watches: Watches) -> None:
    one = watches.clock(rate=1000, origin=999_990.0)
    assert one.now() == 999_990.0 + 10_000.0
    watches.advance(3.0)
    two = watches.clock(rate=1000, origin=999_990.0)
    assert two.now() == one.now() == 999_990.0 + 13_000.0


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_time_that_stands_still_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"clock\.rate must be positive"):
        Clock(rate=rate)


async def test_a_sleep_takes_world_seconds() -> None:
    clock = Clock(rate=100_000.0)
    before = clock.now()
    await asyncio.wait_for(clock.sleep(3600.0), 5.0)
    assert clock.now() - before >= 3600.0
    await asyncio.wait_for(clock.sleep(-5.0), 5.0)


def test_jitter_stays_within_its_spread_and_differs() -> None:
    clock = Clock()
    factors = [clock.jitter(0.2) for _ in range(200)]
    assert all(0.8 <= factor <= 1.2 for factor in factors)
    assert len(set(factors)) > 100
    assert all(0.9 <= clock.jitter() <= 1.1 for _ in range(200))


def test_an_instant_as_people_read_it() -> None:
    assert iso(0.0) == "1970-01-01T00:00:00Z"
    assert iso(1_767_225_661.9) == "2026-01-01T00:01:01Z"
