"""The storage contract's ways on real servers, each started once. A server that cannot be had is an error, no skip."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
from msgspec import structs

from aglowd.clock import Clock
from aglowd.grid.gate import Credential, Site
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage
from tests.grid.places import NAMES, ODD_NAMES, Place, far, quoted

from . import servers
from .servers import PASSWORD, USER, Server

pytest.register_assert_rewrite("tests.grid.test_storage_contract")

WAYS = {"gridftp": servers.gridftp, "apache": servers.apache, "wsgidav": servers.wsgidav}


@pytest.fixture(scope="session")
def started() -> Iterator[dict[str, Server]]:
    """Servers by name, as they come to be needed."""
    with ExitStack() as stack:
        found: dict[str, Server] = {}

        class Started(dict[str, Server]):
            def __missing__(self, name: str) -> Server:
                self[name] = stack.enter_context(WAYS[name]())
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
