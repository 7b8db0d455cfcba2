"""Runs that ended long ago are packed: whoever asks sees no difference, and what is ours outside is still known to be ours."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from steered import Hand
from support import HandClock, Played, begin, graph, new_reactor, one, opened, rows, settle_all, step

from aglowd.choice import Choice
from aglowd.crash import AT
from aglowd.errors import AglowError
from aglowd.model import Do, Done, Failed, FieldView, Outcome, Seen, Spawn, StepView, Subject, Wait
from aglowd.model import EffectState as State
from aglowd.schedules import Schedule
from aglowd.store import archive, journal
from aglowd.store.archive import RUNS_AT_ONCE, Place, Terms, Turn
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
RESULTS: dict[str, Any] = {
    "stage_files": {"request": 7},
    "release_files": {"released": True},
    "submit_jobs": {"jobs": ["j/1"]},
}
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
    """Two fields that share a calibrator, each with a part of its own; a staging, one that is done, and one that failed."""
    await store.put_fields([(FieldView("P1", "SND", {"site": "sara"}), "")])
    for name in ("P1", "P2"):
        await (store.admit(FIELD, ("SND",), 1) if name == "P1" else begin(store, FIELD, name))
        run = f"{name}-1"
        seen = {"state": "done", "final": True, "words": "Done", "counts": {"ONLINE": 3}}
        subjects = [JOB, Subject("locality", f"{run}/work/1/0"), Subject("tokens", f"{run}_targ")]
        await go_on(store, clock, *((subject, {**seen, "of": run}) for subject in subjects))
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


async def pack_all(store: Store) -> int:
    """A round; how many went."""
    gone, place = 0, Place()
    while True:
        turn = await store.archive_runs(TERMS, place)
        gone += turn.packed
        if turn.next is None:
            return gone
        place = turn.next


async def test_every_question_is_answered_as_before(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    before = await told(store, clock)
    clock.advance(31 * DAY_S)
    kept = await told(store, clock)
    await pack_all(store)
    assert await packed(store) == [
        "P1-1",
        "P1-1.own.1-1",
        "P2-1",
        "P2-1.own.1-1",
        "broken2-1",
        "cal_1-1",
        "stage_mine-1",
    ]
    assert await rows(store, "SELECT DISTINCT run FROM steps") == [{"run": "broken-1"}], "it may be retried"
    after = await told(store, clock)
    for name, answer in kept.items():
        assert after[name] == answer, name
    assert before["field P1"] == after["field P1"]
    assert len(after["materials P1"]) == 3, "the run, its part, and the calibrator"
    assert after["history P1"]["entries"]
    assert check_in_use(store.db.path) == []


async def test_who_asks_for_a_field_does_not_read_the_log_of_the_others(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    clock.advance(31 * DAY_S)
    await pack_all(store)
    await begin(store, LINE, "x")

    def fill(db: sqlite3.Connection) -> None:
        for number in range(5_000):
            db.execute(
                "INSERT INTO steps (run, name, kind, state, reason, since) VALUES ('x-1', ?, 'k', 'done', '', 0)",
                (f"s{number}",),
            )
        for number in range(20_000):
            db.execute(
                "INSERT INTO events (at, kind, field, run, step, effect) VALUES (?, 'StepWaits', 'x', 'x-1', 's', 'e')",
                (number,),
            )

    await store.db.write(fill)
    spent = 0

    def counted(query: Any) -> Any:
        def count(db: sqlite3.Connection) -> Any:
            def tick() -> None:
                nonlocal spent
                spent += 1

            db.set_progress_handler(tick, 1000)
            try:
                return query(db)
            finally:
                db.set_progress_handler(None, 0)

        return count

    now = clock.now()
    ask = store._ask

    async def counting(names: Any, query: Any) -> Any:
        return await ask(names, counted(query))

    store._ask = counting  # type: ignore[method-assign] # To see what it costs.
    costs = {}
    for name, question in {
        "field": lambda: store.field("P1"),
        "explain": lambda: store.explain("P1"),
        "then": lambda: store.explain_then("P1", 1.0e9 + 7200.0),
        "history": lambda: store.history("P1", 0.0, now, "", 1000),
        "events": lambda: store.events(field="P1"),
        "diff": lambda: store.diff("P1", 1.0e9, now),
        "trace": lambda: store.trace("P1", 2000),
        "around": lambda: store.trace("9", 2000),
        "materials": lambda: store.materials("P1"),
    }.items():
        spent = 0
        await question()
        costs[name] = spent
    assert max(costs.values()) < 100, costs


async def test_what_is_not_due_or_still_wanted_stays(store: Store, clock: HandClock) -> None:
    await begin(store, LINE, "broken")
    await begin(store, LINE, "P3")
    await settle_all(reactor_of(store))
    assert await pack_all(store) == 0, "it has just ended"
    clock.advance(30 * DAY_S - 1.0)
    assert await pack_all(store) == 0
    clock.advance(1.0)
    await pack_all(store)
    assert await packed(store) == ["P3-1"]
    await begin(store, LINE, "broken")
    await settle_all(reactor_of(store))
    await pack_all(store)
    assert await packed(store) == ["P3-1", "broken-1"], "another one has come after it"
    clock.advance(90 * DAY_S)
    assert await pack_all(store) == 0, "the latest of them may be retried"


async def test_what_holds_something_outside_or_is_used_stays(store: Store, clock: HandClock) -> None:
    played = Played({**PLAYS, "last": lambda *_: Wait((Subject("thing", "one"),), "waits", 60.0)})
    runs = Played(PLAYS)
    runs.kind = "run"  # type: ignore[misc] # As above.
    reactor = new_reactor(store, [played, runs], *PIPELINES)
    await begin(store, FIELD, "P1")
    await settle_all(reactor)
    for live in await store.next_effects((), 50):
        await store.settle(live, State.DONE, RESULTS[live.record.kind])
    await settle_all(reactor)
    await store.ingest("any", None, [(JOB, {"final": True})])
    await settle_all(reactor)
    clock.advance(90 * DAY_S)
    assert await pack_all(store) == 0, "the calibrator and the part have ended, and P1-1 is at work with them"
    await Hand(store, *PIPELINES)("cancel", "P1")
    await settle_all(reactor)
    await begin(store, LINE, "P1")
    await settle_all(reactor)
    clock.advance(29 * DAY_S)
    await pack_all(store)
    assert await packed(store) == ["cal_1-1"], "a part waits for the run that it is of"
    await store.record_findings("job:", [Finding("job:/5", "duplicate", "a twin", "P1-1/work/1/submit_jobs/0")])
    clock.advance(2 * DAY_S)
    await pack_all(store)
    assert await packed(store) == ["P1-2", "cal_1-1"]
    await store.dismiss("job:/5", WORD)
    await pack_all(store)
    assert await packed(store) == ["P1-1", "P1-1.own.1-1", "P1-2", "cal_1-1"]


async def test_a_packed_run_is_joined_and_its_id_is_not_given_again(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    clock.advance(31 * DAY_S)
    await pack_all(store)
    await begin(store, FIELD, "P3")
    await go_on(store, clock, (JOB, {"final": True}))
    assert (await one(store, "SELECT count(*) AS n FROM runs WHERE key = 'cal/1'"))["n"] == 1
    child = await one(store, "SELECT state, outputs FROM steps WHERE run = 'P3-1' AND name = 'child'")
    assert child["state"] == "done"
    assert "cal_1-1" in child["outputs"]
    assert [one.run.id for one in await store.materials("P3-1")] == ["P3-1", "cal_1-1", "P3-1.own.1-1"]
    assert await begin(store, LINE, "broken2") == "broken2-2"


async def test_what_is_ours_outside_is_still_known_to_be(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    clock.advance(31 * DAY_S)
    ours = ("stage_files", "release_files", "submit_jobs", "create_tokens")
    before = {kind: await store.effects_of(kind) for kind in ours}
    assert [len(lives) for lives in before.values()] == [2, 2, 2, 0]
    await pack_all(store)
    for kind, lives in before.items():
        after = await store.effects_of(kind)
        assert [(one.record.key, one.record.result, one.field) for one in after] == [
            (one.record.key, one.record.result, one.field) for one in lives
        ]
    live = await store.effect("P1-1/work/1/stage_files/0")
    assert live is not None
    assert (live.record.inputs, live.record.result) == ({"request": None, "site": "sara", "surls": []}, {"request": 7})
    remedy = Release(request=9, ordinal=9)
    await store.record_findings(
        "staging:", [Finding("staging:lta/9", "duplicate", "a twin", live.record.key, remedy=remedy)]
    )
    (due,) = await store.next_effects((), 5)
    await store.settle(due, State.DONE, {"released": True})
    assert await store.next_effects((), 5) == [], "what the audit finds of it late is made good"
    assert check_in_use(store.db.path) == []


async def test_what_somebody_waits_for_stays_as_he_sees_it(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    plays = {"only": lambda *_: Wait((JOB,), "waits", 60.0)}
    await begin(store, LINE, "P3")
    await settle_all(new_reactor(store, [Played(plays)], LINE))
    await store.ingest("job", None, [(JOB, {"final": True, "state": "seen anew"})])
    clock.advance(31 * DAY_S)
    await pack_all(store)
    assert [row["key"] for row in await rows(store, "SELECT key FROM subjects WHERE kind = 'job'")] == [JOB.key]
    (material, *_) = await store.materials("P1-1")
    assert material.jobs == {"j/1": {"final": True, "state": "seen anew"}}


@pytest.mark.parametrize("verb", ["cancel", "retry", "skip", "done"])
async def test_a_command_on_a_packed_run_says_what_to_do_instead(store: Store, clock: HandClock, verb: str) -> None:
    await populate(store, clock)
    clock.advance(31 * DAY_S)
    await pack_all(store)
    hand = Hand(store, *PIPELINES)
    steps = () if verb == "cancel" else ("work",)
    with pytest.raises(AglowError, match=r"P1-1 is packed away .*begin another run: aglowctl run P1"):
        await hand(verb, "P1", steps=steps)
    with pytest.raises(AglowError, match="whoever needs its work done again begins a run of his own"):
        await hand(verb, "cal_1-1", steps=steps)
    assert (await hand("retry", "*")).left.keys() >= {"P1-1", "cal_1-1"}, "the one that failed is retried"


async def test_a_packed_run_is_forgotten_for_good(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    clock.advance(31 * DAY_S)
    await pack_all(store)
    plan = await store.plan_forget(Choice(("P1-1",)), 0.0)
    assert [(one.steps, one.effects) for one in plan.runs] == [(4, 3)]
    await store.forget_runs(Choice(("P1-1",)), 0.0, plan.version, WORD)
    assert "P1-1" not in await packed(store)
    assert [run["id"] for run in (await store.field("P1") or {})["runs"]] == ["P1-1.own.1-1"]
    assert check_in_use(store.db.path) == []


async def test_a_schedule_begins_from_its_last_run_though_it_is_packed(store: Store, clock: HandClock) -> None:
    planned = Planned(LINE, Schedule(every="60d"))
    await store.begin_due([planned])
    for _ in range(2):
        clock.advance(61 * DAY_S)
        await pack_all(store)
        await store.begin_due([planned])
        await settle_all(reactor_of(store))
    assert await packed(store) == ["schedule_line-1"]
    last = await one(store, "SELECT context FROM runs WHERE id = 'schedule_line-2'")
    assert '"run":"schedule_line-1"' in last["context"]


async def test_a_few_runs_go_in_a_transaction_and_a_failure_leaves_all_as_it_was(
    store: Store, clock: HandClock
) -> None:
    for number in range(RUNS_AT_ONCE + 1):
        await begin(store, LINE, f"Q{number}")
    await settle_all(reactor_of(store))
    clock.advance(31 * DAY_S)
    everything = "SELECT (SELECT count(*) FROM steps) AS s, (SELECT count(*) FROM events) AS e, (SELECT count(*) FROM archive) AS a"
    before = await one(store, everything)

    def broken(db: sqlite3.Connection) -> None:
        archive.archive_next(db, TERMS, Place(), clock.now())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await store.db.write(broken)
    assert await one(store, everything) == before
    first = await store.archive_runs(TERMS, Place())
    assert (first.packed, first.next) == (RUNS_AT_ONCE, Place(1.0e9, f"Q{RUNS_AT_ONCE - 1}-1"))
    assert await store.archive_runs(TERMS, first.next) == Turn(1, None)
    assert await pack_all(store) == 0


async def test_what_people_said_and_what_concerns_the_whole_run_stays_in_the_log(
    store: Store, clock: HandClock
) -> None:
    await begin(store, graph("two", step("only"), step("other")), "broken")
    await settle_all(new_reactor(store, [Played(PLAYS)], graph("two", step("only"), step("other"))))
    await Hand(store, graph("two", step("only"), step("other")))("skip", "broken", steps=("only",))

    def approve(db: sqlite3.Connection) -> None:
        journal.add_event(db, clock.now(), "Approved", field="broken", run="broken-1", step="other", data={"uid": 1000})

    await store.db.write(approve)
    clock.advance(31 * DAY_S)
    await pack_all(store)
    kinds = [event["kind"] for event in await store.events()]
    assert kinds == ["RunStarted", "RunEnded", "SkipOrdered", "RunReopened", "RunEnded", "Approved"]
    told = [event["kind"] for event in await store.events(field="broken")]
    assert {"StepFailed", "StepSkipped", "StepDone"} <= {*told}
    assert len(told) > len(kinds)


async def test_the_end_of_one_run_that_another_followed_is_traced_both_ways(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    clock.advance(31 * DAY_S)
    (ended,) = await rows(store, "SELECT id FROM events WHERE kind = 'RunEnded' AND run = 'P1-1.own.1-1'")
    before = await store.trace(str(ended["id"]), 100)
    inner = await one(store, "SELECT id FROM events WHERE kind = 'StepDone' AND run = 'P1-1.own.1-1'")
    above = await store.trace(str(inner["id"]), 100)
    await pack_all(store)
    assert await store.trace(str(ended["id"]), 100) == before
    assert await store.trace(str(inner["id"]), 100) == above
    assert await store.trace("99999", 100) is None


async def test_one_that_an_older_release_packed_has_the_defaults_of_what_is_new(store: Store, clock: HandClock) -> None:
    await begin(store, LINE, "P3")
    await settle_all(reactor_of(store))
    clock.advance(31 * DAY_S)
    await pack_all(store)
    before = await store.field("P3")

    def without(db: sqlite3.Connection) -> None:
        (material,) = db.execute("SELECT material FROM archive").fetchone()
        tables = archive.unpack(material)
        steps = tables["steps"]
        kept = [at for at, name in enumerate(steps.columns) if name not in ("woken", "said", "base")]
        tables["steps"] = archive.Table(
            tuple(steps.columns[at] for at in kept), tuple(tuple(row[at] for at in kept) for row in steps.rows)
        )
        db.execute("UPDATE archive SET material = ?", (archive.pack(tables),))

    await store.db.write(without)
    assert await store.field("P3") == before


async def test_packing_makes_it_small(store: Store, clock: HandClock) -> None:
    await populate(store, clock)
    clock.advance(31 * DAY_S)

    def weight(db: sqlite3.Connection) -> int:
        tables = ("steps", "effects", "subjects", "waits", "events", "archive")
        values = [value for table in tables for row in db.execute(f"SELECT * FROM {table}") for value in row]
        return sum(len(value) if isinstance(value, bytes) else len(str(value)) for value in values)

    before = await store.db.read(weight)
    await pack_all(store)
    assert await store.db.read(weight) < before
    figures = await store.figures()
    assert figures.packed_runs == 7
    assert 0 < figures.packed_bytes < before
    assert await rows(store, "SELECT key FROM subjects") == [{"key": "run:cal/1"}], "others may join that one"


@pytest.mark.parametrize("table", archive.TABLES)
async def test_an_answer_leaves_nothing_behind(store: Store, clock: HandClock, table: str) -> None:
    await begin(store, LINE, "P3")
    await settle_all(reactor_of(store))
    clock.advance(31 * DAY_S)
    await pack_all(store)
    assert (await store.field("P3") or {})["runs"][0]["steps"]

    def left(db: sqlite3.Connection) -> list[Any]:
        return db.execute("SELECT name FROM temp.sqlite_master WHERE name LIKE ?", (f"%{table}%",)).fetchall()

    assert await store.db.read(left, aside=True) == []


UPKEEP = """
import asyncio, sys
from pathlib import Path
from aglowd import upkeep
from aglowd.clock import Clock
from aglowd.config import HistoryConfig
from aglowd.store.store import Store
from aglowd.store import archive, vacuum

