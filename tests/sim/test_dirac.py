"""DIRAC's executables as real processes: their words, and what becomes of the jobs. The contract's tests show the rest."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from aglowd.sim.checker import check
from aglowd.sim.dirac import MAX_PARAMETRIC_JOBS
from aglowd.sim.history import History
from aglowd.sim.rules import submitted_twice

from .conftest import GridMaker, SmallGrid, eventually, surls
from .test_pilots import SPEED, TODO, TYPE, stage, token

JDL = """[
  JobName = "run1/submit/0"; JobGroup = "aglowd-1"; Executable = "run.sh"; Arguments = "{arguments} --n %n";
  InputSandbox = {{"picas.json"}}; Parameters = {count};
]"""
LINE = re.compile(r"JobID=\d+ (?:(?:Status|MinorStatus|ApplicationStatus|Site)=[^;=]+; ){4}\n")


async def submit(grid: SmallGrid, count: int) -> Any:
    secrets = grid.secrets
    (grid.directory / "picas.json").write_text(
        json.dumps({"user": secrets["couch_user"], "password": secrets["couch_password"]})
    )
    arguments = f"--url {grid.ready['couch_url']} --database {secrets['couch_database']} --type {TYPE}"
    (grid.directory / "job.jdl").write_text(JDL.format(count=count, arguments=arguments))
    return await grid.run("dirac-wms-job-submit", "job.jdl")


@pytest.mark.asyncio
async def test_words_and_exit_codes_are_those_of_the_source(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        assert (await submit(grid, 3)).stdout == "JobID = [1001, 1002, 1003]\n"
        status = await grid.run("dirac-wms-job-status", "1003,1001", "77")
        assert status.rc == 0
        assert [line.split()[0] for line in status.stdout.splitlines()] == ["JobID=1001", "JobID=1003"]
        assert "".join(LINE.findall(status.stdout)) == status.stdout
        group = await grid.run("dirac-wms-job-status", "-g", "aglowd-1")
        assert len(group.stdout.splitlines()) == 3
        none = await grid.run("dirac-wms-job-status", "-g", "aglowd-2")
        assert (none.rc, none.stdout.splitlines()[-1]) == (255, "Error: No jobs selected")
        assert await grid.run("dirac-wms-job-status", "77") == type(none)("", "", 0)
        assert (await grid.run("dirac-wms-job-status")).rc == 1
        killed = await grid.run("dirac-wms-job-kill", "1001", "1002")
        assert (killed.rc, killed.stdout) == (0, "Killed jobs 1001,1002\n")
        again = await grid.run("dirac-wms-job-kill", "1001")
        assert (again.rc, again.stdout) == (2, "ERROR Invalid job specification: []\n")
        nothing = await grid.run("dirac-wms-job-get-output", "-D", str(grid.directory), "1003")
        assert (nothing.rc, nothing.stdout.startswith("ERROR 1003: No Output sandbox found for job 1003.")) == (2, True)


@pytest.mark.asyncio
async def test_submit_refuses_as_the_real_one_does(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        limit = await submit(grid, MAX_PARAMETRIC_JOBS + 1)
        assert limit.rc == 2
        assert limit.stdout.endswith("Number of parametric jobs exceeds the limit of 100)\n")
        no_proxy = await grid.run("dirac-wms-job-submit", "job.jdl", X509_USER_PROXY="/nonexistent")
        assert (no_proxy.rc, no_proxy.stdout.splitlines()[-1]) == (2, "ERROR job.jdl: No proxy found")
        (grid.directory / "picas.json").unlink()
        assert "Input Sandbox is not valid" in (await grid.run("dirac-wms-job-submit", "job.jdl")).stdout
        (grid.directory / "job.jdl").write_text("[ a = ")
        assert "ERROR job.jdl: Invalid JDL ( 1501 : " in (await grid.run("dirac-wms-job-submit", "job.jdl")).stdout
    assert not [line for line in grid.ledger() if line["op"] == "job_started"]


@pytest.mark.asyncio
async def test_pilots_sign_with_the_number_of_their_job_and_the_judge_counts_them(small_grid: GridMaker) -> None:
    async with small_grid(speed=SPEED) as grid:
        wanted = surls(2)
        await stage(grid, wanted)
        await grid.couch("PUT", f"_design/{TYPE}", {"views": {"todo": {"map": TODO}}})
        await grid.couch("POST", "_bulk_docs", {"docs": [token(number, surl) for number, surl in enumerate(wanted)]})
        assert (await submit(grid, 2)).stdout == "JobID = [1001, 1002]\n"

        async def ended() -> bool:
            return (await grid.run("dirac-wms-job-status", "-g", "aglowd-1")).stdout.count("Status=Done; ") == 2

        await eventually(ended)
        signed = set()
        for number in range(2):
            _, doc = await grid.couch("GET", f"{TYPE}_SB{number:03d}")
            assert doc["status"] == "done"
            assert "wms_job_id" not in doc
            signed.add(doc["dirac_job_id"])
        assert signed <= {"1001", "1002"}
        await submit(grid, 2)
    report = check(*(grid.directory / "world" / name for name in ("ledger.jsonl", "storage")))
    assert report.world.pilots_submitted == 4
    assert report.requests.dirac > 3
    # The second submission carried the same key: each of its pilots is one too many.
    assert len(list(submitted_twice(History.read(grid.directory / "world" / "ledger.jsonl")))) == 2
