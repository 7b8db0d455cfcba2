"""Daemons that are broken where a crash would show it: the harness must convict them."""

from __future__ import annotations

from typing import Any

from aglowd.effects.engine import Engine
from aglowd.effects.staging import StageFiles
from aglowd.model import EffectState


def settle_before_doing() -> None:
    """The journal says that it is done before it is."""
    do = Engine._do

    async def settle_first(self: Any, live: Any, deed: Any) -> None:
        if live.record.kind == "release_files":
            await self._store.settle(live, EffectState.DONE, {"released": True})
            await deed.do(self._world, self._intent(live))
        else:
            await do(self, live, deed)

    Engine._do = settle_first  # type: ignore[method-assign] # this daemon is broken on purpose


def skip_find() -> None:
    """What was under way is taken for not done, and asked for anew as it was."""

    async def find(self: Any, world: Any, intent: Any) -> Any:
        return None

    async def missing(self: Any, world: Any) -> tuple[str, ...]:
        return tuple(self.surls)

    StageFiles.find = find  # type: ignore[method-assign] # broken on purpose
    StageFiles._missing = missing  # type: ignore[method-assign]


WAYS = {"settle-before-doing": settle_before_doing, "skip-find": skip_find}
