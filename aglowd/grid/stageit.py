"""StageIT, the LTA's stager of today: requests are made by REST and read by GraphQL.

What must stay true: as with the legacy stager, what it answers is taken leniently and silence is never success. Its
"online" is what a request once brought online, a hint. Errors of a query come with HTTP 200, so no answer is an answer
before its `errors` were read. Every path ends in a slash: without it a redirect would lose what is posted.
Endpoints, fields and codes: `stager_proxy.py` and `stager_access.py` of lotaas_pipeline (lofar_stager_api 2.0).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, json_of
from aglowd.grid.lta import STAGE_TIMEOUT_S, integer, refusal, word
from aglowd.grid.stager import Progress, Request, listed
from aglowd.grid.words import quoted, shown

HORIZON_S = 60 * 86_400.0
"""World seconds: a request made before has ended and lost its pins, and is not asked for among the others."""
PAGE_REQUESTS = 50
"""Requests in one page of the list; graphene-django refuses more than 100, and each repeats its SURLs."""
MAX_PAGES = 40
"""Pages of the list; what is beyond cannot be told from what is gone, so a longer list is no answer."""
MAX_ANSWER_BYTES = 32 << 20
"""A page of requests of a thousand files each takes 15 MB."""
CODES: Mapping[str, str] = {"s": "scheduled", "c": "success", "a": "aborted"}
"""The codes that were ever seen; others are told as they come."""

_STATUS = "id currentStatus currentStatusCode"
_PROGRESS = f"{_STATUS} response surls{{surl}}"

T = TypeVar("T")


class Macaroon(Struct, frozen=True):
    """What opens the request's files at one site; `site` as StageIT names it, `valid_until` world seconds if readable."""

    site: str
    content: str
    valid_until: float | None

    def __repr__(self) -> str:
        return f"Macaroon(site={self.site!r}, valid_until={self.valid_until!r})"


