"""Shared work that was done before somebody joins it: a look tells whether what it left still exists; else it is done anew."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from steered import Hand
from support import HandClock, Played, begin, graph, new_reactor, rows, settle_all, step, step_row

from aglowd.handlers.run import Run
from aglowd.model import Done, Failed, Outcome, Seen, StepView, Subject, Wait
from aglowd.store.store import Store

from .plays import run_row

SOLUTIONS = "file:///cal/a.tar"
KEPT = {"absent": False, "files": [{"url": SOLUTIONS, "size_bytes": 7}]}
GONE = {"absent": False, "files": []}
CALIBRATOR = graph(
    "calibrator", step("reduce"), params=("obsid",), outputs={"solutions": ["{{ steps.reduce.outputs.at }}"]}
)
PARAMS = {
    "pipeline": "calibrator",
    "share": "cal",
    "params": {"obsid": "L229587"},
    "must_exist": ["solutions"],
}
FIELD = graph("target", step("cal", kind="run", params=PARAMS), step("z", "cal"))


def reduces(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Wait until it is solved; "" says that it cannot be."""
    solved = Subject("solved", view.key)
    found = seen.of(solved)
    if found is None:
        return Wait((solved,), "not solved yet", 600.0)
    return Done({"at": found}) if found else Failed("no solutions")


class Fields:
    """Fields that share a calibrator, and their reactor."""

    def __init__(self, store: Store, clock: HandClock) -> None:
        self.store, self.clock = store, clock
        self.reactor = new_reactor(store, [Played({"reduce": reduces}), Run()], FIELD, CALIBRATOR)
        self.hand = Hand(store, FIELD, CALIBRATOR)

    async def settle(self) -> None:
        await settle_all(self.reactor)
        self.clock.advance(60)

    async def begin(self, field: str) -> str:
        run = await begin(self.store, FIELD, field)
        await self.settle()
        return run

    async def solve(self, at: str = SOLUTIONS) -> None:
        """The calibrator that is under way comes to its end."""
        ((subject, _),) = await self.store.watched("solved")
        await self.store.ingest("solved", None, [(subject, at)])
        await self.settle()

    async def look(self, *listings: Any) -> None:
        """Each directory that is waited for is looked into."""
        subjects = [subject for subject, _ in await self.store.watched("directory")]
        assert [subject.args for subject in subjects] == [{"url": "file:///cal"}] * len(listings)
        await self.store.ingest("storage", None, zip(subjects, listings, strict=True))
        await self.settle()

    async def calibrators(self) -> list[tuple[str, str]]:
        """The number of each, and how it stands."""
        found = await rows(self.store, "SELECT id, state FROM runs WHERE key LIKE 'cal-%' ORDER BY id")
        return [(row["id"].rpartition("-")[2], row["state"]) for row in found]

    async def reason(self, run: str) -> str:
        return str((await step_row(self.store, run, "cal"))["reason"])

    async def states(self, *runs: str) -> list[str]:
        return [(await run_row(self.store, run))["state"] for run in runs]

    async def used(self, run: str) -> str:
        """The number of the calibrator whose solutions it has."""
        outputs = msgspec.json.decode((await step_row(self.store, run, "cal"))["outputs"])
        return str(outputs["run"].rpartition("-")[2])


@pytest.fixture
async def fields(store: Store, clock: HandClock) -> Fields:
    """P1 has its calibrator, and is done."""
    made = Fields(store, clock)
    first = await made.begin("P1")
    await made.solve()
    assert await made.states(first) == ["done"], "who waited for it takes its word"
    assert await made.calibrators() == [("1", "done")]
    return made


async def test_what_is_done_is_adopted_after_one_look(fields: Fields) -> None:
    late = await fields.begin("P2")
    assert await fields.states(late) == ["running"], "it was adopted without a look"
    await fields.look(KEPT)
    assert (await fields.states(late), await fields.used(late)) == (["done"], "1")
    assert await fields.calibrators() == [("1", "done")]
    assert await fields.store.watched("directory") == [], "one look is enough"


@pytest.mark.parametrize("listing", [GONE, {"absent": True, "files": []}])
async def test_what_is_gone_is_done_anew_once_for_all_who_come_later(fields: Fields, listing: Any) -> None:
    late = [await fields.begin("P2"), await fields.begin("P3")]
    await fields.look(listing, GONE)
    assert await fields.calibrators() == [("1", "done"), ("2", "running")]
    why = f"the solutions at {SOLUTIONS} are gone; cal-"
    assert (await fields.reason(late[0])).startswith(why), "explain says why it waits again"
    late.append(await fields.begin("P4"))
    assert (await fields.reason(late[2])).startswith("waiting for the run cal-"), "the new one is under way"
    await fields.solve()
    assert await fields.states(*late) == ["done"] * 3
    assert await fields.calibrators() == [("1", "done"), ("2", "done")]
    assert [await fields.used(run) for run in late] == ["2"] * 3
    (told,) = [event for event in await fields.store.events() if event["kind"] == "RunBegunAnew"]
    assert (told["run"].rpartition("-")[2], told["data"]["instead_of"].rpartition("-")[2]) == ("2", "1")
    assert told["data"]["reason"].startswith(why)
    assert told["data"]["reason"].endswith(" runs again")


