"""dCache, as far as it is asked where files are: on disk, on tape, or nowhere.

`POST /tape/archiveinfo` of the WLCG Tape REST API answers in any order and silently leaves out what is beyond 10 000
paths (`frontend.service.wlcg.file-locality-max-files`), so we ask in chunks and match by path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, json_of
from aglowd.grid.surl import parse_surl

CHUNK_PATHS = 1000
"""Paths in one question."""
MAX_WORD_CHARS = 40
"""A locality is a word."""
WORDS: Mapping[str, str] = MappingProxyType({
    "DISK": "ONLINE",
    "DISK_AND_TAPE": "ONLINE",
    "ONLINE_AND_NEARLINE": "ONLINE",
    "TAPE": "NEARLINE",
})  # fmt: skip


class Dcache:
    """dCache's REST interface at `url`, with or without its /api/v1."""

    def __init__(self, http: Http, site: Site, credential: Credential | None, url: str) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._url = f"{url.rstrip('/').removesuffix('/api/v1')}/api/v1/tape/archiveinfo"

    @seam
    async def localities(self, surls: Sequence[str]) -> dict[str, str]:
        """SURL → ONLINE, NEARLINE, LOST, NONE (no such file) or UNAVAILABLE (its disk is away: wait for it).

        A SURL that dCache says nothing about is not in the answer: that is no locality.
        """
        by_path: dict[str, list[str]] = {}
        for surl in surls:
            try:
                by_path.setdefault(parse_surl(surl).path, []).append(surl)
            except ValueError as error:
                raise Permanent(f"dCache archiveinfo: {error}") from error
        paths, found = list(by_path), {}
        for start in range(0, len(paths), CHUNK_PATHS):
            for path, locality in await self._ask(paths[start : start + CHUNK_PATHS]):
                found.update(dict.fromkeys(by_path.get(path, ()), locality))
        return found

    @seam
    async def _ask(self, paths: list[str]) -> list[tuple[str, str]]:
        reply = await self._http.request(
            "POST", self._url, site=self._site, credential=self._credential, write=False, json={"paths": paths}
        )
        rows = json_of(reply, "dCache archiveinfo", write=False)
        if not isinstance(rows, list):
            raise Temporary("dCache archiveinfo: the answer is not a list")
        pairs = ((row.get("path"), _locality(row)) for row in rows if isinstance(row, dict))
        return [(path, locality) for path, locality in pairs if isinstance(path, str) and locality is not None]


def _locality(row: dict[str, Any]) -> str | None:
    """What a row says; an error that is not "no such file" says nothing of where the file is."""
    word = row.get("locality")
    if isinstance(word, str) and word.strip():
        known = word[:MAX_WORD_CHARS].strip().upper()
        return WORDS.get(known, known)
    error = row.get("error")
    return "NONE" if isinstance(error, str) and "no such file" in error.lower() else None
