"""dCache itself as a stager: without the LTA's services before it, for sites that let their users stage.

What must stay true: requests are read and cancelled as bulk requests (`/bulk-requests/<uuid>`), because a WLCG stage
request is one, of activity STAGE, and only there a skipped file is told from a failed one. How a request is made
differs: by the WLCG Tape REST API (`/tape/stage`), or by bulk PIN. What it holds is released by a bulk request of its
own (RELEASE or UNPIN), whose targets tell what became of each file: `/tape/release` and a bulk request that clears itself
leave nothing that would tell.
COMPLETED is said of a request whatever became of its files, so it is a hint; where they are is asked elsewhere.
Sources: dCache's BulkResources, StageResources, ReleaseResources, PinActivityProvider, PinManagerActivity, UnpinActivity
and UnpinRequestProcessor.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.dcache import MAX_NUMBER
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import EXCERPT_CHARS, Http, Reply, json_of
from aglowd.grid.stager import Progress, Request, listed
from aglowd.grid.surl import GSIFTP, SITES, SRM_PORT, parse_surl
from aglowd.grid.words import MAX_SAID_CHARS, quoted, shown

STAGE_TIMEOUT_S = 300.0
"""A thousand paths take the bulk service a while."""
PAGE_ROWS = 10_000
"""So many requests or targets a page; a page that is full may have a next one."""
MAX_PAGES = 20
"""What has more pages than this never ends."""
RELEASE_GROUP = 20
"""Files released together by `/tape/release`: a bad path among them can leave the others pinned, and nothing tells."""
PAUSES_REAL_S = (0.5, 1.0, 2.0, *(5.0,) * 12)
"""Real seconds after each look at what dCache is about to end, a minute in all: what still runs then is in doubt."""
NAMED_FILES = 3
"""Files that are named of those that were not released."""
MAX_BULK_FILES = 500
"""Files of a bulk request: dCache refuses more (`bulk.limits.max-targets-per-flat-request`)."""
MAX_WORD_CHARS = 40
"""A status or a state is a word."""
WORDS: Mapping[str, str] = MappingProxyType({
    "INCOMPLETE": "scheduled",
    "QUEUED": "scheduled",
    "STARTED": "in progress",
    "COMPLETED": "success",
    "CANCELLED": "aborted",
})  # fmt: skip
RUNNING = frozenset({"INCOMPLETE", "QUEUED", "STARTED", "CANCELLING"})
"""Statuses of a request whose files can still come online; of one that is being cancelled those that were on their way."""

_UUID = re.compile(r"[0-9A-Za-z-]{1,64}")
_REFUSED = frozenset({400})
"""How a release is refused for one of its paths; what else it is refused for holds for all of them."""
_NO_BULK = frozenset({400, 403, 404, 405, 413})
"""How the bulk service refuses to release: by what a site lets its users do, or by how many files at once."""
_GONE = "FileNotFoundCacheException"
"""The class of error by which a release fails for a file that is there no more: nothing of it is pinned. A file that has
no pin of the request is no failure: the pin manager has nothing to do, and the target is COMPLETED."""


class DcacheStager:
    """The stager's verbs at the REST interface at `url`, with or without its /api/v1. Requests are named by UUIDs.

    Files are pinned for `lifetime_s` from the submission on. `bulk` makes requests of activity PIN, whose lifetime the
    bulk service documents, instead of WLCG stage requests; each way lists the requests of its own activity only. Paths
    become SURLs at `srm_host`; without it, at the SRM host of the site whose domain the path begins with.
    """

    def __init__(
        self,
        http: Http,
        site: Site,
        credential: Credential | None,
        url: str,
        *,
        lifetime_s: float,
        bulk: bool = False,
        srm_host: str | None = None,
    ) -> None:
        self._http = http
        self._site = site
        self._credential = credential
        self._url = f"{url.rstrip('/').removesuffix('/api/v1')}/api/v1"
        self._lifetime_s = lifetime_s
        self._is_bulk = bulk
        self._srm_host = srm_host

    @seam
    async def stage(self, surls: Sequence[str]) -> str:
        """Ask for the files, of which a bulk request takes `MAX_BULK_FILES`; the UUID of the new request."""
        paths = list(dict.fromkeys(self._path(surl) for surl in listed(surls)))
        if self._is_bulk:
            # In minutes, which is the unit that dCache takes where it does not read the key that names it.
            minutes = str(math.ceil(self._lifetime_s / 60))
            body: dict[str, Any] = {
                "activity": "PIN",
                "target": paths,
                "expandDirectories": "NONE",
                "cancelOnFailure": False,
                "arguments": {"lifetime": minutes, "lifetimeUnit": "MINUTES"},
            }
            return _made(await self._ask("POST", "/bulk-requests", body, write=True, timeout_s=STAGE_TIMEOUT_S))
        lifetime = f"PT{math.ceil(self._lifetime_s)}S"
        body = {"files": [{"path": path, "diskLifetime": lifetime} for path in paths]}
        reply = await self._ask("POST", "/tape/stage", body, write=True, timeout_s=STAGE_TIMEOUT_S)
        answer = json_of(reply, "dCache stage", write=True)
        return _named(answer.get("requestId") if isinstance(answer, dict) else None)

    @seam
    async def progress(self) -> dict[Request, Progress]:
        """All our requests that dCache still has, in one round trip for who we are and one a page for them.

        The list holds everybody's, and asking for an owner wants the group too, which a login may have several of; so
        all of ours are asked for, and what is not of our uid is left out. dCache counts nothing: the counts are None.
        """
        user = await self._read("/user")
        uid, gids = (user.get("uid"), user.get("gids")) if isinstance(user, dict) else (None, None)
        if not _is_number(uid):
            raise Temporary(f"dCache user: found uid {shown(uid)}; expected a number: the credential names nobody")
        owners = [f"{uid}:{gid}" for gid in gids if _is_number(gid)] if isinstance(gids, list) else []
        query = {"owner": ",".join(owners)} if owners else {}
        found: dict[Request, Progress] = {}
        async for row in self._list(query):
            name = str(row.get("url", "")).rstrip("/").rpartition("/")[2]
            is_ours = str(row.get("owner", "")).partition(":")[0] == str(uid)
            if is_ours and row.get("activity") == self._activity and _UUID.fullmatch(name):
                found[name] = Progress(_status(row))
        return found

    async def status(self, request: Request) -> str:
        """The request's status in our words, empty when dCache does not know it or has archived it."""
        try:
            return _status(await self._page(request, 0))
        except Permanent as error:
            if error.absent:
                return ""
            raise

    @seam
    async def requested(self, request: Request) -> tuple[str, ...]:
        """The SURLs that it is for; none when dCache does not know it."""
        return self._surls((await self._look(request))[1])

    async def staged(self, request: Request) -> tuple[str, ...]:
        """The request's SURLs that dCache says are online; none when it does not know the request."""
        files = (await self._look(request))[1]
        return self._surls(path for path, row in files.items() if _word(row.get("state")) == "COMPLETED")

    @seam
    async def abort(self, request: Request) -> None:
        """Cancel what runs, wait until nothing does, and release all files; absent when dCache does not know the request.

        dCache has said of each file that it is released, or it is named by Permanent. Where the bulk service releases
        nothing, files go by the Tape REST API, which says nothing of them: where they are must be looked at later.
        Unknown when dCache has not ended in `PAUSES_REAL_S` what it was asked for: releasing twice does no harm.
        """
        status, files = await self._look(request, must_exist=True)
        has_changed = False
        try:
            if status in RUNNING:
                if status != "CANCELLING":
                    await self._ask("PATCH", f"/bulk-requests/{request}", {"action": "cancel"}, write=True)
                has_changed = True
                # What was on its way may still come online, and would stay pinned if it were released before.
                status, found = await self._until_over(request)
                files = found or files
            paths, left, is_bulk = list(files), list[str](), True
            for group in [paths[at : at + MAX_BULK_FILES] for at in range(0, len(paths), MAX_BULK_FILES)]:
                told = await self._release_and_look(request, group) if is_bulk else None
                has_changed = has_changed or told is not None
                left += told or ()
                if told is not None:
                    continue
                is_bulk = False  # Asked once, because dCache shuts out who is refused three times.
                for few in _groups({path: files[path] for path in group}):
                    left += await self._release_blindly(request, few)
                    has_changed = True
        except Temporary as error:
            # A part of it was done.
            raise (Unknown(str(error)) if has_changed else error) from error
        if left:
            names = "; ".join(left[:NAMED_FILES])
            raise Permanent(f"dCache release: {len(left)} of {len(files)} files are not released: {names}")
        if status in RUNNING:
            raise Unknown(f"dCache release: request {request} is {status} and may pin more files")

    async def reschedule(self, request: Request) -> None:
        """There is no such thing here: Permanent."""
        raise Permanent("dCache takes no request up again; ask for its files anew")

    @property
    def _activity(self) -> str:
        return "PIN" if self._is_bulk else "STAGE"

    async def _release_and_look(self, request: Request, paths: list[str]) -> list[str] | None:
        """Release them by a bulk request; those that dCache did not release, and why. None: it takes no such request."""
        body = {
            "activity": "UNPIN" if self._is_bulk else "RELEASE",
            "target": paths,
            "expandDirectories": "NONE",
            # Without the id, it would drop every pin that the user has on these files.
            "arguments": {"id": request},
            "cancelOnFailure": False,
            "clearOnSuccess": False,
            "clearOnFailure": False,
        }
        reply = await self._ask("POST", "/bulk-requests", body, write=True, timeout_s=STAGE_TIMEOUT_S, ok=_NO_BULK)
        if reply.status in _NO_BULK:
            return None
        name = _made(reply)
        try:
            status, targets = await self._until_over(name)
        except Temporary as error:
            raise Unknown(str(error)) from error  # It was made.
        if not status or status in RUNNING or len(targets) < len(set(paths)):
            raise Unknown(f"dCache release {name}: found {status or 'nothing'} of {len(paths)} files; expected an end")
        with suppress(OutsideError):  # It counts against what a user may have; if it stays, dCache archives it one day.
            await self._ask("DELETE", f"/bulk-requests/{name}", write=True)
        return [f"{path}: {self._said(_why(row))}" for path, row in targets.items() if not _is_released(row)]

    async def _release_blindly(self, request: Request, paths: list[str]) -> list[str]:
        """Release them together, after a refusal one by one; what was refused by itself, and why."""
        reply = await self._ask("POST", f"/tape/release/{request}", {"paths": paths}, write=True, ok=_REFUSED)
        if reply.status not in _REFUSED:
            return []
        if len(paths) > 1:
            return [one for path in paths for one in await self._release_blindly(request, [path])]
        return [f"{paths[0]}: {self._said(reply.body[:MAX_SAID_CHARS].decode('utf-8', 'replace'))}"]

    def _said(self, text: str) -> str:
        """What dCache said, without our token."""
        return quoted(self._credential.redact(text) if self._credential else text, most=EXCERPT_CHARS)

    async def _until_over(self, request: Request) -> tuple[str, dict[str, dict[str, Any]]]:
        """dCache's word for the request, and its targets, when nothing of it runs any more or `PAUSES_REAL_S` are over."""
        status, targets = await self._look(request)
        for pause_s in PAUSES_REAL_S:
            if status and status not in RUNNING:
                break
            await asyncio.sleep(pause_s)
            status, targets = await self._look(request)
        return status, targets

    async def _list(self, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """The rows of the list of requests, page after page."""
        offset = 0
        for _ in range(MAX_PAGES):
            rows = await self._read("/bulk-requests", {**query, "offset": str(offset)})
            if not isinstance(rows, list):
                raise Temporary(f"dCache bulk requests: found {shown(rows)}; expected a list")
            for row in rows:
                if isinstance(row, dict):
                    yield row
            if len(rows) < PAGE_ROWS:
                return
            numbers = [row["id"] for row in rows if isinstance(row, dict) and _is_number(row.get("id"))]
            offset = max(numbers, default=-1) + 1
        raise Temporary(f"dCache bulk requests: found more than {MAX_PAGES} pages; expected the last one")

    async def _look(self, request: Request, *, must_exist: bool = False) -> tuple[str, dict[str, dict[str, Any]]]:
        """dCache's word for the request's status, and what it tells of each path; nothing when it is not known."""
        status, files, offset = "", dict[str, dict[str, Any]](), 0
        try:
            for _ in range(MAX_PAGES):
                page = await self._page(request, offset)
                status = _word(page.get("status"))
                targets = page.get("targets")
                for row in targets if isinstance(targets, list) else ():
                    if isinstance(row, dict) and isinstance(row.get("target"), str):
                        files[row["target"]] = row
                following = page.get("nextId", -1)
                if not _is_number(following) or following <= offset:
                    return status, files
                offset = following
        except Permanent as error:
            if error.absent and not must_exist:
                return "", {}
            raise
        raise Temporary(f"dCache request {request}: found more than {MAX_PAGES} pages; expected the last one")

    async def _page(self, request: Request, offset: int) -> dict[str, Any]:
        if not isinstance(request, str) or not _UUID.fullmatch(request):
            raise Permanent(f"dCache names requests by UUIDs, not by {shown(request)}", absent=True)
        page = await self._read(f"/bulk-requests/{request}", {"offset": str(offset)})
        if not isinstance(page, dict) or not _word(page.get("status")):
            raise Temporary(f"dCache request {request}: found {shown(page)}; expected an object with a status")
        return page

    async def _read(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return json_of(await self._ask("GET", path, write=False, params=params), f"dCache {path}", write=False)

    async def _ask(self, method: str, path: str, body: Any = None, *, write: bool, **how: Any) -> Reply:
        return await self._http.request(
            method, self._url + path, site=self._site, credential=self._credential, write=write, json=body, **how
        )

    def _path(self, surl: str) -> str:
        """The path of a SURL; Permanent for what is none, and for a SURL that its path would not lead back to."""
        try:
            parsed = parse_surl(surl)
        except ValueError as error:
            raise Permanent(f"dCache stage: {error}") from error
        if self._surl(parsed.path) != str(parsed):
            raise Permanent(f"dCache stage: found {parsed}; expected a file of {self._host(parsed.path) or 'one site'}")
        return parsed.path

    def _surls(self, paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(surl for path in paths if (surl := self._surl(path)) is not None)

    def _surl(self, path: str) -> str | None:
        """The SURL in its canonical spelling; None for a path that is none of a file in the archive."""
        try:
            return str(parse_surl(f"srm://{self._host(path)}:{SRM_PORT}{path}"))
        except ValueError:
            return None

    def _host(self, path: str) -> str:
        """The SRM host that serves the path, empty if the path does not tell."""
        if self._srm_host is not None:
            return self._srm_host
        domain = (*path.split("/"), "", "")[2]  # As in /pnfs/grid.sara.nl/data.
        return GSIFTP[SITES[domain]][0] if domain in SITES else ""


def _groups(files: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The paths in groups; what failed is likely to be what a release stumbles over, so it has groups of its own."""
    groups = []
    for is_failed in (False, True):
        paths = [path for path, row in files.items() if (_word(row.get("state")) == "FAILED") is is_failed]
        groups += [paths[at : at + RELEASE_GROUP] for at in range(0, len(paths), RELEASE_GROUP)]
    return groups


def _is_released(row: Mapping[str, Any]) -> bool:
    """Whether nothing of this target of a release is pinned by the request any more."""
    return _word(row.get("state")) == "COMPLETED" or str(row.get("errorType")).rpartition(".")[2] == _GONE


def _why(row: Mapping[str, Any]) -> str:
    return f"{_word(row.get('state'))} {row.get('errorMessage') or ''}".strip()[:MAX_SAID_CHARS]


def _made(reply: Reply) -> str:
    """The UUID of a new bulk request, from its header."""
    return _named(reply.headers.get("request-url", "").rstrip("/").rpartition("/")[2])


def _named(name: Any) -> str:
    if not isinstance(name, str) or not _UUID.fullmatch(name):
        raise Unknown(f"dCache: found {shown(name)} as the new request's id; expected a UUID")
    return name


def _status(row: Mapping[str, Any]) -> str:
    word = _word(row.get("status"))
    return WORDS.get(word, word.lower())


def _word(value: Any) -> str:
    return value.strip()[:MAX_WORD_CHARS].upper() if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER
