"""SURLs, the names of files in the Long Term Archive, and the lists of them that operators keep.

Storage systems and people spell one file in several ways (`managerv2?SFN=`, a doubled slash, no port, a local name in a
second column, CRLF); everything else in aglowd sees the canonical spelling only, so that two names are equal exactly
when they name one file. Spellings: dCache and LTA documents; GRID_LRT `Staging/srmlist.py`, whose link rules these are,
with the OBSID taken from the file name, where GRID_LRT takes the first `L<digits>` of the whole path.

A site is one storage system, so whichever of its hosts a SURL, a GridFTP or a WebDAV URL names, the path decides. Poznań's
old lists have `/lofar/…` where StageIT's layout has `/data/lofar/…`: one file, and the old spelling is the canonical one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote, unquote

from msgspec import Struct

from aglowd.errors import AglowError
from aglowd.grid.words import quoted

SITES: Mapping[str, str] = MappingProxyType({
    "grid.sara.nl": "sara",
    "grid.surfsara.nl": "sara",
    "surf.nl": "sara",
    "fz-juelich.de": "juelich",
    "psnc.pl": "poznan",
    "man.poznan.pl": "poznan",
})  # fmt: skip
"""Domain → site."""
SITE_NAMES: Mapping[str, str] = MappingProxyType(
    {"surf": "sara", "surfsara": "sara", "fzj": "juelich", "jülich": "juelich", "psnc": "poznan", "poznań": "poznan"}
)
"""What else a site is called, in lower case → site."""
GSIFTP: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "sara": ("srm.grid.sara.nl", "gridftp.grid.sara.nl"),
        "juelich": ("lofar-srm.fz-juelich.de", "lofar-gridftp.fz-juelich.de"),
        "poznan": ("lta-head.lofar.psnc.pl", "gridftp.lofar.psnc.pl"),
    }
)
"""Site → its SRM host and its GridFTP host."""
_LEARNT: dict[str, str] = {}
"""Domain → site, as the configuration adds to SITES. Where a host is does not change while the process lives, and pure code,
which is given no configuration, has to know it."""


class Door(Struct, frozen=True):
    """A site's WebDAV door: its URL, and the directory in which the paths there begin ("" = at the top)."""

    url: str
    root: str = ""


DOORS: Mapping[str, Door] = MappingProxyType({
    "sara": Door("https://webdav.grid.surfsara.nl:2882", "/pnfs/grid.sara.nl/data/lofar/ops/projects"),
    "juelich": Door("https://dcache-lofar.fz-juelich.de:2882"),
})  # fmt: skip
"""Site → the door for StageIT's macaroons. Poznań's is not published: it is what StageIT's convert2webdav names, and what
an operator writes into the configuration."""
SRM_PORT = 8443
GSIFTP_PORT = 2811
MAX_PROBLEMS = 100
"""As many of a list's problems are told; the rest is counted."""
MAX_SURL_CHARS = 2000
"""A line of a list: one SURL, perhaps a local name."""
MAX_LIST_SURLS = 10_000
"""An observation has at most 488 subbands; what is much longer is no list of one."""
EXPECTED = "srm://HOST:8443/…/L<OBSID>_SB<subband>_….tar"

_URL = re.compile(r"(?P<scheme>srm|gsiftp)://(?P<host>[A-Za-z0-9.-]+)(?::(?P<port>\d{1,5}))?(?P<path>/[!-~]+)")
_WEB = re.compile(r"https?://(?P<host>[A-Za-z0-9.-]+)(?::\d{1,5})?(?P<path>/[!-~]*)", re.IGNORECASE)
_PLAIN = re.compile(r"/[!-~]+")
_TOP = re.compile(r"/pnfs/|/lofar/")
"""How a path begins that is not below a door's root."""
_MANAGER = re.compile(r"^/+srm/+managerv[12]\?SFN=(?=/)", re.IGNORECASE)
_OBSID = re.compile(r"L\d+(?=_)")
_SUBBAND = re.compile(r"_SB(\d{3,4})(?=[_.])")


class Surl(Struct, frozen=True):
    """One file. `obsid` as in "L229507"; `subband` is None for data that has none (pulsar data)."""

    host: str
    path: str
    obsid: str
    subband: int | None
    name: str

    def __str__(self) -> str:
        return f"srm://{self.host}:{SRM_PORT}{self.path}"


