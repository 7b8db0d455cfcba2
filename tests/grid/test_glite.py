"""gLite: the recorded words of the real tools, one process for many jobs, and no guess at what a tool did not say."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.batch import STATES as STATES_OF_JOBS
from aglowd.grid.batch import JobStatus, Order, Terms
from aglowd.grid.gate import Site
from aglowd.grid.glite import Glite
from aglowd.grid.glite_text import STATES, Registered, parse_status, parse_submit
from aglowd.grid.proc import Processes

from .conftest import SAMPLES, Install

LB = "https://wms2.grid.sara.nl:9000/"
TERMS = Terms("[jdl {{ key }}]\n")
ORDER = Order("run/step", 1, "/bin/true", ())
RECORDED = sorted(path.stem for path in (SAMPLES / "glite").glob("status_*.txt"))


def sample(name: str) -> str:
    return (SAMPLES / "glite" / f"status_{name}.txt").read_text()


def job(name: str) -> str:
    return LB + name.ljust(22, "0")[:22]


@pytest.fixture
def glite(processes: Processes, site: Site, tmp_path: Path) -> Glite:
    return Glite(processes, site, TERMS, endpoint="https://wms/x", delegation=None, work_dir=tmp_path / "work")


def replay(path: Path, rc: int, stderr: str = "") -> str:
    return f"cat {path}\ncat >&2 <<'E2'\n{stderr}\nE2\nexit {rc}\n"


# --- what the tools print


@pytest.mark.parametrize(
    ("name", "state", "words", "exit_code", "final"),
    [
        ("Sub", "submitted", "Submitted", None, False),
        ("Wai", "queued", "Waiting", None, False),
        ("Rea", "queued", "Ready", None, False),
        ("Sch", "queued", "Scheduled", None, False),
        ("Run", "running", "Running", None, False),
        ("DonOK", "done_ok", "Done(Success)", 0, True),
        ("DonOK2reasons", "done_ok", "Done(Success)", 0, True),
        ("DonOK_v0", "done_ok", "Done(Success)", None, True),
        ("DonOK_v3", "done_ok", "Done(Success)", 0, True),
        ("DonEx", "done_failed", "Done(Exit Code !=0)", 37, True),
        ("DonFa", "done_failed", "Done(Failed)", 0, True),
        ("DonCa", "cancelled", "Done(Cancelled)", 1, True),
        ("Abo", "aborted", "Aborted", None, True),
        ("AboHit", "aborted", "Aborted", None, True),
        ("Can", "cancelled", "Cancelled", None, True),
        ("Cle", "lost", "Cleared", None, True),
        ("Pur", "lost", "Purged", None, True),
        ("Unk", "unknown", "Unknown", None, False),
        ("ErrPurged", "lost", "", None, True),
        ("ErrPerm", "unknown", "", None, False),
        ("ErrRefused", "unknown", "", None, False),
        ("ErrTimeout", "unknown", "", None, False),
        ("ErrNoRoute", "unknown", "", None, False),
        ("ErrDNS", "unknown", "", None, False),
    ],
)
def test_recorded_states(name: str, state: str, words: str, exit_code: int | None, final: bool) -> None:
    (status,) = parse_status(sample(name)).values()
    assert (status.state, status.words, status.exit_code, status.is_final) == (state, words, exit_code, final)
    assert status.nodes == ()


def test_a_reason_is_free_text() -> None:
    (status,) = parse_status(sample("DonFa")).values()
    assert status.reason.startswith("Standard output does not contain useful data.Cannot read")
    assert parse_status(sample("Abo"))[job("Abo")].reason == "request expired"


@pytest.mark.parametrize("name", ["Par", "Par_v0", "Par_v2", "Par_v3"])
def test_the_nodes_of_a_parametric_job(name: str) -> None:
    parsed = parse_status(sample(name))
    assert list(parsed) == [job("Par")]
    parent = parsed[job("Par")]
    assert (parent.state, parent.is_final) == ("running", False)
    states = ["running", "done_ok", "done_failed", "done_failed", "aborted", "queued"]
    assert [node.state for node in parent.nodes] == states
    assert parent.nodes[2].id == job("DonEx")
    assert parent.nodes[2].exit_code == (None if name == "Par_v0" else 37)


def test_a_parent_without_its_nodes_and_several_jobs() -> None:
    assert parse_status(sample("Par_nonodes"))[job("Par")].nodes == ()
    assert {key: status.state for key, status in parse_status(sample("multi")).items()} == {
        job("DonOK"): "done_ok",
        job("Run"): "running",
    }


def test_an_unknown_id_among_known_ones_is_left_out() -> None:
    assert list(parse_status(sample("file_mixed_noint"))) == [job("DonOK"), job("Run")]
    assert parse_status(sample("NotThere")) == {}


@pytest.mark.parametrize("words", ["Done (Success) ", "Done(Success)", "Done  (Success)"])
def test_the_spellings_of_older_tools(words: str) -> None:
    text = f"""
