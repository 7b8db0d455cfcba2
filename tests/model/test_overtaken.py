"""What the machine of test_machine.py once found, each told by itself."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from model.shore import CHILD, DEEDS, FIELD, PLAYS, MortalStore, Shore, SteadyClock, TrueClock, Watches
from support import SETTLE_S, Played, new_reactor

from aglowd.effects.engine import Engine
from aglowd.errors import StaleVersion
from aglowd.model import EffectState
from aglowd.store.doubts import Word


async def test_an_operator_who_gives_up_what_is_being_looked_for_is_not_overruled(tmp_path: Path) -> None:
    """The look that was under way finds nothing, and the engine must not do it after all."""
    watches = Watches()
    store = MortalStore(tmp_path / "aglowd.db", SteadyClock(watches))
    await store.open()
    try:
        world = Shore(TrueClock(watches), store.db.path)
        engine = Engine(store, world, DEEDS, store.clock)  # type: ignore[arg-type] # A toy world.
        run = await store.start_run(CHILD, key="P1", field="P1", params={}, context={})
        await new_reactor(store, [Played(PLAYS)], CHILD).decide_once()
        key = f"{run}/only/1/put/0"
        world.moods.append("unknown")
        (live,) = await store.next_effects((), 10)
        await engine.perform(live)
        watches.true_s += 60.0
        (live,) = await store.next_effects((), 10)
        world.hang_at = "find"
        looking = asyncio.create_task(engine.perform(live))
        await world.hangs.wait()
        await store.forget(live, Word(1000, "it is not wanted any more"))
        world.release.set()
        with suppress(StaleVersion):
            await looking
        record = (await store.effect(key)).record  # type: ignore[union-attr] # It is there.
        assert (record.state, world.truth(key)) == (EffectState.REJECTED, 0)
    finally:
        await store.close()


async def test_a_wall_clock_that_was_set_between_two_lives_proves_no_absence(tmp_path: Path) -> None:
    """Between two looks that find nothing a settling time must pass in the world, not only on our wall clock."""
    watches = Watches()
    store = MortalStore(tmp_path / "aglowd.db", SteadyClock(watches))
    await store.open()
    world = Shore(TrueClock(watches), store.db.path)
    try:
        run = await store.start_run(FIELD, key="P1", field="P1", params={}, context={})
        reactor = new_reactor(store, [Played(PLAYS)], FIELD, CHILD)
        while await reactor.decide_once():
            pass
        world.lag_s = SETTLE_S * 0.9
        world.moods.extend(["well", "lost"])
        for _ in range(2):  # It is done and its answer is lost; then the first look finds nothing yet.
            for live in await store.next_effects((), 10):
                if live.record.kind == "order":
                    await Engine(store, world, DEEDS, store.clock).perform(live)  # type: ignore[arg-type]
            watches.true_s += 15.0
        await store.drop()
        watches.jumped_s += 7_200.0
        store = MortalStore(tmp_path / "aglowd.db", SteadyClock(watches))
        await store.open()
        for _ in range(3):
            for live in await store.next_effects((), 10):
                if live.record.kind == "order":
                    await Engine(store, world, DEEDS, store.clock).perform(live)  # type: ignore[arg-type]
            watches.true_s += SETTLE_S
        assert world.truth(f"{run}/order/1/order/0") == 1
    finally:
        await store.close()


def test_a_wall_clock_that_jumps_while_we_live_moves_nothing() -> None:
    watches = Watches()
    clock = SteadyClock(watches)
    before = clock.now()
    watches.jumped_s += 7_200.0
    assert clock.now() == before
    watches.true_s += 5.0
    assert clock.now() == before + 5.0
