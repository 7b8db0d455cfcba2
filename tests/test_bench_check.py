"""The guard on counts: a workload takes the same each time, and more of anything than is on record fails, by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.check import EXPECTED, NAMES, compare
from bench.counts import EVENTS

ROOT = Path(__file__).parent.parent
HERE = {"python": "3.11", "sqlite": "3.40.1", "machine": "x86_64", "counter": "perf"}
COUNTS = {"ingest": {"statements": 1000, "calls": 1000}, "plain": {"instructions": 10**9}}
RECORD = {"recorded_with": HERE, "counts": COUNTS}


def run(tree: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(tree), "PYTHONHASHSEED": "0"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=tree, env=environ, capture_output=True, text=True, check=False
    )


def with_count(name: str, what: str, now: int) -> dict[str, dict[str, int]]:
    return {**COUNTS, name: {**COUNTS[name], what: now}}


@pytest.mark.parametrize(
    ("now", "said"),
    [(1200, None), (1201, "was 1000, is 1201 (+20%, worse)"), (800, None), (750, "was 1000, is 750 (-25%, better)")],
)
def test_more_than_a_fifth_off_is_named_with_what_was_and_what_is(now: int, said: str | None) -> None:
    off, left = compare(RECORD, HERE, with_count("ingest", "statements", now))
    assert off == ([] if said is None else [f"ingest: statements: {said}"])
    assert left == []


def test_what_nobody_counted_before_or_counts_any_more_is_off() -> None:
    off, _ = compare(RECORD, HERE, {**COUNTS, "ingest": {"statements": 1000, "requests to lta": 1}})
    assert off == ["ingest: calls: was 1000, is not counted", "ingest: requests to lta: was not counted, is 1"]


def test_from_nothing_to_something_is_off() -> None:
    record = {"recorded_with": HERE, "counts": {"jobs": {"writes": 0}}}
    assert compare(record, HERE, {"jobs": {"writes": 0}}) == ([], [])
    assert compare(record, HERE, {"jobs": {"writes": 1}})[0] == ["jobs: writes: was 0, is 1 (from nothing, worse)"]


def test_what_depends_on_another_python_is_said_and_not_compared() -> None:
    off, left = compare(RECORD, {**HERE, "python": "3.13"}, with_count("ingest", "calls", 5))
    assert off == []
    assert left == [
        "ingest: calls: not compared, recorded with python 3.11",
        "plain: instructions: not compared, recorded with python 3.11",
    ]


def test_what_cannot_be_counted_here_is_said_and_not_compared() -> None:
    off, left = compare(RECORD, {**HERE, "counter": ""}, {"ingest": COUNTS["ingest"]})
    assert off == []
    assert left == ["plain: instructions: not compared, recorded with counter perf"]


def test_the_record_holds_every_workload() -> None:
    record = json.loads(EXPECTED.read_text(encoding="utf-8"))
    assert set(record["counts"]) == set(NAMES)
    assert record["counts"]["ingest"]["commits"] == EVENTS


def test_a_workload_takes_what_is_on_record() -> None:
    done = run(ROOT, "bench.check", "ingest")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "counts are within 20% of the record" in done.stdout


def test_a_product_that_asks_more_than_it_must_fails(tmp_path: Path) -> None:
    """The product is broken on purpose, in a copy: who brings an observation asks three times what was known."""
    for name in ("aglowd", "bench"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    facts = tmp_path / "aglowd" / "store" / "facts.py"
    asks = '    row = db.execute(queries()["get_subject"], {"key": key}).fetchone()\n'
    text = facts.read_text(encoding="utf-8")
    assert text.count(asks) == 1
    facts.write_text(text.replace(asks, asks * 3), encoding="utf-8")
    done = run(tmp_path, "bench.check", "ingest")
    assert done.returncode == 1, done.stdout + done.stderr
    expected: dict[str, Any] = json.loads(EXPECTED.read_text(encoding="utf-8"))["counts"]["ingest"]
    was = expected["statements"]
    assert f"ingest: statements: was {was}, is {was + 2 * EVENTS} (+22%, worse)" in done.stdout
    assert "make bench-record" in done.stdout
