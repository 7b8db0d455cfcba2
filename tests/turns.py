"""What is too much for each day is done by turns: a third a day, and all of it in three days in a row.

What must stay true: which third a day has follows from the date alone, so that parts that are run apart fit together.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import TypeVar

T = TypeVar("T")


def rotating_third(things: Sequence[T], day: date | None = None) -> tuple[int, list[T]]:
    """Which third is that day's, today's if none is named, and what is in it; the things must come in the same order each day."""
    number = (day or datetime.now(UTC).date()).toordinal() % 3
    return number, list(things[number::3])
