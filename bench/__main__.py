"""`python -m bench`: measure, print a table, write bench/results.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aglowd import __version__
from bench import speed, waiting

LATENCY_MS = 5.0
STEP_BYTES = 20_000
IDLE_PERCENT = 1.0


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Everything, as results.json holds it."""
    machine = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }
    print("measuring: commits, events, latency …", file=sys.stderr)
    fast = asyncio.run(speed.measure(directory, quick=quick))
    print("measuring: memory, opening, idle CPU …", file=sys.stderr)
    slow = waiting.measure(directory, quick=quick)
    targets = {
        "latency": fast["latency"]["unloaded"]["median_ms"] < LATENCY_MS,
        "memory": slow["memory"]["slope_bytes"] < STEP_BYTES,
        "idle": slow["idle"]["idle_percent"] < IDLE_PERCENT,
    }
    return {
        "schema": 1,
        "version": __version__,
        "quick": quick,
        "machine": machine,
        **fast,
        "waiting": slow,
        "targets": targets,
    }


def table_of(found: dict[str, Any]) -> Table:
    """The figures for people."""
    waits, targets = found["waiting"], found["targets"]
    table = Table(title=f"aglowd {found['version']}, Python {found['machine']['python']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_column("target")

    def row(what: str, figure: str, target: str = "", met: bool | None = None) -> None:
        verdict = {None: "", True: ": met", False: ": MISSED"}[met]
        table.add_row(what, figure, target + verdict)

    row("sqlite3 alone, WAL and FULL, one by one", f"{found['commits']['raw_per_s']:.0f} commits/s")
    for writers, figures in found["commits"]["writers"].items():
        row(
            f"store, {writers} concurrent writer{'s' if writers != '1' else ''}",
            f"{figures['per_s']:.0f}/s ({figures['in_one_commit']:.1f} in a commit)",
        )
    for producers, rate in found["events"].items():
        row(f"ingest → decision → finish, {producers} at a time", f"{rate:.0f} events/s")
    for name, figures in found["latency"].items():
        load = "unloaded" if name == "unloaded" else "with 1000 steps waiting"
        unloaded = name == "unloaded"
        row(
            f"observation → next effect, {load}",
            f"median {figures['median_ms']:.2f} ms, p99 {figures['p99_ms']:.2f} ms",
            f"median < {LATENCY_MS:.0f} ms" if unloaded else "",
            targets["latency"] if unloaded else None,
        )
    memory, idle = waits["memory"], waits["idle"]
    row(
        f"memory a waiting step ({waits['steps']} of them)",
        f"{memory['slope_bytes'] / 1000:.1f} kB (base {memory['base_mb']:.0f} MB)",
        f"< {STEP_BYTES // 1000} kB",
        targets["memory"],
    )
    row(
        f"idle CPU with {waits['steps']} waiting steps",
        f"{idle['idle_percent']:.2f} % of a core ({idle['rounds_percent']:.2f} % are the watchers' rounds)",
        f"< {IDLE_PERCENT:.0f} %",
        targets["idle"],
    )
    row(
        "opening the store with them",
        f"{waits['reopen']['open_s']:.2f} s ({waits['reopen']['database_mb']:.0f} MB)",
    )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what aglowd costs.")
    parser.add_argument("--quick", action="store_true", help="a smoke test: small numbers, figures of little worth")
    parser.add_argument("--dir", type=Path, help="measure on this file system; default: where temporary files lie")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json", help="the JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aglowd-bench-", dir=options.dir) as directory:
        found = measure(Path(directory), quick=options.quick)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    console = Console()
    console.print(table_of(found), width=None if console.is_terminal else 120)


main()
