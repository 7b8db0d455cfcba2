"""A full disk under a real daemon: it says so, it accepts and does nothing, it stops in time, and it goes on by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .child import STOP_TIMEOUT_S, Home, running

BEATS = {"WATCHDOG_USEC": "1500000"}
"""The daemon tells its status every half second."""
AGLOWCTL = "from aglowd.cli.control import main; main(prog_name='aglowctl')"
FULL_BYTES = 1
"""No file may be longer than this: each write to the database fails."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    for name in ("began", "gate"):
        os.mkfifo(made.path / name)
    made.tool("slow", f"echo $$ > {made.path}/began; read go < {made.path}/gate; echo x >> {made.path}/site/made")
    made.tool("next", f"echo y >> {made.path}/site/next")
    made.steps(
        work=f'kind = "command"\nargv = ["slow"]\ncreates = "file://{made.path}/site/made"',
        after=f'kind = "command"\nneeds = ["work"]\nargv = ["next"]\ncreates = "file://{made.path}/site/next"',
    )
    return made


async def through(path: Path, text: str | None = None) -> str:
    """Read or write a pipe, away from the loop."""
    return await asyncio.to_thread(lambda: path.read_text() if text is None else str(path.write_text(text)))


async def test_a_full_disk_degrades_the_daemon_and_room_brings_it_back(home: Home) -> None:
    async with running(home, env=BEATS) as child:
        await through(home.path / "began")
        child.limit_files(FULL_BYTES)
        await through(home.path / "gate", "go\n")  # The command makes its own file before the limit of its own.
        said = await child.told(lambda text: "NOT ACCEPTING" in text)
        assert "cannot be written" in said
        status, answer = await child.ask("/ready")
        assert status == 503
        assert "cannot be written" in answer["missing"][0]
        status, answer = await child.ask("/live")
        assert (status, answer["alive"]) == (200, True), "a restart would make no room"
        status, answer = await child.ask("/v1/status")
        assert status == 200, "reads go on"
        assert (
            "make room on its disk" in answer["health"]["database"]
            or "look at its disk" in answer["health"]["database"]
        )
        shown = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", AGLOWCTL, "--socket", str(home.socket), "status"],
            capture_output=True,
            text=True,
        )
        assert "\nDATABASE " in shown.stdout
        assert "until then nothing new is accepted or done" in shown.stdout
        assert not (home.path / "site" / "next").exists(), "nothing is done whose intent is not written"
        child.limit_files(-1)
        ended = await child.event("RunEnded")
        assert ended[0]["data"]["state"] == "done"
        assert (await child.ask("/ready"))[0] == 200
        assert await child.stop() == 0
        assert child.logged("database_recovered")
    assert (home.path / "site" / "made").read_text() == "x\n"
    assert (home.path / "site" / "next").read_text() == "y\n"
    assert home.rows("PRAGMA integrity_check") == [("ok",)]


async def test_a_full_disk_does_not_hold_up_the_stop_and_leaves_an_honest_journal(home: Home) -> None:
    async with running(home, env=BEATS) as child:
        await through(home.path / "began")
        child.limit_files(FULL_BYTES)
        await through(home.path / "gate", "go\n")
        await child.told(lambda text: "NOT ACCEPTING" in text)
        child.signal(signal.SIGTERM)
        assert await child.end(STOP_TIMEOUT_S + 10.0) == 0
    assert home.rows("SELECT state FROM effects") == [("open",)], "it was done, and that could not be recorded"
    async with running(home) as child:
        await child.event("RunEnded")
        assert await child.stop() == 0
    assert (home.path / "site" / "made").read_text() == "x\n", "it was found, not done again"


async def test_a_daemon_that_finds_its_disk_full_does_not_start_and_says_why(home: Home) -> None:
    async with running(home) as child:
        await through(home.path / "began")
        child.signal(signal.SIGKILL)
        await child.end()
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY)); "
        "from aglowd.cli.daemon import main; main()"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", limited, "start", "--config", str(home.config)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 75
    assert "cannot be used" in done.stderr
    assert "disk" in done.stderr
    assert home.rows("SELECT state FROM effects") == [("open",)]
