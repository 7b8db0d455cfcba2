"""WebDAV's own ways: what servers answer differently, what is sent on, and what never leaves for another host."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from zlib import adler32

import pytest
from aiohttp import web

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid import http as transport
from aglowd.grid import storage as front
from aglowd.grid import webdav
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage
from aglowd.grid.webdav import WebDav
from aglowd.grid.webdav_text import read

from .conftest import Install, Serve

TOKEN = "m4caroon"


def multistatus(*rows: str) -> str:
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:" xmlns:x="http://www.dcache.org/2013/webdav">{"".join(rows)}</D:multistatus>'


def row(href: str, size: int | None = None, *, checksums: str = "", is_dir: bool = False, absent: str = "") -> str:
    has = "<D:resourcetype><D:collection/></D:resourcetype>" if is_dir else "<D:resourcetype/>"
    has += "" if size is None else f"<D:getcontentlength>{size}</D:getcontentlength>"
    has += f"<x:Checksums>{checksums}</x:Checksums>" if checksums else ""
    lacks = f"<D:propstat><D:prop>{absent}</D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>"
    return (
        f"<D:response><D:href>{href}</D:href><D:propstat><D:prop>{has}</D:prop>"
        f"<D:status>HTTP/1.1 200 OK</D:status></D:propstat>{lacks if absent else ''}</D:response>"
    )


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Far:
    """A server that answers what the test wants; what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.rel_url.raw_path} {request.headers.get('Authorization', '-')}")
        answer = self.answers[request.method]
        if callable(answer):
            return await answer(request)
        if isinstance(answer, str):
            return web.Response(status=207, text=answer, content_type="application/xml")
        # One answer may be given twice.
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


@pytest.fixture
def far() -> Far:
    return Far()


@pytest.fixture
def token() -> Credential:
    return Credential("dcache", token=TOKEN)


@pytest.fixture
def dav(http: Http, site: Site, token: Credential) -> WebDav:
    return WebDav(http, site, {"127.0.0.1": token})


@pytest.mark.parametrize(
    ("told", "size"),
    [("5", 5), (" 5\n", 5), ("9" * 19, 10**19 - 1), ("9" * 20, None), ("\u0665", None), ("-5", None), ("5.0", None)],
)
def test_what_is_a_size(told: str, size: int | None) -> None:
    document = multistatus(row("/a", 0)).replace(">0<", f">{told}<")
    assert read(document.encode())[b"/a"].size_bytes == size


async def test_hrefs_in_any_spelling(dav: WebDav, serve: Serve, far: Far) -> None:
    url = await serve(far.answer)
    lacks = "<x:Checksums/><D:getcontentlength/>"
    far.answers["PROPFIND"] = multistatus(
        row(f"{url}//d/", is_dir=True, absent=lacks), row("/d/a%20b", 5), row("/d/sub/", is_dir=True), row("/d/z", 1),
        row("/d/.hidden", 1), row("/d/being%2dwritten"), row("/d/sub/deeper", 1), row("/elsewhere", 1),
    )  # fmt: skip
    found = await dav.list(f"{url.replace('http:', 'dav:')}/d/")
    base = url.replace("http:", "dav:")
    assert [(entry.url, entry.size_bytes, entry.is_dir) for entry in found] == [
        (f"{base}/d/a%20b", 5, False), (f"{base}/d/sub", 0, True), (f"{base}/d/z", 1, False),
    ]  # fmt: skip
    far.answers["PROPFIND"] = multistatus(row("/d/being-written"))
    with pytest.raises(Temporary, match="being written"):
        await dav.stat(f"{url}/d/being-written")


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        "",
        multistatus(row("/other", 1)),
        '<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
        multistatus("<D:response/>"),
    ],
)
async def test_what_is_no_answer_is_temporary(dav: WebDav, serve: Serve, far: Far, answer: str) -> None:
    url = await serve(far.answer)
    far.answers["PROPFIND"] = answer
    for verb in (dav.list(f"{url}/x"), dav.stat(f"{url}/x"), dav.upload(b"x", f"{url}/x")):
        with pytest.raises(Temporary):
            await verb
    far.answers["PROPFIND"] = web.Response(status=200, text="<html>log in</html>", content_type="text/html")
    with pytest.raises(Temporary, match="expected 207"):
        await dav.stat(f"{url}/x")


