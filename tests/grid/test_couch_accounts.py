"""Who may do what at the token database, and whose documents are left alone: at the simulated one, and in tests/real at a real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from aglowd.clock import Clock
from aglowd.effects.base import Intent, World
from aglowd.effects.tokens import AttachFiles, CreateTokens, ResetTokens
from aglowd.errors import Temporary
from aglowd.grid.couchdb_feed import Change
from aglowd.grid.picas import DESIGN_DOC, NotAdmin, Picas, token_design_doc
from aglowd.model import Json

from .bases import MEMBER, Base

MINE = {"_id": "t:1", "type": "t", "lock": 0, "done": 0, "status": "queued"}
CREATE = CreateTokens(token_type="t", tokens={"t:1": MINE})
TEXT = "srm://a/b é\n" * 400


MONITOR = {
    "todo": "doc.lock == 0 && doc.done == 0",
    "locked": "doc.lock > 0 && doc.done == 0",
    "done": "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) == 0",
    "error": "doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) != 0",
}
"""The views of picasclient's `_design/Monitor`, as its examples have them."""


def monitor_design_doc(token_type: str) -> dict[str, Any]:
    guard = f'doc.type == "{token_type}"'
    views: dict[str, Any] = {
        name: {"map": f"function(doc) {{ if ({guard} && {test}) {{ emit(doc._id, doc._id); }} }}"}
        for name, test in MONITOR.items()
    }
    counts = " ".join(f"if ({test}) {{ emit('{name}', 1); }}" for name, test in MONITOR.items())
    overview = f"function(doc) {{ if ({guard}) {{ {counts} }} }}"
    views["overview_total"] = {"map": overview, "reduce": "_sum"}
    return {"_id": "_design/Monitor", "language": "javascript", "views": views}


def world_of(picas: Picas) -> World:
    return cast(World, SimpleNamespace(token_base=lambda site: picas, clock=Clock()))


def intent() -> Intent:
    async def note(_: dict[str, Json]) -> None: ...

    async def others() -> list[Any]:
        return []

    return Intent("run/step/1/effect/0", 0.0, 0, None, {}, note, others)


# --- sessions


@pytest.mark.parametrize("by_cookie", [False, True], ids=["basic", "cookie"])
async def test_a_wrong_password_freezes_the_credential(base: Base, by_cookie: bool) -> None:
    picas = base.picas("wrong", by_cookie=by_cookie)
    for _ in range(3):
        with pytest.raises(Temporary, match="frozen") as caught:
            await picas.info()
        assert "wrong" not in str(caught.value)


async def test_a_session_that_is_over_is_opened_anew(base: Base) -> None:
    picas = base.picas(by_cookie=True)
    rows = await picas.bulk([MINE])
    await base.end_sessions()
    assert (await picas.get_docs(["t:1"]))["t:1"] == {**MINE, "_rev": rows["t:1"].rev}
    await base.end_sessions()
    assert (await picas.bulk([{**MINE, "_rev": rows["t:1"].rev, "lock": 5}]))["t:1"].ok
    await base.end_sessions()
    async with aclosing(picas.changes("0", heartbeat_s=0.5)) as feed:  # type: ignore[type-var] # an async generator
        assert cast(Change, await anext(feed)).id == "t:1"


async def test_a_file_that_a_closed_session_swallowed_is_not_attached_empty(base: Base) -> None:
    picas = base.picas(by_cookie=True)
    rev = str((await picas.bulk([MINE]))["t:1"].rev)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        yield b"y" * 1000

    await base.end_sessions()
    with pytest.raises(Temporary, match="session"):
        await picas.put_attachment("t:1", rev, "log", pieces(), "text/plain")
    assert "_attachments" not in ((await picas.get_docs(["t:1"]))["t:1"] or {})
    await picas.put_attachment("t:1", rev, "log", pieces(), "text/plain")
    assert await picas.get_attachment("t:1", "log") == b"x" * 1000 + b"y" * 1000


# --- who may change no design documents


@pytest.mark.parametrize("by_cookie", [False, True], ids=["basic", "cookie"])
async def test_who_may_not_change_design_documents_is_told_so_and_goes_on(base: Base, by_cookie: bool) -> None:
    picas = base.picas(user=MEMBER, by_cookie=by_cookie)
    with pytest.raises(NotAdmin, match="_design/aglowd"):
        await picas.ensure_design("aglowd", DESIGN_DOC)
    with pytest.raises(NotAdmin):
        await CREATE.do(world_of(picas), intent())
    assert await picas.get_docs(["t:1"]) == {"t:1": None}, "tokens that nobody can count are not made"
    await base.picas().ensure_design("aglowd", DESIGN_DOC)
    await picas.ensure_design("aglowd", DESIGN_DOC)
    assert await CREATE.do(world_of(picas), intent()) == {"created": 1}
    assert (await picas.count_tokens(["t"]))["t"]["todo"] == 1
    with pytest.raises(NotAdmin):
        await picas.delete_design("aglowd")
    assert (await picas.info()).doc_count == 2


