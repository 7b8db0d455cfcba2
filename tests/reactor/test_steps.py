"""One step after the other over a real store: conditions, templates, waits, and what becomes of a run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support import (
    HandClock,
    Played,
    begin,
    graph,
    new_reactor,
    settle_all,
    step,
    step_row,
)

from aglowd.model import Done, Outcome, Seen, StepView, Subject, Wait
from aglowd.store.store import Store

from .plays import STAGING, fails, run_row, states, until_seen

# --- one step after the other


async def test_a_run_goes_from_its_first_step_to_its_outputs(store: Store) -> None:
    pipeline = graph(
        "p",
        step("a", params={"say": "{{ field.site }} {{ config.colour }} {{ params.x }}"}),
        step("b", "a", params={"say": ["{{ steps.a.outputs.say }}", "{{ run.id }}"]}),
        outputs={"last": "{{ steps.b.outputs.say }}", "of": "{{ run.key }}/{{ field.name }}/{{ params.x }}"},
    )
    reactor = new_reactor(store, [Played()], pipeline)
    run = await begin(store, pipeline, x=3)
    assert await settle_all(reactor) == 2
    assert reactor.decisions == 2
    row = await run_row(store, run)
    assert (row["state"], row["reason"]) == ("done", "")
    assert msgspec.json.decode(row["outputs"]) == {"last": ["sara blue 3", run], "of": "P1+1/P1+1/3"}
    assert await settle_all(reactor) == 0
    assert store.bells.fields.is_set()


async def test_a_pipeline_whose_outputs_cannot_be_made_fails_its_run(store: Store) -> None:
    pipeline = graph("p", step("a"), outputs={"x": "{{ steps.a.outputs.nothing }}"})
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    row = await run_row(store, run)
    assert row["state"] == "failed"
    assert "its outputs cannot be made" in row["reason"]
    assert "nothing" in row["reason"]


async def test_outputs_that_are_no_table_fail_the_run(store: Store) -> None:
    pipeline = graph("p", step("a"), outputs="a text")
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    assert (await run_row(store, run))["reason"] == (
        "its outputs cannot be made: the outputs of a pipeline are a table"
    )


async def test_a_condition_that_does_not_hold_skips_the_step_and_what_hangs_on_it_alone(store: Store) -> None:
    pipeline = graph(
        "p",
        step("a", when="field.site == 'juelich'"),
        step("b", "a"),
        step("c", "b", join="done", when="{{ field.site == 'sara' }}"),
        step("d", "a", "c", params={"say": "{{ first(steps.a.outputs.say, steps.c.outputs.say, 5) }}"}),
        step("e", when=False),
    )
    played = Played()
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [played], pipeline))
    assert await states(store, run) == {"a": "skipped", "b": "skipped", "c": "done", "d": "done", "e": "skipped"}
    assert played.asked == ["c", "d"]
    row = await step_row(store, run, "a")
    assert row["reason"] == "its condition does not hold: field.site == 'juelich'"
    assert (await step_row(store, run, "b"))["reason"] == "its need a was skipped"
    assert (await run_row(store, run))["state"] == "done"


async def test_a_failure_is_inherited_and_the_run_keeps_the_reason_of_the_step_that_failed_itself(
    store: Store,
) -> None:
    pipeline = graph("p", step("a"), step("b", "a"), step("c", "b"), step("z", "c", join="done"))

    def last(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Done({"failed": params.say})

    pipeline = graph(
        "p", *list(pipeline.steps.values())[:3], step("z", "c", join="done", params={"say": "{{ run.failed }}"})
    )
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played({"a": fails("no tape"), "z": last})], pipeline))
    assert await states(store, run) == {"a": "failed", "b": "failed", "c": "failed", "z": "done"}
    assert (await step_row(store, run, "c"))["reason"] == "its need b failed"
    row = await run_row(store, run)
    assert (row["state"], row["reason"]) == ("failed", "a: no tape")
    outputs = msgspec.json.decode((await step_row(store, run, "z"))["outputs"])
    assert outputs == {"failed": [{"step": "a", "reason": "no tape"}]}


@pytest.mark.parametrize(
    "values",
    [{"params": {"say": "{{ field.nothing }}"}}, {"when": "field.nothing"}, {"pool": "x-{{ field.nothing }}"}],
)
async def test_a_template_that_cannot_be_filled_in_fails_its_step_for_good(
    store: Store, values: dict[str, Any]
) -> None:
    pipeline = graph("p", step("a", retries=5, **values))
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"]) == ("failed", 1)
    assert row["reason"].startswith("a template of step a (toy.toml:7) cannot be filled in: ")
    assert "nothing" in row["reason"]


async def test_a_fragments_argument_that_cannot_be_filled_in_fails_its_step_and_no_other(store: Store) -> None:
    bad = graph("bad", step("a", use={"x": "{{ field.nothing }}"}, params={"say": "{{ use.x }}"}))
    good = graph("good", step("a"))
    reactor = new_reactor(store, [Played()], bad, good)
    first, second = await begin(store, bad, "P1"), await begin(store, good, "P2")
    await settle_all(reactor)
    row = await step_row(store, first, "a")
    assert row["state"] == "failed"
    assert "nothing" in row["reason"]
    assert (await run_row(store, second))["state"] == "done"


async def test_a_fragment_that_is_skipped_needs_no_arguments(store: Store) -> None:
    """`when` is asked before any other template, also where a fragment's arguments come from a step that was skipped."""
    pipeline = graph(
        "p",
        step("a", when=False),
        step(
            "g_one", "a", join="done", when=False, use={"x": "{{ steps.a.outputs.say }}"}, params={"say": "{{ use.x }}"}
        ),
    )
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    assert await states(store, run) == {"a": "skipped", "g_one": "skipped"}


