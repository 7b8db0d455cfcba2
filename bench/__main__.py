"""`python -m bench`: measure, print a table, write bench/results.json."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aglowd import __version__
from bench import asking, catalogue, growth, limits, speed, tokens, waiting, year

LATENCY_MS = 5.0
STEP_BYTES = 20_000
IDLE_PERCENT = 1.0
CATCH_UP_S = 60.0
CATCH_UP_MB = 300.0
QUERIES_A_ROUND = 2
CATALOGUE_PERCENT = 1.0
ANSWER_MS = 50.0
WHOLE = {
    "status": "aglowctl status, from the shell",
    "explain": "aglowctl explain, from the shell",
    "tab_command": "Tab behind a command that is begun",
    "tab_field": "Tab behind a field that is begun",
}
"""What is measured from the start of a process to its end."""
YEAR_MB = 250.0
YEAR_GROWTH = 1.1
PARTS = ("speed", "waiting", "asking", "tokens", "catalogue", "limits", "growth", "year")
LONG = ("growth", "year")
"""What is measured only when it is named: it takes an hour."""


def measure(directory: Path, parts: Sequence[str], *, quick: bool) -> dict[str, Any]:
    """What these parts find, as results.json holds it."""
    found: dict[str, Any] = {
        "schema": 1,
        "version": __version__,
        "quick": quick,
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "kernel": platform.release(),
            "load": os.getloadavg()[0],
        },
    }
    targets = {}
    if "speed" in parts:
        print("measuring: commits, events, latency …", file=sys.stderr)
        found |= asyncio.run(speed.measure(directory, quick=quick))
        targets["latency"] = found["latency"]["unloaded"]["median_ms"] < LATENCY_MS
    if "waiting" in parts:
        print("measuring: memory, opening, idle CPU …", file=sys.stderr)
        waits = found["waiting"] = waiting.measure(directory, quick=quick)
        targets["memory"] = waits["memory"]["slope_bytes"] < STEP_BYTES
        targets["idle"] = waits["idle"]["idle_percent"] < IDLE_PERCENT
    if "asking" in parts:
        print("measuring: answers to an operator …", file=sys.stderr)
        asked = found["asking"] = asking.measure(directory, quick=quick)
        targets["answers"] = asked["answers"]["status"]["median_ms"] < ANSWER_MS
    if "tokens" in parts:
        print("measuring: the token database …", file=sys.stderr)
        found["tokens"] = asyncio.run(tokens.measure(directory, quick=quick))
        sizes = found["tokens"]["watched"].values()
        targets["catch_up"] = all(size["catch_up"]["seconds"] < CATCH_UP_S for size in sizes)
        targets["catch_up_memory"] = max(size["steady"]["peak_mb"] for size in sizes) < CATCH_UP_MB
        # Whoever falls behind is later and later. A round that takes no longer than its changes were gathered for brings
        # each within three times that: it waits for the round under way, for the gathering, and for its own round.
        gather_s, steady = found["tokens"]["gather_s"], next(iter(sizes))["steady"]
        targets["changes"] = (
            steady["changes_per_s"] > 0.99 * found["tokens"]["changes_per_s"]
            and steady["lag_growth_s"] < gather_s
            and all(size["steady"]["lag_p99_s"] < 3 * gather_s for size in sizes)
        )
        targets["queries"] = all(size["most_in_a_round"] <= QUERIES_A_ROUND for size in sizes)
    if "catalogue" in parts:
        print("measuring: the catalogue …", file=sys.stderr)
        found["catalogue"] = asyncio.run(catalogue.measure(directory, quick=quick))
        kinds = found["catalogue"]["kinds"].values()
        targets["catalogue"] = all(kind["percent"] < CATALOGUE_PERCENT for kind in kinds if "percent" in kind)
    if "year" in parts:
        print("measuring: a year of the survey …", file=sys.stderr)
        lived = found["year"] = year.measure(directory, quick=quick)
        half, whole = (one for one in lived["samples"] if one["part"] in (0.5, 1.0))
        targets["year_memory"] = whole["rss_mb"] < YEAR_GROWTH * half["rss_mb"]
        targets["year_database"] = max(one["database_mb"] for one in lived["samples"]) < YEAR_MB
    if "limits" in parts:
        print("measuring: how close to the limit …", file=sys.stderr)
        found["limits"] = limits.measure(directory, quick=quick)
        targets |= limits.targets_of(found["limits"])
    if "growth" in parts:
        found["growth"] = growth.measure(directory / "growth", quick=quick)
        targets |= growth.targets_of(found["growth"])
    return found | {"targets": targets}


def table_of(found: dict[str, Any]) -> Table:
    """The figures for people."""
    table = Table(title=f"aglowd {found['version']}, Python {found['machine']['python']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_column("target")

    def row(what: str, figure: str, target: str = "", met: bool | None = None) -> None:
        verdict = {None: "", True: ": met", False: ": MISSED"}[met]
        table.add_row(what, figure, target + verdict)

    parts = {
        "commits": _speed_rows,
        "waiting": _waiting_rows,
        "asking": _asking_rows,
        "tokens": _tokens_rows,
        "catalogue": _catalogue_rows,
        "year": _year_rows,
        "limits": _limits_rows,
        "growth": _growth_rows,
    }
    for part, rows in parts.items():
        if part in found:
            rows(found, row)
    return table


def _speed_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
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
            found["targets"]["latency"] if unloaded else None,
        )


def _waiting_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    waits, targets = found["waiting"], found["targets"]
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


def _asking_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    part = found["asking"]
    for name, figures in part["answers"].items():
        is_status = name == "status"
        row(
            f"{name} of {part['fields']} fields, {part['events_a_minute']:.0f} events a minute",
            f"median {figures['median_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms",
            f"median < {ANSWER_MS:.0f} ms" if is_status else "",
            found["targets"]["answers"] if is_status else None,
        )
    python_ms = part["commands"]["python"]["median_ms"]
    for name, figures in part["commands"].items():
        if name in WHOLE:
            row(WHOLE[name], f"{figures['median_ms']:.0f} ms ({python_ms:.0f} ms are Python's start)")


def _tokens_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    part, targets = found["tokens"], found["targets"]
    for number, (types, size) in enumerate(part["watched"].items()):
        caught, steady = size["catch_up"], size["steady"]
        first = number == 0
        row(
            f"{part['tokens']} changes behind, {types} token types waited for",
            f"{caught['seconds']:.1f} s, {caught['peak_mb']:.0f} MB (base {caught['base_mb']:.0f} MB)",
            f"< {CATCH_UP_S:.0f} s, < {CATCH_UP_MB:.0f} MB" if first else "",
            targets["catch_up"] and targets["catch_up_memory"] if first else None,
        )
        row(
            f"{steady['changes_per_s']:.0f} changes/s, a round every {part['gather_s']:.0f} s or more",
            f"after median {steady['lag_median_s']:.1f} s, p99 {steady['lag_p99_s']:.1f} s; "
            f"{steady['cpu_percent']:.0f} % of a core, {steady['peak_mb']:.0f} MB",
            f"p99 < {3 * part['gather_s']:.0f} s, not growing" if first else "",
            targets["changes"] if first else None,
        )
        row(
            f"{size['queries']} queries in {size['rounds']} rounds",
            f"at most {size['most_in_a_round']} in one",
            f"<= {QUERIES_A_ROUND}" if first else "",
            targets["queries"] if first else None,
        )


def _catalogue_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    part, targets = found["catalogue"], found["targets"]
    for kind, figures in part["kinds"].items():
        what = f"catalogue {kind}: {part['fields']} fields, {part['at_work']} at work"
        if "missing" in figures:
            row(what, figures["missing"])
            continue
        row(
            what,
            f"{figures['percent']:.3f} % of a core ({figures['between_percent']:.4f} % between changes)",
            f"< {CATALOGUE_PERCENT:.0f} %",
            targets["catalogue"],
        )
        row(
            f"catalogue {kind}: a round, a write",
            f"unchanged {figures['unchanged_ms']:.2f} ms, changed {figures['changed_s'] * 1e3:.0f} ms; "
            f"a status {figures['write_ms']:.1f} ms",
        )


def _year_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    part, targets = found["year"], found["targets"]
    for number, one in enumerate(part["samples"], 1):
        last = number == len(part["samples"])
        done = f"{one['part']:.0%} of {part['fields']} fields, {part['tokens']} tokens"
        target = f"< {YEAR_GROWTH:.1f} of half time" if last else ""
        row(f"{done}: memory", f"{one['rss_mb']:.0f} MB", target, targets["year_memory"] if last else None)
        row(
            f"{done}: database",
            f"{one['database_mb']:.0f} MB: hot {one['hot_mb']:.0f}, packed {one['packed_mb']:.0f}, free {one['free_mb']:.0f}",
            f"< {YEAR_MB:.0f} MB" if last else "",
            targets["year_database"] if last else None,
        )
    events = part["samples"][-1]["last_event"]
    row(
        f"{part['days']:.0f} days, {part['decisions']} decisions, {part['effects']} effects, {events} events",
        f"{part['real_s']:.0f} s, of which upkeep {part['upkeep_s']:.0f} s",
    )


def _limits_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    limits.add_rows(found["limits"], found["targets"], row)


def _growth_rows(found: dict[str, Any], row: Callable[..., None]) -> None:
    growth.add_rows(found["growth"], row)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure what aglowd costs.")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all but {', '.join(LONG)}"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: small numbers, figures of little worth")
    parser.add_argument("--dir", type=Path, help="measure on this file system; default: where temporary files lie")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json", help="the JSON file")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {unknown[0]}; expected {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory(prefix="aglowd-bench-", dir=options.dir) as directory:
        found = measure(
            Path(directory), options.parts or [part for part in PARTS if part not in LONG], quick=options.quick
        )
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    console = Console()
    console.print(table_of(found), width=None if console.is_terminal else 120)


main()
