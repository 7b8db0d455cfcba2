"""The transport to everything that speaks HTTP: one session per daemon, and the error table of docs/design.md in code.

What must stay true: nothing is retried, nothing is followed, nothing is kept between two requests (no cookies), and no
secret gets into a URL or a message. Every connection serves one request, because on a kept one a server that hangs up while
idle would turn every write into an Unknown; but for what is read again and again, and what may be written twice, where
aiohttp's second try is only one more.
"""

from __future__ import annotations

import asyncio
import base64
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from aglowd.clock import Clock
from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.gate import Credential, Site
from aglowd.grid.words import MAX_SAID_CHARS, quoted
from aglowd.log import redact_text

MAX_BODY_BYTES = 64 << 20
"""Of an answer, unpacked."""
MAX_LINE_BYTES = 1 << 20
"""Of an answer that never ends: a line of the feed names one document."""
CONNECT_TIMEOUT_S = 30.0
DEFAULT_BACK_OFF_S = 20.0
"""How long a 429 without Retry-After keeps us away: dCache's `error.block.window.time`."""
MAX_BACK_OFF_S = 6 * 3600.0
"""A longer Retry-After is a mistake of the far side; we ask again then."""
EXCERPT_CHARS = 200
BLOCK_BYTES = 4 << 20
"""Of a file's bytes, handed on at once."""
MAX_SKEWS = 64
"""Hosts whose clock is remembered; beyond, the one that answered longest ago is forgotten."""
STALL_S = 300.0
"""Real seconds in which nothing of a file moves: then nobody is at the other end."""
USER_AGENT = "aglowd"

Sink = Callable[[bytes], Awaitable[None]]
"""Takes the next bytes of a file."""

REFUSED = frozenset({400, 402, *range(404, 408), *range(409, 418), 421, 422, 423, 424, 428, 431})
"""Statuses that say of a write, too, that it did not happen."""
MOVED = frozenset({301, 302, 307, 308})
ABSENT = frozenset({404, 410})


