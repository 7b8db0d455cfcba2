"""Long work on the event loop, done in parts: between two of them whoever else has something to do there has its turn.

What must stay true: no turn of the loop is so long that an operator notices it, however many things there are and however much
each of them takes. One big text has no parts: it is read in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

TURN_REAL_S = 0.01
"""Real seconds of work after which the others have their turn."""


async def in_parts(items: Iterable[T]) -> AsyncIterator[T]:
    """The items one by one; between two of them others have their turn when this one has been long enough."""
    now = asyncio.get_running_loop().time
    began = now()
    for item in items:
        yield item
        if now() - began >= TURN_REAL_S:
            await asyncio.sleep(0)
            began = now()
