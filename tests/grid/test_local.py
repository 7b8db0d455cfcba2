"""Pilots of this host: real processes that outlive whoever started them, and each of them once."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import HandClock

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import local_supervisor as supervisor
from aglowd.grid.batch import STATES, JobStatus, Order, Terms
from aglowd.grid.local import Local
from aglowd.grid.local_directories import KEPT_S
from aglowd.grid.local_records import STATES as SEEN
from aglowd.grid.local_records import look
from aglowd.grid.proc import Processes

from .conftest import Install

ROOT = Path(__file__).parent.parent.parent
SECRET = "s3cret-password"
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"

WAITS = 'echo "$AGLOWD_JOB_ID" >> "$1/ledger"; while [ ! -e "$1/gate" ]; do sleep 0.02; done; exit "${2:-0}"\n'
"""Writes its name into a ledger, and ends when the gate is there."""
STUBBORN = "trap 'echo no' TERM\n" + WAITS
"""As that, and takes no notice of who asks for its end."""

Make = Callable[..., Local]


class Pilots:
    """The test's own place: where pilots lie, and what they told by themselves."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.directory = place / "pilots"

    def order(self, key: str = "run/step/1/submit/0", count: int = 1, text: str = WAITS, *words: str) -> Order:
        return Order(key, count, "/bin/sh", ("run.sh", str(self.place), *words), {"run.sh": text, "picas": SECRET})

    @property
    def ledger(self) -> list[str]:
        """The pilots that ran, one entry for each time that they did."""
        path = self.place / "ledger"
        return path.read_text().split() if path.exists() else []

    def open(self) -> None:
        (self.place / "gate").touch()

    def record(self, job: str, name: str) -> Any:
        return json.loads((self.directory / job / name).read_text())

    def processes(self) -> list[psutil.Process]:
        """All that works in our directories: supervisors and pilots, and what these started."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.cwd().startswith(str(self.directory)) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


async def until(what: Callable[[], Any]) -> None:
    """Return once it is so."""
    for _ in range(1500):
        seen = what()
        if isinstance(seen, Awaitable):
            seen = await seen
        if seen:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to that")


async def state(local: Local, job: str) -> str:
    return (await local.status([job]))[job].state


async def comes(local: Local, job: str, *states: str) -> JobStatus:
    """The job's status once it is in one of the states, which it reaches without being in another final one before."""
    seen: list[JobStatus] = []

    async def check() -> bool:
        seen.append((await local.status([job]))[job])
        assert seen[-1].state in states or not seen[-1].is_final, seen[-1]
        return seen[-1].state in states

    await until(check)
    return seen[-1]


@pytest.fixture
def pilots(tmp_path: Path) -> Iterator[Pilots]:
    found = Pilots(tmp_path)
    yield found
    while left := found.processes():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def make(pilots: Pilots, clock: Clock, processes: Processes) -> Make:
    """Another daemon's view of the same pilots."""

    def new(**values: Any) -> Local:
        terms = Terms("", wall_time_s=values.pop("wall_time_s", 600.0))
        values = {"most": 8, "notice_s": 30.0, "clock": clock, **values}
        return Local(processes, values.pop("clock"), terms, pilots.directory, **values)

    return new


@pytest.fixture
def local(make: Make) -> Local:
    return make()


@pytest.fixture
def another() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


# --- a life


async def test_a_life(local: Local, pilots: Pilots, tmp_path: Path) -> None:
    assert await local.prepare(pilots.order()) is None
    assert await local.list_ours() == {}
    (job,) = await local.submit(pilots.order(), None)
    assert await local.find("run/step/1/submit/0") == (job,)
    await comes(local, job, "running")
    await until(lambda: pilots.ledger == [job])
    pilots.open()
    status = await comes(local, job, "done_ok")
    assert (status.id, status.words, status.exit_code, status.nodes) == (job, "exit code 0", 0, ())
    assert await local.list_ours() == {job: status}
    assert await local.status([job, job, f"{'0' * 24}-1", "../x", ""]) == {job: status}
    assert await local.find("run/step/1/submit/0") == (job,)
    assert await local.find("run/step/1/submit/1") == ()


@pytest.mark.parametrize(
    ("text", "code", "words", "reason"),
    [
        ("exit 37", 37, "exit code", ""),
        ("kill -9 $$", None, "signal", "signal 9"),
        ("kill -TERM $$", None, "signal", "signal 15"),
    ],
)
async def test_how_a_pilot_fails(
    local: Local, pilots: Pilots, text: str, code: int | None, words: str, reason: str
) -> None:
    (job,) = await local.submit(pilots.order("k", 1, text), None)
    status = await comes(local, job, "done_failed")
    assert (status.exit_code, status.words, status.reason) == (code, words, reason)


