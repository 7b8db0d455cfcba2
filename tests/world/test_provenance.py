"""Whole runs, and the record of each beside what the simulated grid itself says was done to it."""

from __future__ import annotations

import asyncio
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from aglowd.cli.demo import Demo
from aglowd.provenance import json_schema
from aglowd.sim.history import History
from aglowd.sim.storage import Storage
from aglowd.sim.tape import surl_path
from aglowd.sim.world import digest
from aglowd.wiring import shipped_pipelines
from tests.world.small import FIELD, LIMIT_S, states, write_world
from tests.world.test_jobs import archived_tokens

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

SUBBANDS = 6


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("w")


@pytest.mark.parametrize("jobs", ["glite", "local"])
async def test_the_record_of_a_field_is_what_the_grid_saw(short_path: Path, jobs: str) -> None:
    options = msgspec.structs.replace(write_world(short_path / "in", subbands=SUBBANDS), jobs=jobs)
    demo = Demo(options, short_path / "state")
    async with demo.world():
        try:
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), LIMIT_S)
            shown = (await demo.ask(f"/v1/provenance/{FIELD}"))["provenance"]
        finally:
            await demo.stop()
    assert states(fields) == {FIELD: "archived"}
    record = written(demo)
    history = History.read(demo.state / "grid" / "ledger.jsonl")
    storage = Storage(demo.state / "grid" / "storage")
    check_inputs(record, history)
    check_tokens(record, history, storage, list(archived_tokens(demo.state)))
    check_archive(record, history, storage)
    check_jobs(record, history)
    check_runs(record)
    # What is shown later differs in what has gone on since, and in nothing else.
    later = ("made", "state", "runs", "steps")
    assert {key: value for key, value in shown.items() if key not in later} == {
        key: value for key, value in record.items() if key not in later
    }
    assert shown["state"] == "done"


def written(demo: Demo) -> dict[str, Any]:
    """The record as it lies in the archive: one, and valid."""
    (path,) = (demo.state / "grid" / "storage").rglob("*provenance*")
    assert path.name == "provenance.json"
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    Draft202012Validator(json_schema()).validate(record)
    return record


def check_inputs(record: dict[str, Any], history: History) -> None:
    """Every file that the grid was asked for, with the size and the checksum that it has there."""
    told = {surl_path(one["surl"]): one for one in record["inputs"]}
    assert len(told) == len(record["inputs"]) == 2 * SUBBANDS
    staged = {path for staging in history.stagings for path in staging.surls}
    used = {path for token in history.tokens.values() for path in token.surls}
    assert staged <= told.keys()
    assert {path for path, one in told.items() if one["state"] == "used"} == used
    sizes = {path: one["size_bytes"] for path, one in told.items()}
    assert all(size > 1_000_000 for size in sizes.values())
    # As the simulated namespace makes it of the path alone.
    assert {path: one["adler32"] for path, one in told.items()} == {
        path: digest("adler32", path, size_bytes=4).hex() for path in told
    }
    requests = {staging.request: len(staging.surls) for staging in history.stagings}
    assert {one["request"]: one["files"] for one in record["stagings"]} == requests


def check_tokens(record: dict[str, Any], history: History, storage: Storage, documents: list[dict[str, Any]]) -> None:
    """Every token that was ever made, with its tries, its job, and what its pilot wrote."""
    told = {one["id"]: one for one in record["tokens"]}
    assert told.keys() == history.tokens.keys()
    bodies = {body["_id"]: body for body in documents}
    for name, one in told.items():
        token, body = history.tokens[name], bodies[name]
        assert one["state"] == "done"
        assert one["scrubs"] == len(token.reset) == body["scrub_count"]
        assert one["job"] == next(body[key] for key in body if key.endswith("_job_id") and body[key])
        assert one["host"] == body["hostname"]
        if token.surls:
            assert tuple(map(surl_path, one["inputs"])) == token.surls
        path = storage.find_path(one["result"]["url"])
        assert path is not None
        data = path.read_bytes()
        assert one["result"]["url"] == body["Results_location"]
        assert one["result"]["size_bytes"] == len(data)
        # A simulated pilot does not say it; then it is known of what was copied.
        assert one["result"]["adler32"] in (f"{zlib.adler32(data):08x}", None)
        is_told = one["result"]["adler32"] is not None
        assert is_told or "result" not in body["aglowd"]
    assert record["missing"]["failed_tokens"] == []


