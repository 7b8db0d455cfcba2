"""Tokens are created, given their files and given back: half done, that is finished without touching what is there."""

from __future__ import annotations

import base64

import pytest

from aglowd.effects.tokens import AttachFiles, ResetTokens
from aglowd.errors import Permanent, Temporary, Unknown

from .made import ATTACH, CREATE, TOKENS, make_tokens
from .outside import KEY, Outside


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
