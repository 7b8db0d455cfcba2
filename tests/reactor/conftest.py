"""What tests of the reactor share: an engine, and a log that is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support import (
    FarSide,
    new_engine,
)

from aglowd.effects.engine import Engine
from aglowd.store.store import Store


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, kept instead of printed: a printed traceback takes longer than the test."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
def engine(store: Store, world: FarSide) -> Engine:
    return new_engine(store, world)


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory where a commit costs nothing, for tests that live many lives: no power fails here."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as name:
        yield Path(name)
