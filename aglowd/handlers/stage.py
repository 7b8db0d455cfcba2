"""Bring files online. A stager's "success" is a hint: where each file is decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, structs

from aglowd.durations import duration_s, duration_text
from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.grid.stager import FINAL, Request
from aglowd.grid.surl import parse_surl, site_of
from aglowd.handlers.base import HOUR_S, failure, is_enough, named
from aglowd.handlers.missing import Missing, not_enough
from aglowd.model import Do, Done, EffectRecord, Failed, Handler, Outcome, Seen, StepView, Subject, Wait

OVER = FINAL | {"gone"}
"""Statuses in which the stager does no more for a request. `gone`: it has forgotten the request, which says nothing."""

LATE_S = HOUR_S
"""A stager may show a request late; one is `gone` only if it was looked for so long after it was asked for."""
UNREACHABLE = frozenset({"UNAVAILABLE", "UNKNOWN"})
"""What passes: a disk is away, or the site said nothing of the file. Asking for it anew would not help."""
AGAIN_S = HOUR_S / 2
"""A file is asked for again no sooner than so long after it was asked for, then twice as long: a stager that refuses at
once is not asked all the more."""
LOOK_S = 6 * HOUR_S
"""A step that waits for its files looks up so often, whatever it is told."""


def staging(site: str, request: Request) -> Subject:
    """A request at the site's stager."""
    return Subject("staging", f"{site}/{request}", {"site": site, "request": request})


def staging_again(site: str, request: Request) -> Subject:
    """The same request, looked at anew: what was not there at first tells nothing later, and no change is no news."""
    return Subject("staging", f"{site}/{request}/again", {"site": site, "request": request})


def staging_still(site: str, request: Request, version: int) -> Subject:
    """The same request, to see whether it still is as it was at that observation."""
    return Subject("staging", f"{site}/{request}/still {version}", {"site": site, "request": request})


def locality(site: str, surls: tuple[str, ...], occasion: str) -> Subject:
    """Which of the files are online. Each occasion is a subject of its own, so that its first answer is never an old one."""
    return Subject("locality", occasion, {"site": site, "surls": list(surls)})


class Asked(Struct, frozen=True):
    """A request of this attempt: whether it still runs, and if so what to wait for and what it says."""

    ordinal: int
    site: str
    request: Request | None
    surls: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Other files of the step that it turned out to be for as well, because others made it or the journal had lost it."""
    made: float = 0.0
    subject: Subject | None = None
    text: str = ""
    is_stuck: bool = False
    is_undone: bool = False
    """Whether it was aborted, by us or by others: an abort takes the pins of what it brought along."""

    @property
    def is_running(self) -> bool:
        """Whether the stager may still bring files online for it."""
        return self.subject is not None

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the step that it is for."""
        return (*self.surls, *self.also)


