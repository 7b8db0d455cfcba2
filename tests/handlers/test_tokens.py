"""Tokens: every input file is in exactly one of them, and they go only as far as their archive was read back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aglowd.effects.token_archive import ArchiveTokens, DeleteTokens
from aglowd.effects.tokens import AttachFiles, CreateTokens
from aglowd.handlers.tokens import ArchiveTokensStep, AttachFilesStep, CreateTokensStep
from aglowd.model import Do, Done, Failed, Json, Outcome, StepView

from .conftest import STEP, done_all, params, rejected, seen, the_failure

CONFIG: dict[str, Json] = {
    "PicasApiVersion": 0.5,
    "Job": {"variables": {"NCPU": 8}},
    "Token": {"status": "queued", "hostname": ""},
}


def surl(subband: int, version: str = "uv") -> str:
    return f"srm://srm.grid.sara.nl:8443/d/L1_SB{subband:03d}_{version}.tar"


def create(**values: Json) -> tuple[Outcome, Any]:
    given_ = params(CreateTokensStep, **{"token_type": "t", "config": CONFIG, **values})
    return CreateTokensStep().start(STEP, given_), given_


def tokens_of(outcome: Outcome) -> dict[str, dict[str, Json]]:
    assert isinstance(outcome, Do), outcome
    (effect,) = outcome.effects
    assert isinstance(effect, CreateTokens)
    assert effect.token_type == "t"
    return effect.tokens


def test_a_token_for_each_subband() -> None:
    outcome, values = create(surls=[surl(11), surl(2)], keys={"OBSID": "L1"})
    tokens = tokens_of(outcome)
    assert list(tokens) == ["t:SB002", "t:SB011"]
    token = tokens["t:SB011"]
    assert (token["_id"], token["type"], token["lock"], token["done"]) == ("t:SB011", "t", 0, 0)
    assert (token["STARTSB"], token["OBSID"], token["RESULT_NAME"], token["NCPU"]) == ("011", "L1", "L1_SB011", 8)
    done = CreateTokensStep().react(STEP, values, seen({}, *done_all(outcome, {"created": 2})))
    srm = {"t:SB002": f"{surl(2)}\n", "t:SB011": f"{surl(11)}\n"}
    assert done == Done({"token_type": "t", "tokens": ["t:SB002", "t:SB011"], "count": 2, "srm": srm})


@pytest.mark.parametrize("where", ["Token", "Job"])
def test_a_configuration_that_names_results_by_the_other_number_gets_it_too(where: str) -> None:
    """Else all results of a pass would have one name: GRID_LRT's configurations have both numbers at 000."""
    both: dict[str, Json] = {"ABN": "000", "STARTSB": "000"}
    config: dict[str, Json] = {"Token": both} if where == "Token" else {"Job": {"variables": both}}
    by_subband = tokens_of(create(surls=[surl(11), surl(2)], config=config)[0])
    by_files = tokens_of(create(files=["file:///r/a", "file:///r/b"], config=config)[0])
    assert [(token["ABN"], token["STARTSB"]) for token in by_subband.values()] == [("002", "002"), ("011", "011")]
    assert [(token["ABN"], token["STARTSB"]) for token in by_files.values()] == [("000", "000"), ("001", "001")]
    asked = tokens_of(create(files=["file:///r/a", "file:///r/b"], config=config, keys={"STARTSB": "7"})[0])
    assert {token["STARTSB"] for token in asked.values()} == {"7"}, "who asks for something else gets that"
    assert all("STARTSB" not in token for token in tokens_of(create(files=["file:///r/a"])[0]).values())


@pytest.mark.parametrize("config", [{"Token": []}, {"Job": []}, {"Job": {"variables": 3}}])
def test_a_configuration_that_is_none_ends_the_step(config: dict[str, Json]) -> None:
    assert "token configuration: found" in the_failure(create(surls=[surl(1)], config=config)[0], final=True)


def test_one_token_for_all_subbands() -> None:
    outcome, values = create(surls=[surl(2), surl(0), surl(1)], group=0)
    assert list(tokens_of(outcome)) == ["t:SB000"]
    done = CreateTokensStep().react(STEP, values, seen({}, *done_all(outcome, {"created": 1})))
    assert isinstance(done, Done)
    assert done.outputs["srm"] == {"t:SB000": f"{surl(0)}\n{surl(1)}\n{surl(2)}\n"}


