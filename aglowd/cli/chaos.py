"""The demo in a world of faults: chance strikes every outside system, and the daemon is killed again and again.

The moments of the kills follow from the seed; what they hit does not, because the daemon's own speed is in it. Counts
of faults come from the world's ledger.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
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
LEAST_KILLS = 3
LEAST_KINDS = 10
LIMIT_REAL_S = 345.0
"""Real seconds after which the run is given up: it has six minutes."""
SETTLE = "30m"
"""Longer than a request of the simulated stager stays invisible."""
HTTP_LONGEST = "4s"
COMMAND_LONGEST = "6s"


class Chaos(Struct, frozen=True):
    """What was done to the daemon and to the world around it."""

    seed: int
    kills: int
    faults: dict[str, int]


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
    kills = 0
    fields: list[dict[str, Any]] = []
    doubtful: list[dict[str, str]] = []
    async with demo.world():
        try:
            await demo.start()
            async with asyncio.timeout(LIMIT_REAL_S):
                for _ in range(KILLS):
                    await demo.clock.sleep(moments.uniform(*KILL_WORLD_S))
                    await demo.kill()
                    kills += 1
                    await demo.start()
                fields = await demo.until_done(show)
        except TimeoutError:
            fields = await demo.fields()
        finally:
            doubtful = await demo.doubtful()
            wall_s = time.monotonic() - began
            await demo.stop()
    outcome = await conclude(demo, fields, wall_s)
    faults = await asyncio.to_thread(count_faults, demo.state / "grid" / "ledger.jsonl")
    if kills < LEAST_KILLS or len(faults) < LEAST_KINDS:
        raise AglowError(f"only {kills} kills and {len(faults)} kinds of faults: this was no storm, and shows nothing")
    told = {"chaos": msgspec.to_builtins(Chaos(options.seed, kills, faults)), "doubtful": doubtful}
    return msgspec.structs.replace(outcome, more=told)


def count_faults(ledger: Path) -> dict[str, int]:
    """How often each fault struck, by system and kind."""
    counts: Counter[str] = Counter()
    with ledger.open("rb") as file:
        for raw in file:
            line = msgspec.json.decode(raw)
            if line["system"] == "faults":
                counts[f"{line['target']}.{line['op']}"] += 1
    return dict(sorted(counts.items()))
