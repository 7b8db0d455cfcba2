"""The tutorial of docs/pipelines.md, typed as it stands there, in one shell; what it shows is what one gets."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "pipelines.md"
LIMIT_S = 90.0
MARK = "=== block {} ==="


def blocks() -> list[tuple[str, str]]:
    """Each block of commands with what is shown behind it, or ''."""
    text = PAGE.read_text(encoding="utf-8").partition("\n## A pipeline from nothing\n")[2]
    found: list[tuple[str, str]] = []
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        if language == "sh":
            found.append((body, ""))
        else:
            assert language == ""
            found[-1] = (found[-1][0], body)
    return found


def shows(line: str, output: str) -> bool:
    """Whether the line stands in the output; `…` is anything, and blanks are as many as there are."""
    words = [re.escape(part) for part in line.strip().split("…")]
    pattern = "[^\n]*".join(re.sub(r"(\\ )+", " +", word) for word in words)
    return re.search(rf"^\s*{pattern}\s*$", output, re.MULTILINE) is not None


@pytest.mark.world
@pytest.mark.timeout(120)
async def test_every_command_of_the_tutorial_does_what_the_tutorial_says() -> None:
    found = blocks()
    assert len(found) > 8
    script = "".join(f"echo '{MARK.format(number)}'\n{commands}" for number, (commands, _) in enumerate(found))
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {"PATH": path, "HOME": os.environ.get("HOME", "/"), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    with tempfile.TemporaryDirectory(prefix="tut") as directory:  # A socket's name must be short.
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-e", "-u", "-c", script),
            cwd=directory,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await asyncio.wait_for(shell.communicate(), LIMIT_S)
        finally:
            if shell.returncode is None:
                os.killpg(shell.pid, signal.SIGKILL)
                await shell.wait()
    told = output.decode()
    assert shell.returncode == 0, told
    parts = re.split(MARK.format(r"\d+"), told)[1:]
    assert len(parts) == len(found)
    for part, (commands, shown) in zip(parts, found, strict=True):
        for line in filter(str.strip, shown.splitlines()):
            assert shows(line, part), f"{line!r} is not what this shows:\n{commands}\n{part}"


def test_what_is_shown_is_looked_for_as_it_stands() -> None:
    output = "pipeline  rule      next\ntidy      every 6h  in 5h 2m\n"
    assert shows("tidy every 6h in …", output)
    assert shows("tidy  …", output)
    assert not shows("tidy every 7h in …", output)
    assert not shows("every 6h", output)
