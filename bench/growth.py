"""How one daemon grows: each thing at ×1, ×10 and ×100 up to a survey's figure, with the exponent of its curve.

An exponent is the slope of the least-squares line through the logarithms of size and cost: 1 is linear, and what has a part
that does not grow is below. The most that is allowed is what N log N itself has over the same sizes: 1.11 or so. CPU time is measured where it can be, because it tells of us and not of the machine's other work.
Requests to the outside have no curve: they are compared with what batches of a fixed size need.
"""

from __future__ import annotations

import asyncio
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from aglowd import log
from bench import catalogue, tokens, waiting

ROOT = Path(__file__).parent.parent


class Bound(Struct, frozen=True):
    """What a figure must stay below at the full size."""

    figure: str
    most: float
    unit: str


class Thing(Struct, frozen=True):
    """What grows. `sizes`: ×1, ×10, ×100; `costs`: the figures that have a curve; `measure`: (directory, sizes) → a row each."""

    size: str
    sizes: Sequence[int]
    quick: Sequence[int]
    costs: Sequence[str]
    measure: Callable[[Path, Sequence[int]], list[dict[str, float]]]
    bounds: Sequence[Bound] = ()


TURN = Bound("turn_ms", 50.0, "ms of CPU")
"""The longest turn of the event loop: so long an operator waits."""


def exponent_of(points: Iterable[tuple[float, float]]) -> float:
    """The slope through the logarithms."""
    logs = [(math.log(size), math.log(max(cost, 1e-9))) for size, cost in points]
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / sum((x - mean_x) ** 2 for x, _ in logs)


def _child(*arguments: object) -> list[dict[str, Any]]:
    argv = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, check=True, timeout=7200)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _places(directory: Path, sizes: Sequence[int]) -> Iterable[tuple[Path, int]]:
    for size in sizes:
        place = directory / str(size)
        place.mkdir(parents=True)
        yield place, size


