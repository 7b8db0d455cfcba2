"""Calls that may block for ever, such as any look at a file whose mount may be dead, away from the event loop.

What must stay true: whoever waits for such a call waits for a bounded time; calls that hang in one place take no
thread from another; a thread that hangs holds up neither the stop nor the exit. asyncio's own threads fail all three:
they are shared by everybody, they end only when their call does, and the loop joins them when it ends.
"""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")

FILE_REAL_S = 60.0
"""Real seconds that a look at a file, or a small write, may take: a network file system that is well is done long before."""
HINT = "is its mount dead?"
MOST = 8
"""Calls at once in one place; as many may hang before the next ones are refused."""


class Threads:
    """The threads of one place: a file system, a directory, a file. `most` of its calls may be under way or hang."""

    def __init__(self, place: str, *, most: int = MOST) -> None:
        self._place = place
        self._places = asyncio.Semaphore(most)
        self._threads = _DaemonThreads(f"aglowd {place}")

    async def run(self, work: Callable[[], T], timeout_s: float | None = None) -> T:
        """What the call returned or raised; TimeoutError, an OSError, after so many real seconds, or FILE_REAL_S.

        After that the call may still go on, and even end well: of a write nobody can tell then. So it is when the caller
        is cancelled.
        """
        timeout_s = FILE_REAL_S if timeout_s is None else timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise TimeoutError(f"{self._place}: earlier calls hang, nothing more is asked: {HINT}") from error
        try:
            called = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:  # The host has no thread left.
            self._places.release()
            raise OSError(errno.EAGAIN, f"{self._place}: {error}") from error
        called.add_done_callback(self._free)
        done, _ = await asyncio.wait([called], timeout=timeout_s)
        if not done:
            raise TimeoutError(f"{self._place}: no answer within {timeout_s:g} s: {HINT}")
        return called.result()

    def _free(self, called: asyncio.Future[Any]) -> None:
        self._places.release()
        if not called.cancelled():
            called.exception()  # Nobody else fetches it when the caller has gone.


class _DaemonThreads(Executor):
    """A new thread for each call, for which nobody waits at the end of the process."""

    def __init__(self, name: str) -> None:
        self._name = name

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        future.set_running_or_notify_cancel()
        threading.Thread(target=run, name=self._name, daemon=True).start()
        return future