class Reply(Struct, frozen=True):
    """An answer that was accepted. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Tls(Struct, frozen=True):
    """The certificate that we show, whom we trust, and what an operator calls our certificate."""

    name: str
    context: ssl.SSLContext


def unusable(what: str, *, write: bool) -> Temporary | Unknown:
    """The error for an answer that claims success and cannot be understood."""
    return Unknown(what) if write else Temporary(what)


def json_of(reply: Reply, what: str, *, write: bool) -> Any:
    """The body as JSON, whatever its content type; an unparsable success is Unknown for a write."""
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise unusable(f"{what}: the answer is not JSON ({error})", write=write) from error


class Lines:
    """The lines of an answer that never ends, each without its end; an empty one is a heartbeat."""

    def __init__(self, response: aiohttp.ClientResponse, what: str, max_line_bytes: int) -> None:
        self._response = response
        self._what = what
        self._max = max_line_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for block in self.blocks():
            for line in block:
                yield line

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """The lines that came together: whoever reads very many saves a step of the generator for each."""
        rest = b""
        try:
            async for chunk in self._response.content.iter_any():
                block = rest + chunk
                *lines, rest = block.split(b"\n")
                if len(block) > self._max and len(max((*lines, rest), key=len)) > self._max:
                    raise Temporary(f"{self._what}: a line is longer than {self._max} bytes")
                if lines:
                    yield [line.rstrip(b"\r") for line in lines] if b"\r" in block else lines
        except TimeoutError as error:
            raise Temporary(f"{self._what}: the feed fell silent") from error
        except aiohttp.ClientError as error:
            raise Temporary(f"{self._what}: the feed broke off: {type(error).__name__}") from error


class Http:
    """One aiohttp session, opened at the first request inside the running loop; no request takes longer than `longest_s`.

    `trusted`: whose certificates are believed; None = those of whom the system trusts.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        timeout_s: float = 60.0,
        longest_s: float = math.inf,
        max_body_bytes: int = MAX_BODY_BYTES,
        trusted: ssl.SSLContext | None = None,
    ) -> None:
        self._clock = clock
        self._trusted = trusted
        self._timeout_s = timeout_s
        self.longest_s = longest_s
        self._max_body_bytes = max_body_bytes
        self._session: aiohttp.ClientSession | None = None
        self._kept: aiohttp.ClientSession | None = None
        self.skews: dict[str, float] = {}
        """Host → by how many seconds its clock was ahead of ours at its last answer."""

    @seam
    async def request(
        self,
        method: str,
        url: str,
        *,
        site: Site,
        credential: Credential | None = None,
        write: bool,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        data: bytes | AsyncIterator[bytes] | None = None,
        sink: Sink | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        max_body_bytes: int | None = None,
        ok: frozenset[int] = frozenset(),
        tls: Tls | None = None,
        is_kept: bool = False,
    ) -> Reply:
        """One request, its whole answer read; any 2xx or a status in `ok` is accepted.

        `data` that comes piece by piece is sent when the server says `100 Continue`, so that a refusal or a redirect
        leaves it untouched. `sink` takes the body of a 2xx, of any length, as it was stored: no encoding is undone.
        `is_kept`: its connection may serve further ones, because to ask twice does no harm.
        Without `tls` we show no certificate, and the system's authorities are trusted.

        `url` is taken as it stands: its parts are quoted already. `write` says whether the request changes anything
        outside, and thereby what becomes of an answer that never came. Raises the three; a 404 is absent.
        """
        what = _Asked(method, url)
        if json is not None:
            data, headers = msgspec.json.encode(json), {"Content-Type": "application/json", **(headers or {})}
        total_s = min(timeout_s or self._timeout_s, self.longest_s)
        is_file = sink is not None or isinstance(data, AsyncIterator)
        is_long = is_file or (timeout_s or 0.0) > self._timeout_s
        timeout = _timeout(total_s)
        async with (
            site.slot(is_long=is_long) if credential is None else _allowed(site, credential, is_long=is_long),
            _Told(what, write=write, tls=tls),
            _moving() if is_file else _AT_REST as moved,
        ):
            sent = _headers(headers, credential)
            if sink is not None:
                sent["Accept-Encoding"] = "identity"
            async with (self._open_kept() if is_kept else self._open()).request(
                method,
                _url(url),
                params=params,
                data=_watched(data, moved) if isinstance(data, AsyncIterator) else data,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,
                expect100=isinstance(data, AsyncIterator),
                auto_decompress=None if sink is None else False,
                ssl=True if tls is None else tls.context,
            ) as response:
                most = min(max_body_bytes or self._max_body_bytes, self._max_body_bytes)
                if sink is not None and 200 <= response.status < 300:
                    body = await _pour(response, sink, moved)
                else:
                    body = await _read(response, most, what, write=write)
                reply = Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
                self._note_skew(response.url.host or "", reply)
            if not 200 <= reply.status < 300 and reply.status not in ok:
                raise self._error(what, reply, site, credential, write=write)
            return reply

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        site: Site,
        credential: Credential | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float,
    ) -> AsyncIterator[Lines]:
        """A read whose answer goes on for ever, line by line; silence longer than `read_timeout_s` is Temporary.

        It holds a place at the site only while it is being opened.
        """
        what = _Asked(method, url)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=read_timeout_s)
        async with _allowed(site, credential), _Told(what, write=False):
            sent = _headers(headers, credential)
            response = await self._open().request(
                method, _url(url), params=params, headers=sent, timeout=timeout, allow_redirects=False
            )
            if not 200 <= response.status < 300:
                async with response:
                    body = await _read(response, self._max_body_bytes, what, write=False)
                    reply = Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, body)
                raise self._error(what, reply, site, credential, write=False)
        try:
            yield Lines(response, str(what), min(MAX_LINE_BYTES, self._max_body_bytes))
        finally:
            response.close()

    async def close(self) -> None:
        """Give the connections back; the next request would open a new session."""
        sessions = [one for one in (self._session, self._kept) if one is not None]
        self._session = self._kept = None
        for session in sessions:
            await session.close()

    def _note_skew(self, host: str, reply: Reply) -> None:
        told = _date(reply.headers.get("date", ""))
        if told is not None:
            self.skews.pop(host, None)
            self.skews[host] = told.timestamp() - self._clock.now()
            if len(self.skews) > MAX_SKEWS:
                del self.skews[next(iter(self.skews))]

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._new_session(force_close=True, trace_configs=[_once()])
        return self._session

    def _open_kept(self) -> aiohttp.ClientSession:
        if self._kept is None:
            self._kept = self._new_session(force_close=False, trace_configs=[])
        return self._kept

    def _new_session(self, *, force_close: bool, trace_configs: list[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=force_close, limit=0, ssl=self._trusted or True),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=trace_configs,
            headers={"User-Agent": USER_AGENT},
        )

    def _error(
        self, what: _Asked, reply: Reply, site: Site, credential: Credential | None, *, write: bool
    ) -> OutsideError:
        """The row of the table for a status that was not accepted; freezes and backs off where the table says so."""
        body = reply.body[:MAX_SAID_CHARS].decode("utf-8", "replace")
        status, excerpt = reply.status, quoted(credential.redact(body) if credential else body, most=EXCERPT_CHARS)
        text = f"{what}: HTTP {status}: {excerpt}" if excerpt else f"{what}: HTTP {status}"
        if status == 401:
            if credential is None:
                return Temporary(f"{text}; no credential is configured")
            credential.freeze(f"refused by {site.name} ({what}: HTTP 401)")
            return Temporary(f"{text}; credential {credential.name} is frozen until it is renewed")
        if status in (408, 429, 503):
            wait_s = self._retry_after_s(reply)
            if wait_s is None and status == 429:
                wait_s = DEFAULT_BACK_OFF_S
            if wait_s is not None:
                site.back_off(wait_s, text)
            return Unknown(text) if write and status != 429 else Temporary(text, retry_after_s=wait_s)
        if status == 403:
            # For a read it may be the file's tape state that is forbidden; only a locality check could tell.
            return Permanent(text) if write else Temporary(text)
        if status in MOVED:
            return Permanent(f"{text}; the address has moved to {_shown(reply.headers.get('location', '?'))}")
        if status in REFUSED or (400 <= status < 500 and not write):
            return Permanent(text, absent=status in ABSENT)
        return Unknown(text) if write else Temporary(text)

    def _retry_after_s(self, reply: Reply) -> float | None:
        """Retry-After in seconds, from either of its two forms; None when there is none or it makes no sense."""
        text = reply.headers.get("retry-after", "").strip()
        if text.isascii() and text.isdigit():
            return min(float(text[:9]), MAX_BACK_OFF_S)
        until, now = _date(text), _date(reply.headers.get("date", ""))
        if until is None:
            return None
        now_s = self._clock.now() if now is None else now.timestamp()
        return min(max(0.0, until.timestamp() - now_s), MAX_BACK_OFF_S)


