"""How close to the limit: the store against sqlite3 alone, the feed against a reader by hand, the socket against bare aiohttp.

Each figure is a ratio of two things measured in turns in one run, so that it tells of us and not of the machine; what they
are compared with is in `durable`, `feed` and `sockets`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import feed, sockets

PRODUCERS = {1: 2000, 10: 10_000, 100: 20_000}
"""Concurrent producers → events."""
TURNS = 3
STORE_TIMES = 3.0
FEED_TIMES = 2.0
SOCKET_TIMES = 2.0
"""A figure may cost so many times what its bound costs."""


def measure(directory: Path, *, quick: bool) -> dict[str, Any]:
    """All three."""
    found: dict[str, Any] = {"durable": {}}
    for producers, count in PRODUCERS.items():
        place = directory / f"durable-{producers}"
        place.mkdir()
        numbers = (producers, count // 20 if quick else count, 1 if quick else TURNS)
        argv = [sys.executable, "-m", "bench.durable", str(place), *map(str, numbers)]
        root = Path(__file__).parent.parent
        done = subprocess.run(argv, cwd=root, stdout=subprocess.PIPE, check=True, timeout=600)
        found["durable"][str(producers)] = json.loads(done.stdout)
    return {**found, "feed": feed.measure(quick=quick), "socket": sockets.measure(directory, quick=quick)}


def targets_of(found: dict[str, Any]) -> dict[str, bool]:
    """Which bounds are kept."""
    return {
        "durable": all(one["same_ratio"] < STORE_TIMES for one in found["durable"].values()),
        "feed": found["feed"]["lines"]["ratio"] < FEED_TIMES,
        "live": found["socket"]["/live"]["ratio"] < SOCKET_TIMES,
    }


def add_rows(found: dict[str, Any], targets: dict[str, bool], row: Callable[..., None]) -> None:
    """The figures for people, ratios first."""
    for producers, one in found["durable"].items():
        row(
            f"durable events, {producers} producer{'s' if producers != '1' else ''}: store / the same statements in sqlite3",
            f"{one['same_ratio']:.2f}× ({one['same_cpu_ratio']:.2f}× CPU; {one['per_s']:.0f}/s of {one['same_per_s']:.0f}/s)",
            f"< {STORE_TIMES:.0f}×",
            targets["durable"],
        )
        row(
            f"the same / a bare commit of one row ({one['in_one_commit']:.0f} in a commit)",
            f"{one['bare_ratio']:.2f}× ({one['bare_per_s']:.0f} commits/s)",
        )
    for way in feed.WAYS:
        one, is_target = found["feed"][way], way == "lines"
        row(
            f"{found['feed']['changes']} changes as {way}: our reader / aiohttp and msgspec by hand",
            f"{one['ratio']:.2f}× ({one['cpu_ratio']:.2f}× CPU; {one['cpu_us']:.2f} µs of {one['bare_cpu_us']:.2f} µs a change)",
            f"< {FEED_TIMES:.0f}×" if is_target else "",
            targets["feed"] if is_target else None,
        )
    for path in sockets.PATHS:
        one, is_target = found["socket"][path], path == "/live"
        row(
            f"GET {path} ({one['bytes']} bytes): control socket / a bare handler",
            f"{one['ratio']:.2f}× ({one['cpu_ratio']:.2f}× CPU; {one['us']:.0f} µs of {one['bare_us']:.0f} µs)",
            f"< {SOCKET_TIMES:.0f}×" if is_target else "",
            targets["live"] if is_target else None,
        )
    query = found["socket"]["status_query"]
    row("of that, the query of the status alone", f"{query['us']:.0f} µs ({query['cpu_us']:.0f} µs CPU)")