# --- whose tokens they are


async def test_other_peoples_documents_are_never_touched(base: Base) -> None:
    picas = base.picas()
    views = {"views": {"todo": {"map": "function (doc) { emit(doc._id, 1); }"}}}
    await picas.ensure_design("theirs", views)
    theirs: list[dict[str, Any]] = [
        {"_id": "t:2", "type": "t", "lock": 0, "done": 0},
        {"_id": "theirs:1", "type": "theirs", "lock": 99, "done": 99},
        {"_id": "plain", "lock": 0, "done": 0},
    ]
    before = {name: row.rev for name, row in (await picas.bulk(theirs)).items()}
    before["_design/theirs"] = ((await picas.get_docs(["_design/theirs"]))["_design/theirs"] or {})["_rev"]
    world = world_of(picas)
    await CREATE.do(world, intent())
    await AttachFiles(own={"t:1": {"srm.txt": TEXT}}).do(world, intent())
    await ResetTokens(tokens=("t:1",)).do(world, intent())
    after = await picas.get_docs(list(before))
    assert {name: (document or {})["_rev"] for name, document in after.items()} == before
    assert ((await picas.get_docs(["t:1"]))["t:1"] or {})["scrub_count"] == 1


async def test_files_that_were_attached_are_found_to_be(base: Base) -> None:
    picas = base.picas()
    world = world_of(picas)
    await CREATE.do(world, intent())
    attach = AttachFiles(own={"t:1": {"srm.txt": TEXT}}, shared={"a.parset": "x = 1\n", "empty": ""})
    assert await attach.find(world, intent()) is None
    await attach.do(world, intent())
    assert await attach.find(world, intent()) == {"attached": 1}
    assert (await picas.get_attachment("t:1", "srm.txt")).decode() == TEXT


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
async def test_a_log_is_read_whatever_the_database_keeps_of_it(base: Base, content_type: str) -> None:
    picas = base.picas()
    rev = str((await picas.bulk([MINE]))["t:1"].rev)
    await picas.put_attachment("t:1", rev, "28/11/2026_log.txt", TEXT.encode(), content_type)
    assert await picas.get_attachment("t:1", "28/11/2026_log.txt") == TEXT.encode()
    got: list[bytes] = []

    async def take(block: bytes) -> None:
        got.append(block)

    await picas.pour_attachment("t:1", "28/11/2026_log.txt", take)
    assert b"".join(got) == TEXT.encode()


async def test_picasclients_views_see_our_tokens_rightly_and_are_left_alone(base: Base) -> None:
    picas = base.picas()
    await picas.ensure_design("Monitor", monitor_design_doc("t"))
    before = await picas.get_docs(["_design/Monitor"])
    await picas.ensure_design("aglowd", DESIGN_DOC)
    await picas.ensure_design("t", token_design_doc("t"))
    states = {
        "todo": {"lock": 0, "done": 0, "status": "queued"},
        "locked": {"lock": 5, "done": 0, "status": "launched"},
        "done": {"lock": 5, "done": 6, "status": "done", "output": 0, "exit_code": 0},
        "error": {"lock": 5, "done": 6, "status": "error", "output": 3, "exit_code": 3},
    }
    await picas.bulk([
        *({"_id": f"t:{state}", "type": "t", **fields} for state, fields in states.items()),
        {"_id": "u:1", "type": "u", "lock": 0, "done": 0},
    ])  # fmt: skip
    for state in states:
        assert [row.id for row in await picas.query("Monitor", state)] == [f"t:{state}"]
        assert await picas.list_ids("t", state) == (f"t:{state}",)
    rows = await picas.query("Monitor", "overview_total", params={"group": True})
    assert {row.key: row.value for row in rows} == dict.fromkeys(states, 1)
    assert await picas.get_docs(["_design/Monitor"]) == before


async def test_where_lines_are_held_back_the_feed_is_polled(base: Base) -> None:
    picas = base.picas()
    picas._feed._is_buffered = True  # As after a feed of which not even a heartbeat came through.
    await picas.bulk([MINE])
    async with aclosing(picas.changes("0", heartbeat_s=0.5)) as feed:  # type: ignore[type-var] # an async generator
        told = [await anext(feed), await anext(feed)]
        assert cast(Change, told[0]).id == "t:1"
        await picas.bulk([{"_id": "t:2"}])
        assert cast(Change, await anext(feed)).id == "t:2"
        await picas.bulk([{"_id": "t:3"}, {"_id": "t:4"}])
        seen = {one.id for one in [await anext(feed) for _ in range(4)] if isinstance(one, Change)}
        assert seen <= {"t:3", "t:4"}
        assert seen