class _Asked(Struct, frozen=True):
    """What was asked, as messages call it."""

    method: str
    url: str

    def __str__(self) -> str:
        return f"{self.method} {_shown(self.url)}"


class _SecondTry(Exception):
    """aiohttp began to send the same request again."""


def _once() -> aiohttp.TraceConfig:
    """Forbid aiohttp's silent second try of GET, PUT and DELETE: the first may have changed the world."""

    async def begin(_: aiohttp.ClientSession, context: Any, __: aiohttp.TraceConnectionCreateStartParams) -> None:
        if getattr(context, "connected", False):
            raise _SecondTry
        context.connected = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(begin)
    return trace


@asynccontextmanager
async def _allowed(site: Site, credential: Credential | None, *, is_long: bool = False) -> AsyncIterator[None]:
    """A place at the site, for a credential that is not frozen."""
    if credential is not None:
        credential.check()
    async with site.slot(is_long=is_long):
        if credential is not None:
            credential.check()  # It may have been refused while we waited for the place.
        yield


class _Told:
    """Turns what aiohttp raises into one of the three."""

    def __init__(self, what: _Asked, *, write: bool, tls: Tls | None = None) -> None:
        self._what, self._write, self._tls = what, write, tls

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        told = None if error is None else self._of(error)
        if told is not None:
            raise told from error

    def _of(self, error: BaseException) -> OutsideError | None:
        if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
            return Permanent(f"{self._what}: this is not a URL")
        if isinstance(error, aiohttp.ClientError | _SecondTry | TimeoutError | OSError):
            if self._tls is not None and (alert := _alert(error)) is not None:
                return Temporary(f"{self._what}: {self._tls.name} is refused: {alert}")
            if isinstance(error, aiohttp.ClientConnectorSSLError):
                return Temporary(f"{self._what}: no TLS connection: {_reason(error)}", retry_after_s=0.0)
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                return Temporary(f"{self._what}: no connection: {_reason(error)}")
            kind = "no answer in time" if isinstance(error, TimeoutError) else f"broken off: {_reason(error)}"
            return unusable(f"{self._what}: {kind}", write=self._write)
        if isinstance(error, ValueError):  # aiohttp refuses to send it: a line break in a header, a port out of range.
            return Permanent(f"{self._what}: the request cannot be sent: {type(error).__name__}")
        return None


