"""The life of the process: start, signals, health, orderly stop.

Start = lock, check, migrate, open the socket, say READY; asking the world goes on behind it, field by field. Stop is
no special state: what is under way is left to the journal, as after a kill.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from msgspec.structs import asdict

from aglowd import __version__, field_orders, log, orders, token_orders
from aglowd.access import Access
from aglowd.adoption import Adoption
from aglowd.audit import Audit
from aglowd.capacity import Capacity
from aglowd.clock import Clock
from aglowd.config import Config, NotifyConfig, load_config
from aglowd.control import Control, Health, LoopHealth, SystemHealth, Verdict
from aglowd.credentials import Secrets
from aglowd.doctor import FAIL, OK, WARN, Check
from aglowd.durations import duration_s
from aglowd.effects import DEEDS
from aglowd.effects.engine import Engine
from aglowd.errors import AglowError
from aglowd.grid import tokens
from aglowd.grid.catalogue import daemon_name
from aglowd.grid.sandbox import forget_sandboxes
from aglowd.grid.storage import forget_copies
from aglowd.keeper import RENEW_REAL_S
from aglowd.metrics import Metrics
from aglowd.model import Json
from aglowd.notify import Notifier
from aglowd.pipeline import Pipeline
from aglowd.reactor import Pipelines, Reactor, Terms, outputs_of
from aglowd.rehearsal import Rehearsal
from aglowd.reload import Reloader
from aglowd.selection import Limits
from aglowd.steering import Steering
from aglowd.store.doubts import Word
from aglowd.store.store import Store
from aglowd.teller import Teller, Troubles, troubles_of
from aglowd.threads import Threads
from aglowd.toml_file import ConfigError
from aglowd.upkeep import Upkeep
from aglowd.watchers import WATCHERS
from aglowd.wiring import (
    build_channels,
    build_doctor,
    build_keeper,
    build_world,
    handler_kinds,
    load_pipelines,
    place_of_state,
    planned_runs,
    shown_to_templates,
)

GRACE_REAL_S = 120.0
"""Real seconds beyond its own interval after which a loop that shows no progress counts as stuck."""
QUIET_REAL_S = 0.25
"""Real seconds between two looks whether one pass is over."""
FORCE_REAL_S = 6.0
"""Real seconds beyond stop_timeout after which the process ends itself, whatever hangs: as after a kill, nothing is lost."""


class Daemon:
    """One aglowd. `run` returns when it was told to stop; `clock` and `signals` are its own in a process of its own."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
        path: Path | None = None,
    ) -> None:
        self.config = config
        self._path = path
        self._told: NotifyConfig | None = None
        self._hung_up = asyncio.Event()
        self._adopting = asyncio.Lock()
        self.clock = clock or Clock(config.clock.rate, config.clock.origin)
        self._signals = tuple(signals)
        self._log = structlog.get_logger("daemon")
        self._notifier = Notifier()
        self.stopping = asyncio.Event()
        self._ready = False
        self._once = False
        self._pools_used: Mapping[str, int] = {}
        self._excused_at = 0.0
        self._trouble_since: float | None = None
        self._threads = Threads("the files of passwords and tokens", most=1)

    def stop(self) -> None:
        """Begin the orderly stop; safe to call twice."""
        self.stopping.set()

    async def run(self, *, once: bool = False) -> bool:
        """Start, work, and stop on SIGTERM or SIGINT; StoreError or ConfigError if it cannot start.

        `once`: stop when all was looked at and all that was due is done. Returns whether nothing is in doubt then.
        """
        config, clock, self._once = self.config, self.clock, once
        field_pipeline, words = config.catalogue.pipeline, asdict(config.catalogue.statuses)
        directory, secrets = config.pipelines.directory, tuple(config.secrets)
        loaded = load_pipelines(directory, field_pipeline, secrets, config.catalogue.statuses)
        # Who has pipelines of their own can have files staged, tokens reset and jobs cancelled all the same.
        self._shipped = load_pipelines("", orders.PIPELINE)
        self._pipelines = Pipelines(loaded)
        state = Path(config.daemon.state_dir)
        self._secrets = Secrets(config)
        self._store = store = Store(state / "aglowd.db", clock, outputs_of)
        await store.open()
        try:
            name = await store.identity(daemon_name(place_of_state(config), clock.token()), config.daemon.tag)
            adoptable = [words[word] for word in loaded[field_pipeline].adopt]
            self._world, self._sites = build_world(config, clock, self._secrets, name, adoptable)
            doctor = build_doctor(config, self._world, self._secrets, loaded, self._checks)
        except BaseException:
            await store.close()
            raise
        try:
            for forget in (forget_sandboxes, forget_copies):  # Only now, with the lock, nobody else uses them.
                await asyncio.to_thread(forget, self._world.work_dir)
            await asyncio.to_thread(tokens.load)
            self._engine = Engine(store, self._world, DEEDS, clock)
            self._reactor = Reactor(store, handler_kinds(), self._pipelines, clock, **_terms(config, loaded))
            self._watchers = tuple(watcher.build(self._world, store, config) for watcher in WATCHERS)
            self._audit = Audit(store, self._world, duration_s(config.daemon.audit))
            self._started = clock.now()
            self._keeper = build_keeper(config, store, self._world)
            self._upkeep = Upkeep(store, clock, config.history, duration_s(config.staging.lifetime))
            self._teller = Teller(store, {}, clock, self._troubles, gather_s=0.0, apart_s=0.0)
            self._access = Access()
            self._reloader = Reloader(self._path, store, self._notifier, self._apply, config, loaded)
            self._capacity = Capacity(store, self._watchers, config.pools, self._reactor.candidates)
            self._metrics = Metrics(store, self.health, clock, __version__, self._sites, self._watchers)
            self._control = Control(
                store,
                self.health,
                clock,
                __version__,
                self._settle,
                candidates=self._reactor.candidates,
                access=self._access,
                reload=self._reloader.reload,
                capacity=self._capacity,
                silence=self._silence,
                metrics=self._metrics.answer,
                log_place=log.place(),
                doctor=doctor,
            )
            self._heed(config, loaded)
            async with (
                self._control.serve(Path(config.daemon.socket), config.daemon.socket_group),
                self._metrics.serve(config.daemon.metrics),
            ):
                await self._work(once=once)
            status = await store.status()
            return not (status["findings"] or {"open", "unknown", "doubt"} & status["effects"].keys())
        finally:
            await doctor.close()
            await self._world.http.close()
            await self._world.catalogue.close()
            await store.close()
            log.tell_repeats(at_once=True)
            self._log.info("stopped")

    def _heed(self, config: Config, loaded: Mapping[str, Pipeline]) -> None:
        """Go on with these values, at the start and after each reload: what a reload applies has its place here."""
        self.config = config
        self._pipelines.replace(loaded)
        self._reactor.heed(**_terms(config, loaded))
        for watcher in self._watchers:
            watcher.heed(config)
        self._engine.most = config.daemon.effects
        self._capacity.pools = config.pools
        proxy = config.proxy
        self._keeper.heed(duration_s(proxy.poll), minimum_s=duration_s(proxy.minimum), warn_s=duration_s(proxy.warn))
        self._audit.poll_s = duration_s(config.daemon.audit)
        self._upkeep.heed(config.history, duration_s(config.staging.lifetime))
        world = self._world
        world.http.longest_s = duration_s(config.daemon.http_longest)
        world.staging_settle_s = duration_s(config.staging.settle)
        world.protected, world.deletable = config.storage.protected, config.storage.deletable
        if config.notify != self._told:  # A message that is on its way is not broken off for nothing.
            notify = self._told = config.notify
            channels = build_channels(config, world)
            gather_s, apart_s = (0.0 if self._once else duration_s(text) for text in (notify.gather, notify.apart))
            self._teller.heed(channels, gather_s=gather_s, apart_s=apart_s)
        self._access.heed(config.daemon.operators)
        self._seat(config, loaded)
        self._store.bells.effects.set()

    def _seat(self, config: Config, loaded: Mapping[str, Pipeline]) -> None:
        """Those who take people's orders know nothing of their own: they are made anew."""
        store, world, pipelines = self._store, self._world, self._pipelines
        shipped = self._shipped
        ordered_by = (orders.PIPELINE, token_orders.RESET, token_orders.CANCEL, field_orders.RELEASE)
        stage, reset, cancel, release = (loaded.get(name) or shipped[name] for name in ordered_by)
        kinds, shown, words = handler_kinds(), shown_to_templates(config), asdict(config.catalogue.statuses)
        rehearsal = Rehearsal(kinds, pipelines.digests, shown)
        named, pinned_s = config.catalogue, duration_s(config.staging.lifetime)
        self._control.seat(
            orders.Orders(store, world, stage, config.sites, pinned_s),
            token_orders.TokenOrders(store, world, reset, cancel),
            Steering(store, self._reactor, pipelines, rehearsal, kinds, config.sites, named.pipeline, pinned_s),
            field_orders.FieldOrders(store, world, release, named.select, words.values()),
            Adoption(
                store,
                loaded[named.pipeline],
                words,
                shown,
                world.token_base,
                world.catalogue,
                world.storage,
                Limits(named.max_fields, {name: site.fields_at_once for name, site in config.sites.items()}),
                self._adopting,
            ),
        )

    async def _apply(self, config: Config, loaded: Mapping[str, Pipeline]) -> None:
        """Heed them, and do what else has to be done when they change."""
        before, now = self.config.daemon, config.daemon
        self._heed(config, loaded)
        if (before.log_format, before.log_level) != (now.log_format, now.log_level):
            log.configure(now.log_format, now.log_level, path=now.log_file)
        if before.socket_group != now.socket_group:
            await self._control.give_to(now.socket_group)
        await self._store.ask_queued()
        await self._renew_secrets()

    async def _work(self, *, once: bool) -> None:
        loop = asyncio.get_running_loop()
        for number in self._signals:
            loop.add_signal_handler(number, self.stop)
        if self._signals:
            loop.add_signal_handler(signal.SIGHUP, self._hung_up.set)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._engine.run(), name="effects"),
                    group.create_task(self._reactor.run(), name="reactor"),
                    group.create_task(self._audit.run(), name="audit"),
                    group.create_task(self._teller.run(), name="teller"),
                    group.create_task(self._keeper.run(), name="keeper"),
                    group.create_task(self._upkeep.run(), name="upkeep"),
                    group.create_task(self._beat(), name="heartbeat"),
                    group.create_task(self._hear(), name="hang-ups"),
                    group.create_task(self._metrics.lag.run(), name="loop lag"),
                    *(group.create_task(watcher.run(), name=f"watcher {watcher.kind}") for watcher in self._watchers),
                ]
                self._ready = True
                self._notifier.ready("running")
                if once:
                    tasks.append(group.create_task(self._pass(), name="one pass"))
                self._log.info("ready", version=__version__, pid=os.getpid(), rate=self.clock.rate)
                await self.stopping.wait()
                self._notifier.stopping()
                self._log.info("stopping", effects_under_way=len(self._engine.busy))
                await self._let_effects_end()
                for task in tasks:
                    task.cancel()
        finally:
            for number in (*self._signals, signal.SIGHUP):
                loop.remove_signal_handler(number)

    async def _hear(self) -> None:
        """A hang-up means that everything is to be read anew; several that come meanwhile are one."""
        while True:
            await self._hung_up.wait()
            self._hung_up.clear()
            try:
                await self._reloader.reload(None)
            except AglowError:
                continue  # It is in the log and on record; the old configuration stays.
            except Exception:
                self._log.exception("reload_raised")

    async def _pass(self) -> None:
        """Begin the stop when all is quiet, after the audit too."""
        await self._quiet()
        await self._audit.look()
        await self._quiet()
        self._log.info("one_pass_is_over")
        self.stop()

    async def _quiet(self) -> None:
        """Return when every watcher has looked, nothing is to be decided, done or told now, and no commit came meanwhile."""
        seen = -1
        while True:
            commits = self._store.db.commits
            looked = self._keeper.rested and all(watcher.is_at_rest for watcher in self._watchers)
            idle = looked and await self._engine.is_idle() and not await self._store.next_dirty(1)
            if idle and await self._teller.has_told():
                if commits == seen:
                    return
                seen = commits
            else:
                seen = -1
            await asyncio.sleep(QUIET_REAL_S)

    async def _let_effects_end(self) -> None:
        """Give what is under way its time; what does not end in time stands in the journal as open."""
        try:
            async with asyncio.timeout(duration_s(self.config.daemon.stop_timeout)):
                await self._engine.drain()
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
            await self._renew_secrets()
            log.tell_repeats()
            if health.database:
                self._log.warning("not_accepting", error=health.database)
            text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no fields"
            waits = f"NOT ACCEPTING, {health.database}; " if health.database else ""
            self._notifier.status(f"{waits}{text}; {len(self._engine.busy)} effects under way")
            await asyncio.sleep(
                min(self._notifier.watchdog_interval_s / 3, 20.0) if self._notifier.watchdog_interval_s else 20.0
            )

    async def _renew_secrets(self) -> None:
        try:
            renewed = await self._threads.run(self._secrets.renew)
        except (ConfigError, OSError) as error:
            self._log.warning("secret_unreadable", error=str(error))
        else:
            if renewed:
                self._log.info("secrets_renewed", credentials=renewed)

    async def _settle(self, verdict: Verdict, uid: int) -> str:
        return await self._engine.settle(verdict.key, verdict.action, verdict.ref, Word(uid, verdict.reason))

    def _troubles(self) -> Troubles:
        noted = troubles_of(
            self._sites,
            self._secrets.credentials,
            down_after_s=duration_s(self.config.notify.down_after),
            started=self._started,
            now=self.clock.now(),
        )
        return {**noted, **self._keeper.troubles()}

    async def _checks(self) -> list[Check]:
        """What the doctor is told of the process itself."""
        health, store = self.health(), self._store
        found = [
            Check(
                "aglowd",
                name,
                WARN if loop.ok else FAIL,
                loop.defect or f"no progress for {loop.age_s:.0f} s",
                "see its log",
            )
            for name, loop in health.loops.items()
            if loop.defect or not loop.ok
        ]
        found = found or [Check("aglowd", "loops", OK, f"all {len(health.loops)} make progress, pid {health.pid}")]
        if health.database:
            found.append(Check("aglowd", "database", FAIL, health.database))
            return found
        try:
            broken = await store.check()
        except AglowError as error:
            found.append(Check("aglowd", "database", WARN, str(error)))
        else:
            what = "; ".join(broken[:3]) or f"{store.db.path} is whole, and its journal hangs together"
            step = "keep a copy, then restore the last backup that is good: aglowctl verify FILE" if broken else ""
            found.append(Check("aglowd", "database", FAIL if broken else OK, what, step))
        doubts = await store.doubts()
        if doubts["doubts"] or doubts["findings"]:
            what = f"{len(doubts['doubts'])} effects without a known outcome, {len(doubts['findings'])} findings of the audit"
            found.append(Check("aglowd", "doubt", WARN, what, "aglowctl doubt"))
        return found

    def _silence(self, key: str) -> Json | None:
        return next((watcher.silent[key] for watcher in self._watchers if key in watcher.silent), None)

    def health(self) -> Health:
        """How the daemon is, without asking anybody."""
        now, trouble = self.clock.now(), self._store.db.trouble
        if trouble:
            self._trouble_since = self._trouble_since or now
            self._excused_at = now  # Who waits for the disk is not stuck, and no restart would make room there.
        else:
            self._trouble_since = None
        renewal_s = 2 * RENEW_REAL_S * self.clock.rate  # With the looks before and after it.
        loops = {
            "reactor": self._loop(now - self._reactor.progress_at, 0.0, "; ".join(self._reactor.defects.values())),
            "effects": self._loop(now - self._engine.progress_at, 0.0, self._engine.defect),
            "audit": self._loop(now - self._audit.progress_at, 0.0),
            "teller": self._loop(now - self._teller.progress_at, 0.0, "; ".join(self._teller.defects.values())),
            "keeper": self._loop(now - self._keeper.progress_at, renewal_s, self._keeper.defect),
            "upkeep": self._loop(now - self._upkeep.progress_at, 0.0, self._upkeep.defect),
        }
        for watcher in self._watchers:
            age_s = now - watcher.progress_at
            loops[f"watcher {watcher.kind}"] = self._loop(age_s, watcher.poll_s * 8, watcher.defect, watcher.note)
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
        return Health(
            alive=all(loop.ok for loop in loops.values()),
            ready=self._ready and not trouble,
            missing=("starting",) if not self._ready else (trouble,) if trouble else (),
            loops=loops,
            systems=systems,
            credentials={name: credential.frozen or "" for name, credential in self._secrets.credentials.items()},
            proxy_seconds_left=self._keeper.left_s,
            started=self._started,
            pid=os.getpid(),
            pools={name: (self._pools_used.get(name, 0), size) for name, size in self.config.pools.items()},
            database=trouble,
            restart=self._reloader.waiting,
            database_since=self._trouble_since,
        )

    def _loop(self, age_s: float, interval_s: float, defect: str = "", note: str = "") -> LoopHealth:
        age_real_s = self.clock.real_s(min(age_s, self.clock.now() - self._excused_at))
        grace_s = self.clock.real_s(interval_s) + GRACE_REAL_S
        return LoopHealth(age_s=age_real_s, grace_s=grace_s, ok=age_real_s < grace_s, defect=defect, note=note)


