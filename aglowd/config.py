"""The configuration: typed, complete, and with all its problems told at once, each with file, line and a hint.

A default stands here and nowhere else; `etc/aglowd.toml` shows each key with its unit, and a test holds the two together.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from aglowd.durations import duration_s
from aglowd.sizes import size_bytes
from aglowd.toml_file import ConfigError, Problem, TomlFiles

T = TypeVar("T", bound=Struct)


class DaemonConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The process itself."""

    state_dir: str = "/var/lib/aglowd"
    tag: str = ""
    socket: str = "/run/aglowd/aglowd.sock"
    log_format: str = "auto"
    log_level: str = "info"
    log_file: str = ""
    metrics: str = ""
    stop_timeout: str = "20s"
    audit: str = "1h"
    effects: int = 32
    processes: int = 8
    http_longest: str = "5m"
    command_longest: str = "7h"
    tool_path: str = ""
    socket_group: str = ""
    operators: tuple[str | int, ...] = ()


class ClockConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """World seconds per real second, and when the two agreed; only a demo changes it."""

    rate: float = 1.0
    origin: float | None = None


class StatusesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The catalogue's words for what pipelines say of a field; "" = as its kind calls it."""

    claimed: str = ""
    staged: str = ""
    calibrated: str = ""
    target: str = ""
    archived: str = ""
    failed: str = ""


class CatalogueConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Which fields there are: a fields file, the surveys database or aglowd's own; and where the SRM lists lie."""

    srm_dir: str
    path: str = ""
    kind: str = "csv"
    select: tuple[str, ...] = ()
    pipeline: str = "sksp"
    poll: str = "5m"
    max_fields: int = 20
    host: str = "127.0.0.1"
    port: int = 3306
    socket: str = ""
    database: str = "surveys"
    user: str = "survey_user"
    password_file: str = ""
    cluster: str = "aglowd"
    tunnel: str = ""
    tunnel_user: str = ""
    tunnel_key_file: str = ""
    tunnel_known_hosts: str = ""
    statuses: StatusesConfig = StatusesConfig()


class LtaConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The legacy LTA stager."""

    url: str = "https://webportal.astron.nl/service-public/xmlrpc"
    user: str = ""
    password_file: str = ""


class StagingConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How files are brought online, whichever way: how often requests are looked at, and how much is asked for at once."""

    poll: str = "5m"
    settle: str = "10m"
    files_per_request: int = 1000
    bytes_per_request: str = "5TB"
    file_size: str = "16GB"
    lifetime: str = "7d"
    files_at_once: int = 5000


class StageitConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """StageIT, the LTA stager of today."""

    url: str = "https://sdc.astron.nl/stageit/api/staging"
    token_file: str = ""


class DcacheConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """dCache's REST interface: asked whether files are online, and the stager of sites that have no other."""

    url: str = "https://dcacheview.grid.surfsara.nl:22880"
    token_file: str = ""
    poll: str = "5m"
    ask: str = "archiveinfo"
    bulk: bool = False
    events: bool = False
    space: bool = False
    pool_group: str = ""


class TokenBaseConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A token database (CouchDB). A site's own table changes single keys of the common one."""

    url: str = "https://picas-lofar.grid.surfsara.nl:6984"
    database: str = "sksp"
    user: str = ""
    password_file: str = ""
    pilots_url: str = ""
    auth: str = "basic"


class PicasConfig(TokenBaseConfig, frozen=True, forbid_unknown_fields=True):
    """The token database that is common to all sites, and how often tokens are counted in all of them."""

    gather: str = "1m"
    poll: str = "1h"


class BatchConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where pilots run, and how they are started there. A site's own table changes single keys of the common one."""

    system: str = "glite"
    endpoint: str = ""
    delegation: str = ""
    setup: str = ""
    proxy: str = ""
    directory: str = ""
    queue: str = ""
    wall_time: str = "96h"
    cpus: int = 1
    places: int = 4
    template: str = ""
    executable: str = "/usr/bin/python3"
    arguments: tuple[str, ...] = ("pilot.py", "--key", "{key}")
    sandbox_files: tuple[str, ...] = ()
    requirements: str = ""
    nodes_per_submission: int = 50
    max_pilots: int = 250


