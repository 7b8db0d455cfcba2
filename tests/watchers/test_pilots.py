"""Turns to start pilots: no limit is exceeded by what is granted, and room is not left empty."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from aglowd.clock import Clock
from aglowd.handlers.pilots import job_of
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.pilots import PilotTurns, Turn, grants

from .conftest import running, until_observed, wait_for, world_of

SITES = ("sara", "juelich")


@given(
    st.lists(
        st.tuples(st.sampled_from(SITES), st.integers(1, 9), st.integers(0, 2), st.integers(0, 4)),
        min_size=1,
        max_size=6,
    ),
    st.fixed_dictionaries({site: st.integers(0, 12) for site in SITES}),
    st.fixed_dictionaries({site: st.integers(1, 12) for site in SITES}),
    st.integers(1, 20),
)
def test_room_is_given_whole_and_never_twice(
    wanted: list[tuple[str, int, int, int]], alive: dict[str, int], limits: dict[str, int], limit: int
) -> None:
    turns = [
        Turn(str(number), site, want, priority, min(granted, want))
        for number, (site, want, priority, granted) in enumerate(wanted)
    ]
    answers = grants(turns, alive, limits, limit)
    assert answers.keys() == {turn.key for turn in turns if not turn.granted}
    used = Counter(alive)
    for turn in turns:
        used[turn.site] += turn.granted
    before = used.copy()
    for turn in turns:
        answer = answers.get(turn.key, 0)
        used[turn.site] += answer if isinstance(answer, int) else 0
        assert answer <= turn.want if isinstance(answer, int) else answer
    for site in SITES:
        assert used[site] <= max(limits[site], before[site])
    assert used.total() <= max(limit, before.total())
    for turn in turns:
        got = answers.get(turn.key)
        if got is not None and (not isinstance(got, int) or got < turn.want):
            assert used[turn.site] >= limits[turn.site] or used.total() >= limit, "nobody waits while there is room"


def test_who_waits_is_told_why() -> None:
    turns = [Turn("a", "sara", 5), Turn("b", "juelich", 5)]
    assert grants(turns, {"sara": 3}, {"sara": 3, "juelich": 9}, 20) == {"a": "sara runs 3 pilots at once", "b": 5}
    assert grants(turns, {"juelich": 4}, {}, 4) == {
        "a": "all sites together run 4 pilots at once",
        "b": "juelich runs 4 pilots at once",
    }
    assert grants(turns, {"": 7}, {"sara": 9, "juelich": 9}, 7)["a"] == "all sites together run 7 pilots at once"


def test_who_comes_first_and_that_equals_share() -> None:
    turns = [Turn("low", "sara", 4), Turn("high", "sara", 4, priority=1), Turn("high too", "sara", 4, priority=1)]
    assert grants(turns, {}, {"sara": 7}, 100) == {"low": "sara runs 7 pilots at once", "high": 4, "high too": 3}


async def test_pilots_that_live_and_turns_that_are_held_leave_no_room(store: Store, clock: Clock) -> None:
    watcher = PilotTurns(world_of(clock), store, 60.0, {"sara": 10}, 100)
    job = job_of("17:4", "sara")
    await wait_for(store, "A", job)
    data: Json = {"state": "running", "nodes": {"1": "running", "2": "queued", "3": "done_ok", "4": "unknown"}}
    await store.ingest("job", None, [(job, data)])
    first, second = (Subject("pilots", name, {"site": "sara", "want": 5}) for name in "xy")
    async with running(watcher):
        await wait_for(store, "B", first)
        await until_observed(store, first, {"pilots": 5, "why": ""})
        await wait_for(store, "C", second)
        await until_observed(store, second, {"pilots": 2, "why": ""})


async def test_how_many_pilots_live_and_who_waits_is_told(store: Store, clock: Clock) -> None:
    watcher = PilotTurns(world_of(clock), store, 60.0, {"sara": 3, "juelich": 9}, 100)
    job = job_of("17:4", "sara")
    await wait_for(store, "A", job)
    await store.ingest("job", None, [(job, {"state": "running", "nodes": {"1": "running", "2": "done_ok"}})])
    turns = {
        name: Subject("pilots", f"{name}-1/wait/1", {"site": "sara", "want": 2, "priority": priority})
        for name, priority in (("B", 0), ("C", 7), ("D", 1))
    }
    for name, subject in turns.items():
        await wait_for(store, name, subject)
    await store.ingest("pilots", None, await watcher.look([]))
    usage = {one.site: one for one in await watcher.usage()}
    assert (usage["sara"].used, usage["sara"].limit) == (3, 3)
    assert [(one.key, one.wants, one.why) for one in usage["sara"].queue] == [
        ("D-1/wait/1", 2, "sara runs 3 pilots at once"),
        ("B-1/wait/1", 2, "sara runs 3 pilots at once"),
    ]
    assert (usage["juelich"].used, usage["juelich"].limit, usage["juelich"].queue) == (0, 9, ())
    assert (usage[""].used, usage[""].limit) == (3, 100)
