"""References to secrets in the parameters of pipelines: `secret:NAME`, where NAME is a key of `[secrets]`.

What must stay true: what is stored, shown and handed on is the reference. The secret takes its place in one moment only,
inside the effect or the look that needs it, and only in parameters that carry it to nobody else: an argument of a program
is seen by every user of its host, a token by every pilot, the name of a file by everybody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

_REFERENCE = re.compile(r"(?<![\w-])(?<!://)secret:([A-Za-z][A-Za-z0-9_-]{0,63})(?![\w-])")


def list_references(value: Any) -> tuple[str, ...]:
    """The names of the secrets to which the value refers, however nested, each once and sorted."""
    return tuple(sorted(set(_references(value))))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _REFERENCE.findall(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _references(key)
            yield from _references(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _references(inner)


def fill(value: Any, get: Callable[[str], str]) -> Any:
    """The value with each secret in the place of its reference; the names of keys stay as they are."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: get(found[1]), value)
    if isinstance(value, Mapping):
        return {key: fill(inner, get) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill(inner, get) for inner in value]
    return value


def misplaced(params: Mapping[str, Any], allowed: Collection[str]) -> str:
    """What is wrong with where the parameters refer to secrets; empty if nothing is. `allowed`: where they may."""
    for key, value in params.items():
        keys = isinstance(value, Mapping) and list_references(list(value))
        names = keys or (() if key in allowed else list_references(value))
        if names:
            where = f"expected only in {', '.join(sorted(allowed))}" if allowed else "steps of this kind take none"
            return f"secret:{names[0]} stands in {key}{' as a key' if keys else ''}, where others would see it; {where}"
    return ""
