"""The configuration value by value: where each comes from, what differs between two of them, and what may change at run time.

What must stay true: no secret is shown; what is not named in `LIVE` keeps its value until the next start, everywhere at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from aglowd.config import CATALOGUES, Config
from aglowd.log import HIDDEN, redact_text
from aglowd.model import Json
from aglowd.toml_file import TomlFiles

T = TypeVar("T", bound=Struct)
Keys = tuple[str, ...]

LIVE = (
    "daemon.log_format",
    "daemon.log_level",
    "daemon.stop_timeout",
    "daemon.audit",
    "daemon.effects",
    "daemon.http_longest",
    "daemon.socket_group",
    "daemon.operators",
    "catalogue.pipeline",
    "catalogue.poll",
    "catalogue.max_fields",
    "staging.poll",
    "staging.settle",
    "staging.files_per_request",
    "staging.bytes_per_request",
    "staging.file_size",
    "staging.files_at_once",
    "dcache.poll",
    "dcache.space",
    "picas.gather",
    "picas.poll",
    "jobs.nodes_per_submission",
    "jobs.max_pilots",
    "jobs.poll",
    "jobs.lost_after",
    "jobs.pilots_at_once",
    "storage.poll",
    "storage.protected",
    "storage.deletable",
    "proxy.minimum",
    "proxy.poll",
    "proxy.warn",
    "notify",
    "history",
    "pipelines",
    "pools",
    "sites.*.fields_at_once",
    "sites.*.files_at_once",
    "sites.*.requests_at_once",
    "sites.*.files_held",
    "sites.*.pilots_at_once",
    "sites.*.jobs.nodes_per_submission",
    "sites.*.jobs.max_pilots",
)
"""The keys, and tables, that a reload applies; all others need a restart. `*` stands for any site."""
_LIVE = frozenset(tuple(name.split(".")) for name in LIVE)
_SECRET = (("notify", "webhook"),)
"""Whoever knows it can write there."""
_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Setting(Struct, frozen=True):
    """A key with its value and where that comes from: `FILE:LINE`, `default`, or the environment."""

    key: str
    value: Json
    origin: str


class Change(Struct, frozen=True, forbid_unknown_fields=True):
    """A key whose values differ; None = it is not set. `restart`: it counts from the next start on."""

    key: str
    old: Json
    new: Json
    restart: bool


def list_settings(config: Config, files: TomlFiles, environ: Mapping[str, str] = os.environ) -> list[Setting]:
    """Every key of the configuration, as it counts."""
    values = dict(_values(config))
    found = []
    takes = CATALOGUES[config.catalogue.kind].takes
    others = {name for kind in CATALOGUES.values() for name in kind.takes if name not in takes}
    for keys, value in values.items():
        if keys[0] == "catalogue" and keys[1] in others:
            continue  # It does not fit the kind of the catalogue.
        origin = files.origin(keys)
        if not origin and len(keys) == 4 and values.get(keys[2:]) == value:
            origin = files.origin(keys[2:])  # [sites.NAME.jobs] and [sites.NAME.picas] rest on the common ones.
        if keys == ("proxy", "path") and not value and "X509_USER_PROXY" in environ:
            value, origin = environ["X509_USER_PROXY"], "$X509_USER_PROXY"
        found.append(Setting(_name(keys), _shown(keys, value), origin or "default"))
    return found


def changes(old: Config, new: Config) -> list[Change]:
    """What differs, by key. A site that comes or goes is one change."""
    before, after = dict(_values(old)), dict(_values(new))
    found = []
    for name in sorted(old.sites.keys() ^ new.sites.keys()):
        is_new = name in new.sites
        was, becomes = (None, "configured") if is_new else ("configured", None)
        found.append(Change(_name(("sites", name)), was, becomes, restart=True))
    both = old.sites.keys() & new.sites.keys()
    for keys in dict.fromkeys((*before, *after)):
        if before.get(keys) == after.get(keys) or (keys[0] == "sites" and keys[1] not in both):
            continue
        was, becomes = (_shown(keys, side[keys]) if keys in side else None for side in (before, after))
        found.append(Change(_name(keys), was, becomes, restart=not is_live(keys)))
    return found


def is_live(keys: Keys) -> bool:
    """Whether that key, or the table that it is in, may change at run time."""
    general = (keys[0], "*", *keys[2:]) if keys[0] == "sites" else keys
    return any(general[:length] in _LIVE for length in range(1, len(general) + 1))


def heeded(old: Config, new: Config) -> Config:
    """The old configuration with the new values of all that may change at run time."""
    return _heeded(old, new, ())


def _heeded(old: T, new: T, where: Keys) -> T:
    values: dict[str, Any] = {}
    for name in old.__struct_fields__:
        before, after, here = getattr(old, name), getattr(new, name), (*where, name)
        if here == ("sites",):
            values[name] = {
                site: _heeded(table, after[site], (*here, site)) if site in after else table
                for site, table in before.items()
            }
        elif isinstance(before, Struct):
            values[name] = _heeded(before, after, here)
        else:
            values[name] = after if is_live(here) else before
    return type(old)(**values)


def toml_of(settings: list[Setting]) -> str:
    """The settings as a configuration file that says where each comes from."""
    lines = []
    for one in settings:
        text = f"# {one.key} is not set" if one.value is None else f"{one.key} = {_toml(one.value)}"
        lines.append(f"{text:<60}  # {one.origin}\n")
    return "".join(lines)


def _toml(value: Json) -> str:
    # What JSON writes for text, numbers, lists and truth TOML reads, but for the one sign that it wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _values(table: Struct | Mapping[str, Any], where: Keys = ()) -> Iterator[tuple[Keys, Json]]:
    """Each key that has no keys inside, with its value."""
    pairs = (
        table.items() if isinstance(table, Mapping) else ((key, getattr(table, key)) for key in table.__struct_fields__)
    )
    for key, value in pairs:
        if isinstance(value, Struct | Mapping):
            yield from _values(value, (*where, key))
        else:
            yield (*where, key), msgspec.to_builtins(value)


def _shown(keys: Keys, value: Json) -> Json:
    """The value as people may see it."""
    if keys in _SECRET and value:
        return HIDDEN
    if keys == ("notify", "command"):
        return [*value[:1], *([HIDDEN] if value[1:] else [])]  # Its arguments may hold a token.
    if isinstance(value, str):
        return redact_text(value)
    return [redact_text(one) if isinstance(one, str) else one for one in value] if isinstance(value, list) else value


def _name(keys: Keys) -> str:
    return ".".join(key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False) for key in keys)
