"""dCache answering nonsense where it stages, tells of files and of room: one of the three, or something usable."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from aglowd.grid.dcache import Dcache, FileInfo, Space
from aglowd.grid.dcache_stage import DcacheStager
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.stager import Progress
from aglowd.grid.surl import parse_surl
from tests.fuzz.conftest import Far
from tests.fuzz.mutations import fuzzed, mangled_json, outcome

SURL = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/L229507_SB000_uv.MS_9aafa18e.tar"
PATH = SURL.partition(":8443")[2]
NAME = "0b2c7d3e-5a49-5f0e-9d3c-1f2a3b4c5d6e"
REQUEST = {
    "nextId": -1,
    "status": "STARTED",
    "requestId": NAME,
    "targets": [{"id": 0, "target": PATH, "state": "COMPLETED"}, {"id": 1, "target": "/x", "state": "FAILED"}],
}
ROWS = [{"id": 7, "url": f"https://x/bulk-requests/{NAME}", "owner": "7:9", "activity": "STAGE", "status": "QUEUED"}]
FILE = {
    "fileLocality": "NEARLINE",
    "size": 7,
    "creationTime": 1_600_000_000_500,
    "checksums": [{"type": "ADLER32", "value": "0a0b0c0d"}],
    "children": [{"fileName": "L229507_SB000_uv.MS_11111111.tar", "creationTime": 5}],
    "errors": [{"message": "x", "status": "404"}],
}
ROOM = [{"custodial": 5, "custodialLimit": 9, "replica": 3.0, "replicaLimit": None, "groupSpaceData": {"free": 4}}]


@fuzzed
@given(body=mangled_json(REQUEST))
async def test_a_request(far: Far, http: Http, site: Site, credential: Credential, body: bytes) -> None:
    far.says(body)
    stager = DcacheStager(http, site, credential, far.url, lifetime_s=60.0)
    name = await outcome(stager.stage([SURL]), write=True)
    assert isinstance(name, Exception | str)
    for value in (await outcome(stager.staged(NAME)), await outcome(stager.requested(NAME))):
        assert isinstance(value, Exception) or all(map(parse_surl, value)), "of whichever files, they are files"
    status = await outcome(stager.status(NAME))
    assert isinstance(status, Exception) or (isinstance(status, str) and 0 < len(status) <= 100)


@fuzzed
@given(body=mangled_json(ROWS) | mangled_json({"uid": 7, "gids": [9]}))
async def test_a_list_and_who_we_are(far: Far, http: Http, site: Site, credential: Credential, body: bytes) -> None:
    far.says(body)
    stager = DcacheStager(http, site, credential, far.url, lifetime_s=60.0)
    value = await outcome(stager.progress())
    assert isinstance(value, Exception) or all(isinstance(one, Progress) for one in value.values())
    rows = await outcome(_rows(stager))
    assert isinstance(rows, Exception | list)


async def _rows(stager: DcacheStager) -> list[Any]:
    """The list by itself: one body cannot be both, a user and a list."""
    return [row async for row in stager._list({})]


@fuzzed
@given(body=mangled_json(FILE))
async def test_a_file(far: Far, http: Http, site: Site, credential: Credential, body: bytes) -> None:
    for status in (200, 404):
        far.says(body, status)
        dcache = Dcache(http, site, credential, far.url, ask="namespace")
        found = await outcome(dcache.stat([SURL]))
        assert isinstance(found, Exception) or isinstance(found[SURL], FileInfo)
        copy = await outcome(dcache.copies(SURL))
        assert copy is None or isinstance(copy, Exception) or (copy != SURL and copy.startswith("srm://"))


@fuzzed
@given(body=mangled_json(ROOM) | mangled_json(ROOM[0]))
async def test_room(far: Far, http: Http, site: Site, credential: Credential, body: bytes) -> None:
    far.says(body)
    value = await outcome(Dcache(http, site, credential, far.url, pool_group="lofar").space())
    assert isinstance(value, Exception | Space)
