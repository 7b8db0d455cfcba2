"""Bring files online at the LTA. A stager's "success" is a hint: where each file is decides."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.grid.stager import FINAL
from aglowd.handlers.base import HOUR_S, failure, is_enough, named
from aglowd.model import Do, Done, Failed, Handler, Outcome, Seen, StepView, Subject, Wait

OVER = FINAL | {"gone"}
"""Statuses in which the stager does no more for a request. `gone`: it has forgotten the request, which says nothing."""

LATE_S = HOUR_S
"""The stager may show a request late; one is `gone` only if it was looked for so long after it was asked for."""


def staging(request: int) -> Subject:
    """A request at the LTA stager."""
    return Subject("staging", str(request))


def staging_again(request: int) -> Subject:
    """The same request, looked at anew: what was not there at first tells nothing later, and no change is no news."""
    return Subject("staging", f"{request}/again", {"request": request})


def locality(surls: tuple[str, ...], occasion: str) -> Subject:
    """Which of the files are online. Each occasion is a subject of its own, so that its answer is never an old one."""
    return Subject("locality", occasion, {"surls": list(surls)})


class Stage(Handler):
    """Bring a list of SURLs online and wait until enough of them are; only those that are not online are asked for.

    Outputs: `surls` (those that are online), `missing`, `requests` (to be released when the files have been used).
    """

    kind = "stage"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        surls: tuple[str, ...]
        threshold: float = 0.95
        requests: int = 3

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        asked = seen.count(StageFiles)
        if asked:
            waiting = self._follow(seen, asked)
            if waiting is not None:
                return waiting
        look = locality(params.surls, f"{step.key}/{asked}")
        found = seen.of(look)
        if found is None:
            return Wait((look,), f"looking which of {len(params.surls)} files are online", HOUR_S)
        missing: list[str] = found["missing"]
        online = len(params.surls) - len(missing)
        here = [surl for surl in params.surls if surl not in set(missing)]
        if is_enough(online, len(params.surls), params.threshold):
            return Done({"requests": self._requests(seen), "surls": here, "online": online, "missing": missing})
        if asked >= params.requests:
            names = named([surl.rpartition("/")[2] for surl in missing])
            return Failed(
                f"after {asked} requests only {online} of {len(params.surls)} files are online; missing: {names}"
            )
        return Do.all(StageFiles(surls=tuple(missing), besides=tuple(here), ordinal=asked))

    def _follow(self, seen: Seen, asked: int) -> Wait | None:
        """Wait for the latest request, unless it is over."""
        request = seen.result(StageFiles, asked - 1)["request"]
        if request is None:
            return None
        again = staging_again(request)
        subject = staging(request) if seen.of(again) is None else again
        looked = seen.observations.get(subject.key)
        if looked is None:
            return Wait((subject,), f"LTA request {request}: just made", 6 * HOUR_S)
        progress = looked.data
        made = seen.effect(StageFiles, asked - 1).intended_at or 0.0  # type: ignore[union-attr] # its result was there
        if progress["status"] == "gone" and subject != again and looked.at < made + LATE_S:
            if seen.now < made + LATE_S:
                reason = f"LTA request {request}: just made, and not shown yet"
                return Wait((subject,), reason, made + LATE_S - seen.now)
            return Wait((again,), f"LTA request {request}: not shown so far, looking once more", HOUR_S)
        if progress["status"] in OVER:
            return None
        if progress["status"] == "on hold":
            return Wait((subject,), f"LTA request {request} is on hold: the site is in maintenance", 24 * HOUR_S)
        reason = f"LTA request {request}, {progress['status']}: {progress['done']} of {progress['total']} files online"
        return Wait((subject,), reason, 6 * HOUR_S)

    def _requests(self, seen: Seen) -> list[int]:
        results = (seen.result(StageFiles, number) for number in range(seen.count(StageFiles)))
        return [result["request"] for result in results if result and result["request"] is not None]

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """A request that nobody waits for any more is aborted, so that a new attempt asks for nothing twice."""
        requests = self._requests(seen)
        if not requests or seen.count(ReleaseFiles):
            return None
        return Do(tuple(ReleaseFiles(request=request, ordinal=number) for number, request in enumerate(requests)))


class Release(Handler):
    """Give staged files back: their pins are released at the LTA."""

    kind = "release"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        requests: tuple[int, ...]

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen)
        if failed is not None:
            return failed
        if seen.effects or not params.requests:
            return Done({"released": len(params.requests)})
        return Do(
            tuple(ReleaseFiles(request=request, ordinal=number) for number, request in enumerate(params.requests))
        )
