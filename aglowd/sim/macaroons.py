"""Macaroons as dCache's doors mint them, in the real binary form (version 1), with caveats that hold.

A macaroon is packets of four hex digits of length, a key and a value; the signature is a chain of HMACs over the
identifier and each caveat, so whoever holds one may only narrow it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import posixpath
import re
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import unquote

import msgspec

KEY = b"macaroons-key-generator"
CAVEATS = ("iid", "id", "before", "path", "activity", "home", "ip", "root")

_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")


class Refused(Exception):
    """With the HTTP status: 401 = no such macaroon or it has expired, 403 = not for that."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Wish(msgspec.Struct):
    """The body of a macaroon request."""

    caveats: list[str] = []
    validity: str = "PT1H"


class Macaroons:
    """Mints and checks; `now` is world time."""

    def __init__(self, secret: str, now: Callable[[], float]) -> None:
        self._key = hmac.digest(KEY, secret.encode(), "sha256")
        self._now = now

    def mint(self, held: list[str], body: bytes, path: str) -> str:
        """A macaroon for the path, narrowed as the request and `held` have it; ValueError for what is no request."""
        try:
            wish = msgspec.json.decode(body or b"{}", type=Wish)
        except msgspec.DecodeError as error:
            raise ValueError(str(error)) from error
        duration = _DURATION.fullmatch(wish.validity)
        if duration is None or any(caveat.partition(":")[0] not in CAVEATS for caveat in wish.caveats):
            raise ValueError("Bad validity or caveat")
        days, hours, minutes, seconds = (int(part or 0) for part in duration.groups())
        end = self._now() + days * 86400 + hours * 3600 + minutes * 60 + seconds
        before = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        caveats = [f"iid:{os.urandom(6).hex()}", "id:1000;1000;aglowd", *held, *wish.caveats, f"before:{before}"]
        if path.rstrip("/"):
            caveats.append(f"path:{path.rstrip('/')}")
        return self.issue(os.urandom(8).hex(), caveats)

    def issue(self, identifier: str, caveats: list[str]) -> str:
        """The macaroon of that name with these caveats; the same each time."""
        packets = [("location", b"Optional.empty"), ("identifier", identifier.encode())]
        packets += [("cid", caveat.encode()) for caveat in caveats]
        packets.append(("signature", self._sign(identifier, caveats)))
        return base64.urlsafe_b64encode(b"".join(map(_packet, packets))).decode().rstrip("=")

    def caveats(self, macaroon: str) -> list[str]:
        """Its caveats in order; Refused when we did not sign it."""
        try:
            packets = _packets(base64.urlsafe_b64decode(macaroon + "=" * (-len(macaroon) % 4)))
            identifier = next(value for key, value in packets if key == "identifier").decode()
            caveats = [value.decode() for key, value in packets if key == "cid"]
            signature = packets[-1][1]
        except (binascii.Error, ValueError, StopIteration, IndexError) as error:
            raise Refused(401) from error
        if not hmac.compare_digest(signature, self._sign(identifier, caveats)):
            raise Refused(401)
        return caveats

    def check(self, caveats: list[str], path: str, activity: str) -> None:
        """Whether they allow the activity on the path now, as the holder calls it; no activity: it need not be named."""
        path = posixpath.normpath(unquote(path))
        for caveat in caveats:
            name, _, value = caveat.partition(":")
            if name == "before" and datetime.fromisoformat(value).timestamp() <= self._now():
                raise Refused(401)
            if name == "activity" and activity and activity not in _widened(value):
                raise Refused(403)
            # A directory above may be looked at, as dCache has it, so that a client finds its way down.
            is_above = value.startswith(path.rstrip("/") + "/") and activity == "READ_METADATA"
            if name == "path" and not (path == value or path.startswith(value.rstrip("/") + "/") or is_above):
                raise Refused(403)

    def _sign(self, identifier: str, caveats: list[str]) -> bytes:
        signature = hmac.digest(self._key, identifier.encode(), "sha256")
        for caveat in caveats:
            signature = hmac.digest(signature, caveat.encode(), hashlib.sha256)
        return signature


def root_of(caveats: list[str]) -> str:
    """Where the holder's paths begin; "" at the top."""
    return "".join(caveat.removeprefix("root:").rstrip("/") for caveat in caveats if caveat.startswith("root:"))


def _widened(value: str) -> set[str]:
    """The activities of a caveat; who may list, read or write may also see what is there."""
    activities = set(value.split(","))
    return activities | (
        {"READ_METADATA"} if activities & {"LIST", "DOWNLOAD", "UPLOAD", "MANAGE", "DELETE"} else set()
    )


def _packet(packet: tuple[str, bytes]) -> bytes:
    text = packet[0].encode() + b" " + packet[1] + b"\n"
    return f"{len(text) + 4:04x}".encode() + text


def _packets(data: bytes) -> list[tuple[str, bytes]]:
    found = []
    while data:
        size = int(data[:4], 16)
        if not 6 <= size <= len(data):
            raise ValueError("a packet of no length")
        key, _, value = data[4 : size - 1].partition(b" ")
        found.append((key.decode(), value))
        data = data[size:]
    return found
