"""The executables as real processes: their output, their exit codes, and what they leave in the world."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from aglowd.sim.jdl import Expression, JdlError, list_parameters, parse_jdl

from .conftest import GridMaker, SmallGrid, read_lines, write_lines

JOB_ID = re.compile(r"https://wms2\.grid\.sara\.nl:9000/[A-Za-z0-9_-]{22}")
LINE = "=" * 74
REMOTE = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/results"
JDL = """[ // a comment
  JobType = "Parametric"; Parameters = 6; ParameterStart = 0; ParameterStep = 2;
  Executable = "/bin/sh"; Arguments = "run.sh _PARAM_ \\"two words\\""; InputSandbox = {"run.sh", "file://%s"};
  Requirements = RegExp("gina", other.GlueCEUniqueID) && other.X > 3;
  UserTags = [ aglowd_key = "run1/submit"; ]; ShallowRetryCount = 0;
]"""


async def registered(grid: SmallGrid, *options: str) -> str:
    """Submit the JDL above with the options given; returns the job's id."""
    write_lines(grid.directory / "run.sh", "true")
    (grid.directory / "job.jdl").write_text(JDL % (grid.directory / "run.sh"))
    assert (await grid.run("glite-wms-job-delegate-proxy", "-d", "me")).rc == 0
    said = await grid.run("glite-wms-job-submit", "-d", "me", *options, "job.jdl")
    assert said.rc == 0, said
    found = JOB_ID.findall(said.stdout)
    return str(found[0])


def test_jdl() -> None:
    found = parse_jdl(JDL % "/x")
    assert found["usertags"] == {"aglowd_key": "run1/submit"}
    assert found["inputsandbox"] == ["run.sh", "file:///x"]
    assert found["arguments"] == 'run.sh _PARAM_ "two words"'
    assert isinstance(found["requirements"], Expression)
    assert list_parameters(found) == ("0", "2", "4")
    assert list_parameters({"type": "Parametric", "parameters": ["a", 1]}) == ("a", "1")
    assert list_parameters({"type": "Job"}) is None
    for broken in ("[ a = ", "[ a ]", "[ a = {1, ; ]", "[ a = 1 ] b"):
        with pytest.raises(JdlError):
            parse_jdl(broken)


