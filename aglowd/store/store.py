"""The store's verbs, each one transaction, and the bells that ring after its commit.

Whoever waits for work waits on a bell: a verb that made something dirty rings `dirty`, and so on. A bell only saves
time; all that it announces stands in the database, and a daemon that starts looks there first.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from aglowd.choice import Choice
from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import StoreError
from aglowd.model import EffectState, FieldView, Json, Subject
from aglowd.selection import Limits
from aglowd.store import (
    ahead,
    archive,
    at_once,
    backup,
    differences,
    doubts,
    facts,
    figures,
    forgetting,
    history,
    journal,
    manual,
    material,
    offers,
    past,
    pauses,
    runs,
    schedules,
    stagings,
    steer,
    traces,
    troubles,
    unpacked,
    vacuum,
    verdicts,
    verify,
    views,
)
from aglowd.store.at_once import Decider, LeftToTurn
from aglowd.store.db import Database, queries, start_over
from aglowd.store.doubts import Finding, Word
from aglowd.store.figures import Figures
from aglowd.store.forgetting import Forgetting
from aglowd.store.identity import identity
from aglowd.store.manual import Left
from aglowd.store.material import Material
from aglowd.store.offers import Intake
from aglowd.store.pauses import Hold, Holding
from aglowd.store.plans import GraphOf, Order, Plan
from aglowd.store.retries import Rewrite, Tools
from aglowd.store.rows import Changes, LiveEffect, Work, loads
from aglowd.store.runs import Decision, Graph, OutputsOf
from aglowd.store.schedules import Planned
from aglowd.store.stagings import Wanted
from aglowd.store.verdicts import Verdict
from aglowd.threads import Threads

T = TypeVar("T")

REASK_S = 3600.0
"""World seconds after which a step that was due is due again, should its decision get lost with the process."""
CHECK_REAL_S = 60.0
"""Real seconds that a look through the whole database may take."""
RECORD_REAL_S = 5.0
"""Real seconds for which the answer to an operator waits for its event."""


class Bells:
    """What may have changed since one last looked."""

    def __init__(self) -> None:
        self.dirty = asyncio.Event()
        self.effects = asyncio.Event()
        self.timers = asyncio.Event()
        self.timer_at = math.inf
        """Until then whoever keeps time sleeps: `timers` rings only for what is due before."""
        self.fields = asyncio.Event()
        self.ends = asyncio.Event()
        """A run has ended."""
        self.events = asyncio.Event()
        self.subjects: dict[str, asyncio.Event] = {}
        self._hints: dict[str, set[str]] = {}

    def subject(self, kind: str) -> asyncio.Event:
        """Rings when there is a new subject of that kind, or a hint of one."""
        return self.subjects.setdefault(kind, asyncio.Event())

    def hints(self, kind: str) -> set[str]:
        """Keys of subjects of that kind that ought to be looked at early; who looks at them takes them out."""
        return self._hints.setdefault(kind, set())

    def hint(self, kind: str, keys: Iterable[str]) -> None:
        """Ask for an early look at these subjects. What is asked for already rings no bell: hints may come in floods."""
        hints = self.hints(kind)
        before = len(hints)
        hints.update(keys)
        if len(hints) > before:
            self.subject(kind).set()

    def ring(self, changes: Changes) -> None:
        """Tell everybody concerned that a commit has happened."""
        for name in ("dirty", "effects", "fields"):
            if getattr(changes, name):
                getattr(self, name).set()
        if changes.timer_at < self.timer_at:
            self.timers.set()
        if changes.ended_runs:
            self.ends.set()
        for kind in changes.subjects:
            self.subject(kind).set()
        self.events.set()


class Store:
    """All that aglowd remembers. `outputs_of` makes a run's outputs from those of its steps; it must be pure."""

    def __init__(self, path: Path, clock: Clock, outputs_of: OutputsOf = lambda run, graph, outputs: {}) -> None:
        self.db = Database(path)
        self.clock = clock
        self.bells = Bells()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """(kind, state) → how often an effect came there in this process; `planned`: it is to be tried again."""
        self._outputs_of = outputs_of
        self._decider: Decider | None = None
        self._preview = offers.Preview()
        self._threads = Threads("the backup", most=1)

    @seam
    async def open(self) -> None:
        """Lock, check, migrate; everything that was in flight is unknown from now on. StoreError if it cannot be."""

        def recover(db: sqlite3.Connection) -> None:
            db.execute(queries()["recover_effects"], {"now": self.clock.now()})
            # The clock may have been set between two lives: what was not there then proves nothing about how long ago.
            db.execute(queries()["forget_absences"], {"now": self.clock.now()})
            db.execute(queries()["mark_queued"], {"now": self.clock.now()})  # The pools may have grown.

        await self.db.open(recover)
        self.bells.ring(Changes(dirty=True, effects=True, timer_at=0.0, fields=True))

    async def close(self) -> None:
        """Write what is queued and close."""
        await self.db.close()

    async def _change(self, transaction: Callable[[sqlite3.Connection, float, Changes], T]) -> T:
        changes, decisions, decider = Changes(), list[Decision](), self._decider

        def begin(db: sqlite3.Connection) -> T:
            nonlocal changes, decisions
            changes, now = Changes(), self.clock.now()  # It may run anew: what it had written before was never there.
            result = transaction(db, now, changes)
            if decider is not None:
                try:
                    decisions = at_once.decide_marked(db, decider, self._outputs_of, now, changes)
                    return result
                except LeftToTurn:
                    start_over(db)
                    changes, decisions = Changes(), []
                    result = transaction(db, now, changes)
            changes.dirty |= bool(changes.marked)
            return result

        def tell() -> None:
            self.bells.ring(changes)
            if decider is not None:
                for decision in decisions:
                    decider.tell(decision)

        return await self.db.write(begin, tell)

    def decide_at_once(self, decider: Decider) -> None:
        """From now on ask it in each transaction what follows from that."""
        self._decider = decider

    # --- facts

    @seam
    async def ingest(self, source: str, cursor: str | None, observations: Iterable[tuple[Subject, Json]]) -> int:
        """Record observations and the cursor behind them; returns how many said something new."""
        listed = list(observations)
        return await self._change(lambda db, now, changes: facts.ingest(db, source, cursor, listed, now, changes))

    @seam
    async def put_fields(
        self,
        fields: Iterable[tuple[FieldView, str]],
        others: Mapping[str, tuple[str, str]] | None = None,
        *,
        since: int | None = None,
    ) -> int:
        """Record what the catalogue says of its fields, each with its problem or ''; returns how many changed.

        `others`: field → the run at work on it and the status before, where the new status is not the run's own word.
        `since`: the last event before the catalogue was read. A row whose status we have written since then is left out,
        because it may be older than our word.
        """
        listed = list(fields)
        return await self._change(
            lambda db, now, changes: facts.put_fields(db, listed, others or {}, since, now, changes)
        )

    async def last_event(self) -> int:
        """The number of the latest event."""
        return await self.db.read(journal.last_event)

    async def at_work(self) -> dict[str, tuple[str, str]]:
        """Field → its status as it is known, and the run that is at work on it."""
        return await self.db.read(facts.fields_at_work)

    async def watched(self, kind: str) -> list[tuple[Subject, int]]:
        """The subjects of that kind that steps wait for, with the version of their latest observation."""
        return await self.db.read(lambda db: facts.list_watched(db, kind))

    async def watched_now(self, kind: str, keys: Iterable[str]) -> list[tuple[Subject, int]]:
        """Of these the ones that were never seen, and the ones of these keys."""
        listed = list(keys)
        return await self.db.read(lambda db: facts.list_watched_now(db, kind, listed))

    async def observed(self, kind: str) -> list[tuple[Subject, Json]]:
        """The subjects of that kind that steps wait for, with what was last observed of each; None before the first look."""
        return await self.db.read(lambda db: facts.list_observed(db, kind))

    async def unended_jobs(self) -> list[tuple[Subject, Json]]:
        """The jobs that no step waits for and of which no end was seen, with what was last observed of each."""
        return await self.db.read(facts.list_unended_jobs)

    async def cursor(self, source: str) -> str | None:
        """Where that source was left, or None."""

        def query(db: sqlite3.Connection) -> str | None:
            row = db.execute(queries()["get_cursor"], {"source": source}).fetchone()
            return None if row is None else str(row["value"])

        return await self.db.read(query)

    async def offered_as(self, field: str) -> str:
        """The status under which the field was last taken, or ""."""

        def query(db: sqlite3.Connection) -> str:
            row = db.execute(queries()["offered_as"], {"name": field}).fetchone()
            return "" if row is None else str(loads(row["context"]).get("status", ""))

        return await self.db.read(query)

    @seam
    async def record(self, kind: str, data: Json) -> None:
        """Add an event of something that an operator did and that needed no run."""
        await self._change(lambda db, now, changes: journal.add_event(db, now, kind, data=data))

    # --- runs and steps

    @seam
    async def admit(
        self, graph: Graph, select: Iterable[str], most: int, at_site: Mapping[str, int] | None = None
    ) -> int:
        """Start runs for fields on offer, at most `most` at once, and at each site at most so many. Returns how many.

        A row with a problem, or whose data lie at no site of `at_site`, is refused; without `at_site` any site is fine.
        """
        intake = Intake(tuple(select), Limits(most, at_site))
        return await self._change(lambda db, now, changes: offers.admit(db, graph, intake, now, changes))

    async def candidates(
        self, select: Iterable[str], most: int, at_site: Mapping[str, int] | None = None
    ) -> dict[str, Json]:
        """What `admit` would do now, and of every other field without a run why it is not taken."""
        intake = Intake(tuple(select), Limits(most, at_site))
        return await self.db.read(lambda db: self._preview.list(db, intake))

    async def start_run(self, graph: Graph, *, key: str, field: str, params: Json, context: Json) -> str:
        """Begin a run; returns its id."""
        return await self._change(
            lambda db, now, changes: runs.start(
                db, graph, key=key, field=field, params=params, context=context, now=now, changes=changes
            )
        )

    @seam
    async def begin_stagings(self, graph: Graph, wanted: Iterable[Wanted], uid: int) -> list[dict[str, Json]]:
        """Begin the stagings that somebody asks for, or join those under way; AglowError if they cannot be told apart."""
        listed = list(wanted)
        return await self._change(lambda db, now, changes: stagings.begin(db, graph, listed, uid, now, changes))

    @seam
    async def begin_order(self, graph: Graph, field: str, params: Json, data: dict[str, Json]) -> str:
        """Begin a run that somebody ordered, under a name that no field has; AglowError if one of that name is at work."""
        return await self._change(lambda db, now, changes: runs.order(db, graph, field, params, data, now, changes))

    @seam
    async def begin_due(self, planned: Iterable[Planned]) -> float | None:
        """Begin the scheduled runs whose time has come; returns when the next one's will, or None."""
        listed = list(planned)
        return await self._change(lambda db, now, changes: schedules.begin_due(db, listed, now, changes))

    async def schedules(self) -> list[dict[str, Json]]:
        """Each schedule: its next time, and how its last run went."""
        return await self.db.read(schedules.list_schedules)

    @seam
    async def judge(self, field: str, step: str, verdict: Verdict) -> dict[str, Json]:
        """Record an operator's verdict and wake the step that waits for it; AglowError if none does, or several do."""
        return await self._change(lambda db, now, changes: verdicts.judge(db, field, step, verdict, now, changes))

    async def waited(self, kind: str) -> list[dict[str, Json]]:
        """The subjects of that kind that steps wait for, as they were last seen, each with who waits."""
        return await self.db.read(lambda db: views.list_waited(db, kind))

    async def stagings(self, name: str = "") -> list[dict[str, Json]]:
        """The stagings of that name, or all, the latest first."""
        named = [f"{stagings.PREFIX}{name}"] if name else await self.db.read(stagings.list_packed)
        return await self._ask(named, lambda db: stagings.list_stagings(db, name))

    async def pipeline(self, digest: str) -> bytes:
        """The stored definition of a pipeline."""

        def query(db: sqlite3.Connection) -> bytes:
            return str(db.execute(queries()["get_pipeline"], {"digest": digest}).fetchone()["definition"]).encode()

        return await self.db.read(query)

    @seam
    async def ask_queued(self) -> None:
        """Have every step that waits for a place in a pool ask again: the pools may have grown."""

        def transaction(db: sqlite3.Connection, now: float, changes: Changes) -> None:
            db.execute(queries()["mark_queued"], {"now": now})
            changes.dirty = True

        await self._change(transaction)

    async def next_dirty(self, most: int = 64) -> list[Work]:
        """The steps to decide next, at most one a run, by priority and age."""
        return await self.db.read(lambda db: runs.list_dirty(db, most))

    @seam
    async def finish(self, decision: Decision) -> None:
        """Commit a decision; StaleVersion if the step changed in between. Work that nobody waits for any more is cancelled."""

        def transaction(db: sqlite3.Connection, now: float, changes: Changes) -> None:
            runs.finish(db, decision, self._outputs_of, now, changes)
            at_once.abandon(db, decision, self._outputs_of, now, changes)

        await self._change(transaction)

    @seam
    async def add_fault(self, decision: Decision, error: str, retry_s: float) -> None:
        """Record that deciding raised; the third time the attempt fails for good."""

        def transaction(db: sqlite3.Connection, now: float, changes: Changes) -> None:
            runs.add_fault(db, decision, error, retry_s, self._outputs_of, now, changes)
            at_once.abandon(db, decision, self._outputs_of, now, changes)

        await self._change(transaction)

    # --- what people steer

    async def plan(self, order: Order, graph_of: GraphOf) -> Plan:
        """What a person's command would change now; AglowError if it makes no sense."""
        return await self.db.read(lambda db: steer.plan(db, order, graph_of))

    @seam
    async def steer(self, order: Order, version: str, word: Word, graph_of: GraphOf, rewrite: Rewrite) -> Plan:
        """Carry a person's command out; Changed if it would change something else than the plan of that version."""
        tools = Tools(graph_of, self._outputs_of, rewrite)
        return await self._change(
            lambda db, now, changes: steer.carry_out(db, order, version, word, tools, now, changes)
        )

    @seam
    async def identity(self, name: str, tag: str = "") -> str:
        """The name of this aglowd in what it shares with others: the one with which it first asked. Runs begin with that tag."""
        return await self._change(lambda db, now, changes: identity(db, name, tag))

    async def has_run(self, run: str) -> bool:
        """Whether there is, or was, a run of that id."""
        return await self.db.read(lambda db: db.execute(queries()["get_run"], {"run": run}).fetchone() is not None)

    async def work(self, run: str, step: str) -> Work | None:
        """All that a decision on the step would be made from now; None if there is no such step."""
        return await self.db.read(lambda db: runs.find_work(db, run, step))

    async def plan_forget(self, choice: Choice, pinned_s: float) -> Forgetting:
        """What would be forgotten; AglowError if it is nothing, or if a run that is named must stay."""
        now = self.clock.now()
        return await self.db.read(lambda db: forgetting.plan(db, choice, pinned_s, now))

    @seam
    async def forget_runs(self, choice: Choice, pinned_s: float, version: str, word: Word) -> Forgetting:
        """Forget these runs for good; Changed if the plan is not the one of that version any more."""
        return await self._change(
            lambda db, now, changes: forgetting.carry_out(db, choice, pinned_s, version, word, now)
        )

    async def plan_hold(self, verb: str, holds: Iterable[Hold], fields: Choice | None = None) -> Holding:
        """How each of these, and of the fields that are meant, is held now; AglowError if the verb would change nothing."""
        listed = list(holds)
        return await self.db.read(lambda db: pauses.plan(db, verb, listed, fields))

    @seam
    async def hold(
        self, verb: str, holds: Iterable[Hold], word: Word, fields: Choice | None = None, version: str = ""
    ) -> Holding:
        """Pause, drain or resume these; returns how each was held before. Changed if it is not what that version showed."""
        listed = list(holds)
        return await self._change(
            lambda db, now, changes: pauses.carry_out(db, verb, listed, fields, version, word, now, changes)
        )

    @seam
    async def run_by_hand(self, graph: Graph, field: str, params: Json, data: dict[str, Json], *, takes: bool) -> str:
        """Begin a run of a field because a person says so; returns its id. AglowError if it cannot be."""
        return await self._change(
            lambda db, now, changes: manual.by_hand(db, graph, field, params, data, now, changes, takes=takes)
        )

    @seam
    async def take_over(self, graph: Graph, left: Left, limits: Limits, word: Word) -> str:
        """Begin the field's own run where another program left off; returns its id. AglowError if it cannot be."""
        return await self._change(
            lambda db, now, changes: manual.take_over(db, graph, left, limits, word, now, changes)
        )

    async def about_take_over(self, graph: Graph, field: str, site: str) -> tuple[str, dict[str, Json]]:
        """What the run would be called by which the field is taken over, and what its templates would see of the field."""

        def query(db: sqlite3.Connection) -> tuple[str, dict[str, Json]]:
            return runs.next_id(db, manual.key_by_hand(graph, field, takes=True)), manual.may_take_over(db, field, site)

        return await self.db.read(query)

    async def sites_running(self) -> dict[str, int]:
        """Site → fields that are under way there; "" = where nobody knows yet."""
        return await self.db.read(offers.sites_running)

    async def about_field(self, graph: Graph, field: str, *, takes: bool) -> tuple[str, str, dict[str, Json]]:
        """What a run of the field begun by hand would be called, its key, and what its templates would see of the field."""

        def query(db: sqlite3.Connection) -> tuple[str, str, dict[str, Json]]:
            key = manual.key_by_hand(graph, field, takes=takes)
            return runs.next_id(db, key), key, manual.field_context(db, field)

        return await self.db.read(query)

    @seam
    async def due(self) -> float | None:
        """Mark the steps whose time has come; returns when the next timer is due, or None."""

        def transaction(db: sqlite3.Connection, now: float, changes: Changes) -> float | None:
            changes.dirty |= db.execute(queries()["mark_due"], {"now": now, "again": now + REASK_S}).rowcount > 0
            for row in db.execute(queries()["mark_overdue"], {"now": now}).fetchall():
                changes.dirty = changes.effects = True
                db.execute(queries()["hurry_effects"], {"run": row["run"], "step": row["name"], "now": now})
            (effects_are_due,) = db.execute(queries()["effects_are_due"], {"now": now}).fetchone()
            changes.effects |= bool(effects_are_due)
            (at,) = db.execute(queries()["next_timer"], {"now": now}).fetchone()
            return None if at is None else float(at)

        self.bells.timer_at = math.inf  # Until it is known nothing is too late to ring.
        at = await self._change(transaction)
        self.bells.timer_at = math.inf if at is None else at
        return at

    # --- the journal

    async def next_effects(self, busy: Iterable[str], most: int) -> list[LiveEffect]:
        """Effects whose time has come, without those that are under way."""
        listed, now = list(busy), self.clock.now()
        return await self.db.read(lambda db: journal.list_live(db, listed, now, most))

    @seam
    async def intend(self, live: LiveEffect, evidence: Json) -> None:
        """Commit the intent with its evidence: only then may `do` be called."""
        await self._change(lambda db, now, changes: journal.intend(db, live, evidence, now))

    @seam
    async def note(self, live: LiveEffect, notes: dict[str, Json]) -> None:
        """Commit what `do` learned on its way."""
        await self._change(lambda db, now, changes: journal.note(db, live, notes))

    @seam
    async def settle(self, live: LiveEffect, state: EffectState, result: Json, reason: str = "") -> None:
        """Record how the effect ended, and wake its step."""
        await self._change(lambda db, now, changes: journal.settle(db, live, state, result, reason, now, changes))
        self.outcomes[live.record.kind, state] += 1

    @seam
    async def put_off(
        self,
        live: LiveEffect,
        state: EffectState,
        reason: str,
        after_s: float,
        *,
        tried: bool = True,
        looked: bool = False,
        absent_at: float | None = None,
    ) -> None:
        """Record that the effect has not ended, why, and when it is taken up again."""
        await self._change(
            lambda db, now, changes: journal.put_off(
                db,
                live,
                state,
                reason,
                now,
                now + after_s,
                tried=tried,
                looked=looked,
                absent_at=absent_at,
                changes=changes,
            )
        )
        self.outcomes[live.record.kind, state] += 1

    async def effect(self, key: str) -> LiveEffect | None:
        """The journal's entry of that key, whatever its state."""
        return await self.db.read(lambda db: doubts.find_effect(db, key))

    async def effects_of(self, kind: str, since: float = 0.0) -> list[LiveEffect]:
        """The effects of that kind that were planned since then, ended or not, oldest first."""
        return await self.db.read(lambda db: doubts.list_of_kind(db, kind, since))

    # --- what cannot be told

    @seam
    async def adopt(self, live: LiveEffect, result: Json, word: Word) -> None:
        """On the operator's word it happened, and this is what it returned; AglowError if nothing is in doubt."""
        await self._change(lambda db, now, changes: doubts.adopt(db, live, result, word, now, changes))
        self.outcomes[live.record.kind, EffectState.DONE] += 1

    @seam
    async def retry(self, live: LiveEffect, word: Word) -> None:
        """On the operator's word it did not happen, and is done again; AglowError if nothing is in doubt."""
        await self._change(lambda db, now, changes: doubts.retry(db, live, word, now, changes))

    @seam
    async def forget(self, live: LiveEffect, word: Word) -> None:
        """On the operator's word it is given up, as if it had been refused; AglowError if nothing is in doubt."""
        await self._change(lambda db, now, changes: doubts.forget(db, live, word, now, changes))
        self.outcomes[live.record.kind, EffectState.REJECTED] += 1

    @seam
    async def dismiss(self, key: str, word: Word) -> bool:
        """Mark a finding of the audit as seen to; False if there is none of that key."""
        return await self._change(lambda db, now, changes: doubts.dismiss(db, key, word, now))

    @seam
    async def record_findings(self, prefix: str, findings: Iterable[Finding]) -> list[Finding]:
        """All that an audit of the things under that prefix found; returns what is new, with its remedy planned."""
        listed = list(findings)
        return await self._change(lambda db, now, changes: doubts.record_findings(db, prefix, listed, now, changes))

    async def doubts(self) -> dict[str, Json]:
        """Effects whose outcome is not known, and what the audit found."""
        return await self.db.read(lambda db: {"doubts": doubts.list_doubts(db), "findings": doubts.list_findings(db)})

    # --- what people are told by themselves

    @seam
    async def note_troubles(self, current: Mapping[str, str]) -> None:
        """Make events of what began to go wrong and of what is well again: name → why, '' if it is well."""
        listed = dict(current)
        await self._change(lambda db, now, changes: troubles.note(db, listed, now))

    async def notices(self, since: int, most: int, upto: int | None = None) -> tuple[list[dict[str, Json]], int]:
        """The events after that id, none after `upto`, of which people are told, and up to which id there is no other one."""
        return await self.db.read(lambda db: troubles.list_notices(db, since, most, upto))

    # --- what is kept of the past

    @seam
    async def archive_runs(self, terms: archive.Terms, place: archive.Place) -> archive.Turn:
        """Go on from that place with packing runs that ended so long ago."""
        return await self._change(lambda db, now, changes: archive.archive_next(db, terms, place, now))

    @seam
    async def prune_events(self, most: int, keep_s: float) -> int:
        """Go on with forgetting old events; returns how many were looked at, 0 if there are no more."""
        return await self._change(lambda db, now, changes: journal.prune_events(db, most, keep_s, now))

    @seam
    async def give_back(self) -> int:
        """Give the file system some of the pages back that are free, if those are many; returns how many."""
        return await self._change(lambda db, now, changes: vacuum.give_back(db))

    # --- copies of itself

    @seam
    async def back_up(self, target: Path, *, replace: bool, uid: int) -> int:
        """Write a checked copy of the database there while it is in use; returns its bytes. StoreError if it cannot be."""
        stop = threading.Event()
        work = partial(backup.back_up, self.db.path, target, replace=replace, stop=stop)
        try:
            size_bytes = await self._threads.run(work, backup.TIMEOUT_REAL_S)
        except TimeoutError as error:
            raise StoreError(str(error)) from error
        finally:
            stop.set()
        data = {"path": str(target), "size_bytes": size_bytes, "uid": uid}
        recorded = self._change(lambda db, now, changes: journal.add_event(db, now, "BackedUp", data=data))
        with suppress(TimeoutError):  # A full disk is a reason to make a backup: its event may come later.
            async with asyncio.timeout(RECORD_REAL_S):
                await recorded
        return size_bytes

    async def check(self) -> list[str]:
        """What is wrong with the database, which goes on being used; StoreError if it cannot be told in time."""
        try:
            return await self._threads.run(partial(verify.check_in_use, self.db.path), CHECK_REAL_S)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self.db.path} could not be checked: {error}") from error

    # --- what people ask for

    async def _ask(self, names: Iterable[str], query: Callable[[sqlite3.Connection], T]) -> T:
        """What is asked of these fields, runs, steps or effects, packed ones too."""
        listed = list(names)
        return await self.db.read(lambda db: unpacked.with_packed(db, listed, query), aside=True)

    async def status(self) -> dict[str, Json]:
        """Counts of everything that moves."""
        return await self.db.read(views.get_status)

    async def figures(self) -> Figures:
        """What metrics are made of."""
        return await self.db.read(lambda db: figures.get_figures(db, self.db.path))

    async def fields(self) -> list[dict[str, Json]]:
        """Every field of the catalogue and how it stands."""
        return await self.db.read(views.list_fields)

    async def chosen(self, choice: Choice) -> list[dict[str, Json]]:
        """The fields that are meant, and what else runs under such a name, and how each stands; AglowError if that is nothing."""
        return await self.db.read(lambda db: views.list_chosen(db, choice))

    async def names(self, begun: str) -> list[str]:
        """Names that begin so, of fields and of what else runs under one."""
        return await self.db.read(lambda db: views.list_names(db, begun))

    async def field(self, name: str) -> dict[str, Json] | None:
        """One field with its runs and steps."""
        return await self._ask([name], lambda db: views.get_field(db, name))

    async def materials(self, name: str) -> tuple[Material, ...]:
        """All of which the record of that run, or of that field's latest run, is made; empty if there is none."""
        return await self._ask([name], lambda db: material.list_materials(db, name))

    async def explain(self, name: str) -> dict[str, Json] | None:
        """Why the field waits."""
        return await self._ask([name], lambda db: views.explain(db, name))

    async def events(
        self,
        since: int = 0,
        field: str = "",
        most: int = 200,
        *,
        until: int = views.LAST,
        kinds: Sequence[str] = (),
    ) -> list[dict[str, Json]]:
        """Events after that id and up to that one, of these kinds; of packed runs only if a field is named."""

        def query(db: sqlite3.Connection) -> list[dict[str, Json]]:
            return views.list_events(db, since, field, most, until, kinds)

        return await (self._ask([field], query) if field else self.db.read(query))

    async def event_before(self, at: float) -> int:
        """The number of the last event up to that time, 0 if there is none."""
        return await self.db.read(lambda db: past.instant_of(db, at).last)

    # --- what people ask about the past, and about what will be

    async def explain_then(self, name: str, at: float) -> dict[str, Json]:
        """Why the field waited then; AglowError if nothing was known of it."""
        return await self._ask([name], lambda db: past.explain_then(db, name, at))

    async def history(self, name: str, since: float, until: float, run: str, most: int) -> dict[str, Json] | None:
        """The field's timeline, of one run if that is named; None if there is no such thing."""
        return await self._ask([name], lambda db: history.list_history(db, name, since, until, run, most))

    async def trace(self, what: str, most: int) -> dict[str, Json] | None:
        """The events of that field, run, step or effect, or around that event, with their causes; None if there are none."""
        return await self._ask([what], lambda db: traces.trace(db, what, most))

    async def diff(self, name: str, since: float, until: float) -> dict[str, Json]:
        """What differs between the two times, of the field or ("") of the survey."""
        if name:
            return await self._ask([name], lambda db: differences.diff_field(db, name, since, until))
        return await self.db.read(lambda db: differences.diff_survey(db, since, until), aside=True)

    async def ahead(self, until: float) -> dict[str, Json]:
        """The timers up to that time, and who waits for a place in a pool."""
        return await self.db.read(lambda db: ahead.list_ahead(db, until))

    async def count_runs_of(self, pipeline: str) -> int:
        """How many runs of that pipeline there were."""
        return await self.db.read(lambda db: views.count_runs_of(db, pipeline))
