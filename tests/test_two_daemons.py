"""Two daemons over one catalogue, each with a database of its own: one of them gets the field, and the other says who has it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from support import HandClock, opened, perform_all, rows, settle_all

from aglowd.adoption import Adoption, AdoptOrder
from aglowd.effects import DEEDS
from aglowd.effects.engine import Engine
from aglowd.errors import AglowError
from aglowd.grid.catalogue import MAX_PLACE_CHARS, Catalogue, daemon_name
from aglowd.grid.catalogue_csv import CsvCatalogue, read_rows
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.pipeline_file import load_pipeline
from aglowd.reactor import Pipelines, Reactor
from aglowd.selection import Limits
from aglowd.store import lineage
from aglowd.store.store import Store
from aglowd.watchers.fields import Fields
from aglowd.wiring import handler_kinds

LINE = "{},229511,2456805.625,8,2.01326592,242,229507,2456805.61736,8,2.01326592,244,P1,\n"
WORDS = {"claimed": "AAA", "calibrated": "CCC", "failed": "RRR"}
KEY = "P1-1/claim/1/write_status/0"
# Claim and end are those of sksp.toml.
PIPELINE = """
[pipeline]
name = "toy"

[steps.claim]
kind = "set_status"
expect = "{{ field.status }}"
status = "{{ field.status if field.adopted is defined and field.adopted else config.statuses.claimed }}"
of = "{{ field.taken_from if field.taken_from is defined else '' }}"

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
expect = "{{ first(steps.calibrated.outputs.status, steps.claim.outputs.status, field.status) }}"
status = "{{ config.statuses.failed }}"

[adopt.claimed]

