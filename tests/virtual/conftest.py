"""Every coroutine test in this directory runs in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from tests.virtual.loop import VirtualLoop


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Also for the fixtures: a store that a test uses lives in the test's loop."""
    return {"virtual": VirtualLoop}
