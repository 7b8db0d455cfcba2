"""What people order of the catalogue: add fields to aglowd's own, copy it, and give a field back.

What must stay true: what is added is added whole or not at all, and every line that is wrong is named; a field that is
given back is one more status write, so it goes through the journal, and overwrites no word but the one that it names.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Awaitable, Collection, Sequence
from typing import Annotated, TypeVar

import msgspec
import structlog
from msgspec import Meta, Struct

from aglowd.effects.base import World
from aglowd.errors import AglowError
from aglowd.grid.catalogue import NAME, NAME_EXPECTED, Row
from aglowd.grid.catalogue_csv import COLUMNS, read_rows
from aglowd.grid.catalogue_own import OwnCatalogue
from aglowd.grid.surl import site_called
from aglowd.model import Json
from aglowd.pipeline import Pipeline
from aglowd.store.store import Store

RELEASE = "release_field"
"""The pipeline of which each release is a run."""
MAX_PROBLEMS = 20
"""Of an import that are told; the rest is counted."""
ASK_REAL_S = 60.0
"""Real seconds in which the catalogue answers."""

T = TypeVar("T")
Obsid = Annotated[str, Meta(pattern="^(L?[0-9]{1,12})?$")]
Status = Annotated[str, Meta(max_length=64)]
Positive = Annotated[float, Meta(gt=0, lt=1e9)]
Count = Annotated[int, Meta(ge=1, lt=1_000_000_000)]
Priority = Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]


class AddOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """A field for aglowd's own catalogue. `status`: "" = the first that offers a field."""

    name: Annotated[str, Meta(max_length=500)]
    target: Obsid
    calibrator: Obsid
    status: Status = ""
    site: Annotated[str, Meta(max_length=64)] = ""
    priority: Priority = 0
    field_priority: Priority = 0
    target_freq_resolution: Count | None = None
    target_time_resolution: Positive | None = None
    target_subbands: Count | None = None
    calibrator_freq_resolution: Count | None = None
    calibrator_time_resolution: Positive | None = None
    calibrator_subbands: Count | None = None
    baseline_filter: Annotated[str, Meta(max_length=1000)] = ""
    demix_sources: Annotated[str, Meta(max_length=1000)] = ""


class ImportOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """A fields file as its reader sent it. `path`: what messages call it."""

    path: Annotated[str, Meta(min_length=1, max_length=4096)]
    text: str


class ReleaseOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Give a field back. `to`: "" = as it was offered; `status`: what stands there now, if it is not our own word."""

    reason: Annotated[str, Meta(max_length=500)] = ""
    to: Status = ""
    status: Status = ""


class FieldOrders:
    """Carries them out. `words`: all statuses that the catalogue may have; `select`: those that offer a field."""

    def __init__(
        self, store: Store, world: World, release: Pipeline, select: Sequence[str], words: Collection[str]
    ) -> None:
        self._store = store
        self._world = world
        self._release = release
        self._select = select
        self._words = frozenset((*select, *words))
        self._log = structlog.get_logger("orders")

    async def add(self, order: AddOrder, uid: int) -> dict[str, Json]:
        """Add one field; AglowError if it is there, or if the catalogue is not ours."""
        own = self._own()
        if not NAME.fullmatch(order.name):
            raise AglowError(f"found field name {order.name[:80]!r}; expected {NAME_EXPECTED}")
        if not (order.target and order.calibrator):
            raise AglowError(f"{order.name}: expected the OBSIDs of target and calibrator")
        status = order.status or self._select[0]
        if status not in self._words:
            raise AglowError(f"{order.name}: found status {status!r}; expected one of {' '.join(sorted(self._words))}")
        taken = {name for name in AddOrder.__struct_fields__ if name in Row.__struct_fields__} - {"priority", "status"}
        row = Row(
            **{name: getattr(order, name) for name in taken},
            status=status,
            target_obsid=f"L{order.target.removeprefix('L')}",
            calibrator_obsid=f"L{order.calibrator.removeprefix('L')}",
            priority=(order.priority, order.field_priority),
            field_name=order.name,
        )
        row = msgspec.structs.replace(row, site=site_called(order.site))
        return await self._added(own, (row,), uid, "")

    async def import_file(self, order: ImportOrder, uid: int) -> dict[str, Json]:
        """Add all fields of a fields file, or none; AglowError names every line that is wrong."""
        own = self._own()
        rows = await asyncio.to_thread(read_rows, order.text, order.path, self._words)
        problems = [row.problem for row in rows if row.problem]
        if not rows:
            problems = [f"{order.path}:1: found no field; expected one a line"]
        if problems:
            more = len(problems) - MAX_PROBLEMS
            told = [*problems[:MAX_PROBLEMS], *([f"{order.path}: and {more} problems more"] if more > 0 else ())]
            raise AglowError("\n".join((*told, "nothing was imported")))
        return await self._added(own, rows, uid, order.path)

    async def export(self) -> dict[str, Json]:
        """All fields of the catalogue, whichever it is, as they are now: as values, and as a fields file."""
        rows = await self._asked(self._world.catalogue.rows())
        return {"fields": [_shown(row) for row in rows], "csv": await asyncio.to_thread(csv_of, rows)}

    async def release(self, name: str, order: ReleaseOrder, uid: int) -> dict[str, Json]:
        """Begin a run that gives the field back; AglowError while a run is at work on it, or if its status is not ours."""
        if name in await self._store.at_work():
            raise AglowError(f"{name} is at work; it can be given back when its run has ended: aglowctl explain {name}")
        shown, key = await self._asked(self._world.catalogue.read_status(name))
        if order.status and shown != order.status:
            raise AglowError(f"{name} is in status {shown!r}, not {order.status!r}; nothing was written")
        if key is None and not order.status:
            raise AglowError(
                f"{name} is in status {shown!r}, which is not aglowd's word; if it may go, say so: --from {shown!r}"
            )
        to = order.to or await self._store.offered_as(name)
        if not to:
            raise AglowError(f"{name} was never taken, so nobody knows as what it was offered; say so: --to STATUS")
        if to == shown:
            raise AglowError(f"{name} is in status {shown!r} already")
        params = {"field": name, "expect": shown, "status": to}
        field = f"release/{name}"
        run = await self._store.begin_order(self._release, field, params, {"uid": uid, "reason": order.reason})
        self._log.info("ordered", uid=uid, field=field, run=run, reason=order.reason)
        return {"field": name, "run": run, "from": shown, "to": to}

    def _own(self) -> OwnCatalogue:
        if not isinstance(self._world.catalogue, OwnCatalogue):
            raise AglowError(
                f"fields are added to {self._world.catalogue.where} by its own means; aglowd adds to its own alone"
            )
        return self._world.catalogue

    async def _added(self, own: OwnCatalogue, rows: Sequence[Row], uid: int, path: str) -> dict[str, Json]:
        names = [row.name for row in rows]
        # Who orders what is on record before it is done: nothing stands there of which nobody knows who added it.
        await self._store.record("FieldsOrdered", {"uid": uid, "path": path, "count": len(names), "fields": names[:20]})
        await self._asked(own.add(rows))
        self._store.bells.subject("field").set()  # They are looked at now, not at the next poll.
        self._log.info("fields_added", uid=uid, path=path, count=len(names))
        return {"added": names}

    async def _asked(self, question: Awaitable[T]) -> T:
        """The catalogue's answer, in time."""
        try:
            async with asyncio.timeout(ASK_REAL_S):
                return await question
        except TimeoutError as error:
            raise AglowError(f"{self._world.catalogue.where} does not answer within {ASK_REAL_S:g} s") from error


def csv_of(rows: Sequence[Row]) -> str:
    """The fields as a fields file, which AGLOW reads, too. What such a file has no column for is left out."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in rows:
        columns = list(row.columns) + [""] * (COLUMNS - len(row.columns))
        written = {
            0: row.status,
            1: row.target_obsid.removeprefix("L"),
            3: row.target_freq_resolution,
            4: row.target_time_resolution,
            5: row.target_subbands,
            6: row.calibrator_obsid.removeprefix("L"),
            8: row.calibrator_freq_resolution,
            9: row.calibrator_time_resolution,
            10: row.calibrator_subbands,
            11: row.name,
            12: row.baseline_filter,
        }
        # What came from such a file goes back as it was, to the last digit.
        kept = (0,) if row.columns else written
        for column in kept:
            value = written[column]
            columns[column] = "" if value is None else str(value)
        writer.writerow(columns)
    return out.getvalue()


def _shown(row: Row) -> dict[str, Json]:
    shown: dict[str, Json] = msgspec.to_builtins(row)
    shown.pop("columns")
    return shown
