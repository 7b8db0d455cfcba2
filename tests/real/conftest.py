"""What the contracts are tried on: real servers, each started once. A server that cannot be had is an error, no skip."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec import structs

from aglowd.clock import Clock
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage
from aglowd.sim.mariadb import MariaDb, private_mariadb
from tests.grid import bases
from tests.grid.bases import Base
from tests.grid.catalogues import House
from tests.grid.places import NAMES, ODD_NAMES, Place, far, quoted

from . import servers, surveys
from .servers import PASSWORD, USER, Server

pytest.register_assert_rewrite(
    "tests.grid.test_storage_contract",
    "tests.grid.test_sandbox_contract",
    "tests.grid.test_couch_contract",
    "tests.grid.test_couch_accounts",
    "tests.grid.test_catalogue_contract",
)

WAYS = {"gridftp": servers.gridftp, "apache": servers.apache, "wsgidav": servers.wsgidav}


@pytest.fixture(scope="session")
def started() -> Iterator[dict[str, Server]]:
    """Servers by name, as they come to be needed."""
    with ExitStack() as stack:
        found: dict[str, Server] = {}

        class Started(dict[str, Server]):
            def __missing__(self, name: str) -> Server:
                self[name] = stack.enter_context({**WAYS, "couch": servers.couch}[name]())
                return self[name]

        found = Started()
        yield found


@pytest.fixture(params=sorted(WAYS))
async def place(request: pytest.FixtureRequest, started: dict[str, Server]) -> AsyncIterator[Place]:
    """An empty directory at a real server."""
    server = started[request.param]
    url = f"{server.url}/{uuid.uuid4().hex[:8]}"
    if request.param == "gridftp":
        tools = Processes(env={"PATH": os.environ["PATH"], **server.env})
        storage = Storage(tools, Site("gridftp", Clock()))
        await storage.make_directory(url)
        # A call of the tools takes half a second, and a name takes fourteen calls.
        yield Place(storage, url, quoted(("P215+50", "two words", "100%25", "ä€")))
        return
    async with far(url, Processes(env={}), Credential(request.param, user=USER, password=PASSWORD)) as found:
        # WsgiDAV takes a quoted question mark in `Destination` for a query.
        yield found if request.param == "apache" else structs.replace(found, names=quoted(NAMES + ODD_NAMES[:4]))


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    """A MariaDB with an empty surveys database."""
    with asyncio.Runner() as runner:
        server = private_mariadb(tmp_path_factory.mktemp("mariadb"), over_tcp=True)
        yield runner.run(server.__aenter__())
        runner.run(server.__aexit__(None, None, None))


@pytest.fixture(params=["table", "column", "no table", "no transactions"])
async def house(request: pytest.FixtureRequest, mariadb: MariaDb, tmp_path: Path) -> House:
    """The surveys database, by each way in which it may keep our keys."""
    return await surveys.house(mariadb, tmp_path, request.param)


@pytest.fixture
async def base(started: dict[str, Server]) -> AsyncIterator[Base]:
    """An empty database at the server from npm, which takes any text for a sequence."""
    url, name = started["couch"].url, f"d{uuid.uuid4().hex[:8]}"
    http, site = Http(Clock(), timeout_s=20.0), Site("couch", Clock())
    credential = Credential("admin", user=bases.USER, password=bases.PASSWORD)
    try:
        await http.request("PUT", f"{url}/{name}", site=site, credential=credential, write=True)
        yield Base(
            http,
            url,
            name,
            lambda: http.request("POST", f"{url}/_end_sessions", site=site, credential=credential, write=True),
            sequences_are_checked=False,
        )
    finally:
        await http.close()
