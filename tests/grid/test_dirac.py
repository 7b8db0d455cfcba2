"""DIRAC: the words of the tools' own source, one process for many jobs, and no guess at what a tool did not say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.batch import STATES as OURS
from aglowd.grid.batch import JobStatus, Order, Terms
from aglowd.grid.descriptions import describe
from aglowd.grid.dirac import Dirac
from aglowd.grid.dirac_text import (
    STATES,
    check_requirements,
    job_group,
    job_name,
    parse_error,
    parse_killed,
    parse_selected,
    parse_status,
    parse_submit,
    parse_user,
)
from aglowd.grid.gate import Site
from aglowd.grid.proc import Processes
from aglowd.sim.jdl import parse_jdl
from tests.test_docs import DOCS, rows, sections

from .conftest import Install

TEMPLATE = (Path(__file__).parents[2] / "etc" / "jobs" / "dirac.jdl").read_text(encoding="utf-8")
KEY = "P217+57_2026-11-28/target_submit/1/submit_jobs/0"
ORDER = Order(KEY, 3, "/usr/bin/python3", ("pilot.py", "--n", "%n"), {"pilot.py": "", "picas.json": "s3cret"})
GROUP = job_group(KEY)


@pytest.fixture
def dirac(processes: Processes, site: Site, tmp_path: Path) -> Dirac:
    return Dirac(processes, site, Terms(TEMPLATE), work_dir=tmp_path / "work")


def says(text: str, rc: int = 0, stderr: str = "") -> str:
    return f"cat <<'E1'\n{text}E1\ncat >&2 <<'E2'\n{stderr}E2\nexit {rc}\n"


def line(job: int, status: str, minor: str = "", application: str = "Unknown", site: str = "GRID.SURF.nl") -> str:
    return f"JobID={job} Status={status}; MinorStatus={minor}; ApplicationStatus={application}; Site={site}; \n"


# --- what the tools print


def test_the_table_of_words_is_the_documented_one() -> None:
    documented = rows(sections(DOCS / "jobs.md")["DIRAC"])
    found = {word: cells[0].strip("`") for word, cells in documented.items() if word[0].isupper() and len(cells) == 2}
    assert found == dict(STATES)
    assert set(STATES.values()) <= {*OURS}


@pytest.mark.parametrize("words", sorted(STATES))
def test_each_word(words: str) -> None:
    status, _, minor = words.rstrip(")").partition(" (")
    (found,) = parse_status(line(7, status, minor or "Any Minor Status")).values()
    assert (found.id, found.state) == ("7", STATES[words])
    assert found.words == (words if minor else f"{status} (Any Minor Status)")
    assert found.exit_code == (0 if found.state == "done_ok" else None)
    assert found.is_final is (status in ("Done", "Failed", "Killed", "Deleted"))
    assert (found.reason, found.nodes) == ("", ())


@pytest.mark.parametrize("word", ["Submitted", "done", "Don", "Done.", "None", "Failed|Done"])
def test_other_words_are_unknown(word: str) -> None:
    assert parse_status(line(7, word))["7"].state == "unknown"


def test_fields_come_in_any_order_and_may_be_missing() -> None:
    text = (
        "JobID=2 Status=Done; MinorStatus=Execution Complete; Site=EELA.UTFSM.cl; \n"
        "JobID=3 Site=ANY; MinorStatus=Pilot Agent Submission; Status=Waiting; \n"
        "JobID=4 Status=Running; \n"
        "JobID=5 Site=ANY; \n"
    )
    assert parse_status(text) == {
        "2": JobStatus("2", "done_ok", "Done (Execution Complete)", 0),
        "3": JobStatus("3", "queued", "Waiting (Pilot Agent Submission)"),
        "4": JobStatus("4", "running", "Running"),
    }


@pytest.mark.parametrize(
    ("application", "code"),
    [
        ("'pilot.py' Exited With Status 3", 3),
        ("x; step 2: 'run' exited with status 137 (signal)", 137),
        ("Unknown", None),
        ("Exited With Status 0", None),
        ("1 of 2 tokens = failed; Status of it: bad", None),
    ],
)
def test_a_code_is_told_by_the_application_alone(application: str, code: int | None) -> None:
    (status,) = parse_status(line(7, "Failed", "Application Finished With Errors", application)).values()
    assert (status.state, status.exit_code) == ("done_failed", code)
    assert status.reason == ("" if application == "Unknown" else application)
    assert parse_status(line(7, "Running", "Application", application))["7"].exit_code is None


@pytest.mark.parametrize(
    "text",
    [
        line(7, "Running", "Application", "x; Status=Done"),
        line(7, "Running", "Application", "Status=Done; Status=Failed"),
        line(7, "Failed", "A", "x; MinorStatus=Bulk transaction confirmation"),
        line(7, "Running") + line(7, "Done"),
    ],
)
def test_what_is_told_in_two_ways_is_unknown(text: str) -> None:
    (status,) = parse_status(text).values()
    assert (status.state, status.is_final) == ("unknown", False)


def test_only_lines_of_jobs_count() -> None:
    noise = (
        "2026-11-28 10:33:59 UTC Framework WARN: Can't load /opt/dirac/etc/dirac.cfg file\n"
        "2026-11-28 10:34:00 UTC dirac-wms-job-status NOTICE: JobID=9 Status=Done; \n"
    )
    assert parse_status(noise + line(7, "Running") + "JobID=8 Status=Done\nJobID=0 Status=Done; \n").keys() == {"7"}


JOBS = "".join([
    line(101, "Done", "Execution Complete"),
    line(102, "Failed", "Application Finished With Errors", "'run' Exited With Status 3"),
    line(103, "Running", "Application", "token a=b; 3 of 4"),
    line(104, "Killed", "Marked for termination"),
    line(105, "Waiting", "Pilot Agent Submission", site="ANY"),
])  # fmt: skip


@given(
    st.integers(0, len(JOBS)), st.permutations(range(5)), st.integers(0, 5), st.sampled_from(["", "WARN: x; y=z;\n"])
)
def test_cut_and_mixed_lines_never_say_another_end(cut: int, order: list[int], at: int, noise: str) -> None:
    truth = parse_status(JOBS)
    lines = [JOBS.splitlines(keepends=True)[number] for number in order]
    lines.insert(at, noise)
    for text in (JOBS[:cut], JOBS[cut:], "".join(lines)[:cut]):
        for job, status in parse_status(text).items():
            assert status.state in (truth[job].state, "unknown")
            assert status.exit_code in (truth[job].exit_code, None)
    assert parse_status("".join(lines)) == truth


@given(st.integers(0, len(JOBS)), st.text(max_size=4), st.integers(0, 60))
def test_a_mutated_output_never_raises(at: int, put: str, cut: int) -> None:
    for status in parse_status(JOBS[:at] + put + JOBS[at + cut :]).values():
        assert status.state in OURS


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("JobID = 314\n", ("314",)),
        ("JobID = [82, 83, 84]\n", ("82", "83", "84")),
        ("JobID = [82]\n", ("82",)),
        ("JobID = [82L, 83L]\n", ("82", "83")),
        ("Need to upload the proxy\nJobID = [82, 83]\n", ("82", "83")),
        ("JobID = []\n", ()),
        ("JobID = [82, 82]\n", ()),
        ("JobID = [82, 83\n", ()),
        ("JobID = 82\nJobID = 83\n", ()),
        ("ERROR job.jdl: Invalid JDL ( 1501 : x)\n", ()),
        ("Duplicate of JobID = 82\n", ()),
        ("", ()),
    ],
)
def test_the_ids_of_a_submission(text: str, ids: tuple[str, ...]) -> None:
    assert parse_submit(text) == ids


@given(st.text(max_size=20), st.integers(0, 30))
def test_no_parser_raises(noise: str, at: int) -> None:
    for text in ("JobID = [82, 83, 84]\n", "Killed jobs 82,83\n", "==> Selected 2 jobs with conditions: x\n82,83\n"):
        mutated = text[:at] + noise + text[at:]
        assert all(job.isdigit() for job in parse_submit(mutated))
        parse_killed(mutated)
        assert all(job.isdigit() for job in parse_selected(mutated) or ())
        parse_user(mutated)
        parse_error(mutated, "ERROR ")


def test_what_was_killed() -> None:
    assert parse_killed("Killed jobs 82,83\n") == ({"82", "83"}, {})
    assert parse_killed("Killed job 1918\n") == ({"1918"}, {})
    stuck = "Job Status Error 82 can't move from Waiting to Killed\nKilled jobs 82\n"
    assert parse_killed(stuck) == (frozenset(), {"82": "Waiting"})
    assert parse_killed("ERROR Invalid job specification: []\n") == (frozenset(), {})


def test_a_selection() -> None:
    assert parse_selected("==> Selected 2 jobs with conditions: Owner = me\n82,83\n") == ("82", "83")
    assert parse_selected("No jobs were selected with conditions: Owner = me\n") == ()
    for wrong in (
        "",
        "==> Selected 3 jobs with conditions: Owner = me\n82,83\n",
        "Can't select jobs:  No proxy found\nNo jobs were selected with conditions: Owner = me\n",
    ):
        assert parse_selected(wrong) is None


# --- job descriptions


def test_a_job_description() -> None:
    terms = Terms(TEMPLATE, queue="GRID.SURF.nl", wall_time_s=3600.0, cpus=4)
    named = {"job_name": job_name(KEY), "job_group": GROUP, "requirements": 'Tags = {"long"};'}
    text = describe(ORDER, terms, **named)
    assert text == (
        '[\n  Site = "GRID.SURF.nl";\n  CPUTime = 14400;\n  DisableCPUCheck = true;\n  NumberOfProcessors = 4;\n'
        f'  Tags = {{"long"}};\n  JobName = "{KEY}";\n  JobGroup = "{GROUP}";\n  Executable = "/usr/bin/python3";\n'
        '  Arguments = "pilot.py --n %n";\n  StdOutput = "stdout.txt";\n  StdError = "stderr.txt";\n'
        '  InputSandbox = {"pilot.py", "picas.json"};\n  OutputSandbox = {"stdout.txt", "stderr.txt"};\n'
        "  Parameters = 3;\n]\n"
    )
    one = describe(replace(ORDER, count=1), Terms(TEMPLATE), **{**named, "requirements": ""})
    assert "Parameters" not in one
    assert "Site" not in one


@given(st.text(max_size=300))
def test_the_key_travels_in_what_the_server_takes(key: str) -> None:
    group, name = job_group(key), job_name(key)
    assert len(group) == 32
    assert group.replace("-", "").isalnum()
    assert len(name) <= 128
    assert not {*name} & {*';[]{}"\\%\n '}
    assert parse_jdl(describe(ORDER, Terms(TEMPLATE), job_name=name, job_group=group))["jobname"] == name


def test_no_two_keys_have_one_group() -> None:
    keys = [f"{KEY[:-1]}{number}" for number in range(1000)]
    assert len({job_group(key) for key in keys}) == 1000
    assert job_group("a/b") != job_group("a_b")


def test_a_long_key_has_a_name_that_is_cut() -> None:
    assert job_name(KEY * 9) == (KEY * 9)[:128]
    assert job_name('a "b"; [c]\n%n') == "a__b____c___n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ('Tags = {"long"}', 'Tags = {"long"};'),
        (' Platform = "x" ; CPUTime=5; ', 'Platform = "x"; CPUTime=5;'),
    ],
)
def test_requirements(text: str, expected: str) -> None:
    assert check_requirements(text) == expected


@pytest.mark.parametrize(
    "text",
    ["x", "= 1", "a = ", 'JobGroup = "x"', "jobgroup = 1", "Parameters = 50", "Parameters.A = {1}", "ParameterStart = 1",
     'Executable = "/bin/sh"', "a = [b = 1]", "a = 1]", "a = 1;; b = 2"],
)  # fmt: skip
async def test_requirements_that_would_break_a_promise_are_refused(dirac: Dirac, text: str) -> None:
    with pytest.raises(Permanent, match="requirements"):
        await dirac.submit(replace(ORDER, requirements=text), None)


# --- submitting


async def test_submitting_hands_over_private_files_and_leaves_none(
    dirac: Dirac, install: Install, tmp_path: Path
) -> None:
    install(
        "dirac-wms-job-submit",
        f"umask 022; stat -c '%a %n' . * > {tmp_path}/modes; cat job.jdl picas.json > {tmp_path}/seen\n"
        f"echo $TMPDIR $PWD > {tmp_path}/places; touch LDSB.left\n" + says("JobID = [82, 83, 84]\n"),
    )
    assert await dirac.submit(ORDER, await dirac.prepare(ORDER)) == ("82", "83", "84")
    modes = ["600 job.jdl", "600 picas.json", "600 pilot.py", "700 ."]
    assert sorted((tmp_path / "modes").read_text().splitlines()) == modes
    temporary, current = (tmp_path / "places").read_text().split()
    assert temporary == current, "the tool leaves its archive behind when it fails"
    seen = (tmp_path / "seen").read_text()
    assert seen.endswith("]\ns3cret")
    assert f'JobGroup = "{GROUP}";' in seen
    assert list((tmp_path / "work").iterdir()) == []
    assert (tmp_path / "dirac-wms-job-submit.argv").read_text() == "job.jdl\n"


async def test_ids_count_whatever_the_exit_code_is(dirac: Dirac, install: Install) -> None:
    install("dirac-wms-job-submit", says("JobID = [82, 83, 84]\n", 1, "Exception ignored in: <socket>\n"))
    assert await dirac.submit(ORDER, None) == ("82", "83", "84")
    install("dirac-wms-job-submit", says("JobID = 82\n"))
    assert await dirac.submit(replace(ORDER, count=1), None) == ("82",)


@pytest.mark.parametrize("said", ["JobID = [82, 83]\n", "JobID = 82\n", "JobID = [82, 83, 84, 85]\n"])
async def test_another_number_of_jobs_than_was_ordered_is_looked_for(dirac: Dirac, install: Install, said: str) -> None:
    install("dirac-wms-job-submit", says(said))
    with pytest.raises(Unknown, match="expected 3"):
        await dirac.submit(ORDER, None)


REFUSALS = [
    ("No proxy found", Temporary),
    ("PEM file /tmp/x509up_u0 has expired, not valid after 2026-11-27 01:02:03", Temporary),
    ("Can't connect to dips://dirac.grid:9132/WorkloadManagement/JobManager: ConnectionRefusedError(111)", Temporary),
    ("Job submission failure ( 1503 : Job submission not authorized)", Temporary),
    ("Invalid JDL ( 1501 : Input Sandbox is not valid)", Permanent),
    ("Invalid JDL ( 1501 : Invalid job JDL)", Permanent),
    ("Invalid JDL ( 1501 : Number of parametric jobs exceeds the limit of 20)", Permanent),
    ("Job submission failure ( 1503 : Job submission failed to confirm bulk transaction)", Unknown),
    ("Connection reset by peer", Unknown),
    ("Server error while serving submitJob: timed out", Unknown),
]


@pytest.mark.parametrize(("error", "expected"), REFUSALS)
async def test_what_a_failed_submission_says(
    dirac: Dirac, install: Install, error: str, expected: type[OutsideError]
) -> None:
    install("dirac-wms-job-submit", says(f"Job submission failure {error}\nERROR job.jdl: {error}\n", 2))
    with pytest.raises(OutsideError) as caught:
        await dirac.submit(ORDER, None)
    assert type(caught.value) is expected
    assert "submitting 3 pilots" in str(caught.value)


@pytest.mark.parametrize(
    "said", ["", "No proxy found\n", "Error while updating from https://x: No proxy found\nTraceback (most recent call last):\n"]
)  # fmt: skip
@pytest.mark.parametrize("rc", [0, 1, 255])
async def test_only_its_last_word_counts(dirac: Dirac, install: Install, said: str, rc: int) -> None:
    install("dirac-wms-job-submit", says(said, rc))
    with pytest.raises(Unknown):
        await dirac.submit(ORDER, None)


async def test_a_refusal_names_the_limit(dirac: Dirac, install: Install) -> None:
    error = "Invalid JDL ( 1501 : Number of parametric jobs exceeds the limit of 20)"
    install("dirac-wms-job-submit", says(f"ERROR job.jdl: {error}\n", 2))
    with pytest.raises(Permanent, match=r"takes 20 at once.*nodes_per_submission"):
        await dirac.submit(ORDER, None)


async def test_a_site_is_a_name(processes: Processes, site: Site, tmp_path: Path) -> None:
    dirac = Dirac(processes, site, Terms(TEMPLATE, queue='x"; Owner = "y'), work_dir=tmp_path)
    with pytest.raises(Permanent, match="expected the name of a DIRAC site"):
        await dirac.submit(ORDER, None)


# --- finding again


async def test_a_group_is_found(dirac: Dirac, install: Install, tmp_path: Path) -> None:
    install("dirac-wms-job-status", says(line(100, "Running") + line(99, "Done", "Execution Complete")))
    assert await dirac.find(KEY) == ("99", "100")
    assert (tmp_path / "dirac-wms-job-status.argv").read_text() == f"-g {GROUP}\n"


NONE = f"No jobs selected with date '2026-10-29' for conditions: {{'JobGroup': '{GROUP}'}}\nError: No jobs selected\n"


async def test_only_the_word_that_there_is_none_is_believed(dirac: Dirac, install: Install) -> None:
    install("dirac-wms-job-status", says(NONE, 255))
    assert await dirac.find(KEY) == ()
    for said in (
        says(""),
        says("", 255),
        says(NONE.splitlines()[0] + "\n", 255),
        says("Error: No proxy found\n", 255),
        says("", 1, "Traceback (most recent call last):\nKeyError: 'Value'\n"),
        says(line(99, "Done"), 2),
        says(line(99, "Done") + NONE, 255),
    ):
        install("dirac-wms-job-status", said)
        with pytest.raises(Unknown, match="nobody can tell"):
            await dirac.find(KEY)


async def test_what_is_not_confirmed_is_in_doubt_and_what_never_was_did_not_run(dirac: Dirac, install: Install) -> None:
    bulk = "Bulk transaction confirmation"
    install("dirac-wms-job-status", says(line(98, "Submitting", bulk) + line(99, "Submitting", bulk)))
    with pytest.raises(Unknown, match=r"2 jobs .* are not confirmed"):
        await dirac.find(KEY)
    install("dirac-wms-job-status", says(line(98, "Failed", bulk) + line(99, "Failed", bulk)))
    assert await dirac.find(KEY) == ()
    install(
        "dirac-wms-job-status", says(line(98, "Failed", bulk) + line(99, "Failed", "Job stalled: pilot not running"))
    )
    assert await dirac.find(KEY) == ("99",)


# --- status


async def test_one_process_for_many_ids_whatever_it_says_about_some(
    dirac: Dirac, processes: Processes, install: Install, tmp_path: Path
) -> None:
    said = says(line(3, "Done", "Execution Complete") + line(4, "Running") + line(9, "Done") + "ERROR: x\n", 2)
    install("dirac-wms-job-status", f'cat "$2" > {tmp_path}/ids\n' + said)
    found = await dirac.status(["3", "4", "5", "3"])
    assert {job: status.state for job, status in found.items()} == {"3": "done_ok", "4": "running"}
    assert (tmp_path / "ids").read_text().split() == ["3", "4", "5"]
    assert (tmp_path / "dirac-wms-job-status.argv").read_text().startswith("-f ")
    assert processes.started == 1
    assert list((tmp_path / "work").iterdir()) == []


async def test_more_than_500_ids_take_two_processes(dirac: Dirac, processes: Processes, install: Install) -> None:
    body = "import re\nfor i in open(sys.argv[2]).read().split(): print(f'JobID={i} Status=Running; ')\n"
    install("dirac-wms-job-status", body)
    assert len(await dirac.status([str(number) for number in range(1, 502)])) == 501
    assert processes.started == 2
    assert await dirac.status([]) == {}


@pytest.mark.parametrize(
    "said",
    [
        says("ERROR: No proxy found\n", 2),
        says("ERROR: Server error while serving getJobsStates: timed out\n", 2),
        says("", 1, "Traceback (most recent call last):\nKeyError: 7\n"),
        says("", 1),
        says("JobID=7 Stat"),
        says("2026-11-28 10:33:59 UTC Framework WARN: nothing works\n"),
    ],
)
async def test_no_word_about_any_job_is_temporary(dirac: Dirac, install: Install, said: str) -> None:
    install("dirac-wms-job-status", said)
    with pytest.raises(Temporary, match="no word about any of 1 jobs"):
        await dirac.status(["7"])


async def test_where_the_server_knows_none_the_tool_is_silent(dirac: Dirac, install: Install) -> None:
    install("dirac-wms-job-status", says(""))
    assert await dirac.status(["7", "8"]) == {}


@pytest.mark.parametrize("job", ["", "0", "-1", "1,2", "x", "1 2", "https://wms:9000/x", "1" * 30])
async def test_what_is_no_id_is_not_asked_for(dirac: Dirac, processes: Processes, tmp_path: Path, job: str) -> None:
    for verb in (dirac.status([job]), dirac.cancel(job), dirac.output(job, tmp_path)):
        with pytest.raises(Permanent, match="expected a number"):
            await verb
    assert processes.started == 0


# --- the end, the output, the list


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [
        (says("Killed jobs 7\n"), "", None),
        (says("Killed job 7\n"), "", None),
        (says("ERROR Invalid job specification: []\n", 2), line(7, "Done"), None),
        (says("ERROR Invalid job specification: []\n", 2), line(7, "Killed"), None),
        (says("Job Status Error 7 can't move from Done to Killed\nKilled jobs 7\n"), line(7, "Done"), None),
        (says("Job Status Error 7 can't move from Waiting to Killed\nKilled jobs 7\n"), line(7, "Waiting"), Temporary),
        (says("ERROR Invalid job specification: []\n", 2), "", Permanent),
        (says("ERROR Invalid job specification: []\n", 2), line(7, "Running"), Unknown),
        (says("ERROR No proxy found\n", 2), line(7, "Running"), Temporary),
        (says("Killed jobs 77\n"), line(7, "Running"), Unknown),
        (says(""), line(7, "Running"), Unknown),
    ],
)
async def test_cancelling(
    dirac: Dirac, install: Install, said: str, status: str, expected: type[OutsideError] | None
) -> None:
    install("dirac-wms-job-kill", said)
    install("dirac-wms-job-status", says(status))
    if expected is None:
        await dirac.cancel("7")
        return
    with pytest.raises(OutsideError) as caught:
        await dirac.cancel("7")
    assert type(caught.value) is expected
    assert getattr(caught.value, "absent", False) is (expected is Permanent)


async def test_fetching_the_output_twice(dirac: Dirac, install: Install, tmp_path: Path) -> None:
    install(
        "dirac-wms-job-get-output",
        'mkdir "$2/7"; echo hello > "$2/7/stdout.txt"; echo "Job output sandbox retrieved in $2/7/"\n',
    )
    places = [await dirac.output("7", tmp_path / "out") for _ in range(2)]
    assert len({*places}) == 2, "the tool would pass over a directory that is there"
    assert [(place / "stdout.txt").read_text() for place in places] == ["hello\n", "hello\n"]


@pytest.mark.parametrize(
    "said",
    [
        says("ERROR 7: No Output sandbox found for job 7. Possible causes are: the job does not exist\n", 2),
        says(""),
        says("Job output sandbox retrieved in /nowhere/7/\n"),
        'mkdir "$2/7"\n' + says("ERROR 7: No space left on device\n", 2),
    ],
)
async def test_no_output_is_temporary_and_leaves_nothing(
    dirac: Dirac, install: Install, tmp_path: Path, said: str
) -> None:
    install("dirac-wms-job-get-output", said)
    with pytest.raises(Temporary, match="fetching the output of 7"):
        await dirac.output("7", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


INFO = "subject      : /O=dutchgrid/CN=x\ntimeleft     : 167:53:58\nDIRAC group  : lofar_user\nusername     : jdoe\n"


async def test_a_list_of_what_is_ours(dirac: Dirac, install: Install, tmp_path: Path) -> None:
    install("dirac-proxy-info", says(INFO))
    install("dirac-wms-select-jobs", says("==> Selected 2 jobs with conditions: Owner = jdoe\n7,8\n"))
    install("dirac-wms-job-status", says(line(7, "Running") + line(8, "Done")))
    assert (await dirac.list_ours()).keys() == {"7", "8"}
    argv = (tmp_path / "dirac-wms-select-jobs.argv").read_text().split()
    assert argv[0] == "--Owner=jdoe"
    assert argv[1].startswith("--Date=20")
    assert argv[2] == "--Maximum=0"
    install("dirac-wms-select-jobs", says("No jobs were selected with conditions: Owner = jdoe\n"))
    assert await dirac.list_ours() == {}
    install(
        "dirac-wms-select-jobs", says("Can't select jobs:  x\nNo jobs were selected with conditions: Owner = jdoe\n")
    )
    with pytest.raises(Temporary, match="dirac-wms-select-jobs"):
        await dirac.list_ours()
    install("dirac-wms-select-jobs", says("==> Selected 1 jobs with conditions: Owner = jdoe\n7\n", 1))
    with pytest.raises(Temporary, match="dirac-wms-select-jobs"):
        await dirac.list_ours()
    install("dirac-proxy-info", says("Can't find any proxy\n", 1))
    with pytest.raises(Temporary, match="names no user"):
        await dirac.list_ours()


# --- the environment of the tools


def set_up(processes: Processes, site: Site, tmp_path: Path, setup: str) -> Dirac:
    return Dirac(processes, site, Terms(TEMPLATE), work_dir=tmp_path / "work", setup=setup)


async def test_a_file_is_sourced_before_each_tool(site: Site, install: Install, tmp_path: Path) -> None:
    install("dirac-wms-job-status", 'printf "JobID=%s Status=Running; \\n" "$DIRAC_NUMBER"\n')
    odd = tmp_path / "a file'; exit 3; $(exit 4) \"x"
    odd.write_text(f'export PATH="{tmp_path}/bin:$PATH" DIRAC_NUMBER=7\n')
    bare = Processes(env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)})
    assert (await set_up(bare, site, tmp_path, str(odd)).status(["7"]))["7"].state == "running"
    assert len((tmp_path / "dirac-wms-job-status.argv").read_text().split()) == 2


@pytest.mark.parametrize("text", [None, "true\n", "false\n"])
async def test_without_its_environment_nothing_was_done(site: Site, tmp_path: Path, text: str | None) -> None:
    setup = tmp_path / "diracosrc"
    if text is not None:
        setup.write_text(text)
    dirac = set_up(Processes(env={"PATH": os.environ["PATH"]}), site, tmp_path, str(setup))
    for verb in (dirac.submit(ORDER, None), dirac.cancel("7"), dirac.status(["7"])):
        with pytest.raises(Temporary, match="does not set up dirac-wms-job"):
            await verb


@pytest.mark.parametrize("text", [None, "return 3\n"])
async def test_a_tool_without_its_environment_is_not_started(
    processes: Processes, site: Site, install: Install, tmp_path: Path, text: str | None
) -> None:
    install("dirac-wms-job-kill", says("Killed jobs 7\n"))
    setup = tmp_path / "diracosrc"
    if text is not None:
        setup.write_text(text)
    with pytest.raises(Temporary, match="does not set up dirac-wms-job-kill"):
        await set_up(processes, site, tmp_path, str(setup)).cancel("7")
    assert not (tmp_path / "dirac-wms-job-kill.argv").exists()


async def test_no_tools_is_temporary_for_all(site: Site, tmp_path: Path) -> None:
    dirac = Dirac(Processes(env={"PATH": "/nonexistent"}), site, Terms(TEMPLATE), work_dir=tmp_path / "work")
    verbs: list[Any] = [
        dirac.submit(ORDER, None), dirac.status(["7"]), dirac.cancel("7"), dirac.output("7", tmp_path), dirac.list_ours(),
    ]  # fmt: skip
    for verb in verbs:
        with pytest.raises(Temporary, match="cannot be started"):
            await verb
    with pytest.raises(Unknown, match="cannot be started"):
        await dirac.find(KEY)
