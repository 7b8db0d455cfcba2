"""How the daemon is and what is at work, for Prometheus: `/metrics` on the control socket, and on a TCP address if one is named.

What must stay true: a scrape asks no outside system and reads no history; each label takes its values from a bounded set
(kinds, states, sites, systems, loops), never from what somebody wrote; a database that cannot be read keeps back only what
stands in it. On the TCP address nothing can be changed, and nothing else is served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import Any

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from aglowd.clock import Clock
from aglowd.control import IDLE_S, MAX_LINE_BYTES, Health
from aglowd.errors import AglowError
from aglowd.grid.gate import LATENCIES_S, Site
from aglowd.store.figures import Figures
from aglowd.store.store import Store
from aglowd.watchers.base import Watcher

READ_REAL_S = 5.0
"""Real seconds that a scrape waits for the database."""
LAG_EVERY_REAL_S = 5.0
"""Real seconds between two looks at how late the event loop is."""
LAG_SAMPLES = 12
"""So many of the last looks count."""
EFFECT_ENDS = {"planned": "temporary", "unknown": "unknown", "doubt": "doubt", "done": "done", "rejected": "rejected"}
"""Where a try at an effect has led: what is planned again failed, and nothing was done."""


class Lag:
    """How late the event loop is: what held it up held everything up."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque([0.0], maxlen=LAG_SAMPLES)

    @property
    def worst_s(self) -> float:
        """Real seconds by which a sleep took too long, at worst, in the last minute."""
        return max(self._samples)

    async def run(self) -> None:
        """Measure for ever."""
        loop = asyncio.get_running_loop()
        while True:
            wanted = loop.time() + LAG_EVERY_REAL_S
            await asyncio.sleep(LAG_EVERY_REAL_S)
            self._samples.append(max(0.0, loop.time() - wanted))


