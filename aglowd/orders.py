"""What people order beside the pipelines: stage the files of a list, say where they are.

A list is whatever somebody wrote down: files of any observations at any sites, in any spelling that parse_surl knows,
blank lines and comments between them. What must stay true: a staging that is ordered is a run like any other, so that
it is journalled, windowed, resumed and explained; a question is bounded in number and in time, and what is known when
something fails is told.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Annotated

import structlog
from msgspec import Meta, Struct

from aglowd.effects.base import World
from aglowd.errors import AglowError, OutsideError
from aglowd.grid.surl import MAX_PROBLEMS, SurlListError, parse_surl, site_called, site_of
from aglowd.model import Json
from aglowd.pipeline import Pipeline
from aglowd.store.stagings import Wanted
from aglowd.store.store import Store

PIPELINE = "stage"
"""The pipeline of which each staging is a run."""
MAX_FILES = 10_000
"""Different files of one list."""
CHUNK_FILES = 1000
"""Files of one question; what was answered before another one failed is told."""
ASK_REAL_S = 60.0
"""Real seconds in which one site answers where its files are."""
MAX_NAME_CHARS = 64
_ODD = re.compile(r"[^\w+.:@=-]")


class ListOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """A list as its reader sent it. `path`: what messages call it. `site`: only the files there; "" = wherever they are."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    text: str
    site: Annotated[str, Meta(max_length=64)] = ""


class Orders:
    """Carries them out. `sites` are those of the configuration; each pins what is staged there for `lifetime_s`."""

    def __init__(
        self, store: Store, world: World, pipeline: Pipeline, sites: Collection[str], lifetime_s: float
    ) -> None:
        self._store = store
        self._world = world
        self._pipeline = pipeline
        self._sites = sites
        self._lifetime_s = lifetime_s
        self._log = structlog.get_logger("orders")

    async def stage(self, order: ListOrder, uid: int) -> list[dict[str, Json]]:
        """Begin a staging for each site at which files lie, or join the one under way; AglowError if it cannot be."""
        files = await self._files(order)
        name = name_of(order.path)
        wanted = [
            Wanted(name if len(files) == 1 else f"{name}-{site}", site, tuple(surls), self._lifetime_s)
            for site, surls in files.items()
        ]
        begun = await self._store.begin_stagings(self._pipeline, wanted, uid)
        self._log.info("staging_ordered", uid=uid, path=order.path, runs=[one["run"] for one in begun])
        return begun

    async def localities(self, order: ListOrder) -> dict[str, Json]:
        """`files`: SURL → where it is, in the list's order, as far as it could be asked; `unanswered`: site → why not."""
        files = await self._files(order)
        answers = await asyncio.gather(*(self._ask(site, surls) for site, surls in files.items()))
        where = {surl: place for found, _ in answers for surl, place in found.items()}
        unanswered = {site: why for site, (_, why) in zip(files, answers, strict=True) if why}
        return {"files": where, "asked": sum(map(len, files.values())), "unanswered": unanswered}

    async def _ask(self, site: str, surls: Sequence[str]) -> tuple[dict[str, str], str]:
        """Where the files of one site are, and why no more of them is known, or ''."""
        found: dict[str, str] = {}
        try:
            archive = self._world.archive(site)
            async with asyncio.timeout(ASK_REAL_S):
                for start in range(0, len(surls), CHUNK_FILES):
                    chunk = surls[start : start + CHUNK_FILES]
                    where = await archive.localities(chunk)
                    found.update({surl: where.get(surl, "UNKNOWN") for surl in chunk})
        except OutsideError as error:
            return found, str(error)
        except TimeoutError:
            return found, f"no answer within {ASK_REAL_S:g} s"
        return found, ""

    async def _files(self, order: ListOrder) -> dict[str, list[str]]:
        """Site → SURLs of the order; AglowError if there is none, or if a site is not ours."""
        files = await asyncio.to_thread(read_list, order.text, order.path)
        if order.site:
            site = site_called(order.site)
            if site not in files:
                raise AglowError(f"{order.path}: no file lies at {site}; found files at {', '.join(files)}")
            files = {site: files[site]}
        for site in files:
            if site not in self._sites:
                known = ", ".join(sorted(self._sites))
                raise AglowError(f"{order.path}: files lie at {site}; expected one of the configured sites: {known}")
        return files


def name_of(path: str) -> str:
    """What a list of that path is called: as its file, without the extension."""
    return _ODD.sub("_", PurePath(path).stem)[:MAX_NAME_CHARS] or "list"


def read_list(text: str, path: str) -> dict[str, list[str]]:
    """Site → canonical SURLs in the list's order, each once. SurlListError tells all problems, each as "path:line: …"."""
    problems: list[str] = []
    files: dict[str, str] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            surl = parse_surl(stripped)
        except ValueError as error:
            problems.append(f"{path}:{number}: {error}")
            continue
        files[str(surl)] = site_of(surl.host)
        if len(files) > MAX_FILES:
            problems.insert(0, f"{path}:{number}: found more files; expected at most {MAX_FILES} in one list")
            break
    if not files and not problems:
        problems.append(f"{path}:1: found no SURL; expected one a line")
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise SurlListError((*problems[:MAX_PROBLEMS], *([f"{path}: and {more} problems more"] if more > 0 else ())))
    return _by_site(files)


def _by_site(files: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for surl, site in files.items():
        found.setdefault(site, []).append(surl)
    return found