async def test_what_cannot_be_executed_says_so(local: Local, pilots: Pilots, tmp_path: Path) -> None:
    (job,) = await local.submit(Order("k", 1, "/no/such/program", ()), None)
    assert (await comes(local, job, "done_failed")).exit_code == 127
    printed = (await local.output(job, tmp_path / "out")) / "stderr.txt"
    assert printed.read_text() == (
        "the pilot cannot be started: [Errno 2] No such file or directory: '/no/such/program'\n"
    )


async def test_the_output(local: Local, pilots: Pilots, tmp_path: Path) -> None:
    text = "echo one; echo two >&2; pwd; cat picas\n" + WAITS
    (job,) = await local.submit(pilots.order("k", 1, text), None)
    await until(lambda: pilots.ledger)
    early = await local.output(job, tmp_path / "out")
    assert (early / "stdout.txt").read_text() == f"one\n{pilots.directory / job / 'work'}\n{SECRET}"
    assert (early / "stderr.txt").read_text() == "two\n"
    pilots.open()
    await comes(local, job, "done_ok")
    late = await local.output(job, tmp_path / "out")
    assert late != early
    assert late.parent == early.parent == tmp_path / "out"


async def test_output_that_is_not_there(make: Make, pilots: Pilots, tmp_path: Path) -> None:
    local = make(most=1)
    first, second = await local.submit(pilots.order("k", 2), None)
    await until(lambda: pilots.ledger)
    waiting = second if pilots.ledger == [first] else first
    with pytest.raises(Temporary):
        await local.output(waiting, tmp_path)
    await local.cancel(waiting)
    await comes(local, waiting, "cancelled")
    with pytest.raises(Permanent):
        await local.output(waiting, tmp_path)
    with pytest.raises(Permanent) as caught:
        await local.output(f"{'0' * 24}-1", tmp_path)
    assert caught.value.absent


async def test_a_program_of_the_sandbox_is_executed(local: Local, pilots: Pilots) -> None:
    (job,) = await local.submit(Order("k", 1, "run", ("7",), {"run": "#!/bin/sh\nexit $1\n"}), None)
    assert (await comes(local, job, "done_failed")).exit_code == 7


# --- secrets


async def test_nobody_else_may_look(local: Local, pilots: Pilots) -> None:
    (job,) = await local.submit(pilots.order("k", 1, "umask > mask\n" + WAITS), None)
    await until(lambda: pilots.ledger)
    place = pilots.directory / job
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place, *place.rglob("*"))}
    assert {name: mode for name, mode in modes.items() if mode != 0o600} == {job: 0o700, "work": 0o700}
    assert {"picas", "run.sh", "order.json", "pid.json", "stdout.txt", "stderr.txt", "lock"} <= set(modes)
    assert stat.S_IMODE(pilots.directory.stat().st_mode) == 0o700
    assert (place / "work" / "mask").read_text() == "0077\n"
    assert not any(SECRET in word for process in pilots.processes() for word in process.cmdline())
    pilots.open()
    await comes(local, job, "done_ok")
    await until(lambda: not (place / "work").exists())
    assert not any(SECRET in path.read_text() for path in place.rglob("*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 0},
        {"sandbox": {"../x": ""}},
        {"sandbox": {".x": ""}},
        {"sandbox": {"x": "\ud800"}},
        {"key": "\ud800"},
        {"executable": ""},
        {"arguments": ("a\0b",)},
        {"requirements": "other.Memory > 1"},
    ],
)
async def test_what_cannot_be_run_is_refused(local: Local, pilots: Pilots, changes: dict[str, Any]) -> None:
    fine: dict[str, Any] = {"key": "k", "count": 1, "executable": "/bin/true", "arguments": (), "sandbox": {}}
    with pytest.raises(Permanent):
        await local.submit(Order(**{**fine, **changes}), None)
    assert not pilots.directory.exists()
    for verb in (local.cancel("../x"), local.output("/etc", pilots.place)):
        with pytest.raises(Permanent):
            await verb


# --- once


async def test_the_same_key_again_starts_nothing_again(local: Local, make: Make, pilots: Pilots) -> None:
    jobs = await local.submit(pilots.order("k", 3), None)
    assert len(set(jobs)) == 3
    assert await local.submit(pilots.order("k", 3), None) == jobs
    pilots.open()
    for job in jobs:
        await comes(local, job, "done_ok")
    assert await make().submit(pilots.order("k", 3), None) == jobs
    assert sorted(pilots.ledger) == sorted(jobs)
    assert not set(jobs) & set(await local.submit(pilots.order("other", 3), None))


async def test_many_at_once_start_each_pilot_once(make: Make, pilots: Pilots) -> None:
    pilots.open()
    tried = await asyncio.gather(*(make().submit(pilots.order("k", 3), None) for _ in range(4)))
    assert len(set(tried)) == 1
    for job in tried[0]:
        await comes(make(), job, "done_ok")
    assert sorted(pilots.ledger) == sorted(tried[0])


def supervise(place: Path) -> int:
    argv = [sys.executable, "-ISs", supervisor.__file__, str(place)]
    return subprocess.run(argv, timeout=60, check=False).returncode


