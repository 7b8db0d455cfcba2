"""Token documents and views are GRID_LRT's own, field by field and letter by letter."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import Permanent
from aglowd.grid.picas import check_token_type, token_design_doc
from aglowd.grid.tokens import build_token, load

from .conftest import SAMPLES

CONFIGS = sorted((SAMPLES / "tokens").glob("*.json"))


def theirs(config: dict[str, Any], token_id: str, token_type: str, keys: dict[str, Any]) -> dict[str, Any]:
    """The token that GRID_LRT builds, as its own users do."""
    load()
    from GRID_LRT.token import Token, TokenDictBuilder

    token = Token(token_type, token_id=token_id)
    token.build(TokenDictBuilder(copy.deepcopy(config)))
    for name, value in keys.items():
        token[name] = value
    return dict(token)


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_tokens_equal_grid_lrts(path: Any) -> None:
    config = json.loads(path.read_text())
    before = copy.deepcopy(config)
    keys = {"OBSID": "L229507", "STARTSB": "000", "status": "queued", "list": [1]}
    built = build_token(config, "run:1", "sksp_cal", keys)
    # GRID_LRT lets an `_id` in the configuration overwrite the token's own; that is the one thing that is not copied.
    assert built == {**theirs(config, "run:1", "sksp_cal", keys), "_id": "run:1"}
    assert config == before
    built["list"].append(2)
    built["config.json"]["variables"]["_attachments"]["x"] = "y"
    assert (config, keys["list"]) == (before, [1])


@pytest.mark.parametrize(
    ("config", "keys", "found"),
    [
        ({"PicasApiVersion": 0.4}, {}, "PicasApiVersion 0.4"),
        ({"PicasApiVersion": "1"}, {}, "PicasApiVersion '1'"),
        ({"Token": []}, {}, "list at Token"),
        ({"Token": {"variables": "x"}}, {}, "str at Token.variables"),
        ({"Job": {"variables": 1}}, {}, "int at Job.variables"),
        ({"Token": {"lock": 1}}, {}, "lock"),
        ({"Token": {"_rev": "1"}}, {}, "_rev"),
        ({"Job": {"variables": {"type": "x"}}}, {}, "type"),
        ({}, {"aglowd": {}}, "aglowd"),
        ({}, {"_attachments": {}}, "_attachments"),
    ],
)
def test_a_bad_configuration_is_named(config: dict[str, Any], keys: dict[str, Any], found: str) -> None:
    with pytest.raises(Permanent, match=found):
        build_token(config, "run:1", "sksp", keys)


@pytest.mark.parametrize("name", ["", "_x", "-x", 'a"){} emit(doc)}; //', "a b", "a/b", "a\n", "ä", "a:b"])
def test_a_token_type_that_is_no_plain_name_is_refused(name: str) -> None:
    for work in (check_token_type, token_design_doc, lambda name: build_token({}, "x", name, {})):
        with pytest.raises(Permanent, match="token type"):
            work(name)
    with pytest.raises(Permanent, match="token id"):
        build_token({}, "_x", "sksp", {})


@pytest.mark.parametrize("name", ["sksp", "pref_cal1_L229507", "P215+50", "a.b-c"])
def test_the_views_are_grid_lrts(name: str) -> None:
    load()
    from GRID_LRT.token import TokenList

    class Recorder(TokenList):  # type: ignore[misc] # GRID_LRT has no types
        def add_view(self, view: Any) -> None:
            text, reduce = view.get_codes(self.token_type)
            views[view.name] = {"map": text} | ({"reduce": reduce} if reduce else {})

    views: dict[str, Any] = {}
    Recorder(token_type=name, database=None).add_token_views()
    doc = token_design_doc(name)
    assert doc["views"] == views
    assert (doc["_id"], doc["PICAS_API_VERSION"]) == (f"_design/{name}", "1.0.7")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
sections = st.dictionaries(
    st.sampled_from(["Token", "Job", "variables", "container", "sandbox", "PicasApiVersion", "status", "_id"]),
    json_values | st.dictionaries(st.sampled_from(["variables", "status", "_id", "lock"]), json_values),
)


@given(sections)
def test_any_configuration_is_a_token_or_permanent(config: dict[str, Any]) -> None:
    try:
        token = build_token(config, "run:1", "sksp", {})
    except Permanent:
        return
    assert (token["_id"], token["type"], token["lock"], token["done"]) == ("run:1", "sksp", 0, 0)
