"""One daemon and one simulated grid in one process, under virtual time, with everything that a script lets happen.

The daemon is the real one, from its configuration file to its Unix socket; what it talks to are the simulated grid's
real servers. A crash takes its tasks away in the middle of whatever they do, and with them what was queued for the
database and not yet written; the file stays, and a new daemon starts on it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

from aglowd.clock import Clock
from aglowd.config import load_config
from aglowd.daemon import Daemon
from aglowd.sim.faults import Faults
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.wiring import load_pipelines
from tests.virtual.loop import BEGIN_S, VirtualLoop
from tests.virtual.script import HOUR_S, Script
from tests.virtual.setup import ORIGIN, write_config, write_inputs
from tests.virtual.tools import InLoopTools

FLUSH_REAL_S = 2.0
"""The ledger reaches its file less often than in real time, where each time costs a round of the loop."""

SOON_S = 24 * HOUR_S
"""World seconds for which a crash waits for the operation that it shall follow."""

read_once = cache(load_pipelines)
"""The pipelines do not change while a world lives, and to read them takes as long as a day of it."""


class Host:
    """The clocks of the daemon's host. Its wall clock may jump; the grid's own does not."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.ahead_s = 0.0

    def true(self) -> float:
        return ORIGIN + self._loop.time() - BEGIN_S

    def wall(self) -> float:
        return self.true() + self.ahead_s


class Simulation:
    """One world of one script, and a daemon in it that can be taken away and started again."""

    def __init__(self, script: Script, directory: Path) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.threads = script.real
        self.loop = loop
        self.script = script
        self.directory = directory
        self.host = Host(loop)
        self.database = directory / "state" / "aglowd.db"
        self.ledger = directory / "grid" / "ledger.jsonl"
        self.crashes = 0
        self.plan: list[Faults] = []
        self.ready: dict[str, Any] = {}
        self._daemon: Daemon | None = None
        self._life: asyncio.Task[None] | None = None
        self._lives = 0

    @property
    def daemon(self) -> Daemon:
        assert self._daemon is not None, "no daemon was started"
        return self._daemon

    def now(self) -> float:
        """World seconds since the world began."""
        return (self.host.true() - ORIGIN) * self.script.rate

    async def sleep(self, world_s: float) -> None:
        await asyncio.sleep(max(0.0, world_s) / self.script.rate)

    def jump(self, world_s: float) -> None:
        """Set the host's wall clock forward, or back."""
        self.host.ahead_s += world_s / self.script.rate

    def freeze(self, world_s: float) -> None:
        """Stop everything for so long, as SIGSTOP and SIGCONT do: both clocks go on, and nobody looks at them."""
        self.loop.freeze(world_s / self.script.rate)

    def flush(self) -> None:
        """Bring the ledger to its file."""
        self.plan[0]._world.ledger.flush()

    @asynccontextmanager
    async def grid(self, write: Callable[[Script, Path], None] = write_inputs) -> AsyncIterator[None]:
        """The simulated grid, and a configuration of the daemon for it; the daemon ends with it.

        `write` makes the catalogue and the lists.
        """
        script = self.script
        write(script, self.directory)
        settings = Settings(
            directory=self.directory / "grid",
            srm_dir=self.directory / "srm",
            seed=script.seed,
            speed=script.rate,
            origin=ORIGIN,
            wall=self.host.true,
            slots=script.slots,
            failure_rate=script.failure_rate,
            proxy_hours=3000.0,
            faults=script.faults,
            chaos=script.chaos,
            chaos_days=script.chaos_days,
        )
        with (
            patch("aglowd.sim.ledger.FLUSH_S", FLUSH_REAL_S),
            patch("aglowd.daemon.load_pipelines", read_once),
        ):
            async with simulated_grid(settings, self.plan) as self.ready:
                self._tools = InLoopTools(Path(self.ready["bin"]))
                self.loop.tools = None if script.real else self._tools
                self._config = write_config(script, self.directory, self.ready)
                try:
                    yield
                finally:
                    await self.bury()
                    self.loop.tools = None

    # --- the daemon's lives

    async def start(self) -> None:
        """A daemon on the database that there is; returns when it is ready."""
        self._lives += 1
        config = load_config(self._config)
        clock = Clock(
            config.clock.rate,
            config.clock.origin,
            wall=self.host.wall,
            monotonic=self.loop.time,
            seed=Random(f"{self.script.seed}/{self._lives}").randrange(1 << 60),
        )
        self._daemon = Daemon(config, clock, signals=())
        self._life = asyncio.create_task(self._daemon.run(), name="aglowd")
        while not self._daemon._ready:
            self.check_alive()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """The orderly end."""
        assert self._life is not None
        self.daemon.stop()
        await self._life
        self._life = None

    async def crash(self, steps: int = 0, after: str = "") -> None:
        """Take the daemon away in the midst of something, and return when nothing is left of it."""
        await self.arm(steps, after).wait()
        await self.bury()

    def arm(self, steps: int, after: str = "") -> asyncio.Event:
        """Take the daemon away after so many rounds of the loop in which no time passes; the event says when.

        They are counted from now, or from the next `after` (an operation, as the ledger names it), should it come soon.
        """
        struck, left, last = asyncio.Event(), steps, self.loop.time()
        self.flush()
        ledger = self.ledger.open("rb")
        ledger.seek(0, os.SEEK_END)
        wanted = f'"op":"{after}"'.encode() if after else b""
        until = self.loop.time() + SOON_S / self.script.rate

        def count() -> None:
            nonlocal left, last, wanted
            if wanted:
                self.flush()
                wanted = b"" if wanted in ledger.read() or self.loop.time() > until else wanted
            else:
                left -= self.loop.time() == last
            last = self.loop.time()
            if left <= 0 and not wanted:
                self.loop.on_step = lambda: None
                ledger.close()
                self._take_away()
                self.crashes += 1
                struck.set()

        self.loop.on_step = count
        return struck

    def _take_away(self) -> None:
        """What a kill ends at once: every task, every command, and what was queued for the database and not begun."""
        if self._life is None:
            return
        self._tools.kill()
        store = getattr(self._daemon, "_store", None)
        if store is not None:
            store.db._closing.set()
            while not store.db._queue.empty():
                store.db._queue.get_nowait()
        self._life.cancel()

    async def bury(self) -> None:
        """Wait until nothing is left of it. How it ended matters to nobody: its last words reached nothing."""
        self._take_away()
        if self._life is not None:
            with suppress(asyncio.CancelledError, Exception):
                await self._life
        self._life = self._daemon = None

    def check_alive(self) -> None:
        """A daemon that ended by itself is a finding of its own."""
        if self._life is not None and self._life.done():
            self._life.result()
            raise AssertionError("the daemon ended by itself")

    async def fields(self) -> dict[str, tuple[str, str]]:
        """Each field's state and its reason, as the daemon tells it."""
        return {str(one["field"]): (str(one["state"]), str(one["reason"])) for one in await self.daemon._store.fields()}
