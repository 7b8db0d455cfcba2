"""The ways to stage, for the tests of what they promise and of their quirks: a grid whose time stands until a test moves it.

A further way is one more entry in `WAYS`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import HandClock

from aglowd.grid.dcache import Dcache
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http
from aglowd.grid.lta import LtaStager
from aglowd.grid.stageit import HORIZON_S, StageIt
from aglowd.grid.stager import Request, Stager
from aglowd.sim.dcachegate import DcacheSettings
from aglowd.sim.faults import Faults, Script
from aglowd.sim.grid import Settings, simulated_grid
from aglowd.sim.world import DAY_S, HOUR_S

from .conftest import surls

FILES = 4
"""Of each test; nobody else asks for them."""
RECALLED_S = 40 * HOUR_S
"""By then every file of a request is online: a hold and the longest recall lie behind it."""


class CountingHttp(Http):
    """Counts what is asked."""

    asked = 0

    async def request(self, *given: Any, **named: Any) -> Any:
        self.asked += 1
        return await super().request(*given, **named)


class There:
    """The grid of all tests in this module, its time and its faults."""

    def __init__(self, ready: dict[str, Any], plan: Faults, clock: HandClock) -> None:
        self.ready = ready
        self.plan = plan
        self.clock = clock
        self._lists = (surls(1000)[at : at + FILES] for at in range(0, 1000, FILES))
        self.http = CountingHttp(clock, longest_s=3.0)
        self._dcache = Dcache(self.http, Site("dcache", clock), None, ready["dcache_url"])

    def strike(self, system: str, fault: str, op: str = "*", value: float | None = None) -> None:
        """Strike the next call of that operation."""
        self.plan.add(Script(system=system, fault=fault, op=op, value=value))

    def pass_s(self, world_s: float) -> None:
        self.clock.advance(world_s)

    def forget(self) -> None:
        """Let so much time pass that no request of another test is shown any more, by whatever way it was made."""
        self.pass_s(HORIZON_S + 2 * DAY_S)

    def files(self) -> list[str]:
        return next(self._lists)

    async def localities(self, wanted: list[str]) -> set[str]:
        return set((await self._dcache.localities(wanted)).values())


@dataclass(frozen=True)
class Way:
    """One way to stage: its adapter with the right credential or a wrong one, and what a fault plan calls its calls."""

    make: Callable[[There, Site, Credential], Stager]
    credential: Callable[[dict[str, str]], Credential]
    system: str
    stage: str
    never: Request = 4
    """A name that no request has."""
    keeps: bool = False
    """Whether it shows what has ended."""
    reschedules: bool = True
    round_calls: int = 1
    """Calls of a round while something runs."""


WAYS = {
    "legacy": Way(
        make=lambda there, site, login: LtaStager(there.http, site, login, there.ready["lta_url"]),
        credential=lambda given: Credential("lta", user=given["lta_user"], password=given["lta_password"]),
        system="lta",
        stage="add_getid",
    ),
    "stageit": Way(
        make=lambda there, site, login: StageIt(there.http, site, login, there.ready["stageit_url"], there.clock),
        credential=lambda given: Credential("stageit", token=given["stageit_token"], scheme="Token"),
        system="stageit",
        stage="stage",
        keeps=True,
        round_calls=2,
    ),
}


@asynccontextmanager
async def standing_grid(directory: Path, dcache: DcacheSettings | None = None) -> AsyncIterator[There]:
    """A grid in which nothing fails by chance."""
    lists = directory / "srm"
    lists.mkdir()
    (lists / "srm229509.txt").write_text("".join(f"{surl}\n" for surl in surls(1000)))
    clock = HandClock()
    plan: list[Faults] = []
    settings = Settings(
        directory=directory / "world", srm_dir=lists, seed=1, speed=1.0, origin=clock.at, wall=clock.now,
        failure_rate=0.0, dcache=dcache or DcacheSettings(),
    )  # fmt: skip
    async with simulated_grid(settings, plan) as ready:
        found = There(ready, plan[0], clock)
        yield found
        await found.http.close()
