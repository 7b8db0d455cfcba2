"""`make bench-check`: whether the fixed workloads still take what is on record; `make bench-record` puts it on record anew.

What must stay true: only counts are compared, which are the same on any load; what cannot be counted on this machine, or was
recorded with another Python or SQLite on which it depends, is said and not compared. More than a fifth off fails, whichever
way: who made it better records that, or the next one loses it again unseen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.counts import WORKLOADS

TOLERANCE = 0.2
EXPECTED = Path(__file__).parent / "expected.json"
ROOT = Path(__file__).parent.parent
SIZE = 50
"""Runs whose instructions are counted."""
LIMIT_S = 600
BY_HAND = frozenset({"ingest", "decide", "claims"})
"""Workloads that prepare nothing side by side: only there the whole process syncs equally often each time."""
PLAIN = "plain"
"""The workload without meters."""
NAMES = (*WORKLOADS, PLAIN)
DEPENDS: Mapping[str, tuple[str, ...]] = {
    "calls": ("python",),
    "sqlite steps": ("sqlite",),
    "writes": ("sqlite",),
    "written bytes": ("sqlite",),
    "syncs": ("sqlite",),
    "instructions": ("python", "sqlite", "machine", "counter"),
}
"""Count → what else must be the same for it to be. Statements, commits and requests depend on nothing but us."""

Counts = dict[str, dict[str, int]]
"""Workload → what → how many."""


def count(names: Sequence[str]) -> tuple[dict[str, str], Counts, list[str]]:
    """What this machine is, what these workloads take on it, and what cannot be counted."""
    counter, missing = _counter(), []
    here = {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "counter": counter[0] if counter else "",
    }
    can_sync = _says("strace", "-f", "-qq", "-c", "-e", "trace=fdatasync", "true") is not None
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        instructions = [pool.submit(counter[1], size) for size in (SIZE, 0)] if counter and PLAIN in names else []
        others = [name for name in names if name != PLAIN]
        counted = dict(
            zip(others, pool.map(lambda name: _run(name, can_sync=can_sync and name in BY_HAND), others), strict=True)
        )
        if instructions:
            counted[PLAIN] = {"instructions": instructions[0].result() - instructions[1].result()}
    if not can_sync:
        missing.append("syncs: not available here, strace is missing or may not trace")
    if counter is None and PLAIN in names:
        missing.append("instructions: not available here, neither perf nor valgrind can count them")
    return here, counted, missing


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _call(argv: list[str]) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    return subprocess.run(
        argv,
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT_S,
        stdin=subprocess.DEVNULL,
    )


def _says(*argv: str) -> str | None:
    """What the program says, on both ways; None if it is missing or fails."""
    if shutil.which(argv[0]) is None:
        return None
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT_S)
    return done.stdout + done.stderr if done.returncode == 0 else None


def _run(name: str, *, can_sync: bool) -> dict[str, int]:
    argv = _python("bench.counts", name)
    if not can_sync:
        return dict(json.loads(_call(argv).stdout))
    with tempfile.NamedTemporaryFile("r") as told:
        done = _call(
            ["strace", "-f", "-qq", "-c", "-U", "name,calls", "-e", "trace=fsync,fdatasync", "-o", told.name, *argv]
        )
        syncs = sum(int(count) for count in re.findall(r"^f(?:data)?sync +(\d+)", told.read(), re.MULTILINE))
    return {**json.loads(done.stdout), "syncs": syncs}


def _counter() -> tuple[str, Callable[[int], int]] | None:
    """What counts instructions here, by name, and how many it counts for that size."""
    perf = ["perf", "stat", "-x,", "-e", "instructions:u"]
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]

    def by(argv: list[str], pattern: str) -> Callable[[int], int]:
        def instructions(size: int) -> int:
            found = re.search(pattern, _call([*argv, *_python("bench.plain", str(size))]).stderr, re.MULTILINE)
            if found is None:
                raise RuntimeError(f"{argv[0]} told no number of instructions")
            return int(found[1].replace(",", ""))

        return instructions

    if re.search(r"^\d+,", _says(*perf, "true") or "", re.MULTILINE):
        return "perf", by(perf, r"^(\d+),")
    if _says("valgrind", "--version") is not None:
        return "valgrind", by(valgrind, r"I +refs: +([\d,]+)")
    return None


def compare(expected: Mapping[str, Any], here: Mapping[str, str], counted: Counts) -> tuple[list[str], list[str]]:
    """What is off by more than the tolerance, and what is not compared, each a line."""
    off, left = [], []
    for name, what, was, now in _pairs(expected["counts"], counted):
        others = [key for key in DEPENDS.get(what, ()) if expected["recorded_with"][key] != here[key]]
        if others:
            said = ", ".join(f"{key} {expected['recorded_with'][key] or 'without'}" for key in others)
            left.append(f"{name}: {what}: not compared, recorded with {said}")
        elif now is None and what in ("syncs", "instructions"):
            left.append(f"{name}: {what}: not compared, not available here")
        elif was is None or now is None:
            off.append(
                f"{name}: {what}: was {'not counted' if was is None else was}, is {'not counted' if now is None else now}"
            )
        elif abs(now - was) > TOLERANCE * was:
            share = f"{(now - was) / was:+.0%}" if was else "from nothing"
            off.append(f"{name}: {what}: was {was}, is {now} ({share}, {'worse' if now > was else 'better'})")
    return off, left


def _pairs(expected: Counts, counted: Counts) -> Iterator[tuple[str, str, int | None, int | None]]:
    for name in dict.fromkeys((*expected, *counted)):
        was, now = expected.get(name, {}), counted.get(name, {})
        for what in dict.fromkeys((*was, *now)):
            yield name, what, was.get(what), now.get(what)


def main(arguments: list[str]) -> int:
    """0 = as recorded; 1 = something is off."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.check", description="Compare what fixed workloads take with the record."
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--record", action="store_true", help="put on record what they take now")
    parser.add_argument("--expected", type=Path, default=EXPECTED, help="the record")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.workloads) - set(NAMES)):
        parser.error(f"there is no workload {unknown[0]}; expected {', '.join(NAMES)}")
    if options.record and options.workloads:
        parser.error("a record holds all workloads; expected --record alone")
    names = options.workloads or NAMES
    here, counted, missing = count(names)
    if options.record:
        record = {"recorded_with": here, "counts": counted}
        options.expected.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        print("\n".join([*missing, f"recorded in {options.expected}"]))
        return 0
    expected = json.loads(options.expected.read_text(encoding="utf-8"))
    expected["counts"] = {name: counts for name, counts in expected["counts"].items() if name in names}
    off, left = compare(expected, here, counted)
    print("\n".join([*missing, *left, *off]))
    print(
        f"{len(off)} counts are off by more than {TOLERANCE:.0%}; if that is meant: make bench-record"
        if off
        else f"all {sum(map(len, counted.values())) - len(left)} counts are within {TOLERANCE:.0%} of the record"
    )
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