def _terms(config: Config, loaded: Mapping[str, Pipeline]) -> Terms:
    """By what the reactor decides, as the configuration says."""
    return {
        "pools": config.pools,
        "shown": shown_to_templates(config),
        "select": config.catalogue.select,
        "field_pipeline": config.catalogue.pipeline,
        "max_fields": config.catalogue.max_fields,
        "schedules": planned_runs(loaded),
        "fields_at_once": {name: site.fields_at_once for name, site in config.sites.items()},
    }


async def serve(path: Path, *, once: bool = False) -> bool:
    """Load the configuration, set up the log and run until told to stop, or for one pass; whether nothing is in doubt then."""
    config = load_config(path)
    log.configure(config.daemon.log_format, config.daemon.log_level, path=config.daemon.log_file)
    daemon = Daemon(config, path=path)
    forcing = asyncio.create_task(_end_in_any_case(daemon), name="stop limit")
    try:
        return await daemon.run(once=once)
    finally:
        forcing.cancel()


async def _end_in_any_case(daemon: Daemon) -> None:
    """From the stop on a clock runs that needs no event loop: a thread that hangs on a dead disk holds nothing up."""
    await daemon.stopping.wait()
    limit_s = duration_s(daemon.config.daemon.stop_timeout) + FORCE_REAL_S
    timer = threading.Timer(limit_s, os._exit, [0])
    timer.daemon = True
    timer.start()
