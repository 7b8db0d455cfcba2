"""What the tests of the store, the effects and the reactor share: a clock in the test's hand, an outside system that
keeps the truth of what was done to it, two kinds of deed on it, and pipelines whose handlers are plain functions."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from msgspec import Struct

from aglowd.clock import Clock
from aglowd.effects.base import Deed, Intent
from aglowd.effects.engine import Engine
from aglowd.errors import Conflict, Permanent, Temporary, Unknown
from aglowd.model import Do, Done, Effect, EffectState, Failed, Handler, Json, Outcome, Seen, StepView
from aglowd.pipeline import Pipeline, StepDef
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.store.db import queries
from aglowd.store.rows import LiveEffect, Work
from aglowd.store.runs import Decision
from aglowd.store.schedules import Planned
from aglowd.store.store import Store

SETTLE_S = 100.0
"""World seconds after which the far side shows whatever was done to it."""


class HandClock(Clock):
    """World time that passes only when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 1.0e9

    def now(self) -> float:
        return self.at

    def jitter(self, spread: float = 0.1) -> float:
        return 1.0

    def advance(self, seconds: float) -> None:
        self.at += seconds


class Crash(BaseException):
    """The process dies here. No product code catches it, as none could."""


class FarSide:
    """An outside system. `moods` says how it meets the next calls, one each; without a mood it behaves."""

    def __init__(self, clock: Clock, journal: Path | None = None) -> None:
        self.clock = clock
        self.moods: deque[str] = deque()
        self.things: list[tuple[int, str, str, float]] = []  # id, the key that asked, what, visible from
        self.calls: list[tuple[str, str]] = []
        self.lag_s = 0.0
        self.may_do = asyncio.Event()
        self.may_do.set()
        self.began = asyncio.Event()
        self._journal = journal

    def mood(self) -> str:
        return self.moods.popleft() if self.moods else "well"

    def truth(self, key: str) -> int:
        """How often the world was changed for that key."""
        return sum(asked == key for _, asked, _, _ in self.things)

    def count(self, verb: str) -> int:
        return sum(called == verb for called, _ in self.calls)

    def visible(self, what: str) -> list[int]:
        return [number for number, _, name, since in self.things if name == what and since <= self.clock.now()]

    def apply(self, key: str, what: str) -> int:
        number = len(self.things) + 1
        self.things.append((number, key, what, self.clock.now() + self.lag_s))
        return number

    def assert_intended(self, key: str) -> None:
        """What a second reader of the file sees at this moment: the intent stands there, or nothing may be done."""
        if self._journal is None:
            return
        db = sqlite3.connect(self._journal)
        try:
            state = db.execute("SELECT state FROM effects WHERE key = ?", (key,)).fetchone()[0]
        finally:
            db.close()
        assert state == "open", f"the world is changed while the journal says {state}"


def _meet(mood: str) -> None:
    """The moods in which nothing happens."""
    if mood == "crash before":
        raise Crash
    if mood == "temporary":
        raise Temporary("connection refused")
    if mood == "busy":
        raise Temporary("503 with Retry-After", retry_after_s=40.0)
    if mood == "again":
        raise Temporary("at once, please", retry_after_s=0.0)
    if mood == "permanent":
        raise Permanent("403")
    if mood == "conflict":
        raise Conflict("somebody else's")
    if mood == "unknown":
        raise Unknown("connection reset")
    if mood == "defect":
        raise ValueError("a defect of the deed")


class Put(Deed, frozen=True, kw_only=True):
    """Carries its key to the far side, which shows it at once: one look is exact."""

    kind: ClassVar[str] = "put"
    what: str

    async def do(self, world: Any, intent: Intent) -> Json:
        world.calls.append(("do", intent.key))
        world.assert_intended(intent.key)
        world.began.set()
        await world.may_do.wait()
        mood = world.mood()
        _meet(mood)
        number = world.apply(intent.key, self.what)
        if mood == "lost":
            raise Unknown("the answer was lost")
        if mood == "crash after":
            raise Crash
        return number

    async def find(self, world: Any, intent: Intent) -> Json | None:
        world.calls.append(("find", intent.key))
        mood = world.mood()
        _meet(mood)
        found = self.found(world, intent)
        if mood == "crash after":
            raise Crash
        return found

    def found(self, world: Any, intent: Intent) -> int | None:
        return next((number for number, key, _, _ in world.things if key == intent.key), None)


class Order(Put, frozen=True, kw_only=True):
    """Carries nothing of ours there, and shows late: found by what was not there before, believed after two looks."""

    kind: ClassVar[str] = "order"
    needs_evidence: ClassVar[bool] = True
    settle_s: ClassVar[float] = SETTLE_S

    async def look_before(self, world: Any) -> Json:
        world.calls.append(("look", self.what))
        _meet(world.mood())
        return world.visible(self.what)

    def found(self, world: Any, intent: Intent) -> int | None:
        return next((number for number in world.visible(self.what) if number not in (intent.evidence or ())), None)


