"""What every batch system promises, whatever it speaks: one set of tests for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from aglowd.errors import OutsideError, Temporary, Unknown
from aglowd.grid.batch import FINAL, STATES
from aglowd.sim.faults import KINDS

from .batches import WAYS, Place, Way

pytestmark = pytest.mark.asyncio(loop_scope="module")

RANK = {"submitted": 0, "queued": 1, "running": 2} | dict.fromkeys(FINAL, 3)
LIVING = {"submitted", "queued", "running"}
FAULTS = ("warn", "fail_after", "half_line", "hang_after", "flood", "keep_pipe", "kill_before", "hang_before",
          "proxy_before", "proxy_during", "proxy_after")  # fmt: skip
"""All that can strike a tool."""
NOT_DONE = ("kill_before", "hang_before", "proxy_before")
struck = pytest.mark.parametrize(
    "name", [name for name, way in WAYS.items() if way.submits], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=WAYS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def way(name: str) -> Way:
    return WAYS[name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(way: Way, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with way.open(tmp_path_factory.mktemp("contract")) as found:
        yield found


# --- a pilot's life


async def test_pilots_are_let_run_and_each_shows(place: Place) -> None:
    order = place.order("stays", 3)
    jobs = await place.submit(order)
    assert len(jobs) in (1, 3)
    assert len({*jobs}) == len(jobs)
    pilots = await place.pilots(jobs)
    assert len(pilots) == 3
    assert {pilot.state for pilot in pilots} <= LIVING
    ids = {pilot.id for pilot in pilots}
    assert len(ids) == 3, "each under the id by which it knows itself"
    running = await place.until(jobs, {"running"})
    assert {pilot.id for pilot in running} == ids
    assert {(await place.batch.status(jobs))[job].state for job in jobs} == {"running"}
    for job in jobs:
        await place.batch.cancel(job)


@pytest.mark.parametrize(("end", "state"), [("well", "done_ok"), ("badly", "done_failed")])
async def test_a_pilot_goes_forwards_to_its_end_and_stays_there(place: Place, way: Way, end: str, state: str) -> None:
    jobs = await place.submit(place.order(end, 2))
    rank: dict[str, int] = {}
    pilots = await place.pilots(jobs)
    while not all(pilot.is_final for pilot in pilots):
        for pilot in pilots:
            assert pilot.state in STATES
            assert pilot.words
            assert RANK[pilot.state] >= rank.get(pilot.id, 0)
            rank[pilot.id] = RANK[pilot.state]
        pilots = await place.pilots(jobs)
    assert [pilot.state for pilot in pilots] == [state, state]
    told = {0} if state == "done_ok" else {1} if way.tells_codes else {None}
    assert {pilot.exit_code for pilot in pilots} == told
    assert await place.pilots(jobs) == pilots


async def test_one_pilot_is_one_job(place: Place) -> None:
    (job,) = await place.submit(place.order("well"))
    assert len(await place.pilots([job])) == 1
    await place.until([job], {"done_ok"})


async def test_one_call_asks_about_many(place: Place, way: Way) -> None:
    jobs = [job for end in ("well", "badly", "stays") for job in await place.submit(place.order(end, 2))]
    before = place.processes.started
    found = await place.batch.status(jobs)
    assert place.processes.started == before + way.looks
    assert found.keys() == {*jobs}
    assert all(status.id == job for job, status in found.items())
    assert await place.batch.status([]) == {}


async def test_an_unknown_id_is_left_out(place: Place, way: Way) -> None:
    jobs = await place.submit(place.order("well", 2))
    assert (await place.batch.status([way.stranger, *jobs])).keys() == {*jobs}
    with suppress(Temporary):  # No word about any of them may be a failure, but it is never a state.
        assert await place.batch.status([way.stranger]) == {}


async def test_what_is_ours_is_listed(place: Place) -> None:
    jobs = await place.submit(place.order("stays", 2))
    listed = await place.batch.list_ours()
    assert {*jobs} <= listed.keys()
    assert {listed[job].state for job in jobs} <= LIVING
    for job in jobs:
        await place.batch.cancel(job)


async def test_what_it_printed_comes_into_a_directory_below(place: Place) -> None:
    (job,) = await place.submit(place.order("well"))
    await place.until([job], {"done_ok"})
    directory = place.directory / "output"
    fetched = await place.batch.output(job, directory)
    assert directory in fetched.parents
    assert "stdout.txt" in {path.name for path in fetched.iterdir()}


# --- found again by its key


async def test_the_key_finds_exactly_its_own(place: Place) -> None:
    orders = [place.order(end, 2) for end in ("stays", "well", "badly")]
    jobs = {order.key: await place.submit(order) for order in orders}
    for order in orders:
        assert {*await place.batch.find(order.key)} == {*jobs[order.key]}
    for unused in (place.order("well").key, orders[0].key + "0", orders[0].key[:-1], orders[0].key.upper()):
        assert await place.batch.find(unused) == ()


@pytest.mark.parametrize("end", ["well", "badly", "stays"])
async def test_the_key_finds_what_has_ended(place: Place, end: str) -> None:
    order = place.order(end, 2)
    jobs = await place.submit(order)
    if end == "stays":
        for job in jobs:
            await place.batch.cancel(job)
    await place.until(jobs, set(FINAL))
    assert {*await place.batch.find(order.key)} == {*jobs}


async def test_what_was_only_prepared_was_not_let_run(place: Place) -> None:
    order = place.order("well")
    prepared = await place.batch.prepare(order)
    assert (prepared is not None) is place.batch.registers
    assert await place.batch.find(order.key, prepared) == ()


# --- its end, when somebody asks for it


async def test_cancelling_a_running_pilot_and_once_more(place: Place) -> None:
    jobs = await place.submit(place.order("stays", 2))
    await place.until(jobs, {"running"})
    for _ in range(2):
        for job in jobs:
            await place.batch.cancel(job)
    pilots = await place.until(jobs, set(FINAL))
    assert {pilot.state for pilot in pilots} == {"cancelled"}
    for job in jobs:
        await place.batch.cancel(job)
    assert await place.pilots(jobs) == pilots


async def test_cancelling_one_leaves_the_others_alone(place: Place) -> None:
    first, other = [await place.submit(place.order("stays")) for _ in range(2)]
    await place.until(other, {"running"})
    await place.batch.cancel(first[0])
    await place.until(first, {"cancelled"})
    assert [pilot.state for pilot in await place.pilots(other)] == ["running"]
    await place.batch.cancel(other[0])


async def test_cancelling_what_has_ended_changes_nothing(place: Place) -> None:
    jobs = await place.submit(place.order("well"))
    ended = await place.until(jobs, {"done_ok"})
    await place.batch.cancel(jobs[0])
    assert await place.pilots(jobs) == ended


# --- what others may see


async def test_no_secret_is_shown(place: Place) -> None:
    order = place.order("well", 2)
    assert place.secret in order.sandbox["picas.json"], "else this shows nothing"
    await place.submit(order)
    assert place.processes.seen or not place.processes.started
    assert not any(place.secret in line for line in place.processes.seen)
    if place.ledger is not None:
        submitted = [line for line in await place.lines("submit", "job_started") if "jdl" in line]
        assert submitted
        assert not any(place.secret in str(line) for line in submitted)
    work = place.directory / "work"
    assert not work.exists() or list(work.iterdir()) == []


# --- when it is struck


@struck
async def test_every_fault_of_a_tool_is_tried(name: str) -> None:
    assert {*FAULTS} == KINDS[name].keys()


@struck
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_submission_whose_answer_is_lost_is_found(place: Place, name: str, way: Way, fault: str) -> None:
    order = place.order("well", 2)
    prepared = await place.batch.prepare(order)
    place.strike(name, fault, way.submits)
    jobs: tuple[str, ...] = ()
    raised: OutsideError | None = None
    try:
        jobs = await place.batch.submit(order, prepared)
    except OutsideError as error:
        raised = error
    run = await place.started(order.key)
    await place.healed()
    assert run == (0 if fault in NOT_DONE else 2)
    if raised is None:
        assert run == 2
    elif isinstance(raised, Temporary) and not place.batch.registers:
        assert run == 0, "what may have happened is not tried again without a look"
    else:
        assert isinstance(raised, Temporary | Unknown)
    found = await place.batch.find(order.key, prepared)
    assert raised is not None or {*found} == {*jobs}
    assert len(await place.pilots(found)) == run


@struck
async def test_an_answer_is_used_though_its_tool_says_that_it_failed(place: Place, name: str) -> None:
    jobs = await place.submit(place.order("well", 2))
    place.strike(name, "fail_after", "status")
    assert (await place.batch.status(jobs)).keys() == {*jobs}


@struck
@pytest.mark.parametrize("fault", ["half_line", "hang_after", "flood", "kill_before", "hang_before", "proxy_before"])
async def test_a_look_that_failed_says_nothing(place: Place, name: str, fault: str) -> None:
    order = place.order("stays")
    jobs = await place.submit(order)
    place.strike(name, fault, "status")
    with pytest.raises(Temporary):
        await place.batch.status(jobs)
    place.strike(name, fault, "status")
    with pytest.raises((Unknown, Temporary)):
        await place.batch.find(order.key)


@struck
@pytest.mark.parametrize("fault", ["fail_after", "half_line", "hang_after", "kill_before", "hang_before"])
async def test_asking_for_the_end_once_more_does_it(place: Place, name: str, way: Way, fault: str) -> None:
    jobs = await place.submit(place.order("stays"))
    await place.until(jobs, {"running"})
    place.strike(name, fault, way.cancels)
    with suppress(Unknown, Temporary):
        await place.batch.cancel(jobs[0])
    await place.batch.cancel(jobs[0])
    await place.until(jobs, {"cancelled"})
