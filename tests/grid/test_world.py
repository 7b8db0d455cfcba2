"""The adapters against the simulated grid: every verb once, on real servers and real executables."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from aglowd.errors import Permanent
from aglowd.grid.batch import Order, Terms
from aglowd.grid.dcache import Dcache
from aglowd.grid.gate import Credential, Site
from aglowd.grid.glite import Glite
from aglowd.grid.http import Http
from aglowd.grid.lta import LtaStager
from aglowd.grid.picas import DESIGN_DOC, STATES, Change, FeedReset, Picas, token_design_doc
from aglowd.grid.picas_views import STATES_VIEW
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy
from aglowd.grid.storage import Storage
from aglowd.grid.surl import read_srm_list
from aglowd.grid.tokens import build_token
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.sim.mapjs import compile_map
from aglowd.wiring import shipped_pipelines

from .conftest import DATA

SRM_LIST = DATA / "srm" / "srm229507.txt"
FAR = "gsiftp://gridftp.grid.sara.nl:2811/pnfs/grid.sara.nl/data/lofar/x"


@pytest.fixture
async def ready(tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / SRM_LIST.name).write_text(SRM_LIST.read_text())
    # No slot is ever free, so that a job is still queued when a slow machine comes to cancel it.
    settings = Settings(
        directory=tmp_path / "world", srm_dir=lists, seed=1, speed=2000, origin=time.time(), failure_rate=0, slots=0
    )
    async with simulated_grid(settings) as facts:
        yield facts


@pytest.fixture
def tools(ready: dict[str, Any]) -> Processes:
    return Processes(path=ready["bin"], env={"PATH": os.environ["PATH"], "X509_USER_PROXY": ready["proxy"]})


async def test_staging_and_localities(ready: dict[str, Any], http: Http, site: Site) -> None:
    secrets = ready["credentials"]
    credential = Credential("lta", user=secrets["lta_user"], password=secrets["lta_password"])
    lta = LtaStager(http, site, credential, ready["lta_url"])
    dcache = Dcache(http, site, None, ready["dcache_url"])
    surls = read_srm_list(SRM_LIST.read_text(), SRM_LIST.name).surls
    assert await lta.progress() == {}
    request = await lta.stage(surls)
    seen = (await lta.progress())[request]
    assert (seen.file_count, seen.location, seen.flagged_abort) == (244, "sara", False)
    # It is new for a world minute at least, which a busy machine may let pass between two questions.
    assert seen.status in ("new", "scheduled")
    assert await lta.status(request) in ("new", "scheduled")
    assert await lta.staged(request) == ()
    assert await dcache.localities(surls) == dict.fromkeys(surls, "NEARLINE")
    await lta.abort(request)
    assert await lta.status(request) == "aborted"
    await lta.reschedule(request)
    assert (await lta.status(9), await lta.staged(9)) == ("", ())
    with pytest.raises(Permanent) as caught:
        await lta.abort(9)
    assert caught.value.absent


async def test_tokens(ready: dict[str, Any], http: Http, site: Site) -> None:
    secrets = ready["credentials"]
    credential = Credential("picas", user=secrets["couch_user"], password=secrets["couch_password"])
    picas = Picas(http, site, credential, ready["couch_url"], secrets["couch_database"])
    since = (await picas.info()).update_seq
    ids = [f"a+b:{number} x" for number in range(3)]
    tokens = [build_token({}, name, "a+b", {}) for name in ids]
    tokens[2].update(lock=1, done=1, status="error")
    await picas.ensure_design("aglowd", DESIGN_DOC)
    await picas.ensure_design("a+b", token_design_doc("a+b"))
    before = (await picas.info()).update_seq
    await picas.ensure_design("aglowd", DESIGN_DOC)
    assert (await picas.info()).update_seq == before
    assert all(row.ok for row in (await picas.bulk(tokens)).values())
    assert (await picas.bulk(tokens[:1]))[ids[0]].error == "conflict"
    document = (await picas.get_docs([ids[0], "none"]))[ids[0]]
    assert document
    rev = await picas.put_attachment(ids[0], document["_rev"], "srm.txt", b"hello", "text/plain")
    assert rev.startswith("2-")
    assert await picas.get_attachment(ids[0], "srm.txt") == b"hello"
    inline = (await picas.get_docs(ids, attachments=True))[ids[0]]
    assert inline
    assert inline["_attachments"]["srm.txt"]["data"] == "aGVsbG8="
    counts = await picas.count_tokens(["a+b", "none"])
    assert counts == {"a+b": {**dict.fromkeys(STATES, 0), "todo": 2, "error": 1}, "none": dict.fromkeys(STATES, 0)}
    assert await picas.list_ids("a+b") == tuple(ids)
    assert [row.id for row in await picas.query("a+b", "todo")] == ids[:2]
    changed: set[str] = set()
    async with aclosing(picas.changes(since)) as feed, asyncio.timeout(10):
        async for item in feed:
            if isinstance(item, Change):
                assert item.type == ("a+b" if ":" in item.id else None)
                changed.add(item.id)
            if changed >= set(ids):
                break
    with pytest.raises(FeedReset):
        async with aclosing(picas.changes("bogus-1")) as feed:
            await anext(feed)
    await picas.delete_design("a+b")
    await picas.delete_design("a+b")


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"lock": 0, "done": 0, "status": "queued"}, "todo"),
        ({"lock": 0, "done": 0, "status": "reset", "output": ""}, "todo"),
        ({"lock": 5, "done": 0, "status": "launched"}, "locked"),
        ({"lock": 5, "done": 9, "status": "done", "output": 0}, "done"),
        ({"lock": 5, "done": 9, "output": 0}, "done"),
        ({"lock": 5, "done": 9, "status": "error", "output": 1}, "error"),
        ({"lock": 5, "done": 9, "output": 1}, "error"),
        ({"lock": 99, "done": 99}, "error"),
        ({"lock": -1, "done": -1}, "error"),
        ({"lock": -1, "done": 0}, "error"),
        ({"lock": 0, "done": 0, "status": "error", "output": ""}, "todo"),
        ({"lock": 5, "done": 9, "output": "", "exit_code": 0}, "done"),
        ({"lock": 5, "done": 9, "output": "", "exit_code": 3}, "error"),
        ({"lock": 5, "done": 9}, "other"),
        ({}, "other"),
    ],
)
def test_every_token_is_in_exactly_one_state(fields: dict[str, Any], state: str) -> None:
    text = DESIGN_DOC["views"][STATES_VIEW]["map"]
    assert list(compile_map(text)({"_id": "x", "type": "t", **fields})) == [(["t", state], 1)]
    assert not list(compile_map(text)({"_id": "x", **fields}))


async def test_jobs(tools: Processes, site: Site, tmp_path: Path) -> None:
    assert (await Proxy(tools, None).info()).seconds_left > 3600
    terms = Terms((shipped_pipelines().parent / "jobs" / "glite.jdl").read_text(encoding="utf-8"))
    glite = Glite(tools, site, terms, endpoint=None, delegation=None, work_dir=tmp_path / "work")
    order = Order('run/"1"', 3, "/bin/bash", ("run.sh", "_PARAM_"), {"run.sh": "true"})
    job = await glite.prepare(order)
    assert (await glite.status([job]))[job].state == "submitted"
    assert await glite.find(order.key, job) == await glite.find(order.key) == ()
    assert await glite.submit(order, job) == await glite.submit(order, job) == (job,)
    assert await glite.find(order.key, job) == await glite.find(order.key) == (job,)
    seen = await glite.status([job, f"{job[:-3]}xyz"])
    assert list(seen) == [job]
    assert seen[job].state in ("queued", "running")
    assert len(seen[job].nodes) == 3
    assert await glite.find_by_tag('run/"1"') == (job,)
    assert await glite.find_by_tag("run/2") == ()
    await glite.cancel(job)
    assert (await glite.status([job]))[job].state == "cancelled"
    await glite.cancel(job)
    with pytest.raises(Permanent):
        await glite.output(job, tmp_path)


async def test_storage(tools: Processes, site: Site, tmp_path: Path) -> None:
    storage = Storage(tools, site)
    await storage.make_directory(f"{FAR}/d")
    await storage.make_directory(f"{FAR}/d")
    await storage.upload(b"hello", f"{FAR}/d/a+b")
    (entry,) = await storage.list(f"{FAR}/d")
    assert (entry.url, entry.size_bytes, entry.is_dir) == (f"{FAR}/d/a+b", 5, False)
    assert (await storage.stat(f"{FAR}/d") or entry).is_dir
    assert await storage.checksum(entry.url) == 0x062C0215
    await storage.copy(entry.url, (tmp_path / "P+1").as_uri())
    assert (tmp_path / "P+1").read_bytes() == b"hello"
    for work in (
        storage.upload(b"x", entry.url),
        storage.copy(entry.url, entry.url),
        storage.rename(entry.url, entry.url),
    ):
        with pytest.raises(Permanent):
            await work
    await storage.rename(entry.url, f"{FAR}/d/c")
    await storage.remove(f"{FAR}/d/c")
    assert await storage.list(f"{FAR}/d") == ()
    assert await storage.stat(f"{FAR}/d/c") is None
    with pytest.raises(Permanent) as caught:
        await storage.remove(f"{FAR}/d/c")
    assert caught.value.absent
