"""The HTTP transport: every row of the error table, for a read and for a write, against a real server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import DEFAULT_BACK_OFF_S, Http, json_of

from .conftest import Serve

both = pytest.mark.parametrize("write", [False, True], ids=["read", "write"])


async def fails(http: Http, url: str, site: Site, *, write: bool, **more: object) -> OutsideError:
    with pytest.raises(OutsideError) as caught:
        await http.request("PUT" if write else "GET", url, site=site, write=write, **more)  # type: ignore[arg-type]
    return caught.value


@asynccontextmanager
async def raw_server(answer: bytes, *, hang: bool = False) -> AsyncIterator[str]:
    """A server that says exactly that to each connection once it has the request's head, and hangs up (or does not)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if hang:
            await reader.read()
        writer.close()

    seen: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
    assert len(seen) == 1, "the request was sent again"


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/x"


@both
@pytest.mark.parametrize("url", ["closed", "http://no-such-host.invalid/x"])
async def test_no_connection_is_temporary_for_both(http: Http, site: Site, url: str, write: bool) -> None:
    error = await fails(http, closed_port() if url == "closed" else url, site, write=write)
    assert type(error) is Temporary
    assert "no connection" in str(error)


@pytest.mark.parametrize(
    ("status", "read", "write"),
    [
        *((status, Permanent, Permanent) for status in (400, 404, 405, 409, 410, 413, 415, 422)),
        (401, Temporary, Temporary),
        (403, Temporary, Permanent),
        (408, Temporary, Unknown),
        (429, Temporary, Temporary),
        (451, Permanent, Unknown),
        (500, Temporary, Unknown),
        (502, Temporary, Unknown),
        (503, Temporary, Unknown),
        (504, Temporary, Unknown),
        (302, Permanent, Permanent),
        (303, Temporary, Unknown),
        (307, Permanent, Permanent),
    ],
)
async def test_the_status_decides(
    http: Http, site: Site, serve: Serve, status: int, read: type[OutsideError], write: type[OutsideError]
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status, text="why", headers={"Location": "http://me:pw@elsewhere/x?q=1"})

    url = await serve(handler)
    for writing, expected in ((False, read), (True, write)):
        error = await fails(http, f"{url}/x", Site("there", Clock()), write=writing)
        assert type(error) is expected
        assert f"HTTP {status}: why" in str(error)
        assert "pw" not in str(error)
        assert getattr(error, "absent", False) == (status in (404, 410))


@both
@pytest.mark.parametrize("status", [408, 429, 503])
async def test_retry_after_makes_everybody_wait(http: Http, site: Site, serve: Serve, status: int, write: bool) -> None:
    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status, headers={"Retry-After": "120"})

    seen: list[str] = []
    url = await serve(handler)
    first = await fails(http, url, site, write=write)
    assert getattr(first, "retry_after_s", 120) == 120
    second = await fails(http, url, site, write=write)
    assert type(second) is Temporary
    assert len(seen) == 1
    assert site.health.backing_off_until is not None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, DEFAULT_BACK_OFF_S),
        ({"Retry-After": "Mon, 23 Nov 2026 12:02:00 GMT", "Date": "Mon, 23 Nov 2026 12:00:00 GMT"}, 120.0),
        ({"Retry-After": "soon"}, DEFAULT_BACK_OFF_S),
        ({"Retry-After": "9" * 40}, 6 * 3600.0),
    ],
)
async def test_both_forms_of_retry_after(
    http: Http, site: Site, serve: Serve, headers: dict[str, str], expected: float
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=429, headers=headers)

    error = await fails(http, await serve(handler), site, write=True)
    assert isinstance(error, Temporary)
    assert error.retry_after_s == expected


@both
async def test_a_401_freezes_the_credential_and_stops_all_calls(
    http: Http, site: Site, serve: Serve, credential: Credential, write: bool
) -> None:
    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.Response(status=401, text="me:s3cret is not welcome")

    seen: list[str] = []
    url = await serve(handler)
    for _ in range(3):
        error = await fails(http, url, site, write=write, credential=credential)
        assert type(error) is Temporary
        assert "s3cret" not in str(error)
    assert seen == ["Basic bWU6czNjcmV0"]
    assert credential.frozen


@both
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000,
    ],
    ids=["hung up", "half a body", "no gzip", "bad chunk", "no http", "too long"],
)
async def test_a_broken_answer_leaves_a_write_in_doubt(http: Http, site: Site, answer: bytes, write: bool) -> None:
    async with raw_server(answer) as url:
        error = await fails(http, url, site, write=write)
    assert type(error) is (Unknown if write else Temporary)


