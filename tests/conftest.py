"""What all tests share. A test that leaves a task running fails: what it started would go on in somebody else's time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import hypothesis
import pytest
import structlog
from support import FarSide, HandClock, opened

from aglowd.store.store import Store
from tests.turns import rotating_third

collect_ignore = ["real"]
"""Its servers must be installed first: `make test-real`."""

# How long something takes says nothing on a machine that others use, too.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--third", type=date.fromisoformat, metavar="DAY", help="that day's third of the tests alone")


@pytest.hookimpl(trylast=True)  # What `-m` leaves out is out by then.
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A third of their names in order: the order in which they run is drawn anew each time, and may differ between workers."""
    if day := config.getoption("third"):
        _, named = rotating_third(sorted(item.nodeid for item in items), day)
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in named])
        items[:] = [item for item in items if item.nodeid in named]


@pytest.fixture(autouse=True)
def plain_log() -> None:
    """structlog's own default draws each traceback in a frame with all its variables, and takes seconds for it."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    processors = (
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.set_exc_info,
    )
    structlog.configure(processors=[*processors, renderer])


@pytest.fixture
async def tasks_left() -> AsyncIterator[None]:
    """Torn down after every other fixture of the test, because it is set up before them."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()}
    if left:  # One that is at its very end needs its turn of the loop, which a busy machine gives late.
        _, left = await asyncio.wait(left, timeout=1.0)
    for task in left:
        task.cancel()
    assert not left, f"the test leaves tasks running: {sorted(task.get_name() for task in left)}"


@pytest.fixture(autouse=True)
def no_task_is_left(request: pytest.FixtureRequest) -> None:
    """Tests that are no coroutines have no loop to leave anything in."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        request.getfixturevalue("tasks_left")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[Store]:
    async with opened(tmp_path / "state" / "aglowd.db", clock) as made:
        yield made


@pytest.fixture
def world(store: Store, clock: HandClock) -> FarSide:
    return FarSide(clock, store.db.path)
