"""Requests at the simulated dCache over real HTTP, by both ways of staging, and each quirk by its switch."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.dcache_stage import MAX_BULK_FILES
from aglowd.grid.gate import Credential, Site
from aglowd.grid.lta import LtaStager
from aglowd.sim.world import DAY_S, HOUR_S, MINUTE_S

from .conftest import eventually, surls
from .dcacheplace import DIRECTORY, PATHS, STAGE, WANTED, Maker, Place, maker_of


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    monkeypatch.setattr("aglowd.grid.dcache_stage.PAUSES_REAL_S", (0.02,) * 500)
    return maker_of(tmp_path)


async def status_of(site: Place, name: str, *wanted: str) -> str:
    """dCache's word for the request, when it is one of those."""

    async def told() -> str:
        word = (await site.ask("GET", f"/bulk-requests/{name}"))[1]["status"]
        return word if word in wanted else ""

    return await eventually(told)


# --- the contract of a stager, both ways


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_request_from_tape_to_release(there: Maker, bulk: bool) -> None:
    async with there(token="t0ken") as site:
        stager = site.bulk if bulk else site.tape
        assert await stager.progress() == {}
        name = await stager.stage(WANTED)
        assert [one.status for one in (await stager.progress()).values()] == ["scheduled"]
        assert list(await stager.progress()) == [name]
        assert await stager.status(name) == "scheduled"
        assert await stager.requested(name) == tuple(WANTED)
        assert await stager.staged(name) == ()
        seen = set()
        for _ in range(40):
            site.now += HOUR_S
            seen.add(await stager.status(name))
            assert set(await stager.staged(name)) == {
                surl for surl, word in (await site.dcache.localities(WANTED)).items() if word == "ONLINE"
            }
        assert {"in progress", "success"} <= seen <= {"scheduled", "in progress", "success"}
        assert await site.words() == {"ONLINE"}
        await stager.abort(name)
        assert await site.words() == {"NEARLINE"}
        assert await stager.status(name) == "success"
        assert (await stager.status("none"), await stager.requested("none")) == ("", ())
        with pytest.raises(Permanent) as caught:
            await stager.abort("none")
        assert caught.value.absent
        with pytest.raises(Permanent):
            await stager.reschedule(name)
        other = site.tape if bulk else site.bulk
        assert await other.progress() == {}, "each way lists its own"


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_running_request_is_aborted(there: Maker, bulk: bool) -> None:
    async with there() as site:
        stager = site.bulk if bulk else site.tape
        name = await stager.stage(WANTED)
        site.now += 12 * HOUR_S
        done = await stager.staged(name)
        assert 0 < len(done) < len(WANTED)
        abort = asyncio.create_task(stager.abort(name))
        await status_of(site, name, "CANCELLING")
        assert await stager.status(name) == "cancelling"
        site.now += HOUR_S
        await abort
        assert await stager.status(name) == "aborted"
        site.now += 40 * HOUR_S
        assert await site.words() == {"NEARLINE"}, "what was cancelled is recalled no more"
        assert await stager.staged(name) == done
        again = await stager.stage(WANTED)
        assert set(await stager.progress()) == {name, again}
        assert await site.staged_twice() == []


async def test_a_file_that_comes_online_while_its_request_is_cancelled_is_given_back(there: Maker) -> None:
    async with there() as site:
        name = await site.tape.stage(WANTED)
        while not (done := await site.tape.staged(name)):
            site.now += MINUTE_S
        site.now -= MINUTE_S
        while await site.tape.staged(name) != done:
            site.now += 1.0
        site.now -= 2.0
        assert await site.tape.staged(name) == ()
        abort = asyncio.create_task(site.tape.abort(name))
        await status_of(site, name, "CANCELLING")
        await site.ask("POST", f"/tape/release/{name}", {"paths": PATHS})
        site.now += 3.0
        assert await site.tape.staged(name) == done
        assert (await site.dcache.localities(done))[done[0]] == "ONLINE", "released before, it is pinned now"
        site.now += MINUTE_S
        await abort
        assert await site.words() == {"NEARLINE"}