class StageIt:
    """The stager's verbs; `url` is the base, .../stageit/api/staging. The credential's scheme is `Token`."""

    def __init__(
        self, http: Http, site: Site, credential: Credential, url: str, clock: Clock, *, horizon_s: float = HORIZON_S
    ) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._url = url.rstrip("/")
        self._clock = clock
        self._horizon_s = horizon_s

    @seam
    async def stage(self, surls: Sequence[str]) -> int:
        """Ask for the files; the id of the new request."""
        body = {"surls": listed(surls), "notify": False, "request_type": "stage"}
        answer = await self._rest("POST", "requests/", body, write=True)
        number = integer(answer.get("id")) if isinstance(answer, Mapping) else None
        if number is None:
            raise Unknown(f"StageIT requests: found {self._quoted(shown(answer))}; expected a request with its id")
        return number

    @seam
    async def progress(self) -> dict[Request, Progress]:
        """All requests of ours that are not older than the horizon, a page for each call."""
        since = datetime.fromtimestamp(max(0.0, self._clock.now() - self._horizon_s), UTC).isoformat()
        found: dict[Request, Progress] = {}
        after = ""
        for _ in range(MAX_PAGES):
            page = f"requests(first: {PAGE_REQUESTS}{after}, when_Gte: {_literal(since)})"
            requests, cursor = await self._query(
                f"query {{ {page} {{ pageInfo{{hasNextPage endCursor}} edges{{node{{{_PROGRESS}}}}} }} }}", _page
            )
            found.update(requests)
            if cursor is None:
                return found
            before, after = after, f", after: {_literal(cursor)}"
            if after == before:
                break
        raise Temporary(f"StageIT requests: the list has no end after {MAX_PAGES} pages or turns in a circle")

    @seam
    async def status(self, request: Request) -> str:
        """The request's status in lower case, empty when the stager does not know it."""
        return await self._ask(request, _STATUS, _status) or ""

    @seam
    async def requested(self, request: Request) -> tuple[str, ...]:
        """The SURLs that it is for, none if the stager does not know it."""
        return await self._ask(request, "id surls{surl}", lambda node: _told(_surls(node), "surls")) or ()

    async def staged(self, request: Request) -> tuple[str, ...]:
        """The request's SURLs that came online, also while it goes on; none when the stager does not know it."""
        return await self._ask(request, "id response", lambda node: _told(_online(node), "response")) or ()

    @seam
    async def abort(self, request: Request) -> None:
        """Stop a running request or release what a finished one holds; absent when the stager does not know it."""
        await self._rest("PUT", f"requests/{_number(request)}/abort/", {}, write=True)

    async def reschedule(self, request: Request) -> None:
        """Put a request that was aborted back in the queue."""
        await self._rest("PATCH", f"requests/{_number(request)}/", {"current_status_code": "S"}, write=True)

    async def macaroons(self, request: Request) -> tuple[Macaroon, ...]:
        """What opens the request's files, one for each site; none when the stager does not know it, or not yet."""
        fields = "id macaroons{content validUntil ltaSite{name}}"
        return await self._ask(request, fields, _macaroons) or ()

    async def webdav_urls(self, request: Request) -> tuple[str, ...]:
        """Where WebDAV has the request's files; absent when the stager does not know it."""
        answer = await self._rest("GET", f"requests/{_number(request)}/convert2webdav/", None, write=False)
        if not isinstance(answer, list):
            raise Temporary(f"StageIT convert2webdav: found {self._quoted(shown(answer))}; expected a list of URLs")
        return _texts(answer)

    # --- transport

    async def _rest(self, method: str, path: str, body: Any, *, write: bool) -> Any:
        """The answer to one REST request; None when it is empty, as that of an abort is."""
        reply = await self._http.request(
            method,
            f"{self._url}/{path}",
            site=self._site,
            credential=self._credential,
            write=write,
            json=body,
            timeout_s=STAGE_TIMEOUT_S if method == "POST" else None,
            max_body_bytes=MAX_ANSWER_BYTES,
        )
        is_told = method in ("POST", "GET")
        return await asyncio.to_thread(json_of, reply, f"StageIT {path}", write=write) if is_told else None

    async def _ask(self, request: Request, fields: str, read: Callable[[Mapping[str, Any]], T]) -> T | None:
        """A read about one request; None when the stager does not know it."""
        try:
            return await self._query(
                f"query {{ request(id: {_number(request)}) {{ {fields} }} }}",
                lambda data: read(data["request"]) if isinstance(data.get("request"), Mapping) else None,
            )
        except Permanent as error:
            if error.absent:
                return None
            raise

    async def _query(self, text: str, read: Callable[[Mapping[str, Any]], T]) -> T:
        """What `read` makes of the data; an answer of many megabytes is taken apart beside the loop."""
        reply = await self._http.request(
            "POST",
            f"{self._url}/graphql/",
            site=self._site,
            credential=self._credential,
            write=False,
            json={"query": text},
            max_body_bytes=MAX_ANSWER_BYTES,
        )

        def taken_apart() -> T:
            answer = json_of(reply, "StageIT graphql", write=False)
            errors, data = (answer.get("errors"), answer.get("data")) if isinstance(answer, Mapping) else (None, None)
            if errors:
                said = self._quoted(*_messages(errors))
                raise refusal(said, f"StageIT graphql: {said}", write=False)
            if not isinstance(data, Mapping):
                raise Temporary(f"StageIT graphql: found {self._quoted(shown(answer))}; expected data")
            return read(data)

        return await asyncio.to_thread(taken_apart)

    def _quoted(self, *said: str) -> str:
        return quoted(*map(self._credential.redact, said))


# --- what the answers mean


def _number(request: Request) -> int:
    """The id as it stands in a path or a query; a name that is no number is none of StageIT's requests."""
    number = integer(request)
    if number is None:
        raise Permanent(f"StageIT: found {shown(request)}; expected a request's number", absent=True)
    return number


