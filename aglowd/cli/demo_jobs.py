"""The batch systems of the demo: what the daemon is told of each, and the pilots that are processes of this host.

With `local` and `slurm` aglowd's own launcher works on real files. It counts real seconds, as all pilots do, so what the
daemon expects of it in world seconds is divided by the rate. What must stay true: no pilot of ours outlives the demo.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from aglowd.errors import AglowError
from aglowd.sim.slurm import SlurmMissing, private_slurm

SYSTEMS = ("glite", "slurm", "local", "dirac", "arc")
REAL = frozenset({"local", "slurm"})
"""Their pilots are real."""
DOORS = {"arc": "arc_url"}
"""How the simulated grid calls the service of those that are reached by one."""
SPEED = 5000.0
REAL_SPEED = 2000.0
"""World seconds in a real one where pilots are real: a token's lease, two hours, is then three seconds and a half, in which
a pilot on a busy machine is sure to come to its next heartbeat; and a field's way still takes less than two minutes."""
REAL_FIELDS = 1
"""Fields of the bundled catalogue where each of their 270 tokens costs half a dozen processes."""
REAL_PILOTS = 8
LEASE_S = 2 * 3600.0
"""World seconds of silence after which a token's holder is looked for."""
BEATS = 5
"""Heartbeats in this time."""
LEAST_BEAT_S = 0.2
PILOT = Path(str(files("aglowd.launcher"))) / "pilot.py"
END_S = 10.0
LOOK_S = 0.05


class DemoJobs:
    """One batch system, and where its pilots work."""

    def __init__(self, system: str, speed: float, state: Path) -> None:
        self.system = system
        self.is_real = system in REAL
        self.environment: Mapping[str, str] = {}
        """What the daemon needs in its environment to reach the batch system."""
        self._speed = speed
        self._directory = state / "pilots"
        self._scratch = state / "scratch"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The batch system itself, where it is a real one; at the end nothing is left of it, nor of its pilots."""
        if not self.is_real:
            yield
            return
        self._scratch.mkdir(parents=True, exist_ok=True)
        try:
            async with self._slurm() if self.system == "slurm" else nullcontext():
                yield
        finally:
            await self._end_all()

    @asynccontextmanager
    async def _slurm(self) -> AsyncIterator[None]:
        """A real Slurm of one node, for this demo alone."""
        async with AsyncExitStack() as stack:
            try:
                slurm = private_slurm(self._directory.with_name("slurm"), cpus=REAL_PILOTS)
                self.environment = await stack.enter_async_context(slurm)
            except SlurmMissing as error:
                raise AglowError(f"--jobs slurm starts a Slurm of its own: {error}") from error
            except RuntimeError as error:
                raise AglowError(str(error)) from error
            yield

    def tables(self, ready: Mapping[str, Any], poll: str) -> dict[str, dict[str, Any]]:
        """The tables of the daemon's configuration, from what the simulated grid says of itself."""
        jobs: dict[str, Any] = {"system": self.system, "poll": poll}
        if self.system in DOORS:
            jobs["endpoint"] = ready[DOORS[self.system]]
        if self.is_real:
            return {"jobs": jobs | self._launcher(), "picas": {"pilots_url": ready["pilots_couch_url"]}}
        database = ready["credentials"]["couch_database"]
        words = ["run_remote_sandbox.sh", "--url", ready["pilots_couch_url"], "--database", database]
        return {"jobs": jobs | {"arguments": words}}

    def _launcher(self) -> dict[str, Any]:
        beat_s = max(LEASE_S / self._speed / BEATS, LEAST_BEAT_S)
        words = [
            *("-ISs", PILOT.name, "--key", "{key}"),
            *("--heartbeat", f"{beat_s:.2f}", "--scratch", str(self._scratch)),
        ]
        return {
            "executable": os.path.realpath(sys.executable),
            "arguments": words,
            "sandbox_files": [str(PILOT)],
            "directory": str(self._directory),
            "max_pilots": REAL_PILOTS,
            "places": REAL_PILOTS,
        }

    def list_pilots(self) -> list[int]:
        """The pids of the pilots that run."""
        return [pid for pid, words in _processes() if PILOT.name in words and str(self._scratch) in words]

    async def _end_all(self) -> None:
        """Kill whatever works in our directories, as long as there is something."""
        roots = (str(self._directory), str(self._scratch))
        async with asyncio.timeout(END_S):
            while left := [pid for pid, words in _processes() if any(word.startswith(roots) for word in words)]:
                for pid in left:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(LOOK_S)


def _processes() -> Iterator[tuple[int, list[str]]]:
    """All processes of this host, with their arguments."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield int(path.parent.name), os.fsdecode(path.read_bytes()).split("\0")


def check_options(system: str, storage: str) -> None:
    """Refuse what cannot be: the launcher writes to no plain http."""
    if system in REAL and storage == "webdav":
        raise AglowError(
            f"real pilots ({system}) write to https only, and the simulated WebDAV server speaks http: use gfal"
        )