class SurlList(Struct, frozen=True):
    """A list of one observation at one site: canonical SURLs in the file's order, subbands sorted."""

    path: str
    obsid: str
    site: str
    surls: tuple[str, ...]
    subbands: tuple[int, ...]


class SurlListError(AglowError):
    """A list cannot be used; every problem is named, each as "path:line: what was found; expected …"."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def learn_hosts(hosts: Mapping[str, Sequence[str]]) -> None:
    """From now on data lie at these sites, too, by their hosts; a site that is not in GSIFTP has its first as SRM host."""
    _LEARNT.clear()
    _LEARNT.update({host: site for site, names in hosts.items() for host in names})


def site_of(host: str) -> str:
    """The site that the host belongs to; ValueError for a host of none."""
    for known in (_LEARNT, SITES):
        for domain, site in known.items():
            if host == domain or host.endswith("." + domain):
                return site
    raise ValueError(
        f"found host {host!r}; expected one of {', '.join('*.' + domain for domain in (*_LEARNT, *SITES))}"
    )


def find_srm_host(site: str) -> str | None:
    """The host in the canonical spelling of that site's SURLs."""
    if site in GSIFTP:
        return GSIFTP[site][0]
    return next((host for host, of_site in _LEARNT.items() if of_site == site), None)


def site_called(name: str) -> str:
    """The site that goes by that name ("SURF", "JUELICH", "PSNC"); a name that nobody knows is one of its own."""
    name = name.strip().casefold()
    return SITE_NAMES.get(name, name)


def plain_path(site: str, path: str) -> str:
    """The path at that site in its one spelling: no doubled slash, and at Poznań without the `/data` above `/lofar`."""
    path = re.sub("/{2,}", "/", path)
    return re.sub(r"^/data(?=/lofar(/|$))", "", path) if site == "poznan" else path


def parse_surl(text: str) -> Surl:
    """Any spelling of a SURL, alone or beside a local name; ValueError says what was found and what was expected."""
    if len(text) > MAX_SURL_CHARS:
        raise ValueError(f"found {len(text)} characters, {text[:80]!r}…; expected at most {MAX_SURL_CHARS}")
    columns = text.split()
    links = [column for column in columns if column.startswith(("srm://", "gsiftp://"))] or columns
    if len(columns) > 2 or len(links) != 1:
        raise ValueError(f"found {text.strip()[:200]!r}; expected one SURL, {EXPECTED}, and at most a local name")
    match = _URL.fullmatch(links[0])
    if match is None:
        raise ValueError(f"found {links[0][:200]!r}; expected {EXPECTED}")
    host = match["host"].lower()
    site = site_of(host)
    port = SRM_PORT if match["scheme"] == "srm" else GSIFTP_PORT
    if int(match["port"] or port) != port:
        raise ValueError(f"found port {match['port']}; expected {port}")
    return _surl(site, _MANAGER.sub("", match["path"]))


def _surl(site: str, path: str) -> Surl:
    path = plain_path(site, path)
    name = path.rpartition("/")[2]
    if not _PLAIN.fullmatch(path) or any(sign in path for sign in "?#%\\\"'<>") or "/../" in path + "/":
        raise ValueError(f"found path {path[:200]!r}; expected plain directories and a file name")
    obsid = _OBSID.match(name)
    if obsid is None:
        raise ValueError(f"found file name {name[:200]!r}; expected L<OBSID>_….tar")
    subband = _SUBBAND.search(name)
    return Surl(find_srm_host(site) or "", path, obsid[0], int(subband[1]) if subband else None, name)


def gsiftp_of(surl: Surl) -> str:
    """The same file for GridFTP, through its site's door."""
    site = site_of(surl.host)
    host = GSIFTP[site][1] if site in GSIFTP else surl.host
    return f"gsiftp://{host}:{GSIFTP_PORT}{surl.path}"


def webdav_of(surl: Surl, doors: Mapping[str, Door] = DOORS, *, root: str | None = None) -> str:
    """The same file at its site's WebDAV door; ValueError if no door is known or the file is not below its root.

    `root`: what a macaroon's `root:` says, instead of the door's own ("" = the macaroon has none).
    """
    site = site_of(surl.host)
    if site not in doors:
        raise ValueError(f"no WebDAV door of {site} is known; expected one of {', '.join(doors) or 'none'}")
    path = below(site, doors[site].root if root is None else root, surl.path)
    return doors[site].url.rstrip("/") + quote(path)


