"""The simulated storage events over real HTTP: channels and their limits, what the world tells, and every way to fail."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aglowd.sim import dcachechannels, dcacheevents, tape
from aglowd.sim.dcachechannels import CHANNELS_PER_USER, Channel, Reader
from aglowd.sim.dcacheevents import CLIENT_ID_CHARS, STREAM_FAULTS, replay
from aglowd.sim.faults import ANY, KINDS, Faults, Script
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.sim.tape import surl_path

from .conftest import SmallGrid, eventually, surls

DIRECTORY = surl_path(surls()[0]).rpartition("/")[0]
US = {"Authorization": "Bearer us"}
SSE = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class There:
    """A world, and a client of its events."""

    grid: SmallGrid
    plan: Faults

    @property
    def base(self) -> str:
        return f"{self.grid.ready['dcache_url']}/events/channels"

    async def ask(self, method: str, url: str, body: Any = None, **headers: str) -> tuple[int, Any, str]:
        """Status, body and Location."""
        sent = US | headers
        async with self.grid.http.request(method, url, json=body, headers=sent, allow_redirects=False) as response:
            text = await response.text()
            is_json = text.startswith(("{", "["))
            return response.status, json.loads(text) if is_json else text, response.headers.get("Location", "")

    async def channel(self, client_id: str = "c") -> str:
        status, _, where = await self.ask("POST", self.base, {"client-id": client_id})
        assert status == 201
        return where

    async def follow(self, channel: str, path: str = DIRECTORY, *flags: str) -> tuple[int, Any, str]:
        body = {"path": path, "flags": list(flags or ("IN_ATTRIB", "IN_CREATE", "IN_CLOSE_WRITE", "IN_ONLYDIR"))}
        return await self.ask("POST", f"{channel}/subscriptions/inotify", body)

    def add(self, fault: str, op: str = "*", **more: Any) -> None:
        self.plan.add(Script(system="events", fault=fault, op=op, **more))


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[There]:
    async with world(tmp_path) as found:
        yield found


@asynccontextmanager
async def world(tmp_path: Path, speed: float = 100.0) -> AsyncIterator[There]:
    lists = tmp_path / "srm"
    lists.mkdir()
    (lists / "srm229509.txt").write_text("".join(f"{surl}\n" for surl in surls()))
    plan: list[Faults] = []
    settings = Settings(
        directory=tmp_path / "world", srm_dir=lists, seed=1, speed=speed, origin=time.time(), failure_rate=0.0
    )
    async with simulated_grid(settings, plan) as ready, aiohttp.ClientSession() as http:
        yield There(SmallGrid(ready, http, tmp_path), plan[0])


class Stream:
    """What a reader of a channel is told: pairs of an event's id and its data."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self._response = response

    async def next(self) -> tuple[str, dict[str, Any]] | None:
        """None at its end."""
        found: dict[str, str] = {}
        async with asyncio.timeout(10):
            async for line in self._response.content:
                name, _, value = line.decode().strip().partition(": ")
                if not name:
                    return found.get("id", ""), json.loads(found["data"])
                found[name] = value
        return None

    async def names(self, count: int) -> list[tuple[str, str]]:
        """Of the next events in a directory: the file and what happened."""
        told = []
        while len(told) < count:
            event = await self.next()
            assert event is not None
            if "event" in event[1] and isinstance(event[1]["event"], dict):
                told.append((event[1]["event"]["name"], *event[1]["event"]["mask"]))
        return told

    async def to_its_end(self) -> None:
        """Read until it ends; TimeoutError when it says nothing for longer than between two ticks."""
        while True:
            async with asyncio.timeout(0.6):
                if await self.next() is None:
                    return

    async def says(self) -> str:
        """The type of the next SYSTEM event."""
        event = await self.next()
        return "" if event is None else str(event[1]["type"])


@asynccontextmanager
async def reading(there: There, channel: str, **headers: str) -> AsyncIterator[Stream]:
    async with there.grid.http.get(channel, headers=US | SSE | headers) as response:
        yield Stream(response)


# --- channels


async def test_a_channel_is_made_listed_changed_and_dropped(there: There) -> None:
    one, two = await there.channel("one"), await there.channel("two")
    assert (await there.ask("GET", there.base))[1] == [one, two]
    assert (await there.ask("GET", f"{there.base}?client-id=two"))[1] == [two]
    assert (await there.ask("GET", there.base, Authorization="Bearer they"))[1] == []
    assert (await there.ask("GET", one, Authorization="Bearer they"))[0] == 404
    assert (await there.ask("GET", one))[1] == {"timeout": 300}
    for timeout, status in ((3600, 204), (0, 400), (86_401, 400), ("x", 400)):
        assert (await there.ask("PATCH", one, {"timeout": timeout}))[0] == status
    assert (await there.ask("GET", one))[1] == {"timeout": 3600}
    assert (await there.ask("DELETE", one))[0] == 204
    assert (await there.ask("GET", one))[0] == 404


