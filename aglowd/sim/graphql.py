"""As much of GraphQL as StageIT's clients speak: one query of nested fields with arguments, and nothing but what it selects.

No fragments, variables or directives: a query that has them is a syntax error here, as any other text is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_DEPTH = 12
_TOKEN = re.compile(r'[\s,]*(?:#[^\n]*[\s,]*)*("(?:[^"\\\n]|\\.)*"|-?\d+|[A-Za-z_]\w*|[{}():])')
_END = re.compile(r"[\s,]*(?:#[^\n]*[\s,]*)*")
_WORDS = {"true": True, "false": False, "null": None}


class GraphQLError(Exception):
    """The query cannot be answered; its text is the answer."""


@dataclass(frozen=True)
class Field:
    """A field that is asked for, under the name that the answer gives it; no selection = a plain value."""

    name: str
    alias: str
    arguments: dict[str, Any]
    selection: tuple[Field, ...]


def parse(text: str) -> tuple[Field, ...]:
    """The fields that the query asks for at its root; GraphQLError when it is none."""
    return _Parser(text).document()


def select(value: Any, wanted: Field) -> Any:
    """Of the value what the field's selection names; a function in it is called only when it is asked for."""
    if isinstance(value, list):
        return [select(one, wanted) for one in value]
    if not isinstance(value, Mapping):
        if wanted.selection and value is not None:
            raise GraphQLError(f"Field '{wanted.name}' must not have a selection since it has no subfields.")
        return value
    if not wanted.selection:
        raise GraphQLError(f"Field '{wanted.name}' must have a selection of subfields.")
    return {one.alias: select(_of(value, one), one) for one in wanted.selection}


def _of(value: Mapping[str, Any], wanted: Field) -> Any:
    if wanted.name not in value:
        raise GraphQLError(f"Cannot query field '{wanted.name}'.")
    if wanted.arguments:
        raise GraphQLError(f"Unknown argument '{next(iter(wanted.arguments))}' on field '{wanted.name}'.")
    found = value[wanted.name]
    return found() if callable(found) else found


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[str] = []
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                if _END.fullmatch(text, at):
                    break
                raise GraphQLError(f"Syntax Error: Unexpected character: {text[at : at + 1]!r}.")
            self._tokens.append(found[1])
            at = found.end()
        self._at = 0

    def document(self) -> tuple[Field, ...]:
        if self._is("query"):
            self._take()
            if not self._is("{"):
                self._name()
        fields = self._selection(1)
        if self._at < len(self._tokens):
            raise GraphQLError(f"Syntax Error: Unexpected {self._tokens[self._at]!r}.")
        return fields

    def _selection(self, depth: int) -> tuple[Field, ...]:
        if depth > MAX_DEPTH:
            raise GraphQLError("Syntax Error: Document is nested too deep.")
        self._take("{")
        fields = []
        while not self._is("}"):
            fields.append(self._field(depth))
        self._take("}")
        return tuple(fields)

    def _field(self, depth: int) -> Field:
        name = alias = self._name()
        if self._is(":"):
            self._take()
            name = self._name()
        arguments: dict[str, Any] = {}
        if self._is("("):
            self._take()
            while not self._is(")"):
                key = self._name()
                self._take(":")
                arguments[key] = self._value()
            self._take(")")
        return Field(name, alias, arguments, self._selection(depth + 1) if self._is("{") else ())

    def _value(self) -> Any:
        token = self._take()
        if token.startswith('"') or token.lstrip("-").isdigit():
            try:
                return msgspec.json.decode(token)
            except msgspec.DecodeError:
                raise GraphQLError(f"Syntax Error: Invalid value {token}.") from None
        return _WORDS.get(token, token)

    def _name(self) -> str:
        token = self._take()
        if not (token[0].isalpha() or token[0] == "_"):
            raise GraphQLError(f"Syntax Error: Expected Name, found {token!r}.")
        return token

    def _is(self, token: str) -> bool:
        return self._at < len(self._tokens) and self._tokens[self._at] == token

    def _take(self, expected: str | None = None) -> str:
        found = self._tokens[self._at] if self._at < len(self._tokens) else None
        if found is None or (expected is not None and found != expected):
            raise GraphQLError(f"Syntax Error: Expected {expected or 'more'}, found {found or 'the end'}.")
        self._at += 1
        return found
