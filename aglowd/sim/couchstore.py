"""One CouchDB database in memory: documents with revisions, attachments, and the sequence of their changes.

It keeps what clients can see of CouchDB (one winning revision a document, 409 for a stale one, tombstones, the latest
change of each document only) and nothing of its storage. Bodies are never mutated once stored. No HTTP here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import md5
from typing import Any

import msgspec

Body = dict[str, Any]
_COMPRESSIBLE = re.compile(r"text/|application/(?:javascript|json|xml)")
"""What CouchDB compresses unless it is told otherwise (attachments/compressible_types)."""
_SPECIAL = frozenset({"_id", "_rev", "_deleted", "_attachments", "_revisions"})
_REV = re.compile(r"\d+-[0-9a-f]{32}")
_SEQ = re.compile(r"(\d+)-g1AAAA[\w-]+")
_encode = msgspec.json.Encoder().encode
BLOCK = 1024
"""Lines of the log of changes that are counted together."""


class CouchError(Exception):
    """An answer that is not 2xx: status, and what stands under `error` and `reason`."""

    def __init__(self, status: int, error: str, reason: str) -> None:
        super().__init__(f"{status} {error}: {reason}")
        self.status, self.error, self.reason = status, error, reason


def not_found(reason: str = "missing") -> CouchError:
    return CouchError(404, "not_found", reason)


def bad_request(reason: str, error: str = "bad_request") -> CouchError:
    return CouchError(400, error, reason)


def conflict() -> CouchError:
    return CouchError(409, "conflict", "Document update conflict.")


_COMPRESSIBLE = re.compile(r"text/.*|application/(javascript|json|xml)")
_COMPRESSION_LEVEL = 8


@dataclass(frozen=True)
class Attachment:
    """A named blob of a document; `revpos` is the generation of the document that brought it.

    Texts are kept as gzip in `stored`, and `digest` is that of what is kept, as it is installed in CouchDB.
    """

    content_type: str
    data: bytes
    stored: bytes
    digest: str
    revpos: int

    @property
    def is_compressed(self) -> bool:
        return self.stored is not self.data

    def stub(self, *, encoding_info: bool = False) -> Body:
        stub = {
            "content_type": self.content_type,
            "revpos": self.revpos,
            "digest": self.digest,
            "length": len(self.data),
            "stub": True,
        }
        if encoding_info and self.is_compressed:
            stub |= {"encoding": "gzip", "encoded_length": len(self.stored)}
        return stub

    def inline(self) -> Body:
        full = {name: value for name, value in self.stub().items() if name not in ("stub", "length")}
        return full | {"data": base64.b64encode(self.data).decode()}


@dataclass(frozen=True)
class Doc:
    """The winning revision of a document; `fields` are its own, without what begins with an underscore."""

    id: str
    rev: str
    seq: int
    deleted: bool
    fields: Body
    attachments: dict[str, Attachment] = field(default_factory=dict)

    def body(self, *, inline: bool = False, encoding_info: bool = False) -> Body:
        """The document as a client reads it, its attachments as stubs or in full."""
        head: Body = {"_id": self.id, "_rev": self.rev}
        if self.deleted:
            head["_deleted"] = True
        body = head | self.fields
        if self.attachments:
            body["_attachments"] = {
                name: part.inline() if inline else part.stub(encoding_info=encoding_info)
                for name, part in self.attachments.items()
            }
        return body


def make_attachment(content_type: str, data: bytes, revpos: int) -> Attachment:
    stored = compressed(data) if _COMPRESSIBLE.match(content_type) else data
    return Attachment(content_type, data, stored, f"md5-{digest_of(stored)}", revpos)


def compressed(data: bytes) -> bytes:
    """As gzip, with nothing in its header that another day would write otherwise."""
    packer = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, wbits=31)
    return packer.compress(data) + packer.flush()


def digest_of(data: bytes) -> str:
    return base64.b64encode(md5(data, usedforsecurity=False).digest()).decode()


class Database:
    """The documents of one database, their changes in order, and who waits for the next one."""

    def __init__(self, name: str, instance_start_time: str) -> None:
        self.name = name
        self.instance_start_time = instance_start_time
        self.docs: dict[str, Doc] = {}
        self.local: dict[str, Body] = {}
        self._log: list[str] = []
        self._latest: list[int] = []
        """Of each `BLOCK` lines of the log: how many are still the latest change of their document."""
        self._sorted_ids: list[str] | None = None
        self._waiters: set[asyncio.Event] = set()

    # --- reading

    @property
    def seq(self) -> int:
        return len(self._log)

    def find_live(self, doc_id: str) -> Doc | None:
        """The document unless it is missing or deleted."""
        doc = self.docs.get(doc_id)
        return None if doc is None or doc.deleted else doc

    def get(self, doc_id: str) -> Doc:
        doc = self.docs.get(doc_id)
        if doc is None or doc.deleted:
            raise not_found("missing" if doc is None else "deleted")
        return doc

    def sorted_ids(self) -> list[str]:
        """The ids of all live documents, in order."""
        if self._sorted_ids is None:
            self._sorted_ids = sorted(doc.id for doc in self.docs.values() if not doc.deleted)
        return self._sorted_ids

    def changed_since(self, seq: int) -> Iterator[Doc]:
        """Each document that changed after `seq`, once, in the order of the latest changes."""
        for at in range(seq + 1, len(self._log) + 1):
            doc = self.docs[self._log[at - 1]]
            if doc.seq == at:
                yield doc

    def pending(self, seq: int) -> int:
        """How many documents changed after `seq`; it costs little, however many they are."""
        block = seq // BLOCK + 1
        begun = self._log[seq : block * BLOCK]
        return sum(self.docs[name].seq == at for at, name in enumerate(begun, seq + 1)) + sum(self._latest[block:])

    def seq_text(self, seq: int) -> str:
        """The sequence as clients see it: opaque, the same for the same change."""
        mark = md5(f"{self.instance_start_time}/{self.name}/{seq}".encode(), usedforsecurity=False).digest()
        return f"{seq}-g1AAAA{base64.urlsafe_b64encode(mark).decode().rstrip('=')}"

    def parse_seq(self, text: str) -> int:
        if text == "now":
            return self.seq
        if text in ("0", ""):
            return 0
        found = _SEQ.fullmatch(text.strip('"'))
        if found is None or int(found[1]) > self.seq:
            raise bad_request("Malformed sequence supplied in 'since' parameter.")
        return int(found[1])

    def restart(self, instance_start_time: str, *, recreate: bool = False) -> None:
        """Come up again, feeds broken off; `recreate`: replicated into a new database, so that its sequence is another."""
        self.instance_start_time = instance_start_time
        if recreate:
            arrived = sorted(self.docs.values(), key=lambda doc: md5_of(doc.id))
            self.docs = {doc.id: replace(doc, seq=at) for at, doc in enumerate(arrived, 1)}
            self._log = list(self.docs)
            self._latest = [min(BLOCK, self.seq - at) for at in range(0, self.seq, BLOCK)]
        for waiter in self._waiters:
            waiter.set()

    def add_waiter(self) -> asyncio.Event:
        """An event that is set at every change, until `drop_waiter`."""
        event = asyncio.Event()
        self._waiters.add(event)
        return event

    def drop_waiter(self, event: asyncio.Event) -> None:
        self._waiters.discard(event)

    # --- writing

    def put(self, doc_id: str, body: Body, rev: str | None = None) -> Doc:
        """Store a new revision; `rev` (from the query or If-Match) and the body's _rev must name the current one."""
        _check_id(doc_id)
        for name in body:
            if name.startswith("_") and name not in _SPECIAL:
                raise bad_request(f"Bad special document member: {name}", "doc_validation")
        old = self._check_rev(doc_id, _one_rev(body.get("_rev"), rev))
        fields = {name: value for name, value in body.items() if not name.startswith("_")}
        deleted = body.get("_deleted") is True
        generation = _generation(self.docs.get(doc_id)) + 1
        attachments = {} if deleted else _take_attachments(body.get("_attachments") or {}, old, generation)
        return self._store(doc_id, fields, attachments, deleted=deleted)

    def delete(self, doc_id: str, rev: str | None) -> Doc:
        self.get(doc_id)
        self._check_rev(doc_id, rev)
        return self._store(doc_id, {}, {}, deleted=True)

    def put_attachment(self, doc_id: str, name: str, content_type: str, data: bytes, rev: str | None) -> Doc:
        """Attach a file; on a document that does not exist, this makes it."""
        _check_id(doc_id)
        old = self._check_rev(doc_id, rev)
        part = make_attachment(content_type, data, _generation(self.docs.get(doc_id)) + 1)
        kept = old.attachments if old else {}
        return self._store(doc_id, old.fields if old else {}, {**kept, name: part}, deleted=False)

    def delete_attachment(self, doc_id: str, name: str, rev: str | None) -> Doc:
        old = self.get(doc_id)
        self._check_rev(doc_id, rev)
        if name not in old.attachments:
            raise not_found("Document is missing attachment")
        kept = {other: part for other, part in old.attachments.items() if other != name}
        return self._store(doc_id, old.fields, kept, deleted=False)

    def _check_rev(self, doc_id: str, rev: str | None) -> Doc | None:
        """The live document that `rev` names, None when there is none; anything else is a conflict."""
        if rev is not None and not _REV.fullmatch(rev):
            raise bad_request("Invalid rev format")
        old = self.docs.get(doc_id)
        if old is None or old.deleted:
            if rev is not None and (old is None or rev != old.rev):
                raise conflict()
            return None
        if rev != old.rev:
            raise conflict()
        return old

    def _store(self, doc_id: str, fields: Body, attachments: dict[str, Attachment], *, deleted: bool) -> Doc:
        old = self.docs.get(doc_id)
        digests = sorted((name, part.digest) for name, part in attachments.items())
        parent = old.rev if old else ""
        mark = md5(_encode([parent, deleted, fields, digests]), usedforsecurity=False).hexdigest()
        doc = Doc(doc_id, f"{_generation(old) + 1}-{mark}", self.seq + 1, deleted, fields, attachments)
        if (old is None or old.deleted) != deleted or old is None:
            self._sorted_ids = None
        if old is not None:
            self._latest[(old.seq - 1) // BLOCK] -= 1
        if self.seq % BLOCK == 0:
            self._latest.append(0)
        self._latest[-1] += 1
        self.docs[doc_id] = doc
        self._log.append(doc_id)
        for waiter in self._waiters:
            waiter.set()
        return doc


def md5_of(text: str) -> bytes:
    """An order that has nothing to do with when a document came."""
    return md5(text.encode(), usedforsecurity=False).digest()


def _check_id(doc_id: str) -> None:
    if not doc_id:
        raise bad_request("Document id must not be empty", "illegal_docid")
    if doc_id.startswith("_") and not doc_id.startswith("_design/"):
        raise bad_request("Only reserved document ids may start with underscore.", "illegal_docid")


def _one_rev(in_body: Any, outside: str | None) -> str | None:
    if in_body is not None and not isinstance(in_body, str):
        raise bad_request("Invalid rev format")
    if in_body and outside and in_body != outside:
        raise bad_request("Document rev from request body and query string have different values")
    return in_body or outside


def _generation(doc: Doc | None) -> int:
    return int(doc.rev.partition("-")[0]) if doc else 0


def _take_attachments(given: dict[str, Any], old: Doc | None, generation: int) -> dict[str, Attachment]:
    """The attachments of a new revision: inline ones are new, stubs are kept, what is not named is lost."""
    taken: dict[str, Attachment] = {}
    for name, part in given.items():
        if part.get("stub") or part.get("follows"):
            if old is None or name not in old.attachments:
                raise CouchError(412, "missing_stub", f"Invalid attachment stub in document for {name}")
            taken[name] = old.attachments[name]
            continue
        try:
            data = base64.b64decode(part["data"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise bad_request(f"Invalid attachment data for {name}") from error
        taken[name] = make_attachment(part.get("content_type", "application/octet-stream"), data, generation)
    return taken
