"""CouchDB over HTTP, as the token database speaks it.

What must stay true: every row of a `_bulk_docs` answer is looked at (the status is 201 whatever became of them), and a
revision travels as `?rev=` (pouchdb-server ignores If-Match). The feed tells at least once, and only the latest revision; who
reads it looks again at what changed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.couchdb_feed import Change, Feed, Heartbeat, seq_text
from aglowd.grid.couchdb_session import CookieSession
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import EXCERPT_CHARS, Http, Lines, Reply, Sink, json_of
from aglowd.grid.words import MAX_SAID_CHARS, quoted, shown

CHUNK_DOCS = 500
"""Documents in one request."""
CHUNK_DOCS_WITH_ATTACHMENTS = 5
MAX_ATTACHMENT_BYTES = 1 << 30
"""CouchDB's own limit, as it is installed (`max_attachment_size`)."""
MAX_COUNT = 2**53
"""No database has so many documents; below, a float is exact and the store can hold it."""
_JSON_PARAMS = frozenset({"key", "keys", "startkey", "endkey", "start_key", "end_key"})


class Info(Struct, frozen=True):
    """The database as a whole. `update_seq` is opaque."""

    instance_start_time: str
    doc_count: int
    update_seq: str


class Cursor(Struct, frozen=True):
    """Up to where a feed was read, and of which database: another start time means that it was restored or replaced."""

    url: str
    instance_start_time: str
    last_seq: str


class BulkRow(Struct, frozen=True):
    """What became of one document of a bulk write."""

    ok: bool
    rev: str | None = None
    error: str | None = None
    reason: str | None = None


class ViewRow(Struct, frozen=True):
    """A row of a view. `id` is None in a reduced one."""

    id: str | None
    key: Any
    value: Any
    doc: dict[str, Any] | None = None


class NotAdmin(Permanent):
    """The database lets us change no design documents."""


