"""Fields that AGLOW has begun, and one that another aglowd holds, in one fields file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec import structs

from aglowd.grid.catalogue import Mark
from aglowd.grid.catalogue_csv import marks_text
from tests.screens.stage import Stage, installed, story
from tests.screens.survey import FIELDS
from tests.virtual.run import new_directory
from tests.virtual.script import HOUR_S, Script, fair_script
from tests.virtual.setup import write_inputs
from tests.virtual.test_adopt import SOLUTIONS, put_results
from tests.virtual.test_operator import Scene
from tests.virtual.world import Simulation

BEGUN = dict(zip(FIELDS, ("CCC", "TTT", "CCC", "AAA"), strict=True))
HELD = FIELDS[2]
KEY = f"{HELD}-1/claim/1/write_status/0"
HOLDER = Mark("CCC", KEY, "ui1:/var/lib/aglowd#3f9a2c1b", "2017-07-13T20:15:00Z")


def write(script: Script, directory: Path) -> None:
    """How far others have come with each."""
    write_inputs(script, directory)
    path = directory / "fields.csv"
    rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{row.replace('SND', BEGUN[row.split(',')[11]], 1)}\n" for row in rows), encoding="utf-8")
    (directory / "fields.csv.aglowd.json").write_bytes(marks_text({HELD: HOLDER}))


@asynccontextmanager
async def aglow() -> AsyncIterator[Simulation]:
    """A world with these rows, and what AGLOW has left outside."""
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(structs.replace(fair_script(seed=7), fields=FIELDS), Path(name))
        async with simulation.grid(write):
            await simulation.start()
            scene = Scene(simulation)
            scene.storage.write(SOLUTIONS, b"solutions")
            await put_results(scene)
            yield simulation
            scene.oracle.close()
            await simulation.crash()


@story("aglow")
async def take_over(stage: Stage) -> None:
    async with aglow() as simulation:
        await simulation.sleep(HOUR_S)
        await stage.show("begun", simulation.directory, installed(simulation.directory))
