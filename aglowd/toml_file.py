"""TOML files that people write: where each key stands, several files as one, and what is wrong with them.

What must stay true: a problem names the file and the line in which the value stands, also where several files are one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from aglowd.errors import AglowError

MAX_FILE_BYTES = 1 << 20
"""Of a configuration or pipeline file, and of each file that one takes in."""
MAX_LINE_CHARS = 16_384
"""Of a configuration or pipeline file: a key with as many dots as it holds would take TOML's own parser minutes."""


class Problem(Struct, frozen=True, order=True):
    """Something wrong in a file that a person wrote: where, what, and what was expected."""

    file: str
    line: int
    what: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"\n    hint: {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}: {self.what}{hint}"


class ConfigError(AglowError):
    """A file cannot be used; carries every problem that it has."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(map(str, self.problems)))


class TomlFile:
    """A TOML file that remembers on which line each of its keys stands."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        for number, content in enumerate(text.split("\n"), 1):
            if len(content) > MAX_LINE_CHARS:
                raise ConfigError([Problem(path, number, f"the line is longer than {MAX_LINE_CHARS} characters")])
        self.lines = dict(_key_lines(text))
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
        except RecursionError as error:
            raise ConfigError([Problem(path, 1, "this is not TOML that can be read: it is nested too deep")]) from error
        except ValueError as error:  # Its own TOMLDecodeError, or that of a number of too many digits.
            found = re.search(r"\(at line (\d+)", str(error))
            line = int(found[1]) if found else text.count("\n") + 1
            raise ConfigError([Problem(path, line, f"this is not TOML: {error}")]) from error

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """The file's content; ConfigError if it cannot be read."""
        try:
            return cls(str(path), read_text(path))
        except (OSError, ValueError) as error:
            raise ConfigError([Problem(str(path), 1, f"cannot be read: {error}")]) from error

    def line(self, *keys: str) -> int:
        """The line of that key, of the first thing in it, or of the nearest table around it."""
        for length in range(len(keys), 0, -1):
            if keys[:length] in self.lines:
                return self.lines[keys[:length]]
            inside = [line for key, line in self.lines.items() if key[:length] == keys[:length]]
            if inside:
                return min(inside)
        return 1

    def problem(self, keys: tuple[str, ...], what: str, hint: str = "") -> Problem:
        """A problem at that key."""
        return Problem(self.path, self.line(*keys), what, hint)


def read_text(path: Path) -> str:
    """The text of a file that a person wrote; OSError, or ValueError if it is none or longer than it may be."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"it is longer than {MAX_FILE_BYTES} bytes")
    return data.decode("utf-8").replace("\r\n", "\n")


_TABLE = re.compile(r"^\s*\[+([^\[\]#]+)\]")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def _key_lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Where each table and key stands, near enough for a message: the parser of the standard library does not tell."""
    table: tuple[str, ...] = ()
    quote = ""
    for number, line in enumerate(text.splitlines(), 1):
        if quote:
            quote = "" if quote in line else quote
            continue
        if found := _TABLE.match(line):
            table = tuple(part.strip().strip("\"'") for part in found[1].split("."))
            yield table, number
        elif found := _KEY.match(line):
            yield (*table, *(part.strip().strip("\"'") for part in found[1].split("."))), number
            quote = next((mark for mark in ('"""', "'''") if line.count(mark) == 1), "")


# --- several files as one

MAX_DROP_INS = 100
"""Files in the directory beside a configuration file."""
_PASSED_OVER = re.compile(r"\..*|.*(~|\.(bak|orig|rej|swp|tmp|rpmsave|rpmnew|rpmorig)|\.(dpkg|ucf)-[a-z]+)")
"""What editors and package managers leave beside a file: none of it was meant to be read."""


class TomlFiles:
    """Files as one: a later one wins key by key, tables are merged, everything else, lists too, is replaced."""

    def __init__(self, files: Sequence[TomlFile]) -> None:
        self.files = tuple(files)
        self.data: dict[str, Any] = {}
        for file in self.files:
            try:
                self.data = _merged(self.data, file.data)
            except RecursionError as error:
                raise ConfigError([Problem(file.path, 1, "it is nested too deep")]) from error

    @classmethod
    def read(cls, path: Path) -> TomlFiles:
        """That file and, by name, those of its directory of drop-ins; ConfigError with the problems of all of them."""
        files: list[TomlFile] = []
        named, problems = _drop_ins(path.with_suffix(".d"))
        for one in (path, *named):
            try:
                files.append(TomlFile.read(one))
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        return cls(files)

    def problem(self, keys: tuple[str, ...], what: str, hint: str = "") -> Problem:
        """A problem at that key, in the file whose value counts."""
        return self._file(keys).problem(keys, what, hint)

    def origin(self, keys: tuple[str, ...]) -> str:
        """`FILE:LINE` of the value that counts; "" if no file has the key."""
        file = self._file(keys)
        return f"{file.path}:{file.line(*keys)}" if _has(file.data, keys) else ""

    def _file(self, keys: tuple[str, ...]) -> TomlFile:
        """The last file that has the key; of a key that none has, the first with the nearest table around it."""
        for length in range(len(keys), 0, -1):
            if found := [file for file in self.files if _has(file.data, keys[:length])]:
                return found[-1] if length == len(keys) else found[0]
        return self.files[0]


def _drop_ins(directory: Path) -> tuple[list[Path], list[Problem]]:
    """The files of that directory in the order in which they count, and what lies there that cannot be read as one."""
    try:
        there = sorted(one for one in directory.iterdir() if not _PASSED_OVER.fullmatch(one.name))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [Problem(str(directory), 1, f"cannot be read: {error.strerror}")]
    if len(there) > MAX_DROP_INS:
        return [], [Problem(str(directory), 1, f"there are {len(there)} files in it; expected {MAX_DROP_INS} at most")]
    hint = "rename it to NAME.toml, or move it away"
    wrong = [one for one in there if one.suffix != ".toml" or one.is_dir()]
    problems = [
        Problem(str(one), 1, "a directory is no drop-in" if one.is_dir() else f"{one.name!r} is no .toml file", hint)
        for one in wrong
    ]
    return [one for one in there if one not in wrong], problems


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        before = found.get(key)
        found[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return found


def _has(data: Any, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True
