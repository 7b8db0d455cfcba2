"""The peers' environments: one for each, below `build`, which git ignores."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

PEERS = {
    "dbos": ("dbos >= 3, < 4",),
    "prefect": ("prefect >= 3, < 4",),
    "airflow": ("apache-airflow >= 3, < 4",),
}
"""What is installed for each. All of them run with the Python that aglowd runs with."""
ENVIRONMENTS = "W_ENVIRONMENTS"
"""The variable that names another directory for the environments."""


def _environment(peer: str) -> Path:
    root = os.environ.get(ENVIRONMENTS)
    return (Path(root) if root else Path(__file__).parents[2] / "build" / "workload_w") / peer


def python_of(peer: str) -> str:
    """The peer's interpreter; FileNotFoundError says how to get it."""
    python = _environment(peer) / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{peer} is not installed: python -m bench.workload_w install {peer}")
    return str(python)


def install(peer: str) -> None:
    """Make its environment anew, with the newest of what it needs, and aiohttp, by which it asks the service."""
    place = _environment(peer)
    venv.create(place, clear=True, with_pip=True)
    argv = [str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "aiohttp"]
    subprocess.run([*argv, *PEERS[peer]], check=True)
    print(f"{peer} is installed in {place}", file=sys.stderr)
