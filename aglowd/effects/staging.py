"""Effects on the LTA stager: bring files online, and give them back.

The stager knows no key of ours. A request whose answer was lost is found by what was not there before: see `find`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import Permanent, Temporary
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
        return {"request": await world.lta.stage(self.surls)}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """A request that was not there before, of as many files, all of them ours; or the goal reached: all online.

        A request shows its files only when they are online. While a new one of that size shows none it may be ours or
        another field's: then nobody can tell yet, and nothing is asked for again.
        """
        wanted = set(self.surls)
        progress = await world.lta.progress()
        new = [
            request
            for request, seen in sorted(progress.items())
            if request not in (intent.evidence or ()) and seen.file_count in (None, len(wanted))
        ]
        fitting = [(request, await world.lta.staged(request)) for request in new]
        ours = [request for request, staged in fitting if staged and set(staged) <= wanted]
        silent = [request for request, staged in fitting if not staged]
        if ours:
            return {"request": ours[0]}
        if silent:
            raise Temporary(f"requests {', '.join(map(str, silent))} are new and show no files yet: one may be ours")
        localities = await world.dcache.localities(self.surls)
        if all(localities.get(surl) == "ONLINE" for surl in self.surls):
            return {"request": None}
        return None


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
