"""The pure rules by which a run advances: docs/design.md (c) is this file as a table.

No I/O, no time, no order: the same states give the same answer however they came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from aglowd.model import ENDED, RunState, StepState


class Verdict(StrEnum):
    """What the outcomes of its needs mean for a step."""

    RUN = "run"
    WAIT = "wait"
    SKIP = "skip"
    FAIL = "fail"


class Node(Protocol):
    """What the rules must know of a step."""

    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def join(self) -> str: ...


BROKEN = frozenset({StepState.FAILED, StepState.CANCELLED})
SKIPPED = frozenset({StepState.SKIPPED})


def verdict(join: str, outcomes: Sequence[StepState]) -> Verdict:
    """Whether a step with this join may run, given the states of its needs."""
    if not outcomes:
        return Verdict.RUN
    found = set(outcomes)
    ended = found <= ENDED
    broken = not found.isdisjoint(BROKEN)
    if join == "done":
        return Verdict.RUN if ended else Verdict.WAIT
    if join == "any":
        if StepState.DONE in found:
            return Verdict.RUN
        if not ended:
            return Verdict.WAIT
        return Verdict.FAIL if broken else Verdict.SKIP
    if broken:
        return Verdict.FAIL
    if found == SKIPPED:
        return Verdict.SKIP
    return Verdict.RUN if ended else Verdict.WAIT


_MOVES = {Verdict.RUN: StepState.READY, Verdict.SKIP: StepState.SKIPPED, Verdict.FAIL: StepState.FAILED}


def advance(nodes: Mapping[str, Node], states: Mapping[str, StepState]) -> dict[str, StepState]:
    """The pending steps that move now, each with its new state; skips and failures are followed to their end."""
    now = dict(states)
    moved: dict[str, StepState] = {}
    behind: dict[str, list[str]] = {}
    for name, node in nodes.items():
        for need in node.needs:
            behind.setdefault(need, []).append(name)
    queue = [name for name, state in now.items() if state is StepState.PENDING]
    while queue:
        name = queue.pop()
        if now[name] is not StepState.PENDING:
            continue
        node = nodes[name]
        move = _MOVES.get(verdict(node.join, [now[need] for need in node.needs]))
        if move is not None:
            now[name] = moved[name] = move
            if move.is_ended:
                queue.extend(behind.get(name, ()))
    return moved


def run_state(states: Iterable[StepState], *, is_cancelled: bool = False) -> RunState:
    """How the run of these steps stands: it ends when each of them has ended; who cancelled it has the last word."""
    seen = set(states)
    if not all(state.is_ended for state in seen):
        return RunState.RUNNING
    if is_cancelled:
        return RunState.CANCELLED
    if StepState.FAILED in seen:
        return RunState.FAILED
    return RunState.CANCELLED if StepState.CANCELLED in seen else RunState.DONE