async def test_what_was_done_anew_may_be_gone_once_more(fields: Fields) -> None:
    await fields.begin("P2")
    await fields.look(GONE)
    await fields.solve()
    later = await fields.begin("P3")
    await fields.look(GONE)
    assert await fields.calibrators() == [("1", "done"), ("2", "done"), ("3", "running")]
    await fields.solve()
    assert (await fields.states(later), await fields.used(later)) == (["done"], "3")


async def test_who_looked_late_joins_what_another_has_begun(fields: Fields) -> None:
    """One look is answered, the other one only when the new run is done: its word counts for both."""
    late = [await fields.begin("P2"), await fields.begin("P3")]
    (first, _), (second, _) = await fields.store.watched("directory")
    await fields.store.ingest("storage", None, [(first, GONE)])
    await fields.settle()
    await fields.solve()
    await fields.store.ingest("storage", None, [(second, GONE)])
    await fields.settle()
    assert await fields.states(*late) == ["done", "done"]
    assert await fields.calibrators() == [("1", "done"), ("2", "done")]


async def test_a_look_that_fails_is_waited_for_and_begins_nothing(fields: Fields) -> None:
    late = await fields.begin("P2")
    for _ in range(3):
        await fields.store.ingest("storage", None, [])  # What could not be listed is left out.
        fields.clock.advance(2 * 3600)
        await fields.store.due()
        await fields.settle()
        reason = await fields.reason(late)
        assert reason.startswith("looking whether the solutions of cal-")
        assert reason.endswith("-1 still exist at file:///cal")
        assert await fields.calibrators() == [("1", "done")]
    await fields.look(KEPT)
    assert await fields.used(late) == "1"


async def test_who_began_it_anew_may_be_cancelled_and_the_others_keep_it(fields: Fields) -> None:
    first, other = await fields.begin("P2"), await fields.begin("P3")
    await fields.look(GONE, GONE)
    await fields.hand("cancel", "P2")
    await fields.settle()
    assert await fields.states(first, other) == ["cancelled", "running"]
    assert await fields.calibrators() == [("1", "done"), ("2", "running")]
    await fields.solve()
    assert await fields.states(other) == ["done"]


async def test_the_last_who_waits_takes_the_new_one_with_it_and_who_comes_then_begins_it(fields: Fields) -> None:
    await fields.begin("P2")
    await fields.look(GONE)
    await fields.hand("cancel", "P2")
    await fields.settle()
    assert await fields.calibrators() == [("1", "done"), ("2", "cancelled")]
    await fields.begin("P3")
    assert await fields.calibrators() == [("1", "done"), ("2", "cancelled"), ("3", "running")]


async def test_who_is_cancelled_while_it_looks_leaves_all_as_it_is(fields: Fields) -> None:
    late = await fields.begin("P2")
    await fields.hand("cancel", "P2")
    await fields.settle()
    assert await fields.states(late) == ["cancelled"]
    assert await fields.calibrators() == [("1", "done")]


async def test_the_failure_of_the_new_one_reaches_all_and_one_retry_serves_all(fields: Fields) -> None:
    late = [await fields.begin("P2"), await fields.begin("P3")]
    await fields.look(GONE, GONE)
    await fields.solve("")
    assert await fields.states(*late) == ["failed", "failed"]
    await fields.hand("retry", "P2")
    await fields.settle()
    assert await fields.calibrators() == [("1", "done"), ("2", "running")]
    await fields.solve()
    assert await fields.states(*late) == ["done", "done"]
    assert [await fields.used(run) for run in late] == ["2", "2"]


async def test_a_retry_of_who_adopted_looks_again(fields: Fields) -> None:
    late = await fields.begin("P2")
    await fields.look(KEPT)
    await fields.hand("retry", "P2", steps=("cal",))
    await fields.settle()
    await fields.look(GONE)
    assert await fields.calibrators() == [("1", "done"), ("2", "running")]
    await fields.solve()
    assert (await fields.states(late), await fields.used(late)) == (["done"], "2")


async def test_a_clock_that_was_set_back_does_not_hide_the_new_one(fields: Fields) -> None:
    """Which run of a key is the latest is what was begun last, whatever the clock said."""
    late = [await fields.begin("P2"), await fields.begin("P3")]
    fields.clock.advance(-86_400)
    await fields.look(GONE, GONE)
    assert await fields.calibrators() == [("1", "done"), ("2", "running")]
    await fields.solve("")
    assert await fields.states(*late) == ["failed", "failed"]
    await fields.hand("retry", "P2")
    await fields.settle()
    assert await fields.calibrators() == [("1", "done"), ("2", "running")]
    await fields.solve()
    assert await fields.states(*late) == ["done", "done"]