[adopt.calibrated]
calibrated = { status = "{{ field.status }}" }
"""


class Daemon:
    """All of one daemon that has to do with the catalogue, one turn at a time."""

    def __init__(self, store: Store, name: str, catalogue: Catalogue, file: Path) -> None:
        pipeline = load_pipeline(file, {kind: handler.Params for kind, handler in handler_kinds().items()})
        self.store, self.name, self.catalogue, self.pipeline = store, name, catalogue, pipeline
        world: Any = type("World", (), {"catalogue": catalogue, "clock": store.clock})
        shown: dict[str, Any] = {"config": {"statuses": WORDS}}
        self.engine = Engine(store, world, DEEDS, store.clock)
        self.reactor = Reactor(
            store,
            handler_kinds(),
            Pipelines({"toy": pipeline}),
            store.clock,
            pools={},
            shown=shown,
            select=("SND",),
            field_pipeline="toy",
            max_fields=10,
        )
        self.watcher = Fields(world, store, 300.0)
        outside: Any = (lambda site: world, catalogue, None)
        self.adoption = Adoption(store, pipeline, WORDS, shown, *outside, Limits(10))

    async def adopt(self, of: str = "") -> dict[str, Any]:
        return await self.adoption.adopt(AdoptOrder(("P1",), of=of), 1000)

    async def look(self) -> int:
        await self.watcher._read()
        return await self.store.admit(self.pipeline, ("SND",), 10)

    async def turn(self) -> None:
        """Decide and do until nothing is left to do."""
        for _ in range(20):
            decided = await settle_all(self.reactor)
            if not await perform_all(self.store, self.engine) and not decided:
                return
        raise AssertionError("there is no end")

    async def claim(self) -> tuple[str, str]:
        """How it went: the state of the step, and its reason."""
        (one,) = await rows(self.store, "SELECT state, reason FROM steps WHERE name = 'claim'")
        return one["state"], one["reason"]


Pair = tuple[Daemon, Daemon]


@pytest.fixture(params=["csv", "own"])
async def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def row_of(kind: str, directory: Path, status: str) -> Path:
    """A catalogue of that kind, with one field in that status."""
    if kind == "csv":
        path = directory / "fields.csv"
        path.write_text(LINE.format(status))
    else:
        path = directory / "catalogue.db"
        await OwnCatalogue(path, "somebody").add(read_rows(LINE.format(status), "x", (status,)))
    return path


@pytest.fixture
async def pair(kind: str, tmp_path: Path) -> AsyncIterator[Pair]:
    """The second one's database is made in the same place of the same host as the first one's was: only the name differs."""
    file = tmp_path / "toy.toml"
    file.write_text(PIPELINE)
    made = []
    async with AsyncExitStack() as stack:
        for number in range(2):
            store = await stack.enter_async_context(opened(tmp_path / f"{number}" / "aglowd.db", HandClock()))
            name = await store.identity(daemon_name("ui1:/var/lib/aglowd", str(number)))
            path = tmp_path / ("fields.csv" if kind == "csv" else "catalogue.db")
            catalogue = (
                CsvCatalogue(path, name, offered=("SND",))
                if kind == "csv"
                else OwnCatalogue(path, name, offered=("SND",))
            )
            made.append(Daemon(store, name, catalogue, file))
        yield made[0], made[1]


@pytest.mark.parametrize("status", ["AAA", "CCC"])
async def test_of_two_that_take_a_field_over_at_one_moment_one_gets_it(
    kind: str, pair: Pair, tmp_path: Path, status: str
) -> None:
    await row_of(kind, tmp_path, status)
    for daemon in pair:
        await daemon.look()
    answers = await asyncio.gather(*(daemon.adopt() for daemon in pair))
    assert [answer["fields"][0]["run"] for answer in answers] == ["P1-1", "P1-1"], "neither has seen the other by now"
    for daemon in pair:
        await settle_all(daemon.reactor)
    await asyncio.gather(*(perform_all(daemon.store, daemon.engine) for daemon in pair))
    for daemon in pair:
        await settle_all(daemon.reactor)
    found = [await daemon.claim() for daemon in pair]
    assert sorted(state for state, _ in found) == ["done", "failed"]
    won, lost = sorted(pair, key=lambda daemon: found[pair.index(daemon)][0] != "done")
    assert f"is the word of another aglowd, {won.name} by {KEY}" in found[pair.index(lost)][1]
    await asyncio.gather(*(daemon.turn() for daemon in pair))
    shown, key = await won.catalogue.read_status("P1")
    assert (shown, (key or "").partition("/")[0]) == ("CCC", "P1-1"), "nobody wrote that it failed"
    assert await lost.catalogue.read_status("P1") == ("CCC", None)


@pytest.mark.parametrize("status", ["AAA", "CCC"])
async def test_who_comes_later_is_told_at_once_who_has_it(kind: str, pair: Pair, tmp_path: Path, status: str) -> None:
    await row_of(kind, tmp_path, status)
    first, second = pair
    await first.look()
    await first.adopt()
    await first.turn()
    await second.look()
    with pytest.raises(AglowError, match=r"P1: 'CCC' is the word of another aglowd, ui1:/var/lib/aglowd#0 by P1-1/"):
        await second.adopt()
    assert await rows(second.store, "SELECT * FROM runs") == []


@pytest.mark.parametrize("status", ["AAA", "CCC"])
async def test_what_a_dead_one_held_is_taken_over_by_its_name(
    kind: str, pair: Pair, tmp_path: Path, status: str
) -> None:
    await row_of(kind, tmp_path, status)
    dead, heir = pair
    await dead.look()
    await dead.adopt()
    await settle_all(dead.reactor)
    await perform_all(dead.store, dead.engine)  # Its last deed.
    await heir.look()
    with pytest.raises(AglowError, match=r"if that one is gone for good: --of ui1:/var/lib/aglowd#0"):
        await heir.adopt()
    with pytest.raises(
        AglowError, match=r"is the word of ui1:/var/lib/aglowd#0 by P1-1/.*; expected one of ui2:/srv#1"
    ):
        await heir.adopt("ui2:/srv#1")
    answer = await heir.adopt(dead.name)
    assert answer["fields"][0]["status"] == status
    await heir.turn()
    assert await heir.claim() == ("done", "done")
    assert (await heir.catalogue.read_status("P1"))[0] == "CCC"
    (event,) = await rows(heir.store, "SELECT json_extract(data, '$.of') AS of FROM events WHERE kind = 'FieldAdopted'")
    assert event["of"] == dead.name
    await settle_all(dead.reactor)  # It was not dead, and goes on.
    await perform_all(dead.store, dead.engine)
    assert await dead.catalogue.read_status("P1") == ("CCC", None), "what it writes then is refused"


async def test_a_pipeline_that_takes_from_nobody_is_told_before(pair: Pair, kind: str, tmp_path: Path) -> None:
    await row_of(kind, tmp_path, "AAA")
    heir = pair[1]
    await heir.look()
    claim = heir.pipeline.steps["claim"]
    steps = {**heir.pipeline.steps, "claim": structs.replace(claim, params={**claim.params, "of": ""})}
    heir.adoption._pipeline = structs.replace(heir.pipeline, steps=steps)
    with pytest.raises(AglowError, match=r"no step of toy takes a field from another aglowd; .*needs of = "):
        await heir.adopt(pair[0].name)


async def test_nobodys_field_is_not_taken_from_anybody(kind: str, pair: Pair, tmp_path: Path) -> None:
    await row_of(kind, tmp_path, "AAA")
    await pair[0].look()
    with pytest.raises(AglowError, match=r"'AAA' is no word of an aglowd; expected one of ui1:/var/lib/aglowd#1"):
        await pair[0].adopt(pair[1].name)


async def test_the_tag_stands_in_the_names_of_runs(pair: Pair, kind: str, tmp_path: Path) -> None:
    await row_of(kind, tmp_path, "SND")
    await pair[0].store.identity("x", "sara")
    for daemon in pair:
        await daemon.look()
    runs = [(await rows(daemon.store, "SELECT id FROM runs"))[0]["id"] for daemon in pair]
    assert runs == ["P1-sara1", "P1-1"]
    assert lineage.line_of("P1-sara1r20261124093012") == lineage.line_of("P1-1r20261124093012") == "r20261124093012"
    assert lineage.line_of("P1-sara1") == ""


async def test_of_two_that_take_what_is_on_offer_one_gets_it(kind: str, pair: Pair, tmp_path: Path) -> None:
    """Their first runs of the field have one name, and so have the keys of their claims."""
    await row_of(kind, tmp_path, "SND")
    for daemon in pair:
        assert await daemon.look() == 1
    await asyncio.gather(*(daemon.turn() for daemon in pair))
    assert sorted([(await daemon.claim())[0] for daemon in pair]) == ["done", "failed"]


async def test_a_daemon_keeps_its_name_wherever_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "aglowd.db"
    first = daemon_name("ui1:/var/lib/ag l@wd#", "1a2b3c4d")
    assert first == "ui1:/var/lib/ag_l_wd_#1a2b3c4d"
    assert daemon_name("x" * (MAX_PLACE_CHARS + 1), "1") == "x" * MAX_PLACE_CHARS + "#1"
    for name in (first, "ui2:/elsewhere#5e6f7a8b"):
        async with opened(path, HandClock()) as store:
            assert await store.identity(name) == first


@pytest.mark.parametrize("kind", ["csv", "own"])
async def test_what_an_older_release_has_written_goes_on(kind: str, tmp_path: Path) -> None:
    """It left a place for a name, which may have become another one since."""
    await row_of(kind, tmp_path, "SND")
    path = tmp_path / ("fields.csv" if kind == "csv" else "catalogue.db")
    of_kind = CsvCatalogue if kind == "csv" else OwnCatalogue
    await of_kind(path, "old:/var/lib/aglowd").write_status("P1", "SND", "AAA", KEY)
    now = of_kind(path, "new:/srv/aglowd#1a2b3c4d")
    assert (await now.read_status("P1"), await now.holder("P1")) == (("AAA", KEY), "")
    await now.write_status("P1", "AAA", "CCC", "P1-1/calibrated/1/write_status/0")
    assert await of_kind(path, "another:/srv/aglowd#5e6f7a8b").holder("P1") != ""


async def test_a_word_that_was_given_back_holds_nothing(tmp_path: Path) -> None:
    """Another program takes the field then, and with it the word that was ours before."""
    await row_of("csv", tmp_path, "SND")
    path = tmp_path / "fields.csv"
    ours, others = (CsvCatalogue(path, name, offered=("SND",)) for name in ("a#1", "b#2"))
    await ours.write_status("P1", "SND", "AAA", KEY)
    await ours.write_status("P1", "AAA", "SND", "release-1/release/1/release_field/0")
    path.write_text(LINE.format("AAA"))
    assert (await others.holder("P1"), await ours.read_status("P1")) == ("", ("AAA", None))
