"""What the token database promises, whoever speaks CouchDB's protocol: the simulated grid here, a real server in tests/real."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aglowd.effects.tokens import AttachFiles
from aglowd.errors import Permanent, Temporary
from aglowd.grid.couchdb_feed import Change, FeedReset, Heartbeat
from aglowd.grid.picas import DESIGN_DOC, STATES, Picas, Taken, state_of, token_design_doc
from aglowd.grid.tokens import build_token

from .bases import PASSWORD, USER, Base

PAGE = Path(__file__).parents[2] / "docs" / "tokens.md"
SAMPLE = Path(__file__).parent / "samples" / "tokens" / "targ1_pref3.json"
ROWS = re.findall(r"^\| `(\{.*?\})` \| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
BINARY = bytes(range(256)) * 64


async def read(picas: Picas, since: str | None, wanted: set[str]) -> tuple[str, list[Change]]:
    """The changes until all that is wanted has been told, and the sequence up to which the feed was read."""
    changes: list[Change] = []
    async with aclosing(picas.changes(since, heartbeat_s=1.0)) as feed, asyncio.timeout(20):  # type: ignore[type-var] # an async generator
        async for told in feed:
            if isinstance(told, Change):
                changes.append(told)
            if wanted <= {change.id for change in changes}:
                break
    return changes[-1].seq, changes


async def test_each_document_of_many_has_an_answer_of_its_own(base: Base) -> None:
    picas = base.picas()
    rows = await picas.bulk([{"_id": f"t:{number}", "type": "t", "lock": 0} for number in range(501)])
    assert all(row.ok for row in rows.values())
    assert len(rows) == 501
    first = rows["t:0"].rev
    rows = await picas.bulk(
        [{"_id": "t:0", "lock": 1}, {"_id": "t:1", "_rev": rows["t:1"].rev, "lock": 1}, {"_id": "new"}]
    )
    assert {name: (row.ok, row.error) for name, row in rows.items()} == {
        "t:0": (False, "conflict"), "t:1": (True, None), "new": (True, None),
    }  # fmt: skip
    found = await picas.get_docs(["t:0", "t:1", "none"])
    assert (found["t:0"] or {})["_rev"] == first
    assert (found["t:1"] or {})["lock"] == 1
    assert found["none"] is None


async def test_what_is_deleted_is_gone_and_was_there(base: Base) -> None:
    picas = base.picas()
    rows = await picas.bulk([{"_id": "a"}, {"_id": "b"}])
    await picas.bulk([{"_id": "a", "_rev": rows["a"].rev, "_deleted": True}])
    assert await picas.get_docs(["a"]) == {"a": None}
    assert await picas.list_deleted(["a", "b", "never"]) == ("a",)
    assert (await picas.info()).doc_count == 1


@pytest.mark.parametrize("name", ["srm.txt", "28/11/2026_10.00.00_stdout.txt", "a b+c%.bin"])
async def test_an_attachment_is_what_it_was(base: Base, name: str) -> None:
    picas = base.picas()
    rev = str((await picas.bulk([{"_id": "t:1", "kept": 1}]))["t:1"].rev)
    new = await picas.put_attachment("t:1", rev, name, BINARY, "application/x-odd")
    with pytest.raises(Permanent, match="409"):
        await picas.put_attachment("t:1", rev, name, b"late", "text/plain")

    async def pieces() -> Any:
        for start in range(0, len(BINARY), 1000):
            yield BINARY[start : start + 1000]

    await picas.put_attachment("t:1", new, "poured", pieces(), "text/plain")
    assert await picas.get_attachment("t:1", name) == await picas.get_attachment("t:1", "poured") == BINARY
    got: list[bytes] = []

    async def take(block: bytes) -> None:
        got.append(block)

    await picas.pour_attachment("t:1", name, take)
    assert b"".join(got) == BINARY
    document = (await picas.get_docs(["t:1"]))["t:1"] or {}
    assert document["kept"] == 1
    stub = document["_attachments"][name]
    assert (stub["content_type"], stub["length"], stub["digest"][:4]) == ("application/x-odd", len(BINARY), "md5-")
    with pytest.raises(Permanent) as caught:
        await picas.get_attachment("t:1", "none")
    assert caught.value.absent


async def test_what_was_attached_to_tokens_is_known_again(base: Base) -> None:
    picas = base.picas()
    await picas.bulk([{"_id": f"t:{number}", "type": "t", "lock": 0, "done": 0} for number in range(2)])
    world: Any = SimpleNamespace(token_base=lambda site: picas)
    intent: Any = SimpleNamespace(key="run/attach/1/attach_files/0")
    own = {f"t:{number}": {"srm.txt": f"srm://{number}\n" * 100} for number in range(2)}
    deed = AttachFiles(own=own, shared={"a.parset": "x = 1\n" * 50})
    assert await deed.find(world, intent) is None
    assert await deed.do(world, intent) == {"attached": 2}
    before = await picas.get_docs(tuple(own))
    assert await deed.find(world, intent) == {"attached": 2}
    await deed.do(world, intent)
    assert await picas.get_docs(tuple(own)) == before, "nothing is attached twice"
    assert await picas.get_attachment("t:1", "srm.txt") == own["t:1"]["srm.txt"].encode()


async def test_a_design_document_is_written_only_when_it_says_something_else(base: Base) -> None:
    picas = base.picas()
    await picas.ensure_design("aglowd", DESIGN_DOC)
    first = (await picas._find_doc("_design/aglowd") or {})["_rev"]
    await picas.ensure_design("aglowd", DESIGN_DOC)
    assert (await picas._find_doc("_design/aglowd") or {})["_rev"] == first
    await picas.ensure_design("aglowd", {"views": {"theirs": {"map": "function (doc) { emit(doc._id, 1); }"}}})
    await picas.ensure_design("aglowd", DESIGN_DOC)
    views = (await picas._find_doc("_design/aglowd") or {})["views"]
    assert views.keys() == {*DESIGN_DOC["views"], "theirs"}
    for _ in range(2):
        await picas.delete_design("aglowd")
    assert await picas._find_doc("_design/aglowd") is None


async def test_every_token_is_in_the_state_that_the_page_says(base: Base) -> None:
    assert len(ROWS) > 15
    picas = base.picas()
    await picas.ensure_design("aglowd", DESIGN_DOC)
    documents = [{"_id": f"t:{number}", "type": "t", **json.loads(text)} for number, (text, _) in enumerate(ROWS)]
    await picas.bulk(
        [*documents, {"_id": "no token", "lock": 0, "done": 0}, {"_id": "u:1", "type": "u", "lock": 0, "done": 0}]
    )
    wanted = {f"t:{number}": state for number, (_, state) in enumerate(ROWS)}
    found = await picas.get_docs(tuple(wanted))
    assert {name: state_of(document) for name, document in found.items() if document is not None} == wanted
    for state in STATES:
        assert await picas.list_ids("t", state) == tuple(sorted(name for name, one in wanted.items() if one == state))
    assert await picas.list_ids("t") == tuple(sorted(wanted))
    counts = await picas.count_tokens(["t", "none"])
    assert counts == {
        "t": {state: [*wanted.values()].count(state) for state in STATES},
        "none": dict.fromkeys(STATES, 0),
    }
    taken = await picas.list_taken(["t", "none"])
    assert {name: one.state for name, one in taken["t"].items()} == {
        name: state for name, state in wanted.items() if state in ("locked", "error", "other")
    }
    assert taken["none"] == {}


async def test_what_a_pilot_wrote_is_told_of_a_token_that_it_took(base: Base) -> None:
    picas = base.picas()
    await picas.ensure_design("aglowd", DESIGN_DOC)
    mark = {"key": "k", "retries": 2, "history": [{"why": "error"}]}
    rows = await picas.bulk([
        {"_id": "t:1", "type": "t", "lock": 7, "done": 0, "slurm_job_id": "17_3", "hostname": "wn1", "aglowd": mark},
        {"_id": "t:2", "type": "t", "lock": 8, "done": 0, "wms_job_id": "https://a/b", "dirac_job_id": 314, "aglowd": 3},
        {"_id": "t:3", "type": "t", "lock": 9, "done": 0, "hostname": 8, "aglowd": {"retries": "many"}},
    ])  # fmt: skip
    assert (await picas.list_taken(["t"]))["t"] == {
        "t:1": Taken("locked", str(rows["t:1"].rev), 7, "17_3", "wn1", 2, True),
        "t:2": Taken("locked", str(rows["t:2"].rev), 8, "314", "", 0, True),
        "t:3": Taken("locked", str(rows["t:3"].rev), 9, "", "8", 0, True),
    }


async def test_without_our_views_those_of_grid_lrt_are_asked(base: Base) -> None:
    picas = base.picas()
    await picas.ensure_design("t", token_design_doc("t"))
    await picas.bulk([
        {"_id": "t:1", "type": "t", "lock": 0, "done": 0},
        {"_id": "t:2", "type": "t", "lock": 7, "done": 0, "status": "launched", "slurm_job_id": "17"},
        {"_id": "t:3", "type": "t", "lock": 7, "done": 8, "status": "error", "output": 1},
        {"_id": "t:4", "type": "t", "lock": 7, "done": 8, "status": "done", "output": 0},
    ])  # fmt: skip
    counts = await picas.count_tokens(["t", "none"])
    assert counts == {
        "t": {"todo": 1, "locked": 1, "done": 1, "error": 1, "other": 0}, "none": dict.fromkeys(STATES, 0),
    }  # fmt: skip
    taken = (await picas.list_taken(["t", "none"]))["t"]
    assert {name: (one.state, one.job) for name, one in taken.items()} == {
        "t:2": ("locked", "17"),
        "t:3": ("error", ""),
    }
    assert await picas.list_ids("t") == ("t:1", "t:2", "t:3", "t:4")
    assert (await picas.list_ids("t", "done"), await picas.list_ids("t", "other")) == (("t:4",), ())
    assert await picas.find_pilots("k") == ()
    assert await picas.list_pilot_docs("t") == []


async def test_the_marks_of_pilots_are_found_and_are_no_tokens(base: Base) -> None:
    picas = base.picas()
    await picas.ensure_design("aglowd", DESIGN_DOC)
    await picas.bulk([
        *({"_id": f"aglowd:pilot:{job}", "aglowd": {"pilot": key, "type": "t", "job": job}}
          for job, key in (("17_0", "run/a"), ("17_1", "run/a"), ("18", "run/b"))),
        {"_id": "t:1", "type": "t", "lock": 0, "done": 0, "aglowd": {"pilot": "run/a"}},
    ])  # fmt: skip
    assert await picas.find_pilots("run/a") == ("17_0", "17_1")
    assert await picas.find_pilots("run") == ()
    documents = await picas.list_pilot_docs("t")
    assert {doc["_id"] for doc in documents} == {"aglowd:pilot:17_0", "aglowd:pilot:17_1", "aglowd:pilot:18"}
    assert (await picas.count_tokens(["t"]))["t"]["todo"] == 1
    assert await picas.count_owners() == {}
    await picas.bulk([{**doc, "_deleted": True} for doc in documents])
    assert await picas.list_pilot_docs("t") == []


async def test_what_changes_is_told_and_from_where_one_left_off(base: Base) -> None:
    picas = base.picas()
    await picas.bulk([{"_id": f"t:{number}"} for number in range(20)])
    seq, changes = await read(picas, "0", {f"t:{number}" for number in range(20)})
    assert {change.type for change in changes} == {"t"}
    rows = await picas.bulk([{"_id": "t:x"}, {"_id": "plain"}])
    await picas.bulk([{"_id": "t:x", "_rev": rows["t:x"].rev, "_deleted": True}])
    _, changes = await read(picas, seq, {"t:x", "plain"})
    assert {(one.id, one.type, one.deleted) for one in changes} >= {("t:x", "t", True), ("plain", None, False)}
    assert all(change.id not in {f"t:{number}" for number in range(20)} for change in changes)


async def test_the_feed_goes_on_while_one_listens(base: Base) -> None:
    picas = base.picas()
    async with aclosing(picas.changes(None, heartbeat_s=0.5)) as feed, asyncio.timeout(20):  # type: ignore[type-var] # an async generator
        assert await anext(feed) == Heartbeat()
        await picas.bulk([{"_id": "t:1"}])
        async for told in feed:
            if isinstance(told, Change):
                assert told.id == "t:1"
                break


async def test_a_sequence_of_nobodys_is_a_reset(base: Base) -> None:
    if not base.sequences_are_checked:
        return  # Said in tests/real: it takes any text for a sequence.
    with pytest.raises(FeedReset):
        await read(base.picas(), "bogus-1", {"t:1"})


async def test_a_wrong_password_is_shown_once(base: Base) -> None:
    picas = base.picas("wrong")
    for _ in range(3):
        with pytest.raises(Temporary, match=r"credential picas is frozen") as caught:
            await picas.info()
        assert "wrong" not in str(caught.value)


# --- GRID_LRT's own tools on the same tokens

THEIRS = """
import json, sys, warnings
warnings.simplefilter("ignore")
from cloudant.client import CouchDB
from GRID_LRT.token import TokenList, caToken, TokenJsonBuilder
url, user, password, database, sample = sys.argv[1:]
client = CouchDB(user, password, url=url, connect=True, use_basic_auth=True)
base = client[database]
ours = TokenList(token_type="t", database=base)
ours.fetch()
seen = {}
for view in ("todo", "locked", "done", "error"):
    ours.list_view_tokens(view)
    seen[view] = sorted(row["id"] for row in base.get_view_result("_design/t", view))
