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
from aglowd.handlers.stage import OVER, window
from aglowd.model import Do, Done, EffectRecord, EffectState, Failed, Handler, Outcome, Seen, StepView, Subject, Wait
from aglowd.pipeline_file import MAX_PRIORITY

FIRST = MAX_PRIORITY + 1
"""Renewals come before whatever a pipeline may have staged."""
RENEWED = 0.8
"""Pins are renewed when this part of their life is over: the stager may take a while."""
GROUP_FILES = 300
"""Files whose pins one request renews."""
BESIDES_FILES = 1000
"""Of a list that is not longer, a renewal knows the rest: after a restore it may find a request that is for that, too."""
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
        due_at = _renewals_due(params, made)
        due = [surl for surl, at in due_at.items() if at <= seen.now][:GROUP_FILES]
        args = {"site": params.site, "files": len(params.surls), "priority": step.priority, "held": True}
        waits = [*ends, Subject("window", f"{step.key}/held", args)]
        reason = f"{len(params.surls)} files are kept online for {', '.join(params.until)}"
        if due:
            turn = window(step, params.site, len(made), len(due), seen.now, priority=FIRST)
            granted = seen.of(turn) or {"files": 0, "why": "how much may be asked for is not known yet"}
            if granted["files"]:
                return Do.all(_renewal(tuple(due[: granted["files"]]), params, len(made)))
            waits.append(turn)
            reason += f"; {len(due)} pins are to be renewed, and wait for their turn: {granted['why']}"
        return Wait(tuple(waits), reason, min([DAY_S, *(at - seen.now for at in due_at.values() if at > seen.now)]))

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


def _renewals_due(params: Any, made: Sequence[EffectRecord]) -> dict[str, float]:
    """File → when its pin is to be renewed (world seconds); what nobody of us has pinned yet is due since ever."""
    pinned = set(params.surls if params.pinned is None else params.pinned)
    age_s = RENEWED * duration_s(params.lifetime)
    due = {surl: params.since + age_s if surl in pinned else -math.inf for surl in params.surls}
    for record in made:
        at = record.intended_at or 0.0
        surls = (*record.inputs["surls"], *((record.result or {}).get("also", ())))
        if record.result:
            due.update(dict.fromkeys(surls, at + age_s))
        elif record.state is EffectState.REJECTED:
            due.update({surl: max(due[surl], at + REASK_S) for surl in surls if surl in due})
    return {surl: due[surl] for surl in params.surls}


def _renewal(surls: tuple[str, ...], params: Any, ordinal: int) -> StageFiles:
    mine = set(surls)
    rest = tuple(surl for surl in params.surls if surl not in mine) if len(params.surls) <= BESIDES_FILES else ()
    return StageFiles(surls=surls, site=params.site, besides=rest, renews=True, ordinal=ordinal)


def _renewals(seen: Seen) -> list[Request]:
    results = (record.result for record in seen.effects if record.kind == StageFiles.kind)
    return [result["request"] for result in results if result and result["request"] is not None]


def _releases(requests: Sequence[Request], site: str, first: int) -> tuple[ReleaseFiles, ...]:
    return tuple(ReleaseFiles(request=one, site=site, ordinal=at) for at, one in enumerate(requests, start=first))