def test_ten_results_a_token() -> None:
    files = [f"file:///r/L1_SB{number:03d}.tar" for number in range(23)]
    outcome, values = create(files=list(reversed(files)), group=10)
    tokens = tokens_of(outcome)
    assert {name: token["INPUT_FILES"] for name, token in tokens.items()} == {
        "t:AB000": files[:10],
        "t:AB010": files[10:20],
        "t:AB020": files[20:],
    }
    assert [(token["ABN"], token["RESULT_NAME"]) for token in tokens.values()] == [
        ("000", "AB000"),
        ("010", "AB010"),
        ("020", "AB020"),
    ]
    done = CreateTokensStep().react(STEP, values, seen({}, *done_all(outcome, {"created": 3})))
    assert isinstance(done, Done)
    assert done.outputs["srm"] == dict.fromkeys(tokens, ""), "files of ours need no list of SURLs"
    named = tokens_of(create(files=files, group=10, keys={"OBSID": "L1"})[0])
    assert [token["RESULT_NAME"] for token in named.values()] == ["L1_AB000", "L1_AB010", "L1_AB020"]


@settings(deadline=None)
@given(st.sets(st.integers(0, 400), min_size=1, max_size=40), st.integers(0, 12), st.randoms())
def test_every_file_is_in_one_token_and_order_does_not_matter(subbands: set[int], group: int, random: Any) -> None:
    surls = [surl(number) for number in subbands]
    outcome, values = create(surls=surls, group=group)
    done = CreateTokensStep().react(STEP, values, seen({}, *done_all(outcome, {"created": 1})))
    assert isinstance(done, Done)
    told = [line for text in done.outputs["srm"].values() for line in text.splitlines()]
    assert sorted(told) == sorted(surls)
    assert done.outputs["count"] == len(tokens_of(outcome)) == (1 if group == 0 else -(-len(surls) // group))
    random.shuffle(surls)
    assert create(surls=surls, group=group)[0] == outcome


def test_two_files_of_one_subband_are_never_one_token() -> None:
    outcome, values = create(surls=[surl(3, "uv"), surl(3, "again")])
    if isinstance(outcome, Failed):
        return
    done = CreateTokensStep().react(STEP, values, seen({}, *done_all(outcome, {"created": 2})))
    assert isinstance(done, Done)
    told = [line for text in done.outputs["srm"].values() for line in text.splitlines()]
    assert sorted(told) == sorted([surl(3, "uv"), surl(3, "again")])
    assert len(tokens_of(outcome)) == done.outputs["count"]


@pytest.mark.parametrize("values", [{}, {"surls": [], "files": []}, {"surls": [surl(1)], "files": ["file:///x"]}])
def test_a_token_needs_input_of_one_kind(values: dict[str, Json]) -> None:
    assert "give either surls or files" in the_failure(create(**values)[0], final=True)


@pytest.mark.parametrize(
    "values",
    [
        {"surls": ["not a surl"]},
        {"surls": [surl(1)], "token_type": "no blanks"},
        {"surls": [surl(1)], "config": {"PicasApiVersion": 0.1}},
        {"surls": [surl(1)], "keys": {"lock": 1}},
    ],
    ids=["surl", "type", "config", "keys"],
)
def test_what_no_token_can_be_made_of_fails_for_good(values: dict[str, Json]) -> None:
    the_failure(create(**values)[0], final=True)


def test_tokens_of_somebody_else_fail_the_step() -> None:
    _, values = create(surls=[surl(1)])
    row = rejected(CreateTokens(token_type="t", tokens={}), "t:SB001 exists already")
    assert the_failure(CreateTokensStep().react(STEP, values, seen({}, row))) == "create tokens: t:SB001 exists already"


def test_attaching() -> None:
    values = params(AttachFilesStep, srm={"t:SB001": "x\n", "t:AB000": ""}, shared={"a.parset": "k = 1"})
    outcome = AttachFilesStep().start(STEP, values)
    effect = AttachFiles(own={"t:SB001": {"srm.txt": "x\n"}, "t:AB000": {}}, shared={"a.parset": "k = 1"})
    assert outcome == Do((effect,))
    assert AttachFilesStep().react(STEP, values, seen({}, *done_all(outcome, {"attached": 2}))) == Done({"attached": 2})
    assert the_failure(AttachFilesStep().react(STEP, values, seen({}, rejected(effect)))).startswith("attach files: ")


def test_tokens_are_deleted_when_all_their_archives_were_read_back() -> None:
    handler, values = ArchiveTokensStep(), params(ArchiveTokensStep, token_types=["t", "u"], directory="file:///a")
    first = handler.start(STEP, values)
    assert first == Do(
        (
            ArchiveTokens(token_type="t", url="file:///a/t.tokens.tar.gz"),
            ArchiveTokens(token_type="u", url="file:///a/u.tokens.tar.gz", ordinal=1),
        )
    )
    archives = [
        {"url": f"file:///a/{name}.tokens.tar.gz", "revisions": {f"{name}:1": "3-x"}, "adler32": 7} for name in "tu"
    ]
    rows = done_all(first, *archives)
    second = handler.react(STEP, values, seen({}, *rows))
    assert second == Do(
        (
            DeleteTokens(
                token_type="t", revisions={"t:1": "3-x"}, archive="file:///a/t.tokens.tar.gz", adler32=7, ordinal=0
            ),
            DeleteTokens(
                token_type="u", revisions={"u:1": "3-x"}, archive="file:///a/u.tokens.tar.gz", adler32=7, ordinal=1
            ),
        )
    )
    ended = done_all(second, {"deleted": 1, "left": "HTTP 403"}, {"deleted": 1})
    done = handler.react(STEP, values, seen({}, *rows, *ended))
    assert done == Done({"archives": [archive["url"] for archive in archives], "left": ["HTTP 403"]})


def test_a_later_attempt_writes_an_archive_of_its_own() -> None:
    """An earlier one may have deleted some tokens already: what is left must not have to equal its archive."""
    values = params(ArchiveTokensStep, token_types=["t"], directory="file:///a")
    later = ArchiveTokensStep().start(StepView("P1-1", "s", "P1", 2), values)
    assert later == Do((ArchiveTokens(token_type="t", url="file:///a/t.tokens-2.tar.gz"),))


def test_an_archive_that_cannot_be_written_deletes_nothing() -> None:
    handler, values = ArchiveTokensStep(), params(ArchiveTokensStep, token_types=["t", "u"], directory="file:///a")
    first = handler.start(STEP, values)
    assert isinstance(first, Do)
    rows = (*done_all(Do(first.effects[:1]), {"url": "x", "revisions": {}}), rejected(first.effects[1]))
    assert the_failure(handler.react(STEP, values, seen({}, *rows))) == "archive tokens: it is forbidden"


def test_no_tokens_to_archive_is_no_work() -> None:
    given = params(ArchiveTokensStep, token_types=["t", "u"], tokens=[["t:1"], []], directory="file:///a")
    (first, second) = ArchiveTokensStep().start(STEP, given).effects  # type: ignore[union-attr] # It has begun.
    assert (first.tokens, second.tokens) == (("t:1",), ())
    with pytest.raises(msgspec.ValidationError, match="found 1 lists of tokens; expected one for each of token_types"):
        params(ArchiveTokensStep, token_types=["t", "u"], tokens=[["t:1"]], directory="file:///a")
    outcome = ArchiveTokensStep().start(STEP, params(ArchiveTokensStep, token_types=[], directory="file:///a"))
    assert outcome == Done({"archives": [], "left": []})


def test_tokens_that_others_may_take_at_once_have_their_files_from_the_beginning() -> None:
    outcome, _ = create(surls=[surl(1), surl(2)], attach={"a.parset": "x"}, site="juelich")
    assert isinstance(outcome, Do)
    (effect,) = outcome.effects
    assert (effect.shared, effect.site) == ({"a.parset": "x"}, "juelich")
    assert effect.own == {"t:SB001": {"srm.txt": f"{surl(1)}\n"}, "t:SB002": {"srm.txt": f"{surl(2)}\n"}}
    later, _ = create(surls=[surl(1)])
    assert isinstance(later, Do)
    assert (later.effects[0].own, later.effects[0].shared) == ({}, {})
    results, _ = create(files=["file:///r"], attach={"a.parset": "x"})
    assert isinstance(results, Do)
    assert (results.effects[0].own, results.effects[0].shared) == ({}, {"a.parset": "x"})


def test_all_that_is_done_with_tokens_is_done_in_their_database() -> None:
    values = params(AttachFilesStep, srm={"t:1": ""}, site="juelich")
    attach = AttachFilesStep().start(STEP, values)
    archive = params(ArchiveTokensStep, token_types=["a", "b"], directory="file:///d", site="juelich")
    first = ArchiveTokensStep().start(STEP, archive)
    read = {"url": "file:///d/a", "adler32": 1, "revisions": {}}
    then = ArchiveTokensStep().react(STEP, archive, seen({}, *done_all(first, read, read)))
    for outcome in (attach, first, then):
        assert isinstance(outcome, Do)
        assert {effect.site for effect in outcome.effects} == {"juelich"}