*************************************************************
BOOKKEEPING INFORMATION:

Status info for the Job : {job("a")}
Current Status:     {words}
Exit code:          0
reached on:         Tue Jun 26 10:00:00 2018
*************************************************************
"""
    assert parse_status(text)[job("a")].state == "done_ok"


def test_the_older_tools_errors() -> None:
    text = f"""**** Error: API_NATIVE_ERROR ****
Error while calling the "Job:getStatus" native api
Unable to retrieve the status for: {job("a")}
glite.lb.Exception: edg_wll_JobStatus: No such file or directory: no matching jobs found
        at glite::lb::Job::status[./src/Job.cpp:87]
Unable to retrieve the status for: {job("b")}
glite.lb.Exception: edg_wll_JobStatus: Identifier removed: matching job already purged
Unable to retrieve the status for: {job("c")}
glite.lb.Exception: edg_wll_JobStatus: Connection refused: edg_wll_ssl_connect()
"""
    assert {key: status.state for key, status in parse_status(text).items()} == {job("b"): "lost", job("c"): "unknown"}


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_output_can_be_parsed(name: str) -> None:
    parse_status((SAMPLES / "glite" / f"{name}.txt").read_text())


@given(st.sampled_from(RECORDED), st.integers(0, 4000), st.text(max_size=4), st.integers(0, 60))
def test_a_mutated_output_never_raises(name: str, at: int, put: str, cut: int) -> None:
    text = (SAMPLES / "glite" / f"{name}.txt").read_text()
    for status in parse_status(text[:at] + put + text[at + cut :]).values():
        assert status.state


SUBMITTED = f"""
Connecting to the service https://wms2.grid.sara.nl:7443/glite_wms_wmproxy_server


====================== glite-wms-job-submit Success ======================

The job has been successfully registered to the WMProxy
Your job identifier is:

{job("new")}

==========================================================================