def _waiting(directory: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Steps that wait for staging, tokens and jobs."""
    directory.mkdir(parents=True)
    rows: list[dict[str, float]] = []
    for found in waiting.measure_many(directory, sizes, 20.0 if sizes[0] >= 1000 else 6.0):
        idle = found["idle"]
        first = rows[0] if rows else {"steps": 0.0, "rss_mb": found["idle"]["rss_mb"]}
        more_kb = (idle["rss_mb"] - first["rss_mb"]) * 1e3 / (found["steps"] - first["steps"])
        names = ("rss_mb", "idle_percent", "between_percent", "rounds_percent", "new_cpu_ms")
        rows.append({
            "steps": found["steps"], "step_kb": more_kb, **{name: idle[name] for name in names}, **found["reopen"],
        })  # fmt: skip
    return rows


def _remembered(directory: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Events in the log."""
    directory.mkdir(parents=True)
    rows = []
    for told in _child("bench.remembered", directory, *sizes):
        answers = {name: told.pop(name) for name in ("history", "explain", "explain_then", "events")}
        asked = {f"{name}_{figure}": value for name, one in answers.items() for figure, value in one.items()}
        rows.append({**told, **asked})
    return rows


def _tokens(directory: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Documents in the token database, all types of which are waited for."""
    return [
        asyncio.run(tokens.catch_up(place, size // tokens.TOKENS)) for place, size in _places(directory, sizes)
    ]  # fmt: skip


def _rounds(part: str) -> Callable[[Path, Sequence[int]], list[dict[str, float]]]:
    def measure(directory: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
        return [_child("bench.rounds", part, place, size)[0] for place, size in _places(directory, sizes)]

    return measure


def _catalogue(directory: Path, sizes: Sequence[int]) -> list[dict[str, float]]:
    """Fields of the catalogue, in a file."""
    rows = []
    log.configure("json", "info", io.StringIO())
    for place, size in _places(directory, sizes):
        found = asyncio.run(catalogue.measure_kind("csv", place, size, catalogue.AT_WORK))
        names = ("changed_s", "unchanged_ms", "write_ms", "percent")
        rows.append({"fields": size, **{name: found[name] for name in names}})
    return rows


THINGS: Mapping[str, Thing] = {
    "waiting steps": Thing(
        "steps", (1_200, 12_000, 120_000), (300, 600, 1_200), ("rss_mb", "idle_percent", "open_cpu_s", "new_cpu_ms"), _waiting,
        (Bound("step_kb", 10.0, "kB"), Bound("idle_percent", 1.0, "% of a core")),
    ),
    "events in the log": Thing(
        "log", (10_000, 100_000, 1_000_000), (10_000, 20_000, 40_000),
        ("ready_cpu_s", "open_cpu_s", "history_cpu_ms", "explain_cpu_ms", "explain_then_cpu_ms", "events_cpu_ms"), _remembered,
        (Bound("ready_cpu_s", 5.0, "s of CPU"), Bound("history_cpu_ms", 10.0, "ms of CPU"), Bound("explain_cpu_ms", 10.0, "ms of CPU"),
         Bound("explain_then_cpu_ms", 10.0, "ms of CPU")),
    ),
    "tokens": Thing("tokens", (2_440, 24_400, 244_000), (244, 488, 976), ("catch_up_cpu_s",), _tokens),
    "files being staged": Thing(
        "surls", (1_000, 10_000, 100_000), (1_000, 2_000, 4_000),
        ("cpu_s", "staging_cpu_s", "locality_cpu_s", "window_cpu_s"), _rounds("staging"), (TURN,),
    ),
    "jobs": Thing("jobs", (500, 5_000, 50_000), (500, 1_000, 2_000), ("cpu_s",), _rounds("jobs"), (TURN,)),
    "fields of the catalogue": Thing(
        "fields", (100, 1_000, 10_000), (100, 200, 400), ("changed_s", "unchanged_ms", "write_ms"), _catalogue
    ),
}  # fmt: skip


def measure(directory: Path, *, quick: bool, things: Sequence[str] = tuple(THINGS)) -> dict[str, Any]:
    """The curves, their exponents and verdicts."""
    found: dict[str, Any] = {}
    for name in things:
        thing = THINGS[name]
        print(f"measuring: {name} …", file=sys.stderr, flush=True)
        rows = thing.measure(directory / name.replace(" ", "-"), thing.quick if quick else thing.sizes)
        exponents = {cost: exponent_of((row[thing.size], row[cost]) for row in rows) for cost in thing.costs}
        most = exponent_of((row[thing.size], row[thing.size] * math.log(row[thing.size])) for row in rows)
        found[name] = {
            "rows": rows,
            "exponents": exponents,
            "most": most,
            "grows": all(exponent <= most for exponent in exponents.values()),
            "bounds": {one.figure: rows[-1][one.figure] < one.most for one in thing.bounds},
            "calls": all(row.get("calls", 0) <= row.get("calls_needed", 0) for row in rows),
        }
    return found


def targets_of(found: dict[str, Any]) -> dict[str, bool]:
    """What each thing was to keep."""
    return {
        f"growth: {name}": one["grows"] and one["calls"] and all(one["bounds"].values()) for name, one in found.items()
    }


def add_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    """The curves for people: a row for each, with its exponent."""
    for name, one in found.items():
        thing, rows = THINGS[name], one["rows"]
        sizes = ", ".join(f"{each[thing.size]:.0f}" for each in rows)
        for cost, exponent in one["exponents"].items():
            curve = " → ".join(f"{each[cost]:.3g}" for each in rows)
            row(
                f"{name} ({sizes}): {cost}",
                f"{curve}; N^{exponent:.2f}",
                f"<= N^{one['most']:.2f}",
                exponent <= one["most"],
            )
        for bound in thing.bounds:
            figure, is_met = rows[-1][bound.figure], one["bounds"][bound.figure]
            row(f"{name}, the last: {bound.figure}", f"{figure:.3g} {bound.unit}", f"< {bound.most:g}", is_met)
        if "calls" in rows[0]:
            curve = " → ".join(f"{each['calls']:.0f}" for each in rows)
            needed = " → ".join(f"{each['calls_needed']:.0f}" for each in rows)
            row(f"{name}: requests to the outside in a round", curve, f"<= {needed}", one["calls"])
