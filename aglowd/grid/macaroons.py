"""Macaroons: the bearer tokens that a site issues for the files of one staging request, and which of them fits a path.

What must stay true: a macaroon is shown to no site but the one that issued it, stands in no URL and in no text of ours,
and is hidden by the log for exactly as long as it is held. They live in memory only: after a restart the issuer is asked.
A macaroon's caveats are readable by everybody; what they mean is dCache's `MacaroonContext`: `root:` moves the top of
what the holder sees, `path:` narrows what he may touch below it, and each may come several times, one inside the other.
Which to take first is what lotaas_pipeline learned in production: the longest path, not the latest end.

They are read here and not by pymacaroons, whose last release is of February 2018: it needs PyNaCl and six for what are
forty lines without the cryptography, and only the issuer, who has the key, could verify a macaroon.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime

from aglowd import log
from aglowd.errors import Temporary
from aglowd.grid.gate import Credential
from aglowd.grid.http import Reply
from aglowd.grid.stager import Request
from aglowd.grid.surl import below, plain_path, site_called

REFUSALS = frozenset({401, 403})
"""What a door says to a token that it does not take; to be given to `Http.request` as `ok`, so that nothing freezes."""
NEAR_S = 600.0
"""World seconds: a macaroon that ends so soon may not outlive what is begun with it."""
PATHS_BEFORE_DROP = 3
"""A 401 for so many paths, and no success in between, is not about the path."""
MAX_REFUSALS = 2
"""In one call: dCache blocks the whole client at the third (`frontend.limits.error.max-allowed`)."""
MAX_TOKEN_CHARS = 8192
"""A longer one fits into no header."""
MAX_MACAROONS = 1000
"""Of all sites and requests; beyond, the one that ends first is forgotten."""
MAX_REFUSED_PATHS = 1000
"""Of one macaroon; beyond, the oldest is forgotten."""
MAX_MOMENT_CHARS = 64
"""Of a date."""


class Refused(Temporary):
    """No macaroon is accepted for a path, as far as they were tried."""


class Macaroon(Credential):
    """A macaroon: where its paths begin, what it covers, and until when (world seconds; infinite = nobody said)."""

    def __init__(self, site: str, request: Request, token: str, ends: float | None) -> None:
        super().__init__(f"macaroon of {site} for request {request}", token=token)
        self.site = site
        self.request = request
        self.root = ""
        self.ends = math.inf if ends is None else ends
        self.is_bound = False
        """Whether only certain addresses may use it, which may not be ours."""
        self._path = ""
        self._activities: frozenset[str] | None = None
        self._refused: dict[str, None] = {}
        self._unauthorized: set[str] = set()
        for caveat in caveats_of(token):
            name, _, value = caveat.partition(":")
            self._take(name.strip(), value.strip())

    def _take(self, name: str, value: str) -> None:
        if name == "root":
            top = _directory(value)
            self._path = self._path.removeprefix(top) if f"{self._path}/".startswith(f"{top}/") else ""
            self.root += top
        elif name == "path":
            self._path += _directory(value)
        elif name == "activity":
            named = frozenset(word.strip().upper() for word in value.split(","))
            self._activities = named if self._activities is None else self._activities & named
        elif name == "before":
            end = moment(value)
            self.ends = self.ends if end is None else min(self.ends, end)
        elif name == "ip":
            self.is_bound = True

    @property
    def scope(self) -> str:
        """The directory or file that it covers; "" if it is not limited to any."""
        return plain_path(self.site, self.root + self._path)

    def covers(self, path: str) -> bool:
        """Whether the path is within its scope; without one, every path is."""
        return f"{plain_path(self.site, path)}/".startswith(f"{self.scope}/")

    def allows(self, activity: str) -> bool:
        """Whether it may be used for that (DOWNLOAD, LIST, …); who may do anything may also read metadata."""
        return self._activities is None or activity in self._activities or activity == "READ_METADATA"

    def ends_by(self, now: float) -> bool:
        """Whether it is known to end then or before."""
        return self.ends <= now

    def refuse(self, path: str, status: int) -> None:
        """It was refused for that path. It is tried there last from now on, and nowhere if it is no good anywhere."""
        path = plain_path(self.site, path)
        self._refused[path] = None
        if len(self._refused) > MAX_REFUSED_PATHS:
            del self._refused[next(iter(self._refused))]
        if status == 401:
            self._unauthorized.add(path)
        if len(self._unauthorized) >= PATHS_BEFORE_DROP:
            self.freeze(f"refused for {len(self._unauthorized)} paths (HTTP 401)")

    def thaw(self) -> None:
        """Its issuer tells of it still."""
        super().thaw()
        self._unauthorized.clear()

    def accept(self, path: str) -> None:
        """It was taken for that path."""
        self._refused.pop(plain_path(self.site, path), None)
        self._unauthorized.clear()

    def order(self, path: str, now: float) -> tuple[bool, bool, bool, int, bool, float]:
        """What sorts first is to be tried first for that path."""
        covers = self.covers(path)
        length = len(self.scope) if covers else 0
        is_refused = plain_path(self.site, path) in self._refused
        return is_refused, self.ends_by(now + NEAR_S), not covers, -length, self.is_bound, -self.ends


class Macaroons:
    """All that we hold. Sites go by any of their names."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, Request, str], Macaroon] = {}

    def __repr__(self) -> str:
        return f"Macaroons({len(self._held)})"

    def add(self, site: str, request: Request, token: str, valid_until: str | None) -> bool:
        """Hold it; one that is held already is tried again, where it was not refused. False: it cannot be sent.

        One whose caveats cannot be read is held as one without any.
        """
        site, token = site_called(site), token.strip()
        if not re.fullmatch(r"[!-~]+", token) or len(token) > MAX_TOKEN_CHARS:
            return False
        if (site, request, token) in self._held:
            self._held[site, request, token].thaw()
        else:
            log.register_secret(token)
            self._held[site, request, token] = Macaroon(site, request, token, moment(valid_until))
        if len(self._held) > MAX_MACAROONS:
            first = min(self._held, key=lambda key: self._held[key].ends)
            self._keep(lambda macaroon: macaroon is not self._held[first])
        return True

    def forget(self, request: Request) -> None:
        """The request was released: nobody needs its macaroons."""
        self._keep(lambda macaroon: macaroon.request != request)

    def expire(self, request: Request, now: float) -> None:
        """Its issuer was asked anew: what has ended by now is no use, and is not asked for again."""
        self._keep(lambda macaroon: macaroon.request != request or not macaroon.ends_by(now))

    def are_held(self, request: Request) -> bool:
        """Whether there is one for the request."""
        return any(macaroon.request == request for macaroon in self._held.values())

    def covers(self, site: str, path: str) -> bool:
        """Whether one is held for that path, of use or not."""
        return any(one.site == site_called(site) and one.covers(path) for one in self._held.values())

    def _keep(self, is_kept: Callable[[Macaroon], bool]) -> None:
        before = {token for _, _, token in self._held}
        self._held = {key: macaroon for key, macaroon in self._held.items() if is_kept(macaroon)}
        for token in before - {token for _, _, token in self._held}:
            log.forget_secret(token)

    def candidates(self, site: str, path: str, activity: str, now: float) -> tuple[Macaroon, ...]:
        """Those that may be shown to the site for the path, in the order in which to try them.

        The longest scope around the path first, then those without a scope, then others, since a caveat may be misread;
        within these, those that live longest first. Last come those that are about to end, behind them those that were
        refused for this path. Left out: what has ended or is frozen, what excludes the activity, and what cannot even
        name the path because its root is elsewhere.
        """
        site = site_called(site)
        found = [
            macaroon
            for macaroon in self._held.values()
            if macaroon.site == site and macaroon.frozen is None and not macaroon.ends_by(now)
            if macaroon.allows(activity) and _can_name(macaroon, path)
        ]
        return tuple(sorted(found, key=lambda macaroon: macaroon.order(path, now)))

    def due(self, now: float, margin_s: float) -> tuple[tuple[str, Request], ...]:
        """The (site, request) that need new ones: of a scope, none is good for `margin_s` world seconds more."""
        good: dict[tuple[str, Request, str], bool] = {}
        for macaroon in self._held.values():
            key = macaroon.site, macaroon.request, macaroon.scope
            is_good = macaroon.frozen is None and not macaroon.ends_by(now + margin_s)
            good[key] = is_good or good.get(key, False)
        return tuple(dict.fromkeys((site, request) for (site, request, _), is_good in good.items() if not is_good))


