"""Deeds: done once, they are found; not done, they are not; half done, they are finished without touching what is there."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any
from zlib import adler32

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aglowd.effects import DEEDS, tokens
from aglowd.effects.base import Deed
from aglowd.effects.catalogue import WriteStatus
from aglowd.effects.files import (
    Content,
    CopyFile,
    MakeDirectory,
    RemoveFile,
    part_of,
    publish,
    put_bytes,
    read_back,
)
from aglowd.effects.general import MAX_KEPT_CHARS, CallHttp, RunCommand
from aglowd.effects.jobs import CancelJobs, SubmitJobs
from aglowd.effects.staging import ReleaseFiles, StageFiles
from aglowd.effects.tokens import ArchiveTokens, AttachFiles, CreateTokens, DeleteTokens, ResetTokens, pack, unpack
from aglowd.errors import Conflict, Permanent, Temporary, Unknown
from aglowd.grid.stager import Progress

from .outside import KEY, Outside


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path)


def test_every_deed_can_be_done_and_found() -> None:
    for kind, deed in DEEDS.items():
        assert deed.kind == kind
        assert deed.do is not Deed.do
        assert deed.find is not Deed.find
        assert deed.needs_evidence == (deed.look_before is not Deed.look_before)


# --- staging

SURLS = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(4))
OTHERS = tuple(f"srm://srm.grid.sara.nl:8443/d/L2_SB{number:03d}_uv.tar" for number in range(4))
STAGE = StageFiles(surls=SURLS)


async def test_a_request_is_made_with_evidence_and_found(outside: Outside) -> None:
    outside.lta.add(OTHERS)
    before = await STAGE.look_before(outside.world)
    assert before == [100]
    intent = outside.intent(evidence=before)
    assert await STAGE.find(outside.world, intent) is None
    assert await STAGE.do(outside.world, intent) == {"request": 101}
    assert outside.lta.requests[101] == SURLS
    with pytest.raises(Temporary, match="do not show all files"):
        await STAGE.find(outside.world, intent)
    outside.lta.online[101] = SURLS[:1]
    assert await STAGE.find(outside.world, intent) == {"request": 101}
    assert STAGE.settling_s(outside.world) == 77.0


@pytest.mark.parametrize("status", ["failed", "aborted"])
async def test_a_new_request_that_was_given_up_keeps_nobody_waiting(outside: Outside, status: str) -> None:
    request = outside.lta.add(SURLS)
    outside.lta.shown[request] = Progress(status, len(SURLS), 0, None, "sara", False)
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None
    outside.lta.shown[request] = Progress("in progress", len(SURLS), 0, None, "sara", True)
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None


async def test_a_request_that_ended_and_shows_nothing_is_put_before_a_person(outside: Outside) -> None:
    request = outside.lta.add(SURLS)
    outside.lta.shown[request] = Progress("success", len(SURLS), 4, None, "sara", False)
    with pytest.raises(Unknown, match="one may be ours"):
        await STAGE.find(outside.world, outside.intent(evidence=[]))


async def test_an_old_request_is_never_taken_for_ours(outside: Outside) -> None:
    outside.lta.add(SURLS, staged=SURLS[:1])
    outside.lta.add(SURLS, staged=SURLS[:1])
    assert await STAGE.find(outside.world, outside.intent(evidence=[100, 101])) is None
    assert await STAGE.find(outside.world, outside.intent(evidence=[100])) == {"request": 101}


@pytest.mark.parametrize(
    ("count", "staged", "is_ours"),
    [
        (5, (), False),
        (5, SURLS[:1], False),
        (4, SURLS[:2], True),
        (None, SURLS, True),
        (4, OTHERS[:1], False),
        (4, (SURLS[0], OTHERS[0]), False),
    ],
)
async def test_by_what_a_new_request_is_known(
    outside: Outside, count: int | None, staged: tuple[str, ...], is_ours: bool
) -> None:
    outside.lta.add(SURLS, count=count, staged=staged)
    found = await STAGE.find(outside.world, outside.intent(evidence=[]))
    assert found == ({"request": 100} if is_ours else None)


async def test_of_two_new_requests_the_one_that_shows_our_files_is_ours(outside: Outside) -> None:
    outside.lta.add(OTHERS)
    outside.lta.add(SURLS, staged=SURLS[2:3])
    outside.lta.add(OTHERS, staged=OTHERS[:1])
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) == {"request": 101}


@pytest.mark.parametrize("new", [(SURLS,), (OTHERS,), (OTHERS, SURLS)])
async def test_of_new_requests_that_show_nothing_nobody_can_tell_yet(
    outside: Outside, new: tuple[tuple[str, ...]]
) -> None:
    """Saying "it did not happen" might ask for the same files twice; saying "ours" might take another field's request."""
    for surls in new:
        outside.lta.add(surls)
    with pytest.raises(Temporary, match="do not show all files"):
        await STAGE.find(outside.world, outside.intent(evidence=[]))


