"""The trigger of a wait, which Airflow's triggerer runs beside all others in one process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from airflow.triggers.base import BaseTrigger, TriggerEvent

from bench.workload_w import asker


class Done(BaseTrigger):
    """Fires when the service says that the wait is done."""

    def __init__(self, url: str, field: str, step: int, poll_s: float) -> None:
        super().__init__()
        self.about: dict[str, Any] = {"url": url, "field": field, "step": step, "poll_s": poll_s}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """How it is made again in the triggerer."""
        return f"{__name__}.Done", self.about

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll."""
        async with aiohttp.ClientSession() as session:
            await asker.until_done(session, **self.about)
        yield TriggerEvent(True)
