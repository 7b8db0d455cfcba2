"""The catalogue: which fields there are, and what their statuses say.

What must stay true: a catalogue that has not changed is not read, and nothing is written of it; a status that somebody
else set while a run is at work is told apart from the run's own, by the key that each of ours leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from aglowd.config import Config
from aglowd.errors import OutsideError, Permanent, Unknown
from aglowd.grid.catalogue import Row
from aglowd.model import FieldView
from aglowd.watchers.base import BACKOFF_MOST, GATHER_REAL_S, Watcher


class Fields(Watcher):
    """Every row of the catalogue, good or bad, goes to the store; what changed there is an offer to start a run."""

    kind = "field"

    _stamp = ""
    """Of the catalogue as it went to the store last; "" = it has to be read."""

    @staticmethod
    def poll(config: Config) -> str:
        return config.catalogue.poll

    async def watch(self) -> None:
        """Read the catalogue every `poll_s`, and when somebody asks for a look, for ever."""
        bell = self.store.bells.subject(self.kind)
        self._waited_for(is_so=True)
        while True:
            self.progress_at = self.clock.now()
            self.rested = False
            bell.clear()
            try:
                await self._read()
            except OutsideError as error:
                self.failures += 1
                self.last_error = str(error)
                self.log.warning("look_failed", failures=self.failures, error=str(error))
            else:
                self.failures, self.last_error, self.defect, self.last_ok = 0, "", "", self.clock.now()
            late = min(2 ** max(self.failures - 1, 0), BACKOFF_MOST)
            self.rested = True
            try:
                async with asyncio.timeout(self.clock.real_s(self.poll_s * late)):
                    await bell.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(GATHER_REAL_S)

    async def _read(self) -> None:
        """What changed since the last time, if anything did. Stamp and event are older than what is read: nothing falls between."""
        stamp = await self.world.catalogue.stamp()
        if stamp and stamp == self._stamp:
            return
        self._stamp = ""
        since = await self.store.last_event()
        rows = await self.world.catalogue.rows()
        settled, others = await self._told_apart(rows)
        await self.store.put_fields([(view_of(row), row.problem or "") for row in settled], others, since=since)
        self._stamp = stamp

    async def _told_apart(self, rows: Iterable[Row]) -> tuple[list[Row], dict[str, tuple[str, str]]]:
        """The rows; and of those at work whose status is somebody else's word: name → the run, and what stood there before.

        A row that was read before the run's last write, or between that and its record, looks so too: it is read again, with
        its key.
        """
        at_work = await self.store.at_work()
        settled: list[Row] = []
        others: dict[str, tuple[str, str]] = {}
        for row in rows:
            status, run = at_work.get(row.name, (row.status, ""))
            if row.status == status:
                settled.append(row)
                continue
            try:
                shown, key = await self.world.catalogue.read_status(row.name)
            except Unknown:
                shown, key = row.status, run  # It may be the run's own, of which the journal will know.
            except Permanent:
                shown, key = row.status, None  # Its row cannot be used any more.
            settled.append(msgspec.structs.replace(row, status=shown))
            if shown != status and (key or "").partition("/")[0] != run:
                others[row.name] = run, status
        return settled, others


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
    data = {
        "field_name": row.field_name,
        "target": target,
        "calibrator": calibrator,
        "baseline_filter": row.baseline_filter,
        "demix_sources": row.demix_sources,
    }
    return FieldView(row.name, row.status, data, row.priority, row.site)
