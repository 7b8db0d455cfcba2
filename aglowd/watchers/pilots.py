"""Whose turn it is to start pilots: how many there may be at a site, and of ours at all sites together.

What must stay true: pilots that live and turns that were granted never exceed a limit by what is granted here. Pilots are
counted where steps wait for their jobs, so nothing has to be given back, and a crash can forget nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from msgspec import Struct

from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.grid.batch import FINAL
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher
from aglowd.watchers.usage import Usage, Waiter


class Turn(Struct, frozen=True):
    """A step that wants to start so many pilots, or has been granted some."""

    key: str
    site: str
    want: int
    priority: int = 0
    granted: int = 0


def grants(
    turns: Sequence[Turn], alive: Mapping[str, int], site_limits: Mapping[str, int], limit: int
) -> dict[str, int | str]:
    """Key of each turn that was not granted yet → pilots that it may start, or why none.

    `alive`: pilots at each site. Room goes one by one to the highest priority, there to whoever got least.
    """
    used = Counter(alive)
    for turn in turns:
        used[turn.site] += turn.granted
    got: dict[str, int] = {turn.key: 0 for turn in turns if not turn.granted}
    asking = [turn for turn in turns if not turn.granted]
    while asking and used.total() < limit:
        asking = [
            one for one in asking if got[one.key] < one.want and used[one.site] < site_limits.get(one.site, limit)
        ]
        if asking:
            turn = min(asking, key=lambda one: (-one.priority, got[one.key], one.key))
            got[turn.key] += 1
            used[turn.site] += 1
    sites = {turn.key: turn.site for turn in turns}
    return {key: count or _why(sites[key], used, site_limits, limit) for key, count in got.items()}


def _why(site: str, used: Counter[str], site_limits: Mapping[str, int], limit: int) -> str:
    if used[site] >= site_limits.get(site, limit):
        return f"{site or 'the batch system'} runs {site_limits.get(site, limit)} pilots at once"
    return f"all sites together run {limit} pilots at once" if used.total() >= limit else "others come first"


def _limits(config: Config) -> tuple[dict[str, int], int]:
    """Pilots at each site, and at all of them."""
    return {name: site.pilots_at_once for name, site in config.sites.items()}, config.jobs.pilots_at_once


class PilotTurns(Watcher):
    """`pilots:<step>/<wave>` (args: site, want, priority) → `pilots` that may be started now, or `why` none may.

    A step holds what it was granted for as long as it waits for the subject, and its pilots while it waits for their jobs.
    """

    kind = "pilots"

    def __init__(self, world: World, store: Store, poll_s: float, site_limits: Mapping[str, int], limit: int) -> None:
        super().__init__(world, store, poll_s)
        self._site_limits = site_limits
        self._limit = limit

    @staticmethod
    def poll(config: Config) -> str:
        return config.picas.gather

    @classmethod
    def build(cls, world: World, store: Store, config: Config) -> Self:
        return cls(world, store, duration_s(cls.poll(config)), *_limits(config))

    def heed(self, config: Config) -> None:
        super().heed(config)
        self._site_limits, self._limit = _limits(config)

    async def usage(self) -> list[Usage]:
        """Pilots at each site that live or may be started, what may be, and who waits for a turn."""
        watched = await self.store.observed(self.kind)
        why = {subject.id: (data or {}).get("why", "") for subject, data in watched}
        used, turns = await self._alive_at(), _turns(watched)
        queues: dict[str, list[Waiter]] = {}
        for turn in sorted(turns, key=lambda one: (-one.priority, one.key)):
            used[turn.site] += turn.granted
            if not turn.granted:
                queues.setdefault(turn.site, []).append(Waiter(turn.key, turn.want, None, why[turn.key]))
        sites = dict.fromkeys([*self._site_limits, *used, *queues])
        found = [
            Usage("pilots", site, used[site], self._site_limits.get(site, self._limit), tuple(queues.get(site, ())))
            for site in sites
            if site
        ]
        return [*found, Usage("pilots", "", used.total(), self._limit, tuple(queues.get("", ())))]

    async def _alive_at(self) -> Counter[str]:
        alive: Counter[str] = Counter()
        for job, data in await self.store.observed("job"):
            alive[job.args.get("site", "")] += _alive(data)
        return alive

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        watched = await self.store.observed(self.kind)
        turns, alive = _turns(watched), await self._alive_at()
        answers = grants(turns, alive, self._site_limits, self._limit)
        return [
            (subject, {"pilots": found, "why": ""} if isinstance(found, int) else {"pilots": 0, "why": found})
            for subject, _ in watched
            if (found := answers.get(subject.id)) is not None
        ]


def _turns(watched: Sequence[tuple[Subject, Json]]) -> list[Turn]:
    return [
        Turn(
            subject.id,
            subject.args["site"],
            subject.args["want"],
            subject.args.get("priority", 0),
            (data or {}).get("pilots", 0),
        )
        for subject, data in watched
    ]


def _alive(data: Json) -> int:
    """Pilots of a job that are not over; of one that nobody has looked at, one at least."""
    nodes: dict[str, str] = (data or {}).get("nodes") or {"": (data or {}).get("state", "unknown")}
    return sum(state not in FINAL for state in nodes.values())
