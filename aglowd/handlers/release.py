"""Keep staged files online while they are needed, and give them back: pins run out, and nobody else gives them back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from aglowd.durations import duration_s
from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.grid.stager import Request
from aglowd.handlers.base import named
from aglowd.handlers.stage import OVER
from aglowd.model import Do, Done, EffectRecord, EffectState, Failed, Handler, Outcome, Seen, StepView, Subject, Wait

RENEWED = 0.8
"""Pins are renewed when this part of their life is over: the stager may take a while."""
GROUP_FILES = 300
"""Files whose pins one request renews."""
BESIDES_FILES = 1000
"""Of a list that is not longer, a first pin knows the rest: after a restore it may find a request that is for that, too."""
RENEWALS_AT_ONCE = 5
"""Renewals that are asked for together; the others follow when these have been answered."""
ROUNDS = 3
"""A request that goes on after it was given back, or whose release was refused, is given back so often."""
DAY_S = 86_400.0
REASK_S = 3600.0
"""A renewal that was refused is asked for again after so long."""


def step_end(run: str, name: str) -> Subject:
    """The end of another step of the run, however it ended: it is observed once."""
    return Subject("step", f"{run}/{name}")


class Release(Handler):
    """Give staged files back when the steps `until` have ended, however; until then their pins are renewed.

    `since` is when the files were asked for and `lifetime` how long the site pins them. Of `surls`, those that are not
    `pinned` were online by themselves, or for somebody else: they are pinned at once. Outputs: `released`, the number of
    requests given back, and `left`: request → why it goes on in spite of that.

    What is verified differs. At a dCache the release itself says of each file that nothing of it is pinned any more, or
    names it and fails. At the LTA's stagers the request is looked at: that it is over, which says nothing of its pins.
    """

    kind = "release"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        requests: tuple[Request, ...]
        site: str = ""
        surls: tuple[str, ...] = ()
        pinned: tuple[str, ...] | None = None
        since: float = 0.0
        until: tuple[str, ...] = ()
        lifetime: str = "7d"

        def __post_init__(self) -> None:
            duration_s(self.lifetime)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        ends = [step_end(step.run, name) for name in params.until]
        states = [(seen.of(end) or {"state": ""})["state"] for end in ends]
        if "absent" in states:
            wrong = [name for name, state in zip(params.until, states, strict=True) if state == "absent"]
            return Failed(f"the pipeline has no step {named(wrong)}, which `until` names", final=True)
        if all(states):
            return self._give_back(step, params, seen)
        made = [record for record in seen.effects if record.kind == StageFiles.kind]
        groups = _groups(params)
        dues = [_renewal_s(group, made, params, seen.now) for group in groups]
        due = [group for group, due_s in zip(groups, dues, strict=True) if due_s <= 0][:RENEWALS_AT_ONCE]
        if due:
            chunks = enumerate(due, start=len(made))
            return Do(tuple(_renewal(group, params, at) for at, group in chunks))
        args = {"site": params.site, "files": len(params.surls), "priority": step.priority, "held": True}
        held = Subject("window", f"{step.key}/held", args)
        reason = f"{len(params.surls)} files are kept online for {', '.join(params.until)}"
        return Wait((*ends, held), reason, min([DAY_S, *dues]))

    def _give_back(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        """Release every request, and look whether it is over; what goes on, or was refused, is released again."""
        requests = [*params.requests, *_renewals(seen)]
        given = seen.count(ReleaseFiles)
        if given < len(requests):
            return Do(_releases(requests, params.site, 0))
        rounds, checks = given // max(1, len(requests)), []
        left: dict[str, str] = {}
        for place, request in enumerate(requests):
            record = seen.effect(ReleaseFiles, given - len(requests) + place)
            if record is None or record.result is None:
                left[str(request)] = "" if record is None else record.reason
            elif record.result["released"]:  # Else the stager does not know it any more.
                args = {"site": params.site, "request": request}
                checks.append(Subject("staging", f"{params.site}/{request}/released {rounds}", args))
                status = (seen.of(checks[-1]) or {"status": ""})["status"]
                if status not in OVER:
                    left[str(request)] = status
        if any(seen.of(check) is None for check in checks):
            return Wait(tuple(checks), f"looking whether {len(checks)} requests are over", DAY_S)
        if left and rounds < ROUNDS:
            asked = max(record.intended_at or 0.0 for record in seen.effects if record.kind == ReleaseFiles.kind)
            if asked + REASK_S > seen.now:
                reason = (
                    f"{len(left)} requests go on: {'; '.join(f'{one}: {why}' for one, why in list(left.items())[:3])}"
                )
                return Wait((), reason, asked + REASK_S - seen.now)
            return Do(_releases(requests, params.site, given))
        return Done({"released": len(requests) - len(left), "left": left})

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """Nobody keeps the files any more: they are given back."""
        requests = [*params.requests, *_renewals(seen)]
        return Do(_releases(requests, params.site, 0)) if seen.count(ReleaseFiles) < len(requests) else None


def _groups(params: Any) -> list[tuple[str, ...]]:
    """The files in groups of one renewal each; those that nobody of us has pinned yet are by themselves."""
    pinned = set(params.surls if params.pinned is None else params.pinned)
    groups = []
    for files in ([s for s in params.surls if s in pinned], [s for s in params.surls if s not in pinned]):
        groups += [tuple(files[at : at + GROUP_FILES]) for at in range(0, len(files), GROUP_FILES)]
    return groups


def _is_pinned(group: tuple[str, ...], params: Any) -> bool:
    return params.pinned is None or group[0] in params.pinned


def _renewal(group: tuple[str, ...], params: Any, ordinal: int) -> StageFiles:
    mine = set(group)
    is_told = not _is_pinned(group, params) and len(params.surls) <= BESIDES_FILES
    rest = tuple(surl for surl in params.surls if surl not in mine) if is_told else ()
    return StageFiles(surls=group, site=params.site, besides=rest, renews=True, ordinal=ordinal)


def _renewal_s(group: tuple[str, ...], made: Sequence[EffectRecord], params: Any, now: float) -> float:
    """World seconds until the pins of these files are to be renewed: the files of another group may have been refused."""
    mine = [record for record in made if tuple(record.inputs["surls"]) == group]
    pinned_at = params.since if _is_pinned(group, params) else -math.inf
    begun = max((record.intended_at or 0.0 for record in mine if record.result), default=pinned_at)
    refused = [record.intended_at or now for record in mine if record.state is EffectState.REJECTED]
    return max([begun + RENEWED * duration_s(params.lifetime), *(at + REASK_S for at in refused)]) - now


def _renewals(seen: Seen) -> list[Request]:
    results = (record.result for record in seen.effects if record.kind == StageFiles.kind)
    return [result["request"] for result in results if result and result["request"] is not None]


def _releases(requests: Sequence[Request], site: str, first: int) -> tuple[ReleaseFiles, ...]:
    return tuple(ReleaseFiles(request=one, site=site, ordinal=at) for at, one in enumerate(requests, start=first))
