"""An operator's word on what cannot be told: adopt, retry, forget; recorded with uid and reason, and said once."""

from __future__ import annotations

import pytest
from support import (
    FarSide,
    HandClock,
    Put,
    begin,
    decide,
    effect_row,
    graph,
    one,
    only_effect,
    perform_all,
    rows,
    step,
    step_row,
)

from aglowd.effects.engine import Engine
from aglowd.effects.general import CallHttp, RunCommand
from aglowd.effects.jobs import SubmitJobs
from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.errors import AglowError, StaleVersion
from aglowd.model import Do, EffectState, Json
from aglowd.store.doubts import Finding, Word
from aglowd.store.store import Store

GRAPH = graph("g", step("s"))
WORD = Word(1234, "ASTRON told me so")


class Order(Put, frozen=True, kw_only=True):
    """Its name at the far side is a number that a person may know."""

    kind = "order"

    def adopted(self, ref: str) -> Json:
        if not ref.isdecimal():
            raise AglowError("an order has a number")
        return int(ref)


@pytest.fixture
def engine(store: Store, world: FarSide) -> Engine:
    return Engine(store, world, {"put": Put, "order": Order}, store.clock)  # type: ignore[arg-type] # the deeds know their world


async def doubtful(store: Store, engine: Engine, world: FarSide) -> str:
    """An effect whose answer was lost, and that no look can find; the run's id."""
    run = await begin(store, GRAPH)
    await decide(store, GRAPH, Do.all(Order(what="a")))
    world.moods.append("lost")
    await perform_all(store, engine)
    await store.put_off(await live(store), EffectState.DOUBT, "nobody can tell", 3600.0, looked=True)
    return run


async def live(store: Store) -> object:
    (entry,) = (await store.doubts())["doubts"]
    found = await store.effect(entry["key"])
    assert found is not None
    return found


async def test_a_doubt_is_listed_with_key_evidence_and_age(store: Store, engine: Engine, world: FarSide) -> None:
    run = await doubtful(store, engine, world)
    (entry,) = (await store.doubts())["doubts"]
    assert entry["key"] == f"{run}/s/1/order/0"
    assert (entry["state"], entry["reason"], entry["field"]) == ("doubt", "nobody can tell", "P1+1")
    assert (entry["since"], entry["tries"], entry["looks"]) == (store.clock.now(), 2, 1)
    assert entry["next_at"] == store.clock.now() + 3600.0
    assert (await step_row(store, run, "s"))["reason"] == "nobody can tell"


async def test_adopting_settles_it_with_the_given_name(store: Store, engine: Engine, world: FarSide) -> None:
    run = await doubtful(store, engine, world)
    assert await engine.settle(f"{run}/s/1/order/0", "adopt", "1", WORD) == "done, as 1"
    row = await effect_row(store, f"{run}/s/1/order/0")
    assert (row["state"], row["result"]) == ("done", "1")
    assert row["reason"] == "adopted by uid 1234: ASTRON told me so"
    assert (await store.doubts())["doubts"] == []
    (work,) = await store.next_dirty()
    assert work.seen.result(Order) == 1
    event = await one(store, "SELECT * FROM events WHERE kind = 'DoubtAdopted'")
    assert event["field"] == "P1+1"
    for part in ('"uid":1234', '"reason":"ASTRON told me so"', '"result":1', '"was":"nobody can tell"'):
        assert part in event["data"]
    assert world.truth(f"{run}/s/1/order/0") == 1


async def test_retrying_does_it_again_under_the_same_key_without_a_look(
    store: Store, engine: Engine, world: FarSide
) -> None:
    run = await doubtful(store, engine, world)
    world.things.clear()  # The person is right: it is not there.
    key = f"{run}/s/1/order/0"
    await engine.settle(key, "retry", "", WORD)
    assert (await effect_row(store, key))["state"] == "planned"
    looks = world.count("find")
    await perform_all(store, engine)
    assert (await effect_row(store, key))["state"] == "done"
    assert (world.truth(key), world.count("find")) == (1, looks)
    assert len(await rows(store, "SELECT * FROM events WHERE kind = 'DoubtRetried'")) == 1


async def test_forgetting_lets_the_attempt_go_on_as_if_refused(store: Store, engine: Engine, world: FarSide) -> None:
    run = await doubtful(store, engine, world)
    await engine.settle(f"{run}/s/1/order/0", "forget", "", WORD)
    (work,) = await store.next_dirty()
    rejected = work.seen.rejected()
    assert rejected is not None
    assert rejected.reason == "given up by uid 1234: ASTRON told me so"


async def test_what_another_effect_made_cannot_be_adopted(store: Store, clock: HandClock) -> None:
    first, second = StageFiles(surls=("a",), site="sara"), StageFiles(surls=("b",), site="sara", ordinal=1)
    elsewhere = StageFiles(surls=("c",), site="juelich", ordinal=2)
    await begin(store, GRAPH)
    await decide(store, GRAPH, Do.all(first, second, elsewhere))
    one_of, other, third = sorted(await store.next_effects((), 10), key=lambda live: live.record.key)
    await store.settle(one_of, EffectState.DONE, {"request": 18755})
    for live in (other, third):
        await store.put_off(live, EffectState.DOUBT, "nobody can tell", 60.0)
    await store.adopt(third, {"request": 18755}, WORD)  # Another site's stager may give the same number.
    with pytest.raises(AglowError, match=r"that is what \S+/stage_files/0 made"):
        await store.adopt(other, {"request": 18755}, WORD)
    await store.adopt(other, {"request": 18756}, WORD)
    assert (await effect_row(store, other.record.key))["state"] == "done"


