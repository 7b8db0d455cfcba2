"""The whole heart as one model test: the real store, reactor and engine, and everything that may happen to them.

Runs begin, facts arrive, handlers decide and raise, effects meet a far side in any mood, hang and are overtaken by an
operator, who also cancels, retries, skips and holds; the process dies at any commit and in any call, time passes and the wall clock jumps. After each of these the
promises G1 to G4, G6 and G9 are read off the file and the far side's own list; in the end, when everything behaves,
every run ends. `AGLOWD_EXAMPLES` (default 100) says how many lives are lived.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from model.promises import LIVE, Oracle
from model.shore import (
    CHILD,
    DEEDS,
    ENOUGH,
    FIELD,
    HANG_AT,
    PLAYS,
    POOLS,
    STOPS,
    MortalStore,
    Shore,
    SteadyClock,
    TrueClock,
    Watches,
    subject_of,
)
from support import SETTLE_S, Crash, Played, new_reactor

from aglowd.effects.engine import Engine
from aglowd.errors import AglowError, StaleVersion
from aglowd.model import Effect, EffectState
from aglowd.store.doubts import Word
from aglowd.store.pauses import Hold
from aglowd.store.plans import Order
from aglowd.store.rows import LiveEffect

EXAMPLES = int(os.environ.get("AGLOWD_EXAMPLES", "100"))
KEYS = ("P1", "P2")
VERBS = ("cancel", "retry", "skip", "done")
DO_MOODS = (
    *(["well"] * 6 + ["lost"] * 6),
    *["unknown", "unknown", "temporary", "busy", "permanent", "crash before", "crash after", "crash after"],
)
LOOK_MOODS = (*["well"] * 5, "temporary", "unknown", "unknown", "permanent", "crash before", "crash after")
LAGS_S = (0.0, SETTLE_S * 0.4, SETTLE_S * 0.9, SETTLE_S * 0.9, SETTLE_S * 3)
RAISES = (0, 0, 0, 0, 0, 0, 1, 3)
HANGS = (*[""] * 8, *HANG_AT)
STRETCH = 30
"""Things that happen in one `a_while`."""
SPANS_S = (1.0, 15.0, 15.0, SETTLE_S * 0.6, SETTLE_S, 700.0, 4_000.0)
JUMPS_S = (-7_200.0, -600.0, 600.0, 7_200.0)
TMPFS = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Power never fails here, so the file may live where a commit costs nothing."""


class Poisoned(Played):
    """Decides as the pipeline plays it; the next `raises` decisions are defects."""

    raises = 0

    def react(self, step: Any, params: Any, seen: Any) -> Any:
        if self.raises:
            self.raises -= 1
            raise ValueError("a defect of the handler")
        return super().react(step, params, seen)


