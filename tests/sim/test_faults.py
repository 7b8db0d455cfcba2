"""Every fault of a service: what it looks like through the daemon's own transports, whether the deed was done, and the ledger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.dcache import Dcache
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.lta import LtaStager
from aglowd.grid.picas import Change, FeedReset, Picas
from aglowd.sim.faults import ANY, KINDS, Faults, Script, Strike, own_kinds, read_scripts
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.sim.history import History
from aglowd.sim.ledger import Ledger
from aglowd.sim.rules import surls_staged_twice
from aglowd.sim.world import World, WorldClock

from .conftest import eventually, read_lines, surls

LONGEST_S = 3.0
"""Real seconds that a request may take here."""


class Struck:
    """A world with a fault plan, and the daemon's adapters to it."""

    def __init__(self, ready: dict[str, Any], plan: Faults, http: Http, clock: Clock) -> None:
        secrets = ready["credentials"]
        lta = Credential("lta", user=secrets["lta_user"], password=secrets["lta_password"])
        couch = Credential("picas", user=secrets["couch_user"], password=secrets["couch_password"])
        self.ready = ready
        self.plan = plan
        self.clock = clock
        self.sites = {name: Site(name, clock) for name in ("lta", "dcache", "couchdb")}
        self.lta = LtaStager(http, self.sites["lta"], lta, ready["lta_url"])
        self.dcache = Dcache(http, self.sites["dcache"], None, ready["dcache_url"])
        self.picas = Picas(http, self.sites["couchdb"], couch, ready["couch_url"], secrets["couch_database"])
        pilots = ready["pilots_couch_url"]
        self.unstruck = Picas(http, Site("quiet", clock), couch, pilots, secrets["couch_database"])
        """The pilots' way to the database, which no fault strikes."""

    def add(self, system: str, fault: str, op: str = "*", value: float | None = None, count: int = 1) -> None:
        self.plan.add(Script(system=system, fault=fault, op=op, value=value, count=count))

    async def lines(self, system: str, *ops: str) -> list[dict[str, Any]]:
        """The ledger's lines of some operations, when it has reached the file."""
        await asyncio.sleep(0.1)  # The ledger is flushed every 50 ms; nothing rings when it is.
        return [line for line in read_lines(self.ready["ledger"]) if line["system"] == system and line["op"] in ops]

    def is_forgotten(self, request: int) -> Callable[[], Awaitable[bool]]:
        return self._says(request, "")

    def is_success(self, request: int) -> Callable[[], Awaitable[bool]]:
        return self._says(request, "success")

    def _says(self, request: int, status: str) -> Callable[[], Awaitable[bool]]:
        async def says() -> bool:
            return await self.lta.status(request) == status

        return says

    async def struck(self, fault: str) -> list[tuple[str, str]]:
        """What the ledger says was struck by the fault: system and operation."""
        return [(line["target"], line["called"]) for line in await self.lines("faults", fault) if line["by"] == "world"]


StruckMaker = Callable[..., AbstractAsyncContextManager[Struck]]


@pytest.fixture
def world_of_faults(tmp_path: Path) -> StruckMaker:
    """`async with world_of_faults(speed=…) as there`: a world that is struck by what is added to its plan."""

    @asynccontextmanager
    async def make(speed: float = 1.0, **changed: Any) -> AsyncIterator[Struck]:
        lists = tmp_path / "srm"
        lists.mkdir(exist_ok=True)
        (lists / "srm229509.txt").write_text("".join(f"{surl}\n" for surl in surls()))
        origin = time.time()
        given: dict[str, Any] = {"seed": 1, "failure_rate": 0.0} | changed
        settings = Settings(directory=tmp_path / "world", srm_dir=lists, speed=speed, origin=origin, **given)
        plan: list[Faults] = []
        clock = Clock(speed, origin)
        http = Http(clock, longest_s=LONGEST_S)
        async with simulated_grid(settings, plan) as ready:
            try:
                yield Struck(ready, plan[0], http, clock)
            finally:
                await http.close()

    return make


# --- what can happen to any request