async def test_a_goal_that_is_reached_needs_no_request(outside: Outside) -> None:
    outside.dcache.where = dict.fromkeys(SURLS, "ONLINE")
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) == {"request": None}
    outside.dcache.where[SURLS[3]] = "NEARLINE"
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None
    del outside.dcache.where[SURLS[3]]
    assert await STAGE.find(outside.world, outside.intent(evidence=[])) is None


async def test_a_request_is_released(outside: Outside) -> None:
    number = outside.lta.add(SURLS)
    effect = ReleaseFiles(request=number)
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"released": True}
    assert outside.lta.aborted == [number]
    assert await effect.find(outside.world, outside.intent()) == {"released": True}
    outside.lta.statuses[number] = "success"
    assert await effect.find(outside.world, outside.intent()) is None


async def test_a_request_that_the_stager_has_forgotten_holds_nothing(outside: Outside) -> None:
    found = await ReleaseFiles(request=7).do(outside.world, outside.intent())
    assert found["released"] is False
    assert "unknown request 7" in found["why"]


async def test_a_release_that_is_refused_is_not_taken_for_done(outside: Outside) -> None:
    async def refuse(request: int) -> None:
        raise Permanent(f"LTA abort: {request} is not yours")

    outside.lta.abort = refuse  # type: ignore[method-assign] # This stager refuses.
    with pytest.raises(Permanent, match="is not yours"):
        await ReleaseFiles(request=7).do(outside.world, outside.intent())


# --- tokens

TOKENS: dict[str, dict[str, Any]] = {
    name: {"_id": name, "type": "t", "lock": 0, "done": 0, "status": "queued"} for name in ("t:1", "t:2", "t:3")
}
CREATE = CreateTokens(token_type="t", tokens=TOKENS)


async def make_tokens(outside: Outside) -> None:
    await CREATE.do(outside.world, outside.intent())
    outside.couch.writes.clear()


async def test_tokens_are_created_with_their_views_and_found(outside: Outside) -> None:
    assert await CREATE.find(outside.world, outside.intent()) is None
    assert await CREATE.do(outside.world, outside.intent()) == {"created": 3}
    assert sorted(outside.couch.docs) == ["t:1", "t:2", "t:3"]
    assert all(document["aglowd"] == {"key": KEY} for document in outside.couch.docs.values())
    assert outside.couch.docs["t:2"]["status"] == "queued"
    assert set(outside.couch.designs) == {"t", "aglowd"}
    assert await CREATE.find(outside.world, outside.intent()) == {"created": 3}
    assert TOKENS["t:1"].keys() == {"_id", "type", "lock", "done", "status"}, "the intent itself is not changed"


async def test_what_is_there_is_not_touched_when_the_rest_is_created(outside: Outside) -> None:
    await make_tokens(outside)
    del outside.couch.docs["t:2"]
    outside.couch.change("t:1", lock=5, status="downloading")
    held = dict(outside.couch.docs["t:1"])
    assert await CREATE.find(outside.world, outside.intent()) is None
    assert await CREATE.do(outside.world, outside.intent()) == {"created": 3}
    assert outside.couch.writes == ["t:2"]
    assert outside.couch.docs["t:1"] == held
    assert await CREATE.do(outside.world, outside.intent()) == {"created": 3}
    assert outside.couch.writes == ["t:2"]


@pytest.mark.parametrize("whose", [{}, {"key": "P2-1/step/1/effect/0"}, {"reset": KEY}])
async def test_somebody_elses_token_is_left_alone(outside: Outside, whose: dict[str, str]) -> None:
    outside.couch.put({"_id": "t:2", "type": "t", **({"aglowd": whose} if whose else {})})
    for way in (CREATE.do, CREATE.find):
        with pytest.raises(Permanent, match="the token t:2 exists already and is not of this step"):
            await way(outside.world, outside.intent())
    assert list(outside.couch.docs) == ["t:2"]
    assert outside.couch.writes == []


