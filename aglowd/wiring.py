"""Wires the rooms together: adapters, pipelines and secrets as the configuration names them. Nothing is asked here."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec

from aglowd.clock import Clock
from aglowd.config import Config, ConfigError, Problem, TomlFile, load_config
from aglowd.credentials import Secrets
from aglowd.durations import duration_s
from aglowd.effects.base import World
from aglowd.grid.archive import Archive
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.dcache import Dcache
from aglowd.grid.dcache_events import DcacheEvents, place_of
from aglowd.grid.dcache_stage import DcacheStager
from aglowd.grid.gate import Credential, Site, Sites
from aglowd.grid.gfal import Gfal, GfalArchive
from aglowd.grid.glite import Glite
from aglowd.grid.http import Http
from aglowd.grid.keyring import Keyring
from aglowd.grid.lta import LtaStager
from aglowd.grid.picas import Picas
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy
from aglowd.grid.stageit import StageIt
from aglowd.grid.stager import Stager
from aglowd.grid.storage import Storage
from aglowd.grid.surl import DOORS, GSIFTP, SITES, Door, site_of
from aglowd.grid.webdav import WebDav
from aglowd.grid.webdav_text import SCHEMES, host_of
from aglowd.handlers import HANDLERS
from aglowd.handlers.run import Run
from aglowd.model import Handler, Json
from aglowd.pipeline import Pipeline
from aglowd.pipeline_file import load_pipeline
from aglowd.templates import is_template

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


def load_pipelines(directory: str, wanted: str) -> dict[str, Pipeline]:
    """All pipelines of that directory ("" = those that come with aglowd), `wanted` among them.

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
        pipelines[pipeline.name] = pipeline
    for pipeline in pipelines.values():
        for step in pipeline.steps.values():
            named = step.params.get("pipeline")
            if step.kind == Run.kind and not is_template(named) and named not in pipelines and not problems:
                known = f"known: {', '.join(sorted(pipelines))}"
                what = f"step {step.name!r} runs {named!r}, which is no pipeline"
                problems.append(Problem(step.file, step.line, what, known))
    if not problems and wanted not in pipelines:
        known = ", ".join(sorted(pipelines)) or "none"
        problems.append(Problem(str(place), 1, f"there is no pipeline {wanted!r}", f"known: {known}"))
    if problems:
        raise ConfigError(problems)
    return pipelines


def check_files(path: Path) -> dict[str, Pipeline]:
    """The pipelines, if the configuration and all of them are well; ConfigError with every problem of every file."""
    problems: list[Problem] = []
    pipelines: dict[str, Pipeline] = {}
    directory, wanted = "", "sksp"
    try:
        config = load_config(path)
        directory, wanted = config.pipelines.directory, config.catalogue.pipeline
    except ConfigError as error:
        problems.extend(error.problems)
        # The pipelines are looked at all the same, where the file says that they are.
        with contextlib.suppress(ConfigError, AttributeError):
            data = TomlFile.read(path).data
            directory = str(data.get("pipelines", {}).get("directory", directory))
            wanted = str(data.get("catalogue", {}).get("pipeline", wanted))
    try:
        pipelines = load_pipelines(directory, wanted)
    except ConfigError as error:
        problems.extend(error.problems)
    if problems:
        raise ConfigError(problems)
    return pipelines


class _Sandbox(Mapping[str, str]):
    """The pilots' input files. The token database's password is read when it is needed: it may have been changed."""

    def __init__(self, picas: Callable[[], str], files: Mapping[str, str]) -> None:
        self._picas = picas
        self._files = files

    def __getitem__(self, name: str) -> str:
        return self._picas() if name == "picas.json" else self._files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("picas.json", *self._files))

    def __len__(self) -> int:
        return 1 + len(self._files)


def build_world(config: Config, clock: Clock, secrets: Secrets) -> tuple[World, dict[str, Site]]:
    """The outside systems as this configuration names them."""
    state = Path(config.daemon.state_dir)
    work_dir = state / "work"
    work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    sites = {name: Site(name, clock) for name in ("lta", "stageit", "dcache", "picas", "glite", "web")}
    # Who starts programs and does not answer takes half of their places, and leaves the others to everybody else.
    most = max(config.daemon.processes // 2, 1)
    sites["glite"] = Site("glite", clock, concurrency=most)
    credentials = secrets.credentials
    http = Http(clock, longest_s=duration_s(config.daemon.http_longest))
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if config.proxy.path:
        environment["X509_USER_PROXY"] = config.proxy.path
    processes = Processes(
        concurrency=config.daemon.processes,
        longest_s=duration_s(config.daemon.command_longest),
        path=config.daemon.tool_path or None,
        env=environment,
    )

    def picas() -> str:
        credential = credentials["picas"]
        values = {
            "user": credential.user,
            "password": credential.password,
            "database": config.picas.database,
            "url": config.picas.url,
        }
        return msgspec.json.encode(values).decode()

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
    sandbox = {Path(name).name: Path(name).read_text(encoding="utf-8") for name in config.jobs.sandbox_files}
    world = World(
        clock=clock,
        http=http,
        processes=processes,
        stagers=stagers,
        archives=archives,
        picas=Picas(http, sites["picas"], credentials["picas"], config.picas.url, config.picas.database),
        glite=Glite(
            processes,
            sites["glite"],
            endpoint=config.jobs.endpoint or None,
            delegation=config.jobs.delegation or None,
            work_dir=work_dir,
        ),
        storage=Storage(processes, Sites("storage", clock, sites, concurrency=most), web, work_dir=work_dir),
        proxy=Proxy(processes, config.proxy.path or None),
        catalogue=CsvCatalogue(
            Path(config.catalogue.path),
            f"{socket.gethostname()}:{state}",
            selectors=config.catalogue.select,
            clock=clock,
        ),
        web=sites["web"],
        work_dir=work_dir,
        sandbox=_Sandbox(picas, sandbox),
        staging_settle_s=duration_s(config.staging.settle),
        protected=config.storage.protected,
        deletable=config.storage.deletable,
    )
    if config.dcache.events:
        client = f"aglowd-{socket.gethostname()}:{state}"
        world.events = DcacheEvents(
            http,
            sites["dcache"],
            credentials["dcache"],
            config.dcache.url,
            client,
            elsewhere=_elsewhere(config, doors),
        )
    return world, sites


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
                srm_host=GSIFTP[name][0] if name in GSIFTP else None,
            )
        else:
            stagers[name] = stageit if site.staging == "stageit" else stagers[""]
    return stagers, archives


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
)
"""Of its own environment aglowd gives its commands only this."""


def shown_to_templates(config: Config) -> dict[str, Json]:
    """What pipelines see of the configuration: no secret is in it."""
    jobs = config.jobs
    pilots = {
        "executable": jobs.executable,
        "arguments": list(jobs.arguments),
        "requirements": jobs.requirements,
        "nodes_per_submission": jobs.nodes_per_submission,
        "max_pilots": jobs.max_pilots,
        "proxy_minimum": config.proxy.minimum,
    }
    return {
        "sites": msgspec.to_builtins(config.sites),
        "config": {
            "srm_dir": config.catalogue.srm_dir,
            "pilots": pilots,
            "staging": {"lifetime": config.staging.lifetime},
            "picas": {"url": config.picas.url, "database": config.picas.database},
        },
    }
