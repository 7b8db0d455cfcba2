"""Says of everything that aglowd needs whether it works, and what to do where it does not; and what a report may tell.

What must stay true: nothing is changed, here or outside; the daemon's own database is looked at by its store alone; no
answer holds a secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import msgspec

from aglowd.config import Config
from aglowd.credentials import Secrets
from aglowd.doctor import host
from aglowd.doctor.model import FAIL, OK, WARN, Check
from aglowd.doctor.outside import ask_all
from aglowd.effects.base import World
from aglowd.grid.proxy import Proxy
from aglowd.log import HIDDEN, redact_all, redact_text
from aglowd.model import Json
from aglowd.threads import Threads

__all__ = ["FAIL", "OK", "WARN", "Check", "Doctor", "is_well", "shown_config"]

HOST_REAL_S = 30.0
"""Real seconds for looking at our own files: a mount may be dead."""


class Doctor:
    """`more`: what a running daemon knows of itself."""

    def __init__(
        self,
        config: Config,
        world: World,
        secrets: Secrets,
        proxies: Mapping[str, Proxy],
        *,
        git: bool,
        more: Callable[[], Awaitable[list[Check]]] | None = None,
    ) -> None:
        self._config = config
        self._world = world
        self._secrets = secrets
        self._proxies = proxies
        self._git = git
        self._more = more
        self._threads = Threads("the files that the configuration names", most=1)
        self._examining: asyncio.Task[list[Check]] | None = None

    async def examine(self) -> list[Check]:
        """All checks. Who asks while one is under way gets the same answers: nobody outside is asked twice."""
        if self._examining is None:
            self._examining = asyncio.create_task(self._examine(), name="doctor")
            self._examining.add_done_callback(self._over)
        return await asyncio.shield(self._examining)

    async def close(self) -> None:
        """End what is under way."""
        if self._examining is not None:
            self._examining.cancel()
            await asyncio.wait([self._examining])

    def _over(self, task: asyncio.Task[list[Check]]) -> None:
        self._examining = None
        if not task.cancelled():
            task.exception()  # Whoever asked may have gone.

    async def _examine(self) -> list[Check]:
        here, outside, more = await asyncio.gather(
            self._host(), ask_all(self._config, self._world, self._proxies, git=self._git), self._own()
        )
        return [
            msgspec.structs.replace(check, what=redact_text(check.what), next=redact_text(check.next))
            for check in (*more, *here, *outside)
        ]

    async def _own(self) -> list[Check]:
        return [] if self._more is None else await self._more()

    async def _host(self) -> list[Check]:
        try:
            return await self._threads.run(lambda: list(self._look()), HOST_REAL_S)
        except OSError as error:
            return [Check("directories", "all", FAIL, f"they cannot be looked at: {error}", "look at the mounts")]

    def _look(self) -> Iterator[Check]:
        yield from host.check_directories(self._config)
        yield from host.check_disk(self._config)
        yield from host.check_limits()
        yield from host.check_versions()
        yield from host.check_tools(self._config, self._world.processes.where, git=self._git)
        yield from host.check_credentials(self._config, self._secrets, self._world.clock.now())

    def configuration(self) -> dict[str, Json]:
        """The configuration as it is in effect, without secrets."""
        return shown_config(self._config)


def is_well(checks: list[Check]) -> bool:
    """Whether nothing that is needed fails."""
    return all(check.state != FAIL for check in checks)


def shown_config(config: Config) -> dict[str, Json]:
    """What a report shows of it: nothing that is a secret, or in which one might stand."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    if values["notify"]["webhook"]:
        values["notify"]["webhook"] = HIDDEN
    for section, key in (("notify", "command"), ("proxy", "renew")):
        values[section][key] = [word if number == 0 else HIDDEN for number, word in enumerate(values[section][key])]
    shown: dict[str, Json] = redact_all(values)
    return shown