async def test_a_token_that_appears_at_the_same_moment_is_looked_at_again(outside: Outside) -> None:
    outside.couch.races.add("t:2")
    with pytest.raises(Unknown, match="1 of 3 tokens were refused: conflict"):
        await CREATE.do(outside.world, outside.intent())
    with pytest.raises(Permanent, match="t:2"):
        await CREATE.do(outside.world, outside.intent(tries=1))


ATTACH = AttachFiles(
    own={"t:1": {"srm.txt": "one\n"}, "t:2": {"srm.txt": "two\n"}, "t:3": {}}, shared={"a.parset": "é = 1\n"}
)


async def test_files_are_attached_and_found(outside: Outside) -> None:
    await make_tokens(outside)
    assert await ATTACH.find(outside.world, outside.intent()) is None
    assert await ATTACH.do(outside.world, outside.intent()) == {"attached": 3}
    assert outside.couch.bodies == {
        ("t:1", "srm.txt"): b"one\n",
        ("t:2", "srm.txt"): b"two\n",
        **{(f"t:{number}", "a.parset"): "é = 1\n".encode() for number in (1, 2, 3)},
    }
    assert await ATTACH.find(outside.world, outside.intent()) == {"attached": 3}
    assert outside.couch.docs["t:1"]["aglowd"] == {"key": KEY}


async def test_a_token_that_has_its_files_is_not_changed_when_the_others_get_theirs(outside: Outside) -> None:
    await make_tokens(outside)
    await ATTACH.do(outside.world, outside.intent())
    outside.couch.change("t:1", lock=5)
    changed = outside.couch.docs["t:2"]
    del changed["_attachments"]["srm.txt"]
    entry = {"content_type": "text/plain", "data": base64.b64encode(b"mine").decode()}
    outside.couch.change("t:2", _attachments={**changed["_attachments"], "extra": entry})
    outside.couch.writes.clear()
    assert await ATTACH.find(outside.world, outside.intent()) is None
    assert await ATTACH.do(outside.world, outside.intent()) == {"attached": 3}
    assert outside.couch.writes == ["t:2"]
    assert outside.couch.docs["t:2"]["_attachments"].keys() == {"a.parset", "extra", "srm.txt"}
    assert outside.couch.docs["t:1"]["lock"] == 5


async def test_a_file_with_other_content_is_replaced(outside: Outside) -> None:
    await make_tokens(outside)
    await ATTACH.do(outside.world, outside.intent())
    other = AttachFiles(own={"t:1": {"srm.txt": "uno\n"}})
    assert await other.find(outside.world, outside.intent()) is None
    await other.do(outside.world, outside.intent())
    assert outside.couch.bodies["t:1", "srm.txt"] == b"uno\n"


async def test_tokens_that_have_gone_cannot_get_files(outside: Outside) -> None:
    await make_tokens(outside)
    del outside.couch.docs["t:3"]
    for way in (ATTACH.do, ATTACH.find):
        with pytest.raises(Permanent, match="1 tokens have gone before their files were attached: t:3"):
            await way(outside.world, outside.intent())
    assert outside.couch.writes == []


