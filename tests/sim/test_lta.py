"""The LTA stager and dCache over real HTTP: tape latencies, vanishing requests, pins and their release."""

from __future__ import annotations

import time
import xmlrpc.client
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aglowd.sim.ledger import Ledger
from aglowd.sim.stager import Request, Stager
from aglowd.sim.tape import PIN_S, Tape, surl_path
from aglowd.sim.world import HOUR_S, World, WorldClock

from .conftest import GridMaker, SmallGrid, basic_auth, eventually, surls

SPEED = 100_000.0


class SetClock(WorldClock):
    """World time that stands until a test moves it."""

    def __init__(self) -> None:
        super().__init__(1.0, 0.0)
        self.t = 1_000_000.0

    def now(self) -> float:
        return self.t


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def world(clock: SetClock, tmp_path: Path) -> Any:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    yield World(3, clock, ledger)
    ledger.close()


@pytest.fixture
def calm(world: World) -> World:
    """The same world, where nothing fails by chance."""
    return replace(world, failure_rate=0.0)


def many(count: int) -> list[str]:
    return [f"srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/L1_SB{n:03d}_uv.MS_{n:08x}.tar" for n in range(count)]


async def localities(grid: SmallGrid, paths: list[str]) -> list[str]:
    url = grid.ready["dcache_url"] + "/tape/archiveinfo"
    async with grid.http.post(url, json={"paths": paths}, headers={"Authorization": "Bearer x"}) as response:
        assert response.status == 200
        return [row["locality"] for row in await response.json()]


def test_one_spelling_for_each_path() -> None:
    path = "/pnfs/grid.sara.nl/data/x.tar"
    host = "srm://srm.grid.sara.nl:8443"
    for surl in (path, host + path, f"{host}/{path}", f"{host}/srm/managerv2?SFN={path}", host + path + "\n"):
        assert surl_path(surl) == path


@pytest.mark.asyncio
async def test_a_request_over_http_from_tape_to_release(small_grid: GridMaker) -> None:
    async with small_grid(speed=SPEED) as grid:
        wanted = surls()
        paths = [surl_path(surl) for surl in wanted]
        assert await grid.lta("getprogress") is None
        number = await grid.lta("add_getid", wanted)
        progress = (await grid.lta("getprogress"))[str(number)]
        assert progress["File count"] == "12"
        assert progress["Location"] == "sara"
        assert set(progress) == {
            "Status",
            "File count",
            "User id",
            "Location",
            "Files done",
            "Flagged abort",
            "Percent done",
        }
        assert (await grid.lta("gettoken", number)).startswith("-")

        async def all_online() -> bool:
            return set(await localities(grid, paths)) == {"DISK_AND_TAPE"}

        await eventually(all_online)
        status = (await grid.run("gfal-xattr", wanted[0], "user.status")).stdout.strip()
        assert status == "ONLINE_AND_NEARLINE"
        assert await grid.lta("abort", number) == 1
        assert set(await localities(grid, [*paths, "/pnfs/none"])) == {"TAPE", "NONE"}
        with pytest.raises(xmlrpc.client.Fault):
            await grid.lta("getstatus", 4)
        with pytest.raises(xmlrpc.client.Fault):
            await grid.lta("nosuchmethod")


