"""Carries effects out: intent → do → outcome, and after a crash find → outcome. docs/design.md (a) is this file.

What must stay true: `do` is called only on an effect whose intent is committed; an effect whose outcome is not known
is looked for before anything is done again; only this file catches Unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping

import msgspec
import structlog

from aglowd.clock import Clock, restart_after_s
from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError, Conflict, Permanent, StaleVersion, Temporary, Unknown
from aglowd.log import hide_secrets
from aglowd.model import EffectRecord, EffectState, Json
from aglowd.store.doubts import Word
from aglowd.store.journal import REPEATED
from aglowd.store.rows import LiveEffect
from aglowd.store.store import Store

BACKOFF_S = 15.0
"""World seconds before the second try; doubled with each further one."""
BACKOFF_MOST_S = 900.0
LOOK_REAL_S = 30.0
"""Real seconds after which the journal is looked at even if no bell rang; it also shows that the loop is alive."""
LOOKS_BEFORE_DOUBT = 8
"""Looks that could not tell, or defects, before the effect is called doubtful."""
DEFECTS = "defects"
"""The note of how often carrying the effect out raised what nobody thought of."""
DOUBT_LOOK_S = 3600.0
"""World seconds between two looks at a doubtful effect: what comes to light late is still found."""


class Engine:
    """Effects as bounded tasks of their own: a long copy blocks neither a cancel nor the branch beside it."""

    def __init__(
        self, store: Store, world: World, deeds: Mapping[str, type[Deed]], clock: Clock, most: int = 32
    ) -> None:
        self._store = store
        self._world = world
        self._deeds = deeds
        self._clock = clock
        self.most = most
        self._log = structlog.get_logger("effects")
        self.busy: dict[str, str] = {}
        self._untold: set[str] = set()
        self._settled: set[str] = set()
        """Keys of those under way that have ended."""
        self._has_more = False
        """Whether there may be more to take up than there was room for at the last look."""
        self.defect = ""
        """What it stumbled over last when it looked for work."""
        self._draining = False
        self._idle = asyncio.Event()
        self.progress_at = clock.now()

    async def run(self) -> None:
        """Take up effects whose time has come, for ever; cancelling leaves an honest journal."""
        async with asyncio.TaskGroup() as group:
            bell = self._store.bells.effects
            while True:
                self.progress_at = self._clock.now()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_REAL_S):
                        await bell.wait()
                bell.clear()
                room = self.most - len(self.busy)
                self._has_more = room <= 0
                if room > 0 and not self._draining:
                    found = await self._next(room)
                    self._has_more = len(found) == room
                    for live in found:
                        self.busy[live.record.key] = live.record.kind
                        group.create_task(self._carry(live), name=f"effect {live.record.key}")
                    if self._has_more and len(self.busy) < self.most:  # One has ended while the journal was looked at.
                        bell.set()

    async def _next(self, room: int) -> list[LiveEffect]:
        """What to take up next; nothing, for a while, if the journal cannot be read: what is under way goes on."""
        try:
            found = await self._store.next_effects((*self.busy, *self._untold), room)
        except Exception as error:
            self.defect = f"{type(error).__name__}: {error}"
            self._log.exception("journal_unreadable")
            await asyncio.sleep(restart_after_s(1))
            self._store.bells.effects.set()
            return []
        self.defect = ""
        return found

    async def is_idle(self) -> bool:
        """Whether nothing is under way, and nothing is to be taken up now."""
        return not self.busy and not await self._store.next_effects(tuple(self._untold), 1)

    async def drain(self) -> None:
        """Take up nothing more, and return when what is under way has ended."""
        self._draining = True
        while self.busy:
            self._idle.clear()
            await self._idle.wait()

    async def settle(self, key: str, action: str, ref: str, word: Word) -> str:
        """An operator's word on a doubtful effect, or on a finding of the audit; returns what that means.

        `action` is adopt, retry or forget. AglowError if the word makes no sense or comes at the wrong moment.
        """
        live = await self._store.effect(key)
        if live is None:
            if action == "forget" and await self._store.dismiss(key, word):
                return "dismissed; the event log keeps it"
            raise AglowError(f"there is no effect {key!r} in doubt; aglowctl doubt lists them")
        if key in self.busy:
            raise AglowError(f"aglowd is looking for {key} at this moment; ask again when it has ended")
        if action == "adopt":
            result = msgspec.convert(live.record.inputs, self._deeds[live.record.kind]).adopted(ref)
            await self._store.adopt(live, result, word)
            return f"done, as {ref}"
        if action == "retry":
            await self._store.retry(live, word)
            return "done again, under the same key"
        await self._store.forget(live, word)
        return "given up; its step goes on as if it had been refused"

    async def _carry(self, live: LiveEffect) -> None:
        log = self._log.bind(field=live.field, run=live.run, step=live.step, effect=live.record.key)
        try:
            await self.perform(live)
        except StaleVersion:
            log.info("effect_settled_meanwhile")  # An operator settled it: what we found out comes too late.
        except Exception as error:  # A defect of one effect stops nothing else; what it did is unknown.
            log.exception("effect_raised")
            reason = hide_secrets(f"{live.record.kind} raised {type(error).__name__}: {error}")
            try:
                defects = live.record.notes.get(DEFECTS, 0) + 1
                await self._store.note(live, {DEFECTS: defects})
                doubt = defects >= LOOKS_BEFORE_DOUBT
                state, after_s = (EffectState.DOUBT, DOUBT_LOOK_S) if doubt else (EffectState.UNKNOWN, BACKOFF_MOST_S)
                await self._store.put_off(live, state, reason, after_s)
            except Exception:
                # The journal still says that it is open. This process must not do it again; the next one looks first.
                self._untold.add(live.record.key)
                log.exception("effect_not_put_off")
        finally:
            del self.busy[live.record.key]
            if not self.busy:
                self._idle.set()
            # What waits for a time rings by itself; what has not ended may have become due in the meantime.
            if self._has_more or live.record.key not in self._settled:
                self._store.bells.effects.set()
            self._settled.discard(live.record.key)

    async def perform(self, live: LiveEffect) -> None:
        """Bring one effect one stretch further: to its end, or to a reason and a time to go on."""
        record = live.record
        deed = msgspec.convert(record.inputs, self._deeds[record.kind])
        if live.withdrawn:
            await self._settle(live, EffectState.REJECTED, None, "withdrawn before it was done")
        elif record.state in (EffectState.UNKNOWN, EffectState.DOUBT):
            await self._find(live, deed)
        elif record.state is EffectState.PLANNED:
            await self._look_and_do(live, deed)
        else:
            await self._do(live, deed)

    async def _settle(self, live: LiveEffect, state: EffectState, result: Json, reason: str = "") -> None:
        await self._store.settle(live, state, result, reason)
        self._settled.add(live.record.key)

    async def _look_and_do(self, live: LiveEffect, deed: Deed) -> None:
        try:
            evidence = await self._evidence(deed)
        except (Temporary, Permanent, Unknown) as error:
            await self._wait_for_world(live, EffectState.PLANNED, error)
            return
        await self._intend_and_do(live, deed, evidence)

    async def _evidence(self, deed: Deed) -> Json:
        return await deed.look_before(self._world) if deed.needs_evidence else None

    async def _intend_and_do(self, live: LiveEffect, deed: Deed, evidence: Json) -> None:
        await self._store.intend(live, evidence)
        now = self._clock.now()
        again = live.record.state in (EffectState.UNKNOWN, EffectState.DOUBT)
        notes = {**live.record.notes, REPEATED: True} if again else live.record.notes
        record = msgspec.structs.replace(live.record, evidence=evidence, intended_at=now, absent_at=None, notes=notes)
        await self._do(msgspec.structs.replace(live, record=record), deed)

    async def _do(self, live: LiveEffect, deed: Deed) -> None:
        try:
            result = await deed.do(self._world, self._intent(live))
        except Temporary as error:
            await self._wait_for_world(live, EffectState.PLANNED, error)
        except Permanent as error:
            await self._settle(live, EffectState.REJECTED, None, str(error))
        except Unknown as error:
            reason = f"outcome unknown: {error}"
            await self._store.put_off(live, EffectState.UNKNOWN, reason, self._backoff_s(live.record))
        else:
            await self._settle(live, EffectState.DONE, result)

    async def _find(self, live: LiveEffect, deed: Deed) -> None:
        record, now = live.record, self._clock.now()
        settle_s = deed.settling_s(self._world)
        absent_s = 0.0 if record.absent_at is None else now - record.absent_at
        decides = settle_s <= 0 or (record.absent_at is not None and absent_s >= settle_s)
        try:
            # What it would be told from when it is done again is looked at first: what shows after that is still found,
            # now or by the audit.
            evidence = await self._evidence(deed) if decides else None
            found = await deed.find(self._world, self._intent(live))
        except Temporary as error:
            await self._wait_for_world(live, EffectState.UNKNOWN, error)
            return
        except Conflict as error:
            await self._settle(live, EffectState.REJECTED, None, str(error))
            return
        except (Permanent, Unknown) as error:  # A look that was refused says nothing of what was done.
            doubt = record.looks + 1 >= LOOKS_BEFORE_DOUBT
            state = EffectState.DOUBT if doubt else EffectState.UNKNOWN
            reason = f"{'in doubt, aglowd keeps looking' if doubt else 'outcome unknown'}: {error}"
            after_s = DOUBT_LOOK_S if doubt else self._backoff_s(record)
            await self._store.put_off(live, state, reason, after_s, tried=False, looked=True)
            return
        if found is not None:
            await self._settle(live, EffectState.DONE, found, "found after its outcome was unknown")
        elif decides:
            await self._intend_and_do(live, deed, evidence)
        else:
            reason = "outcome unknown: not there at the first look; a second one follows before it is tried again"
            await self._store.put_off(
                live, EffectState.UNKNOWN, reason, settle_s - absent_s, tried=False, absent_at=now - absent_s
            )

    async def _wait_for_world(self, live: LiveEffect, state: EffectState, error: Exception) -> None:
        """It did not happen: again later. A site that says when is believed, and that counts as nobody's try."""
        after_s = getattr(error, "retry_after_s", None)
        seconds = self._backoff_s(live.record) if after_s is None else after_s
        reason = f"{live.record.kind} is tried again: {error}"
        await self._store.put_off(live, state, reason, seconds, tried=after_s is None, absent_at=live.record.absent_at)

    def _backoff_s(self, record: EffectRecord) -> float:
        times = max(record.tries, record.looks)
        return float(min(BACKOFF_S * 2 ** min(times, 10), BACKOFF_MOST_S) * self._clock.jitter())

    def _intent(self, live: LiveEffect) -> Intent:
        record = live.record

        async def note(notes: Mapping[str, Json]) -> None:
            await self._store.note(live, dict(notes))

        async def others() -> list[EffectRecord]:
            found = await self._store.effects_of(record.kind)
            return [other.record for other in found if other.record.key != record.key]

        since = record.intended_at if record.intended_at is not None else self._clock.now()
        return Intent(record.key, since, record.tries, record.evidence, dict(record.notes), note, others)