async def test_a_token_that_changes_meanwhile_gets_its_files_at_the_next_try(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.races.add("t:2")
    with pytest.raises(Unknown, match="1 of 3 tokens changed meanwhile: conflict"):
        await ATTACH.do(outside.world, outside.intent())
    assert await ATTACH.find(outside.world, outside.intent()) is None
    await ATTACH.do(outside.world, outside.intent(tries=1))
    assert outside.couch.docs["t:2"]["hostname"] == "a pilot"
    assert ("t:2", "srm.txt") in outside.couch.bodies


async def test_tokens_of_which_none_was_changed_are_simply_tried_again(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.races.update(("t:1", "t:2", "t:3"))
    with pytest.raises(Temporary, match="3 of 3 tokens changed meanwhile: conflict"):
        await ATTACH.do(outside.world, outside.intent())


async def test_tokens_are_given_back_to_the_pilots_once(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.change("t:1", status="error", lock=9, done=9, hostname="wn1", output="1", scrub_count=2)
    outside.couch.change("t:2", status="downloading", lock=9)
    outside.couch.change("t:3", status="done", lock=9, done=9)
    effect = ResetTokens(tokens=("t:1", "t:2", "t:3"))
    assert await effect.find(outside.world, outside.intent(key="reset/0")) is None
    assert await effect.do(outside.world, outside.intent(key="reset/0")) == {"reset": 3}
    one, two, three = (outside.couch.docs[name] for name in effect.tokens)
    assert (one["status"], one["lock"], one["done"], one["hostname"], one["output"]) == ("reset", 0, 0, "", "")
    assert (one["scrub_count"], two["scrub_count"]) == (3, 1)
    assert one["aglowd"] == {"key": KEY, "reset": "reset/0"}
    assert three["lock"] == 9, "what is done stays done"
    assert await effect.find(outside.world, outside.intent(key="reset/0")) == {"reset": 3}
    outside.couch.change("t:1", status="downloading", lock=7)
    assert await effect.do(outside.world, outside.intent(key="reset/0", tries=1)) == {"reset": 3}
    assert outside.couch.docs["t:1"]["lock"] == 7, "a pilot has it again: it was reset already"
    assert await effect.find(outside.world, outside.intent(key="reset/1")) is None, "the next round is another effect"


async def test_a_pilot_that_lives_after_all_keeps_its_token(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.races.add("t:1")
    with pytest.raises(Temporary, match="1 of 1 tokens changed meanwhile"):
        await ResetTokens(tokens=("t:1",)).do(outside.world, outside.intent())
    assert outside.couch.docs["t:1"]["hostname"] == "a pilot"


async def test_tokens_that_have_gone_need_no_reset(outside: Outside) -> None:
    assert await ResetTokens(tokens=("t:1",)).find(outside.world, outside.intent()) == {"reset": 1}
    assert await ResetTokens(tokens=("t:1",)).do(outside.world, outside.intent()) == {"reset": 1}
    assert outside.couch.writes == []


# --- the archive of tokens


async def archive(outside: Outside, name: str = "t.tar.gz", key: str = KEY) -> dict[str, Any]:
    effect = ArchiveTokens(token_type="t", url=outside.url(name))
    found: dict[str, Any] = await effect.do(outside.world, outside.intent(key=key))
    return found


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
    monkeypatch.setattr(tokens, "MAX_ARCHIVE_BYTES", size)
    assert len(unpack(pack(DOCUMENTS))) == len(DOCUMENTS)
    monkeypatch.setattr(tokens, "MAX_ARCHIVE_BYTES", size - 1)
    with pytest.raises(Conflict, match=f"longer than {size - 1} bytes unpacked"):
        unpack(packed)
    effect = ArchiveTokens(token_type="t", url=outside.url("tokens.tar.gz"))
    outside.file("tokens.tar.gz").write_bytes(b"x" * size)
    with pytest.raises(Conflict, match=r"tokens.tar.gz is longer than \d+ bytes"):
        await effect.find(outside.world, outside.intent())


def test_more_tokens_than_an_archive_holds_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_ARCHIVE_BYTES", 1000)
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
    outside.couch.put({"_id": "t:4", "type": "t"})
    effect = DeleteTokens(token_type="t", revisions=found["revisions"], archive=found["url"], adler32=found["adler32"])
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"deleted": 3}
    assert list(outside.couch.docs) == ["t:4"]
    assert "t" not in outside.couch.designs
    assert "aglowd" in outside.couch.designs
    assert await effect.do(outside.world, outside.intent(tries=1)) == {"deleted": 3}, "what is gone is gone"


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


# --- jobs

SUBMIT = SubmitJobs(nodes=3, executable="/bin/sh", arguments=("run.sh", "--type", "t"), requirements="true")


async def test_a_job_is_registered_noted_and_started(outside: Outside) -> None:
    intent = outside.intent()
    assert await SUBMIT.find(outside.world, intent) is None
    job = "https://wms:9000/job0"
    assert await SUBMIT.do(outside.world, intent) == {"job": job, "nodes": 3}
    assert outside.wms.started == [job]
    assert outside.noted == [{"job": job, "transferred": True}]
    assert outside.wms.sandboxes[job] == {"picas.json": "{}", "run.sh": "#!/bin/sh"}
    description = outside.wms.descriptions[job]
    for word in ("/bin/sh", "run.sh --type t", "picas.json", "stdout.txt", "Parameters = 3", KEY):
        assert word in description, word
    assert await SUBMIT.find(outside.world, intent) == {"job": job, "nodes": 3}


async def test_the_id_is_noted_before_the_job_is_started(outside: Outside) -> None:
    outside.wms.silent = True
    intent = outside.intent()
    with pytest.raises(Unknown):
        await SUBMIT.do(outside.world, intent)
    assert intent.notes == {"job": "https://wms:9000/job0", "transferred": True}
    assert await SUBMIT.find(outside.world, intent) is None, "it was registered and never started"
    outside.wms.silent = False
    assert await SUBMIT.do(outside.world, intent) == {"job": "https://wms:9000/job0", "nodes": 3}
    assert list(outside.wms.jobs) == outside.wms.started == ["https://wms:9000/job0"]


async def test_a_job_without_its_sandbox_is_never_started(outside: Outside) -> None:
    outside.wms.transfers = False
    intent = outside.intent()
    with pytest.raises(Unknown, match="its input sandbox was not transferred"):
        await SUBMIT.do(outside.world, intent)
    assert outside.wms.started == []
    assert await SUBMIT.find(outside.world, intent) is None
    outside.wms.transfers = True
    await SUBMIT.do(outside.world, intent)
    assert outside.wms.started == ["https://wms:9000/job1"]
    assert intent.notes["job"] == "https://wms:9000/job1"


@pytest.mark.parametrize("state", ["queued", "running", "done_ok", "done_failed", "aborted", "cancelled"])
async def test_a_job_in_any_later_state_was_started(outside: Outside, state: str) -> None:
    outside.wms.jobs["https://w/0"] = state
    notes = {"job": "https://w/0", "transferred": True}
    assert await SUBMIT.find(outside.world, outside.intent(notes=notes)) == {"job": "https://w/0", "nodes": 3}


async def test_a_job_that_the_bookkeeping_does_not_know_says_nothing(outside: Outside) -> None:
    notes = {"job": "https://w/0", "transferred": True}
    with pytest.raises(Unknown, match="says nothing of https://w/0"):
        await SUBMIT.find(outside.world, outside.intent(notes=notes))


async def test_a_job_of_which_the_bookkeeping_says_nothing_was_not_started_for_sure(outside: Outside) -> None:
    outside.wms.jobs["https://w/0"] = "unknown"
    notes = {"job": "https://w/0", "transferred": True}
    with pytest.raises(Unknown):
        await SUBMIT.find(outside.world, outside.intent(notes=notes))


async def test_a_job_is_cancelled(outside: Outside) -> None:
    outside.wms.jobs = {"https://w/0": "running", "https://w/1": "done_ok"}
    effect = CancelJobs(job="https://w/0")
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"job": "https://w/0"}
    assert await effect.find(outside.world, outside.intent()) == {"job": "https://w/0"}
    for job in ("https://w/0", "https://w/1", "https://w/2"):
        assert await CancelJobs(job=job).do(outside.world, outside.intent()) == {"job": job}
        assert await CancelJobs(job=job).find(outside.world, outside.intent()) == {"job": job}
    assert outside.wms.cancelled == ["https://w/0"], "what has ended, or was never there, is not cancelled"


# --- files


async def test_a_directory_is_made_and_found(outside: Outside) -> None:
    effect = MakeDirectory(url=outside.url("a/b"))
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}
    assert await effect.find(outside.world, outside.intent()) == {"url": effect.url}
    assert outside.file("a/b").is_dir()
    outside.file("c").write_text("a file")
    for way in (MakeDirectory(url=outside.url("c")).do, MakeDirectory(url=outside.url("c")).find):
        with pytest.raises(Permanent):
            await way(outside.world, outside.intent())


def copy_of(outside: Outside, data: bytes = b"hello") -> CopyFile:
    outside.file("a").write_bytes(data)
    return CopyFile(source=outside.url("a"), destination=outside.url("b"))


async def test_a_file_is_copied_verified_and_found(outside: Outside) -> None:
    effect = copy_of(outside)
    assert await effect.find(outside.world, outside.intent()) is None
    expected = {"url": effect.destination, "size_bytes": 5, "adler32": adler32(b"hello"), "copied": True}
    assert await effect.do(outside.world, outside.intent()) == expected
    assert await effect.find(outside.world, outside.intent(notes=outside.noted[0])) == expected
    assert outside.file("b").read_bytes() == b"hello"
    assert outside.files() == ["a", "b"]
    assert outside.noted == [{"part": part_of(effect.destination, KEY)}]


async def test_a_copy_that_is_there_is_not_made_again(outside: Outside) -> None:
    effect = copy_of(outside)
    await effect.do(outside.world, outside.intent())
    before = outside.file("b").stat()
    assert (await effect.do(outside.world, outside.intent(tries=1)))["size_bytes"] == 5
    assert outside.file("b").stat().st_mtime_ns == before.st_mtime_ns
    assert outside.file("b").stat().st_ino == before.st_ino


@pytest.mark.parametrize("other", [b"hellO", b"", b"hello!"])
async def test_nothing_that_differs_is_overwritten(outside: Outside, other: bytes) -> None:
    effect = copy_of(outside)
    outside.file("b").write_bytes(other)
    for way in (effect.do, effect.find):
        with pytest.raises(Permanent, match=r"exists and differs .* it is not overwritten"):
            await way(outside.world, outside.intent())
    assert outside.file("b").read_bytes() == other
    assert outside.files() == ["a", "b"]


async def test_a_damaged_copy_is_never_published(outside: Outside) -> None:
    effect = copy_of(outside)
    outside.storage.damaged = 1
    with pytest.raises(Temporary, match=r"the copy of .*/b arrived damaged"):
        await effect.do(outside.world, outside.intent())
    assert outside.files() == ["a"]
    assert await effect.find(outside.world, outside.intent()) is None
    await effect.do(outside.world, outside.intent(tries=1))
    assert outside.file("b").read_bytes() == b"hello"


async def test_a_copy_that_somebody_took_away_before_it_was_read_back_is_made_again(outside: Outside) -> None:
    effect = copy_of(outside)
    with pytest.raises(Temporary, match=r"the copy of .*/b was made and is not there"):
        await publish(outside.world, part_of(effect.destination, KEY), effect.destination, Content(5, 1))
    await effect.do(outside.world, outside.intent(tries=1))
    assert outside.file("b").read_bytes() == b"hello"


@pytest.mark.parametrize(("tries", "noted"), [(1, False), (0, True)])
async def test_what_an_earlier_try_left_behind_is_begun_anew(outside: Outside, tries: int, noted: bool) -> None:
    effect = copy_of(outside)
    part = part_of(effect.destination, KEY)
    Path(part.removeprefix("file://")).write_bytes(b"hel")
    notes = {"part": part} if noted else None
    assert (await effect.do(outside.world, outside.intent(tries=tries, notes=notes)))["size_bytes"] == 5
    assert outside.files() == ["a", "b"]


async def test_a_file_of_somebody_else_beside_it_is_not_removed(outside: Outside) -> None:
    effect = copy_of(outside)
    other = part_of(effect.destination, "P2-1/step/1/copy_file/0")
    Path(other.removeprefix("file://")).write_bytes(b"hel")
    await effect.do(outside.world, outside.intent(tries=3))
    assert Path(other.removeprefix("file://")).read_bytes() == b"hel"


async def test_a_source_that_is_not_there(outside: Outside) -> None:
    effect = copy_of(outside)
    outside.file("a").unlink()
    with pytest.raises(Permanent) as caught:
        await effect.do(outside.world, outside.intent())
    assert caught.value.absent
    assert outside.files() == []


async def test_bytes_are_written_as_safely_as_a_copy(outside: Outside) -> None:
    url = outside.url("d/x")
    outside.storage.damaged = 1
    with pytest.raises(Temporary, match="damaged"):
        await put_bytes(outside.world, outside.intent(), b"data", url)
    assert outside.files() == ["d"]
    expected = {"url": url, "size_bytes": 4, "adler32": adler32(b"data")}
    assert await put_bytes(outside.world, outside.intent(tries=1), b"data", url) == expected
    assert await put_bytes(outside.world, outside.intent(), b"data", url) == expected
    with pytest.raises(Permanent, match="exists and differs"):
        await put_bytes(outside.world, outside.intent(), b"date", url)
    assert await read_back(outside.world, outside.intent(), url) == b"data"
    assert os.listdir(outside.world.work_dir) == []


async def test_reading_back_leaves_nothing_behind_and_begins_anew(outside: Outside) -> None:
    outside.file("x").write_bytes(b"data")
    with pytest.raises(Permanent):
        await read_back(outside.world, outside.intent(), outside.url("none"))
    assert await read_back(outside.world, outside.intent(), outside.url("x")) == b"data"
    outside.file("x").write_bytes(b"newer")
    assert await read_back(outside.world, outside.intent(), outside.url("x")) == b"newer"


async def test_a_file_is_removed_when_another_copy_holds_the_same(outside: Outside) -> None:
    await copy_of(outside).do(outside.world, outside.intent())
    effect = RemoveFile(url=outside.url("a"), copy=outside.url("b"))
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}
    assert outside.files() == ["b"]
    assert await effect.find(outside.world, outside.intent()) == {"url": effect.url}
    assert await effect.do(outside.world, outside.intent()) == {"url": effect.url}


