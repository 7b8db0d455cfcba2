"""Real git repositories in a directory of the test."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

_ENV = {
    "PATH": "/usr/bin:/bin:/usr/local/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
}


def git(directory: Path, *arguments: str) -> str:
    """What git says."""
    argv = ("git", "-C", str(directory), *arguments)
    return subprocess.run(argv, env=_ENV, check=True, capture_output=True, text=True).stdout.strip()


def commit(directory: Path, files: Mapping[str, str], branch: str = "master") -> str:
    """Commit the files on that branch, which is made if need be; the new commit's id. A name that ends in `*` is executable."""
    if not (directory / ".git").exists():
        directory.mkdir(parents=True)
        git(directory, "init", "--quiet", "--initial-branch=master")
    if git(directory, "branch", "--show-current") != branch:
        known = branch in git(directory, "branch", "--format=%(refname:short)").split()
        git(directory, "checkout", "--quiet", *([] if known else ["-b"]), branch)
    for name, text in files.items():
        path = directory / name.rstrip("*")
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text[3:])
            continue
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755 if name.endswith("*") else 0o644)
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--allow-empty", "-m", "files")
    return git(directory, "rev-parse", "HEAD")
