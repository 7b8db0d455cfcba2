"""Effects on PiCaS tokens: create, attach, reset, archive, delete.

What carries our key there: the deterministic `_id`, and the immutable `aglowd.key` inside the document. A token that a
pilot holds (lock > 0) is never touched; a token of somebody else's never at all.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import io
import tarfile
import zlib
from typing import Any, ClassVar

import msgspec

from aglowd.effects.base import Deed, Intent, World
from aglowd.effects.files import put_bytes, read_back
from aglowd.errors import Conflict, Permanent, Temporary, Unknown
from aglowd.grid.picas import DESIGN_DOC, token_design_doc
from aglowd.model import Json

Document = dict[str, Any]

MAX_SCRUBS = 1_000_000
"""No token is given back so often: what says so was not written by us."""
MAX_ARCHIVE_BYTES = 1 << 30
"""Of an archive of tokens, unpacked: it is read back whole. A step's tokens with all their logs are some hundred MB."""


class CreateTokens(Deed, frozen=True, kw_only=True):
    """Put the token documents, whose `_id`s are the keys of `tokens`; result `{"created": n}`."""

    kind: ClassVar[str] = "create_tokens"
    token_type: str
    tokens: dict[str, Document]

    async def do(self, world: World, intent: Intent) -> Json:
        await world.picas.ensure_design(self.token_type, token_design_doc(self.token_type))
        await world.picas.ensure_design("aglowd", DESIGN_DOC)
        present = await self._present(world, intent)
        missing = [
            {**document, "_id": name, "aglowd": {"key": intent.key}}
            for name, document in self.tokens.items()
            if name not in present
        ]
        await _write(world, missing, "were refused")
        return {"created": len(self.tokens)}

    async def find(self, world: World, intent: Intent) -> Json | None:
        present = await self._present(world, intent)
        if intent.is_restored and len(present) < len(self.tokens):
            gone = await world.picas.list_deleted(tuple(self.tokens))
            if gone:
                raise Conflict(
                    f"{len(gone)} of these tokens were made and deleted after the backup that was restored: look what became "
                    "of their results before the field is offered again"
                )
        return {"created": len(self.tokens)} if len(present) == len(self.tokens) else None

    async def _present(self, world: World, intent: Intent) -> set[str]:
        """Which of the tokens exist and are ours, whatever a pilot has changed in them since."""
        found = await world.picas.get_docs(tuple(self.tokens))
        present = {name: document for name, document in found.items() if document is not None}
        for name, document in present.items():
            if _owner(str(_mark(document).get("key", ""))) != _owner(intent.key):
                raise Conflict(f"the token {name} exists already and is not of this step; remove it or rename the run")
        return set(present)


class AttachFiles(Deed, frozen=True, kw_only=True):
    """Attach `shared` texts to all tokens and `own` texts to one each, inline in bulk; result `{"attached": n}`."""

    kind: ClassVar[str] = "attach_files"
    own: dict[str, dict[str, str]]
    shared: dict[str, str] = msgspec.field(default_factory=dict)

    async def do(self, world: World, intent: Intent) -> Json:
        changed = []
        for document in await self._documents(world):
            lacking = self._lacking(document)
            if lacking:
                stubs = document.get("_attachments", {})
                changed.append(
                    {**document, "_attachments": {**stubs, **{name: _inline(text) for name, text in lacking.items()}}}
                )
        await _write(world, changed, "changed meanwhile")
        return {"attached": len(self.own)}

    async def find(self, world: World, intent: Intent) -> Json | None:
        lacking = any(map(self._lacking, await self._documents(world)))
        return None if lacking else {"attached": len(self.own)}

    async def _documents(self, world: World) -> list[Document]:
        found = await world.picas.get_docs(tuple(self.own))
        gone = sorted(name for name, document in found.items() if document is None)
        if gone:
            raise Conflict(f"{len(gone)} tokens have gone before their files were attached: {', '.join(gone[:5])}")
        documents = [document for document in found.values() if document is not None]
        held = sorted(document["_id"] for document in documents if _is_held(document) and self._lacking(document))
        if held:
            raise Permanent(
                f"{len(held)} tokens are held by pilots before their files were attached: {', '.join(held[:5])}"
            )
        return documents

    def _lacking(self, document: Document) -> dict[str, str]:
        wanted = {**self.shared, **self.own[document["_id"]]}
        there = document.get("_attachments", {})
        return {name: text for name, text in wanted.items() if there.get(name, {}).get("digest") != _digest(text)}