@pytest.mark.parametrize("copy", [b"other", None])
async def test_the_last_copy_is_not_removed(outside: Outside, copy: bytes | None) -> None:
    outside.file("a").write_bytes(b"hello")
    if copy is not None:
        outside.file("b").write_bytes(copy)
    with pytest.raises(Permanent):
        await RemoveFile(url=outside.url("a"), copy=outside.url("b")).do(outside.world, outside.intent())
    assert outside.file("a").read_bytes() == b"hello"


async def test_a_file_is_no_copy_of_itself(outside: Outside) -> None:
    outside.file("a").write_bytes(b"hello")
    with pytest.raises(Permanent):
        await RemoveFile(url=outside.url("a"), copy=outside.url("a")).do(outside.world, outside.intent())
    assert outside.file("a").read_bytes() == b"hello"


# --- programs and web services


async def test_a_program_is_run(outside: Outside) -> None:
    effect = RunCommand(argv=("sh", "-c", "echo one; echo $1 >> $0", str(outside.file("ran")), "a b; c"))
    assert await effect.do(outside.world, outside.intent()) == {"rc": 0, "stdout": "one\n"}
    assert outside.file("ran").read_text() == "a b; c\n"


async def test_only_the_end_of_what_a_program_prints_is_kept(outside: Outside) -> None:
    effect = RunCommand(argv=("sh", "-c", "head -c 9000 /dev/zero | tr '\\0' x; echo end"))
    found = await effect.do(outside.world, outside.intent())
    assert len(found["stdout"]) == MAX_KEPT_CHARS
    assert found["stdout"].endswith("xend\n")


