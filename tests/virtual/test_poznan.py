"""A field whose data lie at Poznań, which processes nothing: from its claim to ZZZ, by each site that may process it.

What was staged where, whose database the tokens were in and where the results are tells the simulated grid's ledger.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest

from aglowd.cli.demo import ARCHIVE, HOST
from aglowd.effects.token_archive import unpack
from aglowd.sim.checker import judge
from aglowd.sim.grid import DATABASE, ELSEWHERE
from aglowd.sim.history import History
from aglowd.sim.rules import Expectation, FieldExpectation
from tests.virtual.run import new_directory
from tests.virtual.script import Script, fair_script
from tests.virtual.setup import obsids, write_inputs
from tests.virtual.test_operator import FIELD, Scene
from tests.virtual.world import Simulation
from tests.world.small import srm_lines

pytestmark = [pytest.mark.world, pytest.mark.timeout(300)]

TARGET, CALIBRATOR = obsids(FIELD)
SARA = "srm://srm.grid.sara.nl:8443/pnfs/grid.sara.nl/data/lofar/"
POZNAN = "srm://lta-head.lofar.psnc.pl:8443/lofar/"
RUN = f"{FIELD}-1"


def surls_of(obsid: str, script: Script) -> list[str]:
    """The files of the observation, as if they lay at Poznań."""
    found = [line.split()[0].replace(SARA, POZNAN) for line in srm_lines(obsid, script.subbands)]
    assert all(surl.startswith(POZNAN) for surl in found)
    return found


def at_poznan(script: Script, directory: Path) -> None:
    write_inputs(script, directory)
    for path in (directory / "srm").iterdir():
        path.write_text(path.read_text(encoding="utf-8").replace(SARA, POZNAN), encoding="utf-8")


@pytest.mark.parametrize("process", ["sara", "juelich"])
async def test_a_field_at_poznan_is_staged_there_and_processed_elsewhere(process: str) -> None:
    """At SARA by our own pilots; at Jülich in a database of its own, by the pilots of the people there."""
    config = {
        "sites.poznan": {"process": process, "staging": "legacy"},
        "sites.juelich.picas": {"database": ELSEWHERE["juelich"]},
        "sites.juelich.jobs": {"system": "none"},
    }
    script = msgspec.structs.replace(fair_script(seed=7), config=config)
    surls = {*surls_of(TARGET, script), *surls_of(CALIBRATOR, script)}
    with TemporaryDirectory(dir=new_directory()) as name:
        simulation = Simulation(script, Path(name))
        async with simulation.grid(at_poznan):
            await simulation.start()
            scene = Scene(simulation)
            assert await scene.until_ended() == ("archived", "")
            row = (simulation.directory / "fields.csv").read_text(encoding="utf-8")
            await simulation.stop()
            simulation.flush()
            scene.oracle.read()
            wrong = scene.oracle.at_the_end()
            scene.oracle.close()
        lines = scene.oracle.lines
        files = {FIELD: FieldExpectation(tuple(surls_of(TARGET, script)))}
        report = judge(
            History(lines), scene.storage, Expectation(archive_roots=(ARCHIVE,), archived_step="targ2", fields=files)
        )
        wrong += [f"{one.rule}: {one.what}" for one in (*report.duplicates, *report.lost, *report.violations)]
        assert wrong == []
        assert row.startswith("ZZZ,"), row

        # Staged where they lie: every file was asked for once, and no other.
        asked = Counter(surl for line in lines if line["op"] == "request_made" for surl in line["surls"])
        assert asked == Counter(surls)
        online = {surl for line in lines if line["op"] == "request_planned" for surl in line["online"]}
        assert online == surls

        # Tokens in the database of the site that processes, done by whoever works on that one.
        made: Counter[str] = Counter()
        for line in lines:
            if (line["op"], line["by"]) == ("bulk_docs", "client"):
                made[line["database"]] += sum("type" in doc and doc["rev"].startswith("1-") for doc in line["docs"])
        assert {base: count for base, count in made.items() if count} == {
            ELSEWHERE.get(process, DATABASE): script.subbands + 2  # One a subband, the second pass's, the calibrator's.
        }
        jobs = [line["tags"]["aglowd_key"] for line in lines if line["op"] == "job_started"]
        assert bool(jobs) == (process == "sara"), "at Jülich others start the pilots"
        written = {line["url"] for line in lines if line["op"] == "result_written"}
        assert {url.removeprefix(f"{HOST}/results/").partition("/")[0] for url in written} == {process}

        # All that stays is in the archive of the site that processes.
        root = scene.storage.find_path(ARCHIVE)
        assert root is not None
        assert [path.name for path in root.iterdir()] == [process]
        archive = root / process / RUN
        kept = sorted(path.name for path in archive.iterdir())
        results = [name for name in kept if name.endswith(".tar")]
        assert results
        assert [name for name in kept if name not in results] == [
            f"{RUN}_targ1.tokens.tar.gz", f"{RUN}_targ2.tokens.tar.gz", "provenance.json",
        ]  # fmt: skip
        (calibrator,) = (root / process / "calibrators").iterdir()
        assert [path.name for path in calibrator.iterdir()] == [f"{calibrator.name}_cal.tokens.tar.gz"]
        tokens = unpack((archive / f"{RUN}_targ1.tokens.tar.gz").read_bytes())
        assert len(tokens) == script.subbands

        # The record tells both sites.
        record = msgspec.json.decode((archive / "provenance.json").read_bytes())
        assert {one["surl"] for one in record["inputs"]} == surls
        assert {(one["site"], one["state"]) for one in record["inputs"]} == {("poznan", "used")}
        assert {one["site"] for one in record["stagings"]} == {"poznan"}
        assert {one["site"] for one in record["jobs"]} == ({process} if jobs else set())
        made_of = {url for one in record["tokens"] for url in one["inputs"] if url.startswith("srm://")}
        assert made_of == surls
        assert {one["result"]["url"] for one in record["tokens"]} == written
