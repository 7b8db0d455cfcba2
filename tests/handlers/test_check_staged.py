"""Looking where files are, and asking for none."""

from __future__ import annotations

import pytest

from aglowd.handlers.check_staged import CheckStaged
from aglowd.handlers.stage import locality
from aglowd.model import Done, Json, Outcome

from .conftest import STEP, params, seen, the_failure, the_wait

SURLS = tuple(f"srm://srm.grid.sara.nl:8443/d/L1_SB00{number}_uv.tar" for number in range(4))
LOOK = locality("sara", SURLS, STEP.key)


def check(missing: list[str], away: dict[str, str] | None = None, **values: Json) -> Outcome:
    given = params(CheckStaged, surls=SURLS, **values)
    assert the_wait(CheckStaged().start(STEP, given), LOOK) == "looking which of 4 files are online"
    return CheckStaged().react(STEP, given, seen({LOOK.key: {"missing": missing, "away": away or {}}}))


@pytest.mark.parametrize(("threshold", "staged"), [(0.95, False), (0.75, True), (1.0, False)])
def test_a_branch_can_be_made_of_it(threshold: float, staged: bool) -> None:
    outcome = check([SURLS[1]], {SURLS[1]: "LOST"}, threshold=threshold)
    assert outcome == Done(
        {
            "staged": staged,
            "online": 3,
            "site": "sara",
            "surls": [SURLS[0], *SURLS[2:]],
            "missing": [SURLS[1]],
            "away": {SURLS[1]: "LOST"},
        }
    )


def test_all_are_online() -> None:
    outcome = check([])
    assert isinstance(outcome, Done)
    assert (outcome.outputs["staged"], outcome.outputs["online"]) == (True, 4)


def test_it_fails_if_that_is_asked_for() -> None:
    assert the_failure(check([SURLS[0], SURLS[2]], required=True)) == (
        f"2 of 4 files are online; not: {SURLS[0]}, {SURLS[2]}"
    )
    assert isinstance(check([], required=True), Done)


def test_files_that_are_spelled_twice_are_one() -> None:
    given = params(CheckStaged, surls=(SURLS[0], SURLS[0].replace("8443/d", "8443/srm/managerv2?SFN=/d")))
    one = locality("sara", SURLS[:1], STEP.key)
    the_wait(CheckStaged().start(STEP, given), one)


def test_files_of_two_sites_are_two_steps() -> None:
    given = params(CheckStaged, surls=(SURLS[0], "srm://lofar-srm.fz-juelich.de:8443/d/L1_SB001_uv.tar"))
    assert "expected one site" in the_failure(CheckStaged().start(STEP, given), final=True)


def test_a_site_that_cannot_be_asked_is_told_of() -> None:
    given = params(CheckStaged, surls=SURLS)
    answer = {"missing": list(SURLS), "away": {}, "problem": "no site 'sara' is configured"}
    outcome = CheckStaged().react(STEP, given, seen({LOOK.key: answer}))
    assert the_failure(outcome) == "where 4 files are cannot be asked: no site 'sara' is configured"
