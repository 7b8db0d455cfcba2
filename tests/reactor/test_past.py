"""What people ask about the past: it is told as it was told then, with what followed from what."""

from __future__ import annotations

from typing import Any

import pytest
from steered import WORD, Hand
from support import (
    FarSide,
    HandClock,
    Order,
    Played,
    Put,
    begin,
    decide,
    do,
    graph,
    new_reactor,
    one,
    only_work,
    perform_all,
    rows,
    settle_all,
    step,
)

from aglowd.effects.engine import Engine
from aglowd.errors import AglowError
from aglowd.handlers.run import Run
from aglowd.model import Done, Failed, FieldView, Outcome, Seen, StepState, StepView, Subject, Wait
from aglowd.store import past, traces
from aglowd.store.doubts import Word
from aglowd.store.pauses import Hold
from aglowd.store.store import Store

from .plays import STAGING, until_seen

SHARED = "calibrator/L229587"
KEY = f"{SHARED}-1056f49c"
"""What is shared, with the digest of how."""
RUN = "calibrator_L229587-1056f49c-1"
FIELD = graph(
    "target",
    step("first", retries=1, retry_delay_s=300.0),
    step("cal", "first", kind="run", params={"pipeline": "calibrator", "share": SHARED}),
    step("last", "cal"),
)
CHILD = graph("calibrator", step("reduce"))
SAID_THEN = ("field", "catalogue_status", "state", "reason", "run", "done_steps", "steps_total", "held")
STOOD = ("run", "step", "kind", "state", "attempt", "reason", "since", "held", "next")


def told(answer: Any) -> Any:
    """What an explanation says that one of that time must say too.

    Which command helps a step hangs on what it waits for, and on how what holds it is resumed: the log keeps neither.
    """
    general = {StepState.WAITING, StepState.READY}
    steps = [
        {name: step[name] for name in STOOD if name != "next" or not (step["held"] or step["state"] in general)}
        for step in answer["steps"]
    ]
    inner = [told({**dict.fromkeys(SAID_THEN), "steps": step["inner"]}) for step in answer["steps"] if "inner" in step]
    under_way = [[(effect["key"], effect["reason"]) for effect in step["effects"]] for step in answer["steps"]]
    return {name: answer[name] for name in SAID_THEN}, steps, inner, under_way


class Survey:
    """Two fields that share a calibrator, each moment with what was said of them then."""

    def __init__(self, store: Store, engine: Engine, world: FarSide, clock: HandClock) -> None:
        self.store, self.engine, self.world, self.clock = store, engine, world, clock
        tries = iter([Failed("no tape")])

        def first(view: StepView, params: Any, seen: Seen) -> Outcome:
            outcome = do(Put(what=view.key))(view, params, seen)
            return next(tries, outcome) if isinstance(outcome, Done) else outcome

        self.played = Played({"first": first, "reduce": until_seen, "last": do(Order(what="results"))})
        self.reactor = new_reactor(store, [self.played, Run()], FIELD, CHILD)
        self.hand = Hand(store, FIELD, CHILD)
        self.moments: list[tuple[float, dict[str, Any]]] = []

    async def go_on(self, seconds: float = 10.0) -> float:
        """Let all happen that can, remember what is said, and let time pass; returns when that was."""
        await settle_all(self.reactor)
        self.moments.append((self.clock.now(), {name: await self.store.explain(name) for name in ("P1", "P2", KEY)}))
        at = self.clock.now()
        self.clock.advance(seconds)
        return at

    async def perform(self) -> None:
        await perform_all(self.store, self.engine)

    async def live(self) -> None:
        """A retry, a calibrator that both wait for, a pause, a cancel, and an effect that is tried twice."""
        await self.store.put_fields([(FieldView("P1", "SND", {"site": "sara"}), ""), (FieldView("P2", "SND"), "")])
        await self.store.admit(FIELD, ["SND"], 10)
        await self.go_on()
        await self.perform()
        await self.go_on(400.0)  # The first of P1 has failed, and is to be tried again.
        await self.store.due()
        await self.go_on()
        await self.perform()
        await self.go_on()
        await self.store.hold("pause", [Hold("field", "P2")], Word(1000, "its parset is wrong"))
        await self.go_on()
        await self.hand("cancel", "P2", word=WORD)
        await self.go_on()
        await self.store.hold("resume", [Hold("field", "P2")], Word(1000, "mended"))
        await self.go_on()
        await self.store.ingest("staging", None, [(STAGING, {"online": 12})])
        await self.go_on()
        self.world.moods.append("temporary")
        await self.perform()
        await self.go_on(4_000.0)
        await self.perform()
        await self.go_on(4_000.0)
        await self.perform()
        await self.go_on()