async def test_pins_end_so_long_after_the_submission(there: Maker) -> None:
    async with there() as site:
        await site.stager(lifetime_s=2.5 * DAY_S).stage(WANTED[:1])
        await site.stager(lifetime_s=3 * DAY_S, bulk=True).stage(WANTED[1:2])
        await site.ask("POST", "/tape/stage", {"files": [{"path": PATHS[2]}]})
        await site.ask("POST", "/bulk-requests", {"activity": "PIN", "target": [PATHS[3]]})
        await site.ask("POST", "/bulk-requests", {"activity": "STAGE", "target": [PATHS[4]]})
        arguments = {"lifetime": 3, "lifetime_unit": "DAYS"}
        await site.ask("POST", "/bulk-requests", {"activity": "PIN", "target": [PATHS[5]], "arguments": arguments})

        async def online() -> list[int]:
            found = await site.dcache.localities(WANTED)
            return [number for number in range(6) if found[WANTED[number]] == "ONLINE"]

        site.now += 47 * HOUR_S
        assert await online() == [0, 1, 2, 4], "a pin of five minutes, or of three, ends before the file has come"
        site.now += 2 * HOUR_S
        assert await online() == [0, 1]
        site.now += 12 * HOUR_S
        assert await online() == [1]
        site.now += 12 * HOUR_S
        assert await online() == []
        await site.tape.stage(WANTED[:1])
        assert await site.staged_twice() == [], "its pin had ended"


async def test_a_lifetime_that_is_ignored(there: Maker) -> None:
    async with there(ignores_lifetime=True) as site:
        await site.stager(lifetime_s=2 * DAY_S).stage(WANTED)
        site.now += 3 * DAY_S
        assert await site.words() == {"ONLINE"}, "until the site's own pins end"


async def test_others_requests_are_listed_and_not_ours(there: Maker) -> None:
    async with there() as site:
        name = await site.tape.stage(WANTED[:3])
        secrets = site.ready["credentials"]
        login = Credential("lta", user=secrets["lta_user"], password=secrets["lta_password"])
        await LtaStager(site.client, Site("lta", site.clock), login, site.ready["lta_url"]).stage(WANTED[3:])
        status, rows = await site.ask("GET", "/bulk-requests")
        assert (status, len(rows), len({row["owner"] for row in rows})) == (200, 2, 2)
        assert list(await site.tape.progress()) == [name]


# --- the bulk service


async def test_three_spellings_of_each_key_and_no_other_key(there: Maker) -> None:
    async with there() as site:
        for prefix, expand in (
            ("target_prefix", "expand_directories"),
            ("target-prefix", "expand-directories"),
            ("targetPrefix", "expandDirectories"),
        ):
            given = {"activity": "STAGE", "target": [PATHS[0].rpartition("/")[2]], prefix: DIRECTORY, expand: "NONE"}
            status, body, headers = await site.ask_all("POST", "/bulk-requests", given)
            assert (status, body) == (201, b"")
            name = headers["request-url"].rpartition("/")[2]
            assert await site.tape.requested(name) == (WANTED[0],)
        for wrong in (
            {"activity": "STAGE", "target": PATHS, "clear": True},
            {"activity": "STAGE", "target": PATHS, "clear_on_success": True, "clearOnSuccess": True},
            {"activity": "FETCH", "target": PATHS},
            {"activity": "STAGE", "target": []},
            {"activity": "RELEASE", "target": PATHS},
            {"activity": "PIN", "target": PATHS, "arguments": {"lifetimeUnit": "FORTNIGHTS"}},
        ):
            status, told = await site.ask("POST", "/bulk-requests", wrong)
            assert (status, told["errors"][0]["status"]) == (400, "400"), wrong


async def test_a_bulk_request_takes_five_hundred_files_and_not_one_more(there: Maker) -> None:
    async with there() as site:
        with pytest.raises(Permanent, match="413"):
            await site.bulk.stage(surls(MAX_BULK_FILES + 1))
        assert await site.bulk.progress() == {}, "nothing was asked for"
        name = await site.bulk.stage(surls(MAX_BULK_FILES))
        assert len(await site.targets(name)) == MAX_BULK_FILES


