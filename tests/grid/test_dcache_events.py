"""dCache's events: what a stream says is a hint or a tick, and every way in which one ends is told apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.dcache_events import (
    CHANNEL_TIMEOUT_S,
    FLAGS,
    MAX_CLIENT_ID_CHARS,
    MAX_EVENT_BYTES,
    MAX_ID_CHARS,
    MAX_LEFTOVERS,
    ChannelLost,
    DcacheEvents,
    Event,
    Hint,
    NotFollowed,
    Overtaken,
    Tick,
    _said,
    directory_of,
    read_events,
)
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http

from .conftest import Serve

BASE = "/api/v1/events/channels"
DIRECTORY = "/pnfs/grid.sara.nl/data"
FOLLOWED = {"s1": DIRECTORY}
SILENT_S = 5.0


class Frontend:
    """A real server: `METHOD /path` → status, headers and body; a stream is the bytes that it says, then its end."""

    def __init__(self, http: Http, site: Site, credential: Credential | None, serve: Serve) -> None:
        self._serve = serve
        self._make = lambda url: DcacheEvents(http, site, credential, url + "/api/v1/", "us")
        self.site = site
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[Any] = []
        self.url = ""

    async def with_answers(self, answers: dict[str, Any], *, goes_on: bool = False) -> DcacheEvents:
        async def handler(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            self.asked.append((f"{request.method} {request.raw_path}", json.loads(raw) if raw else None))
            self.headers.append(request.headers)
            answer = answers[f"{request.method} {request.path}"]
            if isinstance(answer, bytes):
                response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
                await response.prepare(request)
                await response.write(answer)
                if goes_on:
                    await asyncio.Event().wait()
                return response
            status, headers, body = answer
            return web.Response(status=status, headers=headers, text=body)

        self.url = await self._serve(handler)
        return self._make(self.url)


@pytest.fixture
def frontend(http: Http, site: Site, serve: Serve) -> Frontend:
    return Frontend(http, site, Credential("dcache", token="s3cret"), serve)


def opening(**changed: Any) -> dict[str, Any]:
    """The answers to a client that opens a channel."""
    return {
        f"GET {BASE}": (200, {}, "[]"),
        f"POST {BASE}": (201, {"Location": f"https://inner:3880{BASE}/c1"}, ""),
        f"PATCH {BASE}/c1": (204, {}, ""),
        f"POST {BASE}/c1/subscriptions/metronome": (201, {"Location": f"{BASE}/c1/subscriptions/metronome/m"}, ""),
    } | changed


async def test_a_channel_is_opened_and_what_was_left_is_closed(frontend: Frontend) -> None:
    left = json.dumps([f"http://elsewhere{BASE}/old", 7, "", "x/.."])
    there = await frontend.with_answers(
        opening(**{f"GET {BASE}": (200, {}, left), f"DELETE {BASE}/old": (404, {}, "")})
    )
    channel = await there.open("us", tick_s=30)
    assert channel == f"{frontend.url}{BASE}/c1", "our credential goes where it was meant for, whatever Location says"
    assert frontend.asked == [
        (f"GET {BASE}?client-id=us", None),
        (f"DELETE {BASE}/old", None),
        (f"POST {BASE}", {"client-id": "us"}),
        (f"PATCH {BASE}/c1", {"timeout": CHANNEL_TIMEOUT_S}),
        (f"POST {BASE}/c1/subscriptions/metronome", {"delay": 30}),
    ]
    assert {one["Authorization"] for one in frontend.headers} == {"Bearer s3cret"}


async def test_a_client_has_a_name_of_some_length_and_some_channels(frontend: Frontend) -> None:
    left = json.dumps([f"{BASE}/old"] * (MAX_LEFTOVERS + 1))
    answers = opening(**{f"GET {BASE}": (200, {}, left), f"DELETE {BASE}/old": (204, {}, "")})
    there = await frontend.with_answers(answers)
    await there.open("x" * MAX_CLIENT_ID_CHARS + "#7", tick_s=30)
    assert (f"POST {BASE}", {"client-id": "x" * (MAX_CLIENT_ID_CHARS - 2) + "#7"}) in frontend.asked
    assert sum(what.startswith("DELETE") for what, _ in frontend.asked) == MAX_LEFTOVERS


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ({f"POST {BASE}": (429, {}, "Too many channels")}, Temporary),
        ({f"POST {BASE}": (201, {}, "")}, Unknown),
        ({f"POST {BASE}": (201, {"Location": f"{BASE}/{'x' * (MAX_ID_CHARS + 1)}"}, "")}, Unknown),
        ({f"POST {BASE}": (201, {"Location": f"{BASE}/.."}, "")}, Unknown),
        ({f"POST {BASE}": (403, {}, "no")}, Permanent),
        ({f"PATCH {BASE}/c1": (404, {}, "no such channel")}, ChannelLost),
        ({f"GET {BASE}": (404, {}, "no events here")}, Permanent),
        ({f"GET {BASE}": (200, {}, "{}")}, Temporary),
        ({f"GET {BASE}": (200, {}, "<html>")}, Temporary),
    ],
    ids=["too many", "nowhere", "too long", "no name", "forbidden", "lost", "no events", "no list", "html"],
)
async def test_a_channel_that_is_not_to_be_had(
    frontend: Frontend, answers: dict[str, Any], error: type[OutsideError]
) -> None:
    there = await frontend.with_answers(opening(**answers))
    with pytest.raises(error) as caught:
        await there.open("us", tick_s=30)
    assert type(caught.value) is error
    assert frontend.site.health.backing_off_until is None, "too many channels are no reason to ask for nothing else"


@pytest.mark.parametrize("status", [201, 303])
async def test_a_directory_is_subscribed_or_merged(frontend: Frontend, status: int) -> None:
    where = f"{BASE}/c1/subscriptions/inotify"
    there = await frontend.with_answers({f"POST {where}": (status, {"Location": f"https://x{where}/s1/"}, "")})
    assert await there.subscribe(f"{frontend.url}{BASE}/c1", DIRECTORY) == "s1"
    assert frontend.asked == [(f"POST {where}", {"path": DIRECTORY, "flags": list(FLAGS)})]


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, NotFollowed), (404, ChannelLost), (403, Permanent), (429, Temporary), (500, Unknown), (201, Unknown)],
)
async def test_a_directory_that_is_not_subscribed(frontend: Frontend, status: int, error: type[OutsideError]) -> None:
    where = f"{BASE}/c1/subscriptions/inotify"
    there = await frontend.with_answers({f"POST {where}": (status, {}, "No such file, Bearer s3cret")})
    with pytest.raises(error) as caught:
        await there.subscribe(f"{frontend.url}{BASE}/c1", DIRECTORY)
    assert type(caught.value) is error
    assert "s3cret" not in str(caught.value)


async def test_a_subscription_or_a_channel_that_is_gone_is_ended(frontend: Frontend) -> None:
    one = f"{BASE}/c1/subscriptions/inotify/s1"
    there = await frontend.with_answers({f"DELETE {one}": (404, {}, ""), f"DELETE {BASE}/c1": (204, {}, "")})
    await there.unsubscribe(f"{frontend.url}{BASE}/c1", "s1")
    await there.close(f"{frontend.url}{BASE}/c1")
    assert [what for what, _ in frontend.asked] == [f"DELETE {one}", f"DELETE {BASE}/c1"]


# --- the stream


def event(kind: str, body: Any, number: int | None = None) -> bytes:
    head = f"event: {kind}\n" + ("" if number is None else f"id: {number}\n")
    return f"{head}data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()


def inotify(mask: Any, number: int = 1, subscription: str = "s1") -> bytes:
    where = f"https://inner{BASE}/c1/subscriptions/inotify/{subscription}"
    return event("inotify", {"event": {"name": "f.tar", "mask": mask}, "subscription": where}, number)


def system(type_: str, **more: str) -> bytes:
    return event("SYSTEM", {"type": type_, **more})


async def read(
    frontend: Frontend, text: bytes, last_id: str = "", *, goes_on: bool = False, silent_s: float = SILENT_S
) -> tuple[list[Hint | Tick], OutsideError]:
    """What the stream said, and how it ended."""
    there = await frontend.with_answers({f"GET {BASE}/c1": text}, goes_on=goes_on)
    found: list[Hint | Tick] = []
    try:
        stream = there.stream(f"{frontend.url}{BASE}/c1", FOLLOWED, last_id, silent_s=silent_s)
        async with aclosing(stream) as said:  # type: ignore[type-var] # an async generator
            async for one in said:
                found.append(one)  # noqa: PERF401 - what came before the error counts.
    except OutsideError as error:
        return found, error
    raise AssertionError("a stream has no good end")


async def test_what_happens_in_a_directory_is_a_hint(frontend: Frontend) -> None:
    text = inotify(["IN_ATTRIB"], 3) + inotify("IN_CREATE", 4) + inotify(["IN_CREATE", "IN_ISDIR"], 5)
    found, error = await read(frontend, text)
    assert found == [Tick(""), *(Hint(DIRECTORY, str(number)) for number in (3, 4, 5))]
    assert (type(error), "ended the stream" in str(error)) == (Temporary, True)
    (headers,) = frontend.headers
    assert (headers["Accept"], headers["Accept-Encoding"]) == ("text/event-stream", "identity")
    assert "Last-Event-ID" not in headers


async def test_a_stream_goes_on_behind_the_last_event(frontend: Frontend) -> None:
    found, _ = await read(frontend, event("metronome", {"event": "tick"}, 8), "7")
    assert found == [Tick("7"), Tick("8")]
    assert frontend.headers[0]["Last-Event-ID"] == "7"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (system("EVENT_LOSS"), [Hint(None)]),
        (inotify(["IN_Q_OVERFLOW"], 6), [Hint(None, "6")]),
        (inotify(["IN_UNMOUNT"], 6), [Hint(None, "6")]),
        (inotify(["IN_IGNORED"], 6), [Hint(DIRECTORY, "6", ended=True)]),
        (system("SUBSCRIPTION_CLOSED", subscription="http://x/inotify/s1"), [Hint(DIRECTORY, "", ended=True)]),
        (system("SUBSCRIPTION_CLOSED", subscription="http://x/inotify/other"), []),
        (system("NEW_SUBSCRIPTION", subscription="http://x/inotify/s1"), []),
        (system("SOMETHING_NEW"), []),
        (inotify(["IN_ATTRIB"], 6, "other"), []),
        (event("inotify", "{", 6), [Hint(None, "6")]),
        (event("inotify", "[]", 6), [Hint(None, "6")]),
        (event("SYSTEM", "\ufffd"), [Hint(None)]),
        (event("inotify", {"event": 4, "subscription": "/s1"}, 6), [Hint(DIRECTORY, "6")]),
        (event("inotify", {"event": {"mask": 5}, "subscription": "/s1"}, 6), [Hint(DIRECTORY, "6")]),
        (event("inotify", {"event": {"mask": [5, []]}, "subscription": "/s1"}, 6), [Hint(DIRECTORY, "6")]),
        (event("inotify", {"event": {"mask": []}, "subscription": ["s1"]}, 6), []),
        (event("weather", {"rain": True}, 6), []),
        (b"<!DOCTYPE html>\n\n<h1>Maintenance</h1>\n\n", []),
    ],
)  # fmt: skip
async def test_what_a_stream_can_say(frontend: Frontend, text: bytes, said: list[Hint]) -> None:
    found, error = await read(frontend, text)
    assert found == [Tick(""), *said]
    assert type(error) is Temporary


@pytest.mark.parametrize(
    ("text", "ends"),
    [(system("COMPETING_CLIENT"), Overtaken), (system("SHUTDOWN"), ChannelLost), ((404, {}, "gone"), ChannelLost),
     ((403, {}, "no"), Temporary), ((503, {}, "busy"), Temporary)],
)  # fmt: skip
async def test_how_a_stream_ends(frontend: Frontend, text: Any, ends: type[OutsideError]) -> None:
    _, error = await read(frontend, text, goes_on=True)
    assert type(error) is ends


async def test_a_stream_that_says_nothing_more_is_dead(frontend: Frontend) -> None:
    found, error = await read(frontend, inotify(["IN_ATTRIB"], 3), goes_on=True, silent_s=0.1)
    assert len(found) == 2
    assert "fell silent" in str(error)


async def test_an_event_is_so_large(frontend: Frontend) -> None:
    line = b"data: " + b"x" * 1000 + b"\n"
    fits, over = MAX_EVENT_BYTES // 1001, MAX_EVENT_BYTES // 1001 + 1
    found, error = await read(frontend, b"id: 1\nevent: inotify\n" + line * fits + b"\n")
    assert (found[1:], "ended" in str(error)) == ([Hint(None, "1")], True)
    found, error = await read(frontend, b"id: 1\nevent: inotify\n" + line * over + b"\n")
    assert (found[1:], str(error)) == ([], f"dCache events: an event is longer than {MAX_EVENT_BYTES} bytes")


# --- server-sent events


async def events_in(text: bytes) -> list[Event]:
    async def lines() -> AsyncIterator[bytes]:
        for line in text.split(b"\n")[:-1]:
            yield line.rstrip(b"\r")

    return [one async for one in read_events(lines())]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"event: a\ndata: 1\ndata:2\ndata:  3\n\n", [Event("A", b"1\n2\n 3", "")]),
        (b"\xef\xbb\xbfevent:a\r\ndata: 1\r\n\r\n", [Event("A", b"1", "")]),
        (b": a comment\ndata: 1\n:\nretry: 5\nnonsense\n\n", [Event("", b"1", "")]),
        (b"id: 7\ndata: 1\n\nevent: a\ndata: 2\n\n", [Event("", b"1", "7"), Event("A", b"2", "7")]),
        (b"event: a\nid: 7\n\ndata\n\n", [Event("", b"", "7")]),
        (b"id: 7\nid: a\x00b\nid: a b\nid: \xff\nid:" + b"9" * (MAX_ID_CHARS + 1) + b"\ndata: 1\n\n", [Event("", b"1", "7")]),
        (b"data: the end is missing\n", []),
        (b"\n\n\n", []),
    ],
)  # fmt: skip
async def test_the_format_of_a_stream(text: bytes, events: list[Event]) -> None:
    assert await events_in(text) == events


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["EVENT_LOSS", "s1", "IN_ATTRIB"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["event", "mask", "type", "subscription"]), inner),
    max_leaves=8,
)


@given(kind=st.sampled_from(["INOTIFY", "SYSTEM", "METRONOME", ""]), body=JSON | st.binary())
def test_no_event_is_a_defect(kind: str, body: Any) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        said = _said(Event(kind, data, "1"), FOLLOWED)
    except Temporary:
        return
    assert said is None or isinstance(said, Hint | Tick)


@pytest.mark.parametrize(
    ("url", "directory"),
    [
        ("srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data", "/pnfs/grid.sara.nl/data"),
        ("gsiftp://gridftp.grid.sara.nl:2811//pnfs//x/", "/pnfs/x"),
        ("/pnfs/x", "/pnfs/x"),
        ("file:///tmp/x", None),
        ("https://host", None),
        ("relative", None),
        ("http://[bad", None),
        ("", None),
    ],
)
def test_a_directory_as_dcache_names_it(url: str, directory: str | None) -> None:
    assert directory_of(url) == directory