def test_a_pilot_that_has_no_group_yet_hears_its_supervisor(another: subprocess.Popen[bytes]) -> None:
    """Between its fork and its `setsid`: on a busy host that takes a while."""
    supervisor._signal_group(another.pid, signal.SIGTERM)
    assert another.wait(timeout=20) == -signal.SIGTERM


async def test_a_second_supervisor_runs_nothing(local: Local, pilots: Pilots) -> None:
    """While the first one lives, after its end, and after its kill."""
    alive, ended, killed = await local.submit(pilots.order("k", 3, STUBBORN), None)
    await until(lambda: len(pilots.ledger) == 3)
    for job in (ended, killed):
        known = pilots.record(job, "pid.json")
        os.kill(known["pilot"]["pid"] if job == ended else known["pid"], signal.SIGKILL)
    await comes(local, ended, "done_failed")
    os.kill(pilots.record(killed, "pid.json")["pilot"]["pid"], signal.SIGKILL)
    await comes(local, killed, "lost")
    await until(lambda: not (pilots.directory / ended / "work").exists())
    (pilots.directory / ended / "pid.json").unlink()
    (pilots.directory / ended / "work").mkdir()
    (pilots.directory / ended / "work" / "run.sh").write_text(WAITS)
    for job in (alive, ended, killed):
        assert supervise(pilots.directory / job) == 0
    pilots.open()
    await comes(local, alive, "done_ok")
    assert sorted(pilots.ledger) == sorted([alive, ended, killed])
    await until(lambda: not pilots.processes())


async def test_a_supervisor_that_comes_second_leaves_the_pilot_to_the_first(local: Local, pilots: Pilots) -> None:
    with daemon(pilots, 1, AGLOWD_CRASH_AT="local.start:before:1") as first:
        assert await asyncio.to_thread(first.wait, 60) == -signal.SIGKILL
    (job,) = await local.list_ours()
    place = pilots.directory / job
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert supervise(place) == 0
        assert not (place / "pid.json").exists()
        assert await state(local, job) == "submitted"
    assert supervise(place) == 0
    await comes(local, job, "running")


