"""Tokens: the feed says which types moved, one query counts them all, and a feed that lost its place loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Temporary
from aglowd.grid.picas import Change, Cursor, FeedReset, Heartbeat, Info
from aglowd.model import Subject
from aglowd.store.store import Store
from aglowd.watchers import tokens
from aglowd.watchers.tokens import SOURCE, Tokens

from .conftest import NEVER_S, PATIENCE_S, changes, running, until, until_observed, wait_for, world_of

ONE, TWO, THREE = (Subject("tokens", name) for name in ("one", "two", "three"))


class Couch:
    """A token database whose feed is in our hand."""

    url = "http://couch/db"

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.start = "1"
        self.seq = "7-now"
        self.feed: asyncio.Queue[Change | Heartbeat | OutsideError] = asyncio.Queue()
        self.since: list[str | None] = []
        self.opened = asyncio.Event()
        self.counted: list[list[str]] = []
        self.errors: list[OutsideError] = []

    async def info(self) -> Info:
        return Info(self.start, 3, self.seq)

    async def changes(self, since: str | None) -> AsyncIterator[Change | Heartbeat]:
        self.since.append(since)
        self.opened.set()
        while True:
            item = await self.feed.get()
            if isinstance(item, OutsideError):
                raise item
            yield item

    async def count_tokens(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        self.counted.append(list(types))
        if self.errors:
            raise self.errors.pop(0)
        return {name: dict(self.counts.get(name, {"todo": 0})) for name in types}

    def change(self, token_type: str, **counts: int) -> None:
        """Something happened to a token of that type, and the feed tells it."""
        self.counts[token_type] = counts
        self.tell(f"{token_type}:SB000", token_type)

    def tell(self, name: str, token_type: str | None) -> None:
        self.feed.put_nowait(Change(name, f"{self.feed.qsize() + 8}-x", token_type, False))


@pytest.fixture
def couch() -> Couch:
    return Couch()


def watch(store: Store, clock: Clock, couch: Couch, poll_s: float = NEVER_S) -> Tokens:
    watcher = Tokens(world_of(clock, picas=couch), store, poll_s)
    watcher.gather_s = 100.0
    return watcher


async def opened(couch: Couch, times: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(couch.since) < times:
            couch.opened.clear()
            if len(couch.since) < times:
                await couch.opened.wait()


async def test_what_is_waited_for_is_counted_at_once_in_one_query(store: Store, clock: Clock, couch: Couch) -> None:
    couch.counts = {"one": {"todo": 3}, "two": {"done": 2}}
    for subject in (ONE, TWO):
        await wait_for(store, subject.id, subject)
    async with running(watch(store, clock, couch)):
        await until_observed(store, ONE, {"todo": 3})
        await until_observed(store, TWO, {"done": 2})
    assert couch.counted[0] == ["one", "two"]
    assert couch.since == ["7-now"]


async def test_changes_are_gathered_and_only_what_changed_is_counted(store: Store, clock: Clock, couch: Couch) -> None:
    for subject in (ONE, TWO, THREE):
        await wait_for(store, subject.id, subject)
    async with running(watch(store, clock, couch)):
        await until_observed(store, THREE, {"todo": 0})
        await opened(couch, 1)

        async def is_quiet() -> bool:
            return couch.feed.empty()

        await until(store, is_quiet)
        couch.change("three", todo=9)
        await until_observed(store, THREE, {"todo": 9})
        before = len(couch.counted)
        for number in range(1, 6):
            couch.change("one", done=number)
            couch.change("two", done=number)
            couch.change("nobody's", done=number)
        couch.tell("_design/one", None)
        await until_observed(store, ONE, {"done": 5})
        await until_observed(store, TWO, {"done": 5})
        assert len(couch.counted) - before <= 2, (
            "fifteen changes are one count, or two if they fell on both sides of it"
        )
        assert {name for types in couch.counted[before:] for name in types} == {"one", "two"}
    assert (await changes(store)).count(ONE.key) <= 3


async def test_a_new_subject_is_counted_without_a_change(store: Store, clock: Clock, couch: Couch) -> None:
    async with running(watch(store, clock, couch)):
        await opened(couch, 1)
        await wait_for(store, "P1", ONE)
        await until_observed(store, ONE, {"todo": 0})
        couch.counted.clear()
        await wait_for(store, "P2", TWO)
        await until_observed(store, TWO, {"todo": 0})
    assert couch.counted[-1] == ["two"]


async def test_a_change_of_a_document_whose_id_names_no_type_may_be_of_any(
    store: Store, clock: Clock, couch: Couch
) -> None:
    for subject in (ONE, TWO):
        await wait_for(store, subject.id, subject)
    async with running(watch(store, clock, couch)):
        await until_observed(store, TWO, {"todo": 0})
        couch.counts = {"one": {"done": 1}, "two": {"done": 2}}
        couch.tell("L123_SB000", None)
        await until_observed(store, ONE, {"done": 1})
        await until_observed(store, TWO, {"done": 2})


async def test_a_feed_that_lost_its_place_is_begun_anew_and_everything_is_counted(
    store: Store, clock: Clock, couch: Couch
) -> None:
    for subject in (ONE, TWO):
        await wait_for(store, subject.id, subject)
    async with running(watch(store, clock, couch)):
        await until_observed(store, TWO, {"todo": 0})
        couch.counts = {"one": {"done": 1}, "two": {"done": 2}}
        couch.seq = "9-later"
        couch.feed.put_nowait(FeedReset("the sequence is not known"))
        await until_observed(store, ONE, {"done": 1})
        await until_observed(store, TWO, {"done": 2})
        await opened(couch, 2)
    assert couch.since == ["7-now", "9-later"]


async def cursor(store: Store) -> Cursor | None:
    text = await store.cursor(SOURCE)
    return None if text is None else msgspec.json.decode(text, type=Cursor)


async def test_the_feed_goes_on_where_it_was_left(store: Store, clock: Clock, couch: Couch) -> None:
    couch.tell("one:SB000", "one")
    couch.feed.put_nowait(Heartbeat())

    async def is_kept() -> bool:
        return await cursor(store) == Cursor(couch.url, "1", "8-x")

    async with running(watch(store, clock, couch)):
        await until(store, is_kept)
    couch.seq = "99-now"
    async with running(watch(store, clock, couch)):
        await opened(couch, 2)
    assert couch.since == ["7-now", "8-x"]
    couch.start = "2"
    async with running(watch(store, clock, couch)):
        await opened(couch, 3)
    assert couch.since[2] == "99-now", "another database has another history"
    couch.start, couch.url = "1", "http://other/db"
    async with running(watch(store, clock, couch)):
        await opened(couch, 4)
    assert couch.since[3] == "99-now"


async def test_a_feed_that_is_never_silent_keeps_its_place(store: Store, clock: Clock, couch: Couch) -> None:
    async def talk() -> None:
        while True:
            couch.tell("one:SB000", "one")
            await asyncio.sleep(0.01)

    async def is_kept() -> bool:
        kept = await cursor(store)
        return kept is not None and (kept.url, kept.instance_start_time) == (couch.url, "1")

    async with running(watch(store, clock, couch)):
        talking = asyncio.create_task(talk())
        await until(store, is_kept)
        talking.cancel()
    kept = await cursor(store)
    assert kept is not None
    assert kept.last_seq.endswith("-x"), "a place that the feed told, not the one where it began"


async def test_of_more_names_than_are_remembered_everything_is_counted(
    store: Store, clock: Clock, couch: Couch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_CHANGED", 5)
    for subject in (ONE, TWO):
        await wait_for(store, subject.id, subject)
    async with running(watch(store, clock, couch)):
        await until_observed(store, TWO, {"todo": 0})
        couch.change("one", todo=9)
        await until_observed(store, ONE, {"todo": 9})
        couch.counts = {"one": {"done": 1}, "two": {"done": 2}}
        for number in range(100):
            couch.tell(f"named by a stranger {number}", None)
        await until_observed(store, ONE, {"done": 1})
        await until_observed(store, TWO, {"done": 2})


async def test_what_changed_while_nobody_listened_is_counted(store: Store, clock: Clock, couch: Couch) -> None:
    await wait_for(store, "P1", ONE)
    async with running(watch(store, clock, couch)):
        await until_observed(store, ONE, {"todo": 0})
    couch.counts["one"] = {"done": 1}
    async with running(watch(store, clock, couch)):
        await until_observed(store, ONE, {"done": 1})


async def test_a_feed_that_breaks_is_opened_again(store: Store, clock: Clock, couch: Couch) -> None:
    await wait_for(store, "P1", ONE)
    watcher = watch(store, clock, couch)
    async with running(watcher):
        await until_observed(store, ONE, {"todo": 0})
        couch.feed.put_nowait(Temporary("the feed fell silent"))
        couch.counts["one"] = {"done": 1}
        await opened(couch, 2)
        await until_observed(store, ONE, {"done": 1})


async def test_a_count_that_fails_is_done_again(store: Store, clock: Clock, couch: Couch) -> None:
    await wait_for(store, "P1", ONE)
    watcher = watch(store, clock, couch)
    async with running(watcher):
        await until_observed(store, ONE, {"todo": 0})
        couch.errors = [Temporary("busy")]
        couch.change("one", done=1)
        await until_observed(store, ONE, {"done": 1})
    assert watcher.failures == 0
    assert couch.errors == []


async def test_everything_is_counted_now_and_then_without_a_word_from_the_feed(
    store: Store, clock: Clock, couch: Couch
) -> None:
    await wait_for(store, "P1", ONE)
    await wait_for(store, "P2", TWO)
    async with running(watch(store, clock, couch, poll_s=300.0)):
        await until_observed(store, TWO, {"todo": 0})
        couch.counts = {"one": {"done": 1}, "two": {"done": 2}}
        await until_observed(store, ONE, {"done": 1})
        await until_observed(store, TWO, {"done": 2})
    assert ["one", "two"] in couch.counted[1:]


def test_a_cursor_is_stored_as_json() -> None:
    kept: Any = msgspec.json.decode(msgspec.json.encode(Cursor("u", "1", "2")), type=Cursor)
    assert kept == Cursor("u", "1", "2")
