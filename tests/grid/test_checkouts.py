"""Repositories: how a sandbox names them, and that what is checked out is a commit's files and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from gits import commit, git
from hypothesis import given
from hypothesis import strategies as st

from aglowd.errors import Permanent, Temporary
from aglowd.grid.checkouts import MAX_REPOSITORIES, Repository, check_out, repositories_of
from aglowd.grid.proc import Processes

from .conftest import SAMPLES, Install

URL = "https://example.org/x.git"
TOP = {"git": {"url": URL, "branch": "prefactor"}}


def test_the_sandbox_of_a_grid_lrt_configuration() -> None:
    config = json.loads((SAMPLES / "tokens" / "cal_pref3.json").read_text())
    expected = (
        Repository("git", "https://github.com/apmechev/GRID_Sandbox.git", "prefactor"),
        Repository("prefactor", "https://github.com/lofar-astron/prefactor.git", "master", "", "prefactor"),
    )
    assert repositories_of(config) == repositories_of(config["sandbox"]) == expected


def test_the_older_table() -> None:
    older = {
        "name": "pref_targ2",
        "git": {"location": URL, "branch": "prefactor"},
        "git_scripts": {"prefactor": {"git_url": f"{URL}2", "commit": "da4ac88"}},
    }
    expected = (
        Repository("git", URL, "prefactor"),
        Repository("prefactor", f"{URL}2", "", "da4ac88", "prefactor"),
    )
    assert repositories_of(older) == repositories_of({"Sandbox": older, "Token": {}}) == expected
    assert repositories_of({**TOP, "git_scripts": None}) == (Repository("git", URL, "prefactor"),)


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ({}, "sandbox: found no repository; expected `git`, or `scripts`"),
        ({"sandbox": {"scripts": []}}, "found no repository"),
        ({"git": "x"}, "sandbox.git: found str; expected a table with url and branch"),
        ({"git": {}}, "sandbox.git: found no text as url"),
        ({"git": {"url": URL, "branch": 3}}, "sandbox.git: found no text as branch"),
        ({"git": {"url": URL, "branch": "--upload-pack=x"}}, "found the branch '--upload-pack=x'"),
        ({"git": {"url": URL, "branch": "a b"}}, "found the branch 'a b'"),
        ({"git": {"url": URL, "commit": "HEAD"}}, "found the commit 'HEAD'; expected 7 to 64 hexadecimal digits"),
        ({"git": {"url": URL, "checkout_dir": "../x"}}, "found the checkout_dir '../x'"),
        ({"git": {"url": URL, "checkout_dir": "a//b"}}, "found the checkout_dir"),
        ({"git": {"url": URL, "checkout_dir": "a/.git"}}, "found the checkout_dir"),
        ({"git": {"url": "--upload-pack=x"}}, "found the URL '--upload-pack=x'"),
        ({"git": {"url": "ext::sh -c x"}}, "found the URL"),
        ({"git": {"url": "ext::x@y:z"}}, "found the URL"),
        ({"git": {"url": "relative/path"}}, "found the URL"),
        ({"git": {"url": "https://me:secret@example.org/x"}}, "sandbox.git: a URL must not carry a password"),
        ({"git": {"url": "https://ghp_token@example.org/x"}}, "found the URL"),
        ({"scripts": {"x": {}}}, "sandbox.scripts: found dict; expected a list of tables"),
        ({"scripts": [{"a": {"url": URL}, "b": {"url": URL}}]}, r"sandbox.scripts\[0\]: expected a table of one"),
        ({"scripts": [{"a": {"url": "x"}}]}, r"sandbox.scripts\[0\].a: found the URL"),
        ({"scripts": [{"a": {"url": URL}}, {"a": {"url": URL}}]}, "found two repositories with the name 'a'"),
        (
            {"scripts": [{n: {"url": URL, "checkout_dir": "d"}} for n in "ab"]},
            "found two repositories with the directory 'd'",
        ),
        ({"git_scripts": []} | TOP | {"git_scripts": "x"}, "sandbox.git_scripts: found str"),
        ({"scripts": [{f"{n}": {"url": URL}} for n in range(MAX_REPOSITORIES + 1)]}, "found 51 repositories"),
    ],
)
def test_a_definition_that_cannot_be_meant_is_told_with_its_field(definition: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        repositories_of(definition)


@pytest.mark.parametrize(
    "url", ["git@github.com:lofar/x.git", "ssh://git@host:22/x", "file:///srv/x", "/srv/x", "git://h/x"]
)
def test_urls_that_git_takes(url: str) -> None:
    assert repositories_of({"git": {"url": url}})[0].url == url


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["git", "scripts", "sandbox", "url", "branch", "commit", "git_scripts", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["git", "scripts", "sandbox", "Sandbox", "git_scripts"]), json_values))
def test_any_definition_is_repositories_or_a_word_why_not(definition: dict[str, Any]) -> None:
    try:
        told = str(repositories_of(definition))
    except ValueError as error:
        told = str(error)
    assert told.startswith(("(Repository(", "sandbox"))


# --- real repositories


@pytest.fixture
def real() -> Processes:
    return Processes(env={"PATH": os.environ["PATH"]})


async def test_branch_tag_and_commit(tmp_path: Path, real: Processes) -> None:
    origin = tmp_path / "origin"
    first = commit(origin, {"a": "1\r\n", "d/run*": "#!/bin/sh\n"})
    git(origin, "tag", "v1")
    other = commit(origin, {"a": "2"}, "prefactor")
    last = commit(origin, {"a": "3"}, "master")
    url = origin.as_uri()
    for number, (one, expected, text) in enumerate(
        [
            (Repository("git", url), last, "3"),
            (Repository("git", url, "prefactor"), other, "2"),
            (Repository("git", url, "v1"), first, "1\r\n"),
            (Repository("git", url, "prefactor", first[:8]), first, "1\r\n"),
            (Repository("git", str(origin), "", other), other, "2"),
        ]
    ):
        place = tmp_path / f"{number}"
        assert await check_out(real, one, place) == expected
        assert (place / "a").read_bytes().decode() == text
        assert (place / "d" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"branch": "gone"}, "cannot be cloned: .*gone not found"),
        ({"commit": "abcdef0"}, "has no commit abcdef0"),
        ({"url": "file:///nowhere/at/all"}, "cannot be cloned"),
    ],
)
async def test_what_is_not_there_is_permanent(
    tmp_path: Path, real: Processes, change: dict[str, str], problem: str
) -> None:
    commit(tmp_path / "origin", {"a": "1"})
    values = {"url": (tmp_path / "origin").as_uri(), **change}
    with pytest.raises(Permanent, match=problem):
        await check_out(real, Repository("git", **values), tmp_path / "place")


async def test_an_empty_repository_has_no_commit(tmp_path: Path, real: Processes) -> None:
    (tmp_path / "origin").mkdir()
    git(tmp_path / "origin", "init", "--quiet")
    with pytest.raises(Permanent, match="has no commit HEAD"):
        await check_out(real, Repository("git", (tmp_path / "origin").as_uri()), tmp_path / "place")


async def test_a_server_that_is_away_is_asked_again(tmp_path: Path, real: Processes) -> None:
    with pytest.raises(Temporary, match=r"http://127.0.0.1:1/x cannot be cloned: fatal"):
        await check_out(real, Repository("git", "http://127.0.0.1:1/x"), tmp_path / "place")


async def test_git_asks_nobody_and_runs_no_hooks(tmp_path: Path, processes: Processes, install: Install) -> None:
    """Nobody sits there to give a password; and a clone that a killed git left half done is none."""
    install("git", f"env > {tmp_path}/env; echo 'fatal: could not read Username' >&2; exit 128\n")
    with pytest.raises(Temporary, match="could not read Username"):
        await check_out(processes, Repository("git", URL), tmp_path / "place")
    environment = (tmp_path / "env").read_text()
    assert "GIT_TERMINAL_PROMPT=0\n" in environment
    assert "BatchMode=yes" in environment
    arguments = (tmp_path / "git.argv").read_text()
    assert arguments.startswith("-c core.hooksPath=/dev/null -c protocol.ext.allow=never clone ")
    assert arguments.endswith(f" -- {URL} {tmp_path / 'place'}\n")