async def test_a_fragments_arguments_and_short_names_reach_its_steps(store: Store) -> None:
    pipeline = graph(
        "p",
        step("g_one", use={"x": "{{ field.site }}"}, local={"one": "g_one"}, params={"say": "{{ use.x }}"}),
        step("g_two", "g_one", use={"x": 1}, local={"one": "g_one"}, params={"say": "{{ steps.one.outputs.say }}"}),
        step("z", "g_two", params={"say": "{{ steps.g.outputs.say }}"}),
        aliases={"g": "g_two"},
        outputs={"x": "{{ steps.z.outputs.say }}"},
    )
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    assert (await run_row(store, run))["outputs"] == '{"x":"sara"}'


async def test_parameters_of_a_wrong_type_name_the_place(store: Store) -> None:
    pipeline = graph("p", step("a", retries=5, params={"number": "{{ field.site }}"}))
    run = await begin(store, pipeline)
    await settle_all(new_reactor(store, [Played()], pipeline))
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"]) == ("failed", 1)
    assert row["reason"] == "step a (toy.toml:7): Expected `int`, got `str` - at `$.number`"


# --- waiting


async def test_a_step_waits_for_its_subject_and_goes_on_with_what_was_seen(store: Store) -> None:
    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": until_seen})], pipeline)
    run = await begin(store, pipeline)
    assert await settle_all(reactor) == 1
    assert store.bells.subject("staging").is_set()
    assert await store.watched("staging") == [(STAGING, 0)]
    row = await step_row(store, run, "a")
    assert (row["state"], row["reason"], row["due"]) == ("waiting", "not looked at yet", store.clock.now() + 600)
    assert await store.ingest("staging", "7", [(STAGING, {"online": 1}), (Subject("staging", "13"), 1)]) == 1
    assert await store.cursor("staging") == "7"
    assert await settle_all(reactor) == 1
    assert (await states(store, run))["a"] == "done"
    assert await store.watched("staging") == []


async def test_a_wait_that_nobody_answers_is_asked_again_when_it_is_due(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("a"))
    played = Played({"a": until_seen})
    reactor = new_reactor(store, [played], pipeline)
    await begin(store, pipeline)
    await settle_all(reactor)
    assert await store.due() == clock.now() + 600
    clock.advance(599)
    await store.due()
    assert await settle_all(reactor) == 0
    clock.advance(1)
    store.bells.dirty.clear()
    await store.due()
    assert store.bells.dirty.is_set()
    assert await settle_all(reactor) == 1
    assert played.asked == ["a", "a"]


async def test_what_the_handler_is_given(store: Store) -> None:
    views: list[tuple[StepView, float]] = []

    def look(view: StepView, params: Any, seen: Seen) -> Outcome:
        views.append((view, seen.now))
        return Wait((), "rests", 60.0) if len(views) == 1 else Done()

    pipeline = graph("p", step("a"))
    reactor = new_reactor(store, [Played({"a": look})], pipeline)
    run = await begin(store, pipeline)
    begun = store.clock.now()
    await settle_all(reactor)
    store.clock.advance(60)  # type: ignore[attr-defined] # The test's clock
    await store.due()
    await settle_all(reactor)
    view = StepView(run, "a", "P1+1", 1, {"p": pipeline.digest})
    later = msgspec.structs.replace(view, begun=begun)
    assert views == [(view, 0.0), (later, store.clock.now())]
    assert view.key == f"{run}/a/1"
