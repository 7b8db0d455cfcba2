"""The store's verbs, each one transaction, and the bells that ring after its commit.

Whoever waits for work waits on a bell: a verb that made something dirty rings `dirty`, and so on. A bell only saves
time; all that it announces stands in the database, and a daemon that starts looks there first.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import StoreError
from aglowd.model import EffectState, FieldView, Json, Subject
from aglowd.store import backup, doubts, facts, journal, runs, stagings, views
from aglowd.store.db import Database, queries
from aglowd.store.doubts import Finding, Word
from aglowd.store.rows import Changes, LiveEffect, Work, dumps, loads
from aglowd.store.runs import Decision, Graph, OutputsOf
from aglowd.store.stagings import Wanted
from aglowd.threads import Threads

T = TypeVar("T")

REASK_S = 3600.0
"""World seconds after which a step that was due is due again, should its decision get lost with the process."""
RECORD_REAL_S = 5.0
"""Real seconds for which the answer to an operator waits for its event."""


class Bells:
    """What may have changed since one last looked."""

    def __init__(self) -> None:
        self.dirty = asyncio.Event()
        self.effects = asyncio.Event()
        self.timers = asyncio.Event()
        self.fields = asyncio.Event()
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
        for name in ("dirty", "effects", "timers", "fields"):
            if getattr(changes, name):
                getattr(self, name).set()
        for kind in changes.subjects:
            self.subject(kind).set()
        self.events.set()


class Store:
    """All that aglowd remembers. `outputs_of` makes a run's outputs from those of its steps; it must be pure."""

    def __init__(self, path: Path, clock: Clock, outputs_of: OutputsOf = lambda run, graph, outputs: {}) -> None:
        self.db = Database(path)
        self.clock = clock
        self.bells = Bells()
        self._outputs_of = outputs_of
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
        self.bells.ring(Changes(dirty=True, effects=True, timers=True, fields=True))

    async def close(self) -> None:
        """Write what is queued and close."""
        await self.db.close()

    async def _change(self, transaction: Callable[[sqlite3.Connection, float, Changes], T]) -> T:
        changes = Changes()
        result: T = await self.db.write(lambda db: transaction(db, self.clock.now(), changes))
        self.bells.ring(changes)
        return result

    # --- facts

    @seam
    async def ingest(self, source: str, cursor: str | None, observations: Iterable[tuple[Subject, Json]]) -> int:
        """Record observations and the cursor behind them; returns how many said something new."""
        listed = list(observations)
        return await self._change(lambda db, now, changes: facts.ingest(db, source, cursor, listed, now, changes))

    @seam
    async def put_fields(self, fields: Iterable[tuple[FieldView, str]]) -> int:
        """Record what the catalogue says of its fields, each with its problem or ''; returns how many changed."""
        listed = list(fields)
        return await self._change(lambda db, now, changes: facts.put_fields(db, listed, now, changes))

    async def watched(self, kind: str) -> list[tuple[Subject, int]]:
        """The subjects of that kind that steps wait for, with the version of their latest observation."""
        return await self.db.read(lambda db: facts.list_watched(db, kind))

    async def observed(self, kind: str) -> list[tuple[Subject, Json]]:
        """The subjects of that kind that steps wait for, with what was last observed of each; None before the first look."""
        return await self.db.read(lambda db: facts.list_observed(db, kind))

    async def cursor(self, source: str) -> str | None:
        """Where that source was left, or None."""

        def query(db: sqlite3.Connection) -> str | None:
            row = db.execute(queries()["get_cursor"], {"source": source}).fetchone()
            return None if row is None else str(row["value"])

        return await self.db.read(query)

    # --- runs and steps

    @seam
    async def admit(self, graph: Graph, select: Iterable[str], most: int) -> int:
        """Start runs for fields on offer, at most `most` at once; a row with a problem ends as failed. Returns how many."""
        wanted = dumps(list(select))

        def transaction(db: sqlite3.Connection, now: float, changes: Changes) -> int:
            (running,) = db.execute(queries()["fields_running"]).fetchone()
            started = 0
            for row in db.execute(queries()["fields_on_offer"], {"select": wanted}).fetchall():
                name = row["name"]
                if row["problem"]:
                    db.execute(queries()["field_seen"], {"name": name})
                    journal.add_event(db, now, "FieldRefused", field=name, data={"reason": row["problem"]})
                    continue
                if running + started >= most:
                    break
                context = {"name": name, "status": row["status"], **loads(row["data"])}
                run = runs.start(db, graph, key=name, field=name, params={}, context=context, now=now, changes=changes)
                db.execute(queries()["take_field"], {"name": name, "run": run, "taken": row["version"]})
                started += 1
            return started

        return await self._change(transaction)

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

    async def stagings(self, name: str = "") -> list[dict[str, Json]]:
        """The stagings of that name, or all, the latest first."""
        return await self.db.read(lambda db: stagings.list_stagings(db, name))

    async def pipeline(self, digest: str) -> bytes:
        """The stored definition of a pipeline."""

        def query(db: sqlite3.Connection) -> bytes:
            return str(db.execute(queries()["get_pipeline"], {"digest": digest}).fetchone()["definition"]).encode()

        return await self.db.read(query)

    async def next_dirty(self, most: int = 64) -> list[Work]:
        """The steps to decide next, at most one a run, by priority and age."""
        return await self.db.read(lambda db: runs.list_dirty(db, most))

    @seam
    async def finish(self, decision: Decision) -> None:
        """Commit a decision; StaleVersion if the step changed in between."""
        await self._change(lambda db, now, changes: runs.finish(db, decision, self._outputs_of, now, changes))

    @seam
    async def add_fault(self, decision: Decision, error: str, retry_s: float) -> None:
        """Record that deciding raised; the third time the attempt fails for good."""
        await self._change(
            lambda db, now, changes: runs.add_fault(db, decision, error, retry_s, self._outputs_of, now, changes)
        )

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
            journal.prune_events(db)
            (at,) = db.execute(queries()["next_timer"], {"now": now}).fetchone()
            return None if at is None else float(at)

        return await self._change(transaction)

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

    @seam
    async def retry(self, live: LiveEffect, word: Word) -> None:
        """On the operator's word it did not happen, and is done again; AglowError if nothing is in doubt."""
        await self._change(lambda db, now, changes: doubts.retry(db, live, word, now, changes))

    @seam
    async def forget(self, live: LiveEffect, word: Word) -> None:
        """On the operator's word it is given up, as if it had been refused; AglowError if nothing is in doubt."""
        await self._change(lambda db, now, changes: doubts.forget(db, live, word, now, changes))

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

    # --- what people ask for

    async def status(self) -> dict[str, Json]:
        """Counts of everything that moves."""
        return await self.db.read(views.get_status)

    async def fields(self) -> list[dict[str, Json]]:
        """Every field and how it stands."""
        return await self.db.read(views.list_fields)

    async def field(self, name: str) -> dict[str, Json] | None:
        """One field with its runs and steps."""
        return await self.db.read(lambda db: views.get_field(db, name))

    async def explain(self, name: str) -> dict[str, Json] | None:
        """Why the field waits."""
        return await self.db.read(lambda db: views.explain(db, name))

    async def events(self, since: int = 0, field: str = "", most: int = 200) -> list[dict[str, Json]]:
        """Events after that id."""
        return await self.db.read(lambda db: views.list_events(db, since, field, most))

    async def count_runs_of(self, pipeline: str) -> int:
        """How many runs of that pipeline there were."""
        return await self.db.read(lambda db: views.count_runs_of(db, pipeline))