async def test_a_program_that_fails(outside: Outside) -> None:
    argv = ("sh", "-c", "echo said; echo wrong >&2; exit 3")
    with pytest.raises(Permanent, match=r"sh ended with 3, expected \[0\]: wrong"):
        await RunCommand(argv=argv).do(outside.world, outside.intent())
    assert (await RunCommand(argv=argv, ok=(0, 3)).do(outside.world, outside.intent()))["rc"] == 3
    with pytest.raises(Temporary, match="cannot be started"):
        await RunCommand(argv=("no-such-program",)).do(outside.world, outside.intent())
    with pytest.raises(Unknown, match="was killed after"):
        await RunCommand(argv=("sleep", "60"), timeout_s=0.1).do(outside.world, outside.intent())


async def test_whether_a_program_has_run(outside: Outside) -> None:
    effect = RunCommand(argv=("sh", "-c", ": > $0", str(outside.file("made"))), creates=outside.url("made"))
    assert await effect.find(outside.world, outside.intent()) is None
    await effect.do(outside.world, outside.intent())
    assert await effect.find(outside.world, outside.intent()) == {"rc": 0, "stdout": ""}
    assert await RunCommand(argv=("true",), repeatable=True).find(outside.world, outside.intent()) is None
    with pytest.raises(Unknown, match="give it `creates` or `repeatable`"):
        await RunCommand(argv=("true",)).find(outside.world, outside.intent())


