"""Stagers that say "success" while a tenth of the files are on tape: no job ever starts on a file that is not online.

Where each file was when a job began to read is known to the simulated grid alone, and stands in its ledger.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from aglowd.sim.faults import Script as FaultScript
from aglowd.sim.history import History
from aglowd.sim.rules import inputs_not_there
from tests.virtual.day import live
from tests.virtual.run import new_directory
from tests.virtual.script import HOUR_S, fair_script

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

LIE_S = 27 * HOUR_S
"""World seconds after which a request says that it was successful: a tenth of its files need longer than that."""
SUBBANDS = 20
VERBS = {"legacy": ("lta", "add_getid"), "stageit": ("stageit", "stage"), "dcache": ("dcache", "stage")}


@pytest.mark.parametrize("way", VERBS)
async def test_no_job_starts_on_a_file_that_is_not_online(way: str) -> None:
    system, op = VERBS[way]
    lies = FaultScript(system=system, op=op, fault="false_success", value=LIE_S, count=100)
    script = msgspec.structs.replace(
        fair_script(seed=3),
        subbands=SUBBANDS,
        faults=(lies,),
        config={f"sites.{site}": {"staging": way} for site in ("sara", "juelich")},
    )
    with TemporaryDirectory(dir=new_directory()) as name:
        verdict = await live(script, Path(name))
        history = History.read(Path(name) / "grid" / "ledger.jsonl")
    lies_told = [line for line in history.of("staging", "request_planned") if line["failed"]]
    on_tape = [len(line["failed"]) / (len(line["failed"]) + len(line["online"])) for line in lies_told]
    assert [share for share in on_tape if 0.05 < share < 0.2], "requests lie of a tenth of their files"
    assert list(inputs_not_there(history)) == []
    read = {surl for line in history.of("pilot", "result_written") for surl in line["surls"]}
    assert len(read) >= 0.95 * 2 * SUBBANDS, "jobs ran, also on what was asked for again"
    assert {state for state, _ in verdict.fields.values()} == {"archived"}
