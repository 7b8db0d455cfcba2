"""PiCaS: every row of an answer is looked at, and a feed that lost its place says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid import couchdb
from aglowd.grid.couchdb import CHUNK_DOCS, CHUNK_DOCS_WITH_ATTACHMENTS, BulkRow, ViewRow
from aglowd.grid.couchdb_feed import Change, FeedReset, Heartbeat, _change_in
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.picas import NotAdmin, Picas

from .conftest import Serve

Answer = Callable[[web.Request, Any], Any]


class Couch:
    """A real server: `METHOD /path` → a JSON value, bytes, a (status, value) or a function of request and body."""

    def __init__(self, http: Http, site: Site, credential: Credential, serve: Serve) -> None:
        self._serve = serve
        self._make = lambda url: Picas(http, site, credential, url, "sk/sp")
        self.asked: list[tuple[str, Any]] = []

    async def with_answers(self, answers: dict[str, Any]) -> Picas:
        async def handler(request: web.Request) -> web.StreamResponse:
            raw = await request.read()
            body = json.loads(raw) if request.content_type == "application/json" else raw
            where = f"{request.method} {request.raw_path}".replace("/sk%2Fsp", "", 1)
            self.asked.append((where, body))
            answer = answers[where.partition("?")[0]]
            answer = answer(request, body) if callable(answer) else answer
            status, answer = answer if isinstance(answer, tuple) else (200, answer)
            if isinstance(answer, bytes):
                return web.Response(body=answer, status=status)
            # pouchdb-server says text/plain of its JSON.
            return web.Response(text=json.dumps(answer), status=status, content_type="text/plain")

        return self._make(await self._serve(handler))


@pytest.fixture
def couch(http: Http, site: Site, credential: Credential, serve: Serve) -> Couch:
    return Couch(http, site, credential, serve)


async def test_info_takes_any_sequence(couch: Couch) -> None:
    for seq, text in (("90-g1A", "90-g1A"), (202, "202"), ([3, "x"], '[3,"x"]')):
        picas = await couch.with_answers({"GET /": {"instance_start_time": "0", "doc_count": 7, "update_seq": seq}})
        info = await picas.info()
        assert (info.instance_start_time, info.doc_count, info.update_seq) == ("0", 7, text)


async def test_documents_come_in_chunks_and_deleted_ones_are_none(couch: Couch) -> None:
    def rows(request: web.Request, body: Any) -> Any:
        def row(name: str) -> Any:
            if name == "none":
                return {"key": name, "error": "not_found"}
            if name == "deleted":
                return {"key": name, "id": name, "value": {"rev": "2-b", "deleted": True}, "doc": None}
            return {"key": name, "id": name, "value": {"rev": "1-a"}, "doc": {"_id": name, "_rev": "1-a"}}

        return {"rows": [row(name) for name in reversed(body["keys"])]}

    picas = await couch.with_answers({"POST /_all_docs": rows})
    names = [f"t{number}" for number in range(1001)]
    found = await picas.get_docs([*names, "none", "deleted", "t1"])
    assert found == {**{name: {"_id": name, "_rev": "1-a"} for name in names}, "none": None, "deleted": None}
    assert [len(body["keys"]) for _, body in couch.asked] == [500, 500, 3]
    await picas.get_docs(names[:21], attachments=True)
    assert [(where, len(body["keys"])) for where, body in couch.asked[3:]] == [
        *[("POST /_all_docs?include_docs=true&attachments=true", CHUNK_DOCS_WITH_ATTACHMENTS)] * 4,
        ("POST /_all_docs?include_docs=true&attachments=true", 1),
    ]


@pytest.mark.parametrize(("at", "error"), [(1, Temporary), (2, Unknown)])
async def test_what_is_refused_after_the_first_chunk_leaves_something_written(
    couch: Couch, at: int, error: type[Exception]
) -> None:
    calls: list[int] = []

    def rows(request: web.Request, body: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            return 429, {}
        return [{"id": document["_id"], "ok": True, "rev": "1-a"} for document in body["docs"]]

    picas = await couch.with_answers({"POST /_bulk_docs": rows})
    with pytest.raises(error):
        await picas.bulk([{"_id": f"t{number}"} for number in range(CHUNK_DOCS + 1)])


async def test_a_document_that_the_answer_forgot_is_not_absent(couch: Couch) -> None:
    picas = await couch.with_answers({"POST /_all_docs": {"rows": []}})
    with pytest.raises(Temporary, match="nothing about a"):
        await picas.get_docs(["a"])


async def test_every_row_of_a_bulk_write_is_looked_at(couch: Couch) -> None:
    def rows(request: web.Request, body: Any) -> Any:
        found = [{"ok": True, "id": doc["_id"], "rev": "1-a"} for doc in body["docs"]]
        found[0] = {"id": body["docs"][0]["_id"], "error": "conflict", "reason": "Document update conflict."}
        return 201, found

    picas = await couch.with_answers({"POST /_bulk_docs": rows})
    result = await picas.bulk([{"_id": f"t{number}"} for number in range(501)])
    assert len(result) == 501
    assert result["t0"] == result["t500"] == BulkRow(False, None, "conflict", "Document update conflict.")
    assert sum(row.ok for row in result.values()) == 499
    assert await picas.bulk([]) == {}


@pytest.mark.parametrize("answer", [[], {"ok": True}, [{"id": "b", "rev": "1-a"}], b"[{", [None, {"id": 1}]])
async def test_a_bulk_write_that_is_not_answered_for_is_in_doubt(couch: Couch, answer: Any) -> None:
    picas = await couch.with_answers({"POST /_bulk_docs": answer})
    with pytest.raises(Unknown):
        await picas.bulk([{"_id": "a"}])


@pytest.mark.parametrize("docs", [[{}], [{"_id": ""}], [{"_id": "a"}, {"_id": "a"}]])
async def test_documents_without_an_id_of_their_own_are_not_written(couch: Couch, docs: list[dict[str, Any]]) -> None:
    with pytest.raises(Permanent):
        await (await couch.with_answers({})).bulk(docs)


async def test_attachments(couch: Couch) -> None:
    picas = await couch.with_answers(
        {"PUT /a%2Bb%3A1/23%2F11%20x.txt": (201, {"ok": True, "rev": "2-b"}), "GET /a%2Bb%3A1/x": b"\x00\xff"}
    )
    assert await picas.put_attachment("a+b:1", "1-a", "23/11 x.txt", b"data", "text/plain") == "2-b"
    assert couch.asked == [("PUT /a%2Bb%3A1/23%2F11%20x.txt?rev=1-a", b"data")]
    assert await picas.get_attachment("a+b:1", "x") == b"\x00\xff"


async def test_an_attachment_without_a_revision_in_the_answer_is_in_doubt(couch: Couch) -> None:
    picas = await couch.with_answers({"PUT /a/x": (201, {"ok": True}), "PUT /a/y": (409, {"error": "conflict"})})
    with pytest.raises(Unknown):
        await picas.put_attachment("a", "1-a", "x", b"", "text/plain")
    with pytest.raises(Permanent):
        await picas.put_attachment("a", "1-a", "y", b"", "text/plain")


async def test_a_file_is_checked_by_the_digest_of_what_was_sent(
    http: Http, site: Site, credential: Credential, serve: Serve
) -> None:
    seen: list[tuple[str | None, bytes]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            seen.append((request.headers.get("Content-MD5"), await request.read()))
            return web.json_response({"ok": True, "rev": "2-b"}, status=201)
        assert request.headers["Accept-Encoding"] == "identity"
        # The ETag is of what the database keeps, which may be compressed.
        return web.Response(body=b"hello", headers={"Content-MD5": md5, "ETag": '"1B2M2Y8AsgTpgAmY7PhCfg=="'})

    md5 = "XUFAKrxLKna5cZ2REBfFkg=="
    picas = Picas(http, site, credential, await serve(handler), "db")
    await picas.put_attachment("a", "1-a", "x", b"hello", "text/plain")
    assert seen == [(md5, b"hello")]
    assert await picas.get_attachment("a", "x") == b"hello"
    got: list[bytes] = []

    async def take(block: bytes) -> None:
        got.append(block)

    await picas.pour_attachment("a", "x", take)
    assert got == [b"hello"]
    md5 = "1B2M2Y8AsgTpgAmY7PhCfg=="
    for again in (picas.get_attachment("a", "x"), picas.pour_attachment("a", "x", take)):
        with pytest.raises(Temporary, match=r"found digest XUFAKrxLKna5cZ2REBfFkg==; expected 1B2M2Y"):
            await again


async def test_a_file_that_is_too_long_is_not_attached(couch: Couch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couchdb, "MAX_ATTACHMENT_BYTES", 1500)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        yield b"y" * 1000

    picas = await couch.with_answers({"PUT /a/x": (201, {"ok": True, "rev": "2-b"})})
    with pytest.raises(Permanent, match="longer than 1500 bytes"):
        await picas.put_attachment("a", "1-a", "x", b"x" * 1501, "text/plain")
    assert couch.asked == []
    with pytest.raises(Unknown):
        await picas.put_attachment("a", "1-a", "x", pieces(), "text/plain")


WRITTEN = {"ok": True, "id": "_design/x", "rev": "4-d"}


async def test_a_page_in_html_is_no_word_that_a_design_document_was_written_or_deleted(couch: Couch) -> None:
    page = b"<!DOCTYPE html><h1>Maintenance until 17:00</h1>"
    picas = await couch.with_answers({"GET /_design/x": (404, {}), "PUT /_design/x": page})
    with pytest.raises(Unknown):
        await picas.ensure_design("x", {"views": {}})
    picas = await couch.with_answers({"GET /_design/x": {"_rev": "3-c"}, "DELETE /_design/x": page})
    with pytest.raises(Unknown):
        await picas.delete_design("x")


async def test_a_design_document_is_written_only_when_it_differs(couch: Couch) -> None:
    doc = {"_id": "_design/x", "language": "javascript", "views": {"todo": {"map": "m"}}}
    stored = {**doc, "_rev": "3-c", "views": {**doc["views"], "mine": {"map": "n"}}}  # type: ignore[dict-item] # JSON
    picas = await couch.with_answers({"GET /_design/x": stored})
    await picas.ensure_design("x", doc)
    changed = {**doc, "views": {"todo": {"map": "new"}}}
    picas = await couch.with_answers({"GET /_design/x": stored, "PUT /_design/x": (201, WRITTEN)})
    await picas.ensure_design("x", changed)
    assert couch.asked[-1][1] == {**stored, "views": {"todo": {"map": "new"}, "mine": {"map": "n"}}}
    picas = await couch.with_answers({"GET /_design/x": (404, {}), "PUT /_design/x": (201, WRITTEN)})
    await picas.ensure_design("x", doc)
    assert couch.asked[-1][1] == doc
    picas = await couch.with_answers({"GET /_design/x": (404, {}), "PUT /_design/x": (409, {})})
    with pytest.raises(Temporary, match="same moment"):
        await picas.ensure_design("x", doc)


@pytest.mark.parametrize("by_cookie", [False, True], ids=["basic", "cookie"])
async def test_to_be_no_admin_is_no_word_against_the_password(
    http: Http, site: Site, credential: Credential, serve: Serve, by_cookie: bool
) -> None:
    """CouchDB says 403 then; its first releases, and pouchdb-server, say 401."""

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/_session":
            return web.json_response({"ok": True}, headers={"Set-Cookie": "AuthSession=abcdefghijkl; Path=/"})
        if request.method == "GET":
            return web.json_response({"_id": "_design/x", "_rev": "1-a", "doc_count": 1})
        return web.json_response({"error": "unauthorized", "reason": "You are not a server admin."}, status=401)

    picas = Picas(http, site, credential, await serve(handler), "db", by_cookie=by_cookie)
    for refused in (picas.ensure_design("x", {"views": {}}), picas.delete_design("x")):
        with pytest.raises(NotAdmin, match="not a server admin"):
            await refused
    assert credential.frozen is None
    assert (await picas.info()).doc_count == 1


async def test_deleting_a_design_document(couch: Couch) -> None:
    picas = await couch.with_answers({"GET /_design/x": {"_rev": "3-c"}, "DELETE /_design/x": WRITTEN})
    await picas.delete_design("x")
    assert couch.asked[-1][0] == "DELETE /_design/x?rev=3-c"
    await (await couch.with_answers({"GET /_design/x": (404, {})})).delete_design("x")
    with pytest.raises(Temporary):
        await (await couch.with_answers({"GET /_design/x": (500, {})})).delete_design("x")


async def test_queries_encode_their_keys(couch: Couch) -> None:
    rows = {"rows": [{"id": "a", "key": "k", "value": 1}, {"key": "x", "error": "not_found"}]}
    picas = await couch.with_answers({"GET /_design/x/_view/v": rows, "POST /_design/x/_view/v": rows})
    expected = [ViewRow("a", "k", 1)]
    assert await picas.query("x", "v", params={"key": "k", "limit": 5, "reduce": False, "update": "lazy"}) == expected
    assert couch.asked[-1][0] == "GET /_design/x/_view/v?key=%22k%22&limit=5&reduce=false&update=lazy"
    assert await picas.query("x", "v", keys=["k"]) == expected
    assert couch.asked[-1] == ("POST /_design/x/_view/v", {"keys": ["k"]})


@pytest.mark.parametrize("answer", [{}, {"rows": None}, {"rows": [1]}, [], b"<html>"])
async def test_a_view_without_rows_is_temporary(couch: Couch, answer: Any) -> None:
    with pytest.raises(Temporary):
        await (await couch.with_answers({"GET /_design/x/_view/v": answer})).query("x", "v")


async def test_counts_of_all_types_are_one_query(couch: Couch) -> None:
    rows = [
        {"key": ["a", "done"], "value": 3},
        {"key": ["b", "todo"], "value": 1.0},
        {"key": ["c", "todo"], "value": 1},
    ]
    picas = await couch.with_answers({"POST /_design/aglowd/_view/states": {"rows": [*rows, {"key": 1, "value": 2}]}})
    counts = await picas.count_tokens(["a", "b"])
    assert counts["a"] == {"todo": 0, "locked": 0, "done": 3, "error": 0, "other": 0}
    assert counts["b"]["todo"] == 1
    assert [where for where, _ in couch.asked] == ["POST /_design/aglowd/_view/states?group=true"]
    assert await picas.count_tokens([]) == {}
    assert len(couch.asked) == 1


# --- the feed


async def read_feed(picas: Picas, count: int, since: str | None = "1-a") -> list[Change | Heartbeat]:
    seen: list[Change | Heartbeat] = []
    async with aclosing(picas.changes(since, heartbeat_s=0.2)) as feed:
        async for item in feed:
            seen.append(item)
            if len(seen) == count:
                break
    return seen


async def test_the_feed(http: Http, site: Site, credential: Credential, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.headers["Accept-Encoding"] == "identity"
        assert dict(request.query) == {"feed": "continuous", "heartbeat": "200", "since": "now"}
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"seq":"2-b","id":"cal:1","changes":[{"rev":"1-a"}]}\n\n{"seq":3,"id":"x","deleted"')
        await response.write(b':true,"changes":[]}\n')
        await asyncio.Event().wait()
        return response

    picas = Picas(http, site, credential, await serve(handler), "db")
    found = await read_feed(picas, 3, None)
    # What comes together is read together, and then the sign of life stands at the end.
    assert [one for one in found if one != Heartbeat()] == [
        Change("cal:1", "2-b", "cal", False),
        Change("x", "3", None, True),
    ]
    assert len(found) == 3
    with pytest.raises(Temporary, match="silent"):
        await read_feed(picas, 4, None)


@pytest.mark.parametrize("status", [400, 404])
async def test_a_sequence_that_is_not_known_resets_the_feed(couch: Couch, status: int) -> None:
    picas = await couch.with_answers({"GET /_changes": (status, {"error": "bad_request"})})
    with pytest.raises(FeedReset, match="1-a"):
        await read_feed(picas, 1)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b'{"last_seq":"9-z","pending":0}\n', "ended the feed"),
        (b"", "ended the feed"),
        (b"<html>\n", "a line is no change"),
        (b"[1]\n", "a line is no change"),
        (b'{"error":"oom","reason":"x"}\n', "oom"),
        ((500, b"x"), "HTTP 500"),
    ],
)
async def test_a_feed_that_ends_is_temporary(couch: Couch, answer: Any, expected: str) -> None:
    nothing = {"results": [], "last_seq": "1-a", "pending": 0}

    def changes(request: web.Request, body: Any) -> Any:
        return nothing if request.query["feed"] == "normal" else answer

    picas = await couch.with_answers({"GET /_changes": changes})
    with pytest.raises(Temporary, match=expected) as caught:
        await read_feed(picas, 9)
    assert not isinstance(caught.value, FeedReset)


LINE = b'{"seq":"2-b","id":"cal:1","changes":[{"rev":"1-a"}],"deleted":true}'


@given(st.integers(0, len(LINE)), st.binary(max_size=4), st.integers(0, 10))
def test_a_mutated_line_is_a_change_or_temporary(at: int, put: bytes, cut: int) -> None:
    with suppress(Temporary):
        change = _change_in(LINE[:at] + put + LINE[at + cut :])
        assert change is None or isinstance(change.id, str)
