"""Wires the rooms together: adapters, pipelines and secrets as the configuration names them. Nothing is asked here."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from aglowd import launcher
from aglowd.batches import Means, build_batches
from aglowd.clock import Clock
from aglowd.config import BatchConfig, Config, StatusesConfig, TokenBaseConfig, config_of, read_secret, server_of
from aglowd.credentials import Secrets, bases_of, credential_of, tunnel_user
from aglowd.doctor import Check, Doctor
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.errors import Temporary
from aglowd.grid.archive import Archive
from aglowd.grid.catalogue import Catalogue
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.catalogue_mysql import MySqlCatalogue, Whoami
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.grid.channels import Channel, CommandChannel, MailChannel, WebhookChannel
from aglowd.grid.dcache import Dcache
from aglowd.grid.dcache_events import DcacheEvents, place_of
from aglowd.grid.dcache_stage import DcacheStager
from aglowd.grid.gate import Credential, Site, Sites
from aglowd.grid.gfal import Gfal, GfalArchive
from aglowd.grid.http import Http
from aglowd.grid.keyring import Keyring
from aglowd.grid.lta import LtaStager
from aglowd.grid.mysql import MySql, Place, Tunnel
from aglowd.grid.picas import Picas
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy
from aglowd.grid.registry import Registry
from aglowd.grid.stageit import StageIt
from aglowd.grid.stager import Stager
from aglowd.grid.storage import Storage
from aglowd.grid.surl import DOORS, SITES, Door, find_srm_host, learn_hosts, site_of
from aglowd.grid.tls import trust
from aglowd.grid.webdav import WebDav
from aglowd.grid.webdav_text import SCHEMES, host_of
from aglowd.handlers import HANDLERS
from aglowd.handlers.run import Run
from aglowd.keeper import COMMON, Keeper
from aglowd.model import Handler, Json
from aglowd.pipeline import Pipeline
from aglowd.pipeline_file import load_pipeline
from aglowd.references import list_references
from aglowd.store.schedules import Planned
from aglowd.store.store import Store
from aglowd.templates import is_template
from aglowd.toml_file import ConfigError, Problem, TomlFile, TomlFiles

SHIPPED_PIPELINES = (
    Path(__file__).parent.parent / "etc" / "pipelines",
    Path(sys.prefix) / "share" / "aglowd" / "pipelines",
)
"""Where the pipelines that come with aglowd lie: beside the package in a source tree, else where they were installed."""


def handler_kinds() -> dict[str, Handler]:
    """Every kind of step, by its name in pipeline files."""
    return {handler.kind: handler() for handler in HANDLERS}


def shipped_pipelines() -> Path:
    """The directory of the pipelines that come with aglowd."""
    return next((path for path in SHIPPED_PIPELINES if path.is_dir()), SHIPPED_PIPELINES[-1])


def load_pipelines(
    directory: str, wanted: str, secrets: Collection[str] | None = None, words: StatusesConfig | None = None
) -> dict[str, Pipeline]:
    """All pipelines of that directory ("" = those that come with aglowd), `wanted` among them, which refer to no others
    than these secrets (None = to whatever they like).

    `words`: what the catalogue calls the statuses, which the [adopt] tables of `wanted` must be told apart by.

    Raises ConfigError with every problem of every file.
    """
    place = Path(directory) if directory else shipped_pipelines()
    kinds = {kind: handler.Params for kind, handler in handler_kinds().items()}
    pipelines: dict[str, Pipeline] = {}
    problems: list[Problem] = []
    try:
        found = sorted(place.glob("*.toml"))
    except OSError as error:
        raise ConfigError([Problem(str(place)[:200], 1, f"cannot be read: {error.strerror}")]) from error
    for path in found:
        try:
            pipeline = load_pipeline(path, kinds)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        if pipeline.name in pipelines:
            problems.append(Problem(str(path), 1, f"another file has a pipeline {pipeline.name!r} too", "rename one"))
        if pipeline.name == wanted and words is not None:
            problems.extend(_one_word(path, pipeline, words))
        pipelines[pipeline.name] = pipeline
    for pipeline in pipelines.values():
        for step in pipeline.steps.values():
            named = step.params.get("pipeline")
            if step.kind == Run.kind and not is_template(named) and named not in pipelines and not problems:
                known = f"known: {', '.join(sorted(pipelines))}"
                what = f"step {step.name!r} runs {named!r}, which is no pipeline"
                problems.append(Problem(step.file, step.line, what, known))
            must_exist = step.params.get("must_exist", ())
            if step.kind == Run.kind and named in pipelines and not is_template(must_exist):
                outputs = pipelines[named].outputs
                for name in sorted({*must_exist} - outputs.keys()):
                    what = f"step {step.name!r}: must_exist names {name!r}, which is no output of {named!r}"
                    known = f"known: {', '.join(sorted(outputs)) or 'none'}"
                    problems.append(Problem(step.file, step.line, what, known))
            for name in list_references((step.params, step.use or {})):
                if secrets is not None and name not in secrets:
                    what = f"step {step.name!r} refers to secret:{name}, which is not configured"
                    known = f"known: {', '.join(sorted(secrets)) or 'none'}; name its file in [secrets]"
                    problems.append(Problem(step.file, step.line, what, known))
    if not problems and wanted not in pipelines:
        known = ", ".join(sorted(pipelines)) or "none"
        problems.append(Problem(str(place), 1, f"there is no pipeline {wanted!r}", f"known: {known}"))
    if problems:
        raise ConfigError(problems)
    return pipelines


def _one_word(path: Path, pipeline: Pipeline, words: StatusesConfig) -> Iterator[Problem]:
    """[adopt] tables that differ though the catalogue has one word for their statuses: nobody could tell which is meant."""
    first: dict[str, str] = {}
    for status, steps in pipeline.adopt.items():
        word = getattr(words, status)
        other = first.setdefault(word, status)
        if steps != pipeline.adopt[other]:
            what = f"adopt.{status}: the catalogue says {word!r} both for {other} and for {status}, and adopt.{other} is another"
            hint = f"take one of them out, make them alike, or give [catalogue.statuses] {status} a word of its own"
            yield TomlFile.read(path).problem(("adopt", status), what, hint)


def planned_runs(pipelines: Mapping[str, Pipeline]) -> tuple[Planned, ...]:
    """The pipelines that run by themselves, by name."""
    return tuple(
        Planned(pipeline, pipeline.schedule)
        for _, pipeline in sorted(pipelines.items())
        if pipeline.schedule is not None and pipeline.schedule.enabled
    )


class Loaded(Struct, frozen=True):
    """All that people write for the daemon: its files, the configuration that they are, and the pipelines by name."""

    files: TomlFiles
    config: Config
    pipelines: dict[str, Pipeline]


def load_files(path: Path) -> Loaded:
    """The configuration with its drop-ins and all pipelines, if they are well; else ConfigError with every problem."""
    problems: list[Problem] = []
    pipelines: dict[str, Pipeline] = {}
    files: TomlFiles | None = None
    config: Config | None = None
    directory, wanted = "", "sksp"
    secrets: Collection[str] | None = None
    words: StatusesConfig | None = None
    try:
        files = TomlFiles.read(path)
        config = config_of(files)
        directory, wanted, secrets = config.pipelines.directory, config.catalogue.pipeline, config.secrets
        words = config.catalogue.statuses
    except ConfigError as error:
        problems.extend(error.problems)
        # The pipelines are looked at all the same, where the files say that they are.
        if files is not None:
            with contextlib.suppress(AttributeError):
                directory = str(files.data.get("pipelines", {}).get("directory", directory))
                wanted = str(files.data.get("catalogue", {}).get("pipeline", wanted))
    try:
        pipelines = load_pipelines(directory, wanted, secrets, words)
    except ConfigError as error:
        problems.extend(error.problems)
    if problems or files is None or config is None:
        raise ConfigError(problems)
    return Loaded(files, config, pipelines)


class _Sandbox(Mapping[str, str]):
    """The input files of a site's pilots. The token database's password is read when it is needed: it may have been changed."""

    def __init__(self, base: TokenBaseConfig, credential: Credential, files: Mapping[str, str]) -> None:
        self._base = base
        self._credential = credential
        self._files = files

    def _picas(self) -> str:
        values = {
            "user": self._credential.user,
            "password": self._credential.password,
            "database": self._base.database,
            "url": self._base.pilots_url or self._base.url,
        }
        return msgspec.json.encode(values).decode()

    def __getitem__(self, name: str) -> str:
        return self._picas() if name == "picas.json" else self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("picas.json", *self._files))

    def __len__(self) -> int:
        return 1 + len(self._files)


def place_of_state(config: Config) -> str:
    """Where this aglowd's state lies, as those on other hosts call it."""
    return f"{socket.gethostname()}:{Path(config.daemon.state_dir)}"


