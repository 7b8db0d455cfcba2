"""A small survey: four fields in virtual time, as an operator looks at them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import structs

from tests.screens.stage import Stage, installed, story
from tests.stuck.place import Place
from tests.virtual.run import new_directory
from tests.virtual.script import HOUR_S, fair_script
from tests.virtual.world import Simulation

FIELDS = ("P14Hetdex04", "P22Hetdex04", "P23Hetdex20", "P24Hetdex20")
SUBBANDS = 24
POOLS = "[pools]\nstaging-sara = 2\n"


@asynccontextmanager
async def survey() -> AsyncIterator[Place]:
    """The four of the demo, with a tenth of their files."""
    script = structs.replace(fair_script(seed=7), fields=FIELDS, subbands=SUBBANDS)
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid():
            simulation._config.write_text(simulation._config.read_text().replace(POOLS, ""))
            await simulation.start()
            yield Place(simulation)
            await simulation.crash()


@story("survey")
async def survive(stage: Stage) -> None:
    """A morning, and the next day."""
    async with survey() as here:
        names = installed(here.directory)
        (here.directory / "backup").mkdir()
        for_others = here.directory / "tell-the-others"
        for_others.write_text("#!/bin/sh\n")
        for_others.chmod(0o755)
        await here.sleep(11 * HOUR_S)
        await stage.show("staging", here.directory, names)
        await here.until("target_wait", " done, ", "pilots alive", name=FIELDS[1])
        await here.sleep(5 * HOUR_S)
        await stage.show("computing", here.directory, names)