async def _write(world: World, documents: list[Document], what: str) -> None:
    """Write all; if some were refused nobody may say that nothing was done."""
    rows = (await world.picas.bulk(documents)).values() if documents else ()
    refused = [row for row in rows if not row.ok]
    if refused:
        text = f"{len(refused)} of {len(documents)} tokens {what}: {refused[0].error}"
        raise Temporary(text) if len(refused) == len(documents) else Unknown(text)


def _owner(key: str) -> list[str]:
    """Run and step of an effect's key: what an earlier attempt of the same step made is ours as well."""
    return key.split("/")[:2]


def _mark(document: Document) -> Document:
    """What we wrote into the document; anybody may have written something else in its place."""
    mark = document.get("aglowd")
    return mark if isinstance(mark, dict) else {}


def _number(value: Json) -> int:
    """A count that others may have written; what is none is 0."""
    return int(value) if isinstance(value, int | float) and 0 <= value < MAX_SCRUBS else 0


def _is_held(document: Document) -> bool:
    """Whether a pilot works on the token."""
    return isinstance(document.get("lock"), int | float) and document["lock"] > 0 and not document.get("done")


def _digest(text: str) -> str:
    """The digest as CouchDB writes it."""
    return "md5-" + base64.b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest()).decode()


def _inline(text: str) -> Document:
    return {"content_type": "text/plain", "data": base64.b64encode(text.encode()).decode()}


class ResetTokens(Deed, frozen=True, kw_only=True):
    """Give tokens whose jobs are gone back to the pilots, as PiCaS scrubs: `scrub_count` + 1, lock and done 0."""

    kind: ClassVar[str] = "reset_tokens"
    tokens: tuple[str, ...]

    async def do(self, world: World, intent: Intent) -> Json:
        open_ = [document for document in await self._documents(world) if not self._is_reset(document, intent)]
        scrubbed = [
            {
                **document,
                "lock": 0,
                "done": 0,
                "hostname": "",
                "output": "",
                "status": "reset",
                "scrub_count": _number(document.get("scrub_count")) + 1,
                "aglowd": {**_mark(document), "reset": intent.key},
            }
            for document in open_
        ]
        await _write(world, scrubbed, "changed meanwhile")
        return {"reset": len(self.tokens)}

    async def find(self, world: World, intent: Intent) -> Json | None:
        all_reset = all(self._is_reset(document, intent) for document in await self._documents(world))
        return {"reset": len(self.tokens)} if all_reset else None

    async def _documents(self, world: World) -> list[Document]:
        found = await world.picas.get_docs(self.tokens)
        return [document for document in found.values() if document is not None]

    @staticmethod
    def _is_reset(document: Document, intent: Intent) -> bool:
        return _mark(document).get("reset") == intent.key or document.get("status") == "done"


class ArchiveTokens(Deed, frozen=True, kw_only=True):
    """Write all documents of a token type with their attachments to one tar.gz on storage, and read it back.

    Result `{"url", "size_bytes", "adler32", "revisions": {id: rev}}`: what may be deleted because it was read back.
    """

    kind: ClassVar[str] = "archive_tokens"
    token_type: str
    url: str

    async def do(self, world: World, intent: Intent) -> Json:
        names = await world.picas.list_ids(self.token_type)
        found = await world.picas.get_docs(names, attachments=True)
        documents = [document for document in found.values() if document is not None]
        data = await asyncio.to_thread(pack, documents)
        await put_bytes(world, intent, data, self.url)
        result = await self.find(world, intent)
        if result is None:
            raise Temporary(f"{self.url} was written and is not there")
        return result

    async def find(self, world: World, intent: Intent) -> Json | None:
        there = await world.storage.stat(self.url)
        if there is None:
            return None
        if there.size_bytes > MAX_ARCHIVE_BYTES:
            raise Conflict(f"{self.url} is longer than {MAX_ARCHIVE_BYTES} bytes: that is no archive of aglowd's")
        data = await read_back(world, intent, self.url)
        documents = await asyncio.to_thread(unpack, data)
        revisions = {document["_id"]: document["_rev"] for document in documents}
        lacking = set(await world.picas.list_ids(self.token_type)).difference(revisions)
        if lacking:
            raise Conflict(f"{self.url} is an archive of other tokens: it lacks {len(lacking)}, such as {min(lacking)}")
        return {"url": self.url, "size_bytes": len(data), "adler32": zlib.adler32(data), "revisions": revisions}


