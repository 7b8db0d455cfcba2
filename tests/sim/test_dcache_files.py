"""Files at the simulated dCache over real HTTP: localities, copies, room; who may look, and who is shut out."""

from __future__ import annotations

from pathlib import Path

import pytest

from aglowd.errors import Permanent, Temporary
from aglowd.sim.tape import surl_path
from aglowd.sim.world import HOUR_S

from .dcacheplace import DIRECTORY, PATHS, WANTED, Maker, maker_of


@pytest.fixture
def there(tmp_path: Path) -> Maker:
    return maker_of(tmp_path)


# --- the namespace, and files that are not where they should be


async def test_a_lost_file_and_its_copy(there: Maker) -> None:
    async with there() as site:
        site.strike("replaced", "stage", value=2)
        name = await site.tape.stage(WANTED)
        site.now += 40 * HOUR_S
        names = site.look(ask="namespace")
        for dcache in (site.dcache, names):
            found = await dcache.localities(WANTED)
            assert [found[surl] for surl in WANTED] == ["LOST"] * 2 + ["ONLINE"] * 10
        assert (await site.targets(name))[:3] == ["FAILED", "FAILED", "COMPLETED"]
        copy = await site.dcache.copies(WANTED[0])
        assert copy
        assert copy != WANTED[0]
        assert surl_path(copy)[:-12] == PATHS[0][:-12]
        assert await names.localities([copy]) == {copy: "NEARLINE"}
        assert await site.dcache.copies(WANTED[5]) is None


async def test_a_lost_file_without_a_copy(there: Maker) -> None:
    async with there() as site:
        site.strike("lost", "stage")
        await site.tape.stage(WANTED)
        assert (await site.dcache.localities(WANTED[:2])) == {WANTED[0]: "LOST", WANTED[1]: "NEARLINE"}
        assert await site.dcache.copies(WANTED[0]) is None


@pytest.mark.parametrize("ask", ["archiveinfo", "namespace"])
async def test_a_disk_that_is_away_for_a_while(there: Maker, ask: str) -> None:
    async with there() as site:
        dcache = site.look(ask=ask)
        await site.tape.stage(WANTED[:1])
        site.now += 40 * HOUR_S
        site.strike("unavailable", ask, value=3600)
        assert await dcache.localities(WANTED[:2]) == {WANTED[0]: "UNAVAILABLE", WANTED[1]: "NEARLINE"}
        site.now += 3600
        assert await dcache.localities(WANTED[:1]) == {WANTED[0]: "ONLINE"}


async def test_a_file_on_tape_is_read_by_nobody(there: Maker) -> None:
    async with there(token="t0ken", max_errors=99) as site:
        assert (await site.ask("GET", PATHS[0][1:], Authorization="Bearer t0ken"))[0] == 403
        assert (await site.ask("GET", "pnfs/none", Authorization="Bearer t0ken"))[0] == 404
        await site.tape.stage(WANTED)
        site.now += 40 * HOUR_S
        assert (await site.ask("GET", PATHS[0][1:], Authorization="Bearer t0ken"))[0] == 200


async def test_what_the_namespace_tells(there: Maker) -> None:
    async with there() as site:
        infos = await site.dcache.stat([*WANTED, WANTED[0].replace("SB000", "SB999")])
        sizes = {info.size_bytes for info in infos.values()}
        assert len(sizes) == len(WANTED) + 1
        assert all(5e9 < size < 15e9 for size in sizes if size is not None)
        assert [info.locality for info in infos.values()] == ["NEARLINE"] * 12 + ["NONE"]
        assert all(info.adler32 is not None and info.created for info in list(infos.values())[:12])
        _, told = await site.ask("GET", f"/namespace{DIRECTORY}?children=true&limit=2&offset=1")
        assert [child["fileName"] for child in told["children"]] == [path.rpartition("/")[2] for path in PATHS[1:3]]
        assert told["fileType"] == "DIR"
        status, told = await site.ask("GET", "/namespace/%2Fpnfs%2Fgrid.sara.nl")
        assert (status, "children" in told) == (200, False)
        assert (await site.ask("GET", "/namespace/pnfs/none"))[0] == 404


async def test_pin_and_unpin_by_the_namespace(there: Maker) -> None:
    async with there() as site:
        where = f"/namespace{PATHS[0]}"
        pin = {"action": "pin", "lifetime": 3, "lifetime-unit": "DAYS"}
        assert await site.ask("POST", where, pin) == (200, {"status": "success"})
        site.now += 40 * HOUR_S
        assert (await site.dcache.localities(WANTED[:1]))[WANTED[0]] == "ONLINE"
        assert await site.ask("POST", where, {"action": "unpin"}) == (200, {"status": "success"})
        assert (await site.dcache.localities(WANTED[:1]))[WANTED[0]] == "NEARLINE"
        assert (await site.ask("POST", where, {"action": "chmod"}))[0] == 400
        assert (await site.ask("POST", "/namespace/pnfs/none", pin))[0] == 404


