"""A stager that loses its answer and shows the request only after the settling time: the world has two, and we say so."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from aglowd.cli.demo import Demo
from tests.world.small import FIELD, states, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]


async def test_a_request_that_shows_later_than_the_settling_time_is_found_and_aborted(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = tmp_path_factory.mktemp("w")
    script = place / "faults.json"
    late = {"system": "lta", "op": "add_getid", "fault": "late_lost", "value": 3 * 3600.0}
    script.write_text(json.dumps([late]), encoding="utf-8")
    options = msgspec.structs.replace(
        write_world(place / "in"), faults=script, config={"daemon": {"audit": "1h"}, "staging": {"settle": "10m"}}
    )
    demo = Demo(options, place / "state")
    async with demo.world():
        try:
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), 90)
            told = await demo.ask("/v1/doubt")
        finally:
            await demo.stop()
    report, _ = await demo.judge(fields)
    assert states(fields) == {FIELD: "archived"}
    (finding,) = told["findings"]
    assert (finding["kind"], finding["handled"]) == ("duplicate", "aglowd: release files")
    assert told["doubts"] == []
    ledger = [json.loads(line) for line in (demo.state / "grid" / "ledger.jsonl").read_text().splitlines()]
    asked = [line for line in ledger if (line["system"], line["op"]) == ("staging", "request_made")]
    twins = [line["result"] for line in asked if set(line["surls"]) == set(asked[0]["surls"])]
    assert len(twins) == 2, "the request was to be made twice"
    assert finding["key"] == f"staging:lta/{twins[0]}", "the first is the one that nobody follows"
    aborted = [line["request"] for line in ledger if line["op"] == "request_aborted"]
    assert twins[0] in aborted
    assert report.world.duplicates == 0, "every duplicate was reported"
    assert report.world.duplicates_reported == len(asked[0]["surls"])
    assert report.world.lost == 0
    assert {one.rule for one in report.violations} == set()
