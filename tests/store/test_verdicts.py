"""Operators' verdicts: given once, to a step that waits, in one commit with its mark and its event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support import HandClock, begin, graph, new_reactor, opened, settle_all, step, step_row

from aglowd.errors import AglowError
from aglowd.handlers.await_approval import AwaitApproval
from aglowd.store.store import Store
from aglowd.store.verdicts import Verdict

PLOTS = ["https://x/1.png", "https://x/2.png"]
ONE = graph("one", step("inspect", kind="await_approval", params={"question": "well?", "show": PLOTS}))
TWO = graph(
    "two",
    *(step(name, kind="await_approval", retries=1, retry_delay_s=1.0, timeout_s=100.0) for name in ("a", "b")),
)
GOOD = Verdict(True, "good", "fine", 7)
POOR = Verdict(False, "poor", "no fringes", 7)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "aglowd.db", HandClock()) as made:
        yield made


async def played(store: Store, *pipelines: Any) -> Any:
    reactor = new_reactor(store, [AwaitApproval()], *pipelines)
    await settle_all(reactor)
    return reactor


async def test_a_verdict_is_recorded_told_of_and_acted_on(store: Store) -> None:
    run = await begin(store, ONE)
    reactor = await played(store, ONE)
    told = await store.judge("P1+1", "", GOOD)
    assert told == {
        "run": run, "step": "inspect", "approved": True, "verdict": "good", "reason": "fine", "uid": 7, "at": store.clock.now(),
    }  # fmt: skip
    (event,) = [event for event in await store.events() if event["kind"] == "Approved"]
    assert (event["field"], event["step"], event["data"]["uid"]) == ("P1+1", "inspect", 7)
    await settle_all(reactor)
    assert (await step_row(store, run, "inspect"))["state"] == "done"
    with pytest.raises(AglowError, match=r"no step of 'P1\+1' waits for a verdict"):
        await store.judge("P1+1", "", GOOD)


async def test_what_is_rejected_fails_its_run_without_another_attempt(store: Store) -> None:
    run = await begin(store, TWO)
    reactor = await played(store, TWO)
    await store.judge(run, "a", POOR)
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"], row["reason"]) == ("failed", 1, "rejected as poor by uid 7: no fringes")
    assert [event["data"]["reason"] for event in await store.events() if event["kind"] == "Rejected"] == ["no fringes"]


async def test_a_verdict_survives_a_restart_and_is_given_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db", HandClock()) as store:
        run = await begin(store, ONE)
        await played(store, ONE)
        await store.judge("P1+1", "inspect", GOOD)
        with pytest.raises(AglowError, match="has its verdict already"):
            await store.judge("P1+1", "inspect", POOR)
    async with opened(tmp_path / "x.db", HandClock()) as store:
        await played(store, ONE)
        assert (await step_row(store, run, "inspect"))["state"] == "done"


async def test_which_step_is_meant_must_be_clear(store: Store) -> None:
    with pytest.raises(AglowError, match="no step of 'P9' waits"):
        await store.judge("P9", "", GOOD)
    run = await begin(store, TWO)
    await played(store, TWO)
    with pytest.raises(AglowError, match=f"several steps of 'P1.1' wait for a verdict, .*{run} a, {run} b"):
        await store.judge("P1+1", "", GOOD)
    with pytest.raises(AglowError, match=r"the step 'c' of 'P1.1' does not wait for a verdict; those that do: a, b"):
        await store.judge("P1+1", "c", GOOD)


async def test_a_new_attempt_does_not_take_an_old_verdict(store: Store) -> None:
    """It was given to what was shown then."""
    clock = store.clock
    assert isinstance(clock, HandClock)
    run = await begin(store, TWO)
    reactor = await played(store, TWO)
    clock.advance(101.0)
    await store.due()
    await settle_all(reactor)
    clock.advance(2.0)
    await store.due()
    await settle_all(reactor)
    row = await step_row(store, run, "a")
    assert (row["state"], row["attempt"]) == ("waiting", 2)
    await store.judge(run, "a", GOOD)
    await settle_all(reactor)
    assert (await step_row(store, run, "a"))["state"] == "done"


async def test_what_is_shown_is_linked_while_it_waits_and_afterwards(store: Store) -> None:
    await begin(store, ONE)
    reactor = await played(store, ONE)

    async def plots() -> list[str]:
        found = await store.field("P1+1")
        assert found is not None
        return [url for one in found["runs"][0]["steps"] for url in one["plots"]]

    assert await plots() == PLOTS
    explained = await store.explain("P1+1")
    assert explained is not None
    assert explained["steps"][0]["plots"] == PLOTS
    await store.judge("P1+1", "", GOOD)
    await settle_all(reactor)
    assert await plots() == PLOTS
