"""What watchers see reaches the store late, twice, and in another order: the fields end as they would have anyway."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from aglowd.model import Json, Subject
from aglowd.store.store import Store
from tests.virtual.day import ENDED, judge_world
from tests.virtual.oracle import Oracle
from tests.virtual.run import new_directory
from tests.virtual.script import DAY_S, HOUR_S, Script, fair_script
from tests.virtual.world import Simulation

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

MOST_LATE_S = 2 * HOUR_S
ODDS_TWICE = 0.3


class PostOffice:
    """Carries what is ingested: each observation by itself, late, and some of them twice."""

    def __init__(self, simulation: Simulation, seed: int) -> None:
        self._simulation = simulation
        self._random = Random(seed)
        self._ingest = Store.ingest
        self._letters: set[asyncio.Task[None]] = set()
        self.carried = 0

    async def ingest(
        self, store: Store, source: str, cursor: str | None, observations: Iterable[tuple[Subject, Json]]
    ) -> int:
        listed = list(observations)
        for one in listed:
            for _ in range(2 if self._random.random() < ODDS_TWICE else 1):
                letter = asyncio.create_task(self._carry(store, source, one, self._random.uniform(0.0, MOST_LATE_S)))
                self._letters.add(letter)
                letter.add_done_callback(self._letters.discard)
        return await self._ingest(store, source, cursor, ()) if cursor is not None else len(listed)

    async def _carry(self, store: Store, source: str, one: tuple[Subject, Json], late_s: float) -> None:
        await self._simulation.sleep(late_s)
        await self._ingest(store, source, None, [one])
        self.carried += 1

    async def close(self) -> None:
        """Throw away what is still on its way."""
        for letter in self._letters:
            letter.cancel()
        await asyncio.gather(*self._letters, return_exceptions=True)


async def outcome(script: Script, seed: int | None) -> dict[str, Any]:
    """How every run of that world ended, with what it says of its results; without a seed all comes as it is sent."""
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid():
            office = PostOffice(simulation, seed or 0)

            async def ingest(store: Store, *args: Any) -> int:
                return await office.ingest(store, *args)

            with patch.object(Store, "ingest", Store.ingest if seed is None else ingest):
                await simulation.start()
                fields: dict[str, tuple[str, str]] = {}
                while not fields or any(state not in ENDED for state, _ in fields.values()):
                    assert simulation.now() < 20 * DAY_S, fields
                    await simulation.sleep(HOUR_S)
                    fields = await simulation.fields()
                await office.close()
            oracle = Oracle(simulation.database, simulation.ledger)
            await simulation.stop()
            simulation.flush()
            oracle.read()
            wrong = oracle.at_the_end()
            oracle.close()
            with sqlite3.connect(f"file:{simulation.database}?mode=ro", uri=True) as db:
                runs = db.execute("SELECT key, state, outputs FROM runs ORDER BY id").fetchall()
            db.close()
        report = judge_world(script, simulation.directory, oracle.lines, fields)
        wrong += [f"{one.rule}: {one.what}" for one in (*report.duplicates, *report.lost, *report.violations)]
        assert wrong == [], f"seed {seed}"
        if seed is not None:
            assert office.carried > 50
        return {key: (state, msgspec.json.decode(outputs)) for key, state, outputs in runs}


async def test_fields_end_the_same_however_observations_are_delivered() -> None:
    script = fair_script(seed=11)
    in_order = await outcome(script, None)
    assert {state for state, _ in in_order.values()} == {"done"}
    for seed in (1, 2):
        assert await outcome(script, seed) == in_order, seed