DAEMON = """
import asyncio, os, sys
from pathlib import Path
from aglowd.clock import Clock
from aglowd.grid.batch import Order, Terms
from aglowd.grid.local import Local
from aglowd.grid.proc import Processes

async def main():
    place, count, text = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    processes = Processes(env={"PATH": os.environ["PATH"]})
    local = Local(processes, Clock(), Terms("", wall_time_s=600.0), place / "pilots", most=8)
    await local.submit(Order("k", count, "/bin/sh", ("run.sh", str(place)), {"run.sh": text}), None)
    print("submitted", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def daemon(pilots: Pilots, count: int, text: str = WAITS, **environment: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", DAEMON, str(pilots.place), str(count), text]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)


async def test_pilots_outlive_the_daemon_and_are_adopted(local: Local, pilots: Pilots) -> None:
    with daemon(pilots, 2) as first:
        assert first.stdout is not None
        assert await asyncio.to_thread(first.stdout.readline) == "submitted\n"
        await until(lambda: len(pilots.ledger) == 2)
        # The whole session, as a terminal that is closed would do.
        os.killpg(first.pid, signal.SIGKILL)
    jobs = await local.find("k")
    assert len(jobs) == 2
    assert {status.state for status in (await local.list_ours()).values()} == {"running"}
    await local.cancel(jobs[0])
    await comes(local, jobs[0], "cancelled")
    pilots.open()
    assert (await comes(local, jobs[1], "done_ok")).exit_code == 0
    assert sorted(pilots.ledger) == sorted(jobs)


@pytest.mark.parametrize(
    ("point", "fewest", "most"),
    [
        ("local.submit:before:1", 0, 0),
        ("local_directories.write:before:2", 0, 0),
        ("local_directories.write:after:3", 0, 0),
        ("local.start:before:1", 0, 0),
        ("local.start:before:3", 0, 2),
        ("local.start:after:1", 1, 3),
        ("proc.run:before:3", 0, 1),
        ("proc.run:after:3", 1, 3),
        ("local.submit:after:1", 3, 3),
    ],
)
async def test_a_submission_that_was_killed_is_found_and_goes_on(
    local: Local, pilots: Pilots, point: str, fewest: int, most: int
) -> None:
    with daemon(pilots, 3, AGLOWD_CRASH_AT=point) as first:
        assert await asyncio.to_thread(first.wait, 60) == -signal.SIGKILL
        assert first.stdout is not None
        assert first.stdout.read() == ""
    found = await local.find("k")
    # A start that is under way while the daemon dies may end a little later.
    assert fewest <= len(found) <= most
    jobs = await local.submit(pilots.order("k", 3), None)
    assert set(found) <= set(jobs) == set(await local.find("k"))
    pilots.open()
    for job in jobs:
        await comes(local, job, "done_ok")
    assert Counter(pilots.ledger) == Counter(jobs)
    await until(lambda: not pilots.processes())
    assert not [name for name in os.listdir(pilots.directory) if name.startswith(".new-")]


async def test_half_a_submission_is_unknown_and_goes_on(local: Local, pilots: Pilots) -> None:
    (first, second) = await local.submit(pilots.order("k", 2), None)
    # As a daemon leaves it that was killed between the two, with a disk that makes trouble.
    await local.cancel(second)
    await comes(local, second, "cancelled")
    place = pilots.directory / second
    for name in ("pid.json", "exit.json", "cancel.json", "lock", "work"):
        (place / name).unlink() if (place / name).is_file() else shutil.rmtree(place / name, ignore_errors=True)
    (place / "work").mkdir()
    (place / "work" / "run.sh").write_text(WAITS)
    (place / "lock").mkdir()
    assert await local.find("k") == (first,)
    assert await state(local, second) == "submitted"
    with pytest.raises(Unknown, match=re.escape(f"1 of 2 pilots were started: {place}: ")):
        await local.submit(pilots.order("k", 2), None)
    (place / "lock").rmdir()
    assert await local.submit(pilots.order("k", 2), None) == (first, second)
    await comes(local, second, "running")


async def test_a_directory_that_is_none_is_named(local: Local, pilots: Pilots) -> None:
    pilots.directory.write_text("a file")
    with pytest.raises(Temporary, match=re.escape(str(pilots.directory))):
        await local.submit(pilots.order(), None)
    for read in (local.list_ours(), local.status([f"{'0' * 24}-0"])):
        with pytest.raises(Temporary, match=re.escape(str(pilots.directory))):
            await read
    with pytest.raises(Unknown, match=re.escape(str(pilots.directory))):
        await local.find("k")


async def test_a_directory_whose_own_place_is_away_tells_nothing(processes: Processes, tmp_path: Path) -> None:
    local = Local(processes, Clock(), Terms(""), tmp_path / "away" / "pilots", most=1)
    with pytest.raises(Unknown):
        await local.find("k")
    with pytest.raises(Temporary):
        await local.list_ours()


async def test_a_full_disk_is_temporary_and_leaves_nothing(pilots: Pilots) -> None:
    """RLIMIT_FSIZE in a child: the sandbox does not fit."""
    script = DAEMON.replace('"run.sh": text', '"run.sh": text * 100000').replace(
        "async def main():", "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n\nasync def main():",
    )  # fmt: skip
    argv = [sys.executable, "-c", script, str(pilots.place), "1", WAITS]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    said = await asyncio.to_thread(subprocess.run, argv, env=environment, capture_output=True, text=True, timeout=60)
    assert "aglowd.errors.Temporary" in said.stderr
    assert "File too large" in said.stderr
    assert {path.name for path in pilots.directory.iterdir()} == {".places", "lock"}


# --- pids that others have now


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"started": 1}, "gone"),
        ({"pid": 0}, "gone"),
        ({"boot": OTHER_BOOT}, "rebooted"),
        ({"boot": OTHER_BOOT, "started": 1}, "rebooted"),
        ({}, "waiting"),
    ],
)
async def test_a_process_that_got_the_pid_is_not_ours(
    make: Make, pilots: Pilots, another: subprocess.Popen[bytes], change: dict[str, Any], words: str
) -> None:
    clock = HandClock()
    local = make(clock=clock)
    pilots.open()
    (job,) = await local.submit(pilots.order(), None)
    await comes(local, job, "done_ok")
    place = pilots.directory / job
    (place / "exit.json").unlink()
    forged = {"pid": another.pid, "started": supervisor.started_at(another.pid), "boot": supervisor.boot_id()}
    supervisor.write_record("pid.json", {**forged, **change}, str(place))
    seen = (await local.status([job]))[job]
    assert (seen.words, seen.state) == (words, SEEN[words])
    await local.cancel(job)
    clock.advance(1000.0)
    await local.cancel(job)
    if change:
        # A signal that was sent would be there by now, and `sleep` ends by any.
        assert another.poll() is None
        assert psutil.Process(another.pid).status() == psutil.STATUS_SLEEPING
        assert (await local.status([job]))[job].words == "gone, cancelled"
    else:
        assert await asyncio.to_thread(another.wait, 20) == -signal.SIGTERM


async def test_a_zombie_is_no_supervisor(local: Local, pilots: Pilots, another: subprocess.Popen[bytes]) -> None:
    (job,) = await local.submit(pilots.order(), None)
    await until(lambda: pilots.ledger)
    started = supervisor.started_at(another.pid)
    another.kill()
    await until(lambda: psutil.Process(another.pid).status() == psutil.STATUS_ZOMBIE)
    record = {"pid": another.pid, "started": started, "boot": supervisor.boot_id()}
    supervisor.write_record("pid.json", record, str(pilots.directory / job))
    assert await state(local, job) == "lost"


# --- the supervisor dies


async def test_a_pilot_is_asked_to_end_when_its_supervisor_is_killed(local: Local, pilots: Pilots) -> None:
    (job,) = await local.submit(pilots.order(), None)
    await until(lambda: pilots.ledger)
    os.kill(pilots.record(job, "pid.json")["pid"], signal.SIGKILL)
    status = await comes(local, job, "lost")
    assert "its supervisor was killed" in status.reason
    assert await local.submit(pilots.order(), None) == (job,)
    assert pilots.ledger == [job]


async def test_a_pilot_that_lives_on_is_said_to_and_can_be_ended(make: Make, pilots: Pilots) -> None:
    clock = HandClock()
    local = make(clock=clock, notice_s=50.0, most=1)
    (job,) = await local.submit(pilots.order("k", 1, STUBBORN), None)
    await until(lambda: pilots.ledger)
    os.kill(pilots.record(job, "pid.json")["pid"], signal.SIGKILL)

    async def is_unwatched() -> bool:
        return (await local.status([job]))[job].words == "unwatched"

    await until(is_unwatched)
    assert await state(local, job) == "running"
    (other,) = await local.submit(pilots.order("other", 1), None)
    await comes(local, other, "queued")
    await local.cancel(job)
    clock.advance(49.0)
    await local.cancel(job)
    assert await is_unwatched()
    clock.advance(1.0)
    await local.cancel(job)
    assert (await comes(local, job, "cancelled")).words == "gone, cancelled"
    # It used its place to its end; now the next one has it.
    await comes(local, other, "running")


async def test_a_supervisor_that_somebody_else_ends_gives_the_pilot_notice(local: Local, pilots: Pilots) -> None:
    text = 'trap "echo bye; exit 0" TERM\n' + WAITS
    (job,) = await local.submit(pilots.order("k", 1, text), None)
    await until(lambda: pilots.ledger)
    os.kill(pilots.record(job, "pid.json")["pid"], signal.SIGTERM)
    status = await comes(local, job, "aborted")
    assert (status.words, status.exit_code) == ("stopped", 0)
    assert (pilots.directory / job / "stdout.txt").read_text() == "bye\n"


# --- cancelling


async def test_a_running_pilot_is_cancelled_and_may_end_by_itself(local: Local, pilots: Pilots) -> None:
    text = 'trap "echo bye; exit 5" TERM\n' + WAITS
    (job,) = await local.submit(pilots.order("k", 1, text), None)
    await until(lambda: pilots.ledger)
    await local.cancel(job)
    await local.cancel(job)
    status = await comes(local, job, "cancelled")
    await local.cancel(job)
    assert (status.words, status.exit_code) == ("cancelled", 5)
    assert (pilots.directory / job / "stdout.txt").read_text() == "bye\n"
    assert await local.status([job]) == {job: status}


async def test_a_pilot_that_takes_no_notice_is_killed(make: Make, pilots: Pilots) -> None:
    local = make(notice_s=0.3)
    (job,) = await local.submit(pilots.order("k", 1, STUBBORN), None)
    await until(lambda: pilots.ledger)
    await local.cancel(job)
    await comes(local, job, "cancelled")
    assert pilots.record(job, "exit.json")["signal"] == signal.SIGKILL
    await until(lambda: not pilots.processes())


async def test_what_ended_already_stays_as_it_ended(local: Local, pilots: Pilots) -> None:
    pilots.open()
    (job,) = await local.submit(pilots.order(), None)
    status = await comes(local, job, "done_ok")
    await local.cancel(job)
    assert await local.status([job]) == {job: status}
    with pytest.raises(Permanent) as caught:
        await local.cancel(f"{'0' * 24}-1")
    assert caught.value.absent


async def test_one_that_waits_is_cancelled_and_never_runs(make: Make, pilots: Pilots) -> None:
    local = make(most=1)
    jobs = await local.submit(pilots.order("k", 3), None)
    await until(lambda: pilots.ledger)
    (running,) = pilots.ledger
    waiting, later = (job for job in jobs if job != running)
    await comes(local, waiting, "queued")
    await local.cancel(waiting)
    await local.cancel(waiting)
    await comes(local, waiting, "cancelled")
    await local.cancel(waiting)
    pilots.open()
    await comes(local, later, "done_ok")
    assert sorted(pilots.ledger) == sorted([running, later])


async def test_one_that_was_not_started_is_called_off_for_ever(local: Local, pilots: Pilots) -> None:
    with daemon(pilots, 1, AGLOWD_CRASH_AT="local.start:before:1") as first:
        assert await asyncio.to_thread(first.wait, 60) == -signal.SIGKILL
    (job,) = await local.list_ours()
    assert await state(local, job) == "submitted"
    assert await local.find("k") == ()
    await local.cancel(job)
    assert (await local.status([job]))[job].words == "called off"
    assert await local.submit(pilots.order("k"), None) == (job,)
    assert (await comes(local, job, "cancelled")).words in ("called off", "waiting", "cancelled")
    await until(lambda: not pilots.processes())
    assert pilots.ledger == []
    assert (await local.status([job]))[job].words == "cancelled"


# --- limits


async def test_the_others_wait_for_a_place_without_the_daemon(make: Make, pilots: Pilots) -> None:
    text = (
        'for n in $(ls "$1/pilots"/*/alive 2>/dev/null); do echo x; done | wc -l >> "$1/together"\n'
        'touch ../alive; echo "$AGLOWD_JOB_ID" >> "$1/ledger"\n'
        'while [ ! -e "$1/gate" ]; do sleep 0.02; done; rm ../alive\n'
    )
    local = make(most=2)
    jobs = await local.submit(pilots.order("k", 5, text), None)
    await until(lambda: len(pilots.ledger) == 2)

    async def all_known() -> bool:
        seen = Counter(status.state for status in (await local.status(jobs)).values())
        return seen == Counter(running=2, queued=3)

    await until(all_known)
    pilots.open()
    for job in jobs:
        await comes(local, job, "done_ok")
    assert sorted(pilots.ledger) == sorted(jobs)
    assert max(map(int, (pilots.place / "together").read_text().split())) < 2


async def test_a_place_is_free_again_when_who_waits_for_it_is_killed(make: Make, pilots: Pilots) -> None:
    local = make(most=1)
    jobs = await local.submit(pilots.order("k", 3), None)
    await until(lambda: pilots.ledger)
    waiting, later = (job for job in jobs if job != pilots.ledger[0])
    os.kill(pilots.record(waiting, "pid.json")["pid"], signal.SIGKILL)
    await comes(local, waiting, "lost")
    pilots.open()
    await comes(local, later, "done_ok")
    assert waiting not in pilots.ledger


async def test_the_wall_time_is_enforced(make: Make, pilots: Pilots) -> None:
    local = make(wall_time_s=1.0, notice_s=0.6)
    begun = time.monotonic()
    (job,) = await local.submit(pilots.order("k", 1, STUBBORN), None)
    status = await comes(local, job, "done_failed")
    assert (status.words, status.exit_code) == ("wall time", None)
    assert time.monotonic() - begun > 1.0
    assert (pilots.directory / job / "stdout.txt").read_text() == "no\n"


async def test_a_pilot_that_heeds_the_word_ends_before_its_wall_time(make: Make, pilots: Pilots) -> None:
    local = make(wall_time_s=60.0, notice_s=59.5)
    (job,) = await local.submit(pilots.order("k", 1, WAITS), None)
    await until(lambda: pilots.ledger)
    # The notice is never longer than half of the wall time, or it would come before the pilot has done anything.
    assert await state(local, job) == "running"
    local = make(wall_time_s=0.6, notice_s=30.0)
    (other,) = await local.submit(pilots.order("other", 1, 'trap "exit 0" TERM\n' + WAITS), None)
    status = await comes(local, other, "done_failed")
    assert (status.words, status.exit_code) == ("wall time", 0)


async def test_limits_of_the_processes(make: Make, pilots: Pilots) -> None:
    local = make(nice=3, memory_bytes=512 << 20, cpu_s=77)
    (job,) = await local.submit(pilots.order("k", 1, "nice; ulimit -v; ulimit -t"), None)
    await comes(local, job, "done_ok")
    assert (pilots.directory / job / "stdout.txt").read_text() == f"{os.nice(0) + 3}\n{512 << 10}\n77\n"


async def test_a_pilot_that_uses_too_much_processor_time(make: Make, pilots: Pilots) -> None:
    local = make(cpu_s=1)
    (job,) = await local.submit(pilots.order("k", 1, "while :; do :; done"), None)
    assert (await comes(local, job, "done_failed")).reason == f"signal {int(signal.SIGXCPU)}"


async def test_nothing_that_a_pilot_started_is_left(local: Local, pilots: Pilots) -> None:
    """Not in its group, and not in a session of its own whose parent has gone either."""
    text = "sleep 600 &\nsh -c 'setsid sleep 600 & setsid sh -c \"sleep 600 & wait\" &'\nexit 4\n"
    (job,) = await local.submit(pilots.order("k", 1, text), None)
    assert (await comes(local, job, "done_failed")).exit_code == 4
    await until(lambda: not pilots.processes())
    with pytest.raises(FileNotFoundError):
        (pilots.directory / job / "work").stat()


# --- old directories


async def test_directories_go_long_after_the_end(make: Make, pilots: Pilots) -> None:
    clock = HandClock()
    local = make(clock=clock)
    with daemon(pilots, 1, AGLOWD_CRASH_AT="local.start:before:1") as first:
        assert await asyncio.to_thread(first.wait, 60) == -signal.SIGKILL
    (never,) = await local.list_ours()
    order = pilots.record(never, "order.json")
    supervisor.write_record("order.json", {**order, "ordered_at": clock.now()}, str(pilots.directory / never))
    (alive,) = await local.submit(pilots.order("alive"), None)
    (unwatched,) = await local.submit(pilots.order("unwatched", 1, STUBBORN), None)
    await until(lambda: {alive, unwatched} <= set(pilots.ledger))
    os.kill(pilots.record(unwatched, "pid.json")["pid"], signal.SIGKILL)
    (ended,) = await local.submit(pilots.order("ended", 1, "exit 1"), None)
    await comes(local, ended, "done_failed")
    clock.advance(KEPT_S - 60)
    (later,) = await local.submit(pilots.order("later", 1, "exit 1"), None)
    await comes(local, later, "done_failed")
    assert set(await local.list_ours()) == {never, alive, unwatched, ended, later}
    (pilots.directory / ".new-left").mkdir()
    clock.advance(120)
    (last,) = await local.submit(pilots.order("last", 1, "exit 1"), None)
    assert set(await local.list_ours()) == {alive, unwatched, later, last}
    assert {path.name for path in pilots.directory.iterdir()} == {".places", "lock", alive, unwatched, later, last}
    assert {await state(local, job) for job in (alive, unwatched)} == {"running"}


async def test_what_a_killed_supervisor_left_holds_no_secret_for_long(local: Local, pilots: Pilots) -> None:
    (job,) = await local.submit(pilots.order(), None)
    await until(lambda: pilots.ledger)
    os.kill(pilots.record(job, "pid.json")["pid"], signal.SIGKILL)
    await comes(local, job, "lost")
    assert (pilots.directory / job / "work" / "picas").exists()
    await local.submit(pilots.order("other"), None)
    assert not (pilots.directory / job / "work").exists()
    assert await state(local, job) == "lost"


# --- records


async def test_a_record_that_is_damaged_says_nothing(local: Local, pilots: Pilots) -> None:
    first, second = await local.submit(pilots.order("k", 2), None)
    await until(lambda: len(pilots.ledger) == 2)
    path = pilots.directory / first / "pid.json"
    text = path.read_text()
    path.write_text(text[:20])
    seen = await local.status([first, second])
    assert {job: status.state for job, status in seen.items()} == {first: "unknown", second: "running"}
    assert str(path) in seen[first].reason
    with pytest.raises(Temporary, match=re.escape(str(path))):
        await local.status([first])
    with pytest.raises(Unknown, match=re.escape(str(path))):
        await local.cancel(first)


@given(st.sampled_from(["pid.json", "exit.json", "cancel.json"]), st.binary(max_size=40), st.integers(0, 200))
def test_no_damage_raises_or_tells_an_end(name: str, put: bytes, at: int) -> None:
    """Another record that makes sense may come out of a mutation, but never out of one that was cut."""
    fine = {
        "pid.json": {"pid": os.getpid(), "started": supervisor.started_at(os.getpid()), "boot": supervisor.boot_id()},
        "exit.json": {"code": 0, "signal": None, "by": "", "reason": "", "at": 1.5},
        "cancel.json": {"at": 1.5},
    }
    text = json.dumps(fine[name]).encode()
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / name).write_bytes(text[:at] + put + text[at:])
        status = look(place, "job", supervisor.boot_id())
        assert status is not None
        assert status.state in STATES
        (place / name).write_bytes(text[: at % len(text)])
        status = look(place, "job", supervisor.boot_id())
        assert status is not None
        assert status.state == "unknown"


# --- a unit of their own


async def test_systemd_is_asked_for_a_service(local: Local, pilots: Pilots, install: Install) -> None:
    install("systemd-run", 'while [ "${1#-}" != "$1" ]; do shift; done; LEAKED=yes exec "$@"')
    (job,) = await local.submit(pilots.order("k", 1, "echo $HOME $LEAKED"), None)
    await comes(local, job, "done_ok")
    assert (pilots.directory / job / "stdout.txt").read_text() == f"{pilots.place}\n", "our variables, and no others"
    asked = (pilots.place / "systemd-run.argv").read_text().splitlines()
    who = [] if os.geteuid() == 0 else ["--user"]
    options = [*who, "--collect", "--quiet"]
    assert asked[0].split() == [*options, "--wait", "true"]
    words = asked[1].split()
    options += ["--service-type=forking", "--property=OOMPolicy=continue", f"--unit=aglowd-pilot-{job}"]
    assert words[: len(options) + 2] == [*options, "/usr/bin/env", "-i"]
    assert words[-2:] == [supervisor.__file__, str(pilots.directory / job)]
    assert pilots.record(job, "pid.json")["cgroup"].startswith("/")


async def test_systemd_replaces_nothing_in_our_words(pilots: Pilots, processes: Processes, install: Install) -> None:
    install("systemd-run", 'while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"')
    odd = Local(processes.with_environment(ODD="a$HOME"), Clock(), Terms("", wall_time_s=9.0), pilots.directory, most=1)
    (job,) = await odd.submit(pilots.order("k", 1, "echo done"), None)
    await comes(odd, job, "done_ok")
    assert "ODD=a$$HOME" in (pilots.place / "systemd-run.argv").read_text()


@pytest.mark.parametrize("text", ["exit 1", "echo 'Failed to connect to bus' >&2; exit 1"])
async def test_without_a_manager_pilots_are_plainly_detached(
    local: Local, pilots: Pilots, install: Install, text: str
) -> None:
    install("systemd-run", text)
    pilots.open()
    (job,) = await local.submit(pilots.order(), None)
    await comes(local, job, "done_ok")
    assert len((pilots.place / "systemd-run.argv").read_text().splitlines()) == 1


async def test_supervisors_let_go_of_whoever_started_them(local: Local, pilots: Pilots) -> None:
    (job,) = await local.submit(pilots.order(), None)
    await until(lambda: pilots.ledger)
    known = pilots.record(job, "pid.json")
    watching, running = psutil.Process(known["pid"]), psutil.Process(known["pilot"]["pid"])
    assert os.getsid(watching.pid) == watching.pid
    assert os.getsid(running.pid) == running.pid
    assert running.ppid() == watching.pid
    assert os.getpid() not in [parent.pid for parent in watching.parents()]
    for number in range(3):
        assert os.readlink(f"/proc/{watching.pid}/fd/{number}") == "/dev/null"
    opened = {os.readlink(f"/proc/{running.pid}/fd/{name}") for name in os.listdir(f"/proc/{running.pid}/fd")}
    assert {path for path in opened if path.startswith("/") and not path.startswith(str(pilots.place))} == {"/dev/null"}
    assert [path for path in opened if path.startswith(("pipe:", "socket:"))] == []


# --- the table in the docs


def rows() -> dict[str, tuple[str, str]]:
    """The table of `## local` in docs/jobs.md: what is seen → our state, meaning."""
    section = (ROOT / "docs" / "jobs.md").read_text().partition("\n## local\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `([^`|]+)` \| [^|]+ \| `([a-z_]+)` \| ([^|]+) \|$", section, re.MULTILINE)
    assert len(found) == len({name for name, _, _ in found})
    return {name: (mapped, meaning) for name, mapped, meaning in found}


def test_the_table_in_the_docs_is_the_one_in_the_code() -> None:
    assert {name: mapped for name, (mapped, _) in rows().items()} == dict(SEEN)
    assert set(SEEN.values()) <= set(STATES)


ALIVE = {"pid": os.getpid(), "started": supervisor.started_at(os.getpid()), "boot": supervisor.boot_id()}
DEAD = {**ALIVE, "started": 1}
PILOT = {"pid": os.getpid(), "started": ALIVE["started"]}
END = {"code": None, "signal": None, "by": "", "reason": "", "at": 1.0}
ON_DISK: dict[str, dict[str, Any]] = {
    "ordered": {},
    "called off": {"cancel": {"at": 1.0}},
    "waiting": {"pid": ALIVE},
    "running": {"pid": {**ALIVE, "pilot": PILOT}, "cancel": {"at": 1.0}},
    "unwatched": {"pid": {**DEAD, "pilot": PILOT}},
    "exit code 0": {"exit": {**END, "code": 0}, "pid": DEAD, "cancel": {"at": 1.0}},
    "exit code": {"exit": {**END, "code": 3}},
    "signal": {"exit": {**END, "signal": 9}},
    "wall time": {"exit": {**END, "code": 0, "by": "wall time"}},
    "cancelled": {"exit": {**END, "code": 0, "by": "cancel"}},
    "stopped": {"exit": {**END, "by": "signal"}},
    "not started": {"exit": {**END, "by": "not started", "reason": "OSError: no"}},
    "gone": {"pid": {**DEAD, "pilot": {**PILOT, "started": 1}}},
    "rebooted": {"pid": {**ALIVE, "boot": OTHER_BOOT, "pilot": PILOT}},
    "gone, cancelled": {"pid": DEAD, "cancel": {"at": 1.0}},
    "unreadable": {"pid": {**ALIVE, "pid": "x"}},
}


@pytest.mark.parametrize("words", sorted(SEEN))
def test_a_row_of_the_table(tmp_path: Path, words: str) -> None:
    for name, values in ON_DISK[words].items():
        supervisor.write_record(f"{name}.json", values, str(tmp_path))
    status = look(tmp_path, "job", supervisor.boot_id())
    assert status is not None
    assert (status.words, status.state) == (words, SEEN[words])
    assert (status.exit_code == 0) == (words in ("exit code 0", "wall time", "cancelled"))
    assert look(tmp_path / "absent", "job", supervisor.boot_id()) is None


async def test_errors_are_only_ours(local: Local, pilots: Pilots) -> None:
    (job,) = await local.submit(pilots.order(), None)
    await until(lambda: pilots.ledger)
    (pilots.directory / job / "exit.json").mkdir()
    for verb in (local.status([job]), local.cancel(job), local.list_ours()):
        with pytest.raises(OutsideError, match=re.escape(str(pilots.directory / job / "exit.json"))):
            await verb
