"""What tokens say in a field, as a list for the steps behind."""

from __future__ import annotations

import pytest

from aglowd.handlers.tokens_to_surls import TokensToSurls
from aglowd.model import Done, Json, Outcome, Wait

from .conftest import STEP, params, seen, the_failure


def say(tokens: dict[str, Json], **values: Json) -> Outcome:
    given = params(TokensToSurls, token_type="t", **values)
    waiting = TokensToSurls().start(STEP, given)
    assert isinstance(waiting, Wait)
    (look,) = waiting.subjects
    assert look.args.items() >= {"token_type": "t", "state": given.state, "field": given.field}.items()
    found = {name: {"rev": "1-a", "held": False, "value": value} for name, value in tokens.items()}
    return TokensToSurls().react(STEP, given, seen({look.key: {"tokens": found}}))


def test_what_tokens_say_becomes_a_list() -> None:
    """In the order of the tokens, each once, however many a field names; one is a list of one."""
    said = {"t:2": "file:///b", "t:1": ["file:///a", "file:///c"], "t:3": "file:///b  file:///d\n"}
    surls = ["file:///a", "file:///c", "file:///b", "file:///d"]
    assert say(said) == Done({"surls": surls, "count": 4, "without": []})
    assert say({"t:1": "file:///a"}) == Done({"surls": ["file:///a"], "count": 1, "without": []})


@pytest.mark.parametrize("nothing", ["", None, [], 7, {"a": "file:///x"}, "no URL"])
def test_a_token_that_names_no_file_is_named(nothing: Json) -> None:
    tokens = {"t:1": "file:///a", "t:2": nothing}
    assert the_failure(say(tokens)) == "1 of 2 tokens name no file in Results_location: t:2"
    assert say(tokens, required=False) == Done({"surls": ["file:///a"], "count": 1, "without": ["t:2"]})


def test_no_token_says_nothing() -> None:
    assert say({}) == Done({"surls": [], "count": 0, "without": []})
