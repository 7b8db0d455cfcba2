"""Which kills are tried: from what each scenario passes when nobody disturbs it, drawn by a seed.

What must stay true: a point that no scenario passes is an error, never left out; and a seed gives the same draws for
the same traces.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

from tests.crash.lives import Case
from tests.crash.points import ROOT, Seam
from tests.crash.scenario import SCENARIOS, Scenario

T = TypeVar("T")
Traces = Mapping[str, Sequence[str]]
"""Scenario → the points that its last life passed, in order."""

DRAWS = 4
"""First kills that are drawn for one second kill: it may lie behind what they leave to be done."""


def reaching(traces: Traces, point: str) -> list[Scenario]:
    """The scenarios that pass the point; those that begin with a kill only if no other does."""
    found = [one for one in SCENARIOS if point in traces[one.name]]
    return [one for one in found if not one.first] or found


def passing(traces: Traces, point: str) -> list[Scenario]:
    """All scenarios that pass the point, those first that are made for what is asked after a crash only."""
    return [one for one in reversed(SCENARIOS) if point in traces[one.name]]


def singles(traces: Traces, point: str, seed: int) -> Iterator[Case]:
    """Kill there: at a pass that is drawn, then at earlier ones, then at the first in every scenario that had one."""
    random = Random(f"{seed} {point}")
    scenario = random.choice(reaching(traces, point))
    number = random.randint(1, traces[scenario.name].count(point))
    while number:
        yield Case(scenario, (f"{point}:{number}",))
        number //= 2
    for other in passing(traces, point):
        yield Case(other, (f"{point}:1",))


def seconds(traces: Traces, point: str, seed: int) -> Iterator[Case]:
    """Kill there, at the first pass, in the life that follows a kill at a point that comes before, ever longer before."""
    random = Random(f"{seed} then {point}")
    for attempt in range(DRAWS):
        scenario = random.choice(passing(traces, point))
        passed = traces[scenario.name]
        last = len(passed) - 1 - list(reversed(passed)).index(point)
        yield Case(scenario, (_nth(passed, random.randint(0, max(last - 1, 0) >> attempt)), f"{point}:1"))
    for other in passing(traces, point):
        yield Case(other, (_nth(traces[other.name], 0), f"{point}:1"))


def pairs(traces: Traces, points: Sequence[str], seed: int) -> Iterator[Case]:
    """Every point in the first life with every point in the second."""
    for first in points:
        for second in points:
            random = Random(f"{seed} {first} {second}")
            both = [one for one in reaching(traces, first) if second in traces[one.name]]
            scenario = random.choice(both or reaching(traces, first))
            number = random.randint(1, traces[scenario.name].count(first))
            yield Case(scenario, (f"{first}:{number}", f"{second}:1"))


def _nth(passed: Sequence[str], at: int) -> str:
    return f"{passed[at]}:{passed[: at + 1].count(passed[at])}"


def until(end_s: float, work: Iterator[T], say: Callable[[str], None]) -> Iterator[T]:
    """The work as it comes, none of it after that time of the monotonic clock; what is left is counted and told."""
    everything = list(work)
    for number, one in enumerate(everything):
        if time.monotonic() > end_s:
            say(f"{len(everything) - number} of {len(everything)} were left: the time is over")
            return
        yield one


def in_changed_modules(seams: Iterable[Seam], root: Path = ROOT) -> list[str]:
    """The points in modules that differ from the last commit or from where this branch began; none without git."""
    changed: set[str] = set()
    for base in ("HEAD~1", "origin/HEAD...HEAD"):
        try:
            told = subprocess.run(
                ("git", "diff", "--name-only", base), cwd=root, capture_output=True, text=True, check=False
            )
        except OSError:
            return []
        changed.update(told.stdout.splitlines() if told.returncode == 0 else ())
    return [point for seam in seams if seam.file in changed for point in seam.points]
