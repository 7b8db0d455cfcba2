"""What tests of the commands share: a hand that gives them to a store, as the control socket does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from support import Put

from aglowd.model import Effect
from aglowd.pipeline import Pipeline
from aglowd.reactor import Pipelines
from aglowd.store.doubts import Word
from aglowd.store.plans import Order, Plan
from aglowd.store.store import Store

WORD = Word(1000, "the parset was wrong")


class WriteStatus(Put, frozen=True, kw_only=True):
    """A status in a catalogue of the far side."""

    kind: ClassVar[str] = "write_status"
    what: str = ""
    field: str
    expect: str
    status: str


def rewritten(field: str, shown: str, wanted: str, ordinal: int) -> Effect:
    return WriteStatus(field=field, expect=shown, status=wanted, ordinal=ordinal)


class Hand:
    """A person at the store: each command by its verb."""

    def __init__(self, store: Store, *pipelines: Pipeline) -> None:
        self.store = store
        self.graph_of = Pipelines({one.name: one for one in pipelines}).of

    async def plan(self, verb: Any, *targets: str, **values: Any) -> Plan:
        return await self.store.plan(Order(verb, targets, **values), self.graph_of)

    async def __call__(self, verb: Any, *targets: str, version: str = "", word: Word = WORD, **values: Any) -> Plan:
        order = Order(verb, targets, **values)
        return await self.store.steer(order, version, word, self.graph_of, rewritten)


def becomes(plan: Plan) -> Mapping[str, dict[str, str]]:
    """Run → step → what it becomes."""
    return {one.run: {touch.step: touch.becomes for touch in one.touches} for one in plan.runs}
