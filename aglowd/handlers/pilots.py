"""Pilots: the jobs that take tokens and work on them. What steps share that start, count and stop them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from aglowd.clock import iso
from aglowd.durations import duration_s, duration_text
from aglowd.effects.jobs import CancelJobs, SubmitJobs, jobs_of
from aglowd.grid.batch import FINAL
from aglowd.handlers.base import HOUR_S
from aglowd.model import Do, EffectRecord, Seen, StepView, Subject, Wait

PROXY = Subject("proxy", "default")
"""The common one."""
WAVES_APART = 1000
"""Ordinals of the submissions of one wave; a wave has far fewer."""
BAD_ENDS = frozenset({"done_failed", "aborted", "lost"})
"""How a pilot ends that did not end as it should; one that was cancelled is somebody's wish."""


class Pilots(Struct, frozen=True, forbid_unknown_fields=True):
    """How pilots are started: the program, its arguments, and how many go into one submission.

    `max_pilots` 0: somebody else starts them. `proxy_minimum` "": the batch system needs no proxy. `proxy` "": the common one.
    """

    executable: str
    arguments: tuple[str, ...]
    requirements: str = ""
    nodes_per_submission: int = 50
    max_pilots: int = 250
    wall_time: str = "96h"
    proxy_minimum: str = "12h"
    proxy: str = ""

    def __post_init__(self) -> None:
        duration_s(self.wall_time)
        if self.proxy_minimum:
            duration_s(self.proxy_minimum)


def proxy_of(pilots: Pilots) -> Subject:
    """The proxy under which they are submitted."""
    return Subject("proxy", pilots.proxy, {"path": pilots.proxy}) if pilots.proxy else PROXY


def job_of(job: str, site: str = "") -> Subject:
    """A job at the batch system of a site."""
    return Subject("job", f"{job}@{site}", {"job": job, "site": site}) if site else Subject("job", job)


def turn_of(step: StepView, wave: int, site: str, want: int) -> Subject:
    """How many of the pilots that it wants a step may start now; each wave asks anew."""
    return Subject("pilots", f"{step.key}/{wave}", {"site": site, "want": want, "priority": step.priority})


def gate(seen: Seen, pilots: Pilots, turn: Subject) -> Wait | None:
    """Wait while the proxy would not outlive the work, then for the turn; None when pilots may be started.

    A turn that was granted is kept by waiting for it.
    """
    waiting = _proxy_gate(seen, pilots)
    granted = seen.of(turn)
    if waiting is not None:
        return waiting if granted is None else Wait((proxy_of(pilots), turn), waiting.reason, waiting.due_s)
    if granted is None:
        return Wait((turn,), f"asking whether {turn.args['want']} pilots may be started", HOUR_S)
    return None if granted["pilots"] else Wait((turn,), f"no pilot may be started now: {granted['why']}", HOUR_S)


def _proxy_gate(seen: Seen, pilots: Pilots) -> Wait | None:
    if not pilots.proxy_minimum:
        return None
    needed_s = duration_s(pilots.proxy_minimum)
    subject = proxy_of(pilots)
    name = f"the proxy {pilots.proxy}" if pilots.proxy else "the proxy"
    proxy = seen.of(subject)
    if proxy is None:
        return Wait((subject,), f"looking at the grid proxy{pilots.proxy and ' '}{pilots.proxy}", HOUR_S)
    left_s = proxy["valid_until"] - seen.now
    if left_s >= needed_s:
        return None
    # A time and no duration: the reason stays the same, and so does since when it holds.
    until = f"{'is good until' if left_s > 0 else 'has ended at'} {iso(proxy['valid_until'])}"
    return Wait((subject,), f"{name} {until}, submissions need {duration_text(needed_s)}: renew it", HOUR_S)


def submissions(pilots: Pilots, site: str, token_type: str, count: int, wave: int, after: int = 0) -> Do:
    """The jobs that bring so many pilots; `after`: the tokens that were done when this was decided."""
    nodes = [pilots.nodes_per_submission] * (count // pilots.nodes_per_submission)
    rest = count % pilots.nodes_per_submission
    return Do(
        tuple(
            SubmitJobs(
                nodes=number,
                executable=pilots.executable,
                arguments=(*pilots.arguments, "--type", token_type),
                requirements=pilots.requirements,
                site=site,
                after=after,
                ordinal=wave * WAVES_APART + ordinal,
            )
            for ordinal, number in enumerate([*nodes, *([rest] if rest else [])])
        )
    )


def list_jobs(effects: Sequence[EffectRecord]) -> list[str]:
    """The ids of all jobs that were submitted by these effects."""
    done = (record for record in effects if record.kind == SubmitJobs.kind and record.result)
    return [job for record in done for job in jobs_of(record.result)]


class Crew(Struct, frozen=True):
    """All pilots that a step ever had, as far as is known of them."""

    states: Mapping[str, str]
    """Of each pilot, by the id under which it signs tokens."""
    unseen: tuple[Subject, ...]
    """Jobs that nobody has looked at yet."""
    going: tuple[Subject, ...]
    """Jobs that are not over, as far as is known: one that is lost may show again."""
    why: str
    """What most of those that ended badly, or the system for them, say of it."""

    @property
    def alive(self) -> int:
        """Pilots that may yet do something; a job that nobody has looked at is one at least."""
        return sum(state not in FINAL for state in self.states.values()) + len(self.unseen)

    @property
    def ended(self) -> int:
        """Pilots that are over, well or badly, as far as is known."""
        return sum(state in FINAL for state in self.states.values())

    @property
    def dead(self) -> int:
        """Pilots that ended badly."""
        return sum(state in BAD_ENDS for state in self.states.values())


def crew_of(seen: Seen, jobs: Sequence[str], site: str) -> Crew:
    """What is known of the pilots of these jobs."""
    states: dict[str, str] = {}
    said: Counter[str] = Counter()
    unseen, going = [], []
    for job in jobs:
        subject = job_of(job, site)
        data: dict[str, Any] | None = seen.of(subject)
        if data is None:
            unseen.append(subject)
            going.append(subject)
            continue
        nodes = data.get("nodes") or {job: data.get("state", "done_ok" if data.get("final") else "running")}
        states |= nodes
        bad = sum(state in BAD_ENDS for state in nodes.values())
        if bad and data.get("reason"):
            said[data["reason"]] += bad
        if not data.get("final") or data.get("state") == "lost":
            going.append(subject)
    return Crew(states, tuple(unseen), tuple(going), said.most_common(1)[0][0] if said else "")


def cancels(jobs: Sequence[str], site: str) -> Iterator[CancelJobs]:
    """The end of these jobs."""
    return (CancelJobs(job=job, site=site, ordinal=number) for number, job in enumerate(jobs))
