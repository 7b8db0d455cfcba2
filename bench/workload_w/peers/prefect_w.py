"""The chain as a flow of Prefect for each field, all in one process, and Prefect's own server with SQLite beside it.

Prefect does not go on with a flow whose process was killed. What is kept is the results of tasks: the flows are begun
again, and a task whose result is kept under its key is not run again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import aiohttp

from bench.workload_w import asker
from bench.workload_w.chain import ACT, CHAIN, Order

ORDER = Order.told()
READY_LIMIT_S = 120
DATABASE_S = 60
"""Its server on SQLite refuses calls when many flows begin at once: it waits so long for the database, and then …"""
TRIES = 10
"""… a flow that it refused is begun again."""


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


PORT = free_port()
os.environ |= {
    "PREFECT_HOME": str(ORDER.place / "prefect"),
    "PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_SERVER_DATABASE_TIMEOUT": str(DATABASE_S),
    "PREFECT_LOGGING_LEVEL": "WARNING",
}

# Prefect reads its settings when it is imported.
from prefect import flow, task  # noqa: E402
from prefect.context import TaskRunContext  # noqa: E402

SESSIONS: list[aiohttp.ClientSession] = []
"""The one session of this process, once its loop runs."""


def key(context: TaskRunContext, parameters: dict[str, object]) -> str:
    """Under which the result of a task is kept."""
    return f"{parameters['field']}-{parameters['step']}"


@task(cache_key_fn=key)
async def wait(field: str, step: int) -> bool:
    """Return when the wait is done."""
    await asker.until_done(SESSIONS[0], ORDER.url, field, step, ORDER.load.poll_s)
    return True


@task(cache_key_fn=key)
async def act(field: str, step: int) -> int:
    """Do it."""
    return await asker.act(SESSIONS[0], ORDER.url, field, step)


@flow
async def chain(field: str) -> None:
    """A field's way."""
    for step, what in enumerate(CHAIN):
        await (act if what == ACT else wait)(field, step)


async def carry(field: str) -> None:
    """Begin the field's flow, again and again while the server refuses it."""
    for _ in range(TRIES):
        with suppress(Exception):
            await chain(field)
            return
        await asyncio.sleep(ORDER.load.poll_s)


@contextmanager
def server() -> Iterator[None]:
    """Prefect's server, from when it answers on."""
    argv = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(PORT)]
    with subprocess.Popen(argv) as process:
        for _ in range(READY_LIMIT_S):
            with suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/health").close()
                break
            time.sleep(1)
        try:
            yield
        finally:
            process.terminate()


async def main() -> None:
    """Begin every field, and return when all have ended."""
    async with aiohttp.ClientSession() as session:
        SESSIONS.append(session)
        await asyncio.gather(*map(carry, ORDER.load.names))


if __name__ == "__main__":
    with server():
        asyncio.run(main())
