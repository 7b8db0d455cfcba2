"""Localities: asked in chunks, matched by path, and silence is no locality."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from aglowd.errors import Permanent, Temporary
from aglowd.grid.dcache import MAX_NUMBER, Dcache, FileInfo, Space
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http

from .conftest import Serve

SURL = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/L229507_SB{:03d}_uv.MS_9aafa18e.tar"


def path_of(number: int) -> str:
    return SURL.format(number).partition(":8443")[2]


@pytest.mark.parametrize("suffix", ["", "/", "/api/v1", "/api/v1/"])
async def test_the_words_of_both_interfaces_become_ours(http: Http, site: Site, serve: Serve, suffix: str) -> None:
    words = {
        "DISK": "ONLINE",
        "DISK_AND_TAPE": "ONLINE",
        "ONLINE_AND_NEARLINE": "ONLINE",
        "TAPE": "NEARLINE",
        "NEARLINE": "NEARLINE",
        "LOST": "LOST",
        "NONE": "NONE",
        "unavailable": "UNAVAILABLE",
    }

    async def handler(request: web.Request) -> web.Response:
        assert request.path == "/api/v1/tape/archiveinfo"
        assert request.headers["Authorization"] == "Bearer abc"
        rows: list[Any] = [{"path": path_of(i), "locality": word} for i, word in enumerate(words)]
        rows += [{"path": path_of(98), "error": "No such file or directory"}, {"path": path_of(99), "error": "denied"}]
        return web.json_response([*reversed(rows), "junk", {"path": "/not/asked", "locality": "DISK"}])

    dcache = Dcache(http, site, Credential("t", token="abc"), await serve(handler) + suffix)
    surls = [SURL.format(i) for i in (*range(len(words)), 98, 99, 100)]
    found = await dcache.localities(surls)
    assert found == dict(zip(surls, [*words.values(), "NONE"], strict=False))


async def test_chunks_of_a_thousand_and_two_spellings_of_one_file(http: Http, site: Site, serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        paths = (await request.json())["paths"]
        sizes.append(len(paths))
        return web.json_response([{"path": path, "locality": "DISK"} for path in paths])

    sizes: list[int] = []
    dcache = Dcache(http, site, None, await serve(handler))
    surls = [SURL.format(i) for i in range(2500)]
    twin = surls[0].replace(":8443", "")
    assert await dcache.localities([*surls, twin]) == dict.fromkeys([*surls, twin], "ONLINE")
    assert sizes == [1000, 1000, 500]
    assert await dcache.localities([]) == {}


@pytest.mark.parametrize("answer", [{"errors": []}, "x", None])
async def test_an_answer_that_is_no_list_is_temporary(http: Http, site: Site, serve: Serve, answer: Any) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(answer)

    with pytest.raises(Temporary):
        await Dcache(http, site, None, await serve(handler)).localities([SURL.format(1)])


async def test_what_is_no_surl_is_not_asked_for(http: Http, site: Site) -> None:
    with pytest.raises(Permanent, match="junk"):
        await Dcache(http, site, None, "http://127.0.0.1:9").localities(["junk"])


# --- the namespace


class Names:
    """A real server that answers for paths what the test says, and keeps what it was asked."""

    def __init__(self, http: Http, site: Site, serve: Serve) -> None:
        self._http, self._site, self._serve = http, site, serve
        self.credential = Credential("t", token="abc")
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def dcache(self, **given: Any) -> Dcache:
        return Dcache(self._http, self._site, self.credential, await self._serve(self._handle), **given)

    async def _handle(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/api/v1").removeprefix("/namespace")
        self.asked.append((path, dict(request.query)))
        answer = self.answers[path]
        if isinstance(answer, web.Response):
            return answer
        if isinstance(answer, int):
            return web.json_response({"errors": [{"message": "x", "status": str(answer)}]}, status=answer)
        return web.json_response(answer)


@pytest.fixture
def names(http: Http, site: Site, serve: Serve) -> Names:
    return Names(http, site, serve)


async def test_the_namespace_tells_of_each_file_by_itself(names: Names) -> None:
    words = ("ONLINE", "nearline", "ONLINE_AND_NEARLINE", "LOST", "UNAVAILABLE", "NONE", None)
    names.answers = {path_of(n): {"fileLocality": word, "size": 1} for n, word in enumerate(words)}
    names.answers |= {path_of(8): 404, path_of(9): 403}
    numbers = [*range(len(words)), 8, 9]
    surls = [SURL.format(n) for n in numbers]
    found = await (await names.dcache(ask="namespace")).localities([*surls, surls[0].replace(":8443", "")])
    assert [found.get(surl) for surl in surls] == [
        "ONLINE", "NEARLINE", "ONLINE", "LOST", "UNAVAILABLE", "NONE", None, "NONE", None
    ]  # fmt: skip
    assert found[surls[0].replace(":8443", "")] == "ONLINE"
    assert sorted(path for path, _ in names.asked) == [path_of(n) for n in numbers], "each once"
    assert all(query["locality"] == "true" for _, query in names.asked)
    assert names.credential.frozen is None, "a path that is forbidden is no dead token"


async def test_a_dead_token_is_refused_once(names: Names) -> None:
    names.answers = {path_of(n): 401 for n in range(20)}
    with pytest.raises(Temporary):
        await (await names.dcache(ask="namespace")).localities([SURL.format(n) for n in range(20)])
    assert len(names.asked) == 1
    assert names.credential.frozen


async def test_one_file_that_cannot_be_asked_about_leaves_no_half_truth(names: Names) -> None:
    names.answers = {path_of(n): {"fileLocality": "ONLINE"} for n in range(20)} | {path_of(7): 500}
    with pytest.raises(Temporary, match="500"):
        await (await names.dcache(ask="namespace")).localities([SURL.format(n) for n in range(20)])


async def test_a_404_that_is_not_dcaches_own_says_nothing_of_a_file(names: Names) -> None:
    for body in ({"title": "no such page"}, "x", []):
        names.answers = {path_of(1): web.json_response(body, status=404)}
        with pytest.raises(Temporary):
            await (await names.dcache(ask="namespace")).localities([SURL.format(1)])


async def test_stat(names: Names) -> None:
    sums = [{"type": "MD5_TYPE", "value": "ff"}, "junk", {"type": "ADLER32", "value": "0a0b0c0d"}]
    names.answers = {
        path_of(0): {"fileLocality": "NEARLINE", "size": 7, "checksums": sums, "creationTime": 1_600_000_000_500},
        path_of(1): {"size": "8", "checksums": [{"type": "ADLER32", "value": "zz"}], "creationTime": None},
        path_of(2): {"size": MAX_NUMBER + 1, "fileLocality": 3, "checksums": 4, "creationTime": -1},
        path_of(3): {"size": MAX_NUMBER, "creationTime": True},
        path_of(4): 404,
        path_of(5): 403,
    }
    found = await (await names.dcache()).stat([SURL.format(n) for n in range(6)])
    assert [found.get(SURL.format(n)) for n in range(6)] == [
        FileInfo("NEARLINE", 7, 0x0A0B0C0D, 1_600_000_000.5),
        FileInfo("", 8),
        FileInfo(""),
        FileInfo("", MAX_NUMBER),
        FileInfo("NONE"),
        None,
    ]
    with pytest.raises(Permanent):
        await (await names.dcache()).stat(["junk"])


DIRECTORY = path_of(1).rpartition("/")[0]


def child(name: Any, created: Any = None) -> dict[str, Any]:
    return {"fileName": name, "creationTime": created}


async def test_the_newest_copy_beside_a_lost_file(names: Names) -> None:
    names.answers[DIRECTORY] = {
        "children": [
            child("L229507_SB001_uv.MS_9aafa18e.tar", 900),
            child("L229507_SB001_uv.MS_11111111.tar", 100),
            child("L229507_SB001_uv.MS_22222222.tar", 300),
            child("L229507_SB001_uv.MS_33333333.tar", 200),
            child("L229507_SB001_uv.MS_44444444.tar"),
            child("L229507_SB002_uv.MS_55555555.tar", 999),
            child("L229507_SB001_uv.MS_66666666.tar.part", 999),
            child("L229507_SB001_uv.MS_7777777.tar", 999),
            child(7),
            "junk",
        ]
    }
    dcache = await names.dcache()
    assert await dcache.copies(SURL.format(1)) == SURL.format(1).replace("9aafa18e", "22222222")
    assert names.asked == [(DIRECTORY, {"children": "true"})]
    assert await dcache.copies(SURL.format(3)) is None
    assert await dcache.copies(SURL.format(1).replace("_9aafa18e", "")) is None
    with pytest.raises(Permanent):
        await dcache.copies("junk")


@pytest.mark.parametrize("answer", [403, 404, 400, {"children": None}, {}])
async def test_a_directory_that_is_not_listed_has_no_copy(names: Names, answer: Any) -> None:
    names.answers[DIRECTORY] = answer
    assert await (await names.dcache()).copies(SURL.format(1)) is None
    assert names.credential.frozen is None


@pytest.mark.parametrize("answer", [401, 500])
async def test_a_listing_that_failed_may_succeed_later(names: Names, answer: int) -> None:
    names.answers[DIRECTORY] = answer
    with pytest.raises(Temporary):
        await (await names.dcache()).copies(SURL.format(1))


async def test_space_as_far_as_the_site_tells(names: Names) -> None:
    names.answers["/quota/user"] = [{"custodial": 5, "custodialLimit": None, "replica": 3.0, "replicaLimit": "9"}]
    names.answers["/poolgroups/lofar/space"] = {"groupSpaceData": {"total": 10, "free": 4, "removable": 1}}
    assert await (await names.dcache()).space() == Space(3, 9, 5, None)
    assert names.asked == [("/quota/user", {"user": "true"})], "no pool group is configured"
    assert await (await names.dcache(pool_group="lofar")).space() == Space(3, 9, 5, None, 10, 4, 1)


@pytest.mark.parametrize("answer", [403, 404, 503, [], {}, [7], {"groupSpaceData": 7}])
async def test_space_that_a_site_does_not_tell(names: Names, answer: Any) -> None:
    names.answers = {"/quota/user": answer, "/poolgroups/lofar/space": answer}
    assert await (await names.dcache(pool_group="lofar")).space() == Space()


# --- sizes and checksums


def entry(number: int, **told: Any) -> dict[str, Any]:
    sums = [{"type": "ADLER32", "value": f"{number:08x}"}]
    return {"fileName": path_of(number).rpartition("/")[2], "size": number * 10, "checksums": sums, **told}


async def test_one_list_tells_of_all_files_of_a_directory(names: Names) -> None:
    names.answers[DIRECTORY] = {"children": [entry(1), entry(2), entry(3), {"fileName": "other", "size": 1}, "junk"]}
    surls = [SURL.format(number) for number in (1, 2)]
    found = await (await names.dcache()).contents(surls)
    assert {surl: (info.size_bytes, info.adler32) for surl, info in found.items()} == {
        surls[0]: (10, 1),
        surls[1]: (20, 2),
    }
    assert names.asked == [(DIRECTORY, {"children": "true", "checksum": "true"})]


async def test_what_a_list_does_not_tell_is_asked_file_by_file(names: Names) -> None:
    names.answers = {
        DIRECTORY: {"children": [entry(1), entry(2, checksums=None)]},
        path_of(2): entry(2),
        path_of(3): 403,
    }
    surls = [SURL.format(number) for number in (1, 2, 3)]
    found = await (await names.dcache()).contents(surls)
    assert {surl: (info.size_bytes, info.adler32) for surl, info in found.items()} == {
        surls[0]: (10, 1),
        surls[1]: (20, 2),
    }


@pytest.mark.parametrize("status", [403, 404, 405])
async def test_where_no_list_may_be_had_each_file_is_asked(names: Names, status: int) -> None:
    names.answers = {DIRECTORY: status, path_of(1): entry(1), path_of(2): entry(2)}
    found = await (await names.dcache()).contents([SURL.format(number) for number in (1, 2)])
    assert [info.adler32 for info in found.values()] == [1, 2]


async def test_one_file_is_no_reason_for_a_list(names: Names) -> None:
    names.answers = {path_of(1): entry(1)}
    found = await (await names.dcache()).contents([SURL.format(1)])
    assert [info.size_bytes for info in found.values()] == [10]
    assert [path for path, _ in names.asked] == [path_of(1)]
