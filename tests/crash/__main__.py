"""`python -m tests.crash`: kill the daemon at every crash point, start it again, and judge what it left of its world.

Without arguments: every point once, then every point once as the second kill, in the life that follows a first one.
The last line is `N points, M runs: lost 0, duplicated 0, doubtful K`; exit 1 if anything was lost, duplicated or not
finished, or if a point was never reached.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import date
from itertools import chain
from pathlib import Path

# The seams are armed when they are imported, and what is imported here need not be imported by each child.
os.environ["AGLOWD_CRASH_AT"] = ""

import msgspec

from aglowd.grid import tokens
from tests.crash import broken, plan
from tests.crash.lives import Case, Result, fork, keep, play
from tests.crash.points import list_seams
from tests.crash.scenario import SCENARIOS
from tests.turns import rotating_third

JOBS = 3
"""Cases at a time: each waits for its world a third of its time."""
TRACES = 3
"""So often the scenarios are played undisturbed until together they have passed every point."""
DRAWS = 6
"""So often cases are drawn for a point: what is passed only in a certain order of things may be missed once."""
TELL_EVERY = 25
"""Cases after which a line says how far it has come."""


class Attempts:
    """One point to be tested: cases are tried until one of them takes place as it should."""

    def __init__(self, what: str, cases: Iterator[Case], needed: bool = True, trace: bool = False) -> None:
        self.what = what
        self.cases = cases
        self.needed = needed
        """Whether it is an error if every case came to its end before its last kill."""
        self.trace = trace


class Runner:
    """Plays cases, some at a time, each in a process of its own with a directory of its own."""

    def __init__(self, jobs: int, seed: int) -> None:
        self.jobs = jobs
        self.seed = seed
        self.traces: dict[str, list[str]] = {}
        self.runs = 0
        self.lost = self.duplicated = self.doubtful = 0
        self.failed: list[str] = []
        memory = Path("/dev/shm")
        self._base = Path(tempfile.mkdtemp(prefix="crash-", dir=memory if os.access(memory, os.W_OK) else None))
        self._kept = Path(tempfile.gettempdir()) / f"aglowd-crash-{os.getpid()}"

    def play_all(self, work: Iterator[Attempts]) -> None:
        """Play until all attempts have ended."""
        playing: dict[int, tuple[Attempts, Case, Path]] = {}
        again: deque[Attempts] = deque()
        exhausted = False
        while playing or again or not exhausted:
            while len(playing) < self.jobs and (again or not exhausted):
                one = again.popleft() if again else next(work, None)
                if one is None:
                    exhausted = True
                    continue
                case = next(one.cases, None)
                if case is None:
                    if one.needed:
                        self._fail(f"{one.what} was never reached")
                    continue
                pid, place = self._begin(case, one.trace)
                playing[pid] = (one, case, place)
            if not playing:
                continue
            pid, _ = os.wait()
            one, case, place = playing.pop(pid)
            if self._take(one, case, place) < len(case.kills):
                again.append(one)

    def trace_all(self, points: list[str]) -> None:
        """Learn which points each scenario passes when nobody disturbs it; a busy machine may need a second look."""
        for _ in range(TRACES):
            self.play_all(Attempts(one.name, iter((Case(one),)), trace=True) for one in SCENARIOS)
            if {*points} <= {point for passed in self.traces.values() for point in passed}:
                break

    def close(self) -> None:
        """Remove what was kept in memory."""
        shutil.rmtree(self._base, ignore_errors=True)

    def _begin(self, case: Case, trace: bool) -> tuple[int, Path]:
        self.runs += 1
        place = self._base / f"{self.runs:05d}"
        place.mkdir()

        def work() -> None:
            result = play(case, place, trace=trace)
            (place / "result.json").write_bytes(msgspec.json.encode(result))

        return fork(work, place / "case.log"), place

    def _take(self, one: Attempts, case: Case, place: Path) -> int:
        """Count what came of the case; returns how many of its kills took place."""
        try:
            result = msgspec.json.decode((place / "result.json").read_bytes(), type=Result)
        except FileNotFoundError:
            log = (place / "case.log").read_text(encoding="utf-8")[-2000:]
            result = Result(killed=len(case.kills), wrong=[f"the harness itself failed: {log}"])
        self.lost += len(result.lost)
        self.duplicated += len(result.duplicated)
        self.doubtful += len(result.doubtful)
        if one.trace:
            name = case.scenario.name
            self.traces[name] = max(self.traces.get(name, []), result.passed, key=lambda passed: len({*passed}))
        if not result.is_well:
            told = [f"lost: {text}" for text in result.lost] + [f"duplicated: {text}" for text in result.duplicated]
            told += [f"wrong: {text}" for text in result.wrong]
            self._fail(f"{replay(case, self.seed)}\n  " + "\n  ".join(told) + f"\n  kept in {keep(place, self._kept)}")
        shutil.rmtree(place, ignore_errors=True)
        if self.runs % TELL_EVERY == 0:
            say(f"… {self.runs} runs, {len(self.failed)} failed")
        return result.killed if result.is_well else len(case.kills)

    def _fail(self, text: str) -> None:
        self.failed.append(text)
        say(f"FAILED {text}")


def replay(case: Case, seed: int) -> str:
    """The command that plays the case again."""
    words = ["python -m tests.crash", f"--scenario {case.scenario.name}", f"--seed {seed}"]
    words += [f"{option} {kill}" for option, kill in zip(("--point", "--then"), case.kills, strict=False)]
    words += [f"--broken {case.broken}"] if case.broken else []
    return " ".join(words)


def say(text: str) -> None:
    """A line, at once."""
    print(text, flush=True)


def read_arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the draws; default: drawn and printed")
    parser.add_argument("--jobs", type=int, default=JOBS, help="cases at a time")
    parser.add_argument("--day", type=date.fromisoformat, help="whose third it is; default: today's")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--third", action="store_true", help="a rotating third, and those in changed modules, once each")
    part.add_argument(
        "--rest",
        action="store_true",
        help="that third as the second kill, then the other two thirds once, in drawn order",
    )
    parser.add_argument("--minutes", type=float, help="try no point alone after so long, and say how many are left")
    parser.add_argument("--pairs", action="store_true", help="all pairs instead of each point once as the second")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="of the pairs, the I-th of N parts")
    parser.add_argument("--only", default="", metavar="TEXT", help="points whose names contain it")
    parser.add_argument("--point", metavar="NAME:N", help="this kill alone")
    parser.add_argument("--then", metavar="NAME:N", help="and this one in the life that follows")
    parser.add_argument("--scenario", choices=[one.name for one in SCENARIOS], help="alone: undisturbed")
    parser.add_argument("--broken", choices=sorted(broken.WAYS), default="", help="a daemon that is broken on purpose")
    return parser.parse_args(argv)


def work_of(
    given: argparse.Namespace, runner: Runner, once: list[str], twice: list[str], seed: int
) -> Iterator[Attempts]:
    """What is to be played once the traces are known; `once`: the points that are tried alone, `twice`: as the second kill."""
    traces = runner.traces
    reached = {point for passed in traces.values() for point in passed}
    singles: Iterator[Attempts] = (
        Attempts(point, _drawn(plan.singles, traces, point, seed))
        if point in reached
        else Attempts(f"{point}, in any scenario,", iter(()))
        for point in once
    )
    seconds = (
        Attempts(f"{point}, as the second kill,", _drawn(plan.seconds, traces, point, seed))
        for point in twice
        if point in reached
    )
    if given.minutes is not None:
        singles = plan.until(time.monotonic() + 60 * given.minutes, singles, say)
    # Those whose day it is are played however long it takes.
    yield from chain(seconds, singles) if given.rest else chain(singles, seconds)
    if given.pairs:
        part, parts = map(int, given.shard.split("/"))
        listed = [point for point in once if point in reached]
        for case in list(plan.pairs(traces, listed, seed))[part - 1 :: parts]:
            yield Attempts(" then ".join(case.kills), iter((case,)), needed=False)


def _drawn(cases: Callable[..., Iterator[Case]], traces: plan.Traces, point: str, seed: int) -> Iterator[Case]:
    """The cases for that point, and others in case that none of them takes place."""
    return chain.from_iterable(cases(traces, point, seed + draw) for draw in range(DRAWS))


def main(argv: list[str]) -> int:
    given = read_arguments(argv)
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    seams = list_seams()
    points = [point for seam in seams for point in seam.points if given.only in point]
    if not points:
        sys.exit(f"no crash point has {given.only!r} in its name")
    number, third = rotating_third(points, given.day)
    once, twice = points, [] if given.third or given.pairs else points
    if given.third:
        changed = [point for point in plan.in_changed_modules(seams) if given.only in point]
        points = once = sorted({*third, *changed})
        say(f"third {number + 1} of 3, and {len(set(changed) - set(third))} points more in changed modules")
    elif given.rest:
        once, twice = [point for point in points if point not in third], third
        random.Random(seed).shuffle(once)
        say(f"third {number + 1} of 3 as the second kill, and the other two alone")
    say(f"seed {seed}, {len(points)} points, {given.jobs} at a time")
    for module in ("aglowd.daemon", "aglowd.sim.grid"):
        importlib.import_module(module)
    tokens.load()
    gc.collect()
    gc.freeze()  # A child that collects garbage would copy all pages that it shares with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # So that what lies in memory is removed all the same.
    began = time.monotonic()
    runner = Runner(given.jobs, seed)
    try:
        if given.point or given.scenario:
            scenario = next(one for one in SCENARIOS if one.name == (given.scenario or "main"))
            case = Case(scenario, tuple(filter(None, (given.point, given.then))), given.broken)
            points = list(case.kills)
            runner.play_all(iter([Attempts(replay(case, seed), iter((case,)))]))
        else:
            runner.trace_all(points)
            runner.play_all(work_of(given, runner, once, twice, seed))
    finally:
        runner.close()
    took_s = time.monotonic() - began
    say(f"{took_s:.0f} s, {took_s / max(runner.runs, 1):.2f} s a run, {len(runner.failed)} failed")
    counts = f"lost {runner.lost}, duplicated {runner.duplicated}, doubtful {runner.doubtful}"
    say(f"{len(points)} points, {runner.runs} runs: {counts}")
    return 1 if runner.failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
