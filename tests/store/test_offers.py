"""Which fields the store takes, what a preview of it says, and that both are one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support import decide, graph, kinds_of_events, only_work, step

from aglowd.model import Done, FieldView
from aglowd.selection import Candidate, Verdict, select
from aglowd.store.doubts import Word
from aglowd.store.pauses import Hold
from aglowd.store.runs import Decision
from aglowd.store.store import Store

GRAPH = graph("p", step("s"))
LISTS = graph("p", step("list", kind="srm_list"), step("more", "list"))
SITES = {"sara": 2, "juelich": 1}


def offered(
    name: str, priority: tuple[int, int] = (0, 0), site: str = "", status: str = "SND", problem: str = "", **data: Any
) -> tuple[FieldView, str]:
    return FieldView(name, status, data, priority, site), problem


async def running(store: Store) -> set[str]:
    return {field["field"] for field in await store.fields() if field["state"] == "running"}


async def why(store: Store, most: int = 9) -> dict[str, str]:
    found = await store.candidates(["SND"], most, SITES)
    return {one["field"]: one["reason"] or "starts" for one in found["candidates"]}


async def test_what_the_preview_says_is_what_is_done(store: Store) -> None:
    await store.put_fields(
        [
            offered("low", site="sara"),
            offered("high", (3, 0), "sara"),
            offered("never", (0, -1), "juelich"),
            offered("j1", site="juelich"),
            offered("j2", site="juelich"),
            offered("unsaid"),
            offered("moon", site="moon"),
            offered("done", status="ZZZ"),
            offered("bad", problem="line 3: 5 columns"),
        ]
    )
    before = await store.candidates(["SND"], 9, SITES)
    assert [one["field"] for one in before["candidates"] if one["starts"]] == ["high", "j1", "unsaid", "low"]
    assert before["candidates"][0] == {
        "field": "high",
        "status": "SND",
        "priority": [3, 0],
        "site": "sara",
        "starts": True,
        "queued": False,
        "reason": "",
    }
    assert (before["running"], before["max_fields"], before["fields_at_once"]) == ({}, 9, SITES)
    assert await running(store) == set(), "a preview does nothing"
    assert await store.admit(GRAPH, ["SND"], 9, SITES) == 4
    assert await running(store) == {"high", "j1", "unsaid", "low"}
    assert await why(store) == {
        "j2": "1 fields are under way at juelich, and its fields_at_once is 1",
        "never": "the priority of its field is -1: it is skipped",
        "moon": "its data lie at 'moon', which is no configured site; expected one of juelich, sara",
        "done": "its status is ZZZ, and only SND are taken",
        "bad": "line 3: 5 columns",
    }
    assert (await why(store, 3))["j2"] == "4 fields are under way, and max_fields is 3"
    assert (await store.candidates(["SND"], 9, SITES))["running"] == {"": 1, "juelich": 1, "sara": 2}


async def test_a_field_of_an_unknown_site_is_refused_once_and_taken_when_its_site_is_configured(store: Store) -> None:
    await store.put_fields([offered("P1", site="moon")])
    for _ in range(3):
        assert await store.admit(GRAPH, ["SND"], 9, SITES) == 0
    field = await store.field("P1")
    assert field is not None
    assert (field["state"], field["runs"]) == ("failed", [])
    assert "'moon', which is no configured site" in field["reason"]
    assert (await store.status())["fields"] == {"failed": 1}
    assert (await kinds_of_events(store)).count("FieldRefused") == 1, "told once"
    assert await store.admit(GRAPH, ["SND"], 9, {**SITES, "moon": 1}) == 1
    assert (await store.status())["fields"] == {"running": 1}


async def test_a_field_that_was_refused_and_is_on_offer_no_more_is_no_failure(store: Store) -> None:
    await store.put_fields([offered("P1", site="moon")])
    await store.admit(GRAPH, ["SND"], 9, SITES)
    await store.put_fields([offered("P1", site="moon", status="ZZZ")])
    await store.admit(GRAPH, ["SND"], 9, SITES)
    assert (await store.status())["fields"] == {"offered": 1}


async def test_a_site_that_the_catalogue_does_not_say_is_learnt_from_the_list(store: Store) -> None:
    await store.put_fields([offered("A"), offered("B", site="juelich")])
    assert await store.admit(LISTS, ["SND"], 1, SITES) == 1
    assert (await store.candidates(["SND"], 9, SITES))["running"] == {"": 1}
    await decide(store, LISTS, Done({"site": "juelich", "surls": ["srm://x"]}))
    assert (await store.candidates(["SND"], 9, SITES))["running"] == {"juelich": 1}
    assert await store.admit(LISTS, ["SND"], 9, SITES) == 0, "it counts at its site from now on"
    await decide(store, LISTS, Done(), await only_work(store))
    assert await store.admit(LISTS, ["SND"], 9, SITES) == 1


async def test_a_changed_priority_is_obeyed_and_is_no_new_offer(store: Store) -> None:
    await store.put_fields([offered("A"), offered("B")])
    await store.admit(GRAPH, ["SND"], 1)
    assert await running(store) == {"A"}
    (work,) = await store.next_dirty()
    await store.finish(Decision(work, Done(), GRAPH))
    assert await store.put_fields([offered("A", (9, 9))]) == 1
    assert await store.put_fields([offered("A", (9, 9))]) == 0
    assert await store.admit(GRAPH, ["SND"], 9) == 1, "A ran, and its row offers nothing new"
    assert await running(store) == {"B"}
    assert (await why(store))["A"] == "its last run is over (done), and its row in the catalogue has not changed since"


async def test_equals_are_taken_as_the_catalogue_named_them_first(store: Store) -> None:
    await store.put_fields([offered("Z"), offered("M")])
    await store.put_fields([offered("A"), offered("Z", target=1)])
    found = await store.candidates(["SND"], 9)
    assert [one["field"] for one in found["candidates"]] == ["Z", "M", "A"]


async def test_a_field_that_is_done_runs_again_under_another_id(store: Store) -> None:
    await store.put_fields([offered("P1")])
    await store.admit(GRAPH, ["SND"], 9)
    await decide(store, GRAPH, Done())
    await store.put_fields([offered("P1", status="ZZZ")])
    assert await store.admit(GRAPH, ["SND"], 9) == 0
    await store.put_fields([offered("P1", status="SND")])
    assert await store.admit(GRAPH, ["SND"], 9) == 1
    field = await store.field("P1")
    assert field is not None
    assert [run["id"] for run in field["runs"]] == ["P1-1", "P1-2"]


async def test_a_site_that_the_catalogue_says_no_more_counts_as_it_was(store: Store) -> None:
    """A fields file tells the site by its status on offer; once that is claimed it does not, and the list is not read yet."""
    await store.put_fields([offered("P1", site="sara"), offered("P2", site="sara")])
    assert await store.admit(GRAPH, ["SND"], 9, {"sara": 1}) == 1
    await store.put_fields([offered("P1", site="", status="AAA")])
    assert await store.admit(GRAPH, ["SND"], 9, {"sara": 1}) == 0
    assert await running(store) == {"P1"}


async def test_all_are_judged_once_until_something_is_committed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []

    def counted(candidates: Sequence[Candidate], *more: Any) -> tuple[Verdict, ...]:
        judged.append(len(candidates))
        return select(candidates, *more)

    monkeypatch.setattr("aglowd.store.offers.select", counted)
    await store.put_fields([offered(f"N{number}", site="sara") for number in range(50)])
    for _ in range(50):
        assert len(await why(store)) == 50
    assert judged == [50]
    assert (await why(store, most=1))["N1"] == "1 fields are under way, and max_fields is 1", "another configuration"
    await store.put_fields([offered("N50", site="juelich")])
    assert (await why(store))["N50"] == "starts"
    assert judged == [50, 50, 51]
    await store.hold("pause", [Hold("field", "N50")], Word(0, ""))
    assert (await why(store))["N50"].startswith("paused since")
