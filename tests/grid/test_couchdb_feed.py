"""The feed of changes: pages while there is much to catch up with, lines then, polls where lines are held back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Temporary
from aglowd.grid import couchdb_feed
from aglowd.grid.couchdb_feed import Change, Feed, FeedReset, Heartbeat
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, Reply
from aglowd.grid.picas import Picas

from .conftest import Serve


class Server:
    """A database with so many changes, each of a document of its own. `buffers`: something holds back what has no end."""

    def __init__(self, changes: int, *, buffers: bool = False) -> None:
        self.changes = changes
        self.buffers = buffers
        self.asked: list[dict[str, str]] = []
        self.news, self.polled = asyncio.Event(), asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        self.asked.append(query)
        assert request.headers["Accept-Encoding"] == "identity"
        since = self.changes if query["since"] == "now" else int(query["since"].removeprefix("s"))
        if query["feed"] == "continuous":
            return await self._stream(request, since)
        if query["feed"] == "longpoll" and since == self.changes:
            self.polled.set()
            await self.news.wait()
            self.news.clear()
        last = min(self.changes, since + int(query["limit"]))
        rows = [self._row(number) for number in range(since + 1, last + 1)]
        return web.json_response({"results": rows, "last_seq": f"s{last}", "pending": self.changes - last})

    async def _stream(self, request: web.Request, since: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while not self.buffers:
            for number in range(since + 1, self.changes + 1):
                await response.write(msgspec.json.encode(self._row(number)) + b"\n")
            since = self.changes
            await response.write(b"\n")
            await asyncio.sleep(int(request.query["heartbeat"]) / 1000)
        await asyncio.Event().wait()
        return response

    @staticmethod
    def _row(number: int) -> dict[str, Any]:
        return {"seq": f"s{number}", "id": f"cal:{number}", "changes": [{"rev": "1-a"}]}


Make = Callable[[Server], Awaitable[Picas]]


@pytest.fixture
def make(http: Http, site: Site, credential: Credential, serve: Serve) -> Make:
    async def make_picas(server: Server) -> Picas:
        return Picas(http, site, credential, await serve(server.answer), "sksp")

    return make_picas


async def read(picas: Picas, since: str | None, most: int, *, heartbeat_s: float = 0.2) -> list[Change | Heartbeat]:
    told = []
    async with aclosing(picas.changes(since, heartbeat_s=heartbeat_s)) as feed, asyncio.timeout(20):  # type: ignore[type-var] # an async generator
        async for item in feed:
            told.append(item)
            if len(told) == most:
                break
    return told


async def test_much_is_caught_up_with_page_by_page(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couchdb_feed, "PAGE_CHANGES", 10)
    server = Server(25)
    told = await read(await make(server), "s2", 27)
    assert [one.id for one in told if isinstance(one, Change)] == [f"cal:{number}" for number in range(3, 26)]
    assert [number for number, one in enumerate(told) if isinstance(one, Heartbeat)] == [10, 21, 25, 26]
    assert [(query["feed"], query["since"]) for query in server.asked] == [
        ("normal", "s2"), ("normal", "s12"), ("normal", "s22"), ("continuous", "s25"),
    ]  # fmt: skip


async def test_from_now_on_there_is_nothing_to_catch_up_with(make: Make) -> None:
    server = Server(25)
    assert await read(await make(server), None, 1) == [Heartbeat()]
    assert [(query["feed"], query["since"]) for query in server.asked] == [("continuous", "now")]


async def test_where_lines_are_held_back_the_feed_is_polled_from_then_on(make: Make) -> None:
    server = Server(3, buffers=True)
    picas = await make(server)
    with pytest.raises(Temporary, match="the feed fell silent"):
        await read(picas, "s3", 9)
    server.asked.clear()
    reading = asyncio.create_task(read(picas, "s3", 3))
    async with asyncio.timeout(20):
        await server.polled.wait()
    server.changes = 4
    server.news.set()
    told = await reading
    assert told == [Heartbeat(), Change("cal:4", "s4", "cal", deleted=False), Heartbeat()]
    assert [query["feed"] for query in server.asked] == ["normal", "longpoll", "longpoll"][: len(server.asked)]


async def test_a_feed_that_beat_once_is_no_buffered_one(make: Make) -> None:
    server = Server(3)
    picas = await make(server)
    await read(picas, "s3", 2)
    server.asked.clear()
    await read(picas, "s3", 2)
    assert [query["feed"] for query in server.asked] == ["normal", "continuous"]


Answers = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def follow(
    serve: Serve, http: Http, continuous: Answers, longpoll: Answers | None = None
) -> tuple[Picas, list[str]]:
    """A database with nothing to catch up with whose endless answer is that, and the feeds that it was asked for."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.query["feed"])
        if request.query["feed"] == "continuous":
            return await continuous(request)
        if request.query["feed"] == "longpoll" and longpoll is not None:
            return await longpoll(request)
        return web.json_response({"results": [], "last_seq": "s1", "pending": 0})

    credential = Credential("us", user="me", password="s3cret")
    return Picas(http, Site("there", Clock()), credential, await serve(answer), "sksp"), asked


