"""A sandbox is built and found again on each way to storage, and by tests/real on real servers."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any
from zlib import adler32

from gits import commit

from aglowd.effects.base import Intent, World
from aglowd.effects.sandboxes import BuildSandbox
from aglowd.grid.checkouts import Repository
from aglowd.grid.files import join
from aglowd.grid.proc import Processes
from aglowd.model import EffectRecord, Json

from .places import Place


def world_at(place: Place, work_dir: Path) -> World:
    """That storage and git, and nothing else."""
    absent: dict[str, Any] = dict.fromkeys(World.__struct_fields__)
    processes = Processes(env={"PATH": os.environ["PATH"]})
    here = {"storage": place.storage, "processes": processes, "work_dir": work_dir, "protected": ()}
    return World(**{**absent, **here})


def intent(notes: dict[str, Json]) -> Intent:
    async def note(more: dict[str, Json]) -> None:
        notes.update(more)

    async def others() -> list[EffectRecord]:
        return []

    return Intent("P1-1/sandbox/1/build_sandbox/0", 0.0, 0, None, notes, note, others)


async def test_a_sandbox_is_built_found_and_built_only_once(place: Place, tmp_path: Path) -> None:
    work = tmp_path / "sandbox-work"
    work.mkdir()
    commit(tmp_path / "origin", {"master.sh*": "#!/bin/sh\n", "bin/run": "true\n"})
    world, notes = world_at(place, work), dict[str, Json]()
    effect = BuildSandbox(
        repositories=(Repository("git", (tmp_path / "origin").as_uri()),),
        directory=join(place.url, "sandboxes"),
        name="cal",
    )
    assert await effect.find(world, intent(notes)) is None
    built = await effect.do(world, intent(notes))
    await place.storage.copy(built["url"], (tmp_path / "fetched").as_uri())
    data = (tmp_path / "fetched").read_bytes()
    assert (len(data), adler32(data)) == (built["size_bytes"], built["adler32"])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == ["bin/run", "master.sh"]
    assert await effect.find(world, intent(notes)) == built
    assert await effect.do(world, intent({})) == built, "another run finds it"
    listed = await place.storage.list(join(place.url, "sandboxes"))
    assert [entry.url for entry in listed] == [built["url"]]
    assert list(work.iterdir()) == []
