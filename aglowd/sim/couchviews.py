"""View indexes, kept up as documents change: a query costs what changed since the last one, and what it returns.

A map-only view keeps its rows sorted; a reduced one keeps besides, for each key, a running value, so that the counts
of ten thousand tokens cost as much as those of ten.
"""

from __future__ import annotations

import asyncio
import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from aglowd.sim.couchstore import Body, CouchError, Database, Doc, bad_request
from aglowd.sim.jsvalues import MapError
from aglowd.sim.mapjs import CompileError, compile_map

CollationKey = tuple[Any, ...]
_SUM = re.compile(
    r"function\s*\w*\s*\(\s*\w+\s*,\s*(\w+)\s*(?:,\s*\w+\s*)?\)\s*\{\s*return\s+sum\(\s*(\w+)\s*\)\s*;?\s*\}"
)
MAPPED_AT_ONCE = 1000
"""Documents that are mapped before somebody else gets a word in."""
_BUILTIN = ("_count", "_sum", "_stats")


def collation(value: Any) -> CollationKey:
    """What sorts JSON as CouchDB does: null, false, true, numbers, strings, arrays, objects."""
    if value is None:
        return (0,)
    if isinstance(value, bool):
        return (2,) if value else (1,)
    if isinstance(value, int | float):
        return (3, value)
    if isinstance(value, str):
        return (4, value.casefold(), value.swapcase())
    if isinstance(value, list):
        return (5, tuple(collation(item) for item in value))
    return (6, tuple((collation(name), collation(item)) for name, item in value.items()))


def reduce_kind(text: str | None) -> str | None:
    """Which built-in reduction the text is; GRID_LRT's own function is a sum. Raises CompileError."""
    if not text:
        return None
    text = text.strip()
    if text in _BUILTIN:
        return text
    found = _SUM.fullmatch(text)
    if found and found[1] == found[2]:
        return "_sum"
    raise CompileError(f"reduce function is not known here: {text[:80]}")


def check_design(body: Body) -> None:
    """Refuse a design document whose views do not compile, as CouchDB 3 does."""
    views = body.get("views") or {}
    if not isinstance(views, dict):
        raise bad_request("`views` field must be an object", "invalid_design_doc")
    for name, view in views.items():
        try:
            compile_map(view["map"])
            reduce_kind(view.get("reduce"))
        except CompileError as error:
            raise bad_request(f"Compilation of the map function in the '{name}' view failed: {error}",
                              "compilation_error") from error  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise bad_request(f"View {name} has no map function", "invalid_design_doc") from error


@dataclass
class Group:
    """The running value of one key: how many rows, their sum, and, for _stats, each number with its count."""

    key: Any
    count: int = 0
    total: float = 0
    numbers: Counter[float] = field(default_factory=Counter)

    def add(self, value: Any, times: int) -> None:
        self.count += times
        if isinstance(value, int | float):
            self.total += value * times
            self.numbers[value] += times

    def merge(self, other: Group) -> None:
        self.count += other.count
        self.total += other.total
        self.numbers.update(other.numbers)

    def value(self, kind: str) -> Any:
        if kind == "_count":
            return self.count
        if kind == "_sum":
            return self.total
        live = [number for number, times in self.numbers.items() if times > 0]
        squares = sum(number * number * self.numbers[number] for number in live)
        return {"sum": self.total, "count": self.count, "min": min(live), "max": max(live), "sumsqr": squares}


@dataclass(frozen=True)
class Query:
    """The options of a view query that choose and shape its rows."""

    keys: tuple[Any, ...] | None = None
    start: tuple[Any, ...] = ()
    end: tuple[Any, ...] = ()
    inclusive_end: bool = True
    descending: bool = False
    limit: int | None = None
    skip: int = 0
    reduce: bool | None = None
    group_level: int | None = None
    """None = all rows in one; 0 is not used; a large number = one row for each key."""
    include_docs: bool = False

    def window(self) -> slice:
        return slice(self.skip, None if self.limit is None else self.skip + self.limit)


Entry = tuple[CollationKey, str, int, Any, Any]
"""One row: its key for sorting, document id, number among the document's rows, key, value."""


class ViewIndex:
    """The rows of one view, and its groups when it has a reduction."""

    def __init__(self, map_text: str, reduce_text: str | None) -> None:
        self._map = compile_map(map_text)
        self.kind = reduce_kind(reduce_text)
        self.seq = 0
        self.mapped = 0
        self._by_doc: dict[str, list[Entry]] = {}
        self._rows: list[Entry] | None = None
        self._groups: dict[CollationKey, Group] = {}
        self._sorted_groups: list[CollationKey] | None = None

    def update(self, database: Database, most: int | None = None) -> bool:
        """Map what changed since the last time, at most so many documents; whether that was all."""
        changed = list(islice(database.changed_since(self.seq), most))
        for doc in changed:
            if not doc.id.startswith("_design/"):
                self._replace(doc)
        is_all = len(changed) != most
        self.seq = database.seq if is_all else changed[-1].seq
        return is_all

    def query(self, query: Query, database: Database) -> Body:
        """The answer's body; raises CouchError for options that do not fit the view."""
        reducing = self.kind is not None and query.reduce is not False
        if self.kind is None and query.reduce:
            raise bad_request("Reduce is invalid for map-only views.", "query_parse_error")
        if not reducing and query.group_level is not None:
            raise bad_request("Invalid use of grouping on a map view.", "query_parse_error")
        if reducing:
            return self._reduced(query)
        return self._mapped(query, database)

    def _replace(self, doc: Doc) -> None:
        for entry in self._by_doc.pop(doc.id, ()):
            self._count(entry, -1)
            if self._rows is not None:
                del self._rows[bisect.bisect_left(self._rows, entry[:3], key=lambda row: row[:3])]
        if doc.deleted:
            return
        self.mapped += 1
        try:
            emitted = self._map(doc.body())
        except MapError:
            return
        entries = [(collation(key), doc.id, at, key, value) for at, (key, value) in enumerate(emitted)]
        if entries:
            self._by_doc[doc.id] = entries
        for entry in entries:
            self._count(entry, 1)
            if self._rows is not None:
                bisect.insort(self._rows, entry, key=lambda row: row[:3])

    def _count(self, entry: Entry, times: int) -> None:
        if self.kind is None:
            return
        group = self._groups.get(entry[0])
        if group is None:
            group = self._groups[entry[0]] = Group(entry[3])
            self._sorted_groups = None
        group.add(entry[4], times)
        if group.count == 0:
            del self._groups[entry[0]]
            self._sorted_groups = None

    # --- rows

    def _mapped(self, query: Query, database: Database) -> Body:
        if self._rows is None:
            self._rows = sorted((row for rows in self._by_doc.values() for row in rows), key=lambda row: row[:3])
        rows, offset = self._select(self._rows, query)
        chosen = [
            {"id": doc_id, "key": key, "value": value, **_included(query, database, doc_id, value)}
            for _, doc_id, _, key, value in rows[query.window()]
        ]
        return {"total_rows": len(self._rows), "offset": offset + min(query.skip, len(rows)), "rows": chosen}

    def _select(self, rows: list[Entry], query: Query) -> tuple[list[Entry], int]:
        """The rows within the query's keys or range, in its order, and how many stand before them."""
        if query.keys is not None:
            found: list[Entry] = []
            for key in query.keys:
                wanted = collation(key)
                low = bisect.bisect_left(rows, wanted, key=lambda row: row[0])
                found += rows[low : bisect.bisect_right(rows, wanted, key=lambda row: row[0])]
            return found, 0
        low, high = _range([row[0] for row in rows] if query.start or query.end else None, len(rows), query)
        chosen = rows[low:high]
        return (chosen[::-1], len(rows) - high) if query.descending else (chosen, low)

    # --- groups

    def _reduced(self, query: Query) -> Body:
        if query.include_docs:
            raise bad_request("`include_docs` is invalid for reduce", "query_parse_error")
        if query.keys is not None and query.group_level is None:
            raise bad_request("Multi-key fetches for reduce views must use `group=true`", "query_parse_error")
        kind = str(self.kind)
        if query.group_level is None:
            everything = Group(None)
            for group in self._chosen_groups(query):
                everything.merge(group)
            return {"rows": [{"key": None, "value": everything.value(kind)}] if everything.count else []}
        merged: dict[CollationKey, Group] = {}
        for group in self._chosen_groups(query):
            key = group.key[: query.group_level] if isinstance(group.key, list) else group.key
            merged.setdefault(collation(key), Group(key)).merge(group)
        rows = [{"key": group.key, "value": group.value(kind)} for group in merged.values()]
        return {"rows": rows[query.window()]}

    def _chosen_groups(self, query: Query) -> Iterable[Group]:
        if query.keys is not None:
            return [self._groups[at] for at in map(collation, query.keys) if at in self._groups]
        if self._sorted_groups is None:
            self._sorted_groups = sorted(self._groups)
        low, high = _range(self._sorted_groups, len(self._sorted_groups), query)
        chosen = self._sorted_groups[low:high]
        return [self._groups[at] for at in (reversed(chosen) if query.descending else chosen)]


def _range(keys: list[CollationKey] | None, size: int, query: Query) -> tuple[int, int]:
    """Where the query's range begins and ends among sorted keys; descending swaps the two ends."""
    if keys is None:
        return 0, size
    start = collation(query.start[0]) if query.start else None
    end = collation(query.end[0]) if query.end else None
    if query.descending:
        high = size if start is None else bisect.bisect_right(keys, start)
        cut = bisect.bisect_left if query.inclusive_end else bisect.bisect_right
        return (0 if end is None else cut(keys, end)), high
    low = 0 if start is None else bisect.bisect_left(keys, start)
    cut = bisect.bisect_right if query.inclusive_end else bisect.bisect_left
    return low, (size if end is None else cut(keys, end))


def _included(query: Query, database: Database, doc_id: str, value: Any) -> Body:
    if not query.include_docs:
        return {}
    wanted = value.get("_id", doc_id) if isinstance(value, dict) else doc_id
    doc = database.find_live(wanted)
    return {"doc": doc.body() if doc else None}


class Views:
    """The indexes of one database, shared by views of the same text."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._indexes: dict[tuple[str, str | None], ViewIndex] = {}

    async def query(self, design: str, view: str, query: Query) -> Body:
        """The answer to a query of `_design/{design}/_view/{view}`, up to date; others are answered while it is brought there."""
        doc = self._database.get(f"_design/{design}")
        found = (doc.fields.get("views") or {}).get(view)
        if found is None:
            raise CouchError(404, "not_found", "missing_named_view")
        texts = (found["map"], found.get("reduce"))
        index = self._indexes.get(texts)
        if index is None:
            index = self._indexes[texts] = ViewIndex(*texts)
        while True:
            if index.update(self._database, MAPPED_AT_ONCE):
                return index.query(query, self._database)
            await asyncio.sleep(0)

    def indexes(self) -> Iterator[ViewIndex]:
        return iter(self._indexes.values())
