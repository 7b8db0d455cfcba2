"""Break, run the tests that should notice, tell: `python -m tests.mutants [NAME…]`.

Each mutant lives in a copy of the tree; the tree itself is never touched. First the tests that the list names are run
on an unbroken copy, because a test that fails anyway notices nothing: it is told and left out. A name is any part of a mutant's name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.mutants.kinds import Edit, Mutant
from tests.mutants.listed import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("aglowd", "tests", "etc", "docs", "bench", "systemd", "setup.cfg", "pyproject.toml", "README.md", "Makefile")
AT_ONCE = 2
"""Mutants under test at the same time: one a core of a small machine."""
TEST_TIMEOUT_S = 40
"""Real seconds after which a test has failed: a mutant may well wait for ever."""
PYTEST_TIMEOUT_S = 600.0
"""Real seconds; a test that leaves a thread behind would keep pytest for ever."""
PYTEST = (
    *("-q", "-rfE", "--tb=no", "--no-header", "-p", "no:randomly", "-p", "no:cacheprovider"),
    *(f"--timeout={TEST_TIMEOUT_S}", "--hypothesis-seed=0"),
)
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)
TESTS_FAILED = 1
"""pytest's exit code when tests ran and some failed; any other failure is one of the list or of the tests."""


class Verdict(NamedTuple):
    """What became of a mutant: the test that noticed it, or what went wrong instead."""

    mutant: Mutant
    killed_by: str
    trouble: str
    seconds: float


def apply(root: Path, edits: tuple[Edit, ...]) -> str:
    """Break the copy below `root`; returns what stands in the way, or ''."""
    for path, old, new in edits:
        text = (root / path).read_text(encoding="utf-8")
        found = text.count(old)
        if found != 1:
            return f"{path} holds the text to replace {found} times, not once: {old.strip()[:60]!r}"
        (root / path).write_text(text.replace(old, new), encoding="utf-8")
    return ""


def copy_tree(source: Path, root: Path) -> None:
    """All that the tests need. Times are kept, so that what is compiled fits all files but the one that is broken."""
    for name in COPIED:
        if (source / name).is_dir():
            shutil.copytree(source / name, root / name)
        else:
            shutil.copy2(source / name, root / name)


def run_tests(root: Path, *options: str) -> tuple[int, str]:
    """pytest's exit code and words. Nothing that the tests started below `root` outlives them."""
    env = {**os.environ, "PYTHONPATH": str(root)}
    argv = [sys.executable, "-m", "pytest", *PYTEST, *options]
    try:
        ended = subprocess.run(
            argv, cwd=root, env=env, capture_output=True, text=True, timeout=PYTEST_TIMEOUT_S, check=False
        )
        return ended.returncode, ended.stdout + ended.stderr
    except subprocess.TimeoutExpired:
        return -1, f"pytest did not end within {PYTEST_TIMEOUT_S:g} s"
    finally:
        sweep(root)


def sweep(root: Path) -> None:
    """End processes that a broken product left behind in the copy."""
    for process in psutil.process_iter(["cwd"]):
        if (process.info["cwd"] or "").startswith(str(root)):
            with suppress(psutil.Error):
                process.kill()


def judge(mutant: Mutant, origin: Path, left_out: list[str]) -> Verdict:
    """Break one copy of the tree at `origin` and see who notices."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="aglowd-mutant-") as directory:
        root = Path(directory)
        copy_tree(origin, root)
        killed_by, trouble = "", apply(root, mutant.edits)
        if not trouble:
            code, said = run_tests(root, "-x", "-n0", *(f"--deselect={test}" for test in left_out), *mutant.tests)
            failed = FAILED.search(said)
            if code == TESTS_FAILED and failed:
                killed_by = failed[1]
            elif code != 0:
                trouble = f"pytest ended with {code}: {' '.join(said.split())[-200:]}"
    return Verdict(mutant, killed_by, trouble, time.monotonic() - began)


def find_failing(mutants: list[Mutant], origin: Path) -> list[str]:
    """The named tests that fail on an unbroken copy. Ends here if pytest itself does."""
    tests = dict.fromkeys(test for mutant in mutants for test in mutant.tests)
    code, said = run_tests(origin, f"-n{AT_ONCE}", *tests)
    if code not in (0, TESTS_FAILED):
        sys.exit(said)
    return sorted(set(FAILED.findall(said)))


def main(names: list[str]) -> int:
    """0 when every mutant was killed, and no test fails without one."""
    chosen = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    killed = 0
    with tempfile.TemporaryDirectory(prefix="aglowd-mutants-") as directory, ThreadPoolExecutor(AT_ONCE) as pool:
        origin = Path(directory)
        copy_tree(ROOT, origin)  # Once: the tree may change while its mutants are under test.
        failing = find_failing(chosen, origin)
        for test in failing:
            print(f"fails without a mutation, left out: {test}", flush=True)
        for verdict in pool.map(partial(judge, origin=origin, left_out=failing), chosen):
            killed += bool(verdict.killed_by)
            outcome = verdict.killed_by or verdict.trouble or "SURVIVED"
            print(f"{verdict.seconds:5.1f} s  {verdict.mutant.name:<58}  {outcome}", flush=True)
    print(f"{len(chosen)} mutants: {killed} killed, {len(chosen) - killed} survived")
    return 0 if chosen and killed == len(chosen) and not failing else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
