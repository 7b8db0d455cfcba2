"""The toys: a step that waits for a subject and then does one deed, and an outside world that answers at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from msgspec import Struct

from aglowd import log
from aglowd.clock import Clock
from aglowd.effects.base import Deed, Intent
from aglowd.effects.engine import Engine
from aglowd.grid.batch import JobStatus
from aglowd.grid.picas import Change, Heartbeat
from aglowd.grid.stager import Progress
from aglowd.model import Do, Done, Handler, Json, Outcome, Seen, StepView, Subject, Wait
from aglowd.pipeline import Pipeline, StepDef
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.store.at_once import Decider
from aglowd.store.runs import Decision
from aglowd.store.store import Store

DUE_S = 30 * 86_400.0
"""No toy step becomes due while it is measured."""
TOGETHER = 256
"""Runs that are begun side by side, so that they share commits."""


class Touch(Deed, frozen=True, kw_only=True):
    """A deed that takes no time and tells when it began."""

    kind: ClassVar[str] = "touch"

    async def do(self, world: Any, intent: Intent) -> Json:
        world.touched.put_nowait(time.perf_counter())
        return {}

    async def find(self, world: Any, intent: Intent) -> Json | None:
        return {}


class Toy(Handler):
    """Wait for the subject; when it says `go`, touch the world and be done."""

    kind = "toy"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        watch: str
        id: str

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subjects = _subjects(params)
        found = seen.of(subjects[0]) or {}
        if seen.result(Touch) is not None:
            return Done({})
        if found.get("go"):
            return Do.all(Touch())
        return Wait(subjects, f"{params.id}: {found.get('done', 0)} of 244 files online", DUE_S)


REQUEST_FILES = 244
"""Files of a toy request: the subbands of an observation."""
STEP_JOBS = 250
"""Jobs for which a toy step waits whose pilots run."""


def surls_of(request: int) -> list[str]:
    """The files of that toy request."""
    place = f"srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/{request}"
    names = (f"L{request}_SB{number:03d}_uv.dppp.MS_{number:08x}.tar" for number in range(REQUEST_FILES))
    return [f"{place}/{name}" for name in names]


def _subjects(params: Any) -> tuple[Subject, ...]:
    """What a toy step waits for. `work`: one whose tokens pilots work on; `request`: one that stages; `pilots`: one whose
    jobs run."""
    if params.watch == "work":
        return Subject("tokens", params.id), Subject("troubled", params.id, {"lease_s": 7200.0})
    if params.watch == "request":
        at = {"site": "sara"}
        return (
            Subject("staging", params.id, {**at, "request": int(params.id)}),
            Subject("locality", params.id, {**at, "surls": surls_of(int(params.id))}),
            Subject("window", f"{params.id}/stage/1", {**at, "files": REQUEST_FILES}),
        )
    if params.watch == "pilots":
        first = int(params.id) * STEP_JOBS
        names = (str(number) for number in range(first, first + STEP_JOBS))
        return tuple(Subject("job", name, {"job": name, "site": ""}) for name in names)
    args = {"site": "sara", "request": int(params.id)} if params.watch == "staging" else {}
    return (Subject(params.watch, params.id, args),)


def pipeline_of(watch: str) -> Pipeline:
    """One toy step that waits for a subject of that kind, named by the field."""
    step = StepDef(name="wait", kind="toy", params={"watch": watch, "id": "{{ field.name }}"})
    return Pipeline(name=f"toy-{watch}", digest=f"toy-{watch}", steps={"wait": step})


class CountingStore(Store):
    """The store, telling how many decisions are durable."""

    def __init__(self, path: Path, clock: Clock) -> None:
        super().__init__(path, clock, outputs_of)
        self.finished = 0
        self._one_more = asyncio.Event()

    async def finish(self, decision: Decision) -> None:
        await super().finish(decision)
        self.count()

    def decide_at_once(self, decider: Decider) -> None:
        super().decide_at_once(Counted(decider, self))

    def count(self) -> None:
        """One more is durable."""
        self.finished += 1
        self._one_more.set()

    async def until_finished(self, count: int) -> None:
        """Return when so many decisions have been committed since the start."""
        while self.finished < count:
            self._one_more.clear()
            await self._one_more.wait()


class Counted:
    """A decider whose decisions are counted."""

    def __init__(self, decider: Decider, store: CountingStore) -> None:
        self._decider = decider
        self._store = store
        self.decide = decider.decide

    def tell(self, decision: Decision) -> None:
        """It is durable."""
        self._decider.tell(decision)
        self._store.count()


class House(Struct):
    """A store with the reactor and the engine running on it."""

    store: CountingStore
    world: SimpleNamespace

    async def begin(self, watch: str, names: Iterable[str]) -> None:
        """Start a run for each name, and return when each of its steps waits."""
        listed, pipeline = list(names), pipeline_of(watch)
        for start in range(0, len(listed), TOGETHER):
            chunk = listed[start : start + TOGETHER]
            goal = self.store.finished + len(chunk)
            runs = (
                self.store.start_run(pipeline, key=name, field=name, params={}, context={"name": name})
                for name in chunk
            )
            await asyncio.gather(*runs)
            await self.store.until_finished(goal)


@asynccontextmanager
async def house(path: Path, rate: float = 1.0) -> AsyncIterator[House]:
    """Open the store there and run the reactor and the engine on it; the log is written as in production, to nowhere.

    `rate`: world seconds in a real one.
    """
    nowhere = await asyncio.to_thread(open, os.devnull, "w", encoding="utf-8")
    log.configure("json", "info", nowhere)
    clock = Clock(rate)
    store = CountingStore(path, clock)
    world = SimpleNamespace(clock=clock, touched=asyncio.Queue())
    await store.open()
    try:
        async with asyncio.TaskGroup() as group:
            pipelines = Pipelines({f"toy-{watch}": pipeline_of(watch) for watch in TOYS})
            reactor = Reactor(
                store,
                {Toy.kind: Toy()},
                pipelines,
                clock,
                pools={},
                shown={},
                select=("SND",),
                field_pipeline="toy-toy",
                max_fields=1,
            )
            engine = Engine(store, world, {Touch.kind: Touch}, clock)  # type: ignore[arg-type] # a toy world
            tasks = [group.create_task(reactor.run()), group.create_task(engine.run())]
            yield House(store, world)
            for task in tasks:
                task.cancel()
    finally:
        await store.close()
        nowhere.close()


TOYS = ("toy", "work", "request", "pilots", "staging", "tokens", "job")
"""What there are toy pipelines for."""
WATCHED = ("staging", "tokens", "job")
"""What the many waiting steps wait for, in turn: the three things that survey fields spend their time with."""
HEARTBEAT_REAL_S = 10.0
"""The feed of the token database shows a sign of life so often, as CouchDB does for aglowd."""


class Outside:
    """Outside systems that answer at once and say the same every time, for the watchers of the idle daemon."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls = 0
        self.events = None
        self.batches = {"": self}
        self.url = "http://localhost:5984/toy"
        self.proxy = self.catalogue = self
        self.token_bases = {"": self}

    def batch(self, site: str) -> Outside:
        """There is one for all sites."""
        return self

    def token_base(self, site: str) -> Outside:
        """There is one for all sites."""
        return self

    def stager(self, site: str) -> Outside:
        """There is one for all sites."""
        return self

    async def progress(self) -> dict[int, Any]:
        self.calls += 1
        return self._requests

    def remember(self, requests: Sequence[int]) -> None:
        """The staging requests that the stager knows."""
        self._requests = {
            request: Progress(
                "in progress", file_count=244, files_done=188, percent=77.0, location="", flagged_abort=False
            )
            for request in requests
        }

    async def count_tokens(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        self.calls += 1
        return {name: {"todo": 0, "locked": 56, "done": 188, "error": 0, "other": 0} for name in types}

    async def status(self, jobs: Sequence[str]) -> dict[str, Any]:
        self.calls += 1
        return {job: JobStatus(job, "running", words="Running") for job in jobs}

    async def info(self) -> Any:
        """What the proxy and the token database say of themselves."""
        self.calls += 1
        return SimpleNamespace(seconds_left=80_000, ac_seconds_left=None, update_seq="1-x", instance_start_time="0")

    async def stamp(self) -> str:
        self.calls += 1
        return "as it was"

    async def rows(self) -> tuple[Any, ...]:
        self.calls += 1
        return ()

    async def changes(self, since: str) -> AsyncIterator[Change | Heartbeat]:
        while True:
            await asyncio.sleep(HEARTBEAT_REAL_S)
            yield Heartbeat()