async def test_a_web_service_is_called_with_our_key(outside: Outside) -> None:
    found = await CallHttp(method="POST", url="http://h/x", body={"a": 1}).do(outside.world, outside.intent())
    assert found == {"status": 200, "body": '{"state": "ok"}'}
    assert outside.web.asked == [("POST", "http://h/x", True, {"a": 1}, {"Idempotency-Key": KEY})]
    outside.web.body = b"x" * (MAX_KEPT_CHARS + 1)
    long = await CallHttp(method="GET", url="http://h/x").do(outside.world, outside.intent())
    assert len(long["body"]) == MAX_KEPT_CHARS


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_a_call_that_may_be_repeated_is(outside: Outside, method: str) -> None:
    assert await CallHttp(method=method, url="http://h/").find(outside.world, outside.intent()) is None


async def test_nobody_can_tell_of_a_call_that_may_not(outside: Outside) -> None:
    assert await CallHttp(method="POST", url="http://h/", repeatable=True).find(outside.world, outside.intent()) is None
    for method in ("POST", "PATCH"):
        with pytest.raises(Unknown, match=f"whether {method} http://h/ arrived"):
            await CallHttp(method=method, url="http://h/").find(outside.world, outside.intent())
    assert outside.web.asked == []


# --- the catalogue

ROW = "{},229511,x,4,4,244,229507,x,4,4,244,P1,\n"


async def test_a_status_is_written_and_found_as_ours(outside: Outside) -> None:
    outside.csv.write_text(ROW.format("SND"))
    effect = WriteStatus(field="P1", expect="SND", status="AAA")
    assert await effect.find(outside.world, outside.intent()) is None
    assert await effect.do(outside.world, outside.intent()) == {"status": "AAA"}
    assert outside.csv.read_text() == ROW.format("AAA")
    assert await effect.find(outside.world, outside.intent()) == {"status": "AAA"}
    assert await effect.find(outside.world, outside.intent(key="another")) is None
    assert await effect.do(outside.world, outside.intent(tries=1)) == {"status": "AAA"}