async def _read(response: aiohttp.ClientResponse, max_bytes: int, what: _Asked, *, write: bool) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > max_bytes:
            raise unusable(f"{what}: the answer is longer than {max_bytes} bytes", write=write)
    return bytes(body)


_AT_REST = nullcontext[Callable[[], None]](lambda: None)
"""In place of `_moving` for what is no file."""


@asynccontextmanager
async def _moving() -> AsyncIterator[Callable[[], None]]:
    """TimeoutError when nothing of a file is said to have moved for STALL_S."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(STALL_S) as patience:
        yield lambda: patience.reschedule(loop.time() + STALL_S)


async def _watched(blocks: AsyncIterator[bytes], moved: Callable[[], None]) -> AsyncIterator[bytes]:
    async for block in blocks:
        moved()
        yield block


async def _pour(response: aiohttp.ClientResponse, sink: Sink, moved: Callable[[], None]) -> bytes:
    """Hand the body on in blocks; what is left of it is nothing."""
    block = bytearray()
    async for chunk in response.content.iter_any():
        moved()
        block += chunk
        if len(block) >= BLOCK_BYTES:
            await sink(bytes(block))
            block.clear()
    if block:
        await sink(bytes(block))
    return b""


def _headers(headers: Mapping[str, str] | None, credential: Credential | None) -> dict[str, str]:
    result = dict(headers or {})
    if credential is not None and credential.token:
        result["Authorization"] = f"{credential.scheme} {credential.token}"
    elif credential is not None and credential.user is not None:
        login = f"{credential.user}:{credential.password or ''}".encode()
        result["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
    return result


@lru_cache(maxsize=64)
def _timeout(total_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_TIMEOUT_S)


def _url(url: str) -> URL:
    parsed = URL(url, encoded=True)
    if parsed.user is not None or parsed.password is not None:
        raise Permanent(f"{_shown(url)}: a URL must not carry a password; configure a credential")
    return parsed


def _shown(url: str) -> str:
    """The URL as messages may show it: without user, password, query and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    place, slash, path = rest.partition("/")
    path = path.partition("?")[0].partition("#")[0]
    return redact_text(f"{scheme}{separator}{place.rpartition('@')[2].partition('?')[0]}{slash}{path}")


def _reason(error: BaseException) -> str:
    """Why a connection failed, without aiohttp's decoration, which repeats the URL."""
    # A refused certificate is a connector error without the attribute.
    cause = getattr(error, "os_error", error)
    return getattr(cause, "strerror", None) or type(cause).__name__


def _alert(error: BaseException | None) -> str | None:
    """What the far side says of our certificate, if that is why it hangs up: then it has read no request."""
    while error is not None:
        if isinstance(error, ssl.SSLError) and "_ALERT_" in (reason := getattr(error, "reason", None) or ""):
            return reason.partition("_ALERT_")[2].replace("_", " ").lower()
        error = error.__cause__ or error.__context__
    return None


@lru_cache(maxsize=MAX_SKEWS)
def _date(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