class Metrics:
    """All that is told. `sites` and `watchers` are the daemon's own, as they stand at the scrape."""

    def __init__(
        self,
        store: Store,
        health: Callable[[], Health],
        clock: Clock,
        version: str,
        sites: Mapping[str, Site],
        watchers: Iterable[Watcher],
    ) -> None:
        self.lag = Lag()
        self._store = store
        self._health = health
        self._clock = clock
        self._version = version
        self._sites = sites
        self._watchers = tuple(watchers)
        self._process = ProcessCollector(registry=None)
        self._turn = asyncio.Lock()
        self._log = structlog.get_logger("metrics")

    async def answer(self, request: web.Request) -> web.Response:
        """The response to `GET /metrics`."""
        return web.Response(body=await self.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def text(self) -> bytes:
        """Everything, in Prometheus' text format. One at a time: whoever scrapes without end costs no more than one that does."""
        async with self._turn:
            figures: Figures | None = None
            try:
                async with asyncio.timeout(READ_REAL_S):
                    figures = await self._store.figures()
            except (TimeoutError, OSError, AglowError) as error:
                self._log.warning("figures_unread", error=str(error) or f"no answer within {READ_REAL_S:.0f} s")
            families = [*self._of_memory(), *(() if figures is None else self._of_store(figures))]
            return generate_latest(_Collected([*families, *self._process.collect()]))

    @asynccontextmanager
    async def serve(self, address: str) -> AsyncIterator[None]:
        """Answer `GET /metrics` on that HOST:PORT; on none if it is empty. AglowError if it cannot be opened."""
        if not address:
            yield
            return
        application = web.Application()
        application.router.add_get("/metrics", self.answer)
        runner = web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=IDLE_S,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            shutdown_timeout=0.0,
        )
        host, _, port = address.rpartition(":")
        try:
            await runner.setup()
            try:
                await web.TCPSite(runner, host.strip("[]"), int(port)).start()
            except OSError as error:
                raise AglowError(f"daemon.metrics: {address} cannot be opened: {error.strerror or error}") from error
            self._log.info("metrics_served", address=address)
            yield
        finally:
            await runner.cleanup()

    def _of_memory(self) -> Iterator[Metric]:
        """What the process knows of itself."""
        health, now = self._health(), self._clock.now()
        yield _gauge("aglowd_info", "The version of the daemon; always 1.", ["version"], {(self._version,): 1})
        yield _one("aglowd_start_time_seconds", "When the daemon started, in world seconds since 1970.", health.started)
        yield _one("aglowd_alive", "1 while every loop shows progress within its own time.", health.alive)
        yield _one("aglowd_ready", "1 when the daemon has started and its database can be written.", health.ready)
        yield _one("aglowd_store_writable", "0 while the database cannot be written or read.", not health.database)
        loops = {(name,): loop for name, loop in health.loops.items()}
        yield _gauge(
            "aglowd_loop_progress_age_seconds",
            "Real seconds since the loop last showed progress.",
            ["loop"],
            {name: loop.age_s for name, loop in loops.items()},
        )
        yield _gauge(
            "aglowd_loop_grace_seconds",
            "Real seconds that the loop may take to show progress; with more the daemon is not alive.",
            ["loop"],
            {name: loop.grace_s for name, loop in loops.items()},
        )
        yield _gauge(
            "aglowd_loop_defect",
            "1 while the loop stumbles over something nobody thought of; it goes on.",
            ["loop"],
            {name: bool(loop.defect) for name, loop in loops.items()},
        )
        yield _one(
            "aglowd_event_loop_lag_seconds",
            "How late the event loop was at worst in the last minute.",
            self.lag.worst_s,
        )
        yield _gauge(
            "aglowd_watcher_lag_seconds",
            "World seconds without a good look of the watcher; without a value while nothing is waited for.",
            ["watcher"],
            {(watcher.kind,): lag_s for watcher in self._watchers if (lag_s := watcher.lag_s) is not None},
        )
        yield _gauge(
            "aglowd_watcher_poll_seconds",
            "World seconds that the watcher rests between two looks.",
            ["watcher"],
            {(watcher.kind,): watcher.poll_s for watcher in self._watchers},
        )
        yield _gauge(
            "aglowd_watcher_failures",
            "Looks of the watcher in a row that failed.",
            ["watcher"],
            {(watcher.kind,): watcher.failures for watcher in self._watchers},
        )
        if health.proxy_seconds_left is not None:
            text = "World seconds until the grid proxy ends; without a value while nobody knows."
            yield _one("aglowd_proxy_left_seconds", text, health.proxy_seconds_left)
        yield _gauge(
            "aglowd_credential_frozen",
            "1 when an outside system refused the credential: nothing is asked with it any more.",
            ["credential"],
            {(name,): bool(why) for name, why in health.credentials.items()},
        )
        yield from self._of_systems(now)
        outcomes = CounterMetricFamily(
            "aglowd_effects",
            "Tries at effects since the start, by kind and by where they led.",
            labels=["kind", "outcome"],
        )
        for (kind, state), count in sorted(self._store.outcomes.items()):
            outcomes.add_metric([kind, EFFECT_ENDS[state]], count)
        yield outcomes
        yield CounterMetricFamily(
            "aglowd_commits", "Commits to the database since the start.", value=self._store.db.commits
        )

    def _of_systems(self, now: float) -> Iterator[Metric]:
        """What the gates know of the outside systems."""
        sites = sorted(self._sites.items())
        states = {(name,): site.health for name, site in sites}
        yield _gauge(
            "aglowd_system_up",
            "0 when the outside system gave no good answer to the last request.",
            ["system"],
            {name: seen.failures_in_a_row == 0 for name, seen in states.items()},
        )
        yield _gauge(
            "aglowd_system_failures",
            "Requests in a row without a good answer.",
            ["system"],
            {name: seen.failures_in_a_row for name, seen in states.items()},
        )
        yield _gauge(
            "aglowd_system_last_answer_age_seconds",
            "World seconds since the last good answer; without a value before the first.",
            ["system"],
            {name: now - seen.last_success for name, seen in states.items() if seen.last_success is not None},
        )
        yield _gauge(
            "aglowd_system_quiet_seconds",
            "World seconds for which the system wants not to be asked.",
            ["system"],
            {name: max(0.0, (seen.backing_off_until or now) - now) for name, seen in states.items()},
        )
        ended = CounterMetricFamily(
            "aglowd_system_requests", "Requests since the start, by how they ended.", labels=["system", "outcome"]
        )
        took = HistogramMetricFamily(
            "aglowd_system_request_seconds", "Real seconds that requests took.", labels=["system"]
        )
        for name, site in sites:
            for outcome, count in sorted(site.requests.outcomes.items()):
                ended.add_metric([name, outcome], count)
            ends = [*map(str, LATENCIES_S), "+Inf"]
            buckets = list(zip(ends, accumulate(site.requests.took), strict=True))
            took.add_metric([name], buckets, site.requests.took_s)
        yield from (ended, took)

    def _of_store(self, figures: Figures) -> Iterator[Metric]:
        """What stands in the database."""
        now = self._clock.now()
        states = {**dict.fromkeys(("offered", "running", "archived", "failed", "cancelled"), 0), **figures.fields}
        yield _gauge("aglowd_fields", "Fields by state.", ["state"], {(state,): n for state, n in states.items()})
        yield _gauge(
            "aglowd_steps_waiting",
            "Steps that wait, by kind of step.",
            ["kind"],
            {(kind,): waits.steps for kind, waits in figures.waits.items()},
        )
        yield _gauge(
            "aglowd_oldest_wait_seconds",
            "World seconds for which the longest wait without news has lasted, by kind of step.",
            ["kind"],
            {(kind,): max(0.0, now - waits.since) for kind, waits in figures.waits.items()},
        )
        yield _gauge(
            "aglowd_effects_under_way",
            "Effects that have not ended, by kind and state.",
            ["kind", "state"],
            figures.effects,
        )
        doubts = sum(count for (_, state), count in figures.effects.items() if state == "doubt")
        yield _one("aglowd_doubts", "Effects of which nobody can tell whether they happened.", doubts)
        yield _one("aglowd_findings", "What the audit found and nobody has settled.", figures.findings)
        yield _one("aglowd_holds", "Pauses and drains that people have put on.", figures.holds)
        pools = self._health().pools
        yield _gauge(
            "aglowd_pool_places", "Places of the pool.", ["pool"], {(name,): size for name, (_, size) in pools.items()}
        )
        yield _gauge(
            "aglowd_pool_places_taken",
            "Places of the pool that steps hold.",
            ["pool"],
            {(name,): figures.pools.get(name, 0) for name in pools},
        )
        yield _gauge(
            "aglowd_staging_files_requested",
            "Files that steps want online, by site.",
            ["site"],
            {(site,): files.requested for site, files in figures.files.items()},
        )
        yield _gauge(
            "aglowd_staging_files_online",
            "Those of them that are online.",
            ["site"],
            {(site,): files.online for site, files in figures.files.items()},
        )
        yield _gauge(
            "aglowd_tokens", "Tokens that steps wait for, by site and state.", ["site", "state"], figures.tokens
        )
        yield _gauge(
            "aglowd_pilots", "Pilots that steps wait for, by site and state.", ["site", "state"], figures.pilots
        )
        yield _gauge(
            "aglowd_store_size_bytes",
            "Size of the database, and of what is written ahead of it.",
            ["part"],
            {(part,): size for part, size in figures.size_bytes.items()},
        )
        yield _one("aglowd_store_free_bytes", "Room in the database that is free for what comes.", figures.free_bytes)
        yield _one("aglowd_packed_runs", "Runs that ended long ago and are packed.", figures.packed_runs)
        yield _one("aglowd_packed_bytes", "What they take of the database.", figures.packed_bytes)
        yield _one("aglowd_disk_free_bytes", "Room that is left for the state directory.", figures.disk_free_bytes)
        yield _one("aglowd_disk_size_bytes", "Size of the file system of the state directory.", figures.disk_bytes)


class _Collected(Collector):
    """What was gathered already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value))


def _gauge(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> GaugeMetricFamily:
    """`values`: a tuple with the value of each label → the number."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for at, value in sorted(values.items()):
        family.add_metric(list(at), float(value))
    return family
