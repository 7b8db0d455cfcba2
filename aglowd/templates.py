"""Templates in pipeline files: Jinja2, sandboxed, with types that survive and undefined names that are errors.

A text that is one expression, `"{{ field.subbands }}"`, gives the value itself: a list stays a list. Any other text
gives text. Nothing here knows of steps; `names()` tells the caller what a template refers to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aglowd.errors import AglowError


class TemplateProblem(AglowError):
    """A template cannot be parsed, or refers to something that is not there."""


def first(*values: Any) -> Any:
    """The first value that is defined: solutions of this run, or those that existed already."""
    for value in values:
        if not isinstance(value, Undefined):
            return value
    raise TemplateProblem("first(): none of the values is defined")


MAX_TEMPLATE_CHARS = 1 << 20
MAX_PRODUCT = 10_000_000
"""Of a text or list: a longer one is nothing that a pipeline could mean, and would only take time and memory."""
MAX_POWER_DIGITS = 4096
"""Of a power, in binary."""


class _Environment(ImmutableSandboxedEnvironment):
    """`a.b` of a table is its key b and nothing else, so that a key may be called `keys` or `items`."""

    intercepted_binops = frozenset(("*", "**"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and _digits(left) * abs(right) > MAX_POWER_DIGITS:
            raise TemplateProblem(f"{left!r:.40} ** {right!r:.40}: a number of more than {MAX_POWER_DIGITS} digits")
        for many, times in ((left, right), (right, left)):
            if isinstance(many, str | list | tuple) and isinstance(times, int) and len(many) * times > MAX_PRODUCT:
                raise TemplateProblem(f"{operator}: a text or list of more than {MAX_PRODUCT} items")
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Mapping):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping):
            return obj[argument] if argument in obj else self.undefined(obj=obj, name=argument)
        return super().getitem(obj, argument)


def _digits(value: Any) -> int:
    """Of a whole number, as many as it has; of anything else none: it cannot grow for ever."""
    return value.bit_length() if isinstance(value, int) else 0


_ENVIRONMENT = _Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
_ENVIRONMENT.globals = {"first": first, "dict": dict, "range": _ENVIRONMENT.globals["range"]}

GLOBALS = frozenset(_ENVIRONMENT.globals)


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Callable[[Mapping[str, Any]], Any]:
    if len(text) > MAX_TEMPLATE_CHARS:
        raise TemplateProblem(f"a template of {len(text)} characters; at most {MAX_TEMPLATE_CHARS}")
    try:
        tree = _ENVIRONMENT.parse(text)
        body = tree.body
        stripped = text.strip()
        if (
            len(body) == 1
            and isinstance(body[0], nodes.Output)
            and len(body[0].nodes) == 1
            and not isinstance(body[0].nodes[0], nodes.TemplateData)
            and stripped.startswith("{{")
            and stripped.endswith("}}")
        ):
            expression = _ENVIRONMENT.compile_expression(stripped[2:-2].strip("-+"), undefined_to_none=False)
            return lambda context: expression(**context)
        template = _ENVIRONMENT.from_string(text)
        # As `template.render` does, but for a chain of tables in which it looks each name up: that takes longer than the rest.
        return lambda context: "".join(
            template.root_render_func(template.new_context({**_ENVIRONMENT.globals, **context}, shared=True))
        )
    except TemplateSyntaxError as error:
        raise TemplateProblem(f"{error.message} (line {error.lineno} of the template)") from error
    except (TemplateError, RecursionError, MemoryError, ValueError, SyntaxError, ArithmeticError) as error:
        # Nested too deep for Jinja or for Python, or a number of too many digits.
        raise TemplateProblem(f"{text.strip()[:200]!r} cannot be understood: {error}") from error


def is_template(value: Any) -> bool:
    """Whether rendering the value could change it."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value or "{#" in value
    if isinstance(value, Mapping):
        return any(map(is_template, value.values()))
    return isinstance(value, list | tuple) and any(map(is_template, value))


def render(value: Any, context: Mapping[str, Any]) -> Any:
    """The value with every template in it filled in; TemplateProblem names what is undefined."""
    if isinstance(value, str):
        if not is_template(value):
            return value
        try:
            result = _compiled(value)(context)
            if isinstance(result, Undefined):
                result = str(result)  # A strict undefined says here, by an error, what it misses.
        except TemplateProblem:
            raise
        except (
            TemplateError,
            ArithmeticError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            raise TemplateProblem(f"{value.strip()[:200]!r}: {error}") from error
        return list(result) if isinstance(result, Iterator) else result
    if isinstance(value, Mapping):
        return {key: render(inner, context) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [render(inner, context) for inner in value]
    return value


def condition(text: str | bool, context: Mapping[str, Any]) -> bool:
    """Whether the expression holds; it may be written with or without braces."""
    if isinstance(text, bool):
        return text
    return bool(render(text if is_template(text) else "{{ " + text + " }}", context))


def names(value: Any) -> Iterator[tuple[str, ...]]:
    """What the templates in the value refer to: `("field",)`, `("steps", "locate")`, `("use", "token_type")`…"""
    if isinstance(value, str) and is_template(value):
        _compiled(value)
        tree = _ENVIRONMENT.parse(value)
        for root in meta.find_undeclared_variables(tree):
            yield (root,)
        for dotted in tree.find_all(nodes.Getattr):
            if isinstance(dotted.node, nodes.Name):
                yield (dotted.node.name, dotted.attr)
        for item in tree.find_all(nodes.Getitem):
            if isinstance(item.node, nodes.Name) and isinstance(item.arg, nodes.Const):
                yield (item.node.name, str(item.arg.value))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from names(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from names(inner)


def condition_names(text: str | bool) -> Iterator[tuple[str, ...]]:
    """As `names`, of a `when` expression."""
    if isinstance(text, str):
        yield from names(text if is_template(text) else "{{ " + text + " }}")
