"""URLs as WebDAV clients send them, and what servers answer to PROPFIND: names and their properties, in XML.

Hrefs are absolute or relative, quoted in many ways, with or without a slash at the end; properties that a server does not
have stand under a 404 of their own. dCache tells checksums (`md5=<base64>,adler32=<hex>`) where it is asked for them.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_to_bytes, urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring
from msgspec import Struct

from aglowd.errors import Permanent
from aglowd.grid.files import SAFE_SIGNS

SCHEMES = frozenset({"http", "https", "dav", "davs"})
_DAV = "{DAV:}"
_CHECKSUMS = "{http://www.dcache.org/2013/webdav}Checksums"
_LOCALITY = "{http://srm.lbl.gov/StorageResourceManager}FileLocality"
PROPFIND = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<propfind xmlns="DAV:" xmlns:d="http://www.dcache.org/2013/webdav"'
    b' xmlns:s="http://srm.lbl.gov/StorageResourceManager"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/><d:Checksums/><s:FileLocality/></prop></propfind>"
)
ADLER32 = re.compile(r"(?:^|,)\s*adler32=([0-9a-f]{1,8})\s*(?:,|$)", re.IGNORECASE)
_SIZE = re.compile(r"[0-9]{1,19}")


class Row(Struct, frozen=True):
    """What a server tells of one name; a file's size is None while it is being written."""

    is_dir: bool
    size_bytes: int | None
    mtime: float | None
    adler32: int | None
    is_on_tape: bool = False
    """Whether the server says that it must be brought from tape to be read; few have such a word."""


def read(body: bytes, *, unreadable: bool = False) -> dict[bytes, Row]:
    """Decoded path → what is told of it, from a multistatus document; ValueError if it is none.

    `unreadable`: names of which nothing is told are among them, as if they were being written.
    """
    try:
        root = fromstring(body, forbid_dtd=True)
    except (ParseError, ValueError, LookupError) as error:
        raise ValueError(f"the answer is not WebDAV ({type(error).__name__})") from error
    rows = {}
    for response in root.iter(f"{_DAV}response"):
        props: dict[str, Element] = {}
        for propstat in response.iter(f"{_DAV}propstat"):
            # Properties that the server does not have stand under another status.
            if (propstat.findtext(f"{_DAV}status") or "HTTP/1.1 200").split()[1:2] == ["200"]:
                props |= {prop.tag: prop for container in propstat.iter(f"{_DAV}prop") for prop in container}
        if props or unreadable:
            rows[path_of(response.findtext(f"{_DAV}href") or "")] = _row_of(props)
    return rows


def _row_of(props: dict[str, Element]) -> Row:
    def text(tag: str) -> str:
        return (props[tag].text or "").strip() if tag in props else ""

    kind = props.get(f"{_DAV}resourcetype")
    is_dir = kind is not None and kind.find(f"{_DAV}collection") is not None
    size, checksum = text(f"{_DAV}getcontentlength"), ADLER32.search(text(_CHECKSUMS))
    return Row(
        is_dir,
        int(size) if _SIZE.fullmatch(size) else None,
        _time(text(f"{_DAV}getlastmodified")),
        int(checksum[1], 16) if checksum else None,
        text(_LOCALITY).upper() == "NEARLINE",
    )


def _time(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def path_of(url: str) -> bytes:
    """The path in a URL or href, decoded, so that two spellings of one name are equal."""
    path = unquote_to_bytes(urlsplit(url).path.encode("utf-8", "surrogateescape"))
    return re.sub(rb"/{2,}", b"/", path).rstrip(b"/")


def server_of(url: str) -> tuple[str, str]:
    """The scheme, and the host with its port."""
    scheme, _, rest = wire(url).partition("://")
    return scheme, rest.partition("/")[0].lower()


def wire(url: str) -> str:
    """The URL as HTTP takes it, its path in our one spelling."""
    scheme, _, rest = url.partition("://")
    server, _, path = rest.partition("/")
    decoded = unquote_to_bytes(path.encode("utf-8", "surrogateescape"))
    if (
        scheme not in SCHEMES
        or not server
        or "?" in url
        or "#" in url
        or b".." in decoded.split(b"/")
        or b"\0" in decoded
    ):
        raise Permanent(f"{url[:200]!r}: expected https://HOST/path, with ? and # as %3F and %23")
    http = "https" if scheme in ("https", "davs") else "http"
    return f"{http}://{server}/{quote(decoded, safe=SAFE_SIGNS + '/')}"


def host_of(url: str) -> str:
    """The name of the host; empty if there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def keeps_credential(at: str, target: str) -> bool:
    """Whether who is sent on from one URL to the other may take his secret along."""
    try:
        old, new = urlsplit(at), urlsplit(target)
        return new.hostname == old.hostname and (new.scheme == "https" or old.scheme == "http")
    except ValueError:
        return False
