"""A field from the catalogue to the archive, and what must be true of the world afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.cli.demo import ARCHIVE, Demo, Options
from aglowd.clock import Clock
from aglowd.store.store import Store
from aglowd.watchers.base import PACE_FAST, PACE_SLOW
from tests.world.small import FIELD, csv_row, run_to_end, srm_lines, states, write_world

SUBBANDS = 12

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("w")


def effects_of(ledger: Path) -> Counter[str]:
    """What the client did to the world: order, times and the ids that the world hands out aside."""
    seen: Counter[str] = Counter()
    for line in map(json.loads, ledger.read_text(encoding="utf-8").splitlines()):
        if line.get("by") != "client":
            continue
        op = f"{line['system']}.{line['op']}"
        if op == "staging.request_made":
            seen[f"{op} {sorted(line['surls'])}"] += 1
        elif op == "couchdb.bulk_docs":
            for doc in line["docs"]:
                seen[f"{op} {doc['id']} {bool(doc.get('deleted'))}"] += 1
        elif op == "glite.start":
            seen[op] = 1  # How often depends on when it is seen that pilots have ended and tokens are free.
        elif op in ("storage.copy", "storage.rename", "storage.mkdir"):
            seen[f"{op} {[_public(url) for url in line['urls']]}"] += 1
    return seen


def _public(url: str) -> str:
    """Local names of the daemon's work directory are its own business."""
    return url if url.startswith("gsiftp://") else "local"


async def test_a_field_is_archived_by_the_command_as_by_the_demo_and_the_world_agrees(short_path: Path) -> None:
    """The same seed gives the same effects, which are what they should be; a list with fewer subbands goes on and says
    which are missing; the command prints one JSON object, and its exit code tells."""
    options = write_world(short_path / "in", subbands=SUBBANDS)
    demo = Demo(options, short_path / "s1")
    fields, report, calibrators = await run_to_end(demo)
    assert states(fields) == {FIELD: "archived"}
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    assert calibrators == 1
    assert report.world.tokens_created == 1 + SUBBANDS + 2
    # The second pass's results, the tokens of three types, and the record.
    assert report.world.files_archived == 2 + 3 + 1
    assert report.world.surls_requested >= 2 * SUBBANDS
    catalogue = demo.fields_file.read_text(encoding="utf-8")
    assert catalogue.startswith("ZZZ,")
    assert catalogue.split(",", 1)[1].strip() == csv_row(FIELD).split(",", 1)[1].strip()
    archived = [path for path in (demo.state / "grid" / "storage").rglob("archive/sara/**/*") if path.is_file()]
    assert {path.suffix for path in archived} == {".tar", ".gz", ".json"}
    await _tells_what_is_missing(demo)

    state = short_path / "s2"
    answer = await _command(options, state)
    assert answer["schema"] == 1
    assert answer["fields"] == {FIELD: {"state": "archived", "reason": ""}}
    assert answer["world"]["duplicates"] == answer["world"]["lost"] == 0
    assert set(answer["requests"]) >= {"lta", "couchdb", "glite", "storage"}
    assert answer["shared"] == {"calibrator_runs": 1}
    assert answer["simulated_s"] > 2 * 86400

    seen = [effects_of(place / "grid" / "ledger.jsonl") for place in (demo.state, state)]
    assert sum(seen[0].values()) > 40
    assert seen[0] == seen[1]


async def _tells_what_is_missing(demo: Demo) -> None:
    store = Store(demo.state / "aglowd.db", Clock())
    await store.open()
    found = await store.field(FIELD)
    await store.close()
    assert found is not None
    missing = found["runs"][-1]["outputs"]["missing_subbands"]
    assert len(missing) == 244 - SUBBANDS
    assert 487 in missing, "the second of two beams has subbands 244 to 487"
    assert 244 not in missing


