"""The JavaScript subset: GRID_LRT's and picasclient's own view texts must mean here what they mean in CouchDB."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.sim.jsvalues import MapError
from aglowd.sim.mapjs import CompileError, compile_map

OVERVIEW = """function(doc) {
   if(doc.type == "sksp" )
     {
       if (doc.lock == 0 && doc.done == 0){
          emit('todo', 1);
       }
       if(doc.lock > 0 && doc.status == 'downloading' ) {
          emit('downloading', 1);
       }
       if(doc.lock > 0 && doc.done > 0 && doc.output == 0 ) {
          emit('done', 1);
       }
       if(doc.lock > 0 && doc.output != 0 && doc.output != "" ) {
          emit('error', 1);
       }
       if(doc.lock > 0 && doc.status == 'launched' ) {
          emit('waiting', 1);
       }
       if(doc.lock > 0  && doc.done==0 && doc.status!='downloading' ) {
          emit('running', 1);
      }
     }
}
"""
MONITOR_DONE = """
function(doc) {
  if(doc.type == "task") {
    if(doc.lock > 0 && doc.done > 0 && parseInt(doc.exit_code) == 0) {
      emit(doc._id, [doc.lock, doc.done]);
    }
  }
}
"""
CHAIN = """// the state of a token
function (doc) { var state = 'odd'; if (typeof doc.type !== 'string') return;
  if (doc.lock === 0 && doc.done === 0) state = 'todo'; else if (doc.status === 'done') { state = 'done' }
  else if (doc.lock > 0 && !doc.done) state = 'locked';
  emit([doc.type, state], doc.count ? doc.count + 1 : 1); }"""


def overview(doc: dict[str, Any]) -> list[str]:
    """What the overview view emits, for documents whose fields are numbers and texts: the reference."""
    found = []
    missing = "output" not in doc
    output = doc.get("output")
    # In JavaScript "" == 0, while an absent field equals neither.
    is_zero, is_empty = output in (0, ""), output in (0, "")
    locked = doc.get("lock", 0) > 0
    if doc.get("lock") == 0 and doc.get("done") == 0:
        found.append("todo")
    if locked and doc.get("status") == "downloading":
        found.append("downloading")
    if locked and doc.get("done", 0) > 0 and is_zero and not missing:
        found.append("done")
    if locked and (missing or not (is_zero or is_empty)):
        found.append("error")
    if locked and doc.get("status") == "launched":
        found.append("waiting")
    if locked and doc.get("done") == 0 and doc.get("status") != "downloading":
        found.append("running")
    return found


tokens = st.fixed_dictionaries(
    {"type": st.just("sksp")},
    optional={
        "lock": st.sampled_from([-1, 0, 1, 1795474315]),
        "done": st.sampled_from([-1, 0, 99, 1795474999]),
        "output": st.sampled_from([0, 1, "", "x", -1]),
        "status": st.sampled_from(["downloading", "launched", "done", "queued"]),
    },
)


@given(tokens)
def test_overview_view_agrees_with_its_reference(doc: dict[str, Any]) -> None:
    assert [key for key, _ in compile_map(OVERVIEW)(doc)] == overview(doc)


@given(tokens)
def test_a_document_of_another_type_is_not_emitted(doc: dict[str, Any]) -> None:
    assert compile_map(OVERVIEW)(doc | {"type": "other"}) == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [(0, True), ("0", True), ("0 ok", True), (1, False), ("", False), ("x", False), (None, False)],
)
def test_monitor_view_reads_the_exit_code_as_javascript_does(code: Any, expected: bool) -> None:
    rows = compile_map(MONITOR_DONE)({"_id": "t", "type": "task", "lock": 1, "done": 2, "exit_code": code})
    assert rows == ([("t", [1, 2])] if expected else [])


@pytest.mark.parametrize(
    ("doc", "row"),
    [
        ({"type": "a", "lock": 0, "done": 0}, (["a", "todo"], 1)),
        ({"type": "a", "lock": 5, "done": 0, "count": 2}, (["a", "locked"], 3)),
        ({"type": "a", "lock": 5, "done": 7, "status": "done"}, (["a", "done"], 1)),
        ({"type": "a", "lock": 5, "done": 7}, (["a", "odd"], 1)),
    ],
)
def test_a_chain_of_conditions_with_a_variable(doc: dict[str, Any], row: Any) -> None:
    assert compile_map(CHAIN)(doc) == [row]
    assert compile_map(CHAIN)({"lock": 0}) == []


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("'a' + 1", "a1"),
        ("'5' - 2", 3),
        ("null == undefined", True),
        ("null === undefined", False),
        ("null == 0", False),
        ("'1' == 1", True),
        ("'1' === 1", False),
        ("'b' > 'a' && '10' < '9'", True),
        ("'10' > 9", True),
        ("doc.no == null ? 'none' : 'some'", "none"),
        ("doc.list.length", 2),
        ("'abc'.length", 3),
        ("doc.inner.b", 5),
        ("doc['a-b']", 4),
        ("doc.list[1]", "y"),
        ("!''", True),
        ("[] == ''", True),
        ("[1, 2] >= [0]", True),
        ("({} >= '10')", True),
        ("true == 1", True),
        ("true === 1", False),
        ("1 === 1.0 && 'a' === 'a'", True),
        ("true > 0 && '2' >= 2", True),
        ("null < 1 && !(doc.no < 1)", True),
        ("1 <= 1 && !(2 < 1) && 2 > 1.5", True),
        ("NaN == NaN", False),
        ("doc.no", None),
        ("{a: 1, 'b': [2]}", {"a": 1, "b": [2]}),
        ("typeof doc.no", "undefined"),
        ("doc.no || 'other'", "other"),
        ("'\\u0041\\n'", "A\n"),
    ],
)
def test_expressions(expression: str, value: Any) -> None:
    rows = compile_map(f"function(doc) {{ emit('k', {expression}) }}")(
        {"list": ["x", "y"], "a-b": 4, "inner": {"b": 5}}
    )
    assert rows == [("k", value)]


def test_what_javascript_throws_ends_the_document() -> None:
    with pytest.raises(MapError):
        compile_map("function(doc) { emit(doc.no.more, 1) }")({})
    with pytest.raises(MapError):
        compile_map("function(doc) { emit(nothing, 1) }")({})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "function(doc) {",
        "function(doc) { for (var i in doc) { emit(i, 1) } }",
        "function(doc) { emit(doc._id, 1) ",
        "function(doc) { emit(doc._id, @) }",
        "not a function",
        "function(doc) { emit(1, 2) } x",
    ],
)
def test_what_is_not_in_the_subset_does_not_compile(text: str) -> None:
    with pytest.raises(CompileError):
        compile_map(text)