"""
HALF = f"""
Warning - Unable to transfer
The job has been successfully registered (the JobId is: {job("half")}), but an error occurred while transferring files
"""


def test_parse_submit() -> None:
    assert parse_submit(SUBMITTED) == Registered(job("new"), True)
    assert parse_submit("", HALF) == Registered(job("half"), False)
    assert parse_submit("Your job identifier is:\n\nnot an id\n") is None


@given(st.text(), st.text(), st.integers(0, len(SUBMITTED)), st.text(max_size=3))
def test_parse_submit_never_raises(stdout: str, stderr: str, at: int, put: str) -> None:
    parse_submit(stdout, stderr)
    parse_submit(SUBMITTED[:at] + put + SUBMITTED[at:], HALF[: at % len(HALF)])


# --- submitting


async def test_registering_hands_over_private_files_and_leaves_none(
    glite: Glite, install: Install, tmp_path: Path
) -> None:
    install(
        "glite-wms-job-submit",
        f"stat -c '%a %n' . * > {tmp_path}/modes; cat picas.cfg job.jdl > {tmp_path}/seen; cat <<'E1'\n{SUBMITTED}E1\n",
    )
    assert await glite.prepare(msgspec.structs.replace(ORDER, sandbox={"picas.cfg": "s3cret\n"})) == job("new")
    assert sorted((tmp_path / "modes").read_text().splitlines()) == ["600 job.jdl", "600 picas.cfg", "700 ."]
    assert (tmp_path / "seen").read_text() == "s3cret\n[jdl run/step]\n"
    assert list((tmp_path / "work").iterdir()) == []
    argv = (tmp_path / "glite-wms-job-submit.argv").read_text()
    assert argv == "--noint -e https://wms/x -a --register-only --transfer-files job.jdl\n"


async def test_a_delegation_by_name(processes: Processes, site: Site, install: Install, tmp_path: Path) -> None:
    install("glite-wms-job-submit", f"cat <<'E1'\n{SUBMITTED}E1\n")
    await Glite(processes, site, TERMS, endpoint=None, delegation="me", work_dir=tmp_path).prepare(ORDER)
    assert (tmp_path / "glite-wms-job-submit.argv").read_text().startswith("--noint -d me --register-only")


async def test_a_job_whose_sandbox_was_not_transferred_never_ran(glite: Glite, install: Install) -> None:
    install("glite-wms-job-submit", f"cat >&2 <<'E1'\n{HALF}E1\nexit 1\n")
    with pytest.raises(Temporary, match=r"half0+ is registered, but its input sandbox was not transferred"):
        await glite.prepare(ORDER)


async def test_requirements_are_one_expression(glite: Glite) -> None:
    with pytest.raises(Permanent, match="expected one ClassAd expression without ;"):
        await glite.prepare(msgspec.structs.replace(ORDER, requirements="true; Executable = 1"))


REFUSALS = [
    ("Error - Operation failed\nUnable to find any endpoint where to perform service request", Temporary),
    ("Error - Proxy validity Error\nYour proxy credential has expired", Temporary),
    ("Error - Proxy File Not Found\nNo path to valid proxy file has been found", Temporary),
    ("Error - WMProxy Server Error\nThe delegated Proxy has expired", Temporary),
    (
        "Error - Operation failed\nThreshold for Load Average(1 min): 10 => Detected value for Load Average: 16",
        Temporary,
    ),
    ("Error - Input Option Error\nthe delegation identifier is missing", Permanent),
    ("Error - Operation failed\nUnable to submit the job to the service: https://wms/x", Unknown),
    ("", Unknown),
]


@pytest.mark.parametrize(("stderr", "expected"), REFUSALS)
async def test_what_a_failed_submission_says(
    glite: Glite, install: Install, stderr: str, expected: type[OutsideError]
) -> None:
    install("glite-wms-job-submit", f"cat >&2 <<'E1'\n\n{stderr}\n\nE1\nexit 1\n")
    install("glite-wms-job-status", "exit 1")
    for verb in (glite.prepare(ORDER), glite.submit(ORDER, job("a"))):
        with pytest.raises(OutsideError) as caught:
            await verb
        assert type(caught.value) is expected


async def test_a_sandbox_name_cannot_leave_its_directory(glite: Glite) -> None:
    for name in ("../x", "/x", ".x", "a/b", ""):
        with pytest.raises(Permanent):
            await glite.prepare(msgspec.structs.replace(ORDER, sandbox={name: "x"}))


async def test_starting_what_was_started_already_is_fine(glite: Glite, install: Install) -> None:
    install("glite-wms-job-submit", "echo 'Error - WMProxy Server Error' >&2; exit 1")
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_Run.txt", 0))
    await glite.submit(ORDER, job("Run"))
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_Sub.txt", 0))
    with pytest.raises(Unknown):
        await glite.submit(ORDER, job("Sub"))
    install("glite-wms-job-submit", "echo 'The job has been successfully started to the WMProxy'")
    await glite.submit(ORDER, job("Sub"))


# --- status


async def test_one_process_for_many_ids_whatever_it_says_about_some(
    glite: Glite, processes: Processes, install: Install, tmp_path: Path
) -> None:
    log = tmp_path / "glite-wms-job-status_0_30577_1795467600.log"
    log.write_text("litter")
    recorded = tmp_path / "recorded"
    text = sample("file_mixed_noint")
    recorded.write_text(text.replace("/tmp/glite-wms-job-status_0_30577_1795467600.log", str(log)))
    install("glite-wms-job-status", f'cat "$3" > {tmp_path}/ids\n' + replay(recorded, 255))
    ids = [job("DonOK"), job("Run"), job("NotThere"), job("Silent"), job("Run")]
    found = await glite.status(ids)
    silent = JobStatus(job("Silent"), "unknown", reason="the bookkeeping said nothing about it")
    assert {key: status.state for key, status in found.items()} == {
        job("DonOK"): "done_ok", job("Run"): "running", job("Silent"): "unknown",
    }  # fmt: skip
    assert found[job("Silent")] == silent
    assert (tmp_path / "ids").read_text().split() == ids[:4]
    assert (tmp_path / "glite-wms-job-status.argv").read_text().startswith("--noint -i ")
    assert processes.started == 1
    assert list((tmp_path / "work").iterdir()) == []
    assert not log.exists()


async def test_more_than_500_ids_take_two_processes(glite: Glite, processes: Processes, install: Install) -> None:
    body = "import re\nids = open(sys.argv[3]).read().split()\n"
    body += "for i in ids: print('Status info for the Job :', i, '\\nCurrent Status:  Running ')\n"
    install("glite-wms-job-status", body)
    found = await glite.status([f"{LB}{number:022d}" for number in range(501)])
    assert len(found) == 501
    assert processes.started == 2
    assert await glite.status([]) == {}


@pytest.mark.parametrize("name", ["ErrRefused", "ErrTimeout", "ErrNoRoute", "ErrPerm", "proxy_expired", "badid"])
async def test_no_word_about_any_job_is_temporary(glite: Glite, install: Install, name: str) -> None:
    stderr = SAMPLES / "glite" / f"status_{name}.stderr"
    said = stderr.read_text() if stderr.exists() else ""
    install("glite-wms-job-status", replay(SAMPLES / "glite" / f"status_{name}.txt", 1, said))
    with pytest.raises(Temporary):
        await glite.status([job(name)])


async def test_unknown_and_purged_ids_are_told_apart(glite: Glite, install: Install) -> None:
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_NotThere.txt", 1))
    assert await glite.status([job("NotThere")]) == {}
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_ErrPurged.txt", 1))
    assert (await glite.status([job("ErrPurged")]))[job("ErrPurged")].state == "lost"


async def test_what_is_no_job_id_is_never_asked_for(glite: Glite, processes: Processes) -> None:
    for wrong in ("--all", "foo", "https://x/a b", ""):
        with pytest.raises(Permanent):
            await glite.status([wrong])
    assert processes.started == 0


async def test_finding_by_tag(glite: Glite, install: Install, tmp_path: Path) -> None:
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_multi.txt", 0))
    assert await glite.find_by_tag("run/step") == (job("DonOK"), job("Run"))
    assert "--user-tag aglowd_key=run/step" in (tmp_path / "glite-wms-job-status.argv").read_text()
    install("glite-wms-job-status", "echo 'No such file or directory - no matching jobs found'; exit 1")
    assert await glite.find_by_tag("run/step") == ()
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_ErrRefused.txt", 1))
    with pytest.raises(Temporary):
        await glite.find_by_tag("run/step")


# --- the others


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo 'Error - Proxy validity Error' >&2; exit 1", Temporary),
        ("echo 'Error - Operation Failed' >&2; exit 1", Unknown),
        ("exit 0", Unknown),
    ],
)
async def test_cancelling(glite: Glite, install: Install, text: str, expected: type[OutsideError]) -> None:
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_Run.txt", 0))
    said = "The cancellation request has been successfully submitted for the following job(s):"
    install("glite-wms-job-cancel", f"echo '{said}'; echo '- {job('a')}'")
    await glite.cancel(job("a"))
    install("glite-wms-job-cancel", "echo 'Error - Operation Failed' >&2; echo 'Warning - Cancel not allowed'; exit 1")
    await glite.cancel(job("a"))  # It has ended already.
    install("glite-wms-job-cancel", text)
    with pytest.raises(OutsideError) as caught:
        await glite.cancel(job("Run"))
    assert type(caught.value) is expected


async def test_a_cancel_that_went_wrong_is_judged_by_the_status(glite: Glite, install: Install) -> None:
    install("glite-wms-job-cancel", "echo 'Error - Operation Failed' >&2; exit 1")
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_NotThere.txt", 1))
    with pytest.raises(Permanent, match="glite knows no such job") as caught:
        await glite.cancel(job("NotThere"))
    assert caught.value.absent
    install("glite-wms-job-status", replay(SAMPLES / "glite" / "status_DonOK.txt", 0))
    await glite.cancel(job("DonOK"))
    install("glite-wms-job-status", "exit 1")
    with pytest.raises(Unknown, match="Operation Failed"):
        await glite.cancel(job("DonOK"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Output not yet ready", Temporary),
        ("Output files already retrieved", Permanent),
        ("The Job has been cancelled", Permanent),
        ("anything", Temporary),
    ],
)
async def test_fetching_the_output(
    glite: Glite, install: Install, tmp_path: Path, text: str, expected: type[OutsideError]
) -> None:
    said = "have been successfully retrieved and stored in the directory:"
    install("glite-wms-job-output", f"printf '\\t\\tJOB GET OUTPUT OUTCOME\\n{said}\\n/x/me_abc\\n\\n'")
    assert await glite.output(job("a"), tmp_path) == Path("/x/me_abc")
    install("glite-wms-job-output", f"echo 'Error - {text}' >&2; exit 1")
    with pytest.raises(OutsideError) as caught:
        await glite.output(job("a"), tmp_path)
    assert type(caught.value) is expected


async def test_no_tools_is_temporary_for_all(site: Site, tmp_path: Path) -> None:
    glite = Glite(
        Processes(env={"PATH": "/nonexistent"}), site, TERMS, endpoint=None, delegation=None, work_dir=tmp_path
    )
    for verb in (
        glite.prepare(ORDER), glite.submit(ORDER, job("a")), glite.status([job("a")]), glite.cancel(job("a")),
        glite.find_by_tag("x"), glite.output(job("a"), tmp_path),
    ):  # fmt: skip
        with pytest.raises(Temporary, match="cannot be started"):
            await verb
    assert not list(tmp_path.iterdir())
    assert stat.S_ISDIR(tmp_path.stat().st_mode)


def test_the_page_says_of_each_word_what_the_code_makes_of_it() -> None:
    page = (Path(__file__).parents[2] / "docs" / "jobs.md").read_text(encoding="utf-8")
    section = page.partition("\n## gLite\n")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `([^`]+)` \| `(\w+)` \|", section, re.MULTILINE)) == dict(STATES)
    states = page.partition("\n## gLite\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", states, re.MULTILINE) == list(STATES_OF_JOBS)
