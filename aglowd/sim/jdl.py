"""Job descriptions: the part of the ClassAd language that JDLs for parametric jobs use.

Values are texts, numbers, truths, lists and records; anything else (`Requirements`, `Rank`) is kept as its own text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<number>-?\d+(?:\.\d+)?(?![\w.]))
    |(?P<name>[A-Za-z_][\w.]*)
    |(?P<sign>[^\s\w])""",
    re.VERBOSE | re.DOTALL,
)
Attributes = dict[str, Any]


class JdlError(Exception):
    """The text is not a job description; the message says where it ends to be one."""


@dataclass(frozen=True)
class Expression:
    """A value that is not evaluated here: its text."""

    text: str


def parse_jdl(text: str) -> Attributes:
    """The attributes of a JDL, names in lower case; the outer brackets may be missing."""
    parser = _Parser(text)
    record = parser.record("]" if parser.take("[") else "")
    parser.take(";")
    if not parser.at_end():
        raise JdlError(f"unexpected {parser.peek()!r} after the description")
    return record


def list_parameters(attributes: Attributes) -> tuple[str, ...] | None:
    """The values of `_PARAM_`, one a node; None when the job is not parametric."""
    kind = str(attributes.get("jobtype", attributes.get("type", "Normal"))).lower()
    given = attributes.get("parameters")
    if "parametric" not in kind or given is None:
        return None
    if isinstance(given, list):
        return tuple(map(str, given))
    start, step = int(attributes.get("parameterstart", 0)), int(attributes.get("parameterstep", 1))
    return tuple(map(str, range(start, int(given), step)))


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = [(str(m.lastgroup), m.group()) for m in _TOKEN.finditer(text) if m.lastgroup != "blank"]
        self._at = 0

    def at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def peek(self) -> str:
        return "" if self.at_end() else self._tokens[self._at][1]

    def take(self, sign: str) -> bool:
        if not self.at_end() and self._tokens[self._at] == ("sign", sign):
            self._at += 1
            return True
        return False

    def record(self, end: str) -> Attributes:
        found: Attributes = {}
        while not (self.take(end) if end else self.at_end()):
            if self.take(";"):
                continue
            if self.at_end() or self._tokens[self._at][0] != "name":
                raise JdlError(f"expected an attribute, found {self.peek()!r}")
            name = self._tokens[self._at][1].lower()
            self._at += 1
            if not self.take("="):
                raise JdlError(f"expected '=' after {name}, found {self.peek()!r}")
            found[name] = self._value()
        return found

    def _value(self) -> Any:
        begin = self._at
        if self.at_end():
            raise JdlError("the description ends where a value is expected")
        kind, text = self._tokens[self._at]
        self._at += 1
        value: Any = Expression(text)
        if kind == "string":
            value = re.sub(r"\\(.)", r"\1", text[1:-1])
        elif kind == "number":
            value = float(text) if "." in text else int(text)
        elif kind == "name" and text.lower() in ("true", "false"):
            value = text.lower() == "true"
        elif text == "{":
            value = self._list()
        elif text == "[":
            value = self.record("]")
        if self._ends():
            return value
        depth = 0
        while depth > 0 or not self._ends():
            if self.at_end():
                raise JdlError("an expression has no end")
            depth += {"(": 1, ")": -1}.get(self.peek(), 0)
            self._at += 1
        return Expression(" ".join(text for _, text in self._tokens[begin : self._at]))

    def _ends(self) -> bool:
        return self.at_end() or self._tokens[self._at] in (("sign", ";"), ("sign", "}"), ("sign", "]"), ("sign", ","))

    def _list(self) -> list[Any]:
        items: list[Any] = []
        while not self.take("}"):
            if self.at_end():
                raise JdlError("a list has no end")
            items.append(self._value())
            self.take(",")
        return items
