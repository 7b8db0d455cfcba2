"""The small world with its pilots at other batch systems: real ones of this host, and simulated ones behind each system's door."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import tarfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from aglowd.cli.chaos import carry_out
from aglowd.cli.demo import Demo
from aglowd.sim.history import History
from tests.world.small import FIELD, LIMIT_S, run_to_end, states, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

SUBBANDS = 6
TOKENS = 1 + SUBBANDS + 1


@pytest.fixture
def short_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("w")


@pytest.mark.parametrize("system", ["local", "dirac", "arc"])
async def test_a_field_is_archived_by_pilots_at(short_path: Path, system: str) -> None:
    options = msgspec.structs.replace(write_world(short_path / "in", subbands=SUBBANDS), jobs=system)
    demo = Demo(options, short_path / "state")
    fields, report, _ = await run_to_end(demo)
    assert states(fields) == {FIELD: "archived"}
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    assert report.world.tokens_created == TOKENS
    assert report.world.jobs_submitted >= 3
    assert report.world.pilots_submitted >= report.world.jobs_submitted
    assert report.requests.glite == 0
    assert demo.jobs.list_pilots() == []


@pytest.mark.long
@pytest.mark.parametrize("system", ["local", "dirac", "arc"])
async def test_a_field_is_archived_in_a_world_of_faults_by_pilots_at(short_path: Path, system: str) -> None:
    impatient = {"daemon": {"http_longest": "1s", "command_longest": "3s"}}
    options = write_world(short_path / "in", subbands=SUBBANDS)
    options = msgspec.structs.replace(options, jobs=system, seed=2, config=impatient)
    outcome = await asyncio.wait_for(carry_out(options, short_path / "state", lambda fields: None), LIMIT_S)
    assert outcome.is_well, outcome.to_json()
    assert outcome.report.world.duplicates == outcome.report.world.lost == 0


async def test_a_token_whose_pilot_is_killed_is_done_by_another_one_and_its_scrub_is_counted(short_path: Path) -> None:
    options = msgspec.structs.replace(write_world(short_path / "in", subbands=SUBBANDS), jobs="local", failure_rate=0.0)
    demo = Demo(options, short_path / "state")
    async with demo.world() as ready:
        try:
            await demo.start()
            async with asyncio.timeout(LIMIT_S):
                name = await kill_one_at_work(demo, ready)
                fields = await demo.until_done()
        finally:
            await demo.stop()
    report, _ = await demo.judge(fields)
    assert states(fields) == {FIELD: "archived"}
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    tokens = {body["_id"]: body for body in archived_tokens(demo.state)}
    assert len(tokens) == TOKENS
    assert [each for each, body in tokens.items() if body["scrub_count"]] == [name]
    token = tokens[name]
    assert (token["status"], token["scrub_count"]) == ("done", 1)
    (entry,) = token["aglowd"]["history"]
    assert entry["why"].startswith("lease: its job"), entry
    history = History.read(demo.state / "grid" / "ledger.jsonl")
    assert [one.url for one in history.tokens[name].accepted] == [token["Results_location"]]


async def kill_one_at_work(demo: Demo, ready: dict[str, Any]) -> str:
    """Kill a pilot with -9 while it holds a token; the token's id. It is stopped first, so that it cannot just have ended it."""
    secrets = ready["credentials"]
    basic = b64encode(f"{secrets['couch_user']}:{secrets['couch_password']}".encode()).decode()
    async with aiohttp.ClientSession(headers={"Authorization": f"Basic {basic}", "User-Agent": "operator"}) as http:
        while True:
            for pid in demo.jobs.list_pilots():
                job = Path(os.readlink(f"/proc/{pid}/cwd")).parent.name
                os.kill(pid, signal.SIGSTOP)
                url = f"{ready['couch_url']}/{secrets['couch_database']}/_all_docs?include_docs=true"
                async with http.get(url) as answer:
                    docs = [row["doc"] for row in (await answer.json())["rows"]]
                held = [doc["_id"] for doc in docs if doc.get("aglowd_job_id") == job and doc["done"] == 0]
                if held:
                    os.kill(pid, signal.SIGKILL)
                    return str(held[0])
                os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.02)


def archived_tokens(state: Path) -> Iterator[dict[str, Any]]:
    """The documents in the archives of tokens."""
    for path in (state / "grid" / "storage").rglob("*.tokens*.tar.gz"):
        with tarfile.open(fileobj=io.BytesIO(path.read_bytes())) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and "/" not in member.name:
                    yield json.loads(file.read())
