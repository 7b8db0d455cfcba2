"""PiCaS, the token database: what its documents mean to us.

What must stay true: one query tells of all token types, however many there are; where our own views may not be installed,
those of GRID_LRT's tools are asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from aglowd.crash import seam
from aglowd.errors import Permanent
from aglowd.grid.couchdb import BulkRow, Couchdb, Cursor, Info, NotAdmin, ViewRow, count_of, document_of, quoted_id
from aglowd.grid.couchdb_feed import Change, FeedReset, Heartbeat
from aglowd.grid.picas_views import (
    DESIGN_DOC,
    DESIGN_NAME,
    JOB_KEYS,
    OWNERS_VIEW,
    PILOTS_VIEW,
    STATES,
    STATES_VIEW,
    TAKEN_VIEW,
    TYPE_VIEWS,
    check_token_type,
    is_held,
    state_of,
    token_design_doc,
)

__all__ = [
    "DESIGN_DOC",
    "JOB_KEYS",
    "STATES",
    "BulkRow",
    "Change",
    "Cursor",
    "FeedReset",
    "Heartbeat",
    "Info",
    "NotAdmin",
    "Picas",
    "Taken",
    "ViewRow",
    "check_token_type",
    "is_held",
    "state_of",
    "token_design_doc",
]

MAX_WORD_CHARS = 200
"""Of a job's id and a host's name, as pilots write them."""


class Taken(Struct, frozen=True):
    """A token that somebody has taken and not finished well: locked, error or other.

    `retries`: how often it was given back after an error; `job`: under which job its holder runs, as far as it says so.
    """

    state: str
    rev: str
    lock: Any = 0
    job: str = ""
    hostname: str = ""
    retries: int = 0
    is_held: bool = False
    """Whether it is locked and not done, whatever its status says."""


class Picas(Couchdb):
    """The verbs over tokens."""

    @seam
    async def count_tokens(self, types: Sequence[str]) -> dict[str, dict[str, int]]:
        """Token type → state → how many, with zeros, in one query; every token is in exactly one of STATES.

        Where our design document is not there, GRID_LRT's views of each type are asked, in four requests a type: they do not
        know of tokens in other states.
        """
        counts = {name: dict.fromkeys(STATES, 0) for name in types}
        if not counts:
            return counts
        keys = [[name, state] for name in counts for state in STATES]
        rows = await self._ours(STATES_VIEW, {"group": True}, keys)
        if rows is None:
            for name, states in counts.items():
                for state in TYPE_VIEWS:
                    states[state] = await self._count_rows(name, state)
            return counts
        for row in rows:
            match row.key:
                case [str(name), str(state)] if name in counts and state in STATES:
                    counts[name][state] = count_of(row.value)
        return counts

    @seam
    async def list_taken(self, types: Sequence[str]) -> dict[str, dict[str, Taken]]:
        """Token type → id → what is known of a token that somebody has taken and not finished well, in one query.

        Where our design document is not there, in two requests a type.
        """
        found: dict[str, dict[str, Taken]] = {name: {} for name in types}
        if not found:
            return found
        rows = await self._ours(TAKEN_VIEW, {}, list(found))
        for row in rows or ():
            match row.value:
                case [str(state), str(rev), lock, job, host, retries, held] if row.id is not None and row.key in found:
                    told = Taken(state, rev, lock, _text(job), _text(host), count_of(retries), held is True)
                    found[row.key][row.id] = told
        for name in found if rows is None else ():
            for state in ("locked", "error"):
                for row in await self._type_view(name, state, {"include_docs": True}):
                    document = document_of(str(row.id), row.doc)
                    if document is not None:
                        found[name][document["_id"]] = _taken(state, document)
        return found

    async def _ours(self, view: str, params: Mapping[str, Any], keys: Sequence[Any]) -> list[ViewRow] | None:
        """The rows of one of our own views, None where it is not installed."""
        try:
            return await self.query(DESIGN_NAME, view, params=params, keys=keys)
        except Permanent as error:
            if error.absent:
                return None
            raise

    async def _type_view(self, token_type: str, view: str, params: Mapping[str, Any]) -> list[ViewRow]:
        """The rows of a view of GRID_LRT's; none where there are no tokens of that type."""
        try:
            return await self.query(token_type, view, params=params)
        except Permanent as error:
            if error.absent:
                return []
            raise

    async def _count_rows(self, token_type: str, view: str) -> int:
        path = f"_design/{quoted_id(token_type)}/_view/{view}"
        try:
            return count_of((await self._read("GET", path, params={"limit": "0"}, what=path)).get("total_rows"))
        except Permanent as error:
            if error.absent:
                return 0
            raise

    @seam
    async def find_pilots(self, key: str) -> tuple[str, ...]:
        """The jobs of pilots that left the key of their submission when they began; none where nobody left any."""
        rows = await self._ours(PILOTS_VIEW, {}, [["key", key]])
        return tuple(sorted({row.value for row in rows or () if isinstance(row.value, str)}))

    @seam
    async def list_pilot_docs(self, token_type: str) -> list[dict[str, Any]]:
        """What pilots for that type left: documents with `_id` and `_rev`."""
        rows = await self._ours(PILOTS_VIEW, {}, [["type", token_type]])
        found = await self.get_docs([row.id for row in rows or () if row.id is not None])
        return [{"_id": doc["_id"], "_rev": doc["_rev"]} for doc in found.values() if doc is not None]

    @seam
    async def count_owners(self) -> dict[str, int]:
        """The key of the effect that made them → how many tokens there are; those of others are not counted."""
        rows = await self.query(DESIGN_NAME, OWNERS_VIEW, params={"group": True})
        return {str(row.key): int(row.value) for row in rows if isinstance(row.value, int | float)}

    @seam
    async def list_ids(self, token_type: str, state: str = "") -> tuple[str, ...]:
        """The ids of all tokens of that type, or of those in that state, sorted."""
        if state:
            params: dict[str, Any] = {"reduce": False, "key": [token_type, state]}
        else:
            params = {"reduce": False, "startkey": [token_type], "endkey": [token_type, {}]}
        try:
            rows = await self.query(DESIGN_NAME, STATES_VIEW, params=params)
        except Permanent as error:
            if not error.absent:
                raise
            views = (state,) if state in TYPE_VIEWS else () if state else TYPE_VIEWS
            rows = [row for view in views for row in await self._type_view(token_type, view, {})]
        return tuple(sorted({row.id for row in rows if row.id is not None}))


def _taken(state: str, document: Mapping[str, Any]) -> Taken:
    job = next((document[key] for key in JOB_KEYS if document.get(key)), "")
    mark = document.get("aglowd")
    retries = count_of(mark.get("retries")) if isinstance(mark, dict) else 0
    host = _text(document.get("hostname"))
    return Taken(state, document["_rev"], document.get("lock"), _text(job), host, retries, is_held(document))


def _text(value: Any) -> str:
    """A short text that a pilot wrote; of anything else its JSON."""
    return (value if isinstance(value, str) else "" if value is None else str(value))[:MAX_WORD_CHARS]
