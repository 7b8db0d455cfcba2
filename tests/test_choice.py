"""What names, patterns and a state mean, whichever command takes them."""

from __future__ import annotations

import pytest

from aglowd.choice import Choice, check_number
from aglowd.errors import AglowError

STATES = {"P1": "running", "P2": "failed", "Q1": "failed", "Q2": "offered", "Q3": ""}
"""Of Q3 there is nothing: its name is known, and that is all."""


def means(*names: str, state: str = "") -> list[str]:
    return list(Choice(names, state).of(STATES, lambda name: STATES.get(name) or None, str))


@pytest.mark.parametrize(
    ("names", "state", "meant"),
    [
        (("Q1", "P1"), "", ["Q1", "P1"]),
        (("P1", "P1", "P*"), "", ["P1", "P2"]),
        (("Q*",), "", ["Q1", "Q2"]),
        (("[PQ]1",), "failed", ["Q1"]),
        (("P1", "P2"), "failed", ["P2"]),
        ((), "failed", ["P2", "Q1"]),
        ((), "offered", ["Q2"]),
    ],
)
def test_names_patterns_and_a_state(names: tuple[str, ...], state: str, meant: list[str]) -> None:
    assert means(*names, state=state) == meant


@pytest.mark.parametrize("name", ["R1", "R*", "Q3", "Q3*", "p1", "p*"])
def test_what_stands_for_nothing_is_refused_by_its_name_whatever_stands_beside_it(name: str) -> None:
    for names in ((name,), ("P1", name), (name, "P*")):
        with pytest.raises(AglowError, match="there is no field") as refused:
            means(*names)
        assert repr(name) in str(refused.value)


def test_who_means_nothing_is_told_what_there_is() -> None:
    with pytest.raises(AglowError, match=r"^none of them is cancelled; there are: 2 failed, 1 running, 1 offered$"):
        means(state="cancelled")
    with pytest.raises(AglowError, match=r"^none of them is archived; there are: 1 running, 1 failed$"):
        means("P*", state="archived")
    with pytest.raises(AglowError, match="expected a name, a pattern or a state; found none of them"):
        means()


def test_a_name_given_in_full_may_stand_for_more_than_the_known_ones() -> None:
    choice = Choice(("P1-1", "P*"))
    runs = {"P1-1": "running", "P2-1": "failed"}
    found = choice.of(STATES, lambda name: runs.get(f"{name}-1"), str, named=runs.get)
    assert found == {"P1-1": "running", "P1": "running", "P2": "failed"}


def test_a_name_that_looks_like_a_pattern_means_whoever_has_it() -> None:
    known = {"Q1": "running", "Q[1]": "", "P1": "running", "P[1]": "failed"}

    def means(*names: str) -> dict[str, str]:
        return Choice(names).of(
            known, lambda name: known.get(name) or None, str, named=({"R[1]-1": "done"} | known).get
        )

    assert means("P[1]") == {"P[1]": "failed"}
    assert means("R[1]-1") == {"R[1]-1": "done"}
    assert means("[P]1") == {"P1": "running"}
    with pytest.raises(AglowError, match=r"there is no field 'Q\[1\]'"):
        Choice(("Q[1]",)).of(known, lambda name: known.get(name) or None, str)
    assert Choice(("Q[1]", "P1")).is_exact(known)
    assert not Choice(("Q[1]",)).is_exact({"Q1"})


def test_only_names_given_in_full_are_exact() -> None:
    assert Choice(("P1", "Q1")).is_exact()
    assert not any(choice.is_exact() for choice in (Choice(("P1", "Q*")), Choice(("P1",), "failed"), Choice()))
    assert Choice((), "failed").in_any_state() == Choice(("*",))
    assert Choice(("P1",), "failed").in_any_state() == Choice(("P1",))


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aglowd.choice.MAX_TARGETS", 2)
    check_number(2)
    with pytest.raises(AglowError, match="3 runs are meant; expected at most 2"):
        check_number(3)
