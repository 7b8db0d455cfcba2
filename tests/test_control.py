"""The control socket over real sockets, in front of a real store."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
import pytest
from populated import ARCHIVED, CALIBRATOR, OFFERED, WAITS, WRONG, fill, healthy

from aglowd.clock import Clock
from aglowd.control import Control, Health, LoopHealth, Verdict, followers
from aglowd.control.routes import ROUTES
from aglowd.errors import AglowError
from aglowd.model import FieldView
from aglowd.store import traces
from aglowd.store.history import MAX_ENTRIES
from aglowd.store.store import Store
from aglowd.store.views import MAX_NAMES


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "aglowd.db", Clock())
    await opened.open()
    await fill(opened)
    yield opened
    await opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "aglowd.sock"


@asynccontextmanager
async def serving(store: Store, path: Path, health: Health | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """The server on that path, and a client of it that outlives it."""
    server = Control(store, lambda: health or healthy(), store.clock, "1.2.3")
    connector = aiohttp.UnixConnector(str(path), limit=0)
    async with aiohttp.ClientSession("http://aglowd", connector=connector) as client, server.serve(path):
        yield client


async def get(client: aiohttp.ClientSession, target: str) -> tuple[int, Any]:
    async with client.get(target) as response:
        answer = msgspec.json.decode(await response.read())
        assert response.content_type == "application/json"
        assert answer["schema"] == 1
        assert answer["now"] > 0
        return response.status, answer


async def test_names_are_told_by_how_they_begin_and_not_too_many(store: Store, path: Path) -> None:
    await store.put_fields([(FieldView(f"many/{number:04d}", "NEW"), "") for number in range(MAX_NAMES + 1)])
    async with serving(store, path) as client:
        _, all_ = await get(client, "/v1/names")
        _, some = await get(client, "/v1/names?begin=many%2F")
        _, one = await get(client, "/v1/names?begin=P229%2B")
        _, none = await get(client, "/v1/names?begin=p")
    assert (len(all_["names"]), len(some["names"])) == (MAX_NAMES, MAX_NAMES)
    assert (some["names"][0], one["names"], none["names"]) == ("many/0000", [WAITS], [])


async def test_status_shows_health_and_counts(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        status, answer = await get(client, "/v1/status")
    assert status == 200
    assert answer["version"] == "1.2.3"
    assert answer["health"]["loops"]["reactor"] == {"age_s": 0.1, "grace_s": 60.0, "ok": True}
    assert answer["health"]["pools"] == {"staging-sara": [1, 2]}
    assert answer["fields"] == {"archived": 1, "failed": 1, "offered": 1, "running": 1}
    assert answer["effects"] == {"doubt": 1}


async def test_fields_and_their_states(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        _, answer = await get(client, "/v1/fields")
    states = {field["field"]: field["state"] for field in answer["fields"]}
    assert states == {WAITS: "running", ARCHIVED: "archived", WRONG: "failed", OFFERED: "offered"}


async def test_a_plus_in_a_name_is_a_plus_quoted_or_not(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        for name in (WAITS, quote(WAITS, safe="")):
            status, answer = await get(client, f"/v1/fields/{name}")
            assert (status, answer["field"]) == (200, WAITS)
            assert [step["step"] for step in answer["runs"][0]["steps"]] == ["archive", "calibrator", "stage", "tokens"]


async def test_explain_says_why_each_step_waits(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        _, answer = await get(client, f"/v1/fields/{WAITS}/explain")
    steps = {step["step"]: step for step in answer["steps"]}
    assert steps.keys() == {"stage", "calibrator", "tokens"}
    assert steps["stage"]["reason"] == "LTA request 12: 188 of 244 online"
    assert steps["stage"]["waits_for"][0]["evidence"] == {"online": 188, "total": 244}
    assert steps["stage"]["due"] > answer["now"]
    assert steps["tokens"]["effects"][0]["state"] == "doubt"
    assert [inner["step"] for inner in steps["calibrator"]["inner"]] == ["wait"]


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/", 404, "unknown-path"),
        ("/v1/nothing", 404, "unknown-path"),
        ("/v1/fields/", 404, "unknown-path"),
        ("/v1/fields/P0", 404, "unknown-field"),
        ("/v1/fields/P0/explain", 404, "unknown-field"),
        ("/v1/fields/..%2f..%2fetc", 404, "unknown-field"),
        ("/v1/events?field=P0", 404, "unknown-field"),
        ("/v1/events?follow=1&field=P0", 404, "unknown-field"),
        ("/v1/events?since=yesterday", 400, "bad-parameter"),
        ("/v1/events?since=-1", 400, "bad-parameter"),
        ("/v1/events?since=99999999999999999999999", 400, "bad-parameter"),
        ("/v1/events?limit=0", 400, "bad-parameter"),
        ("/v1/events?limit=1001", 400, "bad-parameter"),
        ("/v1/events?follow=yes", 400, "bad-parameter"),
        ("/v1/events?until=12", 400, "bad-parameter"),
        ("/v1/events?follow=1&until=1h", 400, "bad-parameter"),
        (f"/v1/fields/{WAITS}/history?limit={MAX_ENTRIES + 1}", 400, "bad-parameter"),
        (f"/v1/fields/{WAITS}/history?since=soon", 400, "bad-parameter"),
        (f"/v1/fields/{WAITS}/history?run=P0-1", 404, "unknown-run"),
        ("/v1/fields/P0/history", 404, "unknown-field"),
        (f"/v1/fields/{WAITS}/explain?at=", 400, "bad-parameter"),
        (f"/v1/fields/{WAITS}/explain?at=2999-01-01", 400, "bad-parameter"),
        (f"/v1/fields/{WAITS}/explain?at=2001-09-09", 409, "refused"),
        ("/v1/fields/P0/explain?at=1h", 404, "unknown-field"),
        ("/v1/trace/P0", 404, "unknown-trace"),
        ("/v1/trace/99999999999999999999999", 404, "unknown-trace"),
        (f"/v1/trace/{WAITS}?limit={traces.MAX_EVENTS + 1}", 400, "bad-parameter"),
        ("/v1/diff", 400, "bad-parameter"),
        ("/v1/diff?from=1h&to=2h", 400, "bad-parameter"),
        ("/v1/diff?field=P0&from=1h", 409, "refused"),
        ("/v1/next?within=soon", 400, "bad-parameter"),
    ],
)
async def test_wrong_questions_get_an_answer(store: Store, path: Path, target: str, status: int, code: str) -> None:
    async with serving(store, path) as client:
        got, answer = await get(client, target)
    assert (got, answer["error"]["code"]) == (status, code)
    assert answer["error"]["message"]


async def test_nothing_can_be_written_yet(store: Store, path: Path) -> None:
    async with serving(store, path) as client, client.post("/v1/status", data=b"x" * 100_000) as response:
        assert response.status == 405
        assert msgspec.json.decode(await response.read())["error"]["code"] == "method-not-allowed"


async def test_a_failure_of_ours_is_no_traceback(store: Store, path: Path) -> None:
    def broken() -> Health:
        raise RuntimeError("a defect")

    server = Control(store, broken, store.clock, "1")
    connector = aiohttp.UnixConnector(str(path))
    async with aiohttp.ClientSession("http://aglowd", connector=connector) as client, server.serve(path):
        status, answer = await get(client, "/v1/status")
    assert (status, answer["error"]["code"]) == (500, "internal")
    assert "defect" not in str(answer)


async def test_live_names_the_stuck_loops(store: Store, path: Path) -> None:
    loops = {"reactor": LoopHealth(1.0, 60.0, True), "watcher job": LoopHealth(900.0, 60.0, False)}
    async with serving(store, path, healthy(alive=False, loops=loops)) as client:
        status, answer = await get(client, "/live")
        assert (status, answer["stuck"]) == (503, ["watcher job"])
        assert (await get(client, "/ready"))[0] == 200
    async with serving(store, path) as client:
        assert (await get(client, "/live"))[0] == 200


async def test_live_needs_no_store(tmp_path: Path, path: Path) -> None:
    closed = Store(tmp_path / "never-opened.db", Clock())
    async with serving(closed, path) as client:
        assert (await get(client, "/live"))[0] == 200


async def test_ready_names_what_is_missing(store: Store, path: Path) -> None:
    async with serving(store, path, healthy(ready=False, missing=("proxy",))) as client:
        status, answer = await get(client, "/ready")
    assert (status, answer["missing"]) == (503, ["proxy"])


# --- events


async def events(client: aiohttp.ClientSession, query: str) -> list[dict[str, Any]]:
    async with client.get(f"/v1/events?{query}") as response:
        assert response.status == 200
        assert response.content_type == "application/jsonl"
        return [msgspec.json.decode(line) for line in (await response.read()).splitlines()]


async def test_events_are_the_latest_or_those_after_an_id(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        every = await events(client, "since=0")
        assert await events(client, "limit=3") == every[-3:]
        assert await events(client, f"since={every[4]['id']}&limit=2") == every[5:7]
        assert await events(client, f"since={every[-1]['id']}") == []


async def test_events_of_one_field_and_of_a_shared_run(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        of_field = await events(client, f"field={quote(WAITS, safe='')}")
        assert {event["field"] for event in of_field} == {WAITS}
        assert await events(client, f"field={quote(CALIBRATOR, safe='')}")


@pytest.mark.parametrize("field", ["", WAITS])
async def test_a_follower_gets_what_is_committed_later(store: Store, path: Path, field: str) -> None:
    async with (
        serving(store, path) as client,
        client.get(f"/v1/events?follow=1&limit=2&field={quote(field, safe='')}") as response,
    ):
        seen = [msgspec.json.decode(await response.content.readline()) for _ in range(2)]
        for number in range(20):
            await store.put_fields([(FieldView(WAITS, f"S{number}"), ""), (FieldView(ARCHIVED, f"S{number}"), "")])
        expected = 20 if field else 40
        later = [msgspec.json.decode(await response.content.readline()) for _ in range(expected)]
    numbers = [event["id"] for event in seen + later]
    assert numbers == sorted(set(numbers))
    assert {event["field"] for event in later} == ({field} if field else {WAITS, ARCHIVED})


async def test_a_silent_follower_gets_heartbeats(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followers, "HEARTBEAT_S", 0.05)
    async with serving(store, path) as client, client.get(f"/v1/events?follow=1&since={2**40}") as response:
        assert [await response.content.readline() for _ in range(3)] == [b"\n"] * 3


async def test_a_follower_is_told_the_end_when_the_daemon_stops(store: Store, path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = Control(store, healthy, store.clock, "1")
        connector = aiohttp.UnixConnector(str(path))
        client = await stack.enter_async_context(aiohttp.ClientSession("http://aglowd", connector=connector))
        async with server.serve(path):
            response = await client.get("/v1/events?follow=1&limit=1")
            await response.content.readline()
        assert await response.content.read() == b""
    assert not path.exists()


async def test_a_follower_that_never_reads_does_not_hold_up_the_stop(store: Store, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        async with asyncio.timeout(30.0):
            async with serving(store, path):
                deaf.setblocking(False)
                await asyncio.get_running_loop().sock_connect(deaf, str(path))
                await asyncio.get_running_loop().sock_sendall(
                    deaf, b"GET /v1/events?follow=1&since=0 HTTP/1.1\r\nHost: x\r\n\r\n"
                )
                for number in range(30):
                    await store.put_fields(
                        [(FieldView(f"F{field}", f"{number}" * 500), "") for field in range(20)],
                    )


async def test_followers_are_counted(store: Store, path: Path) -> None:
    async with serving(store, path) as client, AsyncExitStack() as stack:
        for _ in range(followers.MAX_FOLLOWERS):
            response = await stack.enter_async_context(client.get("/v1/events?follow=1&limit=1"))
            await response.content.readline()
        # The place is taken after the first lines are sent: one more event tells that all of them follow.
        await store.put_fields([(FieldView(OFFERED, "NEW"), "")])
        await response.content.readline()
        status, answer = await get(client, "/v1/events?follow=1")
        assert (status, answer["error"]["code"]) == (503, "too-many-followers")
        assert (await get(client, "/v1/fields"))[0] == 200


# --- the socket


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_the_group_may_connect_whatever_the_umask(store: Store, path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        async with serving(store, path):
            assert path.stat().st_mode & 0o777 == 0o660
    finally:
        os.umask(before)


async def test_a_dead_socket_is_replaced(store: Store, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(store, path) as client:
        assert (await get(client, "/live"))[0] == 200


async def test_a_live_socket_is_refused_and_kept(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        with pytest.raises(AglowError, match="another aglowd answers"):
            async with Control(store, healthy, store.clock, "2").serve(path):
                pass
        assert (await get(client, "/live"))[0] == 200


async def test_a_live_socket_with_a_full_queue_is_refused(store: Store, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
        busy.bind(str(path))
        busy.listen(0)
        waiting.connect(str(path))
        with pytest.raises(AglowError, match="another aglowd answers"):
            async with Control(store, healthy, store.clock, "2").serve(path):
                pass


async def test_a_file_in_the_way_is_refused_and_kept(store: Store, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(AglowError, match="is no socket"):
        async with Control(store, healthy, store.clock, "1").serve(path):
            pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["missing/aglowd.sock", "x" * 200])
async def test_a_path_that_cannot_be_is_named(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(AglowError, match="cannot be opened"):
        async with Control(store, healthy, store.clock, "1").serve(tmp_path / name):
            pass


async def test_the_errors_of_the_daemon_pass_through_as_they_are(store: Store, path: Path) -> None:
    with pytest.raises(AglowError, match="of its own"):
        async with serving(store, path):
            raise AglowError("of its own")
    assert not path.exists()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/fields HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x01 nonsense\r\n\r\n",
    ],
)
async def test_a_request_that_is_too_long_or_none_is_refused(store: Store, path: Path, request_bytes: bytes) -> None:
    async with serving(store, path) as client:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(request_bytes)
        answer = await reader.read(65_536)
        writer.close()
        assert b" 400 " in answer.splitlines()[0]
        assert b"Traceback" not in answer
        assert (await get(client, "/live"))[0] == 200


# --- what cannot be told


async def said_of(path: Path, store: Store, body: bytes) -> tuple[int, Any, list[tuple[Verdict, int]]]:
    """The answer to a verdict, and what reached the engine."""
    heard: list[tuple[Verdict, int]] = []

    async def settle(verdict: Verdict, uid: int) -> str:
        heard.append((verdict, uid))
        if verdict.ref == "wrong":
            raise AglowError("a staging request is named by its number")
        return "done, as 12"

    server = Control(store, healthy, store.clock, "1.2.3", settle)
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession("http://aglowd", connector=connector) as client,
        server.serve(path),
        client.post("/v1/doubt", data=body) as response,
    ):
        return response.status, msgspec.json.decode(await response.read()), heard


async def test_doubts_are_listed_with_their_evidence(store: Store, path: Path) -> None:
    async with serving(store, path) as client:
        status, answer = await get(client, "/v1/doubt")
    assert status == 200
    (doubt,) = answer["doubts"]
    assert doubt["key"].endswith("/create_tokens/0")
    assert (doubt["state"], doubt["field"], doubt["reason"]) == ("doubt", WAITS, "two documents answer to the key")
    assert answer["findings"] == []


async def test_a_verdict_reaches_the_engine_with_the_uid_of_who_said_it(store: Store, path: Path) -> None:
    body = b'{"key": "r/s/1/k/0", "action": "adopt", "ref": "12", "reason": "seen there"}'
    status, answer, heard = await said_of(path, store, body)
    assert (status, answer["said"]) == (200, "done, as 12")
    assert heard == [(Verdict("r/s/1/k/0", "adopt", "seen there", "12"), os.getuid())]


async def test_a_verdict_that_makes_no_sense_is_refused_with_why(store: Store, path: Path) -> None:
    body = b'{"key": "r/s/1/k/0", "action": "adopt", "ref": "wrong", "reason": "seen there"}'
    status, answer, _ = await said_of(path, store, body)
    assert (status, answer["error"]["code"]) == (409, "refused")
    assert answer["error"]["message"] == "a staging request is named by its number"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "truncated"),
        (b"[]", "object"),
        (b'{"key": "k", "action": "adopt"}', "reason"),
        (b'{"key": "k", "action": "adopt", "reason": ""}', "reason"),
        (b'{"key": "k", "action": "shrug", "reason": "r"}', "action"),
        (b'{"key": "k", "action": "retry", "reason": "r", "force": true}', "force"),
        (b'{"key": "\xff", "action": "retry", "reason": "r"}', "expected key, action"),
        (b"[" * 30_000, "expected key, action"),
    ],
)
async def test_a_body_that_is_no_verdict_is_refused_and_heard_by_nobody(
    store: Store, path: Path, body: bytes, named: str
) -> None:
    status, answer, heard = await said_of(path, store, body)
    assert (status, answer["error"]["code"], heard) == (400, "bad-body", [])
    assert named in answer["error"]["message"]


# --- a reload


async def test_a_reload_that_cannot_be_read_is_refused_with_why(store: Store, path: Path) -> None:
    async def reload(uid: int | None, reason: str, dry_run: bool) -> dict[str, Any]:
        raise AglowError("the configuration cannot be read: Permission denied")

    server = Control(store, healthy, store.clock, "1.2.3", reload=reload)
    connector = aiohttp.UnixConnector(str(path))
    async with (
        aiohttp.ClientSession("http://aglowd", connector=connector) as client,
        server.serve(path),
        client.post("/v1/reload", json={}) as response,
    ):
        answer = await response.json()
    assert response.status == 409
    assert answer["error"] == {"code": "refused", "message": "the configuration cannot be read: Permission denied"}


def test_who_may_only_look_can_ask_nothing_that_changes() -> None:
    asked_by_post = [route.path for route in ROUTES if route.method == "POST" and not route.changes]
    assert asked_by_post == ["/v1/fields", "/v1/locality"]
    assert not any(route.changes for route in ROUTES if route.method == "GET")
