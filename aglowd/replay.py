"""Decides again what was decided, from a copy of the journal, and compares: what would another release have done?

The handlers and the heart are the real ones; what each handler saw is rebuilt from the log, the journal and the rows
(store/attempts.py, store/observed.py). What must stay true: nobody is asked and nothing is written; a decision is `same` only if
the handler says now what is on record, `untold` only with a reason, and `different` otherwise.

The log does not tell three things to the last bit, and a decision that is the same with any of their values is the same: the
observations between the reading of what the decision was made from and its commit, the moment of the decision, which is a
little before its event, and whether the step was asked in between and had nothing new to say.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.deciding import Fault, Means, decide
from aglowd.durations import duration_s
from aglowd.model import Outcome, Seen, Spawn, StepState, Wait
from aglowd.pipeline import Pipeline
from aglowd.sayings import KINDS, Said, is_same, leaves_of, recorded, said_of, tell
from aglowd.store import attempts, decided, past
from aglowd.store.attempts import RESET, Attempt, Past
from aglowd.store.db import queries
from aglowd.store.decided import Told, Untold
from aglowd.store.observed import Log, Observed
from aglowd.store.rows import Work, loads
from aglowd.store.runs import CHILD_STOPS, run_subject

MAX_READINGS = 8
"""Moments at which a decision may have been read, if observations came until its commit."""
MAX_SILENT = 4
"""Times that a step may have been asked in between and have had nothing new to say."""
MAX_ATTEMPTS = 2_000
"""Attempts that are followed at a time; one that was let go is followed from its beginning anew."""
MAX_TOLD = 1_000
"""Differences that are told one by one; all are counted."""
LATE_REAL_S = 2.0
"""Real seconds that may pass between a decision and its event."""
OLDER = "older than what the log holds whole"
_DURATION = re.compile(r"\b(?:\d+[wdhms] )?\d+[wdhms]\b")


class Difference(Struct, frozen=True):
    """A decision that would be another now."""

    at: float
    event: int
    field: str
    run: str
    step: str
    attempt: int
    was: str
    would: str


class Replayed(Struct, frozen=True):
    """What came of it. `found`: how many decisions there were to draw from; `untold`: reason → how many."""

    found: int
    decisions: int
    same: int
    different: int
    untold: dict[str, int]
    differences: tuple[Difference, ...]
    whole_since: float | None


class Way(Struct, frozen=True):
    """One way in which the decision may have been made, and what would come of it."""

    pipeline: Pipeline
    work: Work
    outcome: Any  # Outcome | Fault
    said: Said


class Replay:
    """Decides again. `rate`: world seconds a real one; `seed`: by which orders are shuffled, None = as they come."""

    def __init__(self, db: sqlite3.Connection, means: Means, rate: float = 1.0, seed: int | None = None) -> None:
        self._db = db
        self._means = means
        self._late_s = LATE_REAL_S * rate
        self._seed = seed
        self._whole_since = past.whole_since(db)
        self._past = Past(db)
        self._log = Log(db)
        self._pipelines: dict[str, Pipeline | None] = {}
        self._attempts: OrderedDict[tuple[str, str], Attempt] = OrderedDict()

    def play(
        self,
        since: float,
        until: float,
        fields: Collection[str] = (),
        most: int | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> Replayed:
        """All decisions of that time on these fields (() = on all) in order, or `most` of them that the seed draws."""
        chosen = decided.list_decisions(self._db, since, until, fields)
        found = len(chosen)
        if most is not None and most < found:
            chosen = sorted(random.Random(self._seed).sample(chosen, most))
        same, different, untold = 0, 0, Counter[str]()
        told: list[Difference] = []
        for done, number in enumerate(chosen):
            progress(done, len(chosen))
            try:
                difference = self._again(decided.get_told(self._db, number))
            except Untold as error:
                untold[str(error)] += 1
                continue
            same += difference is None
            different += difference is not None
            if difference is not None and len(told) < MAX_TOLD:
                told.append(difference)
        return Replayed(found, len(chosen), same, different, dict(untold.most_common()), tuple(told), self._whole_since)

    def _again(self, told: Told) -> Difference | None:
        """The difference, or None if the decision is the same."""
        if self._whole_since is not None and told.at < self._whole_since:
            raise Untold(OLDER)
        attempts.check_handlers(self._db, told)
        key = (told.run, told.step)
        attempt = self._attempts.pop(key, None)
        if attempt is None or attempt.number != told.attempt or attempt.upto >= told.id:
            attempt = Attempt(self._db, told)
            if self._whole_since is not None and attempt.begun_at < self._whole_since:
                raise Untold(f"its attempt is {OLDER}")
        self._attempts[key] = attempt
        if len(self._attempts) > MAX_ATTEMPTS:
            self._attempts.popitem(last=False)
        result: Difference | Untold | None = None
        for one in attempt.follow(told.id):
            # What it waited for since is known to who decides this again, and to nobody else.
            if one.id == told.id or (one.kind == "StepWaits" and not one.reason.endswith(CHILD_STOPS)):
                try:
                    result = self._compared(attempt, one)
                except Untold as error:
                    result = error
                    attempt.is_whole &= one.kind != "StepWaits"
        if isinstance(result, Untold):
            raise result
        return result

    def _compared(self, attempt: Attempt, told: Told) -> Difference | None:
        was = self._was(told)
        first: Way | None = None
        for way in self._ways(attempt, told, was):
            first = first or way
            if not is_same(was, way.said, is_cut=told.is_cut):
                continue
            attempt.waited |= _subjects(way.outcome)
            other = way if self._seed is None else self._in_other_order(way, told)
            return None if is_same(was, other.said, is_cut=told.is_cut) else _difference(told, was, other.said)
        assert first is not None, told
        self._check_told(attempt, told, _subjects(first.outcome))
        attempt.waited |= _subjects(first.outcome)
        return _difference(told, was, first.said)

    def _check_told(self, attempt: Attempt, told: Told, asked: set[str]) -> None:
        """Untold if the handler asks for something that it may have seen already, and nobody can tell."""
        for subject in asked | attempt.waited:
            known = self._log.latest_of(subject, told.id)
            if known and not attempt.is_whole and subject not in attempt.waited:
                raise Untold(
                    "what its attempt had seen by then cannot be told, because an earlier decision of it cannot"
                )
            row = self._db.execute(queries()["get_subject"], {"key": subject}).fetchone()
            if self._whole_since is not None and not known and row is not None and row["version"]:
                raise Untold(f"an observation may be {OLDER}")
            if self._log.may_miss(known) and not subject.partition(":")[2].startswith(told.run):
                raise Untold("an observation may have gone with a run that was forgotten")

    def _was(self, told: Told) -> Said:
        """What is on record."""
        reason, parts = told.reason, {}
        if told.kind == "StepWorks":
            return Said(KINDS[told.kind], "", recorded(attempts.planned_by(self._db, told)))
        if told.kind == "StepDone":
            row = attempts.ended_with(self._db, told)
            if row is None:
                raise Untold(RESET)
            reason, parts = "", loads(row["outputs"])
        return Said(KINDS[told.kind], reason, parts)

    # --- what would be

    def _ways(self, attempt: Attempt, told: Told, was: Said) -> Iterator[Way]:
        """What would be decided, the likeliest first: with all that was known at the commit, at that moment."""
        pipeline = self._pipeline(attempt.run.pipeline)
        plan = pipeline.steps.get(told.step)
        if plan is None:
            raise Untold("its pipeline's definition does not know the step")
        run = attempt.run_at(told)
        outputs, failures = self._past.others(told)
        effects = attempt.effects_at()
        for stopping in attempt.list_stoppings(told, run, plan.timeout_s):
            step = attempt.step_at(told, stopping)
            waited = set(attempt.waited)
            for _ in range(MAX_SILENT):
                asked: set[str] = set()
                for events in self._readings(attempt, told, waited):
                    seen = Seen(Observed(self._log, events), effects, told.at)
                    for way in self._moments(pipeline, Work(run, step, seen, outputs, failures, 0, {}), told, was):
                        yield way
                        if step.state is StepState.WAITING and _reason(way.outcome) == step.reason:
                            asked |= _subjects(way.outcome)
                if asked <= waited:
                    break
                waited |= asked

    def _moments(self, pipeline: Pipeline, work: Work, told: Told, was: Said) -> Iterator[Way]:
        """What would be decided at the moment of the event, and at those a little before that the record points to."""
        first = self._decide(pipeline, work)
        yield first
        late = {self._late_s, *(told.at - value for _, value in leaves_of(was.parts) if isinstance(value, float))}
        if isinstance(first.outcome, Wait) and told.due is not None:
            late.add(told.due - told.at - first.outcome.due_s)
        texts = (_DURATION.findall(told.reason), _DURATION.findall(_reason(first.outcome)))
        late |= {abs(_seconds(was) - _seconds(would)) for was, would in zip(*texts, strict=False)}
        for late_s in sorted(late):
            if 0.0 < late_s <= self._late_s:
                seen = msgspec.structs.replace(work.seen, now=told.at - late_s)
                yield self._decide(pipeline, msgspec.structs.replace(work, seen=seen))

    def _decide(self, pipeline: Pipeline, work: Work) -> Way:
        outcome, _ = decide(self._means, pipeline, work)
        if isinstance(outcome, Fault) and isinstance(outcome.error, Untold):
            raise outcome.error
        return Way(pipeline, work, outcome, said_of(outcome, work, pipeline.steps[work.step.name]))

    def _in_other_order(self, way: Way, told: Told) -> Way:
        """The same once more, with everything that has no order of its own in one that the seed draws."""
        dice = random.Random(f"{self._seed}/{told.id}")
        seen = way.work.seen
        effects = tuple(
            msgspec.structs.replace(one, result=_shuffled(one.result, dice), notes=_shuffled(one.notes, dice))
            for one in seen.effects
        )
        assert isinstance(seen.observations, Observed), seen
        events = _shuffled(seen.observations.events, dice)
        observations = Observed(self._log, events, lambda data: _shuffled(data, dice))
        seen = Seen(observations, effects, seen.now)
        outputs = _shuffled(way.work.outputs, dice)
        return self._decide(way.pipeline, msgspec.structs.replace(way.work, seen=seen, outputs=outputs))

    def _pipeline(self, digest: str) -> Pipeline:
        if digest not in self._pipelines:
            row = self._db.execute(queries()["get_pipeline"], {"digest": digest}).fetchone()
            if row is None:
                raise Untold("its pipeline's definition is not in the copy")
            try:
                self._pipelines[digest] = msgspec.json.decode(row["definition"], type=Pipeline)
            except msgspec.DecodeError:
                self._pipelines[digest] = None
        pipeline = self._pipelines[digest]
        if pipeline is None:
            raise Untold("its pipeline's definition cannot be read by this release")
        return pipeline

    def _readings(self, attempt: Attempt, told: Told, waited: set[str]) -> Iterator[dict[str, int]]:
        """The events of what may have been seen: all that was known at the commit, then without what came last, back to the cause."""
        floor, last = max(told.cause, attempt.begun), told.id - 1
        for _ in range(MAX_READINGS):
            latest = {subject: self._log.latest_of(subject, last) for subject in sorted(waited)}
            yield {subject: number for subject, number in latest.items() if number}
            if last <= floor:
                return
            last = max(max(latest.values(), default=0) - 1, floor)


def _difference(told: Told, was: Said, would: Said) -> Difference:
    old, new = tell(was, would)
    return Difference(told.at, told.id, told.field, told.run, told.step, told.attempt, old, new)


def _reason(outcome: Outcome | Fault) -> str:
    return getattr(outcome, "reason", "")


def _subjects(outcome: Outcome | Fault) -> set[str]:
    """For what the outcome waits."""
    if isinstance(outcome, Spawn):
        return {run_subject(outcome.key).key}
    return {subject.key for subject in outcome.subjects} if isinstance(outcome, Wait) else set()


def _seconds(text: str) -> float:
    return sum(duration_s(part) for part in text.split())


def _shuffled(value: Any, dice: random.Random) -> Any:
    """The same value; each of its mappings in an order of its own."""
    if isinstance(value, Mapping):
        return {name: _shuffled(value[name], dice) for name in dice.sample(list(value), len(value))}
    return [_shuffled(one, dice) for one in value] if isinstance(value, list) else value
