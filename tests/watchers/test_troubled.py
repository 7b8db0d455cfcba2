"""Tokens in trouble: silence is measured by our clock and our eyes, and what lives is no news."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from aglowd.clock import Clock
from aglowd.grid.picas import Taken
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.troubled import Troubled

from .conftest import wait_for, world_of

LEASE_S = 7200.0
SUBJECT = Subject("troubled", "t", {"lease_s": LEASE_S})


class Scene:
    """A token database in which one token type has tokens that somebody took; time passes when it is told to."""

    def __init__(self, store: Store) -> None:
        self.time = 1000.0
        self.tokens: dict[str, Taken] = {}
        self.asked: list[Sequence[str]] = []
        clock: Any = self
        self.world = world_of(clock, picas=self)
        self.store = store
        self.watcher = Troubled(self.world, store, 3600.0)

    def now(self) -> float:
        return self.time

    async def list_taken(self, types: Sequence[str]) -> dict[str, dict[str, Taken]]:
        self.asked.append(types)
        return {"t": self.tokens} if self.tokens else {}

    async def look(self, after_s: float = 0.0) -> Json:
        self.time += after_s
        ((_, data),) = await self.watcher.look([SUBJECT])
        return data


HELD = Taken("locked", "2-a", 7, "17_3", "wn1")


async def test_who_beats_is_no_news_and_who_is_silent_is(store: Store) -> None:
    scene = Scene(store)
    await wait_for(store, "A", SUBJECT)
    scene.tokens = {"a": HELD}
    assert await scene.look() == {}
    for number in range(5):
        scene.tokens["a"] = structs.replace(HELD, rev=f"{number + 3}-b")
        assert await scene.look(LEASE_S - 1) == {}
    assert await scene.look(LEASE_S - 1) == {}
    assert await scene.look(1) == {
        "a": {"state": "locked", "rev": "7-b", "job": "17_3", "host": "wn1", "retries": 0, "lock": 7, "since": 1000.0}
    }
    scene.tokens["a"] = structs.replace(HELD, rev="8-b")
    assert await scene.look(1) == {}, "it was frozen, and lives"


async def test_who_calls_a_token_failed_that_he_holds_has_his_lease_too(store: Store) -> None:
    scene = Scene(store)
    await wait_for(store, "A", SUBJECT)
    scene.tokens = {"a": structs.replace(HELD, state="error", is_held=True)}
    assert await scene.look() == {}
    found = await scene.look(LEASE_S)
    assert (found["a"]["state"], found["a"]["since"]) == ("locked", 1000.0)


async def test_another_lock_is_another_holder(store: Store) -> None:
    scene = Scene(store)
    await wait_for(store, "A", SUBJECT)
    scene.tokens = {"a": HELD}
    await scene.look()
    scene.tokens["a"] = structs.replace(HELD, rev="5-c", lock=9)
    await scene.look(LEASE_S)
    assert (await scene.look(LEASE_S))["a"]["since"] == 1000.0 + LEASE_S


async def test_failed_ones_are_told_at_once(store: Store) -> None:
    scene = Scene(store)
    scene.tokens = {"a": Taken("error", "4-a", 99, "j", "wn2", retries=1), "b": Taken("other", "1-a")}
    first = await scene.look()
    assert {name: (fact["state"], fact["retries"]) for name, fact in first.items()} == {
        "a": ("error", 1),
        "b": ("other", 0),
    }
    assert await scene.look(99) == first, "an unchanged fact is no news"


async def test_after_a_restart_the_silent_are_silent_still(store: Store) -> None:
    scene = Scene(store)
    await wait_for(store, "A", SUBJECT)
    scene.tokens = {"a": HELD, "b": structs.replace(HELD, rev="9-z")}
    await scene.look()
    scene.tokens["b"] = structs.replace(HELD, rev="10-z")
    told = await scene.look(LEASE_S)
    assert told.keys() == {"a"}
    await store.ingest("troubled", None, [(SUBJECT, told)])
    scene.watcher = Troubled(scene.world, store, 3600.0)
    assert await scene.look(5) == told
    scene.watcher = Troubled(scene.world, store, 3600.0)
    scene.tokens["a"] = structs.replace(HELD, rev="3-a")
    assert await scene.look(5) == {}, "its revision is another one"


async def test_types_that_nobody_waits_for_are_forgotten(store: Store, clock: Clock) -> None:
    scene = Scene(store)
    scene.tokens = {"a": HELD}
    await scene.look()
    assert await scene.look(LEASE_S) == {}, "nobody waits for it: each look begins anew"
