"""Sessions: the password is shown once, a cookie that has had its time is renewed, and nobody hammers at a closed door."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.couchdb_feed import Heartbeat
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.picas import Picas
from aglowd.sim.couch import Couch
from aglowd.sim.history import History
from aglowd.sim.ledger import Ledger
from aglowd.sim.world import World, WorldClock

from .conftest import Serve

PASSWORD = "p:4=ss wörd"


class There:
    """The simulated CouchDB, and what its ledger says."""

    def __init__(self, couch: Couch, ledger: Ledger, url: str) -> None:
        self.couch = couch
        self.url = url
        self._ledger = ledger

    def count(self, op: str) -> int:
        self._ledger.flush()
        return sum(1 for _ in History.read(self._ledger.path).of("couchdb", op))


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[There]:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    couch = Couch(World(1, WorldClock(1.0, 0.0), ledger), "me", PASSWORD)
    couch.create("sksp")
    async with AsyncExitStack() as stack:
        stack.callback(ledger.close)
        runner = web.AppRunner(couch.app(), shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield There(couch, ledger, f"http://127.0.0.1:{runner.addresses[0][1]}")


def picas_of(http: Http, there: There, credential: Credential) -> Picas:
    return Picas(http, Site("picas", Clock()), credential, there.url, "sksp", by_cookie=True)


async def test_a_cookie_stands_for_the_password_until_its_time_is_over(http: Http, there: There) -> None:
    picas = picas_of(http, there, Credential("picas", user="me", password=PASSWORD))
    for _ in range(3):
        await picas.info()
    assert there.count("unauthorized") == 0
    there.couch.end_sessions()
    assert (await picas.bulk([{"_id": "a"}]))["a"].ok
    assert there.count("unauthorized") == 1, "the old cookie was refused once, and nothing was written with it"
    async with aclosing(picas.changes(None, heartbeat_s=0.1)) as feed:  # type: ignore[type-var] # an async generator
        assert await anext(feed) == Heartbeat()


async def test_a_wrong_password_is_shown_once(http: Http, there: There) -> None:
    credential = Credential("picas", user="me", password="wrong")
    picas = picas_of(http, there, credential)
    for _ in range(4):
        with pytest.raises(Temporary, match="credential picas is frozen") as caught:
            await picas.info()
        assert "wrong" not in str(caught.value)
    assert there.count("unauthorized") == 1


async def test_a_cookie_that_is_refused_when_it_is_fresh_freezes_the_credential(
    http: Http, serve: Serve, there: There
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/_session":
            return web.json_response({"ok": True}, headers={"Set-Cookie": f"AuthSession=c{len(asked)}; Path=/"})
        return web.json_response({"error": "unauthorized"}, status=401)

    credential = Credential("picas", user="me", password=PASSWORD)
    picas = Picas(http, Site("picas", Clock()), credential, await serve(answer), "sksp", by_cookie=True)
    for _ in range(3):
        with pytest.raises(Temporary, match="credential picas is frozen"):
            await picas.info()
    assert asked == ["/_session", "/sksp/", "/_session", "/sksp/"]


@pytest.mark.parametrize("cookie", ["", "Other=1; Path=/"])
async def test_an_answer_without_a_cookie_is_named(http: Http, serve: Serve, cookie: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"ok": True}, headers={"Set-Cookie": cookie} if cookie else {})

    credential = Credential("picas", user="me", password=PASSWORD)
    picas = Picas(http, Site("picas", Clock()), credential, await serve(answer), "sksp", by_cookie=True)
    with pytest.raises(Temporary, match="the answer has no cookie AuthSession"):
        await picas.info()
    assert credential.frozen is None
