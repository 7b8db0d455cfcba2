"""Wait until pilots have dealt with the tokens: keep pilots alive, give failed tokens another chance, name what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from aglowd.durations import duration_s, duration_text
from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.effects.tokens import ERROR, ResetTokens
from aglowd.grid.batch import FINAL
from aglowd.handlers.base import HOUR_S, failure, is_enough, named
from aglowd.handlers.pilots import (
    WAVES_APART,
    Crew,
    Pilots,
    cancels,
    crew_of,
    gate,
    list_jobs,
    submissions,
    turn_of,
)
from aglowd.model import Do, Done, Failed, Handler, Json, Outcome, Seen, StepView, Subject, Wait

PAUSE_S = 900.0
"""World seconds between two waves of pilots; doubled with each wave that did nothing."""
DEAD_LEAST = 5
"""Pilots may die; when so many have, and twice as many as tokens are done, they are tried one by one."""
MOST_FRUITLESS = 5
"""After so many waves in a row that did nothing it is no accident."""


def tokens_of(token_type: str, site: str = "") -> Subject:
    """How many tokens of that type are in which state, in the database of that site."""
    return Subject("tokens", *_named(token_type, site))


def counted_again(token_type: str, occasion: str, site: str = "") -> Subject:
    """The same, never older than the occasion: of what moves all the time, what was seen last may be hours old."""
    return Subject("tokens", occasion, {"token_type": token_type, **({"site": site} if site else {})})


def troubled_of(token_type: str, lease: str, site: str = "") -> Subject:
    """The tokens of that type that failed, and those of whose holder nothing was heard for that long."""
    id_, args = _named(token_type, site)
    return Subject("troubled", id_, {"lease_s": duration_s(lease), **args})


def _named(token_type: str, site: str) -> tuple[str, dict[str, Json]]:
    """Types of one name at two sites are two things, as jobs are."""
    return (f"{token_type}@{site}", {"token_type": token_type, "site": site}) if site else (token_type, {})


def results_of(token_type: str, occasion: str, site: str = "") -> Subject:
    """Each token's state and result. Each occasion is a subject of its own, so that its answer is never an old one."""
    return Subject("results", occasion, {"token_type": token_type, **({"site": site} if site else {})})


class Work(Struct, frozen=True):
    """How the tokens stand: what is counted, and what is to be done with those in trouble."""

    done: int
    open: int
    """To do, in work, or to be given back."""
    free: int
    """Of these what a pilot could take: a token that somebody holds needs no other one."""
    lost: int
    """Failed for good: they have had all their tries."""
    is_told: bool
    """Whether each token that failed is known by name."""
    reset: Mapping[str, tuple[str, str]]
    """Token → revision and reason: to be given back now."""


