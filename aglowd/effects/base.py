"""What every effect can do: be done, and be found.

What must stay true: `do` changes the world at most once per call and may be called again only after `find` said that
the last call did nothing. Both get the recorded inputs (the effect itself) and the intent, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, TypeVar
from urllib.parse import unquote

from msgspec import Struct

from aglowd.clock import Clock
from aglowd.errors import AglowError, Permanent
from aglowd.grid.surl import plain_path, site_of
from aglowd.model import Effect, EffectRecord, Json
from aglowd.references import fill
from aglowd.store.journal import REPEATED
from aglowd.store.lineage import ADOPTED, RESTORED

if TYPE_CHECKING:
    from pathlib import Path

    from aglowd.grid.archive import Archive
    from aglowd.grid.batch import Batch
    from aglowd.grid.catalogue import Catalogue
    from aglowd.grid.dcache_events import DcacheEvents
    from aglowd.grid.gate import Site
    from aglowd.grid.http import Http
    from aglowd.grid.picas import Picas
    from aglowd.grid.proc import Processes
    from aglowd.grid.proxy import Proxy
    from aglowd.grid.registry import Registry
    from aglowd.grid.stager import Stager
    from aglowd.grid.storage import Storage


T = TypeVar("T")

_MANAGER = re.compile(r"^[^?]*\?SFN=", re.IGNORECASE)


def _no_secret(name: str) -> str:
    raise Permanent(f"secret:{name} is not configured")


class World(Struct):
    """The outside systems as the daemon wired them; effects act on them, watchers look at them."""

    clock: Clock
    http: Http
    processes: Processes
    stagers: Mapping[str, Stager]
    """Site → what brings its files online; "" is the legacy stager, which asks no site."""
    archives: Mapping[str, Archive]
    """Site → what tells where its files are."""
    token_bases: Mapping[str, Picas]
    """Site → the token database of what is processed there; "" is the common one. Sites may share one."""
    batches: Mapping[str, Batch]
    """Site → where its pilots run; "" is the common one."""
    storage: Storage
    proxy: Proxy
    catalogue: Catalogue
    web: Site
    work_dir: Path
    sandboxes: Mapping[str, Mapping[str, str]]
    """Site → the files that travel with its pilots, by name."""
    staging_settle_s: float = 120.0
    protected: tuple[str, ...] = ()
    deletable: tuple[str, ...] = ()
    events: DcacheEvents | None = None
    registry: Registry | None = None
    secret: Callable[[str], str] = _no_secret
    """The secret of that name of `[secrets]`; Permanent if there is none."""

    def filled(self, value: Json) -> Json:
        """The value with secrets in the place of their references, for this moment: it is neither kept nor shown."""
        return fill(value, self.secret)

    def stager(self, site: str) -> Stager:
        """The stager of that site; Permanent if the configuration has no such site."""
        return _at(self.stagers, site)

    def archive(self, site: str) -> Archive:
        """What tells where that site's files are; Permanent if the configuration has no such site."""
        return _at(self.archives, site)

    def token_base(self, site: str) -> Picas:
        """The token database of what is processed at that site; Permanent if the configuration has no such site."""
        return _at(self.token_bases, site)

    def sandbox(self, site: str) -> Mapping[str, str]:
        """The files that travel with that site's pilots; Permanent if the configuration has no such site."""
        return _at(self.sandboxes, site)

    def batch(self, site: str) -> Batch:
        """Where that site's pilots run; Permanent if the configuration has no such site."""
        return _at(self.batches, site)

    def check_may_change(self, url: str) -> None:
        """Permanent if the URL lies at or below a protected root: nothing is ever written or removed there.

        By whichever door of a site, and however it is spelled; a way that goes up again is refused wherever it leads.
        """
        place, parts = _where(url)
        if ".." in parts:
            raise Permanent(f"{url} is not changed: expected a path without ..")
        for root in self.protected:
            root_place, root_parts = _where(root)
            if place == root_place and parts[: len(root_parts)] == root_parts:
                raise Permanent(f"{url} lies below the protected root {root}; nothing is written or removed there")

    def check_may_remove(self, url: str) -> None:
        """Permanent unless the URL lies below a deletable root, and below no protected one through another door."""
        self.check_may_change(url)
        path = _path_of(url)
        if "?" in url or any(part in ("", ".", "..") for part in path.split("/")[1:]):
            raise Permanent(f"{url} is not removed: expected the plain URL of a file")
        for root in self.protected:
            is_one_place = url.startswith("file://") == root.startswith("file://")
            if is_one_place and f"{path}/".startswith(re.sub("/+", "/", _path_of(root) + "/")):
                raise Permanent(
                    f"{url} lies below the protected root {root}, by another door; nothing is removed there"
                )
        if not any(url.startswith(root.rstrip("/") + "/") for root in self.deletable):
            raise Permanent(f"{url} lies below none of storage.deletable; nothing is removed there")


