"""Runs that are forgotten: only those that hold nothing, so that nothing of theirs is missed, taken for new or named again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest
from support import HandClock, Played, Put, begin, do, graph, new_reactor, one, rows, settle_all, step

from aglowd.choice import Choice
from aglowd.errors import AglowError
from aglowd.model import Do, Done, Failed, FieldView, Outcome, Seen, Spawn, StepView, Subject, Wait
from aglowd.model import EffectState as State
from aglowd.store.doubts import Finding, Word
from aglowd.store.forgetting import UNTOLD_S, Forgetting
from aglowd.store.plans import Changed
from aglowd.store.store import Store
from aglowd.store.verify import verify

WEEK_S = 7 * 86_400.0
WORD = Word(1000, "archived long ago")
LINE = graph("line", step("only"))
SHARED, USER = graph("shared", step("inner")), graph("user", step("child", kind="played"), step("after", "child"))


class Stage(Put, frozen=True, kw_only=True):
    kind: ClassVar[str] = "stage_files"
    surls: tuple[str, ...] = ("srm://a", "srm://b")
    site: str = "sara"
    what: str = ""


class Release(Put, frozen=True, kw_only=True):
    kind: ClassVar[str] = "release_files"
    request: int
    site: str = "sara"
    what: str = ""


class Submit(Put, frozen=True, kw_only=True):
    kind: ClassVar[str] = "submit_jobs"
    site: str = ""
    what: str = ""


def ends(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Failed("broke", final=True) if view.field == "broken" else Done({"say": "x" * 100})


async def forget(store: Store, *names: str, version: str = "") -> Forgetting:
    return await store.forget_runs(Choice(names), WEEK_S, version, WORD)


async def refused(store: Store, *names: str) -> str:
    with pytest.raises(AglowError) as caught:
        await forget(store, *names)
    assert await rows(store, "SELECT * FROM events WHERE kind = 'RunForgotten'") == []
    return str(caught.value)


async def ended(store: Store, *fields: str) -> None:
    for field in fields:
        await begin(store, LINE, field)
    await settle_all(new_reactor(store, [Played({"only": ends})], LINE))


async def with_effects(store: Store, results: dict[Put, Any], field: str = "P1") -> None:
    """A run of that field whose step asked for these, which had these results (None = not ended yet)."""
    await begin(store, LINE, field)
    reactor = new_reactor(store, [Played({"only": do(*results)})], LINE)
    await settle_all(reactor)
    for live in await store.next_effects((), 50):
        result = next(
            value
            for put, value in results.items()
            if (put.kind, put.ordinal) == (live.record.kind, live.record.ordinal)
        )
        if result is not None:
            await store.intend(live, None)
            await store.settle(live, State.DONE, result)
    await settle_all(reactor)


async def test_a_forgotten_run_leaves_a_tombstone_and_an_event(store: Store, tmp_path: Path) -> None:
    await store.put_fields([(FieldView("P1", "ZZZ", {}), "")])
    await with_effects(store, {Stage(): {"request": 7}, Release(request=7): {"released": True}})
    plan = await store.plan_forget(Choice(("P1-1",)), WEEK_S)
    assert [(one.run, one.state, one.steps, one.effects) for one in plan.runs] == [("P1-1", "done", 1, 2)]
    assert await rows(store, "SELECT * FROM events WHERE kind = 'RunForgotten'") == [], "a look changes nothing"
    await forget(store, "P1-1", version=plan.version)
    event = (await store.events(field="P1"))[-1]
    assert (event["kind"], event["run"], event["data"]["uid"]) == ("RunForgotten", "P1-1", 1000)
    assert event["data"]["reason"] == "archived long ago"
    for table in ("steps", "waits", "subjects"):
        assert await rows(store, f"SELECT * FROM {table}") == []
    run = await one(store, "SELECT * FROM runs")
    assert (run["id"], run["outputs"], run["params"]) == ("P1-1", "{}", "{}")
    assert run["reason"] == "its run was forgotten by uid 1000: archived long ago"
    assert {(live.record.result or {}).get("request") for live in await store.effects_of("stage_files")} == {7}, (
        "as the audit asks"
    )
    assert "srm://a" not in str(await rows(store, "SELECT inputs FROM effects"))
    await store.back_up(tmp_path / "copy.db", replace=False, uid=0)
    assert verify(tmp_path / "copy.db").problems == ()


async def test_what_was_seen_for_it_goes_and_what_others_look_at_stays(store: Store) -> None:
    kinds = [Subject("locality", "P1-1/only/1/0"), Subject("tokens", "P1-1_targ"), Subject("lists", "P1-11/only/1/0")]
    shared = Subject("results", "P1-1/only/1/1")

    def looks(view: StepView, params: Any, seen: Seen) -> Outcome:
        if view.field == "other":
            return Wait((shared,), "waits", 60.0)
        return Done({}) if seen.of(shared) else Wait((*kinds, shared), "waits", 60.0)

    reactor = new_reactor(store, [Played({"only": looks})], LINE)
    for field in ("P1", "other"):
        await begin(store, LINE, field)
    await settle_all(reactor)
    await store.ingest("any", None, [(subject, {"seen": True}) for subject in (*kinds, shared)])
    await settle_all(reactor)
    await forget(store, "P1-1")
    assert {row["key"] for row in await rows(store, "SELECT key FROM subjects")} == {shared.key, kinds[2].key}


async def test_its_id_is_not_given_again_and_its_work_is_nobodys(store: Store) -> None:
    await ended(store, "P1")
    await forget(store, "P1-1")
    assert await begin(store, LINE, "P1") == "P1-2"
    assert [run["id"] for run in (await store.field("P1") or {})["runs"]] == ["P1-2"]
    assert await store.materials("P1-1") == ()


async def test_nobody_sees_it_any_more_and_no_command_finds_it(store: Store) -> None:
    await store.put_fields([(FieldView("broken", "SND", {}), "")])
    await store.admit(LINE, ("SND",), 5)
    await settle_all(new_reactor(store, [Played({"only": ends})], LINE))
    await forget(store, "broken-1")
    (field,) = await store.fields()
    assert (field["state"], field["run"]) == ("failed", "broken-1")
    assert field["reason"].startswith("only: broke; its run was forgotten by uid 1000")
    assert (await store.field("broken") or {})["runs"] == []
    assert (await store.explain("broken") or {})["steps"] == []
    assert await store.materials("broken") == ()
    assert await store.admit(LINE, ("SND",), 5) == 0, "it is not offered again by that"
    from steered import Hand

    for name in ("broken-1", "broken", "br*"):
        with pytest.raises(AglowError, match="there is no field and no run"):
            await Hand(store, LINE).plan("retry", name)
    with pytest.raises(AglowError, match="there is no run 'broken-1'"):
        await store.plan_forget(Choice(("broken-1",)), WEEK_S)


async def test_a_run_at_work_stays(store: Store) -> None:
    await begin(store, LINE, "P1")
    assert "it is running; cancel it first: aglowctl cancel P1-1" in await refused(store, "P1-1")


async def test_a_field_is_no_run(store: Store) -> None:
    await ended(store, "P1")
    assert await refused(store, "P1") == "there is no run 'P1'; P1 has P1-1"
    assert "aglowctl show" in await refused(store, "P9-1")


async def test_files_that_may_be_pinned_stay_ours(store: Store, clock: HandClock) -> None:
    await with_effects(
        store, {Stage(): {"request": 7}, Release(request=8): {"released": True}, Stage(ordinal=1): {"request": None}}
    )
    assert "request 7 at sara was not given back: its files may be pinned for another 7d" in await refused(
        store, "P1-1"
    )
    clock.advance(WEEK_S - 10)
    assert "another 10s" in await refused(store, "P1-1")
    clock.advance(10)
    await forget(store, "P1-1")


async def test_another_sites_release_is_none(store: Store) -> None:
    await with_effects(store, {Stage(): {"request": 7}, Release(request=7, site="juelich"): {"released": True}})
    assert "request 7" in await refused(store, "P1-1")


async def test_a_release_by_another_run_counts_even_if_that_is_forgotten(store: Store) -> None:
    await with_effects(store, {Stage(): {"request": 7}})
    await with_effects(store, {Release(request=7): {"released": True}}, "P2")
    await forget(store, "P2-1")
    await forget(store, "P1-1")


async def test_jobs_that_were_last_seen_alive_stay_ours(store: Store, clock: HandClock) -> None:
    job = Subject("job", "https://wms/1", {})

    def waits(view: StepView, params: Any, seen: Seen) -> Outcome:
        if not seen.count(Submit):
            return Do((Submit(),))
        return Done({}) if seen.of(job) else Wait((job,), "waits", 60.0)

    await begin(store, LINE, "P1")
    reactor = new_reactor(store, [Played({"only": waits})], LINE)
    await settle_all(reactor)
    (live,) = await store.next_effects((), 5)
    await store.settle(live, State.DONE, {"jobs": ["https://wms/1"], "nodes": 1})
    await settle_all(reactor)
    await store.ingest("job", None, [(job, {"final": False, "state": "running"})])
    await settle_all(reactor)
    why = await refused(store, "P1-1")
    assert "job https://wms/1 was last seen running; it is looked at until it has ended" in why
    assert why.endswith("; to end it: aglowctl jobs cancel https://wms/1"), why
    gone = {"final": False, "state": "unknown", "reason": "found job id 'https://wms/1'; expected a number"}
    await store.ingest("job", None, [(job, gone)])
    clock.advance(UNTOLD_S - 7200.0)
    why = await refused(store, "P1-1")
    assert why.endswith(f"nobody can tell of job https://wms/1 ({gone['reason']}); it counts as ended in 2h"), why
    clock.advance(7200.0)
    assert [one.run for one in (await store.plan_forget(Choice(("P1-1",)), WEEK_S)).runs] == ["P1-1"]
    await begin(store, LINE, "other")
    await settle_all(new_reactor(store, [Played({"only": lambda view, params, seen: Wait((job,), "w", 60.0)})], LINE))
    await store.ingest("job", None, [(job, {"final": True, "state": "cancelled"})])
    await forget(store, "P1-1")
    assert await rows(store, "SELECT key FROM subjects") == [{"key": job.key}], "another one waits for it"


async def test_an_effect_without_an_end_or_a_finding_keeps_it(store: Store) -> None:
    await with_effects(store, {Stage(): {"request": 7}, Release(request=7): {"released": True}})
    await store.record_findings("job:", [Finding("job:/5", "duplicate", "a twin", "P1-1/only/1/stage_files/0")])
    assert "the audit's finding job:/5 is about it; aglowctl doubt forget job:/5" in await refused(store, "P1-1")
    await store.dismiss("job:/5", WORD)
    await forget(store, "P1-1")


async def test_a_remedy_that_is_not_done_yet_keeps_it(store: Store) -> None:
    await with_effects(store, {Stage(): {"request": 7}, Release(request=7): {"released": True}})
    remedy = Release(request=9, ordinal=9)
    await store.record_findings(
        "job:", [Finding("job:/5", "duplicate", "a twin", "P1-1/only/1/stage_files/0", remedy=remedy)]
    )
    assert "P1-1/only/0/release_files/9 is open; wait for its end" in await refused(store, "P1-1")


def spawns(view: StepView, params: Any, seen: Seen) -> Outcome:
    ended = next(iter(seen.observations.values()), None)
    if ended is not None and ended.data:
        return Done({"run": ended.data["run"]})
    return Spawn("shared", "shared", {}, "once for all", 3600.0, shared=True)


def never(view: StepView, params: Any, seen: Seen) -> Outcome:
    return Wait((Subject("thing", "one"),), "waits", 60.0)


async def test_shared_work_stays_while_somebody_uses_it_and_is_done_again_later(store: Store) -> None:
    played = Played({"child": spawns, "inner": ends, "after": never})
    reactor = new_reactor(store, [played], USER, SHARED)
    await begin(store, USER, "P1")
    await settle_all(reactor)
    assert "P1-1 is at work and uses its outputs" in await refused(store, "shared-1")
    await begin(store, USER, "P2")
    await settle_all(reactor)
    assert [row["id"] for row in await rows(store, "SELECT id FROM runs WHERE key = 'shared'")] == ["shared-1"]
    played.plays["after"] = ends
    for name in ("P1", "P2"):
        await store.ingest("thing", None, [(Subject("thing", "one"), {"for": name})])
    await settle_all(reactor)
    await forget(store, "shared-1")
    await begin(store, USER, "P3")
    await settle_all(reactor)
    assert [row["id"] for row in await rows(store, "SELECT id FROM runs WHERE key = 'shared'")] == ["shared-2"]
    assert len(await store.materials("P1")) == 1, "what is left of it tells that one was used, and no more"


async def test_the_last_good_run_of_a_schedule_stays(store: Store) -> None:
    await ended(store, "schedule/ci")
    await ended(store, "schedule/ci")
    assert "the last of schedule/ci that was done" in await refused(store, "schedule_ci-2")
    await forget(store, "schedule_ci-1")


async def test_patterns_leave_alone_what_must_stay_and_name_it(store: Store) -> None:
    await ended(store, "P1", "P2")
    await begin(store, LINE, "P3")
    made = await forget(store, "P*")
    assert [one.run for one in made.runs] == ["P1-1", "P2-1"]
    assert list(made.left) == ["P3-1"]
    with pytest.raises(AglowError, match="nothing is to be forgotten: P3-1: it is running"):
        await forget(store, "P3*")


async def test_what_was_confirmed_is_what_is_forgotten(store: Store) -> None:
    await ended(store, "P1")
    plan = await store.plan_forget(Choice(("P*",)), WEEK_S)
    await ended(store, "P2")
    with pytest.raises(Changed, match=r"since you looked: P2-1 RunStarted, .*P2-1 RunEnded; look again"):
        await forget(store, "P*", version=plan.version)
    assert await rows(store, "SELECT * FROM events WHERE kind = 'RunForgotten'") == []