def check_archive(record: dict[str, Any], history: History, storage: Storage) -> None:
    """Every file of the archive but the record itself, with its bytes; each result with the one that it is a copy of."""
    (directory,) = {one["url"].rpartition("/")[0] for one in record["archived"]}
    root = directory.rpartition("/")[0]
    base = storage.find_path(root)
    assert base is not None
    there = {
        f"{root}/{path.relative_to(base)}": path.read_bytes()
        for path in base.rglob("*")
        if path.is_file() and path.name != "provenance.json"
    }
    told = {one["url"]: one for one in (*record["archived"], *record["token_archives"])}
    assert told.keys() == there.keys()
    for url, data in there.items():
        assert (told[url]["size_bytes"], told[url]["adler32"]) == (len(data), f"{zlib.adler32(data):08x}")
    for one in record["archived"]:
        assert history.origins[one["url"]] == one["source"]
        assert history.results[one["source"]]["adler32"] == one["adler32"]


def check_jobs(record: dict[str, Any], history: History) -> None:
    started = {line["job"] for line in history.of_jobs("job_started")}
    told = {one["id"] for one in record["jobs"]}
    assert told
    assert started <= told if started else all(one["job"] in told for one in record["tokens"])


def check_runs(record: dict[str, Any]) -> None:
    """Both runs, what ran in them, and what they were told."""
    assert [run["pipeline"] for run in record["runs"]] == ["sksp", "calibrator"]
    assert record["runs"][1]["used_by"] == f"{record['run']}/calibrator"
    assert {one["container"]["singularity"]["img"] for one in record["software"]} == {"lofar_sksp.simg"}
    assert len(record["parsets"]) == len(record["software"]) == 3
    assert all(len(one["attached"]) == 1 for one in record["parsets"])
    assert any("L229511_SB*_uv*" in one["text"] for one in record["parsets"])
    assert len(record["missing"]["subbands"]) == 2


GATED = """
[steps.inspect]
kind = "await_approval"
needs = ["archive_tokens"]
question = "does {{ field.name }} look right?"
show = ["https://plots.example/{{ field.name }}.png"]

[steps.provenance]
kind = "provenance"
needs = ["inspect"]"""


async def test_an_operator_is_asked_and_his_verdict_is_part_of_the_record(short_path: Path) -> None:
    """A kill between the question and the answer, and one behind the answer, change nothing."""
    pipelines = short_path / "pipelines"
    await asyncio.to_thread(_gated, pipelines)
    options = msgspec.structs.replace(
        write_world(short_path / "in", subbands=SUBBANDS), pipeline=pipelines / "sksp.toml"
    )
    demo = Demo(options, short_path / "state")
    async with demo.world():
        try:
            await demo.start()
            await asyncio.wait_for(_until_asked(demo), LIMIT_S)
            early = (await demo.ask(f"/v1/provenance/{FIELD}"))["provenance"]
            await demo.kill()
            await demo.start()
            await asyncio.wait_for(_until_asked(demo), LIMIT_S)
            shown = await _aglowctl(demo, "show", FIELD)
            explained = await _aglowctl(demo, "explain", FIELD)
            said = await _aglowctl(demo, "approve", FIELD, "--verdict", "moderate", "--reason", "noisy, still usable")
            await demo.kill()
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), LIMIT_S)
            page = await _aglowctl(demo, "provenance", FIELD)
        finally:
            await demo.stop()
    assert states(fields) == {FIELD: "archived"}
    assert (early["state"], early["approvals"], len(early["tokens"])) == ("running", [], 1 + SUBBANDS + 1)
    assert f"plots of inspect: https://plots.example/{FIELD}.png" in shown
    assert f"an operator is asked: does {FIELD} look right?" in explained
    assert said == f"inspect of {FIELD}-1: approved as moderate\n"
    (approval,) = written(demo)["approvals"]
    assert (approval["step"], approval["verdict"], approval["reason"]) == ("inspect", "moderate", "noisy, still usable")
    assert approval["approved"] is True
    assert "inspect approved as moderate by uid" in page
    assert "inputs    12 used; of 12 size and checksum are known" in page


def _gated(pipelines: Path) -> None:
    """The shipped pipelines, with a person before the record."""
    import shutil

    shutil.copytree(shipped_pipelines(), pipelines)
    path = pipelines / "sksp.toml"
    text = path.read_text(encoding="utf-8")
    plain = '[steps.provenance]\nkind = "provenance"\nneeds = ["archive_tokens"]'
    assert plain in text
    path.write_text(text.replace(plain, GATED.lstrip()), encoding="utf-8")


async def _until_asked(demo: Demo) -> None:
    while True:
        answer = await demo.ask(f"/v1/fields/{FIELD}/explain")
        steps = {step["step"]: step["state"] for step in (answer or {}).get("steps", ())}
        if steps.get("inspect") == "waiting":
            return
        assert answer is None or answer["state"] in ("running", "offered"), answer
        await asyncio.sleep(0.05)


async def _aglowctl(demo: Demo, *words: str) -> str:
    argv = ["-c", "from aglowd.cli.control import main; main()", "--socket", str(demo.socket), *words]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out.decode()
