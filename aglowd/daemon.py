"""Wires the rooms together, and owns the life of the process: start, signals, orderly stop.

Start = lock, check, migrate, open the socket, say READY; asking the world goes on behind it, field by field. Stop is
no special state: what is under way is left to the journal, as after a kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from aglowd import __version__, log
from aglowd.clock import Clock
from aglowd.config import Config, ConfigError, Problem, load_config, read_secret
from aglowd.control import Control, Health, LoopHealth, SystemHealth
from aglowd.durations import duration_s
from aglowd.effects import DEEDS
from aglowd.effects.base import World
from aglowd.effects.engine import Engine
from aglowd.grid import tokens
from aglowd.grid.catalogue_csv import CsvCatalogue
from aglowd.grid.dcache import Dcache
from aglowd.grid.gate import Credential, Site
from aglowd.grid.glite import Glite
from aglowd.grid.http import Http
from aglowd.grid.lta import LtaStager
from aglowd.grid.picas import Picas
from aglowd.grid.proc import Processes
from aglowd.grid.proxy import Proxy
from aglowd.grid.storage import Storage
from aglowd.handlers import HANDLERS
from aglowd.model import Handler, Json
from aglowd.notify import Notifier
from aglowd.pipeline import Pipeline, load_pipeline
from aglowd.reactor import Pipelines, Reactor, outputs_of
from aglowd.store.store import Store
from aglowd.watchers import WATCHERS
from aglowd.watchers.base import Watcher
from aglowd.watchers.tokens import Tokens

SHIPPED_PIPELINES = (
    Path(__file__).parent.parent / "etc" / "pipelines",
    Path(sys.prefix) / "share" / "aglowd" / "pipelines",
)
"""Where the pipelines that come with aglowd lie: beside the package in a source tree, else where they were installed."""
GRACE_REAL_S = 120.0
"""Real seconds beyond its own interval after which a loop that shows no progress counts as stuck."""
BEAT_REAL_S = 1.0


def handler_kinds() -> dict[str, Handler]:
    """Every kind of step, by its name in pipeline files."""
    return {handler.kind: handler() for handler in HANDLERS}


def shipped_pipelines() -> Path:
    """The directory of the pipelines that come with aglowd."""
    return next((path for path in SHIPPED_PIPELINES if path.is_dir()), SHIPPED_PIPELINES[-1])


def load_pipelines(config: Config) -> dict[str, Pipeline]:
    """All pipelines of the configured directory; ConfigError with every problem of every file."""
    directory = Path(config.pipelines.directory) if config.pipelines.directory else shipped_pipelines()
    kinds = {kind: handler.Params for kind, handler in handler_kinds().items()}
    pipelines: dict[str, Pipeline] = {}
    problems: list[Problem] = []
    for path in sorted(directory.glob("*.toml")):
        try:
            pipeline = load_pipeline(path, kinds)
        except ConfigError as error:
            problems.extend(error.problems)
        else:
            pipelines[pipeline.name] = pipeline
    if not problems and config.catalogue.pipeline not in pipelines:
        known = ", ".join(sorted(pipelines)) or "none"
        problems.append(
            Problem(str(directory), 1, f"there is no pipeline {config.catalogue.pipeline!r}", f"known: {known}")
        )
    if problems:
        raise ConfigError(problems)
    return pipelines


def _credential(name: str, user: str, password_file: str) -> Credential:
    password = read_secret(password_file) if password_file else None
    if password:
        log.register_secret(password)
    return Credential(name, user=user or None, password=password)


def build_world(config: Config, clock: Clock) -> tuple[World, dict[str, Site], dict[str, Credential]]:
    """The outside systems as this configuration names them; nothing is asked yet."""
    state = Path(config.daemon.state_dir)
    work_dir = state / "work"
    work_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    sites = {name: Site(name, clock) for name in ("lta", "dcache", "picas", "glite", "storage", "web")}
    credentials = {
        "lta": _credential("lta", config.lta.user, config.lta.password_file),
        "picas": _credential("picas", config.picas.user, config.picas.password_file),
        "dcache": Credential(
            "dcache", token=read_secret(config.dcache.token_file) if config.dcache.token_file else None
        ),
    }
    http = Http(clock)
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if config.proxy.path:
        environment["X509_USER_PROXY"] = config.proxy.path
    processes = Processes(concurrency=config.daemon.processes, path=config.daemon.tool_path or None, env=environment)
    picas = {
        "user": credentials["picas"].user,
        "password": credentials["picas"].password,
        "database": config.picas.database,
        "url": config.picas.url,
    }
    sandbox = {Path(name).name: Path(name).read_text(encoding="utf-8") for name in config.jobs.sandbox_files}
    world = World(
        clock=clock,
        http=http,
        processes=processes,
        lta=LtaStager(http, sites["lta"], credentials["lta"], config.lta.url),
        dcache=Dcache(http, sites["dcache"], credentials["dcache"], config.dcache.url),
        picas=Picas(http, sites["picas"], credentials["picas"], config.picas.url, config.picas.database),
        glite=Glite(
            processes,
            sites["glite"],
            endpoint=config.jobs.endpoint or None,
            delegation=config.jobs.delegation or None,
            work_dir=work_dir,
        ),
        storage=Storage(processes, sites["storage"]),
        proxy=Proxy(processes, config.proxy.path or None),
        catalogue=CsvCatalogue(
            Path(config.catalogue.path),
            f"{socket.gethostname()}:{state}",
            selectors=config.catalogue.select,
            clock=clock,
        ),
        web=sites["web"],
        work_dir=work_dir,
        sandbox={"picas.json": msgspec.json.encode(picas).decode(), **sandbox},
        staging_settle_s=duration_s(config.lta.settle),
    )
    return world, sites, credentials


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
            "picas": {"url": config.picas.url, "database": config.picas.database},
        },
    }


class Daemon:
    """One aglowd. `run` returns when it was told to stop."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = Clock(config.clock.rate, config.clock.origin)
        self._log = structlog.get_logger("daemon")
        self._notifier = Notifier()
        self._stopping = asyncio.Event()
        self._ready = False
        self._pools_used: Mapping[str, int] = {}

    def stop(self) -> None:
        """Begin the orderly stop; safe to call twice."""
        self._stopping.set()

    async def run(self) -> None:
        """Start, work, and stop on SIGTERM or SIGINT; StoreError or ConfigError if it cannot start."""
        config, clock = self.config, self.clock
        pipelines = Pipelines(load_pipelines(config))
        state = Path(config.daemon.state_dir)
        self._world, self._sites, self._credentials = build_world(config, clock)
        self._store = store = Store(state / "aglowd.db", clock, outputs_of)
        await store.open()
        try:
            await asyncio.to_thread(tokens.load)
            self._engine = Engine(store, self._world, DEEDS, clock, config.daemon.effects)
            self._reactor = Reactor(
                store,
                handler_kinds(),
                pipelines,
                clock,
                pools=config.pools,
                shown=shown_to_templates(config),
                select=config.catalogue.select,
                field_pipeline=config.catalogue.pipeline,
                max_fields=config.catalogue.max_fields,
            )
            self._watchers = self._build_watchers()
            self._started = clock.now()
            control = Control(store, self.health, clock, __version__)
            async with control.serve(Path(config.daemon.socket)):
                await self._work()
        finally:
            await self._world.http.close()
            await store.close()
            self._log.info("stopped")

    def _build_watchers(self) -> tuple[Watcher, ...]:
        config = self.config
        polls = {
            "field": config.catalogue.poll,
            "srm_list": config.catalogue.poll,
            "proxy": config.proxy.poll,
            "staging": config.lta.poll,
            "locality": config.dcache.poll,
            "tokens": config.picas.poll,
            "results": config.picas.gather,
            "job": config.jobs.poll,
            "directory": config.storage.poll,
            "http": "30s",
        }
        watchers = tuple(watcher(self._world, self._store, duration_s(polls[watcher.kind])) for watcher in WATCHERS)
        for watcher in watchers:
            if isinstance(watcher, Tokens):
                watcher.gather_s = duration_s(config.picas.gather)
        return watchers

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._engine.run(), name="effects"),
                    group.create_task(self._reactor.run(), name="reactor"),
                    group.create_task(self._beat(), name="heartbeat"),
                    *(group.create_task(watcher.run(), name=f"watcher {watcher.kind}") for watcher in self._watchers),
                ]
                self._ready = True
                self._notifier.ready("running")
                self._log.info("ready", version=__version__, pid=os.getpid(), rate=self.clock.rate)
                await self._stopping.wait()
                self._notifier.stopping()
                self._log.info("stopping", effects_under_way=len(self._engine.busy))
                await self._let_effects_end()
                for task in tasks:
                    task.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def _let_effects_end(self) -> None:
        """Give what is under way its time; what does not end in time stands in the journal as open."""
        try:
            await asyncio.wait_for(self._engine.drain(), duration_s(self.config.daemon.stop_timeout))
        except TimeoutError:
            self._log.warning("effects_left_open", effects=sorted(self._engine.busy))

    async def _beat(self) -> None:
        """Tell systemd that every loop is alive, and in one line how things stand."""
        while True:
            health = self.health()
            if health.alive:
                self._notifier.watchdog()
            status = await self._store.status()
            counts: Mapping[str, Json] = status["fields"]
            self._pools_used = status["pools"]
            text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no fields"
            self._notifier.status(f"{text}; {len(self._engine.busy)} effects under way")
            await asyncio.sleep(
                min(self._notifier.watchdog_interval_s / 3, 20.0) if self._notifier.watchdog_interval_s else 20.0
            )

    def health(self) -> Health:
        """How the daemon is, without asking anybody."""
        now = self.clock.now()
        loops = {
            "reactor": self._loop(now - self._reactor.progress_at, 0.0),
            "effects": self._loop(now - self._engine.progress_at, 0.0),
        }
        for watcher in self._watchers:
            loops[f"watcher {watcher.kind}"] = self._loop(now - watcher.progress_at, watcher.poll_s * 8)
        systems = {}
        for name, site in self._sites.items():
            seen = site.health
            systems[name] = SystemHealth(
                ok=seen.failures_in_a_row == 0,
                last_ok=seen.last_success,
                last_error=seen.last_error,
                failures=seen.failures_in_a_row,
                backing_off_until=seen.backing_off_until,
            )
        proxy = next(
            (getattr(watcher, "seconds_left", None) for watcher in self._watchers if watcher.kind == "proxy"), None
        )
        return Health(
            alive=all(loop.ok for loop in loops.values()),
            ready=self._ready,
            missing=() if self._ready else ("starting",),
            loops=loops,
            systems=systems,
            credentials={name: credential.frozen or "" for name, credential in self._credentials.items()},
            proxy_seconds_left=proxy,
            started=self._started,
            pid=os.getpid(),
            pools={name: (self._pools_used.get(name, 0), size) for name, size in self.config.pools.items()},
        )

    def _loop(self, age_s: float, interval_s: float) -> LoopHealth:
        age_real_s = self.clock.real_s(age_s)
        grace_s = self.clock.real_s(interval_s) + GRACE_REAL_S
        return LoopHealth(age_s=age_real_s, grace_s=grace_s, ok=age_real_s < grace_s)


async def serve(path: Path) -> None:
    """Load the configuration, set up the log and run until told to stop."""
    config = load_config(path)
    log.configure(config.daemon.log_format, config.daemon.log_level)
    await Daemon(config).run()