@pytest.fixture
async def survey(store: Store, engine: Engine, world: FarSide, clock: HandClock) -> Survey:
    lived = Survey(store, engine, world, clock)
    await lived.live()
    return lived


async def test_the_life_is_what_the_tests_believe(survey: Survey) -> None:
    states = {row["id"]: row["state"] for row in await rows(survey.store, "SELECT id, state FROM runs")}
    assert states == {"P1-1": "done", "P2-1": "cancelled", RUN: "done"}


async def test_at_a_time_past_it_is_explained_as_it_was_then(survey: Survey) -> None:
    said = 0
    for at, answers in survey.moments:
        for name, answer in answers.items():
            if answer is not None:
                assert told(await survey.store.explain_then(name, at)) == told(answer), (name, at)
                said += len(answer["steps"])
    assert said > 15


async def test_what_a_step_had_seen_is_told_with_when(store: Store, clock: HandClock) -> None:
    def counts(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Wait((STAGING,), f"{seen.of(STAGING)} of 9", 600.0)

    pipeline = graph("p", step("s"))
    reactor = new_reactor(store, [Played({"s": counts})], pipeline)
    await begin(store, pipeline, "P1")
    times = []
    for number in range(3):
        await settle_all(reactor)
        times.append(clock.now())
        clock.advance(60.0)
        await store.ingest("staging", None, [(STAGING, {"online": number})])
    then = [(await store.explain_then("P1", at + 30.0))["steps"][0] for at in times]
    assert [step["reason"] for step in then] == ["None of 9", "{'online': 0} of 9", "{'online': 1} of 9"]
    assert [step["since"] for step in then] == times
    assert [[(one["evidence"], one["observed_at"]) for one in step["saw"]] for step in then] == [
        [], [({"online": 0}, times[1])], [({"online": 1}, times[2])],
    ]  # fmt: skip
    assert then[2]["due"] == times[2] + 600.0


async def test_of_a_time_before_the_first_nothing_is_known(survey: Survey) -> None:
    with pytest.raises(AglowError, match="nothing was known of P1 at that time"):
        await survey.store.explain_then("P1", survey.moments[0][0] - 1.0)


async def test_the_timeline_tells_steps_effects_and_people_in_order(survey: Survey) -> None:
    found = await survey.store.history("P1", 0.0, survey.clock.now(), "", 1000)
    assert found is not None
    entries = found["entries"]
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
    first = [
        (entry["kind"], entry["attempt"]) for entry in entries if entry["step"] == "first" and entry["what"] == "step"
    ]
    assert first == [
        ("StepReady", 1), ("StepWorks", 1), ("AttemptFailed", 1), ("StepWorks", 2), ("StepDone", 2),
    ]  # fmt: skip
    assert [entry["text"] for entry in entries if entry["kind"] == "AttemptFailed"] == [
        "attempt 1 of 2 failed: no tape"
    ]
    (order,) = [entry for entry in entries if entry["kind"] == "order"]
    assert (order["state"], order["tries"], order["step"]) == ("done", 1, "last")
    (works,) = [entry for entry in entries if entry["kind"] == "StepWorks" and entry["step"] == "last"]
    assert (works["changes"], "connection refused" in works["text"]) == (2, True), "the step says what its effect says"
    assert order["duration_s"] == pytest.approx(8_010.0, abs=4_100.0)
    shared = [(entry["kind"], entry["run"]) for entry in entries if entry["kind"].startswith("Shared")]
    assert shared == [("SharedRunStarted", RUN), ("SharedRunEnded", RUN)]
    assert not [entry for entry in entries if entry["kind"] == "SubjectChanged"]
    people = await survey.store.history("P2", 0.0, survey.clock.now(), "", 1000)
    assert people is not None
    said = [(e["kind"], e["uid"], e["text"]) for e in people["entries"] if e["what"] == "person"]
    assert said == [
        ("Paused", 1000, "its parset is wrong"),
        ("CancelOrdered", WORD.uid, WORD.reason),
        ("Resumed", 1000, "mended"),
    ]


async def test_a_timeline_is_of_a_time_of_a_run_or_of_the_latest(survey: Survey) -> None:
    now, late = survey.clock.now(), survey.moments[8][0]
    after = await survey.store.history("P1", late, now, "", 1000)
    assert after is not None
    assert {entry["step"] for entry in after["entries"] if entry["what"] == "effect"} == {"last"}
    assert all(entry["at"] >= late for entry in after["entries"])
    few = await survey.store.history("P1", 0.0, now, "P1-1", 3)
    assert few is not None
    assert (len(few["entries"]), few["entries"][-1]["kind"]) == (3, "RunEnded")
    assert few["left_out"] > 10
    assert await survey.store.history("P1", 0.0, now, "P2-1", 3) is None
    assert await survey.store.history("P9", 0.0, now, "", 3) is None


async def test_what_only_changes_its_reason_is_one_entry(store: Store, clock: HandClock) -> None:
    def counts(view: StepView, params: Any, seen: Seen) -> Outcome:
        outcome = until_seen(view, params, seen)
        return outcome if not isinstance(outcome, Done) else _wait_on(seen)

    pipeline = graph("p", step("s"))
    reactor = new_reactor(store, [Played({"s": counts})], pipeline)
    await begin(store, pipeline, "P1")
    for number in range(5):
        await settle_all(reactor)
        clock.advance(60.0)
        await store.ingest("staging", None, [(STAGING, number)])
    await settle_all(reactor)
    found = await store.history("P1", 0.0, clock.now(), "", 100)
    assert found is not None
    (waits,) = [entry for entry in found["entries"] if entry["kind"] == "StepWaits"]
    assert (waits["changes"], waits["text"], waits["last"] - waits["at"]) == (6, "4 of 9", 300.0)


def _wait_on(seen: Seen) -> Outcome:
    return Wait((STAGING,), f"{seen.of(STAGING)} of 9", 600.0)


async def test_every_event_of_a_field_leads_back_to_its_beginning(survey: Survey) -> None:
    found = await survey.store.trace("P1", 2000)
    assert found is not None
    events = {event["id"]: event for event in [*found["events"], *found["causes"]]}
    assert {event["field"] for event in found["events"]} == {"P1", KEY}, "the shared work is part of it"
    (end,) = [event for event in found["events"] if event["kind"] == "RunEnded" and event["field"] == "P1"]
    chain = [end]
    while chain[-1]["cause"]:
        around = await survey.store.trace(str(chain[-1]["cause"]), 1)
        assert around is not None
        chain.append(next(event for event in around["events"] if event["id"] == chain[-1]["cause"]))
    kinds = [(event["field"], event["step"], event["kind"]) for event in reversed(chain)]
    assert kinds[:2] == [("P2", "", "FieldChanged"), ("P2", "", "RunStarted")], "which had begun the calibrator"
    assert kinds[-6:] == [
        ("P1", "last", "StepWorks"), ("P1", "last", "EffectPlanned"), ("P1", "last", "EffectPutOff"),
        ("P1", "last", "EffectDone"), ("P1", "last", "StepDone"), ("P1", "", "RunEnded"),
    ]  # fmt: skip
    own = [event for event in found["events"] if event["kind"] == "RunStarted" and event["field"] == "P1"]
    assert [events[event["cause"]]["kind"] for event in own] == ["FieldChanged"]
    assert (KEY, "reduce", "SubjectChanged") in kinds, "the calibrator's files let the field go on"
    assert (KEY, "", "RunEnded") in kinds
    assert events.keys() >= {event["id"] for event in chain if event["field"] in ("P1", KEY)}


async def test_around_an_event_stands_what_led_to_it_and_what_followed(survey: Survey) -> None:
    (seen,) = await rows(survey.store, "SELECT id FROM events WHERE kind = 'SubjectChanged' AND step = 'reduce'")
    found = await survey.store.trace(str(seen["id"]), 2000)
    assert found is not None
    kinds = [(event["field"], event["kind"]) for event in found["events"] if event["id"] > seen["id"]]
    assert (KEY, "RunEnded") in kinds
    assert ("P1", "RunEnded") in kinds, "and so the field's end"
    assert ("P2", "SubjectChanged") not in kinds, "who was cancelled had stopped waiting"
    assert found["causes"] == []
    short = await survey.store.trace(str(seen["id"]), 2)
    assert short is not None
    assert short["left_out"] > 0
    assert await survey.store.trace("999999", 10) is None


async def test_a_step_and_an_effect_are_traced_by_their_names(survey: Survey) -> None:
    by_run = await survey.store.trace("P1-1/first", 100)
    by_field = await survey.store.trace("P1/first", 100)
    assert by_run is not None
    assert by_field is not None
    assert [event["id"] for event in by_run["events"]] == [event["id"] for event in by_field["events"]]
    assert by_run["what"] == "step"
    key = "P1-1/first/2/put/0"
    effect = await survey.store.trace(key, 100)
    assert effect is not None
    assert [event["kind"] for event in effect["events"]] == ["EffectPlanned", "EffectDone"]
    assert effect["effects"][key]["state"] == "done"
    assert effect["causes"][0]["kind"] == "StepWorks"
    assert await survey.store.trace("P1/nothing", 100) is None
    assert await survey.store.trace("nothing", 100) is None


async def test_a_persons_word_is_what_its_consequences_follow_from(survey: Survey) -> None:
    order = await one(survey.store, "SELECT id FROM events WHERE kind = 'CancelOrdered'")
    found = await survey.store.trace(str(order["id"]), 100)
    assert found is not None
    kinds = [(event["step"], event["kind"]) for event in found["events"]]
    assert kinds[0] == ("", "CancelOrdered")
    assert {("", "RunStopping"), ("last", "StepCancelled"), ("cal", "StepCancelled"), ("", "RunEnded")} <= set(kinds)


async def test_what_differs_between_two_times(survey: Survey) -> None:
    store, moments = survey.store, survey.moments
    early, late = moments[1][0], moments[5][0]
    found = await store.diff("P1", early, late)
    steps = {one["step"]: one for one in found["steps"]}
    assert steps["first"]["state"] == ["ready", "done"]
    assert steps["first"]["outputs"]["results"], "what it gave since"
    assert steps["cal"]["state"] == ["pending", "waiting"]
    assert found["changed"]["done_steps"] == [0, 1]
    assert (await store.diff("P1", late, late))["steps"] == []
    survey_wide = await store.diff("", moments[0][0], survey.clock.now())
    assert survey_wide["fields"] == {"archived": [0, 1], "cancelled": [0, 1], "running": [2, 0]}
    assert survey_wide["moved"] == [
        {"field": "P1", "state": ["running", "archived"]},
        {"field": "P2", "state": ["running", "cancelled"]},
    ]
    assert survey_wide["between"]["AttemptFailed"] == 1
    assert survey_wide["between"]["RunEnded"] == 3


async def test_a_run_that_went_back_is_told_as_it_was_before_and_after(store: Store, clock: HandClock) -> None:
    tries = iter([Failed("no", final=True)])
    pipeline = graph("p", step("a"), step("b", "a"), step("c", "b"))
    reactor = new_reactor(store, [Played({"b": lambda *_: next(tries, Done({"n": 1}))})], pipeline)
    run, hand = await begin(store, pipeline, "P1"), Hand(store, pipeline)
    clock.advance(10.0)
    await settle_all(reactor)
    failed = clock.now()
    clock.advance(10.0)
    await hand("retry", "P1")
    back = clock.now()
    clock.advance(10.0)
    await settle_all(reactor)
    then = [await store.explain_then("P1", at) for at in (failed, back, clock.now())]
    assert [answer["state"] for answer in then] == ["failed", "running", "done"]
    assert [answer["done_steps"] for answer in then] == [3, 1, 3], "what failed with it went back, too"
    assert then[0]["steps"][0]["reason"] == "no"
    assert (then[1]["steps"][0]["state"], then[1]["steps"][0]["attempt"]) == ("ready", 2)
    found = await store.diff("P1", failed, clock.now())
    assert [one for one in found["steps"] if one["step"] != "c"] == [
        {
            "run": run, "step": "b", "kind": "played", "state": ["failed", "done"], "attempt": [1, 2], "reason": ["no", "done"],
            "outputs": {"n": 1},
        }
    ]  # fmt: skip


async def test_tokens_are_compared(store: Store, clock: HandClock) -> None:
    tokens = Subject("tokens", "t1")

    def count(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Wait((tokens,), "tokens are done one by one", 600.0)

    pipeline = graph("p", step("s"))
    reactor = new_reactor(store, [Played({"s": count})], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    times = []
    for done in (1, 5):
        clock.advance(10.0)
        await store.ingest("tokens", None, [(tokens, {"done": done, "todo": 9 - done})])
        await settle_all(reactor)
        times.append(clock.now())
    found = await store.diff("P1", *times)
    assert found["steps"] == [
        {"run": "P1-1", "step": "s", "kind": "played", "tokens": [{"done": 1, "todo": 8}, {"done": 5, "todo": 4}]}
    ]


async def test_what_comes_during_a_decision_is_what_the_next_one_follows_from(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("s"))
    await begin(store, pipeline, "P1")
    await decide(store, pipeline, Wait((STAGING,), "nothing yet", 600.0))
    await store.ingest("staging", None, [(STAGING, 1)])
    looked = await only_work(store)
    await store.ingest("staging", None, [(STAGING, 2)])
    await decide(store, pipeline, Wait((STAGING,), "1 of 9", 600.0), looked)
    await decide(store, pipeline, Wait((STAGING,), "2 of 9", 600.0))
    clock.advance(700.0)
    await store.due()
    await decide(store, pipeline, Wait((STAGING,), "2 of 9 still", 600.0))
    events = {event["id"]: event for event in await store.events()}
    led = {
        event["data"]["reason"]: (events[event["cause"]]["kind"], events[event["cause"]]["data"])
        for event in events.values()
        if event["kind"] == "StepWaits"
    }
    assert led["1 of 9"] == ("SubjectChanged", 1)
    assert led["2 of 9"] == ("SubjectChanged", 2)
    assert led["2 of 9 still"][0] == "StepWaits", "its time had come, as the wait had said"


async def test_of_much_that_was_seen_the_last_is_shown(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = tuple(Subject("thing", str(number)) for number in range(6))
    pipeline = graph("p", step("s"))
    reactor = new_reactor(store, [Played({"s": lambda *_: Wait(things, "things", 600.0)})], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    await store.ingest("thing", None, [(thing, {"n": 1}) for thing in things])

    async def shown() -> list[str]:
        (waiting,) = (await store.explain_then("P1", clock.now()))["steps"]
        return [seen["subject"] for seen in waiting["saw"]]

    assert len(await shown()) == 6
    monkeypatch.setattr(past, "MAX_SUBJECTS", 4)
    assert await shown() == ["thing:5", "thing:4", "thing:3", "thing:2"]
    monkeypatch.setattr(past, "MAX_OBSERVATIONS", 2)
    assert await shown() == ["thing:5", "thing:4"]


async def test_of_what_was_too_long_the_beginning_is_shown_and_not_how_it_is_made(
    store: Store, clock: HandClock
) -> None:
    thing = Subject("thing", "1")
    pipeline = graph("p", step("s"))
    reactor = new_reactor(store, [Played({"s": lambda *_: Wait((thing,), "a thing", 600.0)})], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    await store.ingest("thing", None, [(thing, {"text": "x" * 5000})])
    (waiting,) = (await store.explain_then("P1", clock.now()))["steps"]
    ((name, text),) = waiting["saw"][0]["evidence"].items()
    assert (name, text[:12]) == ("cut", '{"text":"xxx')


async def test_of_a_long_descent_the_nearest_are_told(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_ANCESTORS", 2)
    last = await survey.store.last_event()
    found = await survey.store.trace(str(last), 100)
    assert found is not None
    assert len(found["events"]) == 3
    assert [event["id"] for event in found["causes"]] == [found["events"][0]["cause"]], "from where it goes on"


async def test_an_event_that_was_too_long_still_tells_its_reason(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("s"))
    await begin(store, pipeline, "P1")
    await decide(store, pipeline, Wait((STAGING,), 'it says "no" ' * 300, 600.0))
    (waiting,) = (await store.explain_then("P1", clock.now()))["steps"]
    assert waiting["state"] == "waiting"
    assert waiting["reason"].startswith('it says "no" it says')
    assert waiting["reason"].endswith("...")
    assert waiting["attempt"] == 1


async def test_how_far_back_the_log_is_whole_is_told(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("s"))
    await begin(store, pipeline, "P1")
    assert (await store.explain_then("P1", clock.now()))["whole_since"] is None
    for number in range(5):
        clock.advance(60.0)
        await decide(store, pipeline, Wait((STAGING,), f"{number} of 9", 600.0))
        await store.ingest("staging", None, [(STAGING, number)])
    await store.prune_events(3, 1e12)
    found = await store.history("P1", 0.0, clock.now(), "", 100)
    assert found is not None
    assert found["whole_since"] == clock.now() - 60.0
    kinds = [event["kind"] for event in await store.events()]
    assert kinds[0] == "RunStarted", "what was done stays"
    chain = await store.trace(str(await store.last_event()), 100)
    assert chain is not None, "a cause that has been forgotten ends the chain, and nothing else"


async def test_the_end_of_a_step_is_what_those_who_wait_for_it_follow(store: Store) -> None:
    pipeline = graph("p", step("a"), step("watch"))

    def watch(view: StepView, params: Any, seen: Seen) -> Outcome:
        subject = Subject("step", f"{view.run}/a")
        return Done() if seen.of(subject) else Wait((subject,), "a has not ended", 600.0)

    reactor = new_reactor(store, [Played({"watch": watch})], pipeline)
    await begin(store, pipeline, "P1")
    await settle_all(reactor)
    events = {event["id"]: event for event in await store.events()}
    (seen,) = [event for event in events.values() if event["kind"] == "SubjectChanged"]
    cause = events[seen["cause"]]
    assert (cause["step"], cause["kind"]) == ("a", "StepDone")