class Heart(RuleBasedStateMachine):
    """`world.things` is the truth, the file is what is judged by it, and this object is all that dies in a crash."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory(dir=TMPFS)
        self.path = Path(self.directory.name) / "aglowd.db"
        self.watches = Watches()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self.world = Shore(TrueClock(self.watches), self.path)
        self.handler = Poisoned(PLAYS, STOPS)
        self.flying: dict[str, asyncio.Task[None]] = {}
        self.known: dict[str, tuple[int, Any]] = {}
        self.cursor = 0
        self.telling: tuple[tuple[str, int, int] | None, int | None] = None, None
        self.words: list[str] = []

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """A life that is already under way: from there single happenings are tried."""
        self.at_once = seed % 2 == 0
        self.runner.run(self._open())
        self.oracle = Oracle(self.path, self.world)
        self.a_run_begins(KEYS[0])
        self.decide(2, 0, False)
        self.a_while(seed)

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Its result; None if the process died in it and was started again."""
        return self.runner.run(self._survive(coroutine))

    async def _survive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except Crash:
            await self._restart()
            self._find_out_what_was_told()
            return None

    async def _open(self) -> None:
        self.store = MortalStore(self.path, SteadyClock(self.watches))
        await self.store.open()
        self.reactor = new_reactor(self.store, [self.handler], FIELD, CHILD, pools=POOLS)
        self.engine = Engine(self.store, self.world, DEEDS, self.store.clock)  # type: ignore[arg-type] # A toy world.
        if self.at_once:
            await self.reactor.decide_at_once()

    async def _restart(self) -> None:
        """Everything in memory is gone; nothing is closed."""
        tasks = asyncio.all_tasks() - {asyncio.current_task(), self.store.db._writing}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.flying.clear()
        self.world.hang_at = ""
        self.world.moods.clear()
        self.world.hangs.clear()
        self.world.release.clear()
        await self.store.drop()
        await self._open()

    # --- what happens

    @rule(key=st.sampled_from(KEYS))
    def a_run_begins(self, key: str) -> None:
        if not self.oracle.rows("SELECT 1 FROM runs WHERE key = ? AND state = 'running'", key):
            self.run(self.store.start_run(FIELD, key=key, field=key, params={}, context={"name": key}))

    @rule(rounds=st.integers(1, 4), raises=st.sampled_from(RAISES), overtaken=st.booleans())
    def decide(self, rounds: int, raises: int, overtaken: bool) -> None:
        """`overtaken`: a fact arrives, and time passes, between a look and the commit of what was decided from it."""
        self.handler.raises = raises
        for _ in range(rounds):
            self.store.meanwhile = self._overtake if overtaken else None
            self.run(self.reactor.decide_once())
            self.store.meanwhile = None
        self.handler.raises = 0

    async def _overtake(self) -> None:
        self.watches.true_s += 1.0
        await self.store.due()
        await self._tell(0, 1, False)

    @rule(
        which=st.integers(0, 5),
        mood=st.sampled_from(DO_MOODS),
        look=st.sampled_from(LOOK_MOODS),
        lag_s=st.sampled_from(LAGS_S),
        hang_at=st.sampled_from(HANGS),
    )
    def perform(self, which: int, mood: str, look: str, lag_s: float, hang_at: str) -> None:
        self.run(self._perform(which, mood, look, lag_s, hang_at))

    @rule(which=st.integers(0, 5), stretches=st.integers(2, 6), lag_s=st.sampled_from(LAGS_S[:4]))
    def go_on_with_one_effect(self, which: int, stretches: int, lag_s: float) -> None:
        """Answers get lost and looks tell nothing until it is in doubt, unless the look is well."""
        for number in range(stretches):
            look = "well" if number % 4 == 3 else "unknown"
            self.run(self._perform(which, "lost", look, lag_s, ""))
            self.watches.true_s += 950.0 if number % 2 else SETTLE_S
            self.run(self.store.due())

    async def _perform(self, which: int, mood: str, look: str, lag_s: float, hang_at: str) -> None:
        lives = await self.store.next_effects(self.flying, 20)
        if not lives:
            at = await self.store.due()
            self.watches.true_s += max(0.01, (at or 0.0) - self.store.clock.now())
            return
        live = lives[which % len(lives)]
        self._set_moods(live, mood, look)
        self.world.lag_s = lag_s if live.record.kind == "order" else 0.0
        self.world.hang_at = hang_at if not self.flying else ""
        await self._fly(live)
        self.world.moods.clear()

    def _set_moods(self, live: LiveEffect, mood: str, look: str) -> None:
        """A stretch may meet the world three times: a look for it, a look before it, and the deed."""
        unknown = live.record.state in (EffectState.UNKNOWN, EffectState.DOUBT)
        self.world.moods.clear()
        if unknown:
            self.world.moods.append(look)
        if live.record.kind == "order" and live.record.state is not EffectState.OPEN:
            self.world.moods.append("well" if unknown else look)
        self.world.moods.append(mood)

    async def _fly(self, live: LiveEffect) -> None:
        """Until it has gone as far as it goes, or hangs."""
        task = asyncio.create_task(self.engine.perform(live))
        hangs = asyncio.create_task(self.world.hangs.wait())
        await asyncio.wait([task, hangs], return_when=asyncio.FIRST_COMPLETED)
        self.world.hangs.clear()
        hangs.cancel()
        self.world.hang_at = ""
        if task.done():
            self._landed(task)
        else:
            self.flying[live.record.key] = task

    def _landed(self, task: asyncio.Task[None]) -> None:
        error = task.exception()
        if error is not None and not isinstance(error, StaleVersion):
            raise error

    @rule(mood=st.sampled_from(DO_MOODS))
    def what_hangs_goes_on(self, mood: str) -> None:
        if self.flying:
            self.world.moods.extend([mood] * 3)
            self.run(self._land())
            self.world.moods.clear()

    async def _land(self) -> None:
        tasks = list(self.flying.values())
        self.world.release.set()
        await asyncio.wait(tasks)
        self.world.release.clear()
        self.flying.clear()
        for task in tasks:
            self._landed(task)

    @rule(which=st.integers(0, 3), step=st.integers(0, 2), with_cursor=st.booleans())
    def a_fact_arrives(self, which: int, step: int, with_cursor: bool) -> None:
        """News, what is known already, or a subject that nobody asked for."""
        self.run(self._tell(which, step, with_cursor))

    async def _tell(self, which: int, step: int, with_cursor: bool) -> None:
        watched = sorted(subject.id for subject, _ in await self.store.watched("toy"))
        subject = subject_of([*watched, "nobody's"][which % (len(watched) + 1)])
        version, last = self.known.get(subject.key, (0, None))
        value = min((last or 0) + step, ENOUGH)
        cursor = self.cursor + 1 if with_cursor else None
        is_news = subject.id != "nobody's" and (version == 0 or value != last)
        self.telling = (subject.key, version + 1, value) if is_news else None, cursor
        changed = await self.store.ingest("toy", None if cursor is None else str(cursor), [(subject, value)])
        assert changed == int(is_news)
        self._told()

    def _told(self) -> None:
        """What was told last is committed."""
        (news, cursor), self.telling = self.telling, (None, None)
        self.cursor = cursor or self.cursor
        if news is not None:
            self.known[news[0]] = news[1:]

    def _find_out_what_was_told(self) -> None:
        """The process died while it was told something: that is committed as a whole or not at all."""
        news, cursor = self.telling
        signs = []
        if news is not None:
            signs.append(bool(self.oracle.rows("SELECT 1 FROM subjects WHERE key = ? AND version = ?", *news[:2])))
        if cursor is not None:
            signs.append(self.oracle.cursor() == str(cursor))
        assert len(set(signs)) <= 1, "facts and their cursor came apart (G1)"
        if signs and signs[0]:
            self._told()
        self.telling = None, None

    @rule(span_s=st.sampled_from(SPANS_S))
    def time_passes(self, span_s: float) -> None:
        self.watches.true_s += span_s
        self.run(self.store.due())

    @rule(jump_s=st.sampled_from(JUMPS_S))
    def the_wall_clock_jumps(self, jump_s: float) -> None:
        self.watches.jumped_s += jump_s
        self.run(self.store.due())

    @rule(jump_s=st.sampled_from(JUMPS_S))
    def the_host_is_started_again(self, jump_s: float) -> None:
        """And its wall clock is set on the way."""
        self.watches.jumped_s += jump_s
        self.runner.run(self._restart())

    @rule()
    def the_process_dies(self) -> None:
        self.runner.run(self._restart())

    @rule(commits=st.integers(1, 4), after=st.booleans())
    def the_process_will_die(self, commits: int, after: bool) -> None:
        """At a commit that is still to come, whoever makes it."""
        self.store.dies_in, self.store.dies_after = commits, after

    @rule(which=st.integers(0, 5), verb=st.sampled_from(["retry", "forget"]))
    def an_operator_settles_a_doubt(self, which: int, verb: str) -> None:
        """Whoever speaks knows the truth; also of what is settled already, and of what the engine is looking for now."""
        found = [
            row["key"]
            for row in self.oracle.rows("SELECT key FROM effects WHERE state IN ('unknown', 'doubt') ORDER BY key")
        ]
        found = [key for key in found if key in self.flying] or found
        if found:
            self.run(self._settle(found[which % len(found)], verb))

    async def _settle(self, key: str, verb: str) -> None:
        live = await self.store.effect(key)
        assert live is not None
        reason = f"word {len(self.words)}"
        word = Word(1000, reason)
        things = self.world.truths(key)
        if things:
            result = live.record.notes["registered"] if live.record.kind == "noted" else things[0]
            await self.store.adopt(live, result, word)
        else:
            await (self.store.retry if verb == "retry" else self.store.forget)(live, word)
        self.words.append(reason)

    @rule(which=st.integers(0, 20), verb=st.sampled_from(["adopt", "retry", "forget"]))
    def an_operator_speaks_too_late(self, which: int, verb: str) -> None:
        found = self.oracle.rows("SELECT key FROM effects WHERE state NOT IN ('unknown', 'doubt') ORDER BY key")
        if found:
            self.run(self._speak_too_late(found[which % len(found)]["key"], verb))

    async def _speak_too_late(self, key: str, verb: str) -> None:
        live = await self.store.effect(key)
        assert live is not None
        word = Word(1000, "too late")
        dies_in, self.store.dies_in = self.store.dies_in, 0
        try:
            await (self.store.adopt(live, 1, word) if verb == "adopt" else getattr(self.store, verb)(live, word))
        except AglowError:
            return
        finally:
            self.store.dies_in = dies_in
        raise AssertionError(f"{key} is {live.record.state}, and an operator's word changed it")

    @rule(which=st.integers(0, 20), verb=st.sampled_from(VERBS), step=st.integers(0, 5))
    def an_operator_steers(self, which: int, verb: str, step: int) -> None:
        """Any command on any run, whether it makes sense or not; `step`: 5 is none."""
        found = self.oracle.rows("SELECT id FROM runs ORDER BY id")
        if found:
            run = found[which % len(found)]["id"]
            names = [row["name"] for row in self.oracle.rows("SELECT name FROM steps WHERE run = ? ORDER BY name", run)]
            needs_one = verb in ("skip", "done")
            steps = (names[step % len(names)],) if needs_one or (verb == "retry" and step < 5) else ()
            self.run(self._steer(Order(verb, (run,), steps=steps, outputs={"x": 1} if verb == "done" else {})))  # type: ignore[arg-type] # One of the verbs.

    async def _steer(self, order: Order) -> None:
        reason = f"word {len(self.words)}"
        plan = None
        with suppress(AglowError):
            plan = await self.store.plan(order, self.reactor._pipelines.of)
        version = "" if plan is None else plan.version
        try:
            await self.store.steer(order, version, Word(1000, reason), self.reactor._pipelines.of, _no_status)
        except AglowError:
            assert plan is None, f"refused although nothing has changed since it was planned: {plan}"
            return
        assert plan is not None, "carried out although it was refused a moment ago"
        self.words.append(reason)

    @rule(verb=st.sampled_from(["pause", "drain", "resume"]), name=st.sampled_from(["", *KEYS]))
    def an_operator_holds(self, verb: str, name: str) -> None:
        self.run(self._hold(verb, Hold("field", name) if name else Hold("everything")))

    async def _hold(self, verb: str, hold: Hold) -> None:
        reason = f"word {len(self.words)}"
        with suppress(AglowError):
            await self.store.hold(verb, [hold], Word(1000, reason))
            self.words.append(reason)

    @rule(seed=st.integers(0, 2**32))
    def a_while(self, seed: int) -> None:
        """Many things in a row, the common ones often: what takes several of them to go wrong is met in many lives."""
        chance = random.Random(seed)
        for _ in range(STRETCH):
            (happening,) = chance.choices(list(HAPPENINGS), list(HAPPENINGS.values()))
            happening(self, chance)
            self.the_promises_hold()

    # --- what must stay true

    @invariant()
    def the_promises_hold(self) -> None:
        if hasattr(self, "oracle"):
            self.oracle.judge(self.known, self.cursor, self.words)

    # --- the end

    def teardown(self) -> None:
        try:
            if hasattr(self, "oracle"):
                self.runner.run(self._come_to_rest())
        finally:
            if hasattr(self, "oracle"):
                self.runner.run(self.store.drop())
                self.oracle.close()
            structlog.reset_defaults()
            self.runner.close()
            self.directory.cleanup()

    async def _come_to_rest(self) -> None:
        """G6 to its end: once everything behaves, every run ends, and the promises hold still."""
        self.store.dies_in, self.store.meanwhile, self.world.lag_s = 0, None, 0.0
        if self.flying:
            await self._land()
        for row in self.oracle.rows("SELECT scope, name FROM pauses"):
            await self.store.hold("resume", [Hold(row["scope"], row["name"])], Word(1000, "the end"))
        for _ in range(300):
            for subject, _ in await self.store.watched("toy"):
                await self.store.ingest("toy", None, [(subject, ENOUGH)])
                self.known.pop(subject.key, None)
            at = await self.store.due()
            decided = await self.reactor.decide_once()
            lives = await self.store.next_effects((), 100)
            for live in lives:
                await self.engine.perform(live)
            if decided or lives:
                continue
            left = self.oracle.rows("SELECT id FROM runs WHERE state = 'running'")
            if not left:
                break
            assert at is not None, f"nothing will ever happen to {left}"
            self.watches.true_s += max(0.01, at - self.store.clock.now())
        else:
            steps = self.oracle.rows("SELECT run, name, state, reason FROM steps WHERE ended IS NULL")
            raise AssertionError(f"runs that never end: {steps}")
        self.oracle.judge(self.known, self.cursor, self.words)
        assert not self.oracle.rows(f"SELECT key FROM effects WHERE state IN {LIVE}")
        tasks = asyncio.all_tasks() - {asyncio.current_task(), self.store.db._writing}
        assert not tasks, f"left behind: {tasks}"


