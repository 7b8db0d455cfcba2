"""A pilot's side of CouchDB: plain HTTP, so that its requests are as real as the daemon's."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from aglowd.sim.world import MINUTE_S, WorldClock

ATTEMPTS = 5
RETRY_S = 2 * MINUTE_S
TIMEOUT = aiohttp.ClientTimeout(total=60)


class Conflict(Exception):
    """Somebody else wrote the token first."""


class Gone(Exception):
    """The document or view does not exist, or does not exist any more."""


class Refused(Exception):
    """The database does not let the pilot in, or does not answer."""


class TokenBase:
    """The PiCaS database as one job sees it."""

    def __init__(
        self, session: aiohttp.ClientSession, clock: WorldClock, url: str, database: str, user: str, password: str
    ) -> None:
        self._session = session
        self._clock = clock
        self._url = f"{url.rstrip('/')}/{database}"
        basic = b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {basic}", "User-Agent": "pilot", "Content-Type": "application/json"}

    async def list_todo(self, token_type: str, limit: int) -> list[str]:
        """Ids of tokens that nobody has locked yet."""
        name = quote(token_type, safe="")
        body = await self._ask("GET", f"_design/{name}/_view/todo?limit={limit}")
        return [row["id"] for row in msgspec.json.decode(body)["rows"]]

    async def get(self, token: str) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(await self._ask("GET", quote(token, safe="")))
        return found

    async def get_attachment(self, token: str, name: str) -> bytes:
        return await self._ask("GET", f"{quote(token, safe='')}/{quote(name)}")

    async def put(self, doc: dict[str, Any]) -> str:
        """Store the document; returns its new revision, raises Conflict or Gone."""
        body = await self._ask("PUT", quote(doc["_id"], safe=""), msgspec.json.encode(doc))
        return str(msgspec.json.decode(body)["rev"])

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._clock.sleep(attempt * RETRY_S)
            try:
                async with self._session.request(
                    method, f"{self._url}/{path}", data=body, headers=self._headers, timeout=TIMEOUT
                ) as response:
                    data = await response.read()
                    status = response.status
            except (aiohttp.ClientError, TimeoutError) as error:
                problem = type(error).__name__
                continue
            if status < 300:
                return data
            if status == 409:
                raise Conflict
            if status == 404:
                raise Gone
            problem = f"HTTP {status}"
            if status < 500 and status != 429:
                break
        raise Refused(f"{method} {path}: {problem}")
