"""Effects on the LTA stager: bring files online, and give them back.

The stager knows no key of ours. A request whose answer was lost is found by what was not there before: see `find`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError, Permanent, Temporary
from aglowd.model import Json


class StageFiles(Deed, frozen=True, kw_only=True):
    """Ask the LTA to bring the files online; result `{"request": id}`."""

    kind: ClassVar[str] = "stage_files"
    needs_evidence: ClassVar[bool] = True
    surls: tuple[str, ...]

    def settling_s(self, world: World) -> float:
        return world.staging_settle_s

    async def look_before(self, world: World) -> Json:
        """The requests that exist already: none of these can be ours."""
        return sorted(await world.lta.progress())

    async def do(self, world: World, intent: Intent) -> Json:
        wanted = self.surls
        if intent.is_repeated:
            # An earlier try may have brought some of them online before its request was forgotten.
            wanted = await self._missing(world)
        return {"request": await world.lta.stage(wanted) if wanted else None}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """A request that was not there before, of as many files, all of them ours; or the goal reached: all online.

        A request shows its files only when they are online. While a new one of that size shows none and nobody of us
        made it, it may be this one: then nobody can tell yet, and nothing is asked for again. After a restore it may
        also be larger than what is missing by now; there, one file of ours is enough, and the last one can be it.
        """
        wanted = set(self.surls)
        others = {result["request"] for result in await intent.results() if result}
        ours, untold = [], []
        for request, seen in sorted((await world.lta.progress()).items()):
            size = seen.file_count or 0
            is_larger = size > len(wanted)
            if request in (intent.evidence or ()) or request in others or (is_larger and not intent.is_restored):
                continue
            staged = set(await world.lta.staged(request))
            if staged & wanted if intent.is_restored else staged and staged <= wanted:
                ours.append(request)
            elif not staged or (is_larger and len(staged) < size):
                untold.append(request)
        if ours:
            return {"request": ours[0]}
        if untold:
            raise Temporary(
                f"requests {', '.join(map(str, untold))} are new and do not show all files: one may be ours"
            )
        return None if await self._missing(world) else {"request": None}

    async def _missing(self, world: World) -> tuple[str, ...]:
        localities = await world.dcache.localities(self.surls)
        return tuple(surl for surl in self.surls if localities.get(surl) != "ONLINE")

    def adopted(self, ref: str) -> Json:
        """`ref` is the id of the request at the stager."""
        if not (ref.isascii() and ref.isdecimal()):
            raise AglowError(f"a staging request is named by its number at the LTA, not by {ref[:40]!r}")
        return {"request": int(ref)}


class ReleaseFiles(Deed, frozen=True, kw_only=True):
    """Abort a running request, or release the pins of a finished one; the stager has one call for both."""

    kind: ClassVar[str] = "release_files"
    request: int

    async def do(self, world: World, intent: Intent) -> Json:
        try:
            await world.lta.abort(self.request)
        except Permanent as error:
            if not error.absent:
                raise
            return {"released": False, "why": str(error)}
        return {"released": True}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """Releasing twice does no harm, so what is not known to be aborted is released again."""
        return {"released": True} if await world.lta.status(self.request) == "aborted" else None


DEEDS: tuple[type[Any], ...] = (StageFiles, ReleaseFiles)
