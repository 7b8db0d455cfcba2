"""`aglowctl adopt`: what is done of a field is said with its run's beginning, and what cannot be taken over says why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from steered import Hand
from support import HandClock, opened, rows, settle_all

from aglowd.adoption import Adoption, AdoptOrder
from aglowd.errors import AglowError, Permanent, Temporary
from aglowd.grid.files import Entry
from aglowd.handlers.tokens import MAX_TOKENS
from aglowd.model import FieldView
from aglowd.pipeline import Pipeline
from aglowd.reactor import Pipelines, Reactor
from aglowd.selection import Limits
from aglowd.store.doubts import Word
from aglowd.store.manual import Left
from aglowd.store.pauses import Hold
from aglowd.store.plans import Changed
from aglowd.store.store import Store
from aglowd.templates import render
from aglowd.wiring import handler_kinds, load_pipelines

SOLUTIONS = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/x/cal/CI_pref3_L1.tar"
TEMPLATE = SOLUTIONS.replace("L1", "{{ field.calibrator.obsid }}")
SITE = {"name": "sara", "results": "file:///r", "archive": "file:///a", "pilots": {}}
MAX_FIELDS = 3
SURL = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/x/L2_SB000_uv.MS_11111111.tar"
WORDS = {"claimed": "AAA", "staged": "SSS", "calibrated": "CCC", "target": "TTT", "archived": "ZZZ", "failed": "RRR"}
FIELD = FieldView(
    "P1",
    "CCC",
    {
        "target": {"obsid": "L2", "freq_resolution": 16, "time_resolution": 1.0, "subbands": 244},
        "calibrator": {"obsid": "L1", "freq_resolution": 16, "time_resolution": 1.0, "subbands": 244},
        "baseline_filter": "",
    },
    site="sara",
)
GIVEN = {"solutions": TEMPLATE}


class Base:
    """A token database: type → ids, or what is wrong with it."""

    def __init__(self, **types: tuple[str, ...] | Exception) -> None:
        self.types: Mapping[str, Any] = types
        self.documents: dict[str, Any] = {}

    async def get_docs(self, ids: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.documents.get(name, {"_id": name}) for name in ids}

    async def list_ids(self, token_type: str) -> tuple[str, ...]:
        found: Any = self.types.get(token_type, ())
        if isinstance(found, Exception):
            raise found
        return tuple(found)


class Files:
    """Storage: URL → size, or what is wrong with it; every other file is there."""

    def __init__(self) -> None:
        self.odd: dict[str, int | Exception | None] = {}
        self.asked: list[str] = []

    async def stat(self, url: str) -> Entry | None:
        self.asked.append(url)
        found = self.odd.get(url, 7)
        if isinstance(found, Exception):
            raise found
        return None if found is None else Entry(url, found, False, 0.0)


class Rows:
    """The catalogue as it is now: field → status and key, else as the store has it."""

    where = "the catalogue"

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now: dict[str, tuple[str, str | None]] = {}

    async def read_status(self, name: str) -> tuple[str, str | None]:
        known = {one["field"]: one["catalogue_status"] for one in await self.store.fields()}
        return self.now.get(name) or (known[name], None)

    async def holder(self, name: str) -> str:
        return ""


class Scene:
    """The daemon's reactor and its adoption on the pipelines that come with it."""

    def __init__(self, store: Store, base: Base, pipelines: Mapping[str, Pipeline] | None = None) -> None:
        self.store = store
        self.pipelines = dict(pipelines or load_pipelines("", "sksp"))
        config = {"srm_dir": "/srm", "pilots": {}, "staging": {"lifetime": "7d"}, "statuses": WORDS}
        shown: dict[str, Any] = {"config": config, "sites": {"sara": SITE}, "route": {"sara": SITE}}
        self.reactor = Reactor(
            store,
            handler_kinds(),
            Pipelines(self.pipelines),
            store.clock,
            pools={},
            shown=shown,
            select=("SND",),
            field_pipeline="sksp",
            max_fields=MAX_FIELDS,
        )
        self.asked: list[str] = []
        self.base, self.rows, self.files = base, Rows(store), Files()

        def token_base(site: str) -> Any:
            self.asked.append(site)
            return base

        self.limits = {"sara": MAX_FIELDS, "juelich": MAX_FIELDS}
        outside: Any = (token_base, self.rows, self.files)
        self.adoption = Adoption(store, self.pipelines["sksp"], WORDS, shown, *outside, Limits(MAX_FIELDS, self.limits))

    async def adopt(self, *targets: str, **values: Any) -> dict[str, Any]:
        return await self.adoption.adopt(AdoptOrder(targets, reason="AGLOW stopped", **values), 1000)

    async def put(self, *fields: tuple[str, str]) -> None:
        """Rows of the catalogue: name and status."""
        await self.store.put_fields(
            [(msgspec.structs.replace(FIELD, name=name, status=status), "") for name, status in fields]
        )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(tmp_path / "aglowd.db", HandClock()) as found:
        yield found


