"""Fields that go through a few steps, and what an operator does with them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from aglowd import log
from tests.screens.stage import Stage, installed, story
from tests.stuck.ending import ASK, full_disk_of
from tests.stuck.place import FIELD, LIST, STAGE, TARGET, place
from tests.virtual import loop
from tests.virtual.script import DAY_S, HOUR_S
from tests.world.small import srm_lines

JUELICH = "231167"
"""A target whose files lie at Jülich."""
BEGUN = """
[steps.claim]
kind = "set_status"
expect = "SND"
status = "AAA"
[steps.look]
kind = "check_files"
needs = ["claim"]
directory = "{{ sites.sara.results }}/none"
"""


@story("failed")
async def fail(stage: Stage) -> None:
    """A step finds nothing, and again, and is begun anew."""
    async with place(BEGUN) as here:
        names = (*installed(here.directory), ("FIELD", FIELD))
        await here.until("failed")
        await here.sleep(DAY_S)
        await stage.show("first", here.directory, names)
        await here.sleep(DAY_S)
        await here.until("failed")
        await stage.show("again", here.directory, names)


@contextmanager
def log_in(path: Path) -> Iterator[None]:
    """What the daemon logs goes there, and the log of the tests is as before."""
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        log.configure("json", "info", path=str(path))
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = kept
        root.setLevel(level)


@story("logged")
async def tell(stage: Stage) -> None:
    with TemporaryDirectory() as name, log_in(Path(name) / "log"):
        async with place(BEGUN) as here:
            await here.until("failed")
            await stage.show("failed", here.directory, installed(here.directory))


@story("archived")
async def forget(stage: Stage) -> None:
    async with place(LIST) as here:
        await here.until("nothing is left to do")
        await stage.show("long-ago", here.directory, installed(here.directory))


@story("full")
async def fill(stage: Stage) -> None:
    async with place(ASK) as here, full_disk_of(here):
        await stage.show("disk", here.directory, installed(here.directory))


@story("lists")
async def stage_lists(stage: Stage) -> None:
    """Files are staged for people, and for no pipeline."""

    def write(directory: Path) -> None:
        sara, juelich = (srm_lines(obsid, 24) for obsid in (TARGET, JUELICH))
        for name, lines in (
            ("srm/srm" + JUELICH, juelich),
            ("srm/srm" + TARGET, sara),
            ("srm" + TARGET, sara),
            ("both", sara + juelich),
        ):
            (directory / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))

    by_token = {"staging": "stageit"}
    async with place(LIST, fields=(), write=write, sites_sara=by_token, sites_juelich=by_token) as here:
        await stage.show("asked", here.directory, installed(here.directory))
        await here.sleep(10 * HOUR_S)
        await stage.show("coming", here.directory, installed(here.directory))
        await here.sleep(2 * DAY_S)
        # Who waits sees time pass.
        with patch.object(loop, "HUNG_REAL_S", 1.0), patch.object(loop, "KILLED_REAL_S", 0.01):
            await stage.show("there", here.directory, installed(here.directory))


@story("schedule")
async def run_by_itself(stage: Stage) -> None:
    async with place(LIST, others={"ci": f'[schedule]\nevery = "6h"\n{ASK.replace("{{ field.name }}", "ci")}'}) as here:
        await here.sleep(7 * HOUR_S)
        await stage.show("begun", here.directory, installed(here.directory))


@story("unwell")
async def be_unwell(stage: Stage) -> None:
    """A program is missing, and a stager is away."""
    by_token = {"staging": "stageit"}
    async with place(
        *(LIST, STAGE),
        sites_sara=by_token,
        sites_juelich=by_token,
        stageit={"url": "http://127.0.0.1:9/stageit"},
    ) as here:
        (here.directory / "grid" / "bin" / "glite-wms-job-output").unlink()  # No host of ours has the real one.
        await here.sleep(HOUR_S)
        names = (*installed(here.directory), ("https://sdc.astron.nl/stageit", "http://127.0.0.1:9/stageit"))
        await stage.show("checked", here.directory, names)
