"""Tokens are archived whole, and only what was archived is deleted."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tarfile
import time
from typing import Any
from zlib import adler32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aglowd.effects import token_archive
from aglowd.effects.token_archive import ArchiveTokens, DeleteTokens, pack, unpack
from aglowd.errors import Conflict, Permanent, Temporary, Unknown
from aglowd.grid.picas import NotAdmin

from .made import ATTACH, TOKENS, archive, make_tokens
from .outside import KEY, Outside


async def test_an_archive_holds_everything_and_is_found(outside: Outside) -> None:
    await make_tokens(outside)
    await ATTACH.do(outside.world, outside.intent())
    outside.couch.put({"_id": "u:1", "type": "u"})
    effect = ArchiveTokens(token_type="t", url=outside.url("a/t.tar.gz"))
    assert await effect.find(outside.world, outside.intent()) is None
    found = await effect.do(outside.world, outside.intent())
    data = outside.file("a/t.tar.gz").read_bytes()
    revisions = {name: outside.couch.docs[name]["_rev"] for name in TOKENS}
    assert found == {"url": effect.url, "size_bytes": len(data), "adler32": adler32(data), "revisions": revisions}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}
    assert sorted(members) == sorted(
        [*(f"{name}.json" for name in TOKENS), *(f"{name}/a.parset" for name in TOKENS), "t:1/srm.txt", "t:2/srm.txt"]
    )
    assert members["t:2/srm.txt"] == b"two\n"
    kept = msgspec.json.decode(members["t:2.json"])
    assert kept["_attachments"]["srm.txt"]["digest"].startswith("md5-")
    assert "data" not in kept["_attachments"]["srm.txt"]
    assert kept["aglowd"] == {"key": KEY}
    assert await effect.find(outside.world, outside.intent()) == found
    assert outside.files() == ["a", "a/t.tar.gz"]
    assert os.listdir(outside.world.work_dir) == []


async def test_an_archive_that_is_there_and_differs_is_not_overwritten(outside: Outside) -> None:
    await make_tokens(outside)
    before = await archive(outside)
    outside.couch.change("t:1", status="done")
    with pytest.raises(Permanent, match="exists and differs"):
        await archive(outside)
    assert adler32(outside.file("t.tar.gz").read_bytes()) == before["adler32"]
    assert outside.files() == ["t.tar.gz"]


async def test_what_is_no_archive_is_not_taken_for_one(outside: Outside) -> None:
    await make_tokens(outside)
    for content in (b"", b"no archive", gzip.compress(b"no tar", mtime=0), pack(DOCUMENTS)[:200]):
        outside.file("t.tar.gz").write_bytes(content)
        with pytest.raises(Permanent, match="cannot be read back"):
            await ArchiveTokens(token_type="t", url=outside.url("t.tar.gz")).find(outside.world, outside.intent())
    assert os.listdir(outside.world.work_dir) == []


async def test_an_archive_that_is_damaged_on_its_way_is_never_published(outside: Outside) -> None:
    await make_tokens(outside)
    outside.storage.damaged = 1
    with pytest.raises(Temporary, match="arrived damaged"):
        await archive(outside)
    assert outside.files() == []
    await archive(outside)
    assert outside.files() == ["t.tar.gz"]


DOCUMENTS: list[dict[str, Any]] = [
    {
        "_id": f"t:{number}",
        "_rev": f"{number}-x",
        "_attachments": {
            name: {"content_type": "text/plain", "data": base64.b64encode(f"{name} {number}".encode()).decode()}
            for name in ("b", "a.json", "c.txt")
        },
    }
    for number in range(3)
] + [{"_id": "u:0", "_rev": "1-é", "text": "é"}]


def test_packing_and_unpacking_give_the_documents_back() -> None:
    documents = unpack(pack(DOCUMENTS))
    assert [(document["_id"], document["_rev"]) for document in documents] == [
        ("t:0", "0-x"),
        ("t:1", "1-x"),
        ("t:2", "2-x"),
        ("u:0", "1-é"),
    ]
    assert documents[3]["text"] == "é"
    assert unpack(pack([])) == []
    with tarfile.open(fileobj=io.BytesIO(pack(DOCUMENTS))) as tar:
        file = tar.extractfile("t:1/a.json")
        assert file is not None
        assert file.read() == b"a.json 1"


def test_the_same_tokens_give_the_same_bytes_whenever_they_are_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(at: float, documents: list[dict[str, Any]]) -> bytes:
        monkeypatch.setattr(time, "time", lambda: at)
        return pack(documents)

    first = packed(1_000.0, DOCUMENTS)
    assert packed(1_000.0, list(reversed(DOCUMENTS))) == first
    assert packed(2_000.0, DOCUMENTS) == first


@settings(deadline=None)
@given(st.integers(0, 4000), st.integers(1, 255))
def test_an_archive_with_a_damaged_byte_is_never_believed(place: int, change: int) -> None:
    documents = [
        {"_id": f"t:{number}", "_rev": "1-x", "text": hashlib.sha256(bytes([number])).hexdigest()}
        for number in range(40)
    ]
    data = bytearray(pack(documents))
    data[10 + place % (len(data) - 10)] ^= change
    try:
        found = unpack(bytes(data))
    except Permanent:
        return
    kept = [{name: document[name] for name in ("_id", "_rev", "text")} for document in found]
    assert kept == sorted(documents, key=lambda document: document["_id"]), "a bit that carries nothing"


async def test_an_archive_at_the_limit_is_read_back_and_a_longer_one_is_none(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(DOCUMENTS)
    size = len(gzip.decompress(packed))
    monkeypatch.setattr(token_archive, "MAX_ARCHIVE_BYTES", size)
    assert len(unpack(pack(DOCUMENTS))) == len(DOCUMENTS)
    monkeypatch.setattr(token_archive, "MAX_ARCHIVE_BYTES", size - 1)
    with pytest.raises(Conflict, match=f"longer than {size - 1} bytes unpacked"):
        unpack(packed)
    effect = ArchiveTokens(token_type="t", url=outside.url("tokens.tar.gz"))
    outside.file("tokens.tar.gz").write_bytes(b"x" * size)
    with pytest.raises(Conflict, match=r"tokens.tar.gz is longer than \d+ bytes"):
        await effect.find(outside.world, outside.intent())


def test_more_tokens_than_an_archive_holds_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_archive, "MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(Permanent, match=r"these tokens are \d+ bytes with their attachments; an archive holds 1000"):
        pack(DOCUMENTS)


def _packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for info, body in members:
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def _member(name: str = "a.json", **values: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(info, key, value)
    return info


ODD = {
    "a list": (_member(), b"[]"),
    "no id": (_member(), b"{}"),
    "an id that is none": (_member(), b'{"_id": 1, "_rev": "1-a"}'),
    "no JSON": (_member(), b"{"),
    "a link": (_member(type=tarfile.SYMTYPE, linkname="gone"), b""),
    "a link to itself": (_member(type=tarfile.SYMTYPE, linkname="a.json"), b""),
    "deep": (_member(), b"[" * 100_000),
    "a hole of gigabytes": (_member(pax_headers={"GNU.sparse.size": str(3 << 30), "GNU.sparse.map": "0,0"}), b""),
    "a hole of no size": (_member(pax_headers={"GNU.sparse.size": "x", "GNU.sparse.map": "0,0"}), b""),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_archive_that_somebody_else_made_is_a_conflict(odd: str) -> None:
    with pytest.raises(Conflict, match="the archive of tokens cannot be read back"):
        unpack(_packed(ODD[odd]))


async def test_an_archive_of_other_tokens_is_not_ours(outside: Outside) -> None:
    await make_tokens(outside)
    outside.file("tokens.tar.gz").write_bytes(pack([{"_id": "old", "_rev": "1-a", "type": "t"}]))
    with pytest.raises(Conflict, match="an archive of other tokens: it lacks 3, such as t:1"):
        await ArchiveTokens(token_type="t", url=outside.url("tokens.tar.gz")).find(outside.world, outside.intent())


async def test_an_attempt_that_comes_later_finds_the_same_archive(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step's next attempt archives the same tokens to the same place; the bytes there must do."""
    await make_tokens(outside)
    first = await archive(outside)
    later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert await archive(outside, key="P1-1/step/2/archive_tokens/0") == first


