"""Effects on PiCaS tokens: create, attach, reset, modify.

What carries our key there: the deterministic `_id`, and the immutable `aglowd.key` inside the document. A token that a
pilot holds (lock > 0) is never touched; a token of somebody else's never at all. `site`: where they are worked on, which
tells their database; "" = the common one.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any, ClassVar

import msgspec

from aglowd.effects.base import Deed, Intent, World
from aglowd.errors import Conflict, Permanent, Temporary, Unknown
from aglowd.grid.picas import DESIGN_DOC, JOB_KEYS, NotAdmin, Picas, is_held, state_of, token_design_doc
from aglowd.model import Json

Document = dict[str, Any]

MAX_SCRUBS = 1_000_000
"""No token is given back so often: what says so was not written by us."""


class CreateTokens(Deed, frozen=True, kw_only=True):
    """Put the token documents, whose `_id`s are the keys of `tokens`; result `{"created": n}`.

    `own`: token → its own texts, `shared`: the texts of all, each by its name. They are there as soon as the token is: where
    others start pilots, one takes it at once.
    """

    kind: ClassVar[str] = "create_tokens"
    token_type: str
    tokens: dict[str, Document]
    own: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    shared: dict[str, str] = msgspec.field(default_factory=dict)
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        await self._install_views(world)
        present = await self._present(world, intent)
        missing = [
            {**document, "_id": name, "aglowd": {"key": intent.key}, **self._files(name)}
            for name, document in self.tokens.items()
            if name not in present
        ]
        await write_all(world.token_base(self.site), missing, "were refused")
        return {"created": len(self.tokens)}

    def _files(self, name: str) -> Document:
        texts = {**self.shared, **self.own.get(name, {})}
        return {"_attachments": {file: _inline(text) for file, text in texts.items()}} if texts else {}

    async def _install_views(self, world: World) -> None:
        """Ours over all types and those of the type: with either alone the watchers make do. NotAdmin when there is neither."""
        refused: list[NotAdmin] = []
        for name, doc in ((self.token_type, token_design_doc(self.token_type)), ("aglowd", DESIGN_DOC)):
            try:
                await world.token_base(self.site).ensure_design(name, doc)
            except NotAdmin as error:
                refused.append(error)
        if len(refused) == 2:
            raise refused[1]

    async def find(self, world: World, intent: Intent) -> Json | None:
        present = await self._present(world, intent)
        if intent.is_restored and len(present) < len(self.tokens):
            gone = await world.token_base(self.site).list_deleted(tuple(self.tokens))
            if gone:
                raise Conflict(
                    f"{len(gone)} of these tokens were made and deleted after the backup that was restored: look what became "
                    "of their results before the field is offered again"
                )
        return {"created": len(self.tokens)} if len(present) == len(self.tokens) else None

    async def _present(self, world: World, intent: Intent) -> set[str]:
        """Which of the tokens exist and are ours, whatever a pilot has changed in them since."""
        found = await world.token_base(self.site).get_docs(tuple(self.tokens))
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
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        changed = []
        for document in await self._documents(world):
            lacking = self._lacking(document)
            if lacking:
                stubs = document.get("_attachments", {})
                changed.append(
                    {**document, "_attachments": {**stubs, **{name: _inline(text) for name, text in lacking.items()}}}
                )
        await write_all(world.token_base(self.site), changed, "changed meanwhile")
        return {"attached": len(self.own)}

    async def find(self, world: World, intent: Intent) -> Json | None:
        lacking = any(map(self._lacking, await self._documents(world)))
        return None if lacking else {"attached": len(self.own)}

    async def _documents(self, world: World) -> list[Document]:
        found = await world.token_base(self.site).get_docs(tuple(self.own))
        gone = sorted(name for name, document in found.items() if document is None)
        if gone:
            raise Conflict(f"{len(gone)} tokens have gone before their files were attached: {', '.join(gone[:5])}")
        documents = [document for document in found.values() if document is not None]
        held = sorted(document["_id"] for document in documents if is_held(document) and self._lacking(document))
        if held:
            raise Permanent(
                f"{len(held)} tokens are held by pilots before their files were attached: {', '.join(held[:5])}"
            )
        return documents

    def _lacking(self, document: Document) -> dict[str, str]:
        wanted = {**self.shared, **self.own[document["_id"]]}
        there = document.get("_attachments", {})
        return {name: text for name, text in wanted.items() if there.get(name, {}).get("digest") != _digest(text)}


async def write_all(base: Picas, documents: list[Document], what: str) -> None:
    """Write all; if some were refused nobody may say that nothing was done."""
    rows = (await base.bulk(documents)).values() if documents else ()
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


def is_ours(document: Document) -> bool:
    """Whether an effect of aglowd's made it."""
    return isinstance(_mark(document).get("key"), str)


def _number(value: Json) -> int:
    """A count that others may have written; what is none is 0."""
    return int(value) if isinstance(value, int | float) and 0 <= value < MAX_SCRUBS else 0


def _digest(text: str) -> str:
    """The digest as CouchDB writes it of what it keeps as it came."""
    return "md5-" + base64.b64encode(hashlib.md5(text.encode(), usedforsecurity=False).digest()).decode()


def _inline(text: str) -> Document:
    # CouchDB compresses what is called a text, and then tells the digest of that: nobody could know it again.
    return {"content_type": "application/octet-stream", "data": base64.b64encode(text.encode()).decode()}


