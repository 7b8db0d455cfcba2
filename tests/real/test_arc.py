"""Pilots at a real computing element: what the adapter says of them is what became of them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from aglowd.clock import Clock
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.arc import Arc
from aglowd.grid.batch import JobStatus, Order, Terms
from aglowd.grid.gate import Site
from aglowd.grid.http import Http

from .arex import Arex, arex

TEMPLATE = (Path(__file__).parents[2] / "etc" / "jobs" / "arc.xrsl").read_text()
END_S = 150.0
"""A-REX sees the end of a process after some twenty seconds, and tells the exit code some time later."""

pytestmark = pytest.mark.timeout(250)


@pytest.fixture(scope="module")
def element() -> Iterator[Arex]:
    with arex() as started:
        yield started


@pytest.fixture
async def arc(element: Arex) -> AsyncIterator[Arc]:
    async for one in _adapter(element, element.proxy):
        yield one


@pytest.fixture
async def late(element: Arex) -> AsyncIterator[Arc]:
    async for one in _adapter(element, element.expired):
        yield one


async def _adapter(element: Arex, proxy: Path) -> AsyncIterator[Arc]:
    http = Http(Clock(), timeout_s=30.0)
    yield Arc(http, Site("arc", Clock()), Terms(TEMPLATE), element.url, proxy=proxy, ca_dir=element.trusted)
    await http.close()


def pilots(count: int, script: str, *arguments: str) -> Order:
    key = f'run "1"/{uuid.uuid4()}/1/submit_jobs/0'
    return Order(key, count, "/bin/sh", ("pilot.sh", *arguments), {"pilot.sh": script, "secret.json": "hush\n"})


async def ended(arc: Arc, jobs: Sequence[str]) -> dict[str, JobStatus]:
    deadline = time.monotonic() + END_S
    while True:
        seen = await arc.status(jobs)
        assert set(seen) == set(jobs)
        if all(status.is_final for status in seen.values()):
            return seen
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(1.0)


async def told(arc: Arc, key: str) -> tuple[str, ...]:
    """What carries the key, once A-REX tells the names of all jobs: in their first moments they have none."""
    async with asyncio.timeout(60.0):
        while True:
            try:
                return await arc.find(key)
            except Unknown:
                await asyncio.sleep(0.2)


async def test_pilots_from_their_submission_to_their_end(arc: Arc, tmp_path: Path) -> None:
    """Good ones, bad ones and one that is cancelled, all at once: each takes A-REX half a minute."""
    script = 'echo "$AGLOWD_KEY|$GRID_GLOBAL_JOBID|$*"; cat secret.json; exec 2>&1; sleep ${2:-0}; exit $1\n'
    good, bad, long = pilots(3, script, "0", "a=b"), pilots(1, script, "3"), pilots(1, script, "0", "600")
    good = Order(good.key, 3, good.executable, ("pilot.sh", "0"), good.sandbox)

    prepared = await arc.prepare(good)
    assert len(set(prepared.split())) == 3
    waiting = await arc.status(prepared.split())
    assert {status.state for status in waiting.values()} == {"submitted"}
    assert await arc.find(good.key, prepared) == ()
    assert await told(arc, good.key) == ()

    jobs = await arc.submit(good, prepared)
    assert sorted(jobs) == sorted(prepared.split())
    (failing,) = await arc.submit(bad, None)
    (endless,) = await arc.submit(long, None)

    deadline = time.monotonic() + END_S
    while (seen := (await arc.status([endless]))[endless]).state != "running":
        assert time.monotonic() < deadline, seen
        await asyncio.sleep(0.5)
    assert sorted(await arc.submit(good, prepared)) == sorted(jobs)
    await arc.cancel(endless)
    await arc.cancel(endless)

    seen = await ended(arc, [*jobs, failing, endless])
    assert {(seen[job].state, seen[job].words, seen[job].exit_code) for job in jobs} == {("done_ok", "FINISHED", 0)}
    assert (seen[failing].state, seen[failing].words, seen[failing].exit_code) == ("done_failed", "FAILED", 3)
    assert "3 != 0" in seen[failing].reason
    assert (seen[endless].state, seen[endless].words) == ("cancelled", "KILLED")
    assert "canceled by external request" in seen[endless].reason
    await arc.cancel(jobs[0])

    assert sorted(await arc.find(good.key)) == sorted(await arc.find(good.key, prepared)) == sorted(jobs)
    assert await arc.find(bad.key) == (failing,)
    assert await arc.find("nobody's key") == ()
    assert seen.items() <= (await arc.list_ours()).items()

    place = await arc.output(jobs[0], tmp_path)
    assert place.parent == tmp_path
    assert (place / "stdout.txt").read_text() == f"{good.key}|{jobs[0]}|0\nhush\n"
    assert (place / "stderr.txt").read_text() == ""
    assert "Job state change" in (place / "errors").read_text()


async def test_what_it_does_not_know(arc: Arc, tmp_path: Path) -> None:
    order = pilots(1, "exit 0\n")
    (job,) = (await arc.prepare(order)).split()
    assert list(await arc.status(["nosuchjob", job])) == [job]
    assert await arc.status(["nosuchjob"]) == {}
    with pytest.raises(Permanent, match="no such job"):
        await arc.cancel("nosuchjob")
    with pytest.raises(Permanent, match="no such job"):
        await arc.output("nosuchjob", tmp_path)
    with pytest.raises(Temporary, match="nothing yet"):
        await arc.output(job, tmp_path)
    assert list(tmp_path.iterdir()) == []


async def test_a_description_that_it_does_not_take(element: Arex, arc: Arc) -> None:
    order = pilots(2, "exit 0\n")
    http = Http(Clock())
    for terms in (Terms(TEMPLATE, queue="nosuch"), Terms("&(garbage")):
        other = Arc(http, Site("arc", Clock()), terms, element.url, proxy=element.proxy, ca_dir=element.trusted)
        with pytest.raises(Permanent, match=r"queue nosuch is not allowed|parser"):
            await other.prepare(order)
    await http.close()
    assert await arc.find(order.key) == ()


async def test_an_expired_proxy_is_named(element: Arex, late: Arc, arc: Arc) -> None:
    order = pilots(1, "exit 0\n")
    for ask in (late.status(["abc"]), late.submit(order, None), late.list_ours(), late.cancel("abc")):
        with pytest.raises(Temporary, match=rf"{element.expired} is refused: certificate expired"):
            await ask
    assert await arc.find(order.key) == ()


async def test_whom_it_does_not_know_it_does_not_let_in(element: Arex) -> None:
    http = Http(Clock())
    nobody = Arc(http, Site("arc", Clock()), Terms(TEMPLATE), element.url, proxy=None, ca_dir=element.trusted)
    with pytest.raises(Temporary, match="no account for nobody"):
        await nobody.submit(pilots(1, "exit 0\n"), None)
    stranger = Arc(http, Site("arc", Clock()), Terms(TEMPLATE), element.url, proxy=element.proxy, ca_dir=None)
    with pytest.raises(Temporary, match="certificate"):
        await stranger.list_ours()
    await http.close()