def path_for(macaroon: Macaroon, path: str) -> str:
    """The path as the door knows it for the holder: below the macaroon's root; ValueError if it is not below that."""
    return below(macaroon.site, macaroon.root, path)


async def try_each(
    candidates: Sequence[Macaroon],
    path: str,
    call: Callable[[Macaroon], Awaitable[Reply]],
    is_online: Callable[[], Awaitable[bool]],
) -> Reply:
    """The first answer that is no refusal; who was refused on the way is marked. `call` passes `ok=REFUSALS` to Http.

    A 403 is about the macaroon only if the file is online: for a file on tape, the door at SURF says 403 to everybody.
    Raises Temporary when the file is not online, Refused when nobody is left or after MAX_REFUSALS: then others come first.
    """
    refusals = 0
    for macaroon in candidates:
        if macaroon.frozen is not None:
            continue
        reply = await call(macaroon)
        if reply.status not in REFUSALS:
            macaroon.accept(path)
            return reply
        if reply.status == 403 and not await is_online():
            raise Temporary(f"{path} is not online (HTTP 403)")
        macaroon.refuse(path, reply.status)
        refusals += 1
        if refusals == MAX_REFUSALS:
            break
    raise Refused(f"no macaroon is accepted for {path}; {refusals} were refused")


def moment(text: str | None) -> float | None:
    """Seconds since 1970 of a date in ISO 8601, of any zone, UTC if it names none; None if it cannot be read."""
    if not isinstance(text, str) or len(text) > MAX_MOMENT_CHARS:
        return None
    text = re.sub(r"\s*(UTC|GMT)$", "Z", text.strip().upper())
    try:
        found = datetime.fromisoformat(re.sub(r"\s+(?=[+-]\d|Z$)", "", text))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def caveats_of(token: str) -> tuple[str, ...]:
    """The caveats of a macaroon, base64 of either alphabet, in libmacaroons' format 1 or 2; none if it is no such."""
    text = token.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        found = list(_format_2(data[1:]) if data.startswith(b"\x02") else _format_1(data))
    except ValueError:
        return ()
    return tuple(caveat.decode("utf-8", "replace") for caveat in found)


