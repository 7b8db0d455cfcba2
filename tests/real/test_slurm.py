"""The Slurm adapter at a real Slurm: pilots run and end in every way, and nothing that Slurm shows is secret."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.batch import JobStatus, Order, Terms
from aglowd.grid.gate import Site
from aglowd.grid.proc import Processes
from aglowd.grid.slurm import Slurm
from aglowd.sim.slurm import private_slurm

TEMPLATE = (Path(__file__).parents[2] / "etc" / "jobs" / "slurm.sh").read_text()
SECRET = "hunter2 is our s3cret"
PATIENCE_S = 40.0

PILOT = f"""import os, signal, sys, time
task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
way = sys.argv[1 + task] if len(sys.argv) > 2 else sys.argv[1]
def leave(*_):
    print("told", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print(os.getcwd(), oct(os.stat(".").st_mode), oct(os.stat("picas.json").st_mode), flush=True)
assert open("picas.json").read() == {SECRET!r}
if way == "wait":
    while True:
        time.sleep(60)
elif way.startswith("signal"):
    os.kill(os.getpid(), int(way[6:]))
sys.exit(int(way))
"""


def order(key: str, *ways: str, requirements: str = "") -> Order:
    """A pilot for each way to end."""
    files = {"pilot.py": PILOT, "picas.json": SECRET}
    return Order(key, len(ways), sys.executable, ("pilot.py", *ways), files, requirements)


class Place:
    """An adapter at a Slurm, and other ways to look at it."""

    def __init__(self, env: Mapping[str, str], directory: Path, wall_time_s: float = 3600.0) -> None:
        self.env = env
        self.directory = directory
        self.scratch = directory / "scratch"
        self.scratch.mkdir(exist_ok=True)
        self.processes = Processes(env={**env, "TMPDIR": str(self.scratch)}, concurrency=8)
        terms = Terms(TEMPLATE, wall_time_s=wall_time_s)
        self.slurm = Slurm(self.processes, Site("slurm", Clock()), terms, spool=directory / "spool")

    async def run(self, *argv: str) -> str:
        said = await self.processes.run(argv, write=False, timeout_s=20.0)
        return said.stdout + said.stderr

    async def until(self, job: str, is_so: Callable[[JobStatus], bool]) -> list[JobStatus]:
        """All that was seen of the job until that is so, in order."""
        seen: list[JobStatus] = []
        until = time.monotonic() + PATIENCE_S
        while not seen or not is_so(seen[-1]):
            assert time.monotonic() < until, f"{job} is still {seen}"
            found = (await self.slurm.status([job])).get(job)
            if found is not None and found not in seen[-1:]:
                seen.append(found)
            await asyncio.sleep(0.05)
        return seen

    async def said(self, job: str) -> dict[str, str]:
        place = await self.slurm.output(job, self.directory / "out")
        return {path.name: path.read_text() for path in place.iterdir()}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with private_slurm(tmp_path / "slurm") as env:
        yield Place(env, tmp_path)


async def test_pilots_run_and_end_in_every_way(place: Place) -> None:
    slurm = place.slurm
    (job,) = await slurm.submit(order("run/a,b|c", "0", "3", "signal11", "wait"), None)
    (single,) = await slurm.submit(order("run/single", "0"), None)
    assert await slurm.find("run/a,b|c") == (job,)
    seen = await place.until(job, lambda status: sum(node.is_final for node in status.nodes) == 3)
    assert seen[-1].state == "running"
    assert {status.state for status in seen} <= {"queued", "running"}
    assert [(node.id, node.state, node.exit_code) for node in seen[-1].nodes] == [
        (f"{job[:-6]}_0", "done_ok", 0),
        (f"{job[:-6]}_1", "done_failed", 3),
        (f"{job[:-6]}_2", "done_failed", 139),
        (f"{job[:-6]}_3", "running", None),
    ]
    await slurm.cancel(job)
    await slurm.cancel(job)
    ended = (await place.until(job, lambda status: status.is_final))[-1]
    assert (ended.state, ended.nodes[3].state) == ("done_ok", "cancelled")
    said = await place.said(job)
    assert said[f"{job[:-6]}_3.out"].endswith("told\n"), "the pilot itself was told"
    directories = {text.split()[0] for name, text in said.items() if name.endswith(".out")}
    assert len(directories) == 4
    assert {os.path.dirname(path) for path in directories} == {str(place.scratch)}
    assert list(place.scratch.iterdir()) == [], "each had a directory of its own, which is gone"
    assert all("0o40700 0o100600" in text for name, text in said.items() if name.endswith(".out"))
    assert (await place.until(single, lambda status: status.is_final))[-1].exit_code == 0
    assert await slurm.find("run/a,b|c") == (job,)
    assert await slurm.find("run/a") == ()
    assert (await slurm.list_ours())[job].state == "done_ok"
    assert list(await slurm.status([job, single, "99999"])) == [job, single]
    assert (await slurm.status([f"{job[:-6]}_1"]))[f"{job[:-6]}_1"].exit_code == 3


async def test_what_waits_is_cancelled_and_what_is_refused_is_no_submission(place: Place) -> None:
    slurm = place.slurm
    (held,) = await slurm.submit(order("run/held", "0", "0", requirements="--hold"), None)
    assert (await slurm.status([held]))[held].reason == "JobHeldUser"
    (busy,) = await slurm.submit(order("run/busy", *["wait"] * 70), None)
    await place.until(busy, lambda status: sum(node.state == "running" for node in status.nodes) == 64)
    await slurm.cancel(held)
    await slurm.cancel(busy)
    assert (await place.until(held, lambda status: status.is_final))[-1].state == "cancelled"
    ended = (await place.until(busy, lambda status: status.is_final))[-1]
    assert {node.state for node in ended.nodes} == {"cancelled"}
    assert len(ended.nodes) == 70
    for requirements, words in {
        "--mem=9999999": "node configuration is not available",
        "--partition=nope": "Invalid partition name",
        "--frobnicate": "unrecognized option",
    }.items():
        with pytest.raises(Permanent, match=words):
            await slurm.submit(order("run/refused", "0", "0", requirements=requirements), None)
    assert "run/refused" in await place.run("squeue", "--states=all", "--format=%j"), "a refusal leaves a record"
    assert await slurm.find("run/refused") == ()
    with pytest.raises(Permanent, match=r"takes 1001 in one array .*: 1002 are too many"):
        await slurm.submit(Order("run/large", 1002, "/bin/true", ()), None)


async def test_nothing_that_is_shown_is_secret(place: Place) -> None:
    (job,) = await place.slurm.submit(order("run/secret", "wait", "wait"), None)
    await place.until(job, lambda status: all(node.state == "running" for node in status.nodes))
    number = job.partition("_")[0]
    shown = await place.run("scontrol", "show", "job", "-d", number)
    assert "run/secret" in shown
    script = await place.run("scontrol", "write", "batch_script", f"{number}", "-")
    assert "sandbox=" in script
    commands = await place.run("ps", "-eo", "args")
    assert "pilot.py wait" in commands
    pilots = (await place.run("pgrep", "-f", "pilot.py wait wait$")).split()
    found = [Path(f"/proc/{pid}/environ").read_text() for pid in pilots]
    environments = [text for text in found if str(place.directory) in text]  # Other tests have pilots of their own.
    assert len(environments) == 2
    for text in (shown, script, commands, *environments):
        assert SECRET not in text


async def test_the_word_before_the_limit_reaches_the_pilot(tmp_path: Path, place: Place) -> None:
    """With a minute of wall time it comes at once, for Slurm sends it up to half a minute early."""
    hasty = Place(place.env, tmp_path, wall_time_s=60.0)
    (job,) = await hasty.slurm.submit(order("run/limit", "wait"), None)
    ended = (await hasty.until(job, lambda status: status.is_final))[-1]
    assert (ended.state, ended.exit_code) == ("done_ok", 0), "it was told, and ended well before it was killed"
    assert (await hasty.said(job))[f"{job}.out"].endswith("told\n")


async def test_what_slurm_forgot_is_left_out(tmp_path: Path) -> None:
    async with private_slurm(tmp_path / "slurm", cpus=2, min_job_age_s=2) as env:
        place = Place(env, tmp_path)
        (job,) = await place.slurm.submit(order("run/short", "0", "0"), None)
        await place.until(job, lambda status: status.is_final)
        until = time.monotonic() + PATIENCE_S
        while job in (found := await place.slurm.status([job])):
            assert time.monotonic() < until, found
            assert found[job].state in ("done_ok", "unknown")
            await asyncio.sleep(0.2)
        assert await place.slurm.find("run/short") == ()
        await place.slurm.cancel(job)
        await place.run("scontrol", "shutdown", "slurmctld")
        while "UP" in await place.run("scontrol", "ping"):
            assert time.monotonic() < until
        tries = await asyncio.gather(
            place.slurm.submit(order("run/down", "0"), None),
            place.slurm.status([job]),
            place.slurm.list_ours(),
            place.slurm.cancel(job),
            place.slurm.find("run/down"),
            return_exceptions=True,
        )
    kinds: list[type[OutsideError]] = [Temporary, Temporary, Temporary, Temporary, Unknown]
    assert [type(error) for error in tries] == kinds, tries
