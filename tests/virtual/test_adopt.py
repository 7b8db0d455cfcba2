"""A field that AGLOW has begun is taken over by `aglowctl adopt`: with its request, its tokens, its results.

What AGLOW does is done here by somebody else's hands on the same systems; what became of it tells the simulated grid's ledger.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec import structs

from aglowd.cli.demo import ARCHIVE, HOST
from aglowd.effects.token_archive import unpack
from aglowd.effects.tokens import write_all
from aglowd.grid.picas_views import token_design_doc
from aglowd.grid.tokens import build_token
from aglowd.wiring import shipped_pipelines
from tests.virtual.run import new_directory
from tests.virtual.script import HOUR_S, Script, fair_script
from tests.virtual.setup import obsids, write_inputs
from tests.virtual.test_operator import Scene
from tests.virtual.world import Simulation
from tests.world.small import srm_lines

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

FIELD = "P22Hetdex04"
TARGET, _ = obsids(FIELD)
SOLUTIONS = f"{HOST}/aglow/CI_pref3_L229507.tar"
TYPE = f"SKSP_{FIELD}"
"""What AGLOW called its tokens."""


@asynccontextmanager
async def begun(status: str, **staging: Any) -> AsyncIterator[Scene]:
    """A world in which AGLOW has brought the field to that status, and a daemon. `staging`: keys of that table."""
    script = structs.replace(fair_script(seed=7), config={"staging": staging})

    def write(script: Script, directory: Path) -> None:
        write_inputs(script, directory)
        path = directory / "fields.csv"
        path.write_text(path.read_text().replace("SND", status, 1))

    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid(write):
            await simulation.start()
            scene = Scene(simulation)
            yield scene
            await simulation.stop()
            simulation.flush()
            scene.oracle.read()
            wrong = scene.oracle.at_the_end()
            scene.oracle.close()
        assert wrong == []


async def ask(scene: Scene, **order: Any) -> tuple[int, dict[str, Any]]:
    """The daemon's answer to the order, as aglowctl gives it."""
    connector = aiohttp.UnixConnector(str(scene.simulation.directory / "s"))
    body = {"targets": [FIELD], "reason": "AGLOW is stopped", **order}
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post("http://aglowd/v1/adopt", json=body) as reply,
    ):
        return reply.status, await reply.json()


def surls_of(script: Script) -> list[str]:
    return [line.split()[0] for line in srm_lines(TARGET, script.subbands)]


async def put_tokens(scene: Scene) -> set[str]:
    """AGLOW's tokens of the first pass, one a subband, with their files and views; returns their ids."""
    script = scene.simulation.script
    config = msgspec.json.decode((shipped_pipelines() / "tokens" / "target1.json").read_bytes())
    keys = {
        "OBSID": f"L{TARGET}",
        "PIPELINE_STEP": "targ1",
        "CAL2_SOLUTIONS": SOLUTIONS,
        "RESULTS_DIR": f"{HOST}/aglow/targ1",
    }
    kind = f"{TYPE}_targ1"
    documents = []
    for surl in surls_of(script):
        subband = surl.split("_SB")[1][:3]
        name = f"{kind}_SB{subband}"
        own = {"STARTSB": subband, "RESULT_NAME": f"L{TARGET}_SB{subband}"}
        files = {"srm.txt": f"{surl}\n", "Pre-Facet-Target-1.parset": "! pipeline\n"}
        attached = {
            file: {"content_type": "text/plain", "data": base64.b64encode(text.encode()).decode()}
            for file, text in files.items()
        }
        documents.append({"_id": name, **build_token(config, name, kind, {**keys, **own}), "_attachments": attached})
    base = scene.simulation.daemon._world.token_base("")
    await base.ensure_design(kind, token_design_doc(kind))
    await write_all(base, documents, "were refused")
    return {document["_id"] for document in documents}


async def put_results(scene: Scene) -> dict[str, str]:
    """Results of AGLOW's second pass, and the tokens that name them; name of the file → id of its token."""
    config = msgspec.json.decode((shipped_pipelines() / "tokens" / "target2.json").read_bytes())
    kind = f"{TYPE}_targ2"
    documents, found = [], {}
    for number in range(2):
        name, url = f"{kind}_AB{number}", f"{HOST}/aglow/targ2/L{TARGET}_AB{number}.tar"
        scene.storage.write(url, f"the result of {name}".encode())
        document = build_token(config, name, kind, {"OBSID": f"L{TARGET}", "PIPELINE_STEP": "targ2"})
        done = {"status": "done", "lock": 1, "done": 1, "Results_location": url}
        documents.append({"_id": name, **document, **done})
        found[url.rpartition("/")[2]] = name
    base = scene.simulation.daemon._world.token_base("")
    await base.ensure_design(kind, token_design_doc(kind))
    await write_all(base, documents, "were refused")
    return found


