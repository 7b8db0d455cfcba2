"""An honest interpreter for the JavaScript in which PiCaS views are written, and for no more than that.

Map functions are compiled to Python closures once and then run on every changed document, so that a view costs what
the changed documents cost. What the subset does not know is a `CompileError`, never a guess; what JavaScript would
throw is a `MapError`, and the view then skips that document, as CouchDB does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NoReturn

from aglowd.sim.jsvalues import (
    BINARY,
    FUNCTIONS,
    UNDEFINED,
    MapError,
    get_property,
    is_truthy,
    to_number,
    type_of,
)


class CompileError(Exception):
    """The text is not in the subset; the message is what CouchDB would put into `reason`."""


Scope = dict[str, Any]
Code = Callable[[Scope], Any]
Row = tuple[Any, Any]

_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<number>0[xX][0-9a-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)
    |(?P<name>[A-Za-z_$][\w$]*)
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
    |(?P<sign>===|!==|==|!=|<=|>=|&&|\|\||[-+*/%<>!=?:;,.(){}\[\]])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}
_LITERALS = {"true": True, "false": False, "null": None, "undefined": UNDEFINED, "NaN": math.nan}
_RESERVED = frozenset(
    {"for", "while", "do", "switch", "new", "function", "return", "delete", "void", "in", "instanceof", "throw"}
    | {"try", "catch", "let", "const", "class", "this"}
)
_RETURN = object()


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise CompileError(f"SyntaxError: unexpected character {text[at]!r} at {at}")
        at = match.end()
        if match.lastgroup != "blank":
            found.append((str(match.lastgroup), match.group()))
    return [*found, ("end", "")]


class _Parser:
    """Recursive descent over the tokens; every method returns the closure of what it read."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def function(self) -> tuple[str, Code]:
        """`function (doc) { … }`: the parameter's name and the body."""
        self._expect("function")
        if self._tokens[self._at][0] == "name":
            self._at += 1
        self._expect("(")
        parameter = self._name()
        self._expect(")")
        body = self._block()
        self._take(";")
        if self._tokens[self._at][0] != "end":
            self._unexpected()
        return parameter, body

    def _take(self, *signs: str) -> str | None:
        kind, text = self._tokens[self._at]
        if kind != "string" and text in signs:
            self._at += 1
            return text
        return None

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            self._unexpected()

    def _unexpected(self) -> NoReturn:
        raise CompileError(f"SyntaxError: unexpected {self._tokens[self._at][1] or 'end of text'!r}")

    def _name(self) -> str:
        kind, text = self._tokens[self._at]
        if kind != "name" or text in _RESERVED:
            self._unexpected()
        self._at += 1
        return text

    def _block(self) -> Code:
        self._expect("{")
        statements: list[Code] = []
        while not self._take("}"):
            statements.append(self._statement())
        return _sequence(statements)

    def _statement(self) -> Code:
        if self._tokens[self._at] == ("sign", "{"):
            return self._block()
        if self._take(";"):
            return _sequence([])
        if self._take("if"):
            self._expect("(")
            test = self._expression()
            self._expect(")")
            then = self._statement()
            other = self._statement() if self._take("else") else _sequence([])
            return lambda scope: then(scope) if is_truthy(test(scope)) else other(scope)
        if self._take("return"):
            if not (self._take(";") or self._tokens[self._at] == ("sign", "}")):
                self._expression()
                self._take(";")
            return lambda scope: _RETURN
        if self._take("var", "let", "const"):
            declared = [self._declaration()]
            while self._take(","):
                declared.append(self._declaration())
            self._take(";")
            return _sequence(declared)
        code = self._expression()
        self._take(";")
        return _discard(code)

    def _declaration(self) -> Code:
        name = self._name()
        return _discard(_assign(name, self._expression())) if self._take("=") else _declare(name)

    def _expression(self) -> Code:
        kind, text = self._tokens[self._at]
        if kind == "name" and text not in _LITERALS and self._tokens[self._at + 1] == ("sign", "="):
            name = self._name()
            self._at += 1
            return _assign(name, self._expression())
        test = self._either()
        if not self._take("?"):
            return test
        then = self._expression()
        self._expect(":")
        other = self._expression()
        return lambda scope: then(scope) if is_truthy(test(scope)) else other(scope)

    def _either(self) -> Code:
        code = self._both()
        while self._take("||"):
            code = _or(code, self._both())
        return code

    def _both(self) -> Code:
        code = self._binary(3)
        while self._take("&&"):
            code = _and(code, self._binary(3))
        return code

    def _binary(self, level: int) -> Code:
        if level > 6:
            return self._unary()
        code = self._binary(level + 1)
        while sign := self._take(*(sign for sign, (at, _) in BINARY.items() if at == level)):
            code = _operate(BINARY[sign][1], code, self._binary(level + 1))
        return code

    def _unary(self) -> Code:
        if self._take("!"):
            code = self._unary()
            return lambda scope: not is_truthy(code(scope))
        if self._take("-"):
            code = self._unary()
            return lambda scope: -to_number(code(scope))
        if self._take("typeof"):
            code = self._unary()
            return lambda scope: type_of(code(scope))
        return self._postfix()

    def _postfix(self) -> Code:
        code = self._primary()
        while sign := self._take(".", "[", "("):
            if sign == ".":
                kind, name = self._tokens[self._at]
                if kind != "name":
                    self._unexpected()
                self._at += 1
                code = _member(code, name)
            elif sign == "[":
                index = self._expression()
                self._expect("]")
                code = _operate(get_property, code, index)
            else:
                code = _call(code, self._list(")"))
        return code

    def _list(self, end: str) -> list[Code]:
        items: list[Code] = []
        while not self._take(end):
            items.append(self._expression())
            if not self._take(","):
                self._expect(end)
                break
        return items

    def _primary(self) -> Code:
        kind, text = self._tokens[self._at]
        if kind == "name" and text in _LITERALS:
            self._at += 1
            return _constant(_LITERALS[text])
        if kind == "name":
            return _variable(self._name())
        self._at += 1
        if kind == "number":
            value = int(text, 0) if re.fullmatch(r"0[xX].*|0|[1-9]\d*", text) else float(text)
            return _constant(value)
        if kind == "string":
            return _constant(_unescape(text[1:-1]))
        if text == "(":
            code = self._expression()
            self._expect(")")
            return code
        if text == "[":
            items = self._list("]")
            return lambda scope: [item(scope) for item in items]
        if text == "{":
            return self._object()
        self._at -= 1
        return self._unexpected()

    def _object(self) -> Code:
        pairs: list[tuple[str, Code]] = []
        while not self._take("}"):
            kind, text = self._tokens[self._at]
            if kind not in ("name", "string", "number"):
                self._unexpected()
            self._at += 1
            self._expect(":")
            pairs.append((_unescape(text[1:-1]) if kind == "string" else text, self._expression()))
            if not self._take(","):
                self._expect("}")
                break
        return lambda scope: {name: code(scope) for name, code in pairs}


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        mark = match[1]
        return chr(int(mark[1:], 16)) if len(mark) > 1 else _ESCAPES.get(mark, mark)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", one, text, flags=re.DOTALL)


