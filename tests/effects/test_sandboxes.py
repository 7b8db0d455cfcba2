"""Sandboxes: the same commits are one archive, built once or found, whatever happens half way."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any
from zlib import adler32

import pytest
from gits import commit, git

from aglowd.effects import sandboxes
from aglowd.effects.sandboxes import BuildSandbox
from aglowd.errors import Conflict, Permanent, Temporary, Unknown
from aglowd.grid.checkouts import Repository
from aglowd.grid.storage import forget_copies
from aglowd.model import Json

from .outside import Outside


class Origins:
    """A repository for the top of the sandbox and one of scripts, with what was committed last."""

    def __init__(self, directory: Path) -> None:
        self.top, self.scripts = directory / "top", directory / "scripts"
        self.commits = {
            "git": commit(
                self.top, {"master.sh*": "#!/bin/sh\n", ".gitignore": "x", "bin/run": "a", "last": "-> master.sh"}
            ),
            "prefactor": commit(self.scripts, {"p.parset": "b", ".hidden": "c"}, "version3.0"),
        }

    def effect(self, outside: Outside, **values: Any) -> BuildSandbox:
        repositories = (
            Repository("git", self.top.as_uri()),
            Repository("prefactor", self.scripts.as_uri(), "version3.0", "", "prefactor"),
        )
        given = {"repositories": repositories, "directory": outside.url("sandboxes"), "name": "cal", **values}
        return BuildSandbox(**given)


@pytest.fixture
def origins(tmp_path: Path) -> Origins:
    return Origins(tmp_path / "git")


def members(outside: Outside, result: Json) -> dict[str, tarfile.TarInfo]:
    path = Path(result["url"].removeprefix("file://"))
    data = path.read_bytes()
    assert (len(data), adler32(data)) == (result["size_bytes"], result["adler32"])
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def work(outside: Outside) -> list[Path]:
    return list(outside.world.work_dir.iterdir())


async def test_what_is_in_it(outside: Outside, origins: Origins) -> None:
    result = await origins.effect(outside).do(outside.world, outside.intent())
    assert result["commits"] == origins.commits
    found = members(outside, result)
    assert sorted(found) == ["bin/run", "last", "master.sh", "prefactor/.hidden", "prefactor/p.parset"]
    assert (found["master.sh"].mode, found["bin/run"].mode) == (0o755, 0o644)
    assert (found["last"].issym(), found["last"].linkname) == (True, "master.sh")
    assert {(one.mtime, one.uid, one.gid, one.uname) for one in found.values()} == {(0, 0, 0, "")}
    assert work(outside) == [], "nothing stays in the work directory"


async def test_the_same_commits_are_one_archive(outside: Outside, origins: Origins) -> None:
    effect = origins.effect(outside)
    first = await effect.do(outside.world, outside.intent())
    before = outside.file("sandboxes").stat().st_mtime_ns
    again = await effect.do(outside.world, outside.intent(key="P2-1/step/1/build_sandbox/0"))
    assert again == first
    assert outside.file("sandboxes").stat().st_mtime_ns == before, "nothing was written, not even for a while"
    commit(origins.top, {"bin/run": "other"})
    other = await effect.do(outside.world, outside.intent(key="P3-1/step/1/build_sandbox/0"))
    assert other["url"] != first["url"]
    assert len(outside.files()) == 3, "the directory and two sandboxes"


async def test_another_layout_of_the_same_commits_has_another_name(outside: Outside, origins: Origins) -> None:
    first = await origins.effect(outside).do(outside.world, outside.intent())
    moved = (
        Repository("git", origins.top.as_uri()),
        Repository("prefactor", origins.scripts.as_uri(), "version3.0", "", "elsewhere"),
    )
    other = await origins.effect(outside, repositories=moved).do(outside.world, outside.intent(key="k"))
    assert other["url"] != first["url"]


async def test_a_second_try_builds_what_the_first_one_began(outside: Outside, origins: Origins) -> None:
    """Though a branch has moved meanwhile: else there would be two sandboxes, and the record would name the other."""
    effect = origins.effect(outside)
    outside.storage.damaged = 1
    with pytest.raises(Temporary, match="arrived damaged"):
        await effect.do(outside.world, outside.intent())
    (notes,) = outside.noted
    assert notes["commits"] == origins.commits
    commit(origins.top, {"bin/run": "other"})
    assert await effect.find(outside.world, outside.intent(tries=1, notes=notes)) is None
    result = await effect.do(outside.world, outside.intent(tries=1, notes=notes))
    assert (result["commits"], result["url"]) == (origins.commits, notes["url"])
    assert await effect.find(outside.world, outside.intent(tries=1, notes=notes)) == result
    assert outside.files() == ["sandboxes", f"sandboxes/{result['url'].rpartition('/')[2]}"]


async def test_what_was_never_noted_was_never_written(outside: Outside, origins: Origins) -> None:
    effect = origins.effect(outside)
    await effect.do(outside.world, outside.intent())
    assert await effect.find(outside.world, outside.intent(key="other")) is None


async def test_other_compression_of_the_same_files_is_the_same_sandbox(outside: Outside, origins: Origins) -> None:
    effect = origins.effect(outside)
    first = await effect.do(outside.world, outside.intent())
    path = Path(first["url"].removeprefix("file://"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=7))
    found = await effect.do(outside.world, outside.intent(key="other"))
    assert found["url"] == first["url"]
    assert found["adler32"] == adler32(path.read_bytes()) != first["adler32"]


@pytest.mark.parametrize(
    "there", [b"", b"no archive", gzip.compress(b"other files", mtime=0)], ids=["nothing", "no archive", "other files"]
)
async def test_what_differs_is_not_overwritten(outside: Outside, origins: Origins, there: bytes) -> None:
    effect = origins.effect(outside)
    first = await effect.do(outside.world, outside.intent())
    path = Path(first["url"].removeprefix("file://"))
    path.write_bytes(there)
    for way in (effect.do, effect.find):
        with pytest.raises(Conflict, match="holds other files"):
            await way(outside.world, outside.intent(notes=outside.noted[0]))
    assert path.read_bytes() == there


async def test_a_directory_in_its_place_is_no_sandbox(outside: Outside, origins: Origins) -> None:
    effect = origins.effect(outside)
    first = await effect.do(outside.world, outside.intent())
    path = Path(first["url"].removeprefix("file://"))
    path.unlink()
    path.mkdir()
    with pytest.raises(Conflict, match="is no sandbox"):
        await effect.do(outside.world, outside.intent(key="other"))


async def test_nothing_is_built_below_a_protected_root(outside: Outside, origins: Origins) -> None:
    outside.world.protected = (outside.url("sandboxes"),)
    with pytest.raises(Permanent, match="protected root"):
        await origins.effect(outside).do(outside.world, outside.intent())
    assert work(outside) == []


async def test_a_repository_that_is_gone_leaves_nothing_behind(outside: Outside, origins: Origins) -> None:
    gone = (Repository("git", origins.top.as_uri()), Repository("x", (outside.path / "gone").as_uri()))
    with pytest.raises(Permanent, match="gone cannot be cloned"):
        await origins.effect(outside, repositories=gone).do(outside.world, outside.intent())
    assert work(outside) == outside.files() == []
    assert outside.noted == []


# --- how repositories meet


async def build(outside: Outside, *repositories: Repository) -> Json:
    effect = BuildSandbox(repositories=repositories, directory=outside.url("s"), name="x")
    return await effect.do(outside.world, outside.intent())


def text(result: Json, name: str) -> bytes:
    with tarfile.open(result["url"].removeprefix("file://")) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


async def test_at_the_top_the_later_one_wins(outside: Outside, tmp_path: Path) -> None:
    for name in ("one", "two"):
        commit(tmp_path / name, {"README": name, name: name})
    result = await build(outside, *(Repository(name, (tmp_path / name).as_uri()) for name in ("one", "two")))
    assert sorted(members(outside, result)) == ["README", "one", "two"]
    assert text(result, "README") == b"two"


async def test_a_directory_of_its_own_must_be_free(outside: Outside, tmp_path: Path) -> None:
    """GRID_LRT's clone into it fails, and nobody is told."""
    commit(tmp_path / "one", {"d/a": "1"})
    url = (tmp_path / "one").as_uri()
    with pytest.raises(Permanent, match="d is there already; two needs a checkout_dir of its own"):
        await build(outside, Repository("one", url), Repository("two", url, directory="d"))
    with pytest.raises(Permanent, match="d/a/b/d/a lies below what is a file"):
        await build(outside, Repository("one", url), Repository("two", url, directory="d/a/b"))
    assert outside.files() == []


