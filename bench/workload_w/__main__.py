"""`python -m bench.workload_w`: play the cells, print a table, write a JSON file; `… install PEER` gets a peer ready."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aglowd import __version__
from bench.workload_w.cell import Cell
from bench.workload_w.chain import CHAIN, Load
from bench.workload_w.family import become_reaper
from bench.workload_w.install import PEERS, install, python_of
from bench.workload_w.systems import SYSTEMS

IDLE_WAITS = 200
WIDTH = 180
"""Of the table where there is no terminal."""
COLUMNS = {
    "cell": "{system} {fields}{marks}",
    "start": "{start_s:.1f} s",
    "makespan ÷ ideal": "{over_ideal:.2f}",
    "delay median": "{delay_median_ms:.0f} ms",
    "p99": "{delay_p99_ms:.0f} ms",
    "CPU a step": "{cpu_per_step_ms:.1f} ms",
    "idle CPU": "{idle_percent:.1f} %",
    "memory": "{peak_mb:.0f} MB",
    "polls": "{polls}",
    "acts asked": "{act_requests}",
    "repeated": "{repeated}",
    "duplicates": "{duplicates}",
    "lost": "{lost}",
    "finished": "{finished}",
}


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """What is to be played, in its order."""
    for name in options.on:
        system = SYSTEMS[name]
        for fields in options.fields:
            load = Load(fields, options.wait_s, options.poll_s)
            yield Cell(name, system, load, options.limit_s)
            if options.kill:
                yield Cell(name, system, load, options.limit_s, is_killed=True)
        if options.idle:
            idle = Load(options.idle_waits, options.wait_s, options.poll_s)
            yield Cell(name, system, idle, options.limit_s, idle_s=options.idle_s)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What all cells find, as the JSON file holds it."""
    found: list[dict[str, Any]] = []
    for cell in cells(options):
        marks = ", killed" * cell.is_killed + ", idle" * bool(cell.idle_s)
        print(f"measuring: {cell.name}, {cell.load.fields} fields{marks} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="w-", dir=options.dir, ignore_cleanup_errors=True) as directory:
            found.append(await cell.play(Path(directory)))
        if "trouble" in found[-1]:
            print(found[-1]["trouble"], file=sys.stderr)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    about = {"schema": 1, "version": __version__, "machine": machine, "chain": CHAIN}
    return about | {"wait_s": options.wait_s, "poll_s": options.poll_s, "cells": found}


def table_of(found: dict[str, Any]) -> Table:
    """The figures for people."""
    title = f"aglowd {found['version']}: a wait {found['wait_s']:g} s, a poll every {found['poll_s']:g} s"
    table = Table(title=title)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "cell" else "right")
    for cell in found["cells"]:
        marks = " killed" * cell["killed"] + " idle" * cell["idle"]
        table.add_row(*(_shown(form, {**cell, "marks": marks}) for form in COLUMNS.values()))
    return table


def _shown(form: str, cell: dict[str, Any]) -> str:
    try:
        return form.format_map(cell)
    except (KeyError, TypeError):  # This cell has no such figure.
        return ""


def main() -> None:
    """Measure, or install."""
    parser = argparse.ArgumentParser(prog="python -m bench.workload_w", description=__doc__)
    parser.add_argument("--on", type=_systems, default=["floor", "aglowd"], help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--fields", type=_numbers, default=[50, 200], help="default: 50,200")
    parser.add_argument("--kill", action="store_true", help="each once more, killed in the middle and begun again")
    parser.add_argument("--idle", action="store_true", help="and once with waits that are never done")
    parser.add_argument("--idle-s", type=float, default=60.0)
    parser.add_argument("--idle-waits", type=int, default=IDLE_WAITS)
    parser.add_argument("--wait-s", type=float, default=10.0)
    parser.add_argument("--poll-s", type=float, default=2.0)
    parser.add_argument("--limit-s", type=float, default=900.0, help="a cell is given up after this")
    parser.add_argument("--dir", type=Path, help="measure on this file system; default: where temporary files lie")
    parser.add_argument("--out", type=Path, help="the JSON file; default: standard output, after the table")
    if sys.argv[1:2] == ["install"]:
        chosen = argparse.ArgumentParser(prog=f"{parser.prog} install")
        chosen.add_argument("peer", choices=list(PEERS))
        install(chosen.parse_args(sys.argv[2:]).peer)
        return
    options = parser.parse_args()
    try:
        for name in PEERS.keys() & options.on:
            python_of(name)
    except FileNotFoundError as error:
        parser.error(str(error))
    become_reaper()
    for number in (signal.SIGINT, signal.SIGTERM):  # A shell lets what it begins in the background ignore the first.
        signal.signal(number, signal.default_int_handler)
    found = asyncio.run(measure(options))
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table_of(found))
    text = json.dumps(found, indent=2) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _systems(text: str) -> list[str]:
    names = text.split(",")
    if unknown := sorted(set(names) - set(SYSTEMS)):
        raise argparse.ArgumentTypeError(f"there is no system {unknown[0]}; expected {', '.join(SYSTEMS)}")
    return names


main()