class Noted(Put, frozen=True, kw_only=True):
    """Notes what it learns before the change, as a registered job id is noted."""

    kind: ClassVar[str] = "noted"

    async def do(self, world: Any, intent: Intent) -> Json:
        if "registered" not in intent.notes:
            await intent.note({"registered": f"job of try {intent.tries}"})
        return await Put.do(self, world, intent)

    async def find(self, world: Any, intent: Intent) -> Json | None:
        found = await Put.find(self, world, intent)
        return None if found is None else intent.notes.get("registered", "found by its tag")


TOY_DEEDS: Mapping[str, type[Deed]] = {deed.kind: deed for deed in (Put, Order, Noted)}


def new_engine(store: Store, world: FarSide, most: int = 32) -> Engine:
    return Engine(store, world, TOY_DEEDS, store.clock, most)  # type: ignore[arg-type] # The deeds know their world.


Play = Callable[[StepView, Any, Seen], Outcome]


class Played(Handler):
    """A kind of step whose decisions are the test's functions, by the step's name; without one it is done at once."""

    kind: ClassVar[str] = "played"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        say: Json = None
        number: int = 0

    def __init__(self, plays: Mapping[str, Play] | None = None, stops: Mapping[str, Play] | None = None) -> None:
        self.plays = dict(plays or {})
        self.stops = dict(stops or {})
        self.asked: list[str] = []

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        self.asked.append(step.name)
        play = self.plays.get(step.name)
        return Done({"say": params.say}) if play is None else play(step, params, seen)

    def stop(self, step: StepView, params: Any, seen: Seen) -> Any:
        play = self.stops.get(step.name)
        return None if play is None else play(step, params, seen)


def step(name: str, *needs: str, **values: Any) -> StepDef:
    return StepDef(**{"name": name, "kind": "played", "needs": needs, "file": "toy.toml", "line": 7, **values})


def graph(name: str, *steps: StepDef, **values: Any) -> Pipeline:
    return Pipeline(name=name, digest=f"digest of {name}", steps={one.name: one for one in steps}, **values)


def new_reactor(
    store: Store,
    handlers: Iterable[Handler],
    *pipelines: Pipeline,
    pools: Mapping[str, int] | None = None,
    max_fields: int = 10,
    schedules: tuple[Planned, ...] = (),
) -> Reactor:
    return Reactor(
        store,
        {handler.kind: handler for handler in handlers},
        Pipelines({one.name: one for one in pipelines}),
        store.clock,
        pools=pools or {},
        shown={"config": {"colour": "blue"}},
        select=("SND",),
        field_pipeline=pipelines[0].name,
        max_fields=max_fields,
        schedules=schedules,
    )


@asynccontextmanager
async def opened(path: Path, clock: Clock) -> AsyncIterator[Store]:
    store = Store(path, clock, outputs_of)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def begin(store: Store, pipeline: Pipeline, key: str = "P1+1", **params: Json) -> str:
    context = {"name": key, "site": "sara"}
    return await store.start_run(pipeline, key=key, field=key, params=params, context=context)


async def settle_all(reactor: Reactor, most: int = 50) -> int:
    """Decide until nothing is dirty; returns the number of decisions."""
    decided = 0
    for _ in range(most):
        now = await reactor.decide_once()
        if not now:
            return decided
        decided += now
    raise AssertionError(f"still dirty after {most} rounds: the reactor runs in a circle")


async def perform_all(store: Store, engine: Engine) -> int:
    """Bring every effect whose time has come one stretch further; returns how many there were."""
    lives = await store.next_effects((), 100)
    for live in lives:
        await engine.perform(live)
    return len(lives)


async def only_effect(store: Store) -> LiveEffect:
    (live,) = await store.next_effects((), 10)
    return live


async def only_work(store: Store) -> Work:
    (work,) = await store.next_dirty()
    return work


async def decide(store: Store, pipeline: Pipeline, outcome: Outcome, work: Work | None = None) -> Work:
    """Commit that outcome for the only dirty step, or for the one that was looked at before."""
    looked = work or await only_work(store)
    await store.finish(Decision(looked, outcome, pipeline))
    return looked


async def rows(store: Store, sql: str, *values: object) -> list[dict[str, Any]]:
    """What stands in the file, read by SQL of the test's own."""

    def query(db: sqlite3.Connection) -> list[dict[str, Any]]:
        return [dict(row) for row in db.execute(sql, values)]

    return await store.db.read(query)


async def one(store: Store, sql: str, *values: object) -> dict[str, Any]:
    (row,) = await rows(store, sql, *values)
    return row


async def step_row(store: Store, run: str, name: str) -> dict[str, Any]:
    return await one(store, queries()["step_version"].replace(":run", "?").replace(":step", "?"), run, name)


async def effect_row(store: Store, key: str) -> dict[str, Any]:
    return await one(store, "SELECT * FROM effects WHERE key = ?", key)


async def kinds_of_events(store: Store) -> list[str]:
    return [event["kind"] for event in await store.events()]


def do(*effects: Effect) -> Play:
    """Carry these out; done when they have ended."""

    def play(view: StepView, params: Any, seen: Seen) -> Outcome:
        rejected = seen.rejected()
        if rejected is not None:
            return Failed(rejected.reason)
        missing = tuple(effect for effect in effects if seen.effect(type(effect), effect.ordinal) is None)
        if missing:
            return Do(missing)
        return Done({"results": [record.result for record in seen.effects if record.state is EffectState.DONE]})

    return play