async def test_a_file_is_no_directory(outside: Outside, tmp_path: Path) -> None:
    commit(tmp_path / "one", {"d": "a file"})
    commit(tmp_path / "two", {"d/a": "below it"})
    with pytest.raises(Permanent, match="d/a lies below what is a file in another repository"):
        await build(outside, *(Repository(name, (tmp_path / name).as_uri()) for name in ("one", "two")))


async def test_a_sandbox_has_a_size(outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "MAX_SANDBOX_BYTES", 2000)
    commit(tmp_path / "one", {"a": "x" * 1000, "b": "y" * 1000})
    url = (tmp_path / "one").as_uri()
    result = await build(outside, Repository("one", url))
    assert len(text(result, "a")) == 1000
    commit(tmp_path / "one", {"c": "z"})
    with pytest.raises(Permanent, match="the files are more than 2000 bytes"):
        await build(outside, Repository("one", url))
    monkeypatch.setattr(sandboxes, "MAX_SANDBOX_BYTES", 100)
    git(tmp_path / "one", "reset", "--quiet", "--hard", "HEAD~1")
    with pytest.raises(Conflict, match="is no sandbox of at most 100 bytes"):
        await BuildSandbox(repositories=(), directory="", name="").find(
            outside.world, outside.intent(notes=outside.noted[0])
        )


async def test_what_a_killed_daemon_left_is_forgotten(outside: Outside) -> None:
    (outside.world.work_dir / "checkout-abc" / "0").mkdir(parents=True)
    forget_copies(outside.world.work_dir)
    assert work(outside) == []


async def test_an_upload_of_which_nothing_is_heard_is_looked_for(outside: Outside, origins: Origins) -> None:
    effect = origins.effect(outside)

    async def lost(source: str, destination: str) -> None:
        await rename(source, destination)
        raise Unknown("the answer was lost")

    rename = outside.storage.rename
    outside.storage.rename = lost  # type: ignore[method-assign] # the world's fault
    with pytest.raises(Unknown):
        await effect.do(outside.world, outside.intent())
    found = await effect.find(outside.world, outside.intent(notes=outside.noted[0]))
    assert found["commits"] == origins.commits
    assert sorted(members(outside, found)) != []
    assert io.BytesIO(Path(found["url"].removeprefix("file://")).read_bytes()).read(2) == b"\x1f\x8b"