class JobsConfig(BatchConfig, frozen=True, forbid_unknown_fields=True):
    """The batch system that is common to all sites, how often jobs are looked at, and how many of them there may be."""

    poll: str = "15m"
    lost_after: str = "2h"
    pilots_at_once: int = 2000


class StorageConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Grid storage: how often directories are looked at, what is never written or removed, and what may be removed."""

    poll: str = "10m"
    token_file: str = ""
    third_party: bool = False
    protected: tuple[str, ...] = ()
    deletable: tuple[str, ...] = ()


class ProxyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The grid proxy."""

    path: str = ""
    minimum: str = "12h"
    warn: str = "24h"
    renew: tuple[str, ...] = ()
    poll: str = "15m"


class SiteConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A site: where results go while a field is processed, where they stay, and how its files come from tape.

    `process`: the site at which its data are processed; "" = itself.
    """

    results: str
    archive: str
    process: str = ""
    hosts: tuple[str, ...] = ()
    fields_at_once: int = 1000
    staging: str = "stageit"
    dcache: str = ""
    dcache_token_file: str = ""
    webdav: str = ""
    webdav_token_file: str = ""
    files_at_once: int = 5000
    requests_at_once: int = 20
    files_held: int = 20_000
    pilots_at_once: int = 2000
    jobs: BatchConfig = BatchConfig()
    picas: TokenBaseConfig = TokenBaseConfig()


class NotifyConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told by itself of what went wrong, and how; without a channel nobody is."""

    command: tuple[str, ...] = ()
    webhook: str = ""
    webhook_file: str = ""
    mail_to: tuple[str, ...] = ()
    mail_from: str = ""
    smtp: str = "localhost:25"
    gather: str = "1m"
    apart: str = "5m"
    down_after: str = "30m"


class HistoryConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """How long what is past stays at hand: runs until they are packed, and of the log of events what says how things stood."""

    archive_after: str = "30d"
    events_most: int = 1_000_000
    events_keep: str = "90d"


class PipelinesConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the pipeline files lie; empty means those that come with aglowd."""

    directory: str = ""


class Config(Struct, frozen=True, forbid_unknown_fields=True):
    """All of `aglowd.toml`. Durations are text with a unit; they count world seconds, where not called real."""

    catalogue: CatalogueConfig
    sites: dict[str, SiteConfig]
    daemon: DaemonConfig = DaemonConfig()
    clock: ClockConfig = ClockConfig()
    staging: StagingConfig = StagingConfig()
    lta: LtaConfig = LtaConfig()
    stageit: StageitConfig = StageitConfig()
    dcache: DcacheConfig = DcacheConfig()
    picas: PicasConfig = PicasConfig()
    jobs: JobsConfig = JobsConfig()
    storage: StorageConfig = StorageConfig()
    proxy: ProxyConfig = ProxyConfig()
    notify: NotifyConfig = NotifyConfig()
    history: HistoryConfig = HistoryConfig()
    pipelines: PipelinesConfig = PipelinesConfig()
    pools: dict[str, int] = {}
    secrets: dict[str, str] = {}


class CatalogueKind(Struct, frozen=True):
    """What a kind of catalogue needs, may have beside what all have, and calls things."""

    needs: tuple[str, ...]
    takes: tuple[str, ...]
    select: tuple[str, ...]
    statuses: StatusesConfig


AGLOWS = StatusesConfig("AAA", "SSS", "CCC", "TTT", "ZZZ", "RRR")
"""AGLOW's own words."""
LOTSS = StatusesConfig("DI_started", "DI_started", "DI_cal_done", "DI_Processed", "Archived", "DI_failed")
"""Those of the surveys database's observations; they have none for what is staged, and none for what failed."""
_OF_MYSQL = (
    *("host", "port", "socket", "database", "user", "password_file", "cluster"),
    *("tunnel", "tunnel_user", "tunnel_key_file", "tunnel_known_hosts"),
)
CATALOGUES: Mapping[str, CatalogueKind] = {
    "csv": CatalogueKind(("path",), ("path",), ("SND",), AGLOWS),
    "mysql": CatalogueKind((), _OF_MYSQL, ("Observed",), LOTSS),
    "own": CatalogueKind((), ("path",), ("SND",), AGLOWS),
}
"""The kinds of catalogues. Keys that no kind takes for itself fit all."""
_CSV_WORD = re.compile(r"[A-Za-z0-9_]{1,32}")


