"""What a person may say to the desk that steers, before any run is looked at."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aglowd.errors import AglowError
from aglowd.steering import MAX_OUTPUTS_CHARS, MAX_PARAMS, RunOrder, RunsOrder, _order_of


@pytest.mark.parametrize(
    ("verb", "values", "why"),
    [
        ("skip", {}, "skip needs one step; found 0"),
        ("done", {"steps": ("a", "b")}, "done needs one step; found 2"),
        ("cancel", {"steps": ("a",)}, "a run is cancelled as a whole"),
        ("retry", {"outputs": {"x": 1}}, "only a step that is done has outputs"),
    ],
)
def test_what_a_verb_does_not_take_is_refused(verb: str, values: dict[str, Any], why: str) -> None:
    with pytest.raises(AglowError, match=why):
        _order_of(verb, RunsOrder(targets=("P1",), **values))


def test_outputs_have_a_size() -> None:
    text = "x" * (MAX_OUTPUTS_CHARS - len('{"x":""}'))
    assert _order_of("done", RunsOrder(steps=("a",), outputs={"x": text})).outputs == {"x": text}
    with pytest.raises(AglowError, match=f"expected outputs of at most {MAX_OUTPUTS_CHARS} characters"):
        _order_of("done", RunsOrder(steps=("a",), outputs={"x": text + "y"}))


def test_a_run_takes_so_many_parameters() -> None:
    body = {"field": "P1", "params": {f"p{number}": 1 for number in range(MAX_PARAMS)}}
    assert len(msgspec.json.decode(msgspec.json.encode(body), type=RunOrder).params) == MAX_PARAMS
    body["params"]["more"] = 1  # type: ignore[index] # It is the table.
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(body), type=RunOrder)