async def test_a_user_has_so_many_channels_with_names_of_such_a_length(tmp_path: Path) -> None:
    async with world(tmp_path, speed=1.0) as there:
        assert (await there.ask("POST", there.base, {"client-id": "x" * (CLIENT_ID_CHARS + 1)}))[0] == 400
        assert (await there.ask("POST", there.base, [1]))[0] == 400
        await there.channel("x" * CLIENT_ID_CHARS)
        made = [(await there.ask("POST", there.base, {}))[0] for _ in range(CHANNELS_PER_USER)]
        assert made == [201] * (CHANNELS_PER_USER - 1) + [429]
        assert (await there.ask("POST", there.base, {}, Authorization="Bearer they"))[0] == 201


async def test_a_channel_that_nobody_reads_dies(there: There) -> None:
    read, forgotten = await there.channel("read"), await there.channel("forgotten")
    await there.ask("PATCH", forgotten, {"timeout": 1})
    await there.ask("PATCH", read, {"timeout": 20})
    async with reading(there, read):

        async def is_gone() -> bool:
            return (await there.ask("GET", forgotten))[0] == 404

        await eventually(is_gone)
        await asyncio.sleep(0.25)  # More than the other's timeout.
        assert (await there.ask("GET", read))[0] == 200


async def test_what_can_be_subscribed(there: There) -> None:
    channel = await there.channel()
    await there.ask("PATCH", channel, {"timeout": 86_400})
    status, _, where = await there.follow(channel)
    assert status == 201
    assert (await there.follow(channel, DIRECTORY, "IN_ALL_EVENTS"))[::2] == (303, where)
    for path, flags in ((DIRECTORY + "/", ()), ("x", ()), ("/none", ()), (DIRECTORY, ("IN_MOVE_FROM",)), (DIRECTORY, ("IN_ATTRIB,IN_CREATE",))):  # fmt: skip
        assert (await there.follow(channel, path, *flags))[0] == 400
    assert (await there.ask("POST", f"{channel}/subscriptions/inotify", {"path": DIRECTORY, "flags": "IN_ATTRIB"}))[
        0
    ] == 400
    assert (await there.ask("POST", f"{channel}/subscriptions/metronome", {"delay": 0}))[0] == 400
    assert (await there.ask("GET", f"{channel}/subscriptions"))[1] == [where]
    assert (await there.ask("DELETE", where))[0] == 204
    assert (await there.ask("DELETE", where))[0] == 404


# --- streams


async def test_a_recall_is_told_when_it_ends_and_noise_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tape, "RECALL_S", (60.0, 300.0))
    async with world(tmp_path, speed=2000.0) as there:
        channel = await there.channel()
        await there.ask("PATCH", channel, {"timeout": 86_400})
        async with reading(there, channel) as stream:
            await there.follow(channel)
            assert await stream.says() == "NEW_SUBSCRIPTION"
            await there.grid.lta("add_getid", surls())
            told = await stream.names(len(surls()))
            while len({name for name, _ in told}) < len(surls()):
                told += await stream.names(1)
            assert {mask for _, mask in told} == {"IN_ATTRIB"}
            assert len(told) > len(surls()), "several times a file, and for nothing"

        async def all_online() -> bool:
            paths = {"paths": [surl_path(surl) for surl in surls()]}
            answer = await there.ask("POST", f"{there.grid.ready['dcache_url']}/tape/archiveinfo", paths)
            return {row["locality"] for row in answer[1]} == {"DISK_AND_TAPE"}

        await eventually(all_online)


async def test_a_file_that_is_written_is_told(there: There) -> None:
    channel = await there.channel()
    url = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/results"
    source = there.grid.directory / "f"
    source.write_text("x")
    assert (await there.grid.run("gfal-mkdir", "-p", url)).rc == 0
    async with reading(there, channel) as stream:
        assert (await there.follow(channel, "/pnfs/results", "IN_ALL_EVENTS"))[0] == 201
        await there.grid.run("gfal-copy", source.as_uri(), f"{url}/f")
        await there.grid.run("gfal-rename", f"{url}/f", f"{url}/g")
        await there.grid.run("gfal-rm", f"{url}/g")
        assert await stream.names(4) == [
            ("f", "IN_CREATE"), ("f", "IN_CLOSE_WRITE"), ("g", "IN_MOVED_TO"), ("g", "IN_DELETE")
        ]  # fmt: skip


