"""The sandbox step: what it asks for, and what it tells the steps behind it."""

from __future__ import annotations

import msgspec
import pytest

from aglowd.effects.sandboxes import BuildSandbox
from aglowd.grid.checkouts import Repository
from aglowd.handlers.build_sandbox import BuildSandboxStep
from aglowd.model import Do, Done, Json

from .conftest import STEP, done_all, params, rejected, seen, the_failure

DEFINITION: dict[str, Json] = {"git": {"url": "https://example.org/x.git", "branch": "prefactor"}}
BUILT: dict[str, Json] = {
    "url": "file:///s/cal-0123.tar.gz",
    "commits": {"git": "abc"},
    "size_bytes": 3,
    "adler32": 7,
}


def test_it_is_built_once_and_tells_where_it_lies() -> None:
    given = params(BuildSandboxStep, sandbox=DEFINITION, directory="file:///s", name="cal")
    first = BuildSandboxStep().start(STEP, given)
    repositories = (Repository("git", "https://example.org/x.git", "prefactor"),)
    assert first == Do.all(BuildSandbox(repositories=repositories, directory="file:///s", name="cal"))
    done = BuildSandboxStep().react(STEP, given, seen({}, *done_all(first, BUILT)))
    assert done == Done({"SBX_location": BUILT["url"], "commits": {"git": "abc"}, "size_bytes": 3, "adler32": 7})


def test_its_effect_is_what_the_journal_keeps_of_it() -> None:
    first = BuildSandboxStep().start(STEP, params(BuildSandboxStep, sandbox=DEFINITION, directory="file:///s"))
    assert isinstance(first, Do)
    kept = msgspec.json.decode(msgspec.json.encode(first.effects[0]))
    assert msgspec.convert(kept, BuildSandbox) == first.effects[0]


def test_a_definition_that_names_nothing_ends_the_step() -> None:
    given = params(BuildSandboxStep, sandbox={"scripts": []}, directory="file:///s")
    assert "found no repository" in the_failure(BuildSandboxStep().start(STEP, given), final=True)


def test_a_refusal_is_the_reason() -> None:
    given = params(BuildSandboxStep, sandbox=DEFINITION, directory="file:///s")
    first = BuildSandboxStep().start(STEP, given)
    assert isinstance(first, Do)
    refused = rejected(first.effects[0], "x has no commit abc")
    assert the_failure(BuildSandboxStep().react(STEP, given, seen({}, refused))) == "build sandbox: x has no commit abc"


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a b", "x" * 65])
def test_a_name_is_part_of_a_files_name(name: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="name must be"):
        params(BuildSandboxStep, sandbox=DEFINITION, directory="file:///s", name=name)
