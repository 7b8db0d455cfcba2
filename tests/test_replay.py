"""A day is decided again: what is the same is the same, what a change would make different is named, and nothing is guessed."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from steered import Hand
from support import (
    FarSide,
    HandClock,
    Played,
    Put,
    begin,
    do,
    graph,
    new_engine,
    new_reactor,
    perform_all,
    rows,
    settle_all,
    step,
)

from aglowd.choice import Choice
from aglowd.deciding import Means
from aglowd.effects.catalogue import WriteStatus
from aglowd.errors import StoreError
from aglowd.handlers.run import Run
from aglowd.model import Do, Done, Failed, Outcome, Seen, StepView, Subject, Wait
from aglowd.pipeline import Pipeline
from aglowd.replay import Replay, Replayed
from aglowd.store import backup
from aglowd.store.archive import Place, Terms
from aglowd.store.db import MIGRATIONS
from aglowd.store.decided import journal_of
from aglowd.store.doubts import Word
from aglowd.store.store import Store

FOREVER = 1e12
DAY_S = 86_400.0
GOLDEN = Path(__file__).parent / "store" / "golden"
STAGING = Subject("staging", "12", {"request": 12})
PROXY = Subject("proxy", "robot")
Again = Callable[..., Awaitable[Replayed]]


def counts(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Say how many are online; all twelve are enough."""
    found = seen.of(STAGING)
    if found is None:
        return Wait((STAGING,), "not looked at yet", 600.0)
    if found["online"] < 12:
        return Wait((STAGING,), f"{found['online']} of 12 online", 600.0)
    return Done({"online": found["online"]})


def only_put(what: str = "x") -> Any:
    return do(Put(what=what))


@pytest.fixture
def again(store: Store, tmp_path: Path) -> Again:
    """What comes of deciding all again with these handlers."""

    async def play(*handlers: Any, pipelines: tuple[Pipeline, ...] = (), **values: Any) -> Replayed:
        copy = tmp_path / f"copy-{len(list(tmp_path.glob('copy-*')))}.db"
        backup.back_up(store.db.path, copy, replace=False, stop=threading.Event())
        digests = {one.name: one.digest for one in pipelines}
        kinds = {one.kind: one for one in handlers}
        seed, since = values.pop("seed", None), values.pop("since", 0.0)
        with journal_of(copy, since, FOREVER) as db:
            means = Means(kinds, digests, {"config": {"colour": values.pop("colour", "blue")}})
            return Replay(db, means, values.pop("rate", 1.0), seed).play(since, FOREVER, **values)

    return play


class Life:
    """A store in which a run of that pipeline lives, and a hand that steers it."""

    def __init__(self, store: Store, clock: HandClock, world: FarSide, pipeline: Pipeline, *handlers: Any) -> None:
        self.store, self.clock, self.pipeline = store, clock, pipeline
        self.reactor = new_reactor(store, handlers, pipeline)
        self.engine = new_engine(store, world)
        self.hand = Hand(store, pipeline)

    async def go_on(self, seconds: float = 10.0) -> None:
        """Decide, do, decide, and let time pass."""
        await settle_all(self.reactor)
        await perform_all(self.store, self.engine)
        await settle_all(self.reactor)
        self.clock.advance(seconds)
        await self.store.due()
        await settle_all(self.reactor)

    async def see(self, online: int, **more: Any) -> None:
        await self.store.ingest("staging", None, [(STAGING, {"online": online, **more})])
        await self.go_on()


TWO = graph("p", step("stage"), step("put", "stage", params={"say": "{{ steps.stage.outputs.online }}"}))


@pytest.fixture
async def life(store: Store, clock: HandClock, world: FarSide) -> Life:
    """Waits twice, is done, does something, and is done."""
    made = Life(store, clock, world, TWO, Played({"stage": counts, "put": only_put()}))
    await begin(store, TWO)
    await made.go_on()
    await made.see(3)
    await made.see(12)
    await made.go_on()
    return made


async def test_what_was_decided_is_decided_again(life: Life, again: Again) -> None:
    found = await again(Played({"stage": counts, "put": only_put()}))
    assert (found.found, found.decisions, found.same, found.different, found.untold) == (5, 5, 5, 0, {})


