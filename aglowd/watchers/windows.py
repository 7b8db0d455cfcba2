"""Windows: how much may be staged at once, at each site and by us all together, and whose turn it is.

What must stay true: what is granted and what runs never exceeds a limit, whatever the daemon remembers: requests that a
stager shows and that no step holds (those of steps that have gone on, those that a person made under our name) count as
well. Whoever stands first at a site is not overtaken there; no site waits for another one's turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from types import MappingProxyType
from typing import Self

from msgspec import Struct

from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.effects.staging import StageFiles
from aglowd.errors import OutsideError
from aglowd.grid.dcache_stage import MAX_BULK_FILES
from aglowd.grid.stager import FINAL
from aglowd.model import Json, Subject
from aglowd.sizes import size_bytes, size_text
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher
from aglowd.watchers.usage import Usage, Waiter

HORIZON_S = 30 * 86_400.0
"""World seconds back to which the journal is asked whose a request is that still runs."""
LEAST_FILES = 100
"""Who stands first gets a part of what it wants only if that part is so large; a request for each file helps nobody."""


class Limits(Struct, frozen=True):
    """What may be at once: in one request, at one site, and over all sites together."""

    request_files: int
    request_bytes: int
    file_bytes: int
    """What a file is taken to hold where the site does not tell."""
    files: int
    site_files: Mapping[str, int]
    site_requests: Mapping[str, int]
    site_held: Mapping[str, int]
    asks_space: bool = False
    """Whether a site is asked how much room it has."""
    site_request_files: Mapping[str, int] = MappingProxyType({})
    """Sites that take fewer files in one request."""


class Turn(Struct, frozen=True):
    """A step that wants to stage so many files, or has been granted them; `is_held`: they are staged, and kept."""

    key: str
    site: str
    files: int
    priority: int = 0
    since: float = 0.0
    granted: int = 0
    is_held: bool = False
    file_bytes: int = 0
    """How large its largest file is, 0 where the site does not tell."""

    def holds_back(self, turn: Turn) -> bool:
        """Whether that turn must wait for the files that are held here."""
        return self.priority >= turn.priority and self.key.partition("/")[0] != turn.key.partition("/")[0]


def in_order(turns: Sequence[Turn]) -> list[Turn]:
    """The turns that wait, who stands first at a site before those behind."""
    waiting = [turn for turn in turns if not turn.granted and not turn.is_held]
    return sorted(waiting, key=lambda one: (-one.priority, one.since, one.key))


def grants(
    turns: Sequence[Turn],
    running: Sequence[tuple[str, int]],
    limits: Limits,
    free_bytes: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, int | str]:
    """Key of each turn that was not granted yet → files that it may stage now, or why it must wait.

    `running`: site ("" = unknown) and files of each request that runs and belongs to no turn. `free_bytes`: room at the
    sites that tell; what is being staged has not taken it yet.
    """
    files, requests, staging_bytes = Counter[str](), Counter[str](), Counter[str]()
    held = [turn for turn in turns if turn.is_held]
    for site, count in running:
        files[site] += count
        staging_bytes[site] += count * limits.file_bytes
        requests[site] += 1
    for turn in turns:
        files[turn.site] += turn.granted
        staging_bytes[turn.site] += turn.granted * (turn.file_bytes or limits.file_bytes)
        requests[turn.site] += bool(turn.granted)
    queues: dict[str, list[Turn]] = {}
    for turn in in_order(turns):
        queues.setdefault(turn.site, []).append(turn)
    answers: dict[str, int | str] = {}
    while queues:
        # The site that uses the least of what it may is next: that is what fair means here.
        site = min(queues, key=lambda one: (files[one] / limits.site_files[one], one))
        turn = queues[site].pop(0)
        file_bytes = turn.file_bytes or limits.file_bytes
        most = limits.site_request_files.get(site, limits.request_files)
        most = min(most, limits.request_files, max(1, limits.request_bytes // file_bytes))
        # Files that are kept for what this turn is for must not be in its way: its own run's, and those of a lower
        # priority, which says what is waited for.
        kept = sum(one.files for one in held if one.site == site and one.holds_back(turn))
        room, why = limits.site_files[site] - files[site], f"{site} stages {limits.site_files[site]} files at once"
        if limits.files - files.total() < room:
            room, why = limits.files - files.total(), f"all sites together stage {limits.files} files at once"
        if limits.site_held[site] - kept - files[site] < room:
            room = limits.site_held[site] - kept - files[site]
            why = f"{site} keeps {limits.site_held[site]} staged files until they have been processed"
        if site in free_bytes and (free_bytes[site] - staging_bytes[site]) // file_bytes < room:
            room = (free_bytes[site] - staging_bytes[site]) // file_bytes
            why = f"{site} has room for {size_text(free_bytes[site])}"
        if requests[site] >= limits.site_requests[site]:
            room, why = 0, f"{site} has {limits.site_requests[site]} requests at once"
        count = min(turn.files, most, room)
        # A limit that is smaller than the least part is no reason to wait for ever.
        least = min(LEAST_FILES, limits.files, limits.site_files[site], limits.site_held[site])
        if count < min(turn.files, most, least):
            answers |= dict.fromkeys([one.key for one in (turn, *queues.pop(site))], why)
            continue
        answers[turn.key] = count
        files[site] += count
        staging_bytes[site] += count * file_bytes
        requests[site] += 1
        if not queues[site]:
            del queues[site]
    return answers


def _limits(config: Config) -> Limits:
    """What the configuration says of how much may be staged at once."""
    staging, sites = config.staging, config.sites
    return Limits(
        staging.files_per_request,
        size_bytes(staging.bytes_per_request),
        size_bytes(staging.file_size),
        staging.files_at_once,
        {name: site.files_at_once for name, site in sites.items()},
        {name: site.requests_at_once for name, site in sites.items()},
        {name: site.files_held for name, site in sites.items()},
        config.dcache.space,
        {name: MAX_BULK_FILES for name, site in sites.items() if config.dcache.bulk and site.staging == "dcache"},
    )


class Windows(Watcher):
    """`window:<occasion>` → `files` that may be staged now, or `why` not. Args: site, files, perhaps file_bytes, priority,
    since; effect or held; also.

    A step holds what it was granted for as long as it waits for the subject, and `also` more files: those of a request that
    turned out to be larger than its turn.
    """

    kind = "window"

    def __init__(self, world: World, store: Store, poll_s: float, limits: Limits) -> None:
        super().__init__(world, store, poll_s)
        self._limits = limits
        self._shown: dict[str, list[tuple[str, int]]] = {}
        self._free: dict[str, int] = {}

    @staticmethod
    def poll(config: Config) -> str:
        return config.staging.poll

    @classmethod
    def build(cls, world: World, store: Store, config: Config) -> Self:
        return cls(world, store, duration_s(cls.poll(config)), _limits(config))

    def heed(self, config: Config) -> None:
        super().heed(config)
        self._limits = _limits(config)

    async def usage(self) -> list[Usage]:
        """What is taken of each limit and who waits for it, as far as the last look tells; asks nobody outside."""
        watched = await self.store.observed(self.kind)
        turns = self._turns(watched)
        why = {subject.id: (data or {}).get("why", "") for subject, data in watched}
        queues: dict[str, list[Waiter]] = {}
        for turn in in_order(turns):
            queues.setdefault(turn.site, []).append(Waiter(turn.key, turn.files, turn.since, why[turn.key]))
        strangers = [one for running in self._shown.values() for one in running]
        found, total = [], sum(turn.granted for turn in turns) + sum(files for _, files in strangers)
        for site, most in self._limits.site_files.items():
            granted = [turn for turn in turns if turn.site == site and turn.granted]
            others = [files for where, files in strangers if where == site]
            files = sum(turn.granted for turn in granted) + sum(others)
            kept = files + sum(turn.files for turn in turns if turn.site == site and turn.is_held)
            requests = len(granted) + len(others)
            found += [
                Usage("files", site, files, most, tuple(queues.get(site, ()))),
                Usage("requests", site, requests, self._limits.site_requests[site]),
                Usage("files kept", site, kept, self._limits.site_held[site]),
            ]
            if site in self._free:
                sizes = [turn.granted * (turn.file_bytes or self._limits.file_bytes) for turn in granted]
                staging_bytes = sum(sizes) + sum(others) * self._limits.file_bytes
                found.append(Usage("bytes", site, staging_bytes, self._free[site]))
        return [*found, Usage("files", "", total, self._limits.files)]

    def _turns(self, watched: Sequence[tuple[Subject, Json]]) -> list[Turn]:
        return [
            Turn(
                subject.id,
                subject.args["site"],
                subject.args["files"],
                subject.args.get("priority", 0),
                subject.args.get("since", 0.0),
                granted + subject.args.get("also", 0) if (granted := (data or {}).get("files", 0)) else 0,
                subject.args.get("held", False),
                subject.args.get("file_bytes", 0),
            )
            for subject, data in watched
            if subject.args["site"] in self._limits.site_files
        ]

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        watched = await self.store.observed(self.kind)
        turns = self._turns(watched)
        ours = {subject.id: subject for subject, _ in watched}
        answers: dict[str, int | str] = {turn.key: 0 for turn in turns if turn.is_held}
        waiting = {turn.key: turn.site for turn in turns if not turn.granted and not turn.is_held}
        if waiting:
            silent: dict[str, OutsideError] = {}
            granted = frozenset(ours[turn.key].args.get("effect", "") for turn in turns if turn.granted)
            running = await self._running(granted, silent)
            free_bytes = await self._free_bytes(set(waiting.values()), silent)
            if silent.keys() >= set(waiting.values()):
                raise next(iter(silent.values()))
            answers |= grants(
                [turn for turn in turns if waiting.get(turn.key) not in silent], running, self._limits, free_bytes
            )
            answers |= {key: f"{site}: {silent[site]}" for key, site in waiting.items() if site in silent}
        return [
            (subject, {"files": found, "why": ""} if isinstance(found, int) else {"files": 0, "why": found})
            for key, subject in ours.items()
            if (found := answers.get(key)) is not None
        ]

    async def _free_bytes(self, waiting: set[str], silent: dict[str, OutsideError]) -> dict[str, int]:
        """Site → bytes that are free there, as far as the sites tell; only those where somebody waits are asked."""
        found = {}
        for site in sorted(waiting - silent.keys()) if self._limits.asks_space else ():
            try:
                space = await self.world.archive(site).space()
            except OutsideError as error:
                self._miss([site], error, silent)
                continue
            room = []
            if space.disk_limit_bytes is not None and space.disk_used_bytes is not None:
                room.append(space.disk_limit_bytes - space.disk_used_bytes)
            if space.pool_free_bytes is not None:
                room.append(space.pool_free_bytes + (space.pool_removable_bytes or 0))
            if room:
                self._free[site] = found[site] = max(0, min(room))
        return found

    async def _running(self, granted: Set[str], silent: dict[str, OutsideError]) -> list[tuple[str, int]]:
        """The requests that the stagers show as running and that no effect in `granted` made: site and files of each.

        Where a stager tells neither site nor size, the journal does. Of one that is silent, what it showed last counts.
        """
        journal = await self.store.effects_of(StageFiles.kind, self.clock.now() - HORIZON_S)
        made = [live.record for live in journal if live.record.result]
        sites: dict[int, list[str]] = {}
        for site in self._limits.site_files:
            sites.setdefault(id(self.world.stager(site)), []).append(site)
        for served in sites.values():
            # A journal of an older version names no site. Requests of two stagers may have the same number.
            ours = {one.result["request"]: one for one in made if one.inputs.get("site", "") in ("", *served)}
            try:
                shown = await self.world.stager(served[0]).progress()
            except OutsideError as error:
                self._miss(served, error, silent)
                continue
            self._shown[served[0]] = running = []
            for request, seen in shown.items():
                record = ours.get(request)
                if seen.state in FINAL or (record is not None and record.key in granted):
                    continue
                inputs = {} if record is None else record.inputs
                site = served[0] if len(served) == 1 else seen.location or inputs.get("site", "")
                files = len(inputs.get("surls", ())) if seen.file_count is None else seen.file_count
                running.append((site if site in served else "", files))
        return [one for running in self._shown.values() for one in running]

    def _miss(self, sites: Sequence[str], error: OutsideError, silent: dict[str, OutsideError]) -> None:
        """Nothing is granted at these sites for now; the others need not wait for them."""
        self.log.warning("look_failed_in_part", sites=list(sites), error=str(error))
        silent.update(dict.fromkeys(sites, error))
