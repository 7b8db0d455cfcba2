"""Crash points: named places beside every commit and every outside call at which a test can kill the process.

`@seam` gives a function two points, `module.function:before` and `module.function:after`. What must stay true: in
production, where neither variable below is set, the decorator returns the function itself, so it costs nothing.

`AGLOWD_CRASH_AT=NAME:N` kills the process with SIGKILL at the N-th pass of that point (from 1); `AGLOWD_CRASH_TRACE=FILE`
appends the name of each point that is passed. They arm the seams when they are set at import, even if they are empty,
and they are read anew at each pass, so that a process forked from an armed one can be given its own point.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar, cast

AT = "AGLOWD_CRASH_AT"
TRACE = "AGLOWD_CRASH_TRACE"

F = TypeVar("F", bound=Callable[..., Any])

_passes: Counter[str] = Counter()
_lock = threading.Lock()


def seam(function: F) -> F:
    """A crash point before the function begins and one after it has returned; after each value of a generator."""
    if AT not in os.environ and TRACE not in os.environ:
        return function
    return cast(F, _armed(function))


def _armed(function: Callable[..., Any]) -> Callable[..., Any]:
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__.lstrip('_')}"
    before, after = f"{name}:before", f"{name}:after"

    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def generate(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            point(before)
            async with contextlib.aclosing(function(*args, **kwargs)) as values:
                async for value in values:
                    point(after)
                    yield value

        return generate

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            point(before)
            result = await function(*args, **kwargs)
            point(after)
            return result

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        point(before)
        result = function(*args, **kwargs)
        point(after)
        return result

    return call


def point(name: str) -> None:
    """Pass a point: leave a trace, and die if it is the one that was asked for."""
    with _lock:  # Blocking file work passes its points in threads.
        _passes[name] += 1
        trace = os.environ.get(TRACE)
        if trace:
            file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.write(file, f"{name}\n".encode())
            os.close(file)
        if os.environ.get(AT) == f"{name}:{_passes[name]}":
            os.kill(os.getpid(), signal.SIGKILL)