@pytest.mark.parametrize("files_per_request", [1000, 2])
async def test_a_running_request_is_taken_over_and_no_file_is_asked_for_again(files_per_request: int) -> None:
    """Also where our own requests are smaller."""
    async with begun("AAA", files_per_request=files_per_request) as scene:
        script = scene.simulation.script
        stager = scene.simulation.daemon._world.stager("sara")
        request = await stager.stage(tuple(surls_of(script)))
        await scene.simulation.sleep(HOUR_S)
        assert (await scene.simulation.fields())[FIELD][0] == "offered", "it is on offer to nobody"
        status, answer = await ask(scene)
        assert (status, answer["fields"][0]["steps"]) == (200, {})
        assert (await scene.until_ended())[0] == "archived"
        ours = {*surls_of(script)}
        asked = [
            line["request"] for line in scene.lines("request_planned") if ours & {*line["online"], *line["failed"]}
        ]
        assert asked == [request], "AGLOW's own, and no other"


async def test_a_calibrated_field_goes_on_with_its_tokens_and_solutions() -> None:
    async with begun("CCC") as scene:
        script = scene.simulation.script
        aglows = await put_tokens(scene)
        status, answer = await ask(scene)
        assert status == 409
        assert "--given" in answer["error"]["message"]
        assert "solutions" in answer["error"]["message"]
        given = {"solutions": f"{HOST}/aglow/CI_pref3_{{{{ field.calibrator.obsid }}}}.tar"}
        tokens = {"target": "SKSP_{{ field.name }}_targ1"}
        status, answer = await ask(scene, given=given, tokens=tokens)
        assert status == 409
        assert answer["error"]["message"].endswith(f"are said to be at {SOLUTIONS}, where no file is")
        scene.storage.write(SOLUTIONS, b"solutions")
        status, plan = await ask(scene, given=given, tokens=tokens, dry_run=True)
        assert plan["fields"][0]["tokens"] == {"target": {"token_type": f"{TYPE}_targ1", "count": script.subbands}}
        assert plan["fields"][0]["steps"]["calibrator"] == {"solutions": [SOLUTIONS]}
        status, answer = await ask(scene, given=given, tokens=tokens)
        assert (status, answer["done"], answer["left"]) == (200, True, {})
        assert (await scene.until_ended())[0] == "archived"
        made = {line["id"] for line in scene.lines("token_surls")}
        assert {name for name in made if "targ1" in name} == aglows, "AGLOW's own, and no others"
        assert not [name for name in made if "_cal" in name], "its calibrator is not processed again"
        found = await scene.simulation.daemon._world.token_base("").get_docs(tuple(aglows))
        assert not any(found.values()), "they were archived and deleted as our own"
        archive = scene.storage.find_path(f"{ARCHIVE}/sara/{FIELD}-1/{TYPE}_targ1.tokens.tar.gz")
        assert archive is not None
        assert {document["_id"] for document in unpack(archive.read_bytes())} == aglows
        record = msgspec.json.decode(archive.with_name("provenance.json").read_bytes())
        told = {one["id"]: (one["type"], one["state"]) for one in record["tokens"] if one["id"] in aglows}
        assert told == dict.fromkeys(aglows, (f"{TYPE}_targ1", "done"))


async def test_what_is_left_of_a_finished_field_is_archived() -> None:
    """At TTT: the results that AGLOW's tokens name are fetched; its tokens stay, and nothing is staged or submitted."""
    async with begun("TTT") as scene:
        aglows = await put_results(scene)
        status, answer = await ask(scene, given={"token_type": f"{TYPE}_targ2"}, status="TTT")
        assert (status, answer["left"]) == (200, {})
        assert await scene.until_ended() == ("archived", "")
        archive = scene.storage.find_path(f"{ARCHIVE}/sara")
        assert archive is not None
        kept = {path.name: path.read_text(encoding="utf-8") for path in archive.rglob("L*.tar")}
        assert kept == {name: f"the result of {token}" for name, token in aglows.items()}
        assert scene.lines("request_planned") == scene.lines("job_started") == []
        found = await scene.simulation.daemon._world.token_base("").get_docs(tuple(aglows.values()))
        assert all(found.values()), "AGLOW's tokens stay"