MAX_SECRET_CHARS = 16_384
MAX_COUNT = 100_000
"""Of anything that is counted in a configuration."""
MIN_EVENTS, MAX_EVENTS = 1_000, 1_000_000_000
"""That may be kept whole."""


_PASSWORD_IN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}://[^\s/@:]{0,200}:(?!\d{1,5}/)[^\s@]{0,500}@")


def holds_password(value: Any) -> bool:
    """Whether a URL in the value, however nested, carries user and password: it would be shown wherever the value is."""
    if isinstance(value, str):
        return _PASSWORD_IN_URL.search(value) is not None
    if isinstance(value, Mapping):
        return any(map(holds_password, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_password, value))


def convert_all(
    value: Mapping[str, Any], into: type[T], where: tuple[str, ...], file: TomlFiles
) -> tuple[T | None, list[Problem]]:
    """The struct, or None with *every* problem of its keys: unknown, missing, of the wrong type, or of no sense."""
    problems: list[Problem] = []
    fields = {entry.encode_name: entry for entry in msgspec.structs.fields(into)}
    hints = get_type_hints(into)
    known = f"known keys: {', '.join(sorted(fields))}"
    problems.extend(
        file.problem((*where, name), f"unknown key {name!r}", known) for name in sorted(value.keys() - fields.keys())
    )
    converted: dict[str, Any] = {}
    for name, entry in fields.items():
        here = (*where, name)
        if name in value:
            converted[entry.name], inner = _convert(value[name], hints[entry.name], here, file)
            problems.extend(inner)
        elif entry.required:
            problems.append(file.problem(here, f"the key {'.'.join(here)!r} is missing", "it has no default"))
    return (None if problems else into(**converted)), problems


def _convert(value: Any, kind: Any, here: tuple[str, ...], file: TomlFiles) -> tuple[Any, list[Problem]]:
    """One value, and what is wrong with it; tables are gone through key by key."""
    problems: list[Problem] = []
    inner = get_args(kind)[1] if get_origin(kind) is dict else None
    if _is_struct(kind) and isinstance(value, dict):
        return convert_all(value, kind, here, file)
    if _is_struct(inner) and isinstance(value, dict):
        converted: Any = {}
        for key, table in value.items():
            converted[key], found = _convert(table, inner, (*here, key), file)
            problems.extend(found)
    elif inner is not None and isinstance(value, dict):
        converted = {}
        for key, entry in value.items():
            converted[key], found = _plain(entry, inner, (*here, key), file)
            problems.extend(found)
        if problems:
            return None, problems
    else:
        converted, problems = _plain(value, kind, here, file)
        if problems:
            return None, problems
    wrong = _check_value(here, converted)
    problems.extend(file.problem(at, f"{'.'.join(at)}: {what}", hint) for at, what, hint in wrong)
    return converted, problems


def _plain(value: Any, kind: Any, here: tuple[str, ...], file: TomlFiles) -> tuple[Any, list[Problem]]:
    """A value that is no table of fixed keys."""
    try:
        return msgspec.convert(value, kind), []
    except msgspec.ValidationError as error:
        return None, [file.problem(here, f"{'.'.join(here)}: {error}")]


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Struct)


def load_config(path: Path) -> Config:
    """The configuration in that file and its drop-ins; ConfigError with all problems of them."""
    return config_of(TomlFiles.read(path))


def config_of(file: TomlFiles) -> Config:
    """The configuration that those files are; ConfigError with all problems of it."""
    problems = list(_check_sites(file))
    try:
        config, wrong = convert_all(_with_places(file.data), Config, (), file)
    except RecursionError as error:
        raise ConfigError([Problem(file.files[0].path, 1, "it is nested too deep")]) from error
    problems += [*wrong, *_catalogue_problems(file)]
    if config is None or problems:
        raise ConfigError(problems)
    return _with_common(_with_words(config), file.data)


