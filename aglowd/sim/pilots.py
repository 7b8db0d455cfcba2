"""All pilots of the grid: a task for each node of each started job, from its place in the queue to its end.

The one owner of these tasks; they end with the simulator. Slots are what the sites have, so a large job waits.
"""

from __future__ import annotations

import asyncio
import shlex
from typing import Any

import aiohttp
import msgspec

from aglowd.sim.jobs import ABORTED, EXIT_NOT_0, SUCCESS, Job, JobBoard, Node
from aglowd.sim.pilot import Farm, Pilot, PilotDiedError
from aglowd.sim.pilothttp import TokenBase
from aglowd.sim.tools import Usage, parse

CREDENTIALS = "picas.json"
JOB_KEYS = {"glite": "wms_job_id", "dirac": "dirac_job_id", "arc": "arc_job_id"}
"""Batch system → the key of a token under which pilots write the id of their job there."""
CONNECTIONS = 64
ODDS_ABORTED_WHEN_DEAD = 0.3


class Pilots:
    """Runs the nodes that the job board launches."""

    def __init__(self, farm: Farm, board: JobBoard, slots: int) -> None:
        self._farm = farm
        self._world = farm.world
        self._board = board
        self._slots = asyncio.Semaphore(slots)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Run nodes as they are launched, until cancelled."""
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as self._session, asyncio.TaskGroup() as self._group:
            self._board.launch, self._board.stop = self._launch, self._stop
            await asyncio.Event().wait()

    def _launch(self, job: Job, node: Node) -> None:
        assert self._group is not None
        task = self._group.create_task(self._live(job, node))
        self._tasks[node.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(node.id, None))

    def _stop(self, node: Node) -> None:
        task = self._tasks.get(node.id)
        if task is not None:
            task.cancel()

    async def _live(self, job: Job, node: Node) -> None:
        """One node's life; whatever happens to it, it ends with an outcome and hurts no other."""
        await self._world.clock.sleep(node.queue_s)
        async with self._slots:
            node.running = self._world.now()
            self._world.note(job.system, "node_started", "world", job=job.id, node=node.id)
            try:
                await self._make_pilot(job, node).run()
            except PilotDiedError:
                aborted = self._world.draw("how it died", node.id) < ODDS_ABORTED_WHEN_DEAD
                self._board.end(job, node, ABORTED if aborted else EXIT_NOT_0, None if aborted else 137)
            except Exception as error:  # Whatever broke the pilot, of its making or not, the grid sees an exit code.
                self._world.note(
                    "pilot", "pilot_failed", "pilot", job=node.id, result=f"{type(error).__name__}: {error}"
                )
                self._board.end(job, node, EXIT_NOT_0, 1)
            else:
                self._board.end(job, node, SUCCESS, 0)

    def _make_pilot(self, job: Job, node: Node) -> Pilot:
        """A pilot with the arguments of its JDL and the credentials of its sandbox; raises Usage."""
        words = shlex.split(node.arguments)
        options = parse(_known(words), "", "--url --database --type")
        missing = [name for name in ("--url", "--database", "--type") if name not in options.values]
        if missing or CREDENTIALS not in job.sandbox:
            raise Usage(f"the pilot needs {missing or CREDENTIALS}")
        secret: dict[str, Any] = msgspec.json.decode(job.sandbox[CREDENTIALS])
        assert self._session is not None
        base = TokenBase(
            self._session, self._world.clock, options.values["--url"], options.values["--database"],
            str(secret.get("user", "")), str(secret.get("password", "")),
        )  # fmt: skip
        return Pilot(self._farm, base, options.values["--type"], node.id, JOB_KEYS[job.system])


def _known(words: list[str]) -> list[str]:
    """The words that concern the pilot: its three options with their values."""
    kept: list[str] = []
    for at, word in enumerate(words):
        if word in ("--url", "--database", "--type"):
            kept += words[at : at + 2]
    return kept
