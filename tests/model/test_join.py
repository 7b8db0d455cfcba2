"""Rule (c) of docs/design.md as a model test: the table of join × outcomes, and that order changes nothing."""

from __future__ import annotations

import random
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from aglowd.model import ENDED, RunState, StepState
from aglowd.rules import Verdict, advance, run_state, verdict

S = StepState
LIVE = [S.PENDING, S.READY, S.WORKING, S.WAITING]


def table(join: str, needs: list[StepState]) -> Verdict:
    """The table, row by row, as docs/design.md prints it."""
    broken = {S.FAILED, S.CANCELLED}
    if not needs:
        return Verdict.RUN
    if join == "all" and broken & set(needs):
        return Verdict.FAIL
    if join == "all" and set(needs) == {S.SKIPPED}:
        return Verdict.SKIP
    if join == "all" and set(needs) <= {S.DONE, S.SKIPPED}:
        return Verdict.RUN
    if join == "any" and S.DONE in needs:
        return Verdict.RUN
    if join == "any" and not set(needs) <= ENDED:
        return Verdict.WAIT
    if join == "any" and broken & set(needs):
        return Verdict.FAIL
    if join == "any":
        return Verdict.SKIP
    if join == "done" and set(needs) <= ENDED:
        return Verdict.RUN
    return Verdict.WAIT


@given(st.sampled_from(["all", "any", "done"]), st.lists(st.sampled_from(list(StepState)), max_size=6))
def test_the_verdict_is_that_of_the_table(join: str, needs: list[StepState]) -> None:
    assert verdict(join, needs) is table(join, needs)


class Node(NamedTuple):
    needs: tuple[str, ...]
    join: str


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Node]:
    nodes: dict[str, Node] = {}
    for number in range(draw(st.integers(1, 9))):
        needs = draw(st.lists(st.sampled_from(sorted(nodes)), unique=True, max_size=4)) if nodes else []
        nodes[f"s{number}"] = Node(tuple(needs), draw(st.sampled_from(["all", "any", "done"])))
    return nodes


def play(
    nodes: dict[str, Node], fates: dict[str, StepState], order: random.Random
) -> tuple[dict[str, StepState], list[str]]:
    """Run the graph to its end, ending ready steps in the given order; each step meets its own fate."""
    states = dict.fromkeys(nodes, S.PENDING)
    begun: list[str] = []
    states.update(advance(nodes, states))
    while ready := [name for name, state in states.items() if state is S.READY]:
        name = order.choice(ready)
        begun.append(name)
        states[name] = fates[name]
        states.update(advance(nodes, states))
    return states, begun


@given(graphs(), st.data(), st.integers(0, 2**32), st.integers(0, 2**32))
def test_no_run_gets_stuck_no_step_runs_twice_and_order_changes_nothing(
    nodes: dict[str, Node], data: st.DataObject, one: int, other: int
) -> None:
    fates = {name: data.draw(st.sampled_from([S.DONE, S.DONE, S.FAILED, S.SKIPPED, S.CANCELLED])) for name in nodes}
    states, begun = play(nodes, fates, random.Random(one))
    again, _ = play(nodes, fates, random.Random(other))
    assert all(state.is_ended for state in states.values()), "a run is stuck"
    assert len(begun) == len(set(begun)), "a step ran twice"
    assert states == again


@given(graphs(), st.data(), st.integers(0, 2**32))
def test_every_end_is_what_the_table_says_of_the_ends_of_its_needs(
    nodes: dict[str, Node], data: st.DataObject, seed: int
) -> None:
    fates = {name: data.draw(st.sampled_from([S.DONE, S.FAILED, S.SKIPPED])) for name in nodes}
    states, begun = play(nodes, fates, random.Random(seed))
    for name, node in nodes.items():
        says = table(node.join, [states[need] for need in node.needs])
        assert says is not Verdict.WAIT
        expected = {Verdict.RUN: fates[name], Verdict.SKIP: S.SKIPPED, Verdict.FAIL: S.FAILED}[says]
        assert states[name] is expected
        assert (name in begun) == (says is Verdict.RUN)


@given(st.lists(st.sampled_from(list(StepState)), min_size=1, max_size=6))
def test_a_run_ends_exactly_when_each_of_its_steps_has_ended(states: list[StepState]) -> None:
    result = run_state(states)
    assert (result is RunState.RUNNING) == bool(set(states) & set(LIVE))
    if result is not RunState.RUNNING:
        assert (result is RunState.FAILED) == (S.FAILED in states)
        assert (result is RunState.DONE) == (not {S.FAILED, S.CANCELLED} & set(states))
