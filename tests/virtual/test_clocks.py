"""The host's clocks go wrong: wall time jumps while monotonic time flows, the process is frozen, both in one.

Time in the database is world time; between two lives of the daemon nothing but the wall clock tells how much of it passed.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from aglowd.sim.faults import Script as FaultScript
from tests.virtual.day import judge_world
from tests.virtual.oracle import Oracle
from tests.virtual.run import new_directory, run_script
from tests.virtual.script import DAY_S, HOUR_S, Happening, fair_script
from tests.virtual.world import Simulation

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

JUMPS = (HOUR_S, -HOUR_S, DAY_S, -DAY_S)


def test_a_jump_of_the_wall_clock_changes_nothing_while_the_daemon_lives() -> None:
    """Not one request more or less, nor at another time."""
    script = fair_script(seed=1)
    calm = run_script(script)
    jumps = tuple(Happening((6 + 9 * number) * HOUR_S, "jump", by_s=by_s) for number, by_s in enumerate(JUMPS))
    jumpy = run_script(msgspec.structs.replace(script, happenings=jumps))
    assert calm.wrong == jumpy.wrong == ()
    assert len(calm.ops) > 200
    assert jumpy.ops[: len(calm.ops)] == calm.ops


@pytest.mark.parametrize("by_s", JUMPS)
def test_after_a_jump_and_a_restart_the_field_is_archived_all_the_same(by_s: float) -> None:
    """A day forward, and timers fire once and too early; a day back, and they fire a day late: neither does harm."""
    happenings = []
    for hour in (4.0, 14.0, 30.0):
        happenings += [
            Happening(hour * HOUR_S, "jump", by_s=by_s),
            Happening(hour * HOUR_S + 60.0, "crash", steps=3),
        ]
    verdict = run_script(msgspec.structs.replace(fair_script(seed=2), happenings=tuple(happenings)))
    assert verdict.wrong == ()
    assert verdict.crashes == 3


async def test_timers_that_were_due_while_the_process_was_frozen_fire_once() -> None:
    script = fair_script(seed=3)
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid():
            await simulation.start()
            await simulation.sleep(5 * HOUR_S)
            oracle = Oracle(simulation.database, simulation.ledger)
            simulation.flush()
            oracle.read()
            before = len(oracle.lines)
            simulation.freeze(DAY_S)
            thawed = simulation.now()
            await simulation.sleep(HOUR_S)
            simulation.flush()
            oracle.read()
            asked: dict[str, int] = {}
            for line in oracle.lines[before:]:
                if line["by"] == "client" and line["system"] != "tools":
                    asked[f"{line['system']}.{line['op']}"] = asked.get(f"{line['system']}.{line['op']}", 0) + 1
            wrong = oracle.check()
            oracle.close()
            assert simulation.now() == pytest.approx(thawed + HOUR_S)
            await simulation.stop()
    assert wrong == []
    assert asked, "it goes on"
    # The LTA is asked six times in an hour; what a day of missed rounds would cost is a hundred and forty-four.
    assert asked["lta.getprogress"] <= 9
    assert max(asked.values()) <= 20, asked


async def test_a_proxy_verdict_comes_from_what_is_left_and_not_from_the_wall_clock() -> None:
    script = fair_script(seed=4)
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid():
            await simulation.start()
            await simulation.sleep(HOUR_S)
            simulation.jump(400 * DAY_S)
            await simulation.crash()
            await simulation.start()
            lines: list[str] = []
            while not any("job_started" in line for line in lines):
                await simulation.sleep(HOUR_S)
                assert simulation.now() < 10 * DAY_S, await simulation.daemon._store.status()
                simulation.flush()
                lines = simulation.ledger.read_text().splitlines()
            waits = [event for event in await simulation.daemon._store.events(most=10_000) if "proxy" in str(event)]
            await simulation.stop()
    assert not [event for event in waits if "is valid" in str(event) or "expire" in str(event)]


async def test_the_settling_time_is_not_shortened_by_a_jump_between_two_lives() -> None:
    """A staging request whose answer was lost shows late; looked for, not there; then the clock leaps and aglowd restarts."""
    late = FaultScript(system="lta", op="add_getid", fault="late_lost", value=25 * 60.0)
    script = msgspec.structs.replace(fair_script(seed=5), faults=(late,))
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid():
            await simulation.start()
            await simulation.crash(after="add_getid", steps=200)
            await simulation.start()
            await simulation.sleep(300.0)
            simulation.jump(DAY_S)
            await simulation.crash()
            await simulation.start()
            await simulation.sleep(2 * HOUR_S)
            oracle = Oracle(simulation.database, simulation.ledger)
            simulation.flush()
            oracle.read()
            await simulation.stop()
            oracle.close()
        report = judge_world(script, Path(name), oracle.lines, {})
    assert [one.what for one in report.duplicates] == []
    asked = [frozenset(line["surls"]) for line in oracle.lines if line["op"] == "request_made"]
    assert asked
    assert len(asked) == len(set(asked)), "each set of files is asked for once"
    assert simulation.crashes == 2
