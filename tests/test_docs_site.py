"""`make docs`: the site is built without a warning, holds every page, and is read without a network."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
LIMIT_S = 300.0


def how_it_is_built() -> list[str]:
    """The options of `make docs`, without the directories."""
    (command,) = re.findall(r"^\t\$\(BIN\)/sphinx-build (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    words = shlex.split(command)
    assert words[-2:] == ["docs", "build/docs"]
    read = words.index("-d")
    return [*words[:read], *words[read + 2 : -2]]


def test_what_sphinx_warns_of_is_an_error() -> None:
    assert {"-W", "-n", "--keep-going", "-E"} <= {*how_it_is_built()}


@pytest.mark.long
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.skipif(find_spec("sphinx") is None, reason="sphinx is not installed: make docs installs it")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", *how_it_is_built(), "-d", str(tmp_path / "read"), "docs", str(site)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    assert PAGES
    for page in PAGES:
        text = (site / f"{page.stem}.html").read_text(encoding="utf-8")
        assert not re.search(r'(?:src="|<link [^>]*href=")(?:https?:)?//', text), f"{page.name} asks the network"
    front = (site / "index.html").read_text(encoding="utf-8")
    assert all(f'href="{page.stem}.html"' in front for page in PAGES if page.stem != "index")
    # What a forge shows at the top of the tree is read here, not written again.
    assert "make demo" in (site / "start.html").read_text(encoding="utf-8")
    assert 'href="install.html"' in (site / "start.html").read_text(encoding="utf-8")