class Stage(Handler):
    """Bring a list of SURLs of one site online and wait until enough of them are; only those on tape are asked for.

    `threshold` of them are enough; with `missing`, as many as leave no more subbands missing than that allows instead.
    A file is asked for at most `requests` times; a request that does not move for `stall` is given up. Once there are
    enough, late files are waited for until none has come for `linger`. Outputs: `surls` (those that are online),
    `pinned` (of these, those that we asked for and that no abort has set free again), `missing`, `away` (of these, what
    the site says of files that cannot be asked for), `excluded`, `replaced` (gone → ingested again), `site`, `requests`
    (to be released when the files have been used) and `since`, when the first was made: from then on pins grow old.
    """

    kind = "stage"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        surls: tuple[str, ...]
        threshold: float = 0.95
        requests: int = 3
        linger: str = "2h"
        stall: str = "3d"
        exclude: tuple[str, ...] = ()
        missing: Missing | None = None

        def __post_init__(self) -> None:
            duration_s(self.linger)
            duration_s(self.stall)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        excluded = [surl for surl in params.surls if any(word in surl for word in params.exclude)]
        replaced = _copies(seen)
        left = _without(params.surls, excluded)
        if excluded and not left:
            return Failed(f"`exclude` leaves none of {len(excluded)} files", final=True)
        try:
            site = site_of_all(left)
            # Stagers tell of files in this spelling, and a file that is spelled twice is one.
            spelled = [str(parse_surl(surl)) for surl in left]
        except ValueError as error:
            return Failed(str(error), final=True)
        surls = tuple(dict.fromkeys(replaced.get(surl, surl) for surl in spelled))
        asked = _asked(seen, duration_s(params.stall))
        failed = failure(seen)
        if failed is not None:
            return self.stop(step, params, seen) or failed
        stuck = [one for one in asked if one.is_stuck]
        if stuck:
            return Do(tuple(map(_give_back, stuck)))
        running = [one for one in asked if one.is_running]
        occasion = f"{step.key}/{len(asked)}.{len(asked) - len(running)}" + (f".{len(replaced)}" if replaced else "")
        look = locality(site, surls, occasion)
        # A stager that names two requests alike has one subject for both.
        follow = {one.subject.key: one.subject for one in running if one.subject is not None}
        turns = [window(step, site, one.ordinal, len(one.surls), seen.now, also=len(one.also)) for one in running]
        # A turn that was granted and has not been used yet is held: once given back, it would be used without being ours.
        spare = window(step, site, len(asked), 0, seen.now)
        if (seen.of(spare) or {"files": 0})["files"]:
            turns.append(spare)
        waits = [look, *follow.values(), *turns]
        looked = seen.observations.get(look.key)
        if looked is None:
            return Wait(tuple(waits), f"looking which of {len(surls)} files are online", HOUR_S)
        if "problem" in looked.data:
            return Wait(tuple(waits), f"where {len(surls)} files are cannot be asked: {looked.data['problem']}", LOOK_S)
        missing: list[str] = looked.data["missing"]
        away: dict[str, str] = looked.data["away"]
        here = _without(surls, missing)
        texts = [one.text for one in running]
        due_s = LOOK_S
        lacking = not_enough(here, params.missing, surls)
        if not lacking if params.missing else is_enough(len(here), len(surls), params.threshold):
            due_s = looked.at + duration_s(params.linger) - seen.now
            if not missing or not running or due_s <= 0:
                requests = [one.request for one in asked if one.request is not None]
                # Also those of a request that was lost and is known by its files only: it has pinned them.
                ours = {surl for one in asked if not one.is_undone for surl in one.files}
                files = {"surls": list(here), "missing": missing, "away": away, "excluded": excluded}
                files |= {"replaced": replaced, "pinned": [surl for surl in here if surl in ours]}
                return Done({**files, "online": len(here), "site": site, "requests": requests, "since": _since(seen)})
        else:
            after_s = _wanted(missing, away, asked, params.requests, seen.now)
            wanted = [surl for surl, wait_s in after_s.items() if wait_s <= 0]
            if len(wanted) < len(after_s):
                soon_s = min(wait_s for wait_s in after_s.values() if wait_s > 0)
                due_s = min(due_s, soon_s)
                texts.append(f"{len(after_s) - len(wanted)} files are asked for again in {duration_text(soon_s)}")
            if wanted:
                wish = window(step, site, len(asked), len(wanted), seen.now, looked.data.get("file_bytes"))
                turn = seen.of(wish) or {"files": 0, "why": "how much may be asked for is not known yet"}
                if turn["files"]:
                    chunk = tuple(wanted[: turn["files"]])
                    rest = _without(surls, chunk)
                    return Do.all(StageFiles(surls=chunk, site=site, besides=rest, ordinal=len(asked)))
                waits.append(wish)
                texts.append(f"{len(wanted)} files wait for their turn: {turn['why']}")
            unreachable = sorted({word for word in away.values() if word in UNREACHABLE})
            if unreachable:
                count = sum(word in UNREACHABLE for word in away.values())
                texts.append(f"{count} files cannot be reached now ({', '.join(unreachable)})")
            if not texts:
                return self.stop(step, params, seen) or Failed(_given_up(site, surls, missing, away, asked, lacking))
        return Wait(tuple(waits), f"{len(here)} of {len(surls)} files online; {'; '.join(texts)}", due_s)

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """A request that nobody waits for any more is aborted, so that a new attempt asks for nothing twice.

        One that has ended is given back too: no step behind this one will ever hear of it, and its files stay pinned.
        """
        made = [record for record in seen.effects if record.kind == StageFiles.kind and record.result is not None]
        left = [
            ReleaseFiles(request=record.result["request"], site=record.inputs.get("site", ""), ordinal=record.ordinal)
            for record in made
            if record.result["request"] is not None and seen.effect(ReleaseFiles, record.ordinal) is None
        ]
        return Do(tuple(left)) if left else None


