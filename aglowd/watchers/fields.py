"""The catalogue: which fields there are, and what their statuses say."""

from __future__ import annotations

import asyncio

from aglowd.config import Config
from aglowd.errors import OutsideError
from aglowd.grid.catalogue_csv import Row
from aglowd.model import FieldView
from aglowd.watchers.base import BACKOFF_MOST, Watcher


class Fields(Watcher):
    """Every row of the catalogue, good or bad, goes to the store; what changed there is an offer to start a run."""

    kind = "field"

    @staticmethod
    def poll(config: Config) -> str:
        return config.catalogue.poll

    async def watch(self) -> None:
        """Read the catalogue every `poll_s`, for ever."""
        while True:
            self.progress_at = self.clock.now()
            try:
                rows = await self.world.catalogue.rows()
            except OutsideError as error:
                self.failures += 1
                self.last_error = str(error)
                self.log.warning("look_failed", failures=self.failures, error=str(error))
            else:
                await self.store.put_fields([(view_of(row), row.problem or "") for row in rows])
                self.failures, self.last_error, self.defect, self.last_ok = 0, "", "", self.clock.now()
            await asyncio.sleep(self.clock.real_s(self.poll_s * min(2 ** max(self.failures - 1, 0), BACKOFF_MOST)))


def view_of(row: Row) -> FieldView:
    """A row as pipelines see it: `field.target.obsid`, `field.calibrator.obsid`, resolutions and subbands."""
    target = {
        "obsid": row.target_obsid,
        "freq_resolution": row.target_freq_resolution,
        "time_resolution": row.target_time_resolution,
        "subbands": row.target_subbands,
    }
    calibrator = {
        "obsid": row.calibrator_obsid,
        "freq_resolution": row.calibrator_freq_resolution,
        "time_resolution": row.calibrator_time_resolution,
        "subbands": row.calibrator_subbands,
    }
    data = {"target": target, "calibrator": calibrator, "baseline_filter": row.baseline_filter}
    return FieldView(row.name, row.status, data)