@pytest.mark.asyncio
async def test_submit_says_what_the_real_one_says(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        job = await registered(grid)
        said = await grid.run("glite-wms-job-submit", "-d", "me", "-o", "ids", "job.jdl")
        lines = said.stdout.splitlines()
        assert lines[:2] == ["", "Connecting to the service https://wms2.grid.sara.nl:7443/glite_wms_wmproxy_server"]
        assert lines[4] == "====================== glite-wms-job-submit Success ======================"
        assert lines[6:9] == ["The job has been successfully submitted to the WMProxy", "Your job identifier is:", ""]
        assert JOB_ID.fullmatch(lines[9])
        assert lines[11:13] == ["The job identifier has been saved in the following file:", f"{grid.directory}/ids"]
        assert LINE in lines
        await grid.run("glite-wms-job-submit", "-d", "me", "-o", "ids", "--nomsg", "job.jdl")
        ids = (grid.directory / "ids").read_text().splitlines()
        assert ids[0] == "###Submitted Job Ids###"
        assert len(ids) == 3
        assert len({*ids[1:], job}) == 3
        answer = json.loads((await grid.run("glite-wms-job-submit", "-a", "--json", "job.jdl")).stdout)
        assert answer["result"] == "success"
        assert len(answer["children"]) == 3


@pytest.mark.asyncio
async def test_a_registered_job_starts_once(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        job = await registered(grid, "--register-only", "--transfer-files")
        assert "Current Status:     Submitted" in (await grid.run("glite-wms-job-status", job)).stdout
        started = await grid.run("glite-wms-job-submit", "--start", job)
        assert "successfully started" in started.stdout
        assert "Current Status:     Waiting" in (await grid.run("glite-wms-job-status", job)).stdout
        again = await grid.run("glite-wms-job-submit", "--start", job)
        assert again.rc == 1
        assert "already started" in again.stderr
        assert (await grid.run("glite-wms-job-submit", "--start", job[:-3] + "abc")).rc == 1
        by_tag = await grid.run("glite-wms-job-status", "--user-tag", "aglowd_key=run1/submit", "--nonodes")
        assert job in by_tag.stdout
    starts = [line["result"] for line in grid.ledger() if line["op"] == "start"]
    assert starts == ["started", "already started", "unknown"]


@pytest.mark.asyncio
async def test_submit_refuses_as_the_real_one_does(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        refusals = {
            ("job.jdl",): "delegation identifier is missing",
            ("-d", "nobody", "job.jdl"): "No delegated proxy",
            ("-a", "none.jdl"): "Unable to open the JDL file",
        }
        for argv, text in refusals.items():
            said = await grid.run("glite-wms-job-submit", *argv)
            assert said.rc == 1
            assert said.stderr.startswith("\nError - ")
            assert text in said.stderr
        (grid.directory / "job.jdl").write_text('[ InputSandbox = {"absent"}; ]')
        assert "does not exist" in (await grid.run("glite-wms-job-submit", "-a", "job.jdl")).stderr
        no_proxy = await grid.run("glite-wms-job-submit", "-a", "job.jdl", X509_USER_PROXY="/nonexistent")
        assert "Proxy File Not Found" in no_proxy.stderr


@pytest.mark.asyncio
async def test_status_text_is_laid_out_as_recorded(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        job = await registered(grid, "--register-only")
        text = (await grid.run("glite-wms-job-status", job)).stdout
        node_ids = JOB_ID.findall(text)[1:]
        submitted = re.search(r"Submitted:          (.*)", text)
        assert submitted is not None
        when = submitted[1]
        nodes = "".join(
            f"    Status info for the Job : {node}\n    Current Status:     Submitted\n"
            f"    Submitted:          {when}\n{LINE}\n    \n"
            for node in node_ids
        )
        assert text == (
            "\n\n======================= glite-wms-job-status Success =====================\n"
            f"BOOKKEEPING INFORMATION:\n\nStatus info for the Job : {job}\nCurrent Status:     Submitted\n"
            f"Submitted:          {when}\n{LINE}\n\n- Nodes information for: \n{nodes}"
        )
        assert len(node_ids) == 3
        one = (await grid.run("glite-wms-job-status", "--noint", node_ids[0])).stdout
        assert one == (
            "\n======================= glite-wms-job-status Success =====================\n"
            f"BOOKKEEPING INFORMATION:\n\nStatus info for the Job : {node_ids[0]}\nCurrent Status:     Submitted\n"
            f"Submitted:          {when}\n{LINE}\n\n"
        )
        terse = (await grid.run("glite-wms-job-status", "-v", "0", job)).stdout
        assert terse.count(LINE) == 1


@pytest.mark.asyncio
async def test_status_of_many_and_of_unknown_jobs(small_grid: GridMaker) -> None:
    unknown = "https://wms2.grid.sara.nl:9000/NotThere00000000000000"
    warning = (
        f"*** Warning: Unable to retrieve the status for: {unknown}\n\n"
        "No such file or directory - no matching jobs found\n\n\n"
    )
    async with small_grid() as grid:
        job = await registered(grid)
        write_lines(grid.directory / "ids", "###Submitted Job Ids###", unknown, job)
        mixed = await grid.run("glite-wms-job-status", "--noint", "--nonodes", "-i", "ids")
        assert mixed.rc == 255
        assert mixed.stdout.startswith(warning + "\n=====")
        assert "*** Log file created ***" in mixed.stdout
        alone = await grid.run("glite-wms-job-status", unknown)
        assert (alone.rc, alone.stdout) == (1, f"\n{warning}\n")
        bad = await grid.run("glite-wms-job-status", "foo")
        assert (bad.rc, bad.stdout) == (1, "")
        assert bad.stderr == (
            '**** Warning: UI_WRONG_JOBID_FORMAT ****  \nThe "foo" jobID is not in a valid format\n\n'
            "**** Error: UI_WRONG_JOBID_ALL ****  \nAll jobID are in wrong format\n"
        )
        none = await grid.run("glite-wms-job-status", job, X509_USER_PROXY="/nonexistent")
        assert (none.rc, none.stderr) == (1, "**** Error: UI_PROXY_NOT_FOUND ****  \nProxy certificate not found.\n\n")
    assert [line["ids"] for line in grid.ledger() if line["op"] == "status"] == [2, 1]


@pytest.mark.asyncio
async def test_cancel_and_output(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        job = await registered(grid)
        assert "not yet ready" in (await grid.run("glite-wms-job-output", "--noint", job)).stderr
        done = await grid.run("glite-wms-job-cancel", "--noint", job)
        assert " glite-wms-job-cancel Success ".center(88, "=") in done.stdout
        assert f"- {job}" in done.stdout
        text = (await grid.run("glite-wms-job-status", job)).stdout
        assert text.count("Current Status:     Cancelled") == 4
        again = await grid.run("glite-wms-job-cancel", "--noint", job)
        assert again.rc == 1
        assert "Unable to cancel any job" in again.stderr


@pytest.mark.asyncio
async def test_gfal_on_remote_and_local_files(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        local = write_lines(grid.directory / "a", "hello")
        assert (await grid.run("gfal-mkdir", f"{REMOTE}/x")).rc == 2
        assert (await grid.run("gfal-mkdir", "-p", REMOTE)).rc == 0
        assert (await grid.run("gfal-mkdir", REMOTE)).stderr == (
            "gfal-mkdir error: 17 (File exists) - errno reported by local system call File exists\n"
        )
        copied = await grid.run("gfal-copy", "-t", "10", "-K", "ADLER32", f"file://{local}", f"{REMOTE}/a")
        assert copied.stdout == f"Copying 6 bytes file://{local} => {REMOTE}/a\n"
        twice = await grid.run("gfal-copy", f"file://{local}", f"{REMOTE}/a")
        assert (
            twice.stderr
            == f"gfal-copy error: 17 (File exists) - Destination {REMOTE}/a exists and overwrite is not set\n"
        )
        assert (await grid.run("gfal-copy", "-f", f"file://{local}", f"{REMOTE}/a")).rc == 0
        wrong = await grid.run("gfal-copy", "-K", "ADLER32:00000001", f"file://{local}", f"{REMOTE}/b")
        assert (wrong.rc, "SOURCE CHECKSUM MISMATCH" in wrong.stderr) == (5, True)
        nowhere = await grid.run("gfal-copy", f"file://{local}", f"{REMOTE}/no/b")
        assert (nowhere.rc, "Could not open destination" in nowhere.stderr) == (2, True)
        assert (await grid.run("gfal-copy", "-p", f"{REMOTE}/a", f"{REMOTE}/no/b")).rc == 0
        assert (await grid.run("gfal-sum", f"{REMOTE}/a", "ADLER32")).stdout == f"{REMOTE}/a 084b021f\n"
        assert (await grid.run("gfal-rename", f"{REMOTE}/a", f"{REMOTE}/c")).rc == 0
        assert (await grid.run("gfal-ls", REMOTE)).stdout == "c\nno\n"
        long = (await grid.run("gfal-ls", "-lH", f"{REMOTE}/c")).stdout
        assert re.fullmatch(rf"-rw-r--r--   1 \S+ +\S+ +6 \w+ [ \d]\d \d\d:\d\d {REMOTE}/c\t\n", long)
        stat = (await grid.run("gfal-stat", f"{REMOTE}/c")).stdout.splitlines()
        assert stat[:2] == [f"  File: '{REMOTE}/c'", "  Size: 6\tregular file"]
        absent = await grid.run("gfal-stat", f"{REMOTE}/a")
        assert (absent.rc, absent.stderr) == (
            2, "gfal-stat error: 2 (No such file or directory) - errno reported by local system call "
            "No such file or directory\n",
        )  # fmt: skip
        removed = await grid.run("gfal-rm", f"{REMOTE}/c", f"{REMOTE}/a")
        assert (removed.rc, removed.stdout) == (2, f"{REMOTE}/c\tDELETED\n{REMOTE}/a\tMISSING\n")
        assert (await grid.run("gfal-rm", f"{REMOTE}/no")).rc == 21
        tree = await grid.run("gfal-rm", "-r", f"{REMOTE}/no")
        assert tree.stdout == f"{REMOTE}/no/b\tDELETED\n{REMOTE}/no\tRMDIR\n"
        assert (await grid.run("gfal-ls", "foo://bar/baz")).rc == 93
        assert (await grid.run("gfal-ls")).rc == 2


@pytest.mark.asyncio
async def test_no_url_leads_out_of_the_storage(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        local = write_lines(grid.directory / "a", "hello")
        await grid.run("gfal-copy", "-p", f"file://{local}", "gsiftp://h/../../../escaped")
        assert (Path(grid.ready["storage"]) / "h" / "escaped").is_file()


@pytest.mark.asyncio
async def test_the_proxy_runs_out_and_is_renewed_by_writing_it(small_grid: GridMaker) -> None:
    async with small_grid(proxy_hours=100.0) as grid:
        left = await grid.run("voms-proxy-info", "-timeleft")
        assert 359_000 < int(left.stdout) <= 360_000
        assert "timeleft  : 99:59:5" in (await grid.run("voms-proxy-info", "-all")).stdout
        assert (await grid.run("voms-proxy-info", "-exists", "-valid", "101:00")).rc == 1
        assert (await grid.run("voms-proxy-info", "--exists", "--valid", "1:00")).rc == 0
        old = time.time() - 101 * 3600
        os.utime(grid.ready["proxy"], (old, old))
        assert (await grid.run("voms-proxy-info", "-actimeleft")).stdout == "0\n"
        expired = await grid.run("glite-wms-job-submit", "-a", "x.jdl")
        assert "Your proxy credential has expired" in expired.stderr
        os.utime(grid.ready["proxy"])
        assert int((await grid.run("voms-proxy-info", "-timeleft")).stdout) > 0
        missing = await grid.run("voms-proxy-info", X509_USER_PROXY="/nonexistent")
        assert (missing.rc, missing.stderr) == (1, "\nCouldn't find a valid proxy.\n\n")


@pytest.mark.asyncio
async def test_a_tool_without_its_simulator_fails(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        pass
    assert (await grid.run("gfal-ls", REMOTE)).rc == 111


@pytest.mark.asyncio
async def test_the_command_says_ready_and_ends_at_sigterm(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-m", "aglowd.sim", "--dir", str(tmp_path / "w"), "--srm-dir", str(tmp_path),
        "--origin", str(time.time()), "--seed", "5",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    ready = json.loads(await process.stdout.readline())
    assert ready["ready"] is True
    assert "@" not in ready["lta_url"]
    assert {"lta_user", "lta_password", "couch_user", "couch_password", "couch_database"} <= set(ready["credentials"])
    process.send_signal(signal.SIGTERM)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    assert read_lines(ready["ledger"])[-1]["op"] == "stopped"
