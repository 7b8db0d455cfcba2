"""The simulated WebDAV door: what it lets in, what it tells, where it sends on, how it fails, what the ledger shows."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage
from aglowd.grid.webdav import WebDav
from aglowd.sim.faults import KINDS, Faults, Script
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.sim.history import History
from aglowd.sim.ledger import Ledger
from aglowd.sim.storage import Storage as Tree
from aglowd.sim.tape import Pin, Tape
from aglowd.sim.webdav import WebDav as Door
from aglowd.sim.webdav import pool_app, webdav_app
from aglowd.sim.world import World, WorldClock

from .conftest import surls

TOKEN = "everything"
SURL = surls(1)[0]
TAPE_PATH = SURL.partition(":8443")[2]


class There:
    """A door and its pool on loopback, and clients of it: a plain one and the daemon's."""

    def __init__(self, door: Door, tape: Tape, tree: Tree, url: str, pool: str, ledger: Path, http: Http) -> None:
        self.door, self.tape, self.tree, self.url, self.pool, self.ledger = door, tape, tree, url, pool, ledger
        self._http = http

    def storage(self, token: str = TOKEN) -> Storage:
        site = Site("door", Clock())
        return Storage(Processes(env={}), site, WebDav(self._http, site, {"127.0.0.1": Credential("us", token=token)}))

    async def ask(self, method: str, path: str, token: str = TOKEN, body: bytes = b"", **headers: str) -> Any:
        """Status, headers and body of one request."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=body, headers=sent, allow_redirects=False) as answer,
        ):
            return answer.status, answer.headers, await answer.read()

    async def macaroon(self, path: str, *caveats: str, validity: str = "PT1H", token: str = TOKEN) -> str:
        body = json.dumps({"caveats": caveats, "validity": validity}).encode()
        kind = "application/macaroon-request"
        status, _, said = await self.ask("POST", path, token, body, Content_Type=kind)
        assert status == 200
        found: str = json.loads(said)["macaroon"]
        return found


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[There]:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    world = World(1, WorldClock(1.0, time.time()), ledger)
    tree, tape = Tree(tmp_path / "storage"), Tape(world, [SURL])
    door = Door(world, tree, tape, TOKEN)
    runners, urls, http = [], [], Http(Clock(), timeout_s=10.0)
    for app in (webdav_app(door), pool_app(door)):
        # Who was sent on never sends the body: nobody waits for it.
        runner = web.AppRunner(app, shutdown_timeout=0.1, lingering_time=0.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        runners.append(runner)
        urls.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield There(door, tape, tree, urls[0], urls[1], tmp_path / "ledger.jsonl", http)
    await http.close()
    for runner in runners:
        await runner.cleanup()
    ledger.close()


async def test_what_is_told_of_a_file(there: There) -> None:
    """Under 200 what it has, under 404 what it lacks; a digest only for who wants one; parts of it."""
    there.tree.write(f"{there.url}/d/x", b"hello")
    status, _, body = await there.ask("PROPFIND", "/d", Depth="1")
    has, _, lacks = body.decode().partition("404 Not Found")
    assert status == 207
    assert "<ns1:Checksums/>" in has
    assert "adler32=062c0215" in lacks
    assert "FileLocality>ONLINE<" in lacks
    assert (await there.ask("PROPFIND", "/d"))[0] == 403
    _, plain, _ = await there.ask("HEAD", "/d/x")
    _, wanted, _ = await there.ask("HEAD", "/d/x", Want_Digest="adler32")
    assert "Digest" not in plain
    assert (wanted["Digest"], wanted["ETag"], wanted["Content-Length"]) == ("adler32=062c0215", plain["ETag"], "5")
    status, headers, part = await there.ask("GET", "/d/x", Range="bytes=1-2")
    assert (status, headers["Content-Range"], part) == (206, "bytes 1-2/5", b"el")
    there.door.checksums = there.door.digests = False
    assert "Digest" not in (await there.ask("HEAD", "/d/x", Want_Digest="adler32"))[1]
    assert b"adler32" not in (await there.ask("PROPFIND", "/d/x", Depth="0"))[2]
    assert await there.storage().checksum(f"{there.url}/d/x") == 0x062C0215


async def test_a_file_on_tape_is_there_and_forbidden(there: There, tmp_path: Path) -> None:
    storage, url = there.storage(), f"{there.url}{TAPE_PATH}"
    assert await storage.stat(url)
    assert b"FileLocality>NEARLINE<" in (await there.ask("PROPFIND", TAPE_PATH, Depth="0"))[2]
    with pytest.raises(Temporary, match="403"):
        await storage.copy(url, (tmp_path / "x").as_uri())
    file = there.tape.find_file(SURL)
    assert file
    file.pins[1] = Pin(0.0, 1e12)
    await storage.copy(url, (tmp_path / "x").as_uri())
    assert (tmp_path / "x").read_bytes()


async def test_a_macaroon_holds_for_its_paths_activities_and_time(there: There) -> None:
    there.tree.write(f"{there.url}/a/x", b"a")
    there.tree.write(f"{there.url}/b/x", b"b")
    read = await there.macaroon("/a", "activity:LIST,DOWNLOAD")
    assert (await there.ask("GET", "/a/x", read))[0] == 200
    assert (await there.ask("PROPFIND", "/a/x", read, Depth="0"))[0] == 207
    assert (await there.ask("GET", "/b/x", read))[0] == 403
    assert (await there.ask("GET", "/a/../b/x", read))[0] == 403
    assert (await there.ask("PUT", "/a/y", read))[0] == 403
    move = await there.macaroon("/a", "activity:MANAGE")
    assert (await there.ask("MOVE", "/a/x", move, Destination=f"{there.url}/b/y", Overwrite="F"))[0] == 403
    assert (await there.ask("GET", "/a/x", await there.macaroon("/a", validity="PT0S")))[0] == 401
    assert (await there.ask("GET", "/a/x", read[:-3]))[0] == 401
    assert (await there.ask("GET", "/a/x", ""))[0] == 401
    wide = await there.macaroon("/a", "activity:DOWNLOAD,UPLOAD", token=read)
    assert (await there.ask("PUT", "/a/y", wide))[0] == 403
    assert (await there.ask("POST", "/a", body=b"{", Content_Type="application/macaroon-request"))[0] == 400
    assert (await there.ask("POST", "/a", body=b"{}"))[0] == 405


async def test_three_refusals_shut_a_client_out(there: There) -> None:
    there.door.blocks = True
    assert [(await there.ask("GET", "/x", "wrong"))[0] for _ in range(4)] == [401, 401, 401, 429]
    assert (await there.ask("GET", "/x"))[0] == 429


async def test_a_pool_serves_what_its_door_sent_on(there: There, tmp_path: Path) -> None:
    """Once each, and the body comes whole; a client that does not wait for 100 Continue is not sent on."""
    there.door.pool = there.pool.replace("127.0.0.1", "localhost")
    storage, url, data = there.storage(), f"{there.url}/d/x", bytes(300_000)
    await storage.make_directory(f"{there.url}/d")
    await storage.upload(data, url)
    await storage.copy(url, (tmp_path / "x").as_uri())
    assert (tmp_path / "x").read_bytes() == data
    status, headers, _ = await there.ask("GET", "/d/x")
    assert status == 302
    async with aiohttp.ClientSession() as session:
        for expected in (200, 400):
            async with session.get(headers["Location"]) as answer:
                assert answer.status == expected
    assert (await there.ask("PUT", "/d/y", body=b"x"))[0] == 201
    there.door._world.ledger.flush()
    assert [line["method"] for line in History.read(there.ledger).of("webdav", "sent_on")] == ["PUT", "GET", "GET"]


async def test_a_door_that_heeds_no_condition_overwrites_nothing_of_ours(there: There) -> None:
    there.door.mindful = False
    there.tree.write(f"{there.url}/d/x", b"dear")
    there.tree.write(f"{there.url}/d/y", b"other")
    assert (await there.ask("PUT", "/d/y", body=b"new", If_None_Match="*"))[0] == 201
    storage, url = there.storage(), f"{there.url}/d/x"
    for verb in (
        storage.upload(b"x", url),
        storage.copy(f"{there.url}/d/y", url),
        storage.rename(f"{there.url}/d/y", url),
    ):
        with pytest.raises(Permanent, match="exists"):
            await verb
    there.door.copies = False
    await storage.copy(url, f"{there.url}/d/z")
    assert await storage.checksum(f"{there.url}/d/z") == await storage.checksum(url)


async def test_the_ledger_shows_writes_as_those_of_the_tools(there: There) -> None:
    storage, base = there.storage(), f"{there.url}/d"
    await storage.make_directory(base)
    await storage.upload(b"x", f"{base}/a.part-1")
    await storage.rename(f"{base}/a.part-1", f"{base}/a")
    await storage.copy(f"{base}/a", f"{base}/b")
    await storage.remove(f"{base}/a")
    with pytest.raises(Permanent):
        await storage.rename(f"{base}/gone", f"{base}/c")
    there.door._world.ledger.flush()
    history = History.read(there.ledger)
    assert [(one.op, one.src, one.dst) for one in history.transfers] == [
        ("copy", "", f"{base}/a.part-1"), ("rename", f"{base}/a.part-1", f"{base}/a"), ("copy", f"{base}/a", f"{base}/b"),
    ]  # fmt: skip
    assert [line["result"] for line in history.of("storage", "mkdir", "rm", "rename")] == [0, 0, 0, 404]


# --- faults

WRITES: dict[str, tuple[type[OutsideError] | None, bool]] = {
    "refuse": (Unknown, False),
    "hang": (Unknown, False),
    "reset_before": (Unknown, False),
    "reset_after": (Unknown, True),
    "lost_reply": (Unknown, True),
    "error_before": (Unknown, False),
    "error_after": (Unknown, True),
    "busy": (Unknown, False),
    "too_many": (Temporary, False),
    "html": (Unknown, False),
    "truncated": (Unknown, True),
    "malformed": (None, True),
    "slow": (Unknown, True),
    "huge": (Unknown, True),
    "disk_full": (Temporary, False),
    "half_file": (Unknown, False),
}
"""Fault → what an upload raises, if anything, and whether the file came to be whole."""


@pytest.mark.parametrize("fault", sorted(WRITES))
async def test_faults_of_an_upload(tmp_path: Path, fault: str) -> None:
    raised, whole = WRITES[fault]
    (tmp_path / "srm").mkdir()
    settings = Settings(
        directory=tmp_path / "world", srm_dir=tmp_path / "srm", seed=1, speed=1.0, origin=time.time(), failure_rate=0.0
    )
    plan: list[Faults] = []
    http = Http(Clock(), longest_s=3.0)
    async with simulated_grid(settings, plan) as ready:
        site = Site("door", Clock())
        credential = Credential("door", token=ready["credentials"]["webdav_token"])
        storage = Storage(Processes(env={}), site, WebDav(http, site, {"127.0.0.1": credential}))
        url = f"{ready['webdav_url']}/d/x"
        await storage.make_directory(f"{ready['webdav_url']}/d")
        plan[0].add(Script(system="webdav", fault=fault, op="put", value=90 if fault == "huge" else None))
        if raised is None:
            await storage.upload(b"hello" * 1000, url)
        else:
            with pytest.raises(OutsideError) as caught:
                await storage.upload(b"hello" * 1000, url)
            assert type(caught.value) is raised, caught.value
        await asyncio.sleep(0)
        path = Path(ready["storage"]) / "127.0.0.1" / "d" / "x"
        assert (path.exists() and path.stat().st_size == 5000) is whole
        assert path.exists() is (whole or fault in ("disk_full", "half_file"))
    await http.close()


def test_every_fault_of_the_door_is_shown_here() -> None:
    assert set(KINDS["webdav"]) == WRITES.keys()
