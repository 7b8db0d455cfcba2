"""Stager, token database and dCache answering nonsense over real sockets."""

from __future__ import annotations

import xmlrpc.client
from contextlib import aclosing
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.clock import Clock
from aglowd.errors import Permanent, Temporary, Unknown
from aglowd.grid.dcache import Dcache
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.keyring import Keyring
from aglowd.grid.lta import LtaStager, decode
from aglowd.grid.picas import DESIGN_DOC, Picas
from aglowd.grid.stageit import StageIt
from tests.fuzz.conftest import Far
from tests.fuzz.mutations import ODD, bounded, fuzzed, mangled, mangled_json, mutated, nested, outcome

# --- HTTP itself

ANSWER = (
    b"HTTP/1.1 503 Busy\r\nRetry-After: 120\r\nDate: Mon, 27 Jul 2026 10:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b"Location: https://me:s3cret@elsewhere/\r\nSet-Cookie: a=b\r\nContent-Length: 26\r\n\r\nno: s3cret bWU6czNjcmV0 no"
)
DATES = st.sampled_from(
    [
        "Mon, 01 Jan 0100 00:00:00 -0000",
        "Fri, 31 Dec 9999 23:59:59 -9959",
        "1e9",
        "-1",
        "٣",
        "9" * 400,
        "\x7f",
        "0 0 0 0",
    ]
)


@fuzzed
@given(raw=mangled(ANSWER) | DATES.map(lambda date: ANSWER.replace(b"120", date.encode())), write=st.booleans())
async def test_any_bytes_for_an_answer(
    far: Far, http: Http, site: Site, credential: Credential, raw: bytes, write: bool
) -> None:
    far.raw = raw
    request = http.request("POST", far.url, site=site, credential=credential, write=write, data=b"x")
    value = await outcome(request, write=write)
    if isinstance(value, Exception):
        assert "s3cret" not in str(value)
        assert "bWU6czNjcmV0" not in str(value)


@fuzzed
@given(status=st.integers(100, 999), write=st.booleans(), body=st.binary(max_size=300))
async def test_any_status(
    far: Far, http: Http, site: Site, credential: Credential, status: int, write: bool, body: bytes
) -> None:
    far.says(body, status)
    request = http.request("PUT", far.url, site=site, credential=credential, write=write, data=b"x")
    value = await outcome(request, write=write)
    if status >= 300:
        assert isinstance(value, Exception)
    elif 200 <= status != 204:  # With 204 there is no body: what follows is no HTTP.
        assert value.body == body
    if write and 500 <= status != 503:
        assert isinstance(value, Unknown)


# --- the stager

PROGRESS = {
    "12227": {
        "File count": "244", "Files done": "188", "Flagged abort": "false", "Location": "lofar_sara", "Percent done": "77.05",
        "Status": "in progress", "User id": "42",
    },
    "12228": {"File count": 10, "Files done": 0, "Flagged abort": True, "Percent done": 0.0, "Status": "on hold"},
}  # fmt: skip
SURLS = [
    "srm://srm.grid.sara.nl:8443/pnfs/L229507_SB000_uv.tar",
    "srm://srm.grid.sara.nl:8443/pnfs/L229507_SB001_uv.tar",
]
XML = {
    name: xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()
    for name, value in {"progress": PROGRESS, "surls": SURLS, "id": 12227, "status": "success", "none": None}.items()
} | {"fault": xmlrpc.client.dumps(xmlrpc.client.Fault(8002, "no such request: s3cret-s3cret")).encode()}
WIRED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.floats() | st.text("ab \n<&é%", max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*PROGRESS, "x", ""]), inner, max_size=3)
    ),
    max_leaves=8,
)


def wire(value: Any) -> bytes:
    try:
        return xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode(errors="replace")
    except (OverflowError, RecursionError):
        return (
            b"<methodResponse><params><param><value><int>"
            + b"9" * 5000
            + b"</int></value></param></params></methodResponse>"
        )


STAGED = st.one_of(st.sampled_from(sorted(XML.values())).flatmap(mangled), WIRED.map(wire), mutated(PROGRESS).map(wire))


@fuzzed
@given(body=STAGED, method=st.sampled_from(["progress", "status", "staged"]))
async def test_the_stager_is_read(
    far: Far, http: Http, site: Site, credential: Credential, body: bytes, method: str
) -> None:
    far.says(body)
    stager = LtaStager(http, site, credential, far.url)
    await outcome(getattr(stager, method)(*([] if method == "progress" else [12227])))


@fuzzed
@given(body=STAGED)
async def test_an_answer_to_a_request_that_names_no_id_is_unknown(
    far: Far, http: Http, site: Site, credential: Credential, body: bytes
) -> None:
    far.says(body)
    value = await outcome(LtaStager(http, site, credential, far.url).stage(SURLS), write=True)
    assert isinstance(value, int | Unknown) or b"fault" in body
    await outcome(LtaStager(http, site, credential, far.url).abort(12227), write=True)


