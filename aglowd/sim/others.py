"""Whoever starts the pilots of a site whose token database is its own, as the operators at Jülich do: nobody asks him to.

He looks into the database now and then, and starts pilots for the types that have something to do. No batch system that a
client could ask knows of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import aiohttp

from aglowd.sim.couchstore import Database
from aglowd.sim.jobs import QUEUE_S
from aglowd.sim.pilot import Farm, Pilot, PilotDiedError
from aglowd.sim.pilothttp import TokenBase
from aglowd.sim.world import MINUTE_S

LOOK_S = 30 * MINUTE_S
MOST_PILOTS = 60
"""Of one token type at once."""
CONNECTIONS = 64
JOB_KEY = "slurm_job_id"
"""Under which his pilots sign tokens."""


class Others:
    """The pilots on that database. `url`: the door by which worker nodes reach it."""

    def __init__(self, farm: Farm, database: Database, url: str, user: str, password: str) -> None:
        self._farm = farm
        self._world = farm.world
        self._database = database
        self._login = (url, database.name, user, password)
        self._alive: Counter[str] = Counter()
        self._count = 0

    async def run(self) -> None:
        """Look and start pilots, until cancelled."""
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
            base = TokenBase(session, self._world.clock, *self._login)
            while True:
                await self._world.clock.sleep(LOOK_S)
                for token_type, todo in sorted(self._todo().items()):
                    for _ in range(min(todo, MOST_PILOTS) - self._alive[token_type]):
                        self._count += 1
                        self._alive[token_type] += 1
                        group.create_task(self._live(base, token_type, f"{4_000_000 + self._count}"))

    def _todo(self) -> Counter[str]:
        """Token type → how many of its tokens nobody has taken."""
        return Counter(
            str(doc.fields["type"])
            for name, doc in self._database.docs.items()
            if not doc.deleted and not name.startswith("_") and doc.fields.get("lock") == 0 == doc.fields.get("done")
            if "type" in doc.fields
        )

    async def _live(self, base: TokenBase, token_type: str, job: str) -> None:
        """One pilot's life; whatever becomes of it, the others go on."""
        try:
            await self._world.clock.sleep(self._world.between(*QUEUE_S, "queue", job))
            self._world.note("others", "pilot_started", "world", job=job, type=token_type)
            await Pilot(self._farm, base, token_type, job, JOB_KEY).run()
        except PilotDiedError:
            self._world.note("others", "pilot_died", "world", job=job, type=token_type)
        except Exception as error:  # As at the grid: whatever broke the pilot hurts no other.
            self._world.note("pilot", "pilot_failed", "pilot", job=job, result=f"{type(error).__name__}: {error}")
        finally:
            self._alive[token_type] -= 1
