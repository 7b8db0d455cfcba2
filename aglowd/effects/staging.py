"""Effects on stagers: bring files online, and give them back.

No stager knows a key of ours. A request whose answer was lost is found by what was not there before: see `find`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar
from uuid import UUID

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import AglowError, Permanent, Temporary, Unknown
from aglowd.grid.stager import FINAL, Progress, Request
from aglowd.model import Json


class StageFiles(Deed, frozen=True, kw_only=True):
    """Ask a site's stager to bring the files online; result `{"request": id}`, and `also`: what else of `besides` it is for.

    `besides`: the other files of the same step. `renews`: they are online, and their pins begin anew.
    """

    kind: ClassVar[str] = "stage_files"
    needs_evidence: ClassVar[bool] = True
    may_be_anothers: ClassVar[bool] = True
    surls: tuple[str, ...]
    site: str = ""
    besides: tuple[str, ...] = ()
    renews: bool = False

    def settling_s(self, world: World) -> float:
        return world.staging_settle_s

    async def look_before(self, world: World) -> Json:
        """The requests that exist already: none of these can be ours."""
        return sorted(await world.stager(self.site).progress(), key=str)

    async def do(self, world: World, intent: Intent) -> Json:
        wanted = self.surls
        if intent.is_repeated and not self.renews:
            # An earlier try may have brought some of them online before its request was forgotten.
            wanted = await self._missing(world)
        return {"request": await world.stager(self.site).stage(wanted) if wanted else None}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """A request that was not there before, for these files and no others; or the goal reached: all online.

        The legacy stager shows of a request only the files that are online. While a new one of that size shows none of
        ours, nothing of others, and nobody of us made it, it may be this one: then nobody can tell yet, and nothing is
        asked for again. Made before the journal knew of it, it may also be for other files of the step: those that are online by
        now, and those for which our own turn would have been too small.
        """
        stager = world.stager(self.site)
        wanted = set(self.surls)
        among = wanted.union(self.besides) if intent.is_older else wanted
        # Two stagers may give one number to two requests; what was asked at a site that is configured no more is known.
        others = {
            other.result["request"]
            for other in await intent.others()
            if other.result and world.stagers.get(other.inputs.get("site", ""), stager) is stager
        }
        known = others.union(intent.evidence or ())
        untold: dict[Request, Progress] = {}
        for request, seen in (await stager.progress()).items():
            if request in known or (seen.file_count or 0) > len(among):
                continue
            files = await stager.requested(request)
            if files is not None:
                if wanted & set(files) and among.issuperset(files):
                    return self._found(request, files)
                continue
            staged = set(await stager.staged(request))
            # Of one that shows only what is online already, more is to come; nobody else asks for just these files.
            shows_all = seen.file_count == len(staged)
            if staged and staged <= among and (staged & wanted or not shows_all):
                # A larger one than we want may be for any of those that it does not show: none is asked for while it runs.
                most = max(len(wanted), len(staged))
                is_larger = seen.file_count is None or seen.file_count > most
                return self._found(request, among if is_larger else staged)
            if staged <= among and not seen.is_dead:
                untold[request] = seen
        if untold:
            text = f"requests {', '.join(map(str, untold))} are new and do not show all files: one may be ours"
            # One that has ended shows no more than it does now.
            raise Unknown(text) if all(seen.status in FINAL for seen in untold.values()) else Temporary(text)
        return None if self.renews or await self._missing(world) else {"request": None}

    def _found(self, request: Request, files: Iterable[str]) -> Json:
        also = sorted(set(self.besides).intersection(files))
        return {"request": request, "also": also} if also else {"request": request}

    async def _missing(self, world: World) -> tuple[str, ...]:
        localities = await world.archive(self.site).localities(self.surls)
        return tuple(surl for surl in self.surls if localities.get(surl) != "ONLINE")

    def adopted(self, ref: str) -> Json:
        """`ref` is the name of the request at the stager: a number at the LTA, a UUID at a dCache."""
        if ref.isascii() and ref.isdecimal():
            return {"request": int(ref)}
        try:
            return {"request": str(UUID(ref))}
        except ValueError:
            raise AglowError(
                f"a staging request is named by its number at the LTA or its UUID at a dCache, not by {ref[:40]!r}"
            ) from None


class ReleaseFiles(Deed, frozen=True, kw_only=True):
    """Abort a running request, or release the pins of a finished one; the stager has one call for both."""

    kind: ClassVar[str] = "release_files"
    request: Request
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        try:
            await world.stager(self.site).abort(self.request)
        except Permanent as error:
            if not error.absent:
                raise
            return {"released": False, "why": str(error)}
        return {"released": True}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """Releasing twice does no harm, so what is not known to be aborted is released again.

        The LTA's stagers release what they abort. A dCache, whose requests have UUIDs, does that by a request of its own,
        and what it calls cancelled may be pinned.
        """
        if isinstance(self.request, str):
            return None
        return {"released": True} if await world.stager(self.site).status(self.request) == "aborted" else None


DEEDS: tuple[type[Any], ...] = (StageFiles, ReleaseFiles)
