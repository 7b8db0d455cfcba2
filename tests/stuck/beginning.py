"""Fields that have not begun, and those that people hold."""

from __future__ import annotations

from pathlib import Path

from tests.stuck.place import CALIBRATOR, FIELD, LIST, OTHER, STAGE, TARGET, Lines, Place, place, situation
from tests.virtual.script import HOUR_S

ROW = {"name": FIELD, "target": TARGET, "calibrator": CALIBRATOR}
"""As `aglowctl add` sends it."""


def in_row(old: str, new: str, directory: Path) -> None:
    """Change the catalogue's first row."""
    path = directory / "fields.csv"
    path.write_text(path.read_text().replace(old, new, 1))


@situation("Its status is not on offer")
async def status() -> Lines:
    async with place(LIST, write=lambda directory: in_row("SND", "ZZZ", directory)) as here:
        return await here.until("its status")


@situation("Its priority is below 0")
async def priority() -> Lines:
    async with place(LIST, catalogue={"kind": "own", "path": ""}) as here:
        await here.order("catalogue", **ROW, priority=-1)
        await here.sleep(3 * HOUR_S)
        return await here.until("priority")


@situation("As many fields are under way as may be")
async def max_fields() -> Lines:
    async with place(LIST, STAGE, fields=(OTHER, FIELD), catalogue={"max_fields": 1}) as here:
        await here.until("request", name=OTHER)
        return await here.until("has not begun")


@situation("As many fields of its site are under way as may be")
async def fields_at_once() -> Lines:
    async with place(LIST, STAGE, sites_sara={"fields_at_once": 1}, catalogue={"kind": "own", "path": ""}) as here:
        for name in (FIELD, OTHER):
            await here.order("catalogue", **{**ROW, "name": name}, site="sara")
        await here.sleep(3 * HOUR_S)
        return await here.until("has not begun")


@situation("It is paused before it begins")
async def paused_before() -> Lines:
    async with place(LIST, STAGE, fields=(OTHER, FIELD), catalogue={"max_fields": 1}) as here:
        await here.order("pause", fields=[FIELD], reason="the list is being repaired")
        return await here.until("paused")


@situation("Everything is drained")
async def drained() -> Lines:
    async with place(LIST, STAGE, fields=(OTHER, FIELD), catalogue={"max_fields": 1}) as here:
        await here.order("drain", everything=True, reason="a new release")
        return await here.until("drained")


@situation("Its row cannot be read")
async def bad_row() -> Lines:
    async with place(LIST, write=lambda directory: in_row(",242,", ",many,", directory)) as here:
        return await here.until("failed")


async def held(here: Place, **hold: object) -> Lines:
    await here.until("request")
    await here.order("pause", **hold, reason="maintenance")
    return await here.until("paused")


@situation("It is paused")
async def paused() -> Lines:
    async with place(LIST, STAGE) as here:
        return await held(here, fields=[FIELD])


@situation("Its site is paused")
async def paused_site() -> Lines:
    async with place(LIST, STAGE) as here:
        return await held(here, sites=["sara"])


@situation("A kind of step is paused")
async def paused_kind() -> Lines:
    async with place(LIST, STAGE) as here:
        return await held(here, kinds=["stage"])


@situation("Everything is paused")
async def paused_all() -> Lines:
    async with place(LIST, STAGE) as here:
        return await held(here, everything=True)