async def _command(options: Options, state: Path) -> dict[str, Any]:
    """What `aglowd demo` prints last; it must end well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "aglowd.cli", "demo", "--fields", str(options.fields), "--srm-dir", str(options.srm_dir)),
        *("--speed", str(options.speed), "--seed", str(options.seed), "--state", str(state), "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    answer: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    return answer


async def test_ten_kills_in_one_run_lose_nothing_and_repeat_nothing(short_path: Path) -> None:
    seed = int(os.environ.get("AGLOWD_SEED", random.SystemRandom().randrange(2**32)))
    print(f"seed {seed}")
    moments = random.Random(seed)
    demo = Demo(write_world(short_path / "in"), short_path / "state")
    async with demo.world():
        try:
            for _ in range(10):
                await demo.start()
                await asyncio.sleep(moments.uniform(0.05, 1.2))
                await demo.kill()
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), 120)
        finally:
            await demo.stop()
    report, calibrators = await demo.judge(fields)
    assert states(fields) == {FIELD: "archived"}, f"seed {seed}"
    assert report.world.duplicates == 0, (seed, report.duplicates)
    assert report.world.lost == 0, (seed, report.lost)
    assert report.violations == (), seed
    assert calibrators == 1


BROKEN = Path(__file__).parent / "broken.py"


WRONGS = {
    "submit-twice": {"submitted twice", "live twice"},
    "skip-a-subband": {"subband skipped"},
    "skip-results": {"result skipped"},
    "archive-corrupt": {"archived corrupt"},
    "delete-unarchived": {"deleted unarchived"},
    "ignore-tape": {"input not online"},
}
"""Way to do wrong → the rules that it breaks, and no other way does."""


@pytest.mark.parametrize("ways", [("ignore-tape",), tuple(way for way in WRONGS if way != "ignore-tape")])
async def test_the_judge_convicts_a_daemon_that_does_wrong(short_path: Path, ways: tuple[str, ...]) -> None:
    """All wrongs at once, but that no job does anything without its files."""
    options = write_world(short_path / "in")
    demo = Demo(_broken(options, ",".join(ways)), short_path / "state")
    fields: list[dict[str, Any]] = []
    async with demo.world():
        try:
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), 60)
        except TimeoutError:
            fields = await demo.fields()
        finally:
            await demo.stop()
    report, _ = await demo.judge(fields)
    found = {one.rule for one in (*report.duplicates, *report.violations)}
    assert {rule for rules in WRONGS.values() for rule in rules} & found == {
        rule for way in ways for rule in WRONGS[way]
    }
    assert not report.is_clean


async def test_the_judge_convicts_a_daemon_that_drops_a_wake_up(short_path: Path) -> None:
    # Slower than the other worlds: a machine is granted real seconds, in which too much of a world would pass.
    options = msgspec.structs.replace(_broken(write_world(short_path / "in"), "drop-wake-up"), speed=5000.0)
    demo = Demo(options, short_path / "state")
    async with demo.world():
        try:
            await demo.start()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(demo.until_done(), 72)  # Four simulated days; a field needs two and a half.
        finally:
            await demo.stop()
    report, _ = await demo.judge([], finished=False)
    assert {one.rule for one in report.violations} == {"dropped wake-up"}


def _broken(options: Options, way: str) -> Options:
    return msgspec.structs.replace(options, daemon=(str(BROKEN), way))


async def test_bad_input_fails_its_own_field_with_a_reason_and_no_other(short_path: Path) -> None:
    good = csv_row(FIELD)

    def row(name: str, obsid: str, **columns: str) -> str:
        cells = good.split(",")
        cells[1], cells[11] = obsid, name
        for position, value in columns.items():
            cells[int(position[1:])] = value
        return ",".join(cells)

    template = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/{0}/L{0}_SB{1}_uv.dppp.MS_9aafa18e.tar"
    juelich = "srm://lofar-srm.fz-juelich.de:8443/pnfs/fz-juelich.de/data/lofar/ops/projects/lc2_038/{0}/L{0}_SB{1}_uv.dppp.MS_9aafa18e.tar"
    rows = [
        row("TwoObsids", "900001"),
        row("TwoSites", "900002"),
        row("NoSubband", "900003"),
        row("Missing", "900004"),
        row("Empty", "900005"),
        row("BadStatus", "900006", c0="WHAT"),
        "SND,900007,too,few",
        good,
    ]
    lists = {
        "900001": [template.format("900001", "000"), template.format("900009", "001")],
        "900002": [template.format("900002", "000"), juelich.format("900002", "001")],
        "900003": [template.format("900003", "000").replace("_SB000", "")],
        "900005": [],
    }
    demo = Demo(write_world(short_path / "in", rows, lists), short_path / "state")
    fields, report, _ = await run_to_end(demo)
    reasons = {field["field"]: field["reason"] for field in fields}
    ended = states(fields)
    assert ended.pop(FIELD) == "archived"
    assert set(ended.values()) == {"failed"}
    assert len(ended) == 8
    assert report.is_clean
    srm = short_path / "in" / "srm"
    assert f"{srm}/srm900001.txt:2" in reasons["TwoObsids"]
    assert "L900001" in reasons["TwoObsids"]
    assert f"{srm}/srm900002.txt:2" in reasons["TwoSites"]
    assert "juelich" in reasons["TwoSites"]
    assert f"{srm}/srm900003.txt:1" in reasons["NoSubband"]
    assert "subband" in reasons["NoSubband"]
    assert f"{srm}/srm900004.txt" in reasons["Missing"]
    assert f"{srm}/srm900005.txt:1" in reasons["Empty"]
    assert "fields.csv:7" in reasons["BadStatus"]
    assert "WHAT" in reasons["BadStatus"]
    assert "fields.csv:8" in reasons["line-8"]
    assert "expected" in reasons["line-8"]
    assert "fields.csv:9" in reasons[f"{FIELD}@line-9"]
    assert "line 1" in reasons[f"{FIELD}@line-9"]
    lines = demo.fields_file.read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in lines] == ["ZZZ", "RRR", "RRR", "RRR", "RRR", "RRR", "WHAT", "SND", "SND"]


async def test_a_single_step_of_a_custom_pipeline(short_path: Path) -> None:
    """`--pipeline` takes any file; a pipeline that fails ends the demo with 1 and says why."""
    options = write_world(short_path / "in")
    directory = short_path / "pipelines"
    directory.mkdir()
    shutil.copytree(Path("etc/pipelines/fragments"), directory / "fragments")
    (directory / "broken.toml").write_text(
        '[steps.claim]\nkind = "set_status"\nexpect = "{{ field.status }}"\nstatus = "AAA"\n\n'
        '[steps.fail]\nkind = "command"\nneeds = ["claim"]\nargv = ["false"]\n',
        encoding="utf-8",
    )
    demo = Demo(msgspec.structs.replace(options, pipeline=directory / "broken.toml"), short_path / "state")
    fields, report, _ = await run_to_end(demo)
    assert states(fields) == {FIELD: "failed"}
    assert "false ended with 1" in fields[0]["reason"]
    assert report.world.duplicates == 0
    assert ARCHIVE.startswith("gsiftp://")


async def test_rounds_keep_their_interval_however_many_fields_there_are(short_path: Path) -> None:
    """One progress call and one job status call a round; the rounds keep apart as for one field."""
    names = ("P14Hetdex04", "P24Hetdex20", "P23Hetdex20")
    lists = {obsid: srm_lines(obsid, 4) for name in names for obsid in _obsids(name)}
    options = write_world(short_path / "in", [csv_row(name) for name in names], lists, subbands=4)
    polls = {"staging": "1h", "jobs": "1h", "gather": "30m"}
    rare = {"daemon": {"audit": "30d"}}  # The audit asks for the same things, once an hour by default.
    demo = Demo(msgspec.structs.replace(options, polls=polls, config=rare), short_path / "state")
    fields, report, calibrators = await run_to_end(demo)
    assert set(states(fields).values()) == {"archived"}
    assert calibrators == 2
    assert report.is_clean
    configured_s = 3600 / options.speed
    # The rounds adapt: half the interval is the least, however many requests and jobs there are.
    for operation in ("glite.status", "lta.getprogress"):
        interval_s = report.operations[operation].median_interval_s
        assert 0.8 * PACE_FAST * configured_s <= interval_s <= 1.2 * PACE_SLOW * configured_s


def _obsids(name: str) -> tuple[str, str]:
    cells = csv_row(name).split(",")
    return cells[1], cells[6]