def _catalogue_problems(file: TomlFiles) -> list[Problem]:
    """What does not fit together in `[catalogue]`: keys of another kind, keys that are missing, words that clash."""
    given = file.data.get("catalogue")
    if not isinstance(given, dict):
        return []  # What is missing altogether, or no table, is told already.
    named = given.get("kind", "csv")
    if not isinstance(named, str) or named not in CATALOGUES:
        return []
    kind, problems = CATALOGUES[named], []
    for key in kind.needs:
        if not given.get(key):
            what = f"the key 'catalogue.{key}' is missing"
            problems.append(file.problem(("catalogue", key), what, "it has no default"))
    for key in given:
        fits = [name for name, one in CATALOGUES.items() if key in one.takes]
        if fits and named not in fits:
            what = f"catalogue.{key} does not fit kind = {named!r}"
            problems.append(file.problem(("catalogue", key), what, f"it is for kind = {' or '.join(map(repr, fits))}"))
    if given.get("tunnel") and given.get("socket"):
        what = "catalogue.socket: there is no way to it through a tunnel"
        problems.append(file.problem(("catalogue", "socket"), what, "take out one of socket and tunnel"))
    select = given.get("select") or kind.select
    words = given.get("statuses")
    for key, word in words.items() if isinstance(words, dict) else ():
        where = ("catalogue", "statuses", key)
        if isinstance(word, str) and word and word in select:
            what = f"catalogue.statuses.{key}: {word!r} offers a field (select), so it cannot say that somebody has it"
            problems.append(file.problem(where, what, "another word"))
        elif isinstance(word, str) and word and named == "csv" and not _CSV_WORD.fullmatch(word):
            what = f"catalogue.statuses.{key}: {word!r} is no word for a fields file"
            problems.append(file.problem(where, what, "at most 32 letters, digits and _"))
    return problems


def _with_words(config: Config) -> Config:
    """What the kind of the catalogue calls things, where the file does not say."""
    catalogue = config.catalogue
    kind = CATALOGUES[catalogue.kind]
    words = {
        name: getattr(catalogue.statuses, name) or getattr(kind.statuses, name)
        for name in StatusesConfig.__struct_fields__
    }
    path = catalogue.path or (str(Path(config.daemon.state_dir, "catalogue.db")) if catalogue.kind == "own" else "")
    named = msgspec.structs.replace(
        catalogue, path=path, select=catalogue.select or kind.select, statuses=StatusesConfig(**words)
    )
    return msgspec.structs.replace(config, catalogue=named)


