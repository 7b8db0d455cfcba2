"""The audit: what the world lists as ours and the journal does not know is reported; a twin of ours is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from effects.outside import Outside
from support import HandClock, begin, decide, effect_row, graph, only_effect, opened, rows, step

from aglowd.audit import HORIZON_S, MAX_FINDINGS, Audit
from aglowd.effects import DEEDS
from aglowd.effects.engine import Engine
from aglowd.effects.jobs import SubmitJobs
from aglowd.effects.staging import StageFiles
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.batch import JobStatus
from aglowd.model import Do, Effect, EffectState, Json
from aglowd.store.doubts import Finding, Word
from aglowd.store.store import Store

SURLS = ("srm://a/1", "srm://a/2")
GRAPH = graph("g", step("s"))


class Scene:
    """A store, the outside, and the audit between them."""

    def __init__(self, store: Store, outside: Outside) -> None:
        self.store = store
        self.outside = outside
        outside.world.clock = store.clock
        self.audit = Audit(store, outside.world, 3600.0)
        self.engine = Engine(store, outside.world, {deed.kind: deed for deed in DEEDS.values()}, store.clock)
        self.jobs: dict[str, JobStatus] = {}
        self.tags: dict[str, tuple[str, ...]] = {}
        self.owners: dict[str, int] = {}
        wms: Any = outside.wms
        couch: Any = outside.couch
        wms.list_ours, wms.find, couch.count_owners = self._list_ours, self._find, self._count_owners

    async def _list_ours(self) -> dict[str, JobStatus]:
        return self.jobs

    async def _find(self, key: str, prepared: str | None = None) -> tuple[str, ...]:
        return self.tags.get(key, ())

    async def _count_owners(self) -> dict[str, int]:
        return self.owners

    async def ended(self, effect: Effect, result: Json, *, tries: int = 0, refused: int = 0) -> str:
        """The key of an effect that the journal says is done: its answer lost so many times, refused so many times."""
        run = await begin(self.store, GRAPH, key=f"P{len(await rows(self.store, 'SELECT id FROM runs'))}+1")
        (work,) = [work for work in await self.store.next_dirty() if work.run.id == run]
        await decide(self.store, GRAPH, Do.all(effect), work)
        live = await only_effect(self.store)
        if effect.needs_evidence:
            await self.store.intend(live, [])
        for _ in range(refused):
            await self.store.put_off(live, EffectState.PLANNED, "connection refused", 0.0)
            await self.store.intend(live, [])
        for _ in range(tries):
            await self.store.put_off(live, EffectState.UNKNOWN, "lost", 0.0)
            await self.store.intend(live, [])
        await self.store.settle(live, EffectState.DONE, result)
        return live.record.key

    async def findings(self) -> dict[str, dict[str, Any]]:
        await self.audit.look()
        return {found["key"]: found for found in (await self.store.doubts())["findings"]}


@pytest.fixture
async def scene(tmp_path: Path, clock: HandClock) -> AsyncIterator[Scene]:
    async with opened(tmp_path / "state" / "aglowd.db", clock) as store:
        yield Scene(store, Outside(tmp_path))


async def test_the_twin_of_a_repeated_request_is_found_reported_and_aborted(scene: Scene) -> None:
    lta = scene.outside.lta
    late = lta.add(SURLS)
    ours = lta.add(SURLS, staged=SURLS)
    key = await scene.ended(StageFiles(surls=SURLS), {"request": ours}, tries=1)
    assert await scene.findings() == {}, "a request that shows no file yet may be anybody's"
    lta.online[late] = SURLS[:1]
    found = (await scene.findings())[f"staging:lta/{late}"]
    assert (found["kind"], found["effect"]) == ("duplicate", key)
    assert "release files" in found["handled"]
    await scene.engine.perform(await only_effect(scene.store))
    assert lta.aborted == [late]
    assert len(await rows(scene.store, "SELECT * FROM events WHERE kind = 'DuplicateFound'")) == 1
    await scene.audit.look()
    assert lta.aborted == [late]
    assert await scene.store.next_effects((), 10) == []


async def test_a_request_of_the_same_files_that_we_cannot_have_made_is_left_alone(scene: Scene) -> None:
    lta = scene.outside.lta
    twin, ours = lta.add(SURLS, staged=SURLS), lta.add(SURLS, staged=SURLS)
    await scene.ended(StageFiles(surls=SURLS), {"request": ours}, refused=3)
    found = (await scene.findings())[f"staging:lta/{twin}"]
    assert (found["kind"], found["handled"]) == ("duplicate", "")
    assert await scene.store.next_effects((), 10) == []


@pytest.mark.parametrize("size", [502, None])
async def test_a_larger_request_of_somebody_else_that_begins_with_our_file_is_left_alone(
    scene: Scene, size: int | None
) -> None:
    lta = scene.outside.lta
    theirs = lta.add((*SURLS, "srm://b/1"), count=size, staged=SURLS[:1])
    ours = lta.add(SURLS, staged=SURLS)
    await scene.ended(StageFiles(surls=SURLS), {"request": ours}, tries=1)
    assert (await scene.findings())[f"staging:lta/{theirs}"]["handled"] == ""
    assert await scene.store.next_effects((), 10) == []


class Hiding:
    """A stager that loses its first answer, and shows that request when it is told to."""

    def __init__(self, scene: Scene) -> None:
        self.lta = scene.outside.lta
        self.hidden: list[int] = []
        self._stage, self._progress = self.lta.stage, self.lta.progress
        self.asked = 0
        self.refused = 0
        self.lta.stage, self.lta.progress = self.stage, self.progress  # type: ignore[method-assign] # it is in between

    async def stage(self, surls: Any) -> int:
        request = await self._stage(surls)
        if self.lta.requests.keys() == {request}:
            self.hidden.append(request)
            raise Unknown("lost")
        return request

    async def progress(self) -> dict[int, Any]:
        self.asked += 1
        if self.asked == self.refused:
            raise Temporary("503")
        return {request: seen for request, seen in (await self._progress()).items() if request not in self.hidden}


async def carry_on(scene: Scene, clock: HandClock) -> None:
    """Perform the one effect until it has ended."""
    await begin(scene.store, GRAPH)
    await decide(scene.store, GRAPH, Do.all(StageFiles(surls=SURLS)))
    for _ in range(8):
        await scene.engine.perform(await only_effect(scene.store))
        left = await rows(scene.store, "SELECT next_at FROM effects WHERE settled IS NULL")
        if not left:
            return
        clock.at = max(clock.at, left[0]["next_at"])
    raise AssertionError("it does not end")


@pytest.mark.parametrize("refused", range(5))
async def test_the_late_first_request_is_aborted_whichever_question_was_refused(
    scene: Scene, clock: HandClock, refused: int
) -> None:
    hiding = Hiding(scene)
    hiding.refused = refused
    await carry_on(scene, clock)
    assert len(hiding.lta.requests) == 2
    late, hiding.hidden[:] = hiding.hidden[0], []
    for request in hiding.lta.requests:
        hiding.lta.online[request] = SURLS
    assert (await scene.findings())[f"staging:lta/{late}"]["handled"] == "aglowd: release files"


async def test_a_request_that_shows_while_the_last_look_goes_on_is_aborted(scene: Scene, clock: HandClock) -> None:
    hiding = Hiding(scene)
    localities, looks = scene.outside.dcache.localities, []

    async def slow(surls: Any) -> dict[str, str]:
        looks.append(1)
        if len(looks) == 2:
            hiding.lta.online[hiding.hidden.pop()] = SURLS[:1]
        return await localities(surls)

    scene.outside.dcache.localities = slow  # type: ignore[method-assign] # as above
    await carry_on(scene, clock)
    found = await scene.findings()
    assert [one["handled"] for one in found.values()] == ["aglowd: release files"] * (len(hiding.lta.requests) - 1)
    assert len(hiding.lta.requests) == 2


async def test_a_request_that_was_there_before_the_second_try_is_left_alone(scene: Scene) -> None:
    lta = scene.outside.lta
    twin, ours = lta.add(SURLS, staged=SURLS), lta.add(SURLS, staged=SURLS)
    await begin(scene.store, GRAPH)
    await decide(scene.store, GRAPH, Do.all(StageFiles(surls=SURLS)))
    live = await only_effect(scene.store)
    await scene.store.put_off(live, EffectState.UNKNOWN, "lost", 0.0)
    await scene.store.intend(live, [twin])
    await scene.store.settle(live, EffectState.DONE, {"request": ours})
    assert (await scene.findings())[f"staging:lta/{twin}"]["handled"] == ""


async def test_nothing_is_said_of_a_request_while_the_engine_looks_for_it(scene: Scene) -> None:
    lost = scene.outside.lta.add(SURLS, staged=SURLS)
    await begin(scene.store, GRAPH)
    await decide(scene.store, GRAPH, Do.all(StageFiles(surls=SURLS)))
    await scene.store.put_off(await only_effect(scene.store), EffectState.UNKNOWN, "lost", 0.0)
    assert f"staging:lta/{lost}" not in await scene.findings()


async def test_strangers_are_reported_and_left_alone(scene: Scene) -> None:
    lta = scene.outside.lta
    stranger = lta.add(("srm://b/9",), staged=("srm://b/9",))
    ours = lta.add(SURLS, staged=SURLS)
    await scene.ended(StageFiles(surls=SURLS), {"request": ours}, tries=1)
    key = await scene.ended(
        SubmitJobs(nodes=1, executable="/bin/sh", arguments=()), {"jobs": ["https://wms:9000/a"], "nodes": 1}
    )
    scene.jobs = {
        "https://wms:9000/a": JobStatus("https://wms:9000/a", "running", "Running"),
        "https://wms:9000/idle": JobStatus("https://wms:9000/idle", "submitted", "Submitted"),
        "https://wms:9000/over": JobStatus("https://wms:9000/over", "done_ok", "Done(Success)"),
        "https://wms:9000/b": JobStatus("https://wms:9000/b", "running", "Running"),
    }
    scene.owners = {key: 12, "elsewhere-1/tokens/1/create_tokens/0": 244}
    found = await scene.findings()
    assert {name: entry["kind"] for name, entry in found.items()} == {
        f"staging:lta/{stranger}": "stranger",
        "tokens:elsewhere-1/tokens/1/create_tokens/0": "stranger",
        "job:/https://wms:9000/b": "stranger",
    }
    assert "244 tokens" in found["tokens:elsewhere-1/tokens/1/create_tokens/0"]["what"]
    assert await scene.store.next_effects((), 10) == []


async def test_a_second_job_of_one_key_is_cancelled(scene: Scene) -> None:
    first, second = "https://wms:9000/first", "https://wms:9000/second"
    deed = SubmitJobs(nodes=1, executable="/bin/sh", arguments=())
    key = await scene.ended(deed, {"jobs": [first], "nodes": 1}, tries=1)
    scene.jobs = {job: JobStatus(job, "running", "Running") for job in (first, second)}
    scene.outside.wms.jobs[second] = "running"
    scene.tags[key] = (first, second)
    found = await scene.findings()
    assert list(found) == [f"job:/{second}"]
    assert (found[f"job:/{second}"]["kind"], found[f"job:/{second}"]["effect"]) == ("duplicate", key)
    await scene.engine.perform(await only_effect(scene.store))
    assert scene.outside.wms.cancelled == [second]


async def test_a_crowd_of_strangers_does_not_hide_a_duplicate(scene: Scene) -> None:
    lta = scene.outside.lta
    for number in range(MAX_FINDINGS):
        lta.add((f"srm://b/{number}",), staged=(f"srm://b/{number}",))
    twin, ours = lta.add(SURLS, staged=SURLS), lta.add(SURLS, staged=SURLS)
    await scene.ended(StageFiles(surls=SURLS), {"request": ours}, tries=1)
    found = await scene.findings()
    assert len(found) == MAX_FINDINGS
    assert found[f"staging:lta/{twin}"]["kind"] == "duplicate"


async def test_a_stranger_that_proves_to_be_a_twin_is_reported_again_and_cancelled(scene: Scene) -> None:
    late, ours = scene.outside.lta.add(SURLS, staged=SURLS), scene.outside.lta.add(SURLS, staged=SURLS)
    stranger = Finding(f"staging:lta/{late}", "stranger", "nobody knew better then")
    await scene.store.record_findings("staging:lta/", [stranger])
    await scene.ended(StageFiles(surls=SURLS), {"request": ours}, tries=1)
    assert (await scene.findings())[f"staging:lta/{late}"]["handled"] == "aglowd: release files"
    await scene.engine.perform(await only_effect(scene.store))
    assert scene.outside.lta.aborted == [late]


async def test_nothing_is_said_of_a_job_while_its_submission_is_looked_for(scene: Scene) -> None:
    job = "https://wms:9000/lost"
    await begin(scene.store, GRAPH)
    await decide(scene.store, GRAPH, Do.all(SubmitJobs(nodes=1, executable="/bin/sh", arguments=())))
    live = await only_effect(scene.store)
    await scene.store.put_off(live, EffectState.UNKNOWN, "lost", 0.0)
    scene.jobs = {job: JobStatus(job, "running", "Running")}
    scene.tags[live.record.key] = (job,)
    assert await scene.findings() == {}


async def test_a_job_of_a_submission_that_was_given_up_is_reported_when_it_runs(scene: Scene) -> None:
    job = "https://wms:9000/noted"
    await begin(scene.store, GRAPH)
    await decide(scene.store, GRAPH, Do.all(SubmitJobs(nodes=1, executable="/bin/sh", arguments=())))
    live = await only_effect(scene.store)
    await scene.store.note(live, {"job": job, "transferred": True})
    await scene.store.put_off(live, EffectState.UNKNOWN, "lost", 0.0)
    await scene.store.forget(live, Word(1000, "it cannot have been started"))
    scene.jobs = {job: JobStatus(job, "running", "Running")}
    scene.tags[live.record.key] = (job,)
    (found,) = (await scene.findings()).values()
    assert (found["kind"], found["effect"], found["handled"]) == ("duplicate", live.record.key, "")


async def test_a_system_that_does_not_answer_hides_nothing_of_the_others(scene: Scene) -> None:
    await scene.store.record_findings("staging:lta/", [])
    scene.owners = {"elsewhere": 1}
    assert list(await scene.findings()) == ["tokens:elsewhere"]

    async def refuse() -> dict[str, int]:
        raise Temporary("connection refused")

    couch: Any = scene.outside.couch
    couch.count_owners = refuse
    stranger = scene.outside.lta.add(("srm://b/9",), staged=("srm://b/9",))
    found = await scene.findings()
    assert set(found) == {f"staging:lta/{stranger}", "tokens:elsewhere"}, (
        "what was found stays until the world says otherwise"
    )


async def test_a_defect_of_the_audit_stops_nothing_else(scene: Scene) -> None:
    scene.outside.lta.shown[1] = None  # type: ignore[assignment] # no stager says this
    scene.outside.lta.online[1] = ("srm://b/9",)
    scene.owners = {"elsewhere": 1}
    assert list(await scene.findings()) == ["tokens:elsewhere"]


async def test_the_audit_comes_round_and_shows_that_it_lives(scene: Scene, clock: HandClock) -> None:
    scene.owners = {"elsewhere": 1}
    scene.audit = Audit(scene.store, scene.outside.world, 0.01)
    task = asyncio.create_task(scene.audit.run())
    async with asyncio.timeout(10):
        while not (await scene.store.doubts())["findings"]:
            clock.advance(1.0)
            await asyncio.sleep(0)
    assert scene.audit.progress_at > 1.0e9
    task.cancel()
    await asyncio.wait([task])


async def test_without_a_token_database_of_ours_there_are_no_strangers(scene: Scene) -> None:
    async def absent() -> dict[str, int]:
        raise Permanent("404", absent=True)

    couch: Any = scene.outside.couch
    couch.count_owners = absent
    assert await scene.findings() == {}


async def test_the_journal_is_compared_as_far_back_as_the_horizon(scene: Scene, clock: HandClock) -> None:
    lta = scene.outside.lta
    twin, ours = lta.add(SURLS, staged=SURLS), lta.add(SURLS, staged=SURLS)
    key = await scene.ended(StageFiles(surls=SURLS), {"request": ours}, tries=1)
    clock.advance(HORIZON_S + 1)
    found = await scene.findings()
    assert found[f"staging:lta/{twin}"]["kind"] == "stranger"
    assert (await effect_row(scene.store, key))["state"] == "done"
