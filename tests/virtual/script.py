"""From a seed to everything that happens in one simulated world: what is asked of it, what fails, what people do."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.sim.faults import Script as FaultScript

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
FIELDS = ("P22Hetdex04", "P14Hetdex04", "P24Hetdex20")
"""Of the bundled catalogue; the first two have one calibrator, the third another."""
REAL_EVERY = 20
"""One seed of so many runs real processes."""
DEEDS = ("add_getid", "bulk_docs", "submit", "start", "copy", "rename", "abort", "status", "archiveinfo")
"""What the daemon asks for; a crash is most instructive just after it."""
TROUBLE_DAYS = 6.0
"""World days in which crashes and jumps happen; a field takes three when all is well."""


class Happening(Struct, frozen=True):
    """Something at a world time after the beginning: a jump of the wall clock, a freeze, or a crash.

    A crash comes `steps` busy rounds of the loop later, counted from the next `after`, as the ledger names operations.
    """

    at_s: float
    what: str
    steps: int = 0
    after: str = ""
    by_s: float = 0.0


class Script(Struct, frozen=True):
    """One world. `rate` world seconds pass in one of the loop's, which are the real seconds of the transports."""

    seed: int
    rate: float
    fields: tuple[str, ...]
    subbands: int
    failure_rate: float
    slots: int
    polls: dict[str, str]
    chaos: bool
    chaos_days: float
    happenings: tuple[Happening, ...]
    faults: tuple[FaultScript, ...] = ()
    real: bool = False
    """Whether executables are processes and the database has its threads, at some 20 ms and 0.2 ms a piece."""
    config: Mapping[str, Mapping[str, Any]] = {}
    """Table → key → value: what the daemon's configuration has beside, or instead of, that of every world."""


def write_script(seed: int) -> Script:
    """The world of that seed."""
    random = Random(seed)
    happenings = [
        Happening(random.uniform(0.0, TROUBLE_DAYS) * DAY_S, "crash", steps=random.randrange(400))
        for _ in range(random.randrange(5))
    ]
    for deed in random.sample(DEEDS, random.randrange(5)):
        # Files are asked for as soon as a field begins; everything else has its time later.
        at_s = 0.0 if deed == "add_getid" else random.uniform(0.0, TROUBLE_DAYS / 2) * DAY_S
        happenings.append(Happening(at_s, "crash", steps=random.randrange(random.choice((5, 30))), after=deed))
    happenings += [
        Happening(
            random.uniform(0.0, TROUBLE_DAYS) * DAY_S, "jump", by_s=random.choice((-DAY_S, -HOUR_S, HOUR_S, DAY_S))
        )
        for _ in range(random.randrange(4))
    ]
    happenings += [
        Happening(random.uniform(0.0, TROUBLE_DAYS) * DAY_S, "freeze", by_s=random.choice((600.0, HOUR_S, 8 * HOUR_S)))
        for _ in range(random.choice((0, 0, 0, 1)))
    ]
    polls = {
        "staging": random.choice(("5m", "10m", "30m")),
        "dcache": random.choice(("10m", "30m")),
        "gather": random.choice(("1m", "5m")),
        "jobs": random.choice(("10m", "20m")),
        "storage": random.choice(("10m", "20m")),
        "catalogue": random.choice(("30m", "2h")),
    }
    script = Script(
        seed=seed,
        rate=random.choice((30.0, 60.0, 120.0)),
        fields=FIELDS[: random.choice((1, 1, 1, 2, 2, 3))],
        subbands=random.randrange(4, 13),
        failure_rate=random.choice((0.0, 1.0, 1.0, 3.0)),
        slots=random.choice((3, 20, 2000)),
        polls=polls,
        chaos=random.random() < 0.8,
        chaos_days=random.uniform(1.0, 4.0),
        happenings=tuple(sorted(happenings, key=lambda one: one.at_s)),
    )
    return real_script(script, random) if seed % REAL_EVERY == REAL_EVERY - 1 else script


def real_script(script: Script, random: Random) -> Script:
    """The same with real processes and threads: smaller, and nothing hangs, because that would take real time."""
    faults = tuple(
        FaultScript(system=random.choice(("glite", "storage")), fault=fault, nth=random.randrange(1, 20))
        for fault in ("warn", "fail_after", "half_line", "kill_before", "keep_pipe", "flood")
    )
    return msgspec.structs.replace(
        script, real=True, rate=120.0, fields=FIELDS[:1], subbands=4, chaos=False, faults=faults
    )


def fair_script(seed: int) -> Script:
    """A small world in which nothing fails and nothing happens; a test adds what it is about."""
    return Script(
        seed=seed,
        rate=60.0,
        fields=FIELDS[:1],
        subbands=6,
        failure_rate=0.0,
        slots=2000,
        polls={"staging": "10m", "dcache": "10m", "gather": "5m", "jobs": "20m", "storage": "10m", "catalogue": "2h"},
        chaos=False,
        chaos_days=0.0,
        happenings=(),
    )
