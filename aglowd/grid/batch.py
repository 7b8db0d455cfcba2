"""What all batch systems have in common: gLite, Slurm, DIRAC, ARC, and pilots on this host run jobs for us.

What must stay true: exit code 0 is no answer and absence is no end. A job of which an answer says nothing is left out of
ours; whether it is lost is decided by who knows for how long (`watchers/jobs.py`). A submission may have happened although
its answer did not come, so whatever carries our key can be found by it. Adapters decide nothing and keep no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from aglowd.errors import OutsideError, Permanent, Temporary

CHUNK_IDS = 500
"""Jobs that one call asks about."""

STATES = ("submitted", "queued", "running", "done_ok", "done_failed", "aborted", "cancelled", "lost", "unknown")
"""Known and not started; waiting for a place; running; ended with exit code 0; ended with another or by a signal or a limit;
given up by the system; ended because somebody asked; known no more, so that nobody will ever tell how it ended; and: the
system cannot tell now, or says what we do not know. docs/jobs.md maps each system's words."""
FINAL = frozenset({"done_ok", "done_failed", "aborted", "cancelled", "lost"})


class JobStatus(Struct, frozen=True, gc=False):
    """One job, or one node of a compound one (a parametric job, an array). `words` are the system's own, blanks normalised.

    The id of what runs is the one under which the pilot there knows itself and signs the tokens that it takes.
    """

    id: str
    state: str
    words: str = ""
    exit_code: int | None = None
    reason: str = ""
    nodes: tuple[JobStatus, ...] = ()

    @property
    def is_final(self) -> bool:
        """It will not change any more."""
        return self.state in FINAL


class Order(Struct, frozen=True):
    """Pilots to be submitted, all alike: `count` times this command, with these files beside it.

    `sandbox`: file name → content. It may hold credentials: it lies in files of mode 0600 and appears in no argument and no
    description. `key` is ours and travels with the jobs. `requirements` are in the system's own language.
    """

    key: str
    count: int
    executable: str
    arguments: tuple[str, ...]
    sandbox: Mapping[str, str] = {}
    requirements: str = ""


class Terms(Struct, frozen=True):
    """How pilots are submitted at a site: its queue ("" = the system's own choice), their limits, and the text of the
    template from which the job description is made (`descriptions.py`)."""

    template: str
    queue: str = ""
    wall_time_s: float = 96 * 3600.0
    """Real seconds: who limits it knows nothing of our clock."""
    cpus: int = 1


async def judge_cancel(batch: Batch, job: str, failure: OutsideError) -> None:
    """After a cancel of which nobody told how it went: return if the job has ended, Permanent if there is none; else raise
    `failure`."""
    try:
        seen = (await batch.status([job])).get(job)
    except Temporary as error:
        raise failure from error
    if seen is None:
        raise Permanent(f"cancelling {job}: {batch.system} knows no such job", absent=True)
    if not seen.is_final:
        raise failure


class Batch(Protocol):
    """The verbs of every batch system. They raise only errors.Temporary, Permanent and Unknown."""

    system: str
    """glite, slurm, dirac, arc, local or none."""
    registers: bool
    """Whether `prepare` makes the job known under its id before anything runs."""
    settle_s: float
    """World seconds for which a job that was submitted may not yet show when it is looked for; 0 where a look is exact."""

    async def prepare(self, order: Order) -> str | None:
        """Make the job known, and run nothing; its id, or None where the system has no such thing."""

    async def submit(self, order: Order, prepared: str | None) -> tuple[str, ...]:
        """Let the pilots run; the ids of the jobs, one for all or one for each."""

    async def find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        """The jobs that carry the key and were let run, whatever became of them; raises Unknown when nobody can tell."""

    async def status(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Job id → status, compound ones with their nodes, in one call for `CHUNK_IDS` of them.

        A job of which the system says nothing is left out. Temporary when there is no word about any of them.
        """

    async def cancel(self, job: str) -> None:
        """Ask for the end of the job and all its nodes; its status tells when it has come. Doing it twice does no harm.

        One that has ended is fine; Permanent (absent) where the system tells that there is no such job.
        """

    async def output(self, job: str, directory: Path) -> Path:
        """Fetch what the job printed into a new directory below `directory`; Temporary while there is nothing yet."""

    async def list_ours(self) -> dict[str, JobStatus]:
        """All jobs under our credential that the system still shows; Temporary if it cannot tell."""
