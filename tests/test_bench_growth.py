"""The curves of the bench: exponents of known curves, and one thing measured for real, with its requests counted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from bench import growth

SIZES = (1_000, 10_000, 100_000)


@pytest.mark.parametrize(("power", "base"), [(1.0, 0.0), (2.0, 0.0), (0.0, 3.0), (0.5, 0.0)])
def test_the_exponent_is_that_of_the_curve(power: float, base: float) -> None:
    assert growth.exponent_of((size, base + size**power) for size in SIZES) == pytest.approx(power)


def test_what_does_not_grow_hides_no_growth_that_is_too_fast() -> None:
    most = growth.exponent_of((size, size * math.log(size)) for size in SIZES)
    assert 1.1 < most < 1.12
    assert growth.exponent_of((size, size + 0.01 * size**1.5) for size in SIZES) > most


def test_jobs_are_asked_for_in_batches_of_a_fixed_size(tmp_path: Path) -> None:
    found = growth.measure(tmp_path / "growth", quick=True, things=["jobs"])
    rows = found["jobs"]["rows"]
    assert [(row["jobs"], row["calls"]) for row in rows] == [(500, 1), (1_000, 2), (2_000, 4)]
    assert found["jobs"]["calls"]
    assert 0 < found["jobs"]["exponents"]["cpu_s"] < 2
    told: list[tuple[Any, ...]] = []
    growth.add_rows(found, lambda *row: told.append(row))
    assert [row[0] for row in told] == [
        "jobs (500, 1000, 2000): cpu_s", "jobs, the last: turn_ms", "jobs: requests to the outside in a round",
    ]  # fmt: skip


def test_a_request_too_many_misses_the_target() -> None:
    thing: dict[str, Any] = {"grows": True, "bounds": {}, "calls": False}
    assert growth.targets_of({"jobs": thing}) == {"growth: jobs": False}
    assert growth.targets_of({"jobs": {**thing, "calls": True, "bounds": {"step_kb": False}}}) == {
        "growth: jobs": False
    }
    assert growth.targets_of({"jobs": {**thing, "calls": True}}) == {"growth: jobs": True}