async def test_a_directory_that_is_not_listed_and_a_path_that_is_not_shown(there: Maker) -> None:
    async with there(lists_directories=False, forbidden=(PATHS[0],), max_errors=99) as site:
        assert (await site.ask("GET", f"/namespace{DIRECTORY}?children=true"))[0] == 403
        assert await site.dcache.copies(WANTED[1]) is None
        names = await site.look(ask="namespace").localities(WANTED[:2])
        assert names == {WANTED[1]: "NEARLINE"} == await site.dcache.localities(WANTED[:2])
        with pytest.raises(Permanent, match="403"):
            await site.tape.stage(WANTED)


async def test_room_as_far_as_the_site_tells(there: Maker) -> None:
    async with there(quota_bytes=10**15, pool_bytes=10**14) as site:
        dcache = site.look(pool_group="lofar")
        before = await dcache.space()
        assert before.pool_free_bytes == before.pool_total_bytes == 10**14
        assert before.tape_limit_bytes == 10**15
        await site.tape.stage(WANTED)
        site.now += 40 * HOUR_S
        free = (await dcache.space()).pool_free_bytes
        assert free is not None
        assert free == 10**14 - (before.tape_used_bytes or 0)


async def test_room_that_is_not_told(there: Maker) -> None:
    async with there() as site:
        assert (await site.ask("GET", "/quota/user?user=true"))[0] == 503
        assert (await site.ask("GET", "/poolgroups/lofar/space"))[0] == 403
        space = await site.look(pool_group="lofar").space()
        assert {getattr(space, name) for name in space.__struct_fields__} == {None}


# --- who may come in, and who is shut out


async def test_a_token_is_checked_if_there_is_one(there: Maker) -> None:
    async with there(token="t0ken") as site:
        assert site.ready["credentials"]["dcache_token"] == "t0ken"
        assert (await site.ask("GET", "/user"))[1] == {"status": "ANONYMOUS"}
        assert (await site.ask("GET", "/user", Authorization="Bearer t0ken"))[1]["status"] == "AUTHENTICATED"
        status, told = await site.ask("POST", "/tape/archiveinfo", {"paths": PATHS})
        assert (status, told["errors"][0]["status"]) == (401, "401")


async def test_without_one_anybody_is_let_in(there: Maker) -> None:
    async with there() as site:
        assert (await site.ask("POST", "/tape/archiveinfo", {"paths": PATHS}))[0] == 200
        assert (await site.ask("GET", "/user"))[1]["status"] == "AUTHENTICATED"


async def test_three_errors_shut_out_the_good_ones_too(there: Maker) -> None:
    async with there(token="t0ken") as site:
        good = {"Authorization": "Bearer t0ken"}
        for _ in range(3):
            assert (await site.ask("GET", "/bulk-requests", Authorization="Bearer old"))[0] == 401
        assert (await site.ask("GET", "/bulk-requests", **good))[0] == 429
        with pytest.raises(Temporary, match="429"):
            await site.dcache.localities(WANTED)
        site.now += 19.9
        assert (await site.ask("GET", "/user", **good))[0] == 429
        site.now += 0.1
        assert (await site.ask("GET", "/bulk-requests", **good))[0] == 200


async def test_errors_are_forgotten_when_a_client_is_idle(there: Maker) -> None:
    async with there(token="t0ken") as site:
        for wait_s, status in ((0, 401), (0, 401), (10, 401), (9.9, 401), (9.9, 401), (0, 429)):
            site.now += wait_s
            assert (await site.ask("GET", "/bulk-requests"))[0] == status


async def test_forbidden_paths_count_as_errors_too(there: Maker) -> None:
    async with there(forbidden=(DIRECTORY,)) as site:
        for status in (403, 403, 403, 429):
            assert (await site.ask("GET", f"/namespace{PATHS[0]}"))[0] == status


async def test_our_own_expired_token_does_not_shut_us_out(there: Maker) -> None:
    async with there(token="t0ken") as site:
        site.token = "old"
        with pytest.raises(Temporary, match="frozen"):
            await site.look(ask="namespace").localities(WANTED)
        assert (await site.ask("GET", "/bulk-requests", Authorization="Bearer t0ken"))[0] == 200


async def test_too_many_requests_in_a_second(there: Maker) -> None:
    async with there(max_rate_per_s=5) as site:
        assert [(await site.ask("GET", "/user"))[0] for _ in range(7)] == [200] * 5 + [429] * 2
        site.now += 9.9
        assert (await site.ask("GET", "/user"))[0] == 429
        site.now += 0.1
        assert (await site.ask("GET", "/user"))[0] == 200
