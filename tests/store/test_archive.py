"""Runs that ended long ago are packed: whoever asks sees no difference, and what is ours outside is still known to be ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from steered import Hand
from support import HandClock, Played, begin, graph, new_reactor, one, opened, rows, settle_all, step

from aglowd.errors import AglowError
from aglowd.model import Cancelled, Do, Done, Failed, FieldView, Outcome, Seen, Spawn, StepView, Subject, Wait
from aglowd.model import EffectState as State
from aglowd.schedules import Schedule
from aglowd.store import archive
from aglowd.store.archive import OURS, RUNS_AT_ONCE, Terms
from aglowd.store.db import queries
from aglowd.store.doubts import Finding, Word
from aglowd.store.schedules import Planned
from aglowd.store.stagings import Wanted
from aglowd.store.store import Store
from aglowd.store.verify import check_in_use
from tests.store.test_forgetting import Release, Stage, Submit

DAY_S = 86_400.0
TERMS = Terms(30 * DAY_S, 7 * DAY_S)
WORD = Word(1000, "because")
SHARED = graph("shared", step("inner"))
PART = graph("part", step("inside"))
FIELD = graph(
    "field",
    step("work"),
    step("child", kind="run"),
    step("own", "work", kind="run"),
    step("last", "work", "child", "own", retries=1),
)
LINE = graph("line", step("only"))
PIPELINES = (FIELD, SHARED, PART, LINE)
EFFECTS = (Stage(), Release(request=7), Submit(site="sara"))
RESULTS: dict[str, Any] = {"stage_files": {"request": 7}, "release_files": {"released": True}, "submit_jobs": {"jobs": ["j/1"]}}
JOB = Subject("job", "j/1@sara", {})


def work(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Files, a job that is looked at, and files again."""
    missing = tuple(effect for effect in EFFECTS if seen.effect(type(effect), effect.ordinal) is None)
    if missing:
        return Do(missing)
    looks = (JOB, Subject("locality", f"{view.run}/work/1/0"), Subject("tokens", f"{view.run}_targ"))
    return Done({"site": "sara"}) if seen.of(JOB) else Wait(looks, f"{view.run}: 3 of 9 files online", 600.0)


def spawns(key: str, pipeline: str, *, shared: bool) -> Any:
    def play(view: StepView, params: Any, seen: Seen) -> Outcome:
        name = key or f"{view.run}.{view.name}.{view.attempt}"
        ended = seen.of(Subject("run", name))
        if ended and ended["state"] == "done":
            return Done({"run": ended["run"], "what": ended["outputs"]})
        return Spawn(name, pipeline, {}, "in a run of its own", 3600.0, shared=shared)

    return play


