"""The `_changes` feeds: what changed since a sequence, once, when something comes (longpoll), or for ever (continuous).

Only the latest revision of a document is ever told, so a slow reader sees fewer changes, never wrong ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
from aiohttp import web

from aglowd.sim.couchrequest import whole_number
from aglowd.sim.couchstore import Body, Database, Doc, bad_request

TIMEOUT_MS = 60_000
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Feed:
    """One reader's wishes; times are real milliseconds, as in CouchDB."""

    kind: str
    since: int
    limit: int | None
    include_docs: bool
    heartbeat_ms: int | None
    timeout_ms: int


def read_feed(options: dict[str, Any], headers: Mapping[str, str], database: Database) -> Feed:
    """The options of a `_changes` request; a malformed `since` is a 400."""
    kind = options.get("feed", "normal")
    if kind not in ("normal", "longpoll", "continuous"):
        raise bad_request(f"feed={kind} is not known here")
    if "filter" in options:
        raise bad_request(f"filter={options['filter']} is not known here")
    beat = options.get("heartbeat")
    beat_ms = None if str(beat).lower() == "true" else whole_number(options, "heartbeat")
    if beat_ms == 0:
        raise bad_request("The heartbeat value should be a positive integer (in milliseconds).")
    timeout_ms = whole_number(options, "timeout")
    since = str(options.get("since", headers.get("Last-Event-ID", "0")))
    return Feed(
        kind=kind,
        since=database.parse_seq(since),
        limit=whole_number(options, "limit"),
        include_docs=str(options.get("include_docs")).lower() == "true",
        heartbeat_ms=TIMEOUT_MS if str(beat).lower() == "true" else beat_ms,
        timeout_ms=TIMEOUT_MS if timeout_ms is None else min(timeout_ms, TIMEOUT_MS),
    )


def change(database: Database, doc: Doc, feed: Feed) -> Body:
    row: Body = {"seq": database.seq_text(doc.seq), "id": doc.id, "changes": [{"rev": doc.rev}]}
    if doc.deleted:
        row["deleted"] = True
    if feed.include_docs:
        row["doc"] = doc.body()
    return row


async def collect(database: Database, feed: Feed) -> Body:
    """The answer to a normal feed at once, to a longpoll when something changed or its time is up."""
    changed = database.add_waiter()
    try:
        docs = list(islice(database.changed_since(feed.since), feed.limit))
        if not docs and feed.kind == "longpoll":
            with suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), feed.timeout_ms / 1000)
            docs = list(islice(database.changed_since(feed.since), feed.limit))
    finally:
        database.drop_waiter(changed)
    last = docs[-1].seq if docs and feed.limit is not None else database.seq
    rows = [change(database, doc, feed) for doc in docs]
    return {"results": rows, "last_seq": database.seq_text(last), "pending": database.pending(last)}


async def stream(request: web.Request, database: Database, feed: Feed) -> web.StreamResponse:
    """Write a line a change until the reader goes, its limit is reached, or nothing came for `timeout`."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Server": "CouchDB/3.5.0 (simulated)"})
    await response.prepare(request)
    changed = database.add_waiter()
    at, left = feed.since, feed.limit
    wait_s = (feed.heartbeat_ms or feed.timeout_ms) / 1000
    began = database.instance_start_time
    try:
        while left is None or left > 0:
            changed.clear()
            if database.instance_start_time != began:
                if request.transport is not None:
                    request.transport.abort()  # The server that held this feed is no more.
                break
            docs = list(islice(database.changed_since(at), left))
            if docs:
                lines = b"".join(_encode(change(database, doc, feed)) + b"\n" for doc in docs)
                at, left = docs[-1].seq, None if left is None else left - len(docs)
                await response.write(lines)
                continue
            try:
                await asyncio.wait_for(changed.wait(), wait_s)
            except TimeoutError:
                if feed.heartbeat_ms is None:
                    break
                await response.write(b"\n")
        end = {"last_seq": database.seq_text(at), "pending": database.pending(at)}
        await response.write(_encode(end) + b"\n")
    except ConnectionResetError:
        pass  # The reader went away, which is how continuous feeds end.
    finally:
        database.drop_waiter(changed)
    return response
