"""Which commit a branch is at, asked of a real repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from aglowd.errors import Permanent, Temporary
from aglowd.grid.git import ENVIRONMENT, MAX_OUTPUT_BYTES, find_head
from aglowd.grid.proc import Processes

from .conftest import Install


class Repository:
    """A repository on this host; `commit` makes one more commit and tells its name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "master")

    @property
    def url(self) -> str:
        return self.path.as_uri()

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.path), "GIT_CONFIG_NOSYSTEM": "1"}
        ended = subprocess.run(
            ("git", *who, "-C", str(self.path), *words), check=True, capture_output=True, text=True, env=environment
        )
        return ended.stdout.strip()

    def commit(self) -> str:
        self.git("commit", "-q", "--allow-empty", "-m", "a change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


async def test_a_branch_a_tag_and_a_full_ref_are_found(processes: Processes, repository: Repository) -> None:
    first = repository.commit()
    repository.git("tag", "plain")
    repository.git("tag", "-a", "v1", "-m", "a release")
    repository.git("branch", "other")
    second = repository.commit()
    assert first != second
    for ref, commit in {
        "HEAD": second,
        "master": second,
        "refs/heads/master": second,
        "other": first,
        "plain": first,
        "v1": first,
        "refs/tags/v1": first,
    }.items():
        assert await find_head(processes, repository.url, ref) == commit, ref


async def test_a_branch_comes_before_a_tag_and_no_other_name_with_the_same_end_is_taken(
    processes: Processes, repository: Repository
) -> None:
    first = repository.commit()
    repository.git("tag", "twin")
    repository.git("branch", "feature/new")
    second = repository.commit()
    repository.git("branch", "twin")
    assert await find_head(processes, repository.url, "twin") == second
    assert await find_head(processes, repository.url, "feature/new") == first
    with pytest.raises(Permanent, match="no branch or tag 'new'") as caught:
        await find_head(processes, repository.url, "new")
    assert caught.value.absent


async def test_a_repository_that_is_away_may_come_back(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(Temporary, match="git ls-remote file://"):
        await find_head(processes, (tmp_path / "none").as_uri(), "master")


@pytest.mark.parametrize(("url", "ref"), [("--upload-pack=touch evil", "x"), ("file:///x", "--exec=evil")])
async def test_no_name_is_an_option(processes: Processes, url: str, ref: str) -> None:
    with pytest.raises(Permanent, match="hyphen"):
        await find_head(processes, url, ref)


async def test_no_url_runs_a_program_of_its_own(processes: Processes, tmp_path: Path) -> None:
    with pytest.raises(Temporary, match="not allowed"):
        await find_head(processes, f"ext::sh -c touch% {tmp_path}/evil", "master")
    assert not (tmp_path / "evil").exists()


async def test_nobody_is_asked_for_a_password(processes: Processes, install: Install, tmp_path: Path) -> None:
    install("git", "env | sort > " + str(tmp_path / "env") + "\nexit 128\n")
    with pytest.raises(Temporary, match="ended with 128"):
        await find_head(processes, "https://git.example.org/x", "master")
    told = (tmp_path / "env").read_text(encoding="utf-8")
    assert all(f"{name}={value}\n" in told for name, value in ENVIRONMENT.items())


async def test_a_repository_that_does_not_stop_talking_is_cut_off(processes: Processes, install: Install) -> None:
    install("git", "yes")
    with pytest.raises(Temporary, match=f"more than {MAX_OUTPUT_BYTES} bytes"):
        await find_head(processes, "https://git.example.org/x", "master")