async def test_caps_of_the_bulk_service(there: Maker) -> None:
    async with there(max_targets=11, max_requests=2, max_stage_files=11) as site:
        for expand, count, status in (
            ("NONE", 12, 413), ("NONE", 11, 201), ("TARGETS", 11, 413), ("TARGETS", 10, 201), ("TARGETS", 1, 429),
            ("ALL", 1, 403),
        ):  # fmt: skip
            body = {"activity": "STAGE", "target": PATHS[:count], "expandDirectories": expand}
            assert (await site.ask("POST", "/bulk-requests", body))[0] == status, (expand, count)
        for stager in (site.tape, site.bulk):
            with pytest.raises(Permanent, match="413"):
                await stager.stage(WANTED)
        with pytest.raises(Temporary, match="429"):
            await site.tape.stage(WANTED[:1])


async def test_pages_of_targets_and_of_requests(there: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aglowd.grid.dcache_stage.PAGE_ROWS", 5)
    async with there(page=5) as site:
        name = await site.tape.stage(WANTED)
        _, told = await site.ask("GET", f"/bulk-requests/{name}")
        assert (told["nextId"], len(told["targets"])) == (5, 5)
        assert (await site.ask("GET", f"/bulk-requests/{name}?offset=10"))[1]["nextId"] == -1
        assert await site.tape.requested(name) == tuple(WANTED)
        names = [name, *[await site.tape.stage(WANTED[:1]) for _ in range(6)]]
        assert len((await site.ask("GET", "/bulk-requests"))[1]) == 5
        assert list(await site.tape.progress()) == names


async def test_a_request_is_cancelled_in_part_or_deleted(there: Maker) -> None:
    async with there() as site:
        name = await site.tape.stage(WANTED)
        where = f"/bulk-requests/{name}"
        for wrong in ({"action": "hold"}, {"action": "cancel", "paths": ["/pnfs/none"]}, [], b"{"):
            assert (await site.ask("PATCH", where, wrong))[0] == 400
        assert (await site.ask("PATCH", where, {"action": "cancel", "paths": PATHS[:2]}))[0] == 200
        assert await site.targets(name) == ["CANCELLED"] * 2 + ["CREATED"] * 10
        assert (await site.ask("DELETE", where))[0] == 400, "it runs"
        site.now += 40 * HOUR_S
        assert await site.targets(name) == ["CANCELLED"] * 2 + ["COMPLETED"] * 10
        assert (await site.ask("DELETE", where))[0] == 204
        assert (await site.ask("GET", where))[0] == 404
        assert len((await site.ask("GET", "/bulk-requests"))[1]) == 0
        other = await site.tape.stage(WANTED[:1])
        assert (await site.ask("DELETE", f"/bulk-requests/{other}?cancelIfRunning=true"))[0] == 204


async def test_old_requests_go_to_the_archive(there: Maker) -> None:
    async with there() as site:
        name = await site.tape.stage(WANTED)
        site.now += 14 * DAY_S
        assert await site.tape.status(name) == "success"
        site.now += 2 * DAY_S
        assert (await site.tape.status(name), await site.tape.progress()) == ("", {})
        status, rows = await site.ask("GET", "/bulk-requests/archived")
        assert (status, len(rows)) == (200, 1)
        assert (await site.ask("GET", f"/bulk-requests/archived/{name}"))[1]["status"] == "COMPLETED"


async def test_completed_though_files_failed_or_were_skipped(there: Maker) -> None:
    async with there() as site:
        site.strike("skipped", "stage", value=2)
        missing = WANTED[0].replace("SB000", "SB999")
        name = await site.tape.stage([*WANTED[:4], missing])
        site.now += 40 * HOUR_S
        assert await site.tape.status(name) == "success"
        assert await site.targets(name) == ["SKIPPED", "SKIPPED", "COMPLETED", "COMPLETED", "FAILED"]
        assert await site.tape.staged(name) == tuple(WANTED[2:4])
        _, told = await site.ask("GET", f"/tape/stage/{name}")
        assert [file["state"] for file in told["files"]] == ["FAILED", "FAILED", "COMPLETED", "COMPLETED", "FAILED"]
        assert "error" in told["files"][0]
        assert "completedAt" in told


async def test_unpin_without_an_id_drops_what_another_request_holds(there: Maker) -> None:
    async with there() as site:
        first, second = await site.bulk.stage(WANTED[:2]), await site.tape.stage(WANTED[:2])
        site.now += 40 * HOUR_S
        await site.bulk.abort(first)
        assert (await site.dcache.localities(WANTED[:1]))[WANTED[0]] == "ONLINE", "the other request holds it"
        assert await site.tape.staged(second) == tuple(WANTED[:2])
        await site.ask("POST", "/bulk-requests", {"activity": "UNPIN", "target": PATHS[:1]})
        assert [(await site.dcache.localities(WANTED))[surl] for surl in WANTED[:2]] == ["NEARLINE", "ONLINE"]


# --- the Tape REST API


async def test_a_stage_request_with_what_is_not_in_it_is_refused(there: Maker) -> None:
    async with there() as site:
        for wrong in (
            {**STAGE, "priority": 1}, {}, {"files": []}, {"files": [{"diskLifetime": "P1D"}]}, b"x", [],
            {"files": [{"path": PATHS[0], "lifetime": 1}]}, {"files": [{"path": PATHS[0], "diskLifetime": "1D"}]},
            {"files": [{"path": "relative"}]},
        ):  # fmt: skip
            assert (await site.ask("POST", "/tape/stage", wrong))[0] == 400, wrong
        status, told, headers = await site.ask_all("POST", "/tape/stage", STAGE)
        assert status == 201
        assert headers["location"].endswith(f"/api/v1/tape/stage/{told['requestId']}")
        _, shown = await site.ask("GET", f"/tape/stage/{told['requestId']}")
        assert "completedAt" not in shown
        assert {file["state"] for file in shown["files"]} == {"SUBMITTED"}


async def test_cancel_by_path_and_delete(there: Maker) -> None:
    async with there() as site:
        name = await site.tape.stage(WANTED[:3])
        stranger = {"paths": [PATHS[0], PATHS[7]]}
        status, _, headers = await site.ask_all("POST", f"/tape/stage/{name}/cancel", stranger)
        assert (status, headers["title"]) == (400, "File missing from stage request")
        assert PATHS[7] in headers["detail"]
        assert (await site.ask("POST", f"/tape/stage/{name}/cancel", {"paths": PATHS[:1]}))[0] == 200
        assert await site.targets(name) == ["CANCELLED", "CREATED", "CREATED"]
        assert (await site.ask("DELETE", f"/tape/stage/{name}"))[0] == 200
        assert (await site.ask("GET", f"/tape/stage/{name}"))[0] == 404
        site.now += 40 * HOUR_S
        assert await site.words() == {"NEARLINE"}


async def test_one_bad_path_leaves_the_rest_pinned_and_nothing_tells(there: Maker) -> None:
    async with there() as site:
        name = await site.tape.stage(WANTED)
        site.now += 40 * HOUR_S
        paths = [*PATHS[:4], "/pnfs/none", *PATHS[4:]]
        assert await site.ask("POST", f"/tape/release/{name}", {"paths": paths}) == (200, b"")
        found = await site.dcache.localities(WANTED)
        assert [found[surl] for surl in WANTED] == ["NEARLINE"] * 4 + ["ONLINE"] * 8
        assert len((await site.ask("GET", "/bulk-requests"))[1]) == 1, "the release itself has left no trace"
        assert (await site.ask("POST", f"/tape/release/{name}", {"paths": "x"}))[0] == 400
        await site.tape.stage(WANTED[:4])
        assert await site.staged_twice() == []
        await site.tape.stage(WANTED[4:5])
        assert len(await site.staged_twice()) == 1


async def test_a_release_that_came_to_nothing_is_found_by_locality(there: Maker) -> None:
    async with there() as site:
        name = await site.tape.stage(WANTED)
        site.now += 40 * HOUR_S
        site.strike("error_before", "bulk_release", value=403)
        site.strike("unreleased", "release")
        await site.tape.abort(name)
        assert await site.words() == {"ONLINE"}
        await site.tape.abort(name)
        assert await site.words() == {"NEARLINE"}


@pytest.mark.parametrize("bulk", [False, True])
async def test_a_file_that_is_not_released_is_named_and_keeps_no_other_pinned(there: Maker, bulk: bool) -> None:
    async with there() as site:
        stager = site.bulk if bulk else site.tape
        missing = WANTED[0].replace("SB000", "SB999")
        name = await stager.stage([*WANTED, missing])
        site.now += 40 * HOUR_S
        site.strike("unreleased", "bulk_unpin" if bulk else "bulk_release")
        with pytest.raises(Permanent, match=r"1 of 13 files are not released: .*SB000"):
            await stager.abort(name)
        found = await site.dcache.localities(WANTED)
        assert [found[surl] for surl in WANTED] == ["ONLINE"] + ["NEARLINE"] * 11
        await stager.abort(name)
        assert await site.words() == {"NEARLINE"}, "a file without a pin, or that does not exist, is no failure"
        assert len((await site.ask("GET", "/bulk-requests"))[1]) == 1, "no release is left"


async def test_a_release_takes_its_time(there: Maker) -> None:
    async with there(release_s=MINUTE_S) as site:
        name = await site.tape.stage(WANTED)
        site.now += 40 * HOUR_S
        abort = asyncio.create_task(site.tape.abort(name))

        async def release() -> str:
            rows = (await site.ask("GET", "/bulk-requests"))[1]
            return "".join(row["url"].rpartition("/")[2] for row in rows if row["activity"] == "RELEASE")

        other = await eventually(release)
        assert await status_of(site, other, "STARTED", "COMPLETED") == "STARTED"
        assert await site.targets(other) == ["RUNNING"] * 12
        assert not abort.done()
        site.now += MINUTE_S
        await abort
        assert await release() == ""


async def test_a_site_that_refuses_to_release_strangers(there: Maker) -> None:
    async with there(refuses_strangers=True) as site:
        name = await site.tape.stage(WANTED[:2])
        assert (await site.ask("POST", f"/tape/release/{name}", {"paths": PATHS[:3]}))[0] == 400
        assert (await site.ask("POST", f"/tape/release/{name}", {"paths": PATHS[:2]}))[0] == 200


async def test_archiveinfo_is_cut_and_in_no_order(there: Maker) -> None:
    async with there(max_info_paths=9) as site:
        _, rows = await site.ask("POST", "/tape/archiveinfo", {"paths": PATHS})
        asked = [row["path"] for row in rows]
        assert sorted(asked) == PATHS[:9]
        assert asked != PATHS[:9]
        assert set(await site.dcache.localities(WANTED)) == set(WANTED[:9]), "the rest has no locality"
        assert (await site.ask("POST", "/tape/archiveinfo", {}))[0] == 400


async def test_archiveinfo_is_cut_at_ten_thousand(there: Maker) -> None:
    async with there() as site:
        paths = [f"{DIRECTORY}/none{number}" for number in range(10_001)]
        _, rows = await site.ask("POST", "/tape/archiveinfo", {"paths": paths})
        assert {row["path"] for row in rows} == set(paths[:10_000])


# --- what the stager itself may do


@pytest.mark.parametrize("bulk", [False, True])
async def test_late_lost_vanished_and_false(there: Maker, bulk: bool) -> None:
    op = "bulk_pin" if bulk else "stage"
    async with there() as site:
        stager = site.bulk if bulk else site.tape
        site.strike("late", op, value=600)
        late = await stager.stage(WANTED)
        assert (await stager.status(late), await stager.progress()) == ("", {})
        site.now += 600
        assert list(await stager.progress()) == [late]
        site.strike("late_lost", op, value=600)
        with pytest.raises(Unknown):
            await stager.stage(WANTED[:1])
        assert len(await stager.progress()) == 1
        site.now += 600
        assert len(await stager.progress()) == 2
        site.now += 6 * DAY_S
        site.strike("vanish", op, value=3600)
        gone = await stager.stage(WANTED)
        site.now += 3600
        assert await stager.status(gone) == ""
        site.strike("false_success", op, value=3600)
        liar = await stager.stage(WANTED)
        site.now += 3600
        assert await stager.status(liar) == "success"
        assert await stager.staged(liar) == tuple(WANTED)
        assert await site.words() == {"NEARLINE"}
