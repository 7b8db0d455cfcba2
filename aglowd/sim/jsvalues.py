"""JavaScript's values and operators as far as view functions use them: truth, equality, order, conversion.

JSON values are Python's own; `undefined` is a value of its own. The rules are ECMAScript's, its oddities included,
because the views of the survey rely on some of them ("" == 0).
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from typing import Any


class MapError(Exception):
    """The function threw while it ran."""


class Undefined:
    """JavaScript's undefined: there is one."""

    def __repr__(self) -> str:
        return "undefined"


UNDEFINED = Undefined()
_SCALARS = frozenset({str, int, float, bool})
"""Two of the same of these are equal, however one asks, when Python says so."""


def is_truthy(value: Any) -> bool:
    if value is True or value is False:
        return value is True
    if isinstance(value, list | dict):
        return True
    if value is UNDEFINED or (isinstance(value, float) and math.isnan(value)):
        return False
    return bool(value)


def to_number(value: Any) -> float:
    """The number that JavaScript makes of a value when it compares or computes."""
    if isinstance(value, bool) or value is None:
        return int(value or 0)
    if isinstance(value, int | float):
        return value
    if isinstance(value, list):
        return to_number(to_text(value))
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return 0
        try:
            return int(text, 16) if re.fullmatch(r"0[xX][0-9a-fA-F]+", text) else float(_decimal(text))
        except ValueError:
            return math.nan
    return math.nan


def _decimal(text: str) -> str:
    if re.fullmatch(r"[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|Infinity)", text, re.ASCII):
        return text
    raise ValueError(text)


def to_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value).replace("nan", "NaN")
    if isinstance(value, list):
        return ",".join("" if item is None or item is UNDEFINED else to_text(item) for item in value)
    return "[object Object]" if isinstance(value, dict) else str(value)


def type_of(value: Any) -> str:
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return "string" if isinstance(value, str) else "object"


def strictly_equal(left: Any, right: Any) -> bool:
    if type(left) is type(right) and type(left) in _SCALARS:
        return bool(left == right)
    if isinstance(left, list | dict) or isinstance(right, list | dict):
        return left is right
    return bool(type_of(left) == type_of(right) and left == right)


def loosely_equal(left: Any, right: Any) -> bool:
    """The rules of `==`: null equals undefined and nothing else; otherwise unlike types meet as numbers."""
    if type(left) is type(right) and type(left) in _SCALARS:
        return bool(left == right)
    if left is None or left is UNDEFINED or right is None or right is UNDEFINED:
        return left in (None, UNDEFINED) and right in (None, UNDEFINED)
    if isinstance(left, list | dict) and isinstance(right, list | dict):
        return left is right
    if type_of(left) == type_of(right):
        return bool(left == right)
    if isinstance(left, list | dict) and isinstance(right, str):
        return to_text(left) == right
    if isinstance(right, list | dict) and isinstance(left, str):
        return to_text(right) == left
    return to_number(left) == to_number(right)


def _comparison(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    """Two texts compare as texts, anything else as numbers; arrays and objects are texts here."""

    def compare(left: Any, right: Any) -> bool:
        if type(left) is not int or type(right) is not int:
            left, right = (to_text(value) if isinstance(value, list | dict) else value for value in (left, right))
            if not (isinstance(left, str) and isinstance(right, str)):
                left, right = to_number(left), to_number(right)
        return bool(operation(left, right))

    return compare


def _add(left: Any, right: Any) -> Any:
    if isinstance(left, str | list | dict) or isinstance(right, str | list | dict):
        return to_text(left) + to_text(right)
    return to_number(left) + to_number(right)


def _divide(left: float, right: float) -> float:
    if right:
        result = left / right
        return int(result) if result.is_integer() else result
    return math.nan if not left or math.isnan(left) else math.copysign(math.inf, left)


def _parse_int(value: Any, radix: Any = 10) -> float:
    found = re.match(r"\s*([+-]?\d+)", to_text(value), re.ASCII)
    return int(found[1]) if found else math.nan


def get_property(holder: Any, name: Any) -> Any:
    if holder is None or holder is UNDEFINED:
        raise MapError(f"TypeError: cannot read property {to_text(name)!r} of {to_text(holder)}")
    if isinstance(holder, dict):
        return holder.get(to_text(name), UNDEFINED)
    if isinstance(holder, list | str):
        if name == "length":
            return len(holder)
        at = to_number(name)
        if at == at and 0 <= at < len(holder) and at == int(at):
            return holder[int(at)]
    return UNDEFINED


BINARY: dict[str, tuple[int, Callable[[Any, Any], Any]]] = {
    # Each operator with its level: higher binds closer.
    "==": (3, loosely_equal),
    "!=": (3, lambda a, b: not loosely_equal(a, b)),
    "===": (3, strictly_equal),
    "!==": (3, lambda a, b: not strictly_equal(a, b)),
    "<": (4, _comparison(operator.lt)),
    ">": (4, _comparison(operator.gt)),
    "<=": (4, _comparison(operator.le)),
    ">=": (4, _comparison(operator.ge)),
    "+": (5, _add),
    "-": (5, lambda a, b: to_number(a) - to_number(b)),
    "*": (6, lambda a, b: to_number(a) * to_number(b)),
    "/": (6, lambda a, b: _divide(to_number(a), to_number(b))),
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "parseInt": _parse_int,
    "parseFloat": to_number,
    "Number": to_number,
    "String": to_text,
}
