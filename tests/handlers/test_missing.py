"""Which subbands may be missing: one policy, the same in every step that judges."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.handlers.check_files import CheckFiles
from aglowd.handlers.files import directory
from aglowd.handlers.missing import Missing, find_subband, gaps_of, missing_of, not_enough, too_many
from aglowd.handlers.results import Collect
from aglowd.handlers.srm_list import SrmList, srm_list
from aglowd.handlers.stage import Stage, locality
from aglowd.handlers.tokens import CreateTokensStep
from aglowd.handlers.wait_tokens import results_of
from aglowd.model import Do, Done, Json, Wait

from .conftest import STEP, params, seen, the_failure

SURLS = [f"srm://srm.grid.sara.nl:8443/d/L1_SB{number:03d}_uv.tar" for number in range(10)]
NUMBERS = st.sets(st.integers(0, 60))
POLICIES = st.builds(
    Missing, most=st.none() | st.integers(0, 12), gap=st.integers(0, 6), nominal=st.integers(1, 40)
) | st.builds(Missing, most=st.integers(0, 12), nominal=st.integers(1, 40))


# --- the policy


@given(NUMBERS)
def test_gaps_are_all_that_is_missing_each_as_long_as_can_be(numbers: set[int]) -> None:
    gaps = gaps_of(numbers)
    assert [number for first, last in gaps for number in range(first, last + 1)] == sorted(numbers)
    assert all(end + 1 < first for (_, end), (first, _) in pairwise(gaps))


@given(NUMBERS, st.integers(1, 40))
def test_what_is_here_and_what_is_missing_make_whole_beams(numbers: set[int], nominal: int) -> None:
    missing = missing_of(numbers, nominal)
    assert numbers.isdisjoint(missing)
    assert (len(numbers) + len(missing)) % nominal == 0
    assert {number // nominal for number in missing} <= {number // nominal for number in numbers}


@given(NUMBERS, POLICIES)
def test_a_policy_is_kept_to_the_letter_and_its_reason_names_subbands(numbers: set[int], policy: Missing) -> None:
    reason = too_many(sorted(numbers), policy)
    longest = max((last - first + 1 for first, last in gaps_of(numbers)), default=0)
    is_well = (policy.most is None or len(numbers) <= policy.most) and (policy.gap is None or longest <= policy.gap)
    assert (reason == "") is is_well
    assert is_well or "SB0" in reason


@given(NUMBERS, NUMBERS, POLICIES)
def test_more_files_are_never_worse(numbers: set[int], more: set[int], policy: Missing) -> None:
    of = [f"L1_SB{number:03d}_x.tar" for number in numbers | more]
    names = [f"L1_SB{number:03d}_x.tar" for number in numbers]
    if not not_enough(names, policy, of):
        assert not_enough(of, policy, of) == ""


@pytest.mark.parametrize(
    ("missing", "policy", "reason"),
    [
        ([3, 17, 18, 19], {"most": 3}, "4 subbands are missing, at most 3 may be: SB003, SB017 to SB019"),
        ([3, 17, 18, 19], {"gap": 2}, "more than 2 subbands in a row are missing: SB017 to SB019"),
        ([3, 17, 18, 19], {"most": 4, "gap": 3}, ""),
        ([], {"most": 0, "gap": 0}, ""),
        ([5], {"gap": 0}, "more than 0 subbands in a row are missing: SB005"),
    ],
)
def test_reasons(missing: list[int], policy: dict[str, int], reason: str) -> None:
    assert too_many(missing, Missing(**policy)) == reason


def test_without_a_policy_nothing_is_asked() -> None:
    assert too_many([1, 2, 3], None) == not_enough(["no-subband"], None) == ""


def test_a_beam_that_is_missing_as_a_whole_counts() -> None:
    policy = Missing(most=0, nominal=2)
    assert not_enough(["SB000", "SB001"], policy) == ""
    assert "SB002 to SB003" in not_enough(["SB000", "SB001"], policy, ["SB002"])


@pytest.mark.parametrize(
    ("name", "subband"),
    [(SURLS[3], 3), ("t:SB012", 12), ("P1_SB0_t:SB244", 244), ("L1_SB1000.tar", 1000), ("t:AB000", None), ("", None)],
)
def test_a_subband_stands_in_the_name(name: str, subband: int | None) -> None:
    assert find_subband(name) == subband


@pytest.mark.parametrize("wrong", [{}, {"most": -1}, {"gap": -1}, {"most": 1, "nominal": 0}, {"most": 1, "least": 2}])
def test_a_policy_of_no_sense_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(wrong, Missing)


# --- the steps


def test_a_list_that_lacks_too_much_is_refused_before_anything_is_asked_for() -> None:
    content = {"path": "/x", "obsid": "L1", "site": "sara", "surls": SURLS, "subbands": [0, 1, 4]}

    def react(**values: Json) -> object:
        given_ = params(SrmList, path="/x", obsid="L1", nominal=6, **values)
        return SrmList().react(STEP, given_, seen({srm_list("/x", STEP.key).key: content}))

    reason = "/x:1: more than 1 subbands in a row are missing: SB002 to SB003"
    assert the_failure(react(missing={"gap": 1}), final=True) == reason  # type: ignore[arg-type]
    assert isinstance(react(missing={"gap": 2, "most": 3}), Done)
    assert isinstance(react(), Done)


@pytest.mark.parametrize(
    ("policy", "is_enough"),
    [({"most": 2}, True), ({"most": 1}, False), ({"gap": 1}, True), ({"most": 2, "gap": 0}, False)],
)
def test_staging_ends_when_no_more_is_missing_than_may_be(policy: dict[str, int], is_enough: bool) -> None:
    missing = [SURLS[2], SURLS[5]]
    where = {"missing": missing, "away": dict.fromkeys(missing, "LOST"), "copies": {}, "counts": {}}
    given_ = params(Stage, surls=SURLS, missing={**policy, "nominal": 10})
    outcome = Stage().react(STEP, given_, seen({locality("sara", tuple(SURLS), f"{STEP.key}/0.0").key: where}))
    if is_enough:
        assert isinstance(outcome, Done), outcome
        assert outcome.outputs["missing"] == missing
    else:
        assert "SB002" in the_failure(outcome)
    # The fraction alone would have said otherwise.
    given_ = params(Stage, surls=SURLS)
    outcome = Stage().react(STEP, given_, seen({locality("sara", tuple(SURLS), f"{STEP.key}/0.0").key: where}))
    assert "only 8 of 10" in the_failure(outcome)


def test_results_are_collected_if_no_more_subbands_have_none_than_may() -> None:
    tokens = results_of("t", f"{STEP.key}/results")
    files = directory("file:///r", f"{STEP.key}/files/file:///r")
    facts: dict[str, Json] = {
        tokens.key: {
            "done": {"t:SB000": "file:///r/a", "t:SB003": "file:///r/b"},
            "other": {"t:SB001": "error", "t:SB002": "error"},
        },
        files.key: {"files": [{"url": "file:///r/a", "size_bytes": 1}, {"url": "file:///r/b", "size_bytes": 1}]},
    }

    def react(policy: dict[str, int]) -> object:
        given_ = params(Collect, token_type="t", directory="file:///r", missing={**policy, "nominal": 4})
        return Collect().react(STEP, given_, seen(facts))

    assert isinstance(react({"gap": 2}), Done)
    reason = "tokens of t: more than 1 subbands in a row are missing: SB001 to SB002"
    assert the_failure(react({"gap": 1})) == reason  # type: ignore[arg-type]


def test_files_are_complete_if_no_more_subbands_are_missing_than_may_be() -> None:
    where = directory("file:///r", f"{STEP.key}/0")
    listing = {"files": [{"url": f"file:///r/L1_SB{number:03d}.tar", "size_bytes": 1} for number in (0, 1, 3)]}

    def react(**values: Json) -> object:
        given_ = params(CheckFiles, directory="file:///r", **values)
        return CheckFiles().react(STEP, given_, seen({where.key: listing}))

    well = react(missing={"most": 1, "nominal": 4})
    assert isinstance(well, Done)
    assert well.outputs["complete"] is True
    bad = {"most": 0, "nominal": 4}
    assert "1 subbands are missing, at most 0 may be: SB002" in the_failure(react(missing=bad))  # type: ignore[arg-type]
    left = react(missing=bad, required=False)
    assert isinstance(left, Done)
    assert left.outputs["complete"] is False
    assert "expected at least 4" in the_failure(react(missing=bad, at_least=4))  # type: ignore[arg-type]


def test_no_token_is_made_of_too_few_subbands() -> None:
    def start(**values: Json) -> object:
        config = {"Job": {"variables": {}}, "Token": {}}
        given_ = params(CreateTokensStep, token_type="t", config=config, surls=SURLS[:8], **values)
        return CreateTokensStep().start(STEP, given_)

    reason = "no tokens are made: 2 subbands are missing, at most 1 may be: SB008 to SB009"
    assert the_failure(start(missing={"most": 1, "nominal": 10}), final=True) == reason  # type: ignore[arg-type]
    assert isinstance(start(missing={"most": 2, "nominal": 10}), Do)
    assert not isinstance(start(), Wait)
