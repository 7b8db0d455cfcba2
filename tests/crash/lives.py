"""One case: a world of its own, a daemon that is killed where the case says, and started again until all is quiet.

Every process is forked from one that has imported all that daemon and grid need, because to import it takes ten times
as long as a life. What must stay true: that process has one thread and no event loop; whatever is forked dies with the
one that forked it; a killed daemon gets no word before its end.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import select
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aglowd import crash
from aglowd.store.restore import restore
from tests.crash import judge, scenario
from tests.crash.people import People, Steersman
from tests.crash.scenario import Scenario

LIFE_REAL_S = 60.0
"""Real seconds in which a life must have come to its kill, or to quiet."""
LOOK_REAL_S = 0.02
START_REAL_S = 60.0
UPKEEP_REAL_S = 0.05
"""Real seconds between two rounds of the upkeep at least, where runs are packed."""
PR_SET_PDEATHSIG = 1


class Case(Struct, frozen=True):
    """A scenario and the kills of its daemon's lives, each `module.function:before|after:N`."""

    scenario: Scenario
    kills: tuple[str, ...] = ()
    broken: str = ""
    """The way in which the daemon is broken on purpose: see broken.py."""


class Result(Struct):
    """What came of a case. `passed`: the points of its last life, in order, if it was asked to trace."""

    killed: int = 0
    """So many of the kills took place; the next one's point was not passed before all was quiet."""
    lost: list[str] = []
    duplicated: list[str] = []
    wrong: list[str] = []
    doubtful: list[str] = []
    passed: list[str] = []
    real_s: float = 0.0

    @property
    def is_well(self) -> bool:
        """Whether nothing speaks against the daemon."""
        return not (self.lost or self.duplicated or self.wrong)


