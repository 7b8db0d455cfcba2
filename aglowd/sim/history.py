"""The ledger, read back: what the checker's rules ask of it, in the world's own terms.

Nothing here knows the daemon. The checker judges by what was done to the world and by the bytes in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from aglowd.sim.tape import surl_path

Line = dict[str, Any]
RENEWABLE = 0.75
"""A pin of which this part is over may be renewed: asking for the file again is no mistake then."""


@dataclass(frozen=True)
class Staging:
    """A staging request: when each file came online, which never did, and when its pins ended."""

    request: int
    made: float
    surls: tuple[str, ...]
    online: dict[str, float]
    finished: float
    pinned_s: float
    aborted: float
    pinned_until: dict[str, float] = field(default_factory=dict)
    """Where the request itself said when a file's pin ends."""
    dropped: dict[str, float] = field(default_factory=dict)
    """When it gave up a file by itself."""

    def busy_until(self, surl: str) -> float:
        """Until when the file is online or in progress because of this request, its renewal aside."""
        at = self.online.get(surl)
        if at is None:
            return min(self.finished, self.aborted, self.dropped.get(surl, self.finished))
        natural = at + RENEWABLE * (self.pinned_until.get(surl, at + self.pinned_s) - at)
        return min(natural, self.aborted, self.dropped.get(surl, natural))


@dataclass(frozen=True)
class Transfer:
    """A file that a client put somewhere: by copy, or by renaming `src`."""

    t: float
    op: str
    src: str
    dst: str


@dataclass
class Token:
    """One token document through time."""

    id: str
    type: str
    created: list[float] = field(default_factory=list)
    deleted: list[float] = field(default_factory=list)
    reset: list[float] = field(default_factory=list)
    ended: list[tuple[float, str]] = field(default_factory=list)
    surls: tuple[str, ...] = ()


class History:
    """All lines of a ledger, and the views of them that more than one rule needs."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = tuple(lines)
        self.end = self.lines[-1]["t"] if self.lines else 0.0

    @classmethod
    def read(cls, path: Path) -> History:
        """The ledger in a file; a last line that was cut off by a kill is left out."""
        lines: list[Line] = []
        for raw in path.read_bytes().splitlines():
            try:
                lines.append(msgspec.json.decode(raw))
            except msgspec.DecodeError:
                break
        return cls(lines)

    def of(self, system: str, *ops: str, by: str | None = None) -> Iterator[Line]:
        """The lines of some operations, in order."""
        for line in self.lines:
            if line["system"] == system and (not ops or line["op"] in ops) and (by is None or line["by"] == by):
                yield line

    @cached_property
    def stagings(self) -> tuple[Staging, ...]:
        made: dict[int, Line] = {line["result"]: line for line in self.of("staging", "request_made")}
        aborted: dict[int, float] = {}
        for line in self.of("staging", "request_aborted"):
            aborted.setdefault(line["request"], line["t"])
        dropped: dict[int, dict[str, float]] = {}
        for line in self.of("staging", "files_dropped"):
            files = dropped.setdefault(line["request"], {})
            for surl in line["surls"]:
                files.setdefault(surl_path(surl), line["t"])
        return tuple(
            Staging(
                request=line["request"],
                made=made[line["request"]]["t"],
                surls=tuple(map(surl_path, made[line["request"]]["surls"])),
                online={surl_path(surl): at for surl, at in line["online"].items()},
                finished=line["finished"],
                pinned_s=line["pinned_s"],
                aborted=aborted.get(line["request"], float("inf")),
                pinned_until={surl_path(surl): at for surl, at in line.get("pinned_until", {}).items()},
                dropped=dropped.get(line["request"], {}),
            )
            for line in self.of("staging", "request_planned")
            if line["request"] in made
        )

    @cached_property
    def transfers(self) -> tuple[Transfer, ...]:
        """Copies and renames that succeeded."""
        return tuple(
            Transfer(line["t"], line["op"], line["src"], line["dst"])
            for line in self.of("storage", "copy", "rename")
            if line["result"] == 0
        )

    @cached_property
    def results(self) -> dict[str, Line]:
        """The last `result_written` of each URL."""
        return {line["url"]: line for line in self.of("pilot", "result_written")}

    @cached_property
    def tokens(self) -> dict[str, Token]:
        """Every document that is a token: it has a type, and is no design document."""
        found: dict[str, Token] = {}
        live: set[str] = set()
        for line in self.lines:
            if line["system"] == "couchdb":
                for doc in _written_docs(line):
                    _follow(found, live, doc, line)
                if line["op"] == "token_surls" and line["id"] in found:
                    found[line["id"]].surls = tuple(map(surl_path, line["surls"]))
            elif line["op"] == "token_ended" and line["token"] in found:
                found[line["token"]].ended.append((line["t"], line["outcome"]))
        return found

    @cached_property
    def done_tokens(self) -> frozenset[str]:
        """The ids of tokens whose last end was `done`."""
        return frozenset(token.id for token in self.tokens.values() if token.ended and token.ended[-1][1] == "done")


def _written_docs(line: Line) -> list[Line]:
    """The documents that a line wrote; a plain delete counts as one."""
    if line["op"] == "put":
        return [line["doc"]]
    if line["op"] == "bulk_docs":
        docs: list[Line] = line["docs"]
        return docs
    return [{"id": line["id"], "deleted": True}] if line["op"] == "delete" else []


def _follow(found: dict[str, Token], live: set[str], doc: Line, line: Line) -> None:
    name = doc["id"]
    if name.startswith("_design/"):
        return
    if doc.get("deleted"):
        if name in live and line["by"] == "client":
            found[name].deleted.append(line["t"])
        live.discard(name)
    elif name not in live:
        if doc.get("type"):
            live.add(name)
            found.setdefault(name, Token(name, doc["type"])).created.append(line["t"])
    elif line["by"] == "client" and doc.get("lock") == 0:
        found[name].reset.append(line["t"])