REFUSED, UNKNOWN, APPLIED = (Temporary, False), (Unknown, False), (Unknown, True)
WRITES: dict[str, tuple[type[OutsideError], bool]] = {
    "refuse": UNKNOWN,
    "hang": UNKNOWN,
    "reset_before": UNKNOWN,
    "reset_after": APPLIED,
    "lost_reply": APPLIED,
    "error_before": UNKNOWN,
    "error_after": APPLIED,
    "busy": UNKNOWN,
    "too_many": REFUSED,
    "html": UNKNOWN,
    "truncated": APPLIED,
    "malformed": APPLIED,
    "slow": APPLIED,
    "huge": APPLIED,
}
"""Fault → what a write raises, and whether it was done."""


@pytest.mark.parametrize("fault", sorted(WRITES))
async def test_a_write_that_is_struck(world_of_faults: StruckMaker, fault: str) -> None:
    raised, done = WRITES[fault]
    async with world_of_faults() as there:
        there.add("lta", fault, "add_getid", value=60 if fault in ("refuse", "busy", "too_many") else None)
        with pytest.raises(raised) as caught:
            await there.lta.stage(surls())
        assert type(caught.value) is raised
        assert bool(await there.lines("staging", "request_planned")) is done
        assert await there.struck(fault) == [("lta", "add_getid")]
        quiet = there.sites["lta"].health.backing_off_until
        assert (quiet is not None) is (fault in ("busy", "too_many"))


@pytest.mark.parametrize("fault", sorted(WRITES))
@pytest.mark.parametrize("system", ["dcache", "couchdb"])
async def test_a_read_that_is_struck_is_temporary(world_of_faults: StruckMaker, system: str, fault: str) -> None:
    async with world_of_faults(speed=600) as there:
        there.add(system, fault, value=60 if fault in ("refuse", "busy", "too_many") else None)
        op = "archiveinfo" if system == "dcache" else "info"
        with pytest.raises(Temporary) as caught:
            await (there.dcache.localities(surls()) if system == "dcache" else there.picas.info())
        assert await there.struck(fault) == [(system, op)]
        if fault in ("busy", "too_many"):
            assert caught.value.retry_after_s == 60


async def test_a_door_that_is_shut_refuses_and_opens_again(world_of_faults: StruckMaker) -> None:
    async with world_of_faults(speed=100) as there:
        there.add("lta", "refuse", value=50)
        with pytest.raises(Temporary, match="broken off"):
            await there.lta.progress()
        with pytest.raises(Temporary, match="no connection") as caught:
            await there.lta.stage(surls())
        assert type(caught.value) is Temporary, "nothing was sent, so a write did not happen"
        async with asyncio.timeout(10):
            while True:
                try:
                    assert await there.lta.progress() == {}
                    break
                except Temporary:
                    await asyncio.sleep(0.05)
        assert await there.struck("refuse") == [("lta", "getprogress")]


async def test_pilots_are_not_struck(world_of_faults: StruckMaker) -> None:
    async with world_of_faults() as there:
        there.add("couchdb", "error_before", count=100)
        with pytest.raises(Temporary):
            await there.picas.info()
        assert (await there.unstruck.info()).doc_count == 0


# --- the stager's own


async def test_a_request_comes_to_light_late(world_of_faults: StruckMaker) -> None:
    async with world_of_faults(speed=1000) as there:
        there.add("lta", "late", value=300)
        request = await there.lta.stage(surls())
        assert await there.lta.progress() == {}
        assert await there.lta.status(request) == ""
        assert await there.lta.staged(request) == ()
        await eventually(there.lta.progress)
        assert await there.lta.status(request) in ("new", "scheduled")
        assert await there.struck("late") == [("lta", "add_getid")]


async def test_a_request_comes_to_light_late_and_its_answer_is_lost(world_of_faults: StruckMaker) -> None:
    async with world_of_faults(speed=1000) as there:
        there.add("lta", "late_lost", value=600)
        with pytest.raises(Unknown):
            await there.lta.stage(surls())
        assert await there.lta.progress() == {}, "who looks now does not see it"
        (request,) = await eventually(there.lta.progress)
        assert (await there.lines("staging", "request_made"))[0]["result"] == request


async def test_a_request_is_forgotten_while_it_runs(world_of_faults: StruckMaker) -> None:
    async with world_of_faults(speed=36_000) as there:
        there.add("lta", "vanish", value=3600)
        request = await there.lta.stage(surls())
        await eventually(there.is_forgotten(request))
        assert await there.lta.progress() == {}
        planned = (await there.lines("staging", "request_planned"))[-1]
        assert len(planned["failed"]) == len(surls())
        await asyncio.sleep(31 * 3600 / 36_000)  # World hours in which every recall would have ended.
        assert set((await there.dcache.localities(surls())).values()) == {"NEARLINE"}, "its files are recalled no more"
        again = await there.lta.stage(surls())
        assert again != request
        await there.lines("lta", "add_getid")
        history = History(read_lines(there.ready["ledger"]))
        assert len(history.stagings) == 2
        assert list(surls_staged_twice(history)) == [], "nobody asked for what was in progress"