class Couchdb:
    """The verbs of one database."""

    def __init__(
        self, http: Http, site: Site, credential: Credential, url: str, database: str, *, by_cookie: bool = False
    ) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._session = CookieSession(http, site, credential, url) if by_cookie else None
        self._feed = Feed(self._ask_changes, self._stream_changes)
        self.url = f"{url.rstrip('/')}/{quote(database, safe='')}"
        self.database = database

    @seam
    async def info(self) -> Info:
        """The database's own state; absent when there is no such database."""
        answer = await self._read("GET", "", what="info")
        start = answer.get("instance_start_time", "")
        start = start if isinstance(start, str) else msgspec.json.encode(start).decode()
        return Info(start, count_of(answer.get("doc_count")), seq_text(answer.get("update_seq")))

    @seam
    async def get_docs(self, ids: Sequence[str], *, attachments: bool = False) -> dict[str, dict[str, Any] | None]:
        """The documents by id, None for those that do not exist or were deleted; attachments as base64 or as stubs."""
        docs: dict[str, dict[str, Any] | None] = {}
        params = {"include_docs": "true"} | ({"attachments": "true"} if attachments else {})
        for chunk in _chunks(list(dict.fromkeys(ids)), CHUNK_DOCS_WITH_ATTACHMENTS if attachments else CHUNK_DOCS):
            answer = await self._read("POST", "_all_docs", params=params, json={"keys": chunk}, what="_all_docs")
            rows = {row["key"]: row for row in _rows(answer, "_all_docs") if isinstance(row.get("key"), str)}
            for name in chunk:
                if name not in rows:
                    raise Temporary(f"PiCaS _all_docs: the answer says nothing about {name}")
                docs[name] = document_of(name, rows[name].get("doc"))
        return docs

    @seam
    async def list_deleted(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Those of the documents that existed once and were deleted."""
        gone: list[str] = []
        for chunk in _chunks(list(dict.fromkeys(ids)), CHUNK_DOCS):
            answer = await self._read("POST", "_all_docs", json={"keys": chunk}, what="_all_docs")
            for row in _rows(answer, "_all_docs"):
                value = row.get("value")
                if row.get("key") in chunk and isinstance(value, dict) and value.get("deleted") is True:
                    gone.append(row["key"])
        return tuple(gone)

    @seam
    async def bulk(self, docs: Sequence[dict[str, Any]]) -> dict[str, BulkRow]:
        """Write the documents; what became of each, by id. One that has `_deleted` is deleted.

        After the first chunk every error is Unknown: the chunks before it were written.
        """
        ids = [doc.get("_id") for doc in docs]
        if not all(isinstance(name, str) and name for name in ids) or len(set(ids)) < len(ids):
            raise Permanent("PiCaS _bulk_docs: found documents without an _id or with the same; expected one each")
        result: dict[str, BulkRow] = {}
        for chunk in _chunks(list(docs), CHUNK_DOCS):
            try:
                reply = await self._send("POST", "_bulk_docs", json={"docs": chunk}, write=True)
            except (Temporary, Permanent) as error:
                if result:
                    raise Unknown(f"{error}, after {len(result)} of {len(ids)} documents") from error
                raise
            rows = json_of(reply, "PiCaS _bulk_docs", write=True)
            found = {row["id"]: _bulk_row(row) for row in rows if _has_id(row)} if isinstance(rows, list) else {}
            silent = [doc["_id"] for doc in chunk if doc["_id"] not in found]
            if silent:
                raise Unknown(f"PiCaS _bulk_docs: no word about {silent[0]} and {len(silent) - 1} others")
            result.update(found)
        return result

    async def put_attachment(
        self, doc: str, rev: str, name: str, data: bytes | AsyncIterator[bytes], content_type: str
    ) -> str:
        """Attach a file to that revision; the new revision. A newer revision there is Permanent (409).

        What comes piece by piece is sent so. More than MAX_ATTACHMENT_BYTES are Permanent, or Unknown if some were sent.
        """
        path = f"{quoted_id(doc)}/{quoted_id(name)}"
        headers = {"Content-Type": content_type}
        if isinstance(data, bytes):
            if len(data) > MAX_ATTACHMENT_BYTES:
                raise Permanent(f"PiCaS attachment {name} of {doc}: it is longer than {MAX_ATTACHMENT_BYTES} bytes")
            headers["Content-MD5"] = _digest(hashlib.md5(data, usedforsecurity=False))
        else:
            data = _limited(data, f"PiCaS attachment {name} of {doc}")
        reply = await self._send("PUT", path, params={"rev": rev}, data=data, headers=headers, write=True)
        return _rev(reply, f"attachment {name} of {doc}")

    @seam
    async def get_attachment(self, doc: str, name: str) -> bytes:
        """A file's content, checked by its digest where the server tells that of what it sends; absent when the document
        or the file does not exist.

        CouchDB keeps texts compressed. Their ETag, and the digest in the document, are of what is kept, and say nothing here.
        """
        path = f"{quoted_id(doc)}/{quoted_id(name)}"
        reply = await self._send("GET", path, headers={"Accept-Encoding": "identity"}, write=False)
        _check_digest(reply, hashlib.md5(reply.body, usedforsecurity=False), f"PiCaS attachment {name} of {doc}")
        return reply.body

    async def pour_attachment(self, doc: str, name: str, sink: Sink) -> None:
        """As `get_attachment`, piece by piece, whatever its length. Only when it returns is what came the file."""
        md5 = hashlib.md5(usedforsecurity=False)

        async def take(block: bytes) -> None:
            md5.update(block)
            await sink(block)

        reply = await self._send("GET", f"{quoted_id(doc)}/{quoted_id(name)}", write=False, sink=take)
        _check_digest(reply, md5, f"PiCaS attachment {name} of {doc}")

    @seam
    async def ensure_design(self, name: str, doc: Mapping[str, Any]) -> None:
        """See to it that the design document says what `doc` says; views that others added to it stay.

        Nothing is written when it says so already. Another writer at the same moment is Temporary.
        """
        old = await self._find_doc(f"_design/{name}")
        there = (old or {}).get("views") or {}
        if not isinstance(there, dict):
            raise Permanent(
                f"PiCaS _design/{name}: found {shown(there)} as its views; expected an object; mend it there"
            )
        views = {**there, **(doc.get("views") or {})}
        new = {**(old or {}), **doc, "_id": f"_design/{name}", "views": views}
        if new == old:
            return
        await self._write_design("PUT", name, json=new)

    @seam
    async def delete_design(self, name: str) -> None:
        """See to it that the design document is gone."""
        old = await self._find_doc(f"_design/{name}")
        if old is not None:
            await self._write_design("DELETE", name, params={"rev": str(old.get("_rev"))})

    async def _write_design(self, method: str, name: str, **options: Any) -> None:
        """NotAdmin when our account may not, Temporary when somebody else was faster.

        CouchDB says 403 to an account that is no admin, pouchdb-server and CouchDB 1 say 401: that, too, is no word against
        the password, with which the document was read just now.
        """
        path = quoted_id(f"_design/{name}")
        reply = await self._send(method, path, write=True, ok=frozenset({401, 403, 409}), **options)
        if reply.status == 409:
            raise Temporary(f"PiCaS _design/{name} was changed by somebody else at the same moment")
        if reply.status in (401, 403):
            text = quoted(reply.body[:MAX_SAID_CHARS].decode("utf-8", "replace"), most=EXCERPT_CHARS)
            raise NotAdmin(
                f"PiCaS {method} _design/{name}: HTTP {reply.status}: {text}; expected an account that may change design documents"
            )
        _rev(reply, f"{method} _design/{name}")

    @seam
    async def query(
        self, design: str, view: str, *, params: Mapping[str, Any] | None = None, keys: Sequence[Any] | None = None
    ) -> list[ViewRow]:
        """The rows of a view; `keys` travel in the body, so there may be many. Absent when there is no such view."""
        path = f"_design/{quoted_id(design)}/_view/{quoted_id(view)}"
        options = {name: _param(name, value) for name, value in (params or {}).items()}
        method, body = ("GET", None) if keys is None else ("POST", {"keys": list(keys)})
        what = f"view {design}/{view}"
        answer = await self._read(method, path, params=options, json=body, what=what)
        return [_view_row(row) for row in _rows(answer, what) if "error" not in row]

    @seam
    async def changes(self, since: str | None, *, heartbeat_s: float = 10.0) -> AsyncIterator[Change | Heartbeat]:
        """What changes after the sequence `since` (None: from now on), for ever; close it (`aclosing`) when done with it.

        FeedReset when the sequence is not known there; Temporary when the feed breaks off or falls silent.
        """
        async with aclosing(self._feed.follow(since, heartbeat_s)) as feed:  # type: ignore[type-var] # an async generator
            async for told in feed:
                yield told

    @asynccontextmanager
    async def _stream_changes(
        self, *, params: Mapping[str, str], headers: Mapping[str, str], read_timeout_s: float
    ) -> AsyncIterator[Lines]:
        async with self._http.stream(
            "GET",
            f"{self.url}/_changes",
            site=self._site,
            credential=self._credential if self._session is None else None,
            params=params,
            headers={**headers, **(await self._session.headers() if self._session else {})},
            read_timeout_s=read_timeout_s,
        ) as lines:
            yield lines

    async def _ask_changes(
        self, *, params: Mapping[str, str], headers: Mapping[str, str], timeout_s: float | None
    ) -> Reply:
        return await self._send("GET", "_changes", write=False, params=params, headers=headers, timeout_s=timeout_s)

    async def _find_doc(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._read("GET", quoted_id(name), what=name)
        except Permanent as error:
            if error.absent:
                return None
            raise

    async def _read(
        self, method: str, path: str, *, what: str, params: Mapping[str, str] | None = None, json: Any = None
    ) -> dict[str, Any]:
        """A read whose answer is a JSON object."""
        reply = await self._send(method, path, params=params, json=json, write=False)
        answer = json_of(reply, f"PiCaS {what}", write=False)
        if not isinstance(answer, dict):
            raise Temporary(f"PiCaS {what}: the answer is not an object")
        return answer

    @seam
    async def _send(self, method: str, path: str, *, write: bool, **options: Any) -> Reply:
        url = f"{self.url}/{path}"
        if self._session is not None:
            return await self._session.request(method, url, write=write, **options)
        return await self._http.request(
            method, url, site=self._site, credential=self._credential, write=write, **options
        )


async def _limited(data: AsyncIterator[bytes], what: str) -> AsyncIterator[bytes]:
    left = MAX_ATTACHMENT_BYTES
    async for block in data:
        left -= len(block)
        if left < 0:
            raise Unknown(f"{what}: it is longer than {MAX_ATTACHMENT_BYTES} bytes")
        yield block


def _check_digest(reply: Reply, found: Any, what: str) -> None:
    told = reply.headers.get("content-md5")
    if told is not None and told != _digest(found):
        raise Temporary(f"{what}: found digest {_digest(found)}; expected {told[:40]}")


def _digest(md5: Any) -> str:
    return base64.b64encode(md5.digest()).decode()


def _rows(answer: Mapping[str, Any], what: str) -> Iterable[dict[str, Any]]:
    rows = answer.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Temporary(f"PiCaS {what}: the answer has no rows")
    return rows


def _bulk_row(row: Mapping[str, Any]) -> BulkRow:
    error, rev = row.get("error"), row.get("rev")
    if error is None and isinstance(rev, str):
        return BulkRow(ok=True, rev=rev)
    error = error if isinstance(error, str) else shown(error or "no_rev")
    reason = row.get("reason") or ""
    return BulkRow(ok=False, error=quoted(error), reason=quoted(reason if isinstance(reason, str) else shown(reason)))


def _view_row(row: Mapping[str, Any]) -> ViewRow:
    name, doc = row.get("id"), row.get("doc")
    return ViewRow(
        name if isinstance(name, str) else None,
        row.get("key"),
        row.get("value"),
        doc if isinstance(doc, dict) else None,
    )


def document_of(name: str, doc: Any) -> dict[str, Any] | None:
    """A document that has what every document has; None for one that does not exist or was deleted."""
    if not isinstance(doc, dict) or doc.get("_deleted"):
        return None
    attachments = doc.get("_attachments", {})
    if not isinstance(attachments, dict) or not all(isinstance(entry, dict) for entry in attachments.values()):
        raise Temporary(f"PiCaS _all_docs: the attachments of {name} are no objects")
    if doc.get("_id") != name or not isinstance(doc.get("_rev"), str):
        raise Temporary(f"PiCaS _all_docs: found another document, or none, in the place of {name}")
    return doc


def count_of(value: Any) -> int:
    """A number of documents; what is no such number is none."""
    return int(value) if isinstance(value, int | float) and 0 <= value <= MAX_COUNT else 0


def _has_id(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), str)


def _rev(reply: Reply, what: str) -> str:
    answer = json_of(reply, f"PiCaS {what}", write=True)
    rev = answer.get("rev") if isinstance(answer, dict) else None
    if not isinstance(rev, str):
        raise Unknown(f"PiCaS {what}: the answer has no revision")
    return rev


def quoted_id(name: str) -> str:
    """An id as a part of a path; the slash of `_design/` stays one, a plus sign must not become a blank."""
    prefix = "_design/" if name.startswith("_design/") else ""
    return prefix + quote(name.removeprefix(prefix), safe="")


def _param(name: str, value: Any) -> str:
    return value if isinstance(value, str) and name not in _JSON_PARAMS else msgspec.json.encode(value).decode()


def _chunks(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
