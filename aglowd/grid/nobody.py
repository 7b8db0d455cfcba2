"""No batch system: somebody else starts the pilots of this site.

What must stay true: nothing is ever submitted, and nothing is told of jobs that we do not know; their tokens alone say how
far the work is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aglowd.errors import Permanent
from aglowd.grid.batch import JobStatus, Order


class Nobody:
    """The verbs of nobody: what changes something is Permanent, what looks finds nothing."""

    system = "none"
    registers = False
    settle_s = 0.0

    async def prepare(self, order: Order) -> str | None:
        """There is nothing to be prepared."""
        return None

    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        """Permanent: a pipeline for such a site must not submit."""
        raise Permanent(
            'this site has jobs = "none": somebody else starts its pilots, and nothing can be submitted; take the step out '
            "of the pipeline, or name a batch system"
        )

    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        """Nothing was submitted."""
        return ()

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Nothing is known of any job."""
        return {}

    async def cancel(self, job: str) -> None:
        """Permanent: there is no such job."""
        raise _absent(job)

    async def output(self, job: str, directory: Path) -> Path:
        """Permanent: there is no such job."""
        raise _absent(job)

    async def list_ours(self) -> dict[str, JobStatus]:
        """No job is ours."""
        return {}


def _absent(job: str) -> Permanent:
    return Permanent(f"{job[:100]}: this site has no batch system, somebody else starts its pilots", absent=True)
