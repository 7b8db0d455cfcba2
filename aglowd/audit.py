"""Compares what the world lists as ours with the journal, and reports strangers and duplicates (G4).

An effect whose answer was lost is done again when the world shows nothing of it for a settling time. Should the first
one come to light after that, nobody would ever look for it: the audit does. What must stay true: only a duplicate of an
effect that was itself tried again is cancelled; everything else is somebody's until a person says otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from zlib import crc32

import structlog

from aglowd.effects.base import World, served
from aglowd.effects.jobs import CancelJobs, SubmitJobs, jobs_of
from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.errors import OutsideError, Permanent
from aglowd.model import Json
from aglowd.store.doubts import Finding
from aglowd.store.journal import REPEATED
from aglowd.store.rows import LiveEffect
from aglowd.store.store import Store

HORIZON_S = 60 * 86_400.0
"""World seconds back to which the journal is compared: the stagers and the bookkeeping forget sooner."""
STEP_REAL_S = 30.0
"""Real seconds after which a resting audit shows that it is alive."""
MAX_FINDINGS = 500
"""Findings recorded in one round for one system: a world full of strangers does not fill the database."""


class Audit:
    """A round over all systems every `poll_s` world seconds; a system that does not answer waits for the next one."""

    def __init__(self, store: Store, world: World, poll_s: float) -> None:
        self._store = store
        self._world = world
        self.poll_s = poll_s
        self._clock = world.clock
        self._log = structlog.get_logger("audit")
        self.progress_at = self._clock.now()

    async def run(self) -> None:
        """Audit for ever, the first time one interval after the start: by then what was in flight is settled."""
        at = self._clock.now() + self.poll_s
        while True:
            self.progress_at = self._clock.now()
            at = min(at, self.progress_at + self.poll_s)  # The interval may be shorter by now.
            rest_s = self._clock.real_s(at - self.progress_at)
            if rest_s > 0:
                await asyncio.sleep(min(rest_s, STEP_REAL_S))
                continue
            await self.look()
            at = self._clock.now() + self.poll_s

    async def look(self) -> None:
        """One round."""
        rounds: dict[str, Callable[[], Awaitable[list[Finding]]]] = {
            **{f"staging:{_name(sites)}/": partial(self.list_requests, sites) for sites in served(self._world.stagers)},
            **{_tokens(sites[0]): partial(self.list_tokens, sites[0]) for sites in served(self._world.token_bases)},
            **{f"job:{sites[0]}/": partial(self.list_jobs, sites) for sites in served(self._world.batches)},
        }
        for prefix, list_findings in rounds.items():
            try:
                findings = await list_findings()
            except OutsideError as error:
                self._log.warning("audit_failed", of=prefix, error=str(error))
                continue
            except Exception:  # A defect here, or an answer that nobody thought of, is no reason to stop the daemon.
                self._log.exception("audit_raised", of=prefix)
                continue
            findings.sort(key=lambda finding: finding.kind != "duplicate")  # What matters most is never cut off.
            for finding in await self._store.record_findings(prefix, findings[:MAX_FINDINGS]):
                about = {"key": finding.key, "what": finding.what, "effect": finding.effect}
                if finding.kind == "duplicate":
                    self._log.warning("duplicate_found", **about)
                else:
                    self._log.warning("stranger_found", **about)

    async def list_requests(self, sites: Sequence[str]) -> list[Finding]:
        """Requests at these sites' stager that the journal does not know, once one shows a file that tells whose it is."""
        stager, name = self._world.stager(sites[0]), _name(sites)
        effects = [
            effect for effect in await self._journal(StageFiles.kind) if effect.record.inputs.get("site", "") in sites
        ]
        if not effects and not any(sites):
            return []  # No site has this stager now, and none had while the journal looks back.
        progress = await stager.progress()
        known = {effect.record.result["request"] for effect in effects if effect.record.result}
        found = []
        for request in sorted(set(progress) - known, key=str):
            files = await stager.requested(request)
            staged = set(await stager.staged(request) if files is None else files)
            if not staged:
                continue
            seen = progress[request]
            text = f"staging request {request} at {name} ({seen.status}, {seen.files_done} of {seen.file_count} files)"
            key = f"staging:{name}/{request}"
            of = [effect for effect in effects if _may_be_of(effect, staged, seen.file_count or 0)]
            if any(not effect.record.state.is_ended for effect in of):
                continue  # Its outcome is not known yet: the engine is looking for it.
            if not of:
                found.append(Finding(key, "stranger", f"{text} is not in the journal and is not for files of one step"))
                continue
            repeated = [
                effect for effect in of if _is_repeated(effect) and request not in (effect.record.evidence or ())
            ]
            if not seen.file_count:
                repeated = []  # A request that does not tell its size may be a larger one of somebody else.
            first = repeated[-1] if repeated else of[-1]
            remedy = (
                ReleaseFiles(request=request, site=sites[-1], ordinal=crc32(str(request).encode()))
                if repeated
                else None
            )
            what = f"{text} holds the same files as the request that {first.record.key} made"
            found.append(Finding(key, "duplicate", what, first.record.key, remedy=remedy))
        return found

    async def list_tokens(self, site: str = "") -> list[Finding]:
        """Tokens in that site's database that carry a key that the journal does not know: of another aglowd, or of a journal that was lost."""
        try:
            owners = await self._world.token_base(site).count_owners()
        except Permanent as error:
            if error.absent:
                return []  # No token was ever made there.
            raise
        found = []
        for key, count in sorted(owners.items()):
            if await self._store.effect(key) is None:
                what = f"{count} tokens carry the key {key}, which is not in the journal"
                found.append(Finding(f"{_tokens(site)}{key}", "stranger", what))
        return found

    async def list_jobs(self, sites: Sequence[str]) -> list[Finding]:
        """Jobs at these sites' batch system that run under our credential and that the journal does not know.

        Those that were registered and never started ran nothing.
        """
        batch = self._world.batch(sites[0])
        effects = [
            effect for effect in await self._journal(SubmitJobs.kind) if effect.record.inputs.get("site", "") in sites
        ]
        if not effects and not any(sites):
            return []  # No site has this system now, and none had while the journal looks back.
        jobs = await batch.list_ours()
        live = [effect for effect in effects if not effect.record.state.is_ended]
        known: set[Json] = {job for effect in effects if effect.record.result for job in jobs_of(effect.record.result)}
        known |= {job for effect in live for job in _noted(effect)}
        unknown = {
            job: status
            for job, status in jobs.items()
            if job not in known and not (batch.registers and status.state == "submitted") and not status.is_final
        }
        of: dict[str, LiveEffect] = {}
        if unknown:
            for effect in effects:
                ours = jobs_of(effect.record.result) if effect.record.result else []
                if _is_repeated(effect) or _noted(effect) - {*ours} or effect in live:
                    of |= dict.fromkeys(await batch.find(effect.record.key), effect)
        found = []
        for job, status in sorted(unknown.items()):
            key, twin = f"job:{sites[0]}/{job}", of.get(job)
            if twin is None:
                what = f"{job} ({status.words}) is not in the journal and does not carry a key of ours"
                found.append(Finding(key, "stranger", what))
            elif twin.record.state.is_ended:
                what = f"{job} ({status.words}) carries the key {twin.record.key}, whose job is another or was given up"
                remedy = (
                    CancelJobs(job=job, site=sites[-1], ordinal=crc32(job.encode())) if _is_repeated(twin) else None
                )
                found.append(Finding(key, "duplicate", what, twin.record.key, remedy=remedy))
        return found

    async def _journal(self, kind: str) -> list[LiveEffect]:
        return await self._store.effects_of(kind, self._clock.now() - HORIZON_S)


def _name(sites: Sequence[str]) -> str:
    """What a stager is called that serves these sites: `lta` is the legacy one."""
    return sites[0] or "lta"


def _tokens(site: str) -> str:
    """How findings in that site's token database begin."""
    return f"tokens@{site}:" if site else "tokens:"


def _may_be_of(effect: LiveEffect, staged: set[str], size: int) -> bool:
    """Whether a request of that size, of which these files are online, may be for the effect's files and no others."""
    surls = set(effect.record.inputs["surls"])
    return staged <= surls and size <= len(surls)


def _noted(effect: LiveEffect) -> set[str]:
    """The jobs that its batch system knew before they were let run: one for all, or several with blanks between them."""
    return set(str(effect.record.notes.get("job") or "").split())


def _is_repeated(effect: LiveEffect) -> bool:
    """Whether it was done again though its first time may yet come to light; a refused try is none."""
    return REPEATED in effect.record.notes
