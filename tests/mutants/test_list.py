"""The mutation list fits the source that it breaks: it would rot unseen otherwise."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from .__main__ import ROOT, apply
from .kinds import Edit, Mutant
from .listed import MUTANTS


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.name))
def test_a_mutant_can_be_made(mutant: Mutant, tmp_path: Path) -> None:
    for path in {edit.path for edit in mutant.edits}:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    assert apply(tmp_path, mutant.edits) == ""
    for path in {edit.path for edit in mutant.edits if edit.path.endswith(".py")}:
        broken = ast.dump(ast.parse((tmp_path / path).read_text()))
        assert broken != ast.dump(ast.parse((ROOT / path).read_text())), "the mutation changes nothing"
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).exists()


def test_a_text_that_is_gone_or_there_twice_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("a\na\n")
    for old, times in (("a", 2), ("b", 0)):
        assert f"holds the text to replace {times} times" in apply(tmp_path, (Edit("x.py", old, ""),))
    assert (tmp_path / "x.py").read_text() == "a\na\n"


def test_each_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []
