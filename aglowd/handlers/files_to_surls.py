"""The files of a directory as a list of URLs for the steps that take SURLs (AGLOW's Storage_to_Srmlist)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from msgspec import Struct

from aglowd.grid.surl import Door, gsiftp_of, parse_surl, webdav_of
from aglowd.handlers.base import HOUR_S, named
from aglowd.handlers.files import directory, matching, name_of
from aglowd.handlers.missing import missing_of
from aglowd.model import Done, Failed, Handler, Outcome, Seen, StepView, Wait

WEBDAV: Mapping[str, Door] = MappingProxyType(
    {"sara": Door("https://webdav.grid.surfsara.nl:2880"), "juelich": Door("https://dcache-lofar.fz-juelich.de:2880")}
)
"""Site → its WebDAV door that shows the same paths as its SRM: not the one for macaroons, which begins further down."""

_OBSID = re.compile(r"L\d+(?=_)")
_SUBBAND = re.compile(r"_SB(\d{3,4})(?=[_.])")

Scheme = Literal["srm", "gsiftp", "webdav", "as_is"]


def spelled(url: str, scheme: Scheme) -> str:
    """The same file by another door of its site; ValueError says what was found and what was expected."""
    if scheme == "as_is":
        return url
    surl = parse_surl(url)
    if scheme == "srm":
        return str(surl)
    if scheme == "gsiftp":
        return gsiftp_of(surl)
    return webdav_of(surl, WEBDAV)


def named_in(url: str) -> tuple[str, int | None] | None:
    """OBSID and subband, as the file's name tells them; None if it tells none."""
    obsid = _OBSID.match(name_of(url))
    if obsid is None:
        return None
    subband = _SUBBAND.search(name_of(url))
    return obsid[0], int(subband[1]) if subband else None


class FilesToSurls(Handler):
    """The files in a directory that match and are not empty, as URLs of `scheme`, sorted. Fails if there is none.

    Outputs: `surls`, `count`, `obsids` and `subbands` where names tell them, `missing`: subbands below `nominal`.
    """

    kind = "files_to_surls"

    class Params(Struct, frozen=True, forbid_unknown_fields=True):
        directory: str
        pattern: str = "*"
        scheme: Scheme = "srm"
        nominal: int = 244

        def __post_init__(self) -> None:
            if self.nominal < 1:
                raise ValueError("nominal must be at least 1")

    def react(self, step: StepView, params: Any, seen: Seen) -> Outcome:
        subject = directory(params.directory, step.key)
        listing = seen.of(subject)
        if listing is None:
            return Wait((subject,), f"looking into {params.directory}", HOUR_S)
        files = [file["url"] for file in matching(listing["files"], params.pattern) if file["size_bytes"]]
        if not files:
            return Failed(f"{params.directory} holds no file like {params.pattern}")
        surls, problems = set(), []
        for url in files:
            try:
                surls.add(spelled(url, params.scheme))
            except ValueError as error:
                problems.append(f"{name_of(url)}: {error}")
        if problems:
            return Failed(f"{len(problems)} files have no URL of {params.scheme}: {named(problems)}", final=True)
        told = [found for found in map(named_in, files) if found is not None]
        subbands = sorted({subband for _, subband in told if subband is not None})
        return Done(
            {
                "surls": sorted(surls),
                "count": len(surls),
                "obsids": sorted({obsid for obsid, _ in told}),
                "subbands": subbands,
                "missing": missing_of(subbands, params.nominal),
            }
        )
