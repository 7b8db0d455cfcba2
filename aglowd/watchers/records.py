"""The records of fields, as the store could write them at this moment."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aglowd.chronicle import record_of
from aglowd.config import Config
from aglowd.model import Subject
from aglowd.watchers.base import Observations, Watcher


class Records(Watcher):
    """`provenance:<occasion>` (args: run) → the record of that run and of the runs that it used (`aglowd.provenance`).

    It asks our own store and nobody else.
    """

    kind = "provenance"

    @staticmethod
    def poll(config: Config) -> str:
        return config.catalogue.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        seen = []
        for subject in subjects:
            materials = await self.store.materials(subject.args["run"])
            seen.append((subject, msgspec.to_builtins(record_of(materials, self.clock.now()))))
        return seen
