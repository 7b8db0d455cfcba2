"""Fields that wait for their files."""

from __future__ import annotations

from pathlib import Path

from aglowd.sim.faults import Script as Fault
from tests.stuck.place import FIELD, LIST, OTHER, STAGE, TARGET, Lines, place, situation
from tests.virtual.script import DAY_S, HOUR_S

KEEP = """
[steps.keep]
kind = "release"
needs = ["stage"]
requests = "{{ steps.stage.outputs.requests }}"
site = "{{ steps.stage.outputs.site }}"
surls = "{{ steps.stage.outputs.surls }}"
since = "{{ steps.stage.outputs.since }}"
until = ["look"]

[steps.look]
kind = "await_approval"
needs = ["stage"]
"""

SEED_ON_HOLD = 1
"""Of a world whose stager puts the field's request on hold."""


def list_of(directory: Path) -> Path:
    return directory / "srm" / f"srm{TARGET}.txt"


@situation("Its list is missing")
async def no_list() -> Lines:
    async with place(LIST, write=lambda directory: list_of(directory).unlink()) as here:
        return await here.until("failed")


@situation("Its list mixes observations")
async def mixed_list() -> Lines:
    def mix(directory: Path) -> None:
        path = list_of(directory)
        path.write_text(path.read_text().replace(f"L{TARGET}_SB245", "L999999_SB245"))

    async with place(LIST, write=mix) as here:
        return await here.until("failed")


@situation("Its files wait for their turn")
async def window() -> Lines:
    async with place(LIST, STAGE, fields=(FIELD, OTHER), sites_sara={"files_at_once": 5}) as here:
        await here.until("request", name=OTHER)
        return await here.until("wait for their turn")


@situation("Staged files of others fill the site")
async def held_files() -> Lines:
    async with place(
        LIST, STAGE, KEEP, fields=(FIELD, OTHER), rate=600.0, sites_sara={"files_held": 5, "files_at_once": 5}
    ) as here:
        await here.until("kept online", name=OTHER, step_s=2 * HOUR_S)
        return await here.until("staged files")


@situation("The site is in maintenance")
async def maintenance() -> Lines:
    async with place(LIST, STAGE, seed=SEED_ON_HOLD) as here:
        return await here.until("on hold")


@situation("The request does not move")
async def still() -> Lines:
    async with place(LIST, STAGE) as here:
        return await here.until("in progress, 0 of 4 files")


@situation("A request was in vain")
async def in_vain() -> Lines:
    late = Fault(system="lta", op="add_getid", fault="false_success", value=600.0)
    async with place(LIST, STAGE, faults=(late,)) as here:
        return await here.until("asked for again")


@situation("Files are lost")
async def lost() -> Lines:
    strike = Fault(system="dcache", op="stage", fault="lost", value=2)
    async with place(LIST, STAGE, faults=(strike,), rate=600.0, sites_sara={"staging": "dcache"}) as here:
        return await here.until("failed", step_s=2 * HOUR_S)


@situation("The disk of files is away")
async def away() -> Lines:
    async with place(LIST, STAGE, sites_sara={"staging": "dcache"}) as here:
        await here.until("of 4 files online; request")
        here.strike(system="dcache", op="archiveinfo", fault="unavailable", value=3 * DAY_S)
        return await here.until("UNAVAILABLE")


@situation("The stager does not take the request")
async def no_stager() -> Lines:
    refuses = Fault(system="lta", op="add_getid", fault="busy", count=10_000, value=3600)
    async with place(LIST, STAGE, faults=(refuses,)) as here:
        return await here.until("stage_files is tried again")


@situation("The stager tells nothing of the request")
async def silent_stager() -> Lines:
    async with place(LIST, STAGE) as here:
        await here.until("in progress")
        here.strike(system="lta", fault="refuse", value=10 * DAY_S)
        return await here.until("no answer", "staging:sara")


@situation("The password is refused")
async def frozen() -> Lines:
    async with place(LIST, STAGE) as here:
        password = here.directory / "lta_password"
        good = password.read_text()
        password.write_text("of last year")
        lines = await here.until("is frozen")
        password.write_text(good)
        await here.until("request 18748 at sara")
        return lines


@situation("Nobody tells where the files are")
async def no_dcache() -> Lines:
    hangs = Fault(system="dcache", fault="error_before", count=10_000, value=502)
    async with place(LIST, STAGE, faults=(hangs,)) as here:
        return await here.until("no answer")


@situation("The files lie at a site that is not configured")
async def unknown_site() -> Lines:
    def move(directory: Path) -> None:
        path = list_of(directory)
        path.write_text(path.read_text().replace("srm.grid.sara.nl", "lta-head.lofar.psnc.pl"))

    async with place(LIST, STAGE, write=move) as here:
        return await here.until("poznan")
