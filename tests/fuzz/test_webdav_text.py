"""Multistatus documents that are broken or hostile: an error of ours, or rows that a listing can use, and soon."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.grid.webdav_text import Row, read
from tests.fuzz.mutations import check, fuzzed, mangled

BOMB = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "x" * 10}">' for n in range(9))
DOCUMENT = b"""<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:x="http://www.dcache.org/2013/webdav">
<D:response><D:href>/d/</D:href><D:propstat><D:prop><D:resourcetype><D:collection/></D:resourcetype></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
<D:response><D:href>https://h:2880/d/a%20b</D:href><D:propstat><D:prop><D:resourcetype/>
<D:getcontentlength>5</D:getcontentlength><D:getlastmodified>Tue, 03 Mar 2026 10:00:00 GMT</D:getlastmodified>
<x:Checksums>md5=XUFAKrxLKna5cZ2REBfFkg==,adler32=062c0215</x:Checksums></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat>
<D:propstat><D:prop><D:displayname/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat></D:response>
</D:multistatus>
"""
PIECE = st.sampled_from([
    "<D:response>", "</D:response>", "<D:href>", "</D:href>", "<D:propstat>", "</D:propstat>", "<D:prop>", "</D:prop>",
    "<D:status>HTTP/1.1 200</D:status>", "<D:status/>", "<D:status>  </D:status>", "<D:resourcetype/>", "<D:href/>",
    "<D:getcontentlength>99999999999999999999</D:getcontentlength>", "<D:getcontentlength>\u0665</D:getcontentlength>",
    "<D:getlastmodified>Tue, 03 Mar 99999 99:99:99 +9999</D:getlastmodified>", "//[", "http://[x", "%", "%zz", "&amp;",
    "&bomb;", "<!---->", "<![CDATA[x]]>", "\u00e4", "x",
])  # fmt: skip
"""What a document is made of, in any order."""


def read_all(body: bytes) -> dict[bytes, Row]:
    rows = read(body, unreadable=True)
    assert read(body).items() <= rows.items()
    return rows


def assert_usable(value: object) -> None:
    """An error, or rows of which every path and number can be used."""
    if isinstance(value, Exception):
        return
    assert isinstance(value, dict)
    for path, row in value.items():
        assert b"//" not in path
        assert not path.endswith(b"/")
        assert row.size_bytes is None or 0 <= row.size_bytes < 10**19
        assert row.adler32 is None or 0 <= row.adler32 < 2**32


@fuzzed
@given(body=mangled(DOCUMENT))
def test_a_document_that_is_broken(body: bytes) -> None:
    assert_usable(check(lambda: read_all(body), ValueError))


@fuzzed
@given(pieces=st.lists(PIECE, max_size=30))
def test_a_document_of_any_pieces(pieces: list[str]) -> None:
    body = f'<D:multistatus xmlns:D="DAV:">{"".join(pieces)}</D:multistatus>'.encode()
    assert_usable(check(lambda: read_all(body), ValueError))


@fuzzed
@given(body=st.binary(max_size=200))
def test_bytes_that_are_no_document(body: bytes) -> None:
    assert_usable(check(lambda: read_all(body), ValueError))


@pytest.mark.parametrize(
    "body",
    [
        f"<!DOCTYPE x [{BOMB}]><x>&a8;</x>".encode(),
        b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><x>&a;</x>',
        b'<!DOCTYPE x SYSTEM "http://h.example/x.dtd"><x/>',
        b'<?xml version="1.0" encoding="klingon"?><x/>',
        b"<x>" * 100_000,
    ],
    ids=["bomb", "file", "elsewhere", "encoding", "deep"],
)
def test_a_document_that_means_harm_is_refused(body: bytes) -> None:
    assert isinstance(check(lambda: read_all(body), ValueError), ValueError)


def test_a_document_of_a_hundred_thousand_levels_is_read_to_its_end() -> None:
    body = b"<x>" * 100_000 + b"</x>" * 100_000
    assert check(lambda: read_all(body), ValueError) == {}