async def test_a_success_that_is_none(world_of_faults: StruckMaker) -> None:
    async with world_of_faults(speed=36_000) as there:
        there.add("lta", "false_success", value=3600)
        request = await there.lta.stage(surls())
        await eventually(there.is_success(request))
        seen = (await there.lta.progress())[request]
        assert (seen.status, seen.files_done, seen.percent) == ("success", len(surls()), 100)
        assert sorted(await there.lta.staged(request)) == surls()
        assert set((await there.dcache.localities(surls())).values()) == {"NEARLINE"}


# --- the database's own


def documents(count: int) -> list[dict[str, Any]]:
    return [{"_id": f"t:{number}", "type": "t", "lock": 0} for number in range(count)]


async def test_a_bulk_write_is_half_done(world_of_faults: StruckMaker) -> None:
    async with world_of_faults() as there:
        there.add("couchdb", "partial_bulk", value=3)
        with pytest.raises(Unknown):
            await there.picas.bulk(documents(8))
        found = await there.unstruck.get_docs([f"t:{number}" for number in range(8)])
        assert [name for name, doc in found.items() if doc] == ["t:0", "t:1", "t:2"]


async def test_rows_of_a_bulk_write_are_in_conflict(world_of_faults: StruckMaker) -> None:
    async with world_of_faults() as there:
        there.add("couchdb", "conflict", value=0.25)
        rows = await there.picas.bulk(documents(8))
        assert [name for name, row in rows.items() if row.error == "conflict"] == ["t:0", "t:1"]
        assert all(row.ok for row in (await there.picas.bulk(documents(2))).values()), "nobody had written them"


async def read_feed(picas: Picas, since: str | None, count: int) -> list[str]:
    """The ids of the next changes."""
    found: list[str] = []
    async with aclosing(picas.changes(since)) as feed, asyncio.timeout(10):  # type: ignore[type-var] # a generator
        async for change in feed:
            if isinstance(change, Change):
                found.append(change.id)
                if len(found) == count:
                    break
    return found


async def test_a_feed_is_rewound(world_of_faults: StruckMaker) -> None:
    async with world_of_faults() as there:
        await there.picas.bulk(documents(5))
        since = (await there.picas.info()).update_seq
        there.add("couchdb", "rewind", value=3)
        assert await read_feed(there.picas, since, 3) == ["t:2", "t:3", "t:4"]
        assert await there.struck("rewind") == [("couchdb", "changes")]


@pytest.mark.parametrize("status", [None, 400, 404])
async def test_a_sequence_is_refused(world_of_faults: StruckMaker, status: int | None) -> None:
    async with world_of_faults() as there:
        await there.picas.bulk(documents(1))
        since = (await there.picas.info()).update_seq
        there.add("couchdb", "since_refused", value=status)
        with pytest.raises(FeedReset):
            await read_feed(there.picas, since, 1)
        assert await read_feed(there.picas, "0", 1) == ["t:0"]


@pytest.mark.parametrize("fault", ["restart", "recreate"])
async def test_a_database_comes_up_anew_with_all_its_documents(world_of_faults: StruckMaker, fault: str) -> None:
    async with world_of_faults() as there:
        await there.picas.bulk(documents(4))
        changed = await there.picas.get_docs(["t:0"])
        await there.picas.bulk([{**(changed["t:0"] or {}), "lock": 5}])
        before = await there.picas.info()
        reader = asyncio.create_task(read_feed(there.picas, before.update_seq, 1))
        await there.lines("couchdb", "changes")  # Until then it was asked for.
        there.add("couchdb", fault)
        after = await there.picas.info()
        assert after.instance_start_time != before.instance_start_time
        assert after.doc_count == 4
        assert (after.update_seq.partition("-")[0] == "5") is (fault == "restart"), "a copy has a sequence of its own"
        with pytest.raises(Temporary):
            await reader
        assert (await there.picas.get_docs(["t:0"]))["t:0"]["lock"] == 5  # type: ignore[index] # it is there
        if fault == "recreate":
            with pytest.raises(FeedReset):
                await read_feed(there.picas, before.update_seq, 1)


