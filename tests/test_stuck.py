"""Each way to be stuck that docs/stuck.md tells of: it is brought about, and explained as the page says."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from msgspec import Struct

from aglowd.grid import catalogue_csv
from tests.stuck import beginning, ending, staging, working
from tests.stuck.place import FIELD, SITUATIONS, Lines
from tests.virtual.loop import VirtualLoop

PAGE = Path(__file__).parent.parent / "docs" / "stuck.md"
ROW = re.compile(
    r"^### (?P<heading>[^\n]+)\n\n```\n(?P<said>.+?)```\n\n- By itself: (?P<by_itself>.+?)\n- Helps: `(?P<helps>[^`\n]+)`\n"
    r"- More: \[",
    flags=re.MULTILINE | re.DOTALL,
)
PLAYS = (beginning, staging, working, ending)
"""Importing them fills SITUATIONS."""


class Row(Struct, frozen=True):
    """What the page says of one way to be stuck."""

    said: tuple[str, ...]
    helps: str


def rows() -> dict[str, Row]:
    text = PAGE.read_text(encoding="utf-8").replace("FIELD", FIELD)
    return {
        found["heading"].replace(FIELD, "FIELD"): Row(tuple(found["said"].splitlines()), found["helps"])
        for found in ROW.finditer(text)
    }


ROWS = rows()


@pytest.fixture(autouse=True)
def old_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files are dated by the host's own clock, of which nobody here knows how much passes; logs are read by nobody."""
    monkeypatch.setattr(catalogue_csv, "_YOUNG_S", 0.0)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def fits(shown: str, line: str) -> bool:
    """Whether the line is what the page shows; there, … stands for whatever differs, with the blanks beside it."""
    return re.fullmatch(".*".join(map(re.escape, re.split(" ?… ?", shown))), line) is not None


def first_that_is_missing(row: Row, lines: Lines) -> str:
    """The first line of the page that is not said behind the one before, or ''."""
    left = iter(lines)
    return next((shown for shown in row.said if not any(fits(shown, line) for line in left)), "")


@pytest.mark.world
@pytest.mark.timeout(60)
@pytest.mark.parametrize("heading", sorted({*ROWS, *SITUATIONS}))
def test_a_field_that_is_stuck_is_explained_as_the_page_says(heading: str) -> None:
    assert heading in ROWS, "nothing on the page tells of it"
    assert heading in SITUATIONS, "nothing brings it about"
    row = ROWS[heading]
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        lines = runner.run(SITUATIONS[heading]())
    missing = first_that_is_missing(row, lines)
    assert not missing, f"{missing!r} is not said:\n" + "\n".join(lines)
    assert any(fits(f"…{row.helps}…", line) for line in lines), f"{row.helps} is not named:\n" + "\n".join(lines)


def test_the_page_tells_of_many_ways_and_says_of_each_why_since_when_and_what_is_next() -> None:
    assert len(ROWS) >= 30
    assert len(ROWS) == PAGE.read_text(encoding="utf-8").count("\n### "), "a section has another form"
    assert re.findall(r"Here are (\d+) ways", PAGE.read_text(encoding="utf-8")) == [str(len(ROWS))]
    for heading, row in ROWS.items():
        shown = [line.split()[0] for line in row.said]
        assert {"why", "DATABASE"} & {*shown}, heading
        assert "next" in shown, heading
        assert any("since …" in line for line in row.said), heading


def test_what_the_page_shows_is_looked_for_in_its_order() -> None:
    row = Row(("stage is …", "  why  …; 3 of 5"), "")
    said = ["stage is waiting", "  why  x; 3 of 5"]
    assert first_that_is_missing(row, said) == ""
    assert first_that_is_missing(row, said[::-1]) == "  why  …; 3 of 5"
    assert first_that_is_missing(row, [said[0], "  why  x; 4 of 5"]) == "  why  …; 3 of 5"
