"""Localities: asked in chunks, matched by path, and silence is no locality."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from aglowd.errors import Permanent, Temporary
from aglowd.grid.dcache import Dcache
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
