"""Slurm: the recorded words of the real tools, one look for many jobs, and no guess at what a tool did not say."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import slurm_spool
from aglowd.grid.batch import JobStatus, Order, Terms
from aglowd.grid.gate import Site
from aglowd.grid.proc import Processes
from aglowd.grid.slurm import KEEP_DAYS, Slurm
from aglowd.grid.slurm_spool import Spool
from aglowd.grid.slurm_text import (
    ACCOUNTED,
    FIELDS,
    MAX_TASKS,
    NAMED,
    STATES,
    JobId,
    Row,
    find_named,
    list_open,
    list_statuses,
    parse_job_id,
    parse_limit,
    parse_rows,
    parse_submit,
)
from tests.test_docs import DOCS, rows, sections

from .conftest import SAMPLES, Install

RECORDED = sorted((SAMPLES / "slurm").glob("*.txt"))
TEMPLATE = (Path(__file__).parents[2] / "etc" / "jobs" / "slurm.sh").read_text()
TERMS = Terms(TEMPLATE, wall_time_s=3600.0)
ORDER = Order("run/submit/1", 4, "pilot.py", ("--key", "run/submit/1"), {"pilot.py": "#!", "picas.json": "s3cret"})


class Said(tuple[str, str, str, int]):
    """One recorded call: the command, its two outputs and its exit code."""

    def played(self) -> str:
        _, stdout, stderr, rc = self
        return f"cat <<'E1'\n{stdout}E1\ncat >&2 <<'E2'\n{stderr}E2\nexit {rc}\n"


def said(name: str) -> list[Said]:
    text = (SAMPLES / "slurm" / f"{name}.txt").read_text()
    found = re.findall(r"^\$ (.*)\n--stdout\n((?s:.*?))--stderr\n((?s:.*?))--rc (\d+)$", text, re.MULTILINE)
    return [Said((command, out, err, int(rc))) for command, out, err, rc in found]


def shown(name: str, fields: tuple[str, ...] = FIELDS) -> list[Row]:
    return parse_rows(said(name)[0][1], fields, closed=True)


def accounted(name: str) -> list[Row]:
    """Rows of a recorded sacct, brought into the form in which we ask for them."""
    lines = said(name)[0][1].splitlines()
    return parse_rows("".join(f"{bar(line)}\n" for line in lines), ACCOUNTED, closed=False)


def bar(line: str) -> str:
    parts = line.split("|")
    return "\t".join((parts[0], *parts[2:4], parts[-1]))


def look(job: str, here: list[Row], there: list[Row] | None = None) -> JobStatus | None:
    return list_statuses([parse_job_id(job)], here, there or []).get(job)


def state(job: str, here: list[Row]) -> str:
    status = look(job, here)
    assert status is not None
    return status.state


def states(status: JobStatus | None) -> dict[str, str]:
    assert status is not None
    return {node.id.partition("_")[2]: node.state for node in status.nodes}


async def shell(
    script: Path, scratch: Path, *options: str, started: list[asyncio.subprocess.Process] | None = None
) -> int:
    """Run a batch script as slurmd does; its exit code."""
    env = {"PATH": os.environ["PATH"], "TMPDIR": str(scratch), "SLURM_JOB_ID": "17"}
    process = await asyncio.create_subprocess_exec("bash", *options, script, env=env, cwd="/", start_new_session=True)
    if started is not None:
        started.append(process)
    try:
        async with asyncio.timeout(20):
            return await process.wait()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.fixture
def slurm(processes: Processes, site: Site, tmp_path: Path) -> Slurm:
    return Slurm(processes, site, TERMS, spool=tmp_path / "spool")


@pytest.fixture
def squeue(install: Install) -> None:
    install("squeue", said("squeue_living")[0].played())
    install("sacct", said("sacct_disabled")[0].played())


# --- what the words mean


@pytest.mark.parametrize(("word", "state"), sorted(STATES.items()))
def test_each_state(word: str, state: str) -> None:
    (row,) = parse_rows(f"17\t{word}\t0\tNone\t\n", FIELDS, closed=True)
    status = row.status("17")
    assert (status.state, status.words, status.reason) == (state, word, "")
    assert status.exit_code == (0 if state == "done_ok" else None)


def test_the_documented_states_are_those_of_the_code() -> None:
    documented = rows(sections(DOCS / "jobs.md")["Slurm"])
    found = {word: cells[0].strip("`") for word, cells in documented.items() if word.isupper()}
    assert found == dict(STATES)
    assert all(cells[1] for word, cells in documented.items() if word.isupper())


@pytest.mark.parametrize("word", ["REVOKED", "NONSENSE", "completed?", "COMPLETED,"])
def test_other_words_are_unknown(word: str) -> None:
    assert Row("17", None, word, "0", "None").status("17").state == "unknown"


@pytest.mark.parametrize(
    ("word", "exit", "reason", "expected"),
    [
        ("COMPLETED", "0", "None", ("done_ok", 0, "")),
        ("COMPLETED", "0:0", "None", ("done_ok", 0, "")),
        ("FAILED", "768", "NonZeroExitCode", ("done_failed", 3, "NonZeroExitCode")),
        ("FAILED", "3:0", "None", ("done_failed", 3, "")),
        ("FAILED", "11", "JobLaunchFailure", ("done_failed", None, "JobLaunchFailure, signal 11")),
        ("FAILED", "0:11", "None", ("done_failed", None, "signal 11")),
        ("FAILED", "139", "None", ("done_failed", None, "signal 11")),
        ("TIMEOUT", "15", "TimeLimit", ("done_failed", None, "TimeLimit, signal 15")),
        ("OUT_OF_MEMORY", "0:125", "OutOfMemory", ("done_failed", None, "OutOfMemory")),
        ("CANCELLED by 1000", "0:0", "None", ("cancelled", None, "")),
        ("CANCELLED+", "15", "None", ("cancelled", None, "")),
        ("FAILED", "1", "BadConstraints", ("aborted", None, "BadConstraints")),
        ("PENDING", "0", "Resources", ("queued", None, "Resources")),
        # What contradicts itself is no success.
        ("COMPLETED", "256", "None", ("done_failed", 1, "")),
        ("COMPLETED", "9", "None", ("done_failed", None, "signal 9")),
        ("COMPLETED", "?", "None", ("unknown", None, "")),
        ("FAILED", "0", "None", ("done_failed", None, "")),
    ],
)
def test_how_a_job_ended(word: str, exit: str, reason: str, expected: tuple[str, int | None, str]) -> None:
    status = Row("17", None, word, exit, reason).status("17")
    assert (status.state, status.exit_code, status.reason) == expected


def test_the_recorded_lives_of_jobs() -> None:
    rows = shown("squeue_living")
    assert state("1", rows) == "done_ok"
    mixed = look("2_[0-3]", rows)
    assert mixed is not None
    assert [(node.state, node.exit_code) for node in mixed.nodes] == [
        ("done_ok", 0), ("done_failed", 3), ("done_failed", None), ("running", None),
    ]  # fmt: skip
    assert (mixed.state, mixed.words) == ("running", "FAILED 2, COMPLETED 1, RUNNING 1")
    waiting = look("8_[0-9]", rows)
    assert waiting is not None
    assert list(states(waiting).values()) == ["running"] * 2 + ["queued"] * 8
    assert look("99", rows) is None
    rows = shown("squeue_cancelling")
    assert list(states(look("8_[0-9]", rows)).values()) == ["running"] * 2 + ["cancelled"] * 8
    rows = shown("squeue_ended")
    assert look("3", rows) == JobStatus("3", "done_failed", "TIMEOUT", reason="TimeLimit, signal 15")
    assert {states(look("8_[0-9]", rows))[str(index)] for index in range(10)} == {"cancelled"}
    cancelled = look("8_[0-9]", rows)
    assert cancelled is not None
    assert (cancelled.state, cancelled.is_final) == ("cancelled", True)
    refused = look("4_[0-3]", rows)
    assert refused is not None
    assert (refused.state, refused.reason) == ("aborted", "BadConstraints")


# --- arrays


def test_the_names_of_jobs() -> None:
    for text, job in {"17": JobId("17"), "17_0": JobId("17", task=0), "17_[0-49]": JobId("17", count=50)}.items():
        assert parse_job_id(text) == job
        assert str(job) == text
    for text in ("", "0", "017", "17_", "17_03", "17_[1-4]", "17_[0-4", "17;x", "-a", "17_[0-4000001]", "17 18", "١٧"):
        with pytest.raises(Permanent, match="expected a number"):
            parse_job_id(text)


def rows_of(text: str) -> list[Row]:
    """`17_3 FAILED 768 Reason`, one a line."""
    return parse_rows("".join("\t".join(line.split()) + "\t\n" for line in text.splitlines()), FIELDS, closed=True)


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ("COMPLETED FAILED CANCELLED", "done_ok"),
        ("FAILED CANCELLED NODE_FAIL", "done_failed"),
        ("NODE_FAIL CANCELLED CANCELLED", "aborted"),
        ("CANCELLED CANCELLED CANCELLED", "cancelled"),
        ("PENDING FAILED COMPLETED", "queued"),
        ("PENDING RUNNING COMPLETED", "running"),
        ("COMPLETING COMPLETED COMPLETED", "running"),
        ("NONSENSE COMPLETED COMPLETED", "unknown"),
        ("COMPLETED COMPLETED", "unknown"),
        ("RUNNING COMPLETED", "running"),
        ("PENDING", "queued"),
    ],
)
def test_an_array_is_what_its_tasks_are(ends: str, state: str) -> None:
    text = "\n".join(
        f"17_{index} {word} {1 if word == 'FAILED' else 0}:0 None" for index, word in enumerate(ends.split())
    )
    status = look("17_[0-2]", rows_of(text))
    assert status is not None
    assert status.state == state
    missing = 3 - len(ends.split())
    assert ("nothing is said of" in status.reason) == bool(missing)


def test_tasks_that_have_one_row_together() -> None:
    """Recorded from other ways to ask: waiting tasks as a list, and cancelled ones without any index."""
    waiting = rows_of("17_[3-9%3] PENDING 0 JobArrayTaskLimit\n17_2 RUNNING 0 None\n17_0 COMPLETED 0 None")
    found = states(look("17_[0-9]", waiting))
    waits = {str(index): "queued" for index in range(3, 10)}
    assert found == {"0": "done_ok", "1": "unknown", "2": "running", **waits}, "who is not told of may live"
    assert state("17_4", waiting) == "queued"
    rest = rows_of("17 CANCELLED 0 JobArrayTaskLimit\n17_1 COMPLETING 0 None\n17_0 FAILED 256 None")
    status = look("17_[0-3]", rest)
    assert states(status) == {"0": "done_failed", "1": "running", "2": "cancelled", "3": "cancelled"}
    assert state("17_3", rest) == "cancelled"
    assert look("17_3", rows_of("17_2 RUNNING 0 None")) is None


def test_among_the_rest_the_accounting_knows_more() -> None:
    rest = rows_of("17 CANCELLED 0 None\n17_0 FAILED 256 None")
    job = parse_job_id("17_[0-3]")
    assert list_open([job], rest) == [job]
    there = parse_rows("17_1\tCOMPLETED\t0:0\tNone\n17_[2-3]\tCANCELLED by 0\t0:0\tNone\n", ACCOUNTED, closed=False)
    assert list(states(look(str(job), rest, there)).values()) == ["done_failed", "done_ok", "cancelled", "cancelled"]


def test_a_task_of_its_own_goes_before_a_list() -> None:
    rows = rows_of("17_[0-2] PENDING 0 None\n17_1 RUNNING 0 None")
    assert states(look("17_[0-2]", rows)) == {"0": "queued", "1": "running", "2": "queued"}


def test_lists_that_were_cut_stand_for_the_rest() -> None:
    cut = rows_of("17_[0,2,4,...] PENDING 0 None")
    assert set(states(look("17_[0-9]", cut)).values()) == {"queued"}


def test_the_accounting_is_believed_when_each_task_has_its_row() -> None:
    final = accounted("sacct_final")
    status = look("1_[0-5]", [], final)
    assert status is not None
    assert [node.state for node in status.nodes] == [
        "done_ok", "done_failed", "done_failed", "cancelled", "done_ok", "done_ok",
    ]  # fmt: skip
    assert (status.state, status.nodes[1].exit_code, status.nodes[2].reason) == ("done_ok", 3, "signal 11")
    assert set(states(look("3_[0-9]", [], final)).values()) == {"cancelled"}
    assert look("2", [], final) is None, "the accounting alone says that it runs, and the controller does not know it"
    running = accounted("sacct_running")
    partly = look("1_[0-5]", [], running)
    assert partly is not None
    assert (partly.state, [name for name, one in states(partly).items() if one != "unknown"]) == ("unknown", ["1"])


@pytest.mark.parametrize("at", ["t=1.5s", "t=3.0s", "t=4.5s"])
def test_the_accounting_is_wrong_about_arrays_that_are_new(at: str) -> None:
    text = (SAMPLES / "slurm" / "sacct_array_eventual_consistency.txt").read_text()
    block = text.partition(at)[2].partition("\n")[2].partition("t=")[0]
    there = parse_rows("".join(f"{bar(line + '|None')}\n" for line in block.splitlines()), ACCOUNTED, closed=False)
    assert there
    for job in ("1_[0-2]", "2_[0-2]"):
        status = look(job, [], there)
        if at == "t=4.5s":
            assert list(states(status).values()) == ["done_ok", "done_failed", "done_failed"]
        else:
            assert status is None


def test_steps_of_jobs_are_no_jobs() -> None:
    lines = said("sacct_noX")[0][1].splitlines()
    text = "".join("\t".join(line.split("|")[:4]) + "\n" for line in lines)
    assert len(lines) == 12
    assert [row.index for row in parse_rows(text, ACCOUNTED, closed=False)] == list(range(6))


# --- parsers and noise


def test_a_row_that_was_cut_off_says_nothing() -> None:
    text = "17_1\tCOMPLETED\t0\tNone\t\n"
    for end in range(len(text) - 1):
        assert parse_rows(text[:end], FIELDS, closed=True) == []


@given(st.data())
def test_noise_and_loss_never_end_a_job(data: st.DataObject) -> None:
    """Lines lost, repeated, in another order, cut off, and others between them."""
    name = data.draw(st.sampled_from(["squeue_living", "squeue_cancelling", "squeue_ended"]))
    lines = said(name)[0][1].splitlines(keepends=True)
    jobs = [parse_job_id(job) for job in ("1", "2_[0-3]", "3", "4_[0-3]", "8_[0-9]", "9_[0-1]", "2_3")]
    truth = list_statuses(jobs, shown(name), [])
    noise = st.text(max_size=20).map(lambda text: text.replace("\t", "") + "\n")
    mixed = data.draw(st.lists(st.sampled_from(lines) | noise, max_size=40))
    text = "".join(mixed)
    text = text[: data.draw(st.integers(0, len(text)))]
    for job, status in list_statuses(jobs, parse_rows(text, FIELDS, closed=True), []).items():
        if not status.nodes:
            assert replace(status, nodes=()) == replace(truth[job], nodes=())
        true = {node.id: node for node in truth[job].nodes}
        assert all(node.reason == "nothing is said of it" or node == true[node.id] for node in status.nodes)
        if status.is_final:
            assert status.state == truth[job].state


@given(st.sampled_from(RECORDED), st.integers(0, 4000), st.text(max_size=4), st.integers(0, 60), st.booleans())
def test_a_mutated_output_never_raises(path: Path, at: int, put: str, cut: int, closed: bool) -> None:
    text = path.read_text()
    text = text[:at] + put + text[at + cut :]
    for fields in (FIELDS, (*FIELDS, *NAMED)):
        rows = parse_rows(text, fields, closed=closed)
        found = list_statuses([parse_job_id("1"), parse_job_id("2_[0-3]"), parse_job_id("8_2")], rows, rows)
        assert all(status.state for status in found.values())
        find_named(rows, "run/b")
    assert parse_submit(text) is None or parse_submit(text)
    assert parse_limit(text) is None or parse_limit(text)


@given(st.text())
def test_any_text_is_a_job_id_or_permanent(text: str) -> None:
    with suppress(Permanent):
        assert str(parse_job_id(text)) == text


@pytest.mark.parametrize(
    ("stdout", "number"),
    [
        ("17\n", "17"),
        ("17;spider\n", "17"),
        ("Submitted batch job 8\n", "8"),
        ("Submitted batch job 8 on cluster spider\n", "8"),
        ("Your project has 12 hours left\n17\n", "17"),
        ("17\n18\n", None),
        ("", None),
        ("17 18\n", None),
        ("0\n", None),
        ("-1\n", None),
    ],
)
def test_parse_submit(stdout: str, number: str | None) -> None:
    assert parse_submit(stdout) == number


# --- submitting


async def test_a_submission(slurm: Slurm, install: Install, tmp_path: Path) -> None:
    install("sbatch", f"cat > {tmp_path}/script; env > {tmp_path}/env; echo 17")
    assert await slurm.submit(ORDER, None) == ("17_[0-3]",)
    argv = (tmp_path / "sbatch.argv").read_text()
    spool = tmp_path / "spool"
    assert argv == (
        "--time=60 --ntasks=1 --cpus-per-task=1 --parsable --no-requeue --job-name=run/submit/1 --comment=4 run/submit/1 "
        f"--chdir={spool} --output={spool}/logs/%A_%a.out --error={spool}/logs/%A_%a.err --signal=B:TERM@120 --array=0-3\n"
    )
    (place,) = [path for path in spool.iterdir() if path.is_dir() and path.name != "logs"]
    assert stat.S_IMODE(spool.stat().st_mode) == stat.S_IMODE(place.stat().st_mode) == 0o700
    files = {path.name: (path.read_text(), stat.S_IMODE(path.stat().st_mode)) for path in place.iterdir()}
    assert files == {"pilot.py": ("#!", 0o600), "picas.json": ("s3cret", 0o600)}
    script = (tmp_path / "script").read_text()
    assert f"sandbox={place}\n" in script
    assert await shell(tmp_path / "script", tmp_path, "-n") == 0
    assert "s3cret" not in argv + script + (tmp_path / "env").read_text()


async def test_one_pilot_is_no_array(processes: Processes, site: Site, install: Install, tmp_path: Path) -> None:
    terms = Terms(TEMPLATE, queue="short", wall_time_s=100.0, cpus=4)
    slurm = Slurm(processes, site, terms, spool=tmp_path / "100% ours")
    install("sbatch", "echo 17")
    order = replace(ORDER, count=1, requirements='--constraint=skylake --reservation="two words"')
    assert await slurm.submit(order, None) == ("17",)
    argv = (tmp_path / "sbatch.argv").read_text()
    assert argv.startswith(
        "--time=2 --ntasks=1 --cpus-per-task=4 --partition=short --constraint=skylake --reservation=two words --parsable "
    )
    assert "--array" not in argv
    assert f"--output={tmp_path}/100%% ours/logs/%j.out" in argv
    assert "--signal=B:TERM@50" in argv


@pytest.mark.parametrize(
    "requirements",
    ["--array=0-9", "--arr=0-9", "--job-name=x", "--wrap=true", "--wait", "--parsable", "--requeue", "-p short", "-W",
     "--partition short", "script.sh", "--", "--comment", "--time=1\n", "'--x", "--clusters=all", "--Time=1", "=", "--x=é"],
)  # fmt: skip
async def test_requirements_that_are_refused(slurm: Slurm, processes: Processes, requirements: str) -> None:
    with pytest.raises(Permanent):
        await slurm.submit(replace(ORDER, requirements=requirements), None)
    assert processes.started == 0


@pytest.mark.parametrize(
    "changes",
    [{"key": ""}, {"key": "a\tb"}, {"key": "é"}, {"sandbox": {"../x": ""}}, {"arguments": ("a b",)}, {"count": 0},
     {"executable": "$(rm)"}, {"sandbox": {"x": "\ud800"}}],
)  # fmt: skip
async def test_orders_that_are_refused(
    slurm: Slurm, processes: Processes, tmp_path: Path, changes: dict[str, object]
) -> None:
    with pytest.raises(Permanent):
        await slurm.submit(replace(ORDER, **changes), None)
    assert processes.started == 0
    assert {path.name for path in tmp_path.glob("spool/*")} <= {"logs", "key"}


REFUSALS = {
    0: "Invalid job array specification",
    1: "invalid partition specified: nope",
    2: "Memory specification can not be satisfied",
    3: "Invalid feature specification",
    4: "Unable to open file",
    5: "script is empty",
    6: "unrecognized option",
    7: "Invalid --time specification",
    8: "requires an argument",
    9: "Requested reservation is invalid",
    10: "Invalid license specification",
    11: "Invalid generic resource",
    12: "Invalid node name",
}


@pytest.mark.parametrize("number", REFUSALS)
async def test_recorded_refusals_are_permanent(slurm: Slurm, install: Install, number: int) -> None:
    install("sbatch", said("sbatch_refusals")[number].played())
    install("scontrol", said("config")[0].played())
    with pytest.raises(Permanent, match=re.escape(REFUSALS[number])):
        await slurm.submit(ORDER, None)


async def test_an_array_that_is_too_large_names_the_limit(slurm: Slurm, install: Install) -> None:
    install("sbatch", said("sbatch_refusals")[0].played())
    install("scontrol", said("config")[0].played())
    with pytest.raises(Permanent, match=r"the cluster takes 1001 in one array .*: 1002 are too many"):
        await slurm.submit(replace(ORDER, count=1002), None)
    install("scontrol", "exit 1")
    with pytest.raises(Permanent, match="the cluster takes fewer in one array"):
        await slurm.submit(replace(ORDER, count=1002), None)
    assert parse_limit("MaxArraySize = 1001\nSchedulerParameters = x,max_array_tasks=50,y\n") == 50


FAILED = "sbatch: error: Batch job submission failed: "


@pytest.mark.parametrize(
    ("stderr", "rc", "expected"),
    [
        (FAILED + "Unable to contact slurm controller (connect failure)", 1, Temporary),
        (FAILED + "Unable to contact slurm controller (send failure)", 1, Unknown),
        (FAILED + "Unable to contact slurm controller (receive failure)", 1, Unknown),
        (FAILED + "Socket timed out on send/recv operation", 1, Unknown),
        (FAILED + "Resource temporarily unavailable", 1, Unknown),
        (FAILED + "Zero Bytes were transmitted or received", 1, Unknown),
        (FAILED + "Invalid authentication credential", 1, Unknown),
        (FAILED + "Unspecified error", 1, Unknown),
        ("sbatch: error: AssocMaxSubmitJobLimit\n" + FAILED + "Job violates accounting/QOS policy (...)", 1, Temporary),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n" + FAILED + "Job violates accounting/QOS policy", 1, Temporary),
        (FAILED + "Job violates accounting/QOS policy (job submit limit, ...)", 1, Permanent),
        (FAILED + "Required partition not available (inactive or drain)", 1, Temporary),
        (FAILED + "Requested operation is presently disabled", 1, Temporary),
        (FAILED + "Requested partition configuration not available now", 1, Permanent),
        (FAILED + "Requested time limit is invalid (missing or exceeds some limit)", 1, Permanent),
        (FAILED + "Access/permission denied", 1, Permanent),
        ("", 0, Unknown),
        ("", 1, Unknown),
    ],
)
async def test_what_a_failed_submission_says(
    slurm: Slurm, install: Install, stderr: str, rc: int, expected: type[OutsideError]
) -> None:
    install("sbatch", f"cat >&2 <<'E2'\n{stderr}\nE2\nexit {rc}\n")
    with pytest.raises(OutsideError) as caught:
        await slurm.submit(ORDER, None)
    assert type(caught.value) is expected


@pytest.mark.parametrize("name", ["controller_down", "no_munge", "no_config"])
async def test_what_was_never_sent_is_temporary(slurm: Slurm, install: Install, name: str) -> None:
    for call in said(name):
        install(call[0].split()[0], call.played())
    install("sacct", "exit 1")
    with pytest.raises(Temporary):
        await slurm.submit(ORDER, None)
    with pytest.raises(Temporary):
        await slurm.status(["1"])
    with pytest.raises(Temporary):
        await slurm.list_ours()
    with pytest.raises(Unknown):
        await slurm.find("run/a")


async def test_a_job_whose_submission_complains_was_submitted(slurm: Slurm, install: Install) -> None:
    install("sbatch", "echo 17; echo 'sbatch: error: something' >&2; exit 1")
    assert await slurm.submit(ORDER, None) == ("17_[0-3]",)


async def test_a_submission_that_hangs_is_unknown(site: Site, install: Install, tmp_path: Path) -> None:
    hasty = Processes(path=str(tmp_path / "bin"), env={"PATH": os.environ["PATH"]}, longest_s=0.5)
    install("sbatch", "cat > /dev/null; sleep 60")
    with pytest.raises(Unknown, match="sbatch was killed"):
        await Slurm(hasty, site, TERMS, spool=tmp_path / "spool").submit(ORDER, None)


async def test_no_tools_is_temporary_for_all(site: Site, tmp_path: Path) -> None:
    slurm = Slurm(Processes(env={"PATH": "/nonexistent"}), site, TERMS, spool=tmp_path / "spool")
    for verb in (slurm.submit(ORDER, None), slurm.status(["1"]), slurm.cancel("1"), slurm.list_ours()):
        with pytest.raises(Temporary, match="cannot be started"):
            await verb
    with pytest.raises(Unknown, match="cannot be started"):
        await slurm.find("x")
    assert await slurm.prepare(ORDER) is None


# --- finding


async def test_finding_by_name(slurm: Slurm, install: Install, processes: Processes) -> None:
    install("squeue", said("squeue_named")[0].played())
    install("sacct", said("sacct_disabled")[0].played())
    assert await slurm.find("run/a") == ("1",)
    assert await slurm.find("run/d") == ("8_[0-9]",)
    assert await slurm.find("run/e|x, y") == ("9_[0-1]",)
    started = processes.started
    assert await slurm.find("run/refused") == ()
    assert await slurm.find("run") == ()
    assert processes.started == started + 4, "what the controller does not show the accounting is asked for"


def test_the_size_of_an_array_is_known_whatever_is_left_of_it() -> None:
    fields = (*FIELDS, *NAMED)
    for line, job in {
        "17_3\tRUNNING\t0\tNone\t50 a/b\ta/b\t": "17_[0-49]",
        "17\tCANCELLED\t0\tNone\t50 a/b\ta/b\t": "17_[0-49]",
        "17_[3-9%2]\tPENDING\t0\tNone\tthe site's own\ta/b\t": "17_[0-9]",
        "17_9\tRUNNING\t0\tNone\t(null)\ta/b\t": "17_[0-9]",
        "17\tRUNNING\t0\tNone\t\ta/b\t": "17",
    }.items():
        assert find_named(parse_rows(f"{line}\n", fields, closed=True), "a/b") == (job,)


async def test_finding_in_the_accounting(slurm: Slurm, install: Install, tmp_path: Path) -> None:
    install("squeue", "exit 0")
    install("sacct", "printf '17_0\\tCOMPLETED\\t0:0\\tNone\\t\\ta/b\\n17_1\\tFAILED\\t1:0\\tNone\\t\\ta/b\\n'")
    assert await slurm.find("a/b") == ("17_[0-1]",)
    assert "--name=a/b --starttime=now-60days" in (tmp_path / "sacct.argv").read_text()
    assert await slurm.find("a,b") == ()
    assert "--name" not in (tmp_path / "sacct.argv").read_text().splitlines()[1]


@pytest.mark.parametrize("stderr", ["sacct: error: slurm_persist_conn_open: failed", ""])
async def test_nobody_can_tell_when_the_accounting_does_not(slurm: Slurm, install: Install, stderr: str) -> None:
    install("squeue", "exit 0")
    install("sacct", f"echo '{stderr}' >&2; exit 1")
    with pytest.raises(Unknown, match="nobody can tell"):
        await slurm.find("a/b")


async def test_a_list_that_may_lack_something_proves_no_absence(slurm: Slurm, install: Install) -> None:
    install("sacct", said("sacct_disabled")[0].played())
    install("squeue", said("squeue_named")[0].played().replace("exit 0", "echo 'squeue: error: x' >&2; exit 0"))
    with pytest.raises(Unknown, match="squeue: error: x"):
        await slurm.find("run/none")


# --- status


@pytest.mark.usefixtures("squeue")
async def test_one_process_for_many_jobs(slurm: Slurm, processes: Processes, tmp_path: Path) -> None:
    found = await slurm.status(["1", "2_[0-3]", "8_[0-9]", "2_1", "1"])
    assert {job: status.state for job, status in found.items()} == {
        "1": "done_ok", "2_[0-3]": "running", "8_[0-9]": "running", "2_1": "done_failed",
    }  # fmt: skip
    assert processes.started == 1
    assert "--jobs=1,2,8" in (tmp_path / "squeue.argv").read_text()


@pytest.mark.usefixtures("squeue")
async def test_jobs_of_which_nothing_is_said_are_left_out(slurm: Slurm, install: Install, tmp_path: Path) -> None:
    assert list(await slurm.status(["1", "99", "98_[0-3]"])) == ["1"]
    assert (tmp_path / "sacct.argv").read_text().splitlines()[0].endswith("--jobs=99,98")
    for name in ("squeue_one_unknown", "squeue_all_unknown"):
        install("squeue", said(name)[0].played())
        assert await slurm.status(["99999"]) == {}


async def test_the_accounting_is_asked_once_about_all_that_are_missing(
    slurm: Slurm, processes: Processes, install: Install, tmp_path: Path
) -> None:
    install("squeue", "printf '5_1\\tRUNNING\\t0\\tNone\\t\\n'")
    install(
        "sacct", "printf '4\\tTIMEOUT\\t0:15\\tNone\\n5_0\\tCOMPLETED\\t0:0\\tNone\\n5_1\\tPENDING\\t0:0\\tNone\\n'"
    )
    found = await slurm.status(["4", "5_[0-1]", "6"])
    assert {job: status.state for job, status in found.items()} == {"4": "done_failed", "5_[0-1]": "running"}
    assert states(found["5_[0-1]"]) == {"0": "done_ok", "1": "running"}
    assert processes.started == 2
    assert (tmp_path / "sacct.argv").read_text().endswith("--jobs=4,5,6\n")


async def test_a_silent_accounting_makes_unknown_what_only_it_could_tell(slurm: Slurm, install: Install) -> None:
    install(
        "squeue", "printf '4\\tRUNNING\\t0\\tNone\\t\\n5_1\\tRUNNING\\t0\\tNone\\t\\n7_1\\tFAILED\\t256\\tNone\\t\\n'"
    )
    install("sacct", "echo 'sacct: error: Problem talking to the database' >&2; exit 1")
    found = await slurm.status(["4", "5_[0-1]", "6", "7_[0-1]"])
    assert {job: status.state for job, status in found.items()} == {
        "4": "running", "5_[0-1]": "running", "6": "unknown", "7_[0-1]": "unknown",
    }  # fmt: skip
    assert "Problem talking" in found["6"].reason


async def test_partial_output_is_used(slurm: Slurm, install: Install) -> None:
    install("squeue", "printf '4\\tRUNNING\\t0\\tNone\\t\\n'; echo 'slurm_load_jobs error: x' >&2; exit 1")
    assert (await slurm.status(["4"]))["4"].state == "running"


@pytest.mark.parametrize("text", ["exit 1", "echo 'squeue: error: timed out' >&2", "kill -9 $$"])
async def test_no_word_of_the_controller_is_temporary(slurm: Slurm, install: Install, text: str) -> None:
    install("squeue", text)
    with pytest.raises(Temporary):
        await slurm.status(["4"])


async def test_more_than_500_jobs_take_two_looks(slurm: Slurm, processes: Processes, install: Install) -> None:
    body = "import re\nfor i in sys.argv[-1].partition('=')[2].split(','): print(i, 'RUNNING', '0', 'None', '', sep='\\t')\n"
    install("squeue", body)
    found = await slurm.status([str(number) for number in range(1, 502)])
    assert len(found) == 501
    assert processes.started == 2
    assert await slurm.status([]) == {}


async def test_what_is_no_job_id_is_never_asked_for(slurm: Slurm, processes: Processes) -> None:
    for wrong in ("--all", "17;x", ""):
        for verb in (slurm.status([wrong]), slurm.cancel(wrong), slurm.output(wrong, Path())):
            with pytest.raises(Permanent):
                await verb
    assert processes.started == 0


async def test_all_jobs_of_ours(slurm: Slurm, install: Install) -> None:
    install("squeue", said("squeue_named")[0].played())
    found = await slurm.list_ours()
    assert {job: status.state for job, status in found.items()} == {
        "1": "done_ok", "2_[0-3]": "running", "3": "running", "4_[0-3]": "aborted", "8_[0-9]": "running",
        "9_[0-1]": "queued",
    }  # fmt: skip
    install("squeue", "printf '17_3\\tRUNNING\\t0\\tNone\\t(null)\\tby hand\\t\\n18\\tRUNNING\\t0\\tNone\\t\\tx\\t\\n'")
    assert {job: status.state for job, status in (await slurm.list_ours()).items()} == {
        "17": "running",
        "18": "running",
    }


# --- the others


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo 'scancel: error: Kill job error on job id 1: Access/permission denied' >&2; exit 1", Permanent),
        ("echo 'scancel: error: Kill job error on job id 1: Socket timed out' >&2; exit 1", Unknown),
        (said("no_munge")[2].played(), Temporary),
        ("exit 1", Unknown),
    ],
)
async def test_cancelling(
    slurm: Slurm, install: Install, tmp_path: Path, text: str, expected: type[OutsideError]
) -> None:
    install("scancel", "exit 0")
    for job in ("17", "17_3", "17_[0-9]"):
        await slurm.cancel(job)
    assert (tmp_path / "scancel.argv").read_text().split() == ["17", "17_3", "17"]
    install("scancel", "echo 'scancel: error: Kill job error on job id 1: Invalid job id specified' >&2; exit 1")
    await slurm.cancel("1")
    install("scancel", text)
    with pytest.raises(OutsideError) as caught:
        await slurm.cancel("1")
    assert type(caught.value) is expected


async def test_fetching_the_output(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(Temporary, match="printed nothing yet"):
        await slurm.output("17_[0-1]", tmp_path / "out")
    logs = tmp_path / "spool" / "logs"
    logs.mkdir(parents=True)
    for name in ("17_0.out", "17_0.err", "17_1.out", "17_2.out", "17.out", "18.out"):
        (logs / name).write_text(name)
    place = await slurm.output("17_[0-1]", tmp_path / "out")
    assert place.parent == tmp_path / "out"
    assert {path.name: path.read_text() for path in place.iterdir()} == {
        name: name for name in ("17_0.out", "17_0.err", "17_1.out")
    }
    assert [path.name for path in (await slurm.output("17_2", tmp_path / "out")).iterdir()] == ["17_2.out"]
    assert [path.name for path in (await slurm.output("17", tmp_path / "out")).iterdir()] == ["17.out"]


async def test_of_a_log_without_end_its_beginning_is_fetched(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm_spool, "MAX_LOG_BYTES", 5)
    logs = tmp_path / "spool" / "logs"
    logs.mkdir(parents=True)
    (logs / "17.out").write_text("123456")
    place = await slurm.output("17", tmp_path / "out")
    assert (place / "17.out").read_text() == "12345"


@pytest.mark.parametrize(("last", "is_one"), [(MAX_TASKS - 1, True), (MAX_TASKS, False)])
def test_an_array_has_so_many_tasks(last: int, is_one: bool) -> None:
    if is_one:
        assert parse_job_id(f"17_[0-{last}]").count == MAX_TASKS
    else:
        with pytest.raises(Permanent):
            parse_job_id(f"17_[0-{last}]")


# --- the spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", keep_s=KEEP_DAYS * 86_400.0)


def test_submissions_with_the_same_files_share_them(spool: Spool) -> None:
    one, two = {"a": "1", "b": "2"}, {"a": "1", "b": "3"}
    place = spool.place(one)
    assert place == spool.place(dict(reversed(one.items())))
    assert len({place, spool.place(two), spool.place({"a": "1b", "": "2"}), spool.place({"a": "1"})}) == 4
    spool.keep(place, one)
    before = (place / "a").stat().st_ino
    os.utime(place, (0, 0))
    spool.keep(place, one)
    assert (place / "a").stat().st_ino == before
    assert place.stat().st_mtime > 1e9, "it counts as used"
    assert [path.name for path in spool.path.iterdir() if path.name.startswith(".")] == []


def test_the_name_of_a_sandbox_tells_nothing_of_a_password(tmp_path: Path) -> None:
    """The same files have another name elsewhere: nobody can try passwords until the name fits."""
    files = {"picas.json": "s3cret"}
    assert len({Spool(tmp_path / name, keep_s=1.0).place(files).name for name in ("a", "b")}) == 2
    key = tmp_path / "a" / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.write_bytes(b"")
    with pytest.raises(Temporary, match="expected 32"):
        Spool(tmp_path / "a", keep_s=1.0).place(files)


def test_what_nobody_used_for_long_is_removed(spool: Spool) -> None:
    old, young, new = ({"a": str(number)} for number in range(3))
    for files in (old, young):
        spool.keep(spool.place(files), files)
    broken = spool.path / ".new-x"
    broken.mkdir()
    (spool.logs / "old.out").write_text("")
    (spool.logs / "young.out").write_text("")
    (spool.path / "of somebody else").mkdir()
    long_ago = spool.path.stat().st_mtime - (KEEP_DAYS + 1) * 86_400
    for path in (spool.place(old), broken, spool.logs / "old.out", spool.path / "of somebody else"):
        os.utime(path, (long_ago, long_ago))
    spool.keep(spool.place(new), new)
    left = {path.name for path in spool.path.iterdir()}
    assert left == {"key", "logs", "of somebody else", spool.place(young).name, spool.place(new).name}
    assert [path.name for path in spool.logs.iterdir()] == ["young.out"]


async def test_a_spool_that_cannot_be_written_is_temporary(processes: Processes, site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Temporary, match=re.escape(f"{tmp_path}/file")):
        await Slurm(processes, site, TERMS, spool=tmp_path / "file" / "spool").submit(ORDER, None)
    assert processes.started == 0


def test_a_link_among_the_logs_is_not_followed(spool: Spool, tmp_path: Path) -> None:
    spool.place({})
    (tmp_path / "secret").write_text("x")
    (spool.logs / "1.out").symlink_to(tmp_path / "secret")
    (spool.logs / "1.err").write_text("y")
    with pytest.raises(OSError, match="symbolic links"):
        spool.copy_logs(["1.out", "1.err"], tmp_path / "out", "slurm-")


# --- the script, by a shell


PILOT = """import os, signal, sys, time
def leave(*_):
    open(sys.argv[1], "a").write("told ")
    sys.exit(7)
