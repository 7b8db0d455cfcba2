"""dCache, as far as it is asked about files: where they are, how large, whether there is another copy, and for how much
there is room.

`POST /tape/archiveinfo` of the WLCG Tape REST API answers in any order and silently leaves out what is beyond 10 000
paths (`frontend.service.wlcg.file-locality-max-files`), so we ask in chunks and match by path. `GET /namespace/<path>`
answers for one file, with a macaroon too, where a site offers nothing else: the configured token is tried first, since
it was given for all that is there, and a request's macaroons where there is none or it is refused. What must stay true:
only dCache's own word makes a file LOST or NONE; a path that it does not let us see, and a page that is not dCache's, say
nothing. A macaroon goes to no site but its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary
from aglowd.grid.archive import Space, by_path, each, word
from aglowd.grid.gate import Credential, Site
from aglowd.grid.http import Http, Reply, json_of
from aglowd.grid.keyring import Keyring
from aglowd.grid.macaroons import REFUSALS, Macaroon, Refused, try_each
from aglowd.grid.surl import parse_surl, site_of
from aglowd.grid.words import shown
from aglowd.parts import in_parts

CHUNK_PATHS = 1000
"""Paths in one question."""
MAX_NUMBER = 2**53
"""Bytes or milliseconds; a larger number is no such thing."""
FORBIDDEN = frozenset({403})
NOT_TOLD = frozenset({403, 404, 503})
"""How a site that keeps no quota (503, 404), or tells its space to admins only (403), answers."""

_HASHED = re.compile(r"(?P<stem>.+_)(?P<hash>[0-9a-f]{8})\.tar", re.IGNORECASE)
_ADLER32 = re.compile(r"(?:0x)?[0-9a-fA-F]{1,8}")


class FileInfo(Struct, frozen=True):
    """What the namespace says of a file; None where it does not. `locality` is as in `Dcache.localities`, or empty.

    `adler32` is a number, so that a lost leading zero is no difference; `created` is in seconds since 1970.
    """

    locality: str
    size_bytes: int | None = None
    adler32: int | None = None
    created: float | None = None


class Dcache:
    """dCache's REST interface at `url`, with or without its /api/v1. `ask` is the way in which localities are asked for."""

    def __init__(
        self,
        http: Http,
        site: Site,
        credential: Credential | None,
        url: str,
        *,
        ask: Literal["archiveinfo", "namespace"] = "archiveinfo",
        pool_group: str = "",
        keyring: Keyring | None = None,
        keys_of: str = "",
    ) -> None:
        """`keyring`: the macaroons with which it may be asked, beside the credential; `keys_of`: the site that it is."""
        self._http = http
        self._site = site
        self._credential = credential
        self._url = f"{url.rstrip('/').removesuffix('/api/v1')}/api/v1"
        self._is_by_file = ask == "namespace"
        self._pool_group = pool_group
        self._keyring = keyring
        self._keys_of = keys_of

    @seam
    async def localities(self, surls: Sequence[str], sizes: dict[str, int] | None = None) -> dict[str, str]:
        """As `Archive.localities`; the namespace tells sizes, archiveinfo does not.

        Where nothing but the macaroons of requests opens the namespace, a file that no request of ours is for is taken to
        be on tape: asking for it is the only way to learn more, and does no harm.
        """
        if self._is_by_file:
            infos = await self._stat(surls)
            if sizes is not None:
                sizes.update({surl: info.size_bytes for surl, info in infos.items() if info.size_bytes is not None})
            known = {surl: info.locality for surl, info in infos.items() if info.locality}
            return known | {
                surl: "NEARLINE" async for surl in in_parts(surls) if surl not in infos and self._is_unasked(surl)
            }
        paths, found = await by_path(surls), dict[str, str]()
        every = list(paths)
        for start in range(0, len(every), CHUNK_PATHS):
            for path, locality in await self._ask(every[start : start + CHUNK_PATHS]):
                found.update(dict.fromkeys(paths.get(path, ()), locality))
        return found

    async def stat(self, surls: Sequence[str]) -> dict[str, FileInfo]:
        """SURL → what the namespace says of the file, a question each; one that may not be seen is not in the answer.

        The third path that is refused has dCache block us for a while (`frontend.limits.error.max-allowed`): Temporary.
        """
        return await self._stat(surls)

    @seam
    async def contents(self, surls: Sequence[str]) -> dict[str, FileInfo]:
        """As `Archive.contents`: one list for each directory, and a question for each file of which that does not tell enough."""
        paths, found = await by_path(surls), dict[str, FileInfo]()
        for directory, names in _by_directory(paths).items():
            rows = await self._children(directory, {"checksum": "true"}) if len(names) > 1 else []
            for row in rows:
                name, info = row.get("fileName"), _info(row)
                if isinstance(name, str) and name in names and None not in (info.size_bytes, info.adler32):
                    found.update(dict.fromkeys(paths[f"{directory}/{name}"], info))
        return found | await self._stat([surl for surl in surls if surl not in found])

    async def copies(self, surl: str) -> str | None:
        """As `Archive.copies`; None, too, if we may not list the directory."""
        try:
            file = parse_surl(surl)
        except ValueError as error:
            raise Permanent(f"dCache copies: {error}") from error
        directory, _, name = file.path.rpartition("/")
        if (own := _HASHED.fullmatch(name)) is None:
            return None
        newest = (-math.inf, "")
        for row in await self._children(directory, {}):
            other = row.get("fileName")
            match = _HASHED.fullmatch(other) if isinstance(other, str) else None
            if match and match["stem"] == own["stem"] and other != name:
                newest = max(newest, (_number(row.get("creationTime")) or 0, str(other)))
        return str(parse_surl(f"{str(file).removesuffix(name)}{newest[1]}")) if newest[1] else None

    async def space(self) -> Space:
        """As `Archive.space`: our quota, and the pool group's space if one is configured."""
        quota = await self._told("/quota/user", {"user": "true"})
        mine = next(_rows(quota), {})
        group = await self._told(f"/poolgroups/{quote(self._pool_group, safe='')}/space") if self._pool_group else None
        pools = group.get("groupSpaceData") if isinstance(group, dict) else None
        pools = pools if isinstance(pools, dict) else {}
        return Space(
            disk_used_bytes=_number(mine.get("replica")),
            disk_limit_bytes=_number(mine.get("replicaLimit")),
            tape_used_bytes=_number(mine.get("custodial")),
            tape_limit_bytes=_number(mine.get("custodialLimit")),
            pool_total_bytes=_number(pools.get("total")),
            pool_free_bytes=_number(pools.get("free")),
            pool_removable_bytes=_number(pools.get("removable")),
        )

    @seam
    async def _ask(self, paths: list[str]) -> list[tuple[str, str]]:
        reply = await self._http.request(
            "POST",
            f"{self._url}/tape/archiveinfo",
            site=self._site,
            credential=self._credential,
            write=False,
            json={"paths": paths},
        )
        rows = json_of(reply, "dCache archiveinfo", write=False)
        if not isinstance(rows, list):
            raise Temporary("dCache archiveinfo: the answer is not a list")
        pairs = ((row.get("path"), _locality(row)) for row in _rows(rows))
        return [(path, locality) for path, locality in pairs if isinstance(path, str) and locality is not None]

    async def _children(self, directory: str, params: Mapping[str, str]) -> list[dict[str, Any]]:
        """What the namespace says of each thing in a directory; nothing if we may not list it."""
        if self._keyring is not None and not self._has_token:
            return []  # A request's macaroon opens no directory.
        try:
            reply = await self._get(_namespace(directory), {"children": "true", **params}, ok=FORBIDDEN)
        except Permanent:
            return []
        if reply.status in FORBIDDEN:
            return []
        return list(_rows(_object(reply, "dCache namespace").get("children")))

    async def _stat(self, surls: Sequence[str]) -> dict[str, FileInfo]:
        """Ask for each of the files; the first for each token alone: one that has expired is to be refused once."""
        if self._keyring is not None and not self._has_token:
            await self._keyring.ready()
        paths = await by_path(surls)
        firsts: dict[object, str] = {}
        async for path in in_parts(paths):
            firsts.setdefault(next(iter(self._keys(path)), None), path)
        found: dict[str, FileInfo] = {}

        async def look(path: str) -> None:
            info = await self._file(path)
            if info is not None:
                found.update(dict.fromkeys(paths[path], info))

        await each(paths, look, firsts.values())
        return {surl: found[surl] for surl in surls if surl in found}

    async def _file(self, path: str) -> FileInfo | None:
        """What the namespace says of it; None if we may not see it."""
        reply = await self._opened(path, {"locality": "true", "checksum": "true"})
        if reply is None or reply.status in FORBIDDEN:
            return None
        answer = _object(reply, "dCache namespace")
        if reply.status == 404:
            if "errors" not in answer:
                raise Temporary(f"dCache namespace: found {shown(answer)} with HTTP 404; expected dCache's errors")
            return FileInfo("NONE")
        return _info(answer)

    async def _opened(self, path: str, params: Mapping[str, str]) -> Reply | None:
        """The namespace's answer about a file to the first that opens it; None if there is nobody to show."""
        keys = self._keys(path)
        if self._has_token or not (keys or self._is_keyed):
            reply = await self._get(_namespace(path), params, ok=FORBIDDEN | {404})
            if reply.status not in FORBIDDEN or not keys:
                return reply

        async def call(macaroon: Macaroon) -> Reply:
            reply = await self._get(_namespace(path), params, ok=REFUSALS | {404}, credential=macaroon)
            if reply.status == 401:  # Where a file is does not matter here: it is the macaroon's end.
                macaroon.freeze(f"refused by {self._site.name} (HTTP 401)")
            return reply

        try:
            return await try_each(keys, path, call, _always)
        except Refused:
            return None

    @property
    def _has_token(self) -> bool:
        return self._credential is not None and self._credential.is_usable

    @property
    def _is_keyed(self) -> bool:
        """Whether macaroons are all that we have: none was configured, and none is frozen that an operator must renew."""
        has_none = self._credential is None or not (self._credential.token or self._credential.password)
        return self._keyring is not None and has_none

    def _keys(self, path: str) -> tuple[Macaroon, ...]:
        """The macaroons for the path; only those that cover it, since each refusal counts against us."""
        if self._keyring is None:
            return ()
        found = self._keyring.candidates(self._keys_of, path, "READ_METADATA")
        return tuple(macaroon for macaroon in found if macaroon.covers(path))

    def _is_unasked(self, surl: str) -> bool:
        """Whether nothing could open the file, because it lies here and no request of ours is for it."""
        file = parse_surl(surl)
        is_here = self._keyring is not None and self._is_keyed and site_of(file.host) == self._keys_of
        return is_here and self._keyring is not None and not self._keyring.covers(self._keys_of, file.path)

    async def _told(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The answer, None where the site does not tell such a thing."""
        reply = await self._get(path, params, ok=NOT_TOLD)
        return None if reply.status in NOT_TOLD else json_of(reply, f"dCache {path}", write=False)

    async def _get(
        self,
        path: str,
        params: Mapping[str, str] | None,
        *,
        ok: frozenset[int],
        credential: Credential | None = None,
    ) -> Reply:
        return await self._http.request(
            "GET",
            self._url + path,
            site=self._site,
            credential=credential or self._credential,
            write=False,
            params=params,
            ok=ok,
        )


async def _always() -> bool:
    return True


def _namespace(path: str) -> str:
    return f"/namespace{quote(path, safe='/')}"


def _info(answer: Mapping[str, Any]) -> FileInfo:
    """What the namespace says of a file, asked for it alone or in a list."""
    sums = (_adler32(row) for row in _rows(answer.get("checksums")))
    created_ms = _number(answer.get("creationTime"))
    return FileInfo(
        word(answer.get("fileLocality")),
        _number(answer.get("size")),
        next((found for found in sums if found is not None), None),
        None if created_ms is None else created_ms / 1000,
    )


def _by_directory(paths: Iterable[str]) -> dict[str, set[str]]:
    """Directory → names in it."""
    found: dict[str, set[str]] = {}
    for path in paths:
        directory, _, name = path.rpartition("/")
        found.setdefault(directory, set()).add(name)
    return found


def _object(reply: Reply, what: str) -> dict[str, Any]:
    answer = json_of(reply, what, write=False)
    if not isinstance(answer, dict):
        raise Temporary(f"{what}: found {shown(answer)}; expected an object")
    return answer


def _rows(answer: Any) -> Iterator[dict[str, Any]]:
    """What is an object in a list; nothing if it is no list."""
    return (row for row in (answer if isinstance(answer, list) else ()) if isinstance(row, dict))


def _locality(row: dict[str, Any]) -> str | None:
    """What a row says; an error that is not "no such file" says nothing of where the file is."""
    if told := word(row.get("locality")):
        return told
    error = row.get("error")
    return "NONE" if isinstance(error, str) and "no such file" in error.lower() else None


def _adler32(row: dict[str, Any]) -> int | None:
    kind, value = row.get("type"), row.get("value")
    is_ours = isinstance(kind, str) and kind.upper() == "ADLER32"
    return int(value, 16) if is_ours and isinstance(value, str) and _ADLER32.fullmatch(value) else None


def _number(value: Any) -> int | None:
    """A count, given as a number or as its digits."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_NUMBER:
        return None
    return int(value)
