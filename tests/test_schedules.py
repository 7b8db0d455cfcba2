"""When schedules are due: the next time, whatever the rule, the moment and the host's zone, and what is wrong with a rule."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.durations import duration_s
from aglowd.schedules import Schedule, next_time, read_schedule

MOMENTS = st.floats(min_value=0, max_value=4e9, allow_nan=False)
RULES = st.sampled_from(
    [Schedule(every=text) for text in ("1m", "90s", "7m", "4h", "1d", "2w", "1.5h")]
    + [
        Schedule(cron=text)
        for text in ("0 3 * * *", "*/7 * * * *", "30 4 1 * mon", "0 0 29 2 *", "@hourly", "@monthly")
    ]
)


@given(RULES, MOMENTS, st.floats(min_value=0, max_value=0.999))
def test_the_next_time_is_later_and_stays_the_next_one_until_it_has_come(
    rule: Schedule, after: float, share: float
) -> None:
    at = next_time(rule, after)
    assert at > after
    between = after + (at - after) * share
    assert between >= at or next_time(rule, between) == at
    assert next_time(rule, at) > at


@given(st.sampled_from(["1m", "4h", "1d", "90s"]), MOMENTS)
def test_every_is_the_next_multiple_since_1970(every: str, after: float) -> None:
    at = next_time(Schedule(every=every), after)
    assert at % duration_s(every) == 0
    assert 0 < at - after <= duration_s(every)


@given(st.integers(0, 59), st.integers(0, 23), MOMENTS)
def test_cron_is_the_next_such_minute(minute: int, hour: int, after: float) -> None:
    """Against a second way to know it: the same day or the one behind it."""
    moment = datetime.fromtimestamp(after, UTC)
    same = moment.replace(hour=hour, minute=minute, second=0, microsecond=0)
    expected = same if same > moment else same + timedelta(days=1)
    assert next_time(Schedule(cron=f"{minute} {hour} * * *"), after) == expected.timestamp()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
def test_cron_is_read_in_utc_whatever_the_hosts_zone(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the night in which a zone's clocks are changed."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        change = datetime(2026, 3, 8, 1, 30, tzinfo=UTC).timestamp()
        times = [change]
        for _ in range(3):
            times.append(next_time(Schedule(cron="0 7 * * *"), times[-1]))
        assert [datetime.fromtimestamp(at, UTC).strftime("%d %H:%M") for at in times[1:]] == [
            "08 07:00",
            "09 07:00",
            "10 07:00",
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


def problems(table: dict[str, object], params: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    schedule, found = read_schedule(table, params)
    assert (schedule is None) is bool(found)
    return [(keys, what) for keys, what, _ in found]


@pytest.mark.parametrize("every", ["4h", "1m", "2w"])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_good_schedule_is_read(every: str, enabled: bool) -> None:
    schedule, found = read_schedule({"every": every, "params": {"a": 1}, "enabled": enabled}, ("a",))
    assert found == []
    assert schedule == Schedule(every=every, params={"a": 1}, enabled=enabled)


@pytest.mark.parametrize(
    ("table", "keys", "word"),
    [
        ({}, (), "either `every` or `cron`"),
        ({"every": "4h", "cron": "0 3 * * *"}, (), "either `every` or `cron`"),
        ({"every": "soon"}, ("every",), "no duration"),
        ({"every": "59s"}, ("every",), "too short"),
        ({"every": 3600}, ("every",), "too short"),
        ({"every": True}, ("every",), "no duration"),
        ({"cron": "0 3 * *"}, ("cron",), "no cron expression"),
        ({"cron": "0 3 * * * 7"}, ("cron",), "no cron expression"),
        ({"cron": "61 3 * * *"}, ("cron",), "ever comes"),
        ({"cron": "0 0 31 2 *"}, ("cron",), "ever comes"),
        ({"cron": "@reboot"}, ("cron",), "no cron expression"),
        ({"cron": "H 3 * * *"}, ("cron",), "ever comes"),
        ({"cron": 5}, ("cron",), "no cron expression"),
        ({"every": "4h", "evry": "1h"}, ("evry",), "unknown key"),
        ({"every": "4h", "enabled": "no"}, ("enabled",), "true or false"),
        ({"every": "4h", "params": [1]}, ("params",), "not a table"),
        ({"every": "4h", "params": {"b": 1}}, ("params", "b"), "no parameter 'b'"),
    ],
)
def test_what_is_wrong_with_a_schedule_is_told_at_its_key(table: dict[str, object], keys: object, word: str) -> None:
    ((at, what),) = problems(table)
    assert at == keys
    assert word in what


def test_each_parameter_must_be_given() -> None:
    assert problems({"every": "4h", "params": {"a": 1}}, ("a", "b")) == [
        (("params",), "the schedule does not give the parameter 'b'")
    ]
