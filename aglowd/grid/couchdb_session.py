"""A session with CouchDB: the password is shown once in a while, and a cookie in its place with every request.

What must stay true: a cookie that is refused is renewed once; when the new one is refused, too, the credential is frozen,
because a server may lock out who asks in vain again and again. Neither password nor cookie gets into a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aglowd.errors import Temporary
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, Reply
from aglowd.log import forget_secret, register_secret

UNAUTHORIZED = frozenset({401})
NAME = "AuthSession"


class CookieSession:
    """Requests with a cookie that is fetched when it is needed."""

    def __init__(self, http: Http, site: Site, credential: Credential, url: str) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._url = f"{url.rstrip('/')}/_session"
        self._cookie = ""
        self._secret = ""
        """The last cookie, which the log hides."""
        self._logging_in = asyncio.Lock()

    async def request(self, method: str, url: str, *, write: bool, **options: Any) -> Reply:
        """As Http.request. An answer 401 did nothing, so asking again with a new cookie does no harm; but what is sent piece by
        piece may be used up by then. Where 401 is in `ok`, it is an answer like others once the cookie is new."""
        headers, ok = options.pop("headers", None) or {}, options.pop("ok", frozenset())
        for _ in range(2):
            sent = await self.headers()
            reply = await self._http.request(
                method, url, site=self._site, write=write, headers={**headers, **sent}, ok=UNAUTHORIZED | ok, **options
            )
            if reply.status not in UNAUTHORIZED:
                return reply
            if sent["Cookie"] == self._cookie:
                self._cookie = ""
            if isinstance(options.get("data"), AsyncIterator):
                raise Temporary(
                    f"{method}: the session with {self._site.name} was over; the next request opens another"
                )
        if not UNAUTHORIZED.isdisjoint(ok):
            return reply
        self._credential.freeze(f"refused by {self._site.name} with a fresh cookie")
        raise Temporary(f"credential {self._credential.name} is frozen until it is renewed")

    async def headers(self) -> dict[str, str]:
        """The cookie, fetched if there is none; Temporary while the credential is frozen."""
        self._credential.check()
        async with self._logging_in:
            if not self._cookie:
                self._cookie = await self._log_in()
            return {"Cookie": self._cookie}

    async def _log_in(self) -> str:
        login = {"name": self._credential.user or "", "password": self._credential.password or ""}
        reply = await self._http.request("POST", self._url, site=self._site, write=False, json=login, ok=UNAUTHORIZED)
        if reply.status in UNAUTHORIZED:
            self._credential.freeze(f"refused by {self._site.name} (POST {self._url}: HTTP 401)")
            self._credential.check()
        cookie = reply.headers.get("set-cookie", "").partition(";")[0]
        if not cookie.startswith(f"{NAME}="):
            raise Temporary(f"POST {self._url}: the answer has no cookie {NAME}")
        forget_secret(self._secret)
        self._secret = cookie.partition("=")[2]
        register_secret(self._secret)
        return cookie