def test_leniency_with_properties() -> None:
    rows = read(
        multistatus(row("/a", 3, checksums="md5=abc=,adler32=062c0215"), row("/b", 3, checksums="md5=x")).encode()
    )
    assert (rows[b"/a"].adler32, rows[b"/b"].adler32, rows[b"/a"].mtime) == (0x062C0215, None, None)
    (odd,) = read(
        multistatus(row("/c", 3, absent="<D:resourcetype><D:collection/></D:resourcetype>")).encode()
    ).values()
    assert (odd.is_dir, odd.size_bytes) == (False, 3)


async def test_a_checksum_comes_from_where_it_is_known(dav: WebDav, serve: Serve, far: Far) -> None:
    """Its leading zeros are no difference; where the server knows none, the bytes are summed up."""
    url, data = await serve(far.answer), b"hello"
    far.answers["PROPFIND"] = multistatus(row("/x", 5, checksums="adler32=62c0215,md5=abc"))
    assert await dav.checksum(f"{url}/x") == adler32(data)
    far.answers["PROPFIND"] = multistatus(row("/x", 5, absent="<x:Checksums/>"))
    far.answers["HEAD"] = web.Response(headers={"Digest": "SHA=x,ADLER32=062C0215"})
    assert await dav.checksum(f"{url}/x") == adler32(data)
    far.answers |= {"HEAD": lambda _: done(web.Response()), "GET": lambda _: done(web.Response(body=data))}
    assert await dav.checksum(f"{url}/x") == adler32(data)
    far.answers["GET"] = lambda _: done(web.Response(body=b"<html>sorry"))
    with pytest.raises(Temporary, match="more than the 5 bytes"):
        await dav.checksum(f"{url}/x")


async def done(response: web.StreamResponse) -> web.StreamResponse:
    return response


@pytest.mark.parametrize("body", [b"hell", b"hello!", b""])
async def test_a_file_arrives_whole_or_not_at_all(
    dav: WebDav, serve: Serve, far: Far, tmp_path: Path, body: bytes
) -> None:
    url = await serve(far.answer)
    far.answers = {"PROPFIND": multistatus(row("/x", 5)), "GET": web.Response(body=body)}
    with pytest.raises(Temporary):
        await dav.download(f"{url}/x", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []


async def test_a_refused_read_says_nothing_and_a_401_freezes(
    dav: WebDav, serve: Serve, far: Far, token: Credential, tmp_path: Path
) -> None:
    """The door answers 403 for what is on tape."""
    url = await serve(far.answer)
    far.answers = {"PROPFIND": multistatus(row("/x", 5)), "GET": web.Response(status=403)}
    with pytest.raises(Temporary, match="403"):
        await dav.download(f"{url}/x", str(tmp_path / "x"))
    assert token.frozen is None
    far.answers["PROPFIND"] = web.Response(status=401)
    for _ in range(2):
        with pytest.raises(Temporary, match="frozen"):
            await dav.stat(f"{url}/x")
    assert len([one for one in far.asked if one.startswith("PROPFIND")]) == 2


@pytest.mark.parametrize("same_host", [True, False])
async def test_a_pool_gets_the_body_and_a_stranger_no_token(
    dav: WebDav, serve: Serve, far: Far, tmp_path: Path, same_host: bool
) -> None:
    pool, stored = Far(), []

    async def store(request: web.Request) -> web.Response:
        stored.append((await request.read(), request.query_string, request.headers["If-None-Match"]))
        return web.Response(status=201)

    async def send_on(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"{there}{request.path}?uuid=1"})

    url, there = await serve(far.answer), await serve(pool.answer)
    there = there if same_host else there.replace("127.0.0.1", "localhost")
    far.answers = {"PROPFIND": web.Response(status=404), "PUT": send_on, "GET": send_on}
    pool.answers = {"PUT": store, "GET": web.Response(body=b"hello")}
    await dav.upload(b"hello", f"{url}/x")
    assert stored == [(b"hello", "uuid=1", "*")]
    far.answers["PROPFIND"] = multistatus(row("/x", 5))
    await dav.download(f"{url}/x", str(tmp_path / "x"))
    assert (tmp_path / "x").read_bytes() == b"hello"
    assert {one.partition(" ")[2].partition(" ")[2] for one in far.asked} == {f"Bearer {TOKEN}"}
    assert {one.partition(" ")[2].partition(" ")[2] for one in pool.asked} == {f"Bearer {TOKEN}" if same_host else "-"}