def served(systems: Mapping[str, object]) -> list[tuple[str, ...]]:
    """The sites of each system, in order: several may share one."""
    sites: dict[int, list[str]] = {}
    for site, system in sorted(systems.items()):
        sites.setdefault(id(system), []).append(site)
    return list(map(tuple, sites.values()))


def _at(systems: Mapping[str, T], site: str) -> T:
    if site not in systems:
        raise Permanent(f"no site {site!r} is configured; known: {', '.join(sorted(filter(None, systems)))}")
    return systems[site]


def _path_of(url: str) -> str:
    """The path in the URL, percent signs decoded: by whatever door of a site a file is reached, it is mostly the same."""
    return "/" + unquote(url.partition("://")[2].partition("/")[2])


def _where(url: str) -> tuple[str, list[str]]:
    """The site or host that the URL names ("file" for local files), and the parts of the path there in one spelling."""
    scheme, _, rest = url.partition("://")
    server, _, path = rest.partition("/")
    place = "file" if scheme == "file" else server.rpartition("@")[2].partition(":")[0].lower()
    with suppress(ValueError):
        place = site_of(place)
    path = plain_path(place, "/" + unquote(_MANAGER.sub("", path), errors="surrogateescape"))
    return place, [part for part in path.split("/") if part not in ("", ".")]


class Intent(Struct):
    """What the journal knows of the effect: its key, when it was intended, what the world showed before, what `do` noted."""

    key: str
    since: float
    tries: int
    evidence: Json
    notes: dict[str, Json]
    note: Callable[[dict[str, Json]], Awaitable[None]]
    others: Callable[[], Awaitable[list[EffectRecord]]]
    """The other effects of this kind: none of what they returned is ours."""

    @property
    def is_restored(self) -> bool:
        """Whether a backup was restored: it may have been done, and noted, in the time that the journal lost."""
        return RESTORED in self.notes

    @property
    def is_older(self) -> bool:
        """Whether it may have been done before the journal knew of it: a backup was restored, or the field was taken over."""
        return self.is_restored or ADOPTED in self.notes

    @property
    def is_repeated(self) -> bool:
        """Whether it was done before as far as anybody knows, and the world shows nothing of it."""
        return REPEATED in self.notes


class Deed(Effect, frozen=True, kw_only=True):
    """An effect with its ways. Raises only errors.Temporary, Permanent and Unknown."""

    settle_s: ClassVar[float] = 0.0

    def settling_s(self, world: World) -> float:
        """World seconds between two looks that find nothing before it is believed; 0 where one look is exact."""
        return self.settle_s

    async def look_before(self, world: World) -> Json:
        """What the world shows before, for effects with `needs_evidence`."""
        return None

    async def do(self, world: World, intent: Intent) -> Json:
        """Change the world; returns what the outside system called it."""
        raise AssertionError(f"{self.kind} has no do")

    async def find(self, world: World, intent: Intent) -> Json | None:
        """What `do` would have returned if it happened; None if it did not; raises Unknown if nobody can tell."""
        raise AssertionError(f"{self.kind} has no find")

    def adopted(self, ref: str) -> Json:
        """What `do` would have returned, from an operator's word for it; AglowError if that word makes no sense."""
        raise AglowError(
            f"{self.kind.replace('_', ' ')} needs no name from you: it is found by itself as soon as the outside system "
            "answers; retry it, or forget it"
        )