@pytest.mark.parametrize("action", ["adopt", "retry", "forget"])
async def test_a_word_on_what_is_settled_is_refused(store: Store, engine: Engine, world: FarSide, action: str) -> None:
    run = await doubtful(store, engine, world)
    key = f"{run}/s/1/order/0"
    await engine.settle(key, "adopt", "1", WORD)
    with pytest.raises(AglowError, match="is done: there is nothing to settle"):
        await engine.settle(key, action, "2", WORD)
    assert (await effect_row(store, key))["result"] == "1"


async def test_a_word_that_makes_no_sense_changes_nothing(store: Store, engine: Engine, world: FarSide) -> None:
    run = await doubtful(store, engine, world)
    key = f"{run}/s/1/order/0"
    with pytest.raises(AglowError, match="an order has a number"):
        await engine.settle(key, "adopt", "that one", WORD)
    with pytest.raises(AglowError, match="no effect 'other' in doubt"):
        await engine.settle("other", "retry", "", WORD)
    engine.busy[key] = "order"
    with pytest.raises(AglowError, match="at this moment"):
        await engine.settle(key, "retry", "", WORD)
    assert (await effect_row(store, key))["state"] == "doubt"
    assert await rows(store, "SELECT * FROM events WHERE kind LIKE 'Doubt%'") == []


async def test_what_the_engine_finds_after_the_word_comes_too_late(
    store: Store, engine: Engine, world: FarSide, clock: HandClock
) -> None:
    run = await doubtful(store, engine, world)
    clock.advance(3600.0)
    looked_at = await only_effect(store)
    await store.adopt(looked_at, 7, WORD)
    for late in (
        lambda: store.settle(looked_at, EffectState.DONE, 1),
        lambda: store.put_off(looked_at, EffectState.DOUBT, "again", 60.0),
    ):
        with pytest.raises(StaleVersion):
            await late()
    assert (await effect_row(store, f"{run}/s/1/order/0"))["result"] == "7"


def test_what_may_be_adopted_is_named_as_the_outside_names_it() -> None:
    assert StageFiles(surls=("a",)).adopted("18755") == {"request": 18755}
    job = SubmitJobs(nodes=3, executable="/bin/sh", arguments=())
    assert job.adopted("https://wms:9000/abc") == {"jobs": ["https://wms:9000/abc"], "nodes": 3}
    assert RunCommand(argv=("true",), ok=(0, 3)).adopted("3") == {"rc": 3, "stdout": ""}
    assert CallHttp(method="POST", url="http://x/").adopted("201") == {"status": 201, "body": ""}
    for deed, wrong in (
        (StageFiles(surls=("a",)), "none"),
        (job, " "),
        (job, "1\t2\x07"),
        (RunCommand(argv=("true",)), "1"),
        (CallHttp(method="POST", url="http://x/"), "404"),
        (ReleaseFiles(request=1), "1"),
    ):
        with pytest.raises(AglowError):
            deed.adopted(wrong)


# --- findings and their remedies


async def test_a_finding_is_recorded_once_with_its_remedy(store: Store, engine: Engine, world: FarSide) -> None:
    run = await doubtful(store, engine, world)
    key = f"{run}/s/1/order/0"
    await engine.settle(key, "adopt", "1", WORD)
    found = Finding("staging:9", "duplicate", "request 9 is a twin", key, remedy=Put(what="cancel", ordinal=9))
    assert await store.record_findings("staging:", [found]) == [found]
    assert await store.record_findings("staging:", [found]) == []
    (listed,) = (await store.doubts())["findings"]
    assert (listed["key"], listed["field"], listed["handled"]) == ("staging:9", "P1+1", "aglowd: put")
    (event,) = await rows(store, "SELECT * FROM events WHERE kind = 'DuplicateFound'")
    assert (event["effect"], event["field"]) == (key, "P1+1")
    assert await perform_all(store, engine) == 1
    remedy = await effect_row(store, f"{run}/s/0/put/9")
    assert (remedy["state"], remedy["attempt"]) == ("done", 0)
    (work,) = await store.next_dirty()
    assert [record.kind for record in work.seen.effects] == ["order"], "a handler is shown the audit's own effect"


async def test_strangers_go_with_the_world_and_duplicates_when_dismissed(store: Store, engine: Engine) -> None:
    twin = Finding("staging:9", "duplicate", "a twin")
    stranger, token = Finding("staging:8", "stranger", "not ours"), Finding("tokens:k", "stranger", "not ours")
    await store.record_findings("staging:", [twin, stranger])
    await store.record_findings("tokens:", [token])
    await store.record_findings("staging:", [])
    assert [found["key"] for found in (await store.doubts())["findings"]] == ["staging:9", "tokens:k"]
    assert (await store.status())["findings"] == 2
    assert await engine.settle("staging:9", "forget", "", WORD) == "dismissed; the event log keeps it"
    assert (await store.status())["findings"] == 1
    await store.record_findings("staging:", [])
    assert [found["key"] for found in (await store.doubts())["findings"]] == ["tokens:k"]
    (event,) = await rows(store, "SELECT * FROM events WHERE kind = 'FindingDismissed'")
    assert '"uid":1234' in event["data"]
