"""The workload that is counted in instructions of the processor, without any meter: observations, and whole runs.

`python -m bench.plain SIZE`; 0 only prepares, so that the difference is what the work takes. It loads little, because under
valgrind every import costs a second.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aglowd import log
from aglowd.clock import Clock
from aglowd.effects.engine import Engine
from aglowd.model import Subject
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.store.store import Store
from bench.toy import Touch, Toy, pipeline_of

PIPELINE = pipeline_of("toy")


async def ingest(store: Store, size: int) -> None:
    """Observations, one by one, each durable before the next. Somebody waits for them."""
    for number in range(size):
        await store.ingest("bench", None, [(Subject("toy", "watched"), {"done": number + 1})])


async def decide(store: Store, reactor: Reactor, engine: Engine, size: int) -> None:
    """Whole runs: begun, waiting, woken, a deed, the end; by hand, so that nothing runs side by side by chance."""
    for number in range(size):
        await begin(store, reactor, name := f"field {number}")
        await store.ingest("bench", None, [(Subject("toy", name), {"go": True})])
        await reactor.decide_once()
        for live in await store.next_effects((), 10):
            await engine.perform(live)
        await reactor.decide_once()


async def begin(store: Store, reactor: Reactor, name: str) -> None:
    """A run whose step waits."""
    await store.start_run(PIPELINE, key=name, field=name, params={}, context={"name": name})
    await reactor.decide_once()


def parts_of(store: Store) -> tuple[Reactor, Engine]:
    """Who decides and who acts."""
    world: Any = SimpleNamespace(clock=store.clock, touched=asyncio.Queue())
    pipelines = Pipelines({PIPELINE.name: PIPELINE})
    reactor = Reactor(
        store, {Toy.kind: Toy()}, pipelines, store.clock,
        pools={}, shown={}, select=("SND",), field_pipeline=PIPELINE.name, max_fields=1,
    )  # fmt: skip
    return reactor, Engine(store, world, {Touch.kind: Touch}, store.clock)


async def run(path: Path, size: int) -> None:
    """Both, in one store."""
    store = Store(path, Clock(), outputs_of)
    await store.open()
    reactor, engine = parts_of(store)
    await begin(store, reactor, "watched")
    await ingest(store, 4 * size)
    await decide(store, reactor, engine, size)
    await store.close()


if __name__ == "__main__":
    log.configure("json", "info", io.StringIO())
    with tempfile.TemporaryDirectory(prefix="aglowd-plain-") as directory:
        asyncio.run(run(Path(directory) / "plain.db", int(sys.argv[1])))
