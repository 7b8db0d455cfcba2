"""The chain as a durable workflow of DBOS on SQLite, one for each field.

A wait is one step that polls inside: asking is harmless, so nothing is gained by a record of each poll. After a kill DBOS
itself goes on with what had not ended; a workflow that is begun again under its id is the same one.
"""

from __future__ import annotations

import asyncio

import aiohttp
from dbos import DBOS, SetWorkflowID

from bench.workload_w import asker
from bench.workload_w.chain import ACT, CHAIN, Order

ORDER = Order.told()
SESSIONS: list[aiohttp.ClientSession] = []
"""The one session of this process, once its loop runs."""


@DBOS.step()
async def wait(field: str, step: int) -> None:
    """Return when the wait is done."""
    await asker.until_done(SESSIONS[0], ORDER.url, field, step, ORDER.load.poll_s)


@DBOS.step()
async def act(field: str, step: int) -> int:
    """Do it."""
    return await asker.act(SESSIONS[0], ORDER.url, field, step)


@DBOS.workflow()
async def chain(field: str) -> None:
    """A field's way."""
    for step, what in enumerate(CHAIN):
        await (act if what == ACT else wait)(field, step)


async def main() -> None:
    """Begin every field, and return when all have ended."""
    database = f"sqlite:///{ORDER.place}/dbos.sqlite"
    DBOS(config={"name": "workload-w", "system_database_url": database, "log_level": "WARNING"})
    async with aiohttp.ClientSession() as session:
        SESSIONS.append(session)
        DBOS.launch()
        handles = []
        for name in ORDER.load.names:
            with SetWorkflowID(name):
                handles.append(await DBOS.start_workflow_async(chain, name))
        await asyncio.gather(*(handle.get_result() for handle in handles))
        DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
