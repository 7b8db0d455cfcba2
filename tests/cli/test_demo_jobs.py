"""What the demo does for each batch system before and after it runs, without a world around it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from aglowd.cli.demo import Demo, Options, speed_of
from aglowd.cli.demo_jobs import LEASE_S, SYSTEMS, DemoJobs
from aglowd.errors import AglowError

READY = {
    "arc_url": "http://127.0.0.1:2/arex",
    "pilots_couch_url": "http://127.0.0.1:1",
    "credentials": {"couch_database": "sksp"},
}
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(flush=True)
time.sleep(60)
"""


async def test_no_pilot_outlives_the_demo(tmp_path: Path) -> None:
    """Also one that hears no word, and one that stands still."""
    jobs = DemoJobs("local", 1000.0, tmp_path)
    program = tmp_path / "pilot.py"
    program.write_text(DEAF)
    async with jobs.running():
        words = ("-ISs", str(program), "--scratch", str(tmp_path / "scratch"))
        process = await asyncio.create_subprocess_exec("python3", *words, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
    assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGKILL


async def test_pilots_are_known_by_the_demo_that_they_belong_to(tmp_path: Path) -> None:
    mine, others = (DemoJobs("local", 1000.0, tmp_path / name) for name in ("mine", "others"))
    async with mine.running(), others.running():
        program = tmp_path / "pilot.py"
        program.write_text(DEAF)
        (tmp_path / "mine").mkdir(exist_ok=True)
        words = ("-ISs", "pilot.py", "--scratch", str(tmp_path / "mine" / "scratch"))
        process = await asyncio.create_subprocess_exec("python3", *words, stdout=asyncio.subprocess.PIPE, cwd=tmp_path)
        assert process.stdout is not None
        await process.stdout.readline()
        assert mine.list_pilots() == [process.pid]
        assert others.list_pilots() == []
    await process.wait()


async def test_without_slurm_the_demo_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AglowError, match=r"--jobs slurm .* is not installed; Debian has it in"):
        async with DemoJobs("slurm", 1000.0, tmp_path).running():
            raise AssertionError("it was to fail")


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_is_named_to_the_daemon(tmp_path: Path, system: str) -> None:
    jobs = DemoJobs(system, speed_of(system), tmp_path).tables(READY, "20m")["jobs"]
    assert (jobs["system"], jobs["poll"]) == (system, "20m")
    assert jobs.get("endpoint") == (READY["arc_url"] if system == "arc" else None)


@pytest.mark.parametrize("system", ["local", "slurm"])
def test_a_real_pilot_beats_well_within_its_lease(tmp_path: Path, system: str) -> None:
    tables = DemoJobs(system, speed_of(system), tmp_path).tables(READY, "20m")
    words = tables["jobs"]["arguments"]
    assert 0 < float(words[words.index("--heartbeat") + 1]) * speed_of(system) <= LEASE_S / 3
    assert tables["picas"] == {"pilots_url": READY["pilots_couch_url"]}


async def test_real_pilots_write_by_gfal_only(tmp_path: Path) -> None:
    with pytest.raises(AglowError, match="use gfal"):
        async with Demo(Options(jobs="local", storage="webdav"), tmp_path).world():
            raise AssertionError("it was to fail")
