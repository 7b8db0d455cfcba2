"""Three daemons over one catalogue, one token database and one grid; one of them dies, and another goes on with its fields."""

from __future__ import annotations

import asyncio
import csv
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec import structs

from aglowd.cli.demo import Demo, Options
from tests.world.small import CALIBRATOR, FIELD, TARGET, csv_row, srm_lines, until, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(400)]

TAGS = ("a", "b", "c")
FIELDS = 6


async def order(daemon: Demo, what: str, **body: Any) -> dict[str, Any]:
    """The daemon's answer to an order, as aglowctl gives it."""
    connector = aiohttp.UnixConnector(str(daemon.socket))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"http://aglowd/v1/{what}", json=body) as reply,
    ):
        answer: dict[str, Any] = await reply.json()
        assert reply.status == 200, answer
        return answer


def settle(world: Demo, tag: str) -> Demo:
    """A daemon of its own in that world: state, socket, tag, and where its results lie."""
    daemon = Demo(structs.replace(world.options, catalogue="csv"), world.state / tag)
    daemon.state.mkdir()
    text = (world.state / "aglowd.toml").read_text(encoding="utf-8")
    ours = {
        f'state_dir = "{world.state}"': f'state_dir = "{daemon.state}"\ntag = "{tag}"',
        f'socket = "{world.socket}"': f'socket = "{daemon.socket}"',
        "/results/": f"/results/{tag}/",
    }
    for old, new in ours.items():
        assert old in text
        text = text.replace(old, new)
    (daemon.state / "aglowd.toml").write_text(text, encoding="utf-8")
    return daemon


def write_fields(place: Path) -> Options:
    """A catalogue of fields each of which has a calibrator of its own: one that two daemons use is run by both."""
    rows, lists = [], {}
    for number in range(FIELDS):
        target, calibrator = f"9{number}0001", f"9{number}0002"
        row = csv_row(FIELD).replace(FIELD, f"P{number}Hetdex99")
        rows.append(row.replace(TARGET, target).replace(CALIBRATOR, calibrator))
        lists[target] = [line.replace(TARGET, target) for line in srm_lines(TARGET, 4)]
        lists[calibrator] = [line.replace(CALIBRATOR, calibrator) for line in srm_lines(CALIBRATOR, 4)]
    options = write_world(place, rows, lists, subbands=4)
    # Who has two fields leaves the others to the others.
    return structs.replace(options, config={"catalogue": {"max_fields": 2}})


def claims_of(daemon: Demo) -> list[str]:
    """The fields that the daemon, which has stopped, has claimed; one that died may not have heard of it."""
    with closing(sqlite3.connect(daemon.state / "aglowd.db")) as db:
        found = db.execute(
            "SELECT r.field FROM effects AS e JOIN runs AS r ON r.id = e.run WHERE e.step = 'claim' AND e.state IN ('done', 'open')"
        )
        return [field for (field,) in found]


def marks(world: Demo) -> dict[str, dict[str, Any]]:
    """Field → who wrote its status last, by which key, as it stands beside the catalogue."""
    path = Path(f"{world.fields_file}.aglowd.json")
    return dict(msgspec.json.decode(path.read_bytes())) if path.exists() else {}


async def test_no_field_is_claimed_twice_and_those_of_a_dead_daemon_are_taken_over(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = tmp_path_factory.mktemp("w")
    world = Demo(write_fields(place / "in"), place / "s")
    names = {FIELD, *(f"P{number}Hetdex99" for number in range(FIELDS))}
    async with world.world():
        daemons = [settle(world, tag) for tag in TAGS]
        dead, heir, other = daemons

        async def claimed() -> list[str]:
            """The two fields of the one that will die, once it has them."""
            found = [name for name, mark in marks(world).items() if mark["key"].startswith(f"{name}-{TAGS[0]}1/")]
            return found if len(found) == 2 else []

        async def archived(wanted: set[str]) -> bool:
            """Whether the catalogue says so of all of these, and the heir has nothing left to do."""
            with world.fields_file.open(encoding="utf-8") as rows:
                if not wanted <= {row[11] for row in csv.reader(rows) if row and row[0] == "ZZZ"}:
                    return False
            return all(field["state"] != "running" for field in await heir.fields())

        try:
            await asyncio.gather(*(daemon.start() for daemon in daemons))
            left = await until(claimed)
            await dead.kill()
            (name,) = {marks(world)[field]["daemon"] for field in left}
            await until(lambda: archived(names - {*left}))
            answer = await order(heir, "adopt", targets=left, of=name, reason="its host burned down")
            assert sorted(one["field"] for one in answer["fields"]) == sorted(left)
            await until(lambda: archived(names))
            fields = {daemon: await daemon.fields() for daemon in (heir, other)}
            doubts = [await daemon.ask("/v1/doubt") for daemon in (heir, other)]
        finally:
            await asyncio.gather(*(daemon.stop() for daemon in daemons))
    claims = Counter(field for daemon in daemons for field in claims_of(daemon))
    assert claims == dict.fromkeys(names, 1) | dict.fromkeys(left, 2), "those that were taken over have two"
    told = [await world.told_by(daemon.state / "aglowd.db", fields[daemon]) for daemon in (heir, other)]
    assert {field for one in told for field in one.fields} == names
    report = await world.judge_by(told)
    assert (report.duplicates, report.lost, [doubt["findings"] for doubt in doubts]) == ((), (), [[], []])
    # To what the dead one had asked for nobody reacts while it is dead, and that is all.
    assert {one.rule for one in report.violations} <= {"dropped wake-up"}
    assert len(report.violations) <= 2 * len(left)
