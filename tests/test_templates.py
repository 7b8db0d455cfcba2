"""Templates: types survive, what is undefined is an error, and nothing gets out of the sandbox."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aglowd.templates import TemplateProblem, condition, condition_names, first, is_template, names, render

FIELD: dict[str, Any] = {"name": "P1", "subbands": [1, 2], "keys": "k", "items": {"values": 3}, "none": None}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_a_text_that_is_one_expression_gives_the_value_itself(value: Any) -> None:
    found = render("{{ x }}", {"x": value})
    assert found == value
    assert type(found) is type(value)


@given(JSON.filter(lambda value: not is_template(value)))
def test_what_holds_no_template_stays_as_it_is(value: Any) -> None:
    assert render(value, {}) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{field.subbands}}", [1, 2]),
        ("{{- field.subbands -}}", [1, 2]),
        ("{{ field.subbands | map('string') }}", ["1", "2"]),
        ("{{ field.subbands | length + 1 }}", 3),
        ("{{ field.none }}", None),
        ("{{ 7 }}", 7),
        ("{{ 'a}}b' }}", "a}}b"),
        ("{{ dict(field['items'], more=1) }}", {"values": 3, "more": 1}),
        ("{{ field.name }}_{{ field.subbands[0] }}", "P1_1"),
        ("{{ field.subbands }} ", "[1, 2] "),
        ("x{{ field.subbands }}", "x[1, 2]"),
        ("{% if field.subbands %}yes{% endif %}\n", "yes\n"),
        ("{# nothing #}", ""),
        ("{{ field.baseline or '[]' if field.baseline is defined else 'no' }}", "no"),
        ("no braces", "no braces"),
    ],
)
def test_what_a_template_gives(text: str, value: object) -> None:
    found = render(text, {"field": FIELD})
    assert found == value
    assert type(found) is type(value)


def test_templates_deep_inside_a_value_are_filled_in_and_the_rest_is_kept() -> None:
    value = {"a": ["{{ field.name }}", 3, {"b": "{{ field.subbands }}"}], "c": True, "d": ("{{ field.name }}!",)}
    assert render(value, {"field": FIELD}) == {"a": ["P1", 3, {"b": [1, 2]}], "c": True, "d": ["P1!"]}
    assert value["c"] is True
    assert FIELD["subbands"] == [1, 2]


def test_keys_may_be_called_as_methods_are() -> None:
    context = {"field": FIELD}
    assert render("{{ field.keys }}", context) == "k"
    assert render("{{ field['keys'] }}", context) == "k"
    assert render("{{ field['items']['values'] }}", context) == 3
    assert render("{{ field.items.values }}", context) == 3


@pytest.mark.parametrize("name", ["items", "keys", "values", "get"])
@pytest.mark.parametrize("how", ["{{{{ field.{} }}}}", "{{{{ field['{}'] }}}}", "a {{{{ field.{} }}}} b"])
def test_a_key_that_is_not_there_is_no_method_of_a_table(how: str, name: str) -> None:
    with pytest.raises(TemplateProblem):
        render(how.format(name), {"field": {"name": "P1"}})


@pytest.mark.parametrize(
    "text",
    [
        "{{ nothing }}",
        "{{ nothing.at.all }}",
        "{{ field.colour }}",
        "{{ field.items.colour }}",
        "{{ field['colour'] }}",
        "{{ field.subbands[7] }}",
        "{{ nothing }} in text",
        "{{ field.colour | upper }}",
        "{{ nothing + 1 }}",
    ],
)
def test_what_is_undefined_is_an_error_that_names_it(text: str) -> None:
    with pytest.raises(TemplateProblem, match=r"nothing|colour|element 7"):
        render(text, {"field": FIELD})


@pytest.mark.parametrize(
    "text",
    [
        "{{ 1 / 0 }}",
        "{{ field.name + 1 }}",
        "{{ field.name.nothing() }}",
        "{{ 'x'.encode('nothing') }}",
        "{{ [1] | map('no_such_filter') | list }}",
        "{{ 10 ** 'x' }}",
    ],
)
def test_what_goes_wrong_inside_is_a_problem_of_the_template(text: str) -> None:
    with pytest.raises(TemplateProblem):
        render(text, {"field": FIELD})


@pytest.mark.parametrize("text", ["{{ a", "{{ a b }}", "{% if a %}", "{{ }}", "{{ a | no_such_filter }}"])
def test_what_cannot_be_parsed_is_told_with_its_line(text: str) -> None:
    with pytest.raises(TemplateProblem, match=r"line 2 of the template"):
        render(f"one\n{text}", {"a": 1})
    with pytest.raises(TemplateProblem):
        list(names(f"one\n{text}"))


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ field.__class__ }}",
        "{{ field['__class__'] }}",
        "{{ field.name | attr('__class__') }}",
        "{{ ''['__class__'] }}",
        "{{ '{0.__class__}'.format(field) }}",
        "{{ first.__globals__ }}",
        "{{ dict.__subclasses__() }}",
        "{{ field.subbands.append(3) }}",
        "{{ field.subbands.clear() }}",
        "{{ (x for x in ()).gi_frame }}",
        "{{ self.__init__ }}",
        "{{ cycler }}",
        "{{ lipsum() }}",
        "{{ namespace() }}",
    ],
)
@pytest.mark.parametrize("around", ["", "text "])
def test_the_sandbox_holds(text: str, around: str) -> None:
    field = {"name": "P1", "subbands": [1, 2]}
    with pytest.raises(TemplateProblem):
        render(around + text, {"field": field})
    assert field == {"name": "P1", "subbands": [1, 2]}


def test_a_range_is_a_list_and_has_an_end() -> None:
    assert render("{{ range(3) | list }}", {}) == [0, 1, 2]
    with pytest.raises(TemplateProblem):
        render("{{ range(10000000) | length }}", {})


def test_first_takes_the_first_that_is_defined() -> None:
    context = {"steps": {"a": {"outputs": {}}, "b": {"outputs": {"x": [1]}}, "c": {"outputs": {"x": 2}}}}
    text = "{{ first(steps.a.outputs.x, steps.b.outputs.x, steps.c.outputs.x) }}"
    assert render(text, context) == [1]
    assert first(None, 1) is None
    with pytest.raises(TemplateProblem, match="none of the values is defined"):
        render("{{ first(steps.a.outputs.x, steps.a.outputs.y) }}", context)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (True, True),
        (False, False),
        ("field.subbands", True),
        ("not field.subbands", False),
        ("{{ not field.subbands }}", False),
        ("field.none", False),
        ("field.name == 'P1' and field.subbands | length > 1", True),
        ("field.colour is defined", False),
    ],
)
def test_conditions(text: str | bool, holds: bool) -> None:
    assert condition(text, {"field": FIELD}) is holds


def test_a_condition_on_what_is_undefined_is_an_error() -> None:
    with pytest.raises(TemplateProblem, match="colour"):
        condition("field.colour", {"field": FIELD})


def test_what_a_template_refers_to() -> None:
    value = {
        "a": ["{{ steps.one.outputs.x }}", "no"],
        "b": "{{ use['type'] }}{% for x in field.list %}{{ x }}{% endfor %}",
    }
    found = set(names(value))
    assert found == {("steps",), ("steps", "one"), ("use",), ("use", "type"), ("field",), ("field", "list")}
    assert set(condition_names("run.failed and params.x")) == {
        ("run",),
        ("run", "failed"),
        ("params",),
        ("params", "x"),
    }
    assert set(condition_names("{{ run.failed }}")) == {("run",), ("run", "failed")}
    assert list(condition_names(True)) == list(names(3)) == []


def test_what_is_a_template() -> None:
    assert is_template({"a": [("x", "{{ y }}")]})
    assert is_template("{% if a %}{% endif %}")
    assert is_template("{# a #}")
    assert not is_template({"{{ key }}": ["x", 1, None, {"y": "{ z }"}]})
