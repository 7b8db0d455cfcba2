"""Token documents and views are GRID_LRT's own, field by field and letter by letter."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import Permanent
from aglowd.grid.picas import check_token_type, token_design_doc
from aglowd.grid.tokens import build_token, load, names_field

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


def from_file(path: Path, token_id: str, token_type: str) -> dict[str, Any]:
    """The token that AGLOW's TokenCreator makes of a file."""
    load()
    from GRID_LRT.token import Token, TokenJsonBuilder

    token = Token(token_type, token_id=token_id)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # It leaves the file open.
        token.build(TokenJsonBuilder(str(path)))
    return dict(token)


def packaged() -> list[Path]:
    """The configurations that GRID_LRT itself comes with, as they are."""
    load()
    import GRID_LRT

    return sorted(Path(GRID_LRT.__file__).parent.glob("data/config/steps/*.json"))


def test_grid_lrts_own_files_are_taken_as_they_are() -> None:
    paths = packaged()
    assert len(paths) >= 3
    for path in paths:
        config = json.loads(path.read_text())
        built = build_token(config, "run:1", "sksp", {})
        assert built == {**from_file(path, "run:1", "sksp"), "_id": "run:1"}, path
        assert built["upload"] == config["Token"]["upload"], "templates of results are the launcher's to fill in"
        assert built["config.json"]["variables"]["_attachments"]["$SRMFILE"] == "srm.txt"
        assert built["config.json"]["sandbox"] == config["sandbox"]
        assert built["config.json"]["container"] == config["container"]


@pytest.mark.parametrize(("name", "given"), [("lock", 0), ("done", 0), ("type", "sksp")])
def test_what_every_new_token_is_may_be_said(name: str, given: Any) -> None:
    config = {"Token": {name: given, "status": "queued"}}
    assert build_token(config, "run:1", "sksp", {}) == theirs(config, "run:1", "sksp", {})


@pytest.mark.parametrize(("name", "given"), [("lock", False), ("lock", 0.0), ("done", 1), ("type", "other")])
def test_what_no_new_token_is_may_not(name: str, given: Any) -> None:
    with pytest.raises(Permanent, match=name):
        build_token({"Token": {name: given}}, "run:1", "sksp", {})


def test_which_fields_a_configuration_names() -> None:
    config = {"Token": {"status": "queued"}, "Job": {"variables": {"ABN": "000"}}}
    assert [names_field(config, name) for name in ("status", "ABN", "STARTSB")] == [True, True, False]
    assert not any(names_field({"Token": wrong, "Job": wrong}, "ABN") for wrong in (None, [], "ABN", {"variables": []}))


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
names = st.sampled_from(
    ["OBSID", "STARTSB", "ABN", "RESULTS_DIR", "PIPELINE_STEP", "status", "times", "upload", "progress", "ä"]
)
tables = st.dictionaries(names, json_values, max_size=4)
variables = st.fixed_dictionaries(
    {}, optional={"_attachments": st.dictionaries(st.text(max_size=5), st.text(max_size=5)), "_token_keys": tables}
)
uploads = st.fixed_dictionaries(
    {}, optional={"template": st.text(max_size=9), "location": st.text(max_size=9), "gzip": st.booleans()}
)
configurations = st.fixed_dictionaries(
    {},
    optional={
        "PicasApiVersion": st.sampled_from([0.5, 1, 1.0]),
        "Job": st.fixed_dictionaries({}, optional={"variables": tables, "NCPU": st.integers(1, 64)}),
        "Token": st.builds(
            lambda fields, more: fields | more,
            tables,
            st.fixed_dictionaries({}, optional={"variables": variables, "upload": uploads, "_id": st.text(max_size=5)}),
        ),
        "variables": variables,
        "container": tables,
        "sandbox": tables,
        "downloader": tables,
    },
)


@given(configurations, tables)
def test_any_token_equals_grid_lrts(config: dict[str, Any], keys: dict[str, Any]) -> None:
    """Made from the table, and from a file of it."""
    built = build_token(config, "run:1", "sksp", keys)
    assert built == {**theirs(config, "run:1", "sksp", keys), "_id": "run:1"}
    with TemporaryDirectory() as directory:
        path = Path(directory) / "token.json"
        path.write_text(json.dumps(config))
        assert built == {**from_file(path, "run:1", "sksp"), **keys, "_id": "run:1"}


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
