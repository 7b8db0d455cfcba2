"""What every way to stage promises, whatever it speaks: one set of tests, against the simulated grid."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.gate import Site
from aglowd.grid.stager import Stager
from aglowd.sim.world import HOUR_S, MINUTE_S

from .ways import FILES, RECALLED_S, WAYS, There, Way, standing_grid

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[There]:
    async with standing_grid(tmp_path_factory.mktemp("contract")) as found:
        yield found


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


@pytest.fixture
def site(there: There) -> Site:
    return Site("there", there.clock)


@pytest.fixture
def stager(there: There, way: Way, site: Site) -> Stager:
    there.forget()
    return way.make(there, site, way.credential(there.ready["credentials"]))


# --- a request's life


async def test_a_request_shows_at_once_and_lives(there: There, stager: Stager) -> None:
    request = await stager.stage(there.files())
    seen = (await stager.progress())[request]
    assert seen.state == "new"
    assert seen.file_count in (FILES, None)
    assert (seen.files_done or 0, seen.percent or 0.0) == (0, 0.0)
    assert not seen.is_dead
    assert await stager.status(request) == "new"
    assert await stager.staged(request) == ()
    there.pass_s(6 * MINUTE_S)
    assert (await stager.progress())[request].state in ("scheduled", "in progress", "on hold")


async def test_it_brings_its_files_online(there: There, stager: Stager, way: Way) -> None:
    wanted = there.files()
    request = await stager.stage(wanted)
    told: set[str] = set()
    for _ in range(40):
        there.pass_s(HOUR_S)
        staged = set(await stager.staged(request))
        assert staged <= set(wanted)
        if seen := (await stager.progress()).get(request):
            assert not seen.is_dead
            assert told <= staged, "what was online stays online"
            assert seen.files_done in (len(staged), None)
            assert seen.percent in (100 * len(staged) / FILES, None)
            told = staged
    assert await there.localities(wanted) == {"ONLINE"}
    if way.keeps:
        assert (await stager.progress())[request].state == await stager.status(request) == "success"
        assert told == set(wanted)
    await stager.abort(request)


async def test_calls_of_a_round_do_not_grow_with_the_requests(there: There, stager: Stager, way: Way) -> None:
    for count in (1, 5):
        requests = {await stager.stage(there.files()) for _ in range(count)}
        assert len(requests) == count
        before = there.http.asked
        assert requests <= (await stager.progress()).keys()
        assert there.http.asked == before + way.round_calls


async def test_a_request_is_for_what_was_asked_for_if_it_tells(there: There, stager: Stager, way: Way) -> None:
    wanted = there.files()
    request = await stager.stage([f" {wanted[0]}\n", *wanted[1:]])
    requested = await stager.requested(request)
    assert requested is None or set(requested) == set(wanted)
    assert await stager.requested(way.never) in (None, ())


async def test_one_surl_that_is_no_list_is_not_asked_for_letter_by_letter(there: There, stager: Stager) -> None:
    before = there.http.asked
    with pytest.raises(Permanent, match="expected a list of SURLs"):
        await stager.stage(there.files()[0])
    assert there.http.asked == before


async def test_the_same_files_twice_are_two_requests(there: There, stager: Stager) -> None:
    wanted = there.files()
    assert await stager.stage(wanted) != await stager.stage(wanted)


# --- the end of it


async def test_releasing_gives_the_disk_back(there: There, stager: Stager) -> None:
    wanted = there.files()
    request = await stager.stage(wanted)
    there.pass_s(RECALLED_S)
    assert await there.localities(wanted) == {"ONLINE"}
    for _ in range(2):  # Twice does no harm.
        await stager.abort(request)
        assert await there.localities(wanted) == {"NEARLINE"}


async def test_an_aborted_request_says_so_and_brings_nothing_online(there: There, stager: Stager) -> None:
    wanted = there.files()
    request = await stager.stage(wanted)
    there.pass_s(MINUTE_S)
    await stager.abort(request)
    await stager.abort(request)
    assert await stager.status(request) == "aborted"
    assert (await stager.progress())[request].is_dead
    there.pass_s(RECALLED_S)
    assert await there.localities(wanted) == {"NEARLINE"}


async def test_rescheduling_what_was_aborted(there: There, stager: Stager, way: Way) -> None:
    wanted = there.files()
    request = await stager.stage(wanted)
    await stager.abort(request)
    if not way.reschedules:
        with pytest.raises(Permanent):
            await stager.reschedule(request)
        return
    for _ in range(2):  # The second finds nothing to do.
        await stager.reschedule(request)
        assert not (await stager.progress())[request].is_dead
    there.pass_s(RECALLED_S)
    assert await there.localities(wanted) == {"ONLINE"}


async def test_what_never_was_is_absent(stager: Stager, way: Way) -> None:
    assert await stager.status(way.never) == ""
    assert await stager.staged(way.never) == ()
    assert way.never not in await stager.progress()
    with pytest.raises(Permanent) as caught:
        await stager.abort(way.never)
    assert caught.value.absent
    with pytest.raises(Permanent):
        await stager.reschedule(way.never)


# --- when it is struck


async def test_a_request_comes_to_light_late(there: There, stager: Stager, way: Way) -> None:
    there.strike(way.system, "late", way.stage, 10 * MINUTE_S)
    request = await stager.stage(there.files())
    assert request not in await stager.progress()
    assert await stager.status(request) == ""
    assert await stager.staged(request) == ()
    there.pass_s(11 * MINUTE_S)
    assert request in await stager.progress()
    assert await stager.status(request) != ""


async def test_a_request_whose_answer_is_lost_comes_to_light_late(there: There, stager: Stager, way: Way) -> None:
    there.strike(way.system, "late_lost", way.stage, 10 * MINUTE_S)
    before = (await stager.progress()).keys()
    wanted = there.files()
    with pytest.raises(Unknown):
        await stager.stage(wanted)
    assert (await stager.progress()).keys() <= before
    there.pass_s(11 * MINUTE_S)
    (request,) = (await stager.progress()).keys() - before
    requested = await stager.requested(request)
    assert requested is None or set(requested) == set(wanted)


async def test_a_request_is_forgotten_while_it_runs(there: There, stager: Stager, way: Way) -> None:
    there.strike(way.system, "vanish", way.stage, 30 * MINUTE_S)
    wanted = there.files()
    request = await stager.stage(wanted)
    assert request in await stager.progress()
    there.pass_s(31 * MINUTE_S)
    assert request not in await stager.progress()
    assert await stager.status(request) == ""
    assert await stager.staged(request) == ()
    there.pass_s(RECALLED_S)
    assert await there.localities(wanted) == {"NEARLINE"}


async def test_a_success_that_is_none(there: There, stager: Stager, way: Way) -> None:
    there.strike(way.system, "false_success", way.stage, 30 * MINUTE_S)
    wanted = there.files()
    request = await stager.stage(wanted)
    there.pass_s(31 * MINUTE_S)
    seen = (await stager.progress())[request]
    assert (seen.state, await stager.status(request)) == ("success", "success")
    assert seen.percent in (100.0, None)
    assert set(await stager.staged(request)) == set(wanted)
    assert await there.localities(wanted) == {"NEARLINE"}


@pytest.mark.parametrize("fault", ["error_before", "error_after", "reset_after", "html", "truncated"])
async def test_nobody_can_tell_of_an_answer_that_did_not_come(
    there: There, stager: Stager, way: Way, fault: str
) -> None:
    there.strike(way.system, fault, way.stage)
    before = (await stager.progress()).keys()
    with pytest.raises(Unknown):
        await stager.stage(there.files())
    done = fault not in ("error_before", "html")
    assert len((await stager.progress()).keys() - before) == done


@pytest.mark.parametrize("fault", ["error_before", "reset_before", "html", "truncated", "malformed", "busy"])
async def test_a_look_that_failed_says_nothing(there: There, stager: Stager, way: Way, fault: str) -> None:
    request = await stager.stage(there.files())
    for look in (stager.progress, lambda: stager.status(request), lambda: stager.staged(request)):
        there.strike(way.system, fault, value=0.0 if fault == "busy" else None)
        with pytest.raises(Temporary):
            await look()
    assert request in await stager.progress()


@pytest.mark.parametrize("fault", ["busy", "too_many"])
async def test_who_asks_for_quiet_gets_it(there: There, stager: Stager, way: Way, site: Site, fault: str) -> None:
    there.strike(way.system, fault, value=3600)
    with pytest.raises(Temporary) as caught:
        await stager.progress()
    assert caught.value.retry_after_s == 3600
    before = there.http.asked
    with pytest.raises(Temporary, match="asked for quiet"):
        await stager.stage(there.files())
    assert there.http.asked == before + 1, "which never left"
    assert site.health.failures_in_a_row == 1


async def test_the_first_401_freezes_the_credential(there: There, way: Way, site: Site) -> None:
    right = there.ready["credentials"]
    wrong = way.credential({name: f"{text}x" for name, text in right.items()})
    stager, before = way.make(there, site, wrong), there.http.asked
    for verb in (stager.progress, lambda: stager.stage(there.files()), lambda: stager.abort(way.never)):
        with pytest.raises(Temporary, match="frozen"):
            await verb()
    assert wrong.frozen is not None
    assert there.http.asked == before + 3
    assert site.health.failures_in_a_row == 1, "only the first went out"
