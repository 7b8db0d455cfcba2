"""The virtual loop itself: when time moves, when it does not, and that everything asyncio offers still works."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
import time
from pathlib import Path

import aiohttp
import aiosqlite
import pytest
from aiohttp import web
from support import HandClock, opened

from aglowd.errors import Temporary
from aglowd.grid.proc import Processes
from tests.virtual.loop import StalledError, VirtualLoop


async def test_a_day_of_sleep_takes_no_time() -> None:
    loop, began = asyncio.get_running_loop(), time.monotonic()
    at = loop.time()
    await asyncio.sleep(86_400.0)
    assert loop.time() == pytest.approx(at + 86_400.0)
    assert time.monotonic() - began < 5.0


async def test_a_timeout_strikes_at_its_virtual_time() -> None:
    loop = asyncio.get_running_loop()
    at = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600.0):
            await asyncio.Event().wait()
    assert loop.time() == pytest.approx(at + 3600.0)


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        woken.append(seconds)

    times = [float(number) for number in range(1, 200)]
    shuffled = random.Random(4).sample(times, len(times))
    await asyncio.gather(*map(sleep, shuffled))
    assert woken == times


async def test_time_stands_still_while_a_thread_works() -> None:
    loop = asyncio.get_running_loop()
    at, may_end = loop.time(), threading.Event()
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(1.0)
            ticks.append(loop.time())

    ticking = asyncio.create_task(tick())
    threading.Timer(0.2, may_end.set).start()
    assert await asyncio.to_thread(may_end.wait, 30.0)
    assert loop.time() == at
    assert ticks == []
    ticking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ticking


async def test_threads_come_back_in_the_order_in_which_they_left() -> None:
    came: list[int] = []
    gate = threading.Barrier(4)

    def work(number: int) -> None:
        gate.wait(30.0)
        time.sleep(0.01 * (4 - number))  # The last one given away has finished first.

    async def send(number: int) -> None:
        await asyncio.to_thread(work, number)
        came.append(number)

    await asyncio.gather(*map(send, range(4)))
    assert came == [0, 1, 2, 3]


async def test_aiosqlite_works_and_costs_no_virtual_time(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    at = loop.time()

    async def idle() -> None:
        for _ in range(10**9):
            await asyncio.sleep(0.001)

    idling = asyncio.create_task(idle())
    async with aiosqlite.connect(tmp_path / "x.db") as db:
        await db.execute("CREATE TABLE t (n INTEGER)")
        for number in range(50):
            await db.execute("INSERT INTO t VALUES (?)", (number,))
        await db.commit()
        async with db.execute("SELECT count(*) FROM t") as cursor:
            assert await cursor.fetchone() == (50,)
    assert loop.time() == at
    idling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await idling


async def test_the_store_works(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    at = loop.time()
    async with opened(tmp_path / "aglowd.db", HandClock()) as store:
        assert await store.ingest("lta", "here", ()) == 0
        assert await store.cursor("lta") == "here"
    assert loop.time() == at


async def test_a_process_runs_in_no_virtual_time_and_its_timeout_is_virtual() -> None:
    loop = asyncio.get_running_loop()
    processes = Processes(env={"PATH": "/usr/bin:/bin"})
    at = loop.time()
    said = await processes.run([sys.executable, "-ISc", "import time; time.sleep(0.1); print('done')"], write=False)
    assert said.stdout == "done\n"
    assert loop.time() == at
    with pytest.raises(Temporary, match="killed after 3600 s"):
        await processes.run(["sleep", "600000"], write=False, timeout_s=3600.0)
    assert at + 3600.0 <= loop.time() < at + 3700.0


async def test_http_between_a_client_and_a_server_in_the_same_loop_takes_no_virtual_time() -> None:
    loop = asyncio.get_running_loop()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=await request.read() * 2)

    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    at = loop.time()
    body = random.Random(1).randbytes(900_000)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:

            async def ask() -> bytes:
                async with session.post(url, data=body) as reply:
                    return await reply.read()

            answers = await asyncio.gather(*(ask() for _ in range(5)))
            assert all(found == body * 2 for found in answers)
            assert loop.time() == at, "bodies on their way are work that is under way"
            await site.stop()
            with pytest.raises(aiohttp.ClientConnectorError):
                await ask()
    finally:
        await runner.cleanup()


async def test_a_strangers_socket_is_heard() -> None:
    """A server of another thread, over real loopback: the answer comes, though nobody promises at which virtual time."""
    import socketserver

    class Echo(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(self.rfile.readline())

    with socketserver.TCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.server_address[1])
        writer.write(b"hello\n")
        keeping = asyncio.create_task(asyncio.sleep(1e9))
        await asyncio.to_thread(thread.join, 30.0)
        assert await reader.readline() == b"hello\n"
        writer.close()
        await writer.wait_closed()
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping


def test_waiting_for_nothing_is_an_error_and_not_a_hang() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    loop = VirtualLoop()
    try:
        task = loop.create_task(wait())
        with pytest.raises(StalledError):
            loop.run_until_complete(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    finally:
        loop.close()


def test_the_same_program_runs_in_the_same_order(tmp_path: Path) -> None:
    async def program(path: Path, seen: list[str]) -> None:
        loop = asyncio.get_running_loop()

        async def worker(number: int, db: aiosqlite.Connection) -> None:
            for turn in range(20):
                await asyncio.sleep((number * 7 + turn * 3) % 5)
                await asyncio.to_thread(sum, range((number * 37) % 1000))
                await db.execute("INSERT INTO t VALUES (?)", (number,))
                seen.append(f"{loop.time():.3f} {number} {turn}")

        async with aiosqlite.connect(path) as db:
            await db.execute("CREATE TABLE t (n INTEGER)")
            await asyncio.gather(*(worker(number, db) for number in range(8)))

    runs: list[list[str]] = [[], []]
    for number, seen in enumerate(runs):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(program(tmp_path / f"{number}.db", seen))
    assert len(runs[0]) == 160
    assert runs[0] == runs[1]
