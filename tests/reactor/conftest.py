"""What tests of the reactor share: an engine, and a log that is kept."""

from __future__ import annotations

from collections.abc import Iterator
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