@pytest.fixture
def scene(store: Store) -> Scene:
    return Scene(
        store,
        Base(
            SKSP_P1_targ1=("t1", "t2"),
            many=tuple("t" * (MAX_TOKENS + 1)),
            alien=("a1",),
            ours=("o1",),
            dead=Temporary("no route to host"),
        ),
    )


async def test_a_calibrated_field_goes_on_behind_its_calibrator(scene: Scene) -> None:
    await scene.put(("P1", "CCC"))
    await settle_all(scene.reactor)
    assert await rows(scene.store, "SELECT * FROM runs") == [], "a field at CCC is on offer to nobody"
    plan = await scene.adopt("P1", given=GIVEN, dry_run=True)
    assert await rows(scene.store, "SELECT * FROM runs") == [], "a dry run begins nothing"
    answer = await scene.adopt("P1", given=GIVEN)
    assert answer == {**plan, "done": True}
    (field,) = answer["fields"]
    done = {"calibrator": {"solutions": [SOLUTIONS]}, "status_calibrated": {"status": "CCC"}}
    assert (field["run"], field["steps"]) == ("P1-1", done)
    await settle_all(scene.reactor)

    (claim,) = await rows(scene.store, "SELECT inputs FROM effects")
    assert msgspec.json.decode(claim["inputs"]).items() >= {"expect": "CCC", "status": "CCC"}.items(), (
        "with our key to it"
    )
    states = {row["name"]: row["state"] for row in await rows(scene.store, "SELECT name, state FROM steps")}
    assert "done" not in states.values(), "each in its turn"
    (event,) = await rows(scene.store, "SELECT * FROM events WHERE kind = 'FieldAdopted'")
    assert msgspec.json.decode(event["data"]) == {
        "uid": 1000, "reason": "AGLOW stopped", "status": "CCC", "steps": list(done), "of": "", "pipeline": "sksp",
    }  # fmt: skip
    written = [scene.pipelines["sksp"].steps[name] for name in ("status_target", "status_failed")]
    context = {
        "config": {"statuses": WORDS},
        "steps": {step: {"outputs": outputs} for step, outputs in {"status_target": {}, "claim": {}, **done}.items()},
        "field": {},
    }
    assert [render(step.params["expect"], context) for step in written] == ["CCC", "CCC"], (
        "what comes next is over AGLOW's word"
    )


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, f"P1: the solutions of calibrator are said to be at {SOLUTIONS}, where no file is"),
        (0, f"P1: the solutions of calibrator are said to be at {SOLUTIONS}, where the file is empty"),
        (Temporary("no route to host"), "P1: no route to host"),
        (Permanent("403"), "P1: 403"),
    ],
)
async def test_solutions_that_are_not_there_are_no_solutions(
    scene: Scene, found: int | Exception | None, words: str
) -> None:
    await scene.put(("P1", "CCC"))
    scene.files.odd[SOLUTIONS] = found
    for dry_run in (True, False):
        with pytest.raises(AglowError) as raised:
            await scene.adopt("P1", given=GIVEN, dry_run=dry_run)
        assert words in str(raised.value)
    assert await rows(scene.store, "SELECT * FROM runs") == []
    del scene.files.odd[SOLUTIONS]
    await scene.adopt("P1", given=GIVEN)
    assert scene.files.asked == [SOLUTIONS] * 3


async def test_one_field_without_its_solutions_stops_no_other(scene: Scene) -> None:
    await scene.put(("P1", "CCC"), ("P2", "CCC"), ("P3", "TTT"))
    scene.base.types = {"t": ("t1",)}
    scene.files.odd["file:///P1.tar"] = None
    given = {"solutions": "file:///{{ field.name }}.tar", "token_type": "t"}
    answer = await scene.adopt("P*", given=given)
    assert [field["field"] for field in answer["fields"]] == ["P2", "P3"]
    assert "no file is" in answer["left"]["P1"]
    assert scene.files.asked == ["file:///P1.tar", "file:///P2.tar"], "at TTT nothing needs them any more"


