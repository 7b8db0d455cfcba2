"""The store's verbs: fields on offer, observations and who they wake, and what an operator is shown."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from typing import Any

import msgspec
import pytest
from support import (
    FarSide,
    HandClock,
    Order,
    Put,
    begin,
    decide,
    graph,
    kinds_of_events,
    new_engine,
    one,
    only_effect,
    only_work,
    opened,
    perform_all,
    rows,
    step,
    step_row,
)

from aglowd.effects.catalogue import WriteStatus
from aglowd.errors import StaleVersion
from aglowd.model import Do, Done, EffectState, Failed, FieldView, Spawn, Subject, Wait
from aglowd.store.journal import MAX_EVENT_BYTES, MIN_CUT_CHARS
from aglowd.store.recipes import MAX_RECIPE_CHARS
from aglowd.store.rows import dumps
from aglowd.store.runs import Decision
from aglowd.store.store import REASK_S, Store
from aglowd.store.views import MAX_EVENTS

GRAPH = graph("p", step("s"))
TIMED = graph("timed", step("s", timeout_s=600))
A, B = Subject("toy", "a", {"n": 1}), Subject("toy", "b")


def offered(name: str, status: str = "SND", problem: str = "", **data: Any) -> tuple[FieldView, str]:
    return FieldView(name, status, data), problem


async def end(store: Store, outcome: Done | Failed) -> None:
    for work in await store.next_dirty():
        await store.finish(Decision(work, outcome, GRAPH))


async def waits(store: Store, *subjects: Subject, due_s: float = 600.0) -> None:
    await decide(store, GRAPH, Wait(subjects, "because", due_s))


# --- fields


async def test_fields_are_admitted_by_status_and_never_more_than_there_is_room(store: Store) -> None:
    assert await store.put_fields([offered(f"P{n}") for n in range(4)] + [offered("Z", "ZZZ")]) == 5
    assert store.bells.fields.is_set()
    assert await store.admit(GRAPH, ["SND", "JND"], 2) == 2
    assert await store.admit(GRAPH, ["SND", "JND"], 2) == 0
    assert [field["field"] for field in await store.fields() if field["state"] == "running"] == ["P0", "P1"]
    await end(store, Done())
    assert await store.admit(GRAPH, ["SND", "JND"], 3) == 2
    assert (await store.status())["fields"] == {"archived": 2, "running": 2, "offered": 1}


async def test_a_field_whose_run_has_ended_runs_again_only_when_its_row_was_changed(store: Store) -> None:
    await store.put_fields([offered("P1")])
    await store.admit(GRAPH, ["SND"], 5)
    assert await store.put_fields([offered("P1")]) == 0, "the same row again is no news"
    await end(store, Failed("no tape"))
    assert await store.admit(GRAPH, ["SND"], 5) == 0, "a failed field starts again by itself"
    assert await store.put_fields([offered("P1", "RRR")]) == 1
    assert await store.admit(GRAPH, ["SND"], 5) == 0
    assert await store.put_fields([offered("P1", "SND")]) == 1
    assert await store.admit(GRAPH, ["SND"], 5) == 1
    field = await store.field("P1")
    assert field is not None
    assert [run["state"] for run in field["runs"]] == ["failed", "running"]
    assert field["run"] == "P1-2"


async def test_a_row_with_a_problem_ends_as_failed_and_the_others_go_on(store: Store) -> None:
    await store.put_fields([offered("A", problem="line 3: 5 columns, expected 14"), offered("B")])
    assert await store.admit(GRAPH, ["SND"], 5) == 1
    assert await store.admit(GRAPH, ["SND"], 5) == 0
    field = await store.field("A")
    assert field is not None
    assert (field["state"], field["reason"], field["runs"]) == ("failed", "line 3: 5 columns, expected 14", [])
    assert (await kinds_of_events(store)).count("FieldRefused") == 1, "told once"
    await store.put_fields([offered("A")])
    assert await store.admit(GRAPH, ["SND"], 5) == 1


async def test_a_run_sees_the_row_that_it_was_started_with(store: Store) -> None:
    await store.put_fields([offered("P1", target={"obsid": "L1"})])
    await store.admit(GRAPH, ["SND"], 5)
    await store.put_fields([offered("P1", target={"obsid": "L2"})])
    context = (await only_work(store)).run.context
    assert context == {"name": "P1", "status": "SND", "site": "", "target": {"obsid": "L1"}}


async def test_no_bell_rings_for_what_was_not_committed(store: Store) -> None:
    """Two that share a commit fail together: who was called by a bell would find nothing."""

    def breaks(db: sqlite3.Connection) -> None:
        db.execute("INSERT OR ROLLBACK INTO cursors VALUES ('one', 'again')")

    await store.ingest("one", "1", ())
    store.bells.dirty.clear()
    results = await asyncio.gather(begin(store, GRAPH), store.db.write(breaks), return_exceptions=True)
    assert [type(result) for result in results] == [sqlite3.IntegrityError] * 2
    assert not store.bells.dirty.is_set()
    await begin(store, GRAPH)
    assert store.bells.dirty.is_set()


# --- observations


async def test_facts_and_their_cursor_commit_together(store: Store) -> None:
    await begin(store, GRAPH)
    await waits(store, A)
    assert await store.cursor("toy") is None
    commits = store.db.commits
    assert await store.ingest("toy", "17", [(A, {"x": 1})]) == 1
    assert store.db.commits == commits + 1
    assert await store.cursor("toy") == "17"
    assert await store.ingest("toy", "18", [(A, {"x": 1})]) == 0
    assert await store.cursor("toy") == "18"


async def test_the_first_observation_is_delivered_even_if_nothing_is_there(store: Store) -> None:
    await begin(store, GRAPH)
    await waits(store, A)
    assert await store.ingest("toy", None, [(A, None)]) == 1
    seen = (await only_work(store)).seen
    assert seen.observations[A.key].version == 1
    assert seen.of(A) is None
    assert seen.of(B) is None


async def test_an_observation_between_look_and_wait_is_not_slept_over(store: Store) -> None:
    for key in ("P1", "P2"):
        await begin(store, GRAPH, key)
    first, second = await store.next_dirty()
    await decide(store, GRAPH, Wait((A,), "because", 600.0), first)
    await store.ingest("toy", None, [(A, 1)])
    await decide(store, GRAPH, Wait((A,), "because", 600.0), second)
    dirty = {work.run.id: work for work in await store.next_dirty()}
    assert second.run.id in dirty
    assert dirty[second.run.id].seen.of(A) == 1


async def test_a_mark_that_is_set_during_a_decision_survives_it(store: Store) -> None:
    await begin(store, GRAPH)
    await waits(store, A)
    await store.ingest("toy", None, [(A, 1)])
    looked = await only_work(store)
    await store.ingest("toy", None, [(A, 2)])
    await decide(store, GRAPH, Wait((B,), "the other one", 600.0), looked)
    again = await only_work(store)
    assert again.seen.of(A) == 2, "what an attempt was once shown it keeps seeing"
    await decide(store, GRAPH, Wait((B,), "the other one", 600.0))
    assert await store.next_dirty() == []
    assert await store.watched("toy") == [(B, 0)], "what is no longer waited for is looked at"
    await store.ingest("toy", None, [(A, 3)])
    assert await store.next_dirty() == []


async def test_what_a_step_no_longer_waits_for_wakes_only_those_that_do(store: Store) -> None:
    for key in ("P1", "P2"):
        await begin(store, GRAPH, key)
    first, second = await store.next_dirty()
    await decide(store, GRAPH, Wait((A,), "because", 600.0), first)
    await decide(store, GRAPH, Wait((A,), "because", 600.0), second)
    await store.ingest("toy", None, [(A, 1)])
    first, second = await store.next_dirty()
    await decide(store, GRAPH, Wait((B,), "the other one", 600.0), first)
    await decide(store, GRAPH, Wait((A,), "because", 600.0), second)
    await store.ingest("toy", None, [(A, 2)])
    assert [work.run.id for work in await store.next_dirty()] == [second.run.id]


async def test_a_fault_keeps_the_mark_that_was_set_during_the_decision(store: Store) -> None:
    """Only the finish that saw what a mark was set for may clear it."""
    await begin(store, GRAPH)
    await waits(store, A)
    await store.ingest("toy", None, [(A, 1)])
    looked = await only_work(store)
    await store.ingest("toy", None, [(A, 2)])
    await store.add_fault(Decision(looked, Done(), GRAPH), "a defect", 60.0)
    row = await step_row(store, looked.run.id, "s")
    assert row["dirty"] is not None


async def test_the_outcome_of_an_effect_marks_its_step_in_the_same_commit(store: Store) -> None:
    run = await begin(store, GRAPH)
    await decide(store, GRAPH, Do.all(Put(what="x")))
    commits = store.db.commits
    await store.settle(await only_effect(store), EffectState.DONE, 1)
    assert store.db.commits == commits + 1
    assert (await step_row(store, run, "s"))["dirty"] is not None
    assert store.bells.dirty.is_set()


async def test_due_comes_again_should_its_decision_get_lost(store: Store, clock: HandClock) -> None:
    await begin(store, GRAPH)
    await waits(store, A)
    clock.advance(600)
    assert await store.due() == clock.now() + REASK_S
    assert len(await store.next_dirty()) == 1


async def test_without_anything_to_wait_for_there_is_no_timer(store: Store) -> None:
    assert await store.due() is None


@pytest.mark.parametrize("change", ["stopping = 'cancel'", "deadline = NULL", "deadline = deadline + 60"])
async def test_a_decision_is_not_committed_over_what_is_no_decision(store: Store, change: str) -> None:
    """A cancel, a time that ran out or was lengthened: none of these moves the step, and each counts."""
    await begin(store, TIMED)
    await decide(store, TIMED, Wait((Subject("tokens", "T"),), "tokens", 60.0))
    await store.ingest("tokens", None, [(Subject("tokens", "T"), {"done": 1})])
    looked = await only_work(store)
    assert looked.step.deadline is not None
    await store.db.write(lambda db: db.execute(f"UPDATE steps SET {change}").rowcount)
    before = await rows(store, "SELECT * FROM steps")
    with pytest.raises(StaleVersion, match="changed since it was looked at"):
        await decide(store, GRAPH, Done(), looked)
    assert await rows(store, "SELECT * FROM steps") == before
    await decide(store, TIMED, Done())


async def test_a_decision_on_a_step_that_has_changed_is_not_committed(store: Store) -> None:
    await begin(store, GRAPH)
    looked = await only_work(store)
    await decide(store, GRAPH, Done())
    before = await rows(store, "SELECT * FROM steps")
    with pytest.raises(StaleVersion):
        await decide(store, GRAPH, Failed("no"), looked)
    assert await rows(store, "SELECT * FROM steps") == before
    gone = msgspec.structs.replace(looked, run=msgspec.structs.replace(looked.run, id="nobody"))
    with pytest.raises(StaleVersion):
        await decide(store, GRAPH, Done(), gone)


async def test_no_more_steps_are_handed_out_than_asked_for(store: Store) -> None:
    for number in range(5):
        await begin(store, GRAPH, f"P{number}")
    assert len(await store.next_dirty(most=3)) == 3


# --- what people see


async def test_status_counts_everything_that_moves(store: Store, clock: HandClock) -> None:
    two = graph("two", step("wait"), step("work"), step("later", "work"))
    run = await begin(store, two)
    since = clock.now()
    for work in [*await store.next_dirty()]:
        await store.finish(Decision(work, Wait((A,), "because", 600.0), two))
    clock.advance(5)
    for work in [*await store.next_dirty()]:
        await store.finish(Decision(work, Do.all(Put(what="x")), two))
    status = await store.status()
    assert status["steps"] == {"waiting": 1, "working": 1, "pending": 1}
    assert status["effects"] == {"open": 1}
    assert status["fields"] == {}
    assert status["waiting"] == [{"kind": "played", "n": 1, "since": since}]
    assert status["last_event"] == len(await store.events())
    assert run == "P1_1-1"


async def test_fields_show_their_longest_standing_step(store: Store, clock: HandClock) -> None:
    two = graph("two", step("a"), step("b"), step("c", "a"))
    await store.put_fields([offered("P1")])
    await store.admit(two, ["SND"], 5)
    began = clock.now()
    await decide(store, two, Wait((A,), "waits for a", 600.0))
    clock.advance(10)
    await decide(store, two, Done())
    (field,) = await store.fields()
    expected = {"field": "P1", "state": "running", "done_steps": 1, "steps_total": 3, "step": "a", "since": began}
    assert {key: field[key] for key in expected} == expected
    assert (field["reason"], field["due"]) == ("waits for a", began + 600)
    found = await store.field("P1")
    assert found is not None
    assert [entry["state"] for entry in found["runs"][0]["steps"]] == ["waiting", "done", "pending"]
    assert await store.field("nobody") is None


async def test_a_step_that_only_waits_for_others_of_its_run_is_told_of_last(store: Store, clock: HandClock) -> None:
    two = graph("two", step("keeps"), step("works"))
    follows = Subject("step", "P1-1/works")
    await store.put_fields([offered("P1")])
    await store.admit(two, ["SND"], 5)
    outcomes = {"keeps": Wait((follows,), "keeps", 600.0), "works": Wait((A,), "waits for a", 600.0)}
    for name, outcome in outcomes.items():
        (work,) = (work for work in await store.next_dirty() if work.step.name == name)
        await decide(store, two, outcome, work)
        clock.advance(10)
    (field,) = await store.fields()
    assert (field["step"], field["reason"]) == ("works", "waits for a"), "though the other has stood for longer"
    told = {entry["step"]: entry["next"] for entry in await explained(store)}
    assert told["keeps"].startswith("it goes on when works has ended; ")
    await store.ingest("test", None, [(A, {"n": 1})])
    (work,) = await store.next_dirty()
    await decide(store, two, Done(), work)
    (field,) = await store.fields()
    assert field["step"] == "keeps", "nothing else moves"


async def explained(store: Store, name: str = "P1") -> list[dict[str, Any]]:
    answer = await store.explain(name)
    assert answer is not None
    steps: list[dict[str, Any]] = answer["steps"]
    return steps


async def test_explain_says_for_what_since_when_and_what_comes_next(store: Store, clock: HandClock) -> None:
    await store.put_fields([offered("P1")])
    assert await explained(store) == []
    await store.admit(GRAPH, ["SND"], 5)
    (entry,) = await explained(store)
    assert entry["next"].startswith("it begins as soon as there is a place")
    assert entry["next"].endswith("not to wait any longer: aglowctl skip P1-1 s, or aglowctl cancel P1-1")
    await waits(store, A)
    await store.ingest("toy", None, [(A, {"online": 1, "files": ["x" * 50] * 20, "few": [1, 2]})])
    (entry,) = await explained(store)
    assert (entry["step"], entry["state"], entry["reason"]) == ("s", "waiting", "because")
    assert (entry["since"], entry["due"]) == (clock.now(), clock.now() + 600)
    evidence = {"online": 1, "files": "20 entries", "few": [1, 2]}
    assert entry["waits_for"] == [{"subject": "toy:a", "observed_at": clock.now(), "evidence": evidence}]
    assert entry["next"].startswith("it is decided again when what it waits for changes")
    assert await store.explain("nobody") is None


async def test_explain_shows_effects_and_doubts(store: Store, world: FarSide, clock: HandClock) -> None:
    await store.put_fields([offered("P1")])
    await store.admit(GRAPH, ["SND"], 5)
    await decide(store, GRAPH, Do.all(Order(what="x")))
    world.moods.append("temporary")
    await perform_all(store, new_engine(store, world))
    (entry,) = await explained(store)
    (effect,) = entry["effects"]
    assert (effect["state"], effect["tries"], effect["next_at"]) == ("planned", 1, clock.now() + 15)
    assert effect["reason"] == entry["reason"] == "order is tried again: connection refused"
    assert entry["next"] == (
        "aglowd goes on with the effect by itself: how the system does that it needs, says aglowctl status; "
        "to give it up: aglowctl cancel P1-1"
    )
    clock.advance(15)
    await store.put_off(await only_effect(store), EffectState.DOUBT, "two of them", 60.0)
    (entry,) = await explained(store)
    assert entry["next"] == (
        "aglowd looks for it once an hour; who can tell whether it happened says so: "
        f"aglowctl doubt adopt {effect['key']} REF, aglowctl doubt retry {effect['key']}, "
        f"or aglowctl doubt forget {effect['key']}"
    )


async def test_explain_tells_a_retry_from_an_end(store: Store) -> None:
    again = graph("again", step("s", retries=1))
    await store.put_fields([offered("P1")])
    await store.admit(again, ["SND"], 5)
    await decide(store, again, Failed("bad luck"))
    (entry,) = await explained(store)
    assert entry["next"].startswith("the next attempt begins by itself")
    await store.put_fields([offered("P2")])
    await store.admit(GRAPH, ["SND"], 5)
    await decide(store, GRAPH, Failed("no tape"))
    (entry,) = await explained(store, "P2")
    assert (entry["state"], entry["reason"]) == ("failed", "no tape")
    assert entry["next"].startswith(f"nothing by itself; to go on from here: aglowctl retry {entry['run']}")


async def test_explain_follows_a_wait_into_the_run_behind_it(store: Store) -> None:
    child = graph("child", step("inner"))
    await store.put_fields([offered("P1")])
    await store.admit(GRAPH, ["SND"], 5)
    spawn = Spawn("cal", "child", {}, "waits for cal", 600.0, shared=True)
    await store.finish(Decision(await only_work(store), spawn, GRAPH, child=child))
    (entry,) = await explained(store)
    assert [inner["step"] for inner in entry["inner"]] == ["inner"]
    assert entry["waits_for"][0]["subject"] == "run:cal"
    (run,) = await rows(store, "SELECT * FROM runs WHERE key = 'cal'")
    assert (run["field"], run["state"]) == ("cal", "running")


async def test_a_done_run_that_is_not_wanted_is_followed_by_one_and_no_more(store: Store) -> None:
    """Whoever says so later, for whatever it saw earlier, joins the one that was begun instead, however that stands."""
    child = graph("child", step("inner"))
    graphs = {"P1": GRAPH, "cal": child}

    async def spawn(field: str, instead_of: str) -> list[str]:
        await begin(store, GRAPH, field)
        for work in await store.next_dirty():
            if work.run.field == field:
                wanted = Spawn("cal", "child", {}, "they are gone", 600.0, shared=True, instead_of=instead_of)
                await store.finish(Decision(work, wanted, GRAPH, child=child))
        return [row["id"] for row in await rows(store, "SELECT id FROM runs WHERE key = 'cal' ORDER BY created, id")]

    async def end_child() -> None:
        for work in await store.next_dirty():
            if work.run.key == "cal":
                await store.finish(Decision(work, Done(), graphs["cal"]))

    assert await spawn("P1", "") == ["cal-1"]
    assert await spawn("P2", "cal-1") == ["cal-1"], "it is under way, and so joined"
    await end_child()
    assert await spawn("P3", "cal-0") == ["cal-1"], "another one was not wanted"
    assert await spawn("P4", "cal-1") == ["cal-1", "cal-2"]
    assert await spawn("P5", "cal-1") == ["cal-1", "cal-2"]
    await end_child()
    assert await spawn("P6", "cal-1") == ["cal-1", "cal-2"], "the new one is done by now"
    assert (await kinds_of_events(store)).count("RunBegunAnew") == 1


async def test_a_failure_that_was_inherited_is_not_explained_twice(store: Store) -> None:
    chain = graph("chain", step("a"), step("b", "a"))
    await store.put_fields([offered("P1")])
    await store.admit(chain, ["SND"], 5)
    await decide(store, chain, Failed("no tape"))
    assert [entry["step"] for entry in await explained(store)] == ["a"]


async def test_events_are_read_from_an_id_on_and_by_field(store: Store) -> None:
    await begin(store, GRAPH, "P1")
    await begin(store, GRAPH, "P2")
    await end(store, Done())
    events = await store.events()
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert [event["id"] for event in await store.events(since=3)] == [event["id"] for event in events[3:]]
    assert len(await store.events(most=2)) == 2
    mine = await store.events(field="P1")
    assert [event["kind"] for event in mine] == ["RunStarted", "StepReady", "StepDone", "RunEnded"]
    assert await store.events(since=mine[0]["id"], field="P1") == mine[1:]
    assert mine[-1]["data"] == {"state": "done", "reason": ""}
    assert await store.events(field="P1", most=1) == mine[-1:]


async def test_no_answer_holds_more_events_than_its_limit(store: Store) -> None:
    await store.put_fields([offered(f"P{n}") for n in range(MAX_EVENTS + 5)])
    assert len(await store.events(most=10**6)) == MAX_EVENTS


async def test_a_long_fact_is_cut_in_its_event_and_whole_in_its_subject(store: Store) -> None:
    await begin(store, GRAPH)
    await waits(store, A)
    long = {"text": "x" * 10_000}
    await store.ingest("toy", None, [(A, long)])
    (event,) = [event for event in await store.events() if event["kind"] == "SubjectChanged"]
    beside = {name: value for name, value in event["data"].items() if name != "cut"}
    assert len(event["data"]["cut"]) + len(dumps(beside)) == MAX_EVENT_BYTES
    assert (await only_work(store)).seen.of(A) == long


async def test_beside_a_long_recipe_stands_a_beginning_that_people_can_read(store: Store) -> None:
    await begin(store, GRAPH)
    await waits(store, A)
    long = [random.Random(number).getrandbits(64) for number in range(300)]
    await store.ingest("toy", None, [(A, long)])
    (event,) = [event for event in await store.events() if event["kind"] == "SubjectChanged"]
    assert MAX_EVENT_BYTES < len(event["data"]["made"]) <= MAX_RECIPE_CHARS
    assert event["data"]["cut"] == dumps(long)[:MIN_CUT_CHARS]


async def test_an_observation_is_an_event_of_each_run_that_waits_for_it(store: Store) -> None:
    for key in ("P1", "P2"):
        await begin(store, GRAPH, key)
    for work in await store.next_dirty():
        await store.finish(Decision(work, Wait((A,), "because", 600.0), GRAPH))
    await store.ingest("toy", None, [(A, 1)])
    changed = [event for event in await store.events() if event["kind"] == "SubjectChanged"]
    assert [(event["field"], event["subject"]) for event in changed] == [("P1", "toy:a"), ("P2", "toy:a")]
    await end(store, Done())
    await store.ingest("toy", None, [(A, 2)])
    last = (await store.events())[-1]
    assert (last["kind"], last["field"], last["run"]) == ("SubjectChanged", "", "")


async def test_the_definition_of_a_run_is_kept(store: Store) -> None:
    await begin(store, GRAPH)
    assert msgspec.json.decode(await store.pipeline(GRAPH.digest), type=type(GRAPH)) == GRAPH
    assert await store.count_runs_of("p") == 1
    assert await store.count_runs_of("q") == 0


async def test_what_was_committed_is_there_after_a_restart(store: Store, clock: HandClock) -> None:
    await begin(store, GRAPH)
    await waits(store, A)
    await store.ingest("toy", "9", [(A, 1)])
    work = await only_work(store)
    await store.close()
    async with opened(store.db.path, clock) as again:
        assert await only_work(again) == work
        assert await again.cursor("toy") == "9"
        for bell in ("dirty", "effects", "timers", "fields"):
            assert getattr(again.bells, bell).is_set()
        assert (await one(again, "SELECT count(*) AS n FROM runs"))["n"] == 1


async def test_a_status_set_back_by_hand_is_an_offer_though_the_catalogue_was_not_read_in_between(store: Store) -> None:
    """Claimed, failed, RRR, and SND again within one poll: the store has seen nothing but SND."""
    offered = [(FieldView("P1", "SND"), "")]
    await store.put_fields(offered)
    assert await store.admit(GRAPH, ("SND",), 5) == 1
    await decide(store, GRAPH, Do.all(WriteStatus(field="P1", expect="SND", status="RRR")))
    await store.settle(await only_effect(store), EffectState.DONE, {"status": "RRR"})
    await decide(store, GRAPH, Failed("it was not to be", final=True))
    assert await store.admit(GRAPH, ("SND",), 5) == 0, "our own word is no offer"
    await store.put_fields(offered)
    assert await store.admit(GRAPH, ("SND",), 5) == 1
