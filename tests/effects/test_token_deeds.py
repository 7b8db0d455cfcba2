"""Tokens are created, given their files and given back: half done, that is finished without touching what is there."""

from __future__ import annotations

import base64
from typing import Any, cast

import msgspec
import pytest
from msgspec.structs import replace

from aglowd.effects.jobs import SubmitJobs
from aglowd.effects.token_archive import ArchiveTokens, DeleteTokens
from aglowd.effects.tokens import ERROR, MAX_HISTORY, AttachFiles, ModifyTokens, ResetTokens, check_fields
from aglowd.errors import Permanent, Temporary, Unknown

from .made import ATTACH, CREATE, TOKENS, make_tokens
from .outside import KEY, Couch, Outside


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
    assert await effect.do(outside.world, outside.intent(key="reset/0")) == {"reset": 2, "left": 1}
    one, two, three = (outside.couch.docs[name] for name in effect.tokens)
    assert (one["status"], one["lock"], one["done"], one["hostname"], one["output"]) == ("reset", 0, 0, "", "")
    assert (one["scrub_count"], two["scrub_count"]) == (3, 1)
    assert (one["aglowd"]["key"], one["aglowd"]["reset"]) == (KEY, "reset/0")
    (entry,) = one["aglowd"]["history"]
    assert {name: entry[name] for name in ("why", "lock", "status", "hostname", "output")} == {
        "why": "reset", "lock": 9, "status": "error", "hostname": "wn1", "output": "1",
    }  # fmt: skip
    assert three["lock"] == 9, "what is done stays done"
    assert await effect.find(outside.world, outside.intent(key="reset/0")) == {"reset": 2, "left": 1}
    outside.couch.change("t:1", status="downloading", lock=7)
    assert await effect.do(outside.world, outside.intent(key="reset/0", tries=1)) == {"reset": 2, "left": 1}
    assert outside.couch.docs["t:1"]["lock"] == 7, "a pilot has it again: it was reset already"
    assert await effect.find(outside.world, outside.intent(key="reset/1")) is None, "the next round is another effect"