def _tables(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sites' tables as they stand there; what is no table is told elsewhere."""
    sites = data.get("sites")
    return {name: site for name, site in sites.items() if isinstance(site, dict)} if isinstance(sites, dict) else {}


def _with_places(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A site whose data are processed at another one needs no `results` and no `archive` of its own."""
    sites = _tables(data)
    sent = {name for name, site in sites.items() if site.get("process", "") not in ("", name)}
    filled = {name: {"results": "", "archive": "", **sites[name]} for name in sent}
    return {**data, "sites": {**data["sites"], **filled}} if filled else data


def _check_sites(file: TomlFiles) -> Iterator[Problem]:
    """What is wrong with the sites as a whole: where their data are sent, and whose the hosts are."""
    sites = _tables(file.data)
    owner: dict[str, str] = {}
    for name, site in sites.items():
        process, hosts = site.get("process", ""), site.get("hosts", [])
        if isinstance(process, str) and process and process not in sites:
            what = f"no site {process!r} is configured"
            yield file.problem(("sites", name, "process"), what, f"known: {', '.join(sorted(sites))}")
        for host in hosts if isinstance(hosts, list) else ():
            if not isinstance(host, str):
                continue
            if not _HOST.fullmatch(host):
                hint = 'such as "srm.example.org", which stands for itself and all hosts below it'
                yield file.problem(("sites", name, "hosts"), f"{host[:200]!r} is no name of a host", hint)
            elif owner.setdefault(host, name) != name:
                what = f"{host!r} is a host of {owner[host]} already"
                yield file.problem(("sites", name, "hosts"), what, "name it once")


def _with_common(config: Config, data: Mapping[str, Any]) -> Config:
    """Each site has the common `[jobs]` and `[picas]`, but for the keys that stand in its own tables."""
    sites = {}
    for name, site in config.sites.items():
        own = data["sites"][name]
        jobs = _merged(BatchConfig, config.jobs, site.jobs, own.get("jobs", {}))
        picas = _merged(TokenBaseConfig, config.picas, site.picas, own.get("picas", {}))
        if server_of(picas.url) != server_of(config.picas.url):
            # A password, and the door for pilots, are of the server that they were given for.
            lone = {key: "" for key in ("user", "password_file", "pilots_url") if key not in own.get("picas", {})}
            picas = msgspec.structs.replace(picas, **lone)
        sites[name] = msgspec.structs.replace(site, jobs=jobs, picas=picas)
    return msgspec.structs.replace(config, sites=sites)


def _merged(kind: type[T], common: Struct, site: Struct, keys: Mapping[str, Any]) -> T:
    """The common values, but those of the site for these keys."""
    values = {name: getattr(common, name) for name in kind.__struct_fields__}
    return kind(**(values | {key: getattr(site, key) for key in keys}))


def server_of(url: str) -> str:
    """Scheme, host and port of a URL, in one spelling."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}".lower()


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9-]+(\.[a-z0-9-]+)*")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@-]{0,63}\$?")
_LISTEN = re.compile(
    r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?!0+$)(?:[0-5]?\d{1,4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
)
_DIRECTORY = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s]*/[^/\s][^\s]*")
_DURATIONS = (
    "poll",
    "lifetime",
    "gather",
    "settle",
    "minimum",
    "warn",
    "stop_timeout",
    "audit",
    "http_longest",
    "command_longest",
    "wall_time",
    "lost_after",
    "apart",
    "down_after",
    "archive_after",
    "events_keep",
)
_COUNTS = (
    "effects",
    "processes",
    "max_fields",
    "nodes_per_submission",
    "max_pilots",
    "files_per_request",
    "files_at_once",
    "requests_at_once",
    "files_held",
    "fields_at_once",
    "pilots_at_once",
    "cpus",
    "places",
)
_SIZES = ("bytes_per_request", "file_size")
_WORDS = {
    "staging": ("stageit", "legacy", "dcache"),
    "ask": ("archiveinfo", "namespace", "xattr"),
    "system": ("glite", "slurm", "dirac", "arc", "local", "none"),
    "auth": ("basic", "cookie"),
    "kind": ("csv", "mysql", "own"),
    "log_format": ("auto", "json", "console"),
    "log_level": ("debug", "info", "warning", "error"),
}


