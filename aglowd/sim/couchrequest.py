"""CouchDB's requests and answers: options in, JSON out, in its words. No state, and nothing of the documents' rules."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from aglowd.sim.couchstore import Attachment, Body, CouchError, Database, Doc, bad_request
from aglowd.sim.couchviews import Query

BODY_MAX_BYTES = 64 << 20
GROUP_ALL = 1 << 30
_encode = msgspec.json.Encoder().encode


async def verb_of(request: web.Request) -> str:
    """What a request asks for, for the fault plan: `bulk_docs`, `all_docs`, `changes`, `view`, `design`, `doc`, `info`."""
    parts = request.path.split("/")[2:]
    if not parts or parts == [""]:
        return "info"
    if parts[0] == "_design":
        return "view" if "_view" in parts else "design"
    return parts[0].removeprefix("_") if parts[0].startswith("_") else "doc"


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    base = {"Server": "CouchDB/3.5.0 (simulated)", "Cache-Control": "must-revalidate"}
    return web.Response(
        body=_encode(body) + b"\n", status=status, content_type="application/json", headers=base | (headers or {})
    )


def written(doc: Doc, status: int) -> web.Response:
    return answer({"ok": True, "id": doc.id, "rev": doc.rev}, status, {"ETag": f'"{doc.rev}"'})


def sent(part: Attachment, request: web.Request) -> web.Response:
    """An attachment as it is kept if the client takes that, else as it was; Content-MD5 only with what is kept."""
    headers = {"ETag": f'"{part.digest.removeprefix("md5-")}"', "Content-Type": part.content_type}
    as_kept = not part.is_compressed or "gzip" in request.headers.get("Accept-Encoding", "")
    if as_kept:
        headers["Content-MD5"] = part.digest.removeprefix("md5-")
    if not part.is_compressed:
        headers["Accept-Ranges"] = "bytes"
        wanted = request.http_range
        if wanted.start is not None or wanted.stop is not None:
            start, stop, _ = wanted.indices(len(part.data))
            if start >= stop:
                raise CouchError(416, "requested_range_not_satisfiable", "Requested range not satisfiable")
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(part.data)}"
            return web.Response(status=206, body=part.data[start:stop], headers=headers)
        return web.Response(body=part.data, headers=headers)
    if as_kept:
        headers["Content-Encoding"] = "gzip"
    return web.Response(body=part.stored if as_kept else part.data, headers=headers)


def whole_number(options: dict[str, Any], name: str) -> int | None:
    """The option as a number of 0 or more, None when it is not given."""
    if name not in options:
        return None
    text = str(options[name])
    if not (text.isascii() and text.isdigit()):
        raise bad_request(f"Invalid value for {name}: {text[:40]!r}", "query_parse_error")
    return int(text)


def decode_object(body: bytes) -> Body:
    if len(body) > BODY_MAX_BYTES:
        raise CouchError(413, "too_large", "the request entity is too large")
    try:
        decoded = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise bad_request("invalid UTF-8 JSON") from error
    if not isinstance(decoded, dict):
        raise bad_request("Document must be a JSON object")
    return decoded


def read_rev(request: web.Request) -> str | None:
    """The revision that the query or If-Match names."""
    return request.query.get("rev") or request.headers.get("If-Match", "").strip('"') or None


async def read_options(request: web.Request) -> dict[str, Any]:
    """The query's options; those of a POST body win."""
    options: dict[str, Any] = dict(request.query)
    if request.method == "POST":
        body = await request.read()
        options |= decode_object(body) if body.strip() else {}
    elif request.method not in ("GET", "HEAD"):
        raise CouchError(405, "method_not_allowed", "Only GET,HEAD,POST allowed")
    return options


def _json(options: dict[str, Any], name: str) -> tuple[Any, ...]:
    """The option as a tuple of its JSON value, empty when it is not given (null is a value)."""
    if name not in options:
        return ()
    value = options[name]
    if not isinstance(value, str):
        return (value,)
    try:
        return (msgspec.json.decode(value),)
    except msgspec.DecodeError as error:
        raise bad_request("invalid UTF-8 JSON") from error


def read_query(options: dict[str, Any]) -> Query:
    """A view's or _all_docs' options; in a POST body, keys are JSON already."""
    body = {name: _json(options, name) for name in options if name not in ("key", "startkey", "endkey")}
    plain = {name: value[0] for name, value in body.items() if name in _PLAIN and value}
    key = _json(options, "key")
    start = _json(options, "startkey") or _json(options, "start_key")
    end = _json(options, "endkey") or _json(options, "end_key")
    group_level = plain.get("group_level") or (GROUP_ALL if plain.get("group") else None)
    keys = plain.get("keys")
    if keys is not None and not isinstance(keys, list):
        raise bad_request("`keys` member must be an array.")
    return Query(
        keys=None if keys is None else tuple(keys),
        start=key or start,
        end=key or end,
        inclusive_end=plain.get("inclusive_end", True),
        descending=plain.get("descending", False),
        limit=plain.get("limit"),
        skip=plain.get("skip", 0),
        reduce=plain.get("reduce"),
        group_level=group_level,
        include_docs=plain.get("include_docs", False),
    )


_PLAIN = frozenset(
    {"keys", "limit", "skip", "reduce", "group", "group_level", "include_docs", "descending", "inclusive_end"}
)


def id_range(ids: list[str], query: Query) -> tuple[int, int]:
    low_key, high_key = (query.end, query.start) if query.descending else (query.start, query.end)
    low = next((at for at, doc_id in enumerate(ids) if doc_id >= low_key[0]), len(ids)) if low_key else 0
    high = len(ids)
    if high_key:
        high = next((at for at, doc_id in enumerate(ids) if doc_id > high_key[0]), len(ids))
        if not query.inclusive_end and high and ids[high - 1] == high_key[0]:
            high -= 1
    return low, high


def doc_row(doc: Doc, query: Query, *, inline: bool) -> Body:
    row: Body = {"id": doc.id, "key": doc.id, "value": {"rev": doc.rev}}
    if doc.deleted:
        row["value"]["deleted"] = True
    if query.include_docs:
        row["doc"] = None if doc.deleted else doc.body(inline=inline)
    return row


def row_by_key(database: Database, key: Any, query: Query, *, inline: bool) -> Body:
    doc = database.docs.get(key) if isinstance(key, str) else None
    return {"key": key, "error": "not_found"} if doc is None else doc_row(doc, query, inline=inline)
