"""How large the files of the archive are and what their checksums are: once a field, for its record.

What must stay true: a site that tells nothing of its files keeps no record back; who waits decides for how long.
"""

from __future__ import annotations

from collections.abc import Sequence

from aglowd.config import Config
from aglowd.errors import OutsideError, Permanent
from aglowd.model import Json, Subject
from aglowd.watchers.base import Observations, Watcher


class Inputs(Watcher):
    """`inputs:<occasion>` (args: site, surls) → `files` (SURL → `size_bytes`, `adler32`, each a number or null), as far as the
    site tells them, and the `problem` if it never will."""

    kind = "inputs"

    @staticmethod
    def poll(config: Config) -> str:
        return config.dcache.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        return await self.each([[subject] for subject in subjects], self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        (subject,) = subjects
        try:
            found = await self.world.archive(subject.args["site"]).contents(subject.args["surls"])
        except Permanent as error:  # It would say the same for ever.
            return [(subject, {"files": {}, "problem": str(error)})]
        except OutsideError as error:
            self.log.warning("contents_unknown", subject=subject.key, error=str(error))
            raise
        files: dict[str, Json] = {
            surl: {"size_bytes": info.size_bytes, "adler32": info.adler32} for surl, info in found.items()
        }
        return [(subject, {"files": files, "problem": ""})]
