"""A daemon of which every part is built and no loop runs: it answers, and nothing moves but what a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from aglowd.clock import Clock
from aglowd.config import load_config
from aglowd.daemon import Daemon


class Still(Daemon):
    """It waits where others work."""

    async def _work(self, *, once: bool) -> None:
        await self.asked(self)

    asked: Callable[[Daemon], Awaitable[None]]


def still(config: Path, clock: Clock | None = None) -> AbstractAsyncContextManager[Any]:
    """A daemon whose parts are all there. As `Any`: a test looks at what nobody else may see."""

    @asynccontextmanager
    async def built() -> Any:
        daemon = Still(load_config(config), clock, signals=(), path=config)
        ready: asyncio.Future[Daemon] = asyncio.get_running_loop().create_future()
        left = asyncio.Event()

        async def asked(made: Daemon) -> None:
            ready.set_result(made)
            await left.wait()

        daemon.asked = asked
        task = asyncio.create_task(daemon.run(), name="still")
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        try:
            yield daemon
        finally:
            left.set()
            await task

    return built()