@pytest.mark.asyncio
async def test_the_stager_wants_its_password(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        headers = {"Authorization": basic_auth("lofar", "wrong")}
        async with grid.http.post(grid.ready["lta_url"], data="<x/>", headers=headers) as response:
            assert response.status == 401


@pytest.mark.asyncio
async def test_a_bomb_is_refused(small_grid: GridMaker) -> None:
    bomb = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><methodCall><methodName>&a;</methodName></methodCall>'
    async with small_grid() as grid:
        headers = {"Authorization": basic_auth("lofar", grid.secrets["lta_password"])}
        async with grid.http.post(grid.ready["lta_url"], data=bomb, headers=headers) as response:
            assert "parse error" in await response.text()


def watch(stager: Stager, clock: SetClock, number: int, hours: int = 40) -> list[tuple[str, bool]]:
    """The request's status and whether getprogress shows it, ten minutes apart."""
    seen = []
    for _ in range(6 * hours):
        clock.t += 600
        seen.append((stager.get(number).status(clock.now()), number in {one.id for one in stager.shown()}))
    return seen


def test_requests_have_all_the_lives_that_real_ones_have(world: World, clock: SetClock) -> None:
    files = many(600)
    stager = Stager(world, Tape(world, files))
    ends: Counter[str] = Counter()
    for at in range(0, 600, 5):
        number = stager.make(files[at : at + 5])
        seen = watch(stager, clock, number)
        states = [status for status, _ in seen]
        ends["held"] += "on hold" in states
        ends["partial"] += "partial success" in states
        ends["success shown"] += any(status == "success" and shown for status, shown in seen)
        ends["forgotten"] += states[-1] == ""
        assert not seen[-1][1]
        assert stager.staged(number) == []
    assert 5 < ends["held"] < 40
    assert 2 < ends["partial"] < 25
    assert 60 < ends["success shown"] < 115
    assert 50 < ends["forgotten"] < 115


def test_a_failed_file_comes_when_it_is_asked_again(clock: SetClock, tmp_path: Path) -> None:
    world = World(3, clock, Ledger(tmp_path / "ledger.jsonl"), failure_rate=10.0)
    files = many(20)
    tape = Tape(world, files)
    stager = Stager(world, tape)
    stager.make(files)
    clock.t += 33 * HOUR_S
    missing = [surl for surl in files if not tape.is_online(surl, clock.t)]
    assert 1 <= len(missing) <= 3
    stager.make(missing)
    clock.t += 33 * HOUR_S
    assert all(tape.is_online(surl, clock.t) for surl in files)
    world.ledger.close()


def test_an_unknown_file_fails_and_an_online_one_is_done_at_once(calm: World, clock: SetClock) -> None:
    files = many(3)
    stager = Stager(calm, Tape(calm, files))
    stager.make(files)
    clock.t += 33 * HOUR_S
    second = stager.make([*files, "srm://srm.grid.sara.nl:8443/pnfs/none"])
    assert len(stager.staged(second)) == 3
    clock.t += 3 * HOUR_S
    assert stager.get(second).status(clock.now()) in ("partial success", "")


def test_pins_last_seven_days_and_count_by_request(calm: World, clock: SetClock) -> None:
    files = many(2)
    tape = Tape(calm, files)
    stager = Stager(calm, tape)
    first = stager.make(files)
    clock.t += 33 * HOUR_S
    second = stager.make(files[:1])
    stager.abort(first)
    assert [tape.is_online(surl, clock.t) for surl in files] == [True, False]
    clock.t += PIN_S
    assert not tape.is_online(files[0], clock.t)
    stager.abort(second)


def test_an_aborted_request_is_shown_and_can_be_rescheduled(calm: World, clock: SetClock) -> None:
    files = many(2)
    tape = Tape(calm, files)
    stager = Stager(calm, tape)
    number = stager.make(files)
    clock.t += HOUR_S / 2
    stager.abort(number)
    assert [one.aborted for one in stager.shown() if one.id == number] == [clock.now()]
    assert stager.get(number).status(clock.now()) == "aborted"
    stager.reschedule(number)
    clock.t += 33 * HOUR_S
    assert all(tape.is_online(surl, clock.t) for surl in files)


def test_progress_costs_little(world: World, clock: SetClock) -> None:
    files = many(999)
    stager = Stager(world, Tape(world, files))
    for at in range(0, 990, 33):
        stager.make(files[at : at + 33])
    clock.t += 5 * HOUR_S
    start = time.process_time()
    for _ in range(100):
        stager.shown()
    assert time.process_time() - start < 1.0


def test_request_is_new_then_scheduled(world: World, clock: SetClock) -> None:
    stager = Stager(world, Tape(world, many(1)))
    number = stager.make(many(1))
    assert stager.get(number).status(clock.now()) == "new"
    assert isinstance(stager.get(number), Request)
    clock.t += 6 * 60
    assert stager.get(number).status(clock.now()) in ("scheduled", "on hold", "in progress")