async def test_solutions_are_given_as_a_url(scene: Scene) -> None:
    await scene.put(("P1", "CCC"))
    with pytest.raises(AglowError, match="the output 'solutions' is no URL"):
        await scene.adopt("P1", given={"solutions": "cal.tar"})


@pytest.mark.parametrize("status", ["AAA", "SSS"])
async def test_a_field_that_aglow_has_only_staged_begins_with_its_claim(scene: Scene, status: str) -> None:
    """The claim is the first word over AGLOW's: what AGLOW writes meanwhile refuses it."""
    await scene.put(("P1", status))
    await scene.adopt("P1")
    await settle_all(scene.reactor)
    (claim,) = await rows(scene.store, "SELECT inputs, state FROM effects")
    assert msgspec.json.decode(claim["inputs"]).items() >= {"expect": status, "status": "AAA"}.items()
    assert claim["state"] == "open", "our own word is nobody else's: it is not looked for"


async def test_tokens_are_gone_on_with(scene: Scene) -> None:
    await scene.put(("P1", "CCC"))
    answer = await scene.adopt("P1", given=GIVEN, tokens={"target": "SKSP_{{ field.name }}_targ1"})
    (field,) = answer["fields"]
    assert field["tokens"] == {"target": {"token_type": "SKSP_P1_targ1", "count": 2}}
    assert field["steps"]["target_tokens"] == {
        "token_type": "SKSP_P1_targ1", "tokens": ["t1", "t2"], "count": 2, "srm": {},
    }  # fmt: skip
    assert field["steps"]["target_attach"] == {}
    assert scene.asked == ["sara"], "in the database of the site where it is worked on"


async def test_no_two_fields_of_an_order_go_on_with_one_set_of_tokens(scene: Scene) -> None:
    await scene.put(("P1", "AAA"), ("P2", "AAA"))
    answer = await scene.adopt("P*", tokens={"target": "SKSP_P1_targ1"})
    assert [field["field"] for field in answer["fields"]] == ["P1"]
    assert "tokens of type 'SKSP_P1_targ1' are another field's of this order" in answer["left"]["P2"]


async def test_what_the_other_program_has_done_stays_done_when_it_goes_back(scene: Scene) -> None:
    """A retry does not process the calibrator again, and does not write over the row what it said before."""
    await scene.put(("P1", "CCC"))
    await scene.adopt("P1", given=GIVEN)
    hand = Hand(scene.store, *scene.pipelines.values())
    read = {"site": "sara", "surls": [SURL], "missing": []}
    for step, outputs in (("claim", {"status": "CCC"}), ("target_list", read), ("calibrator_list", read)):
        await hand("done", "P1-1", steps=(step,), outputs=outputs)
    await settle_all(scene.reactor)
    await hand("retry", "P1-1", steps=("calibrator",))
    await settle_all(scene.reactor)
    states = {row["name"]: row["state"] for row in await rows(scene.store, "SELECT name, state FROM steps")}
    assert (states["calibrator"], states["status_calibrated"]) == ("done", "done")
    assert len(await rows(scene.store, "SELECT * FROM runs")) == 1, "no calibrator runs"
    assert await rows(scene.store, "SELECT * FROM effects") == []


async def test_a_row_that_says_something_else_now_or_is_a_lost_runs_is_left(scene: Scene) -> None:
    await scene.put(("P1", "AAA"))
    for now, words in (
        (("ZZZ", None), "its row says 'ZZZ' by now; known was 'AAA'"),
        (
            ("AAA", "P1-7/claim/1/write_status/0"),
            "'AAA' is the word of a run that is not known here any more, by P1-7/claim",
        ),
    ):
        scene.rows.now["P1"] = now
        with pytest.raises(AglowError, match=words):
            await scene.adopt("P1")
    assert await rows(scene.store, "SELECT * FROM runs") == []


async def test_a_site_is_said_where_the_catalogue_does_not_say_it(scene: Scene) -> None:
    await scene.store.put_fields([(msgspec.structs.replace(FIELD, status="AAA", site=""), "")])
    with pytest.raises(AglowError, match="there is no site 'mars'; known: sara"):
        await scene.adopt("P1", site="mars")
    await scene.adopt("P1", tokens={"target": "SKSP_P1_targ1"}, site="sara")
    assert scene.asked == ["sara"]


