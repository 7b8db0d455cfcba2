"""Commands that are imported when they are asked for: importing all of them takes longer than the daemon to answer.

What must stay true: to whoever goes through them they are what a click group holds else, and their names are known without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module

import click

from aglowd.cli import shared


class Commands(MutableMapping[str, click.Command]):
    """The commands of a group by their names. `places`: name → `module:attribute`."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)
        self._found: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._found:
            module, _, attribute = self._places[name].partition(":")
            command: click.Command = getattr(import_module(module), attribute)
            shared.set_examples_apart(command)
            self._found[name] = command
        return self._found[name]

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places[name] = ""
        self._found[name] = command

    def __delitem__(self, name: str) -> None:
        del self._places[name]
        self._found.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
