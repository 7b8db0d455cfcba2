"""What people ask reads only what concerns it: no statement walks through all events for the sake of a field."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from support import HandClock, opened, rows

from aglowd.store.db import queries

ABOUT_ALL = {
    "last_moment", "last_event",
    # From a number on, in order, and no more than were asked for.
    "events_since", "latest_events", "notices", "events_of_runs_since", "first_event_after", "prune_events",
}  # fmt: skip
"""Statements that ask about the log as a whole."""
FOUND = {
    name
    for name, text in queries().items()
    if re.search(r"\b(FROM|JOIN) (main\.)?events\b", text) and not text.startswith("INSERT") and name not in ABOUT_ALL
}


def test_there_are_such_statements() -> None:
    assert len(FOUND) >= 20


@pytest.mark.parametrize("name", sorted(FOUND))
async def test_the_log_is_read_through_an_index(tmp_path: Path, name: str) -> None:
    text = queries()[name]
    values = dict.fromkeys(re.findall(r":(\w+)", text), "x") | {"most": 5, "kinds": "[]", "ids": "[]"}
    values = {one: value for one, value in values.items() if f":{one}" in text}
    async with opened(tmp_path / "aglowd.db", HandClock()) as store:

        def plan(db: sqlite3.Connection) -> list[str]:
            return [row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {text}", values)]

        steps = await store.db.read(plan)
    aliases = {"events", "main.events", *re.findall(r"\bevents AS (\w+)", text)}
    read = [step for step in steps if re.match(rf"(SCAN|SEARCH) ({'|'.join(sorted(aliases))})\b", step)]
    assert read, steps
    for step in read:
        assert step.startswith("SEARCH"), step
        # By number alone is the whole log from there on; by number and cause, field, run, effect or kind is not.
        assert "rowid>" not in step or "INDEX" in step, step
        assert "events_kind" not in step or {"field", "run", "effect"}.isdisjoint(values), step


async def test_a_question_about_one_field_does_not_grow_with_the_others(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine, among ten thousand events of others."""
    async with opened(tmp_path / "aglowd.db", HandClock()) as store:

        def fill(db: sqlite3.Connection) -> None:
            for number in range(10_000):
                db.execute(
                    "INSERT INTO events (at, kind, field, run, step, subject, data, cause) VALUES (?, ?, ?, ?, ?, ?, '{}', ?)",
                    (number, "StepWaits", f"P{number % 500}", f"P{number % 500}-1", "s", "", max(0, number - 500)),
                )

        await store.db.write(fill)
        assert len(await rows(store, "SELECT 1 FROM events")) == 10_000

        def spent(db: sqlite3.Connection, name: str, values: dict[str, object]) -> int:
            count = 0

            def tick() -> None:
                nonlocal count
                count += 1

            db.set_progress_handler(tick, 10)
            try:
                db.execute(queries()[name], values).fetchall()
            finally:
                db.set_progress_handler(None, 0)
            return count

        asked: dict[str, dict[str, object]] = {
            "history_of_field": {"field": "P7", "since": 0, "until": 1e9, "run": "", "bulk": "[]"},
            "trace_of_run": {"run": "P7-1", "most": 5},
            "trace_of_step": {"run": "P7-1", "step": "s", "most": 5},
            "trace_from": {"id": 1, "most": 5},
            "step_event_before": {"run": "P7-1", "step": "s", "last": 10_000, "kinds": '["StepWaits"]'},
            "field_event_before": {"field": "P7", "last": 10_000, "kinds": '["FieldChanged"]'},
            "events_of_field": {"field": "P7", "since": 1, "until": 10_000, "kinds": '["StepWaits"]', "most": 50},
            "latest_events_of_kind": {"kind": "StepWaits", "until": 10_000, "most": 5},
            "event_before": {"at": 5_000.0},
        }
        for name, values in asked.items():
            assert await store.db.read(lambda db, name=name, values=values: spent(db, name, values)) < 200, name