def _literal(text: str) -> str:
    """The text inside a query; GraphQL escapes as JSON does."""
    return msgspec.json.encode(text).decode()


def _messages(errors: Any) -> list[str]:
    listed = errors if isinstance(errors, list) else [errors]
    found = (one.get("message") if isinstance(one, Mapping) else one for one in listed[:10])
    return [one if isinstance(one, str) else shown(one) for one in found]


def _page(data: Mapping[str, Any]) -> tuple[dict[Request, Progress], str | None]:
    """The requests of one page, and the cursor of the next one if there is one."""
    page = data.get("requests")
    edges, info = (page.get("edges"), page.get("pageInfo")) if isinstance(page, Mapping) else (None, None)
    goes_on = info.get("hasNextPage") if isinstance(info, Mapping) else None
    cursor = info.get("endCursor") if isinstance(info, Mapping) and goes_on else None
    if not isinstance(edges, list) or not isinstance(goes_on, bool) or (goes_on and not isinstance(cursor, str)):
        raise Temporary("StageIT requests: the answer is no page of requests")
    nodes = (edge.get("node") for edge in edges if isinstance(edge, Mapping))
    numbered = ((integer(node.get("id")), node) for node in nodes if isinstance(node, Mapping))
    return {number: _progress(node) for number, node in numbered if number is not None}, cursor


def _progress(node: Mapping[str, Any]) -> Progress:
    surls, online = _surls(node), _online(node)
    count = len(surls) if surls is not None else None
    done = len(online) if online is not None else None
    percent = 100.0 * done / count if count and done is not None else None
    return Progress(_status(node), count, done, percent)


def _status(node: Mapping[str, Any]) -> str:
    """The text, or what its code means where there is none."""
    code = word(node.get("currentStatusCode"))
    return " ".join(word(node.get("currentStatus")).replace("_", " ").split()) or CODES.get(code, code)


def _surls(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The files that it is for; None where that cannot be read."""
    listed = node.get("surls")
    if not isinstance(listed, list):
        return None
    return _texts([one.get("surl") if isinstance(one, Mapping) else one for one in listed])


def _online(node: Mapping[str, Any]) -> tuple[str, ...] | None:
    """What its `response` says is online: a JSON document in a text, empty early in life; None where it is broken."""
    response = node.get("response")
    if response is None or (isinstance(response, str) and not response.strip()):
        return ()
    try:
        document = msgspec.json.decode(response) if isinstance(response, str) else response
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    listed = document.get("online", []) if isinstance(document, Mapping) else None
    return _texts(listed) if isinstance(listed, list) else None


def _told(found: tuple[str, ...] | None, field: str) -> tuple[str, ...]:
    """What was found; a field that cannot be read is no answer, because none at all would be one."""
    if found is None:
        raise Temporary(f"StageIT request: its {field} cannot be read")
    return found


def _macaroons(node: Mapping[str, Any]) -> tuple[Macaroon, ...]:
    listed = node.get("macaroons")
    found = []
    for one in listed if isinstance(listed, list) else ():
        content = one.get("content") if isinstance(one, Mapping) else None
        if isinstance(content, str) and content.strip():
            site = one.get("ltaSite")
            name = site.get("name") if isinstance(site, Mapping) else None
            found.append(Macaroon(name if isinstance(name, str) else "", content.strip(), _time(one.get("validUntil"))))
    return tuple(found)


def _time(text: Any) -> float | None:
    """ISO text as world seconds; without a zone it is taken for UTC."""
    try:
        found = datetime.fromisoformat(text.strip()) if isinstance(text, str) else None
        return None if found is None else (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _texts(listed: list[Any]) -> tuple[str, ...]:
    """The texts among them, each once."""
    return tuple(dict.fromkeys(one.strip() for one in listed if isinstance(one, str)))