async def test_most_redirects(dav: WebDav, serve: Serve, far: Far) -> None:
    """MOST_REDIRECTS, and then no more."""
    url = await serve(far.answer)
    far.answers["PROPFIND"] = lambda request: done(web.Response(status=302, headers={"Location": str(request.url)}))
    with pytest.raises(Permanent, match="sent on more than"):
        await dav.stat(f"{url}/x")
    assert len(far.asked) == webdav.MOST_REDIRECTS + 1


async def test_a_write_is_not_sent_on(dav: WebDav, serve: Serve, far: Far) -> None:
    url = await serve(far.answer)
    far.answers["MKCOL"] = web.Response(status=301, headers={"Location": f"{url}/y/"})
    with pytest.raises(Permanent, match="moved"):
        await dav.make_directory(f"{url}/x")


@pytest.mark.parametrize(
    ("status", "expected"), [(412, Permanent), (507, Temporary), (500, Unknown), (403, Permanent), (207, Unknown)]
)
async def test_refusals_of_a_write(
    dav: WebDav, serve: Serve, far: Far, status: int, expected: type[OutsideError]
) -> None:
    url = await serve(far.answer)
    far.answers = {"PROPFIND": web.Response(status=404), "PUT": web.Response(status=status)}
    with pytest.raises(expected) as caught:
        await dav.upload(b"x", f"{url}/x")
    assert type(caught.value) is expected


async def test_a_page_for_people_is_no_success(dav: WebDav, serve: Serve, far: Far) -> None:
    url = await serve(far.answer)
    far.answers = {"PROPFIND": web.Response(status=404), "PUT": web.Response(text="log in", content_type="text/html")}
    with pytest.raises(Unknown, match="page for people"):
        await dav.upload(b"x", f"{url}/x")


async def test_nothing_is_overwritten_where_the_server_would(
    dav: WebDav, serve: Serve, far: Far, http: Http, site: Site
) -> None:
    url = await serve(far.answer)
    far.answers = {
        "PROPFIND": lambda r: done(
            web.Response(status=207, text=multistatus(row(r.path, 5)), content_type="application/xml")
        )
    }
    storage = Storage(Processes(env={}), site, dav)
    for verb in (storage.upload(b"x", f"{url}/x"), storage.copy(f"{url}/y", f"{url}/x"), storage.rename(f"{url}/y", f"{url}/x")):  # fmt: skip
        with pytest.raises(Permanent, match="exists"):
            await verb
    assert {one.partition(" ")[0] for one in far.asked} == {"PROPFIND"}


@pytest.mark.parametrize("last", ["success: Created", "failure: rejected GET: 403", ""])
async def test_a_third_party_copy_ends_with_a_word(
    http: Http, site: Site, token: Credential, serve: Serve, far: Far, last: str
) -> None:
    other, seen = Far(), {}

    async def accept(request: web.Request) -> web.Response:
        seen.update(request.headers)
        return web.Response(status=202, text=f"Perf Marker\n Timestamp: 1\nEnd\n{last}\n")

    here, there = await serve(other.answer), await serve(far.answer)
    other.answers["PROPFIND"] = multistatus(row("/x", 5))
    far.answers = {"PROPFIND": web.Response(status=404), "COPY": accept}
    copied = WebDav(http, site, {"127.0.0.1": token}, third_party=True).copy(f"{here}/x", f"{there}/x")
    if last.startswith("success"):
        assert await copied
    else:
        with pytest.raises(Unknown):
            await copied
    assert (seen["Source"], seen["TransferHeaderAuthorization"], seen["Overwrite"]) == (
        f"{here}/x",
        f"Bearer {TOKEN}",
        "F",
    )


