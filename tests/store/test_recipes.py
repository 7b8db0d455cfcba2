"""A long fact is made of what is known already: to the letter, or not at all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.model import Json
from aglowd.store import recipes
from aglowd.store.journal import digest_of
from aglowd.store.recipes import make, recipe_of
from aglowd.store.rows import dumps, loads

FILES = [
    f"srm://srm.example.org:8443/lofar/projects/L229507_SB{number:03}_{number * 7919:08x}.tar" for number in range(244)
]
ARGS = dumps({"site": "sara", "surls": FILES})
PARTS = st.lists(st.sampled_from(["", "a", "b", '"', "[1", "é", "-1"]), max_size=12).map(",".join)


def seen(missing: list[str], **more: Json) -> str:
    return dumps({"away": {}, "counts": {"ONLINE": len(FILES) - len(missing)}, "missing": missing, **more})


@given(PARTS, PARTS, PARTS)
def test_what_is_made_is_the_fact_to_the_letter(text: str, args: str, before: str) -> None:
    told = loads(dumps(recipe_of(text, args, before)))
    assert make(told, args, before) == text


@given(PARTS, PARTS, PARTS, PARTS)
def test_of_something_else_the_fact_is_made_or_nothing(text: str, args: str, before: str, other: str) -> None:
    told = recipe_of(text, args, before)
    assert make(told, args, other) in (text, None)
    assert make(told, other, before) in (text, None)


def test_of_a_list_that_its_arguments_name_a_recipe_says_only_which_are_meant() -> None:
    assert len(seen(FILES)) > 15_000
    beginning = seen(FILES[:1]).removesuffix("]}").replace("243", "0")
    assert recipe_of(seen(FILES), ARGS, "")["made"] == [beginning, [2, 243]]
    missing = [name for name in FILES if random.Random(name).random() < 0.5]
    told = recipe_of(seen(missing), ARGS, seen(FILES))
    assert len(dumps(told)) < 1000
    assert make(told, ARGS, seen(FILES)) == seen(missing)


def test_what_changed_in_its_place_is_all_that_is_new() -> None:
    nodes = {f"https://wms/{number:04}": {"state": "running", "retries": 0} for number in range(50)}
    before = dumps({"final": False, "nodes": nodes})
    after = dumps({"final": False, "nodes": nodes | {"https://wms/0031": {"state": "running", "retries": 1}}})
    told = recipe_of(after, "{}", before)
    assert told["made"] == [[1, 63], '"https://wms/0031":{"retries":1', [65, 37]]
    assert make(told, "{}", before) == after


def test_what_is_new_is_compressed_where_it_is_long() -> None:
    fresh = seen(FILES[:60])
    told = recipe_of(fresh, "{}", "")
    assert isinstance(told["made"], str)
    assert len(told["made"]) <= recipes.MAX_RECIPE_CHARS
    assert make(told, "{}", "") == fresh


@pytest.mark.parametrize("length", [recipes.MAX_FACT_CHARS, recipes.MAX_FACT_CHARS + 1])
def test_of_too_long_a_fact_and_of_too_much_that_is_new_only_the_digest_is_told(length: int) -> None:
    text = "x" * length
    assert ("made" in recipe_of(text, "", text)) == (length <= recipes.MAX_FACT_CHARS)
    noise = ",".join(f"{random.Random(number).random()}" for number in range(1000))
    told = recipe_of(noise, "", "")
    assert told == {"digest": digest_of(noise)}
    assert make(told, "", "") is None
