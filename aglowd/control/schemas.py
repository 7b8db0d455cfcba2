"""The JSON Schemas of all answers. The daemon serves them, so whoever reads its answers can hold them to what they are now.

What must stay true: a schema is made of the type of the answer and of nothing else; what it says of `schema` and `now`,
which the desk puts into every answer, stands here beside it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from aglowd.control.answers.daemon import Described
from aglowd.control.answers.past import Event
from aglowd.control.answers.printed import Line, Watched

SCHEMA = 1
"""Of every answer. It grows when a key changes its meaning or goes; a new key is no new schema."""
DRAFT = "https://json-schema.org/draft/2020-12/schema"
LINES: tuple[type[Struct], ...] = (Event, Line, Watched)
"""What is told line by line."""
HEAD: dict[str, Any] = {
    "schema": {"description": "It grows when a key changes its meaning or goes.", "const": SCHEMA},
    "now": {"description": "When it was answered, in world seconds since 1970, UTC.", "type": "number"},
}
"""What the desk puts before every answer."""


class JsonSchema(Struct, frozen=True):
    """A JSON Schema, of draft 2020-12."""


class Shape(Struct, frozen=True):
    """A kind of answer, the routes that give it, and the commands that print it."""

    kind: Any  # A type: msgspec cannot hold one.
    routes: tuple[str, ...]
    commands: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is asked for."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", self.kind.__name__).lower()


class Schemas:
    """The schemas of these kinds of answer; each is made when it is asked for the first time."""

    def __init__(self, shapes: Iterable[Shape]) -> None:
        self._shapes = {shape.name: shape for shape in shapes}
        self._made: dict[str, bytes] = {}

    def listed(self) -> list[Described]:
        """Their names, and where each is found."""
        return [Described(name, one.routes, one.commands, one.kind in LINES) for name, one in self._shapes.items()]

    def get(self, name: str) -> bytes | None:
        """The schema of that name, as JSON, or None."""
        if name not in self._made and name in self._shapes:
            self._made[name] = msgspec.json.encode(_made(self._shapes[name]))
        return self._made.get(name)


def _made(shape: Shape) -> dict[str, Any]:
    if shape.kind is JsonSchema:
        return {"$schema": DRAFT, "title": shape.name, "$ref": DRAFT}
    _, parts = msgspec.json.schema_components([shape.kind], ref_template="#/$defs/{name}")
    for part in parts.values():
        part["description"] = inspect.cleandoc(part.get("description", ""))
    made = {"$schema": DRAFT, **parts.pop(shape.kind.__name__), "title": shape.name}
    if shape.kind not in LINES and "schema" not in made["properties"]:
        made["properties"] = {**HEAD, **made["properties"]}
        made["required"] = [*HEAD, *made.get("required", ())]
    return {**made, "$defs": parts} if parts else made
