"""Storage through the `gfal-*` executables: gsiftp, and whatever else they speak; and where files are, by SRM.

They print `gfal-ls error: 2 (No such file or directory) - …` and exit with the errno (recorded from gfal2-util 1.8);
`GFAL_PYTHONBIN` is left to the environment. What the verbs promise stands in `storage.py`; the tools promise less. Seen
with a real GridFTP server: `gfal-copy` puts a file *into* a directory that has the new name, and copies a directory with
all that is in it; `gfal-mkdir -p` is content with a file; `gfal-rename` of nothing is a communication error; and URLs,
but for `file://`, are percent-decoded, where listings show names as they are. So they are asked first.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from aglowd.crash import seam
from aglowd.errors import OutsideError, Permanent, Temporary, Unknown
from aglowd.grid.archive import Space, by_path, each, word
from aglowd.grid.files import CHECKSUM_TIMEOUT_S, SAFE_SIGNS, TRANSFER_TIMEOUT_S, Entry, join, local_path
from aglowd.grid.gate import Site, Sites
from aglowd.grid.proc import SHORT_S, Finished, Processes
from aglowd.grid.surl import parse_surl
from aglowd.grid.webdav_text import host_of
from aglowd.grid.words import quoted, shown

if TYPE_CHECKING:
    from aglowd.grid.dcache import FileInfo

LAST_CHARS = 200
"""A checksum is the last word of what the tool says."""

LOCALITIES = frozenset({"ONLINE", "NEARLINE", "LOST", "NONE", "UNAVAILABLE"})
"""What the tools say of a file that says something; `UNKNOW` is what they call silence."""

_ERROR = re.compile(r"gfal-\w+ error: (\d{1,4}) \(")
_LINE = re.compile(
    r"(?P<kind>[dlbcps?-])[rwxsStT-]{9}\S?\s+\d+\s+\S+\s+\S+\s+(?P<size>\d{1,19})\s+"
    r"(?P<date>\d{4}-\d\d-\d\d(?: \d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?: [+-]\d{4})?|\d\d-\d\d \d\d:\d\d"
    r"|[A-Z][a-z]{2} +\d{1,2} +(?:\d\d:\d\d|\d{4})) +(?P<name>[^\t\n]+)"
)
_SIZE = re.compile(r"^[ \t]*Size: ([0-9]{1,19})[ \t]+(\S.*)$", re.MULTILINE)
_MODIFIED = re.compile(r"^Modify: (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.MULTILINE)
# Two patterns instead of one with .* between: words that come again and again would take time without end.
_PROXY = re.compile(r"(?:certificate|credential|proxy)\b", re.IGNORECASE)
_GONE = re.compile(r"\b(?:expired|not found|could ?n[o']t be found|missing)", re.IGNORECASE)
_NO_PROXY = re.compile(r"could not open the user certificate|valid proxy", re.IGNORECASE)
_NO_HOST = re.compile(
    r"name or service not known|could not resolve|unknown host|temporary failure in name resolution|connection refused"
    r"|no route to host|network is unreachable",
    re.IGNORECASE,
)
_NO_FILE = re.compile(r"\tMISSING$|No such file or directory", re.MULTILINE)
_ANY_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}://\S+")
_UNREACHED = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_REFUSED = frozenset({
    errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.ENAMETOOLONG, errno.EPROTONOSUPPORT,
    errno.ENOSYS, errno.EOPNOTSUPP, errno.EROFS,
})  # fmt: skip
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Gfal:
    """The tools, one call a verb; `sites` has a gate for each host."""

    def __init__(self, processes: Processes, sites: Site | Sites) -> None:
        self._processes = processes
        self._sites = sites

    async def list(self, url: str) -> tuple[Entry, ...]:
        said = await self._run(["gfal-ls", "-l", "--full-time", url], url, write=False)
        entries = []
        for line in said.stdout.splitlines():
            match = _LINE.match(line)
            if match is None and line.strip():
                raise Temporary(f"gfal-ls {url}: found the line {shown(line, 200)}; expected mode, size, date and name")
            if match and match["name"] not in (".", ".."):
                entries.append(_entry(url, match))
        return tuple(sorted(entries, key=lambda entry: entry.url))

    async def stat(self, url: str) -> Entry:
        """The file or directory; absent when it does not exist."""
        said = await self._run(["gfal-stat", url], url, write=False)
        size, modified = _SIZE.search(said.stdout), _MODIFIED.search(said.stdout)
        if size is None:
            raise Temporary(f"gfal-stat {url}: found {shown(said.stdout, 200)}; expected a line with Size")
        return Entry(url, int(size[1]), "directory" in size[2], _time(modified[1]) if modified else None)

    async def checksum(self, url: str) -> int:
        said = await self._run(["gfal-sum", url, "ADLER32"], url, write=False, timeout_s=CHECKSUM_TIMEOUT_S)
        found = re.search(r"(?:^|\s)([0-9a-fA-F]{1,8})\s*$", said.stdout[-LAST_CHARS:])
        if found is None:
            raise Temporary(f"gfal-sum {url}: found {shown(said.stdout, 200)}; expected the URL and its adler32")
        return int(found[1], 16)

    async def make_directory(self, url: str) -> None:
        try:
            found = await self.stat(url)
        except Permanent as error:
            if not error.absent:
                raise
            await self._run(["gfal-mkdir", "-p", url], url, write=True)
            return
        if not found.is_dir:
            raise Permanent(f"{url} exists and is a file, where a directory was expected")

    async def copy(self, source: str, destination: str) -> None:
        """The caller has seen that the source is a file, and that nothing has the destination's name."""
        timeout = ["-t", str(TRANSFER_TIMEOUT_S), "-T", str(TRANSFER_TIMEOUT_S)]
        argv = ["gfal-copy", *timeout, _for_tool(source), _for_tool(destination)]
        # One place for both ends: who holds one while he waits for another lets the one host wait for the other.
        far = destination if local_path(destination) is None else source
        await self._run(argv, f"{source} → {destination}", write=True, at=far, timeout_s=TRANSFER_TIMEOUT_S + 60.0)

    async def rename(self, source: str, destination: str) -> None:
        """It replaces what has the new name: the caller has looked."""
        await self.stat(source)
        await self._run(
            ["gfal-rename", _for_tool(source), _for_tool(destination)],
            f"{source} → {destination}",
            write=True,
            at=source,
        )

    async def remove(self, url: str) -> None:
        await self._run(["gfal-rm", url], url, write=True)

    async def remove_directory(self, url: str) -> None:
        """As `Storage.remove_directory`. The one way is `-r`, so it is listed first."""
        if not (await self.stat(url)).is_dir:
            raise Permanent(f"{url} is a file; expected a directory")
        listed = await self._run(["gfal-ls", "-a", url], url, write=False)
        if names := {line.rstrip("\t") for line in listed.stdout.splitlines()} - {".", "..", ""}:
            raise Permanent(f"{url} is not empty: {shown(sorted(names)[:3])}")
        await self._run(["gfal-rm", "-r", url], url, write=True)

    async def status(self, url: str) -> str:
        """The site's word for where the file is, empty if it may not be seen; absent when it does not exist."""
        said = await self._run(["gfal-xattr", url, "user.status"], url, write=False, ok=_FORBIDDEN)
        return said.stdout.strip() if said.rc == 0 else ""

    @seam
    async def _run(
        self,
        argv: Sequence[str],
        what: str,
        *,
        write: bool,
        at: str = "",
        timeout_s: float = SHORT_S,
        ok: frozenset[int] = frozenset(),
    ) -> Finished:
        """Run one of the tools on `what`, a URL unless `at` is; its failure as one of the three, unless its errno is `ok`."""
        async with self._sites.at(host_of(at or what)).slot(is_long=timeout_s > SHORT_S):
            said = await self._processes.run(argv, write=write, timeout_s=timeout_s)
            if said.rc != 0 and _errno(said) not in ok:
                raise explain(said, what, write=write)
        return said


