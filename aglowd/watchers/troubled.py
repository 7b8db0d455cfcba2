"""Tokens in trouble: those that failed, and those that somebody holds of whom nothing is heard.

What must stay true: silence is measured by our clock, from the last revision that we saw, never by the clock of a worker node;
and what lives makes no event here, however often it beats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from aglowd.config import Config
from aglowd.effects.base import World
from aglowd.grid.picas import Taken
from aglowd.model import Json, Subject
from aglowd.store.store import Store
from aglowd.watchers.base import Observations, Watcher
from aglowd.watchers.token_bases import base_of, by_base, type_of


class _Held(Struct, frozen=True):
    """What was last seen of a token that somebody holds. Times are world seconds."""

    lock: Json
    since: float
    rev: str
    moved: float


class Troubled(Watcher):
    """`troubled:<type>` (args: token_type, site, lease_s) → token → state (locked, error, other), rev, job, host, retries.

    Locked ones, whatever their status says, only when their revision has stood still for `lease_s`, with `since`: when the
    lock was first seen.
    """

    kind = "troubled"

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        super().__init__(world, store, poll_s)
        self._held: dict[str, dict[str, _Held]] = {}

    @staticmethod
    def poll(config: Config) -> str:
        return config.picas.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        await self._recall(subjects)
        observations = list(await self.each(by_base(self.world, subjects), self._ask))
        # A database that does not answer makes no bad round for the others, and is asked again soon.
        seen = {subject.key for subject, _ in observations}
        self.store.bells.hint(self.kind, [subject.key for subject in subjects if subject.key not in seen])
        return observations

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        base = base_of(self.world, subjects[0])
        found = await base.list_taken(list(dict.fromkeys(map(type_of, subjects))))
        return [(subject, self._troubled(subject, found.get(type_of(subject), {}))) for subject in subjects]

    def _troubled(self, subject: Subject, taken: Mapping[str, Taken]) -> Json:
        now, lease_s = self.clock.now(), float(subject.args["lease_s"])
        before, held, data = self._held.get(subject.id, {}), dict[str, _Held](), dict[str, Json]()
        for name, token in sorted(taken.items()):
            fact: dict[str, Json] = {
                "state": token.state,
                "rev": token.rev,
                "job": token.job,
                "host": token.hostname,
                "retries": token.retries,
            }
            if token.state == "locked" or token.is_held:
                last = before.get(name)
                since = last.since if last is not None and last.lock == token.lock else now
                moved = last.moved if last is not None and last.rev == token.rev else now
                held[name] = _Held(token.lock, since, token.rev, moved)
                if now - moved < lease_s:
                    continue
                fact |= {"state": "locked", "lock": token.lock, "since": since}
            data[name] = fact
        self._held[subject.id] = held
        return data

    async def _recall(self, subjects: Sequence[Subject]) -> None:
        """After a start, what was silent then is silent still, if its revision is the same; types nobody waits for are dropped."""
        watched = {subject.id: data for subject, data in await self.store.observed(self.kind)}
        self._held = {name: held for name, held in self._held.items() if name in watched}
        for subject in subjects:
            if subject.id not in self._held:
                self._held[subject.id] = {
                    name: _Held(fact.get("lock"), fact["since"], fact["rev"], fact["since"])
                    for name, fact in (watched.get(subject.id) or {}).items()
                    if fact["state"] == "locked"
                }
