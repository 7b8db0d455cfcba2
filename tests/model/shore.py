"""What the machine of test_machine.py plays with: watches that may disagree, a far side that hangs, a store whose
process dies at a chosen commit, and a pipeline with every kind of wait."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from support import Crash, FarSide, Noted, Order, Play, Put, do, graph, step

from aglowd.clock import Clock
from aglowd.effects.base import Deed, Intent
from aglowd.model import Do, Done, Failed, Json, Outcome, Seen, Spawn, StepView, Subject, Wait
from aglowd.reactor import outputs_of
from aglowd.store.rows import Changes
from aglowd.store.runs import Decision
from aglowd.store.store import Store

T = TypeVar("T")

ENOUGH = 3
"""A subject that has come to this is what its step waits for."""
SHARED = "calibrator"


class Watches:
    """The two clocks of a host: the wall clock may jump, the other one never does."""

    def __init__(self) -> None:
        self.true_s = 0.0
        self.jumped_s = 0.0

    def time(self) -> float:
        return 1.0e9 + self.true_s + self.jumped_s

    def monotonic(self) -> float:
        return self.true_s


class SteadyClock(Clock):
    """The daemon's clock without its chance."""

    def __init__(self, watches: Watches) -> None:
        super().__init__(wall=watches.time, monotonic=watches.monotonic)

    def jitter(self, spread: float = 0.1) -> float:
        return 1.0


class TrueClock(Clock):
    """The far side's: it knows nothing of our wall clock."""

    def __init__(self, watches: Watches) -> None:
        super().__init__()
        self._watches = watches

    def now(self) -> float:
        return self._watches.true_s


class Shore(FarSide):
    """A far side that may also hang, before or after it did what it was asked, until `release`."""

    def __init__(self, clock: Clock, journal: Path) -> None:
        super().__init__(clock, journal)
        self.hang_at = ""
        self.hangs = asyncio.Event()
        self.release = asyncio.Event()
        self.late: set[str] = set()
        """Keys of what shows later than the settling time: only these may happen twice."""

    async def pause(self, place: str) -> None:
        if place == self.hang_at:
            self.hang_at = ""
            self.hangs.set()
            await self.release.wait()

    def truths(self, key: str) -> list[int]:
        return [number for number, asked, _, _ in self.things if asked == key]

    def keys(self) -> set[str]:
        """On whose behalf anything was ever done."""
        return {asked for _, asked, _, _ in self.things}


class SlowPut(Put, frozen=True, kw_only=True):
    """As Put, and every way to it may hang."""

    async def do(self, world: Any, intent: Intent) -> Json:
        await world.pause("before do")
        result = await Put.do(self, world, intent)
        await world.pause("after do")
        return result

    async def find(self, world: Any, intent: Intent) -> Json | None:
        await world.pause("find")
        return await Put.find(self, world, intent)


class SlowOrder(Order, frozen=True, kw_only=True):
    """As Order, and every way to it may hang."""

    async def look_before(self, world: Any) -> Json:
        await world.pause("look")
        return await Order.look_before(self, world)

    async def do(self, world: Any, intent: Intent) -> Json:
        if world.lag_s > self.settle_s:
            world.late.add(intent.key)
        await world.pause("before do")
        result = await Put.do(self, world, intent)
        await world.pause("after do")
        return result

    async def find(self, world: Any, intent: Intent) -> Json | None:
        await world.pause("find")
        return await Put.find(self, world, intent)


DEEDS: dict[str, type[Deed]] = {deed.kind: deed for deed in (SlowPut, SlowOrder, Noted)}
HANG_AT = ("look", "before do", "after do", "find")


class MortalStore(Store):
    """A store whose process dies at its n-th commit from now, just before it or just after."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path, clock, outputs_of)
        self.dies_in = 0
        self.dies_after = False
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        """What happens just before the next decision is committed."""

    async def finish(self, decision: Decision) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        await super().finish(decision)

    async def _change(self, transaction: Callable[[sqlite3.Connection, float, Changes], T]) -> T:
        dies = self.dies_in == 1
        self.dies_in = max(0, self.dies_in - 1)
        if dies and not self.dies_after:
            raise Crash
        result = await super()._change(transaction)
        if dies:
            raise Crash
        return result

    async def drop(self) -> None:
        """The process is gone: what was queued is lost, what was begun in the file is rolled back, the lock is free."""
        writer, self.db._writing = self.db._writing, None
        assert writer is not None
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        await self.db.close()


# --- the pipeline


def subject_of(run: str) -> Subject:
    return Subject("toy", run)


def order(view: StepView, params: Any, seen: Seen) -> Outcome:
    return do(SlowOrder(what=f"{view.key} a"), SlowOrder(what=f"{view.key} b", ordinal=1))(view, params, seen)


def undo(view: StepView, params: Any, seen: Seen) -> Outcome | None:
    """Before an attempt is stopped, something must still be done, once."""
    return None if seen.effect(SlowPut, 99) else Do.all(SlowPut(what=f"undo {view.key}", ordinal=99))


def look(view: StepView, params: Any, seen: Seen) -> Outcome:
    subject = subject_of(view.run)
    value = seen.of(subject)
    if isinstance(value, int) and value >= ENOUGH:
        return Done({"value": value})
    return Wait((subject,), f"{subject.key} is {value}", 600.0)


def share(view: StepView, params: Any, seen: Seen) -> Outcome:
    found = seen.of(Subject("run", SHARED))
    if found is None or found.get("abandoned"):
        return Spawn(SHARED, "child", {}, "waits for the shared run", 600.0, shared=True)
    return Done(found["outputs"]) if found["state"] == "done" else Failed(f"shared: {found['reason']}")


def put(view: StepView, params: Any, seen: Seen) -> Outcome:
    effects = (SlowPut(what=f"{view.key} a"), SlowPut(what=f"{view.key} b", ordinal=1), Noted(what=view.key))
    return do(*effects)(view, params, seen)


def one_put(view: StepView, params: Any, seen: Seen) -> Outcome:
    return do(SlowPut(what=view.key))(view, params, seen)


PLAYS: dict[str, Play] = {"order": order, "look": look, "share": share, "put": put, "tidy": one_put, "only": one_put}
STOPS: dict[str, Play] = {"order": undo}  # type: ignore[dict-item] # A stop may also say that nothing is left.

AGAIN: dict[str, Any] = {"retries": 2, "retry_delay_s": 50.0}
FIELD = graph(
    "field",
    step("order", pool="one", timeout_s=3_000.0, **AGAIN),
    step("share", **AGAIN),
    step("look", "order", timeout_s=9_000.0, **AGAIN),
    step("put", "look", "share", **AGAIN),
    step("tidy", "put", join="done", **AGAIN),
)
CHILD = graph("child", step("only", **AGAIN))
POOLS = {"one": 1}