async def test_only_a_metronome_shows_that_a_stream_lives(there: There) -> None:
    channel = await there.channel()
    async with reading(there, channel) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await stream.next()
    async with reading(there, channel) as stream:
        await there.ask("POST", f"{channel}/subscriptions/metronome", {"delay": 3, "count": 2})
        assert await stream.says() == "NEW_SUBSCRIPTION"
        for number in range(2):
            event = await stream.next()
            assert event is not None
            assert (event[0], event[1]["event"]) == (str(number), "tick")
            assert event[1]["subscription"].startswith(f"{channel}/subscriptions/metronome/")
        assert await stream.says() == "SUBSCRIPTION_CLOSED"


async def test_a_second_reader_takes_the_stream_over(there: There) -> None:
    channel = await there.channel()
    async with reading(there, channel) as first, reading(there, channel) as second:
        assert await first.says() == "COMPETING_CLIENT"
        assert await first.next() is None
        await there.follow(channel)
        assert await second.says() == "NEW_SUBSCRIPTION"


def test_what_was_missed_is_told_to_who_says_where_he_was() -> None:
    channel = Channel("c", "us", "c", 0.0)
    for number in range(5):
        channel.tell("inotify", {"n": number})

    def told(since: str | None, *, lost: bool = False) -> list[bytes]:
        reader = Reader()
        replay(channel, reader, since, lost=lost)
        return [text.partition(b"data: ")[2].strip() for text in reader.waiting]

    loss = [b'{"type":"EVENT_LOSS"}']
    assert told(None) == [], "nothing is told again without a word"
    assert told("2") == [b'{"n":3}', b'{"n":4}']
    assert told("4") == []
    assert told("5") == told("-1") == told("x") == told("2", lost=True) == loss
    for number in range(dcachechannels.RING_EVENTS):
        channel.tell("inotify", {"n": number})
    assert told("3") == loss
    assert len(told("4")) == dcachechannels.RING_EVENTS


# --- faults


async def test_channels_are_lost_when_the_frontend_starts_anew(there: There) -> None:
    channel = await there.channel()
    async with reading(there, channel) as stream:
        there.add("channel_lost", "channels")
        assert (await there.ask("GET", there.base))[1] == []
        assert await stream.says() == "SHUTDOWN"
        assert await stream.next() is None
    assert (await there.ask("GET", channel, Accept="text/event-stream"))[0] == 404


@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_a_stream_that_is_struck(there: There, fault: str) -> None:
    channel = await there.channel()
    await there.follow(channel)
    await there.ask("POST", f"{channel}/subscriptions/metronome", {"delay": 10})
    there.add(fault, "stream", value=35.0)
    async with reading(there, channel) as stream:
        if fault == "event_loss":
            assert await stream.says() == "EVENT_LOSS"
            assert await stream.next() is not None, "and it goes on"
            return
        tick = await stream.next()
        assert tick is not None
        assert tick[1]["event"] == "tick"
        if fault == "competing":
            while (end := await stream.next()) and "type" not in end[1]:
                pass
            assert end == ("", {"type": "COMPETING_CLIENT"})
            assert await stream.next() is None
        elif fault == "stream_cut":
            with pytest.raises(aiohttp.ClientError):
                await stream.to_its_end()
        else:
            with pytest.raises(TimeoutError):
                await stream.to_its_end()
    assert (await there.ask("GET", channel))[0] == 200


async def test_what_strikes_events_strikes_nothing_else(there: There) -> None:
    there.add("error_before", count=100)
    there.plan.add(Script(system="dcache", fault="error_before", op="channels", count=100))
    assert (await there.ask("GET", there.base))[0] == 500
    url = f"{there.grid.ready['dcache_url']}/tape/archiveinfo"
    assert (await there.ask("POST", url, {"paths": [DIRECTORY]}))[0] == 200


def test_every_kind_of_fault_of_events_is_shown_here() -> None:
    assert set(KINDS["events"]) == set(KINDS["webdav"]) - {"disk_full", "half_file"} | {"channel_lost", *STREAM_FAULTS}
    assert {kind for kind, ops in KINDS["events"].items() if ops != ANY} == set(STREAM_FAULTS)
    assert dcacheevents.PREFIX == "/api/v1/events"