async def test_a_pilot_that_lives_after_all_keeps_its_token(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.races.add("t:1")
    with pytest.raises(Temporary, match="1 of 1 tokens changed meanwhile"):
        await ResetTokens(tokens=("t:1",)).do(outside.world, outside.intent())
    assert outside.couch.docs["t:1"]["hostname"] == "a pilot"


async def test_a_token_that_is_done_is_done_again_only_if_it_was_named_as_it_is(outside: Outside) -> None:
    """Whatever launcher wrote that it is done: not all of them set the status."""
    await make_tokens(outside)
    outside.couch.change("t:1", lock=5, done=9, exit_code=0)
    rev = outside.couch.docs["t:1"]["_rev"]
    assert await ResetTokens(tokens=("t:1",)).do(outside.world, outside.intent(key="a/0")) == {"reset": 0, "left": 1}
    effect = ResetTokens(tokens=("t:1",), seen={"t:1": rev})
    assert await effect.do(outside.world, outside.intent(key="b/0")) == {"reset": 1, "left": 0}
    assert outside.couch.docs["t:1"]["lock"] == 0


async def test_tokens_that_have_gone_need_no_reset(outside: Outside) -> None:
    assert await ResetTokens(tokens=("t:1",)).find(outside.world, outside.intent()) == {"reset": 1, "left": 0}
    assert await ResetTokens(tokens=("t:1",)).do(outside.world, outside.intent()) == {"reset": 1, "left": 0}
    assert outside.couch.writes == []


async def test_a_token_that_changed_since_it_was_seen_is_left_alone(outside: Outside) -> None:
    await make_tokens(outside)
    for name in ("t:1", "t:2"):
        outside.couch.change(name, status="error", lock=9, done=9)
    revs = {name: outside.couch.docs[name]["_rev"] for name in ("t:1", "t:2")}
    outside.couch.change("t:2", aglowd={"key": KEY, "beat": 12})
    effect = ResetTokens(tokens=("t:1", "t:2"), seen=revs, why={"t:1": "error", "t:2": "lease"})
    assert await effect.find(outside.world, outside.intent(key="reset/0")) is None
    assert await effect.do(outside.world, outside.intent(key="reset/0")) == {"reset": 1, "left": 1}
    assert await effect.find(outside.world, outside.intent(key="reset/0")) == {"reset": 1, "left": 1}
    assert (outside.couch.docs["t:1"]["lock"], outside.couch.docs["t:2"]["lock"]) == (0, 9)


async def test_a_reset_token_is_as_it_was_made_but_for_its_history(outside: Outside) -> None:
    await make_tokens(outside)
    outside.couch.change("t:1", lock=9, done=9, status="error", slurm_job_id="17_3", exit_code=2, hostname="wn1")
    past = [{"at": number, "why": "error"} for number in range(MAX_HISTORY)]
    mark = {"key": KEY, "lock_id": "a1", "beat": 7, "result": {"url": "x"}, "history": past, "of": "others"}
    outside.couch.change("t:1", aglowd=mark)
    await ResetTokens(tokens=("t:1",), why={"t:1": "lease: gone"}).do(outside.world, outside.intent(key="reset/0"))
    token = outside.couch.docs["t:1"]
    assert "slurm_job_id" not in token
    assert (token["exit_code"], token["status"], token["scrub_count"]) == ("", "reset", 1)
    assert token["aglowd"].keys() == {"key", "reset", "retries", "history", "of"}
    history = token["aglowd"]["history"]
    assert len(history) == MAX_HISTORY
    assert history[:-1] == past[1:]
    assert (history[-1]["why"], history[-1]["slurm_job_id"], history[-1]["exit_code"]) == ("lease: gone", "17_3", 2)


async def test_how_often_a_token_was_tried_is_counted_beyond_its_history(outside: Outside) -> None:
    await make_tokens(outside)
    for number in range(MAX_HISTORY + 5):
        outside.couch.change("t:1", status="error", done=9)
        why = "lease: gone" if number % 5 == 0 else ERROR
        await ResetTokens(tokens=("t:1",), why={"t:1": why}).do(outside.world, outside.intent(key=f"reset/{number}"))
    token = outside.couch.docs["t:1"]
    assert (token["scrub_count"], token["aglowd"]["retries"]) == (MAX_HISTORY + 5, (MAX_HISTORY + 5) * 4 // 5)
    assert len(token["aglowd"]["history"]) == MAX_HISTORY


async def test_fields_are_set_in_tokens_that_have_not_changed(outside: Outside) -> None:
    await make_tokens(outside)
    revs = {name: outside.couch.docs[name]["_rev"] for name in ("t:1", "t:2", "t:3")}
    outside.couch.change("t:2", lock=9)
    effect = ModifyTokens(tokens=revs, values={"NCPU": 16, "status": "held"})
    assert await effect.find(outside.world, outside.intent(key="m/0")) is None
    assert await effect.do(outside.world, outside.intent(key="m/0")) == {"modified": 2, "left": 1}
    assert await effect.find(outside.world, outside.intent(key="m/0")) == {"modified": 2, "left": 1}
    assert [outside.couch.docs[name].get("NCPU") for name in revs] == [16, None, 16]
    assert outside.couch.docs["t:1"]["aglowd"] == {"key": KEY, "modified": "m/0"}
    outside.couch.change("t:1", NCPU=1)
    assert await effect.do(outside.world, outside.intent(key="m/0", tries=1)) == {"modified": 2, "left": 1}
    assert outside.couch.docs["t:1"]["NCPU"] == 1, "what somebody set afterwards stays"


@pytest.mark.parametrize("name", ["_id", "_rev", "_attachments", "type", "lock", "done", "aglowd"])
def test_no_field_that_makes_a_token_is_set_by_hand(name: str) -> None:
    check_fields({"status": "x", "NCPU": 1})
    with pytest.raises(ValueError, match=f"the fields {name} are not set by hand"):
        check_fields({"status": "x", name: 1})


async def test_every_effect_on_tokens_is_done_in_the_database_of_its_site(outside: Outside) -> None:
    """One that an older release wrote into the journal has no site: it is of the common database."""
    other = Couch()
    outside.world.token_bases = {**outside.world.token_bases, "juelich": cast(Any, other)}
    create = replace(CREATE, site="juelich")
    await create.do(outside.world, outside.intent())
    await replace(ATTACH, site="juelich").do(outside.world, outside.intent())
    reset = ResetTokens(tokens=("t:1",), site="juelich")
    assert await reset.do(outside.world, outside.intent()) == {"reset": 1, "left": 0}
    modify = ModifyTokens(tokens={"t:2": other.docs["t:2"]["_rev"]}, values={"status": "x"}, site="juelich")
    assert await modify.do(outside.world, outside.intent()) == {"modified": 1, "left": 0}
    archive = ArchiveTokens(token_type="t", url=outside.url("t.tar.gz"), site="juelich")
    read = await archive.do(outside.world, outside.intent())
    assert set(read["revisions"]) == {"t:1", "t:2", "t:3"}
    for deed in (create, archive):
        assert await deed.find(outside.world, outside.intent()) is not None
    delete = DeleteTokens(
        token_type="t", revisions=read["revisions"], archive=archive.url, adler32=read["adler32"], site="juelich"
    )
    assert (await delete.do(outside.world, outside.intent()))["deleted"] == 3
    assert other.docs == {}
    other.marks[KEY], outside.wms.registers = ("17",), False
    submit = SubmitJobs(nodes=1, executable="x", arguments=(), site="juelich")
    outside.world.batches = {**outside.world.batches, "juelich": outside.world.batches[""]}
    assert await submit.find(outside.world, outside.intent()) == {"jobs": ["17"], "nodes": 1}
    assert outside.couch.writes == [], "the common database is left alone"
    with pytest.raises(Permanent, match="no site 'moon' is configured; known: juelich, sara"):
        await replace(CREATE, site="moon").do(outside.world, outside.intent())
    for deed in (CREATE, ATTACH, ResetTokens(tokens=("a",))):
        old = {name: value for name, value in msgspec.to_builtins(deed).items() if name != "site"}
        assert msgspec.convert(old, type(deed)) == deed


async def test_a_token_is_never_seen_without_the_files_that_it_is_made_with(outside: Outside) -> None:
    """Where others start pilots, one may hold it before anything else is done: then there is nothing to attach any more."""
    made = replace(CREATE, own=ATTACH.own, shared=ATTACH.shared)
    await made.do(outside.world, outside.intent())
    assert outside.couch.bodies["t:1", "srm.txt"] == b"one\n"
    assert outside.couch.bodies["t:3", "a.parset"] == "é = 1\n".encode()
    for name in TOKENS:
        outside.couch.change(name, lock=5)
    assert await ATTACH.do(outside.world, outside.intent()) == {"attached": 3}
    assert await ATTACH.find(outside.world, outside.intent()) == {"attached": 3}
