"""Windows: no limit is ever exceeded, whoever stands first is served first, and no site waits for another one's turn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.clock import Clock
from aglowd.config import load_config
from aglowd.effects.staging import StageFiles
from aglowd.errors import Temporary
from aglowd.grid.dcache import Space
from aglowd.grid.dcache_stage import MAX_BULK_FILES
from aglowd.grid.stager import Progress
from aglowd.model import Do, EffectState, Json, Subject
from aglowd.store.runs import Decision
from aglowd.store.store import Store
from aglowd.watchers.windows import LEAST_FILES, Limits, Turn, Windows, grants

from .conftest import WAITING, running, until, wait_for, world_of

SITES = ("juelich", "sara")
LIMITS = Limits(
    request_files=1000,
    request_bytes=5 * 10**12,
    file_bytes=10**9,
    files=5000,
    site_files=dict.fromkeys(SITES, 3000),
    site_requests=dict.fromkeys(SITES, 4),
    site_held=dict.fromkeys(SITES, 4000),
)


def turn(key: str, files: int, site: str = "sara", **values: Any) -> Turn:
    return Turn(key, site, files, **values)


def test_a_request_is_no_larger_than_it_may_be() -> None:
    assert grants([turn("a", 1500)], [], LIMITS) == {"a": 1000}
    small = msgspec.structs.replace(LIMITS, file_bytes=16 * 10**9)
    assert grants([turn("a", 1500)], [], small) == {"a": 312}, "5 TB of files of 16 GB"
    huge = msgspec.structs.replace(LIMITS, file_bytes=9 * 10**12)
    assert grants([turn("a", 15)], [], huge) == {"a": 1}


def test_where_the_site_tells_how_large_files_are_that_counts() -> None:
    small = msgspec.structs.replace(LIMITS, file_bytes=16 * 10**9)
    turns = [turn("a", 1500, file_bytes=8 * 10**9), turn("b", 1500, since=1.0)]
    assert grants(turns, [], small) == {"a": 625, "b": 312}
    known = turn("k", 900, granted=100, file_bytes=10**9)
    room = {"sara": 1900 * 10**9}
    assert grants([turn("a", 900), known], [("sara", 12)], small, room) == {"a": 100}, "1900 - 100 - 12 * 16 GB"
    assert grants([turn("a", 900, file_bytes=4 * 10**9), known], [], small, room) == {"a": 450}
    two = [turn("a", 300, file_bytes=4 * 10**9), turn("b", 900, since=1.0, file_bytes=10**9)]
    assert grants(two, [], small, room) == {"a": 300, "b": 700}


def test_what_runs_at_a_site_counts_whoever_asked_for_it() -> None:
    assert grants([turn("a", 900), turn("b", 900, granted=900)], [("sara", 1200)], LIMITS) == {"a": 900}
    assert grants([turn("a", 901), turn("b", 900, granted=900)], [("sara", 1200)], LIMITS) == {"a": 900}
    assert grants([turn("a", 900)], [("sara", 2950)], LIMITS) == {"a": "sara stages 3000 files at once"}
    assert grants([turn("a", 900)], [("", 4950)], LIMITS) == {"a": "all sites together stage 5000 files at once"}
    assert grants([turn("a", 9)], [("sara", 1)] * 4, LIMITS) == {"a": "sara has 4 requests at once"}


@pytest.mark.parametrize("small", [{"files": 50}, {"site_files": {"sara": 50}}, {"site_held": {"sara": 50}}])
def test_a_limit_below_the_least_part_of_a_list_is_still_made_use_of(small: dict[str, Any]) -> None:
    limits = msgspec.structs.replace(LIMITS, **small)
    assert grants([turn("a", 244)], [], limits) == {"a": 50}
    assert isinstance(grants([turn("a", 244), turn("b", 9, granted=9)], [], limits)["a"], str), "then all of it"


def test_what_runs_at_all_sites_counts_together() -> None:
    assert grants([turn("a", 1000)], [("juelich", 2500), ("sara", 1800)], LIMITS) == {"a": 700}
    told = grants([turn("a", 1000)], [("juelich", 3000), ("sara", 1901)], LIMITS)
    assert told == {"a": "all sites together stage 5000 files at once"}


def test_nothing_is_staged_further_ahead_than_it_can_be_processed() -> None:
    kept = turn("k", 3500, is_held=True)
    assert grants([turn("a", 900), kept], [], LIMITS) == {"a": 500}
    assert grants([turn("a", 900), kept, turn("l", 450, is_held=True)], [], LIMITS) == {
        "a": "sara keeps 4000 staged files until they have been processed"
    }


def test_files_that_are_kept_are_not_in_the_way_of_what_they_wait_for() -> None:
    """Targets are kept until their calibrator has been solved, whose files must come first."""
    targets = [turn("t/release/1/held", 2000, is_held=True), turn("u/release/1/held", 2000, is_held=True)]
    assert grants([*targets, turn("cal", 244, priority=1)], [], LIMITS) == {"cal": 244}
    assert grants([*targets, turn("t/online/1/0", 244)], [], LIMITS) == {"t/online/1/0": 244}, "its own run's"
    calibrators = turn("c", 3900, is_held=True, priority=1)
    assert grants([*targets, calibrators, turn("cal", 244, priority=1)], [], LIMITS) == {"cal": 100}


def test_nothing_is_staged_for_which_there_is_no_room() -> None:
    assert grants([turn("a", 900)], [("sara", 100)], LIMITS, {"sara": 400 * 10**9}) == {"a": 300}
    assert grants([turn("a", 900)], [("sara", 100)], LIMITS, {"sara": 150 * 10**9}) == {"a": "sara has room for 150 GB"}
    assert grants([turn("a", 900)], [], LIMITS, {"juelich": 0}) == {"a": 900}


def test_who_stands_first_is_not_overtaken_at_its_site_and_keeps_no_other_site_waiting() -> None:
    busy = [("sara", 2950)]
    turns = [turn("first", 900), turn("small", 20, since=1.0), turn("other", 700, "juelich", since=2.0)]
    assert grants(turns, busy, LIMITS) == {
        "first": "sara stages 3000 files at once",
        "small": "sara stages 3000 files at once",
        "other": 700,
    }
    urgent = turn("urgent", 30, since=9.0, priority=1)
    assert grants([*turns, urgent], busy, LIMITS)["urgent"] == 30


def test_the_site_that_uses_least_is_next() -> None:
    """The limit over all sites is shared, not taken by who was first."""
    turns = [turn(f"s{number}", 1000, since=float(number)) for number in range(4)]
    turns += [turn(f"j{number}", 1000, "juelich", since=10.0 + number) for number in range(4)]
    few = msgspec.structs.replace(LIMITS, files=4000)
    given_ = {key for key, files in grants(turns, [], few).items() if isinstance(files, int)}
    assert given_ == {"s0", "s1", "j0", "j1"}


TURNS = st.lists(
    st.builds(
        Turn,
        key=st.uuids().map(str),
        site=st.sampled_from(SITES),
        files=st.integers(1, 2500),
        priority=st.integers(-1, 1),
        since=st.floats(0, 9),
        is_held=st.booleans(),
    ),
    max_size=20,
)


@given(turns=TURNS, others=st.lists(st.tuples(st.sampled_from((*SITES, "")), st.integers(0, 900)), max_size=5))
def test_no_limit_is_exceeded_and_everybody_is_served_in_the_end(
    turns: list[Turn], others: list[tuple[str, int]]
) -> None:
    held = Counter[str]()
    fitting = []
    for one in turns:
        if not one.is_held or held[one.site] + one.files <= 3000:
            held[one.site] += one.files * one.is_held
            fitting.append(one)
    waiting = {one.key: one for one in fitting if not one.is_held}
    kept = [one for one in fitting if one.is_held]
    for round_ in range(200):
        under_way = [one for one in waiting.values() if one.granted]
        if not waiting:
            return
        for key, answer in grants([*waiting.values(), *kept], others, LIMITS).items():
            if isinstance(answer, int):
                assert 0 < answer <= min(waiting[key].files, 1000)
                assert answer >= min(waiting[key].files, LEAST_FILES)
                waiting[key] = msgspec.structs.replace(waiting[key], granted=answer)
        now = list(waiting.values())
        total = sum(one.granted for one in now) + sum(count for _, count in others)
        assert total <= max(5000, sum(count for _, count in others))
        for site in SITES:
            strangers = sum(count for name, count in others if name == site)
            files = sum(one.granted for one in now if one.site == site) + strangers
            assert files <= max(3000, strangers)
            assert sum(one.site == site and one.granted > 0 for one in now) + len(
                [1 for name, _ in others if name == site]
            ) <= max(4, len([1 for name, _ in others if name == site]))
        for one in under_way:  # It is over: the rest is asked for by a new turn.
            rest = one.files - one.granted
            waiting.pop(one.key)
            if rest:
                waiting[f"{one.key}+"] = turn(f"{one.key}+", rest, one.site, priority=one.priority, since=one.since)
        if not any(one.granted for one in waiting.values()) and round_ > 3:
            others = []  # What others run ends too.
            kept = kept[1:]
    raise AssertionError(f"{len(waiting)} are never served")


# --- the watcher


class Stager:
    def __init__(self) -> None:
        self.shown: dict[int, Progress] = {}
        self.calls = 0

    async def progress(self) -> dict[int, Progress]:
        self.calls += 1
        return self.shown


def window(id_: str, files: int, effect: str = "", **args: Json) -> Subject:
    return Subject("window", id_, {"site": "sara", "files": files, "effect": effect, **args})


def windows(store: Store, clock: Clock, stager: Any) -> Windows:
    return Windows(world_of(clock, stager=lambda site: stager), store, 600.0, LIMITS)


async def answers(store: Store) -> dict[str, Json]:
    return {subject.id: data for subject, data in await store.observed("window")}


async def test_turns_are_granted_and_given_back(store: Store, clock: Clock) -> None:
    stager = Stager()
    stager.shown = {7: Progress("in progress", 2500, 3, location="sara"), 8: Progress("success", 900, location="sara")}
    await wait_for(store, "a", window("a", 400))
    await wait_for(store, "b", window("b", 400))
    async with running(windows(store, clock, stager)):

        async def is_shared() -> bool:
            return await answers(store) == {
                "a": {"files": 400, "why": ""},
                "b": {"files": 100, "why": ""},
            }

        await until(store, is_shared)
        stager.shown = {}
        await wait_for(store, "c", window("c", 900))

        async def is_granted() -> bool:
            return (await answers(store))["c"] == {"files": 900, "why": ""}

        await until(store, is_granted)


async def test_a_turn_says_how_large_its_files_are(store: Store, clock: Clock) -> None:
    await wait_for(store, "a", window("a", 900, file_bytes=10**10))
    watcher = windows(store, clock, Stager())
    assert [data["files"] for _, data in await watcher.look([window("a", 900)])] == [500]


async def made(store: Store, request: int | str, *surls: str, site: str = "sara") -> None:
    """A step `a` that waited for its turn has made its request."""
    (work,) = [work for work in await store.next_dirty() if work.run.key == "a"]
    await store.finish(Decision(work, Do.all(StageFiles(surls=surls, site=site)), WAITING))
    (live,) = await store.next_effects((), 9)
    assert live.record.key == "a-1/wait/1/stage_files/0"
    await store.intend(live, [])
    await store.settle(live, EffectState.DONE, {"request": request})


async def test_a_request_is_not_counted_beside_the_turn_that_made_it(store: Store, clock: Clock) -> None:
    stager = Stager()
    await wait_for(store, "a", window("P", 2000, effect="a-1/wait/1/stage_files/0"))
    watcher = windows(store, clock, stager)
    await store.ingest("window", None, [(window("P", 2000), {"files": 2000, "why": ""})])
    await made(store, 7, "s")
    stager.shown = {7: Progress("in progress", 2000, 3, location="sara")}
    await wait_for(store, "b", window("b", 800))
    found = {subject.id: data for subject, data in await watcher.look([window("b", 800)])}
    assert found == {"b": {"files": 800, "why": ""}}
    assert stager.calls == 1, "one call for all sites that share a stager"


async def test_what_a_request_is_for_beyond_its_turn_counts_as_well(store: Store, clock: Clock) -> None:
    await wait_for(store, "a", window("P", 500, effect="a-1/wait/1/stage_files/0", also=1500))
    await store.ingest("window", None, [(window("P", 500), {"files": 500, "why": ""})])
    await wait_for(store, "b", window("b", 1200))
    found = {subject.id: data for subject, data in await windows(store, clock, Stager()).look([window("b", 1200)])}
    assert found == {"b": {"files": 1000, "why": ""}}


async def test_where_a_stager_tells_neither_size_nor_site_the_journal_does(store: Store, clock: Clock) -> None:
    """A dCache counts nothing, and StageIT names no place."""
    stager = Stager()
    await wait_for(store, "a", Subject("proxy", "late"))
    await store.ingest("proxy", None, [(Subject("proxy", "late"), {})])
    await made(store, 7, *(f"s{number}" for number in range(2900)))
    stager.shown = {7: Progress("in progress")}
    await wait_for(store, "b", window("b", 800))
    found = {subject.id: data for subject, data in await windows(store, clock, stager).look([window("b", 800)])}
    assert found["b"] == {"files": 100, "why": ""}


async def test_a_stager_that_is_silent_keeps_no_other_site_waiting(store: Store, clock: Clock) -> None:
    class Moody(Stager):
        async def progress(self) -> dict[int, Progress]:
            if self.calls:
                raise Temporary("it is down")
            return await super().progress()

    moody, well = Moody(), Stager()
    moody.shown = {7: Progress("in progress", 4500, location="juelich")}
    world = world_of(clock, stager={"juelich": moody, "sara": well}.__getitem__)
    watcher = Windows(world, store, 600.0, LIMITS)
    await wait_for(store, "j", window("j", 900, site="juelich"))
    await wait_for(store, "s", window("s", 900))
    for _ in range(2):
        found = {subject.id: data for subject, data in await watcher.look([])}
        assert found["s"]["files"] == 500, "what it showed last counts"
    assert found["j"] == {"files": 0, "why": "juelich: it is down"}


async def test_while_a_stager_is_silent_nothing_is_granted(store: Store, clock: Clock) -> None:
    class Silent:
        async def progress(self) -> dict[int, Progress]:
            raise Temporary("it is down")

    await wait_for(store, "a", window("a", 400))
    with pytest.raises(Temporary):
        await windows(store, clock, Silent()).look([window("a", 400)])


@pytest.mark.parametrize(
    ("space", "files"),
    [
        (Space(), 400),
        (Space(disk_limit_bytes=300 * 10**9, disk_used_bytes=0), 300),
        (Space(disk_limit_bytes=300 * 10**9), 400),
        (
            Space(disk_limit_bytes=900 * 10**9, disk_used_bytes=0, pool_free_bytes=10**11, pool_removable_bytes=10**11),
            200,
        ),
        (Space(disk_limit_bytes=5, disk_used_bytes=9), 0),
    ],
)
async def test_sites_that_tell_are_asked_for_their_room(store: Store, clock: Clock, space: Space, files: int) -> None:
    class Archive:
        async def space(self) -> Space:
            return space

    await wait_for(store, "a", window("a", 400))
    world = world_of(clock, stager=lambda site: Stager(), archive=lambda site: Archive())
    watcher = Windows(world, store, 600.0, msgspec.structs.replace(LIMITS, asks_space=True))
    assert [data["files"] for _, data in await watcher.look([window("a", 400)])] == [files]


async def test_a_site_that_does_not_tell_its_room_keeps_no_other_waiting(store: Store, clock: Clock) -> None:
    class Archive:
        def __init__(self, site: str) -> None:
            self.site = site

        async def space(self) -> Space:
            if self.site == "juelich":
                raise Temporary("it is down")
            return Space()

    await wait_for(store, "j", window("j", 900, site="juelich"))
    await wait_for(store, "s", window("s", 900))
    world = world_of(clock, stager=dict.fromkeys(SITES, Stager()).__getitem__, archive=Archive)
    watcher = Windows(world, store, 600.0, msgspec.structs.replace(LIMITS, asks_space=True))
    found = {subject.id: data for subject, data in await watcher.look([])}
    assert found == {"j": {"files": 0, "why": "juelich: it is down"}, "s": {"files": 900, "why": ""}}


async def test_nobody_is_asked_while_nobody_waits_for_a_turn(store: Store, clock: Clock) -> None:
    stager = Stager()
    await wait_for(store, "k", window("k", 400, held=True))
    watcher = windows(store, clock, stager)
    assert [data for _, data in await watcher.look([window("k", 400)])] == [{"files": 0, "why": ""}]
    assert stager.calls == 0


def test_the_limits_are_those_of_the_configuration(tmp_path: Any, store: Store, clock: Clock) -> None:
    path = tmp_path / "aglowd.toml"
    path.write_text(
        """[catalogue]
