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
from aglowd.grid.picas_views import API_VERSION, JOB_KEYS, check_token_type, state_of
from aglowd.model import Json

OLDEST_API_VERSION = 0.5
RESERVED = frozenset({"_id", "_rev", "_attachments", "_deleted", "type", "lock", "done", "PICAS_API_VERSION", "aglowd"})
"""Fields that make a document a token, or ours; no configuration sets them."""

MAX_ENDS_TOLD = 3
"""Earlier ends of a token that are told of it, the last ones; its own history has more."""
MAX_FACT_CHARS = 100
"""Of each text that is told of a token; ids of jobs are the longest."""

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
    base = {"_id": token_id, "type": token_type, "PICAS_API_VERSION": API_VERSION, "lock": 0, "done": 0}
    # What a configuration says of a new token as everybody does, such as `lock` 0, is no wish of its own.
    fields = {name: value for name, value in built.items() if name not in _IGNORED and not _is_same(base, name, value)}
    wrong = sorted(name for name in (*fields, *keys) if name in RESERVED or name.startswith("_"))
    if wrong:
        raise Permanent(f"token configuration: found the fields {', '.join(wrong)}; these are set by aglowd alone")
    return base | fields | copy.deepcopy(dict(keys))


def _is_same(base: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in base and type(value) is type(base[name]) and bool(value == base[name])


def names_field(config: Mapping[str, Any], name: str) -> bool:
    """Whether each token of this configuration has such a field, so that GRID_LRT's launchers will look for it."""
    job = config.get("Job")
    sections = (config.get("Token"), job.get("variables") if isinstance(job, dict) else None)
    return any(isinstance(section, dict) and name in section for section in sections)


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


def last_log(document: Mapping[str, Any]) -> str:
    """The name of the log that was attached last, or ''. Names begin with day and time, as launchers write them."""
    attached = document.get("_attachments")
    named = [
        (entry.get("revpos") or 0, name.endswith(("stderr.txt", "stderr")), name)
        for name, entry in (attached if isinstance(attached, dict) else {}).items()
        if name.removesuffix(".txt").endswith(("stdout", "stderr", "log"))
    ]
    return max(named)[2] if named else ""


def told_of(document: Mapping[str, Any]) -> dict[str, Json]:
    """What became of a token, for the record of its field: who worked on it, how often, and what came of it.

    `scrubs` counts how often it was given back, `retries` how often after an error. `result` is what its pilot said of what
    it wrote; not every launcher says it. Times are seconds since 1970, as the clocks of worker nodes told them.
    """
    mark = document.get("aglowd")
    mark = mark if isinstance(mark, dict) else {}
    history = mark.get("history")
    ends = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    result = mark.get("result")
    result = result if isinstance(result, dict) else {}
    facts: dict[str, Json] = {
        "type": _fact(document.get("type")),
        "state": state_of(document),
        "status": _fact(document.get("status")),
        "scrubs": _count(document.get("scrub_count")),
        "retries": _count(mark.get("retries")),
        "job": _job(document),
        "host": _fact(document.get("hostname")),
        "begun": _count(document.get("lock")),
        "ended": _count(document.get("done")),
        "ends": [
            {
                "at": _count(entry.get("at")),
                "why": _fact(entry.get("why")),
                "job": _job(entry),
                "host": _fact(entry.get("hostname")),
            }
            for entry in ends[-MAX_ENDS_TOLD:]
        ],
    }
    sizes = {name: result[name] for name in ("size_bytes", "adler32") if _count(result.get(name)) is not None}
    return {**facts, **sizes}


def _job(fields: Mapping[str, Any]) -> str:
    return next((_fact(fields[key]) for key in JOB_KEYS if fields.get(key)), "")


def _fact(value: Any) -> str:
    """A short text of what a pilot or a person wrote."""
    return str(value)[:MAX_FACT_CHARS] if isinstance(value, str | int) else ""


def _count(value: Any) -> int | None:
    """A number that cannot be below nothing; None for whatever else stands there."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return int(value) if is_number else None
