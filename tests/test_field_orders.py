"""What people order of the catalogue: added whole or not at all, copied as it is, given back through the journal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import HandClock, perform_all, settle_all

from aglowd.effects import DEEDS
from aglowd.effects.engine import Engine
from aglowd.errors import AglowError
from aglowd.field_orders import MAX_PROBLEMS, AddOrder, FieldOrders, ImportOrder, ReleaseOrder
from aglowd.grid.catalogue import Catalogue
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.pipeline_file import load_pipeline
from aglowd.reactor import Pipelines, Reactor
from aglowd.store.store import Store
from aglowd.watchers.fields import Fields
from aglowd.wiring import handler_kinds, shipped_pipelines

LINE = "SND,{},2456805.625,8,2.01326592,242,229507,2456805.61736,8,2.01326592,244,{},\n"
WORDS = ("AAA", "SSS", "CCC", "TTT", "ZZZ", "RRR")
PIPELINE = """
[pipeline]
name = "toy"

[steps.claim]
kind = "set_status"
expect = "{{ field.status }}"
status = "{{ config.statuses.claimed }}"

[steps.calibrated]
kind = "set_status"
needs = ["claim"]
expect = "{{ config.statuses.claimed }}"
status = "{{ config.statuses.calibrated }}"

[steps.failed]
kind = "set_status"
needs = ["calibrated"]
join = "done"
when = "run.failed"
expect = "{{ first(steps.calibrated.outputs.status, steps.claim.outputs.status) }}"
status = "{{ config.statuses.failed }}"
"""


class Life:
    """A store, a catalogue and all that works on them, one turn at a time."""

    def __init__(self, store: Store, catalogue: Catalogue, tmp_path: Path) -> None:
        path = tmp_path / "toy.toml"
        path.write_text(PIPELINE)
        params = {kind: handler.Params for kind, handler in handler_kinds().items()}
        pipelines = {"toy": load_pipeline(path, params)}
        release = load_pipeline(shipped_pipelines() / "release_field.toml", params)
        self.store, self.catalogue = store, catalogue
        world: Any = type("World", (), {"catalogue": catalogue, "clock": store.clock})
        self.engine = Engine(store, world, DEEDS, store.clock)
        statuses = {"claimed": "AAA", "calibrated": "CCC", "failed": "RRR"}
        self.reactor = Reactor(
            store,
            handler_kinds(),
            Pipelines({**pipelines, "release_field": release}),
            store.clock,
            pools={},
            shown={"config": {"statuses": statuses}},
            select=("SND",),
            field_pipeline="toy",
            max_fields=10,
        )
        self.watcher = Fields(world, store, 300.0)
        self.orders = FieldOrders(store, world, release, ("SND",), WORDS)
        self.toy = pipelines["toy"]

    async def look(self) -> int:
        await self.watcher._read()
        return await self.store.admit(self.toy, ("SND",), 10)

    async def turn(self, most: int = 20) -> None:
        """Decide and do until nothing is left to do."""
        for _ in range(most):
            decided = await settle_all(self.reactor)
            if not await perform_all(self.store, self.engine) and not decided:
                return
        raise AssertionError("there is no end")

    async def step(self) -> None:
        """One decision and what it asks for."""
        await self.reactor.decide_once()
        await perform_all(self.store, self.engine)

    async def kinds(self, field: str = "") -> list[str]:
        return [event["kind"] for event in await self.store.events(field=field)]


@pytest.fixture
async def own(store: Store, tmp_path: Path, clock: HandClock) -> Life:
    return Life(store, OwnCatalogue(tmp_path / "c" / "catalogue.db", "daemon", clock=clock), tmp_path)


@pytest.fixture
async def aglows(store: Store, tmp_path: Path, clock: HandClock) -> Life:
    path = tmp_path / "fields.csv"
    path.write_text(LINE.format(229511, "P1") + LINE.format(229509, "P2"))
    return Life(store, CsvCatalogue(path, "daemon", clock=clock), tmp_path)


async def test_a_field_is_added_and_offered(own: Life) -> None:
    order = AddOrder("P1+1", "L229511", "229507", site="SURF", priority=2, target_time_resolution=2.5)
    assert await own.orders.add(order, 1000) == {"added": ["P1+1"]}
    (row,) = await own.catalogue.rows()
    assert (row.name, row.status, row.target_obsid, row.calibrator_obsid) == ("P1+1", "SND", "L229511", "L229507")
    assert (row.site, row.priority, row.target_time_resolution) == ("sara", (2, 0), 2.5)
    assert own.store.bells.subject("field").is_set(), "it is looked at now"
    assert await own.look() == 1
    (event,) = [event for event in await own.store.events() if event["kind"] == "FieldsOrdered"]
    assert event["data"] == {"uid": 1000, "path": "", "count": 1, "fields": ["P1+1"]}
    with pytest.raises(AglowError, match=r"P1\+1 there already"):
        await own.orders.add(order, 1000)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (AddOrder("a/b", "1", "2"), "field name 'a/b'"),
        (AddOrder("P1", "", "2"), "OBSIDs of target and calibrator"),
        (AddOrder("P1", "1", "2", status="XXX"), "found status 'XXX'"),
    ],
)
async def test_a_field_that_makes_no_sense_is_not_added(own: Life, order: AddOrder, words: str) -> None:
    with pytest.raises(AglowError, match=words):
        await own.orders.add(order, 0)
    assert await own.catalogue.rows() == ()


async def test_a_file_is_imported_and_exported_as_it_was(own: Life) -> None:
    text = LINE.format(229511, "P1").replace("SND", "ZZZ") + LINE.format(229509, "P2").replace("P2,", 'P2,"[CR]S,x"')
    await own.orders.import_file(ImportOrder("fields.csv", f"# a comment\n\n{text}"), 0)
    exported = await own.orders.export()
    assert exported["csv"] == text
    assert [field["status"] for field in exported["fields"]] == ["ZZZ", "SND"]
    json.dumps(exported)
    await own.catalogue.write_status("P2", "SND", "AAA", "k")
    assert (await own.orders.export())["csv"] == text.replace("SND", "AAA")


async def test_one_wrong_line_and_nothing_is_imported(own: Life) -> None:
    good = LINE.format(229511, "P1")
    for bad, words in (("SND,1\n", "x.csv:2: found 2 columns"), (good, "x.csv:2: found P1 a second time")):
        with pytest.raises(AglowError, match=words) as caught:
            await own.orders.import_file(ImportOrder("x.csv", good + bad), 0)
        assert str(caught.value).endswith("nothing was imported")
    with pytest.raises(AglowError, match="and 1 problems more"):
        await own.orders.import_file(ImportOrder("x.csv", "junk\n" * (MAX_PROBLEMS + 1)), 0)
    with pytest.raises(AglowError, match=r"x\.csv:1: found no field"):
        await own.orders.import_file(ImportOrder("x.csv", "# nothing\n"), 0)
    assert await own.catalogue.rows() == ()
    await own.orders.import_file(ImportOrder("x.csv", good), 0)
    with pytest.raises(AglowError, match="P1 there already"):
        await own.orders.import_file(ImportOrder("x.csv", LINE.format(229509, "P2") + good), 0)
    assert [row.name for row in await own.catalogue.rows()] == ["P1"], "P2 neither"


async def test_other_catalogues_are_exported_and_added_to_by_others(aglows: Life) -> None:
    assert (await aglows.orders.export())["csv"] == LINE.format(229511, "P1") + LINE.format(229509, "P2")
    for work in (aglows.orders.add(AddOrder("P3", "1", "2"), 0), aglows.orders.import_file(ImportOrder("x", ""), 0)):
        with pytest.raises(AglowError, match="by its own means"):
            await work


async def test_a_status_set_by_hand_is_noticed_and_never_overwritten(aglows: Life, tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    assert await aglows.look() == 2
    await aglows.step()
    assert path.read_text().count("AAA") == 2
    assert await aglows.look() == 0
    assert "StatusSetByOthers" not in await aglows.kinds(), "the run's own word is nobody else's"
    path.write_text(path.read_text().replace("AAA", "ZZZ", 1))
    assert await aglows.look() == 0
    (event,) = [event for event in await aglows.store.events() if event["kind"] == "StatusSetByOthers"]
    assert (event["field"], event["run"]) == ("P1", "P1-1")
    assert (event["data"]["status"], event["data"]["before"]) == ("ZZZ", "AAA")
    assert "not the run's own word" in event["data"]["reason"]
    await aglows.look()
    assert (await aglows.kinds()).count("StatusSetByOthers") == 1, "told once"
    await aglows.turn()
    fields = {field["field"]: field for field in await aglows.store.fields()}
    assert fields["P1"]["state"] == "failed"
    assert "found P1 in status 'ZZZ'; expected 'AAA'" in fields["P1"]["reason"]
    assert fields["P2"]["state"] == "archived"
    assert [line[:3] for line in path.read_text().splitlines()] == ["ZZZ", "CCC"], (
        "neither CCC nor RRR was written over it"
    )


async def test_our_own_word_that_is_not_recorded_yet_is_nobody_elses(aglows: Life) -> None:
    await aglows.look()
    await aglows.reactor.decide_once()
    (first, _) = sorted(await aglows.store.next_effects((), 10), key=lambda live: live.field)
    await aglows.catalogue.write_status("P1", "SND", "AAA", first.record.key)  # And here the daemon died.
    await aglows.look()
    assert "StatusSetByOthers" not in await aglows.kinds()


async def test_a_row_that_is_older_than_our_own_word_is_no_news(aglows: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon writes and records its status between the watcher's look at the catalogue and its word to the store."""
    await aglows.look()
    at_work = aglows.store.at_work

    async def slowly() -> dict[str, tuple[str, str]]:
        answer = await at_work()
        await aglows.step()
        return answer

    monkeypatch.setattr(aglows.store, "at_work", slowly)
    aglows.watcher._stamp = ""
    await aglows.look()
    monkeypatch.undo()
    statuses = {field["field"]: field["catalogue_status"] for field in await aglows.store.fields()}
    assert statuses == {"P1": "AAA", "P2": "AAA"}
    assert (await aglows.kinds()).count("FieldChanged") == 2, "as they were found first"
    await aglows.look()
    assert "StatusSetByOthers" not in await aglows.kinds()


