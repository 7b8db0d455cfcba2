"""Durations: what people write is read, what they cannot mean is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.durations import duration_s, duration_text, instant_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("5m", 300.0),
        ("1.5h", 5400.0),
        ("7d", 604_800.0),
        ("2w", 1_209_600.0),
        (" 3 h ", 10_800.0),
        ("0s", 0.0),
        (12, 12.0),
        (0.25, 0.25),
    ],
)
def test_what_people_write(text: str | float, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "5 minutes", "5M", "-5m", "1h30m", "1e3s", ".5h", "5.h", "5m x", True])
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(ValueError, match="is no duration; expected a number and a unit"):
        duration_s(text)


def test_no_time_runs_backwards() -> None:
    with pytest.raises(ValueError, match=r"cannot be negative: -0\.5"):
        duration_s(-0.5)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_number_that_is_no_time(number: float) -> None:
    with pytest.raises(ValueError):
        duration_s(number)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.6, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (3605, "1h 5s"),
        (7 * 86_400, "7d"),
        (86_400 + 3 * 3600 + 59 * 60 + 59, "1d 3h"),
        (2 * 3600 + 5 * 60 + 30, "2h 5m"),
    ],
)
def test_what_people_read(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.integers(0, 10**9))
def test_what_people_read_is_true_to_its_smallest_unit(seconds: int) -> None:
    parts = duration_text(seconds).split()
    told = sum(duration_s(part) for part in parts)
    assert 1 <= len(parts) <= 2
    assert 0 <= seconds - told < 3600
    assert told > 0.95 * seconds or seconds - told < 1


NOW = 1_796_143_863.0


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("now", NOW),
        ("2h", NOW - 7_200.0),
        ("2h ago", NOW - 7_200.0),
        ("1.5h", NOW - 5_400.0),
        (" 7d ", NOW - 604_800.0),
        ("2001-09-09T01:46:40Z", 1.0e9),
        ("2001-09-09T01:46:40", 1.0e9),
        ("2001-09-09 01:46:40", 1.0e9),
        ("2001-09-09T03:46:40+02:00", 1.0e9),
        ("2001-09-09", 1.0e9 - 6_400.0),
    ],
)
def test_what_people_write_for_a_time(text: str, at: float) -> None:
    assert instant_s(text, NOW) == at


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2h from now", "12", "-2h", "2026-13-01", "25:00", "ago", "9" * 400 + "d"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time; expected UTC such as"):
        instant_s(text, NOW)