archive.RUNS_AT_ONCE, vacuum.SPARE_PAGES, vacuum.PAGES_AT_ONCE, upkeep.REST_REAL_S = 1, 0, 20, 0.0

async def main():
    store = Store(Path(sys.argv[1]), Clock())
    await store.open()
    config = HistoryConfig(archive_after="1d", events_most=1000, events_keep="1d")
    await upkeep.Upkeep(store, store.clock, config, 0.0).look()
    await store.close()

asyncio.run(main())
"""


def tidy(path: Path, at: str = "") -> int:
    """One round in a process of its own, which dies at that point; its exit code."""
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **({AT: at} if at else {})}
    argv = [sys.executable, "-c", UPKEEP, str(path)]
    return subprocess.run(argv, env=given, capture_output=True, check=False, timeout=60).returncode


async def test_a_kill_anywhere_loses_nothing_and_the_next_round_goes_on(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "aglowd.db"
    async with opened(path, clock) as store:
        await populate(store, clock)
        before = await told(store, clock)
    kept = path.read_bytes()
    points = [f"store.{verb}:{when}:{number}" for verb, number in (("archive_runs", 3), ("prune_events", 1), ("give_back", 1))
              for when in ("before", "after")]  # fmt: skip
    for point in points:
        path.write_bytes(kept)
        assert tidy(path, point) == -signal.SIGKILL, point
        assert tidy(path) == 0
        async with opened(path, clock) as store:
            assert len(await packed(store)) == 7
            after = await told(store, clock)
            assert check_in_use(path) == []
        # What says how things stood is old, and of runs that were not packed then it went.
        for name in ("fields", "field P1", "history P1", "trace P1", "materials P1-1"):
            assert after[name] == before[name], (point, name)