def once_bad(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Failed("the first time it fails") if view.attempt == 1 else Done({"plots": ["https://plots/1"]})


def only(view: StepView, params: Any, seen: Seen) -> Outcome:
    if view.field.startswith("stage/"):
        place = Subject("locality", f"{view.run}/only/1/0")
        return Done({"requests": [5], "since": 1.0}) if seen.of(place) else Wait((place,), "waits", 60.0)
    return Failed("broke", final=True) if view.field == "broken" else Done({"said": view.field})


PLAYS = {
    "work": work,
    "child": spawns("cal/1", "shared", shared=True),
    "own": spawns("", "part", shared=False),
    "last": once_bad,
    "only": only,
}


def reactor_of(store: Store) -> Any:
    played, runs = Played(PLAYS), Played(PLAYS)
    runs.kind = "run"  # type: ignore[misc] # As the kind that provenance follows.
    return new_reactor(store, [played, runs], *PIPELINES)


async def go_on(store: Store, clock: HandClock, *subjects: tuple[Subject, Any]) -> None:
    """Decide and carry out what is due, some hours apart, until all has ended."""
    reactor = reactor_of(store)
    for _ in range(6):
        await settle_all(reactor)
        for live in await store.next_effects((), 50):
            await store.intend(live, None)
            await store.settle(live, State.DONE, RESULTS[live.record.kind])
        await settle_all(reactor)
        if subjects:
            await store.ingest("any", None, subjects)
        clock.advance(3600.0)
        await store.due()


async def populate(store: Store, clock: HandClock) -> None:
    """Two fields that share a calibrator, one of which ran twice; a staging, a schedule, and one that failed."""
    await store.put_fields([(FieldView("P1", "SND", {"site": "sara"}), ""), (FieldView("broken", "SND", {}), "")])
    for name in ("P1", "P2"):
        await begin(store, FIELD, name)
        run = f"{name}-1"
        seen = {"state": "done", "final": True, "words": "Done", "counts": {"ONLINE": 3}}
        subjects = [JOB, Subject("locality", f"{run}/work/1/0"), Subject("tokens", f"{run}_targ")]
        await go_on(store, clock, *((subject, {**seen, "of": run}) for subject in subjects))
    await store.steer_done(store) if hasattr(store, "steer_done") else None
    await begin(store, LINE, "broken")
    await begin(store, LINE, "broken2")
    staged = await store.begin_stagings(LINE, [Wanted("mine", "sara", ("srm://a",), 600.0)], 1000)
    place = Subject("locality", f"{staged[0]['run']}/only/1/0")
    await go_on(store, clock, (place, {"counts": {"ONLINE": 1}}))


NAMES = ("P1", "P2", "broken", "cal/1", "stage/mine", "P1-1.own.1")
TRACED = (*NAMES, "P1-1", "P1-1/work", "P1/last", "P1-1/work/1/submit_jobs/0", "cal_1-1")


async def told(store: Store, clock: HandClock) -> dict[str, Any]:
    """What every question is answered about all of it."""
    now = clock.now()
    found: dict[str, Any] = {"fields": await store.fields(), "stagings": await store.stagings()}
    found["staging"] = await store.stagings("mine")
    found["survey"] = await store.diff("", 1.0e9, now)
    for name in NAMES:
        found[f"field {name}"] = await store.field(name)
        found[f"explain {name}"] = await store.explain(name)
        found[f"history {name}"] = await store.history(name, 0.0, now, "", 1000)
        found[f"events {name}"] = await store.events(field=name, most=1000)
        found[f"kinds {name}"] = await store.events(field=name, kinds=("StepDone", "SubjectChanged"))
        found[f"since {name}"] = await store.events(5, name, 7)
    for name in ("P1", "P2"):
        for hours in (0.5, 1.5, 4.5, 30.0):
            at = 1.0e9 + hours * 3600.0
            found[f"then {name} {hours}"] = await store.explain_then(name, at) if name == "P1" or hours > 20 else None
        found[f"diff {name}"] = await store.diff("P1", 1.0e9 + 60.0, now)
        found[f"history {name}-1"] = await store.history(name, 0.0, now, f"{name}-1", 1000)
    for name in TRACED:
        found[f"trace {name}"] = await store.trace(name, 2000)
        found[f"materials {name}"] = await store.materials(name)
    return found


async def packed(store: Store) -> list[str]:
    return [row["run"] for row in await rows(store, "SELECT run FROM archive ORDER BY run")]


async def pack_all(store: Store, terms: Terms = TERMS) -> None:
    while await store.archive_runs(terms):
        pass


async def test_every_question_is_answered_as_before(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    before = await told(store, clock)
    clock.advance(31 * DAY_S)
    kept = await told(store, clock)
    await pack_all(store)
    assert await packed(store) == ["P1-1", "P1-1.own.1-1", "P2-1", "P2-1.own.1-1", "broken2-1", "cal_1-1", "stage_mine-1"]
    assert await rows(store, "SELECT DISTINCT run FROM steps") == [{"run": "broken-1"}], "it may be retried"
    after = await told(store, clock)
    for name, answer in kept.items():
        assert after[name] == answer, name
    assert before["field P1"] == after["field P1"]
    assert len(after["materials P1"]) == 3, "the run, its part, and the calibrator"
    assert after["history P1"]["entries"]
    assert check_in_use(store.db.path) == []