async def test_what_has_not_changed_is_not_read(aglows: Life, tmp_path: Path) -> None:
    os.utime(tmp_path / "fields.csv", (1e9, 1e9))
    await aglows.look()

    def unread() -> None:
        raise AssertionError("read again")

    aglows.catalogue._read = unread  # type: ignore[attr-defined] # the one of this test
    await aglows.watcher._read()
    os.utime(tmp_path / "fields.csv", (1e9 + 1, 1e9 + 1))
    with pytest.raises(TypeError):
        await aglows.watcher._read()


async def test_a_field_is_given_back_through_the_journal_and_offered_again(aglows: Life, tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    await aglows.look()
    with pytest.raises(AglowError, match="P1 is at work"):
        await aglows.orders.release("P1", ReleaseOrder(), 0)
    await aglows.turn()
    assert [line[:3] for line in path.read_text().splitlines()] == ["CCC", "CCC"]
    done = await aglows.orders.release("P1", ReleaseOrder("because"), 1000)
    assert (done["from"], done["to"]) == ("CCC", "SND")
    await aglows.turn()
    assert [line[:3] for line in path.read_text().splitlines()] == ["SND", "CCC"]
    assert "EffectDone" in await aglows.kinds("release/P1")
    assert await aglows.look() == 1, "it is on offer again"
    (ordered,) = [event for event in await aglows.store.events() if event["kind"] == "Ordered"]
    assert (ordered["data"]["uid"], ordered["data"]["reason"]) == (1000, "because")


async def test_a_release_overwrites_nobodys_word(aglows: Life, tmp_path: Path) -> None:
    path = tmp_path / "fields.csv"
    await aglows.look()
    await aglows.turn()
    path.write_text(path.read_text().replace("CCC", "RRR"))
    with pytest.raises(AglowError, match="which is not aglowd's word"):
        await aglows.orders.release("P1", ReleaseOrder(), 0)
    with pytest.raises(AglowError, match="P1 is in status 'RRR', not 'CCC'"):
        await aglows.orders.release("P1", ReleaseOrder(status="CCC"), 0)
    await aglows.orders.release("P1", ReleaseOrder(status="RRR"), 0)
    path.write_text(path.read_text().replace("RRR", "TTT", 1))  # In the same moment, by somebody else.
    await aglows.turn()
    assert [line[:3] for line in path.read_text().splitlines()] == ["TTT", "RRR"]


async def test_a_field_that_was_never_taken_is_released_to_what_is_named(own: Life) -> None:
    await own.orders.import_file(ImportOrder("x", LINE.format(229511, "P1").replace("SND", "RRR")), 0)
    await own.look()
    with pytest.raises(AglowError, match="never taken"):
        await own.orders.release("P1", ReleaseOrder(status="RRR"), 0)
    with pytest.raises(AglowError, match="in status 'RRR' already"):
        await own.orders.release("P1", ReleaseOrder(status="RRR", to="RRR"), 0)
    await own.orders.release("P1", ReleaseOrder(status="RRR", to="SND"), 0)
    await own.turn()
    assert await own.look() == 1
