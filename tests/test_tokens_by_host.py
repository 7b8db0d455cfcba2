"""Which token goes where: real servers under two names, and what they are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from aglowd import log
from aglowd.clock import Clock
from aglowd.config import CatalogueConfig, Config, DaemonConfig, DcacheConfig, SiteConfig, StorageConfig
from aglowd.credentials import Secrets
from aglowd.effects.base import World
from aglowd.errors import OutsideError
from aglowd.grid.surl import DOORS, Door
from aglowd.wiring import _doors, build_world

SURL = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/ops/projects/lc2_038/1/L1_SB001_uv.MS_0a000001.tar"


class Far:
    """One server under two names, which says 404 to everything, and sends on who asks for /moved."""

    def __init__(self) -> None:
        self.shown: defaultdict[str, set[str | None]] = defaultdict(set)
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        host = request.host.partition(":")[0]
        self.shown[host].add(request.headers.get("Authorization"))
        if request.path == "/moved":
            return web.Response(status=307, headers={"Location": f"http://localhost:{self.port}/pool"})
        return web.json_response({"errors": [{"message": "No such file"}]}, status=404)

    def url(self, host: str, path: str = "") -> str:
        return f"http://{host}:{self.port}{path}"


@pytest.fixture
async def far() -> AsyncIterator[Far]:
    found = Far()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    log._secrets.clear()


def token(directory: Path, name: str) -> str:
    path = directory / name
    path.touch(mode=0o600)
    path.write_text(f"of-{name}\n")
    return str(path)


def world(directory: Path, far: Far, **given: str) -> World:
    """Two sites; Jülich's dCache, and its door, go by another name than all else."""
    sara = SiteConfig(results=far.url("127.0.0.1", "/results"), archive="gsiftp://x/a", dcache=far.url("127.0.0.1"))
    juelich = SiteConfig(
        results="gsiftp://x/r",
        archive="gsiftp://x/a",
        dcache=far.url("localhost"),
        webdav=far.url("localhost"),
        **given,
    )
    config = Config(
        catalogue=CatalogueConfig(path="x", srm_dir="x"),
        sites={"sara": sara, "juelich": juelich},
        daemon=DaemonConfig(state_dir=str(directory)),
        dcache=DcacheConfig(url=far.url("127.0.0.1"), token_file=token(directory, "dcache"), ask="namespace"),
        storage=StorageConfig(token_file=token(directory, "webdav")),
    )
    made = build_world(config, Clock(), Secrets(config, {"HOME": str(directory)}), "here")[0]
    made.stagers["sara"]._keyring.is_filled = True  # type: ignore[attr-defined] # nothing was issued
    return made


async def test_a_token_is_shown_to_its_host_and_no_other(tmp_path: Path, far: Far) -> None:
    made = world(tmp_path, far)
    assert await made.archive("sara").localities([SURL]) == {SURL: "NONE"}
    with suppress(OutsideError):
        await made.archive("juelich").localities([SURL])
    assert far.shown.pop("127.0.0.1") == {"Bearer of-dcache"}
    for host, path in (("127.0.0.1", "/results/x"), ("127.0.0.1", "/moved"), ("localhost", "/x")):
        with suppress(OutsideError):
            await made.storage.list(far.url(host, path))
    assert far.shown == {"127.0.0.1": {"Bearer of-webdav"}, "localhost": {None}}
    await made.http.close()


async def test_a_site_with_tokens_of_its_own(tmp_path: Path, far: Far) -> None:
    own = {f"{system}_token_file": token(tmp_path, f"juelich-{system}") for system in ("dcache", "webdav")}
    made = world(tmp_path, far, **own)
    with suppress(OutsideError):
        await made.archive("juelich").localities([SURL])
    with suppress(OutsideError):
        await made.storage.stat(far.url("localhost", "/x"))
    assert far.shown == {"localhost": {"Bearer of-juelich-dcache", "Bearer of-juelich-webdav"}}
    await made.http.close()


def test_doors_are_those_that_are_known_or_the_operators_own() -> None:
    plain = SiteConfig(results="r", archive="a")
    own = SiteConfig(results="r", archive="a", webdav="https://webdav.example.psnc.pl:2880")
    config = Config(
        catalogue=CatalogueConfig(path="x", srm_dir="x"), sites={"sara": plain, "poznan": own, "elsewhere": plain}
    )
    assert _doors(config) == {"sara": DOORS["sara"], "poznan": Door("https://webdav.example.psnc.pl:2880")}
