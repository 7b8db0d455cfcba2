"""What is left of every limit and who waits for it: fields, pools, files and requests at the stagers, pilots.

What must stay true: limits and orders are told by those who keep them, so that none is told in another way than it is kept;
nobody outside is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from aglowd.model import Json
from aglowd.store.store import Store
from aglowd.watchers.base import Watcher
from aglowd.watchers.pilots import PilotTurns
from aglowd.watchers.usage import Usage
from aglowd.watchers.windows import Windows


class Capacity:
    """The limits of a daemon. `candidates`: as `aglowctl candidates` shows them."""

    def __init__(
        self,
        store: Store,
        watchers: Iterable[Watcher],
        pools: Mapping[str, int],
        candidates: Callable[[], Awaitable[dict[str, Json]]],
    ) -> None:
        self._store = store
        self._givers = [one for one in watchers if isinstance(one, Windows | PilotTurns)]
        self.pools = pools
        self._candidates = candidates

    async def look_ahead(self, until: float) -> dict[str, Json]:
        """The timers up to that time, and the limits, each with what is taken of it and its queue."""
        ahead = await self._store.ahead(until)
        limits = await self._fields()
        seen = ahead.pop("pools")
        for name in sorted({*self.pools, *seen}):
            # A pool that the configuration does not limit has no queue; one that it did may have one left.
            one = seen.get(name, {"used": 0, "queue": []})
            limits.append({"what": "pool", "name": name, "limit": self.pools.get(name), **one})
        for giver in self._givers:
            limits += [_told(one) for one in await giver.usage()]
        return {**ahead, "limits": limits}

    async def _fields(self) -> list[dict[str, Json]]:
        """How many fields may be under way; who is next stands in the queue of all."""
        seen = await self._candidates()
        running, sites = seen["running"], seen["fields_at_once"]
        queue = [
            {"field": one["field"], "why": one["reason"] or "it starts now"}
            for one in seen["candidates"]
            if one["starts"] or one["queued"]
        ]
        total = sum(running.values())
        return [
            {"what": "fields", "name": "", "used": total, "limit": seen["max_fields"], "queue": queue},
            *(
                {"what": "fields", "name": site, "used": running.get(site, 0), "limit": most, "queue": []}
                for site, most in sites.items()
            ),
        ]


def _told(usage: Usage) -> dict[str, Json]:
    queue = []
    for one in usage.queue:
        run, _, rest = one.key.partition("/")
        queue.append(
            {"run": run, "step": rest.partition("/")[0], "wants": one.wants, "since": one.since, "why": one.why}
        )
    return {"what": usage.what, "name": usage.site, "used": usage.used, "limit": usage.limit, "queue": queue}
