"""Reading everything anew while the daemon works: what differs, what counts from now on, and what waits for a restart.

What must stay true: of a configuration that cannot be used nothing is taken; what was taken, and by whose word, is on
record; one reload at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import structlog

from aglowd.config import Config
from aglowd.errors import AglowError
from aglowd.model import Json
from aglowd.notify import Notifier
from aglowd.pipeline import Pipeline
from aglowd.references import list_references
from aglowd.settings import Change, changes, heeded
from aglowd.store.store import Store
from aglowd.threads import Threads
from aglowd.toml_file import ConfigError, Problem
from aglowd.wiring import Loaded, load_files

MAX_RECORDED = 100
"""Changes, and problems, of one reload that its event names; the rest is counted."""
MAX_RECORDED_CHARS = 200
"""Of each of them."""

Heed = Callable[[Config, Mapping[str, Pipeline]], Awaitable[None]]
"""Goes on with these values and pipelines."""


class Reloader:
    """Reads the files of the daemon anew. `config` and `pipelines` are what counts now."""

    def __init__(
        self,
        path: Path | None,
        store: Store,
        notifier: Notifier,
        heed: Heed,
        config: Config,
        pipelines: Mapping[str, Pipeline],
    ) -> None:
        self._path = path
        self._store = store
        self._notifier = notifier
        self._heed = heed
        self._config = config
        self._pipelines = pipelines
        self.waiting: tuple[str, ...] = ()
        """The keys whose new values wait for a restart, as the files were read last."""
        self._threads = Threads("the configuration", most=1)
        self._lock = asyncio.Lock()
        self._log = structlog.get_logger("reload")

    async def reload(self, uid: int | None, reason: str = "", dry_run: bool = False) -> dict[str, Json]:
        """What is another, and with `dry_run` would be; `uid`: None = whoever sent the signal.

        ConfigError with every problem of a configuration that cannot be used; AglowError if it cannot be read.
        """
        async with self._lock:
            if dry_run:
                return {"done": False, **self._report(await self._read())}
            self._notifier.reloading()
            try:
                loaded = await self._read()
            except AglowError as error:
                await self._refuse(uid, reason, error)
                raise
            else:
                report = self._report(loaded)
                self.waiting = tuple(one["key"] for one in report["changes"] if one["restart"])
                self._config, self._pipelines = heeded(self._config, loaded.config), loaded.pipelines
                await self._heed(self._config, self._pipelines)
                await self._record(uid, reason, report)
                return {"done": True, **report}
            finally:
                self._notifier.ready("running")

    async def _read(self) -> Loaded:
        if self._path is None:
            raise AglowError("this daemon was started without a configuration file")
        try:
            loaded = await self._threads.run(partial(load_files, self._path))
        except OSError as error:
            raise AglowError(f"the configuration cannot be read: {error}") from error
        if problems := list(_early(loaded, self._config)):
            raise ConfigError(problems)
        return loaded

    def _report(self, loaded: Loaded) -> dict[str, Json]:
        before = {name: pipeline.digest for name, pipeline in self._pipelines.items()}
        after = {name: pipeline.digest for name, pipeline in loaded.pipelines.items()}
        return {
            "changes": msgspec.to_builtins(changes(self._config, loaded.config)),
            "pipelines": {
                "added": sorted(after.keys() - before.keys()),
                "changed": sorted(name for name in after.keys() & before.keys() if after[name] != before[name]),
                "removed": sorted(before.keys() - after.keys()),
            },
        }

    async def _record(self, uid: int | None, reason: str, report: dict[str, Json]) -> None:
        found = [msgspec.convert(one, Change) for one in report["changes"]]
        taken = [_line(one) for one in found if not one.restart]
        waits = [_line(one) for one in found if one.restart]
        self._log.info("reloaded", uid=uid, changed=taken, restart=waits, pipelines=report["pipelines"], reason=reason)
        pipelines = {how: names for how, names in report["pipelines"].items() if names}
        data = {"changed": _cut(taken), "restart": _cut(waits), "pipelines": pipelines}
        await self._store.record("Reloaded", {"uid": uid, "reason": reason, **data})

    async def _refuse(self, uid: int | None, reason: str, error: AglowError) -> None:
        problems = [str(one) for one in error.problems] if isinstance(error, ConfigError) else [str(error)]
        self._log.warning("reload_refused", uid=uid, problems=problems, hint="the old configuration stays")
        await self._store.record("ReloadRefused", {"uid": uid, "reason": reason, "problems": _cut(problems)})


def _early(loaded: Loaded, config: Config) -> list[Problem]:
    """Where pipelines refer to a secret that is known from the next start on."""
    return [
        Problem(step.file, step.line, f"step {step.name!r} refers to secret:{name}, which is new", "restart aglowd")
        for pipeline in loaded.pipelines.values()
        for step in pipeline.steps.values()
        for name in list_references((step.params, step.use or {}))
        if name not in config.secrets
    ]


def _line(change: Change) -> str:
    old, new = (
        "not set" if value is None else msgspec.json.encode(value).decode() for value in (change.old, change.new)
    )
    return f"{change.key}: {old} → {new}"


def _cut(lines: list[str]) -> list[str]:
    shown = [line if len(line) <= MAX_RECORDED_CHARS else f"{line[:MAX_RECORDED_CHARS]}…" for line in lines]
    return [*shown[:MAX_RECORDED], *([f"{len(lines) - MAX_RECORDED} more"] if len(lines) > MAX_RECORDED else [])]