class WaitTokens(Handler):
    """Wait for all tokens of a type. `threshold` of them done is enough.

    As many pilots are kept alive as there are open tokens, at most `pilots.max_pilots`. A token that failed is given back
    `scrubs` times; one whose pilot is gone, and of which nothing was heard for `lease`, as often as that happens. A token that
    a living job holds is never touched, and one whose job nobody knows not before `wall_time`, the longest life of a job.
    When enough are done and nothing has changed for `patience`, the jobs that are left are cancelled. When more than
    `error_threshold` have failed for good, or nothing has changed for `stall` while pilots live or somebody else starts
    them, the pilots are cancelled and what is there is judged.
    `site`: where the pilots run, which also tells the tokens' database.
    Outputs: `done`, `missing` (token ids), `gone` (how many tokens somebody has deleted; they are not made again).
    """

    kind = "wait_tokens"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        token_type: str
        tokens: int
        jobs: tuple[str, ...] = ()
        pilots: Pilots | None = None
        site: str = ""
        threshold: float = 0.95
        error_threshold: float = 1.0
        scrubs: int = 2
        patience: str = "12h"
        stall: str = "7d"
        lease: str = "2h"
        wall_time: str = "96h"

        def __post_init__(self) -> None:
            for duration in (self.patience, self.stall, self.lease, self.wall_time):
                duration_s(duration)

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        failed = failure(seen, unless=CancelJobs)  # The results tell how it ended, whatever became of the jobs.
        if failed is not None:
            return self.stop(step, params, seen) or failed
        look = results_of(params.token_type, f"{step.key}/{seen.count(ResetTokens)}", params.site)
        found = seen.of(look)
        if found is not None:
            return self._judge(params, found, crew_of(seen, (*params.jobs, *list_jobs(seen.effects)), params.site))
        if seen.count(CancelJobs):
            return Wait((look,), f"looking at the results of {params.tokens} tokens", HOUR_S)
        tokens = tokens_of(params.token_type, params.site)
        troubled = troubled_of(params.token_type, params.lease, params.site)
        crew = crew_of(seen, (*params.jobs, *list_jobs(seen.effects)), params.site)
        waves = _waves(seen)
        again = counted_again(params.token_type, f"{step.key}/{max(waves, default=-1)}/{crew.ended}", params.site)
        counted = [seen.observations[one.key] for one in (tokens, again) if one.key in seen.observations]
        if not counted or seen.of(troubled) is None:
            return Wait((tokens, troubled, *crew.going), f"counting {params.tokens} tokens", HOUR_S)
        latest = max(counted, key=lambda count: count.at)
        counts = latest.data
        work = self._work(params, seen, counts, seen.of(troubled), crew)
        if work.reset:
            return Do.all(
                ResetTokens(
                    tokens=tuple(work.reset),
                    seen={name: rev for name, (rev, _) in work.reset.items()},
                    why={name: why for name, (_, why) in work.reset.items()},
                    site=params.site,
                    ordinal=seen.count(ResetTokens),
                )
            )
        reason = _reason(params, counts, crew)
        rest_s = 12 * HOUR_S
        quiet_s = seen.now - min(one.at for one in counted if one.data == counts)
        is_over = work.is_told and not work.open
        if work.open and is_enough(work.done, params.tokens, params.threshold):
            # Enough is done: what is left gets some time more, and none for ever.
            rest_s = min(rest_s, duration_s(params.patience) - quiet_s)
            is_over = rest_s <= 0
        is_ours = params.pilots is not None and params.pilots.max_pilots > 0
        is_stalled = (crew.alive or not is_ours) and work.is_told and quiet_s >= duration_s(params.stall)
        if is_over or is_stalled or work.lost > params.error_threshold * params.tokens + 1e-9:
            if crew.going:
                return _cancel(crew, params.site)
            return Wait((look,), f"looking at the results of {params.tokens} tokens", HOUR_S)
        more = self._more_pilots(step, params, seen, work, crew, waves, again)
        if isinstance(more, Wait):
            subjects = (tokens, troubled, *crew.going, *more.subjects)
            return Wait(subjects, f"{reason}; {more.reason}", min(more.due_s, rest_s))
        return more or Wait((tokens, troubled, *crew.going), reason, rest_s)

    def _work(
        self, params: Any, seen: Seen, counts: Mapping[str, int], troubled: Mapping[str, Any], crew: Crew
    ) -> Work:
        handled = {
            (name, rev)
            for record in seen.effects
            if record.kind == ResetTokens.kind
            for name, rev in record.inputs.get("seen", {}).items()
        }
        reset: dict[str, tuple[str, str]] = {}
        failed, pending, lost = 0, 0, 0
        for name, token in troubled.items():
            is_failed = token["state"] != "locked"
            failed += is_failed
            if (name, token["rev"]) in handled:
                pending += is_failed
            elif not is_failed:
                why = self._is_stuck(params, seen, token, crew)
                if why:
                    reset[name] = (token["rev"], why)
            elif token["retries"] < params.scrubs:
                reset[name] = (token["rev"], ERROR)
            else:
                lost += 1
        in_trouble = counts.get("error", 0) + counts.get("other", 0)
        free = counts.get("todo", 0) + pending
        open_ = free + counts.get("locked", 0)
        return Work(counts.get("done", 0), open_, free, lost, in_trouble <= failed, reset)

    def _is_stuck(self, params: Any, seen: Seen, token: Mapping[str, Any], crew: Crew) -> str:
        """Why a token of whose holder nothing is heard may be taken from it, or '': only if no living job holds it."""
        state = crew.states.get(token["job"])
        if state is not None:
            return f"lease: its job {token['job']} is over ({state})" if state in FINAL else ""
        wall_time_s = duration_s(params.wall_time)
        if crew.unseen or seen.now - token["since"] < wall_time_s:
            return ""
        return f"lease: nobody knows its job {token['job']}, and no job lives {duration_text(wall_time_s)}"

    def _more_pilots(
        self,
        step: StepView,
        params: Any,
        seen: Seen,
        work: Work,
        crew: Crew,
        waves: Mapping[int, list[Any]],
        again: Subject,
    ) -> Do | Wait | Failed | None:
        """New pilots in the place of those that are gone, with back-off; None when there are enough, or none are ours.

        The place of a pilot that has ended is filled, and it is said to have done nothing, only after a count that was asked
        for afterwards: what it did may be known later than its end.
        """
        if params.pilots is None or crew.unseen:
            return None
        want = min(min(work.open, params.pilots.max_pilots) - crew.alive, work.free)
        if want <= 0:
            return None
        fruitless = self._fruitless(params, seen, work, waves)
        is_vain = fruitless >= MOST_FRUITLESS and not crew.alive
        is_sick = crew.dead >= DEAD_LEAST and crew.dead > 2 * work.done
        if waves and not is_vain:
            last = max(record.intended_at or 0.0 for record in waves[max(waves)])
            rest_s = last + PAUSE_S * 2 ** min(max(fruitless - 1, 0), MOST_FRUITLESS) - seen.now
            if rest_s > 0:
                what = "one more pilot is tried" if fruitless or is_sick else f"{want} pilots more are started"
                return Wait((), f"{what} in {duration_text(rest_s)}{_because(crew)}", rest_s)
        if crew.ended and seen.of(again) is None:
            why = f"{crew.ended} pilots have ended, and {work.open} tokens seem to be open"
            return Wait((again,), f"counting the tokens again: {why}", HOUR_S)
        if is_vain:
            if crew.going:  # What was lost may show again, and the next attempt would not know it.
                return _cancel(crew, params.site)
            return Failed(f"{fruitless} waves of pilots ended and did nothing{_because(crew)}")
        want = 1 if fruitless or is_sick else want
        wave = max(waves, default=-1) + 1
        turn = turn_of(step, wave, params.site, want)
        waiting = gate(seen, params.pilots, turn)
        if waiting:
            return waiting
        granted = min(want, seen.of(turn)["pilots"])
        return submissions(params.pilots, params.site, params.token_type, granted, wave, work.done)

    def _fruitless(self, params: Any, seen: Seen, work: Work, waves: Mapping[int, list[Any]]) -> int:
        """How many of the last waves are over, or most of their pilots, and no token was done since they began."""
        began = [
            (
                list_jobs(waves[wave]),
                waves[wave][0].inputs.get("after", 0),
                sum(one.inputs["nodes"] for one in waves[wave]),
            )
            for wave in sorted(waves, reverse=True)
        ]
        count = 0
        for jobs, after, pilots in [*began, (params.jobs, 0, 0)]:
            crew = crew_of(seen, jobs, params.site)
            ended = len(crew.states) + len(crew.unseen) - crew.alive
            # One that still works must not let the others be replaced for ever.
            is_over = not crew.alive or ended * 2 >= (pilots or len(crew.states))
            if not jobs or after != work.done or crew.unseen or not is_over:
                return count
            count += 1
        return count

    def _judge(self, params: Any, found: dict[str, Any], crew: Crew) -> Outcome:
        done, other = found["done"], found["other"]
        gone = max(0, params.tokens - len(done) - len(other))
        if is_enough(len(done), params.tokens, params.threshold):
            return Done({"done": len(done), "missing": sorted(other), "gone": gone})
        left = [f"{gone} gone, deleted by somebody"] if gone else []
        states = named([*left, *(f"{name} ({state})" for name, state in sorted(other.items()))])
        logs = "".join(f"; last words of {name}: {text}" for name, text in sorted(found.get("logs", {}).items()))
        # Another attempt alone gives none of them another chance.
        here = f"{params.token_type} --site {params.site}" if params.site else params.token_type
        back = f"; to give those that failed back: aglowctl tokens reset {here}" if other else ""
        return Failed(
            f"only {len(done)} of {params.tokens} tokens are done after {params.scrubs} resets: {states}{back}{logs}"
            + (f"; {_ends(crew)}" if crew.dead else "")
        )

    def stop(self, step: StepView, params: Any, seen: Seen) -> Do | None:
        """Pilots that nobody waits for are cancelled."""
        jobs = (*params.jobs, *list_jobs(seen.effects))
        return Do(tuple(cancels(jobs, params.site))) if jobs and not seen.count(CancelJobs) else None


