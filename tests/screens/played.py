"""A story in a loop of its own, in which waiting costs nothing."""

from __future__ import annotations

import asyncio
import logging
from unittest.mock import patch

import structlog

from aglowd.grid import catalogue_csv
from tests.screens import beside, host, short, still, survey
from tests.screens.stage import STORIES, Stage
from tests.virtual import loop

TYPED_REAL_S = 100.0
"""Real seconds for which time stands still while something is typed, however busy the machine is."""
PLAYS = (beside, host, short, still, survey)
"""Importing them fills STORIES."""


def play(name: str) -> Stage:
    """All scenes of the story."""
    stage = Stage(name)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with (
            # Files are dated by the host's own clock, of which nobody here knows how much passes: none is called young.
            patch.object(catalogue_csv, "_YOUNG_S", 0.0),
            patch.object(loop, "HUNG_REAL_S", TYPED_REAL_S),
            asyncio.Runner(loop_factory=loop.VirtualLoop) as runner,
        ):
            runner.run(STORIES[name](stage))
    finally:
        structlog.reset_defaults()
    return stage
