"""Durations and instants as people write and read them: `"7d"`, `"2h 5m"`, `"2026-11-26T01:25:51Z"`."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from functools import lru_cache

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def duration_s(text: str | float) -> float:
    """Seconds from `"90s"`, `"5m"`, `"1.5h"`, `"7d"`, `"2w"` or a plain number of seconds; ValueError otherwise."""
    is_number = isinstance(text, int | float) and not isinstance(text, bool)
    value = float(text) if is_number else _read_s(str(text))
    if value < 0:
        raise ValueError(f"a duration cannot be negative: {text}")
    if not math.isfinite(value):
        raise ValueError(f"a duration has an end, {text} has none")
    return value


@lru_cache(maxsize=1024)
def _read_s(text: str) -> float:
    """As `duration_s`, of a text; what was read is kept, because handlers read their parameters anew at each decision."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", text)
    if found is None:
        raise ValueError(f'{text!r} is no duration; expected a number and a unit, such as "90s", "5m", "2h" or "7d"')
    return float(found[1]) * _UNITS_S[found[2]]


def duration_text(seconds: float) -> str:
    """A duration as people say it: the two largest units that matter."""
    parts: list[str] = []
    rest = round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return " ".join(parts)


def instant_s(text: str, now: float) -> float:
    """World seconds of `"2026-11-26T01:25:51Z"` (UTC unless it names an offset), `"2026-11-26"`, `"now"`, or so long before
    `now` as `"2h"` or `"2h ago"` says; ValueError otherwise."""
    said = text.strip()
    if said == "now":
        return now
    try:
        return now - duration_s(said.removesuffix("ago"))
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(said)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            f'{text[:60]!r} is no time; expected UTC such as "2026-11-26T01:25:51Z" or "2026-11-26", or how long ago, such as '
            '"90s", "5m", "2h" or "7d"'
        ) from None
