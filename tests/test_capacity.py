"""What is left of every limit is told by those who keep it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from support import HandClock, Played, graph, new_reactor, settle_all, step

from aglowd.capacity import Capacity
from aglowd.model import FieldView, Outcome, Seen, StepView, Subject, Wait
from aglowd.store.store import Store
from aglowd.watchers.windows import Limits, Windows

WINDOW = Subject("window", "P1-1/s/1/0", {"site": "sara", "files": 40, "priority": 0, "since": 5.0})


def waits(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Wait((WINDOW,), "waits for its turn", 600.0)


async def test_limits_and_queues(store: Store, clock: HandClock) -> None:
    pipeline = graph("p", step("s", pool="staging"))
    reactor = new_reactor(store, [Played({"s": waits})], pipeline, pools={"staging": 1}, max_fields=2)
    views = [(FieldView(f"P{number}", "SND", priority=(number == 2, 0)), "") for number in (1, 2, 3)]
    await store.put_fields([*views, (FieldView("P4", "ZZZ"), "")])
    await store.admit(pipeline, ["SND"], 2)
    await settle_all(reactor)
    await store.ingest("window", None, [(WINDOW, {"files": 0, "why": "sara is full"})])
    sites = {"sara": 100}
    nobody: Any = SimpleNamespace(clock=clock)  # No system is asked.
    windows = Windows(nobody, store, 600.0, Limits(50, 10**12, 10**9, 500, sites, sites, sites))
    capacity = Capacity(store, [windows], {"staging": 1, "other": 3}, reactor.candidates)
    ahead = await capacity.look_ahead(clock.now() + 3_600.0)
    limits = {(one["what"], one["name"]): one for one in ahead["limits"]}
    fields = limits["fields", ""]
    assert (fields["used"], fields["limit"]) == (2, 2)
    assert fields["queue"] == [{"field": "P3", "why": "2 fields are under way, and max_fields is 2"}]
    pool = limits["pool", "staging"]
    assert (pool["used"], pool["limit"], [one["run"] for one in pool["queue"]]) == (1, 1, ["P2-1"])
    assert (limits["pool", "other"]["used"], limits["pool", "other"]["limit"]) == (0, 3)
    assert limits["files", "sara"]["queue"] == [
        {"run": "P1-1", "step": "s", "wants": 40, "since": 5.0, "why": "sara is full"}
    ]
    assert [one["step"] for one in ahead["timers"]] == ["s"]