async def test_a_handler_that_waits_for_another_reason_is_found_and_both_are_named(life: Life, again: Again) -> None:
    def other(view: StepView, params: Any, seen: Seen) -> Outcome:
        outcome = counts(view, params, seen)
        return Wait((STAGING,), "some are online", 600.0) if seen.of(STAGING) == {"online": 3} else outcome

    found = await again(Played({"stage": other, "put": only_put()}))
    (one,) = found.differences
    assert (found.same, found.different, one.run, one.step) == (4, 1, "P1_1-1", "stage")
    assert (one.was, one.would) == ("waits: 3 of 12 online", "waits: some are online")


async def test_other_outputs_other_inputs_and_another_kind_are_named(life: Life, again: Again) -> None:
    def more(view: StepView, params: Any, seen: Seen) -> Outcome:
        outcome = counts(view, params, seen)
        return Done({"online": 12, "site": "sara"}) if isinstance(outcome, Done) else outcome

    found = await again(Played({"stage": more, "put": only_put("y")}))
    assert [(one.step, one.was, one.would) for one in found.differences] == [
        ("stage", "done: site = -", "done: site = sara"),
        ("put", "works: put/0.what = x", "works: put/0.what = y"),
    ]

    def gives_up(view: StepView, params: Any, seen: Seen) -> Outcome:
        return Failed("no tape", final=True)

    found = await again(Played({"stage": gives_up, "put": only_put()}))
    assert {one.would for one in found.differences} == {"failed: no tape"}