def build_world(
    config: Config, clock: Clock, secrets: Secrets, name: str, adoptable: Collection[str] = ()
) -> tuple[World, dict[str, Site]]:
    """The outside systems as this configuration names them.

    `name`: of this aglowd, among those that share a catalogue; `adoptable`: the catalogue's words at which fields may be taken
    over.
    """
    learn_hosts({name: site.hosts for name, site in config.sites.items()})
    state = Path(config.daemon.state_dir)
    work_dir = state / "work"
    work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    sites = {name: Site(name, clock) for name in ("lta", "stageit", "dcache", "picas", "web")}
    # Who starts programs and does not answer takes half of their places, and leaves the others to everybody else.
    most = max(config.daemon.processes // 2, 1)
    credentials = secrets.credentials
    http = Http(clock, longest_s=duration_s(config.daemon.http_longest), trusted=trust())
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if config.proxy.path:
        environment["X509_USER_PROXY"] = config.proxy.path
    processes = Processes(
        concurrency=config.daemon.processes,
        longest_s=duration_s(config.daemon.command_longest),
        path=config.daemon.tool_path or None,
        env=environment,
    )

    keyring = Keyring(clock)
    doors = _doors(config)
    by_tools = GfalArchive(Gfal(processes, Sites("dcache", clock, sites, concurrency=most)))
    stagers, archives = _tape(config, clock, http, by_tools, sites, credentials, keyring)
    by_host = _by_host(config, doors, credentials)
    web = WebDav(
        http,
        Sites("webdav", clock, sites),
        by_host,
        keyring=keyring,
        doors=doors,
        third_party=config.storage.third_party,
    )
    named = {*config.jobs.sandbox_files, *(name for site in config.sites.values() for name in site.jobs.sandbox_files)}
    sandbox = {Path(name).name: Path(name).read_text(encoding="utf-8") for name in sorted(named)}
    sandbox.setdefault(launcher.NAME, launcher.source())
    world = World(
        clock=clock,
        http=http,
        processes=processes,
        stagers=stagers,
        archives=archives,
        token_bases=_token_bases(config, clock, http, sites, credentials),
        batches=build_batches(config, Means(clock, http, processes, state, config.proxy.path, most), sites),
        storage=Storage(processes, Sites("storage", clock, sites, concurrency=most), web, work_dir=work_dir),
        proxy=Proxy(processes, config.proxy.path or None, clock),
        catalogue=_catalogue(config, clock, credentials, sites, name, adoptable),
        web=sites["web"],
        work_dir=work_dir,
        sandboxes={
            name: _Sandbox(base, credentials[credential_of(config, name)], sandbox)
            for name, base in bases_of(config).items()
        },
        staging_settle_s=duration_s(config.staging.settle),
        secret=secrets.get,
        protected=config.storage.protected,
        deletable=config.storage.deletable,
        registry=Registry(http, Sites("registry", clock, sites)),
    )
    if config.dcache.events:
        client = f"aglowd-{place_of_state(config)}"
        world.events = DcacheEvents(
            http,
            sites["dcache"],
            credentials["dcache"],
            config.dcache.url,
            client,
            elsewhere=_elsewhere(config, doors),
        )
    return world, sites


def build_channels(config: Config, world: World) -> dict[str, Channel]:
    """The ways by which people are told, as the configuration names them."""
    notify = config.notify
    found: dict[str, Channel] = {}

    def address() -> str:
        try:
            return read_secret(notify.webhook_file) if notify.webhook_file else notify.webhook
        except ConfigError as error:
            raise Temporary(str(error)) from error

    if notify.command:
        found["command"] = CommandChannel(world.processes, notify.command)
    if notify.webhook or notify.webhook_file:
        # A gate of its own, which nobody is shown: its errors are the channel's.
        found["webhook"] = WebhookChannel(world.http, Site("webhook", world.clock), address)
    if notify.mail_to:
        found["mail"] = MailChannel(notify.smtp, notify.mail_from, notify.mail_to)
    return found


def used_proxies(config: Config, world: World) -> dict[str, Proxy]:
    """The proxies that pilots are submitted with, or that the gfal tools show: the common one, and those of sites by their paths."""
    jobs = [config.jobs, *(site.jobs for site in config.sites.values())]
    named = {one.proxy for one in jobs if one.system in ON_THE_GRID}
    proxies = {path: Proxy(world.processes, path, world.clock) for path in sorted(named) if path}
    by_tools = any(
        url.startswith(PROXY_SCHEMES) for site in config.sites.values() for url in (site.results, site.archive)
    )
    if COMMON in named or config.proxy.path or config.proxy.renew or by_tools:
        proxies[COMMON] = world.proxy
    return proxies


def build_doctor(
    config: Config,
    world: World,
    secrets: Secrets,
    pipelines: Mapping[str, Pipeline],
    more: Callable[[], Awaitable[list[Check]]] | None = None,
) -> Doctor:
    """Who says what works and what does not. `more`: what a running daemon knows of itself."""
    kinds = {step.kind for pipeline in pipelines.values() for step in pipeline.steps.values()}
    return Doctor(config, world, secrets, used_proxies(config, world), git=bool(kinds & GIT_KINDS), more=more)


def build_keeper(config: Config, store: Store, world: World) -> Keeper:
    """What looks after the proxies."""
    return Keeper(
        store,
        used_proxies(config, world),
        world.processes,
        world.clock,
        poll_s=duration_s(config.proxy.poll),
        minimum_s=duration_s(config.proxy.minimum),
        warn_s=duration_s(config.proxy.warn),
        renew=config.proxy.renew,
    )


def _catalogue(
    config: Config,
    clock: Clock,
    credentials: Mapping[str, Credential],
    sites: dict[str, Site],
    daemon: str,
    adoptable: Collection[str],
) -> Catalogue:
    """The catalogue of that kind."""
    named, state = config.catalogue, Path(config.daemon.state_dir)
    if named.kind == "own":
        return OwnCatalogue(Path(named.path), daemon, offered=named.select, clock=clock)
    words = named.statuses
    if named.kind == "csv":
        selectors = (*named.select, *(getattr(words, name) for name in words.__struct_fields__))
        return CsvCatalogue(Path(named.path), daemon, selectors=selectors, offered=named.select, clock=clock)
    sites["catalogue"] = Site("catalogue", clock)
    tunnel = None
    if named.tunnel:
        tunnel = Tunnel(named.tunnel, tunnel_user(config), named.tunnel_key_file, named.tunnel_known_hosts)
    place = Place(named.host, named.port, named.database, named.socket)
    return MySqlCatalogue(
        MySql(sites["catalogue"], credentials["catalogue"], place, tunnel),
        Whoami.here(daemon, named.cluster),
        state / "catalogue.aglowd.json",
        offered=named.select,
        adoptable=adoptable,
        starts=(words.claimed,),
        ends=(words.archived, words.failed),
        clock=clock,
    )


def _token_bases(
    config: Config, clock: Clock, http: Http, sites: dict[str, Site], credentials: Mapping[str, Credential]
) -> dict[str, Picas]:
    """Site → its token database, "" → the common one. Sites with one database share its adapter, so that it is asked once
    for all of them; databases of one server share its gate."""
    built: dict[tuple[str, ...], Picas] = {}
    gates = {server_of(config.picas.url): sites["picas"]}
    found: dict[str, Picas] = {}
    for name, base in bases_of(config).items():
        where = (base.url.rstrip("/"), base.database, base.user, base.password_file, base.auth)
        if where not in built:
            if server_of(base.url) not in gates:
                gates[server_of(base.url)] = sites[f"picas-{name}"] = Site(f"picas-{name}", clock)
            credential = credentials[credential_of(config, name)]
            gate, by_cookie = gates[server_of(base.url)], base.auth == "cookie"
            built[where] = Picas(http, gate, credential, base.url, base.database, by_cookie=by_cookie)
        found[name] = built[where]
    return found


def _doors(config: Config) -> dict[str, Door]:
    """The sites' WebDAV doors: the operator's own, or those that are known."""
    found = {name: Door(site.webdav) if site.webdav else DOORS.get(name) for name, site in config.sites.items()}
    return {name: door for name, door in found.items() if door is not None}


def _elsewhere(config: Config, doors: Mapping[str, Door]) -> frozenset[str]:
    """The sites with a dCache of their own host, and the hosts of their storage, but for what a site of `[dcache]` has too.

    Where the host of `[dcache]` says at which site it is, also all other sites that are known and not configured.
    """
    at = place_of(config.dcache.url)
    here, found = {"", at}, set(SITES.values()) if at in SITES.values() else set[str]()
    for name, site in config.sites.items():
        is_here = not site.dcache or host_of(site.dcache) == host_of(config.dcache.url)
        urls = (site.results, site.archive, *([doors[name].url] if name in doors else []))
        (here if is_here else found).update({name, *map(place_of, urls)})
    return frozenset(found - here)


def _by_host(config: Config, doors: Mapping[str, Door], credentials: Mapping[str, Credential]) -> dict[str, Credential]:
    """The name of a WebDAV host → the token that is for it: a site's own one, or for what it writes to the common one."""
    found: dict[str, Credential] = {}
    for name, site in config.sites.items():
        if own := credentials.get(f"webdav-{name}"):
            urls = (site.results, site.archive, *([doors[name].url] if name in doors else []))
            found.update({host_of(url): own for url in urls if url.partition("://")[0] in SCHEMES})
    for site in config.sites.values():
        for url in (site.results, site.archive):
            if url.partition("://")[0] in SCHEMES:
                found.setdefault(host_of(url), credentials["webdav"])
    return found


def _tape(
    config: Config,
    clock: Clock,
    http: Http,
    by_tools: GfalArchive,
    sites: dict[str, Site],
    credentials: Mapping[str, Credential],
    keyring: Keyring,
) -> tuple[dict[str, Stager], dict[str, Archive]]:
    """For each site its stager and what tells where its files are; "" has the legacy stager.

    Sites that are staged alike share one stager, so that one call asks for the requests of all of them. A dCache whose
    host says at which site it is, or that is a site's own, takes the macaroons of that site and no other.
    """
    by_stageit = {name for name, site in config.sites.items() if site.staging == "stageit"}

    def archive(gate: str, credential: Credential | None, url: str, site: str = "") -> Archive:
        if config.dcache.ask == "xattr":
            return by_tools
        is_keyed = site in by_stageit and config.dcache.ask == "namespace"
        return Dcache(
            http,
            sites[gate],
            credential,
            url,
            ask="namespace" if config.dcache.ask == "namespace" else "archiveinfo",
            pool_group=config.dcache.pool_group,
            keyring=keyring if is_keyed else None,
            keys_of=site,
        )

    try:
        at = site_of(host_of(config.dcache.url))
    except ValueError:
        at = ""
    shared = archive("dcache", credentials["dcache"], config.dcache.url, at)
    stageit = StageIt(http, sites["stageit"], credentials["stageit"], config.stageit.url, clock, keyring=keyring)
    if by_stageit:
        keyring.source = stageit.progress
    stagers: dict[str, Stager] = {"": LtaStager(http, sites["lta"], credentials["lta"], config.lta.url)}
    archives: dict[str, Archive] = {"": shared}
    for name, site in config.sites.items():
        gate, url = "dcache", site.dcache or config.dcache.url
        credential: Credential | None = credentials["dcache"]
        archives[name] = shared
        if site.dcache or f"dcache-{name}" in credentials:
            gate = f"dcache-{name}"
            sites[gate] = Site(gate, clock)
            is_one_host = host_of(url) == host_of(config.dcache.url)
            credential = credentials.get(gate, credential if is_one_host else None)
            archives[name] = archive(gate, credential, url, name if site.dcache else at)
        if site.staging == "dcache":
            stagers[name] = DcacheStager(
                http,
                sites[gate],
                credential,
                url,
                lifetime_s=duration_s(config.staging.lifetime),
                bulk=config.dcache.bulk,
                srm_host=find_srm_host(name),
            )
        else:
            stagers[name] = stageit if site.staging == "stageit" else stagers[""]
    return stagers, archives


GIT_KINDS = {"build_sandbox", "git_head"}
"""Steps that start git."""
PROXY_SCHEMES = ("gsiftp://", "srm://", "root://")
"""Doors that the gfal tools open with a proxy."""
ON_THE_GRID = ("glite", "dirac", "arc")
"""Batch systems that take no job without a proxy."""
PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "X509_USER_PROXY",
    "X509_CERT_DIR",
    "X509_VOMS_DIR",
    "GFAL_PYTHONBIN",
    "SLURM_CONF",
)
"""Of its own environment aglowd gives its commands only this."""