signal.signal(signal.SIGTERM, leave)
open(sys.argv[1], "w").write(f"{os.getcwd()} {os.environ['TMPDIR']} {os.getpid()} ")
open("rubbish", "w").write("x")
while True:
    time.sleep(60)
"""


async def test_the_script(slurm: Slurm, install: Install, tmp_path: Path) -> None:
    """The pilot works in a directory of its own, is told to end, is waited for, and leaves nothing."""
    install("sbatch", f"cat > {tmp_path}/script; echo 17")
    scratch, mark = tmp_path / "scratch", tmp_path / "mark"
    started: list[asyncio.subprocess.Process] = []
    scratch.mkdir()
    order = Order("k", 1, sys.executable, ("pilot.py", str(mark)), {"pilot.py": PILOT, "picas.json": "s3cret"})
    await slurm.submit(order, None)
    running = asyncio.create_task(shell(tmp_path / "script", scratch, started=started))
    try:
        while not mark.exists() or len(mark.read_text().split()) < 3:
            assert not running.done()
            await asyncio.sleep(0.01)
        work, temporary, _ = mark.read_text().split()
        assert work == temporary
        assert Path(work).parent == scratch
        assert Path(work).name.startswith("aglowd-job-17-")
        assert stat.S_IMODE(Path(work).stat().st_mode) == 0o700
        assert stat.S_IMODE((Path(work) / "picas.json").stat().st_mode) == 0o600
        started[0].terminate()
        assert await running == 7
    finally:
        running.cancel()
    assert mark.read_text().endswith("told ")
    assert list(scratch.iterdir()) == []
    (place,) = [path for path in (tmp_path / "spool").iterdir() if len(path.name) == 64]
    assert sorted(path.name for path in place.iterdir()) == ["picas.json", "pilot.py"]


async def test_a_script_without_its_sandbox_starts_nothing(slurm: Slurm, install: Install, tmp_path: Path) -> None:
    install("sbatch", f"cat > {tmp_path}/script; echo 17")
    order = Order("k", 1, "/usr/bin/touch", (str(tmp_path / "mark"),), {"a": "x"})
    await slurm.submit(order, None)
    (place,) = [path for path in (tmp_path / "spool").iterdir() if len(path.name) == 64]
    (place / "a").rename(tmp_path / "a")
    assert await shell(tmp_path / "script", tmp_path) == 75
    assert not (tmp_path / "mark").exists()
    (tmp_path / "a").rename(place / "a")
    assert await shell(tmp_path / "script", tmp_path) == 0
    assert (tmp_path / "mark").exists()
    assert list(tmp_path.glob("aglowd-job-*")) == []
