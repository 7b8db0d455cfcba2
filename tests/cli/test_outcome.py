"""What a demo says of itself at its end: whoever reads the last lines of a log must see what was amiss."""

from __future__ import annotations

from typing import Any

import pytest

from aglowd.cli.chaos import Chaos
from aglowd.cli.outcome import Outcome, print_summary
from aglowd.sim.checker import Report, Requests, WorldCounts
from aglowd.sim.rules import Finding


def outcome(state: str, *, given_up: bool, violations: tuple[Finding, ...] = ()) -> Outcome:
    """One field came to that state in bad weather."""
    world = WorldCounts(7, 1690, 1058, 34, 1085, 112, 0, 0, 0)
    report = Report(world, Requests(407, 0, 1380, 522, 0, 0, 5063, 5527), {}, (), (), violations)
    chaos = Chaos(1, 5, {"lta.busy": 3}, given_up=given_up)
    more: dict[str, Any] = {"chaos": {name: getattr(chaos, name) for name in chaos.__struct_fields__}, "doubtful": []}
    fields = {"P22Hetdex04": {"state": state, "reason": "archive: under way" if state == "working" else ""}}
    return Outcome(fields, report, 900.2, 4_501_000.0, 2, more)


def test_a_run_that_was_given_up_says_so_and_what_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    ended = outcome("working", given_up=True)
    assert not ended.is_well
    print_summary(ended)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "P22Hetdex04: working: archive: under way"
    assert printed[-1] == "given up after 900 s"


def test_what_the_ledger_shows_stands_last(capsys: pytest.CaptureFixture[str]) -> None:
    late = Finding("dropped wake-up", "staging request 12 ended and nobody reacted for 58 hours", 5.0, "12")
    ended = outcome("archived", given_up=False, violations=(late,))
    assert not ended.is_well
    print_summary(ended)
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "dropped wake-up: staging request 12 ended and nobody reacted for 58 hours"
    assert not any("given up" in line for line in printed)
