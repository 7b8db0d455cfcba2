"""How the material of a record is read: effects by kind, moments, and the files that a token's lists name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from aglowd.clock import iso
from aglowd.store.material import DoneEffect, Material

T = TypeVar("T")


def effects_of(material: Material, kind: str) -> Iterator[tuple[DoneEffect, dict[str, Any], dict[str, Any]]]:
    """The effects of that kind with their inputs and results, in the order in which they were done."""
    for done in material.effects:
        if done.record.kind == kind:
            result = done.record.result
            yield done, done.record.inputs, result if isinstance(result, dict) else {}


def listed(outputs: Mapping[str, Any], name: str, kind: type[T]) -> tuple[T, ...]:
    """What is of that kind in a list, or a table's keys, of a step's outputs, none if there is no such: they may be a person's word."""
    value = outputs.get(name)
    return tuple(one for one in value if isinstance(one, kind)) if isinstance(value, list | dict) else ()


def moment(at: float | None) -> str | None:
    """The moment as text; a clock of a worker node that says nothing, or nonsense, says nothing."""
    try:
        return iso(at) if at else None
    except (OverflowError, OSError, ValueError):
        return None


def surls_in(files: Mapping[str, str]) -> Iterator[str]:
    """The files of the archive in a token's own list."""
    for text in files.values():
        yield from (word for word in text.split() if word.startswith("srm://"))
