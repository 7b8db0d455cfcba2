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

from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, Reply, json_of
from aglowd.grid.picas_views import (
    DESIGN_DOC,
    DESIGN_NAME,
    STATES,
    STATES_VIEW,
    check_token_type,
    token_design_doc,
)

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
CHUNK_DOCS_WITH_ATTACHMENTS = 20
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

    async def info(self) -> Info:
        """The database's own state; absent when there is no such database."""
        answer = await self._read("GET", "", what="info")
        count = answer.get("doc_count")
        start = str(answer.get("instance_start_time", ""))
        return Info(start, count if isinstance(count, int) else 0, _seq(answer.get("update_seq")))

    async def get_docs(self, ids: Sequence[str], *, attachments: bool = False) -> dict[str, dict[str, Any] | None]:
        """The documents by id, None for those that do not exist or were deleted; attachments as base64 or as stubs."""
        docs: dict[str, dict[str, Any] | None] = {}
        params = {"include_docs": "true"} | ({"attachments": "true"} if attachments else {})
        for chunk in _chunks(list(dict.fromkeys(ids)), CHUNK_DOCS_WITH_ATTACHMENTS if attachments else CHUNK_DOCS):
            answer = await self._read("POST", "_all_docs", params=params, json={"keys": chunk}, what="_all_docs")
            rows = {row.get("key"): row for row in _rows(answer, "_all_docs")}
            for name in chunk:
                if name not in rows:
                    raise Temporary(f"PiCaS _all_docs: the answer says nothing about {name}")
                doc = rows[name].get("doc")
                docs[name] = doc if isinstance(doc, dict) and not doc.get("_deleted") else None
        return docs

    async def bulk(self, docs: Sequence[dict[str, Any]]) -> dict[str, BulkRow]:
        """Write the documents; what became of each, by id. One that has `_deleted` is deleted.

        An Unknown or Temporary after the first chunk says nothing of the chunks before it: read the documents.
        """
        ids = [doc.get("_id") for doc in docs]
        if not all(isinstance(name, str) and name for name in ids) or len(set(ids)) < len(ids):
            raise Permanent("PiCaS _bulk_docs: found documents without an _id or with the same; expected one each")
        result: dict[str, BulkRow] = {}
        for chunk in _chunks(list(docs), CHUNK_DOCS):
            reply = await self._send("POST", "_bulk_docs", json={"docs": chunk}, write=True)
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

    async def ensure_design(self, name: str, doc: Mapping[str, Any]) -> None:
        """See to it that the design document says what `doc` says; views that others added to it stay.

        Nothing is written when it says so already. Another writer at the same moment is Temporary.
        """
        old = await self._find_doc(f"_design/{name}")
        views = {**((old or {}).get("views") or {}), **(doc.get("views") or {})}
        new = {**(old or {}), **doc, "_id": f"_design/{name}", "views": views}
        if new == old:
            return
        try:
            await self._send("PUT", _quoted(f"_design/{name}"), json=new, write=True)
        except Permanent as error:
            if "HTTP 409" in str(error):
                raise Temporary(f"PiCaS _design/{name} was changed by somebody else at the same moment") from error
            raise

    async def delete_design(self, name: str) -> None:
        """See to it that the design document is gone."""
        old = await self._find_doc(f"_design/{name}")
        if old is not None:
            await self._send("DELETE", _quoted(f"_design/{name}"), params={"rev": str(old.get("_rev"))}, write=True)

    async def query(
        self, design: str, view: str, *, params: Mapping[str, Any] | None = None, keys: Sequence[Any] | None = None
    ) -> list[ViewRow]:
        """The rows of a view; `keys` travel in the body, so there may be many. Absent when there is no such view."""
        path = f"_design/{_quoted(design)}/_view/{_quoted(view)}"
        options = {name: _param(name, value) for name, value in (params or {}).items()}
        method, body = ("GET", None) if keys is None else ("POST", {"keys": list(keys)})
        what = f"view {design}/{view}"
        answer = await self._read(method, path, params=options, json=body, what=what)
        return [
            ViewRow(row.get("id"), row.get("key"), row.get("value"), row.get("doc"))
            for row in _rows(answer, what)
            if "error" not in row
        ]

    async def count_tokens(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Token type → state → how many, with zeros, in one query; every token is in exactly one of STATES."""
        counts = {name: dict.fromkeys(STATES, 0) for name in types}
        if counts:
            keys = [[name, state] for name in counts for state in STATES]
            for row in await self.query(DESIGN_NAME, STATES_VIEW, params={"group": True}, keys=keys):
                match row.key:
                    case [str(name), str(state)] if name in counts and state in STATES:
                        counts[name][state] = int(row.value) if isinstance(row.value, int | float) else 0
        return counts

    async def list_ids(self, token_type: str) -> tuple[str, ...]:
        """The ids of all tokens of that type, sorted."""
        params = {"reduce": False, "startkey": [token_type], "endkey": [token_type, {}]}
        rows = await self.query(DESIGN_NAME, STATES_VIEW, params=params)
        return tuple(sorted(row.id for row in rows if row.id is not None))

    async def types_of(self, ids: Sequence[str]) -> dict[str, str]:
        """The token types of documents whose ids do not tell them; what does not exist or is no token is left out."""
        docs = await self.get_docs(ids)
        return {name: doc["type"] for name, doc in docs.items() if doc and isinstance(doc.get("type"), str)}

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
    return Temporary(f"PiCaS _changes: {str(row.get('error'))[:100]}: {str(row.get('reason'))[:200]}")


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
    return BulkRow(ok=False, error=str(error or "no_rev"), reason=str(row.get("reason") or ""))


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