async def test_a_feed_that_is_held_back_from_its_head_on_is_polled(serve: Serve, http: Http) -> None:
    async def hold(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    picas, asked = await follow(serve, http, hold)
    with pytest.raises(Temporary, match="no answer in time"):
        await read(picas, "s1", 2, heartbeat_s=0.05)
    await read(picas, "s1", 2)
    assert asked == ["normal", "continuous", "normal", "longpoll"]


@pytest.mark.parametrize("first", [b"", b"\n"], ids=["at once", "after a heartbeat"])
async def test_a_feed_that_breaks_off_is_followed_again(serve: Serve, http: Http, first: bytes) -> None:
    async def break_off(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(first)
        assert request.transport
        request.transport.abort()
        return response

    picas, asked = await follow(serve, http, break_off)
    for _ in range(2):
        with pytest.raises(Temporary):
            await read(picas, "s1", 3)
    assert asked == ["normal", "continuous"] * 2


async def test_a_feed_that_beat_and_then_fell_silent_is_followed_again(serve: Serve, http: Http) -> None:
    async def beat_once(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"\n")
        await asyncio.Event().wait()
        return response

    picas, asked = await follow(serve, http, beat_once)
    for _ in range(2):
        with pytest.raises(Temporary, match="silent"):
            await read(picas, "s1", 3, heartbeat_s=0.05)
    assert asked == ["normal", "continuous"] * 2


async def test_a_feed_that_never_rests_beats_too(serve: Serve, http: Http) -> None:
    async def chatter(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(10**6):
            await response.write(b'{"seq":"s%d","id":"t:1","changes":[]}\n' % number)
            await asyncio.sleep(0.001)
        return response

    picas, _ = await follow(serve, http, chatter)
    seen: list[Change | Heartbeat] = []
    async with aclosing(picas.changes("s1", heartbeat_s=0.05)) as feed, asyncio.timeout(20):  # type: ignore[type-var] # an async generator
        async for told in feed:
            seen.append(told)
            if seen.count(Heartbeat()) == 3:  # The first is that of the page.
                break
    assert sum(isinstance(told, Change) for told in seen) >= 2


async def test_lines_that_come_together_are_told_in_order_and_before_the_heartbeat_behind_them(
    serve: Serve, http: Http
) -> None:
    lines = [b'{"seq":"s%d","id":"t:%d","changes":[]}\n' % (number, number) for number in range(3)]

    async def pour(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        poured = lines[0] + lines[1] + b"\n" + lines[2]
        await response.write(poured[:-5])
        await response.write(poured[-5:] + b"\n")
        await asyncio.Event().wait()
        return response

    picas, _ = await follow(serve, http, pour)
    told = await read(picas, None, 4, heartbeat_s=10)
    changes = [one for one in told if isinstance(one, Change)]
    assert [(change.id, change.seq) for change in changes] == [(f"t:{number}", f"s{number}") for number in range(3)]
    assert told.index(Heartbeat()) >= 2  # It says that what came before it has been told.


async def test_a_server_that_does_not_wait_is_not_polled_without_end(
    serve: Serve, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(couchdb_feed, "PAUSE_S", 0.1)

    async def at_once(_: web.Request) -> web.StreamResponse:
        return web.json_response({"results": [], "last_seq": "s1"})

    picas, asked = await follow(serve, http, at_once, at_once)
    picas._feed._is_buffered = True
    began = asyncio.get_running_loop().time()
    assert await read(picas, "s1", 4) == [Heartbeat()] * 4
    assert asked == ["normal", *["longpoll"] * 3]
    assert asyncio.get_running_loop().time() - began >= 0.2


def of_body(body: bytes) -> Feed:
    async def ask(**_: Any) -> Reply:
        return Reply(200, {}, body)

    def open_(**_: Any) -> Any:
        raise Temporary("nobody gets so far")

    return Feed(ask, open_)


PAGE = b'{"results":[{"seq":"2-b","id":"cal:1","changes":[{"rev":"1-a"}],"deleted":true}],"last_seq":"2-b","pending":0}'


@given(st.integers(0, len(PAGE)), st.binary(max_size=4), st.integers(0, 10))
async def test_a_mutated_page_is_changes_or_an_error_of_ours(at: int, put: bytes, cut: int) -> None:
    feed = of_body(PAGE[:at] + put + PAGE[at + cut :])

    async def follow() -> None:
        async with aclosing(feed.follow("1-a", 1.0)) as told:  # type: ignore[type-var] # an async generator
            async for one in told:
                assert isinstance(one, Change | Heartbeat)

    with pytest.raises(OutsideError):
        await follow()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"results": 1}', b'{"results": [1], "last_seq": 1}', b"\xff"])
async def test_what_is_no_page_is_temporary(body: bytes) -> None:
    with pytest.raises(Temporary, match="PiCaS _changes") as caught:
        async with aclosing(of_body(body).follow("1-a", 1.0)) as told:  # type: ignore[type-var] # an async generator
            await anext(told)
    assert not isinstance(caught.value, FeedReset)
