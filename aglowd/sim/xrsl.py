"""xRSL, the language of ARC's job descriptions, as far as descriptions of pilots need it.

One description is `&` with relations, `(name = value…)`; several are `+` with each of them in brackets. A value is a text
or a list in brackets; a quote inside a text is doubled.
"""

from __future__ import annotations

import re

Value = str | list["Value"]
Relations = dict[str, list[Value]]

_TOKEN = re.compile(r"""\s+|(?P<text>"(?:[^"]|"")*"|'(?:[^']|'')*')|(?P<word>[^\s()"'&+=<>!|]+)|(?P<sign>[()&+=])""")
DEPTH_MAX = 20


class XrslError(Exception):
    """The text is no job description."""


def parse_xrsl(text: str) -> list[Relations]:
    """The descriptions in the text: of each, name in lower case → its values."""
    parser = _Parser(text)
    if parser.take("+"):
        found = []
        while not parser.at_end():
            parser.expect("(")
            found.append(parser.description())
            parser.expect(")")
    else:
        found = [parser.description()]
    if not found or not parser.at_end():
        raise XrslError("no job description parser was able to interpret it")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise XrslError(f"unexpected {text[at]!r}")
            if match.lastgroup == "text":
                quote = match[0][0]
                self._tokens.append(("text", match[0][1:-1].replace(quote * 2, quote)))
            elif match.lastgroup is not None:
                self._tokens.append((match.lastgroup, match[0]))
            at = match.end()
        self._at = 0

    def at_end(self) -> bool:
        return self._at >= len(self._tokens)

    def take(self, sign: str) -> bool:
        if not self.at_end() and self._tokens[self._at] == ("sign", sign):
            self._at += 1
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.take(sign):
            raise XrslError(f"expected {sign}")

    def description(self) -> Relations:
        self.expect("&")
        found: Relations = {}
        while self.take("("):
            if self.at_end() or self._tokens[self._at][0] != "word":
                raise XrslError("expected the name of a relation")
            name = self._tokens[self._at][1].lower()
            self._at += 1
            self.expect("=")
            found[name] = self._values(0)
        if not found:
            raise XrslError("there is no relation")
        return found

    def _values(self, depth: int) -> list[Value]:
        """Values up to the closing bracket, which is taken."""
        if depth > DEPTH_MAX:
            raise XrslError("nested too deep")
        found: list[Value] = []
        while not self.take(")"):
            if self.take("("):
                found.append(self._values(depth + 1))
            elif not self.at_end() and self._tokens[self._at][0] != "sign":
                found.append(self._tokens[self._at][1])
                self._at += 1
            else:
                raise XrslError("expected a value")
        return found
