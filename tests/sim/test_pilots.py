"""A whole pass of one field through the world, as a client would drive it, and the same world twice."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from aglowd.sim.checker import check
from aglowd.sim.pilot import ODDS_DEATH
from aglowd.sim.rules import Expectation, FieldExpectation
from aglowd.sim.world import draw

from .conftest import GridMaker, SmallGrid, eventually, surls

TYPE = "sksp_targ1_L229509"
RESULTS = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/results/L229509"
ARCHIVE = "gsiftp://archive.sara.nl:2811/sksp"
TODO = f'function(doc) {{ if(doc.type == "{TYPE}") {{ if(doc.lock == 0 && doc.done == 0) {{ emit(doc._id, doc._id); }} }} }}'
SPEED = 60_000.0


def token(number: int, surl: str, **more: Any) -> dict[str, Any]:
    files = {"srm.txt": surl + "\n", "pre.parset": "x = 1\n"}
    attachments = {
        name: {"content_type": "text/plain", "data": base64.b64encode(text.encode()).decode()}
        for name, text in files.items()
    }
    return {
        "_id": f"{TYPE}_SB{number:03d}", "type": TYPE, "lock": 0, "done": 0, "status": "queued", "scrub_count": 0,
        "OBSID": "L229509", "STARTSB": f"{number:03d}", "PIPELINE_STEP": "pref_targ1", "RESULTS_DIR": RESULTS,
        "_attachments": attachments, **more,
    }  # fmt: skip


async def submit(grid: SmallGrid, nodes: int, name: str = "key1") -> str:
    """Register and start a parametric job of pilots; returns its id."""
    secrets = grid.secrets
    (grid.directory / "picas.json").write_text(
        json.dumps({"user": secrets["couch_user"], "password": secrets["couch_password"]})
    )
    arguments = f"--url {grid.ready['couch_url']} --database {secrets['couch_database']} --type {TYPE} --n _PARAM_"
    (grid.directory / "job.jdl").write_text(
        f'[ JobType = "Parametric"; Parameters = {nodes}; ParameterStart = 0; ParameterStep = 1;\n'
        f'  Executable = "run.sh"; Arguments = "{arguments}"; InputSandbox = {{"picas.json"}};\n'
        f'  UserTags = [ aglowd_key = "{name}" ]; ]'
    )
    await grid.run("glite-wms-job-delegate-proxy", "-d", "me")
    said = await grid.run("glite-wms-job-submit", "-d", "me", "--register-only", "--nomsg", "job.jdl")
    job = said.stdout.strip()
    assert (await grid.run("glite-wms-job-submit", "--start", job)).rc == 0
    return job


async def stage(grid: SmallGrid, wanted: list[str]) -> int:
    """Request the files and wait until the stager says that all are online."""
    number: int = await grid.lta("add_getid", wanted)

    async def ended() -> bool:
        return len(await grid.lta("getstagedurls", number)) == len(wanted) or not await grid.lta("getprogress")

    await eventually(ended)
    return number


async def wait_for_end(grid: SmallGrid, job: str) -> str:

    async def ended() -> str:
        said = (await grid.run("glite-wms-job-status", "--noint", "--nonodes", job)).stdout
        return said if "Done(" in said or "Aborted" in said else ""

    return str(await eventually(ended))


async def play(grid: SmallGrid, tokens: int = 4, *, staged: bool = True) -> str:
    """Stage, make tokens with their view, run pilots; returns the job id."""
    wanted = surls(tokens)
    if staged:
        await stage(grid, wanted)
    await grid.couch("PUT", f"_design/{TYPE}", {"views": {"todo": {"map": TODO}}})
    docs = [token(number, surl) for number, surl in enumerate(wanted)]
    status, rows = await grid.couch("POST", "_bulk_docs", {"docs": docs})
    assert status == 201
    assert all(row["ok"] for row in rows)
    job = await submit(grid, 2)
    await wait_for_end(grid, job)
    return job


@pytest.mark.asyncio
async def test_pilots_take_tokens_write_results_and_end(small_grid: GridMaker) -> None:
    async with small_grid(speed=SPEED) as grid:
        job = await play(grid)
        said = (await grid.run("glite-wms-job-status", job)).stdout
        assert said.count("Done(Success)") == 3
        _, doc = await grid.couch("GET", f"{TYPE}_SB002")
        assert doc["status"] == "done"
        assert doc["output"] == 0
        assert doc["progress"] == 1
        assert doc["done"] >= doc["lock"] > 0
        assert list(doc["times"])[:3] == ["pulling_container", "building_sandbox", "launched"]
        assert doc["Results_location"] == f"{RESULTS}/{TYPE}_SB002.tar"
        assert any(name.endswith("_stdout.txt") for name in doc["_attachments"])
        assert doc["_attachments"]["srm.txt"]["stub"]
        assert (await grid.run("gfal-ls", RESULTS)).stdout.split() == [f"{TYPE}_SB{n:03d}.tar" for n in range(4)]
        summed = (await grid.run("gfal-sum", doc["Results_location"], "ADLER32")).stdout.split()[1]
    written = {line["token"]: line for line in grid.ledger() if line["op"] == "result_written"}
    assert written[f"{TYPE}_SB002"]["inputs"] == [2]
    assert written[f"{TYPE}_SB002"]["adler32"] == summed
    assert not [line for line in grid.ledger() if line["op"] in ("input_offline", "pilot_failed")]


@pytest.mark.asyncio
async def test_a_token_whose_files_are_on_tape_fails_and_is_recorded(small_grid: GridMaker) -> None:
    async with small_grid(speed=SPEED) as grid:
        await play(grid, 1, staged=False)
        _, doc = await grid.couch("GET", f"{TYPE}_SB000")
        assert doc["status"] == "error"
        assert doc["output"] == 1
    assert [line["surl"] for line in grid.ledger() if line["op"] == "input_offline"] == surls(1)


def fate(number: int, seed: int = 1) -> str:
    """How the token of a subband ends at fifty times the usual odds, when it was never reset."""
    name = ("L229509", f"{number:03d}", "pref_targ1")
    return "died" if draw(seed, "death", *name, 0) < 50 * ODDS_DEATH else "error"


@pytest.mark.asyncio
async def test_tokens_fail_as_drawn_and_heal_by_resets(small_grid: GridMaker) -> None:
    doomed = next(number for number in range(99) if fate(number) == "died")
    broken = next(number for number in range(99) if fate(number) == "error")
    found: list[Any] = []
    async with small_grid(speed=SPEED, failure_rate=50.0) as grid:
        await grid.couch("PUT", f"_design/{TYPE}", {"views": {"todo": {"map": TODO}}})
        parset = {"_attachments": {"pre.parset": token(0, "")["_attachments"]["pre.parset"]}}
        for number, scrubs in ((broken, 0), (broken, 2), (doomed, 0)):
            doc = token(number, "") | parset | {"_id": f"t{len(found)}", "scrub_count": scrubs}
            await grid.couch("POST", "_bulk_docs", {"docs": [doc]})
            said = await wait_for_end(grid, await submit(grid, 1))
            _, doc = await grid.couch("GET", doc["_id"])
            found.append((doc["status"], doc.get("output"), "Done(Success)" in said))
        assert found[:2] == [("error", 1, True), ("done", 0, True)]
        assert found[2][1:] == (None, False)
        assert doc["lock"] > 0 == doc["done"]


@pytest.mark.asyncio
async def test_the_same_seed_gives_the_same_effects(small_grid: GridMaker) -> None:
    seen: list[Any] = []
    for name in ("one", "two"):
        async with small_grid(name=name, speed=SPEED, seed=7, failure_rate=20.0) as grid:
            await play(grid)
        lines = grid.ledger()
        planned = next(line for line in lines if line["op"] == "request_planned")
        made = next(line for line in lines if line["op"] == "request_made")
        seen.append({
            "results": sorted((line["url"], line["adler32"]) for line in lines if line["op"] == "result_written"),
            "ends": sorted((line["token"], line["outcome"]) for line in lines if line["op"] == "token_ended"),
            "failed": planned["failed"],
            "latency": {surl: pytest.approx(at - made["t"], abs=120) for surl, at in planned["online"].items()},
        })  # fmt: skip
    assert seen[0]["ends"] == seen[1]["ends"]
    assert seen[0]["results"] == seen[1]["results"]
    assert seen[0]["failed"] == seen[1]["failed"]
    assert seen[0]["ends"]


@pytest.mark.asyncio
async def test_the_checker_acquits_an_honest_client_and_convicts_a_corrupt_copy(small_grid: GridMaker) -> None:
    expect = Expectation(
        archive_roots=(ARCHIVE,), archived_step="pref_targ1", fields={"P1": FieldExpectation(tuple(surls(4)))}
    )
    async with small_grid(speed=SPEED) as grid:
        await play(grid)
        await grid.run("gfal-mkdir", "-p", f"{ARCHIVE}/P1")
        for number in range(4):
            name = f"{TYPE}_SB{number:03d}.tar"
            assert (await grid.run("gfal-copy", "-p", f"{RESULTS}/{name}", f"{ARCHIVE}/P1/{name}.part")).rc == 0
            assert (await grid.run("gfal-rename", f"{ARCHIVE}/P1/{name}.part", f"{ARCHIVE}/P1/{name}")).rc == 0
    ledger, storage = Path(grid.ready["ledger"]), Path(grid.ready["storage"])
    report = check(ledger, storage, expect)
    assert report.is_clean, report
    assert report.world.tokens_created == 4
    assert report.world.files_archived == 4
    assert report.world.jobs_submitted == 1
    assert report.world.pilots_submitted == 2
    assert report.requests.processes_started == report.requests.glite + report.requests.storage
    spoiled = storage / "archive.sara.nl" / "sksp" / "P1" / f"{TYPE}_SB001.tar"
    spoiled.write_bytes(b"x" + spoiled.read_bytes()[1:])
    report = check(ledger, storage, expect)
    assert [one.rule for one in report.violations] == ["archived corrupt"]
    assert report.world.lost == 1
