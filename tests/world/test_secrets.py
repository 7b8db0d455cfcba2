"""Planted credentials, and a world that repeats them in its errors: they are nowhere but where they belong."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from aglowd.cli.demo import Demo
from tests.world.small import FIELD, LIMIT_S, aglowctl, get, states, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

DCACHE_TOKEN = "MDAxY2xvY2F0aW9uIE9wdGlvbmFsLmVtcHR5"
PROXY_KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAx7pK3zvZ2fAnCy0w5rHQ\n"
EVERY = 4
"""Every so manieth request of a system is answered with an error that repeats the login, and so are the first few."""
FIRST = 3


class Echo:
    """Stands between the daemon and one of its systems, and now and then repeats what it was sent in an error."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.url = ""
        self.echoed = 0
        self._asked = 0

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{self.upstream.path}"
        async with server:
            yield

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self._asked += 1
            if (self._asked <= FIRST or self._asked % EVERY == 0) and b"_changes" not in head:
                self.echoed += 1
                await self._drain(head, reader)
                writer.write(self._error(head))
                await writer.drain()
                return
            there, back = await asyncio.open_connection(self.upstream.hostname, self.upstream.port)
            back.write(head[:-2] + b"Connection: close\r\n\r\n")  # One request a connection, so that each is counted.
            await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _drain(self, head: bytes, reader: asyncio.StreamReader) -> None:
        length = re.search(rb"(?i)content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)

    def _error(self, head: bytes) -> bytes:
        """By turns in plain words, as the header that it was, and as an answer of some other system."""
        found = re.search(rb"(?i)authorization: (\w+) (\S+)", head)
        assert found, "every request carries a credential"
        login = base64.b64decode(found[2]) if found[1] == b"Basic" else found[2]
        user, _, password = login.rpartition(b":")
        bodies = (
            b"cannot log in as " + user + b" with " + password + b" here",
            b"unexpected header: " + found[0],
            b'{"error":"unauthorized","reason":"' + password + b'","url":"http://' + login + b'@localhost/x"}',
        )
        body = bodies[self.echoed % len(bodies)]
        status = (b"500 Oops", b"502 Bad Gateway", b"503 Busy")[self.echoed % 3]
        return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


SUBMIT = """#!{python} -ISs
# Notes what the sandbox is like, says once what is in it, and is the real tool otherwise.
import json, os, sys
note = os.path.join({notes!r}, str(os.getpid()))
if os.path.exists("picas.json"):
    mode = lambda name: oct(os.stat(name).st_mode & 0o777)
    with open(note, "w") as file:
        seen = {{"picas": mode("picas.json"), "place": mode("."), "jdl": open("job.jdl").read(), "where": os.getcwd()}}
        json.dump(seen, file)
    once = os.path.join({notes!r}, "once")
    if not os.path.exists(once):
        open(once, "w").close()
        sys.exit("cannot read " + open("picas.json").read())
with open(note + ".process", "w") as file:
    json.dump({{"argv": sys.argv, "environment": dict(os.environ)}}, file)
os.execv({tool!r}, [{tool!r}, *sys.argv[1:]])
"""


class Watched(Demo):
    """A demo whose systems repeat logins, and whose submissions are looked at."""

    echoes: dict[str, Echo]
    notes: Path
    secrets: dict[str, str]

    def _write_config(self, ready: dict[str, Any]) -> None:
        ready = {**ready, **{f"{name}_url": echo.url for name, echo in self.echoes.items()}}
        self.notes = self.state / "notes"
        wrapped = self.state / "wrapped"
        self.notes.mkdir()
        wrapped.mkdir()
        tool = wrapped / "glite-wms-job-submit"
        real = Path(ready["bin"]) / tool.name
        tool.write_text(SUBMIT.format(python=sys.executable, notes=str(self.notes), tool=str(real)), encoding="utf-8")
        tool.chmod(0o755)
        ready["bin"] = f"{wrapped}{os.pathsep}{ready['bin']}"
        super()._write_config(ready)
        for name, text in (("dcache.token", DCACHE_TOKEN), ("proxy.pem", PROXY_KEY)):
            path = self.state / name
            path.touch(mode=0o600)
            path.write_text(text, encoding="utf-8")
        self.secrets = {"dcache": DCACHE_TOKEN, "proxy": PROXY_KEY.splitlines()[1]}
        self.secrets |= {name: ready["credentials"][f"{name}_token"] for name in ("stageit", "webdav")}
        for name in ("lta", "couch"):
            user, password = (ready["credentials"][f"{name}_{what}"] for what in ("user", "password"))
            self.secrets[name] = password
            self.secrets[f"{name} as it travels"] = base64.b64encode(f"{user}:{password}".encode()).decode()


def spellings(secret: str) -> Iterator[bytes]:
    yield secret.encode()
    yield quote(secret, safe="").encode()
    yield json.dumps(secret)[1:-1].encode()
    yield base64.b64encode(secret.encode()).rstrip(b"=")


def found_in(data: bytes, secrets: dict[str, str]) -> list[str]:
    return [name for name, secret in secrets.items() if any(spelling in data for spelling in spellings(secret))]


KEPT = ("lta.password", "couch.password", "dcache.token", "stageit.token", "webdav.token", "proxy.pem")
"""Where secrets belong."""


def leaks(demo: Watched) -> dict[str, list[str]]:
    """Every file of the state directory that holds a secret and should not; what the grid keeps for itself is its own."""
    found = {}
    for path in demo.state.rglob("*"):
        own = path.name in KEPT or (demo.state / "grid" / "jobs") in path.parents
        if path.is_file() and not own and (where := found_in(path.read_bytes(), demo.secrets)):
            found[str(path.relative_to(demo.state))] = where
    return found


async def test_planted_secrets_are_nowhere_but_where_they_belong(tmp_path_factory: pytest.TempPathFactory) -> None:
    short_path = tmp_path_factory.mktemp("w")
    demo = Watched(write_world(short_path / "in", subbands=4), short_path / "s")
    demo.echoes = {}
    async with _echoed(demo):
        try:
            await demo.start()
            fields = await asyncio.wait_for(demo.until_done(), LIMIT_S)
            paths = ["/live", "/v1/status", "/v1/fields", "/v1/doubt", "/v1/events?since=0&limit=1000"]
            paths += [f"/v1/fields/{FIELD}", f"/v1/fields/{FIELD}/explain"]
            answers = {path: await get(demo, path) for path in paths}
            assert leaks(demo) == {}  # While it runs: the write-ahead log is there.
            assert (demo.state / "aglowd.db-wal").exists()
            said = await aglowctl(demo, "status", "fields", f"show {FIELD}", f"explain {FIELD}", "events -n 1000")
        finally:
            await demo.stop()
    assert states(fields) == {FIELD: "archived"}
    assert all(echo.echoed >= FIRST for echo in demo.echoes.values()), {n: e.echoed for n, e in demo.echoes.items()}
    assert leaks(demo) == {}
    for path, answer in (answers | said).items():
        assert answer, path
        assert found_in(answer, demo.secrets) == [], path
    log = (demo.state / "aglowd.log").read_bytes()
    database = (demo.state / "aglowd.db").read_bytes()
    assert b"cannot log in as" in log + database
    assert b"***" in log + database
    _check_submissions(demo)
    _check_tools(demo)


def _check_submissions(demo: Watched) -> None:
    """GRID_LRT writes the password into `Arguments`; ours travels in a file that nobody else can read, and goes."""
    seen = [json.loads(path.read_text()) for path in demo.notes.iterdir() if path.name.isdigit()]
    assert len(seen) >= 2
    for one in seen:
        assert (one["picas"], one["place"]) == ("0o600", "0o700")
        assert '"picas.json"' in one["jdl"]
        assert found_in(one["jdl"].encode(), demo.secrets) == []
        assert not Path(one["where"]).exists()
    assert list((demo.state / "work").iterdir()) == []


def _check_tools(demo: Watched) -> None:
    """What every process can see of another: its arguments, and with the same user its environment."""
    processes = [path.read_bytes() for path in demo.notes.glob("*.process")]
    assert processes
    ledger = (demo.state / "grid" / "ledger.jsonl").read_bytes()
    assert b"argv" in ledger
    for data in (*processes, ledger):
        assert found_in(data, demo.secrets) == []
    for name in KEPT:
        assert stat.S_IMODE((demo.state / name).stat().st_mode) == 0o600


@asynccontextmanager
async def _echoed(demo: Watched) -> AsyncIterator[None]:
    """The demo's world, with an echo before each system that wants a login."""
    write = demo._write_config
    kept: dict[str, Any] = {}
    demo._write_config = kept.update  # type: ignore[method-assign] # it is written when the echoes are up
    async with demo.world() as ready:
        demo.echoes = {name: Echo(ready[f"{name}_url"]) for name in ("lta", "dcache", "couch")}
        first, second, third = demo.echoes.values()
        async with first.serve(), second.serve(), third.serve():
            write(ready)
            yield
