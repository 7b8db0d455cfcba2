"""StageIT, the LTA's stager of today: requests are made by REST and read by GraphQL.

What must stay true: as with the legacy stager, what it answers is taken leniently and silence is never success. Its
"online" is what a request once brought online, a hint. Errors of a query come with HTTP 200, so no answer is an answer
before its `errors` were read. Every path ends in a slash: without it a redirect would lose what is posted.
A round reads a line of every request (its status) and the long fields of few: what a request has come to while it runs
and once when it has ended; its SURLs once; its macaroons until it has some, and again when these are about to end. What is
remembered for that spares questions and decides nothing; when it is lost, what has ended is told without its counts.
Endpoints, fields and codes: `stager_proxy.py` and `stager_access.py` of lotaas_pipeline (lofar_stager_api 2.0).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from msgspec import Struct

from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, json_of
from aglowd.grid.keyring import Keyring
from aglowd.grid.lta import STAGE_TIMEOUT_S, integer, refusal
from aglowd.grid.stageit_text import (
    issued,
    literal,
    messages,
    number_of,
    numbered,
    online_of,
    page,
    status_of,
    surls_of,
    texts,
    told,
)
from aglowd.grid.stager import DEAD, FINAL, Progress, Request, listed
from aglowd.grid.words import quoted, shown

HORIZON_S = 60 * 86_400.0
"""World seconds: a request made before has ended and lost its pins, and is not asked for among the others."""
PAGE_REQUESTS = 100
"""Requests in one page of the list; graphene-django refuses more."""
DETAILS_REQUESTS = 50
"""Requests whose long fields one query reads."""
MAX_PAGES = 40
"""Pages of the list; what is beyond cannot be told from what is gone, so a longer list is no answer."""
MAX_ANSWER_BYTES = 32 << 20
"""Requests of a thousand files each, as many as one query reads, take 15 MB."""

CLOSED_ROUNDS = 6
"""A request that has ended is asked for its macaroons in so many rounds; what has none by then gets none."""

_STATUS = "id currentStatus currentStatusCode"
_MACAROONS = "macaroons{content validUntil ltaSite{name}}"

T = TypeVar("T")


class _Read(Struct):
    """What was read of a request, and at which status last. The counts are None while nothing usable was said."""

    status: str | None = None
    count: int | None = None
    done: int | None = None
    closed: int = 0
    """In how many rounds it told of no macaroon since it ended."""


class StageIt:
    """The stager's verbs; `url` is the base, .../stageit/api/staging. The credential's scheme is `Token`."""

    def __init__(
        self,
        http: Http,
        site: Site,
        credential: Credential,
        url: str,
        clock: Clock,
        *,
        keyring: Keyring | None = None,
        horizon_s: float = HORIZON_S,
    ) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._url = url.rstrip("/")
        self._clock = clock
        self._keyring = keyring
        self._horizon_s = horizon_s
        self._read: dict[int, _Read] = {}
        self._released: set[int] = set()

    @seam
    async def stage(self, surls: Sequence[str]) -> int:
        """Ask for the files; the id of the new request."""
        body: dict[str, Any] = {"surls": listed(surls), "notify": False, "request_type": "stage"}
        answer = await self._rest("POST", "requests/", body, write=True)
        number = integer(answer.get("id")) if isinstance(answer, Mapping) else None
        if number is None:
            raise Unknown(f"StageIT requests: found {self._quoted(shown(answer))}; expected a request with its id")
        self._read[number] = _Read(count=len(set(body["surls"])))
        return number

    @seam
    async def progress(self) -> dict[Request, Progress]:
        """All requests of ours that are not older than the horizon: a page of statuses a call, then what else is needed."""
        statuses = await self._list()
        self._read = {number: read for number, read in self._read.items() if number in statuses}
        self._released &= statuses.keys()
        due = frozenset[Request]() if self._keyring is None else self._keyring.due()
        wanted = {number: self._fields(number, status, due) for number, status in statuses.items()}
        numbers = [number for number, fields in wanted.items() if fields]
        for at in range(0, len(numbers), DETAILS_REQUESTS):
            await self._look({number: wanted[number] for number in numbers[at : at + DETAILS_REQUESTS]}, statuses)
        if self._keyring is not None:
            self._keyring.is_filled = True
        return {number: _progress(status, self._read.get(number, _Read())) for number, status in statuses.items()}

    async def _list(self) -> dict[int, str]:
        """The status of each request."""
        since = datetime.fromtimestamp(max(0.0, self._clock.now() - self._horizon_s), UTC).isoformat()
        found: dict[int, str] = {}
        after = ""
        for _ in range(MAX_PAGES):
            listed = f"requests(first: {PAGE_REQUESTS}{after}, when_Gte: {literal(since)})"
            statuses, cursor = await self._query(
                f"query {{ {listed} {{ pageInfo{{hasNextPage endCursor}} edges{{node{{{_STATUS}}}}} }} }}", page
            )
            found.update(statuses)
            if cursor is None:
                return found
            before, after = after, f", after: {literal(cursor)}"
            if after == before:
                break
        raise Temporary(f"StageIT requests: the list has no end after {MAX_PAGES} pages or turns in a circle")

    def _fields(self, number: int, status: str, due: frozenset[Request]) -> str:
        """Which long fields of a request are to be read now."""
        read, is_over = self._read.get(number), status in FINAL
        fields = []
        if not is_over or (read is not None and read.status != status):
            fields.append("response")
            if read is None or read.count is None:
                fields.append("surls{surl}")
        if self._keyring is not None and status not in DEAD and number not in self._released:
            has_none = is_over and read is not None and read.closed >= CLOSED_ROUNDS
            if number in due or not (has_none or self._keyring.are_held(number)):
                fields.append(_MACAROONS)
        return " ".join(fields)

    async def _look(self, wanted: Mapping[int, str], statuses: Mapping[int, str]) -> None:
        """Read these fields of these requests, in one query; one that nobody may look at is found by halves, and left out."""
        asked = (f"r{number}: request(id: {number}) {{ id {fields} }}" for number, fields in wanted.items())
        try:
            nodes = await self._query(f"query {{ {' '.join(asked)} }}", lambda data: dict(numbered(data.values())))
        except Permanent as error:
            if not error.absent:
                raise
            numbers, half = list(wanted), len(wanted) // 2
            for part in (numbers[:half], numbers[half:]) if half else ():
                await self._look({number: wanted[number] for number in part}, statuses)
            return
        for number in wanted.keys() & nodes.keys():
            node, fields = nodes[number], wanted[number]
            read = self._read.setdefault(number, _Read())
            read.status = statuses[number]
            if "surls" in fields:
                read.count = _count(surls_of(node))
            if "response" in fields:
                read.done = _count(online_of(node))
            if self._keyring is not None and _MACAROONS in fields and number not in self._released:
                found = issued(node)
                self._keyring.take(number, found)
                read.closed = CLOSED_ROUNDS if found else read.closed + (statuses[number] in FINAL)

    @seam
    async def status(self, request: Request) -> str:
        """The request's status in lower case, empty when the stager does not know it."""
        return await self._ask(request, _STATUS, status_of) or ""

    @seam
    async def requested(self, request: Request) -> tuple[str, ...]:
        """The SURLs that it is for, none if the stager does not know it."""
        return await self._ask(request, "id surls{surl}", lambda node: told(surls_of(node), "surls")) or ()

    async def staged(self, request: Request) -> tuple[str, ...]:
        """The request's SURLs that came online, also while it goes on; none when the stager does not know it."""
        return await self._ask(request, "id response", lambda node: told(online_of(node), "response")) or ()

    @seam
    async def abort(self, request: Request) -> None:
        """Stop a running request or release what a finished one holds; absent when the stager does not know it."""
        number = number_of(request)
        try:
            await self._rest("PUT", f"requests/{number}/abort/", {}, write=True)
        except Permanent as error:
            if not error.absent:
                raise
            self._forget(number)
            raise
        self._forget(number)

    async def reschedule(self, request: Request) -> None:
        """Put a request that was aborted back in the queue."""
        await self._rest("PATCH", f"requests/{number_of(request)}/", {"current_status_code": "S"}, write=True)
        self._released.discard(number_of(request))
        self._read.pop(number_of(request), None)

    async def webdav_urls(self, request: Request) -> tuple[str, ...]:
        """Where WebDAV has the request's files; absent when the stager does not know it."""
        answer = await self._rest("GET", f"requests/{number_of(request)}/convert2webdav/", None, write=False)
        if not isinstance(answer, list):
            raise Temporary(f"StageIT convert2webdav: found {self._quoted(shown(answer))}; expected a list of URLs")
        return texts(answer)

    def _forget(self, number: int) -> None:
        """Its files are given back: nobody opens them any more."""
        self._released.add(number)
        if self._keyring is not None:
            self._keyring.forget(number)

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
                f"query {{ request(id: {number_of(request)}) {{ {fields} }} }}",
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
                said = self._quoted(*messages(errors))
                raise refusal(said, f"StageIT graphql: {said}", write=False)
            if not isinstance(data, Mapping):
                raise Temporary(f"StageIT graphql: found {self._quoted(shown(answer))}; expected data")
            return read(data)

        return await asyncio.to_thread(taken_apart)

    def _quoted(self, *said: str) -> str:
        return quoted(*map(self._credential.redact, said))


def _progress(status: str, read: _Read) -> Progress:
    percent = 100.0 * read.done / read.count if read.count and read.done is not None else None
    return Progress(status, read.count, read.done, percent)


def _count(found: tuple[str, ...] | None) -> int | None:
    return None if found is None else len(found)