NODE = {
    "id": "991619", "currentStatus": "In progress", "currentStatusCode": "I", "surls": [{"surl": surl} for surl in SURLS],
    "response": msgspec.json.encode({"online": SURLS[:1], "progressing": SURLS[1:], "errors": {}}).decode(),
    "macaroons": [{"content": "MDAx", "validUntil": "2026-07-27T10:00:00Z", "ltaSite": {"name": "SURF"}}],
}  # fmt: skip
PAGE = {"pageInfo": {"hasNextPage": False, "endCursor": "YQ=="}, "edges": [{"node": NODE}]}
GRAPHQL = {"data": {"request": NODE, "requests": PAGE, "r991619": NODE}}
SAID = mangled_json(GRAPHQL) | mangled_json({"errors": [{"message": "no request: s3cret-s3cret"}], "data": None})


@fuzzed
@given(body=SAID, verb=st.sampled_from(["progress", "status", "requested", "staged", "webdav_urls"]))
async def test_stageit_is_read(
    far: Far, http: Http, site: Site, credential: Credential, clock: Clock, body: bytes, verb: str
) -> None:
    far.says(body)
    stager = StageIt(http, site, credential, far.url, clock, keyring=Keyring(clock))
    await outcome(getattr(stager, verb)(*([] if verb == "progress" else [991619])))


@fuzzed
@given(body=mangled_json({"id": 991619, "surls": SURLS}))
async def test_a_request_of_which_stageit_tells_no_id_is_unknown(
    far: Far, http: Http, site: Site, credential: Credential, clock: Clock, body: bytes
) -> None:
    far.says(body, 201)
    value = await outcome(StageIt(http, site, credential, far.url, clock).stage(SURLS), write=True)
    assert isinstance(value, int | Unknown)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">'
    + "".join(f'<!ENTITY a{number} "{f"&a{number - 1};" * 10}">' for number in range(1, 10))
    + "]><methodResponse><params><param><value>&a9;</value></param></params></methodResponse>"
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><methodResponse><params><param><value>&e;</value></param></params></methodResponse>'


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "body", [BOMB, OUTSIDE, "", "<", "<methodResponse>" * 50_000, "<value><array><data>" * 50_000], ids=len
)
async def test_xml_that_explodes_is_no_answer(
    far: Far, http: Http, site: Site, credential: Credential, body: str, write: bool
) -> None:
    far.says(body.encode())
    stager = LtaStager(http, site, credential, far.url)
    value = await outcome(stager.stage(SURLS) if write else stager.progress(), write=write)
    assert isinstance(value, Unknown if write else Temporary)
    assert "root:" not in str(value)


@pytest.mark.parametrize("depth", [10, 300, 900, 3000, 30_000])
def test_a_value_nested_deep_in_xml(depth: int) -> None:
    inner = "<value><array><data>" * depth + "</data></array></value>" * depth
    body = f"<methodResponse><params><param>{inner}</param></params></methodResponse>".encode()
    with bounded():
        try:
            decode(body, "LTA", write=False)
        except Temporary:
            assert depth > 500


@pytest.mark.parametrize("depth", [10, 900, 3000])
async def test_a_request_id_nested_deep_is_unknown(
    far: Far, http: Http, site: Site, credential: Credential, depth: int
) -> None:
    inner = "<value><array><data>" * depth + "</data></array></value>" * depth
    far.says(f"<methodResponse><params><param>{inner}</param></params></methodResponse>".encode())
    assert isinstance(await outcome(LtaStager(http, site, credential, far.url).stage(SURLS), write=True), Unknown)


# --- the token database

IDS = ["t:SB000", "t:SB001"]
DOCS = {
    "total_rows": 9,
    "rows": [
        {"id": name, "key": name, "value": {"rev": "1-a"}, "doc": {
            "_id": name, "_rev": "1-a", "type": "t", "lock": 0, "done": 0, "status": "done", "Results_location": "gsiftp://x/y",
            "scrub_count": 1, "aglowd": {"key": "run/step/1/create_tokens/0"},
            "_attachments": {"srm.txt": {"digest": "md5-x", "length": 3, "stub": True}},
        }}
        for name in IDS
    ],
}  # fmt: skip
VIEW = {"rows": [{"id": "t:1", "key": ["t", "todo"], "value": 3, "doc": None}, {"key": ["t", "done"], "value": 4.0}]}
BULK = [
    {"ok": True, "id": IDS[0], "rev": "2-b"},
    {"id": IDS[1], "error": "conflict", "reason": "Document update conflict."},
]
INFO = {"db_name": "sksp", "doc_count": 12, "update_seq": "12-g1AAA", "instance_start_time": "0", "sizes": {"file": 3}}
DESIGN = {**DESIGN_DOC, "_rev": "3-c"}


@pytest.fixture
def picas(far: Far, http: Http, site: Site, credential: Credential) -> Picas:
    return Picas(http, site, credential, far.url, "sksp")


@fuzzed
@given(body=mangled_json(DOCS))
async def test_documents(far: Far, picas: Picas, body: bytes) -> None:
    far.says(body)
    value = await outcome(picas.get_docs(IDS))
    if isinstance(value, dict):
        assert list(value) == IDS
        for name, document in value.items():
            assert document is None or (document["_id"] == name and isinstance(document["_rev"], str))


