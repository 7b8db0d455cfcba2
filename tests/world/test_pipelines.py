"""The pipelines that come with aglowd, each to its end in the simulated grid; that one's ledger and storage judge.

`sksp` and `calibrator`: test_whole_run.py; `archive`: test_archive.py; `stage`: test_stage.py; `reset_tokens` and
`cancel_jobs`: test_jobs.py.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aglowd.cli.demo import ARCHIVE, HOST, Demo
from aglowd.sim.checker import check
from aglowd.sim.history import History
from aglowd.sim.rules import Expectation
from aglowd.sim.storage import Storage
from aglowd.wiring import shipped_pipelines
from tests.grid.test_git import Repository
from tests.world.small import CALIBRATOR, FIELD, LIMIT_S, TARGET, until, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

IDLE = '[pipeline]\nname = "idle"\n[steps.nothing]\nkind = "parset"\ntemplate = "a = 1"\n'
DATA, COMPRESSED, COPIES = f"{HOST}/results/sara/data", f"{HOST}/results/sara/small", f"{ARCHIVE}/sara/data"


def pipelines_of(directory: Path, name: str, schedule: str = "", main: str = IDLE) -> Path:
    """The shipped pipelines; the schedule of one is as its operator would fill it in, and fields go through `idle`."""
    pipelines = directory / "pipelines"
    shutil.copytree(shipped_pipelines(), pipelines)
    if schedule:
        path = pipelines / f"{name}.toml"
        text = path.read_text(encoding="utf-8")
        filled, count = re.subn(r"(?s)\[schedule\]\n.*?\n(?=\[steps|#)", lambda _: f"[schedule]\n{schedule}\n", text)
        assert count == 1
        path.write_text(filled, encoding="utf-8")
    path = pipelines / "idle.toml"
    path.write_text(main, encoding="utf-8")
    return path


async def runs_of(demo: Demo, name: str) -> list[dict[str, Any]]:
    answer = await demo.ask(f"/v1/fields/schedule%2F{name}")
    return [] if answer is None else [run for run in answer["runs"] if run["key"] == f"schedule/{name}"]


async def ended(demo: Demo, name: str, count: int) -> list[dict[str, Any]]:
    """The runs of that schedule, once so many of them have ended; none may fail."""

    async def look() -> list[dict[str, Any]]:
        runs = [run for run in await runs_of(demo, name) if run["state"] != "running"]
        assert all(run["state"] == "done" for run in runs), [(run["id"], run["reason"]) for run in runs]
        return runs if len(runs) >= count else []

    found: list[dict[str, Any]] = await until(look)
    return found


def files_in(storage: Storage, root: str) -> dict[str, bytes]:
    top = storage.find_path(root)
    assert top is not None
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def assert_clean(demo: Demo) -> History:
    """The judge has nothing against what was done; returns the ledger."""
    ledger = demo.state / "grid" / "ledger.jsonl"
    report = check(ledger, demo.state / "grid" / "storage", Expectation(archive_roots=(ARCHIVE,), finished=False))
    assert report.is_clean, (report.duplicates, report.lost, report.violations)
    return History.read(ledger)


async def test_ci_runs_the_reference_field_when_the_branch_or_the_image_has_changed_and_only_then(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("w")
    repository = Repository(directory / "software")
    commits = [repository.commit()]
    image = directory / "software.sif"
    image.write_bytes(b"one")
    schedule = (
        f'cron = "0 3 * * *"\nparams = {{ repository = "{repository.url}", branch = "master", image = "{image.as_uri()}", '
        f'target = "L{TARGET}", calibrator = "L{CALIBRATOR}" }}'
    )
    options = msgspec.structs.replace(
        write_world(directory / "in", subbands=2), pipeline=pipelines_of(directory, "ci", schedule)
    )
    demo = Demo(options, directory / "state")

    async def outputs() -> list[dict[str, Any]]:
        """Of the runs that found something new."""
        runs = [run for run in await runs_of(demo, "ci") if run["state"] != "running"]
        assert all(run["state"] == "done" for run in runs), [(run["id"], run["reason"]) for run in runs]
        return [run["outputs"] for run in runs if run["outputs"]["is_new"]]

    async def quiet(runs: int) -> None:
        """Another day passes, in which nothing is new."""
        before = len(await ended(demo, "ci", 1))
        await ended(demo, "ci", before + 1)
        assert len(await outputs()) == runs

    async with demo.world():
        try:
            await demo.start()
            await until(outputs)
            await quiet(1)
            commits.append(repository.commit())

            async def two() -> bool:
                return len(await outputs()) == 2

            await until(two)
            new = image.with_name("new.sif")
            new.write_bytes(b"two")
            new.replace(image)  # At once: half an image would be a third one.

            async def three() -> bool:
                return len(await outputs()) == 3

            await until(three)
            await quiet(3)
            found = await outputs()
            listed = await demo.ask("/v1/schedules")
        finally:
            await demo.stop()
    assert [one["commit"] for one in found] == [commits[0], commits[1], commits[1]]
    assert len({one["image"] for one in found}) == 2
    assert len({one["reference"] for one in found}) == 3
    assert [one["rule"] for one in listed["schedules"]] == ["0 3 * * * UTC"]
    history = assert_clean(demo)
    done = [history.tokens[name] for name in history.done_tokens]
    assert len([token for token in done if token.type.endswith("_cal")]) == 3
    assert len([token for token in done if token.type.endswith("_targ1")]) == 3 * 2
    written = files_in(Storage(demo.state / "grid" / "storage"), f"{HOST}/results/sara")
    assert {f"{HOST}/results/sara/{name}" for name in written} >= {url for one in found for url in one["files"]}


async def test_dysco_compresses_each_set_once_and_removes_originals_that_have_a_copy(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("w")
    schedule = (
        f'every = "4h"\nparams = {{ directory = "{DATA}", pattern = "*.MS*", results = "{COMPRESSED}", '
        f'copies = "{COPIES}", site = "sara" }}'
    )
    options = msgspec.structs.replace(
        write_world(directory / "in"),
        pipeline=pipelines_of(directory, "dysco", schedule),
        config={"storage": {"deletable": [DATA]}},
    )
    demo = Demo(options, directory / "state")
    storage = Storage(demo.state / "grid" / "storage")
    sets = {f"L1_SB{number:03d}.MS.tar": bytes([number]) * 100 for number in range(3)}
    async with demo.world():
        for name, data in sets.items():
            storage.write(f"{DATA}/{name}", data)
        storage.write(f"{DATA}/notes.txt", b"no measurement set")
        storage.write(f"{COPIES}/L1_SB000.MS.tar", sets["L1_SB000.MS.tar"])
        storage.write(f"{COPIES}/L1_SB001.MS.tar", b"another one")
        try:
            await demo.start()

            async def compressed() -> list[str]:
                runs = [run for run in await runs_of(demo, "dysco") if run["outputs"].get("files")]
                return [url for run in runs for url in run["outputs"]["files"]]

            await until(compressed)
            runs = await ended(demo, "dysco", len(await runs_of(demo, "dysco")) + 1)
            # Nothing is new, until there is another set; and a copy that comes late is a copy.
            assert len(await compressed()) == 3
            assert runs[0]["outputs"]["deleted"] == [f"{DATA}/L1_SB000.MS.tar"]
            assert sorted(one["url"] for one in runs[0]["outputs"]["kept"]) == [
                f"{DATA}/L1_SB001.MS.tar",
                f"{DATA}/L1_SB002.MS.tar",
            ]
            storage.write(f"{COPIES}/L1_SB002.MS.tar", sets["L1_SB002.MS.tar"])
            storage.write(f"{DATA}/L2_SB000.MS.tar", b"new")

            async def all_four() -> bool:
                left = files_in(storage, DATA)
                return len(await compressed()) == 4 and "L1_SB002.MS.tar" not in left

            await until(all_four)
        finally:
            await demo.stop()
    assert set(files_in(storage, DATA)) == {"notes.txt", "L1_SB001.MS.tar", "L2_SB000.MS.tar"}
    history = assert_clean(demo)
    inputs = [file for line in history.of("pilot", "result_written") for file in line["files"]]
    assert set(inputs) == {f"{DATA}/{name}" for name in (*sets, "L2_SB000.MS.tar")}
    assert len(history.done_tokens) == 4
    assert len([name for name in files_in(storage, COMPRESSED) if name.endswith("AB000.tar")]) == 2


async def test_ndppp_runs_a_parset_on_the_files_of_a_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("w")
    results = f"{HOST}/results/sara/ndppp"
    main = (
        '[pipeline]\nname = "idle"\n[steps.once]\nkind = "run"\npipeline = "ndppp"\n'
        f'params = {{ list = "{{{{ config.srm_dir }}}}/srm{TARGET}.txt", obsid = "L{TARGET}", group = 3, '
        f'values = {{ "average.freqstep" = 8 }}, results = "{results}" }}\n'
        '[outputs]\nfiles = "{{ steps.once.outputs.files }}"\n'
    )
    options = msgspec.structs.replace(
        write_world(directory / "in", subbands=8), pipeline=pipelines_of(directory, "ndppp", main=main)
    )
    demo = Demo(options, directory / "state")
    async with demo.world():
        try:
            await demo.start()
            (field,) = await asyncio.wait_for(demo.until_done(), LIMIT_S)
            told = await demo.ask(f"/v1/fields/{FIELD}")
        finally:
            await demo.stop()
    assert field["state"] == "archived", field
    (run,) = [run for run in told["runs"] if run["key"] == FIELD]
    files = run["outputs"]["files"]
    assert [url.rpartition("/")[2] for url in files] == [f"L{TARGET}_SB{first:03d}.tar" for first in (244, 247, 250)]
    history = assert_clean(demo)
    written = {line["url"]: line["inputs"] for line in history.of("pilot", "result_written")}
    assert [written[url] for url in files] == [[244, 245, 246], [247, 248, 249], [250, 251]]
    assert list(files_in(Storage(demo.state / "grid" / "storage"), results)) != []
