"""Certificates: a grid authority is believed, in whatever company it stands, and nobody else is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.gate import Site
from aglowd.grid.http import Http
from aglowd.grid.tls import MAX_CA_BYTES, trust

from .servers import certify, directory


@pytest.fixture
def certified() -> Iterator[Path]:
    with directory() as here:
        certify(here)
        yield here


@pytest.fixture
async def url(certified: Path) -> AsyncIterator[str]:
    """A server with a certificate of the authority made just now."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    await asyncio.to_thread(tls.load_cert_chain, certified / "host.pem", certified / "host.key")

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    yield f"https://localhost:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def get(url: str, context: ssl.SSLContext | None) -> bytes:
    http = Http(Clock(), timeout_s=10.0, trusted=context)
    try:
        return (await http.request("GET", url, site=Site("there", Clock()), write=False)).body
    finally:
        await http.close()


async def test_a_grid_authority_is_believed(url: str, certified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (certified / "trusted" / "00000000.0").write_text("no certificate")
    (certified / "trusted" / "00000001.0").mkdir()
    (certified / "trusted" / "00000002.0").touch()
    monkeypatch.setenv("X509_CERT_DIR", str(certified / "trusted"))
    for path in (certified / "trusted").glob("*.0"):
        if path.is_file() and path.stat().st_size:
            path.write_text("# ångström\n" + path.read_text(), encoding="utf-8")
    context = trust()
    for path in (certified / "trusted").glob("*.0"):
        path.rename(path.with_suffix(".gone"))  # It was read before, and is not looked for while somebody waits.
    assert await get(url, context) == b"hello"


async def test_nobody_else_is_believed(url: str, certified: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = certified / "long"
    long.mkdir()
    for path in (certified / "trusted").glob("*.0"):
        (long / path.name).write_text("#" * MAX_CA_BYTES + "\n" + path.read_text())
    contexts: list[ssl.SSLContext | None] = [None]
    for directory_of_cas in (long, certified / "none"):
        monkeypatch.setenv("X509_CERT_DIR", str(directory_of_cas))
        contexts.append(trust())
    for context in contexts:
        with pytest.raises(Temporary, match="no connection"):
            await get(url, context)