token = caToken(token_type="t", database=base, token_id="t:SB000")
token.fetch()
told = {key: value for key, value in json.loads(token.json()).items() if not key.startswith("_")}
token["lock"] = 1500000000
token.save()
theirs = TokenList(token_type="theirs", database=base)
new = caToken(token_type="theirs", database=base, token_id="theirs_SB000")
new.build(TokenJsonBuilder(sample))
new.save()
theirs.add_token_views()
print(json.dumps({"seen": seen, "token": told}))
"""


async def test_grid_lrt_reads_what_we_write_and_we_read_what_it_writes(base: Base) -> None:
    picas = base.picas()
    config = json.loads(SAMPLE.read_text(encoding="utf-8"))
    await picas.ensure_design("t", token_design_doc("t"))
    await picas.ensure_design("aglowd", DESIGN_DOC)
    ours = build_token(config, "t:SB000", "t", {})
    await picas.bulk([{**ours, "aglowd": {"key": "k"}}])
    argv = [sys.executable, "-c", THEIRS, base.url, USER, PASSWORD, base.database, str(SAMPLE)]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["seen"] == {"todo": ["t:SB000"], "locked": [], "done": [], "error": []}
    kept = {name: value for name, value in ours.items() if not name.startswith("_")}
    assert {name: value for name, value in told["token"].items() if name != "aglowd"} == kept
    (named,) = await picas.list_ids("theirs")  # The `_id` in its configuration is what GRID_LRT calls it.
    found = await picas.get_docs(["t:SB000", named])
    assert (found["t:SB000"] or {})["lock"] == 1500000000
    assert (found["t:SB000"] or {})["aglowd"] == {"key": "k"}
    theirs = found[named] or {}
    assert {name: value for name, value in theirs.items() if not name.startswith("_") and name != "type"} == {
        name: value for name, value in kept.items() if name != "type"
    }
    counts = await picas.count_tokens(["t", "theirs"])
    assert (counts["t"]["locked"], counts["theirs"]["todo"]) == (1, 1)
