"""The CouchDB subset over real HTTP: revisions, conflicts, bulk writes, views, attachments and the feeds."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.sim.couchstore import compressed, digest_of

from .conftest import GridMaker, SmallGrid, basic_auth

STATES = """function(doc){ if(doc.type){ if(doc.lock == 0 && doc.done == 0) emit([doc.type, 'todo'], 1);
 else if(doc.status == 'done') emit([doc.type, 'done'], 1); else emit([doc.type, 'locked'], 1); } }"""


async def put_views(grid: SmallGrid, **views: dict[str, str]) -> None:
    status, answer = await grid.couch("PUT", "_design/v", {"views": views})
    assert status == 201, answer


async def put_tokens(grid: SmallGrid, count: int, **fields: Any) -> list[dict[str, Any]]:
    docs = [{"_id": f"t{n:02d}", "type": "a" if n % 2 else "b", "lock": 0, "done": 0, **fields} for n in range(count)]
    status, rows = await grid.couch("POST", "_bulk_docs", {"docs": docs})
    assert status == 201
    return [doc | {"_rev": row["rev"]} for doc, row in zip(docs, rows, strict=True)]


@pytest.mark.asyncio
async def test_nothing_without_the_password(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        for headers in ({}, {"Authorization": basic_auth("aglowd", "wrong")}):
            async with grid.http.get(grid.ready["couch_url"] + "/sksp", headers=headers) as response:
                assert response.status == 401


@pytest.mark.asyncio
async def test_databases(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        assert (await grid.couch("GET", "/_up"))[1]["status"] == "ok"
        assert (await grid.couch("GET", "/"))[1]["couchdb"] == "Welcome"
        assert (await grid.couch("PUT", "/other"))[0] == 201
        assert (await grid.couch("PUT", "/other"))[0] == 412
        assert (await grid.couch("PUT", "/Other"))[0] == 400
        assert (await grid.couch("HEAD", "/other"))[0] == 200
        assert (await grid.couch("DELETE", "/other"))[0] == 200
        assert (await grid.couch("GET", "/other"))[0] == 404
        info = (await grid.couch("GET", "/sksp"))[1]
        assert info["doc_count"] == 0
        assert info["instance_start_time"]
        assert (await grid.couch("POST", "_ensure_full_commit", b""))[0] == 201


@pytest.mark.asyncio
async def test_a_stale_revision_is_a_conflict(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        status, made = await grid.couch("PUT", "t1", {"a": 1})
        assert (status, made["rev"][:2]) == (201, "1-")
        assert (await grid.couch("PUT", "t1", {"a": 2}))[0] == 409
        assert (await grid.couch("PUT", "t1?rev=1-" + "0" * 32, {"a": 2}))[0] == 409
        assert (await grid.couch("PUT", "t1?rev=nonsense", {"a": 2}))[0] == 400
        status, second = await grid.couch("PUT", "t1", {"a": 2, "_rev": made["rev"]})
        assert second["rev"].startswith("2-")
        status, third = await grid.couch("PUT", "t1", {"a": 3}, **{"If-Match": second["rev"]})
        assert status == 201
        assert (await grid.couch("PUT", "t1", {"_odd": 1, "_rev": third["rev"]}))[0] == 400
        assert (await grid.couch("DELETE", f"t1?rev={second['rev']}"))[0] == 409
        assert (await grid.couch("DELETE", f"t1?rev={third['rev']}"))[0] == 200
        assert (await grid.couch("GET", "t1")) == (404, {"error": "not_found", "reason": "deleted"})
        status, again = await grid.couch("PUT", "t1", {"a": 4})
        assert again["rev"].startswith("5-")


@pytest.mark.asyncio
async def test_of_two_hundred_locks_exactly_one_succeeds(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        _, made = await grid.couch("PUT", "t", {"lock": 0})
        tries = [grid.couch("PUT", "t", {"lock": n, "_rev": made["rev"]}) for n in range(1, 201)]
        statuses = [status for status, _ in await asyncio.gather(*tries)]
    assert sorted(statuses) == [201, *[409] * 199]


@pytest.mark.asyncio
async def test_bulk_docs_answers_each_for_itself(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        made = await put_tokens(grid, 2)
        docs = [{"_id": "t00"}, made[1] | {"lock": 1}, {"_id": "new"}, {"_id": "_bad"}]
        status, rows = await grid.couch("POST", "_bulk_docs", {"docs": docs})
        assert status == 201
        assert [row.get("error", "ok") for row in rows] == ["conflict", "ok", "ok", "illegal_docid"]
        assert rows[1]["rev"].startswith("2-")
        assert (await grid.couch("POST", "_bulk_docs", b"{"))[0] == 400


@pytest.mark.asyncio
async def test_all_docs(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        made = await put_tokens(grid, 5)
        await grid.couch("DELETE", f"t03?rev={made[3]['_rev']}")
        _, body = await grid.couch("GET", '_all_docs?startkey="t01"&endkey="t04"&limit=2')
        assert [row["id"] for row in body["rows"]] == ["t01", "t02"]
        _, body = await grid.couch("GET", "_all_docs?descending=true&skip=1&include_docs=true")
        assert [row["doc"]["_id"] for row in body["rows"]] == ["t02", "t01", "t00"]
        _, body = await grid.couch("POST", "_all_docs?include_docs=true", {"keys": ["t04", "t03", "no"]})
        assert body["rows"][0]["doc"]["_id"] == "t04"
        assert body["rows"][1]["value"]["deleted"]
        assert body["rows"][1]["doc"] is None
        assert body["rows"][2] == {"key": "no", "error": "not_found"}


@pytest.mark.asyncio
async def test_grouped_counts_follow_every_change(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        await put_views(grid, states={"map": STATES, "reduce": "_count"}, stats={"map": STATES, "reduce": "_stats"})
        made = await put_tokens(grid, 6)
        _, body = await grid.couch("GET", "_design/v/_view/states?group=true")
        assert body["rows"] == [{"key": ["a", "todo"], "value": 3}, {"key": ["b", "todo"], "value": 3}]
        await grid.couch("PUT", "t01", made[1] | {"lock": 5})
        await grid.couch("DELETE", f"t03?rev={made[3]['_rev']}")
        _, body = await grid.couch(
            "POST", "_design/v/_view/states", {"group": True, "startkey": ["a"], "endkey": ["a", {}]}
        )
        assert body["rows"] == [{"key": ["a", "locked"], "value": 1}, {"key": ["a", "todo"], "value": 1}]
        _, body = await grid.couch("GET", "_design/v/_view/states?group_level=1")
        assert body["rows"] == [{"key": ["a"], "value": 2}, {"key": ["b"], "value": 3}]
        _, body = await grid.couch("GET", "_design/v/_view/states")
        assert body["rows"] == [{"key": None, "value": 5}]
        _, body = await grid.couch("GET", "_design/v/_view/stats")
        assert body["rows"][0]["value"] == {"sum": 5, "count": 5, "min": 1, "max": 1, "sumsqr": 5}
        _, body = await grid.couch("GET", '_design/v/_view/states?reduce=false&key=["a","locked"]&include_docs=true')
        assert [row["doc"]["lock"] for row in body["rows"]] == [5]
        _, body = await grid.couch("POST", "_design/v/_view/states?group=true", {"keys": [["b", "todo"], ["no"]]})
        assert body["rows"] == [{"key": ["b", "todo"], "value": 3}]
        _, body = await grid.couch("GET", "_design/v/_view/states?reduce=false&descending=true&limit=1&skip=1")
        assert body["rows"][0]["id"] == "t02"
        assert (await grid.couch("GET", "_design/v/_view/none"))[0] == 404
        assert (await grid.couch("GET", "_design/v/_view/states?key=nojson"))[0] == 400
        assert (await grid.couch("GET", "_design/v/_view/states?include_docs=true"))[0] == 400


@pytest.mark.asyncio
async def test_only_what_changed_is_mapped_again() -> None:
    from aglowd.sim.couchstore import Database
    from aglowd.sim.couchviews import Query, ViewIndex

    database = Database("d", "0")
    for number in range(100):
        database.put(f"t{number}", {"type": "a", "lock": 0, "done": 0})
    index = ViewIndex(STATES, "_count")
    index.update(database)
    assert index.mapped == 100
    doc = database.get("t5")
    database.put("t5", doc.body() | {"lock": 1})
    index.update(database)
    assert index.mapped == 101
    assert [row["value"] for row in index.query(Query(group_level=9), database)["rows"]] == [1, 99]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.booleans())
def test_what_is_pending_is_what_changed_since(written: list[int], recreate: bool) -> None:
    from aglowd.sim import couchstore

    whole, couchstore.BLOCK = couchstore.BLOCK, 4
    try:
        database = couchstore.Database("d", "0")
        for at, number in enumerate(written):
            if recreate and at == len(written) // 2:
                database.restart("1", recreate=True)
            doc = database.find_live(f"t{number}")
            if doc is not None and at % 3 == 0:
                database.delete(doc.id, doc.rev)
            else:
                database.put(f"t{number}", {"at": at}, doc.rev if doc else None)
        for seq in range(database.seq + 1):
            assert database.pending(seq) == len(list(database.changed_since(seq)))
    finally:
        couchstore.BLOCK = whole


@pytest.mark.asyncio
async def test_a_long_update_of_a_view_lets_others_speak(monkeypatch: pytest.MonkeyPatch) -> None:
    from aglowd.sim import couchviews
    from aglowd.sim.couchstore import Database

    monkeypatch.setattr(couchviews, "MAPPED_AT_ONCE", 10)
    database = Database("d", "0")
    database.put("_design/v", {"views": {"states": {"map": STATES, "reduce": "_count"}}})
    for number in range(99):
        database.put(f"t{number}", {"type": "a", "lock": 0, "done": 0})
    views = couchviews.Views(database)
    asking = [asyncio.create_task(views.query("v", "states", couchviews.Query())) for _ in range(2)]
    await asyncio.sleep(0)
    database.put("late", {"type": "a", "lock": 0, "done": 0})
    assert not any(task.done() for task in asking), "it is at work still, and we were heard"
    assert [(await task)["rows"][0]["value"] for task in asking] == [100, 100]
    (index,) = views.indexes()
    assert index.mapped == 100


@pytest.mark.asyncio
async def test_a_map_that_does_not_compile_is_refused(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        status, body = await grid.couch("PUT", "_design/v", {"views": {"x": {"map": "function(doc) { emit( }"}}})
        assert (status, body["error"]) == (400, "compilation_error")


@pytest.mark.asyncio
async def test_attachments(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        inline = {"pre.parset": {"content_type": "text/plain", "data": base64.b64encode(b"x=1").decode()}}
        _, made = await grid.couch("PUT", "t", {"_attachments": inline})
        text = {"Content-Type": "text/plain"}
        assert (await grid.couch("PUT", "t/logs/a b.txt", b"hello", **text))[0] == 409
        status, put = await grid.couch("PUT", f"t/logs/a%20b.txt?rev={made['rev']}", b"hello", **text)
        assert status == 201
        assert (await grid.couch("GET", "t/logs/a%20b.txt")) == (200, b"hello")
        _, doc = await grid.couch("GET", "t")
        stub = doc["_attachments"]["logs/a b.txt"]
        assert (stub["length"], stub["revpos"], stub["stub"]) == (5, 2, True)
        # Texts are kept compressed, and the digest is that of what is kept; of nothing at all it is what a CouchDB 1.6 told.
        assert (stub["digest"], stub.get("encoding")) == (f"md5-{digest_of(compressed(b'hello'))}", None)
        assert digest_of(compressed(b"")) == "cCkGbCesb17xjWYNV0GXmg=="
        _, told = await grid.couch("GET", "t?att_encoding_info=true")
        assert told["_attachments"]["logs/a b.txt"]["encoding"] == "gzip"
        _, full = await grid.couch("GET", "t?attachments=true")
        assert base64.b64decode(full["_attachments"]["pre.parset"]["data"]) == b"x=1"
        kept = {"pre.parset": doc["_attachments"]["pre.parset"]}
        await grid.couch("PUT", "t", {"_rev": put["rev"], "_attachments": kept})
        _, doc = await grid.couch("GET", "t")
        assert list(doc["_attachments"]) == ["pre.parset"]
        status, body = await grid.couch("PUT", "t", {"_rev": doc["_rev"], "_attachments": {"no": {"stub": True}}})
        assert (status, body["error"]) == (412, "missing_stub")
        assert (await grid.couch("DELETE", f"t/pre.parset?rev={doc['_rev']}"))[0] == 200
        assert (await grid.couch("GET", "t/pre.parset"))[0] == 404


@pytest.mark.asyncio
async def test_changes_tell_the_latest_revision_once(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        made = await put_tokens(grid, 3)
        await grid.couch("PUT", "t00", made[0] | {"lock": 1})
        _, body = await grid.couch("GET", "_changes?include_docs=true")
        assert [row["id"] for row in body["results"]] == ["t01", "t02", "t00"]
        assert body["results"][2]["doc"]["lock"] == 1
        assert body["pending"] == 0
        _, first = await grid.couch("GET", "_changes?limit=1")
        assert first["pending"] == 2
        _, rest = await grid.couch("GET", f"_changes?since={first['last_seq']}")
        assert [row["id"] for row in rest["results"]] == ["t02", "t00"]
        assert rest["last_seq"] == body["last_seq"]
        assert (await grid.couch("GET", "_changes?since=bogus"))[0] == 400
        assert (await grid.couch("GET", "_changes?since=now"))[1]["results"] == []


@pytest.mark.asyncio
async def test_a_longpoll_waits_for_a_change_or_its_time(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        _, body = await grid.couch("GET", "_changes?feed=longpoll&since=now&timeout=20")
        assert body["results"] == []
        waiting = asyncio.create_task(grid.couch("GET", f"_changes?feed=longpoll&since={body['last_seq']}"))
        await asyncio.sleep(0.02)
        await put_tokens(grid, 1)
        _, body = await waiting
        assert [row["id"] for row in body["results"]] == ["t00"]


@pytest.mark.asyncio
async def test_a_continuous_feed_beats_and_tells(small_grid: GridMaker) -> None:
    async with small_grid() as grid:
        url = f"{grid.ready['couch_url']}/sksp/_changes?feed=continuous&since=now&heartbeat=20"
        headers = {"Authorization": basic_auth(grid.secrets["couch_user"], grid.secrets["couch_password"])}
        async with grid.http.get(url, headers=headers, timeout=aiohttp.ClientTimeout(sock_read=5)) as response:
            assert await response.content.readline() == b"\n"
            await put_tokens(grid, 2)
            lines: list[str] = []
            while len(lines) < 2:
                line = await response.content.readline()
                if line.strip():
                    lines.append(json.loads(line)["id"])
        assert lines == ["t00", "t01"]
        _, body = await grid.couch("GET", "_changes?feed=continuous&timeout=20&limit=2")
        assert [next(iter(json.loads(line))) for line in body.splitlines()] == ["seq", "seq", "last_seq"]


@pytest.mark.asyncio
async def test_grid_lrt_itself_makes_tokens_and_views(small_grid: GridMaker, tmp_path: Path) -> None:
    script = tmp_path / "lrt.py"
    script.write_text(
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from cloudant.client import CouchDB\n"
        "from GRID_LRT.token import TokenList, caToken\n"
        "url, user, password = sys.argv[1:]\n"
        "client = CouchDB(user, password, url=url, connect=True, use_basic_auth=True)\n"
        "db = client['sksp']\n"
        "tokens = TokenList(token_type='lrt', database=db)\n"
        "for n in range(3):\n"
        "    token = caToken(database=db, token_type='lrt', token_id=f'lrt{n}'); token.save(); tokens.append(token)\n"
        "tokens.add_token_views()\n"
        "first = tokens[0]; first['lock'] = 5; first['status'] = 'launched'; first.save()\n"
        f"first.add_attachment({str(script)!r}, 'a.txt')\n"
        "print(sorted(t['_id'] for t in tokens.list_view_tokens('todo')), len(tokens.list_view_tokens('locked')))\n"
    )
    async with small_grid() as grid:
        secrets = grid.secrets
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(script), grid.ready["couch_url"], secrets["couch_user"], secrets["couch_password"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ), cwd=tmp_path,
        )  # fmt: skip
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, stderr.decode()
        assert stdout.decode().splitlines()[-1] == "['lrt1', 'lrt2'] 1"
        _, body = await grid.couch("GET", "_design/lrt/_view/overview_view?group=true")
        counts = {row["key"]: row["value"] for row in body["rows"]}
        # A locked token without `output` counts as error, waiting and running at once: GRID_LRT's own overview.
        assert counts == {"todo": 2, "error": 1, "waiting": 1, "running": 1}
        assert (await grid.couch("GET", "lrt0/a.txt"))[0] == 200