def pack(documents: list[Document]) -> bytes:
    """One tar.gz: `<id>.json`, and each attachment beside it as `<id>/<name>`. The same tokens give the same bytes."""
    buffer = io.BytesIO()
    # The gzip header would hold the time of day: the same tokens must give the same bytes.
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for document in sorted(documents, key=lambda document: str(document["_id"])):
                for name, data in _members(document).items():
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        size = packed.tell()
    if size > MAX_ARCHIVE_BYTES:
        raise Permanent(f"these tokens are {size} bytes with their attachments; an archive holds {MAX_ARCHIVE_BYTES}")
    return buffer.getvalue()


def _members(document: Document) -> dict[str, bytes]:
    """What the archive holds of one token: itself with stubs of its attachments, and these."""
    attachments = document.get("_attachments", {})
    stubs = {name: {key: value for key, value in entry.items() if key != "data"} for name, entry in attachments.items()}
    bodies = {
        f"{document['_id']}/{name}": base64.b64decode(entry["data"]) for name, entry in sorted(attachments.items())
    }
    return {f"{document['_id']}.json": msgspec.json.encode({**document, "_attachments": stubs}), **bodies}


def unpack(data: bytes) -> list[Document]:
    """The documents in such an archive, without their attachments; Permanent if it is none."""
    documents: list[Document] = []
    try:
        # All of it is unpacked before anything is believed: the checksum stands at the end.
        plain = gzip.GzipFile(fileobj=io.BytesIO(data)).read(MAX_ARCHIVE_BYTES + 1)
        if len(plain) > MAX_ARCHIVE_BYTES:
            raise Conflict(f"the archive of tokens is longer than {MAX_ARCHIVE_BYTES} bytes unpacked")
        with tarfile.open(fileobj=io.BytesIO(plain), mode="r:") as tar:
            members = (member for member in tar if member.name.endswith(".json") and "/" not in member.name)
            documents.extend(_document(tar, member) for member in members)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, LookupError, RecursionError) as error:
        text = f"{type(error).__name__}: {error}"
        raise Conflict(f"the archive of tokens cannot be read back: {text}") from error
    return documents


def _document(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Document:
    file = tar.extractfile(member) if member.isreg() and not member.issparse() else None
    if file is None:
        raise ValueError(f"{member.name} is no plain file")
    document = msgspec.json.decode(file.read())
    if not isinstance(document, dict) or not all(isinstance(document.get(name), str) for name in ("_id", "_rev")):
        raise ValueError(f"{member.name} is no document")
    return document


class DeleteTokens(Deed, frozen=True, kw_only=True):
    """Delete exactly the revisions that an archive holds, which is looked at again; then the design document."""

    kind: ClassVar[str] = "delete_tokens"
    token_type: str
    revisions: dict[str, str]
    archive: str
    adler32: int

    async def do(self, world: World, intent: Intent) -> Json:
        found_sum = await world.storage.checksum(self.archive)
        if found_sum != self.adler32:
            raise Permanent(
                f"{self.archive} is no more what was read back (adler32 {found_sum:08x}); nothing is deleted"
            )
        found = await world.picas.get_docs(tuple(self.revisions))
        alive = {name: document for name, document in found.items() if document is not None}
        changed = sorted(name for name, document in alive.items() if document["_rev"] != self.revisions[name])
        if changed:
            raise Permanent(f"{len(changed)} tokens changed after they were archived: {', '.join(changed[:5])}")
        gone = [{"_id": name, "_rev": document["_rev"], "_deleted": True} for name, document in alive.items()]
        await _write(world, gone, "were not deleted")
        await world.picas.delete_design(self.token_type)
        return {"deleted": len(self.revisions)}

    async def find(self, world: World, intent: Intent) -> Json | None:
        """Deleting is exact by revision, so what is left is simply deleted now; the design document goes last."""
        return None


DEEDS: tuple[type[Any], ...] = (CreateTokens, AttachFiles, ResetTokens, ArchiveTokens, DeleteTokens)
