"""What WebDAV servers answer to PROPFIND: names and their properties, in XML.

Hrefs are absolute or relative, quoted in many ways, with or without a slash at the end; properties that a server does not
have stand under a 404 of their own. dCache tells checksums (`md5=<base64>,adler32=<hex>`) where it is asked for them.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes, urlsplit
from xml.etree.ElementTree import Element, ParseError

from defusedxml.ElementTree import fromstring
from msgspec import Struct

_DAV = "{DAV:}"
_CHECKSUMS = "{http://www.dcache.org/2013/webdav}Checksums"
PROPFIND = (
    b'<?xml version="1.0" encoding="utf-8"?>'
    b'<propfind xmlns="DAV:" xmlns:d="http://www.dcache.org/2013/webdav"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/><d:Checksums/></prop></propfind>"
)
ADLER32 = re.compile(r"(?:^|,)\s*adler32=([0-9a-f]{1,8})\s*(?:,|$)", re.IGNORECASE)
_SIZE = re.compile(r"[0-9]{1,19}")


class Row(Struct, frozen=True):
    """What a server tells of one name; a file's size is None while it is being written."""

    is_dir: bool
    size_bytes: int | None
    mtime: float | None
    adler32: int | None


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