class ResetTokens(Deed, frozen=True, kw_only=True):
    """Give tokens that failed, or whose pilots are gone, back to the pilots, as PiCaS scrubs; result `{"reset": n, "left": m}`.

    `seen`: token → the revision on which that was decided, `why` → the reason, which goes into the token's own history. A token
    that has changed since is left alone: whoever changed it lives. Without `seen` every one that is not done is given back.
    """

    kind: ClassVar[str] = "reset_tokens"
    tokens: tuple[str, ...]
    seen: dict[str, str] = msgspec.field(default_factory=dict)
    why: dict[str, str] = msgspec.field(default_factory=dict)
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        now = world.clock.now()
        there = await self._documents(world)
        scrubbed = [scrub(document, intent.key, self.why.get(document["_id"], "reset"), now)
                    for document in there if self._is_to_be_reset(document, intent)]  # fmt: skip
        await write_all(world.token_base(self.site), scrubbed, "changed meanwhile")
        left = sum(not _was_reset(document, intent) for document in there) - len(scrubbed)
        return {"reset": len(self.tokens) - left, "left": left}

    async def find(self, world: World, intent: Intent) -> Json | None:
        there = await self._documents(world)
        if any(self._is_to_be_reset(document, intent) for document in there):
            return None
        left = sum(not _was_reset(document, intent) for document in there)
        return {"reset": len(self.tokens) - left, "left": left}

    async def _documents(self, world: World) -> list[Document]:
        found = await world.token_base(self.site).get_docs(self.tokens)
        return [document for document in found.values() if document is not None]

    def _is_to_be_reset(self, document: Document, intent: Intent) -> bool:
        if _was_reset(document, intent):
            return False
        rev = self.seen.get(document["_id"])
        return state_of(document) != "done" if rev is None else document["_rev"] == rev


def _was_reset(document: Document, intent: Intent) -> bool:
    return _mark(document).get("reset") == intent.key


MAX_HISTORY = 20
"""Entries that a token keeps of what became of it."""
ERROR = "error"
"""Why a token that failed gets another chance; `retries` counts these."""


def scrub(document: Document, key: str, why: str, now: float) -> Document:
    """The token as it was when it was made, but for its attachments, its `scrub_count` and its history, in which it says
    who held it and how that ended."""
    mark = _mark(document)
    past = mark.get("history")
    entry = {
        "at": int(now),
        "why": why,
        **{name: document[name] for name in _TOLD if document.get(name) not in (None, "")},
    }
    kept = {name: value for name, value in document.items() if name not in JOB_KEYS}
    return {
        **kept,
        "lock": 0,
        "done": 0,
        "hostname": "",
        "output": "",
        "exit_code": "",
        "status": "reset",
        "scrub_count": _number(document.get("scrub_count")) + 1,
        "aglowd": {
            **{name: value for name, value in mark.items() if name not in ("lock_id", "beat", "result")},
            "reset": key,
            "retries": _number(mark.get("retries")) + (why == ERROR),
            "history": [*(past if isinstance(past, list) else []), entry][-MAX_HISTORY:],
        },
    }


_TOLD = ("lock", "status", "output", "exit_code", "hostname", "launcher_status", *JOB_KEYS)


class ModifyTokens(Deed, frozen=True, kw_only=True):
    """Set `values` in tokens (id → the revision on which that was decided); result `{"modified": n, "left": m}`.

    A token that has changed since is left alone.
    """

    kind: ClassVar[str] = "modify_tokens"
    tokens: dict[str, str]
    values: dict[str, Json]
    site: str = ""

    async def do(self, world: World, intent: Intent) -> Json:
        there = await self._documents(world)
        changed = [
            {**document, **self.values, "aglowd": {**_mark(document), "modified": intent.key}}
            for document in there
            if self._is_to_be_changed(document, intent)
        ]
        await write_all(world.token_base(self.site), changed, "changed meanwhile")
        left = sum(not _was_modified(document, intent) for document in there) - len(changed)
        return {"modified": len(self.tokens) - left, "left": left}

    async def find(self, world: World, intent: Intent) -> Json | None:
        there = await self._documents(world)
        if any(self._is_to_be_changed(document, intent) for document in there):
            return None
        left = sum(not _was_modified(document, intent) for document in there)
        return {"modified": len(self.tokens) - left, "left": left}

    async def _documents(self, world: World) -> list[Document]:
        found = await world.token_base(self.site).get_docs(tuple(self.tokens))
        return [document for document in found.values() if document is not None]

    def _is_to_be_changed(self, document: Document, intent: Intent) -> bool:
        return not _was_modified(document, intent) and document["_rev"] == self.tokens[document["_id"]]


def _was_modified(document: Document, intent: Intent) -> bool:
    return _mark(document).get("modified") == intent.key


def check_fields(values: dict[str, Json]) -> None:
    """ValueError for fields that nobody may set in a token: its names, its lock, and what is ours."""
    wrong = sorted(name for name in values if name.startswith("_") or name in ("type", "lock", "done", "aglowd"))
    if wrong:
        raise ValueError(f"the fields {', '.join(wrong)} are not set by hand; reset a token to free it")


DEEDS: tuple[type[Any], ...] = (CreateTokens, AttachFiles, ResetTokens, ModifyTokens)
