"""The loop that watchers share: one look a round for all, nothing new goes unseen, and a failure changes no fact."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support import HandClock, opened

from aglowd.clock import Clock
from aglowd.config import CatalogueConfig, Config, StagingConfig
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers import WATCHERS
from aglowd.watchers.base import (
    BACKOFF_MOST,
    HINTS_APART_S,
    PACE_FAST,
    PACE_SLOW,
    QUIET_ROUNDS,
    Observations,
    Watcher,
)

from .conftest import NEVER_S, PATIENCE_S, changes, end, observed, running, until_observed, wait_for, world_of

A, B, C = (Subject("thing", name, {"n": number}) for number, name in enumerate("abc"))


class Things(Watcher):
    """A world of things: each has a state, or cannot be seen now."""

    kind = "thing"

    def __init__(self, store: Store, clock: Clock, poll_s: float = NEVER_S) -> None:
        super().__init__(world_of(clock), store, poll_s)
        self.states: dict[str, Json] = {}
        self.errors: list[OutsideError] = []
        self.looks: list[tuple[float, tuple[Subject, ...]]] = []
        self.looked: asyncio.Queue[None] = asyncio.Queue()

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        self.looks.append((self.clock.now(), tuple(subjects)))
        self.looked.put_nowait(None)
        if self.errors:
            raise self.errors.pop(0)
        return [(subject, self.states[subject.id]) for subject in subjects if subject.id in self.states]

    async def next_look(self) -> None:
        await asyncio.wait_for(self.looked.get(), PATIENCE_S)

    def subjects_of_looks(self) -> list[tuple[Subject, ...]]:
        return [subjects for _, subjects in self.looks]


class WholeThings(Things):
    whole = True


async def test_the_first_observation_is_delivered_even_of_nothing(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock)
    watcher.states["a"] = None
    await wait_for(store, "P1", A)
    async with running(watcher):
        await until_observed(store, A, None)
        assert list(await observed(store)) == [A.key]
    assert await changes(store) == [A.key]
    assert watcher.last_ok is not None


async def test_a_look_that_saw_nothing_is_no_commit(store: Store, clock: Clock) -> None:
    await wait_for(store, "P1", A)
    watcher, commits = Things(store, clock), store.db.commits
    assert await watcher._look([A])
    assert store.db.commits == commits


async def test_one_look_is_for_all(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock)
    watcher.states = {"a": 1, "b": 2, "c": 3}
    for number, subject in enumerate((A, B, C)):
        await wait_for(store, f"P{number}", subject)
    await wait_for(store, "P9", A, B)
    async with running(watcher):
        await until_observed(store, C, 3)
    assert watcher.subjects_of_looks() == [(A, B, C)]
    assert await observed(store) == {A.key: 1, B.key: 2, C.key: 3}


async def test_what_is_new_is_looked_at_between_the_rounds_alone(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock)
    watcher.states = {"a": 1, "b": 2}
    async with running(watcher):
        await wait_for(store, "P1", A)
        await until_observed(store, A, 1)
        await wait_for(store, "P2", B)
        await until_observed(store, B, 2)
    assert watcher.subjects_of_looks() == [(A,), (B,)]


async def test_a_watcher_that_sees_everything_at_once_keeps_its_interval(store: Store, clock: Clock) -> None:
    watcher = WholeThings(store, clock, poll_s=400.0)
    watcher.states = {"a": 1, "b": 2}
    await wait_for(store, "P1", A)
    async with running(watcher):
        await until_observed(store, A, 1)
        await wait_for(store, "P2", B)
        await until_observed(store, B, 2)
    (first, second), subjects = (tuple(at for at, _ in watcher.looks), watcher.subjects_of_looks())
    assert subjects == [(A,), (A, B)]
    assert second - first >= 300.0


async def test_rounds_come_at_their_interval_and_tell_what_changed_alone(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock, poll_s=200.0)
    watcher.states = {"a": 1, "b": 2}
    await wait_for(store, "P1", A)
    await wait_for(store, "P2", B)
    async with running(watcher):
        for _ in range(4):
            await watcher.next_look()
        assert sorted(await changes(store)) == [A.key, B.key]
        watcher.states["b"] = 3
        await until_observed(store, B, 3)
    assert sorted(await changes(store)) == [A.key, B.key, B.key]
    assert all(subjects == (A, B) for subjects in watcher.subjects_of_looks())
    times = [at for at, _ in watcher.looks]
    assert times[3] - times[0] >= 500.0


@pytest.mark.parametrize("whole", [False, True])
async def test_after_a_time_with_nothing_to_do_one_look_is_one_look(tmp_path: Any, whole: bool) -> None:
    clock = HandClock()
    async with opened(tmp_path / "state" / "aglowd.db", clock) as store:
        watcher = (WholeThings if whole else Things)(store, clock, poll_s=3600.0)
        watcher.states = {"a": 1, "b": 2}
        async with running(watcher):
            await wait_for(store, "P1", A)
            await until_observed(store, A, 1)
            await end(store, "P1")
            clock.advance(10 * 3600.0)
            await wait_for(store, "P2", B)
            await until_observed(store, B, 2)
            await wait_for(store, "P3", C)
            watcher.states["c"] = 3
            if not whole:
                await until_observed(store, C, 3)
            else:
                await end(store, "P2")
                clock.advance(10 * 3600.0)
                await wait_for(store, "P4", B)
                await until_observed(store, C, 3)
    looks = [tuple(subject.id for subject in subjects) for subjects in watcher.subjects_of_looks()]
    assert looks[:2] == [("a",), ("b",)]
    assert looks.count(("b",)) == 1


@pytest.mark.parametrize("error", [Temporary("busy"), Permanent("forbidden"), Unknown("silent")])
async def test_a_failure_changes_no_fact_and_passes(store: Store, clock: Clock, error: OutsideError) -> None:
    watcher = Things(store, clock, poll_s=100.0)
    watcher.states = {"a": 1}
    await wait_for(store, "P1", A)
    async with running(watcher):
        await until_observed(store, A, 1)
        watcher.errors = [error, error]
        watcher.states["a"] = 2
        while watcher.errors:
            await watcher.next_look()
        assert watcher.failures >= 1
        assert watcher.last_error == str(error)
        assert await observed(store) == {A.key: 1}
        await until_observed(store, A, 2)
        await watcher.next_look()
    assert (watcher.failures, watcher.last_error) == (0, "")
    assert len(await changes(store)) == 2


async def test_after_failures_rounds_come_later_and_later(store: Store, clock: Clock) -> None:
    poll_s = 100.0
    watcher = Things(store, clock, poll_s=poll_s)
    watcher.states = {"a": 1}
    watcher.errors = [Temporary("busy")] * 5
    await wait_for(store, "P1", A)
    async with running(watcher):
        await until_observed(store, A, 1)
    times = [at for at, _ in watcher.looks]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) == 5
    for gap, late in zip(gaps, (1, 2, 4, BACKOFF_MOST, BACKOFF_MOST), strict=True):
        assert gap >= poll_s * (late - 1) + poll_s / 10


async def test_a_new_subject_that_could_not_be_seen_is_looked_at_again(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock, poll_s=100.0)
    await wait_for(store, "P1", A, B)
    watcher.states = {"b": 2}
    async with running(watcher):
        await until_observed(store, B, 2)
        assert A.key not in await observed(store)
        watcher.states["a"] = 1
        await until_observed(store, A, 1)


async def test_what_nobody_waits_for_is_not_looked_at(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock, poll_s=50.0)
    watcher.states = {"a": 1, "b": 2}
    await wait_for(store, "P1", A)
    async with running(watcher):
        await until_observed(store, A, 1)
        await end(store, "P1")
        await wait_for(store, "P2", B)
        await until_observed(store, B, 2)
        for _ in range(3):
            await watcher.next_look()
    assert watcher.subjects_of_looks()[-1] == (B,)


async def test_a_loop_shows_that_it_lives(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock, poll_s=50.0)
    watcher.states = {"a": 1}
    before = watcher.progress_at
    await wait_for(store, "P1", A)
    async with running(watcher):
        for _ in range(3):
            await watcher.next_look()
    assert watcher.progress_at >= before + 50.0


async def test_a_loop_with_nothing_to_watch_shows_that_it_lives(tmp_path: Any) -> None:
    """systemd would kill the daemon for a loop that rests, if resting looked like hanging."""
    clock = Clock(rate=1.0e6)
    async with opened(tmp_path / "state" / "aglowd.db", clock) as store:
        watcher = Things(store, clock, poll_s=3600.0)
        before = watcher.progress_at
        async with running(watcher), asyncio.timeout(10):
            while watcher.progress_at < before + 3 * 3600.0:  # noqa: ASYNC110 - nothing rings when a loop only rests.
                await asyncio.sleep(0)
    assert watcher.looks == []


async def test_a_watcher_that_does_not_say_how_it_looks_is_told(store: Store, clock: Clock) -> None:
    class Blind(Watcher):
        kind = "blind"

    with pytest.raises(NotImplementedError):
        await Blind(world_of(clock), store, 1.0).look([])


def test_the_table_of_contents_names_each_kind_once() -> None:
    kinds = [watcher.kind for watcher in WATCHERS]
    assert len(set(kinds)) == len(kinds)


async def test_a_watcher_that_raises_while_it_is_being_stopped_stops(store: Store, clock: Clock) -> None:
    """What it raises on its way out would otherwise begin it anew, and the stop would wait for it for ever."""
    began, ends = asyncio.Event(), asyncio.Event()

    class Stumbles(Things):
        async def watch(self) -> None:
            assert not began.is_set(), "it has begun anew"
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ends.set()
                raise ValueError("on the way out")

    task = asyncio.create_task(Stumbles(store, clock).run())
    await began.wait()
    task.cancel()
    await ends.wait()
    done, _ = await asyncio.wait({task}, timeout=PATIENCE_S)
    assert done
    assert task.cancelled()


# --- hints


async def test_a_hint_brings_a_look_at_its_subject_forward(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock)
    watcher.states = {"a": 1, "b": 2}
    await wait_for(store, "P1", A, B)
    async with running(watcher):
        await until_observed(store, B, 2)
        watcher.states = {"a": 3, "b": 4}
        store.bells.hint("thing", [A.key, "thing:nobody waits"])
        await until_observed(store, A, 3)
        assert await observed(store) == {A.key: 3, B.key: 2}
    assert watcher.subjects_of_looks() == [(A, B), (A,)]
    assert store.bells.hints("thing") == set()


async def test_hints_are_gathered_and_looks_that_they_ask_for_keep_apart(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock)
    watcher.states = {"a": 0, "b": 0}
    await wait_for(store, "P1", A, B)
    async with running(watcher):
        await until_observed(store, B, 0)
        for number in range(1, 4):
            watcher.states = {"a": number, "b": number}
            for subject in (A, B) * 5:
                store.bells.hint("thing", [subject.key])
            await until_observed(store, A, number)
            assert await observed(store) == {A.key: number, B.key: number}
    times = [at for at, _ in watcher.looks]
    assert len(times) == 4, "one look for all that was gathered"
    assert all(later - earlier >= HINTS_APART_S for earlier, later in pairwise(times))


async def test_a_hint_whose_look_fails_is_not_lost(store: Store, clock: Clock) -> None:
    watcher = Things(store, clock)
    watcher.states = {"a": 1}
    await wait_for(store, "P1", A)
    async with running(watcher):
        await until_observed(store, A, 1)
        watcher.states, watcher.errors = {"a": 2}, [Temporary("busy")] * 2
        store.bells.hint("thing", [A.key])
        await until_observed(store, A, 2)
    times = [at for at, _ in watcher.looks]
    gaps = [later - earlier for earlier, later in pairwise(times)][-2:]
    assert len(times) == 4
    assert [gap >= HINTS_APART_S * late for gap, late in zip(gaps, (1, 2), strict=True)] == [True, True]


async def test_a_hint_that_is_known_rings_no_bell(store: Store) -> None:
    bell = store.bells.subject("thing")
    store.bells.hint("thing", ["a"])
    assert bell.is_set()
    bell.clear()
    store.bells.hint("thing", ["a"])
    store.bells.hint("thing", [])
    assert not bell.is_set()
    store.bells.hint("thing", ["a", "b"])
    assert bell.is_set()


# --- rounds that adapt


class Adapting(Things):
    """Sleeps without a real clock, and tells for how long."""

    adapts = True

    def __init__(self, store: Store, clock: HandClock) -> None:
        super().__init__(store, clock, poll_s=100.0)
        self.hand = clock
        self.slept: asyncio.Queue[float] = asyncio.Queue()
        self.go_on = asyncio.Semaphore(0)
        self.woken_after_s: float | None = None
        """The next sleep ends after so long: the bell has rung."""

    async def _sleep(self, bell: asyncio.Event, until: float | None) -> None:
        assert until is not None
        self.slept.put_nowait(until - self.clock.now())
        await self.go_on.acquire()
        if self.woken_after_s is None:
            self.hand.at = max(self.hand.at, until)
        else:
            self.hand.at, self.woken_after_s = self.hand.at + self.woken_after_s, None

    async def rounds(self, count: int) -> list[float]:
        """Polls that lie behind each of the next rounds."""
        found = []
        for _ in range(count):
            found.append(await self.next_sleep())
            self.go_on.release()
        return found

    async def next_sleep(self) -> float:
        """Polls for which it sleeps now."""
        return await asyncio.wait_for(self.slept.get(), PATIENCE_S) / self.poll_s


class AdaptingWhole(Adapting):
    whole = True


async def test_rounds_come_faster_when_something_moves_and_slower_when_nothing_does(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path / "state" / "aglowd.db", clock) as store:
        watcher = Adapting(store, clock)
        watcher.states = {"a": 1}
        await wait_for(store, "P1", A)
        async with running(watcher):
            fast = [PACE_FAST] * QUIET_ROUNDS
            slower = [1.0] * QUIET_ROUNDS + [2.0] * QUIET_ROUNDS + [PACE_SLOW] * (2 * QUIET_ROUNDS)
            assert await watcher.rounds(len(fast) + len(slower)) == [*fast, *slower]
            assert (await watcher.rounds(1))[0] == PACE_SLOW
            watcher.states["a"] = 2
            seen = await watcher.rounds(3)
            assert PACE_FAST in seen[:2]
            assert seen[2] == PACE_FAST
            watcher.errors = [Temporary("busy")] * 5
            failing = await watcher.rounds(6)
            assert max(failing) == BACKOFF_MOST, "a failure has its own distance"


async def test_a_hint_whose_look_fails_puts_no_round_off(tmp_path: Path) -> None:
    clock = HandClock()
    async with opened(tmp_path / "state" / "aglowd.db", clock) as store:
        watcher = Adapting(store, clock)
        watcher.poll_s, watcher.states = 10 * HINTS_APART_S, {"a": 1}
        await wait_for(store, "P1", A)
        async with running(watcher):
            assert await watcher.next_sleep() == PACE_FAST
            watcher.errors, watcher.woken_after_s = [Temporary("busy")], 2 * HINTS_APART_S
            store.bells.hint("thing", [A.key])
            watcher.go_on.release()
            seen = await watcher.rounds(1)
            assert [round(polls, 6) for polls in (*seen, await watcher.next_sleep())] == [0.1, 0.2]


@pytest.mark.parametrize("kind", [Adapting, AdaptingWhole])
async def test_what_is_new_does_not_wait_for_a_slow_round(tmp_path: Path, kind: type[Adapting]) -> None:
    clock = HandClock()
    async with opened(tmp_path / "state" / "aglowd.db", clock) as store:
        watcher = kind(store, clock)
        watcher.states = {"a": 1}
        await wait_for(store, "P1", A)
        async with running(watcher):
            assert (await watcher.rounds(4 * QUIET_ROUNDS))[-1] == PACE_SLOW
            assert await watcher.next_sleep() == PACE_SLOW
            await wait_for(store, "P2", B)
            watcher.woken_after_s, looks = 10.0, len(watcher.looks)
            watcher.go_on.release()
            assert await watcher.next_sleep() == 0.9
            assert watcher.subjects_of_looks()[looks:] == ([] if watcher.whole else [(B,)])
            watcher.go_on.release()
            # It cannot be seen yet: until it is, the rounds stay at one poll.
            assert set(await watcher.rounds(2 * QUIET_ROUNDS)) == {1.0}
            watcher.states["b"] = 2
            assert PACE_FAST in await watcher.rounds(2)


class Configured(Things):
    """As often as the configuration says."""

    @staticmethod
    def poll(config: Config) -> str:
        return config.staging.poll


def looked_at_every(poll: str) -> Config:
    return Config(catalogue=CatalogueConfig("srm"), sites={}, staging=StagingConfig(poll=poll))


async def test_a_shorter_interval_counts_at_once_and_a_longer_one_from_the_next_round_on(
    store: Store, clock: Clock
) -> None:
    watcher = Configured(store, clock)
    watcher.heed(looked_at_every("3650d"))
    watcher.states["a"] = 1
    await wait_for(store, "P1", A)
    async with running(watcher):
        await watcher.next_look()
        await until_observed(store, A, 1)
        watcher.heed(looked_at_every("1m"))
        for _ in range(3):
            await watcher.next_look()
        watcher.heed(looked_at_every("3650d"))
        # What was due by the shorter interval may come still, and nothing after that.
        with suppress(TimeoutError):
            async with asyncio.timeout(clock.real_s(600.0)):
                while True:
                    await watcher.looked.get()
        assert watcher.looked.empty()
        assert watcher.poll_s == 3650 * 86_400.0


# --- of what nothing can be seen


async def test_since_when_nothing_can_be_seen_is_known_until_something_is(tmp_path: Path) -> None:
    hand = HandClock()
    async with opened(tmp_path / "aglowd.db", hand) as store:
        watcher = Things(store, hand)
        watcher.states = {"a": 1}
        watcher.errors = [Temporary("no connection"), Temporary("503"), Temporary("503")]
        began = hand.now()
        for why in ("no connection", "503"):
            assert not await watcher._look([A, B])
            assert {key: (one.since, one.why) for key, one in watcher.silent.items()} == {
                A.key: (began, why),
                B.key: (began, why),
            }
            hand.advance(60)
        assert not await watcher._look([C])
        assert await watcher._look([A, B]), "B is left out, and nothing went wrong"
        assert [*watcher.silent] == [C.key]
        watcher.forget_silent([A, B])
        assert watcher.silent == {}


async def test_who_does_not_answer_keeps_only_his_own_silent(tmp_path: Path) -> None:
    hand = HandClock()
    async with opened(tmp_path / "aglowd.db", hand) as store:

        class Halves(Things):
            async def look(self, subjects: Sequence[Subject]) -> Observations:
                return await self.each([[subject] for subject in subjects], self._ask)

            async def _ask(self, subjects: Sequence[Subject]) -> Observations:
                (subject,) = subjects
                if subject.id not in self.states:
                    raise Temporary("503")
                return [(subject, self.states[subject.id])]

        watcher = Halves(store, hand)
        watcher.states = {"a": 1}
        assert await watcher._look([A, B])
        assert [*watcher.silent] == [B.key]
        watcher.states["b"] = 2
        assert await watcher._look([A, B])
        assert watcher.silent == {}