class GfalArchive:
    """Where files are by `gfal-xattr SURL user.status`, a process each: for sites whose REST cannot be reached."""

    def __init__(self, gfal: Gfal) -> None:
        self._gfal = gfal

    async def localities(self, surls: Sequence[str], sizes: dict[str, int] | None = None) -> dict[str, str]:
        """As `Archive.localities`; sizes are not told."""
        paths, found = await by_path(surls), dict[str, str]()

        async def look(path: str) -> None:
            try:
                told = word(await self._gfal.status(str(parse_surl(paths[path][0]))))
            except Permanent as error:
                if not error.absent:
                    raise
                told = "NONE"
            if told in LOCALITIES:
                found.update(dict.fromkeys(paths[path], told))

        await each(paths, look)
        return found

    async def contents(self, surls: Sequence[str]) -> dict[str, FileInfo]:
        """As `Archive.contents`; the tools would take two processes a file, and are not asked."""
        return {}

    async def copies(self, surl: str) -> str | None:
        """As `Archive.copies`; nobody can tell: the tools list no directories of the archive."""
        return None

    async def space(self) -> Space:
        """As `Archive.space`, of which the tools tell nothing."""
        return Space()


def _for_tool(url: str) -> str:
    """The URL as the gfal tools take it: they do not decode percent signs in `file://`."""
    path = local_path(url)
    return url if path is None else f"file://{path}"


def explain(said: Finished, what: str, *, write: bool) -> OutsideError:
    """What a tool's failure was: by the errno in its error line, else by its words; names of files are no words."""
    text = f"{Path(said.argv[0]).name} {what}: ended with {said.rc}: {quoted(said.stderr, said.stdout)}"
    number = _errno(said)
    words = _ANY_URL.sub("", said.stderr)
    proxy = _PROXY.search(words)
    if _NO_PROXY.search(words) or (proxy and _GONE.search(words, proxy.end())):
        return Temporary(text)
    if number in (errno.ENOENT, errno.ENOTDIR) or (
        not number and said.rc == errno.ENOENT and _NO_FILE.search(f"{words}\n{said.stdout}")
    ):
        return Permanent(text, absent=True)
    if number in _UNREACHED or _NO_HOST.search(words):
        return Temporary(text)
    if number in _FORBIDDEN:
        # A read may be forbidden because the file is on tape only; a locality check would tell.
        return Permanent(text) if write else Temporary(text)
    if number in _REFUSED:
        return Permanent(text)
    if number in _FULL or not write:
        return Temporary(text)
    return Unknown(text)


def _errno(said: Finished) -> int:
    """As the tool's error line tells it, 0 if it tells none."""
    match = _ERROR.search(said.stderr)
    return int(match[1]) if match else 0


def _entry(url: str, match: re.Match[str]) -> Entry:
    name = match["name"].strip()
    full = (
        url if name == url else join(url, quote(name, safe=SAFE_SIGNS))
    )  # Asked about a file, the tool repeats its URL.
    return Entry(full, int(match["size"]), match["kind"] == "d", _time(match["date"]))


def _time(text: str) -> float | None:
    """A tool's local time; without a year it cannot be told."""
    text = " ".join(text.partition(".")[0].split())
    for form in ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S %z", "%Y-%m-%d", "%b %d %Y"):
        try:
            return datetime.strptime(text, form).timestamp()
        except (ValueError, OverflowError):
            continue
    return None