async def test_old_revisions_are_compacted_away(world_of_faults: StruckMaker) -> None:
    """The simulated database keeps the latest revision only: it is as compact as it can be, always."""
    async with world_of_faults() as there:
        first = (await there.picas.bulk(documents(1)))["t:0"].rev
        await there.picas.bulk([{**documents(1)[0], "_rev": first, "lock": 1}])
        with pytest.raises(Permanent) as caught:
            await there.picas._send("GET", f"t:0?rev={first}", write=False)
        assert caught.value.absent


# --- the plan


class Hand(WorldClock):
    """World time by hand: `age_s` world seconds after its beginning."""

    age_s = 0.0

    def now(self) -> float:
        return self.origin + self.age_s


@pytest.fixture
def plan_of(tmp_path: Path) -> Iterator[Callable[..., Faults]]:
    """A plan of no world: what it strikes is asked for directly."""
    with closing(Ledger(tmp_path / "ledger.jsonl")) as ledger:

        def make(*scripts: Script, seed: int = 1, clock: WorldClock | None = None, **given: Any) -> Faults:
            return Faults(World(seed, clock or WorldClock(1.0, time.time()), ledger), scripts, **given)

        yield make


def test_a_script_strikes_the_calls_that_it_names(plan_of: Callable[..., Faults]) -> None:
    plan = plan_of(Script(system="lta", fault="hang", op="getprogress", nth=2, count=2))
    struck = [plan.strike("lta", "getprogress") is not None for _ in range(5)]
    assert struck == [False, True, True, False, False]
    assert plan.strike("lta", "add_getid") is None
    assert plan.strike("dcache", "getprogress") is None


def test_a_script_waits_for_its_window(plan_of: Callable[..., Faults]) -> None:
    clock = Hand(1.0, time.time())
    plan = plan_of(Script(system="dcache", fault="html", from_s=100, until_s=200, count=9), clock=clock)
    struck = []
    for clock.age_s in (0, 99, 100, 199, 200):
        struck.append(plan.strike("dcache", "archiveinfo") is not None)
    assert struck == [False, False, True, True, False]


def test_chance_is_the_same_for_the_same_seed_however_calls_interleave_and_ends(plan_of: Callable[..., Faults]) -> None:
    clock = Hand(1.0, time.time())

    def strikes(seed: int, systems: tuple[str, ...]) -> list[Any]:
        plan = plan_of(seed=seed, clock=clock, chaos=True, chaos_days=2)
        found: dict[str, list[Strike | None]] = {system: [] for system in systems}
        for _ in range(200):
            for system in systems:
                found[system].append(plan.strike(system, "x"))
        return [found["lta"], found["glite"]]

    first = strikes(1, ("lta", "glite"))
    assert first == strikes(1, ("glite", "couchdb", "lta"))
    assert first != strikes(2, ("lta", "glite"))
    assert len({strike.fault for strike in first[0] if strike}) >= 5
    clock.age_s = 2 * 86400.0
    assert strikes(1, ("lta", "glite")) == [[None] * 200, [None] * 200], "the world has healed"


def test_a_script_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text(json.dumps([{"system": "lta", "fault": "vanish", "op": "add_getid", "nth": 2}]))
    assert read_scripts(path) == (Script(system="lta", fault="vanish", op="add_getid", nth=2),)
    for wrong in (
        {"system": "x", "fault": "hang"},
        {"system": "lta", "fault": "rewind"},
        {"system": "lta", "fault": "late", "op": "abort"},
    ):
        path.write_text(json.dumps([wrong]))
        with pytest.raises(msgspec.ValidationError):
            read_scripts(path)


def test_every_kind_of_fault_of_a_service_is_shown_here() -> None:
    own = {
        "late_lost",
        "late",
        "vanish",
        "false_success",
        "partial_bulk",
        "conflict",
        "rewind",
        "since_refused",
        "restart",
        "recreate",
    }
    own |= {
        *own_kinds("lta"),
        *own_kinds("stageit"),
        *own_kinds("dcache"),
    }  # Each has a row in docs/quirks.md, which names its test.
    for system in ("lta", "stageit", "dcache", "couchdb"):
        assert set(KINDS[system]) <= WRITES.keys() | own
        assert {kind for kind in KINDS[system] if KINDS[system][kind] == ANY} >= WRITES.keys()