def _without(surls: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """In their order; a list may have ten thousand files."""
    left_out = set(others)
    return tuple(surl for surl in surls if surl not in left_out)


def site_of_all(surls: Sequence[str]) -> str:
    """The one site that all of the files lie at; ValueError if there are several, or one that is not known."""
    hosts = {surl.split("/")[2].partition(":")[0] if surl.count("/") > 2 else surl for surl in surls}
    sites = sorted({site_of(host) for host in hosts})
    if len(sites) > 1:
        raise ValueError(f"the files lie at {' and '.join(sites)}; expected one site: a step for each")
    return sites[0] if sites else ""


def window(
    step: StepView,
    site: str,
    ordinal: int,
    files: int,
    now: float,
    file_bytes: int | None = None,
    priority: int | None = None,
    also: int = 0,
) -> Subject:
    """The turn of one request: asked for, then held for as long as the request runs (watchers/windows.py)."""
    effect = f"{step.key}/{StageFiles.kind}/{ordinal}"
    first = step.priority if priority is None else priority
    args = {"site": site, "files": files, "priority": first, "since": now, "effect": effect}
    if file_bytes:
        args["file_bytes"] = file_bytes
    if also:
        args["also"] = also
    return Subject("window", f"{step.key}/{ordinal}", args)


def _give_back(one: Asked) -> ReleaseFiles:
    assert one.request is not None
    return ReleaseFiles(request=one.request, site=one.site, ordinal=one.ordinal)


def _asked(seen: Seen, stall_s: float) -> list[Asked]:
    """The requests of this attempt, in order."""
    records = [record for record in seen.effects if record.kind == StageFiles.kind]
    return [_follow(record, seen, stall_s) for record in sorted(records, key=lambda one: one.ordinal)]


def _follow(record: EffectRecord, seen: Seen, stall_s: float) -> Asked:
    """How one request goes."""
    request = None if record.result is None else record.result["request"]
    site = record.inputs.get("site", "")  # A journal of an older version has requests at the legacy stager only.
    made = record.intended_at or 0.0
    also = tuple((record.result or {}).get("also", ()))
    over = Asked(record.ordinal, site, request, tuple(record.inputs["surls"]), also, made)
    undone = structs.replace(over, is_undone=True)
    if request is None:
        return over
    if seen.effect(ReleaseFiles, record.ordinal) is not None:
        return undone
    again = staging_again(site, request)
    subject = staging(site, request) if seen.of(again) is None else again
    looked = seen.observations.get(subject.key)
    name = f"request {request} at {site or 'the LTA'}"

    def runs(text: str, subject: Subject = subject, *, is_stuck: bool = False) -> Asked:
        return Asked(record.ordinal, site, request, over.surls, also, made, subject, f"{name}: {text}", is_stuck)

    if looked is None:
        return runs("just made")
    status = looked.data["status"]
    if status == "gone" and subject != again and looked.at < made + LATE_S:
        return runs("just made, and not shown yet") if seen.now < made + LATE_S else runs("looked for anew", again)
    if status in OVER:
        return undone if status == "aborted" else over
    if status == "on hold":
        return runs("on hold, the site is in maintenance")
    moved = max([made, looked.at, *(one.at for key, one in seen.observations.items() if key.startswith("locality:"))])
    done, total = looked.data["done"], looked.data["total"]
    count = "" if done is None or total is None else f", {done} of {total} files"
    if seen.now - moved >= stall_s:
        # We may have been away for as long ourselves: it is looked at once more before it is aborted.
        still = staging_still(site, request, looked.version)
        if (told := seen.of(still)) is None:
            return runs(f"{status}{count}, nothing moved: looking once more", still)
        if told != looked.data:
            return runs(f"{status}{count}")
        return runs(f"{status}{count}, given up: nothing moved", is_stuck=True)
    return runs(f"{status}{count}")


def _wanted(
    missing: Sequence[str], away: Mapping[str, str], asked: Sequence[Asked], most: int, now: float
) -> dict[str, float]:
    """The missing files that may be asked for (on tape, in no running request, and not asked for too often yet) → in how
    many world seconds."""
    times, last = Counter[str](), dict[str, float]()
    busy: set[str] = set()
    for one in asked:
        times.update(one.files)
        last.update(dict.fromkeys(one.files, one.made))
        busy.update(one.files if one.is_running else ())
    return {
        surl: last[surl] + AGAIN_S * 2 ** (times[surl] - 1) - now if surl in last else 0.0
        for surl in missing
        if surl not in away and surl not in busy and times[surl] < most
    }


def _copies(seen: Seen) -> dict[str, str]:
    """Files that are gone → the same ones, ingested again under another hash."""
    looks = (looked.data for key, looked in seen.observations.items() if key.startswith("locality:"))
    return {old: new for look in looks for old, new in look.get("copies", {}).items()}


def _since(seen: Seen) -> float:
    """When the first request of the attempt was made."""
    made = [record.intended_at for record in seen.effects if record.kind == StageFiles.kind and record.intended_at]
    return min(made, default=seen.now)


def _given_up(
    site: str,
    surls: Sequence[str],
    missing: Sequence[str],
    away: Mapping[str, str],
    asked: Sequence[Asked],
    lacking: str,
) -> str:
    """Why no more can be done, with what a helpdesk needs."""
    text = f"after {len(asked)} requests only {len(surls) - len(missing)} of {len(surls)} files are online"
    text += f"; {lacking}" if lacking else ""
    tape = [surl.rpartition("/")[2] for surl in missing if surl not in away]
    if tape:
        requests = ", ".join(str(one.request) for one in asked if one.request is not None)
        text += f"; on tape all the same (requests {requests}): {named(tape)}"
    gone = [f"{surl} ({word})" for surl, word in away.items()]
    return text + (f"; tell the helpdesk of {site} that these are not there: {named(gone)}" if gone else "")
