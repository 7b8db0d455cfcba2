"""What a request carries: its body, its parameters, who asks; and what a client is told who asks for what cannot be.

What must stay true: whatever a request carries, it ends in a value that was checked or in an ApiError that says what was expected.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from typing import Generic, TypeVar

import msgspec
from aiohttp import web

from aglowd.choice import no_field
from aglowd.clock import iso
from aglowd.durations import instant_s
from aglowd.errors import AglowError
from aglowd.model import Json
from aglowd.socket_file import uid_of
from aglowd.store.plans import Changed

FUTURE_S = 60.0
"""World seconds by which a time past may lie ahead: people round, and clocks differ."""
MAX_BODY_BYTES = 65_536
MAX_LIST_BODY_BYTES = 4_194_304
"""Of a request that carries a list: of files, of fields."""
BODY_S = 30.0
"""Real seconds in which a request's body must have come."""

T = TypeVar("T")


class ApiError(AglowError):
    """What a client is told instead of an answer: an HTTP status, a stable code, and a text for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Body(Generic[T]):
    """What an order's body holds: JSON of that type. `keys` names them to who sent something else."""

    def __init__(self, kind: type[T], keys: str, most_bytes: int = MAX_BODY_BYTES) -> None:
        self.kind = kind
        self.keys = keys
        self.most_bytes = most_bytes

    async def read(self, request: web.Request) -> T:
        """The order that the request carries."""
        try:
            async with asyncio.timeout(BODY_S):
                content = await request.clone(client_max_size=self.most_bytes).read()
            return msgspec.json.decode(content, type=self.kind)
        except TimeoutError as error:
            raise ApiError(408, "too-slow", f"the body did not come within {BODY_S:.0f} s") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise ApiError(413, "too-long", f"a body of more than {self.most_bytes} bytes is not taken") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ApiError(400, "bad-body", f"expected {self.keys} as JSON: {error}") from error


async def asked(work: Awaitable[T]) -> T:
    """The answer; what cannot be done is told with its reason."""
    try:
        return await work
    except AglowError as error:
        raise ApiError(409, "stale" if isinstance(error, Changed) else "refused", str(error)) from error


def there(answer: dict[str, Json] | None, what: str, name: str) -> dict[str, Json]:
    """The answer, which there is."""
    if answer is None:
        raise ApiError(404, f"unknown-{what}", f"there is no {what} {name[:200]!r}")
    return answer


def known(request: web.Request, answer: dict[str, Json] | None) -> dict[str, Json]:
    """The answer about a field that somebody knows."""
    if answer is None:
        raise ApiError(404, "unknown-field", no_field(request.match_info["name"]))
    return answer


def uid_at(request: web.Request) -> int:
    """Who asks."""
    assert request.transport is not None
    return uid_of(request.transport.get_extra_info("socket"))


def is_number(text: str) -> bool:
    """Whether it is meant as a number, be it a wrong one: a time is written in another way."""
    return re.fullmatch(r"-?\d*", text) is not None


def number(request: web.Request, name: str, default: int, *, at_least: int, at_most: int = 2**62) -> int:
    """The number in that parameter."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and at_least <= int(text) <= at_most):
        limits = f"from {at_least} to {at_most}" if at_most < 2**62 else f"{at_least} or more"
        raise ApiError(400, "bad-parameter", f"{name} is a whole number {limits}, not {text[:40]!r}")
    return int(text)


def instant(request: web.Request, name: str, now: float, default: float | None = None) -> float:
    """The time in that parameter, which is not after now."""
    text = request.query.get(name, "")
    if not text and default is not None:
        return default
    try:
        at = instant_s(text, now)
    except ValueError as error:
        raise ApiError(400, "bad-parameter", f"{name}: {error}") from error
    if at > now + FUTURE_S:
        raise ApiError(400, "bad-parameter", f"{name}: {text[:60]} has not come yet; it is {iso(now)}")
    return at
