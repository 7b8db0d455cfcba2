"""Effects on the batch systems: submit pilots, cancel them.

Where a system makes a job known before it runs (gLite) its id is journalled in between: a registered job that was never
started ran nothing. Elsewhere our key travels with the jobs, and pilots leave it in the token database when they start.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError, Permanent, Temporary, Unknown
from aglowd.grid.batch import Order
from aglowd.grid.picas import Picas
from aglowd.model import Json

KEY = "{key}"
"""In the arguments of a pilot: here stands the key of its submission."""


class SubmitJobs(Deed, frozen=True, kw_only=True):
    """Submit `nodes` pilots at a site ("" = the common batch system); result `{"jobs": [ids], "nodes": n}`.

    Credentials are no inputs: they come from the daemon's sandbox and travel in a file of mode 0600. `after`: how many tokens
    were done when it was decided, which tells later whether its pilots did anything.
    """

    kind: ClassVar[str] = "submit_jobs"
    nodes: int
    executable: str
    arguments: tuple[str, ...]
    requirements: str = ""
    site: str = ""
    after: int = 0

    def settling_s(self, world: World) -> float:
        return world.batch(self.site).settle_s

    async def do(self, world: World, intent: Intent) -> Json:
        batch = world.batch(self.site)
        order = Order(
            intent.key,
            self.nodes,
            self.executable,
            tuple(word.replace(KEY, intent.key) for word in self.arguments),
            world.sandbox(self.site),
            self.requirements,
        )
        prepared = _prepared(intent)
        if batch.registers and prepared is None:
            prepared = await batch.prepare(order)
            await intent.note({"job": prepared})
        return self._result(await batch.submit(order, prepared))

    async def find(self, world: World, intent: Intent) -> Json | None:
        batch = world.batch(self.site)
        prepared = _prepared(intent)
        if batch.registers and prepared is None and not intent.is_restored:
            return None
        jobs = await batch.find(intent.key, prepared)
        if not jobs and not batch.registers:
            jobs = await _marks(world.token_base(self.site), intent.key)
        return self._result(jobs) if jobs else None

    def _result(self, jobs: tuple[str, ...]) -> Json:
        return {"jobs": list(jobs), "nodes": self.nodes}

    def adopted(self, ref: str) -> Json:
        """`ref` holds the ids of the jobs, with blanks between them."""
        jobs = tuple(ref.split())
        if not jobs or any(len(job) > MAX_ID_CHARS or not job.isprintable() for job in jobs):
            raise AglowError(f"jobs are named by their ids, with blanks between them, not by {ref[:80]!r}")
        return self._result(jobs)


MAX_ID_CHARS = 500


def _prepared(intent: Intent) -> str | None:
    """The id under which the job is known already. Older journals also note jobs that lack their sandbox."""
    job = intent.notes.get("job")
    return job if isinstance(job, str) and intent.notes.get("transferred", True) else None


async def _marks(base: Picas, key: str) -> tuple[str, ...]:
    """The jobs whose pilots left the key in the token database: they ran, though the batch system has forgotten them."""
    try:
        return await base.find_pilots(key)
    except Temporary as error:
        raise Unknown(f"the batch system shows no job with the key {key}, and the pilots' marks: {error}") from error
    except Permanent as error:
        if error.absent:
            return ()  # There is no such view: no pilot of ours ever left a mark there.
        raise


def jobs_of(result: Json) -> list[str]:
    """The ids in the result of a submission; older journals name one."""
    return list(result["jobs"]) if "jobs" in result else [result["job"]]


class CancelJobs(Deed, frozen=True, kw_only=True):
    """Ask for the end of a job and all its nodes; result `{"job": id, "named": bool, "absent": bool}`. The status says when it
    is over.

    `named`: whether the status told of it. That it did not is no end, and the job is cancelled all the same. `absent`: the
    system says that there is no such job.
    """

    kind: ClassVar[str] = "cancel_jobs"
    job: str
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        batch = world.batch(self.site)
        seen = (await batch.status((self.job,))).get(self.job)
        is_absent = False
        if seen is None or not seen.is_final:
            try:
                await batch.cancel(self.job)
            except Permanent as error:
                if not error.absent:
                    raise
                is_absent = True
        return {"job": self.job, "named": seen is not None, "absent": is_absent}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """Asking twice does no harm."""
        seen = (await world.batch(self.site).status((self.job,))).get(self.job)
        return {"job": self.job, "named": True, "absent": False} if seen is not None and seen.is_final else None


DEEDS: tuple[type[Any], ...] = (SubmitJobs, CancelJobs)
