"""The survey's software as a pilot calls it: what it needs, what it leaves, and what the ledger says of both."""

from __future__ import annotations

import errno
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from aglowd.sim.faults import Script
from aglowd.sim.storage import adler32, list_contents

from .conftest import GridMaker, Ran, SmallGrid, surls, write_lines
from .test_pilots import stage

SPEED = 60_000.0
RESULT = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/results/P1/L1_SB002-0123456789ab.tar"
JOB = {"AGLOWD_JOB_ID": "0123-1"}


def workplace(grid: SmallGrid, *inputs: str) -> None:
    """The working directory as the launcher makes it."""
    (grid.directory / "results").mkdir(exist_ok=True)
    write_lines(grid.directory / "srm.txt", *inputs)
    write_lines(grid.directory / "a.parset", "x = 1")


async def run(grid: SmallGrid, *more: str, attempt: int = 0) -> Ran:
    words = ["--token", "t1", "--step", "targ1", "--obsid", "L1", "--part", "002", "--parset", "a.parset"]
    return await grid.run("run_prefactor", *words, "--attempt", str(attempt), *more, **JOB)


def told(grid: SmallGrid, *ops: str) -> list[dict[str, Any]]:
    return [line for line in grid.ledger() if line["system"] == "pilot" and line["op"] in ops]


@pytest.mark.asyncio
async def test_a_run_leaves_files_that_follow_from_its_inputs_and_the_next_pass_reads_them(
    small_grid: GridMaker,
) -> None:
    async with small_grid(speed=SPEED) as grid:
        await stage(grid, surls(3))
        workplace(grid, surls(3)[2])
        first = await run(grid, "--srm", "srm.txt")
        assert (first.rc, first.stderr) == (0, "")
        results = grid.directory / "results"
        data = (results / "data.ms").read_bytes()
        assert json.loads((results / "summary.json").read_text())["subbands"] == [2]
        assert (await run(grid, "--srm", "srm.txt")).rc == 0
        assert (results / "data.ms").read_bytes() == data, "the same token gives the same bytes"
        with tarfile.open(grid.directory / "x.tar", "w") as tar:
            tar.add(results, arcname="results")
        source = (grid.directory / "x.tar").as_uri()
        assert (await grid.run("gfal-copy", "-f", "-p", "-t", "9", "-T", "9", source, RESULT, **JOB)).rc == 0
        assert (await run(grid, "--files", f'["{RESULT}"]')).rc == 0
        joined = (results / "data.ms").read_bytes()
        assert joined != data
    made = told(grid, "result_made")
    assert [line["inputs"] for line in made] == [[2], [2], [2]]
    assert {line["job"] for line in made} == {"0123-1"}
    assert made[-1]["adler32"] == adler32(joined)
    assert made[-1]["files"] == [RESULT]
    copies = [line for line in grid.ledger() if (line["system"], line["op"]) == ("storage", "copy")]
    assert [(line["by"], line["job"], line["dst"]) for line in copies] == [("pilot", "0123-1", RESULT)]
    assert adler32(data) in copies[0]["holds"]
    assert copies[0]["holds"] == list_contents((grid.directory / "x.tar").read_bytes())


@pytest.mark.asyncio
async def test_what_is_not_there_fails_the_run_and_is_in_the_ledger(small_grid: GridMaker) -> None:
    async with small_grid(speed=SPEED) as grid:
        workplace(grid, surls(1)[0])
        assert (await run(grid, "--srm", "srm.txt")).rc == 1
        assert (await run(grid, "--files", RESULT)).rc == 1
        path = Path(grid.ready["storage"]) / "gridftp.grid.sara.nl/pnfs/results/P1"
        path.mkdir(parents=True)
        (path / RESULT.rpartition("/")[2]).write_bytes(b"nothing that was made here")
        assert (await run(grid, "--files", RESULT)).rc == 1
        (grid.directory / "a.parset").unlink()
        said = await run(grid, "--srm", "srm.txt")
        assert (said.rc, said.stderr) == (1, "run_prefactor: there is no parset a.parset\n")
        assert not list((grid.directory / "results").iterdir())
    rows = [
        (line["op"], line.get("surl") or line.get("url"))
        for line in told(grid, "input_offline", "input_missing", "parset_missing")
    ]
    assert rows == [
        ("input_offline", surls(1)[0]),
        ("input_missing", RESULT),
        ("input_missing", RESULT),
        ("parset_missing", None),
    ]
    assert not told(grid, "result_made")


@pytest.mark.asyncio
async def test_a_run_that_fails_by_chance_does_well_when_it_was_given_back_twice(small_grid: GridMaker) -> None:
    async with small_grid(speed=SPEED, failure_rate=1000.0) as grid:
        await stage(grid, surls(1))
        workplace(grid, surls(1)[0])
        assert [(await run(grid, "--srm", "srm.txt", attempt=number)).rc for number in range(3)] == [1, 1, 0]


@pytest.mark.asyncio
async def test_the_container_runtime_runs_what_it_is_told_where_it_is_told(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        (grid.directory / "inside").mkdir()
        words = [
            "--bind",
            "/x",
            "--pwd",
            str(grid.directory / "inside"),
            "image.simg",
            "/bin/sh",
            "-c",
            'pwd; echo "$1"; exit 7',
        ]
        said = await grid.run("singularity", "exec", *words, "sh", "two words", PATH="/usr/bin:/bin")
        assert (said.rc, said.stdout) == (7, f"{grid.directory / 'inside'}\ntwo words\n")
        assert (await grid.run("singularity", "pull", "x")).rc == 1


@pytest.mark.asyncio
async def test_faults_strike_the_client_and_no_pilot(small_grid: GridMaker) -> None:
    scripts = (
        Script(system="storage", op="copy", fault="fail_after", nth=1),
        Script(system="storage", op="copy", fault="disk_full", nth=2),
        Script(system="storage", op="stat", fault="proxy_before", nth=1),
    )
    async with small_grid(faults=scripts) as grid:
        write_lines(grid.directory / "x", "data")
        source = (grid.directory / "x").as_uri()
        assert (await grid.run("gfal-copy", "-p", source, f"{RESULT}.1", **JOB)).rc == 0, (
            "a pilot's calls are not counted"
        )
        assert (await grid.run("gfal-copy", "-p", source, f"{RESULT}.2")).rc == 1
        assert (await grid.run("gfal-copy", "-p", source, f"{RESULT}.3")).rc == errno.ENOSPC
        assert (await grid.run("gfal-copy", "-p", source, f"{RESULT}.4", **JOB)).rc == 0, "pilots find room"
        assert (await grid.run("gfal-stat", f"{RESULT}.1")).rc == errno.ECOMM
        assert (await grid.run("gfal-stat", f"{RESULT}.1", **JOB)).rc == 0, "a pilot has a proxy of its own"
