"""Effects on the batch system: submit pilots, cancel them.

gLite in three journalled phases: register → journal the id → start. A registered job that was never started ran
nothing, so a crash between the phases can leave an idle record at the WMS, never a second set of pilots.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError, Temporary, Unknown
from aglowd.grid.glite import jdl
from aglowd.grid.glite_text import JOB_ID
from aglowd.model import Json

NOT_STARTED = "submitted"
"""The state of a job that is registered and not yet started."""


class SubmitJobs(Deed, frozen=True, kw_only=True):
    """Submit `nodes` pilots as one parametric job; result `{"job": id, "nodes": n}`.

    Credentials are no inputs: they come from the daemon's sandbox and travel in a file of mode 0600.
    """

    kind: ClassVar[str] = "submit_jobs"
    nodes: int
    executable: str
    arguments: tuple[str, ...]
    requirements: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        job = intent.notes.get("job")
        if job is None or not intent.notes.get("transferred", False):
            description = jdl(
                self.executable,
                self.arguments,
                sandbox_in=tuple(world.sandbox),
                sandbox_out=("stdout.txt", "stderr.txt"),
                nodes=self.nodes,
                tag=intent.key,
                requirements=self.requirements or None,
            )
            registered = await world.glite.register(description, world.sandbox)
            job = registered.id
            await intent.note({"job": job, "transferred": registered.transferred})
            if not registered.transferred:
                raise Unknown(f"{job} is registered, but its input sandbox was not transferred")
        await world.glite.start(job)
        return {"job": job, "nodes": self.nodes}

    async def find(self, world: World, intent: Intent) -> Json | None:
        job = intent.notes.get("job")
        if job is None or not intent.notes.get("transferred", False):
            return await self._find_lost(world, intent) if intent.is_restored else None
        seen = (await world.glite.status((job,))).get(job)
        if seen is None or seen.state == "unknown":
            raise Unknown(f"the bookkeeping says nothing of {job} (yet)")
        return None if seen.state == NOT_STARTED else {"job": job, "nodes": self.nodes}

    async def _find_lost(self, world: World, intent: Intent) -> Json | None:
        """A job that carries our key, though the journal has lost its id; one that never started ran nothing."""
        try:
            found = await world.glite.find_by_tag(intent.key)
        except Temporary as error:
            raise Unknown(f"a backup was restored, and nobody can tell what was submitted since: {error}") from error
        for job, seen in (await world.glite.status(found)).items() if found else ():
            if seen.state == "unknown":
                raise Unknown(f"the bookkeeping says nothing of {job} (yet)")
            if seen.state != NOT_STARTED:
                return {"job": job, "nodes": self.nodes}
        return None

    def adopted(self, ref: str) -> Json:
        """`ref` is the id of the job."""
        if not JOB_ID.fullmatch(ref):
            raise AglowError(f"a job is named by its id, https://HOST:PORT/…, not by {ref[:80]!r}")
        return {"job": ref, "nodes": self.nodes}


class CancelJobs(Deed, frozen=True, kw_only=True):
    """Ask for the end of a job and all its nodes; result `{"job": id}`. The status says when it is over."""

    kind: ClassVar[str] = "cancel_jobs"
    job: str

    async def do(self, world: World, intent: Intent) -> Json:
        seen = (await world.glite.status((self.job,))).get(self.job)
        if seen is not None and not seen.is_final:
            await world.glite.cancel(self.job)
        return {"job": self.job}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """Asking twice does no harm."""
        seen = (await world.glite.status((self.job,))).get(self.job)
        return {"job": self.job} if seen is None or seen.is_final else None


DEEDS: tuple[type[Any], ...] = (SubmitJobs, CancelJobs)
