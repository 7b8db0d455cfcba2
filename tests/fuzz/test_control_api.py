"""The control socket asked nonsense: every answer is one of ours, none is a 500, and the next question is answered."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from populated import WAITS, fill, healthy
from tapes import SARA, Tape, ordering

from aglowd.clock import Clock
from aglowd.control import MAX_BODY_BYTES, MAX_LIST_BODY_BYTES, Control, Verdict
from aglowd.errors import AglowError
from aglowd.store.store import Store
from tests.fuzz.mutations import ODD_TEXTS, bounded, fuzzed, mangled, mangled_json

PATHS = (
    "/live",
    "/ready",
    "/v1/status",
    "/v1/fields",
    f"/v1/fields/{WAITS}",
    f"/v1/fields/{WAITS}/explain",
    "/v1/events",
    "/v1/doubt",
    "/v1/stage",
    "/v1/stage/x",
    "/v1/locality",
    "/v1/reload",
)
QUERY = st.dictionaries(
    st.sampled_from(("since", "limit", "field", "follow", "x", "")),
    st.sampled_from((*ODD_TEXTS, "1", "0", WAITS)),
    max_size=3,
)
ORDER = {"path": "x.txt", "text": f"# mine\n{SARA.format(0)}\n{SARA.format(1)} file:///x\n", "site": "sara"}
VERDICT = {"key": "run/step/1/stage_files/0", "action": "adopt", "reason": "it is there", "ref": "12227"}
PATIENCE_S = 20.0


async def refuse(verdict: Verdict, uid: int) -> str:
    raise AglowError(f"there is no doubt {verdict.key}")


@pytest.fixture
async def socket(tmp_path: Path) -> AsyncIterator[str]:
    store = Store(tmp_path / "aglowd.db", Clock())
    await store.open()
    await fill(store)
    path = tmp_path / "aglowd.sock"
    async with (
        ordering(store, sara=Tape({SARA.format(0): "ONLINE"})) as ordered,
        Control(store, healthy, store.clock, "1", refuse, ordered).serve(path),
    ):
        yield str(path)
    await store.close()


async def ask(path: str, request: bytes, *, end: bool = False) -> bytes:
    """What the daemon answers to those bytes before it hangs up; `end`: we hang up first, which ends the request."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        if end:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    assert found, answer[:200]
    return int(found[1])


async def check(path: str, request: bytes, *, end: bool = False) -> int:
    """The status of the answer, 0 if there is none; it is ours, and the daemon lives on."""
    with bounded():
        answer = await ask(path, request, end=end)
        alive = await ask(path, b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status_of(alive) == 200
    assert b"Traceback" not in answer
    if not answer:
        return 0
    status = status_of(answer)
    assert status in (200, 400, 404, 405, 409, 413, 417), answer[:300]
    head, _, body = answer.partition(b"\r\n\r\n")
    if body and b"application/json" in head and b"chunked" not in head and answer.count(b"HTTP/1.1 ") == 1:
        assert ("error" in msgspec.json.decode(body)) is (status != 200)
    return status


@fuzzed
@given(
    path=st.sampled_from(PATHS)
    | st.sampled_from(ODD_TEXTS).map(lambda text: f"/v1/fields/{quote(text, safe='')}")
    | st.text("/%.a0+?#", max_size=30),
    query=QUERY,
    method=st.sampled_from(("GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "X" * 100, "")),
)
async def test_any_path_query_and_method(socket: str, path: str, query: dict[str, str], method: str) -> None:
    query.pop("follow", None) if query.get("follow") == "1" else None
    text = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    await check(socket, f"{method} {path}?{text} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


@fuzzed
@given(
    raw=mangled(
        b"GET /v1/events?limit=3 HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
)
async def test_any_bytes_for_a_request(socket: str, raw: bytes) -> None:
    await check(socket, raw, end=True)


@fuzzed
@given(body=mangled_json(VERDICT))
async def test_any_body(socket: str, body: bytes) -> None:
    head = f"POST /v1/doubt HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    assert await check(socket, head.encode() + body) in (400, 409)


@fuzzed
@given(body=mangled_json({"reason": "they asked", "dry_run": True}))
async def test_any_reload(socket: str, body: bytes) -> None:
    head = f"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    assert await check(socket, head.encode() + body) in (400, 409)


@fuzzed
@given(
    raw=mangled(b"POST /v1/doubt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
    cuts=st.lists(st.integers(0, 90), max_size=6),
)
async def test_any_bytes_in_any_pieces(socket: str, raw: bytes, cuts: list[int]) -> None:
    """As they come from a slow client, which hangs up in the middle."""
    reader, writer = await asyncio.open_unix_connection(socket)
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    try:
        for start, end in itertools.pairwise(places):
            writer.write(raw[start:end])
            await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read(-1)
    except ConnectionError:
        answer = b""
    finally:
        writer.close()
    assert b"Traceback" not in answer
    assert b" 500 " not in answer.partition(b"\r\n")[0]
    assert status_of(await ask(socket, b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == 200


@fuzzed
@given(body=mangled_json(ORDER), command=st.sampled_from(("stage", "locality")))
async def test_any_list(socket: str, body: bytes, command: str) -> None:
    head = f"POST /v1/{command} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    assert await check(socket, head.encode() + body) in (200, 400, 409)


@pytest.mark.parametrize(
    ("command", "most"),
    [("doubt", MAX_BODY_BYTES), ("stage", MAX_LIST_BODY_BYTES), ("locality", MAX_LIST_BODY_BYTES)],
)
@pytest.mark.parametrize(("more", "status"), [(0, 400), (1, 413), (50 << 20, 413)])
async def test_a_body_at_the_limit_is_read_and_a_longer_one_is_not(
    socket: str, command: str, most: int, more: int, status: int
) -> None:
    """A long one is refused before it is read: the answer comes though the body never ends."""
    size = most + more
    head = f"POST /v1/{command} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    body = b" " * min(size, most + 70_000)
    assert await check(socket, head.encode() + body) == status