async def test_max_listing_bytes(dav: WebDav, serve: Serve, far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    url, text = await serve(far.answer), multistatus(row("/d/", is_dir=True), row("/d/x", 1))
    far.answers["PROPFIND"] = text
    monkeypatch.setattr(webdav, "MAX_LISTING_BYTES", len(text))
    assert len(await dav.list(f"{url}/d")) == 1
    monkeypatch.setattr(webdav, "MAX_LISTING_BYTES", len(text) - 1)
    with pytest.raises(Temporary, match="longer than"):
        await dav.list(f"{url}/d")


async def test_a_transfer_in_which_nothing_moves_ends(
    dav: WebDav, serve: Serve, far: Far, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never says 100 Continue, and one that falls silent within the file."""

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "5"})
        await response.prepare(request)
        await response.write(b"he")
        await asyncio.Event().wait()
        return response

    async def deaf(request: web.Request) -> web.StreamResponse:
        await request.read()
        await asyncio.Event().wait()
        return web.Response()

    url = await serve(far.answer)
    monkeypatch.setattr(transport, "STALL_S", 0.1)
    far.answers = {"PROPFIND": multistatus(row("/x", 5)), "GET": silent, "PUT": deaf}
    with pytest.raises(Temporary, match="no answer in time"):
        await dav.download(f"{url}/x", str(tmp_path / "x"))
    assert list(tmp_path.iterdir()) == []
    far.answers["PROPFIND"] = web.Response(status=404)
    with pytest.raises(Unknown, match="no answer in time"):
        await dav.upload(b"x", f"{url}/x")


@pytest.mark.parametrize(
    "url",
    ["https://h/a?authz=x", "https://h/a#b", "https://h/../x", "https://h/%2e%2e/x", "ftp://h/x", "https://me:pw@h/x"],
)
async def test_urls_that_are_refused(dav: WebDav, url: str) -> None:
    with pytest.raises(Permanent) as caught:
        await dav.stat(url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "inside",
    [
        row("/d/.hidden", 1),
        row("/d/being%2dwritten"),
        "<D:response><D:href>/d/secret</D:href><D:status>HTTP/1.1 403 x</D:status></D:response>",
    ],
)
async def test_a_directory_with_anything_in_it_is_not_deleted(dav: WebDav, serve: Serve, far: Far, inside: str) -> None:
    """A DELETE would take it along, also what the server tells nothing of."""
    url = await serve(far.answer)
    far.answers = {"PROPFIND": multistatus(row("/d/", is_dir=True), inside), "DELETE": web.Response(status=204)}
    with pytest.raises(Permanent, match="is not empty"):
        await dav.remove_directory(f"{url}/d")
    far.answers["PROPFIND"] = multistatus(row("/d", 1))
    with pytest.raises(Permanent, match="is a file"):
        await dav.remove_directory(f"{url}/d")
    assert not [asked for asked in far.asked if asked.startswith("DELETE")]
    far.answers["PROPFIND"] = multistatus(row("/d/", is_dir=True))
    await dav.remove_directory(f"{url}/d")
    assert far.asked[-1] == f"DELETE /d/ Bearer {TOKEN}"


@pytest.mark.parametrize("inside", ["file", "/other/spelling/of/d/file", ""])
async def test_a_directory_whose_listing_names_what_lies_elsewhere_is_not_deleted(
    dav: WebDav, serve: Serve, far: Far, inside: str
) -> None:
    """It may lie in it by another name: a DELETE would take it along."""
    url = await serve(far.answer)
    far.answers = {"PROPFIND": multistatus(row("/d/", is_dir=True), row(inside, 1)), "DELETE": web.Response(status=204)}
    with pytest.raises(Temporary, match="the answer is about"):
        await dav.remove_directory(f"{url}/d")
    assert not [asked for asked in far.asked if asked.startswith("DELETE")]


async def test_between_the_ways_a_file_is_carried_by_hand(
    http: Http, site: Site, token: Credential, processes: Processes, serve: Serve, far: Far, install: Install,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """gsiftp → WebDAV through a local file, if there is room for it; nothing of it stays."""
    stored: list[bytes] = []

    async def store(request: web.Request) -> web.Response:
        stored.append(await request.read())
        return web.Response(status=201)

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    install("gfal-stat", 'case $1 in gsiftp*) printf "  Size: 5\\tregular file\\n";; *) exit 1;; esac')
    install("gfal-copy", 'for i; do last="$i"; done; printf hello > "${last#file://}"')
    url = await serve(far.answer)
    far.answers = {"PROPFIND": web.Response(status=404), "PUT": store}
    storage = Storage(processes, site, WebDav(http, site, {"127.0.0.1": token}))
    await storage.copy("gsiftp://h/x", f"{url}/x")
    assert stored == [b"hello"]
    monkeypatch.setattr(front.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 4}))
    with pytest.raises(Temporary, match="room for 4 bytes"):
        await storage.copy("gsiftp://h/x", f"{url}/y")
    assert list((tmp_path / "temporary").iterdir()) == []