def _no_status(field: str, shown: str, wanted: str, ordinal: int) -> Effect:
    raise AssertionError("no step of these runs writes a status")


HAPPENINGS: dict[Callable[[Heart, random.Random], None], float] = {
    lambda heart, chance: heart.a_run_begins(chance.choice(KEYS)): 1.0,
    lambda heart, chance: heart.decide(chance.randint(1, 4), chance.choice(RAISES), chance.random() < 0.3): 5.0,
    lambda heart, chance: heart.perform(
        chance.randrange(6),
        chance.choice(DO_MOODS),
        chance.choice(LOOK_MOODS),
        chance.choice(LAGS_S),
        chance.choice(HANGS),
    ): 9.0,
    lambda heart, chance: heart.go_on_with_one_effect(
        chance.randrange(6), chance.randint(2, 6), chance.choice(LAGS_S[:4])
    ): 0.7,
    lambda heart, chance: heart.what_hangs_goes_on(chance.choice(DO_MOODS)): 1.0,
    lambda heart, chance: heart.a_fact_arrives(chance.randrange(4), chance.randrange(3), chance.random() < 0.5): 3.0,
    lambda heart, chance: heart.time_passes(chance.choice(SPANS_S)): 3.0,
    lambda heart, chance: heart.the_wall_clock_jumps(chance.choice(JUMPS_S)): 0.3,
    lambda heart, chance: heart.the_process_dies(): 0.2,
    lambda heart, chance: heart.the_host_is_started_again(chance.choice(JUMPS_S)): 0.3,
    lambda heart, chance: heart.the_process_will_die(chance.randint(1, 4), chance.random() < 0.5): 0.6,
    lambda heart, chance: heart.an_operator_settles_a_doubt(
        chance.randrange(6), chance.choice(["retry", "forget"])
    ): 1.0,
    lambda heart, chance: heart.an_operator_speaks_too_late(
        chance.randrange(20), chance.choice(["adopt", "retry", "forget"])
    ): 0.3,
    lambda heart, chance: heart.an_operator_steers(
        chance.randrange(20), chance.choices(VERBS, (2, 5, 1, 1))[0], chance.randrange(6)
    ): 1.2,
    lambda heart, chance: heart.an_operator_holds(
        chance.choice(["pause", "drain", "resume", "resume"]), chance.choice(["", *KEYS])
    ): 0.8,
}
"""What happens in `a_while`, and how often compared with the rest."""

Heart.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=8,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # Each step commits to a file: what fails is told as it was found.
    print_blob=True,
)
TestHeart = Heart.TestCase
TestHeart.pytestmark = [pytest.mark.timeout(3_600)]  # type: ignore[attr-defined] # As many lives as were asked for.
