"""Branches and images as the watchers see them: one that is away keeps no other one back."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from aglowd.clock import Clock
from aglowd.errors import Temporary
from aglowd.grid.gate import Site
from aglowd.grid.proc import Processes
from aglowd.grid.storage import Storage
from aglowd.model import Subject
from aglowd.store.store import Store
from aglowd.watchers.git_heads import GitHeads
from aglowd.watchers.images import Images
from tests.grid.test_git import Repository

from .conftest import world_of


async def test_each_repository_answers_for_itself(clock: Clock, store: Store, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "repository")
    commit = repository.commit()
    world = world_of(clock, processes=Processes(env={"PATH": os.environ["PATH"]}))
    watcher = GitHeads(world, store, 60.0)

    def head(name: str, url: str, ref: str) -> Subject:
        return Subject("git_head", name, {"url": url, "ref": ref})

    away = head("away", (tmp_path / "none").as_uri(), "master")
    asked = [head("one", repository.url, "master"), away, head("two", repository.url, "nothing")]
    seen = {subject.id: data for subject, data in await watcher.look(asked)}
    assert seen == {
        "one": {"commit": commit, "problem": ""},
        "two": {"commit": "", "problem": f"{repository.url} has no branch or tag 'nothing'"},
    }
    with pytest.raises(Temporary):
        await watcher.look([away])


async def test_the_digest_of_a_file_tells_its_content(clock: Clock, store: Store, tmp_path: Path) -> None:
    world = world_of(clock, storage=Storage(Processes(env={}), Site("storage", clock)), registry=None)
    watcher = Images(world, store, 60.0)
    path = tmp_path / "x.sif"
    subject = Subject("image", "a", {"image": path.as_uri()})

    async def look() -> tuple[str, str]:
        ((_, data),) = await watcher.look([subject])
        return data["digest"], data["problem"]

    assert await look() == ("", f"{path.as_uri()} does not exist")
    path.write_bytes(b"one")
    first = await look()
    assert first == (f"adler32:{zlib.adler32(b'one'):08x}-3", "")
    os.utime(path, (1, 1))
    assert await look() == first, "when it was written is no content"
    path.write_bytes(b"two")
    assert (await look())[0] != first[0]
    path.unlink()
    path.mkdir()
    assert (await look())[1].endswith("expected")