async def test_an_input_that_an_older_release_did_not_know_counts_as_its_default(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    def written(**values: Any) -> Played:
        return Played({"put": do(WriteStatus(field="P1", expect="SND", status="AAA", **values))})

    life = Life(store, clock, world, graph("p", step("put")), written())
    await begin(store, life.pipeline)
    await settle_all(life.reactor)

    def grow_older(db: sqlite3.Connection) -> None:
        db.execute("UPDATE effects SET inputs = json_remove(inputs, '$.of')")

    await store.db.write(grow_older)
    found = await again(written())
    assert (found.same, found.differences) == (1, ())
    found = await again(written(of="another"))
    assert [(one.was, one.would) for one in found.differences] == [
        ("works: write_status/0.of = ", "works: write_status/0.of = another")
    ]

    def grow_other(db: sqlite3.Connection) -> None:
        db.execute("UPDATE effects SET inputs = json_remove(json_set(inputs, '$.gone', 1), '$.expect')")

    await store.db.write(grow_other)
    found = await again(written())
    (one,) = found.differences
    assert "gone = 1" in one.was, "what this release does not know has no default"
    assert "expect = SND" in one.would


async def test_a_pipeline_of_another_digest_and_another_configuration_are_seen(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    child = graph("child", step("a"))
    parent = graph("p", step("sub", kind="run", params={"pipeline": "child", "share": "cal"}))
    one = graph("q", step("say", params={"say": "{{ config.colour }}"}))
    reactor = new_reactor(store, [Played(), Run()], parent, child, one)
    await begin(store, parent)
    await begin(store, one, "P2+2")
    await settle_all(reactor)
    found = await again(Played(), Run(), pipelines=(parent, child, one))
    assert (found.different, found.untold) == (0, {})
    changed = graph("child", step("b"))
    changed = Pipeline(name="child", steps=changed.steps, digest="of another file")
    found = await again(Played(), Run(), pipelines=(parent, changed, one), colour="red")
    assert {difference.step for difference in found.differences} == {"sub", "say"}


async def test_a_run_that_was_done_before_is_known_though_its_end_named_nobody(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    child = graph("child", step("a"))
    parent = graph("p", step("sub", kind="run", params={"pipeline": "child", "share": "cal"}))
    reactor = new_reactor(store, [Played(), Run()], parent, child)
    for key in ("P1+1", "P2+2"):
        await begin(store, parent, key)
        await settle_all(reactor)
        clock.advance(100.0)
    found = await again(Played(), Run(), pipelines=(parent, child))
    assert (found.same, found.different, found.untold) == (found.found, 0, {})


def guarded(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Look at the proxy first."""
    if seen.of(PROXY) is None:
        return Wait((PROXY,), "looking at the proxy", 600.0)
    return counts(view, params, seen)


async def test_what_was_seen_before_a_step_asked_for_it_is_known_as_long_as_its_attempt_lasts(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    life = Life(store, clock, world, TWO, Played({"stage": guarded}))
    for key in ("P1+1", "P2+2"):
        await begin(store, TWO, key)
        await life.go_on()
        await store.ingest("proxy", None, [(PROXY, {"valid": True})])
        await life.go_on()
    await life.see(3)
    await life.see(5)
    found = await again(Played({"stage": guarded}))
    assert (found.same, found.different, found.untold) == (8, 0, {})


async def test_an_observation_between_the_reading_and_the_commit_makes_no_difference(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    life = Life(store, clock, world, TWO, Played({"stage": counts}))
    await begin(store, TWO)
    await life.go_on()
    await store.ingest("staging", None, [(STAGING, {"online": 3})])
    (work,) = await store.next_dirty()
    decision = await life.reactor._decision(work)
    await store.ingest("staging", None, [(STAGING, {"online": 5})])
    clock.advance(1.0)
    await store.finish(decision)
    await life.go_on()
    found = await again(Played({"stage": counts}))
    assert (found.same, found.different, found.untold) == (3, 0, {})


async def test_the_moment_of_a_decision_is_a_little_before_its_event(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    until = clock.now() + 500.0

    def ticks(view: StepView, params: Any, seen: Seen) -> Outcome:
        if not seen.now:
            return Wait((), "the first decision knows no time", 10.0)
        left_s = until - seen.now
        return Wait((), f"{left_s:.3f} seconds are left", left_s) if left_s > 0 else Done({"since": seen.now})

    life = Life(store, clock, world, graph("p", step("tick")), Played({"tick": ticks}))
    await begin(store, life.pipeline)
    for seconds in (10.1, 500.1, 10.0):
        (work,) = await store.next_dirty()
        decision = await life.reactor._decision(work)
        clock.advance(0.7)
        await store.finish(decision)
        clock.advance(seconds)
        await store.due()
    kept = Played({"tick": ticks})
    assert ((await again(kept)).same, (await again(kept)).different) == (3, 0)
    slow = Played({"tick": lambda view, params, seen: ticks(view, params, Seen(now=seen.now and seen.now - 30.0))})
    assert (await again(slow)).different == 2, "what comes half a minute late is no rounding"
    fast = Played({"tick": lambda view, params, seen: ticks(view, params, Seen(now=seen.now and seen.now + 30.0))})
    assert (await again(fast)).different == 2


async def test_a_step_that_is_timed_out_cancelled_or_skipped_is_asked_what_is_left(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    def undo(view: StepView, params: Any, seen: Seen) -> Do | None:
        return Do.all(Put(what="undo", ordinal=9)) if seen.effect(Put, 9) is None else None

    pipeline = graph("p", step("stage", timeout_s=1000.0, retries=1, retry_delay_s=5.0), step("put", "stage"))
    handler = Played({"stage": counts}, {"stage": undo})
    life = Life(store, clock, world, pipeline, handler)
    for key in ("P1+1", "P2+2", "P3+3"):
        await begin(store, pipeline, key)
    await life.go_on()
    await life.hand("cancel", "P1+1")
    await life.hand("skip", "P2+2", steps=("stage",))
    for _ in range(6):
        await life.go_on(500.0)
    found = await again(handler)
    assert found.different == 0, found.differences
    assert found.same >= 10
    assert set(found.untold) == {"a person's word, and no handler's decision"}, (
        "what had not begun ended by the word alone"
    )
    keeps = await again(Played({"stage": counts}))
    assert {one.was.partition(":")[0] for one in keeps.differences} == {"works"}


async def test_a_step_that_was_done_again_is_untold_and_a_persons_word_is_no_decision(life: Life, again: Again) -> None:
    handler = Played({"stage": counts, "put": only_put()})
    await life.see(13)
    await life.hand("retry", "P1+1", steps=("stage",))
    await life.go_on()
    found = await again(handler)
    assert found.different == 0
    assert any("done again since" in why for why in found.untold), found.untold
    assert found.same > 5


async def test_a_handler_that_raised_and_was_mended_is_a_difference(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    def raises(view: StepView, params: Any, seen: Seen) -> Outcome:
        raise RuntimeError("a defect")

    life = Life(store, clock, world, TWO, Played({"stage": raises}))
    await begin(store, TWO)
    for _ in range(4):
        await life.go_on(100.0)
    found = await again(Played({"stage": raises}))
    assert (found.same, found.different) == (3, 0)
    assert found.untold == {"the end of an attempt whose handler had raised": 1}
    mended = await again(Played({"stage": counts}))
    assert [(one.was, one.would) for one in mended.differences] == [
        ("raised: its handler raised: RuntimeError: a defect", "waits: not looked at yet")
    ] * 3


async def test_what_the_store_would_refuse_is_a_difference_of_its_own(life: Life, again: Again) -> None:
    def odd(view: StepView, params: Any, seen: Seen) -> Outcome:
        outcome = counts(view, params, seen)
        return Done({"online": object()}) if isinstance(outcome, Done) else outcome

    found = await again(Played({"stage": odd, "put": only_put()}))
    (one,) = found.differences
    assert (found.same, one.step) == (4, "stage")
    assert one.would.startswith("raised: its handler raised: TypeError: ")


CUT = "an observation was cut in the log at 2048 characters"


def noise(seed: int) -> list[int]:
    """So much that is new that no recipe has room for it."""
    return [random.Random(f"{seed}/{number}").getrandbits(40) for number in range(1000)]


async def test_an_observation_that_the_log_has_cut_is_made_of_those_before_it(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    life = Life(store, clock, world, TWO, Played({"stage": counts}))
    for key in ("P1+1", "P2+2"):
        await begin(store, TWO, key)
        await life.go_on()
    files = [f"srm://site/{number}/{'x' * 100}" for number in range(40)]
    for online in range(9):
        await life.see(online, files=files[online:])
    await life.see(9)
    events = await rows(store, "SELECT data FROM events WHERE kind = 'SubjectChanged' AND subject = 'staging:12'")
    assert [json.loads(event["data"]).keys() for event in events] == [{"cut", "digest", "made"}] * 18 + [{"online"}] * 2
    assert max(len(event["data"]) for event in events) < 2300
    for handler in (counts, lists):
        found = await again(Played({"stage": handler}))
        assert (found.same + found.different, found.untold) == (found.found, {}) == (22, {})
    assert found.different == 20, "the files are seen, though nothing was said of them"
    assert found.differences[0].would == f"waits: {', '.join(files)}"
    assert {one.would for one in found.differences[2:4]} == {f"waits: {', '.join(files[1:])}"}


def lists(view: StepView, params: Any, seen: Seen) -> Outcome:
    """Say which files there are."""
    found = seen.of(STAGING)
    reason = "not looked at yet" if found is None else ", ".join(found.get("files", ()))
    return Wait((STAGING,), reason, 600.0)


async def test_an_observation_of_which_too_much_was_new_is_whole_only_while_nothing_else_was_seen(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    life = Life(store, clock, world, TWO, Played({"stage": counts}))
    await begin(store, TWO)
    await life.go_on()
    await life.see(3, files=noise(1))
    found = await again(Played({"stage": counts}))
    assert (found.same, found.different, found.untold) == (2, 0, {})
    await life.see(5, files=noise(1))
    found = await again(Played({"stage": counts}))
    assert (found.same, found.different, found.untold) == (2, 0, {CUT: 1}), "the last is made of one that nobody knows"
    await life.see(6, files=noise(2))
    found = await again(Played({"stage": counts}))
    assert (found.same, found.different, found.untold) == (2, 0, {CUT: 2}), "only the last one is known"
    blind = Played({"stage": lambda view, params, seen: Wait((STAGING,), "not looked at yet", 600.0)})
    assert (await again(blind)).untold == {}, "who does not look at it does not miss it"


async def test_what_an_older_release_has_cut_is_whole_only_while_nothing_else_was_seen(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    life = Life(store, clock, world, TWO, Played({"stage": counts}))
    await begin(store, TWO)
    await life.go_on()
    await life.see(3, files=["x" * 3000])
    await store.db.write(grow_old)
    found = await again(Played({"stage": counts}))
    assert (found.same, found.different, found.untold) == (2, 0, {})
    await life.see(5, files=["x" * 3000])
    await store.db.write(grow_old)
    found = await again(Played({"stage": counts}))
    assert (found.same, found.different, found.untold) == (2, 0, {CUT: 1}), (
        "what is seen now begins as what was seen then"
    )
    await life.see(12, files=["x" * 3000])
    found = await again(Played({"stage": counts}))
    assert (found.different, found.untold) == (0, {CUT: 2}), "a recipe is of no use if nobody knows what was before"


def grow_old(db: sqlite3.Connection) -> None:
    db.execute("UPDATE events SET data = json_remove(data, '$.digest', '$.made') WHERE data LIKE '{\"cut%'")


async def test_a_forgotten_run_and_an_unreadable_definition_are_untold(life: Life, store: Store, again: Again) -> None:
    handler = Played({"stage": counts, "put": only_put()})

    def spoil(db: sqlite3.Connection) -> None:
        db.execute("UPDATE pipelines SET definition = '[]'")

    await store.db.write(spoil)
    assert (await again(handler)).untold == {"its pipeline's definition cannot be read by this release": 5}

    with closing(sqlite3.connect(store.db.path)) as db, db:  # It asks for no foreign keys, as the store does.
        db.execute("DELETE FROM pipelines")
    assert (await again(handler)).untold == {"its pipeline's definition is not in the copy": 5}
    await store.forget_runs(Choice(("P1_1-1",)), 0.0, "", Word(1, "old"))
    assert (await again(handler)).untold == {"its run was forgotten": 5}


async def test_what_the_log_no_longer_holds_whole_is_untold(life: Life, store: Store, again: Again) -> None:
    def prune(db: sqlite3.Connection) -> None:
        (last,) = db.execute("SELECT max(id) FROM events WHERE kind = 'StepDone' AND step = 'stage'").fetchone()
        db.execute("INSERT INTO cursors VALUES ('events pruned up to', ?)", (str(last),))
        db.execute("UPDATE events SET at = at + 1 WHERE id > ?", (last,))

    await store.db.write(prune)
    found = await again(Played({"stage": counts, "put": only_put()}))
    assert found.untold == {"older than what the log holds whole": 3}
    assert (found.same, found.different) == (2, 0)


async def test_an_order_that_a_handler_takes_from_a_mapping_is_found_by_the_seed(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    def lists(view: StepView, params: Any, seen: Seen) -> Outcome:
        found = seen.of(STAGING)
        if found is None:
            return Wait((STAGING,), "not looked at yet", 600.0)
        return Wait((STAGING,), ", ".join(found["files"]), 600.0)

    life = Life(store, clock, world, TWO, Played({"stage": lists}))
    await begin(store, TWO)
    await life.go_on()
    await life.see(3, files=dict.fromkeys("abcdefgh", 1))
    assert (await again(Played({"stage": lists}))).different == 0
    found = await again(Played({"stage": lists}), seed=4)
    assert found.different == 1
    assert found == await again(Played({"stage": lists}), seed=4), "a seed says the same again"
    tidy = Played({"stage": lambda view, params, seen: _sorted(lists(view, params, seen))})
    assert (await again(tidy, seed=4)).different == 0


def _sorted(outcome: Outcome) -> Outcome:
    assert isinstance(outcome, Wait)
    return Wait(outcome.subjects, ", ".join(sorted(outcome.reason.split(", "))), outcome.due_s)


async def test_a_copy_of_an_older_schema_is_read_and_left_alone_and_a_newer_one_is_refused(
    life: Life, store: Store, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    old = sqlite3.connect(copy)
    old.executescript((GOLDEN / "v1.sql").read_text(encoding="utf-8"))
    old.close()
    before = copy.read_bytes()
    with journal_of(copy) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        assert version == len(MIGRATIONS)
    assert copy.read_bytes() == before
    newer = tmp_path / "newer.db"
    backup.back_up(store.db.path, newer, replace=False, stop=threading.Event())
    db = sqlite3.connect(newer)
    db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(StoreError, match="a newer release wrote it"), journal_of(newer):
        pass
    with pytest.raises(StoreError, match="in use"), journal_of(store.db.path):
        pass


# --- packed runs


async def pack_all(store: Store, clock: HandClock) -> None:
    clock.advance(31 * DAY_S)
    place: Place | None = Place()
    while place is not None:
        place = (await store.archive_runs(Terms(30 * DAY_S, 7 * DAY_S), place)).next


async def test_packed_runs_are_decided_again_as_others(
    life: Life, store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    handler = Played({"stage": counts, "put": only_put()})
    before = await again(handler)
    others = await again(Played({"stage": lists, "put": only_put("y")}))
    await pack_all(store, clock)
    assert [row["run"] for row in await rows(store, "SELECT run FROM archive")] == ["P1_1-1"]
    assert await rows(store, "SELECT id FROM events WHERE kind = 'StepWaits'") == []
    assert await again(handler) == before
    assert await again(Played({"stage": lists, "put": only_put("y")})) == others
    assert others.different == 3


async def test_what_only_a_packed_run_was_seen_to_wait_for_is_known_to_those_who_joined_later(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    child = graph("child", step("a"))
    parent = graph("p", step("sub", kind="run", params={"pipeline": "child", "share": "cal"}), step("b", "sub"))
    kinds = Played(), Run()
    reactor = new_reactor(store, kinds, parent, child)
    await begin(store, parent, "P1+1")
    await settle_all(reactor)
    await pack_all(store, clock)
    assert len(await rows(store, "SELECT run FROM archive")) == 2
    await begin(store, parent, "P2+2")
    await settle_all(reactor)
    found = await again(*kinds, pipelines=(parent, child))
    assert (found.same, found.different, found.untold) == (found.found, 0, {})
    late = await again(*kinds, pipelines=(parent, child), since=clock.now() - DAY_S)
    assert (late.same, late.different, late.untold) == (late.found, 0, {})
    assert 0 < late.found < found.found


async def test_what_may_have_been_seen_by_a_packed_run_that_was_forgotten_is_untold_and_no_difference(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    handler = Played({"stage": guarded, "put": only_put()})
    life = Life(store, clock, world, TWO, handler)
    await begin(store, TWO, "P1+1")
    await life.go_on()
    await store.ingest("proxy", None, [(PROXY, {"valid": True})])
    await life.go_on()
    await begin(store, TWO, "P2+2")
    await life.go_on()
    await life.see(12)
    await life.go_on()
    assert (await again(handler)).untold == {}
    await pack_all(store, clock)
    found = await again(handler)
    assert (found.same, found.different, found.untold) == (found.found, 0, {})
    await store.forget_runs(Choice(("P1_1-1",)), 0.0, "", Word(1, "old"))
    found = await again(handler)
    assert (found.same, found.different) == (3, 0)
    assert found.untold == {"an observation may have gone with a run that was forgotten": 2}


async def test_of_what_the_log_no_longer_holds_whole_a_packed_run_tells_nothing_to_others(
    store: Store, clock: HandClock, world: FarSide, again: Again
) -> None:
    def named(view: StepView, params: Any, seen: Seen) -> Outcome:
        outcome, proxy = counts(view, params, seen), seen.of(PROXY)
        if proxy is None:
            return Wait((PROXY,), "looking at the proxy", 600.0)
        return Wait((STAGING,), f"with the proxy of {proxy}", 600.0) if isinstance(outcome, Wait) else outcome

    handler = Played({"stage": named, "put": only_put()})
    life = Life(store, clock, world, TWO, handler)
    await begin(store, TWO, "P1+1")
    await life.go_on()
    await store.ingest("proxy", None, [(PROXY, "Monday")])
    await life.go_on()
    await store.ingest("proxy", None, [(PROXY, "Tuesday")])
    (event,) = await rows(store, "SELECT id FROM events WHERE subject = 'proxy:robot' AND run = ''")
    await begin(store, TWO, "P2+2")
    await life.go_on()
    await life.see(12)
    await life.go_on()
    before = await again(handler)
    assert (before.same, before.different, before.untold) == (before.found, 0, {})
    await pack_all(store, clock)
    (last,) = await rows(store, "SELECT max(id) AS id FROM events")
    await store.prune_events(last["id"] - event["id"], 1e12)
    found = await again(handler)
    assert (found.different, found.found) == (0, before.found), found.differences
    assert found.untold["an observation may be older than what the log holds whole"] == 2
    assert found.untold["its attempt is older than what the log holds whole"] == 1


async def test_a_packed_run_that_cannot_be_read_is_told_by_its_name(
    life: Life, store: Store, clock: HandClock, again: Again
) -> None:
    await pack_all(store, clock)

    def spoil(db: sqlite3.Connection) -> None:
        db.execute("UPDATE archive SET material = x'00'")

    await store.db.write(spoil)
    with pytest.raises(StoreError, match="what is packed of the run P1_1-1 cannot be read"):
        await again(Played({"stage": counts, "put": only_put()}))
