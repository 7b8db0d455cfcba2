"""The demo's pilots as jobs of a real Slurm: our own launcher on real files, calm and in a world of faults."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from aglowd.cli.chaos import carry_out
from aglowd.cli.demo import Demo
from tests.world.small import FIELD, LIMIT_S, run_to_end, states, write_world

pytestmark = pytest.mark.timeout(240)

SUBBANDS = 6
SPEED = 10_000.0
"""Slurm's own programs take a tenth of a second each."""


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("w")


async def test_a_field_is_archived_by_pilots_of_a_real_slurm(short_path: Path) -> None:
    options = msgspec.structs.replace(write_world(short_path / "in", subbands=SUBBANDS), jobs="slurm", speed=SPEED)
    demo = Demo(options, short_path / "state")
    fields, report, _ = await run_to_end(demo)
    assert states(fields) == {FIELD: "archived"}
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    assert report.world.tokens_created == 1 + SUBBANDS + 1
    assert report.world.pilots_submitted >= report.world.jobs_submitted >= 3
    assert demo.jobs.list_pilots() == []


async def test_a_field_is_archived_by_a_real_slurm_in_a_world_of_faults(short_path: Path) -> None:
    impatient = {"daemon": {"http_longest": "1s", "command_longest": "3s"}}
    options = write_world(short_path / "in", subbands=SUBBANDS)
    options = msgspec.structs.replace(options, jobs="slurm", speed=SPEED, seed=3, config=impatient)
    outcome = await asyncio.wait_for(carry_out(options, short_path / "state", lambda fields: None), LIMIT_S)
    assert outcome.is_well, outcome.to_json()
