"""A round of packing: each run has its turn once, those that must stay hold nobody else up, and a job keeps its run only until its end is seen."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from support import HandClock, Played, begin, new_reactor, rows, settle_all

from aglowd.model import Do, Done, Outcome, Seen, StepView, Subject, Wait
from aglowd.model import EffectState as State
from aglowd.store import archive
from aglowd.store.archive import RUNS_AT_ONCE, Place, Terms
from aglowd.store.doubts import Finding
from aglowd.store.store import Store
from tests.store.test_archive import packed
from tests.store.test_forgetting import LINE, Submit, ended

DAY_S = 86_400.0
TERMS = Terms(30 * DAY_S, 7 * DAY_S)


async def play_round(store: Store) -> int:
    """A round; how many transactions it took."""
    place: Place | None = Place()
    turns = 0
    while place is not None:
        place = (await store.archive_runs(TERMS, place)).next
        turns += 1
    return turns


async def populate(store: Store, clock: HandClock, kept: int, free: int) -> None:
    """Runs that the audit's findings keep, and after them some that may go."""
    names = [f"K{number:02d}" for number in range(kept)]
    await ended(store, *names)
    findings = [Finding(f"job:/{name}", "duplicate", "a twin", f"{name}-1/only/1/submit_jobs/0") for name in names]
    await store.record_findings("job:", findings)
    clock.advance(1.0)
    await ended(store, *(f"P{number}" for number in range(free)))
    clock.advance(31 * DAY_S)


async def test_who_must_stay_is_looked_at_once_a_round(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LOOKS_AT_ONCE", 5)
    await populate(store, clock, kept=12, free=5)
    looks: list[str] = []

    def listen(db: sqlite3.Connection) -> None:
        db.set_trace_callback(lambda text: looks.append(text) if "FROM findings WHERE handled = ''" in text else None)

    await store.db.write(listen)
    assert await play_round(store) == 2 + (5 + RUNS_AT_ONCE) // RUNS_AT_ONCE
    assert await packed(store) == [f"P{number}-1" for number in range(5)]
    assert len(looks) == 12 + 5
    looks.clear()
    assert await play_round(store) == 3
    assert len(looks) == 12, "and so in the next one: nothing is remembered of why they stayed"


async def test_a_transaction_looks_at_a_few_runs_at_most(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LOOKS_AT_ONCE", 5)
    await populate(store, clock, kept=12, free=1)
    turn = await store.archive_runs(TERMS, Place())
    assert (turn.packed, turn.next) == (0, Place(1.0e9, "K04-1"))
    turn = await store.archive_runs(TERMS, Place(1.0e9, "K11-1"))
    assert (turn.packed, turn.next) == (1, None)


async def test_a_job_keeps_its_run_until_its_end_is_seen(store: Store, clock: HandClock) -> None:
    job, never = Subject("job", "7@sara", {"job": "7", "site": "sara"}), Subject("job", "8")
    seen = {"final": False, "state": "running", "reason": "", "nodes": {}}

    def submits(view: StepView, params: Any, seen: Seen) -> Outcome:
        if not seen.count(Submit):
            return Do((Submit(site="sara"),))
        return Done({}) if seen.of(job) else Wait((job, never), "waits", 60.0)

    await begin(store, LINE, "P1")
    reactor = new_reactor(store, [Played({"only": submits})], LINE)
    await settle_all(reactor)
    (live,) = await store.next_effects((), 5)
    await store.settle(live, State.DONE, {"jobs": ["7", "8"], "nodes": 2})
    await settle_all(reactor)
    assert await store.unended_jobs() == [], "a step waits for them"
    await store.ingest("job", None, [(job, seen)])
    await settle_all(reactor)
    assert [row["state"] for row in await rows(store, "SELECT state FROM runs")] == ["done"]
    assert await store.unended_jobs() == [(job, seen), (never, None)]
    clock.advance(31 * DAY_S)
    await play_round(store)
    assert await packed(store) == []
    await store.ingest("job", None, [(job, {**seen, "final": True, "state": "done_ok"})])
    assert await store.unended_jobs() == [(never, None)]
    await play_round(store)
    assert await packed(store) == ["P1-1"]
