"""Two token databases: each has a feed and counts of its own, sites that share one are asked at once, and one that fails
keeps no other's answers back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.picas import Heartbeat, Taken
from aglowd.handlers.wait_tokens import results_of, tokens_of, troubled_of
from aglowd.model import Subject
from aglowd.store.store import Store
from aglowd.watchers.results import Results
from aglowd.watchers.selections import Selections
from aglowd.watchers.tokens import Tokens
from aglowd.watchers.troubled import Troubled

from .conftest import NEVER_S, observed, running, until, until_observed, wait_for, world_of
from .test_tokens import Couch

HERE, THERE, ALSO_HERE = tokens_of("t", "sara"), tokens_of("t", "juelich"), tokens_of("u")


class Base(Couch):
    """With tokens of which one question tells all."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.url = f"http://couch/{name}"
        self.is_away = False
        self.asked: list[list[str]] = []

    def answer(self) -> None:
        if self.is_away:
            raise Temporary(f"{self.url} is away")

    async def list_taken(self, types: Sequence[str]) -> dict[str, dict[str, Taken]]:
        self.answer()
        self.asked.append(list(types))
        return {name: {f"{name}:SB000": Taken("error", f"1-{self.url[-1]}")} for name in types}

    async def list_ids(self, token_type: str, state: str = "") -> tuple[str, ...]:
        self.answer()
        return (f"{token_type}:SB000",)

    async def get_docs(self, ids: Sequence[str]) -> dict[str, Any]:
        return {
            name: {"_id": name, "_rev": "1", "type": "t", "lock": 9, "done": 9, "status": "done", "output": 0,
                   "Results_location": f"{self.url}/{name}"}
            for name in ids
        }  # fmt: skip


@pytest.fixture
def bases() -> dict[str, Base]:
    """`sara` has the common one, `juelich` one of its own."""
    common = Base("a")
    return {"": common, "sara": common, "juelich": Base("b")}


def watch(store: Store, clock: Clock, bases: dict[str, Base]) -> Tokens:
    watcher = Tokens(world_of(clock, picas=bases), store, NEVER_S)
    watcher.gather_s = 100.0
    return watcher


async def test_each_database_has_one_feed_and_is_counted_by_one_query(
    store: Store, clock: Clock, bases: dict[str, Base]
) -> None:
    common, own = bases[""], bases["juelich"]
    common.counts, own.counts = {"t": {"todo": 1}, "u": {"todo": 2}}, {"t": {"todo": 3}}
    for subject in (HERE, THERE, ALSO_HERE):
        await wait_for(store, subject.id, subject)
    async with running(watch(store, clock, bases)):
        await until_observed(store, HERE, {"todo": 1})
        await until_observed(store, ALSO_HERE, {"todo": 2})
        await until_observed(store, THERE, {"todo": 3})
        assert sorted(common.counted[0]) == ["t", "u"]
        assert own.counted[0] == ["t"]
        own.change("t", done=3)
        await until_observed(store, THERE, {"done": 3})
        assert (await observed(store))[HERE.key] == {"todo": 1}, "a type of that name elsewhere is another one"
        for base in (common, own):
            base.feed.put_nowait(Heartbeat())

        async def are_kept() -> bool:
            kept = [await store.cursor(source) for source in ("picas", "picas-juelich")]
            return "/a" in str(kept[0]) and "/b" in str(kept[1])

        await until(store, are_kept)
    assert (len(common.since), len(own.since)) == (1, 1)


async def test_a_database_that_fails_keeps_no_others_counts_back(
    store: Store, clock: Clock, bases: dict[str, Base]
) -> None:
    own, common = bases["juelich"], bases[""]
    own.errors = [Temporary("down")] * 2
    for subject in (HERE, THERE):
        await wait_for(store, subject.id, subject)
    async with running(watch(store, clock, bases)):
        own.feed.put_nowait(Temporary("the feed breaks"))
        await until_observed(store, HERE, {"todo": 0})
        for number in range(3):
            common.change("t", done=number)
            await until_observed(store, HERE, {"done": number})
        await until_observed(store, THERE, {"todo": 0})
    assert len(own.counted) >= 3, "it is asked until it answers"


async def test_a_new_subject_is_counted_whichever_database_listened(
    store: Store, clock: Clock, bases: dict[str, Base]
) -> None:
    async with running(watch(store, clock, bases)):
        for number, site in enumerate(("", "juelich", "sara", "juelich")):
            subject = tokens_of(f"type{number}", site)
            await wait_for(store, subject.id, subject)
            await until_observed(store, subject, {"todo": 0})


async def test_a_site_that_is_no_more_configured_is_told_of_and_hinders_nobody(
    store: Store, clock: Clock, bases: dict[str, Base]
) -> None:
    for subject in (tokens_of("t", "moon"), HERE, THERE):
        await wait_for(store, subject.id, subject)
    watcher = watch(store, clock, bases)
    async with running(watcher):
        await until_observed(store, HERE, {"todo": 0})
        await until_observed(store, THERE, {"todo": 0})
    assert watcher.note == "tokens of sites that are not configured: t@moon"


async def test_those_in_trouble_are_asked_for_once_a_database(
    store: Store, clock: Clock, bases: dict[str, Base]
) -> None:
    subjects = [troubled_of("t", "2h", "sara"), troubled_of("u", "2h"), troubled_of("t", "2h", "juelich")]
    watcher = Troubled(world_of(clock, picas=bases), store, NEVER_S)
    seen = {subject.key: data for subject, data in await watcher.look(subjects)}
    assert seen["troubled:t@sara"]["t:SB000"]["rev"] == "1-a"
    assert seen["troubled:t@juelich"]["t:SB000"]["rev"] == "1-b"
    assert [sorted(types) for types in bases[""].asked] == [["t", "u"]]
    bases["juelich"].is_away = True
    seen = {subject.key: data for subject, data in await watcher.look(subjects)}
    assert set(seen) == {"troubled:t@sara", "troubled:u"}
    assert store.bells.hints("troubled") == {"troubled:t@juelich"}, "it is asked again soon"


@pytest.mark.parametrize(
    ("watcher", "subjects"),
    [
        (Results, (results_of("t", "one", "sara"), results_of("t", "two", "juelich"))),
        (
            Selections,
            tuple(
                Subject("selection", site, {"token_type": "t", "state": "", "field": "Results_location", "site": site})
                for site in ("sara", "juelich")
            ),
        ),
    ],
)
async def test_what_tokens_say_is_read_in_their_own_database(
    store: Store, clock: Clock, bases: dict[str, Base], watcher: Any, subjects: tuple[Subject, ...]
) -> None:
    one = watcher(world_of(clock, picas=bases), store, NEVER_S)
    here, there = [str(data) for _, data in await one.look(subjects)]
    assert "http://couch/a/t:SB000" in here
    assert "http://couch/b/t:SB000" in there
    bases["juelich"].is_away = True
    assert [subject for subject, _ in await one.look(subjects)] == [subjects[0]]
