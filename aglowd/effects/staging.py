"""Effects on the LTA stager: bring files online, and give them back.

The stager knows no key of ours. A request whose answer was lost is found by what was not there before: see `find`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError, Permanent, Temporary, Unknown
from aglowd.grid.stager import FINAL, Progress, Request
from aglowd.model import Json


class StageFiles(Deed, frozen=True, kw_only=True):
    """Ask the LTA to bring the files online; result `{"request": id}`. `besides`: files of the same step that are online."""

    kind: ClassVar[str] = "stage_files"
    needs_evidence: ClassVar[bool] = True
    surls: tuple[str, ...]
    besides: tuple[str, ...] = ()

    def settling_s(self, world: World) -> float:
        return world.staging_settle_s

    async def look_before(self, world: World) -> Json:
        """The requests that exist already: none of these can be ours."""
        return sorted(await world.lta.progress(), key=str)

    async def do(self, world: World, intent: Intent) -> Json:
        wanted = self.surls
        if intent.is_repeated:
            # An earlier try may have brought some of them online before its request was forgotten.
            wanted = await self._missing(world)
        return {"request": await world.lta.stage(wanted) if wanted else None}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """A request that was not there before, of no more files, all of them ours; or the goal reached: all online.

        A request shows its files only when they are online. While a new one of that size shows none of ours, nothing of
        others, and nobody of us made it, it may be this one: then nobody can tell yet, and nothing is asked for again.
        After a restore it may also be for those files of the step that are online by now.
        """
        wanted = set(self.surls)
        among = wanted.union(self.besides) if intent.is_restored else wanted
        others = {result["request"] for result in await intent.results() if result}
        known = others.union(intent.evidence or ())
        untold: dict[Request, Progress] = {}
        for request, seen in (await world.lta.progress()).items():
            if request in known or (seen.file_count or 0) > len(among):
                continue
            staged = set(await world.lta.staged(request))
            if staged & wanted and staged <= among:
                return {"request": request}
            if staged <= among and not seen.is_dead:
                untold[request] = seen
        if untold:
            text = f"requests {', '.join(map(str, untold))} are new and do not show all files: one may be ours"
            # One that has ended shows no more than it does now.
            raise Unknown(text) if all(seen.status in FINAL for seen in untold.values()) else Temporary(text)
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
    request: Request

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
