"""What the storage contract is tried on: somewhere to put files, and the storage that takes them there."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from msgspec import Struct

from aglowd.clock import Clock
from aglowd.grid.files import SAFE_SIGNS
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage
from aglowd.grid.webdav import WebDav
from aglowd.sim.grid import Settings, simulated_grid

NAMES = ("L769079_SB020_uv.MS_daf24388.tar", "P215+50", "a+b", "x=1,y", "a..b", "~name", "colon:at@sign")
"""Names that every protocol takes as they are."""
ODD_NAMES = (
    "two words",
    "100%",
    "100%25",
    "ä€",
    "e\u0301",
    "a#b",
    "a?b=c",
    "a&b;c",
    "it's",
    '"',
    "<x>",
    "[1]",
    "back\\slash",
)
"""Names that a URL must quote."""


class Place(Struct, frozen=True):
    """An empty directory at `url`; `names` are names as URLs spell them."""

    storage: Storage
    url: str
    names: tuple[str, ...]


def quoted(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(quote(name, safe=SAFE_SIGNS) for name in names)


@asynccontextmanager
async def local(directory: Path) -> AsyncIterator[Place]:
    """Local files, by their URLs."""
    root = directory / "here"
    root.mkdir()
    yield Place(Storage(Processes(env={}), Site("local", Clock())), root.as_uri(), quoted(NAMES + ODD_NAMES))


@asynccontextmanager
async def simulated_gfal(directory: Path) -> AsyncIterator[Place]:
    """The simulated executables."""
    (directory / "srm").mkdir()
    settings = Settings(
        directory=directory / "world",
        srm_dir=directory / "srm",
        seed=1,
        speed=1.0,
        origin=time.time(),
        failure_rate=0.0,
    )
    async with simulated_grid(settings) as ready:
        env = {"PATH": os.environ["PATH"], "X509_USER_PROXY": ready["proxy"]}
        storage = Storage(Processes(path=ready["bin"], env=env), Site("gfal", Clock()))
        await storage.make_directory("gsiftp://gridftp.grid.sara.nl:2811/pnfs/here")
        yield Place(storage, "gsiftp://gridftp.grid.sara.nl:2811/pnfs/here", quoted(NAMES + ODD_NAMES))


@asynccontextmanager
async def simulated_webdav(directory: Path) -> AsyncIterator[Place]:
    """The simulated dCache door."""
    (directory / "srm").mkdir()
    settings = Settings(
        directory=directory / "world",
        srm_dir=directory / "srm",
        seed=1,
        speed=1.0,
        origin=time.time(),
        failure_rate=0.0,
    )
    async with simulated_grid(settings) as ready:
        credential = Credential("webdav", token=ready["credentials"]["webdav_token"])
        async with far(f"{ready['webdav_url']}/pnfs/here", Processes(env={}), credential) as place:
            yield place


@asynccontextmanager
async def far(url: str, processes: Processes, credential: Credential | None) -> AsyncIterator[Place]:
    """A directory that is made at that URL, by WebDAV."""
    http = Http(Clock(), timeout_s=20.0)
    try:
        site = Site("webdav", Clock())
        storage = Storage(
            processes, site, WebDav(http, site, {} if credential is None else {str(urlsplit(url).hostname): credential})
        )
        await storage.make_directory(url)
        yield Place(storage, url, quoted(NAMES + ODD_NAMES))
    finally:
        await http.close()


WAYS = {"local": local, "gfal": simulated_gfal, "webdav": simulated_webdav}