async def test_exactly_what_was_archived_is_deleted(outside: Outside) -> None:
    await make_tokens(outside)
    found = await archive(outside)
    outside.couch.put({"_id": "u:4", "type": "u"})
    effect = DeleteTokens(token_type="t", revisions=found["revisions"], archive=found["url"], adler32=found["adler32"])
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"deleted": 3}
    assert list(outside.couch.docs) == ["u:4"]
    assert "t" not in outside.couch.designs
    assert "aglowd" in outside.couch.designs
    assert await effect.do(outside.world, outside.intent(tries=1)) == {"deleted": 3}, "what is gone is gone"


async def test_tokens_of_somebody_else_are_neither_archived_nor_deleted_nor_without_views(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.put({"_id": "t:4", "type": "t", "lock": 0, "done": 0})
    found = await archive(outside)
    assert sorted(found["revisions"]) == ["t:1", "t:2", "t:3"]
    effect = DeleteTokens(token_type="t", revisions=found["revisions"], archive=found["url"], adler32=found["adler32"])
    assert await effect.do(outside.world, outside.intent()) == {"deleted": 3}
    assert list(outside.couch.docs) == ["t:4"]
    assert "t" in outside.couch.designs


async def test_tokens_that_are_named_are_archived_whoever_made_them_and_those_that_are_gone_are_not_missed(
    outside: Outside,
) -> None:
    await make_tokens(outside)
    outside.couch.put({"_id": "t:4", "type": "t", "lock": 0, "done": 0})
    effect = ArchiveTokens(token_type="t", url=outside.url("t.tar.gz"), tokens=("t:1", "t:4", "t:9"))
    found = await effect.do(outside.world, outside.intent())
    assert sorted(found["revisions"]) == ["t:1", "t:4"]


async def test_chosen_tokens_that_a_pilot_took_meanwhile_are_not_deleted(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.change("t:2", lock=5)
    found = await archive(outside)
    effect = DeleteTokens(
        token_type="t", revisions=found["revisions"], archive=found["url"], adler32=found["adler32"], is_part=True
    )
    with pytest.raises(Permanent, match="1 tokens were taken by pilots meanwhile: t:2"):
        await effect.do(outside.world, outside.intent())
    assert sorted(outside.couch.docs) == ["t:1", "t:2", "t:3"]


async def test_views_that_only_an_administrator_may_delete_are_left_to_him(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_tokens(outside)
    found = await archive(outside)

    async def refuse(name: str) -> None:
        raise NotAdmin(f"PiCaS DELETE _design/{name}: HTTP 403")

    monkeypatch.setattr(outside.couch, "delete_design", refuse)
    effect = DeleteTokens(token_type="t", revisions=found["revisions"], archive=found["url"], adler32=found["adler32"])
    assert await effect.do(outside.world, outside.intent()) == {
        "deleted": 3,
        "left": "PiCaS DELETE _design/t: HTTP 403",
    }
    assert list(outside.couch.docs) == []


async def test_tokens_that_changed_after_they_were_archived_are_not_deleted(outside: Outside) -> None:
    await make_tokens(outside)
    found = await archive(outside)
    outside.couch.change("t:2", lock=5)
    effect = DeleteTokens(token_type="t", revisions=found["revisions"], archive=found["url"], adler32=found["adler32"])
    with pytest.raises(Permanent, match="1 tokens changed after they were archived: t:2"):
        await effect.do(outside.world, outside.intent())
    assert sorted(outside.couch.docs) == ["t:1", "t:2", "t:3"]
    assert "t" in outside.couch.designs


async def test_nothing_is_deleted_when_the_archive_is_not_what_was_read_back(outside: Outside) -> None:
    await make_tokens(outside)
    found = await archive(outside)
    effect = DeleteTokens(token_type="t", revisions=found["revisions"], archive=found["url"], adler32=12345)
    with pytest.raises(Permanent, match="no more what was read back"):
        await effect.do(outside.world, outside.intent())
    assert sorted(outside.couch.docs) == ["t:1", "t:2", "t:3"]


async def test_a_token_that_changes_while_it_is_deleted_stays(outside: Outside) -> None:
    await make_tokens(outside)
    found = await archive(outside)
    outside.couch.races.add("t:2")
    effect = DeleteTokens(token_type="t", revisions=found["revisions"], archive=found["url"], adler32=found["adler32"])
    with pytest.raises(Unknown, match="1 of 3 tokens were not deleted: conflict"):
        await effect.do(outside.world, outside.intent())
    assert list(outside.couch.docs) == ["t:2"]
    with pytest.raises(Permanent, match="1 tokens changed after they were archived: t:2"):
        await effect.do(outside.world, outside.intent())
    assert list(outside.couch.docs) == ["t:2"]
    assert "t" in outside.couch.designs
