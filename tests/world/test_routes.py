"""Fields of two sites in one world: those at SARA by our own pilots, those at Jülich in a database of their own, whose pilots
others start. And a field that is run again leaves its first archive as it was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from aglowd.cli.demo import DATA, LOOK_REAL_S, Demo, Options
from tests.world.small import FIELD, LIMIT_S, SPEED, csv_row, run_to_end, srm_lines, states, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(300)]

SUBBANDS = 3
AT_JUELICH = "P15Hetdex13"


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("w")


def short_lists(directory: Path) -> Path:
    """Every list of the real survey, with its first files only."""
    directory.mkdir()
    for path in sorted((DATA / "srm").glob("srm*.txt")):
        lines = srm_lines(path.stem.removeprefix("srm"), SUBBANDS)
        (directory / path.name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def ledger_of(demo: Demo) -> list[dict[str, Any]]:
    text = (demo.state / "grid" / "ledger.jsonl").read_text(encoding="utf-8")
    return list(map(json.loads, text.splitlines()))


async def test_tokens_at_a_site_of_its_own_database_are_worked_on_by_others(short_path: Path) -> None:
    lists = {obsid: srm_lines(obsid, SUBBANDS) for obsid in ("231631", "231629")}
    demo = Demo(write_world(short_path / "in", [csv_row(AT_JUELICH)], lists, SUBBANDS), short_path / "state")
    fields, report, calibrators = await run_to_end(demo)
    assert states(fields) == {FIELD: "archived", AT_JUELICH: "archived"}
    assert calibrators == 2
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    tokens = SUBBANDS + 1 + 1  # One a subband, one for the second pass, and the calibrator's.
    assert demo.count_routes(fields) == {
        "juelich": {"fields": 1, "archived": 1, "database": "sksp2juelich", "tokens": tokens},
        "sara": {"fields": 1, "archived": 1, "database": "sksp", "tokens": tokens},
    }
    lines = ledger_of(demo)
    started = [line["tags"]["aglowd_key"] for line in lines if line["op"] == "job_started"]
    assert {key.partition("-1/")[0] for key in started if not key.startswith("cal-")} == {FIELD}
    assert not [key for key in started if key.startswith("cal-L231629")], "aglowd starts no pilot there"
    assert {line["type"].partition("-")[0] for line in lines if line["op"] == "pilot_started"} == {AT_JUELICH, "cal"}
    archives = (demo.state / "grid" / "storage").rglob("archive/*")
    assert sorted(path.name for path in archives) == ["juelich", "sara"]


@pytest.mark.long
async def test_all_fields_go_their_routes_and_eight_calibrators_serve_them(short_path: Path) -> None:
    options = Options(srm_dir=short_lists(short_path / "srm"), speed=SPEED / 2, is_whole=True)
    demo = Demo(options, short_path / "state")
    async with demo.world():
        try:
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), LIMIT_S * 2)
        finally:
            await demo.stop()
    report, calibrators = await demo.judge(fields)
    assert len(fields) == 15
    assert set(states(fields).values()) == {"archived"}
    assert calibrators == 8
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    assert demo.count_routes(fields) == {
        "juelich": {"fields": 11, "archived": 11, "database": "sksp2juelich", "tokens": 11 * (SUBBANDS + 1) + 6},
        "sara": {"fields": 4, "archived": 4, "database": "sksp", "tokens": 4 * (SUBBANDS + 1) + 2},
    }


async def test_a_field_that_is_run_again_does_not_overwrite_its_archive(short_path: Path) -> None:
    demo = Demo(write_world(short_path / "in", subbands=3), short_path / "state")

    def archived() -> dict[str, bytes]:
        root = demo.state / "grid" / "storage"
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("archive/**/*") if path.is_file()}

    async def is_over(run: str) -> bool:
        (field,) = await demo.fields()
        return bool(field["run"] == run and field["state"] != "running")

    async with demo.world():
        try:
            await demo.start()
            await asyncio.wait_for(demo.until_done(), LIMIT_S)
            first = archived()
            text = demo.fields_file.read_text(encoding="utf-8")
            assert text.startswith("ZZZ,")
            demo.fields_file.write_text(text.replace("ZZZ,", "SND,", 1), encoding="utf-8")
            async with asyncio.timeout(LIMIT_S):
                while not await is_over(f"{FIELD}-2"):  # noqa: ASYNC110 - the daemon is another process: it can only be asked
                    await asyncio.sleep(LOOK_REAL_S)
            fields = await demo.fields()
        finally:
            await demo.stop()
    assert states(fields) == {FIELD: "archived"}
    second = archived()
    assert {name: second[name] for name in first} == first, "what was archived first is there as it was"
    new = {name for name in second if name not in first}
    assert new
    assert all(f"/{FIELD}-2/" in name for name in new)
    assert {name.replace(f"{FIELD}-2", f"{FIELD}-1") for name in new} <= set(first)
