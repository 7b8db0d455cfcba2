"""Many clients, slow ones, deaf ones and floods at the control socket: the daemon goes on, and so do the others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from populated import fill, healthy

from aglowd import door
from aglowd.clock import Clock
from aglowd.control import Control, followers, requests
from aglowd.model import FieldView
from aglowd.store.store import Store

ALIVE = b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LIMIT_S = 60.0
SOON_S = 8.0
"""Less than what the server's own limit of an idle connection would take."""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "aglowd.db", Clock())
    await opened.open()
    await fill(opened)
    yield opened
    await opened.close()


@pytest.fixture
async def path(store: Store, tmp_path: Path) -> AsyncIterator[str]:
    where = tmp_path / "s"
    async with Control(store, healthy, store.clock, "1").serve(where):
        yield str(where)


class Client:
    """A connection that is ours to the byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def end(self) -> bytes:
        """All that comes until the daemon hangs up."""
        try:
            async with asyncio.timeout(LIMIT_S):
                return await self.reader.read()
        except ConnectionError:
            return b""
        finally:
            self.writer.close()


async def connect(path: str, first: bytes = b"") -> Client:
    client = Client(*await asyncio.open_unix_connection(path))
    client.writer.write(first)
    return client


async def is_alive(path: str) -> bool:
    return b" 200 " in (await (await connect(path, ALIVE)).end()).splitlines()[0]


async def test_two_hundred_clients_at_once_are_all_answered(path: str) -> None:
    async def ask(session: aiohttp.ClientSession, number: int) -> int:
        target = ("/v1/status", "/v1/fields", "/v1/events?limit=5", "/v1/doubt")[number % 4]
        async with session.get(f"http://aglowd{target}") as response:
            await response.read()
            return response.status

    connector = aiohttp.UnixConnector(path, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        for _ in range(3):
            assert set(await asyncio.gather(*(ask(session, number) for number in range(200)))) == {200}
    assert await is_alive(path)


async def test_one_user_has_so_many_places_and_is_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS_OF_ONE", 5)
    held = [await connect(path) for _ in range(5)]
    await asyncio.sleep(0)
    answer = await (await connect(path, ALIVE)).end()
    assert answer.startswith(b"HTTP/1.1 503 ")
    said = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])
    assert said == {
        "schema": 1,
        "error": {"code": "too-many-connections", "message": "5 connections of yours are open; end some of them"},
    }
    held[0].writer.close()
    await held[0].writer.wait_closed()
    while not await is_alive(path):
        pass
    for one in held:
        one.writer.close()


async def test_all_together_have_so_many_places(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 3)
    held = [await connect(path) for _ in range(3)]
    assert b"3 connections are open; try again later" in await (await connect(path, ALIVE)).end()
    for one in held:
        one.writer.close()


async def test_who_is_refused_in_masses_is_not_even_told(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 0)
    monkeypatch.setattr(door, "MAX_REFUSED", 2)
    answers = await asyncio.gather(*(one.end() for one in [await connect(path) for _ in range(20)]))
    assert 2 <= sum(b" 503 " in answer for answer in answers) < 20
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 100)
    assert await is_alive(path)


async def test_a_flood_of_connections_leaves_no_file_open(path: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        clients = [await connect(path, b"GET /live HTTP/1.1\r\n") for _ in range(100)]
        for one in clients:
            one.writer.transport.abort()
        assert await is_alive(path)
    while len(os.listdir("/proc/self/fd")) > before + 5:
        assert await is_alive(path)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"GET /live HT",
        b"GET /live HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"GET /live HTTP/1.1\r\nHost: x\r\n\r\nGET /li",
    ],
)
async def test_a_slow_loris_is_shut_out(path: str, store: Store, monkeypatch: pytest.MonkeyPatch, first: bytes) -> None:
    """It says a little ever and again, and never all of it."""
    monkeypatch.setattr(door, "SILENCE_REAL_S", 0.3)
    monkeypatch.setattr(door, "SWEEP_REAL_S", 0.05)
    own = Path(path).with_name("own")  # The sweeper of the other one sleeps already.
    async with Control(store, healthy, store.clock, "1").serve(own):
        slow = await connect(str(own), first)

        async def drip() -> None:
            while not slow.writer.is_closing():
                slow.writer.write(b"x" if first else b"")
                await slow.writer.drain()
                assert await is_alive(str(own)), "nobody else waits meanwhile"

        dripping = asyncio.create_task(drip(), name="drip")
        async with asyncio.timeout(SOON_S):
            await slow.end()
        dripping.cancel()
        await asyncio.wait([dripping])
        assert await is_alive(str(own))


async def test_a_body_that_does_not_come_is_not_waited_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "BODY_S", 0.1)
    slow = await connect(path, b"POST /v1/doubt HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    answer = await slow.end()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"too-slow"' in answer


async def test_a_follower_that_takes_nothing_loses_its_place(
    path: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "WRITE_S", 0.2)
    deaf = await connect(path, b"GET /v1/events?follow=1&since=0 HTTP/1.1\r\nHost: x\r\n\r\n")
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(60):
        await store.put_fields([(FieldView(f"F{field}", f"{number}" * 500), "") for field in range(20)])
    # Whoever listens gets all of it meanwhile.
    connector = aiohttp.UnixConnector(path)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://aglowd/v1/events?limit=1000") as response,
    ):
        assert len((await response.read()).splitlines()) == 1000
    async with asyncio.timeout(LIMIT_S):
        while True:
            if not any("_handle_request" in repr(one.get_coro()) for one in asyncio.all_tasks()):
                break
            assert await is_alive(path)
    deaf.writer.close()


async def test_requests_in_a_row_on_one_connection_are_answered_in_a_row(path: str) -> None:
    count = 300
    asked = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n" * count + ALIVE
    answer = await (await connect(path, asked)).end()
    assert answer.count(b"HTTP/1.1 200") == count + 1
