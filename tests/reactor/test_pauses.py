"""What is paused decides nothing new, what is drained takes up nothing new, and both are told, kept and lifted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from steered import Hand
from support import (
    FarSide,
    HandClock,
    Played,
    Put,
    begin,
    do,
    graph,
    new_engine,
    new_reactor,
    opened,
    perform_all,
    rows,
    settle_all,
    step,
    step_row,
)

from aglowd.effects.engine import Engine
from aglowd.errors import AglowError, StaleVersion
from aglowd.model import Done, FieldView
from aglowd.store.doubts import Word
from aglowd.store.pauses import MAX_PAUSES, Hold
from aglowd.store.runs import Decision
from aglowd.store.store import Store

from .plays import STAGING, fails, run_row, states, until_seen

WORD = Word(1000, "maintenance")
EVERYTHING = Hold("everything")
PIPELINE = graph("p", step("a"), step("b", "a"))


async def test_a_paused_field_decides_nothing_new_and_what_is_under_way_ends(
    store: Store, engine: Engine, world: FarSide
) -> None:
    reactor = new_reactor(store, [Played({"a": do(Put(what="x"))})], PIPELINE)
    runs = [await begin(store, PIPELINE, key) for key in ("P1", "P2")]
    await settle_all(reactor)
    await store.hold("pause", [Hold("field", "P1")], WORD)
    await perform_all(store, engine)
    await settle_all(reactor)
    assert len(world.things) == 2, "what was under way has not ended"
    assert [await states(store, run) for run in runs] == [{"a": "working", "b": "pending"}, {"a": "done", "b": "done"}]
    await store.hold("resume", [Hold("field", "P1")], WORD)
    await settle_all(reactor)
    assert (await run_row(store, runs[0]))["state"] == "done"
    events = await rows(store, "SELECT kind, field, data FROM events WHERE kind IN ('Paused', 'Resumed')")
    assert [(event["kind"], event["field"]) for event in events] == [("Paused", "P1"), ("Resumed", "P1")]
    data = msgspec.json.decode(events[0]["data"])
    assert (data["uid"], data["reason"]) == (1000, "maintenance")


@pytest.mark.parametrize(
    ("hold", "held"),
    [
        (EVERYTHING, ["P1", "P2", "P3"]),
        (Hold("kind", "played"), ["P1", "P2", "P3"]),
        (Hold("kind", "stage"), []),
        (Hold("site", "sara"), ["P1"]),
        (Hold("site", "juelich"), ["P2"]),
        (Hold("site", "poznan"), ["P3"]),
    ],
    ids=str,
)
async def test_kinds_sites_and_everything_are_held(store: Store, hold: Hold, held: list[str]) -> None:
    """The site is what the field says, what the run was given, or what one of its steps found out."""
    pipeline = graph("p", step("list"), step("a", "list"))
    plays = {"list": lambda view, *_: Done({"site": "poznan"} if view.field == "P3" else {}), "a": until_seen}
    reactor = new_reactor(store, [Played(plays)], pipeline)
    for key, params, context in (("P1", {}, {"site": "sara"}), ("P2", {"site": "juelich"}, {}), ("P3", {}, {})):
        await store.start_run(pipeline, key=key, field=key, params=params, context={"name": key, **context})
    await settle_all(reactor)
    await store.hold("pause", [hold], WORD)
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    found = await rows(store, "SELECT field FROM runs WHERE state = 'running' ORDER BY field")
    assert [row["field"] for row in found] == held
    for name in held:
        answer = await store.explain(name)
        assert answer is not None
        (entry,) = answer["steps"]
        assert entry["reason"].startswith("paused")
        assert "by uid 1000: maintenance; not looked at yet" in entry["reason"]
        option = f"--{hold.scope} {hold.name}".strip()
        assert entry["next"] == f"nothing new until it is resumed: aglowctl resume {option}"
    (told,) = (await store.status())["paused"]
    assert (told["scope"], told["name"], told["mode"], told["uid"]) == (hold.scope, hold.name, "pause", 1000)
    await store.hold("resume", [hold], WORD)
    await settle_all(reactor)
    assert await rows(store, "SELECT field FROM runs WHERE state = 'running'") == []


async def test_a_decision_that_was_made_before_the_pause_is_not_committed(store: Store) -> None:
    await begin(store, PIPELINE)
    (work,) = await store.next_dirty()
    await store.hold("pause", [EVERYTHING], WORD)
    with pytest.raises(StaleVersion, match="is held since it was looked at"):
        await store.finish(Decision(work, Done(), PIPELINE))
    assert await store.next_dirty() == []
    await store.hold("resume", [EVERYTHING], WORD)
    assert len(await store.next_dirty()) == 1, "the mark was lost"


async def test_a_pause_is_kept_over_restarts(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "kept" / "aglowd.db"
    async with opened(path, clock) as store:
        await begin(store, PIPELINE)
        await store.hold("pause", [EVERYTHING], WORD)
    async with opened(path, clock) as store:
        reactor = new_reactor(store, [Played()], PIPELINE)
        assert await settle_all(reactor) == 0
        await store.hold("resume", [EVERYTHING], WORD)
        assert await settle_all(reactor) == 2


async def test_a_pause_takes_nothing_from_a_timeout_and_fires_no_timer(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a", timeout_s=100.0), step("b", retries=1, retry_delay_s=50.0))
    reactor = new_reactor(store, [Played({"a": until_seen, "b": fails("no")})], pipeline)
    run = await begin(store, pipeline)
    await settle_all(reactor)
    clock.advance(40)
    await store.hold("pause", [Hold("field", "P1+1"), EVERYTHING], WORD)
    clock.advance(500)
    at = await store.due()
    assert at is None or at > clock.now(), "a timer that nobody answers fires for ever"
    assert await settle_all(reactor) == 0
    await store.hold("resume", [EVERYTHING], WORD)
    clock.advance(500)
    await store.due()
    assert await settle_all(reactor) == 0, "something else holds it still"
    await store.hold("resume", [Hold("field", "P1+1")], WORD)
    assert (await step_row(store, run, "a"))["deadline"] == clock.now() + 60
    await settle_all(reactor)
    assert await states(store, run) == {"a": "waiting", "b": "failed"}
    clock.advance(60)
    await store.due()
    await settle_all(reactor)
    assert await states(store, run) == {"a": "failed", "b": "failed"}


async def test_a_free_place_goes_to_a_step_that_may_take_it(store: Store) -> None:
    pipeline = graph("p", step("a", pool="one"))
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline, pools={"one": 1})
    runs = {}
    for key in ("P1", "P2", "P3"):
        runs[key] = await begin(store, pipeline, key)
        await settle_all(reactor)
    await store.hold("pause", [Hold("field", "P2")], WORD)
    await settle_all(reactor)
    await store.ingest("staging", None, [(STAGING, 1)])
    await settle_all(reactor)
    assert [(await states(store, run))["a"] for run in runs.values()] == ["done", "ready", "done"]
    await store.hold("resume", [Hold("field", "P2")], WORD)
    await settle_all(reactor)
    assert [(await run_row(store, run))["state"] for run in runs.values()] == ["done", "done", "done"]


async def test_what_is_paused_can_be_cancelled(store: Store) -> None:
    reactor = new_reactor(store, [Played({"a": until_seen})], PIPELINE)
    run = await begin(store, PIPELINE)
    await settle_all(reactor)
    await store.hold("pause", [EVERYTHING], WORD)
    await Hand(store, PIPELINE)("cancel", run)
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "cancelled"


@pytest.mark.parametrize("verb", ["pause", "drain"])
@pytest.mark.parametrize("hold", [EVERYTHING, Hold("field", "P1"), Hold("site", "sara")], ids=str)
async def test_no_new_field_is_taken_while_it_is_held(store: Store, verb: str, hold: Hold) -> None:
    await store.put_fields([(FieldView("P1", "SND", site="sara"), ""), (FieldView("P2", "SND"), "")])
    await store.hold(verb, [hold], WORD)
    assert await store.admit(PIPELINE, ["SND"], 10) == (0 if hold == EVERYTHING else 1)
    store.bells.fields.clear()
    await store.hold("resume", [hold], WORD)
    assert store.bells.fields.is_set()
    await store.admit(PIPELINE, ["SND"], 10)
    assert len(await rows(store, "SELECT * FROM runs")) == 2


async def test_what_runs_is_finished_while_it_is_drained(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a", retries=1, retry_delay_s=10.0), step("b", "a", kind="other"))
    tries = iter([False, True])

    class Other(Played):
        kind = "other"

    def play(*_: Any) -> Any:
        return Done() if next(tries) else fails("no")(*_)

    reactor = new_reactor(store, [Played({"a": play}), Other()], pipeline)
    run = await begin(store, pipeline)
    await store.hold("drain", [EVERYTHING, Hold("kind", "other")], WORD)
    await settle_all(reactor)
    await store.hold("drain", [Hold("kind", "played")], WORD)
    clock.advance(10)
    await store.due()
    await settle_all(reactor)
    assert await states(store, run) == {"a": "done", "b": "ready"}, (
        "a drained kind of step begins, or ends in the middle"
    )
    await store.hold("resume", [Hold("kind", "other")], WORD)
    await settle_all(reactor)
    assert (await run_row(store, run))["state"] == "done"


async def test_what_makes_no_sense_is_refused(store: Store) -> None:
    with pytest.raises(AglowError, match="nothing of that is held; held is: nothing"):
        await store.hold("resume", [EVERYTHING], WORD)
    await store.hold("pause", [Hold("field", "P1")], WORD)
    with pytest.raises(AglowError, match="field P1: held like that already"):
        await store.hold("pause", [Hold("field", "P1")], WORD)
    with pytest.raises(AglowError, match=r"held is: field P1 \(pause\)"):
        await store.plan_hold("resume", [Hold("site", "sara")])
    told = await store.hold("drain", [Hold("field", "P1"), Hold("field", "P2")], WORD)
    assert list(told.holds) == [
        {"scope": "field", "name": "P1", "mode": "pause"},
        {"scope": "field", "name": "P2", "mode": ""},
    ]
    with pytest.raises(AglowError, match=f"expected at most {MAX_PAUSES}"):
        await store.hold("pause", [Hold("field", f"Q{number}") for number in range(MAX_PAUSES)], WORD)
    await store.hold("pause", [Hold("field", f"Q{number}") for number in range(MAX_PAUSES - 2)], WORD)
    assert len((await store.status())["paused"]) == MAX_PAUSES


async def test_the_engine_goes_on_with_what_a_paused_step_has_in_the_journal(
    store: Store, world: FarSide, clock: HandClock
) -> None:
    reactor = new_reactor(store, [Played({"a": do(Put(what="x"))})], PIPELINE)
    await begin(store, PIPELINE)
    await settle_all(reactor)
    world.moods.append("temporary")
    engine = new_engine(store, world)
    await perform_all(store, engine)
    await store.hold("pause", [EVERYTHING], WORD)
    answer = await store.explain("P1+1")
    assert answer is not None
    assert answer["steps"][0]["next"] == (
        "aglowd goes on with the effect by itself: how the system does that it needs, says aglowctl status; "
        "then it is held: aglowctl resume --everything"
    )
    clock.advance(60)
    await perform_all(store, engine)
    assert len(world.things) == 1