def _waves(seen: Seen) -> dict[int, list[Any]]:
    """The submissions of this attempt, wave by wave."""
    waves: dict[int, list[Any]] = {}
    for record in seen.effects:
        if record.kind == SubmitJobs.kind:
            waves.setdefault(record.ordinal // WAVES_APART, []).append(record)
    return waves


def _cancel(crew: Crew, site: str) -> Do:
    return Do(tuple(cancels([job.args.get("job", job.id) for job in crew.going], site)))


def _because(crew: Crew) -> str:
    return f": {_ends(crew)}" if crew.dead else ""


def _ends(crew: Crew) -> str:
    return f"{crew.dead} pilots ended badly{f' ({crew.why})' if crew.why else ''}"


def _reason(params: Any, counts: Mapping[str, int], crew: Crew) -> str:
    names = (("locked", "in work"), ("todo", "to do"), ("error", "failed"), ("other", "in no known state"))
    rest = [f"{counts[key]} {word}" for key, word in names if counts.get(key)]
    text = ", ".join([f"{counts.get('done', 0)} of {params.tokens} tokens done", *rest, f"{crew.alive} pilots alive"])
    if params.pilots is None or not params.pilots.max_pilots:
        return f"{text}; somebody else starts the pilots{f' of {params.site}' if params.site else ''}"
    orphans = counts.get("locked", 0) - crew.alive
    if orphans > 0 and not crew.unseen:
        text += f"; {orphans} are held by pilots that have ended: given back when nothing is heard of them for {params.lease}"
    return text
