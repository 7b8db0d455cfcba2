"""A directory of results on the simulated grid is moved to where it stays, by the pipeline that comes with aglowd."""

from __future__ import annotations

import asyncio
import shutil

import msgspec
import pytest

from aglowd.cli.demo import ARCHIVE, HOST, Demo
from aglowd.sim.history import History
from aglowd.sim.storage import Storage
from aglowd.wiring import shipped_pipelines
from tests.world.small import FIELD, LIMIT_S, write_world

pytestmark = [pytest.mark.world, pytest.mark.timeout(240)]

RESULTS, STAYS = f"{HOST}/results/sara/P1", f"{ARCHIVE}/sara/P1"
MAIN = f"""
[pipeline]
name = "main"

[steps.move]
kind = "run"
pipeline = "archive"
params = {{ results = "{RESULTS}", archive = "{STAYS}" }}

[outputs]
files = "{{{{ steps.move.outputs.files }}}}"
deleted = "{{{{ steps.move.outputs.deleted }}}}"
"""
FILES = {"a.tar": b"a" * 100, "d/b.tar": b"b" * 200, "d/e/c.tar": b"c"}


def write(storage: Storage, root: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = storage.find_path(f"{root}/{name}")
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def read(storage: Storage, root: str) -> dict[str, bytes]:
    """Name below the root → bytes."""
    top = storage.find_path(root)
    assert top is not None
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


async def test_results_are_moved_and_what_is_there_is_not_copied_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    directory = tmp_path_factory.mktemp("w")
    pipelines = directory / "pipelines"
    pipelines.mkdir()
    (pipelines / "main.toml").write_text(MAIN, encoding="utf-8")
    shutil.copy(shipped_pipelines() / "archive.toml", pipelines)
    options = msgspec.structs.replace(
        write_world(directory / "in"),
        pipeline=pipelines / "main.toml",
        config={"storage": {"deletable": [f"{HOST}/results"]}},
    )
    demo = Demo(options, directory / "state")
    storage = Storage(demo.state / "grid" / "storage")
    async with demo.world():
        write(storage, RESULTS, FILES)
        write(storage, STAYS, {"d/b.tar": FILES["d/b.tar"], "other": b"x"})
        try:
            await demo.start()
            await asyncio.wait_for(demo.until_done(), LIMIT_S)
            field = await demo.ask(f"/v1/fields/{FIELD}")
        finally:
            await demo.stop()
    assert field["state"] == "archived", field
    assert read(storage, STAYS) == {**FILES, "other": b"x"}
    assert read(storage, RESULTS) == {}
    history = History.read(demo.state / "grid" / "ledger.jsonl")
    copied = [line["src"] for line in history.of("storage", "copy")]
    assert sorted(copied) == [f"{RESULTS}/a.tar", f"{RESULTS}/d/e/c.tar"]
    outputs = field["runs"][-1]["outputs"]
    assert sorted(outputs["deleted"]) == [f"{RESULTS}/{name}" for name in sorted(FILES)]
    assert sorted(outputs["files"]) == [f"{STAYS}/{name}" for name in sorted(FILES)]