@fuzzed
@given(body=mangled_json(VIEW))
async def test_views(far: Far, picas: Picas, body: bytes) -> None:
    far.says(body)
    counts = await outcome(picas.count_tokens(["t", "u"]))
    if isinstance(counts, dict):
        assert all(0 <= number <= 2**53 for states in counts.values() for number in states.values())
    await outcome(picas.list_ids("t"))


@fuzzed
@given(body=mangled_json(BULK), status=st.sampled_from([200, 201, 202]))
async def test_a_bulk_write_is_known_row_by_row_or_unknown(far: Far, picas: Picas, body: bytes, status: int) -> None:
    far.says(body, status)
    value = await outcome(picas.bulk([{"_id": name} for name in IDS]), write=True)
    assert isinstance(value, Unknown) or value.keys() >= set(IDS)


@fuzzed
@given(body=mangled_json({"ok": True, "id": IDS[0], "rev": "2-b"}))
async def test_an_attachment_has_a_revision_or_is_unknown(far: Far, picas: Picas, body: bytes) -> None:
    far.says(body, 201)
    value = await outcome(picas.put_attachment(IDS[0], "1-a", "x", b"y", "text/plain"), write=True)
    assert isinstance(value, str | Unknown)


@fuzzed
@given(body=mangled_json(INFO))
async def test_the_database_itself(far: Far, picas: Picas, body: bytes) -> None:
    far.says(body)
    value = await outcome(picas.info())
    if not isinstance(value, Exception):
        assert isinstance(value.update_seq, str)
        assert isinstance(value.instance_start_time, str)


@fuzzed
@given(body=mangled_json(DESIGN))
async def test_design_documents(far: Far, picas: Picas, body: bytes) -> None:
    far.says(body)
    await outcome(picas.ensure_design("aglowd", DESIGN_DOC), write=True)
    await outcome(picas.delete_design("aglowd"), write=True)


CHANGE = {"seq": "13-g1AAA", "id": "t:SB000", "changes": [{"rev": "2-b"}], "deleted": False}
LINES = (
    b"\n".join(msgspec.json.encode({**CHANGE, "seq": f"{number}-x"}) for number in range(5))
    + b'\n\n{"last_seq":"9-x"}\n'
)


@fuzzed
@given(body=mangled(LINES) | st.lists(mutated(CHANGE).map(msgspec.json.encode), max_size=4).map(b"\n".join))
async def test_the_feed(far: Far, picas: Picas, body: bytes) -> None:
    far.raw = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body

    async def follow() -> list[Any]:
        async with aclosing(picas.changes("12-g1AAA", heartbeat_s=5.0)) as feed:  # type: ignore[type-var] # it is a generator
            return [change async for change in feed]

    assert isinstance(await outcome(follow()), Temporary | Permanent)  # A feed never ends well.


# --- dCache

PLACES = [
    {"path": f"/pnfs/L229507_SB00{number}_uv.tar", "locality": word}
    for number, word in enumerate(("DISK", "TAPE", "disk_and_tape", "LOST"))
] + [{"path": "/pnfs/L229507_SB004_uv.tar", "error": "No such file or directory"}]


@fuzzed
@given(body=mangled_json(PLACES))
async def test_localities(far: Far, http: Http, site: Site, credential: Credential, body: bytes) -> None:
    far.says(body)
    surls = [f"srm://srm.grid.sara.nl:8443{place['path']}" for place in PLACES]
    value = await outcome(Dcache(http, site, credential, far.url).localities(surls))
    if isinstance(value, dict):
        assert value.keys() <= set(surls)
        assert all(isinstance(word, str) and len(word) <= 100 for word in value.values())


@pytest.mark.parametrize("depth", [50, 400, 990, 5000])
@pytest.mark.parametrize(
    "where", ["{0}", '{{"rows":[{{"key":{0}}}]}}', '[{{"id":"t:SB000","error":{0}}}]', '[{{"path":"/x","error":{0}}}]']
)
async def test_json_nested_deep(far: Far, picas: Picas, http: Http, site: Site, depth: int, where: str) -> None:
    far.says(where.format("[" * depth + "]" * depth).encode())
    await outcome(picas.get_docs(IDS))
    await outcome(picas.count_tokens(["t"]))
    await outcome(picas.info())
    await outcome(picas.bulk([{"_id": IDS[0]}]), write=True)
    await outcome(Dcache(http, site, None, far.url).localities(SURLS))


def test_the_mutations_reach_far() -> None:
    """A fuzzer that only ever sends the sample would find nothing."""
    found: set[str] = set()

    @fuzzed
    @given(value=mutated(DOCS) | ODD)
    def collect(value: Any) -> None:
        found.add(type(value).__name__ if not isinstance(value, dict) else f"dict of {sorted(value)[:2]}")

    collect()
    assert len(found) >= 3
    assert nested(3) == [[[[]]]]