def shown_to_templates(config: Config) -> dict[str, Json]:
    """What pipelines see of the configuration: no secret is in it. `route[SITE]` is where data of that site are processed."""
    sites = {
        name: {**msgspec.to_builtins(site), "name": name, "pilots": _pilots(site.jobs, config)}
        for name, site in config.sites.items()
    }
    return {
        "sites": sites,
        "route": {name: sites[site.process or name] for name, site in config.sites.items()},
        "config": {
            "srm_dir": config.catalogue.srm_dir,
            "statuses": msgspec.to_builtins(config.catalogue.statuses),
            "pilots": _pilots(config.jobs, config),
            "staging": {"lifetime": config.staging.lifetime},
            "picas": {"url": config.picas.url, "database": config.picas.database},
        },
    }


def _pilots(jobs: BatchConfig, config: Config) -> dict[str, Json]:
    """What steps need to know of how pilots are started."""
    return {
        "executable": jobs.executable,
        "arguments": list(jobs.arguments),
        "requirements": jobs.requirements,
        "nodes_per_submission": jobs.nodes_per_submission,
        "max_pilots": 0 if jobs.system == "none" else jobs.max_pilots,
        "wall_time": jobs.wall_time,
        "proxy": jobs.proxy,
        "proxy_minimum": config.proxy.minimum if jobs.system in ON_THE_GRID else "",
    }