async def test_nobodys_word_is_overwritten_unseen(outside: Outside) -> None:
    outside.csv.write_text(ROW.format("RRR"))
    effect = WriteStatus(field="P1", expect="SND", status="AAA")
    with pytest.raises(Permanent, match="found P1 in status 'RRR'; expected 'SND'"):
        await effect.do(outside.world, outside.intent())
    assert outside.csv.read_text() == ROW.format("RRR")
    outside.csv.write_text(ROW.format("AAA"))
    assert await effect.find(outside.world, outside.intent()) is None, "the status is right, but it is not of our hand"
    with pytest.raises(Permanent) as caught:
        await WriteStatus(field="P2", expect="SND", status="AAA").find(outside.world, outside.intent())
    assert caught.value.absent


# --- what is protected


@pytest.mark.parametrize("slash", ["", "/"])
async def test_nothing_is_written_or_removed_below_a_protected_root(outside: Outside, slash: str) -> None:
    await make_tokens(outside)
    outside.file("keep").mkdir()
    for name in ("a", "b", "keep/a"):
        outside.file(name).write_bytes(b"hello")
    outside.world.protected = (outside.url("other"), outside.url("keep") + slash)
    before = outside.files()
    for effect in (
        MakeDirectory(url=outside.url("keep/new")),
        CopyFile(source=outside.url("a"), destination=outside.url("keep/b")),
        ArchiveTokens(token_type="t", url=outside.url("keep/t.tar.gz")),
        RemoveFile(url=outside.url("keep/a"), copy=outside.url("a")),
    ):
        with pytest.raises(Permanent, match=r"below the protected root .*/keep"):
            await effect.do(outside.world, outside.intent())
    assert outside.files() == before
    await RemoveFile(url=outside.url("b"), copy=outside.url("keep/a")).do(outside.world, outside.intent())
    await MakeDirectory(url=outside.url("keeper")).do(outside.world, outside.intent())
    assert outside.files() == sorted([*(name for name in before if name != "b"), "keeper"])


async def test_a_silent_request_that_another_effect_made_is_nobodys_riddle(outside: Outside) -> None:
    deed = StageFiles(surls=("srm://a/1", "srm://a/2"))
    other = outside.lta.add(("srm://b/1", "srm://b/2"))
    found = await deed.find(outside.world, outside.intent(evidence=[], results=[{"request": other}]))
    assert found is None


async def test_a_second_try_asks_only_for_what_is_not_online(outside: Outside) -> None:
    outside.dcache.where = {"srm://a/1": "ONLINE", "srm://a/2": "NEARLINE"}
    deed = StageFiles(surls=("srm://a/1", "srm://a/2"))
    result = await deed.do(outside.world, outside.intent(key=KEY, tries=1, evidence=[], notes={"repeated": True}))
    assert outside.lta.requests[result["request"]] == ("srm://a/2",)
    outside.dcache.where["srm://a/2"] = "ONLINE"
    assert await deed.do(outside.world, outside.intent(key=KEY, tries=1, evidence=[], notes={"repeated": True})) == {
        "request": None
    }
    assert len(outside.lta.requests) == 1


async def test_after_a_refused_try_all_files_are_asked_for(outside: Outside) -> None:
    outside.dcache.where = {"srm://a/1": "ONLINE", "srm://a/2": "NEARLINE"}
    deed = StageFiles(surls=("srm://a/1", "srm://a/2"))
    result = await deed.do(outside.world, outside.intent(tries=1, evidence=[]))
    assert outside.lta.requests[result["request"]] == ("srm://a/1", "srm://a/2")


async def test_after_a_restore_a_job_without_its_sandbox_does_not_hide_the_one_that_was_started_since(
    outside: Outside,
) -> None:
    wms: Any = outside.wms
    started = "https://wms:9000/started"
    wms.jobs[started] = "running"

    async def find_by_tag(tag: str) -> tuple[str, ...]:
        return (started,) if tag == KEY else ()

    wms.find_by_tag = find_by_tag
    notes = {"job": "https://wms:9000/old", "transferred": False, "restored": 1.0}
    deed = SubmitJobs(nodes=2, executable="/bin/sh", arguments=())
    assert await deed.find(outside.world, outside.intent(notes=notes)) == {"job": started, "nodes": 2}
