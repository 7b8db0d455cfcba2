"""A small world in which everything fails now and then: every field is archived all the same, and nothing twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.cli.chaos import KILLS, carry_out, count_faults
from aglowd.cli.demo import Demo, Options
from tests.world.small import FIELD, LIMIT_S, run_to_end, states, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

IMPATIENT = {"daemon": {"http_longest": "1s", "command_longest": "3s"}}
"""Real time is dear here: a field's whole way takes ten seconds of it."""


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("w")


async def test_a_field_is_archived_in_a_world_of_faults(short_path: Path) -> None:
    seed = 1
    options = msgspec.structs.replace(write_world(short_path / "in"), seed=seed, config=IMPATIENT)
    outcome = await asyncio.wait_for(carry_out(options, short_path / "state", lambda fields: None), LIMIT_S)
    told = outcome.to_json()
    assert outcome.is_well, (seed, told)
    assert told["findings"] == [], seed
    assert told["doubtful"] == [], seed
    assert told["chaos"]["seed"] == seed
    assert told["chaos"]["kills"] == KILLS
    assert len(told["chaos"]["faults"]) >= 5, told["chaos"]
    assert told["chaos"]["faults"] == count_faults(short_path / "state" / "grid" / "ledger.jsonl")


def struck(directory: Path, *scripts: dict[str, Any]) -> Options:
    """A small world with scripts of faults."""
    options = write_world(directory)
    path = directory / "faults.json"
    path.write_text(json.dumps(scripts))
    config = {**IMPATIENT, "staging": {"settle": "2h"}}
    return msgspec.structs.replace(options, faults=path, failure_rate=0.0, config=config)


@pytest.mark.parametrize(
    ("faults", "requests"),
    [
        ({"lost_reply": None, "late": 2400}, 2),
        pytest.param({"vanish": 3600, "false_success": 3600}, 4, marks=pytest.mark.long),
    ],
)
async def test_no_request_is_made_twice_whatever_becomes_of_the_first(
    short_path: Path, faults: dict[str, float | None], requests: int
) -> None:
    """The first two requests, of the target and of the calibrator, are struck by one fault each."""
    scripts = [
        {"system": "lta", "op": "add_getid", "fault": fault, "value": value, "nth": number}
        for number, (fault, value) in enumerate(faults.items(), 1)
    ]
    demo = Demo(struck(short_path / "in", *scripts), short_path / "state")
    fields, report, _ = await run_to_end(demo)
    assert states(fields) == {FIELD: "archived"}
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    assert report.world.staging_requests == requests
    assert count_faults(demo.state / "grid" / "ledger.jsonl") == {f"lta.{fault}": 1 for fault in sorted(faults)}


async def test_what_a_tool_did_before_it_failed_is_not_done_again(short_path: Path) -> None:
    scripts = [
        {"system": "glite", "op": "start", "fault": "half_line", "count": 2},
        {"system": "glite", "op": "register", "fault": "fail_after", "count": 3},
        {"system": "storage", "op": "rename", "fault": "fail_after", "count": 2},
        {"system": "storage", "op": "copy", "fault": "half_file", "count": 2},
        {"system": "couchdb", "op": "bulk_docs", "fault": "partial_bulk", "value": 1, "count": 2},
        {"system": "couchdb", "op": "bulk_docs", "fault": "conflict", "value": 0.5, "nth": 5, "count": 3},
    ]
    demo = Demo(struck(short_path / "in", *scripts), short_path / "state")
    fields, report, _ = await run_to_end(demo)
    assert states(fields) == {FIELD: "archived"}
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    counted = count_faults(demo.state / "grid" / "ledger.jsonl")
    assert set(counted) == {f"{script['system']}.{script['fault']}" for script in scripts}, counted
