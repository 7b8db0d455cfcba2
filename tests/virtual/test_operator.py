"""People put their hands into the world: they delete a token, cancel a job, remove a file.

aglowd must see it and say it; it must not take it for a failure of its own and quietly make good what somebody undid.
"""

from __future__ import annotations

import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
import pytest

from aglowd.sim.storage import Storage
from tests.virtual.day import ENDED, judge_world
from tests.virtual.oracle import Line, Oracle
from tests.virtual.run import new_directory
from tests.virtual.script import DAY_S, HOUR_S, fair_script
from tests.virtual.world import Simulation

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

FIELD = "P22Hetdex04"


class Scene:
    """A running world with an operator in it."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.storage = Storage(simulation.directory / "grid" / "storage")
        self.oracle = Oracle(simulation.database, simulation.ledger)

    def lines(self, op: str) -> list[Line]:
        """The ledger's lines of that operation."""
        self.simulation.flush()
        self.oracle.read()
        return [line for line in self.oracle.lines if line["op"] == op]

    async def until(self, op: str, text: str = "") -> Line:
        """Let days pass until the ledger has such a line, with that text anywhere in it; returns it."""
        while True:
            for line in self.lines(op):
                if text in str(line):
                    return line
            assert self.simulation.now() < 10 * DAY_S, f"no {op} with {text} came"
            await self.simulation.sleep(600.0)

    async def until_ended(self) -> tuple[str, str]:
        """The field's last state and reason."""
        while True:
            state, reason = (await self.simulation.fields())[FIELD]
            if state in ENDED:
                return state, reason
            assert self.simulation.now() < 40 * DAY_S, await self.simulation.daemon._store.explain(FIELD)
            await self.simulation.sleep(HOUR_S)

    async def delete_token(self, token: str) -> None:
        """As with Futon: the latest revision is deleted by hand."""
        ready = self.simulation.ready
        secrets = ready["credentials"]
        basic = b64encode(f"{secrets['couch_user']}:{secrets['couch_password']}".encode()).decode()
        headers = {"Authorization": f"Basic {basic}", "User-Agent": "operator"}
        url = f"{ready['pilots_couch_url']}/{secrets['couch_database']}/{token}"
        async with aiohttp.ClientSession(headers=headers) as session:
            async with session.get(url) as reply:
                revision = (await reply.json())["_rev"]
            async with session.delete(url, params={"rev": revision}) as reply:
                assert reply.status == 200

    async def cancel_job(self, job: str) -> None:
        """As at the user interface host."""
        processes = self.simulation.daemon._world.processes
        await processes.run(("glite-wms-job-cancel", "--noint", job), write=True)

    def events(self) -> list[tuple[str, str]]:
        """Kind and data of every event."""
        with sqlite3.connect(f"file:{self.simulation.database}?mode=ro", uri=True) as db:
            found = db.execute("SELECT kind, data FROM events ORDER BY id").fetchall()
        db.close()
        return found


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with new_scene() as made:
        yield made


@asynccontextmanager
async def new_scene() -> AsyncIterator[Scene]:
    script = fair_script(seed=7)
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid():
            await simulation.start()
            scene = Scene(simulation)
            oracle = scene.oracle
            yield scene
            simulation.flush()
            oracle.read()
            fields = await simulation.fields()
            await simulation.stop()
            wrong = oracle.at_the_end()
            oracle.close()
        report = judge_world(script, simulation.directory, oracle.lines, fields)
        wrong += [f"{one.rule}: {one.what}" for one in (*report.duplicates, *report.lost)]
        assert wrong == []


async def test_a_token_that_an_operator_deletes_is_missed_and_named_and_not_made_again(scene: Scene) -> None:
    await scene.until("job_started", "/target_submit/")
    tokens = [
        doc["id"]
        for line in scene.lines("bulk_docs")
        for doc in line["docs"]
        if doc.get("type", "").endswith("_targ1") and not doc.get("deleted")
    ]
    victim = sorted(set(tokens))[2]
    await scene.delete_token(victim)
    state, reason = await scene.until_ended()
    assert state == "failed"
    assert "5 of 6 tokens" in reason
    assert "1 gone, deleted by somebody" in reason
    created = [doc["id"] for line in scene.lines("bulk_docs") for doc in line["docs"] if doc["id"] == victim]
    assert len(created) <= 2, "created, and its files attached; never made again"
    row = (scene.simulation.directory / "fields.csv").read_text()
    assert row.startswith("RRR")


async def test_a_job_that_an_operator_cancels_is_seen_and_its_tokens_are_given_to_another_by_name(scene: Scene) -> None:
    started = await scene.until("job_started", "/target_submit/")
    await scene.until("node_started", started["job"])
    await scene.cancel_job(started["job"])
    state, reason = await scene.until_ended()
    assert (state, reason) == ("archived", "")
    told = [data for kind, data in scene.events() if "Cancelled" in data or "cancelled" in data]
    assert told, "the events say that the job was cancelled"
    assert [data for kind, data in scene.events() if kind == "EffectDone" and "reset" in data]
    jobs = [line["job"] for line in scene.lines("job_started")]
    assert jobs.count(started["job"]) == 1


async def test_a_result_file_that_an_operator_removes_is_missed_by_name(scene: Scene) -> None:
    written = await scene.until("result_written", "'targ1'")
    path = scene.storage.find_path(written["url"])
    assert path is not None
    path.unlink()
    state, reason = await scene.until_ended()
    assert state == "failed"
    assert "absent or empty" in reason
    assert written["url"].rpartition("/")[2] in reason
    assert not path.exists()
