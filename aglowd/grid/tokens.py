"""Token documents from GRID_LRT's JSON configuration, as GRID_LRT itself would build them.

The fields are GRID_LRT's (`TokenDictBuilder`), so that its launchers and people's scripts can read and lock our tokens;
the checks are ours, because it has none: it changes its input, and an `_id` in the configuration overwrites ours.
Importing it takes more than a second and warns, so it happens in `load`, once, off the event loop.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from aglowd.errors import Permanent
from aglowd.grid.picas_views import API_VERSION, check_token_type

OLDEST_API_VERSION = 0.5
RESERVED = frozenset({"_id", "_rev", "_attachments", "_deleted", "type", "lock", "done", "PICAS_API_VERSION", "aglowd"})
"""Fields that make a document a token, or ours; no configuration sets them."""

_IGNORED = frozenset({"_id"})
"""GRID_LRT's own example configurations carry an `_id`, a prefix that it then overwrites the token's id with."""


@cache
def load() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Import GRID_LRT's builder: configuration → fields. Slow the first time: call it in a thread, or at the start."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cloudant tells everybody that it is deprecated.
        from GRID_LRT.token import TokenDictBuilder

    def build(config: dict[str, Any]) -> dict[str, Any]:
        fields: dict[str, Any] = TokenDictBuilder(config).data
        return fields

    return build


def build_token(config: Mapping[str, Any], token_id: str, token_type: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """A token in state todo: the configuration's fields, then `keys` (OBSID, STARTSB …) over them.

    Neither `config` nor `keys` is changed or shared. Raises Permanent naming what is wrong with them.
    """
    check_token_type(token_type)
    if not token_id or token_id.startswith("_"):
        raise Permanent(f"token id {token_id[:100]!r}: expected a text that does not begin with _")
    _check(config)
    try:
        built = load()(copy.deepcopy(dict(config)))
    except Exception as error:  # GRID_LRT checks nothing: whatever it stumbles over is wrong with the configuration.
        raise Permanent(f"token configuration: GRID_LRT cannot use it ({type(error).__name__}: {error})") from error
    fields = {name: value for name, value in built.items() if name not in _IGNORED}
    wrong = sorted(name for name in (*fields, *keys) if name in RESERVED or name.startswith("_"))
    if wrong:
        raise Permanent(f"token configuration: found the fields {', '.join(wrong)}; these are set by aglowd alone")
    base = {"_id": token_id, "type": token_type, "PICAS_API_VERSION": API_VERSION, "lock": 0, "done": 0}
    return base | fields | copy.deepcopy(dict(keys))


def _check(config: Mapping[str, Any]) -> None:
    """Refuse what GRID_LRT's builder would stumble over, or take without a word."""
    version = config.get("PicasApiVersion", OLDEST_API_VERSION)
    if isinstance(version, bool) or not isinstance(version, int | float) or version < OLDEST_API_VERSION:
        raise Permanent(
            f"token configuration: found PicasApiVersion {version!r}; expected at least {OLDEST_API_VERSION}"
        )
    for path in (("Token",), ("Token", "variables"), ("Job",), ("Job", "variables"), ("variables",)):
        section: Any = config
        for name in path:
            section = section.get(name, {})
        if not isinstance(section, dict):
            found = type(section).__name__
            raise Permanent(f"token configuration: found {found} at {'.'.join(path)}; expected an object")
