"""The loop that watchers share: which subjects are waited for, one look at all of them, what changed goes to the store.

What must stay true: a watcher asks its outside system once a round for all subjects; a hint brings a look forward and
never replaces a round; the first observation of a new subject is always delivered; a failure changes no fact, it only
delays the next look; a defect, or a subject that cannot be read, keeps nobody else's answer back and ends neither the
watcher nor the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar, Self

import msgspec
import structlog
from msgspec import Struct

from aglowd.clock import restart_after_s
from aglowd.config import Config
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.log import hide_secrets
from aglowd.model import Json, Subject
from aglowd.parts import in_parts
from aglowd.store.store import Store

GATHER_REAL_S = 0.05
"""Real seconds in which new subjects are gathered for one look."""
BACKOFF_MOST = 6
"""After many failures a round comes at most this many polls late."""
HINTS_APART_S = 180.0
"""World seconds between two looks that hints ask for, and after a round: events come several times a file, and in vain."""
PACE_FAST, PACE_SLOW = 0.5, 4.0
"""Of a watcher that adapts: polls between two rounds when something moves, and when nothing has for long."""
QUIET_ROUNDS = 3
"""After each so many rounds in a row that showed nothing new, the interval doubles."""
MAX_OBSERVATION_BYTES = 16 << 20
"""As JSON. What is longer is not recorded: everything that is seen stays in the database for the life of its run."""
MAX_SPLITS = 16
"""How often in one round the subjects are halved to find the one that cannot be read."""
MAX_DEFECT_CHARS = 300

Observations = Iterable[tuple[Subject, Json]]


class Silence(Struct, frozen=True):
    """Since when nothing could be seen of a subject (world seconds), and why."""

    since: float
    why: str


class Watcher:
    """One source of facts about one kind of subject."""

    kind: ClassVar[str]
    whole: ClassVar[bool] = False
    """One call answers for everything at once: a new subject waits for the next round and costs no call of its own."""
    gather_real_s: ClassVar[float] = GATHER_REAL_S
    """Real seconds in which new subjects are gathered before they are looked at."""
    adapts: ClassVar[bool] = False
    """A round that showed something new is followed by the next after `PACE_FAST` polls; after each `QUIET_ROUNDS` that
    did not the interval doubles, up to `PACE_SLOW` polls. A subject that is new brings it back to one poll."""

    def __init__(self, world: World, store: Store, poll_s: float) -> None:
        self.world = world
        self.store = store
        self.clock = world.clock
        self.poll_s = poll_s
        self.log = structlog.get_logger("watchers", watcher=self.kind)
        self.failures = 0
        self.last_error = ""
        self.last_ok: float | None = None
        self._waited_since: float | None = None
        self.defect = ""
        """What it stumbled over last that no outside system should be able to cause; empty when it does well."""
        self.silent: dict[str, Silence] = {}
        """Keys of the subjects of which the last look saw nothing, because the outside did not answer."""
        self._missed: set[str] = set()
        """Of these, those of which the look that goes on now saw nothing."""
        self.note = ""
        """How it watches, where an operator may wonder; no failure."""
        self.rested = False
        """Whether it waits for its next round, after a look at least."""
        self._moved = False
        self._pace, self._quiet = 1.0, 0
        self._splits = 0
        self.progress_at = self.clock.now()

    @property
    def lag_s(self) -> float | None:
        """World seconds without a good look; None while nothing is waited for: then none is made."""
        if self._waited_since is None:
            return None
        return self.clock.now() - max(self._waited_since, self.last_ok or 0.0)

    def _waited_for(self, *, is_so: bool) -> None:
        """Whether anything is waited for here now."""
        self._waited_since = (self._waited_since or self.clock.now()) if is_so else None

    @staticmethod
    def poll(config: Config) -> str:
        """How long the watcher rests between two rounds."""
        raise NotImplementedError

    @classmethod
    def build(cls, world: World, store: Store, config: Config) -> Self:
        """The watcher as the configuration wants it."""
        watcher = cls(world, store, duration_s(cls.poll(config)))
        watcher.heed(config)
        return watcher

    def heed(self, config: Config) -> None:
        """Take what the configuration says now, here and in no other place; who rests looks up."""
        self.poll_s = duration_s(self.poll(config))
        self.store.bells.subject(self.kind).set()

    async def left(self) -> Sequence[Subject]:
        """Subjects that no step waits for, and that are looked at in the rounds all the same."""
        return ()

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        """What the outside world shows of these subjects; one that cannot be seen now is left out."""
        raise NotImplementedError

    async def each(
        self, groups: Iterable[Sequence[Subject]], ask: Callable[[Sequence[Subject]], Awaitable[Observations]]
    ) -> Observations:
        """What `ask` says of each group, all asked at once: a system that does not answer keeps only its own back."""
        asked = list(groups)

        async def answer(group: Sequence[Subject]) -> Observations:
            try:
                return await ask(group)
            finally:  # However it ended: a look at many is no loop that hangs.
                self.progress_at = self.clock.now()

        answers = await asyncio.gather(*map(answer, asked), return_exceptions=True)
        failures = [
            (group, answer) for group, answer in zip(asked, answers, strict=True) if isinstance(answer, BaseException)
        ]
        for group, failure in failures:
            if isinstance(failure, OutsideError):
                self.miss(group, failure)
        for group, failure in failures:
            if not isinstance(failure, OutsideError) or len(failures) == len(asked):
                raise failure
            site = group[0].args.get("site", "") if group else ""
            self.log.warning("look_failed_in_part", site=site, error=str(failure))
        return [pair for answer in answers if not isinstance(answer, BaseException) for pair in answer]

    def miss(self, subjects: Iterable[Subject], error: OutsideError) -> None:
        """Nothing can be seen of these now; `explain` says so beside what was seen last."""
        now = self.clock.now()
        for subject in subjects:
            since = self.silent[subject.key].since if subject.key in self.silent else now
            self.silent[subject.key] = Silence(since, hide_secrets(str(error))[:MAX_DEFECT_CHARS])
            self._missed.add(subject.key)

    def forget_silent(self, watched: Iterable[Subject]) -> None:
        """Of what nobody waits for any more nothing is kept."""
        if self.silent:
            known = {subject.key for subject in watched}
            self.silent = {key: silence for key, silence in self.silent.items() if key in known}

    async def run(self) -> None:
        """Watch for ever; one that raises rests, begins anew, and says in `defect` what it was."""
        while True:
            try:
                await self.watch()
            except Exception as error:  # A defect of one watcher is no reason to stop all others.
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from error  # Told to stop: what went wrong on the way out is no matter.
                self.failures += 1
                self.last_error = self.defect = f"{type(error).__name__}: {error}"[:MAX_DEFECT_CHARS]
                self.log.exception("watcher_raised", failures=self.failures)
            self.progress_at = self.clock.now()
            self.rested = True
            await asyncio.sleep(restart_after_s(self.failures))

    @property
    def is_at_rest(self) -> bool:
        """Whether it has looked at all there is to be looked at now, as well as it could, and waits for its next round."""
        return self.rested and not self.store.bells.subject(self.kind).is_set()

    async def watch(self) -> None:
        """Look at what is waited for, for ever."""
        bell, hints = self.store.bells.subject(self.kind), self.store.bells.hints(self.kind)
        next_round = early_at = self.clock.now()
        poll_s = self.poll_s
        waited = False
        while True:
            self.progress_at = self.clock.now()
            self.rested = False
            bell.clear()
            if self.poll_s < poll_s:
                # It was made shorter: whoever did that does not want to wait for the end of the old one.
                next_round = min(next_round, self.clock.now() + self.poll_s)
            poll_s = self.poll_s
            is_round = self.clock.now() >= next_round
            early = set(hints) if is_round or self.clock.now() >= early_at else set()
            watched = await (self.store.watched(self.kind) if is_round else self.store.watched_now(self.kind, early))
            has_new = any(version == 0 for _, version in watched)
            if has_new:
                next_round = self._soon(next_round)
                if not is_round and self.clock.now() >= next_round:
                    is_round, early = True, set(hints)
                    watched = await self.store.watched(self.kind)
            if is_round:
                self.forget_silent(subject for subject, _ in watched)
            waited = bool(watched) or (waited and not is_round)
            self._waited_for(is_so=waited)
            hints -= early
            chosen = [
                subject
                for subject, version in watched
                if is_round or subject.key in early or (version == 0 and not self.whole)
            ]
            if is_round:
                chosen += await self.left()
            if chosen:
                seen = await self._look(chosen)
                late = min(2 ** max(self.failures - 1, 0), BACKOFF_MOST)
                now = self.clock.now()
                if early:
                    early_at = now + HINTS_APART_S * late
                    hints |= set() if seen else early
                if is_round or not (seen or early):
                    step_s = self.poll_s * (self._next_pace(has_new=has_new) if seen else late)
                    next_round = next_round + step_s if next_round + step_s > now else now + step_s
                if is_round:
                    early_at = max(early_at, now + HINTS_APART_S)
            until = min(next_round, early_at) if hints else next_round
            self.rested = True
            await self._sleep(bell, until if waited else None)

    def _next_pace(self, *, has_new: bool) -> float:
        """Polls until the next round, after one that was seen; at most one while something has never been seen."""
        if not self.adapts:
            return 1.0
        self._quiet = 0 if self._moved else self._quiet + 1
        if self._moved:
            self._pace = PACE_FAST
        elif self._quiet % QUIET_ROUNDS == 0:
            self._pace = min(self._pace * 2, 1.0 if has_new else PACE_SLOW)
        return self._pace

    def _soon(self, next_round: float) -> float:
        """The next round as it would be at the pace of one poll."""
        if self._pace <= 1.0 or self.failures:
            return next_round
        spared, self._pace = self._pace - 1.0, 1.0
        return next_round - self.poll_s * spared

    async def _look(self, subjects: Sequence[Subject]) -> bool:
        self._splits, before, self.defect = MAX_SPLITS, self.defect, ""
        self._missed.difference_update(subject.key for subject in subjects)
        try:
            observations = await self._readable(subjects)
        except OutsideError as error:
            self.defect = before
            self.failures += 1
            self.last_error = str(error)
            self.miss(subjects, error)
            self.log.warning("look_failed", subjects=len(subjects), failures=self.failures, error=str(error))
            return False
        if self.defect and not observations:
            self.failures += 1
            self.last_error = self.defect
            return False
        for subject in subjects:
            if subject.key not in self._missed:
                self.silent.pop(subject.key, None)
        self._moved = bool(observations) and await self.store.ingest(self.kind, None, observations) > 0
        if self.failures:
            self.log.info("look_recovered", failures=self.failures)
        self.failures, self.last_error, self.last_ok = 0, "", self.clock.now()
        return True

    async def _readable(self, subjects: Sequence[Subject]) -> list[tuple[Subject, Json]]:
        """What is seen of all subjects but those over which the watcher stumbles: these are found by halves."""
        try:
            observations = list(await self.look(subjects))
            async for subject, data in in_parts(observations):
                if len(msgspec.json.encode(data)) > MAX_OBSERVATION_BYTES:
                    raise ValueError(f"the observation of {subject.key} is longer than {MAX_OBSERVATION_BYTES} bytes")
        except OutsideError:
            raise
        except Exception as error:  # A defect, or a subject or an answer that nobody thought of.
            if len(subjects) > 1 and self._splits > 0:
                self._splits -= 1
                half = len(subjects) // 2
                return [*await self._readable(subjects[:half]), *await self._readable(subjects[half:])]
            self.defect = f"{subjects[0].key}: {type(error).__name__}: {error}"[:MAX_DEFECT_CHARS]
            self.log.exception("look_raised", subject=subjects[0].key, subjects=len(subjects))
            return []
        return observations

    async def _sleep(self, bell: asyncio.Event, until: float | None) -> None:
        """Until the next round, or until there are new subjects, which are gathered for a moment."""
        # With nothing to watch it looks up once a poll all the same: a loop that rests must not look like one that hangs.
        rest_s = self.poll_s if until is None else max(0.0, until - self.clock.now())
        seconds = self.clock.real_s(rest_s)
        if self.failures and until is not None:
            await asyncio.sleep(max(seconds, GATHER_REAL_S))
            return
        try:
            async with asyncio.timeout(seconds):
                await bell.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self.gather_real_s)