def fork(work: Callable[[], Any], log: Path) -> int:
    """Do the work in a process of its own, whose words go to the log; returns its pid."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # It was orphaned before it could ask for its parent's death signal.
        fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def play(case: Case, state: Path, *, trace: bool = False) -> Result:
    """Play the case in that directory and judge what is left of its world."""
    began = time.monotonic()
    result = Result()
    origin = time.time()
    scenario.write_inputs(state)
    grid = _start_grid(case, state, origin)
    try:
        ready = _await_ready(state / "grid.out", grid)
        config = scenario.write_config(state, ready, case.scenario, origin)
        kills = (*filter(None, (case.scenario.first,)), *case.kills)
        lives = [*kills, ""]
        people = _people(case.scenario, state, ready)
        snapshots = []
        for number, kill in enumerate(lives):
            last = number == len(kills)
            daemon = _start_daemon(config, kill, case, state, state / "trace" if last and trace else None)
            end = _until_quiet(case.scenario, state, daemon, people)
            if end == "killed" and kill:
                snapshots.append(judge.snapshot(state))
                if case.scenario.restores and number == 0:
                    now = origin + (time.time() - origin) * case.scenario.rate
                    restore(state / "aglowd.db", state / "backup.db", now)
                continue
            result.killed = number - (len(kills) - len(case.kills))
            if end == "quiet":
                _end(daemon)
            else:
                result.wrong.append(end)
                with suppress(ProcessLookupError):
                    os.kill(daemon, signal.SIGKILL)
                    os.waitpid(daemon, 0)
            break
    finally:
        _end(grid)
    judge.judge(case.scenario, state, snapshots, result)
    if trace and (state / "trace").exists():
        result.passed = (state / "trace").read_text(encoding="utf-8").split()
    result.real_s = time.monotonic() - began
    return result


def _people(world: Scenario, state: Path, ready: dict[str, Any]) -> People | Steersman | None:
    if world.people == "steersman":
        return Steersman(state)
    if world.people == "people":
        return People(state, ready, restores=world.restores, imports=world.catalogue == "own")
    return None


def _start_grid(case: Case, state: Path, origin: float) -> int:
    from aglowd.sim.__main__ import run
    from aglowd.sim.grid import Settings

    world = case.scenario
    settings = Settings(
        directory=state / "grid",
        srm_dir=state / "srm",
        seed=world.seed,
        speed=world.rate,
        origin=origin,
        failure_rate=world.failure_rate,
        faults=world.faults,
        proxy_hours=scenario.PROXY_HOURS,
    )
    return fork(lambda: asyncio.run(run(settings)), state / "grid.out")


def _await_ready(out: Path, grid: int) -> dict[str, Any]:
    """The line in which the grid says where it is."""
    with _Watched(grid) as process:
        give_up = time.monotonic() + START_REAL_S
        while time.monotonic() < give_up:
            line = out.read_bytes() if out.exists() else b""
            if line.endswith(b"\n") and line.startswith(b"{"):
                ready: dict[str, Any] = msgspec.json.decode(line)
                return ready
            if process.ended_within(0.002):
                break
    raise RuntimeError(f"the simulated grid did not start: {out.read_text(encoding='utf-8')[-2000:]}")


def _start_daemon(config: Path, kill: str, case: Case, state: Path, trace: Path | None) -> int:
    def live() -> None:
        from aglowd import upkeep
        from aglowd.daemon import serve
        from tests.crash import broken as ways
        from tests.crash.defect import install

        os.environ[crash.AT] = kill
        os.environ[crash.TRACE] = "" if trace is None else str(trace)
        install()
        if case.scenario.archive_after:
            upkeep.LEAST_REAL_S = UPKEEP_REAL_S
        if case.broken:
            ways.WAYS[case.broken]()
        asyncio.run(serve(config))

    return fork(live, state / "aglowd.log")


class _Watched:
    """A child process, whose end wakes whoever waits for it."""

    def __init__(self, pid: int) -> None:
        self._fd = os.pidfd_open(pid)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def ended_within(self, seconds: float) -> bool:
        """Whether it has ended by then."""
        return bool(select.select([self._fd], [], [], seconds)[0])


def _until_quiet(world: Scenario, state: Path, daemon: int, people: People | Steersman | None) -> str:
    """ "killed", "quiet", or what is wrong with the daemon."""
    give_up = time.monotonic() + LIFE_REAL_S
    with _Watched(daemon) as process:
        while time.monotonic() < give_up:
            if process.ended_within(LOOK_REAL_S):
                _, status = os.waitpid(daemon, 0)
                if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
                    return "killed"
                tail = (state / "aglowd.log").read_text(encoding="utf-8", errors="replace")[-1500:]
                return f"the daemon ended by itself ({os.waitstatus_to_exitcode(status)}): {tail}"
            if people is not None:
                people.look()
            is_over = people is None or people.is_content
            if is_over and _is_quiet(world, state / "aglowd.db", doubts=people is None):
                return "quiet"
    return f"not finished within {LIFE_REAL_S:.0f} s: {judge.what_moves(state / 'aglowd.db')}"


def _is_quiet(world: Scenario, path: Path, *, doubts: bool) -> bool:
    """Whether every field has come to its end and is packed, if it shall be, or, if nobody is there to settle them, to a doubt."""
    if not path.exists():
        return False
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=1.0)) as db:
        # What is scheduled never comes to an end.
        ours = "FROM runs WHERE key NOT LIKE 'schedule/%'"
        (runs,) = db.execute(f"SELECT count(*) {ours}").fetchone()
        going = "archived IS NULL" if world.archive_after else "state = 'running'"
        (running,) = db.execute(f"SELECT count(*) {ours} AND {going}").fetchone()
        (doubtful,) = db.execute("SELECT count(*) FROM effects WHERE state = 'doubt'").fetchone()
        return bool(runs) and (not running or (doubts and bool(doubtful)))
    return False


def _end(pid: int) -> None:
    """Ask for its orderly end; one that does not come is killed."""
    with _Watched(pid) as process:
        os.kill(pid, signal.SIGTERM)
        if not process.ended_within(LIFE_REAL_S):
            os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def keep(state: Path, keep_in: Path) -> Path:
    """Move the directory of a case that failed to where somebody can look at it."""
    place = keep_in / state.name
    shutil.copytree(state, place, ignore=shutil.ignore_patterns("*.sock"))
    return place