def below(site: str, root: str, path: str) -> str:
    """The path as it is called by one who sees `root` as "/"; ValueError if it is not below that."""
    top = plain_path(site, f"/{root}/").rstrip("/")
    if not top:
        return path
    path = plain_path(site, path)
    if path != top and not path.startswith(f"{top}/"):
        raise ValueError(f"found path {path[:200]!r}; expected one below {top[:200]}")
    return path[len(top) :] or "/"


def surl_of(url: str, doors: Mapping[str, Door] = DOORS) -> Surl:
    """The file that a SURL, a GridFTP, WebDAV or LTA download URL names; ValueError if it is none of these.

    A query is left out, since it may hold a macaroon, and so may what is said of the URL.
    """
    if len(url) > MAX_SURL_CHARS:
        raise ValueError(f"found {len(url)} characters; expected at most {MAX_SURL_CHARS}")
    url, _, query = url.strip().partition("?")
    if url.startswith(("srm://", "gsiftp://")):
        return parse_surl(f"{url}?{query}" if query else url)
    web = _WEB.fullmatch(url)
    if web is None:
        raise ValueError(f"found {quoted(url)!r}; expected a URL of srm, gsiftp or https")
    at = place_of(url, doors)
    site = at[0] if at else site_of(web["host"].lower())
    if web["path"].endswith("/SRMFifoGet.py") and query.startswith("surl="):
        return parse_surl(unquote(query.removeprefix("surl=")))
    path = at[1] if at else plain_path(site, unquote(web["path"]))
    if at is None and _TOP.match(path) is None:
        raise ValueError(f"found path {quoted(path)!r}; expected one below /lofar/ops/projects")
    return _surl(site, path)


def place_of(url: str, doors: Mapping[str, Door] = DOORS) -> tuple[str, str] | None:
    """The site and the path, as the site itself has it, of what a URL at its WebDAV door names; None for other URLs."""
    for site, door in doors.items():
        start = f"{door.url.rstrip('/')}/"
        if url.lower().startswith(start.lower()):
            path = plain_path(site, unquote(f"/{url[len(start) :]}"))
            return site, path if _TOP.match(path) else f"{door.root}{path}"
    return None


def read_srm_list(text: str, path: str) -> SurlList:
    """The list in `text`, the content of the file `path`; SurlListError tells all of its problems at once.

    One observation, one site, one file a subband. Blank lines and exact repetitions are dropped. Two files of one
    subband are a problem: the newer is the right one (it was ingested again), and the list does not say which it is.
    """
    problems: list[str] = []
    surls: dict[str, int] = {}
    first: tuple[Surl, int] | None = None
    of_subband: dict[int, tuple[str, int]] = {}
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            surl = parse_surl(line)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if str(surl) in surls:
            continue
        surls[str(surl)] = number
        if len(surls) > MAX_LIST_SURLS:
            problems.insert(0, f"{where}: found more SURLs; expected at most {MAX_LIST_SURLS} in one list")
            break
        first = first or (surl, number)
        problems += [f"{where}: {text}" for text in _differences(surl, *first)]
        if surl.subband is None:
            problems.append(f"{where}: found {surl.name}, which names no subband; expected L<OBSID>_SB<subband>_….tar")
        elif surl.subband in of_subband:
            other, line_of_other = of_subband[surl.subband]
            hint = f"expected one file a subband; line {line_of_other} has {other}"
            problems.append(f"{where}: found {surl.name}, a second file of subband {surl.subband}; {hint}")
        else:
            of_subband[surl.subband] = surl.name, number
    if not surls and not problems:
        problems.append(f"{path}:1: found no SURL; expected one a line, {EXPECTED}")
    if problems or first is None:
        more = len(problems) - MAX_PROBLEMS
        raise SurlListError((*problems[:MAX_PROBLEMS], *([f"{path}: and {more} problems more"] if more > 0 else ())))
    return SurlList(path, first[0].obsid, site_of(first[0].host), tuple(surls), tuple(sorted(of_subband)))


def _differences(surl: Surl, first: Surl, line: int) -> list[str]:
    """What keeps `surl` from being of the same observation and site as the list's first."""
    found = []
    if surl.obsid != first.obsid:
        found.append(f"found OBSID {surl.obsid}; expected {first.obsid}, as in line {line}")
    site, expected = site_of(surl.host), site_of(first.host)
    if site != expected:
        found.append(f"found a file at {site}; expected {expected}, as in line {line}")
    return found
