"""Git repositories, checked out as the sandbox of a GRID_LRT configuration names them.

What must stay true: only files come of it, never git's own; and no repository, branch or commit that somebody writes
down can become an option, another program or a question that nobody answers. A clone changes nothing outside: whatever
breaks it off is Temporary, and it is made anew.

The layouts are those of GRID_LRT's configurations and of the launcher that reads them (`sandbox.py` of GRID_LRT and of
GRID_PiCaS_Launcher): `git` is the repository that lies at the top, `scripts` those beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from aglowd.config import holds_password
from aglowd.crash import seam
from aglowd.errors import Permanent, Temporary
from aglowd.grid.proc import Finished, Processes
from aglowd.grid.words import quoted

CLONE_TIMEOUT_S = 1800.0
"""Real seconds for one clone."""
MAX_REPOSITORIES = 50
TOP = "git"
"""What the repository at the top of a sandbox is called."""

_URL = re.compile(
    r"(?:https?://(?![^/]*@)|(?:ssh|git|file)://|(?![^/]*::)[A-Za-z0-9_.-]+@[A-Za-z0-9.-]+:|/)[^\s\x00-\x1f]+"
)
_REF = re.compile(r"(?!-)[^\s\x00-\x1f~^:?*\[\\]{1,255}")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_QUIET = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "LC_ALL": "C",
}
_AS_IT_IS = ("-c", "core.autocrlf=false", "-c", "core.symlinks=true", "-c", "advice.detachedHead=false")
"""The files are those of the commit, whatever the account's own settings make of them."""
_NO_SUCH = ("not found", "does not exist", "does not appear to be a git repository")


class Repository(Struct, frozen=True):
    """A repository of a sandbox. `commit` comes before `branch`, which may be a tag; with neither it is the default branch.

    `directory`: where it lies in the sandbox; "" = at the top, without the names there that begin with a dot.
    """

    name: str
    url: str
    branch: str = ""
    commit: str = ""
    directory: str = ""


def repositories_of(definition: Mapping[str, Any]) -> tuple[Repository, ...]:
    """The repositories of a sandbox, that at the top first; ValueError names the field, what was found and what was expected.

    `definition`: the table `sandbox` of a GRID_LRT configuration, the configuration around it, or the older table `Sandbox`.
    """
    for around in ("sandbox", "Sandbox"):
        if isinstance(definition.get(around), Mapping):
            definition = definition[around]
    found = tuple(_listed(definition))
    if not found:
        raise ValueError("sandbox: found no repository; expected `git`, or `scripts`")
    if len(found) > MAX_REPOSITORIES:
        raise ValueError(f"sandbox: found {len(found)} repositories; expected at most {MAX_REPOSITORIES}")
    for what in ("name", "directory"):
        values = [value for one in found if (value := getattr(one, what))]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"sandbox: found two repositories with the {what} {twice[0]!r}; expected one")
    return found


def _listed(definition: Mapping[str, Any]) -> Iterator[Repository]:
    if TOP in definition:
        yield _repository(TOP, definition[TOP], TOP)
    scripts = definition.get("scripts", [])
    if not isinstance(scripts, list | tuple):
        raise ValueError(f"sandbox.scripts: found {type(scripts).__name__}; expected a list of tables")
    for number, script in enumerate(scripts):
        where = f"scripts[{number}]"
        if not isinstance(script, Mapping) or len(script) != 1:
            raise ValueError(f"sandbox.{where}: expected a table of one repository, by its name")
        for name, entry in script.items():
            yield _repository(name, entry, f"{where}.{name}")
    older = definition.get("git_scripts") or {}
    if not isinstance(older, Mapping):
        raise ValueError(f"sandbox.git_scripts: found {type(older).__name__}; expected a table of repositories")
    for name, entry in older.items():
        yield _repository(name, entry, f"git_scripts.{name}", default_directory=name)


def _repository(name: str, entry: Any, where: str, default_directory: str = "") -> Repository:
    if not isinstance(entry, Mapping):
        raise ValueError(f"sandbox.{where}: found {type(entry).__name__}; expected a table with url and branch")
    values = {key: entry[key] for key in ("branch", "commit") if entry.get(key) is not None}
    values["directory"] = entry.get("checkout_dir") or default_directory
    values["url"] = next((entry[key] for key in ("url", "git_url", "location") if key in entry), None)
    if wrong := sorted(key for key, value in values.items() if not isinstance(value, str)):
        raise ValueError(f"sandbox.{where}: found no text as {wrong[0]}; expected one")
    repository = Repository(name, **{**values, "directory": values["directory"].strip("/")})
    for problem in _problems(repository):
        raise ValueError(f"sandbox.{where}: {problem}")
    return repository


def _problems(one: Repository) -> Iterator[str]:
    if holds_password(one.url):
        yield "a URL must not carry a password: it would be shown; give it to git's credential helper"
    elif not _URL.fullmatch(one.url):
        expected = "https, ssh, git, file, user@host:path or an absolute path, and nobody's name in a URL of https"
        yield f"found the URL {one.url[:200]!r}; expected {expected}"
    if one.branch and not _REF.fullmatch(one.branch):
        yield f"found the branch {one.branch[:200]!r}; expected the name of a branch or a tag"
    if one.commit and not _COMMIT.fullmatch(one.commit):
        yield f"found the commit {one.commit[:80]!r}; expected 7 to 64 hexadecimal digits"
    if any(part in ("", ".", "..", ".git") for part in one.directory.split("/") if one.directory):
        yield f"found the checkout_dir {one.directory[:200]!r}; expected a directory inside the sandbox"


@seam
async def check_out(processes: Processes, one: Repository, directory: Path) -> str:
    """Clone the repository into a directory that does not exist yet; the full id of the commit whose files lie there then.

    Permanent if there is no such repository, branch or commit; Temporary for all else, since a clone leaves nothing outside.
    """
    branch = [f"--branch={one.branch}"] if one.branch and not one.commit else []
    cloned = await _git(processes, "clone", "--quiet", "--no-checkout", *branch, "--", one.url, str(directory))
    if cloned.rc:
        text = f"{one.url} cannot be cloned: {quoted(cloned.stderr) or f'git ended with {cloned.rc}'}"
        raise Permanent(text) if any(word in cloned.stderr for word in _NO_SUCH) else Temporary(text)
    wanted = one.commit or "HEAD"
    told = await _git(processes, "-C", str(directory), "rev-parse", "--verify", "--quiet", f"{wanted}^{{commit}}")
    commit = told.stdout.strip()
    if told.rc or not _COMMIT.fullmatch(commit):
        raise Permanent(f"{one.url} has no commit {wanted}")
    laid = await _git(processes, "-C", str(directory), *_AS_IT_IS, "checkout", "--quiet", "--force", "--detach", commit)
    if laid.rc:
        raise Temporary(f"{one.url} at {commit} cannot be checked out: {quoted(laid.stderr)}")
    return commit


async def _git(processes: Processes, *arguments: str) -> Finished:
    argv = ("git", "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", *arguments)
    return await processes.run(argv, write=False, timeout_s=CLONE_TIMEOUT_S, env=_QUIET)
