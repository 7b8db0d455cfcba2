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
MARK = "aglowd:pilot:"
"""What the names of the documents begin with that pilots leave of themselves."""
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
        """Until when the file is online or in progress because of this request, its renewal aside.

        Who renews the pins of a list at once goes by when it was asked for: files that came late are renewed early.
        """
        at = self.online.get(surl)
        if at is None:
            return min(self.finished, self.aborted, self.dropped.get(surl, self.finished))
        life_s = self.pinned_until.get(surl, at + self.pinned_s) - at
        natural = max(at, self.made + RENEWABLE * life_s)
        return min(natural, self.aborted, self.dropped.get(surl, natural))


@dataclass(frozen=True)
class Transfer:
    """A file that a client put somewhere: by copy, or by renaming `src`."""

    t: float
    op: str
    src: str
    dst: str


@dataclass(frozen=True)
class Acceptance:
    """A pilot wrote into a token that it is done, and where its result lies."""

    t: float
    url: str


@dataclass(frozen=True)
class Mark:
    """A pilot said that it runs: under which key, as which job."""

    t: float
    key: str
    job: str


@dataclass
class Token:
    """One token document through time."""

    id: str
    type: str
    created: list[float] = field(default_factory=list)
    deleted: list[float] = field(default_factory=list)
    reset: list[float] = field(default_factory=list)
    ended: list[tuple[float, str]] = field(default_factory=list)
    accepted: list[Acceptance] = field(default_factory=list)
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

    def of_jobs(self, *ops: str) -> Iterator[Line]:
        """The lines of what became of jobs, at whatever batch system."""
        return (line for line in self.lines if line["op"] in ops)

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
        """Copies and renames by clients that succeeded."""
        return tuple(
            Transfer(line["t"], line["op"], line["src"], line["dst"])
            for line in self.of("storage", "copy", "rename", by="client")
            if line["result"] == 0
        )

    @cached_property
    def origins(self) -> dict[str, str]:
        """Where each file that a client put somewhere came from, whatever way it went."""
        found: dict[str, str] = {}
        for transfer in self.transfers:
            found[transfer.dst] = found.get(transfer.src, transfer.src)
        return found

    @cached_property
    def uploads(self) -> dict[str, Line]:
        """URL → the last copy that a real pilot made there. Simulated ones need none."""
        return {line["dst"]: line for line in self.of("storage", "copy", by="pilot") if line["result"] == 0}

    @cached_property
    def made(self) -> dict[str, dict[str, Line]]:
        """Token → checksum → what was made for it: by a simulated pilot as a whole result, else as a file of one."""
        found: dict[str, dict[str, Line]] = {}
        for line in self.of("pilot", "result_written", "result_made"):
            found.setdefault(line["token"], {})[line["adler32"]] = line
        return found

    @cached_property
    def results(self) -> dict[str, Line]:
        """URL → what the result there was made of, and its checksum and size as a whole.

        Those of simulated pilots as they wrote them last; what real ones brought there only if it was accepted.
        """
        found = {line["url"]: line for line in self.of("pilot", "result_written")}
        for token in self.tokens.values():
            for accepted in token.accepted:
                upload = self.uploads.get(accepted.url)
                source = self.find_made(token.id, accepted.url)
                if upload is not None and source is not None:
                    whole = {"url": accepted.url, "adler32": upload["adler32"], "size": upload["size"]}
                    found[accepted.url] = source | whole | {"type": token.type}
        return found

    def find_made(self, token: str, url: str) -> Line | None:
        """What was made for that token and lies at the URL, however it came there."""
        made = self.made.get(token, {})
        upload = self.uploads.get(url)
        if upload is not None:
            return next((made[one] for one in upload["holds"] if one in made), None)
        return next((line for line in made.values() if line.get("url") == url), None)

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """The marks of real pilots, each once, when it was made."""
        return tuple(
            Mark(line["t"], doc["pilot"], doc["job"])
            for line in self.of("couchdb", "put", by="pilot")
            for doc in _written_docs(line)
            if doc["id"].startswith(MARK) and doc["rev"].startswith("1-") and "pilot" in doc
        )

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
    elif line["by"] == "pilot" and doc.get("status") in ("done", "error"):
        found[name].ended.append((line["t"], doc["status"]))
        if doc["status"] == "done":
            found[name].accepted.append(Acceptance(line["t"], doc.get("Results_location", "")))
