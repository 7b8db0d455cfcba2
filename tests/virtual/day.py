"""The whole life of one world: what its script lets happen, the oracle after every step, and the verdict at the end."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from aglowd.cli.demo import ARCHIVE
from aglowd.sim.checker import Report, judge
from aglowd.sim.history import History
from aglowd.sim.rules import Expectation, FieldExpectation
from aglowd.sim.storage import Storage
from tests.virtual.oracle import Line, Oracle
from tests.virtual.script import DAY_S, HOUR_S, Happening, Script
from tests.virtual.setup import obsids
from tests.virtual.world import Simulation
from tests.world.small import srm_lines

LIMIT_S = 40 * DAY_S
"""World seconds after which a field that has not ended never will."""
CHECK_S = 60.0
"""World seconds between two looks of the oracle; it looks after every crash, too."""
AFTER_S = 3 * HOUR_S
"""World seconds that the daemon goes on after the last field: an audit belongs to it."""
ENDED = ("archived", "failed", "cancelled")

Fields = dict[str, tuple[str, str]]


class Verdict(Struct, frozen=True):
    """What came of one world; `ops` is what was done to it and by it, in order and with world times."""

    seed: int
    wrong: tuple[str, ...]
    fields: Fields
    ops: tuple[str, ...]
    world_days: float
    crashes: int
    checks: int
    steps: int
    faults: dict[str, int]


async def live(script: Script, directory: Path) -> Verdict:
    """That world from its beginning to its end, and all that is to be said against the daemon."""
    simulation = Simulation(script, directory)
    async with simulation.grid():
        await simulation.start()
        oracle = Oracle(simulation.database, simulation.ledger)
        try:
            fields, wrong = await _pass_days(simulation, oracle)
            if not wrong:
                await simulation.stop()
            simulation.flush()
            oracle.read()
            wrong += oracle.at_the_end() if not wrong else []
        finally:
            oracle.close()
        world_days = simulation.now() / DAY_S
    report = judge_world(script, directory, oracle.lines, fields)
    wrong += [f"{one.rule}: {one.what}" for one in (*report.duplicates, *report.lost, *report.violations)]
    wrong += [f"{name} is {state}: {reason}" for name, (state, reason) in fields.items() if state != "archived"]
    strikes = Counter(f"{line['target']}.{line['op']}" for line in oracle.lines if line["system"] == "faults")
    return Verdict(
        seed=script.seed,
        wrong=tuple(wrong),
        fields=fields,
        ops=ops_of(oracle.lines, directory),
        world_days=world_days,
        crashes=simulation.crashes,
        checks=oracle.checks,
        steps=simulation.loop.steps,
        faults=dict(strikes),
    )


async def _pass_days(simulation: Simulation, oracle: Oracle) -> tuple[Fields, list[str]]:
    """Let it live until every field has ended and nothing more is to happen, or until something is wrong."""
    happenings = list(simulation.script.happenings)
    ended_at: float | None = None
    struck: asyncio.Event | None = None
    while True:
        if struck is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S / simulation.script.rate):
                    await struck.wait()
        elif happenings and happenings[0].at_s <= simulation.now() + CHECK_S:
            struck = await _happen(simulation, happenings.pop(0))
        else:
            await simulation.sleep(CHECK_S)
        if struck is not None and struck.is_set():
            struck = None
            await simulation.bury()
            await simulation.start()
        simulation.check_alive()
        simulation.flush()
        oracle.read()
        fields, wrong = oracle.fields(), oracle.check()
        ended = len(fields) == len(simulation.script.fields) and all(state in ENDED for state, _ in fields.values())
        ended_at = (ended_at or simulation.now()) if ended else None
        if simulation.now() > LIMIT_S:
            wrong.append(f"no progress after {LIMIT_S / DAY_S:g} days: {'; '.join(oracle.what_moves())}")
        is_over = ended_at is not None and struck is None and not happenings and simulation.now() > ended_at + AFTER_S
        if wrong or is_over:
            return fields, wrong


async def _happen(simulation: Simulation, happening: Happening) -> asyncio.Event | None:
    """Let it happen; a crash comes in its own time, which the event tells."""
    await simulation.sleep(happening.at_s - simulation.now())
    if happening.what == "crash":
        return simulation.arm(happening.steps, happening.after)
    if happening.what == "jump":
        simulation.jump(happening.by_s)
    else:
        simulation.freeze(happening.by_s)
    return None


def judge_world(script: Script, directory: Path, lines: Sequence[Line], fields: Fields) -> Report:
    """The simulated grid's own judge, on the ledger and the bytes."""
    expected = {
        name: FieldExpectation(tuple(line.split()[0] for line in srm_lines(obsids(name)[0], script.subbands)))
        for name, (state, _) in fields.items()
        if state == "archived"
    }
    expect = Expectation(archive_roots=(ARCHIVE,), archived_step="targ2", fields=expected)
    return judge(History(lines), Storage(directory / "grid" / "storage"), expect)


def ops_of(lines: Sequence[Line], directory: Path) -> tuple[str, ...]:
    """The ledger without real times, ports and names of temporary files, which differ from run to run."""
    result = []
    for line in lines:
        text = json.dumps({key: value for key, value in line.items() if key != "real"}, sort_keys=True)
        text = re.sub(r"127\.0\.0\.1:\d+", "HOST", text.replace(str(directory), "WORLD"))
        result.append(re.sub(r"aglowd-[a-z0-9_.-]+|tmp[a-z0-9_]{8}", "TMP", text))
    return tuple(result)
