"""`--third DAY`: three days in a row run each test once, in whatever order tests are drawn; without it none is left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def collected(*words: str) -> list[str]:
    argv = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "not long", *words, "tests/test_durations.py")
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return sorted(line for line in done.stdout.splitlines() if "::" in line)


def test_three_days_in_a_row_run_each_test_once() -> None:
    days = [collected("--third", f"2026-03-0{day}") for day in (1, 2, 3)]
    everything = collected()
    assert sorted(name for day in days for name in day) == everything
    assert {len(day) - len(everything) // 3 for day in days} <= {0, 1}
