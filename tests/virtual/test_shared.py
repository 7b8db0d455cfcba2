"""A field that comes later finds its calibrator done: what aglowd does then, when the solutions are there, gone, or out of sight.

Storage is changed by hands from outside; what became of it tells the simulated grid's ledger.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from aglowd.cli.demo import ARCHIVE, HOST
from aglowd.sim.faults import Script as FaultScript
from tests.virtual.day import ENDED, judge_world
from tests.virtual.run import new_directory
from tests.virtual.script import DAY_S, HOUR_S, Script, fair_script
from tests.virtual.setup import obsids, write_inputs
from tests.virtual.test_operator import FIELD, Scene
from tests.virtual.world import Simulation

pytestmark = [pytest.mark.world, pytest.mark.timeout(300)]

LATER = "P14Hetdex04"
_, CALIBRATOR = obsids(FIELD)
NOT_YET = "ZZZ"
"""A status in which a field is on offer to nobody."""


class SharedScene(Scene):
    """FIELD is archived, LATER is on offer to nobody yet; both have one calibrator."""

    async def until_archived(self, field: str) -> None:
        while (await self.simulation.fields()).get(field, ("",))[0] not in ENDED:
            assert self.simulation.now() < 40 * DAY_S, await self.simulation.daemon._store.explain(field)
            await self.simulation.sleep(HOUR_S)
        assert (await self.simulation.fields())[field] == ("archived", "")

    def offer(self, field: str) -> None:
        """As an operator writes it into the catalogue."""
        path = self.simulation.directory / "fields.csv"
        rows = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"SND{row[3:]}\n" if f",{field}," in row else f"{row}\n" for row in rows))

    @property
    def solutions(self) -> Path:
        """Where the only file with the calibrator's solutions lies."""
        root = self.storage.find_path(f"{HOST}/results/sara/calibrators")
        assert root is not None
        (found,) = root.glob("*/*.tar")
        return found

    async def reason(self, field: str) -> str:
        """What explain says of the step that joins the calibrator."""
        answer = await self.simulation.daemon._store.explain(field)
        assert answer is not None
        return " ".join(step["reason"] for step in answer["steps"] if step["step"] == "calibrator")

    async def until_reason(self, field: str, text: str) -> str:
        while text not in (reason := await self.reason(field)):
            assert self.simulation.now() < 40 * DAY_S, await self.simulation.daemon._store.explain(field)
            await self.simulation.sleep(60.0)
        return reason

    def begun_anew(self) -> list[dict[str, Any]]:
        return [json.loads(data) for kind, data in self.events() if kind == "RunBegunAnew"]

    def solved(self) -> list[str]:
        """The type of the token for each time that the calibrator was processed, and its solutions written."""
        made = [doc for line in self.lines("bulk_docs") for doc in line["docs"] if doc["rev"].startswith("1-")]
        types = [doc["type"] for doc in made if doc.get("type", "").endswith("_cal")]
        written = [line for line in self.lines("result_written") if "/calibrators/" in line["url"]]
        assert len(written) == len(types)
        return types

    def used(self, run: str) -> str:
        """The run of the calibrator that the record in the run's archive names."""
        archive = self.storage.find_path(f"{ARCHIVE}/sara/{run}/provenance.json")
        assert archive is not None
        record = msgspec.json.decode(archive.read_bytes())
        (used,) = {one["id"] for one in record["runs"] if one["id"].startswith(f"cal-L{CALIBRATOR}-")}
        return str(used)


@asynccontextmanager
async def world() -> AsyncIterator[SharedScene]:
    script = msgspec.structs.replace(fair_script(seed=7), fields=(FIELD, LATER))

    def write(script: Script, directory: Path) -> None:
        write_inputs(script, directory)
        path = directory / "fields.csv"
        rows = path.read_text(encoding="utf-8").splitlines()
        path.write_text("".join(f"{NOT_YET}{row[3:]}\n" if f",{LATER}," in row else f"{row}\n" for row in rows))

    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid(write):
            await simulation.start()
            scene = SharedScene(simulation)
            await scene.until_archived(FIELD)
            yield scene
            fields = await simulation.fields()
            await simulation.stop()
            simulation.flush()
            scene.oracle.read()
            wrong = scene.oracle.at_the_end()
            scene.oracle.close()
        report = judge_world(script, simulation.directory, scene.oracle.lines, fields)
        wrong += [f"{one.rule}: {one.what}" for one in (*report.duplicates, *report.lost)]
        assert wrong == []


async def test_solutions_that_are_there_serve_who_comes_later() -> None:
    async with world() as scene:
        scene.offer(LATER)
        await scene.until_archived(LATER)
        assert len(scene.solved()) == 1
        assert scene.begun_anew() == []
        assert scene.used(f"{FIELD}-1") == scene.used(f"{LATER}-1")


async def test_solutions_that_are_gone_are_made_anew_once_and_the_events_say_why() -> None:
    """Also with the daemon gone in the midst of it; and whoever comes then joins the new run."""
    async with world() as scene:
        first, path = scene.used(f"{FIELD}-1"), scene.solutions
        path.unlink()
        scene.offer(LATER)
        reason = await scene.until_reason(LATER, "are gone")
        await scene.simulation.crash()
        await scene.simulation.start()
        assert await scene.reason(LATER) == reason
        scene.offer(FIELD)
        await scene.until_archived(LATER)
        await scene.until_archived(FIELD)
        key = first.rpartition("-")[0]
        assert {scene.used(f"{LATER}-1"), scene.used(f"{FIELD}-2")} == {f"{key}-2"}
        assert scene.used(f"{FIELD}-1") == first, "the record of what is archived stays"
        (told,) = scene.begun_anew()
        assert told["instead_of"] == first
        assert told["reason"] == reason
        assert reason.startswith(f"the solutions at {HOST}/results/sara/calibrators/{key}/")
        assert reason.endswith(f"{path.name} are gone; {key} runs again")
        assert scene.solved() == [f"{key}-1_cal", f"{key}-2_cal"]
        assert scene.solutions == path, "where they were before"


async def test_a_storage_that_does_not_answer_is_waited_for() -> None:
    async with world() as scene:
        now = scene.simulation.now()
        out = FaultScript(system="storage", fault="kill_before", op="ls", count=10**6, from_s=now, until_s=now + DAY_S)
        scene.simulation.plan[0].add(out)
        scene.offer(LATER)
        reason = await scene.until_reason(LATER, "looking whether the solutions of")
        assert f"still exist at {HOST}/results/sara/calibrators/" in reason
        await scene.simulation.sleep(now + DAY_S - scene.simulation.now() - HOUR_S)
        assert await scene.reason(LATER) == reason
        assert scene.begun_anew() == []
        await scene.until_archived(LATER)
        assert len(scene.solved()) == 1
        assert [line for line in scene.lines("kill_before") if line["called"] == "ls"]
