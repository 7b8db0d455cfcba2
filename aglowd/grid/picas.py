"""PiCaS, the token database: CouchDB over HTTP.

What must stay true: every row of a `_bulk_docs` answer is looked at (the status is 201 whatever became of them), a
revision travels as `?rev=` (pouchdb-server ignores If-Match), sequences are opaque texts that nobody compares, and the
continuous feed asks for `Accept-Encoding: identity`, because a compressing server holds its lines back for ever.
A feed tells at least once, and only the latest revision; who reads it looks again at what changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, Reply, json_of
from aglowd.grid.picas_views import (
    DESIGN_DOC,
    DESIGN_NAME,
    OWNERS_VIEW,
    STATES,
    STATES_VIEW,
    check_token_type,
    token_design_doc,
)
from aglowd.grid.words import quoted, shown

__all__ = [
    "DESIGN_DOC",
    "STATES",
    "BulkRow",
    "Change",
    "Cursor",
    "FeedReset",
    "Heartbeat",
    "Info",
    "Picas",
    "ViewRow",
    "check_token_type",
    "token_design_doc",
]

CHUNK_DOCS = 500
"""Documents in one request."""
CHUNK_DOCS_WITH_ATTACHMENTS = 20
MAX_COUNT = 2**53
"""No database has so many documents; below, a float is exact and the store can hold it."""
SILENT_BEATS = 3
"""A feed that misses so many heartbeats is taken for dead."""
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


class Change(Struct, frozen=True):
    """A document changed. `type` is what its id says: the text before the first colon, None when there is no colon."""

    id: str
    seq: str
    type: str | None
    deleted: bool


class Heartbeat(Struct, frozen=True):
    """Nothing changed, and the feed lives."""


class FeedReset(Temporary):
    """The database does not know our sequence any more: read everything again and begin from now."""


class Picas:
    """The verbs of one database. Token types are checked where they become part of JavaScript."""

    def __init__(self, http: Http, site: Site, credential: Credential, url: str, database: str) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self.url = f"{url.rstrip('/')}/{quote(database, safe='')}"
        self.database = database

    @seam
    async def info(self) -> Info:
        """The database's own state; absent when there is no such database."""
        answer = await self._read("GET", "", what="info")
        start = answer.get("instance_start_time", "")
        start = start if isinstance(start, str) else msgspec.json.encode(start).decode()
        return Info(start, _count(answer.get("doc_count")), _seq(answer.get("update_seq")))

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
                docs[name] = _document(name, rows[name].get("doc"))
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

    async def put_attachment(self, doc: str, rev: str, name: str, data: bytes, content_type: str) -> str:
        """Attach a file to that revision; the new revision. A newer revision there is Permanent (409)."""
        path = f"{_quoted(doc)}/{_quoted(name)}"
        headers = {"Content-Type": content_type}
        reply = await self._send("PUT", path, params={"rev": rev}, data=data, headers=headers, write=True)
        return _rev(reply, f"attachment {name} of {doc}")

    async def get_attachment(self, doc: str, name: str) -> bytes:
        """A file's content; absent when the document or the file does not exist."""
        return (await self._send("GET", f"{_quoted(doc)}/{_quoted(name)}", write=False)).body

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
        try:
            reply = await self._send("PUT", _quoted(f"_design/{name}"), json=new, write=True)
        except Permanent as error:
            if "HTTP 409" in str(error):
                raise Temporary(f"PiCaS _design/{name} was changed by somebody else at the same moment") from error
            raise
        _rev(reply, f"_design/{name}")

    @seam
    async def delete_design(self, name: str) -> None:
        """See to it that the design document is gone."""
        old = await self._find_doc(f"_design/{name}")
        if old is not None:
            params = {"rev": str(old.get("_rev"))}
            reply = await self._send("DELETE", _quoted(f"_design/{name}"), params=params, write=True)
            _rev(reply, f"the deletion of _design/{name}")

    @seam
    async def query(
        self, design: str, view: str, *, params: Mapping[str, Any] | None = None, keys: Sequence[Any] | None = None
    ) -> list[ViewRow]:
        """The rows of a view; `keys` travel in the body, so there may be many. Absent when there is no such view."""
        path = f"_design/{_quoted(design)}/_view/{_quoted(view)}"
        options = {name: _param(name, value) for name, value in (params or {}).items()}
        method, body = ("GET", None) if keys is None else ("POST", {"keys": list(keys)})
        what = f"view {design}/{view}"
        answer = await self._read(method, path, params=options, json=body, what=what)
        return [_view_row(row) for row in _rows(answer, what) if "error" not in row]

    @seam
    async def count_tokens(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Token type → state → how many, with zeros, in one query; every token is in exactly one of STATES."""
        counts = {name: dict.fromkeys(STATES, 0) for name in types}
        if counts:
            keys = [[name, state] for name in counts for state in STATES]
            for row in await self.query(DESIGN_NAME, STATES_VIEW, params={"group": True}, keys=keys):
                match row.key:
                    case [str(name), str(state)] if name in counts and state in STATES:
                        counts[name][state] = _count(row.value)
        return counts

    @seam
    async def count_owners(self) -> dict[str, int]:
        """The key of the effect that made them → how many tokens there are; those of others are not counted."""
        rows = await self.query(DESIGN_NAME, OWNERS_VIEW, params={"group": True})
        return {str(row.key): int(row.value) for row in rows if isinstance(row.value, int | float)}

    @seam
    async def list_ids(self, token_type: str) -> tuple[str, ...]:
        """The ids of all tokens of that type, sorted."""
        params = {"reduce": False, "startkey": [token_type], "endkey": [token_type, {}]}
        rows = await self.query(DESIGN_NAME, STATES_VIEW, params=params)
        return tuple(sorted(row.id for row in rows if row.id is not None))

    async def types_of(self, ids: Sequence[str]) -> dict[str, str]:
        """The token types of documents whose ids do not tell them; what does not exist or is no token is left out."""
        docs = await self.get_docs(ids)
        return {name: doc["type"] for name, doc in docs.items() if doc and isinstance(doc.get("type"), str)}

    @seam
    async def changes(self, since: str | None, *, heartbeat_s: float = 10.0) -> AsyncIterator[Change | Heartbeat]:
        """What changes after the sequence `since` (None: from now on), for ever; `heartbeat_s` is in real seconds.

        Close it (`aclosing`) when done with it. Raises FeedReset when the sequence is not known there, and Temporary
        when the feed breaks off or falls silent.
        """
        params = {
            "feed": "continuous",
            "heartbeat": str(max(1, int(heartbeat_s * 1000))),
            "since": "now" if since is None else since,
        }
        opened = self._http.stream(
            "GET",
            f"{self.url}/_changes",
            site=self._site,
            credential=self._credential,
            params=params,
            headers={"Accept-Encoding": "identity"},
            read_timeout_s=SILENT_BEATS * heartbeat_s,
        )
        try:
            async with opened as lines:
                async for line in lines:
                    if not line.strip():
                        yield Heartbeat()
                    elif (change := _change(line)) is not None:
                        yield change
        except Permanent as error:
            raise FeedReset(f"PiCaS _changes: sequence {params['since'][:40]} is not known: {error}") from error
        raise Temporary("PiCaS _changes: the server ended the feed")

    async def _find_doc(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._read("GET", _quoted(name), what=name)
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
        return await self._http.request(
            method, f"{self.url}/{path}", site=self._site, credential=self._credential, write=write, **options
        )


def _change(line: bytes) -> Change | None:
    """A line of the feed; None for its last, which only repeats the sequence. Raises OutsideError."""
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Temporary(f"PiCaS _changes: a line is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise Temporary("PiCaS _changes: a line is not an object")
    name = row.get("id")
    if not isinstance(name, str):
        if "last_seq" in row:
            return None
        raise _feed_error(row)
    kind, colon, _ = name.partition(":")
    return Change(name, _seq(row.get("seq")), kind if colon else None, row.get("deleted") is True)


def _feed_error(row: dict[str, Any]) -> OutsideError:
    return Temporary(f"PiCaS _changes: {shown(row.get('error'))}: {shown(row.get('reason'), 200)}")


def _seq(value: Any) -> str:
    """A sequence as text: a string in CouchDB, a number in pouchdb-server, once an array in BigCouch."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


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


def _document(name: str, doc: Any) -> dict[str, Any] | None:
    """A document that has what every document has; None for one that does not exist or was deleted."""
    if not isinstance(doc, dict) or doc.get("_deleted"):
        return None
    attachments = doc.get("_attachments", {})
    if not isinstance(attachments, dict) or not all(isinstance(entry, dict) for entry in attachments.values()):
        raise Temporary(f"PiCaS _all_docs: the attachments of {name} are no objects")
    if doc.get("_id") != name or not isinstance(doc.get("_rev"), str):
        raise Temporary(f"PiCaS _all_docs: found another document, or none, in the place of {name}")
    return doc


def _count(value: Any) -> int:
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


def _quoted(name: str) -> str:
    """An id as a part of a path; the slash of `_design/` stays one, a plus sign must not become a blank."""
    prefix = "_design/" if name.startswith("_design/") else ""
    return prefix + quote(name.removeprefix(prefix), safe="")


def _param(name: str, value: Any) -> str:
    return value if isinstance(value, str) and name not in _JSON_PARAMS else msgspec.json.encode(value).decode()


def _chunks(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
