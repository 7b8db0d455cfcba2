"""Effects on the tokens of a type as a whole: archive them, and delete what was read back from there."""

from __future__ import annotations

import asyncio
import base64
import gzip
import io
import tarfile
import zlib
from typing import Any, ClassVar

import msgspec

from aglowd.effects.base import Deed, Intent, World
from aglowd.effects.files import put_bytes, read_back
from aglowd.effects.tokens import Document, is_ours, write_all
from aglowd.errors import Conflict, Permanent, Temporary
from aglowd.grid.picas import NotAdmin, is_held
from aglowd.model import Json

MAX_ARCHIVE_BYTES = 1 << 30
"""Of an archive of tokens, unpacked: it is read back whole. A step's tokens with all their logs are some hundred MB."""


class ArchiveTokens(Deed, frozen=True, kw_only=True):
    """Write all documents of a token type, or `tokens` of them, with their attachments to one tar.gz, and read it back.

    Result `{"url", "size_bytes", "adler32", "revisions": {id: rev}}`: what may be deleted because it was read back.
    """

    kind: ClassVar[str] = "archive_tokens"
    token_type: str
    url: str
    tokens: tuple[str, ...] = ()
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        base = world.token_base(self.site)
        found = await base.get_docs(await self._names(world), attachments=True)
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
        lacking = set(await self._names(world)).difference(revisions)
        if lacking:
            raise Conflict(f"{self.url} is an archive of other tokens: it lacks {len(lacking)}, such as {min(lacking)}")
        return {"url": self.url, "size_bytes": len(data), "adler32": zlib.adler32(data), "revisions": revisions}

    async def _names(self, world: World) -> tuple[str, ...]:
        """Of a whole type: those that aglowd made. A token of somebody else's is his, whatever its type, unless it is named."""
        base = world.token_base(self.site)
        found = await base.get_docs(self.tokens or await base.list_ids(self.token_type))
        there = {name: document for name, document in found.items() if document is not None}
        return tuple(name for name, document in there.items() if self.tokens or is_ours(document))


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
    """Delete exactly the revisions that an archive holds, which is looked at again; then the design document and the marks
    that pilots left, unless the archive `is_part` of the type only or somebody has tokens of that type still."""

    kind: ClassVar[str] = "delete_tokens"
    token_type: str
    revisions: dict[str, str]
    archive: str
    adler32: int
    is_part: bool = False
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        base = world.token_base(self.site)
        found_sum = await world.storage.checksum(self.archive)
        if found_sum != self.adler32:
            raise Permanent(
                f"{self.archive} is no more what was read back (adler32 {found_sum:08x}); nothing is deleted"
            )
        found = await base.get_docs(tuple(self.revisions))
        alive = {name: document for name, document in found.items() if document is not None}
        changed = sorted(name for name, document in alive.items() if document["_rev"] != self.revisions[name])
        if changed:
            raise Permanent(f"{len(changed)} tokens changed after they were archived: {', '.join(changed[:5])}")
        held = sorted(name for name, document in alive.items() if is_held(document))
        if self.is_part and held:
            raise Permanent(
                f"{len(held)} tokens were taken by pilots meanwhile: {', '.join(held[:5])}; nothing is deleted"
            )
        gone = [{"_id": name, "_rev": document["_rev"], "_deleted": True} for name, document in alive.items()]
        await write_all(base, gone, "were not deleted")
        result: dict[str, Json] = {"deleted": len(self.revisions)}
        if not self.is_part and not await base.list_ids(self.token_type):
            try:
                await base.delete_design(self.token_type)
            except NotAdmin as error:  # Then it was an administrator who installed it, and it is his to delete.
                result["left"] = str(error)
            marks = await base.list_pilot_docs(self.token_type)
            await write_all(base, [{**mark, "_deleted": True} for mark in marks], "of pilots were not deleted")
        return result

    async def find(self, world: World, intent: Intent) -> Json | None:
        """Deleting is exact by revision, so what is left is simply deleted now; the design document goes last."""
        return None


DEEDS: tuple[type[Any], ...] = (ArchiveTokens, DeleteTokens)