async def test_one_field_that_cannot_be_taken_over_stops_no_other(scene: Scene) -> None:
    await scene.put(("P1", "AAA"), ("P2", "AAA"), ("P3", "ZZZ"), ("P4", "CCC"))
    await scene.adopt("P1")
    answer = await scene.adopt("P*")
    assert [field["field"] for field in answer["fields"]] == ["P2"]
    assert answer["left"].keys() == {"P1", "P4"}, "a pattern means what can be taken over"
    assert answer["left"]["P1"] == "a run is at work on it: aglowctl explain P1"
    assert "--given NAME=VALUE" in answer["left"]["P4"]
    assert "'solutions'" in answer["left"]["P4"]


async def test_no_more_are_taken_over_than_may_be_at_work(scene: Scene) -> None:
    await scene.put(*((f"P{number}", "AAA") for number in range(5)))
    for dry_run in (True, False):
        answer = await scene.adopt("P*", dry_run=dry_run)
        assert [field["field"] for field in answer["fields"]] == ["P0", "P1", "P2"]
        assert set(answer["left"]) == {"P3", "P4"}
        assert answer["left"]["P3"] == "3 fields are under way, and max_fields is 3"


async def test_no_more_are_taken_over_at_a_site_than_may_be_under_way_there(scene: Scene) -> None:
    scene.limits["sara"] = 1
    elsewhere = msgspec.structs.replace(FIELD, name="P3", status="AAA", site="juelich")
    await scene.put(("P1", "AAA"), ("P2", "AAA"))
    await scene.store.put_fields([(elsewhere, "")])
    for dry_run in (True, False):
        answer = await scene.adopt("P*", dry_run=dry_run)
        assert [field["field"] for field in answer["fields"]] == ["P1", "P3"]
        assert answer["left"] == {"P2": "1 fields are under way at sara, and its fields_at_once is 1"}


async def test_where_a_field_is_said_to_lie_its_site_has_limits_and_may_be_drained(scene: Scene) -> None:
    """A fields file does not say it of a row that is under way."""
    scene.limits["sara"] = 1
    await scene.store.put_fields(
        [(msgspec.structs.replace(FIELD, name=name, status="AAA", site=""), "") for name in ("P1", "P2")]
    )
    answer = await scene.adopt("P*", site="sara", dry_run=True)
    assert [field["field"] for field in answer["fields"]] == ["P1"]
    await scene.store.hold("drain", [Hold("site", "sara")], Word(1000, "maintenance"))
    with pytest.raises(AglowError, match="P1: drained with site sara"):
        await scene.adopt("P1", site="sara")
    assert (await scene.adopt("P1"))["done"], "nobody said where it lies"


async def test_what_has_begun_while_it_was_looked_at_is_counted(scene: Scene) -> None:
    await scene.put(("P1", "CCC"), *((f"S{number}", "SND") for number in range(MAX_FIELDS)))

    async def meanwhile(url: str) -> Entry:
        assert await scene.store.admit(scene.pipelines["sksp"], ("SND",), MAX_FIELDS) == MAX_FIELDS
        return Entry(url, 7, False, 0.0)

    scene.files.stat = meanwhile  # type: ignore[method-assign]
    with pytest.raises(AglowError, match="P1: 3 fields are under way, and max_fields is 3"):
        await scene.adopt("P1", given=GIVEN)


@pytest.mark.parametrize("hold", [Hold("everything"), Hold("field", "P1"), Hold("site", "sara")])
async def test_what_is_drained_is_taken_over_by_nobody(scene: Scene, hold: Hold) -> None:
    await scene.put(("P1", "AAA"))
    await scene.store.hold("drain", [hold], Word(1000, "maintenance"))
    for dry_run in (True, False):
        with pytest.raises(
            AglowError, match=r"P1: drained .*by uid 1000: maintenance; aglowctl resume .* lets it begin"
        ):
            await scene.adopt("P1", dry_run=dry_run)
    await scene.store.hold("pause", [hold], Word(1000, "with care"))
    assert (await scene.adopt("P1"))["done"], "its run begins, and stands still until it is resumed"