def _constant(value: Any) -> Code:
    return lambda scope: value


def _variable(name: str) -> Code:
    def read(scope: Scope) -> Any:
        if name not in scope:
            raise MapError(f"ReferenceError: {name} is not defined")
        return scope[name]

    return read


def _assign(name: str, code: Code) -> Code:
    def write(scope: Scope) -> Any:
        scope[name] = value = code(scope)
        return value

    return write


def _declare(name: str) -> Code:
    def run(scope: Scope) -> None:
        scope.setdefault(name, UNDEFINED)

    return run


def _discard(code: Code) -> Code:
    def run(scope: Scope) -> None:
        code(scope)

    return run


def _sequence(statements: list[Code]) -> Code:
    if len(statements) == 1:
        return statements[0]

    def run(scope: Scope) -> Any:
        for statement in statements:
            if statement(scope) is _RETURN:
                return _RETURN
        return None

    return run


def _or(left: Code, right: Code) -> Code:
    def run(scope: Scope) -> Any:
        value = left(scope)
        return value if is_truthy(value) else right(scope)

    return run


def _and(left: Code, right: Code) -> Code:
    def run(scope: Scope) -> Any:
        value = left(scope)
        return right(scope) if is_truthy(value) else value

    return run


def _member(code: Code, name: str) -> Code:
    def read(scope: Scope) -> Any:
        holder = code(scope)
        # Nearly always a document's own field, which needs none of the other rules.
        return holder.get(name, UNDEFINED) if type(holder) is dict else get_property(holder, name)

    return read


def _operate(operation: Callable[[Any, Any], Any], left: Code, right: Code) -> Code:
    return lambda scope: operation(left(scope), right(scope))


def _call(code: Code, arguments: list[Code]) -> Code:
    def run(scope: Scope) -> Any:
        function = code(scope)
        if not callable(function):
            raise MapError("TypeError: not a function")
        try:
            return function(*(argument(scope) for argument in arguments))
        except TypeError as error:
            raise MapError(f"TypeError: {error}") from error

    return run


def _plain(value: Any) -> Any:
    """A value as JSON keeps it: undefined and NaN become null."""
    if value is UNDEFINED or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if item is not UNDEFINED}
    return value


@lru_cache(maxsize=4096)
def compile_map(text: str) -> Callable[[dict[str, Any]], list[Row]]:
    """The map function as a Python function from a document to the rows it emits; raises CompileError."""
    parameter, body = _Parser(text).function()

    def run(doc: dict[str, Any]) -> list[Row]:
        rows: list[Row] = []

        def emit(key: Any = UNDEFINED, value: Any = UNDEFINED) -> None:
            rows.append((_plain(key), _plain(value)))

        body({**FUNCTIONS, "emit": emit, parameter: doc})
        return rows

    return run