path = "f"
srm_dir = "s"
[staging]
bytes_per_request = "2TB"
file_size = "4GB"
[sites.sara]
results = "file:///r"
archive = "file:///a"
files_at_once = 70
requests_at_once = 7
files_held = 700
"""
    )
    watcher = Windows.build(world_of(clock), store, load_config(path))
    assert watcher._limits == Limits(1000, 2 * 10**12, 4 * 10**9, 5000, {"sara": 70}, {"sara": 7}, {"sara": 700})
    assert watcher.poll_s == 300


def test_bulk_requests_of_a_dcache_are_smaller(tmp_path: Any, store: Store, clock: Clock) -> None:
    sites = "".join(
        f'[sites.{name}]\nresults = "file:///r"\narchive = "file:///a"\nstaging = "{way}"\n'
        for name, way in (("sara", "stageit"), ("juelich", "dcache"))
    )
    path = tmp_path / "aglowd.toml"
    for bulk, files in (("true", MAX_BULK_FILES), ("false", 1000)):
        path.write_text(
            f'[catalogue]\npath = "f"\nsrm_dir = "s"\n[dcache]\nbulk = {bulk}\n[staging]\nfile_size = "1GB"\n{sites}'
        )
        limits = Windows.build(world_of(clock), store, load_config(path))._limits
        assert grants([turn("a", 1500), turn("b", 1500, "juelich")], [], limits) == {"a": 1000, "b": files}
    few = msgspec.structs.replace(limits, request_files=300, site_request_files={"juelich": MAX_BULK_FILES})
    assert grants([turn("b", 1500, "juelich")], [], few) == {"b": 300}


async def test_what_is_taken_and_who_waits_is_told_as_turns_are_given(store: Store, clock: Clock) -> None:
    class Archive:
        async def space(self) -> Space:
            return Space(disk_limit_bytes=10**15, disk_used_bytes=0)

    stager = Stager()
    stager.shown = {7: Progress("in progress", 2500, 3, location="sara")}
    for name, values in (
        ("late", {"since": 9.0}),
        ("first", {"priority": 1, "since": 5.0}),
        ("second", {"since": 1.0}),
    ):
        await wait_for(store, name, window(f"{name}-1/stage/1/0", 400, **values))
    await wait_for(store, "held", window("held-1/stage/1/1", 300, held=True))
    world = world_of(clock, stager=lambda site: stager, archive=lambda site: Archive())
    watcher = Windows(world, store, 600.0, msgspec.structs.replace(LIMITS, asks_space=True))
    await store.ingest("window", None, await watcher.look([]))
    calls = stager.calls
    usage = {(one.what, one.site): one for one in await watcher.usage()}
    assert stager.calls == calls, "it asks nobody"
    # 500 files are left: the first gets its 400, of the others 100 go to the one that waits longest.
    files = usage["files", "sara"]
    assert (files.used, files.limit) == (3000, 3000)
    assert [(one.key, one.wants, one.since) for one in files.queue] == [("late-1/stage/1/0", 400, 9.0)]
    assert files.queue[0].why == "sara stages 3000 files at once"
    assert (usage["requests", "sara"].used, usage["requests", "sara"].limit) == (3, 4)
    assert (usage["files kept", "sara"].used, usage["files kept", "sara"].limit) == (3300, 4000)
    assert (usage["bytes", "sara"].used, usage["bytes", "sara"].limit) == (3000 * 10**9, 10**15)
    assert usage["files", "juelich"].used == 0
    assert (usage["files", ""].used, usage["files", ""].limit) == (3000, 5000)
    assert ("bytes", "juelich") not in usage, "nobody has asked there"