async def test_what_was_shown_is_done_or_nothing(scene: Scene) -> None:
    await scene.put(("P1", "AAA"), ("P2", "AAA"))
    plan = await scene.adopt("P*", dry_run=True)
    await scene.put(("P2", "SND"))
    with pytest.raises(Changed, match=r"it has changed since you looked: P1 .AAA. would be taken over now; look again"):
        await scene.adopt("P*", version=plan["version"])
    assert await rows(scene.store, "SELECT * FROM runs") == []
    again = await scene.adopt("P*", dry_run=True)
    answer = await scene.adopt("P*", version=again["version"])
    assert [field["field"] for field in answer["fields"]] == ["P1"]


async def test_tokens_that_have_come_since_are_a_change(scene: Scene) -> None:
    await scene.put(("P1", "AAA"))
    tokens = {"target": "SKSP_P1_targ1"}
    plan = await scene.adopt("P1", dry_run=True, tokens=tokens)
    scene.base.types = {"SKSP_P1_targ1": ("t1", "t2", "t3")}
    with pytest.raises(Changed):
        await scene.adopt("P1", version=plan["version"], tokens=tokens)


@pytest.mark.parametrize(
    ("targets", "values", "words"),
    [
        (("P3",), {}, "nothing is taken over: P3: it is in status 'ZZZ'; expected one of AAA, CCC, SSS, TTT"),
        (("P9",), {}, "the field 'P9' is not in the catalogue"),
        (("Q*",), {}, "no field 'Q.' is in a status of AAA, CCC, SSS, TTT"),
        (("P1",), {"status": "ZZZ"}, "nothing is taken over from status 'ZZZ'; expected one of AAA, CCC, SSS, TTT"),
        (("P1",), {"status": "SSS"}, "P1: it is in status 'AAA', not 'SSS'"),
        (
            ("P1",),
            {"tokens": {"claim": "x"}},
            "no step 'claim' of sksp makes tokens by a fragment; known: target, target2",
        ),
        (("P1",), {"tokens": {"target": "nobodys"}}, "P1: there is no token of type 'nobodys'"),
        (("P1",), {"tokens": {"target": "many"}}, "P1: there are 10001 tokens of type 'many'; expected at most 10000"),
        (("P1",), {"tokens": {"target": "{{ field.target }}"}}, "P1: --tokens target=.* expected a text"),
        (("P1",), {"given": {"solution": "x"}}, "uses given.solution; known: solutions, token_type"),
        (("P7",), {"given": {"token_type": "tarq2"}}, "P7: there is no token of type 'tarq2'"),
        (("P1",), {"tokens": {"target": "alien"}}, "P1: the token a1 is of the observation L9; expected L2"),
        (("P1",), {"tokens": {"target": "ours"}}, "P1: the token o1 is aglowd's own"),
        (("P1",), {"tokens": {"target": "dead"}}, "P1: no route to host"),
        (("P1",), {"tokens": {"target": "{{ field.nonsense }}"}}, "P1: .*nonsense"),
        (("P5", "P6"), {}, "P5: bad row; correct the catalogue first .and 1 more."),
    ],
)
async def test_what_cannot_be_taken_over_says_why(
    scene: Scene, targets: tuple[str, ...], values: dict[str, Any], words: str
) -> None:
    await scene.put(("P1", "AAA"), ("P3", "ZZZ"), ("P7", "TTT"))
    scene.base.documents = {"a1": {"OBSID": "L9"}, "o1": {"aglowd": {"key": "P9-1/tokens/1/create_tokens/0"}}}
    bad = [(msgspec.structs.replace(FIELD, name=name, status="AAA"), "bad row") for name in ("P5", "P6")]
    await scene.store.put_fields(bad)
    with pytest.raises(AglowError, match=words):
        await scene.adopt(*targets, **values)
    assert await rows(scene.store, "SELECT * FROM runs") == []


async def test_a_row_that_says_something_else_by_now_is_left(scene: Scene) -> None:
    await scene.put(("P1", "TTT"))
    with pytest.raises(AglowError, match="P1 is in status 'TTT' now, not 'CCC'"):
        await scene.store.take_over(scene.pipelines["sksp"], Left("P1", "CCC", {}), Limits(9), Word(1000, ""))
    assert await rows(scene.store, "SELECT * FROM runs") == []


async def test_a_pipeline_without_tables_takes_nothing_over(store: Store) -> None:
    pipelines = load_pipelines("", "sksp")
    bare = msgspec.structs.replace(pipelines["sksp"], adopt={})
    with pytest.raises(AglowError, match=r"sksp has no \[adopt\] tables"):
        await Scene(store, Base(), {**pipelines, "sksp": bare}).adopt("P1")
