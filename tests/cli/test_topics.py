"""`aglowctl help`, and the exit codes that it tells."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from aglowd.cli import exits, topics
from aglowd.cli.control import main


def said(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["help", *args], prog_name="aglowctl")
    return done.exit_code, done.output


@pytest.mark.parametrize("name", topics.TOPICS)
def test_every_topic_is_told_and_named_by_help(name: str) -> None:
    code, out = said(name)
    assert (code, out.lower().startswith(name.replace("-", " "))) == (0, True)
    assert max(map(len, out.splitlines())) <= 100
    assert main.commands["help"].help is not None
    assert name in main.commands["help"].help


def test_every_exit_code_is_told() -> None:
    _, out = said("exit-codes")
    for code, meaning in exits.ASKING.items():
        assert f"  {code}  {meaning}\n" in out


def test_help_of_commands_is_their_own() -> None:
    for words in ([], ["wait"], ["tokens", "list"], ["doubt"]):
        usual = CliRunner().invoke(main, [*words, "--help"], prog_name="aglowctl").output
        assert said(*words) == (0, usual)


def test_what_there_is_not_is_2() -> None:
    for words in (["nope"], ["tokens", "nope"], ["status", "more"], ["exit-codes", "more"]):
        code, out = said(*words)
        assert (code, "topics: exit-codes, environment, patterns" in out) == (2, True)
