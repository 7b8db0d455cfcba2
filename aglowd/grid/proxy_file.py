"""What a grid proxy's own file says: until when it is good, whose it is, and whether anybody could use it at all.

A proxy is a chain of certificates with the key of the first. What must stay true: the earliest end of all of them counts,
that of the VOMS attributes apart; a file that others can read, or whose key is another one's, is no proxy.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from aglowd.errors import Temporary

MAX_FILE_BYTES = 1 << 20
VOMS = x509.ObjectIdentifier("1.3.6.1.4.1.8005.100.100.5")
"""The extension that holds the attribute certificates."""
_PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)
_SEQUENCE, _TIME, _VERSION_2 = 0x30, 0x18, (0x02, b"\x01")
_DEPTH = 4


class ProxyFile(Struct, frozen=True):
    """Until when the certificates, and the VOMS attributes (None = there are none), are good: seconds since 1970."""

    path: str
    subject: str
    ends: float
    attributes_end: float | None


def place_of(path: str | None) -> str:
    """Where the proxy lies: as configured, or where all grid tools look for it."""
    return path or os.environ.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.geteuid()}"  # noqa: S108 # As the tools do.


def check_mode(path: str) -> None:
    """Temporary if others can read the proxy: whoever has it can do all that its owner can. One that is away is not judged."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return
    if mode & 0o077:
        raise Temporary(f"others can use the grid proxy {path} (mode {mode:04o}): chmod 600 {path}")


def read_proxy(path: str) -> ProxyFile:
    """The proxy in that file. Blocks; Temporary, with what is wrong, if it is none."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise Temporary(f"no usable grid proxy at {path}: {error.strerror}") from error
    check_mode(path)
    try:
        return _parse(path, data)
    except (ValueError, TypeError, IndexError, x509.ExtensionNotFound) as error:
        raise Temporary(f"no usable grid proxy at {path}: {error}") from error


def _parse(path: str, data: bytes) -> ProxyFile:
    blocks = [(match[1], match[0]) for match in _PEM.finditer(data)]
    chain = [x509.load_pem_x509_certificate(text) for name, text in blocks if name == b"CERTIFICATE"]
    keys = [text for name, text in blocks if name.endswith(b"PRIVATE KEY")]
    if len(blocks) != data.count(b"-----BEGIN "):
        raise ValueError("it is cut")
    if not chain:
        raise ValueError("there is no certificate in it")
    if not keys:
        raise ValueError("there is no key in it")
    public = serialization.load_pem_private_key(keys[0], None).public_key()
    if _der(public) != _der(chain[0].public_key()):
        raise ValueError("its key does not fit its certificate")
    attributes = [end for certificate in chain for end in _attributes_end(certificate)]
    return ProxyFile(
        path,
        chain[0].subject.rfc4514_string(),
        min(certificate.not_valid_after_utc.timestamp() for certificate in chain),
        min(attributes, default=None),
    )


def _der(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]


# --- the attribute certificate (RFC 5755), of which cryptography knows nothing


def _attributes_end(certificate: x509.Certificate) -> list[float]:
    """When each attribute certificate in it ends: notAfter, behind notBefore, is the second time in its validity."""
    try:
        value = certificate.extensions.get_extension_for_oid(VOMS).value
    except x509.ExtensionNotFound:
        return []
    assert isinstance(value, x509.UnrecognizedExtension)
    return ends_of(value.value)


def ends_of(extension: bytes) -> list[float]:
    """When each attribute certificate in that extension ends; ValueError if they cannot be read, or if there is none."""
    ends = [_end_of(attributes) for attributes in _find_attributes(extension, _DEPTH)]
    if not ends:
        raise ValueError("its VOMS attributes cannot be read")
    return ends


def _end_of(attributes: bytes) -> float:
    for tag, inner in _elements(attributes):
        times = list(_elements(inner, quietly=True)) if tag == _SEQUENCE else []
        if [kind for kind, _ in times] == [_TIME, _TIME]:
            return datetime.strptime(times[1][1].decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    raise ValueError("its VOMS attributes have no end")


def _find_attributes(data: bytes, depth: int) -> Iterator[bytes]:
    """The signed part of each attribute certificate: it begins with its version and its holder, which no wrapping does."""
    for tag, inner in _elements(data):
        if tag != _SEQUENCE:
            continue
        first = next(iter(_elements(inner, quietly=True)), (0, b""))
        if first == _VERSION_2:
            yield inner
        elif depth:
            yield from _find_attributes(inner, depth - 1)


def _elements(data: bytes, *, quietly: bool = False) -> Iterator[tuple[int, bytes]]:
    """The elements of this piece of DER: tag and content. `quietly`: what is no DER has none."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            if quietly:
                return
            raise ValueError("its VOMS attributes are cut")
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(data[at : at + count]), at + count
        if at + length > len(data):
            if quietly:
                return
            raise ValueError("its VOMS attributes are cut")
        yield tag, data[at : at + length]
        at += length
