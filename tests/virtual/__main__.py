"""Worlds by the seed: `--seed N` lives through one exactly as it was, `--seeds 1000` through as many, two at a time."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from pathlib import Path

from tests.virtual.run import run_script, run_seed, tell
from tests.virtual.script import write_script

AT_ONCE = 2
LIFE = 20
"""Worlds that one process lives through. concurrent.futures hangs in Python 3.11 when its processes end after so many."""


def soak(first: int, seeds: int) -> int:
    """Many worlds; returns the exit code."""
    began, failed = time.monotonic(), []
    with multiprocessing.get_context("spawn").Pool(AT_ONCE, maxtasksperchild=LIFE) as pool:
        for number, verdict in enumerate(pool.imap_unordered(run_seed, range(first, first + seeds)), 1):
            if verdict.wrong:
                failed.append(verdict.seed)
                print(tell(verdict), flush=True)
            print(f"{number}/{seeds} {time.monotonic() - began:.0f} s, failed: {failed}", end="\r", file=sys.stderr)
    print(
        f"{seeds} seeds from {first}: {seeds - len(failed)} passed in {time.monotonic() - began:.0f} s, failed: {failed}"
    )
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.virtual", description=__doc__)
    parser.add_argument("--seed", type=int, help="this one world, with the daemon's log")
    parser.add_argument("--seeds", type=int, default=20, help="how many worlds")
    parser.add_argument("--first", type=int, default=0, help="the first of their seeds")
    parser.add_argument("--ledger", type=Path, help="with --seed: write what was done to the world to this file")
    given = parser.parse_args()
    if given.seed is None:
        return soak(given.first, given.seeds)
    script = write_script(given.seed)
    print(script)
    began = time.process_time()
    verdict = run_script(script, quiet=False)
    if given.ledger is not None:
        given.ledger.write_text("\n".join(verdict.ops) + "\n", encoding="utf-8")
    print(tell(verdict))
    print(f"cpu {time.process_time() - began:.1f} s, {verdict.fields}")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    # Sets of texts have another order in every process, unless it is told otherwise; a replay must be exact.
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.virtual", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