@both
async def test_no_answer_in_time_leaves_a_write_in_doubt(http: Http, site: Site, write: bool) -> None:
    async with raw_server(b"HTTP/1.1 200 OK\r\n", hang=True) as url:
        error = await fails(http, url, site, write=write, timeout_s=0.05)
    assert type(error) is (Unknown if write else Temporary)
    assert "in time" in str(error)


@both
async def test_an_unparsable_success_leaves_a_write_in_doubt(http: Http, site: Site, serve: Serve, write: bool) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="<html>welcome</html>")

    reply = await http.request("POST", await serve(handler), site=site, write=write)
    with pytest.raises(Unknown if write else Temporary, match="not JSON"):
        json_of(reply, "it", write=write)


@both
@pytest.mark.parametrize(
    "url", ["http://me:s3cret@127.0.0.1/x", "not a url", "ftp://127.0.0.1/x", "http://127.0.0.1:99999/x", "http:///x"]
)
async def test_what_is_no_url_of_ours_is_permanent_and_shows_no_password(
    http: Http, site: Site, url: str, write: bool
) -> None:
    error = await fails(http, url, site, write=write)
    assert type(error) is Permanent
    assert "s3cret" not in str(error)


async def test_parts_of_the_url_arrive_as_they_were_quoted(http: Http, site: Site, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response([request.raw_path, request.headers["Content-Type"], await request.json()])

    url = f"{await serve(handler)}/a%2Bb%2Fc%20d"
    reply = await http.request("POST", url, site=site, write=True, params={"rev": "1+2 3"}, json={"x": [1]})
    path, kind, body = json_of(reply, "it", write=True)
    assert path.partition("?")[0] == "/a%2Bb%2Fc%20d"
    assert path.partition("?")[2] in ("rev=1%2B2+3", "rev=1%2B2%203")
    assert (kind, body) == ("application/json", {"x": [1]})


async def test_a_status_can_be_accepted_and_a_token_is_sent(http: Http, site: Site, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=409, text=request.headers["Authorization"])

    url = await serve(handler)
    reply = await http.request(
        "PUT", url, site=site, credential=Credential("t", token="abc"), write=True, ok=frozenset({409})
    )
    assert (reply.status, reply.body) == (409, b"Bearer abc")


async def test_lines_of_a_stream_come_as_they_are_sent(http: Http, site: Site, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b'{"a":', b"1}\n\n", b"x\r\ny\n"):
            await response.write(part)
        await asyncio.Event().wait()
        return response

    seen: list[bytes] = []
    with pytest.raises(Temporary, match="fell silent"):
        await read_lines(http, await serve(handler), site, seen, read_timeout_s=0.2)
    assert seen == [b'{"a":1}', b"", b"x", b"y"]


async def read_lines(http: Http, url: str, site: Site, seen: list[bytes], *, read_timeout_s: float = 5) -> None:
    async with http.stream("GET", url, site=site, read_timeout_s=read_timeout_s) as lines:
        async for line in lines:
            seen.append(line)  # noqa: PERF401 - what came before the feed breaks must stay


async def test_a_stream_that_breaks_off_or_never_ends_its_line_is_temporary(site: Site, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if request.path in ("/long", "/among"):
            await response.write(b"x" * 5000 if request.path == "/long" else b"a\n" + b"x" * 5000 + b"\nb\n")
            await asyncio.Event().wait()
        assert request.transport
        request.transport.abort()
        return response

    url, http = await serve(handler), Http(Clock(), max_body_bytes=1000)
    for path, text in (("/long", "longer than"), ("/among", "longer than"), ("/broken", "broke off")):
        with pytest.raises(Temporary, match=text):
            await read_lines(http, url + path, site, [])
    await http.close()


@pytest.mark.parametrize(("status", "expected"), [(404, Permanent), (400, Permanent), (503, Temporary)])
async def test_a_stream_that_is_refused_follows_the_table(
    http: Http, site: Site, serve: Serve, status: int, expected: type[OutsideError]
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(status=status)

    with pytest.raises(expected):
        async with http.stream("GET", await serve(handler), site=site, read_timeout_s=5):
            pytest.fail("it was opened")


async def test_cancelling_a_request_gives_the_place_back(http: Http, clock: Clock) -> None:
    site = Site("there", clock, concurrency=1)
    async with raw_server(b"", hang=True) as url:
        task = asyncio.ensure_future(http.request("GET", url, site=site, write=False))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with site.slot():
        pass
