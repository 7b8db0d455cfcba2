"""Whole days of the grid with crashes, faults and jumping clocks: every field is archived, nothing is lost or doubled.

A seed is a world. A failing one replays exactly: `python -m tests.virtual --seed N`.
"""

from __future__ import annotations

import pytest

from tests.virtual.run import run_seed, tell

REPLAYED = 9
SEEDS = (0, 1, 2, 7, 10, 11, 12, 14)
MORE = (3, 4, 5, 6, 8, 13, 15, 16, 17, 18, 19)
"""With the replayed one the first twenty: each thing that a script draws (rates, polls, slots, where crashes come, jumps,
freezes, real processes) is in some of them. `make soak` lives through any number more."""

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]


@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.long) for seed in MORE)])
def test_every_field_is_archived_and_nothing_is_lost_or_doubled(seed: int) -> None:
    verdict = run_seed(seed)
    print(tell(verdict))
    assert verdict.wrong == ()
    assert verdict.checks > 20
    assert len(verdict.ops) > 200


def test_a_seed_replays_exactly() -> None:
    first, second = run_seed(REPLAYED), run_seed(REPLAYED)
    assert first.wrong == ()
    assert len(first.ops) > 200
    assert first.ops == second.ops
