"""Lives through one world in a loop and a directory of its own."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from aglowd.grid import catalogue_csv
from tests.virtual.day import Verdict, live
from tests.virtual.loop import VirtualLoop
from tests.virtual.script import Script, write_script


def new_directory() -> str | None:
    """Where databases are quick: memory, if the host has such a file system."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def run_script(script: Script, *, quiet: bool = True) -> Verdict:
    """One world, in a directory that goes away with it."""
    level = logging.CRITICAL if quiet else logging.INFO
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    # Files are dated by the host's own clock, of which nobody here knows how much passes: none is called young.
    young_s, catalogue_csv._YOUNG_S = catalogue_csv._YOUNG_S, 0.0
    try:
        with (
            TemporaryDirectory(prefix="aglowd-v", dir=new_directory(), ignore_cleanup_errors=True) as directory,
            asyncio.Runner(loop_factory=VirtualLoop) as runner,
        ):
            return runner.run(live(script, Path(directory)))
    finally:
        catalogue_csv._YOUNG_S = young_s
        structlog.reset_defaults()


def run_seed(seed: int) -> Verdict:
    return run_script(write_script(seed))


def tell(verdict: Verdict) -> str:
    """One line, and one for each thing that is wrong."""
    faults = sum(verdict.faults.values())
    told = (
        f"seed {verdict.seed}: {verdict.world_days:.1f} days, {verdict.crashes} crashes, {faults} faults of "
        f"{len(verdict.faults)} kinds, {verdict.checks} checks, {len(verdict.ops)} lines"
    )
    return "\n  ".join((told, *verdict.wrong[:20]))
