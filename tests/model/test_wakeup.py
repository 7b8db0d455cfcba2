"""Rule (b) of docs/design.md as a model test: the work queue is exactly what the causes say.

The machine holds looks in its hand while other things happen, as the reactor does, and keeps its own account of every
cause for which a step must be asked. A step is dirty exactly if there is a cause that no committed decision has seen.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import HandClock, Put, graph, rows, step

from aglowd.errors import StaleVersion
from aglowd.model import Do, EffectState, Failed, Outcome, Subject, Wait
from aglowd.store.rows import Work
from aglowd.store.runs import Decision
from aglowd.store.store import REASK_S, Store

RUNS = ("r0", "r1", "r2")
SUBJECTS = tuple(Subject("toy", name) for name in "abc")
GRAPH = graph("toy", step("s", retries=10**6, retry_delay_s=50.0, timeout_s=3_000.0))
one_of_them = st.integers(0, len(RUNS) - 1)
DUES_S = (10.0, 500.0, 10_000.0)
SECONDS = (1.0, 60.0, 1_000.0, 20_000.0)
OUTCOMES = (EffectState.DONE, EffectState.REJECTED, EffectState.UNKNOWN)
some_subjects = st.lists(st.sampled_from(SUBJECTS), min_size=1, max_size=2, unique_by=lambda subject: subject.key)


class Account:
    """What the model knows of one step: causes to ask it, and how many of them the last decision had seen."""

    def __init__(self) -> None:
        self.state = "ready"
        self.causes = 1
        self.answered = 0
        self.active: tuple[Subject, ...] = ()
        self.met: set[str] = set()  # All subjects that the attempt ever waited for.
        self.seen: dict[str, int] = {}  # The versions that the last committed decision saw.
        self.live = False
        self.due: float | None = None
        self.deadline: float | None = None
        self.stopping = False
        self.made = 0

    @property
    def owed(self) -> bool:
        return self.answered < self.causes


class WakeUpMachine(RuleBasedStateMachine):
    """Three runs of one step each over three subjects."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "aglowd.db"
        self.clock = HandClock()
        self.accounts: dict[str, Account] = {}
        self.ids: dict[str, str] = {}
        self.held: dict[str, tuple[Work, int]] = {}
        self.known: dict[str, tuple[int, int | None]] = {}  # subject → version, last value
        self.serial = 0

    def run(self, coroutine):  # type: ignore[no-untyped-def] # What comes in, comes out.
        return self.runner.run(coroutine)

    @initialize()
    def begin(self) -> None:
        self.run(self._begin())

    async def _begin(self) -> None:
        self.store = Store(self.path, self.clock)
        await self.store.open()
        for name in RUNS:
            self.ids[name] = await self.store.start_run(GRAPH, key=name, field=name, params={}, context={})
            self.accounts[name] = Account()

    # --- looking and deciding

    async def _look(self, name: str) -> Work | None:
        return next((work for work in await self.store.next_dirty() if work.run.id == self.ids[name]), None)

    @rule()
    def look(self) -> None:
        """Take up all that is dirty, as the reactor does; a look that is still in the hand stays as old as it is."""
        for name in RUNS:
            if name not in self.held:
                self._look_at(name)

    def _look_at(self, name: str) -> None:
        work = self.run(self._look(name))
        account = self.accounts[name]
        assert (work is not None) == (account.owed and not account.live)
        if work is None:
            return
        shown = {key: found.version for key, found in work.seen.observations.items()}
        expected = {key: self.known[key][0] for key in account.met if self.known[key][0] > 0}
        assert shown == expected, "a look shows something else than the newest of all that was waited for"
        self.held[name] = (work, account.causes)

    def _commit(self, name: str, outcome: Outcome) -> bool:
        """Finish with the look in the hand, however much has happened since; False if the store found it stale."""
        work, causes = self.held.pop(name)
        account = self.accounts[name]
        try:
            self.run(self.store.finish(Decision(work, outcome, GRAPH)))
        except StaleVersion:
            assert account.stopping, "a decision was refused for no reason"
            assert not work.step.stopping, "a decision was refused for no reason"
            assert account.owed
            return False
        assert account.stopping == bool(work.step.stopping), "a decision went over a stop"
        if account.state == "ready":
            account.deadline = self.clock.now() + 3_000.0
        account.answered = causes
        account.seen = {key: found.version for key, found in work.seen.observations.items()}
        return True

    def _one_held(self, which: int) -> str:
        names = sorted(self.held)
        return names[which % len(names)]

    @precondition(lambda self: self.held)
    @rule(which=one_of_them, subjects=some_subjects, due_s=st.sampled_from(DUES_S))
    def wait(self, which: int, subjects: list[Subject], due_s: float) -> None:
        name = self._one_held(which)
        if not self._commit(name, Wait(tuple(subjects), "because", due_s)):
            return
        account = self.accounts[name]
        account.state, account.active, account.due = "waiting", tuple(subjects), self.clock.now() + due_s
        for subject in subjects:
            version = self.known.setdefault(subject.key, (0, None))[0]
            account.met.add(subject.key)
            if version > account.seen.get(subject.key, 0):
                account.causes += 1

    @precondition(lambda self: self.held)
    @rule(which=one_of_them)
    def work(self, which: int) -> None:
        name = self._one_held(which)
        account = self.accounts[name]
        self.serial += 1
        if self._commit(name, Do.all(Put(what="x", ordinal=self.serial))):
            account.state, account.live, account.due = "working", True, None

    @precondition(lambda self: self.held)
    @rule(which=one_of_them)
    def give_up_the_attempt(self, which: int) -> None:
        name = self._one_held(which)
        if self._commit(name, Failed("again")):
            fresh = Account()
            fresh.causes = fresh.answered = 0
            fresh.due = self.clock.now() + 50.0
            self.accounts[name] = fresh

    # --- what happens meanwhile

    @precondition(lambda self: self.known)
    @rule(subject=st.sampled_from(SUBJECTS), value=st.integers(0, 2))
    def ingest(self, subject: Subject, value: int) -> None:
        changed = self.run(self.store.ingest("toy", None, [(subject, value)]))
        version, last = self.known.get(subject.key, (-1, None))
        expected = version >= 0 and (version == 0 or last != value)
        assert changed == int(expected)
        if expected:
            self.known[subject.key] = (version + 1, value)
            for account in self.accounts.values():
                if subject in account.active:
                    account.causes += 1

    @precondition(lambda self: any(account.live for account in self.accounts.values()))
    @rule(state=st.sampled_from(OUTCOMES))
    def an_effect_comes_to_something(self, state: EffectState) -> None:
        name = next(name for name, account in self.accounts.items() if account.live)
        self.run(self._settle(name, state))

    async def _settle(self, name: str, state: EffectState) -> None:
        for live in await self.store.next_effects((), 10):
            if live.run == self.ids[name]:
                if state is EffectState.UNKNOWN:
                    await self.store.put_off(live, state, "cannot tell", 0.0)
                else:
                    await self.store.settle(live, state, None)
                    self.accounts[name].live = False
                    self.accounts[name].causes += 1

    @rule(seconds=st.sampled_from(SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now = self.clock.now()
        at = self.run(self.store.due())
        for account in self.accounts.values():
            if account.due is not None and account.due <= now:
                account.causes += 1
                account.due = now + REASK_S if account.state == "waiting" else None
            if account.deadline is not None and account.deadline <= now and account.state != "ready":
                account.causes += 1
                account.deadline, account.stopping = None, True
        timers = [account.due for account in self.accounts.values() if account.due is not None]
        assert not timers or (at is not None and at <= min(timers)), "a timer is forgotten"

    @rule()
    def the_daemon_is_started_again(self) -> None:
        """Looks in the hand are lost with the process; no mark is."""
        self.held.clear()
        self.run(self._restart())

    async def _restart(self) -> None:
        await self.store.close()
        self.store = Store(self.path, self.clock)
        await self.store.open()
        assert self.store.bells.dirty.is_set()

    @rule(seed=st.integers(0, 2**32))
    def a_while(self, seed: int) -> None:
        """Many things in a row, each as likely as the other: what takes several of them to go wrong is met often."""
        chance = random.Random(seed)
        for _ in range(12):
            which, subjects = chance.randrange(3), chance.sample(SUBJECTS, chance.randint(1, 2))
            happenings: list[Callable[[], None]] = [
                self.look,
                self.look,
                partial(self.time_passes, chance.choice(SECONDS)),
                partial(self.ingest, chance.choice(SUBJECTS), chance.randrange(3)),
                partial(self.ingest, chance.choice(SUBJECTS), chance.randrange(3)),
            ]
            if self.held:
                happenings += [partial(self.wait, which, subjects, chance.choice(DUES_S))] * 4
                happenings += [partial(self.work, which), partial(self.give_up_the_attempt, which)]
            if any(account.live for account in self.accounts.values()):
                happenings.append(partial(self.an_effect_comes_to_something, chance.choice(OUTCOMES)))
            chance.choice(happenings)()
            self.the_queue_is_what_the_causes_say()

    # --- what must stay true

    @invariant()
    def the_queue_is_what_the_causes_say(self) -> None:
        if self.accounts:
            self.run(self._judge())

    async def _judge(self) -> None:
        found = {row["run"]: row for row in await rows(self.store, "SELECT * FROM steps")}
        watched = {subject.key for subject, _ in await self.store.watched("toy")}
        for name, account in self.accounts.items():
            row = found[self.ids[name]]
            dirty = row["dirty"] is not None
            assert row["state"] == account.state
            assert not account.owed or dirty, f"{name}: a mark is lost"
            assert account.owed or not dirty, f"{name} is asked without a cause"
            assert {subject.key for subject in account.active} <= watched
            if account.state == "waiting" and not dirty:
                assert row["due"] is not None
                for subject in account.active:
                    version = self.known[subject.key][0]
                    assert version == account.seen.get(subject.key, 0), f"{name} sleeps over {subject.key}"

    def teardown(self) -> None:
        try:
            if self.accounts:
                self.run(self._come_to_rest())
        finally:
            if hasattr(self, "store"):
                self.run(self.store.close())
            self.runner.close()
            self.directory.cleanup()

    async def _come_to_rest(self) -> None:
        """With the outside at rest every step is asked once or twice, and then nobody is."""
        for name in RUNS:
            await self._settle(name, EffectState.DONE)
        decided = 0
        while works := await self.store.next_dirty():
            for work in works:
                await self.store.finish(Decision(work, Wait(SUBJECTS, "at rest", 1.0e6), GRAPH))
                decided += 1
            assert decided <= 2 * len(RUNS), "the queue never becomes empty"


WakeUpMachine.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),  # Each step commits to a disk: what fails is told as it was found.
    print_blob=True,
)
TestWakeUp = WakeUpMachine.TestCase