def _check_value(where: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """What is wrong with a value of the right type: (key, what, hint)."""
    key = where[-1]
    if holds_password(value):
        yield where, "a URL must not carry a password: it would be shown", "put it into a file, and name that"
    if key in _DURATIONS:
        try:
            if duration_s(value) <= 0:
                yield where, "it must be longer than nothing", 'such as "5m"'
        except ValueError as error:
            yield where, str(error), ""
    elif key in _SIZES:
        try:
            if size_bytes(value) <= 0:
                yield where, "it must be more than nothing", 'such as "5TB"'
        except ValueError as error:
            yield where, str(error), ""
    elif key in _WORDS and isinstance(value, str) and value not in _WORDS[key]:
        yield where, f"{value!r} is not known", f"one of {', '.join(_WORDS[key])}"
    elif key in _COUNTS and not 1 <= value <= MAX_COUNT:
        yield where, f"{value} is too {'small' if value < 1 else 'large'}", f"at least 1, at most {MAX_COUNT}"
    elif where == ("history", "events_most") and not MIN_EVENTS <= value <= MAX_EVENTS:
        yield (
            where,
            f"{value} is too {'small' if value < MIN_EVENTS else 'large'}",
            f"from {MIN_EVENTS} to {MAX_EVENTS}",
        )
    elif where == ("clock", "rate") and not 0 < value < math.inf:
        yield where, f"{value} must be positive", ""
    elif where == ("clock", "origin") and value is not None and not math.isfinite(value):
        yield where, f"{value} is no moment", ""
    elif key == "port" and not 1 <= value <= 65_535:
        yield where, f"{value} is no port", "from 1 to 65535"
    elif where == ("daemon", "tag") and not re.fullmatch(r"[a-z]{0,8}", value):
        yield where, f"{value[:80]!r} is no tag", 'at most eight small letters, such as "sara"'
    elif where == ("daemon", "socket_group") and value and not _USER.fullmatch(value):
        yield where, f"{value[:80]!r} is no name of a group", ""
    elif where == ("daemon", "operators"):
        yield from (
            (where, f"{one!r:.80} is no user", 'a name such as "lofar", or a uid such as 1000')
            for one in value
            if not (0 <= one < 2**32 - 1 if isinstance(one, int) else _USER.fullmatch(one))
        )
    elif where == ("storage", "deletable") and not all(map(_DIRECTORY.fullmatch, value)):
        yield where, "a root is no directory's URL", 'such as "file:///data/work", below which files may be removed'
    elif where == ("notify", "webhook") and value and web_place(value) is None:
        yield where, "it is no URL", "such as https://hooks.slack.com/services/…, or leave it out and say webhook_file"
    elif where == ("daemon", "metrics") and value and not _LISTEN.fullmatch(value):
        yield where, f"{value!r} is no address", 'host and port, such as "127.0.0.1:9750"'
    elif where == ("daemon", "log_file") and value and not os.path.isabs(value):
        yield where, f"{value!r} is no absolute path", 'such as "/var/log/aglowd/aglowd.log"'
    elif where == ("notify", "smtp") and not re.fullmatch(r"[^\s:]+:\d{1,5}", value):
        yield where, f"{value!r} is no mail relay", 'host and port, such as "localhost:25"'
    elif where == ("notify", "mail_to") and not all(re.fullmatch(r"[^\s@,]+@[^\s@,]+", one) for one in value):
        yield where, "there is no mail address in it", 'such as ["lofar@example.org"]'
    elif where == ("sites",) and not value:
        yield where, "no site is configured", "add a table such as [sites.sara] with results and archive"
    elif where == ("secrets",):
        hint = "a letter, then at most 63 letters, digits, _ and -"
        yield from (
            ((*where, name), f"{name[:80]!r} is no name of a secret", hint)
            for name in value
            if not _NAME.fullmatch(name)
        )
    elif where == ("pools",):
        wrong = {name: size for name, size in value.items() if not 1 <= size <= MAX_COUNT}
        yield from (
            ((*where, name), f"{size} is too {'small' if size < 1 else 'large'}", f"at least 1, at most {MAX_COUNT}")
            for name, size in wrong.items()
        )


def web_place(url: str) -> tuple[str, int] | None:
    """Host and port of an http:// or https:// URL, None if it is none."""
    try:
        parts = urlsplit(url)
        port = {"http": 80, "https": 443}[parts.scheme] if parts.port is None else parts.port
    except (ValueError, KeyError):
        return None
    return (parts.hostname, port) if parts.hostname and port else None


def read_secret(path: str) -> str:
    """The one line in that file; ConfigError unless only its owner can read it."""
    try:
        with open(path, encoding="utf-8") as secret:
            mode = stat.S_IMODE(os.fstat(secret.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigError(
                    [Problem(path, 1, f"others can read this secret (mode {mode:04o})", f"chmod 600 {path}")]
                )
            text = secret.readline(MAX_SECRET_CHARS + 1).rstrip("\r\n")
            if len(text) > MAX_SECRET_CHARS:
                raise ConfigError([Problem(path, 1, f"the secret is longer than {MAX_SECRET_CHARS} characters")])
            return text
    except UnicodeDecodeError as error:
        raise ConfigError([Problem(path, 1, "the secret is no UTF-8 text")]) from error
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(path, 1, f"the secret cannot be read: {error}")]) from error
