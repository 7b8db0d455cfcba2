"""Rule (a) of docs/design.md as a model test: the real journal and engine against a far side that keeps the truth.

The machine decides effects, lets the engine go one stretch at a time, and lets the far side lose answers, refuse,
forbid, show things late, or kill the process at any seam. Whatever comes, the far side's own list is what counts.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import SETTLE_S, Crash, FarSide, HandClock, Order, Put, graph, new_engine, one, rows, step

from aglowd.errors import AglowError
from aglowd.model import Do, Done, Effect, Failed, Outcome
from aglowd.store.rows import LiveEffect, Work
from aglowd.store.runs import Decision
from aglowd.store.store import Store

STEPS = ("s0", "s1")
GRAPH = graph("toy", *(step(name, retries=1000, retry_delay_s=0.0, timeout_s=5_000.0) for name in STEPS))
DO_MOODS = (
    "well",
    "lost",
    "unknown",
    "unknown",
    "temporary",
    "busy",
    "permanent",
    "crash before",
    "crash after",
    "crash after",
)
LOOK_MOODS = (*["well"] * 6, "temporary", "unknown", "permanent", "crash before", "crash after")
LIVE = ("planned", "open", "unknown", "doubt")


class EffectMachine(RuleBasedStateMachine):
    """One run of two steps. `world.things` is the truth; the journal is what is judged by it."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "aglowd.db"
        self.clock = HandClock()
        self.world = FarSide(self.clock, self.path)
        self.inputs: dict[str, tuple[str, str]] = {}
        self.made = 0

    @initialize()
    def begin(self) -> None:
        self.run(self._open())
        self.id = self.run(self.store.start_run(GRAPH, key="P1", field="P1", params={}, context={}))

    def run(self, coroutine):  # type: ignore[no-untyped-def] # What comes in, comes out.
        return self.runner.run(coroutine)

    async def _open(self) -> None:
        self.store = Store(self.path, self.clock)
        await self.store.open()
        self.engine = new_engine(self.store, self.world)

    async def _restart(self) -> None:
        await self.store.close()
        await self._open()

    async def _work(self, name: str) -> Work | None:
        return next((work for work in await self.store.next_dirty() if work.step.name == name), None)

    async def _live(self, name: str) -> list[str]:
        found = await rows(self.store, "SELECT key, state FROM effects WHERE step = ?", name)
        return [row["key"] for row in found if row["state"] in LIVE]

    async def _finish(self, name: str, outcome: Outcome) -> bool:
        await self.store.due()
        work = await self._work(name)
        if work is None:
            return False
        await self.store.finish(Decision(work, outcome, GRAPH))
        return True

    # --- decisions

    @rule(name=st.sampled_from(STEPS), kinds=st.lists(st.sampled_from([Put, Order, Order]), min_size=1, max_size=2))
    def plan(self, name: str, kinds: list[type[Put]]) -> None:
        """Decide effects, each of its own; the step is asked only when none of its effects lives."""
        live = self.run(self._live(name))
        self.made += 1
        what = [f"thing {self.made}.{number}" for number in range(len(kinds))]
        effects: list[Effect] = [
            kind(what=what[number], ordinal=10 * self.made + number) for number, kind in enumerate(kinds)
        ]
        decided = self.run(self._finish(name, Do(tuple(effects))))
        assert not (decided and live), "a step was asked while its effects live"

    @rule(name=st.sampled_from(STEPS))
    def give_up_the_attempt(self, name: str) -> None:
        """The next attempt begins with keys of its own."""
        live = self.run(self._live(name))
        decided = self.run(self._finish(name, Failed("the handler says so")))
        assert not (decided and live)

    @precondition(lambda self: self.inputs)
    @rule(data=st.data())
    def the_same_key_with_other_inputs_is_refused(self, data: st.DataObject) -> None:
        self.run(self._name_again(data.draw(st.sampled_from(sorted(self.inputs)))))

    async def _name_again(self, key: str) -> None:
        row = await one(self.store, "SELECT * FROM effects WHERE key = ?", key)
        work = await self._forged(row["step"])
        if work.step.attempt != row["attempt"]:
            return
        kind = Put if row["kind"] == "put" else Order
        with pytest.raises(AglowError, match="recorded with other inputs"):
            await self.store.finish(Decision(work, Do.all(kind(what="something else", ordinal=row["ordinal"])), GRAPH))

    @rule(name=st.sampled_from(STEPS), outcome=st.sampled_from([Done(), Failed("no"), Failed("no", final=True)]))
    def an_attempt_cannot_end_while_an_effect_lives(self, name: str, outcome: Outcome) -> None:
        self.run(self._end_early(name, outcome))

    async def _end_early(self, name: str, outcome: Outcome) -> None:
        if not await self._live(name):
            return
        assert await self._work(name) is None, "a step whose effects live is offered for a decision"
        with pytest.raises(AglowError, match="the attempt cannot end while"):
            await self.store.finish(Decision(await self._forged(name), outcome, GRAPH))

    async def _forged(self, name: str) -> Work:
        """A look at the step that the reactor would not have been offered."""
        work = await self.store.work(self.id, name)
        assert work is not None
        return work

    # --- the world

    @rule(seed=st.integers(0, 2**32), stretches=st.integers(5, 15))
    def go_on(self, seed: int, stretches: int) -> None:
        """Stretches of effects whose time has come, and new ones when all have ended. A crash loses all but the file."""
        chance = random.Random(seed)
        for _ in range(stretches):
            if chance.random() < 0.15 or not self.run(self.store.next_effects((), 1)):
                self.run(self._until_the_next_timer())
                self.plan(chance.choice(STEPS), [chance.choice([Put, Order]) for _ in range(chance.randint(1, 2))])
            lag_s = chance.choice([0.0, SETTLE_S * 0.4, SETTLE_S * 0.9])
            self.run(self._go_on(chance.randrange(4), chance.choice(DO_MOODS), chance.choice(LOOK_MOODS), lag_s))
            self.the_journal_agrees_with_the_world()

    async def _go_on(self, which: int, mood: str, look: str, lag_s: float) -> None:
        lives = await self.store.next_effects((), 10)
        if not lives:
            await self._until_the_next_timer()
            lives = await self.store.next_effects((), 10)
        if not lives:
            return
        live = lives[which % len(lives)]
        self.world.lag_s = lag_s if live.record.kind == "order" else 0.0
        await self._perform(live, mood, look)

    async def _perform(self, live: LiveEffect, mood: str, look: str) -> None:
        state, kind = live.record.state.value, live.record.kind
        looks = {"planned": kind == "order", "open": False, "unknown": True}[state]
        self.world.moods.clear()
        if looks:
            self.world.moods.append(look)
        if state == "unknown" and kind == "order":
            self.world.moods.append("well")  # Before it is done again it is looked at again.
        self.world.moods.append(mood)
        try:
            await self.engine.perform(live)
        except Crash:
            await self._restart()
        self.world.moods.clear()

    async def _until_the_next_timer(self) -> None:
        row = await one(
            self.store, "SELECT min(next_at) AS at FROM effects WHERE state IN ('planned', 'open', 'unknown')"
        )
        if row["at"] is not None:
            self.clock.at = max(self.clock.at, row["at"])

    @rule(seconds=st.sampled_from([1.0, SETTLE_S / 2, SETTLE_S, 6_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.run(self.store.due())

    @rule()
    def the_daemon_is_started_again(self) -> None:
        self.run(self._restart())

    # --- what must stay true

    @invariant()
    def the_journal_agrees_with_the_world(self) -> None:
        if not hasattr(self, "id"):
            return
        for row in self.run(rows(self.store, "SELECT * FROM effects")):
            key, state, truth = row["key"], row["state"], self.world.truth(row["key"])
            assert truth <= 1, f"{key} ({state}) happened {truth} times"
            assert state != "done" or truth == 1, f"{key} is done, and never happened"
            assert state != "rejected" or truth == 0, f"{key} is rejected, and it happened"
            assert state != "planned" or truth == 0, f"{key} is only planned, and it happened"
            frozen = self.inputs.setdefault(key, (row["inputs"], row["digest"]))
            assert frozen == (row["inputs"], row["digest"]), f"the inputs of {key} have changed"

    def teardown(self) -> None:
        try:
            if hasattr(self, "id"):
                self.run(self._heal())
                self.the_journal_agrees_with_the_world()
                assert not asyncio.all_tasks(self.runner.get_loop()) - {self.store.db._writing}
        finally:
            if hasattr(self, "store"):
                self.run(self.store.close())
            self.runner.close()
            self.directory.cleanup()

    async def _heal(self) -> None:
        """With a world that behaves every effect ends, but for those that a person was asked about."""
        self.world.lag_s = 0.0
        for _ in range(100):
            for live in await self.store.next_effects((), 10):
                await self._perform(live, "well", "well")
            left = await rows(self.store, "SELECT key FROM effects WHERE state IN ('planned', 'open', 'unknown')")
            if not left:
                break
            await self._until_the_next_timer()
        else:
            raise AssertionError(f"effects that never end: {left}")
        for name in STEPS:
            states = {
                row["state"]
                for row in await rows(
                    self.store,
                    "SELECT e.state FROM effects AS e JOIN steps AS s ON s.run = e.run AND s.name = e.step "
                    "AND s.attempt = e.attempt WHERE s.name = ?",
                    name,
                )
            }
            if states and "doubt" not in states:
                await self.store.due()
                assert await self._offered(name), "the effects have ended and nobody is asked"

    async def _offered(self, name: str) -> bool:
        row = await one(self.store, "SELECT dirty FROM steps WHERE run = ? AND name = ?", self.id, name)
        return row["dirty"] is not None


EffectMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # Each step commits to a disk: what fails is told as it was found.
    print_blob=True,
)
TestEffects = EffectMachine.TestCase
