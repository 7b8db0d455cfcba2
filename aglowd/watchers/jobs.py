"""Jobs at the batch systems: one status call a round and system for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.errors import Permanent
from aglowd.grid.batch import FINAL, Batch, JobStatus
from aglowd.model import Json, Subject
from aglowd.parts import in_parts
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher

SILENT_LOOKS = 3
"""Answers in a row without a job before it may be called lost: what was not asked for a while was not silent all the time."""


class _Silence(Struct, frozen=True):
    """Since when a job is not named, in world seconds, and how often it was not in this life."""

    since: float
    looks: int


class Jobs(Watcher):
    """`job:<id>` (args: job, site) → state, the system's own words, reason, exit code, `final`, `nodes` (id → state).

    What a system does not name is no end: it is `unknown` with what was last known of its nodes, and `silent_since`. After
    `lost_after_s` of silence while it answered for others, or of answers without the job, `SILENT_LOOKS` of them in a row in
    this life, it is called lost, and goes on to be asked for. One that shows again is what it shows.

    Steps end, and their pilots may live on. A job that no step waits for is looked at until its end is seen, or it is lost: as
    long as it may be alive its run is neither packed nor forgotten.
    """

    kind = "job"
    whole = True
    adapts = True
    lost_after_s = 7200.0

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._silent: dict[str, _Silence] = {}

    @staticmethod
    def poll(config: Config) -> str:
        return config.jobs.poll

    def heed(self, config: Config) -> None:
        super().heed(config)
        self.lost_after_s = duration_s(config.jobs.lost_after)

    async def left(self) -> Sequence[Subject]:
        return [subject for subject, _ in await self.store.unended_jobs()]

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        groups: dict[int, list[Subject]] = {}
        seen: list[tuple[Subject, Json]] = []
        async for subject in in_parts(subjects):
            site = subject.args.get("site", "")
            if site in self.world.batches:
                groups.setdefault(id(self.world.batch(site)), []).append(subject)
            else:
                seen.append(
                    (subject, _fact(JobStatus(_id(subject), "unknown", reason=f"no site {site!r} is configured")))
                )
        return [*seen, *(await self.each(groups.values(), self._ask))] if groups else seen

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        """How the jobs of one batch system stand."""
        batch = self.world.batch(subjects[0].args.get("site", ""))
        found = await _statuses(batch, [_id(subject) for subject in subjects])
        vague = [subject for subject in subjects if _is_vague(found.get(_id(subject)))]
        before = await self._last(vague) if vague else {}
        seen: list[tuple[Subject, Json]] = []
        async for subject in in_parts(subjects):
            job, last = found.get(_id(subject)), before.get(subject.key)
            if job is not None:
                self._silent.pop(subject.key, None)
                seen.append((subject, _with_nodes(_fact(job), last)))
            elif last is None or not last.get("final"):  # Else its end is known, and nothing new is.
                told = self._silence(batch.system, subject, last)
                seen += [] if told is None else [(subject, told)]
        return seen

    async def _last(self, subjects: Sequence[Subject]) -> dict[str, Json]:
        """What was last seen of these. Of those that are not looked at any more nothing is kept."""
        listed = [*await self.store.observed(self.kind), *await self.store.unended_jobs()]
        known = {subject.key: data for subject, data in listed}
        self._silent = {key: silence for key, silence in self._silent.items() if key in known}
        return {subject.key: known.get(subject.key) for subject in subjects}

    def _silence(self, system: str, subject: Subject, last: Json) -> Json | None:
        """What is to be said of a job that the system does not name; None before it was ever seen: nobody knows how many
        pilots it brings."""
        now = self.clock.now()
        silence = self._silent.get(subject.key) or _Silence(min((last or {}).get("silent_since", now), now), 0)
        self._silent[subject.key] = silence = _Silence(silence.since, silence.looks + 1)
        if now - silence.since >= self.lost_after_s and silence.looks >= SILENT_LOOKS:
            reason = f"{system} does not know it{' any more' if last else ''}"
            return _with_nodes(_fact(JobStatus(_id(subject), "lost", reason=reason)), last)
        if last is None:
            return None
        return {**last, "state": "unknown", "reason": f"{system} does not name it", "silent_since": silence.since}


async def _statuses(batch: Batch, jobs: Sequence[str]) -> dict[str, JobStatus]:
    """As `Batch.status`. An id that is none there, such as one of the system that the site had before, is `unknown` with the
    reason, and keeps back no word about the others."""
    try:
        return await batch.status(jobs)
    except Permanent as error:
        if len(jobs) == 1:
            return {jobs[0]: JobStatus(jobs[0], "unknown", reason=str(error))}
    half = len(jobs) // 2
    return await _statuses(batch, jobs[:half]) | await _statuses(batch, jobs[half:])


def _id(subject: Subject) -> str:
    """What the batch system calls it; subjects of older journals are named by that alone."""
    return str(subject.args.get("job", subject.id))


def _fact(job: JobStatus) -> Json:
    nodes = {node.id: node.state for node in job.nodes}
    return {
        "state": job.state,
        "words": job.words,
        "reason": job.reason or _why(job),
        "exit_code": job.exit_code,
        "final": job.state in FINAL,
        "nodes": nodes,
    }


def _is_vague(job: JobStatus | None) -> bool:
    """Whether it says less than what may be known already."""
    return job is None or (job.state in ("unknown", "lost") and not job.nodes)


def _with_nodes(fact: Json, last: Json) -> Json:
    """The fact with the nodes that were last seen: a system that cannot tell of a job has not ended its pilots. Those of a lost
    job are lost with it."""
    nodes = fact["nodes"] or (last or {}).get("nodes", {})
    if fact["state"] == "lost":
        nodes = {node: state if state in FINAL else "lost" for node, state in nodes.items()}
    return {**fact, "nodes": nodes}


def _why(job: JobStatus) -> str:
    """Of a compound job that has nodes which ended badly, what most of them say."""
    said = Counter(
        f"{node.words}{f', exit code {node.exit_code}' if node.exit_code else ''}{f': {node.reason}' if node.reason else ''}"
        for node in job.nodes
        if node.state in ("done_failed", "aborted", "lost")
    )
    return said.most_common(1)[0][0] if said else ""
