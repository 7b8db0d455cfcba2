"""The demo whose fields stand in a surveys database on a real MariaDB, calm and in a world of faults and kills."""

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


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("w")


async def test_a_field_of_the_surveys_database_is_archived(short_path: Path) -> None:
    options = msgspec.structs.replace(write_world(short_path / "in", subbands=SUBBANDS), catalogue="mysql")
    fields, report, _ = await run_to_end(Demo(options, short_path / "state"))
    ((name, state),) = states(fields).items()
    assert name.startswith(f"{FIELD}_L")
    assert state == "archived"
    assert fields[0]["catalogue_status"] == "Archived"
    assert report.is_clean, (report.duplicates, report.lost, report.violations)


async def test_a_field_of_the_surveys_database_is_archived_in_a_world_of_faults(short_path: Path) -> None:
    options = msgspec.structs.replace(write_world(short_path / "in", subbands=SUBBANDS), catalogue="mysql", seed=2)
    outcome = await asyncio.wait_for(carry_out(options, short_path / "state", lambda fields: None), LIMIT_S)
    assert outcome.is_well, outcome.to_json()
