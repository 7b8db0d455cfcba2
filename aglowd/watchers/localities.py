"""Where files are, online or on tape: the truth behind what a stager says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby

from aglowd.config import Config
from aglowd.errors import Permanent
from aglowd.grid.dcache_events import directory_of
from aglowd.model import Json, Subject
from aglowd.parts import in_parts
from aglowd.watchers.base import Observations, Watcher


def directories(subject: Subject) -> set[str]:
    """The directories of the subject's files, as dCache's events name them."""
    found = map(directory_of, {surl.rpartition("/")[0] for surl in subject.args["surls"]})
    return {directory for directory in found if directory}


MAX_COPIES = 100
"""Files of one look for which another copy is looked for: a question each. A site that lost more has a larger trouble."""
GONE = frozenset({"LOST", "NONE"})


class Localities(Watcher):
    """`locality:<occasion>` (args: site, surls) → which of the files are missing, and how many are where.

    `away`: of the missing ones those that cannot be asked for, each with why: LOST, NONE (there is no such file),
    UNAVAILABLE (its disk is away), UNKNOWN (the site said nothing). `copies`: of those that are gone, the same file as it
    was ingested again. `file_bytes`: the size of the largest that is missing, where the site tells.
    """

    kind = "locality"
    adapts = True

    @staticmethod
    def poll(config: Config) -> str:
        return config.dcache.poll

    async def look(self, subjects: Sequence[Subject]) -> Observations:
        ordered = sorted(subjects, key=_site)
        return await self.each([tuple(of_site) for _, of_site in groupby(ordered, _site)], self._ask)

    async def _ask(self, subjects: Sequence[Subject]) -> Observations:
        """Where the files of one site are."""
        surls = list(dict.fromkeys(surl for subject in subjects for surl in subject.args["surls"]))
        try:
            archive = self.world.archive(_site(subjects[0]))
        except Permanent as error:  # Nobody can be asked; whoever waits is told why.
            return [
                (subject, {**_seen(subject.args["surls"], {}, {}, {}), "problem": str(error)}) for subject in subjects
            ]
        sizes: dict[str, int] = {}
        try:
            where = await archive.localities(surls, sizes)
        except Permanent:
            if len(subjects) == 1:
                raise
            # Something among them cannot be asked for: that keeps no other one's answer back.
            return await self.each([[subject] for subject in subjects], self._ask)
        gone = [surl for surl in surls if where.get(surl) in GONE][:MAX_COPIES]
        found = await asyncio.gather(*map(archive.copies, gone))
        copies = {surl: copy for surl, copy in zip(gone, found, strict=True) if copy is not None}
        return [(subject, _seen(subject.args["surls"], where, copies, sizes)) async for subject in in_parts(subjects)]


def _site(subject: Subject) -> str:
    return str(subject.args.get("site", ""))


def _seen(surls: Sequence[str], where: dict[str, str], copies: dict[str, str], sizes: dict[str, int]) -> Json:
    counts: dict[str, int] = {}
    for surl in surls:
        place = where.get(surl, "UNKNOWN")
        counts[place] = counts.get(place, 0) + 1
    missing = [surl for surl in surls if where.get(surl) != "ONLINE"]
    away = {surl: where.get(surl, "UNKNOWN") for surl in missing if where.get(surl) != "NEARLINE"}
    known = {surl: copies[surl] for surl in missing if surl in copies}
    found: Json = {"missing": missing, "away": away, "copies": known, "counts": counts}
    told = [sizes[surl] for surl in missing if surl in sizes]
    return {**found, "file_bytes": max(told)} if told else found