def _format_1(data: bytes) -> Iterator[bytes]:
    """Packets of a length in four hexadecimal digits (of itself too), a name, a blank, a value and a line feed."""
    while data:
        length = int(data[:4], 16)
        if not 6 <= length <= len(data):
            raise ValueError("a packet has the wrong length")
        name, _, value = data[4:length].partition(b" ")
        if name == b"cid":
            yield value.removesuffix(b"\n")
        data = data[length:]


def _format_2(data: bytes) -> Iterator[bytes]:
    """Sections of fields (a type, a length and that many bytes) that end with a zero; the first is no caveat."""
    sections = 0
    while data:
        kind, data = _number(data)
        if kind == 0:
            sections += 1
            continue
        length, data = _number(data)
        if length > len(data):
            raise ValueError("a field is cut off")
        if kind == 2 and sections:
            yield data[:length]
        data = data[length:]


def _number(data: bytes) -> tuple[int, bytes]:
    """A number in groups of seven bits, the lowest first, and what follows it."""
    value = 0
    for place, byte in enumerate(data[:10]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, data[place + 1 :]
    raise ValueError("a number does not end")


def _directory(value: str) -> str:
    return re.sub("/{2,}", "/", f"/{value}").rstrip("/")


def _can_name(macaroon: Macaroon, path: str) -> bool:
    try:
        path_for(macaroon, path)
    except ValueError:
        return False
    return True
