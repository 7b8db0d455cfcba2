"""The demo in a world of faults: chance strikes every outside system, the daemon is killed again and again, and so are pilots.

The moments of the kills follow from the seed; what they hit does not, because the daemon's own speed is in it. Counts
of faults come from the world's ledger.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.cli.demo import PIN_DAYS, Demo, Options, conclude
from aglowd.cli.outcome import Outcome
from aglowd.errors import AglowError

KILLS = 5
KILL_WORLD_S = (6 * 3600.0, 28 * 3600.0)
"""World seconds between two kills."""
PILOT_KILL_REAL_S = (0.8, 3.0)
"""Real seconds between two kills of real pilots, whose work takes as long however fast the world's time is."""
MOST_PILOT_KILLS = 20
LEAST_KILLS = 3
LEAST_KINDS = 10
LIMIT_REAL_S = 900.0
"""Real seconds after which the run is given up. It takes some four minutes on two cores; that a machine is slow is no failure."""
SETTLE = "30m"
"""Longer than a request of the simulated stager stays invisible."""
HTTP_LONGEST = "4s"
COMMAND_LONGEST = "6s"


class Chaos(Struct, frozen=True):
    """What was done to the daemon and to the world around it."""

    seed: int
    kills: int
    faults: dict[str, int]
    pilots_killed: int = 0
    given_up: bool = False
    """Whether fields were still at work when the time was over."""


def in_chaos(options: Options) -> Options:
    """The options of a world where faults cost seconds, not minutes."""
    ours: dict[str, dict[str, Any]] = {
        "daemon": {"http_longest": HTTP_LONGEST, "command_longest": COMMAND_LONGEST},
        "staging": {"settle": SETTLE, "lifetime": f"{PIN_DAYS}d"},
        "picas": {"poll": "3h"},
    }
    config = {table: {**ours.get(table, {}), **options.config.get(table, {})} for table in {**ours, **options.config}}
    return msgspec.structs.replace(options, chaos=True, config=config)


async def carry_out(options: Options, state: Path, show: Callable[[list[dict[str, Any]]], None]) -> Outcome:
    """Run every field to its end, kill the daemon on the way, and judge the world."""
    demo = Demo(in_chaos(options), state)
    moments = random.Random(f"kills of {options.seed}")
    began = time.monotonic()
    kills, given_up = 0, False
    killed: list[int] = []
    fields: list[dict[str, Any]] = []
    doubtful: list[dict[str, str]] = []
    async with demo.world():
        try:
            await demo.start()
            async with asyncio.timeout(LIMIT_REAL_S) as limit, _pilots_dying(demo, killed):
                for _ in range(KILLS):
                    await demo.clock.sleep(moments.uniform(*KILL_WORLD_S))
                    await demo.kill()
                    kills += 1
                    await demo.start()
                fields = await demo.until_done(show)
        except TimeoutError:
            if not limit.expired():
                raise
            given_up, fields = True, await demo.fields()
        finally:
            doubtful = await demo.doubtful()
            wall_s = time.monotonic() - began
            await demo.stop()
    outcome = await conclude(demo, fields, wall_s)
    faults = await asyncio.to_thread(count_faults, demo.state / "grid" / "ledger.jsonl")
    if kills < LEAST_KILLS or len(faults) < LEAST_KINDS:
        raise AglowError(f"only {kills} kills and {len(faults)} kinds of faults: this was no storm, and shows nothing")
    chaos = Chaos(options.seed, kills, faults, len(killed), given_up)
    told = {"chaos": msgspec.to_builtins(chaos), "doubtful": doubtful}
    return msgspec.structs.replace(outcome, more={**outcome.more, **told})


@asynccontextmanager
async def _pilots_dying(demo: Demo, killed: list[int]) -> AsyncIterator[None]:
    """Meanwhile real pilots are killed, one after the other; their pids are told."""

    async def kill() -> None:
        moments = random.Random(f"pilots of {demo.options.seed}")
        while len(killed) < MOST_PILOT_KILLS:
            await asyncio.sleep(moments.uniform(*PILOT_KILL_REAL_S))
            pilots = demo.jobs.list_pilots()
            # One that is alone is killed once: five waves of pilots that did nothing are rightly given up.
            if len(pilots) > 1 or (pilots and not killed):
                killed.append(moments.choice(pilots))
                with suppress(ProcessLookupError):
                    os.kill(killed[-1], signal.SIGKILL)

    if not demo.jobs.is_real:
        yield
        return
    killer = asyncio.create_task(kill(), name="chaos: pilots are killed")
    try:
        yield
    finally:
        killer.cancel()
        with suppress(asyncio.CancelledError):
            await killer


def count_faults(ledger: Path) -> dict[str, int]:
    """How often each fault struck, by system and kind."""
    counts: Counter[str] = Counter()
    with ledger.open("rb") as file:
        for raw in file:
            line = msgspec.json.decode(raw)
            if line["system"] == "faults":
                counts[f"{line['target']}.{line['op']}"] += 1
    return dict(sorted(counts.items()))
