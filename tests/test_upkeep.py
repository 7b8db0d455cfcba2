"""The upkeep: a round packs, prunes and gives back all that is due, heeds the configuration, and stops nobody."""

from __future__ import annotations

import asyncio
import sqlite3

import msgspec
import pytest
from support import HandClock, Played, begin, graph, new_reactor, one, settle_all, step

from aglowd import upkeep
from aglowd.config import HistoryConfig
from aglowd.store import vacuum
from aglowd.store.store import Store
from aglowd.upkeep import EVERY_S, Upkeep

DAY_S = 86_400.0
LINE = graph("line", step("one"), step("two", "one"))
CONFIG = HistoryConfig(archive_after="2d", events_most=1_000, events_keep="10d")
EVERYTHING = """SELECT (SELECT count(*) FROM archive) AS packed, (SELECT count(*) FROM events WHERE kind = 'StepReady') AS said,
  (SELECT freelist_count FROM pragma_freelist_count) AS free"""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "REST_REAL_S", 0.0)
    monkeypatch.setattr(vacuum, "SPARE_PAGES", 0)
    monkeypatch.setattr(vacuum, "PAGES_AT_ONCE", 5)


async def history(store: Store, clock: HandClock) -> None:
    """Six runs that have ended, one at work, and free pages."""
    pipeline = graph("works", step("waits"))
    for number in range(6):
        await begin(store, LINE, f"P{number}")
    await settle_all(new_reactor(store, [Played()], LINE))
    await begin(store, pipeline, "P9")

    def fill(db: sqlite3.Connection) -> None:
        for number in range(300):
            db.execute("INSERT INTO cursors VALUES (?, ?)", (f"page {number}", "x" * 2_500))

    await store.db.write(fill)
    await store.db.write(lambda db: db.execute("DELETE FROM cursors").rowcount)


async def test_a_round_does_all_that_is_due(store: Store, clock: HandClock) -> None:
    await history(store, clock)
    keeper = Upkeep(store, clock, CONFIG, 0.0)
    before = await one(store, EVERYTHING)
    await keeper.look()
    after = await one(store, EVERYTHING)
    assert (after["packed"], after["said"]) == (0, before["said"])
    assert after["free"] < before["free"] / 2
    clock.advance(3 * DAY_S)
    await keeper.look()
    assert (await one(store, EVERYTHING))["packed"] == 6
    assert (await one(store, EVERYTHING))["said"] == 1, "what P9 is told of has not its age"
    clock.advance(8 * DAY_S)
    await keeper.look()
    assert (await one(store, EVERYTHING))["said"] == 0
    assert {event["kind"] for event in await store.events()} == {"RunStarted", "RunEnded"}


async def test_it_goes_by_what_it_is_told(store: Store, clock: HandClock) -> None:
    await history(store, clock)
    keeper = Upkeep(store, clock, CONFIG, 0.0)
    clock.advance(3 * DAY_S)
    keeper.heed(msgspec.structs.replace(CONFIG, archive_after="5d"), 0.0)
    await keeper.look()
    assert (await one(store, EVERYTHING))["packed"] == 0
    keeper.heed(CONFIG, 0.0)
    await keeper.look()
    assert (await one(store, EVERYTHING))["packed"] == 6


async def test_rounds_come_again_and_one_that_fails_is_told_and_stops_nobody(store: Store, clock: HandClock) -> None:
    await history(store, clock)
    keeper = Upkeep(store, clock, CONFIG, 0.0)
    await store.db.write(lambda db: db.execute("ALTER TABLE archive RENAME TO hidden").rowcount)
    clock.advance(3 * DAY_S)
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(20):
        while "archive" not in keeper.defect:
            await store.last_event()
        await store.db.write(lambda db: db.execute("ALTER TABLE hidden RENAME TO archive").rowcount)
        task.cancel()
        await asyncio.wait([task])
        task = asyncio.create_task(keeper.run())
        while (await one(store, EVERYTHING))["packed"] < 6 or keeper.defect:
            clock.advance(EVERY_S)
    assert keeper.progress_at > 1.0e9 + 3 * DAY_S - 1.0
    task.cancel()
    await asyncio.wait([task])
